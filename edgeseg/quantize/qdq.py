"""A float net, a placement and its scales to a Q/DQ ONNX file: the INT8 form every target reads.

Weights are symmetric INT8 a channel of the output, activations symmetric INT8 a tensor; zero points are written out and
zero (left out, ONNX reads UINT8 and TensorRT INT8). Biases stay in float.

Unless the caller wants otherwise, the arithmetic is *exact*: every scale is a power of two and every bias a multiple of
its layer's step (input scale times weight scale). Then a layer's sum of integers, its bias, the rescaling and sums with
other layers are all without rounding in float32 (up to 2 ** 24 steps, where INT8 has long saturated; a bias that is an
operator of its own behind a matrix product is added as it is). Normalisations behind an activation have short gains
(``shorten_gains``). So what is rounded to the next layer's INT8 is the same number in every runtime, whatever order it
multiplies and adds in. It costs up to a bit of range a tensor.

With scales of any value the last bit decides ties, and behind some dozens of layers runtimes label some pixels in a
thousand differently.
"""

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, helper, numpy_helper, version_converter

from edgeseg.errors import GraphError
from edgeseg.graph.graph import Graph, attributes, copied, is_op
from edgeseg.graph.ops import MOVES
from edgeseg.graph.passes.fold_batchnorm import affine_of, drop_unread
from edgeseg.quantize.placement import Placement

LEVELS = 127  # symmetric: -127..127, as TensorRT has it
OLDEST_OPSET = 13  # the first with a scale a channel
OPSET = 17  # what older files are raised to; TensorRT 10.3 reads 17 to 20
QUANTIZED_SUFFIX = "/int8"
INT8_KEY = "edgeseg.int8"  # of metadata_props: how a Q/DQ file was made
DEAD_SCALE = 2.0**-20  # of a channel without weights: what is left of it is its bias, whose step this makes
GAIN_BITS = 8  # of a normalisation's gain
_TINY = 1e-12


def raise_opset(model: ModelProto) -> ModelProto:
    """``model`` at an opset that has Q/DQ a channel. Raises ``GraphError`` where it cannot be converted."""
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset >= OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter raises several types
        raise GraphError(
            f"the ONNX file's opset cannot be raised to {OPSET}, and INT8 needs {OLDEST_OPSET}",
            got=f"opset {opset}: {str(error).splitlines()[0][:200]}",
            hint=f"Export the net again with opset {OPSET}.",
        ) from error


def quantize_weight(
    weight: npt.NDArray[np.float32], axis: int, *, exact: bool = True
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """INT8 weights and scales (channels,) float32, one a channel along ``axis``.

    An all-zero channel has ``DEAD_SCALE``. ``exact``: scales are powers of two.
    """
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=others).astype(np.float32)
    scale = np.where(largest > _TINY, largest / np.float32(LEVELS), np.float32(DEAD_SCALE)).astype(np.float32)
    if exact:
        mantissa, exponent = np.frexp(scale)  # mantissa in [0.5, 1)
        scale = np.ldexp(np.float32(1), np.where(mantissa == 0.5, exponent - 1, exponent))
    shape = [1] * weight.ndim
    shape[axis] = -1
    steps = np.clip(np.rint(weight / scale.reshape(shape)), -LEVELS, LEVELS)
    return steps.astype(np.int8), scale


def write_qdq(model: ModelProto, placement: Placement, scale: dict[str, float], *, exact: bool = True) -> ModelProto:
    """``model`` (folded, float) with the pairs of ``placement``; ``scale`` is of every tensor in it.

    ``exact``: weights' scales are powers of two, biases multiples of their layer's step; ``scale`` has to be of powers
    of two, too (``edgeseg.quantize.placement.scales``).
    """
    copy = copied(model)
    if exact:
        shorten_gains(copy)
    graph = Graph(copy)
    writer = _Writer(graph, placement, scale, exact)
    nodes: list[NodeProto] = []
    for name in (v.name for v in copy.graph.input):
        nodes += writer.pair(name)
    for node in list(copy.graph.node):
        nodes += writer.weights(node)
        nodes.append(node)
        for name in node.output:
            nodes += writer.pair(name)
    for node in nodes:
        writer.rewire(node)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    del copy.graph.value_info[:]
    drop_unread(copy)
    return copy


def shorten_gains(model: ModelProto) -> None:
    """Write the batch normalisations left in a folded net as a gain of ``GAIN_BITS`` bits and an offset, in place.

    These stand behind an activation, where no convolution takes them. A layer's sum has up to 16 bits or so, and its
    product with a gain of 8 bits is exact in float32. So it does not matter whether a runtime multiplies and adds in
    one step or in two. Gains move by 1 / 512 of their value at most.
    """
    graph = Graph(model)
    for node in [n for n in model.graph.node if is_op(n, "BatchNormalization")]:
        affine = affine_of(graph, node)
        if affine is None or any(node.output[1:]):
            continue
        mantissa, exponent = np.frexp(affine[0])
        gain = np.ldexp(np.rint(mantissa * 2**GAIN_BITS) / 2**GAIN_BITS, exponent)
        names = [graph.unique(f"{node.name}/{part}") for part in ("gain", "offset")]
        for name, value in zip(names, (gain, affine[1]), strict=True):
            tensor = numpy_helper.from_array(value.astype(np.float32).reshape(1, -1, 1, 1), name)
            model.graph.initializer.append(tensor)
        scaled = graph.unique(f"{node.name}/scaled")
        multiply = helper.make_node("Mul", [node.input[0], names[0]], [scaled], scaled)
        add = helper.make_node("Add", [scaled, names[1]], [node.output[0]], node.name)
        place = next(i for i, n in enumerate(model.graph.node) if n.output[0] == node.output[0])
        model.graph.node.remove(node)
        for offset, made in enumerate((multiply, add)):
            model.graph.node.insert(place + offset, made)


class _Writer:
    def __init__(self, graph: Graph, placement: Placement, scale: dict[str, float], exact: bool) -> None:
        self.graph, self.placement, self.scale, self.exact = graph, placement, scale, exact
        self.zero = self._add("zero", np.int8(0))
        self._scale_names: dict[str, str] = {}
        # Weight initializer, channel axis -> its dequantized name and its scales.
        self._written: dict[tuple[str, int], tuple[str, npt.NDArray[np.float32]]] = {}
        self._layers, self._inside = set(placement.layers), {*placement.layers, *placement.sums, *placement.moves}
        self._paired = {name: graph.unique(f"{name}/dq") for name in placement.tensors}
        self._own = set[str]()  # nodes written here

    def _add(self, hint: str, value: object) -> str:
        name = self.graph.unique(f"int8/{hint}")
        self.graph.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _scale_name(self, name: str) -> str:
        group = self.placement.scale_of[name]
        if group not in self._scale_names:
            self._scale_names[group] = self._add(f"{group}/scale", np.float32(self.scale[name]))
        return self._scale_names[group]

    def pair(self, name: str) -> list[NodeProto]:
        """The Q and the DQ node behind a tensor, if it carries a pair."""
        if name not in self._paired:
            return []
        step, out = self._scale_name(name), self._paired[name]
        steps = self.graph.unique(f"{name}{QUANTIZED_SUFFIX}")
        titles = self.graph.unique(f"{name}/Q"), self.graph.unique(f"{name}/DQ")
        self._own |= {*titles}
        return [
            helper.make_node("QuantizeLinear", [name, step, self.zero], [steps], titles[0]),
            helper.make_node("DequantizeLinear", [steps, step, self.zero], [out], titles[1]),
        ]

    def weights(self, node: NodeProto) -> list[NodeProto]:
        """Quantize a layer's weights; returns the DQ node in front of it."""
        if node.name not in self._layers:
            return []
        label, axis = node.input[1], output_axis(node)
        if (label, axis) in self._written:
            node.input[1], scale = self._written[label, axis]
            self._bias(node, scale)
            return []
        steps, scale = quantize_weight(np.asarray(self.graph.array(label), np.float32), axis, exact=self.exact)
        inputs = [
            self._add(f"{label}", steps),
            self._add(f"{label}/scale", scale),
            self._add(f"{label}/zero", np.zeros(len(scale), np.int8)),
        ]
        out = self.graph.unique(f"{label}/dq")
        self._written[label, axis] = out, scale
        node.input[1] = out
        self._bias(node, scale)
        return [helper.make_node("DequantizeLinear", inputs, [out], f"{node.name}/weights/DQ", axis=axis)]

    def _bias(self, node: NodeProto, scale: npt.NDArray[np.float32]) -> None:
        """Round a layer's bias to whole steps of its sums: it moves by half a step at most, 1 / 127 of INT8's own."""
        label = node.input[2] if len(node.input) > 2 else ""
        bias = self.graph.array(label) if label else None
        attrs = attributes(node)
        scaled = any(attrs.get(key, 1.0) != 1.0 for key in ("alpha", "beta"))  # of Gemm
        if not self.exact or bias is None or bias.size != scale.size or scaled:
            return
        step = scale.astype(np.float64).reshape(bias.shape) * self.scale[node.input[0]]
        whole = np.rint(np.asarray(bias, np.float64) / step)
        node.input[2] = self._add(label, (whole * step).astype(np.float32))

    def rewire(self, node: NodeProto) -> None:
        """Let a reader take the dequantized tensor, but for layers kept in float and for shapes."""
        if node.name in self._own or is_op(node, "Shape"):
            return
        if node.name not in self._inside and (node.name in self.placement.floats or node.op_type in MOVES):
            return  # full precision reads full precision
        for place, name in enumerate(node.input):
            if name in self._paired:
                node.input[place] = self._paired[name]


def output_axis(node: NodeProto) -> int:
    """The axis of a layer's weights that counts its output channels."""
    if is_op(node, "Conv"):
        return 0
    if is_op(node, "Gemm"):
        return 0 if attributes(node).get("transB", 0) else 1
    return 1  # MatMul (K, N)


def describe(model: ModelProto) -> tuple[int, int]:
    """How many layers of a file run in INT8, and how many there are."""
    made = {o: n for n in model.graph.node for o in n.output}
    layers = [n for n in model.graph.node if is_op(n, "Conv", "ConvTranspose", "Gemm", "MatMul")]
    inside = [n for n in layers if is_op(made.get(n.input[0]), "DequantizeLinear")]
    return len([n for n in inside if is_op(made.get(n.input[1]), "DequantizeLinear")]), len(layers)
