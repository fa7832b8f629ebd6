"""Write pooling with positions, and unpooling, as standard operators."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper

from edgeseg.errors import GraphError
from edgeseg.graph.graph import Graph, Int, attributes, ints_attribute, title

# The types ONNX Runtime compares and numpy knows; others (BF16) are compared as FP32, which holds them exactly.
COMPARED = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT8)


class Emitter:
    """Collect the nodes that replace a node, under unique names that start with its name.

    Parameters
    ----------
    graph : the graph that the nodes are for; constants are added to it.
    replaced : the node that they replace.

    Attributes
    ----------
    graph : the same graph.
    nodes : the new nodes.
    """

    def __init__(self, graph: Graph, replaced: NodeProto) -> None:
        self.graph = graph
        self.nodes: list[NodeProto] = []
        self._prefix = replaced.name or replaced.output[0]

    def op(self, op_type: str, *inputs: str, out: str | None = None, **attrs: Any) -> str:
        """Append a node with one output, and return the output's name.

        Parameters
        ----------
        op_type : the operator.
        inputs : the names of its inputs.
        out : the name of its output; a new one unless given.
        attrs : the attributes of the operator.
        """
        name = self.graph.unique(f"{self._prefix}/{op_type}")
        out = out or self.graph.unique(f"{name}_out")
        self.nodes.append(helper.make_node(op_type, list(inputs), [out], name, **attrs))
        return out

    def ints(self, values: list[int] | int) -> str:
        """Return the name of an int64 constant.

        Parameters
        ----------
        values : a list for a vector, a number for a scalar.
        """
        return self.graph.constant(np.asarray(values, np.int64), "i64")

    def scalar(self, value: float, elem_type: int) -> str:
        """Return the name of a scalar constant.

        Parameters
        ----------
        value : its value.
        elem_type : its ONNX element type.
        """
        dtype = helper.tensor_dtype_to_np_dtype(elem_type)
        return self.graph.constant(np.asarray(value, dtype), "value")

    def shape(self, name: str) -> str:
        """Return the name of a tensor's shape: a constant if it is known, else computed.

        Parameters
        ----------
        name : the tensor's name.
        """
        static = self.graph.static_shape(name)
        return self.ints(static) if static is not None else self.op("Shape", name)

    def part(self, vector: str, start: int, end: int) -> str:
        """Return the name of a part of an int64 vector: a constant if the vector is one, else computed.

        Parameters
        ----------
        vector : the vector's name.
        start, end : the part, as in a Python slice.
        """
        value = self.graph.array(vector)
        if value is not None:
            return self.ints([int(v) for v in value[start:end]])
        return self.op("Slice", vector, self.ints([start]), self.ints([end]), self.ints([0]))


@dataclass(frozen=True)
class Window:
    """Hold the geometry of a ``MaxPool``, one number per spatial axis.

    Attributes
    ----------
    kernel : the sides of the window.
    strides : the steps between windows.
    pads : the padding in front of every axis, then behind every axis.
    dilations : the steps between the elements of a window.
    ceil : True if the output's size is rounded up.
    column_major : True if positions count along columns.
    """

    kernel: list[int]
    strides: list[int]
    pads: list[int]
    dilations: list[int]
    ceil: bool
    column_major: bool

    @classmethod
    def of(cls, node: NodeProto, graph: Graph) -> "Window":
        """Return the geometry of a pooling.

        Parameters
        ----------
        node : a ``MaxPool`` node.
        graph : its graph.

        Raises
        ------
        GraphError : ``auto_pad`` cannot be written as numbers, or a window may hold only padding.
        """
        kernel = ints_attribute(node, "kernel_shape", [])
        rank = len(kernel)
        attrs = attributes(node)
        strides = ints_attribute(node, "strides", [1] * rank)
        dilations = ints_attribute(node, "dilations", [1] * rank)

        # Padding in numbers.
        mode = attrs.get("auto_pad", b"NOTSET")
        if mode in (b"SAME_UPPER", b"SAME_LOWER"):
            pads = _same_pads(node, graph, kernel, strides, dilations, upper=mode == b"SAME_UPPER")
        elif mode == b"NOTSET":
            pads = ints_attribute(node, "pads", [0] * 2 * rank)
        else:
            pads = [0] * 2 * rank

        # SAME states the output's size itself. One dimension has no columns: ONNX Runtime ignores their order there.
        ceil = bool(attrs.get("ceil_mode", 0)) and mode in (b"NOTSET", b"VALID")
        column_major = bool(attrs.get("storage_order", 0)) and rank > 1
        window = cls(kernel, strides, pads, dilations, ceil, column_major)
        if ceil:
            window._refuse_empty(node, graph.shape(node.input[0]))
        return window

    def _refuse_empty(self, node: NodeProto, shape: list[Int | None] | None) -> None:
        """Raise ``GraphError`` if a last window may hold only padding, which ``ceil_mode`` allows.

        Runtimes do not agree whether such a window counts.
        """
        rank = len(self.kernel)
        for axis, (k, s, d) in enumerate(zip(self.kernel, self.strides, self.dilations, strict=True)):
            begin = self.pads[axis]
            end = self.pads[axis + rank]
            reach = (k - 1) * d + 1
            if s + end <= reach:
                continue  # a window that starts behind the last element would start a stride behind a complete one
            size = _fixed(shape, axis)
            if size is None or -(-(size + begin + end - reach) // s) * s >= size + begin:
                raise GraphError(
                    f"{title(node)}: ceil_mode makes a window that holds only padding",
                    got=f"kernel {k}, stride {s}, padding {begin} and {end}, size {size or 'unknown'}",
                    expected="windows that hold an element",
                    hint="Export with ceil_mode=False.",
                )

    def without_positions(self, node: NodeProto) -> NodeProto:
        """Return a copy of a pooling without Indices, its padding in numbers.

        Parameters
        ----------
        node : the ``MaxPool`` node that this is the geometry of.
        """
        plain = NodeProto()
        plain.CopyFrom(node)
        del plain.output[1:], plain.attribute[:]
        replaced = ("storage_order", "auto_pad", "pads", "ceil_mode")
        plain.attribute.extend(a for a in node.attribute if a.name not in replaced)
        plain.attribute.append(helper.make_attribute("pads", self.pads))
        plain.attribute.append(helper.make_attribute("ceil_mode", int(self.ceil)))
        return plain

    def last_position(self, shape: list[int], maxima: list[int]) -> int:
        """Return the largest of the Indices that a pooling can give.

        Parameters
        ----------
        shape : the shape of its input.
        maxima : the shape of its output.
        """
        # The last element of the last window on each axis.
        rank = len(self.kernel)
        axes = zip(shape[2:], maxima[2:], self.kernel, self.strides, self.pads[:rank], self.dilations, strict=True)
        place = [min(size, (count - 1) * s - p + (k - 1) * d + 1) - 1 for size, count, k, s, p, d in axes]

        # Its position in the whole tensor.
        sizes = shape[2:]
        if self.column_major:
            place = place[::-1]
            sizes = sizes[::-1]
        position = shape[0] * shape[1] - 1
        for size, at in zip(sizes, place, strict=True):
            position = position * size + at
        return position

    @property
    def overlaps(self) -> bool:
        """Return True if two windows may share an element."""
        reach = zip(self.kernel, self.strides, self.dilations, strict=True)
        return any((k - 1) * d >= s for k, s, d in reach)


def _fixed(shape: list[Int | None] | None, axis: int) -> int | None:
    """Return the size of a spatial axis, or ``None`` if it is not a number."""
    size = shape[2 + axis] if shape is not None else None
    return None if size is None or size[1] else size[0]


def _same_pads(
    node: NodeProto, graph: Graph, kernel: list[int], strides: list[int], dilations: list[int], *, upper: bool
) -> list[int]:
    """Return the padding that ``auto_pad`` stands for.

    The output's size is ceil(input / stride); the odd element of padding goes to one side, the end if ``upper``.
    """
    shape = graph.shape(node.input[0])
    begin: list[int] = []
    end: list[int] = []
    for axis, (k, s, d) in enumerate(zip(kernel, strides, dilations, strict=True)):
        size = _fixed(shape, axis)
        total: int | None = None
        if s == 1:
            total = k - 1
        elif size is not None:
            total = (-(-size // s) - 1) * s + k - size
        if total is None or total < 0 or d != 1:  # ONNX Runtime's own reading of the last two is not the standard's
            raise GraphError(
                f"{title(node)}: auto_pad cannot be told in numbers",
                got=f"size {size or 'unknown'}, kernel {k}, stride {s}, dilation {d}",
                expected="a fixed size, a stride up to the kernel's size, no dilation",
                hint="Export with explicit pads, or fix the input's size.",
            )
        begin.append(total // 2 if upper else total - total // 2)
        end.append(total - begin[-1])
    return begin + end


# -- any window: positions as the ONNX standard's Indices ------------------------------------------------------------


def positions(emit: Emitter, x: str, pooled: str, window: Window, out: str) -> None:
    """Compute the Indices of a ``MaxPool``; the first of equal maxima wins.

    Every place of the window is compared with the maximum, the last place first, so that the first equal one stays.
    Positions count over the whole tensor, as ONNX Runtime counts.

    Parameters
    ----------
    emit : the emitter of the pooling.
    x : the name of the pooled tensor, (N, C, spatial...).
    pooled : the name of its maxima.
    window : the geometry of the pooling.
    out : the name of the result, int64, of the shape of ``pooled``.
    """
    # 1. The position of every element in its plane; types that cannot be compared become FP32.
    rank = len(window.kernel)
    shape = emit.shape(x)
    places = _places(emit, shape, window)
    kind = emit.graph.dtype(x)
    if kind not in COMPARED:
        x, pooled = (emit.op("Cast", name, to=TensorProto.FLOAT) for name in (x, pooled))
        kind = int(TensorProto.FLOAT)

    # 2. Pad both, with values that never win.
    padded = any(window.pads) or window.ceil
    if padded:
        # MaxPool sets the sizes of the output; ceil_mode may look up to a stride beyond the padding.
        beyond = [p + (s if window.ceil else 0) for p, s in zip(window.pads[rank:], window.strides, strict=True)]
        pads = emit.ints([0, 0, *window.pads[:rank], 0, 0, *beyond])
        x = emit.op("Pad", x, pads, emit.scalar(_lowest(kind), kind))
        places = emit.op("Pad", places, pads, emit.ints(-1))

    # 3. Compare place by place: a strided slice holds one place of every window.
    sizes = emit.part(emit.shape(pooled), 2, 2 + rank)
    span = emit.op("Mul", sizes, emit.ints(window.strides))
    found = ""
    offsets = list(product(*(range(side) for side in window.kernel)))
    for offset in reversed(offsets):
        start = [o * d for o, d in zip(offset, window.dilations, strict=True)]
        end = emit.op("Add", span, emit.ints(start))
        cut = (emit.ints(start), end, emit.ints(list(range(2, 2 + rank))), emit.ints(window.strides))
        place = emit.op("Slice", places, *cut)
        hit = emit.op("Equal", emit.op("Slice", x, *cut), pooled)
        if padded:
            hit = emit.op("And", hit, emit.op("Greater", place, emit.ints(-1)))
        found = emit.op("Where", hit, place, found or emit.ints(0))

    # 4. Count over the whole tensor.
    emit.op("Add", found, _plane_starts(emit, shape, rank), out=out)


def _lowest(elem_type: int) -> float:
    """Return the lowest number of an ONNX element type."""
    kind = helper.tensor_dtype_to_np_dtype(elem_type)
    return float(np.finfo(kind).min if kind.kind == "f" else np.iinfo(kind).min)


def _places(emit: Emitter, shape: str, window: Window) -> str:
    """Return the name of each element's position inside its plane: (1, 1, spatial...) int64."""
    rank = len(window.kernel)
    spatial = emit.part(shape, 2, 2 + rank)
    count = emit.op("Range", emit.ints(0), emit.op("ReduceProd", spatial, keepdims=0), emit.ints(1))
    if window.column_major:
        spatial = emit.op("Gather", spatial, emit.ints(list(reversed(range(rank)))))
    grid = emit.op("Reshape", count, emit.op("Concat", emit.ints([1, 1]), spatial, axis=0))
    if window.column_major:
        grid = emit.op("Transpose", grid, perm=[0, 1, *reversed(range(2, 2 + rank))])
    return grid


def _plane_starts(emit: Emitter, shape: str, rank: int) -> str:
    """Return the name of the position of each plane's first element in the whole tensor: (N, C, 1...) int64."""
    planes = emit.part(shape, 0, 2)
    spatial = emit.part(shape, 2, 2 + rank)
    count = emit.op("Range", emit.ints(0), emit.op("ReduceProd", planes, keepdims=0), emit.ints(1))
    starts = emit.op("Mul", count, emit.op("ReduceProd", spatial, keepdims=0))
    return emit.op("Reshape", starts, emit.op("Concat", planes, emit.ints([1] * rank), axis=0))


# -- any indices: unpooling as a scatter -----------------------------------------------------------------------------


def scatter(emit: Emitter, values: str, indices: str, size: str, window: Window | None, out: str) -> None:
    """Unpool by a scatter: put values at their indices, and zero elsewhere.

    Overlapping windows can name one place several times; ONNX Runtime keeps the last in row-major order,
    ScatterElements promises nothing. So all but the last are sent to an extra element behind the end, which is cut off
    again. The same is done with an index of unknown origin that lies outside: OpenVINO would write it into foreign
    memory.

    Parameters
    ----------
    emit : the emitter of the unpooling.
    values : the name of the values.
    indices : the name of their positions in the whole tensor, int64.
    size : the name of the output's shape, an int64 vector.
    window : the geometry of the pooling that the indices come from; ``None`` if unknown.
    out : the name of the result.
    """
    # 1. Zeros, flat.
    flat = emit.ints([-1])
    kind = emit.graph.dtype(values)
    empty = helper.make_tensor("value", kind, [1], [0])
    zeros = emit.op("Reshape", emit.op("ConstantOfShape", size, value=empty), flat)

    # 2. Send what must not be written to an extra element.
    spared = window is None or window.overlaps
    if spared:
        spare = emit.op("ReduceProd", size, keepdims=0)
        if window is None:
            outside = emit.op("Or", emit.op("Less", indices, emit.ints(0)), emit.op("Greater", indices, spare))
            indices = emit.op("Where", outside, spare, indices)
        else:
            indices = _last_only(emit, indices, spare, window)
        extra = emit.op("ConstantOfShape", emit.ints([1]), value=empty)
        zeros = emit.op("Concat", zeros, extra, axis=0)

    # 3. Scatter, and cut the extra element off.
    flat_indices = emit.op("Reshape", indices, flat)
    flat_values = emit.op("Reshape", values, flat)
    placed = emit.op("ScatterElements", zeros, flat_indices, flat_values, axis=0)
    if spared:
        placed = emit.op("Slice", placed, emit.ints([0]), emit.ints([-1]), emit.ints([0]))
    emit.op("Reshape", placed, size, out=out)


def _last_only(emit: Emitter, indices: str, spare: str, window: Window) -> str:
    """Return the name of ``indices``, with ``spare`` for each index that a later window names as well.

    Only windows at most ``reach`` steps away overlap. A window is later if its first differing step is positive.
    """
    rank = len(window.kernel)
    steps = zip(window.kernel, window.strides, window.dilations, strict=True)
    reach = [((k - 1) * d) // s for k, s, d in steps]
    edge = emit.ints([0, 0, *reach, 0, 0, *reach])
    framed = emit.op("Pad", indices, edge, emit.ints(-1))
    sizes = emit.part(emit.shape(indices), 2, 2 + rank)
    axes = emit.ints(list(range(2, 2 + rank)))

    later = ""
    for step in product(*(range(-r, r + 1) for r in reach)):
        if step <= (0,) * rank:
            continue
        start = [s + r for s, r in zip(step, reach, strict=True)]
        end = emit.op("Add", sizes, emit.ints(start))
        same = emit.op("Equal", emit.op("Slice", framed, emit.ints(start), end, axes), indices)
        later = emit.op("Or", later, same) if later else same
    return emit.op("Where", later, spare, indices)


def unpooled_size(emit: Emitter, node: NodeProto) -> str:
    """Return the name of a ``MaxUnpool``'s output shape, an int64 vector.

    It is a constant if the shape is known; else the node's third input, or the reverse of ``MaxPool``'s formula.

    Parameters
    ----------
    emit : the emitter of the unpooling.
    node : the ``MaxUnpool`` node.
    """
    known = emit.graph.unpooled_shape(node)
    if known is not None and not any(symbols for _, symbols in known):
        return emit.ints([size for size, _ in known])
    if len(node.input) > 2 and node.input[2]:
        return str(node.input[2])

    kernel = ints_attribute(node, "kernel_shape", [])
    rank = len(kernel)
    strides = ints_attribute(node, "strides", [1] * rank)
    pads = ints_attribute(node, "pads", [0] * 2 * rank)
    trimmed = [k - s - pads[a] - pads[a + rank] for a, (k, s) in enumerate(zip(kernel, strides, strict=True))]
    sizes = emit.op("Mul", emit.shape(node.input[0]), emit.ints([1, 1, *strides]))
    return emit.op("Add", sizes, emit.ints([0, 0, *trimmed]))


# -- 2x2 windows side by side: which of four places, no index --------------------------------------------------------
#
# Measured in OpenVINO 2026.4 on SegNet and ENet against strided slices with depth-to-space and against up-sampling the
# maxima: this form writes no tensor of full size but the unpooled one, and convolutions stay in channels-last layout.


def is_even(emit: Emitter, name: str) -> bool:
    """Return True if height and width of a tensor are known to be even.

    Parameters
    ----------
    emit : the emitter of a node of the graph.
    name : the name of a tensor (N, C, H, W).
    """
    shape = emit.graph.shape(name) or [None] * 4
    return all(d is not None and d[0] % 2 == 0 for d in shape[2:])


def codes(emit: Emitter, x: str, pooled: str) -> str:
    """Compute the place of the first maximum of every 2x2 window: 0 1 / 2 3.

    Pooling with smaller windows finds it: the upper left element alone, the upper row, the left column. The code has
    the type of ``x``, which keeps everything in one layout and precision. A runtime that rounds to BF16 may round ``x``
    before or after pooling: rounding is monotonic, so that equal values stay equal and the first of them is still a
    maximum.

    Parameters
    ----------
    emit : the emitter of the pooling.
    x : the name of the pooled tensor, (N, C, H, W).
    pooled : the name of its maxima.

    Returns
    -------
    The name of the code, of the shape of ``pooled`` and the type of ``x``.
    """
    kind = emit.graph.dtype(x)
    number = [emit.scalar(n, kind) for n in range(4)]
    even = is_even(emit, x)
    size = "" if even else emit.part(emit.shape(pooled), 2, 4)

    def holds(height: int, width: int) -> str:
        """Return whether the upper left part of each window holds the maximum."""
        corner = emit.op("MaxPool", x, kernel_shape=[height, width], strides=[2, 2])
        if not even:  # the small windows fit a trailing row or column, the 2x2 ones do not
            corner = emit.op("Slice", corner, emit.ints([0, 0]), size, emit.ints([2, 3]))
        return emit.op("Equal", corner, pooled)

    lower = emit.op("Where", holds(2, 1), number[2], number[3])
    upper = emit.op("Where", holds(1, 2), number[1], lower)
    return emit.op("Where", holds(1, 1), number[0], upper)


def place(emit: Emitter, values: str, code: str, like: str, out: str) -> None:
    """Unpool by codes: put each value at the place in its 2x2 window that its code gives, and zero elsewhere.

    Seen as (N, h, 1, w, 1, C), both broadcast against the four places (1, 1, 2, 1, 2, 1): one pass writes the result.
    Channels stay last because the convolutions around have them last, so that the transpositions cost nothing.

    Parameters
    ----------
    emit : the emitter of the unpooling.
    values : the name of the values, (N, C, h, w).
    code : the name of their code, of the same shape.
    like : the name of the tensor that was pooled, (N, C, H, W); the result has its size.
    out : the name of the result.
    """
    # 1. Write every value or zero to the four places of its window.
    kind = emit.graph.dtype(values)
    zero = emit.scalar(0, kind)
    # The code has the type of what was pooled, which may be INT8 where the values are not, and the reverse.
    code_type = helper.tensor_dtype_to_np_dtype(emit.graph.dtype(like))
    places = np.arange(4).reshape(1, 1, 2, 1, 2, 1).astype(code_type)
    windows, pixels = _channels_last_shapes(emit, values)

    def spread(name: str) -> str:
        """Return a tensor as (N, h, 1, w, 1, C)."""
        return emit.op("Reshape", emit.op("Transpose", name, perm=[0, 2, 3, 1]), windows)

    spread_code = spread(code)
    hit = emit.op("Equal", spread_code, emit.graph.constant(places, "places"))
    chosen = emit.op("Where", hit, spread(values), zero)
    plane = emit.op("Reshape", chosen, pixels)

    # 2. Back to channels-first, with a row and a column of zeros if the sides are odd.
    if is_even(emit, like):
        emit.op("Transpose", plane, out=out, perm=[0, 3, 1, 2])
        return
    plane = emit.op("Transpose", plane, perm=[0, 3, 1, 2])
    shape = emit.graph.shape(like)
    if shape is not None and not any(d is None or d[1] for d in shape[2:]):
        pads = emit.ints([0] * 6 + [d[0] % 2 for d in shape[2:] if d is not None])
    else:
        missing = emit.op("Mod", emit.part(emit.shape(like), 2, 4), emit.ints(2))
        pads = emit.op("Concat", emit.ints([0] * 6), missing, axis=0)
    emit.op("Pad", plane, pads, zero, out=out)


def _channels_last_shapes(emit: Emitter, values: str) -> tuple[str, str]:
    """Return the names of the shapes (N, h, 1, w, 1, C) and (N, 2h, 2w, C) for ``values`` (N, C, h, w).

    They are constants if all sizes but the batch are known.
    """
    shape = emit.graph.shape(values) or [None] * 4
    if not any(d is None or d[1] for d in shape[1:]):
        c, h, w = (d[0] for d in shape[1:] if d is not None)
        n = -1 if shape[0] is None or shape[0][1] else shape[0][0]
        return emit.ints([n, h, 1, w, 1, c]), emit.ints([n, 2 * h, 2 * w, c])
    sizes = emit.op("Shape", values)
    with_one = emit.op("Concat", sizes, emit.ints([1]), axis=0)
    doubled = emit.op("Mul", sizes, emit.ints([1, 1, 2, 2]))
    windows = emit.op("Gather", with_one, emit.ints([0, 2, 4, 3, 4, 1]))
    return windows, emit.op("Gather", doubled, emit.ints([0, 2, 3, 1]))
