"""Rewrite a Q/DQ graph for a target that computes on INT8 tensors: operators that move values move bytes.

In the file every such operator stands between a DQ and a Q of one scale, ``DQ -> MaxPool -> Q``. Rounding to one scale
keeps order and zero. So moving before rounding gives the same bytes as moving after it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, helper, numpy_helper

from edgeseg.graph.graph import is_op, names_read, subgraphs
from edgeseg.graph.ops import MOVES, moves

_OLDEST_OPSET = 13  # every move takes INT8 from there on
# OpenVINO's INT8 convolutions do not recognise a DQ that stands behind one of these operators; in front they do.
_RESHAPES = ("Reshape", "Transpose", "Pad", "Squeeze", "Unsqueeze", "Flatten")


def propagate_qdq(model: ModelProto, only: tuple[str, ...] | None = None) -> ModelProto:
    """Let every move between a DQ and a Q of the same scale work on the INT8 tensor, in place; return ``model``.

    Parameters
    ----------
    model : a Q/DQ graph.
    only : the operators to rewrite; by default all that move values.
    """
    pairs = _Pairs(model)
    for node in list(model.graph.node):
        if only is None or node.op_type in only:
            pairs.carry(node)
    pairs.clean()
    return model


def dequantize_early(model: ModelProto) -> ModelProto:
    """Move every DQ in front of the reshapes of its INT8 tensor, in place; return ``model``.

    Parameters
    ----------
    model : a Q/DQ graph after ``propagate_qdq``.
    """
    pairs = _Pairs(model)
    while any(pairs.hoist(node) for node in model.graph.node if is_op(node, "DequantizeLinear")):
        pass
    pairs.clean()
    return model


class _Pairs:
    """Look up the Q and DQ nodes of a graph, and edit it; the look-ups stay true."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        standard = ("", "ai.onnx")
        self.opset = next((o.version for o in model.opset_import if o.domain in standard), 0)
        self.values = {t.name: t for t in self.graph.initializer}
        self.outputs = {o.name for o in self.graph.output}
        self.producer: dict[str, NodeProto] = {}
        for node in self.graph.node:
            self.producer |= {name: node for name in node.output if name}

        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.graph.node:
            # A tensor that the body of a control-flow node reads must keep its name, as an output must.
            for body in subgraphs(node):
                self.outputs |= set(names_read(body))
            for name in set(node.input):
                self.readers.setdefault(name, []).append(node)

    def scale(self, node: NodeProto | None) -> float | None:
        """Return the scale of a Q or DQ node, or ``None`` for any other node.

        The node must be per-tensor INT8 with zero point 0.
        """
        if node is None or not is_op(node, "QuantizeLinear", "DequantizeLinear") or len(node.input) < 3:
            return None

        step = self._value(node.input[1])
        zero = self._value(node.input[2])
        if step is None or zero is None or step.size != 1 or zero.dtype != np.int8 or np.any(zero):
            return None
        return float(step.reshape(()))

    def _value(self, name: str) -> npt.NDArray[np.generic] | None:
        """Return the value of an initializer, or ``None`` for another tensor."""
        return numpy_helper.to_array(self.values[name]) if name in self.values else None

    def carry(self, node: NodeProto) -> None:
        """Make a move work on INT8 if the DQs in front of it and the Qs behind it have one scale."""
        if not moves(node, self._value) or self.opset < _OLDEST_OPSET:
            return

        # 1. In front: DQ nodes of one scale.
        count = len(node.input) if MOVES[node.op_type] < 0 else MOVES[node.op_type]
        makers = [self.producer.get(name) for name in node.input[:count]]
        steps = {self.scale(maker) for maker in makers}
        if len(steps) != 1 or None in steps or not all(is_op(m, "DequantizeLinear") for m in makers):
            return
        step = steps.pop()

        # 2. Behind each output: Q nodes of the same scale, none of them a graph output.
        outputs = node.output if is_op(node, "Split") else node.output[:1]
        wanted = {name: self._quantizers(name, step) for name in outputs if name}
        if not all(wanted.values()):
            return
        for found in wanted.values():
            if any(quantizer.output[0] in self.outputs for quantizer in found):
                return

        # 3. Read the INT8 tensors in front of the DQs.
        for place, maker in enumerate(makers):
            if maker is not None:
                self._read(node, place, maker.input[0])
        if is_op(node, "Pad") and len(node.input) > 2 and node.input[2]:
            node.input[2] = self._zero(node.input[2])

        # 4. Write the INT8 tensors behind the Qs.
        for name, quantizers in wanted.items():
            self._replace(node, name, quantizers)

    def _quantizers(self, name: str, step: float | None) -> list[NodeProto]:
        """Return the Q nodes with scale ``step`` that read a tensor."""
        return [n for n in self.readers.get(name, []) if is_op(n, "QuantizeLinear") and self.scale(n) == step]

    def _read(self, node: NodeProto, place: int, name: str) -> None:
        """Let a node read the tensor ``name`` as its input number ``place``."""
        node.input[place] = name
        self.readers.setdefault(name, []).append(node)

    def _zero(self, name: str) -> str:
        """Return the name of an INT8 zero that stands for the float zero ``name``."""
        zero = f"{name}/int8"
        if zero not in self.values:
            tensor = numpy_helper.from_array(np.zeros((), np.int8), zero)
            self.graph.initializer.append(tensor)
            self.values[zero] = tensor
        return zero

    def _replace(self, node: NodeProto, name: str, quantizers: list[NodeProto]) -> None:
        """Let a node write the INT8 tensor of the first of ``quantizers``, and remove them.

        Nodes that read the float tensor ``name`` read a DQ of the INT8 tensor instead.
        """
        # 1. The node writes the INT8 tensor.
        first = quantizers[0]
        steps = first.output[0]
        node.output[list(node.output).index(name)] = steps
        self.producer[steps] = node

        # 2. Readers of the other quantizers read the same tensor.
        dropped = {id(quantizer) for quantizer in quantizers}
        for other in quantizers[1:]:
            for reader in self.readers.get(other.output[0], []):
                _rename(reader, other.output[0], steps)
                self.readers.setdefault(steps, []).append(reader)

        # 3. Readers of the float tensor read a DQ: the one that is there, or a new one.
        scale = self.scale(first)
        int8_readers = self.readers.get(steps, [])
        back = (n for n in int8_readers if is_op(n, "DequantizeLinear") and self.scale(n) == scale)
        dequantizer = next(back, None)
        left = [n for n in self.readers.get(name, []) if id(n) not in dropped]
        if name in self.outputs or (left and dequantizer is None):
            made = helper.make_node("DequantizeLinear", [steps, *first.input[1:3]], [name], f"{first.name}/float")
            self.graph.node.append(made)
            self.producer[name] = made
            self.readers.setdefault(steps, []).append(made)
        elif dequantizer is not None:
            for reader in left:
                shape_only = is_op(reader, "Shape")
                _rename(reader, name, steps if shape_only else dequantizer.output[0])
                self.readers.setdefault(dequantizer.output[0], []).append(reader)

        for quantizer in quantizers:
            self.graph.node.remove(quantizer)

    def clean(self) -> None:
        """Remove DQ nodes that nothing reads any more, sort the others, and forget inferred types."""
        while True:
            read = set(self.outputs)
            for node in self.graph.node:
                read |= set(node.input)
            loose = [n for n in self.graph.node if is_op(n, "DequantizeLinear") and n.output[0] not in read]
            if not loose:
                break
            for node in loose:
                self.graph.node.remove(node)
        _sort(self.graph.node)
        del self.graph.value_info[:]

    def hoist(self, dequantize: NodeProto) -> bool:
        """Swap a DQ and the reshape in front of it, if nothing else reads the reshape; return True if swapped."""
        # 1. Check that the two can be swapped.
        reshape = self.producer.get(dequantize.input[0])
        if self.scale(dequantize) is None or not is_op(reshape, *_RESHAPES) or reshape is None:
            return False
        steps = dequantize.input[0]
        if len(self.readers[steps]) != 1 or steps in self.outputs or reshape.input[0] in self.values:
            return False
        source = reshape.input[0]
        out = dequantize.output[0]
        floats = f"{steps}/early"

        # 2. A padding pads with a float zero from here on.
        if is_op(reshape, "Pad") and len(reshape.input) > 2 and reshape.input[2]:
            value = self._value(reshape.input[2])
            if value is None or np.any(value):
                return False
            zero = numpy_helper.from_array(np.zeros((), np.float32), f"{reshape.input[2]}/float")
            if zero.name not in self.values:
                self.graph.initializer.append(zero)
                self.values[zero.name] = zero
            reshape.input[2] = zero.name

        # 3. source -> reshape -> steps -> DQ -> out becomes source -> DQ -> floats -> reshape -> out.
        dequantize.input[0] = source
        dequantize.output[0] = floats
        reshape.input[0] = floats
        reshape.output[0] = out
        self.producer[floats] = dequantize
        self.producer[out] = reshape
        self.readers[floats] = [reshape]
        others = [n for n in self.readers[source] if n is not reshape]
        self.readers[source] = [*others, dequantize]
        return True


def _rename(node: NodeProto, old: str, new: str) -> None:
    """Let a node read the tensor ``new`` instead of ``old``."""
    for place, name in enumerate(node.input):
        if name == old:
            node.input[place] = new


def _sort(nodes: Any) -> None:
    """Order nodes, in place, so that each comes after the nodes it reads; otherwise the order stays."""
    maker: dict[str, int] = {}
    for place, node in enumerate(nodes):
        maker |= {name: place for name in node.output if name}

    # Depth first, without recursion: a node is done once all makers of its inputs are.
    ordered: list[NodeProto] = []
    done: set[int] = set()
    for root in range(len(nodes)):
        stack = [root]
        while stack:
            place = stack[-1]
            names = list(nodes[place].input)
            for body in subgraphs(nodes[place]):
                names += names_read(body)
            makers = [maker[name] for name in names if name in maker]
            before = [other for other in makers if other not in done and other != place]
            if place in done or not before:
                stack.pop()
                if place not in done:
                    done.add(place)
                    ordered.append(nodes[place])
            else:
                stack += before

    copies = [NodeProto.FromString(n.SerializeToString()) for n in ordered]
    del nodes[:]
    nodes.extend(copies)
