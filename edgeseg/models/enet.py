"""ENet (Paszke, Chaurasia, Kim, Culurciello 2016, table 1 and figure 2).

The paper: "ENet: A Deep Neural Network Architecture for Real-Time Semantic Segmentation".
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.base import SegmentationModel
from edgeseg.models.pooling import max_pool_code, max_unpool_code


def conv_bn(
    cin: int,
    cout: int,
    kernel: int | tuple[int, int],
    *,
    stride: int = 1,
    dilation: int = 1,
) -> nn.Sequential:
    """Return a convolution without bias, then batch normalisation.

    Parameters
    ----------
    cin, cout : channels of the input and of the output.
    kernel : side of the kernel, or (height, width). Odd kernels get 'same' padding, others none.
    stride, dilation : of the convolution.

    Examples
    --------
    >>> conv_bn(3, 8, (5, 1))(torch.zeros(1, 3, 16, 16)).shape
    torch.Size([1, 8, 16, 16])
    """
    kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
    is_odd = kh % 2 and kw % 2
    padding = (dilation * (kh // 2), dilation * (kw // 2)) if is_odd else (0, 0)
    conv = nn.Conv2d(cin, cout, (kh, kw), stride, padding, dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout))


def activation(channels: int, relu: bool) -> nn.Module:
    """Return a PReLU for the encoder, or a ReLU for the decoder, as the authors trained it.

    Parameters
    ----------
    channels : channels of the input; a PReLU has one slope per channel.
    relu : True for a ReLU.

    Examples
    --------
    >>> activation(16, relu=False)
    PReLU(num_parameters=16)
    """
    return nn.ReLU(inplace=True) if relu else nn.PReLU(channels)


class InitialBlock(nn.Module):
    """Concatenate a 3x3 stride-2 convolution and a max-pooling of the image (figure 2a).

    Parameters
    ----------
    cout : channels of the output; three of them are the pooled image.

    Examples
    --------
    >>> InitialBlock(16)(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 16, 16, 16])
    """

    def __init__(self, cout: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, cout - 3, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(cout)
        self.act = nn.PReLU(cout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, cout, H/2, W/2)."""
        x = torch.cat([self.conv(x), F.max_pool2d(x, 2)], 1)
        out: Tensor = self.act(self.bn(x))
        return out


class Bottleneck(nn.Module):
    """Add a 1x1 projection, a convolution and a 1x1 expansion to the input (figure 2b, same size).

    Parameters
    ----------
    channels : channels of the input and of the output.
    dropout : probability of a channel to be dropped in training.
    dilation : dilation of the 3x3 convolution.
    asymmetric : use a 5x1 and a 1x5 convolution instead of the 3x3 one.
    relu : use ReLU, as in the decoder, instead of PReLU.

    Examples
    --------
    >>> Bottleneck(16, dropout=0.1)(torch.zeros(1, 16, 8, 8)).shape
    torch.Size([1, 16, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        *,
        dropout: float,
        dilation: int = 1,
        asymmetric: bool = False,
        relu: bool = False,
    ) -> None:
        super().__init__()
        mid = channels // 4

        if asymmetric:
            column = nn.Conv2d(mid, mid, (5, 1), padding=(2, 0), bias=False)
            middle = [column, conv_bn(mid, mid, (1, 5))]
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
        """Map (N, channels, H, W) to the same shape."""
        out: Tensor = self.act(x + self.branch(x))
        return out


class DownBottleneck(nn.Module):
    """Halve height and width, and remember the positions of the maxima (figure 2b, downsampling).

    A 2x2 stride-2 projection runs beside a max-pooling.

    Parameters
    ----------
    cin, cout : channels of the input and of the output.
    dropout : probability of a channel to be dropped in training.

    Examples
    --------
    >>> out, code = DownBottleneck(16, 64, dropout=0.1)(torch.zeros(1, 16, 8, 8))
    >>> out.shape, code.shape
    (torch.Size([1, 64, 4, 4]), torch.Size([1, 16, 4, 4]))
    """

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
        """Map (N, cin, H, W) to (N, cout, H/2, W/2) and the code of the pooling."""
        main, code = max_pool_code(x)
        main = F.pad(main, (0, 0, 0, 0, 0, self.extra))  # zero channels, as the paper pads
        return self.act(main + self.branch(x)), code


class UpBottleneck(nn.Module):
    """Double height and width with the positions of a pooling (figure 2b, upsampling).

    A 1x1 convolution and a max-unpooling run beside a transposed convolution.

    Parameters
    ----------
    cin, cout : channels of the input and of the output.
    dropout : probability of a channel to be dropped in training.

    Examples
    --------
    >>> pooled, code = max_pool_code(torch.zeros(1, 16, 8, 8))
    >>> UpBottleneck(64, 16, dropout=0.1)(torch.zeros(1, 64, 4, 4), code).shape
    torch.Size([1, 16, 8, 8])
    """

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
        """Map (N, cin, h, w) to (N, cout, 2h, 2w); ``code`` is (N, cout, h, w)."""
        branch = self.expand(self.up(self.reduce(x)))
        main = max_unpool_code(self.main(x), code, branch)
        out: Tensor = self.act(main + branch)
        return out


class _Middle(NamedTuple):
    """Hold the variable arguments of one bottleneck of sections 2 and 3."""

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


class ENet(SegmentationModel):
    """Map (N, 3, H, W) float images to (N, classes, H, W) logits; H and W are multiples of 8.

    Parameters
    ----------
    classes : number of classes.

    Examples
    --------
    >>> model = ENet(classes=11).eval()
    >>> model(torch.zeros(1, 3, 64, 96)).shape
    torch.Size([1, 11, 64, 96])
    """

    stride = 8
    unpools = True

    def __init__(self, classes: int) -> None:
        super().__init__()

        # Encoder: stages 1 to 3 of table 1.
        self.initial = InitialBlock(16)
        self.down1 = DownBottleneck(16, 64, dropout=0.01)
        self.stage1 = nn.Sequential(*(Bottleneck(64, dropout=0.01) for _ in range(4)))
        self.down2 = DownBottleneck(64, 128, dropout=0.1)
        middle: list[Bottleneck] = []
        for dilation, asymmetric in _SECTION * 2:
            middle.append(Bottleneck(128, dropout=0.1, dilation=dilation, asymmetric=asymmetric))
        self.stage23 = nn.Sequential(*middle)

        # Decoder: stages 4 and 5.
        self.up4 = UpBottleneck(128, 64, dropout=0.1)
        self.stage4 = nn.Sequential(*(Bottleneck(64, dropout=0.1, relu=True) for _ in range(2)))
        self.up5 = UpBottleneck(64, 16, dropout=0.1)
        self.stage5 = Bottleneck(16, dropout=0.1, relu=True)
        self.classifier = nn.ConvTranspose2d(16, classes, 2, 2)

    def compute(self, x: Tensor) -> Tensor:
        """Return (N, classes, H, W) logits for (N, 3, H, W) float images."""
        x = self.initial(x)
        x, code1 = self.down1(x)
        x, code2 = self.down2(self.stage1(x))
        x = self.up4(self.stage23(x), code2)
        x = self.up5(self.stage4(x), code1)
        out: Tensor = self.classifier(self.stage5(x))
        return out
