"""Write pooling with positions, and unpooling, as standard operators, for 2x2 windows side by side.

A code says which of the four places of a window holds its maximum: no index is needed.

Measured in OpenVINO 2026.4 on SegNet and ENet against strided slices with depth-to-space and
against up-sampling the maxima: this form writes no tensor of full size but the unpooled one, and
convolutions stay in channels-last layout.
"""

import numpy as np
from onnx import helper

from edgeseg.graph.passes.unpool.emitter import Emitter


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

    Pooling with smaller windows finds it: the upper left element alone, the upper row, the left
    column. The code has the type of ``x``, which keeps everything in one layout and precision. A
    runtime that rounds to BF16 may round ``x`` before or after pooling: rounding is monotonic, so
    that equal values stay equal and the first of them is still a maximum.

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
    """Unpool by codes.

    Each value goes to the place in its 2x2 window that its code gives; the others are zero.

    Seen as (N, h, 1, w, 1, C), both broadcast against the four places (1, 1, 2, 1, 2, 1): one pass
    writes the result. Channels stay last because the convolutions around have them last, so that
    the transpositions cost nothing.

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
    # The code has the type of what was pooled, which may be INT8 where the values are not, and the
    # reverse.
    code_type = helper.tensor_dtype_to_np_dtype(emit.graph.dtype(like))
    places = np.arange(4).reshape(1, 1, 2, 1, 2, 1).astype(code_type)
    windows, pixels = _channels_last_shapes(emit, values)

    def spread(name: str) -> str:
        """Return a tensor as (N, h, 1, w, 1, C)."""
        return emit.op("Reshape", emit.op("Transpose", name, perm=[0, 2, 3, 1]), windows)

    spread_code = spread(code)
    hit = emit.op("Equal", spread_code, emit.graph.shared_constant("unpool/places", places))
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
    """Return the names of two shapes for ``values`` (N, C, h, w).

    They are (N, h, 1, w, 1, C) and (N, 2h, 2w, C). They are constants if all sizes but the batch
    are known.
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
