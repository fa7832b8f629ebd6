"""Read a float ONNX graph as a PyTorch module: a call per node, a parameter per constant.

Quantization-aware training starts from the ONNX file, not from the model's Python code. So the
graph that is trained is the graph that runs, with normalisation folded and Q/DQ pairs in place,
whatever code the model came from.
"""

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from onnx import ModelProto, NodeProto, TensorProto
from torch import Tensor, fx, nn

from edgeseg.errors import GraphError
from edgeseg.graph.graph import Graph
from edgeseg.graph.nodes import attributes, is_op, title
from edgeseg.models.pooling import max_pool_code, max_unpool_code
from edgeseg.quantize.qdq import GAIN_BITS

Value = fx.Node | None

_INTEGERS = {TensorProto.INT64, TensorProto.INT32}
_NO_PADDING = [0, 0]
_NO_DILATION = [1, 1]
_TWO_BY_TWO = [2, 2]


def module_from_onnx(
    model: ModelProto,
    instead: Mapping[str, nn.Module | None] | None = None,
    *,
    short_gains: bool = False,
) -> tuple[fx.GraphModule, dict[str, str]]:
    """Return a graph as a module, and the names of its parameters by initializer.

    Parameters
    ----------
    model : a float ONNX model, or a Q/DQ one with ``instead`` for its pairs.
    instead : by node name, a module that takes the place of a node. It is called with those inputs
        of the node that are not constants. One module may stand in several places; None passes the
        first input on.
    short_gains : compute batch normalisation as an exact Q/DQ file does, with gains of
        ``qdq.GAIN_BITS`` bits.

    Returns
    -------
    The module, (N, 3, H, W) float32 -> its first output, and {initializer: parameter}.

    Raises
    ------
    GraphError : an operator, or a form of it, has no translation here.

    Examples
    --------
    >>> from onnx import helper
    >>> ends = [helper.make_tensor_value_info(name, 1, ["n"]) for name in ("x", "y")]
    >>> node = helper.make_node("Relu", ["x"], ["y"])
    >>> model = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]))
    >>> module, parameters = module_from_onnx(model)
    >>> module(torch.tensor([-1.0, 2.0])).tolist(), parameters
    ([0.0, 2.0], {})
    """
    builder = _Builder(model, instead or {}, short_gains)
    return builder.build(), builder.parameters


class _Builder:
    """Build the module of one graph; translations call it."""

    def __init__(
        self, model: ModelProto, instead: Mapping[str, nn.Module | None], short_gains: bool
    ) -> None:
        self.model = model
        self.instead = instead
        self.short_gains = short_gains

        self.lookup = Graph(model)
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.values: dict[str, fx.Node] = {}  # by tensor of the ONNX graph
        self.parameters: dict[str, str] = {}  # by initializer
        self._paths: dict[int, str] = {}  # by identity of a module that stands for nodes

    def build(self) -> fx.GraphModule:
        """Return the module."""
        constants = {tensor.name for tensor in self.model.graph.initializer}
        for value in self.model.graph.input:
            if value.name not in constants:
                self.values[value.name] = self.graph.placeholder(_identifier(value.name))

        for node in self.model.graph.node:
            # Sizes are left out: unpooling takes the tensor itself, resizing the resulting size.
            if is_op(node, "Shape") or self.lookup.dtype(node.output[0]) in _INTEGERS:
                continue
            is_replaced = node.name in self.instead
            results = self._replaced(node) if is_replaced else self._translated(node)
            for name, result in zip(node.output, results, strict=False):
                self.values[name] = result

        self.graph.output(self.values[self.model.graph.output[0].name])
        return fx.GraphModule(self.root, self.graph)

    def _replaced(self, node: NodeProto) -> tuple[fx.Node, ...]:
        """Return the call of the module that takes the place of a node."""
        module = self.instead[node.name]
        inputs: list[fx.Node] = []
        for name in node.input:
            if name in self.values and name not in self.parameters:
                inputs.append(self.values[name])
        if module is None:
            return tuple(inputs[:1])

        path = self._paths.setdefault(id(module), f"at_{len(self._paths)}")
        self.root.add_module(path, module)
        return (self.graph.call_module(path, tuple(inputs)),)

    def _translated(self, node: NodeProto) -> tuple[fx.Node, ...]:
        """Return the PyTorch form of a node, one value per output."""
        translate = _TRANSLATIONS.get(node.op_type) if is_op(node, node.op_type) else None
        if translate is None:
            raise GraphError(
                f"training has no PyTorch form of {title(node)}",
                expected=f"one of {', '.join(_TRANSLATIONS)}",
                hint="It is a function of a few lines in edgeseg/training/qat/torch_from_onnx.py.",
            )
        results = translate(self, node)
        return results if isinstance(results, tuple) else (results,)

    def call(self, function: Callable[..., Any], *inputs: Any, **options: Any) -> fx.Node:
        """Add the call of a function."""
        return self.graph.call_function(function, inputs, options)

    def inputs(self, node: NodeProto) -> list[Value]:
        """Return a node's inputs, constants as parameters; None for one that is left out."""
        return [self.value(name, node) if name else None for name in node.input]

    def value(self, name: str, node: NodeProto) -> fx.Node:
        """Return one input of a node; a constant becomes a parameter."""
        if name not in self.values:
            constant = self._constant(name, node, expected="float32 values")
            path = f"p{len(self.parameters)}_{_identifier(name)}"
            self.parameters[name] = path
            self.root.register_parameter(path, nn.Parameter(torch.from_numpy(constant)))
            self.values[name] = self.graph.get_attr(path)
        return self.values[name]

    def fixed(self, name: str, node: NodeProto) -> fx.Node:
        """Return a constant input of a node that training leaves as it is."""
        constant = self._constant(name, node, expected="a float32 constant")
        path = f"c_{_identifier(name)}"
        self.root.register_buffer(path, torch.from_numpy(constant))
        return self.graph.get_attr(path)

    def _constant(self, name: str, node: NodeProto, expected: str) -> npt.NDArray[np.float32]:
        """Return a copy of a float32 constant; raise ``GraphError`` if it is none."""
        constant = self.lookup.array(name)
        if constant is None or constant.dtype != np.float32:
            raise _untrainable(node, got=f"input {name!r}", expected=expected)
        return np.array(constant)

    def integers(self, name: str, node: NodeProto) -> list[int]:
        """Return the values of a constant input of integers."""
        constant = self.lookup.array(name)
        if constant is None:
            raise _untrainable(node, got=f"computed {name!r}", expected="a constant")
        return [int(value) for value in np.asarray(constant).reshape(-1)]


def _untrainable(node: NodeProto, *, expected: str, got: str | None = None) -> GraphError:
    """Return the error for a form of an operator that has no translation."""
    return GraphError(f"{title(node)} cannot be trained", got=got, expected=expected)


def _identifier(name: str) -> str:
    """Return a tensor's name as a Python identifier."""
    return re.sub(r"\W", "_", name)


# -- attributes ------------------------------------------------------------------------------


def _window(node: NodeProto, key: str, default: int = 1) -> list[int]:
    """Return an attribute of two integers (rows, columns)."""
    return [int(value) for value in attributes(node).get(key, [default, default])]


def _symmetric_padding(node: NodeProto) -> list[int]:
    """Return the rows and columns of padding.

    Raises ``GraphError`` if the two sides differ or the padding is automatic.
    """
    attrs = attributes(node)
    pads = [int(value) for value in attrs.get("pads", [0, 0, 0, 0])]
    if attrs.get("auto_pad", b"NOTSET") != b"NOTSET" or pads[:2] != pads[2:]:
        raise _untrainable(node, got=f"pads {pads}", expected="the same on both sides")
    return pads[:2]


def _require_plain_windows(node: NodeProto) -> None:
    """Raise ``GraphError`` if a pooling dilates or rounds sizes up."""
    if attributes(node).get("ceil_mode", 0) or _window(node, "dilations") != _NO_DILATION:
        raise _untrainable(node, expected="no dilation, sizes rounded down")


def _require_two_by_two(node: NodeProto) -> None:
    """Raise ``GraphError`` if a pooling with positions has other windows than 2x2, stride 2."""
    padding = _symmetric_padding(node)
    kernel = _window(node, "kernel_shape")
    strides = _window(node, "strides")
    if (kernel, strides, padding) != (_TWO_BY_TWO, _TWO_BY_TWO, _NO_PADDING):
        raise _untrainable(node, got=f"{kernel}, {strides}", expected="2x2 windows")


# -- layers ----------------------------------------------------------------------------------


def _conv(builder: _Builder, node: NodeProto) -> fx.Node:
    """Translate a convolution."""
    padding = _symmetric_padding(node)
    strides = _window(node, "strides")
    dilations = _window(node, "dilations")
    group = attributes(node).get("group", 1)
    inputs = _three_inputs(builder, node)
    return builder.call(F.conv2d, *inputs, strides, padding, dilations, group)


def _conv_transpose(builder: _Builder, node: NodeProto) -> fx.Node:
    """Translate a transposed convolution."""
    padding = _symmetric_padding(node)
    extra = _window(node, "output_padding", 0)
    strides = _window(node, "strides")
    dilations = _window(node, "dilations")
    group = attributes(node).get("group", 1)
    inputs = _three_inputs(builder, node)
    return builder.call(F.conv_transpose2d, *inputs, strides, padding, extra, group, dilations)


def _three_inputs(builder: _Builder, node: NodeProto) -> list[Value]:
    """Return a layer's input, its weights, and its bias or None."""
    return [*builder.inputs(node), None][:3]


def _matmul(builder: _Builder, node: NodeProto) -> fx.Node:
    """Translate a matrix product.

    Weights stand on the right. A constant on the left only gathers values, and is not trained.
    """
    left, right = node.input
    is_constant = builder.lookup.array(left) is not None
    first = builder.fixed(left, node) if is_constant else builder.value(left, node)
    return builder.call(torch.matmul, first, builder.value(right, node))


def _batch_norm(builder: _Builder, node: NodeProto) -> fx.Node:
    """Translate a batch normalisation that is not folded, since it stands behind an activation.

    Its running statistics stay; gain and offset are trained.
    """
    x, gain, offset = (builder.value(name, node) for name in node.input[:3])
    mean, variance = (builder.fixed(name, node) for name in node.input[3:5])
    normalised = _normalised_short if builder.short_gains else _normalised
    epsilon = float(attributes(node).get("epsilon", 1e-5))
    return builder.call(normalised, x, mean, variance, gain, offset, epsilon)


def _normalised(
    x: Tensor, mean: Tensor, variance: Tensor, gain: Tensor, offset: Tensor, epsilon: float
) -> Tensor:
    """Normalise by running statistics."""
    return F.batch_norm(x, mean, variance, gain, offset, eps=epsilon)


def _normalised_short(
    x: Tensor, mean: Tensor, variance: Tensor, gain: Tensor, offset: Tensor, epsilon: float
) -> Tensor:
    """Normalise with the gain and offset that ``qdq.shorten_gains`` writes, number for number.

    The gradient passes straight through the rounding of the gain.
    """
    exact_gain = gain.double() / torch.sqrt(variance.double() + epsilon)
    shift = (offset.double() - mean.double() * exact_gain).float()
    full_gain = exact_gain.float()

    mantissa, exponent = torch.frexp(full_gain.detach())
    rounded = torch.ldexp(torch.round(mantissa * 2**GAIN_BITS) / 2**GAIN_BITS, exponent)
    short_gain = full_gain + (rounded - full_gain).detach()

    scaled = x * short_gain.view(1, -1, 1, 1)
    return scaled + shift.view(1, -1, 1, 1)


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    """Apply a PReLU; ONNX has slopes of shape (C, 1, 1)."""
    return F.prelu(x, slope.flatten())


# -- pooling and sizes -----------------------------------------------------------------------


def _max_pool(builder: _Builder, node: NodeProto) -> fx.Node | tuple[fx.Node, ...]:
    """Translate a max-pooling; with positions it becomes ``max_pool_code``."""
    (x,) = builder.inputs(node)
    kernel = _window(node, "kernel_shape")
    strides = _window(node, "strides")
    padding = _symmetric_padding(node)
    _require_plain_windows(node)
    if len(node.output) == 1:
        return builder.call(F.max_pool2d, x, kernel, strides, padding)

    _require_two_by_two(node)
    pooled = builder.call(max_pool_code, x)
    values = builder.call(operator.getitem, pooled, 0)
    return values, builder.call(operator.getitem, pooled, 1)


def _max_unpool(builder: _Builder, node: NodeProto) -> fx.Node:
    """Translate a max-unpooling to the size of the pooled tensor."""
    _require_two_by_two(node)
    shape = builder.lookup.producer.get(node.input[2]) if len(node.input) > 2 else None
    if shape is None or not is_op(shape, "Shape"):
        raise _untrainable(node, expected="the Shape of the pooled tensor as its size")

    values, code = (builder.value(name, node) for name in node.input[:2])
    like = builder.value(shape.input[0], node)
    return builder.call(max_unpool_code, values, code, like)


def _average_pool(builder: _Builder, node: NodeProto) -> fx.Node:
    """Translate an average pooling."""
    kernel = _window(node, "kernel_shape")
    strides = _window(node, "strides")
    padding = _symmetric_padding(node)
    _require_plain_windows(node)
    counts_padding = bool(attributes(node).get("count_include_pad", 0))
    inputs = builder.inputs(node)
    return builder.call(F.avg_pool2d, *inputs, kernel, strides, padding, False, counts_padding)


def _mean(builder: _Builder, node: NodeProto) -> fx.Node:
    """Translate a mean over axes, which are an input or an attribute."""
    attrs = attributes(node)
    axes = attrs.get("axes")
    if len(node.input) > 1 and node.input[1]:
        axes = builder.integers(node.input[1], node)
    if not axes:
        raise _untrainable(node, expected="the axes it is taken over")

    x = builder.value(node.input[0], node)
    keeps_axes = bool(attrs.get("keepdims", 1))
    return builder.call(torch.mean, x, [int(axis) for axis in axes], keeps_axes)


def _resize(builder: _Builder, node: NodeProto) -> fx.Node:
    """Translate a resize to a known size: nearest as PyTorch rounds it, or bilinear."""
    attrs = attributes(node)
    mode = attrs.get("mode", b"nearest")
    rule = attrs.get("coordinate_transformation_mode", b"half_pixel")

    # The size is known if no side of the output is dynamic.
    shape = builder.lookup.shape(node.output[0])
    size = [side[0] for side in (shape or [])[2:] if side is not None and not side[1]]
    if len(size) != 2 or attrs.get("antialias", 0):
        raise _untrainable(node, got=f"size {shape}", expected="a fixed height and width")

    x = builder.value(node.input[0], node)
    is_floor = attrs.get("nearest_mode") == b"floor"
    if mode == b"nearest" and rule == b"asymmetric" and is_floor:
        return builder.call(F.interpolate, x, size)
    if mode == b"linear" and rule in (b"half_pixel", b"pytorch_half_pixel", b"align_corners"):
        align = rule == b"align_corners"
        return builder.call(F.interpolate, x, size, mode="bilinear", align_corners=align)
    raise _untrainable(
        node,
        got=f"{mode.decode()}, {rule.decode()}",
        expected="PyTorch's nearest or bilinear interpolation",
    )


# -- moving values ---------------------------------------------------------------------------


def _concat(builder: _Builder, node: NodeProto) -> fx.Node:
    """Translate a concatenation."""
    return builder.call(torch.cat, builder.inputs(node), attributes(node)["axis"])


def _pad(builder: _Builder, node: NodeProto) -> fx.Node:
    """Translate padding by a constant."""
    if attributes(node).get("mode", b"constant") != b"constant" or len(node.input) > 3:
        raise _untrainable(node, expected="padding by a constant, on all axes")

    # ONNX lists the starts of all axes, then the ends; PyTorch both of the last axis first.
    pads = builder.integers(node.input[1], node)
    rank = len(pads) // 2
    last_first: list[int] = []
    for axis in reversed(range(rank)):
        last_first += [pads[axis], pads[rank + axis]]

    value = None
    if len(node.input) > 2 and node.input[2]:
        value = builder.lookup.array(node.input[2])
    fill = 0.0 if value is None else float(np.ravel(value)[0])
    return builder.call(F.pad, builder.value(node.input[0], node), last_first, "constant", fill)


def _transpose(builder: _Builder, node: NodeProto) -> fx.Node:
    """Translate a transposition."""
    order = [int(axis) for axis in attributes(node)["perm"]]
    return builder.call(torch.permute, builder.value(node.input[0], node), order)


def _depth_to_space(builder: _Builder, node: NodeProto) -> fx.Node:
    """Translate a pixel shuffle."""
    if attributes(node).get("mode", b"DCR") != b"CRD":
        raise _untrainable(node, got="mode DCR", expected="CRD, PyTorch's pixel shuffle")
    block = int(attributes(node)["blocksize"])
    return builder.call(F.pixel_shuffle, builder.value(node.input[0], node), block)


def _slice(builder: _Builder, node: NodeProto) -> fx.Node:
    """Translate a slice by constants."""
    starts, ends, *rest = (builder.integers(name, node) for name in node.input[1:])
    axes = rest[0] if rest else list(range(len(starts)))
    steps = rest[1] if len(rest) > 1 else [1] * len(starts)

    cut = [slice(None)] * (max(axes) + 1)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if axis < 0 or step < 1:
            raise _untrainable(node, expected="axes from the first, steps forward")
        cut[axis] = slice(start, min(end, 2**31), step)
    return builder.call(operator.getitem, builder.value(node.input[0], node), tuple(cut))


def _identity(builder: _Builder, node: NodeProto) -> fx.Node:
    """Pass a value on."""
    return builder.value(node.input[0], node)


def _plain(function: Callable[..., Any]) -> Callable[[_Builder, NodeProto], fx.Node]:
    """Return the translation of an operator that is one function of its inputs."""

    def translate(builder: _Builder, node: NodeProto) -> fx.Node:
        return builder.call(function, *builder.inputs(node))

    return translate


_TRANSLATIONS: dict[str, Callable[[_Builder, NodeProto], fx.Node | tuple[fx.Node, ...]]] = {
    "Add": _plain(operator.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Concat": _concat,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "Identity": _identity,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "MaxUnpool": _max_unpool,
    "Mul": _plain(operator.mul),
    "PRelu": _plain(_prelu),
    "Pad": _pad,
    "ReduceMean": _mean,
    "Relu": _plain(F.relu),
    "Resize": _resize,
    "Slice": _slice,
    "Transpose": _transpose,
}
