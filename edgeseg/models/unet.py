"""U-Net (Ronneberger, Fischer, Brox 2015, figure 1) and R2U-Net (Alom et al. 2018).

This U-Net has batch normalisation and 'same' padding, so that nothing is cropped. R2U-Net has the
same shape with recurrent residual blocks.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.base import SegmentationModel
from edgeseg.models.blocks import conv_bn_relu, double_conv

_WIDTHS = (64, 128, 256, 512, 1024)


class _Enlarge(nn.Module):
    """Enlarge a map to a given size. The subclasses are the ways to do so."""

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Map (N, cin, h, w) to (N, cout, *size)."""
        raise NotImplementedError


class Transposed(_Enlarge):
    """Enlarge a map to a given size by a 2x2 transposed convolution.

    If a side of the size is odd, the last row or column is the bias.

    Parameters
    ----------
    cin, cout : channels of the input and of the output.

    Examples
    --------
    >>> Transposed(8, 4)(torch.zeros(1, 8, 5, 5), (10, 11)).shape
    torch.Size([1, 4, 10, 11])
    """

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(cin, cout, 2, 2)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Map (N, cin, h, w) to (N, cout, *size); each side of ``size`` is 2h or 2h + 1 (2w)."""
        out: Tensor = self.conv(x, output_size=list(size))
        return out


class Nearest(_Enlarge):
    """Enlarge a map to a given size by nearest upsampling and a 3x3 convolution.

    Batch normalisation and ReLU follow the convolution.

    Parameters
    ----------
    cin, cout : channels of the input and of the output.

    Examples
    --------
    >>> Nearest(8, 4)(torch.zeros(1, 8, 5, 5), (10, 11)).shape
    torch.Size([1, 4, 10, 11])
    """

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv = conv_bn_relu(cin, cout)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Map (N, cin, h, w) to (N, cout, *size)."""
        out: Tensor = self.conv(F.interpolate(x, list(size)))
        return out


class Recurrent(nn.Module):
    """Apply one convolution ``1 + steps`` times.

    From the second time on, it reads its first input plus its last output.

    Parameters
    ----------
    channels : channels of the input and of the output.
    steps : number of repetitions.

    Examples
    --------
    >>> Recurrent(8, steps=2)(torch.zeros(1, 8, 5, 5)).shape
    torch.Size([1, 8, 5, 5])
    """

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__()
        self.conv = conv_bn_relu(channels, channels)
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to the same shape."""
        out: Tensor = self.conv(x)
        for _ in range(self.steps):
            out = self.conv(x + out)
        return out


class RecurrentResidual(nn.Module):
    """Run a 1x1 convolution, then two recurrent ones whose input is added (Alom et al., figure 3d).

    Parameters
    ----------
    cin, cout : channels of the input and of the output.
    steps : number of repetitions of each recurrent convolution.

    Examples
    --------
    >>> RecurrentResidual(8, 4, steps=2)(torch.zeros(1, 8, 5, 5)).shape
    torch.Size([1, 4, 5, 5])
    """

    def __init__(self, cin: int, cout: int, steps: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(cin, cout, 1)
        self.body = nn.Sequential(Recurrent(cout, steps), Recurrent(cout, steps))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, cin, H, W) to (N, cout, H, W)."""
        x = self.widen(x)
        out: Tensor = x + self.body(x)
        return out


class _UShape(SegmentationModel):
    """Go down through five widths by max-pooling, and up again.

    On the way up, the map of each level is joined.

    Parameters
    ----------
    classes : number of classes.
    block : ``block(cin, cout)`` makes the module of a level.
    up : ``up(cin, cout)`` makes the module that enlarges a map to the size of the level above it.
    """

    min_side = 2 ** (len(_WIDTHS) - 1)  # 16: four poolings halve each side, to 1 at least

    encoder: nn.ModuleList

    def __init__(
        self,
        classes: int,
        block: Callable[[int, int], nn.Module],
        up: Callable[[int, int], _Enlarge],
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(block(cin, cout) for cin, cout in pairwise((3, *_WIDTHS)))

        # The map of a level joins in front of its block, which therefore reads twice the width.
        steps = list(pairwise(_WIDTHS[::-1]))
        self.up = nn.ModuleList(up(cin, cout) for cin, cout in steps)
        self.decoder = nn.ModuleList(block(2 * cout, cout) for _, cout in steps)

        self.classifier = nn.Conv2d(_WIDTHS[0], classes, 1)

    def compute(self, x: Tensor) -> Tensor:
        """Return (N, classes, H, W) logits for (N, 3, H, W) float images."""
        # Down: pool in front of each block but the first.
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            if level > 0:
                x = F.max_pool2d(x, 2)
            x = block(x)
            skips.append(x)

        # Up: join the map of each level.
        x = skips.pop()
        for up, block in zip(self.up, self.decoder, strict=True):
            skip = skips.pop()
            x = block(torch.cat([skip, up(x, skip.shape[2:])], 1))

        out: Tensor = self.classifier(x)
        return out


class UNet(_UShape):
    """Map (N, 3, H, W) float images to (N, classes, H, W) logits; H and W are at least 16.

    Parameters
    ----------
    classes : number of classes.

    Examples
    --------
    >>> with torch.device("meta"):  # shapes alone: no memory, no computation
    ...     UNet(classes=11).eval()(torch.empty(1, 3, 32, 49)).shape
    torch.Size([1, 11, 32, 49])
    """

    def __init__(self, classes: int) -> None:
        super().__init__(classes, double_conv, Transposed)


class R2UNet(_UShape):
    """Map (N, 3, H, W) float images to (N, classes, H, W) logits; H and W are at least 16.

    The model has 39.1 M parameters, as the public implementations have: two recurrent units per
    block, and a 3x3 convolution behind each nearest upsampling. The paper's table does not state a
    count for this depth; a report states 30.0 M, but not the structure that gives this number.

    Parameters
    ----------
    classes : number of classes.
    t : recurrent steps per convolution.

    Examples
    --------
    >>> with torch.device("meta"):  # shapes alone: no memory, no computation
    ...     R2UNet(classes=11).eval()(torch.empty(1, 3, 32, 49)).shape
    torch.Size([1, 11, 32, 49])
    """

    def __init__(self, classes: int, t: int = 2) -> None:
        super().__init__(classes, partial(RecurrentResidual, steps=t), Nearest)
