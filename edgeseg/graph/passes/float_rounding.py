"""Compute chosen nodes of a Q/DQ graph in float, rounded as the file rounds.

A runtime whose INT8 kernels compute a layer wrongly can still run the file: the layer reads its input rounded by plain
operators (divide, round, clip, multiply) and its weights as float constants. Values are those of the Q/DQ nodes, so the
labels stay; the layer takes the time of a float layer.
"""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, helper, numpy_helper

from edgeseg.graph.graph import attributes, copied, is_op


def quantized_readers(model: ModelProto) -> list[str]:
    """Return the names of the nodes that read a dequantized activation, in graph order.

    ``round_in_float`` can compute these in float: convolutions, matrix products, sums, pools, concats, ...

    Parameters
    ----------
    model : a Q/DQ graph with named nodes.
    """
    graph = _Pairs(model)
    return [n.name for n in model.graph.node if not is_op(n, "QuantizeLinear") and graph.activations(n)]


def round_in_float(model: ModelProto, names: Collection[str]) -> ModelProto:
    """Return a copy of ``model`` whose nodes ``names`` read rounded floats instead of dequantized integers.

    Parameters
    ----------
    model : a Q/DQ graph with named nodes, before INT8 tensors pass through other operators.
    names : names that ``quantized_readers`` returned; other names are ignored.
    """
    copy = copied(model)
    graph = _Pairs(copy)
    wanted = set(names)
    added: dict[str, list[NodeProto]] = {}

    # 1. Let the nodes read rounded floats; the nodes that round are collected by the tensor that they read.
    for node in copy.graph.node:
        if node.name not in wanted or is_op(node, "QuantizeLinear"):
            continue
        for place, dequantizer in graph.activations(node).items():
            node.input[place] = graph.rounded(dequantizer, added)
        for place, name in enumerate(node.input):
            constant = graph.folded_weight(name)
            if constant is not None:
                node.input[place] = constant

    # 2. Put the nodes that round behind the maker of what they read.
    nodes: list[NodeProto] = []
    for node in copy.graph.node:
        nodes.append(node)
        for name in node.output:
            nodes += added.pop(name, [])

    # 3. Those that are left read a graph input: they go in front.
    readers_of_inputs: list[NodeProto] = []
    for chain in added.values():
        readers_of_inputs += chain
    nodes = readers_of_inputs + nodes

    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del copy.graph.node[:]
    copy.graph.node.extend(copies)
    _drop_unread_pairs(copy)
    return copy


class _Pairs:
    """Look up the Q and DQ nodes of a graph, and add constants to it."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.constants = {t.name: t for t in self.graph.initializer}
        self.producer: dict[str, NodeProto] = {}
        for node in self.graph.node:
            self.producer |= {name: node for name in node.output if name}

    def activations(self, node: NodeProto) -> dict[int, NodeProto]:
        """Return the DQ nodes of activations that ``node`` reads, by the place of its input."""
        found = {}
        for place, name in enumerate(node.input):
            dequantizer = self.producer.get(name)
            if dequantizer is None or not is_op(dequantizer, "DequantizeLinear"):
                continue
            quantizer = self.producer.get(dequantizer.input[0])
            if is_op(quantizer, "QuantizeLinear") and self._alike(quantizer, dequantizer):
                found[place] = dequantizer
        return found

    def _alike(self, quantizer: NodeProto | None, dequantizer: NodeProto) -> bool:
        """Return True if a Q and a DQ node have the same constant scale and the same constant zero point."""
        if quantizer is None:
            return False
        ours = self._parameters(dequantizer)
        theirs = self._parameters(quantizer)
        if ours is None or theirs is None:
            return False
        return ours[0] == theirs[0] and ours[1] == theirs[1] and ours[2] == theirs[2]

    def _parameters(self, node: NodeProto) -> tuple[float, int, np.dtype[np.generic]] | None:
        """Return scale, zero point and integer type of a Q or DQ node; ``None`` if they are not one constant each."""
        scale = self._array(node.input[1])
        has_zero = len(node.input) > 2 and node.input[2]
        zero = self._array(node.input[2]) if has_zero else np.zeros((), np.uint8)
        if scale is None or zero is None or scale.size != 1 or zero.size != 1:
            return None
        return float(scale.reshape(())), int(zero.reshape(())), zero.dtype

    def _array(self, name: str) -> npt.NDArray[np.generic] | None:
        """Return the value of an initializer, or ``None`` for another tensor."""
        return numpy_helper.to_array(self.constants[name]) if name in self.constants else None

    def rounded(self, dequantizer: NodeProto, added: dict[str, list[NodeProto]]) -> str:
        """Compute a DQ node's output by plain operators, and return its name.

        The new nodes go to ``added``, by the name of the tensor that they read.
        """
        parameters = self._parameters(dequantizer)
        quantizer = self.producer[dequantizer.input[0]]
        assert parameters is not None
        scale, zero, dtype = parameters
        source = quantizer.input[0]
        base = f"{dequantizer.output[0]}/float"
        out = f"{base}/rounded"
        if any(n.output[0] == out for n in added.get(source, [])):
            return out

        limits = np.iinfo(dtype.name)
        step = self._constant(f"{base}/step", np.float32(scale))
        least = self._constant(f"{base}/least", np.float32(limits.min - zero))
        largest = self._constant(f"{base}/largest", np.float32(limits.max - zero))
        added.setdefault(source, []).extend(
            [
                helper.make_node("Div", [source, step], [f"{base}/steps"], f"{base}/steps"),
                helper.make_node("Round", [f"{base}/steps"], [f"{base}/whole"], f"{base}/whole"),
                helper.make_node("Clip", [f"{base}/whole", least, largest], [f"{base}/clipped"], f"{base}/clipped"),
                helper.make_node("Mul", [f"{base}/clipped", step], [out], out),
            ]
        )
        return out

    def folded_weight(self, name: str) -> str | None:
        """Return the name of a float constant that equals a dequantized constant; ``None`` for another tensor."""
        dequantizer = self.producer.get(name)
        if dequantizer is None or not is_op(dequantizer, "DequantizeLinear"):
            return None

        steps = self._array(dequantizer.input[0])
        scale = self._array(dequantizer.input[1])
        if steps is None or scale is None or attributes(dequantizer).get("block_size", 0):
            return None
        has_zero = len(dequantizer.input) > 2 and dequantizer.input[2]
        zero = self._array(dequantizer.input[2]) if has_zero else None

        # float32(steps - zero) * scale, per tensor or per channel.
        shape = [1] * steps.ndim
        if scale.size > 1:
            shape[attributes(dequantizer).get("axis", 1)] = -1
        shifted = steps.astype(np.int64) - (0 if zero is None else zero.astype(np.int64).reshape(shape))
        value = (shifted.astype(np.float32) * scale.astype(np.float32).reshape(shape)).astype(np.float32)
        return self._constant(f"{name}/float", value)

    def _constant(self, name: str, value: npt.NDArray[np.float32] | np.float32) -> str:
        """Add a constant unless it is there; return its name."""
        if name not in self.constants:
            tensor = numpy_helper.from_array(np.asarray(value), name)
            self.graph.initializer.append(tensor)
            self.constants[name] = tensor
        return name


def _drop_unread_pairs(model: ModelProto) -> None:
    """Remove Q and DQ nodes and constants that nothing reads any more."""
    from edgeseg.graph.passes.fold_batchnorm import drop_unread

    outputs = {o.name for o in model.graph.output}
    while True:
        read = set(outputs)
        for node in model.graph.node:
            read |= set(node.input)
        pairs = [n for n in model.graph.node if is_op(n, "QuantizeLinear", "DequantizeLinear")]
        loose = [n for n in pairs if n.output[0] not in read]
        if not loose:
            break
        for node in loose:
            model.graph.node.remove(node)
    drop_unread(model)
