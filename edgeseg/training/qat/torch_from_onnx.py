"""A float ONNX net as a PyTorch module that can be trained: a call for each node, a parameter for each constant.

Quantization-aware training starts from the ONNX file, not from the model's Python: what is trained is then the very
graph that runs, normalisation folded and Q/DQ pairs in place, whatever code the net came from.
"""

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from onnx import ModelProto, NodeProto, TensorProto
from torch import Tensor, fx, nn

from edgeseg.errors import GraphError
from edgeseg.graph.graph import Graph, attributes, is_op, title
from edgeseg.models.pooling import max_pool_code, max_unpool_code
from edgeseg.quantize.qdq import GAIN_BITS

Value = fx.Node | None
_INTEGERS = {TensorProto.INT64, TensorProto.INT32}


def module_from_onnx(
    model: ModelProto, instead: Mapping[str, nn.Module | None] | None = None, *, short_gains: bool = False
) -> tuple[fx.GraphModule, dict[str, str]]:
    """Return a graph as a module, (N, 3, H, W) -> its first output, and its parameters' names by initializer.

    Parameters
    ----------
    model : a float ONNX model, or a Q/DQ one with ``instead`` for its pairs.
    instead : by node name, a module that takes the place of a node: it is called with those of the node's inputs that
        are not constants. One module may stand in several places; ``None`` passes the first input on.
    short_gains : compute batch normalisation as an exact Q/DQ file does, with gains of ``qdq.GAIN_BITS`` bits.

    Raises
    ------
    GraphError : an operator has no translation here.
    """
    builder = _Builder(model, instead or {}, short_gains)
    return builder.build(), builder.parameters


class _Builder:
    def __init__(self, model: ModelProto, instead: Mapping[str, nn.Module | None], short_gains: bool) -> None:
        self.model, self.instead = model, instead
        self.short_gains = short_gains
        self.lookup, self.root, self.graph = Graph(model), nn.Module(), fx.Graph()
        self.values: dict[str, fx.Node] = {}
        self.parameters: dict[str, str] = {}
        self._paths: dict[int, str] = {}

    def build(self) -> fx.GraphModule:
        constants = {t.name for t in self.model.graph.initializer}
        for value in self.model.graph.input:
            if value.name not in constants:
                self.values[value.name] = self.graph.placeholder(_identifier(value.name))
        for node in self.model.graph.node:
            if is_op(node, "Shape") or self.lookup.dtype(node.output[0]) in _INTEGERS:
                continue  # sizes: unpooling asks for the tensor itself, resizing for what it comes to
            made = self._replaced(node) if node.name in self.instead else self._translated(node)
            for name, result in zip(node.output, made, strict=False):
                self.values[name] = result
        self.graph.output(self.values[self.model.graph.output[0].name])
        return fx.GraphModule(self.root, self.graph)

    def _replaced(self, node: NodeProto) -> tuple[fx.Node, ...]:
        module = self.instead[node.name]
        inputs = tuple(self.values[name] for name in node.input if name in self.values and name not in self.parameters)
        if module is None:
            return inputs[:1]
        path = self._paths.setdefault(id(module), f"at_{len(self._paths)}")
        self.root.add_module(path, module)
        return (self.graph.call_module(path, inputs),)

    def _translated(self, node: NodeProto) -> tuple[fx.Node, ...]:
        translate = _TRANSLATIONS.get(node.op_type) if is_op(node, node.op_type) else None
        if translate is None:
            raise GraphError(
                f"training has no PyTorch form of {title(node)}",
                expected=f"one of {', '.join(_TRANSLATIONS)}",
                hint="It is a function of a few lines in edgeseg/training/qat/torch_from_onnx.py.",
            )
        made = translate(self, node)
        return made if isinstance(made, tuple) else (made,)

    def call(self, function: Callable[..., Any], *inputs: Any, **options: Any) -> fx.Node:
        return self.graph.call_function(function, inputs, options)

    def inputs(self, node: NodeProto) -> list[Value]:
        """The node's inputs, constants as parameters; ``None`` for one that is left out."""
        return [self.value(name, node) if name else None for name in node.input]

    def value(self, name: str, node: NodeProto) -> fx.Node:
        if name not in self.values:
            constant = self.lookup.array(name)
            if constant is None or constant.dtype != np.float32:
                raise GraphError(f"{title(node)} cannot be trained", got=f"input {name!r}", expected="float32 values")
            self.parameters[name] = f"p{len(self.parameters)}_{_identifier(name)}"
            parameter = nn.Parameter(torch.from_numpy(np.array(constant)))
            self.root.register_parameter(self.parameters[name], parameter)
            self.values[name] = self.graph.get_attr(self.parameters[name])
        return self.values[name]

    def fixed(self, name: str, node: NodeProto) -> fx.Node:
        """A constant that training leaves as it is."""
        constant = self.lookup.array(name)
        if constant is None or constant.dtype != np.float32:
            raise GraphError(f"{title(node)} cannot be trained", got=f"input {name!r}", expected="a float32 constant")
        path = f"c_{_identifier(name)}"
        self.root.register_buffer(path, torch.from_numpy(np.array(constant)))
        return self.graph.get_attr(path)

    def integers(self, name: str, node: NodeProto) -> list[int]:
        """The value of a constant of integers."""
        constant = self.lookup.array(name)
        if constant is None:
            raise GraphError(f"{title(node)} cannot be trained", got=f"computed {name!r}", expected="a constant")
        return [int(v) for v in np.asarray(constant).reshape(-1)]


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name)


def _window(node: NodeProto, key: str, default: int = 1) -> list[int]:
    return [int(v) for v in attributes(node).get(key, [default, default])]


def _symmetric_padding(node: NodeProto) -> list[int]:
    """Rows and columns of padding. Raises ``GraphError`` where the two sides differ or the padding is automatic."""
    attrs = attributes(node)
    pads = [int(v) for v in attrs.get("pads", [0, 0, 0, 0])]
    if attrs.get("auto_pad", b"NOTSET") != b"NOTSET" or pads[:2] != pads[2:]:
        raise GraphError(f"{title(node)} cannot be trained", got=f"pads {pads}", expected="the same on both sides")
    return pads[:2]


def _conv(b: _Builder, node: NodeProto) -> fx.Node:
    padding = _symmetric_padding(node)
    group = attributes(node).get("group", 1)
    return b.call(F.conv2d, *_three(b, node), _window(node, "strides"), padding, _window(node, "dilations"), group)


def _conv_transpose(b: _Builder, node: NodeProto) -> fx.Node:
    padding, extra = _symmetric_padding(node), _window(node, "output_padding", 0)
    group, dilations = attributes(node).get("group", 1), _window(node, "dilations")
    return b.call(F.conv_transpose2d, *_three(b, node), _window(node, "strides"), padding, extra, group, dilations)


def _three(b: _Builder, node: NodeProto) -> list[Value]:
    """Input, weights, bias or ``None``."""
    return [*b.inputs(node), None][:3]


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return F.prelu(x, slope.flatten())  # ONNX has (C, 1, 1)


def _concat(b: _Builder, node: NodeProto) -> fx.Node:
    return b.call(torch.cat, b.inputs(node), attributes(node)["axis"])


def _pad(b: _Builder, node: NodeProto) -> fx.Node:
    value = b.lookup.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if attributes(node).get("mode", b"constant") != b"constant" or len(node.input) > 3:
        raise GraphError(f"{title(node)} cannot be trained", expected="padding by a constant, on all axes")
    pads = b.integers(node.input[1], node)
    rank = len(pads) // 2
    last_first = [pads[side * rank + axis] for axis in reversed(range(rank)) for side in (0, 1)]
    fill = 0.0 if value is None else float(np.ravel(value)[0])
    return b.call(F.pad, b.value(node.input[0], node), last_first, "constant", fill)


def _max_pool(b: _Builder, node: NodeProto) -> fx.Node | tuple[fx.Node, ...]:
    (x,) = b.inputs(node)
    kernel, strides, padding = _window(node, "kernel_shape"), _window(node, "strides"), _symmetric_padding(node)
    if attributes(node).get("ceil_mode", 0) or _window(node, "dilations") != [1, 1]:
        raise GraphError(f"{title(node)} cannot be trained", expected="no dilation, sizes rounded down")
    if len(node.output) == 1:
        return b.call(F.max_pool2d, x, kernel, strides, padding)
    _require_two_by_two(node, kernel, strides, padding)
    pooled = b.call(max_pool_code, x)
    return b.call(operator.getitem, pooled, 0), b.call(operator.getitem, pooled, 1)


def _max_unpool(b: _Builder, node: NodeProto) -> fx.Node:
    _require_two_by_two(node, _window(node, "kernel_shape"), _window(node, "strides"), _symmetric_padding(node))
    shape = b.lookup.producer.get(node.input[2]) if len(node.input) > 2 else None
    if shape is None or not is_op(shape, "Shape"):
        raise GraphError(f"{title(node)} cannot be trained", expected="the Shape of the pooled tensor as its size")
    values, code = (b.value(name, node) for name in node.input[:2])
    return b.call(max_unpool_code, values, code, b.value(shape.input[0], node))


def _batch_norm(b: _Builder, node: NodeProto) -> fx.Node:
    """Behind an activation it is not folded: its running statistics stay, gain and offset are trained."""
    x, gain, offset = (b.value(name, node) for name in node.input[:3])
    mean, variance = (b.fixed(name, node) for name in node.input[3:5])
    normalised = _normalised_short if b.short_gains else _normalised
    return b.call(normalised, x, mean, variance, gain, offset, float(attributes(node).get("epsilon", 1e-5)))


def _normalised(x: Tensor, mean: Tensor, variance: Tensor, gain: Tensor, offset: Tensor, epsilon: float) -> Tensor:
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


def _resize(b: _Builder, node: NodeProto) -> fx.Node:
    """To a size that is known: nearest as PyTorch rounds it, or bilinear."""
    attrs = attributes(node)
    mode, rule = attrs.get("mode", b"nearest"), attrs.get("coordinate_transformation_mode", b"half_pixel")
    shape = b.lookup.shape(node.output[0])
    size = [d[0] for d in (shape or [])[2:] if d is not None and not d[1]]
    if len(size) != 2 or attrs.get("antialias", 0):
        raise GraphError(f"{title(node)} cannot be trained", got=f"size {shape}", expected="a fixed height and width")
    x = b.value(node.input[0], node)
    if mode == b"nearest" and rule == b"asymmetric" and attrs.get("nearest_mode") == b"floor":
        return b.call(F.interpolate, x, size)
    if mode == b"linear" and rule in (b"half_pixel", b"pytorch_half_pixel", b"align_corners"):
        return b.call(F.interpolate, x, size, mode="bilinear", align_corners=rule == b"align_corners")
    raise GraphError(
        f"{title(node)} cannot be trained", got=f"{mode.decode()}, {rule.decode()}",
        expected="PyTorch's nearest or bilinear interpolation",
    )  # fmt: skip


def _average_pool(b: _Builder, node: NodeProto) -> fx.Node:
    kernel, strides, padding = _window(node, "kernel_shape"), _window(node, "strides"), _symmetric_padding(node)
    if attributes(node).get("ceil_mode", 0) or _window(node, "dilations") != [1, 1]:
        raise GraphError(f"{title(node)} cannot be trained", expected="no dilation, sizes rounded down")
    counts_padding = bool(attributes(node).get("count_include_pad", 0))
    return b.call(F.avg_pool2d, *b.inputs(node), kernel, strides, padding, False, counts_padding)


def _mean(b: _Builder, node: NodeProto) -> fx.Node:
    attrs = attributes(node)
    axes = b.integers(node.input[1], node) if len(node.input) > 1 and node.input[1] else attrs.get("axes")
    if not axes:
        raise GraphError(f"{title(node)} cannot be trained", expected="the axes it is taken over")
    return b.call(torch.mean, b.value(node.input[0], node), [int(a) for a in axes], bool(attrs.get("keepdims", 1)))


def _matmul(b: _Builder, node: NodeProto) -> fx.Node:
    """Weights stand on the right; a constant on the left only gathers what is there."""
    left, right = node.input
    first = b.fixed(left, node) if b.lookup.array(left) is not None else b.value(left, node)
    return b.call(torch.matmul, first, b.value(right, node))


def _transpose(b: _Builder, node: NodeProto) -> fx.Node:
    return b.call(torch.permute, b.value(node.input[0], node), [int(a) for a in attributes(node)["perm"]])


def _depth_to_space(b: _Builder, node: NodeProto) -> fx.Node:
    if attributes(node).get("mode", b"DCR") != b"CRD":
        raise GraphError(f"{title(node)} cannot be trained", got="mode DCR", expected="CRD, PyTorch's pixel shuffle")
    return b.call(F.pixel_shuffle, b.value(node.input[0], node), int(attributes(node)["blocksize"]))


def _slice(b: _Builder, node: NodeProto) -> fx.Node:
    starts, ends, *rest = (b.integers(name, node) for name in node.input[1:])
    axes = rest[0] if rest else list(range(len(starts)))
    steps = rest[1] if len(rest) > 1 else [1] * len(starts)
    cut = [slice(None)] * (max(axes) + 1)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if axis < 0 or step < 1:
            raise GraphError(f"{title(node)} cannot be trained", expected="axes from the first, steps forward")
        cut[axis] = slice(start, min(end, 2**31), step)
    return b.call(operator.getitem, b.value(node.input[0], node), tuple(cut))


def _require_two_by_two(node: NodeProto, kernel: list[int], strides: list[int], padding: list[int]) -> None:
    if (kernel, strides, padding) != ([2, 2], [2, 2], [0, 0]):
        raise GraphError(f"{title(node)} cannot be trained", got=f"{kernel}, {strides}", expected="2x2 windows")


def _plain(function: Callable[..., Any]) -> Callable[[_Builder, NodeProto], fx.Node]:
    return lambda b, node: b.call(function, *b.inputs(node))


_TRANSLATIONS: dict[str, Callable[[_Builder, NodeProto], fx.Node | tuple[fx.Node, ...]]] = {
    "Add": _plain(operator.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Concat": _concat,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "Identity": lambda b, node: b.value(node.input[0], node),
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
