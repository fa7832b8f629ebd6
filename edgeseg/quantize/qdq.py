"""Write a Q/DQ graph, the INT8 form that every target reads, from a float graph and its scales.

Weights are symmetric INT8 with a scale per output channel, activations symmetric INT8 with a scale
per tensor. Zero points are written, and zero: without them, ONNX assumes UINT8 and TensorRT INT8.
Biases stay in float.

By default the arithmetic is *exact*: every scale is a power of two, and every bias a multiple of
its layer's step (input scale times weight scale). Then float32 does not round a layer's sum of
integers, its bias, the rescaling, or sums with other layers. (That holds up to 2 ** 24 steps, where
INT8 has long saturated. A bias that is an operator of its own behind a matrix product is added
unchanged.) Normalisations behind an activation have short gains (``shorten_gains``). So the number
that is rounded to the next layer's INT8 is the same in every runtime, whatever order it multiplies
and adds in. This costs up to a bit of range per tensor.

With scales of any value, the last bit decides ties. After some dozens of layers, runtimes then
label some pixels in a thousand differently.
"""

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, helper, version_converter

from edgeseg.errors import GraphError
from edgeseg.graph.graph import Graph
from edgeseg.graph.nodes import attributes, copied, is_op
from edgeseg.graph.ops import MOVES, WEIGHTED
from edgeseg.graph.passes.fold_batchnorm import affine_of
from edgeseg.quantize.placement import Placement

LEVELS = 127  # symmetric: -127..127, as in TensorRT
OLDEST_OPSET = 13  # the first one with a scale per channel
OPSET = 17  # older files are converted to it; TensorRT 10.3 reads 17 to 20
QUANTIZED_SUFFIX = "/int8"
INT8_KEY = "edgeseg.int8"  # metadata key: how a Q/DQ file was made
# Scale of a channel whose weights are all zero. Only its bias is left, and this makes the bias's
# step.
DEAD_SCALE = 2.0**-20
GAIN_BITS = 8  # bits of a normalisation's gain
_TINY = 1e-12  # a channel whose weights are all below it counts as zero


def raise_opset(model: ModelProto) -> ModelProto:
    """Return a model at an opset with per-channel Q/DQ; the same one if its opset is high enough.

    Parameters
    ----------
    model : an ONNX model.

    Raises
    ------
    GraphError : the opset cannot be converted.

    Examples
    --------
    >>> model = ModelProto(opset_import=[helper.make_opsetid("", 18)])
    >>> raise_opset(model) is model
    True
    """
    opset = 0
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            opset = entry.version
            break
    if opset >= OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, OPSET)
    except Exception as error:  # the converter raises several types
        raise GraphError(
            f"the ONNX file's opset cannot be raised to {OPSET}, and INT8 needs {OLDEST_OPSET}",
            got=f"opset {opset}: {str(error).splitlines()[0][:200]}",
            hint=f"Export the model again with opset {OPSET}.",
        ) from error


def quantize_weight(
    weight: npt.NDArray[np.float32], axis: int, *, exact: bool = True
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Quantize weights to INT8 with one scale per channel.

    Parameters
    ----------
    weight : weights of any shape.
    axis : the axis of the channels.
    exact : make scales powers of two.

    Returns
    -------
    The INT8 weights, and the scales, (channels,) float32. A channel of zeros has ``DEAD_SCALE``.

    Examples
    --------
    >>> steps, scale = quantize_weight(np.array([[0.5, 1.0], [0.25, -2.0]], np.float32), axis=0)
    >>> steps.tolist(), scale.tolist()
    ([[32, 64], [8, -64]], [0.015625, 0.03125])
    """
    # The largest weight of a channel is 127 steps.
    others = tuple(other for other in range(weight.ndim) if other != axis)
    largest = np.abs(weight).max(axis=others).astype(np.float32)
    step = largest / np.float32(LEVELS)
    scale = np.where(largest > _TINY, step, np.float32(DEAD_SCALE)).astype(np.float32)
    if exact:
        # Round up to a power of two.
        mantissa, exponent = np.frexp(scale)  # mantissa in [0.5, 1)
        scale = np.ldexp(np.float32(1), np.where(mantissa == 0.5, exponent - 1, exponent))

    shape = [1] * weight.ndim
    shape[axis] = -1
    steps = np.clip(np.rint(weight / scale.reshape(shape)), -LEVELS, LEVELS)
    return steps.astype(np.int8), scale


def write_qdq(
    model: ModelProto, placement: Placement, scale: dict[str, float], *, exact: bool = True
) -> ModelProto:
    """Return a copy of a graph with Q/DQ pairs.

    Parameters
    ----------
    model : the folded float graph.
    placement : the tensors that carry a pair, and the layers that run in INT8.
    scale : the scale of each of these tensors, as ``edgeseg.quantize.placement.scales`` returns it.
    exact : make scales of weights powers of two, and biases multiples of their layer's step.
        ``scale`` must then hold powers of two.
    """
    copy = copied(model)
    graph = Graph(copy)
    if exact:
        shorten_gains(graph)

    # Put a pair behind each tensor of the placement, and a DQ node in front of each layer.
    writer = _Writer(graph, placement, scale, exact)
    nodes = graph.nodes()
    for value in copy.graph.input:
        writer.pair(value.name, None)
    for node in nodes:
        writer.weights(node)
        behind = node
        for name in node.output:
            behind = writer.pair(name, behind) or behind

    # Let the readers of these tensors read the pairs.
    for node in nodes:
        writer.rewire(node)

    graph.drop_types()
    graph.drop_unread_constants()
    return copy


def shorten_gains(graph: Graph) -> None:
    """Replace batch normalisations by a multiplication with a short gain and an addition, in place.

    These are the ones that a folded graph still has: they stand behind an activation, so no
    convolution takes them. A layer's sum has up to about 16 bits, and its product with a gain of
    ``GAIN_BITS`` (8) bits is exact in float32. So it does not matter whether a runtime multiplies
    and adds in one step or in two. A gain changes by at most 1 / 512 of its value.

    Parameters
    ----------
    graph : the folded float graph, which is edited in place.
    """
    for node in graph.nodes("BatchNormalization"):
        affine = affine_of(graph, node)
        if affine is None or any(node.output[1:]):
            continue

        # Gain and offset as constants, (1, channels, 1, 1).
        mantissa, exponent = np.frexp(affine[0])
        gain = np.ldexp(np.rint(mantissa * 2**GAIN_BITS) / 2**GAIN_BITS, exponent)
        shape = (1, -1, 1, 1)
        gain = gain.astype(np.float32).reshape(shape)
        offset = affine[1].astype(np.float32).reshape(shape)
        gain_name = graph.new_constant(f"{node.name}/gain", gain)
        offset_name = graph.new_constant(f"{node.name}/offset", offset)

        # Two nodes in the place of the normalisation.
        scaled = graph.unique(f"{node.name}/scaled")
        graph.node("Mul", [node.input[0], gain_name], scaled, name=scaled, before=node)
        inputs = [scaled, offset_name]
        graph.node("Add", inputs, node.output[0], name=node.name, before=node)
        graph.remove(node)


class _Writer:
    """Make the nodes and constants of a Q/DQ graph; the arguments are those of ``write_qdq``."""

    def __init__(
        self, graph: Graph, placement: Placement, scale: dict[str, float], exact: bool
    ) -> None:
        self.graph = graph
        self.placement = placement
        self.scale = scale
        self.exact = exact
        self.zero = self._add("zero", np.int8(0))
        self._scale_names: dict[str, str] = {}
        # By weight initializer and channel axis: name of the dequantized tensor, and the scales.
        self._written: dict[tuple[str, int], tuple[str, npt.NDArray[np.float32]]] = {}
        self._layers = set(placement.layers)
        self._inside = {*placement.layers, *placement.sums, *placement.moves}
        self._paired = {name: graph.unique(f"{name}/dq") for name in placement.tensors}

    def _add(self, hint: str, value: object) -> str:
        """Add a constant and return its name."""
        return self.graph.new_constant(f"int8/{hint}", np.asarray(value))

    def _scale_name(self, name: str) -> str:
        """Return the constant that holds a tensor's scale; tensors of one group share it."""
        group = self.placement.scale_of[name]
        if group not in self._scale_names:
            self._scale_names[group] = self._add(f"{group}/scale", np.float32(self.scale[name]))
        return self._scale_names[group]

    def pair(self, name: str, behind: NodeProto | None) -> NodeProto | None:
        """Add the Q and the DQ node of a tensor, and return the latter.

        They go behind the node ``behind``, or in front of all nodes. Nothing is added, and ``None``
        returned, if the tensor carries no pair.
        """
        if name not in self._paired:
            return None

        step = self._scale_name(name)
        quantized = self.graph.unique(f"{name}{QUANTIZED_SUFFIX}")
        q = self.graph.unique(f"{name}/Q")
        dq = self.graph.unique(f"{name}/DQ")
        quantize = helper.make_node("QuantizeLinear", [name, step, self.zero], [quantized], q)
        inputs = [quantized, step, self.zero]
        dequantize = helper.make_node("DequantizeLinear", inputs, [self._paired[name]], dq)

        first = behind is None
        added = self.graph.add(quantize, after=behind, first=first)
        return self.graph.add(dequantize, after=added, first=first)

    def weights(self, node: NodeProto) -> None:
        """Quantize the weights of a node if it is a layer, and add the DQ node in front of it."""
        if node.name not in self._layers:
            return

        # Weights that another layer shares.
        label = node.input[1]
        axis = output_axis(node)
        if (label, axis) in self._written:
            dequantized, scale = self._written[label, axis]
            self.graph.set_input(node, 1, dequantized)
            self._bias(node, scale)
            return

        weight = np.asarray(self.graph.array(label), np.float32)
        steps, scale = quantize_weight(weight, axis, exact=self.exact)
        inputs = [
            self._add(label, steps),
            self._add(f"{label}/scale", scale),
            self._add(f"{label}/zero", np.zeros(len(scale), np.int8)),
        ]
        out = self.graph.unique(f"{label}/dq")
        self._written[label, axis] = (out, scale)
        self.graph.set_input(node, 1, out)
        self._bias(node, scale)
        name = f"{node.name}/weights/DQ"
        self.graph.node("DequantizeLinear", inputs, out, name=name, before=node, axis=axis)

    def _bias(self, node: NodeProto, scale: npt.NDArray[np.float32]) -> None:
        """Round a layer's bias to whole steps of its sums, if the arithmetic is exact.

        A bias changes by at most half a step. That is 1 / 127 of the error of INT8 itself.
        """
        label = node.input[2] if len(node.input) > 2 else ""
        bias = self.graph.array(label) if label else None
        attrs = attributes(node)
        scaled = any(
            attrs.get(key, 1.0) != 1.0 for key in ("alpha", "beta")
        )  # a Gemm may have them
        if not self.exact or bias is None or bias.size != scale.size or scaled:
            return

        step = scale.astype(np.float64).reshape(bias.shape) * self.scale[node.input[0]]
        whole = np.rint(np.asarray(bias, np.float64) / step)
        rounded = self._add(label, (whole * step).astype(np.float32))
        self.graph.set_input(node, 2, rounded)

    def rewire(self, node: NodeProto) -> None:
        """Let a node read dequantized tensors, unless it stays in float or reads only shapes."""
        if is_op(node, "Shape"):
            return
        stays_float = node.name in self.placement.floats or node.op_type in MOVES
        if stays_float and node.name not in self._inside:
            return  # it reads the tensor in full precision

        for place, name in enumerate(node.input):
            if name in self._paired:
                self.graph.set_input(node, place, self._paired[name])


def output_axis(node: NodeProto) -> int:
    """Return the axis of a layer's weights that holds its output channels.

    Parameters
    ----------
    node : a ``Conv``, ``Gemm`` or ``MatMul``.

    Examples
    --------
    >>> output_axis(helper.make_node("Conv", ["x", "w"], ["y"]))
    0
    >>> output_axis(helper.make_node("MatMul", ["x", "w"], ["y"]))
    1
    """
    if is_op(node, "Conv"):
        return 0
    if is_op(node, "Gemm"):
        return 0 if attributes(node).get("transB", 0) else 1
    return 1  # the weights of a MatMul are (inputs, outputs)


def describe(model: ModelProto) -> tuple[int, int]:
    """Return the number of layers that run in INT8, and the number of all layers.

    Parameters
    ----------
    model : a Q/DQ graph, or a float one.

    Examples
    --------
    >>> describe(ModelProto())
    (0, 0)
    """
    dequantized: set[str] = set()
    for node in model.graph.node:
        if is_op(node, "DequantizeLinear"):
            dequantized.update(node.output)

    layers = [node for node in model.graph.node if is_op(node, *WEIGHTED)]
    inside = [node for node in layers if dequantized.issuperset(node.input[:2])]
    return len(inside), len(layers)
