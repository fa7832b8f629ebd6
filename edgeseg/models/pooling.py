"""Max-pooling that remembers positions in one byte a window, and the matching max-unpooling.

SegNet (Badrinarayanan et al., 2015, section 3) and ENet (Paszke et al., 2016, section 4) keep where each maximum was
and put values back there. PyTorch keeps an int64 index for that; two bits are enough, so a byte is kept here, in
training too.

Windows are 2x2, stride 2. The code of a window is its maximum's place in row-major order: 0 1 / 2 3. The first maximum
wins a tie, as in PyTorch. A trailing odd row or column is dropped by pooling and left zero by unpooling.

While ``torch.export`` traces, the two operators stand in the graph whole, as ``torch.library`` operators, so that
``edgeseg.export`` can write them as the ONNX standard's ``MaxPool`` with ``Indices`` and ``MaxUnpool``. Otherwise they
are plain tensor code with their own gradient, which ``torch.compile`` can fuse.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))


def _pool(x: Tensor) -> tuple[Tensor, Tensor]:
    values, index = F.max_pool2d(x, 2, return_indices=True)
    width = x.shape[3]
    # index = row * width + column inside one channel plane; only the parity of row and column matters.
    row = torch.div(index, width, rounding_mode="floor")
    code = ((row & 1) << 1) | ((index - row * width) & 1)
    return values, code.to(torch.uint8)


def _unpool(values: Tensor, code: Tensor, size: Sequence[int]) -> Tensor:
    n, c, h, w = values.shape
    # Four planes side by side, (N, C, h, 2, w, 2), are the unpooled plane: one fused kernel under torch.compile.
    zero = values.new_zeros(())
    planes = [torch.where(code == place, values, zero) for place in range(4)]
    rows = [torch.stack(planes[0:2], dim=-1), torch.stack(planes[2:4], dim=-1)]
    out = torch.stack(rows, dim=3).reshape(n, c, 2 * h, 2 * w)
    if (size[0], size[1]) != (2 * h, 2 * w):
        out = F.pad(out, (0, size[1] - 2 * w, 0, size[0] - 2 * h))
    return out


def _unpool_strided(values: Tensor, code: Tensor, size: Sequence[int]) -> Tensor:
    """As ``_unpool``, in the layout of ``values`` (channels-last stays channels-last): faster in eager mode."""
    n, c, h, w = values.shape
    nhwc = values.is_contiguous(memory_format=torch.channels_last) and not values.is_contiguous()
    layout = torch.channels_last if nhwc else torch.contiguous_format
    out = torch.empty((n, c, *size), dtype=values.dtype, device=values.device, memory_format=layout)
    if (size[0], size[1]) != (2 * h, 2 * w):
        out.zero_()
    for place, (row, column) in enumerate(_CORNERS):
        out[:, :, row : 2 * h : 2, column : 2 * w : 2] = torch.where(code == place, values, 0)
    return out


def _take(x: Tensor, code: Tensor) -> Tensor:
    """Read ``x`` (N, C, H, W) at the remembered places: the gradient of unpooling. Returns (N, C, H//2, W//2)."""
    h, w = code.shape[2:]
    corner = [x[:, :, row : 2 * h : 2, column : 2 * w : 2] for row, column in _CORNERS]
    upper = torch.where(code == 1, corner[1], corner[0])
    lower = torch.where(code == 3, corner[3], corner[2])
    return torch.where(code >= 2, lower, upper)


class _MaxPoolCode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        values, code = _pool(x)
        ctx.mark_non_differentiable(code)
        ctx.save_for_backward(code)
        ctx.size = tuple(x.shape[2:])
        return values, code

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _code: Tensor | None) -> Tensor:
        (code,) = ctx.saved_tensors
        unpool = _unpool if torch.compiler.is_compiling() else _unpool_strided
        return unpool(grad, code, ctx.size)


class _MaxUnpoolCode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, code: Tensor, size: Sequence[int]) -> Tensor:
        ctx.save_for_backward(code)
        unpool = _unpool if torch.compiler.is_compiling() else _unpool_strided
        return unpool(values, code, size)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (code,) = ctx.saved_tensors
        return _take(grad, code), None, None


# What stands in an exported graph: PyTorch's own pair, whole. ``edgeseg.export`` translates it to ONNX's.
@torch.library.custom_op("edgeseg::max_pool_positions", mutates_args=())
def _export_pool(x: Tensor) -> tuple[Tensor, Tensor]:
    values, index = F.max_pool2d(x, 2, return_indices=True)
    return values, index


@_export_pool.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    values = x.new_empty(x.shape[0], x.shape[1], x.shape[2] // 2, x.shape[3] // 2)
    return values, torch.empty_like(values, dtype=torch.int64)


@torch.library.custom_op("edgeseg::max_unpool_positions", mutates_args=())
def _export_unpool(values: Tensor, index: Tensor, like: Tensor) -> Tensor:
    return F.max_unpool2d(values, index, [2, 2], output_size=list(like.shape[2:]))


@_export_unpool.register_fake
def _(values: Tensor, index: Tensor, like: Tensor) -> Tensor:
    return values.new_empty(values.shape[0], values.shape[1], like.shape[2], like.shape[3])


def max_pool_code(x: Tensor) -> tuple[Tensor, Tensor]:
    """Pool ``x`` (N, C, H, W), floating, to values (N, C, H//2, W//2) of its dtype and their uint8 code (0..3).

    Under ``torch.export`` the code is an opaque int64 tensor, for ``max_unpool_code`` only.
    """
    if torch.compiler.is_exporting():
        values, code = _export_pool(x)
    else:
        values, code = _MaxPoolCode.apply(x)
    return values, code


def max_unpool_code(values: Tensor, code: Tensor, like: Tensor) -> Tensor:
    """Put ``values`` (N, C, h, w) back where ``code`` says, zero elsewhere, in a plane of the size of ``like``.

    ``like`` is a tensor (N, C, H, W) of the size of the one pooled: H in {2h, 2h+1}, W in {2w, 2w+1}.
    """
    out: Tensor
    if torch.compiler.is_exporting():
        out = _export_unpool(values, code, like)
    else:
        out = _MaxUnpoolCode.apply(values, code, tuple(like.shape[2:]))
    return out
