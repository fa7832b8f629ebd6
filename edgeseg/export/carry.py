"""A Q/DQ graph for a target that computes on INT8 tensors: what only moves values moves bytes.

In the file every such operator stands between a DQ and a Q of one scale, ``DQ -> MaxPool -> Q``. Rounding to one scale
keeps order and zero, so that moving before or after it gives the same bytes.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, helper, numpy_helper

from edgeseg.export.graph import is_op, names_read, subgraphs
from edgeseg.quantize.placement import MOVES, moves

_OLDEST_OPSET = 13  # every move takes INT8 from there on
# What OpenVINO's INT8 convolutions do not see a DQ through; in front of these they do.
_RESHAPES = ("Reshape", "Transpose", "Pad", "Squeeze", "Unsqueeze", "Flatten")


def carry_int8(model: ModelProto, only: tuple[str, ...] | None = None) -> ModelProto:
    """A copy of ``model`` in which every move between a DQ and a Q of the same scale works on the INT8 tensor.

    ``only`` these operators, if given.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    pairs = _Pairs(copy)
    for node in list(copy.graph.node):
        if only is None or node.op_type in only:
            pairs.carry(node)
    pairs.clean()
    return copy


def dequantize_early(model: ModelProto) -> ModelProto:
    """A copy of ``model`` with every DQ moved in front of the reshapes of its INT8 tensor."""
    copy = ModelProto()
    copy.CopyFrom(model)
    pairs = _Pairs(copy)
    while any(pairs.hoist(node) for node in copy.graph.node if is_op(node, "DequantizeLinear")):
        pass
    pairs.clean()
    return copy


class _Pairs:
    """The Q and DQ nodes of a graph by what they read and give; edits keep the look-ups true."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
        self.values = {t.name: t for t in self.graph.initializer}
        self.outputs = {o.name for o in self.graph.output}
        self.producer = {o: n for n in self.graph.node for o in n.output if o}
        # What the bodies of control flow read must keep its name, as an output must.
        self.outputs |= {i for n in self.graph.node for body in subgraphs(n) for i in names_read(body)}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.graph.node:
            for name in set(node.input):
                self.readers.setdefault(name, []).append(node)

    def scale(self, node: NodeProto | None) -> float | None:
        """The scale of a Q or DQ node of INT8, a tensor, zero point zero; ``None`` for any other node."""
        if node is None or not is_op(node, "QuantizeLinear", "DequantizeLinear") or len(node.input) < 3:
            return None
        step, zero = (self._value(name) for name in node.input[1:3])
        if step is None or zero is None or step.size != 1 or zero.dtype != np.int8 or np.any(zero):
            return None
        return float(step.reshape(()))

    def _value(self, name: str) -> npt.NDArray[np.generic] | None:
        return numpy_helper.to_array(self.values[name]) if name in self.values else None

    def carry(self, node: NodeProto) -> None:
        """Make one move work on INT8, where what it reads and what is read of it have one scale."""
        if not moves(node, self._value) or self.opset < _OLDEST_OPSET:
            return
        count = len(node.input) if MOVES[node.op_type] < 0 else MOVES[node.op_type]
        makers = [self.producer.get(name) for name in node.input[:count]]
        steps = {self.scale(maker) for maker in makers}
        if len(steps) != 1 or None in steps or not all(is_op(m, "DequantizeLinear") for m in makers):
            return
        step = steps.pop()
        outputs = [o for o in (node.output if is_op(node, "Split") else node.output[:1]) if o]
        wanted = {name: self._quantizers(name, step) for name in outputs}
        if not all(wanted.values()) or any(q.output[0] in self.outputs for found in wanted.values() for q in found):
            return
        for place, maker in enumerate(makers):
            if maker is not None:
                self._read(node, place, maker.input[0])
        if is_op(node, "Pad") and len(node.input) > 2 and node.input[2]:
            node.input[2] = self._zero(node.input[2])
        for name, quantizers in wanted.items():
            self._replace(node, name, quantizers)

    def _quantizers(self, name: str, step: float | None) -> list[NodeProto]:
        """The Q nodes of scale ``step`` that read ``name``."""
        return [n for n in self.readers.get(name, []) if is_op(n, "QuantizeLinear") and self.scale(n) == step]

    def _read(self, node: NodeProto, place: int, name: str) -> None:
        node.input[place] = name
        self.readers.setdefault(name, []).append(node)

    def _zero(self, name: str) -> str:
        zero = f"{name}/int8"
        if zero not in self.values:
            tensor = numpy_helper.from_array(np.zeros((), np.int8), zero)
            self.graph.initializer.append(tensor)
            self.values[zero] = tensor
        return zero

    def _replace(self, node: NodeProto, name: str, quantizers: list[NodeProto]) -> None:
        """``node`` gives what the first of ``quantizers`` gave; who read the float tensor reads a DQ of it."""
        first = quantizers[0]
        steps = first.output[0]
        node.output[list(node.output).index(name)] = steps
        self.producer[steps] = node
        dropped = {id(q) for q in quantizers}
        for other in quantizers[1:]:
            for reader in self.readers.get(other.output[0], []):
                _rename(reader, other.output[0], steps)
                self.readers.setdefault(steps, []).append(reader)
        scale = self.scale(first)
        back = (n for n in self.readers.get(steps, []) if is_op(n, "DequantizeLinear") and self.scale(n) == scale)
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
        """Drop DQ nodes that nobody reads any more, sort the rest, forget inferred types of what changed."""
        while True:
            read = {name for node in self.graph.node for name in node.input} | self.outputs
            loose = [n for n in self.graph.node if is_op(n, "DequantizeLinear") and n.output[0] not in read]
            if not loose:
                break
            for node in loose:
                self.graph.node.remove(node)
        _sort(self.graph.node)
        del self.graph.value_info[:]

    def hoist(self, dequantize: NodeProto) -> bool:
        """Swap a DQ and the reshape it reads from, if nothing else reads that."""
        reshape = self.producer.get(dequantize.input[0])
        if self.scale(dequantize) is None or not is_op(reshape, *_RESHAPES) or reshape is None:
            return False
        steps = dequantize.input[0]
        if len(self.readers[steps]) != 1 or steps in self.outputs or reshape.input[0] in self.values:
            return False
        source, out = reshape.input[0], dequantize.output[0]
        floats = f"{steps}/early"
        if is_op(reshape, "Pad") and len(reshape.input) > 2 and reshape.input[2]:
            value = self._value(reshape.input[2])
            if value is None or np.any(value):
                return False
            zero = numpy_helper.from_array(np.zeros((), np.float32), f"{reshape.input[2]}/float")
            if zero.name not in self.values:
                self.graph.initializer.append(zero)
                self.values[zero.name] = zero
            reshape.input[2] = zero.name
        dequantize.input[0], dequantize.output[0] = source, floats
        reshape.input[0], reshape.output[0] = floats, out
        self.producer[floats], self.producer[out] = dequantize, reshape
        self.readers[floats] = [reshape]
        self.readers[source] = [n for n in self.readers[source] if n is not reshape] + [dequantize]
        return True


def _rename(node: NodeProto, old: str, new: str) -> None:
    for place, name in enumerate(node.input):
        if name == old:
            node.input[place] = new


def _sort(nodes: Any) -> None:
    """Order nodes, in place, so that each comes after the nodes it reads; otherwise the order stays."""
    maker = {o: place for place, n in enumerate(nodes) for o in n.output if o}
    ordered: list[NodeProto] = []
    done: set[int] = set()
    for root in range(len(nodes)):
        stack = [root]
        while stack:
            place = stack[-1]
            names = [*nodes[place].input, *(i for body in subgraphs(nodes[place]) for i in names_read(body))]
            before = [maker[i] for i in names if i in maker and maker[i] not in done and maker[i] != place]
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
