"""U-Net (Ronneberger, Fischer, Brox 2015, figure 1) with batch normalisation and 'same' padding, so nothing is cropped;
and R2U-Net (Alom et al. 2018), the same shape with recurrent residual blocks.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.blocks import conv_bn_relu, double_conv

_WIDTHS = (64, 128, 256, 512, 1024)


class _UShape(nn.Module):
    """Five widths down by max-pooling and up again, each level's map joined on the way up.

    ``block(cin, cout)`` makes what stands at a level, ``up(cin, cout)`` a module that is called with a map and the
    height and width to bring it to.
    """

    def __init__(
        self, classes: int, block: Callable[[int, int], nn.Module], up: Callable[[int, int], nn.Module]
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(block(a, b) for a, b in pairwise((3, *_WIDTHS)))
        pairs = list(pairwise(_WIDTHS[::-1]))
        self.up = nn.ModuleList(up(a, b) for a, b in pairs)
        self.decoder = nn.ModuleList(block(2 * b, b) for _, b in pairs)
        self.classifier = nn.Conv2d(_WIDTHS[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for block in self.encoder:
            x = block(F.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        x = skips.pop()
        for up, block in zip(self.up, self.decoder, strict=True):
            skip = skips.pop()
            x = block(torch.cat([skip, up(x, skip.shape[2:])], 1))
        out: Tensor = self.classifier(x)
        return out


class Transposed(nn.Module):
    """A 2x2 transposed convolution to a given size; an odd one's last row or column is the bias."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(cin, cout, 2, 2)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        out: Tensor = self.conv(x, output_size=list(size))
        return out


class Nearest(nn.Module):
    """Nearest upsampling to a given size, then a 3x3 convolution with batch normalisation and ReLU."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv = conv_bn_relu(cin, cout)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        out: Tensor = self.conv(F.interpolate(x, list(size)))
        return out


class UNet(_UShape):
    """(N, 3, H, W) float image, H and W at least 16 -> (N, classes, H, W) logits."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes, double_conv, Transposed)


class Recurrent(nn.Module):
    """One convolution applied ``1 + steps`` times, from the second on to its input plus what it gave before."""

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__()
        self.conv, self.steps = conv_bn_relu(channels, channels), steps

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        for _ in range(self.steps):
            out = self.conv(x + out)
        return out


class RecurrentResidual(nn.Module):
    """Figure 3d of Alom et al.: a 1x1 convolution to the width, two recurrent convolutions, their input added."""

    def __init__(self, cin: int, cout: int, steps: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(cin, cout, 1)
        self.body = nn.Sequential(Recurrent(cout, steps), Recurrent(cout, steps))

    def forward(self, x: Tensor) -> Tensor:
        x = self.widen(x)
        out: Tensor = x + self.body(x)
        return out


class R2UNet(_UShape):
    """(N, 3, H, W) float image, H and W at least 16 -> (N, classes, H, W) logits; ``t`` recurrent steps a convolution.

    39.1 M parameters, as the public implementations have: two recurrent units a block and a 3x3 convolution behind each
    nearest upsampling. The paper's table does not state a count for this depth; a report's 30.0 M comes without the
    structure that gives it.
    """

    def __init__(self, classes: int, t: int = 2) -> None:
        super().__init__(classes, partial(RecurrentResidual, steps=t), Nearest)
