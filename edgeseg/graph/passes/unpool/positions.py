"""Write pooling with positions, and unpooling, as standard operators, for windows of any kind.

Positions are the Indices of the ONNX standard; unpooling by them is a scatter.
"""

from itertools import product

import numpy as np
from onnx import NodeProto, TensorProto, helper

from edgeseg.graph.nodes import ints_attribute
from edgeseg.graph.passes.unpool.emitter import Emitter
from edgeseg.graph.passes.unpool.window import Window

# The types that ONNX Runtime compares and numpy knows. Others (BF16) are compared as FP32, which
# holds them exactly.
COMPARED = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT8)


def positions(emit: Emitter, x: str, pooled: str, window: Window, out: str) -> None:
    """Compute the Indices of a ``MaxPool``; the first of equal maxima wins.

    Every place of the window is compared with the maximum, the last place first, so that the first
    equal one stays. Positions count over the whole tensor, as ONNX Runtime counts.

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
        pads = emit.ints(_padding(window))
        x = emit.op("Pad", x, pads, emit.scalar(_lowest(kind), kind))
        places = emit.op("Pad", places, pads, emit.ints(-1))

    # 3. Compare place by place: a strided slice holds one place of every window.
    sizes = emit.part(emit.shape(pooled), 2, 2 + rank)
    span = emit.op("Mul", sizes, emit.ints(window.strides))
    found = ""
    offsets = list(product(*(range(side) for side in window.kernel)))
    for offset in reversed(offsets):
        start = emit.ints([o * d for o, d in zip(offset, window.dilations, strict=True)])
        end = emit.op("Add", span, start)
        axes = emit.ints(list(range(2, 2 + rank)))
        cut = (start, end, axes, emit.ints(window.strides))
        place = emit.op("Slice", places, *cut)
        hit = emit.op("Equal", emit.op("Slice", x, *cut), pooled)
        if padded:
            hit = emit.op("And", hit, emit.op("Greater", place, emit.ints(-1)))
        found = emit.op("Where", hit, place, found or emit.ints(0))

    # 4. Count over the whole tensor.
    emit.op("Add", found, _plane_starts(emit, shape, rank), out=out)


def _padding(window: Window) -> list[int]:
    """Return the padding of a tensor (N, C, spatial...) in front of a pooling.

    ``MaxPool`` sets the sizes of the output; ``ceil_mode`` may look up to a stride beyond the
    padding.
    """
    rank = len(window.kernel)
    begin = window.pads[:rank]
    end = window.pads[rank:]
    if window.ceil:
        end = [pad + stride for pad, stride in zip(end, window.strides, strict=True)]
    return [0, 0, *begin, 0, 0, *end]


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
    """Return the name of the position of each plane's first element in the whole tensor.

    It is (N, C, 1...) int64.
    """
    planes = emit.part(shape, 0, 2)
    spatial = emit.part(shape, 2, 2 + rank)
    count = emit.op("Range", emit.ints(0), emit.op("ReduceProd", planes, keepdims=0), emit.ints(1))
    starts = emit.op("Mul", count, emit.op("ReduceProd", spatial, keepdims=0))
    return emit.op("Reshape", starts, emit.op("Concat", planes, emit.ints([1] * rank), axis=0))


def scatter(
    emit: Emitter, values: str, indices: str, size: str, window: Window | None, out: str
) -> None:
    """Unpool by a scatter: put values at their indices, and zero elsewhere.

    Overlapping windows can name one place several times; ONNX Runtime keeps the last in row-major
    order, ScatterElements promises nothing. So all but the last are sent to an extra element behind
    the end, which is cut off again. The same is done with an index of unknown origin that lies
    outside: OpenVINO would write it into foreign memory.

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
            outside = emit.op(
                "Or", emit.op("Less", indices, emit.ints(0)), emit.op("Greater", indices, spare)
            )
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
    """Return the name of ``indices`` without those that a later window names as well.

    ``spare`` stands for these.
    Only windows at most ``reach`` steps away overlap. A window is later if its first differing step
    is positive.
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

    It is a constant if the shape is known; else the node's third input, or the reverse of
    ``MaxPool``'s formula.

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
    trimmed = [
        k - s - pads[a] - pads[a + rank]
        for a, (k, s) in enumerate(zip(kernel, strides, strict=True))
    ]
    sizes = emit.op("Mul", emit.shape(node.input[0]), emit.ints([1, 1, *strides]))
    return emit.op("Add", sizes, emit.ints([0, 0, *trimmed]))
