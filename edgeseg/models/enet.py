"""ENet (Paszke, Chaurasia, Kim, Culurciello 2016, "ENet: A Deep Neural Network Architecture for Real-Time Semantic
Segmentation", table 1 and figure 2).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.pooling import max_pool_code, max_unpool_code


def conv_bn(cin: int, cout: int, kernel: int | tuple[int, int], *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution without bias, 'same' padding for odd kernels, then batch normalisation."""
    kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (dilation * (kh // 2), dilation * (kw // 2)) if kh % 2 and kw % 2 else (0, 0)
    conv = nn.Conv2d(cin, cout, (kh, kw), stride, padding, dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout))


def activation(channels: int, relu: bool) -> nn.Module:
    """PReLU in the encoder, ReLU in the decoder, as the authors trained it."""
    return nn.ReLU(inplace=True) if relu else nn.PReLU(channels)


class InitialBlock(nn.Module):
    """Figure 2a: a 3x3 stride-2 convolution beside a max-pool of the image, concatenated."""

    def __init__(self, cout: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, cout - 3, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(cout)
        self.act = nn.PReLU(cout)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.conv(x), F.max_pool2d(x, 2)], 1)
        out: Tensor = self.act(self.bn(x))
        return out


class Bottleneck(nn.Module):
    """Figure 2b without a change of size: 1x1 projection, a convolution, 1x1 expansion, added to the input."""

    def __init__(
        self, channels: int, *, dropout: float, dilation: int = 1, asymmetric: bool = False, relu: bool = False
    ) -> None:
        super().__init__()
        mid = channels // 4
        if asymmetric:
            middle = [nn.Conv2d(mid, mid, (5, 1), padding=(2, 0), bias=False), conv_bn(mid, mid, (1, 5))]
        else:
            middle = [conv_bn(mid, mid, 3, dilation=dilation)]
        self.branch = nn.Sequential(
            conv_bn(channels, mid, 1),
            activation(mid, relu),
            *middle,
            activation(mid, relu),
            conv_bn(mid, channels, 1),
            nn.Dropout2d(dropout),
        )
        self.act = activation(channels, relu)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(x + self.branch(x))
        return out


class DownBottleneck(nn.Module):
    """Figure 2b with downsampling: a 2x2 stride-2 projection beside a max-pool whose positions are kept."""

    def __init__(self, cin: int, cout: int, *, dropout: float) -> None:
        super().__init__()
        mid = cin // 4
        self.branch = nn.Sequential(
            conv_bn(cin, mid, 2, stride=2),
            nn.PReLU(mid),
            conv_bn(mid, mid, 3),
            nn.PReLU(mid),
            conv_bn(mid, cout, 1),
            nn.Dropout2d(dropout),
        )
        self.extra = cout - cin
        self.act = nn.PReLU(cout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        main, code = max_pool_code(x)
        main = F.pad(main, (0, 0, 0, 0, 0, self.extra))  # zero channels, as the paper pads
        return self.act(main + self.branch(x)), code


class UpBottleneck(nn.Module):
    """Figure 2b with upsampling: 1x1 convolution and max-unpool beside a transposed convolution."""

    def __init__(self, cin: int, cout: int, *, dropout: float) -> None:
        super().__init__()
        mid = cin // 4
        self.main = conv_bn(cin, cout, 1)
        self.reduce = nn.Sequential(conv_bn(cin, mid, 1), nn.ReLU(inplace=True))
        self.up = nn.ConvTranspose2d(mid, mid, 3, 2, 1, output_padding=1, bias=False)
        self.expand = nn.Sequential(
            nn.BatchNorm2d(mid), nn.ReLU(inplace=True), conv_bn(mid, cout, 1), nn.Dropout2d(dropout)
        )
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        branch = self.expand(self.up(self.reduce(x)))
        main = max_unpool_code(self.main(x), code, branch)
        out: Tensor = self.act(main + branch)
        return out


class _Middle(NamedTuple):
    dilation: int = 1
    asymmetric: bool = False


# Sections 2 and 3 of table 1: eight bottlenecks, twice.
_SECTION = (
    _Middle(),
    _Middle(2),
    _Middle(asymmetric=True),
    _Middle(4),
    _Middle(),
    _Middle(8),
    _Middle(asymmetric=True),
    _Middle(16),
)


class ENet(nn.Module):
    """(N, 3, H, W) float image, H and W multiples of 8 -> (N, classes, H, W) logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.initial = InitialBlock(16)
        self.down1 = DownBottleneck(16, 64, dropout=0.01)
        self.stage1 = nn.Sequential(*(Bottleneck(64, dropout=0.01) for _ in range(4)))
        self.down2 = DownBottleneck(64, 128, dropout=0.1)
        self.stage23 = nn.Sequential(
            *(Bottleneck(128, dropout=0.1, dilation=m.dilation, asymmetric=m.asymmetric) for m in _SECTION * 2)
        )
        self.up4 = UpBottleneck(128, 64, dropout=0.1)
        self.stage4 = nn.Sequential(*(Bottleneck(64, dropout=0.1, relu=True) for _ in range(2)))
        self.up5 = UpBottleneck(64, 16, dropout=0.1)
        self.stage5 = Bottleneck(16, dropout=0.1, relu=True)
        self.classifier = nn.ConvTranspose2d(16, classes, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.initial(x)
        x, code1 = self.down1(x)
        x, code2 = self.down2(self.stage1(x))
        x = self.up4(self.stage23(x), code2)
        x = self.up5(self.stage4(x), code1)
        out: Tensor = self.classifier(self.stage5(x))
        return out
