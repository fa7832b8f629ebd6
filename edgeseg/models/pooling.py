"""Max-pooling that remembers positions in one byte per window, and the matching max-unpooling.

SegNet (Badrinarayanan et al., 2015, section 3) and ENet (Paszke et al., 2016, section 4) remember
where each maximum was, and put values back there. PyTorch stores an int64 index for that. Two bits
are enough, so this module stores a byte, in training too.

Windows are 2x2, stride 2. The code of a window is the place of its maximum in row-major order: 0
and 1 in the upper row, 2 and 3 in the lower one. The first maximum wins a tie, as in PyTorch.
Pooling drops a trailing odd row or column; unpooling leaves it zero.

While ``torch.export`` traces, each of the two is one node of the graph, a ``torch.library``
operator. ``edgeseg.export`` writes these as the ONNX standard's ``MaxPool`` with ``Indices`` and
``MaxUnpool``. Otherwise they are plain tensor code with their own gradient, which
``torch.compile`` can fuse.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # code -> (row, column) inside the window


def _pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maxima of the windows, and their uint8 code."""
    values, index = F.max_pool2d(x, 2, return_indices=True)

    # index = row * width + column inside one channel plane; only the parity of row and column
    # matters.
    width = x.shape[3]
    row = torch.div(index, width, rounding_mode="floor")
    code = ((row & 1) << 1) | ((index - row * width) & 1)
    return values, code.to(torch.uint8)


def _unpool(values: Tensor, code: Tensor, size: Sequence[int]) -> Tensor:
    """Return a plane of ``size`` (H, W) with the values where the code says, and zero elsewhere."""
    n, c, h, w = values.shape

    # Four planes side by side, (N, C, h, 2, w, 2), are the unpooled plane: one fused kernel under
    # torch.compile.
    zero = values.new_zeros(())
    planes = [torch.where(code == place, values, zero) for place in range(4)]
    rows = [torch.stack(planes[0:2], dim=-1), torch.stack(planes[2:4], dim=-1)]
    out = torch.stack(rows, dim=3).reshape(n, c, 2 * h, 2 * w)

    # A trailing odd row or column.
    if (size[0], size[1]) != (2 * h, 2 * w):
        out = F.pad(out, (0, size[1] - 2 * w, 0, size[0] - 2 * h))
    return out


def _unpool_strided(values: Tensor, code: Tensor, size: Sequence[int]) -> Tensor:
    """Unpool as ``_unpool`` does, but faster in eager mode.

    Writes in the layout of ``values``: channels-last stays channels-last.
    """
    n, c, h, w = values.shape
    is_nhwc = values.is_contiguous(memory_format=torch.channels_last) and not values.is_contiguous()
    layout = torch.channels_last if is_nhwc else torch.contiguous_format
    out = torch.empty((n, c, *size), dtype=values.dtype, device=values.device, memory_format=layout)

    # The loop writes every pixel, except a trailing odd row or column.
    if (size[0], size[1]) != (2 * h, 2 * w):
        out.zero_()

    for place, (row, column) in enumerate(_CORNERS):
        out[:, :, row : 2 * h : 2, column : 2 * w : 2] = torch.where(code == place, values, 0)
    return out


def _take(x: Tensor, code: Tensor) -> Tensor:
    """Read ``x`` (N, C, H, W) at the places of ``code``: the gradient of unpooling.

    Returns (N, C, H//2, W//2).
    """
    h, w = code.shape[2:]
    corners = [x[:, :, row : 2 * h : 2, column : 2 * w : 2] for row, column in _CORNERS]

    # Choose between the columns of each row, then between the rows.
    upper = torch.where(code == 1, corners[1], corners[0])
    lower = torch.where(code == 3, corners[3], corners[2])
    return torch.where(code >= 2, lower, upper)


class _MaxPoolCode(torch.autograd.Function):
    """Pool with a code; the gradient unpools."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maxima and their code."""
        values, code = _pool(x)
        ctx.mark_non_differentiable(code)
        ctx.save_for_backward(code)
        ctx.size = tuple(x.shape[2:])
        return values, code

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _code: Tensor | None) -> Tensor:
        """Put the gradient where the maxima were."""
        (code,) = ctx.saved_tensors
        unpool = _unpool if torch.compiler.is_compiling() else _unpool_strided
        return unpool(grad, code, ctx.size)


class _MaxUnpoolCode(torch.autograd.Function):
    """Unpool by a code; the gradient reads the same places."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, code: Tensor, size: Sequence[int]) -> Tensor:
        """Return a plane of ``size`` (H, W) with the values at their places."""
        ctx.save_for_backward(code)
        unpool = _unpool if torch.compiler.is_compiling() else _unpool_strided
        return unpool(values, code, size)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Read the gradient at the places of the values."""
        (code,) = ctx.saved_tensors
        return _take(grad, code), None, None


# The operators of an exported graph: PyTorch's own pooling and unpooling, one node each.
# ``edgeseg.export`` translates them to ONNX.
@torch.library.custom_op("edgeseg::max_pool_positions", mutates_args=())
def _export_pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the maxima, and PyTorch's int64 index of each."""
    values, index = F.max_pool2d(x, 2, return_indices=True)
    return values, index


@_export_pool.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return empty tensors with the shapes of the result, for tracing."""
    values = x.new_empty(x.shape[0], x.shape[1], x.shape[2] // 2, x.shape[3] // 2)
    return values, torch.empty_like(values, dtype=torch.int64)


@torch.library.custom_op("edgeseg::max_unpool_positions", mutates_args=())
def _export_unpool(values: Tensor, index: Tensor, like: Tensor) -> Tensor:
    """Put the values back where ``index`` says, in a plane of the size of ``like``."""
    return F.max_unpool2d(values, index, [2, 2], output_size=list(like.shape[2:]))


@_export_unpool.register_fake
def _(values: Tensor, index: Tensor, like: Tensor) -> Tensor:
    """Return an empty tensor with the shape of the result, for tracing."""
    return values.new_empty(values.shape[0], values.shape[1], like.shape[2], like.shape[3])


def max_pool_code(x: Tensor) -> tuple[Tensor, Tensor]:
    """Pool 2x2 windows and remember the place of each maximum.

    Parameters
    ----------
    x : (N, C, H, W), a floating-point dtype.

    Returns
    -------
    The maxima (N, C, H//2, W//2) in the dtype of ``x``, and their uint8 code, 0 to 3, of the same
    shape. Under ``torch.export`` the code is an opaque int64 tensor, for ``max_unpool_code`` only.

    Examples
    --------
    >>> values, code = max_pool_code(torch.tensor([[[[1.0, 5.0], [3.0, 2.0]]]]))
    >>> values.item(), code.item()
    (5.0, 1)
    """
    if torch.compiler.is_exporting():
        values, code = _export_pool(x)
    else:
        values, code = _MaxPoolCode.apply(x)
    return values, code


def max_unpool_code(values: Tensor, code: Tensor, like: Tensor) -> Tensor:
    """Put values back where the code says, and zero elsewhere.

    Parameters
    ----------
    values : (N, C, h, w), a floating-point dtype.
    code : the code of ``max_pool_code``, (N, C, h, w).
    like : (N, C, H, W), a tensor of the size that was pooled: H is 2h or 2h + 1, W is 2w or 2w + 1.

    Returns
    -------
    (N, C, H, W) in the dtype of ``values``.

    Examples
    --------
    >>> image = torch.tensor([[[[1.0, 5.0], [3.0, 2.0]]]])
    >>> values, code = max_pool_code(image)
    >>> max_unpool_code(values, code, like=image)
    tensor([[[[0., 5.],
              [0., 0.]]]])
    """
    out: Tensor
    if torch.compiler.is_exporting():
        out = _export_unpool(values, code, like)
    else:
        out = _MaxUnpoolCode.apply(values, code, tuple(like.shape[2:]))
    return out
