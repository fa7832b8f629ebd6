"""U-Net on a ResNet-34 that enlarges by pixel shuffle: the DynamicUnet of the fastai library.

The report trained this model. It follows Howard et al., fastai 1.0 (``vision/models/unet.py``).
Pixel shuffle: Shi et al. 2016; its initialisation: Aitken et al. 2017.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.base import SegmentationModel
from edgeseg.models.resnet import ResNetEncoder


def conv_relu_bn(cin: int, cout: int) -> nn.Sequential:
    """Return a 3x3 convolution, ReLU, then batch normalisation, in the order of fastai.

    Parameters
    ----------
    cin, cout : channels of the input and of the output.

    Examples
    --------
    >>> conv_relu_bn(3, 8)(torch.zeros(1, 3, 16, 16)).shape
    torch.Size([1, 8, 16, 16])
    """
    conv = nn.Conv2d(cin, cout, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    return nn.Sequential(conv, nn.ReLU(inplace=True), nn.BatchNorm2d(cout))


class Shuffle(nn.Module):
    """Double height and width: 1x1 convolution to four times the channels, ReLU, pixel shuffle.

    Parameters
    ----------
    cin, cout : channels of the input and of the output.

    Examples
    --------
    >>> Shuffle(8, 4)(torch.zeros(1, 8, 5, 5)).shape
    torch.Size([1, 4, 10, 10])
    """

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, 4 * cout, 1)

        # The four pixels of a place start with equal weights, so that no checkerboard appears.
        with torch.no_grad():
            start = torch.empty(cout, cin, 1, 1, device=self.conv.weight.device)
            nn.init.kaiming_normal_(start)
            self.conv.weight.copy_(start.repeat_interleave(4, 0))
            nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, cin, h, w) to (N, cout, 2h, 2w)."""
        return F.pixel_shuffle(F.relu(self.conv(x)), 2)


class UpBlock(nn.Module):
    """Double a map, concatenate it with the encoder's normalised map, and run two convolutions.

    Parameters
    ----------
    cin : channels of the map to double.
    skip : channels of the encoder's map.
    cout : channels of the output; None for ``cin // 2 + skip``.

    Attributes
    ----------
    channels : channels of the output.

    Examples
    --------
    >>> block = UpBlock(8, 6)
    >>> block(torch.zeros(1, 8, 5, 5), torch.zeros(1, 6, 9, 10)).shape
    torch.Size([1, 10, 9, 10])
    """

    def __init__(self, cin: int, skip: int, cout: int | None = None) -> None:
        super().__init__()
        joined = cin // 2 + skip
        self.shuffle = Shuffle(cin, cin // 2)
        self.norm = nn.BatchNorm2d(skip)
        self.channels = cout or joined
        self.conv = nn.Sequential(
            conv_relu_bn(joined, self.channels),
            conv_relu_bn(self.channels, self.channels),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map (N, cin, h, w) and (N, skip, H, W) to (N, channels, H, W); H is 2h or 2h - 1."""
        joined = torch.cat([_fit(self.shuffle(x), skip), self.norm(skip)], 1)
        out: Tensor = self.conv(F.relu(joined))
        return out


def _fit(x: Tensor, like: Tensor) -> Tensor:
    """Return ``x`` without its last row or column if ``like`` has an odd height or width."""
    height, width = like.shape[2:]
    return x if x.shape[2:] == like.shape[2:] else x[:, :, :height, :width]


class UNetResNet34(SegmentationModel):
    """Map (N, 3, H, W) float images to (N, classes, H, W) logits.

    Any H and W work; below 32 pixels the deepest map has no pixel to halve.

    Parameters
    ----------
    classes : number of classes.

    Examples
    --------
    >>> with torch.device("meta"):  # shapes alone: no memory, no computation
    ...     UNetResNet34(classes=11).eval()(torch.empty(1, 3, 33, 64)).shape
    torch.Size([1, 11, 33, 64])
    """

    pretrained = "resnet34"

    encoder: ResNetEncoder

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.encoder = ResNetEncoder(34)
        *skips, deepest = self.encoder.channels
        self.middle = nn.Sequential(
            nn.BatchNorm2d(deepest),
            nn.ReLU(inplace=True),
            conv_relu_bn(deepest, 2 * deepest),
            conv_relu_bn(2 * deepest, deepest),
        )

        # One block per map of the encoder; the last one halves its channels.
        self.up = nn.ModuleList()
        width = deepest
        for place, skip in enumerate(reversed(skips)):
            is_last = place == len(skips) - 1
            block = UpBlock(width, skip, (width // 2 + skip) // 2 if is_last else None)
            self.up.append(block)
            width = block.channels

        # The full size, where the image itself joins with its three channels.
        self.shuffle = Shuffle(width, width)
        width += 3
        self.final = nn.Sequential(conv_relu_bn(width, width), conv_relu_bn(width, width))
        self.classifier = nn.Conv2d(width, classes, 1)

    def compute(self, x: Tensor) -> Tensor:
        """Return (N, classes, H, W) logits for (N, 3, H, W) float images."""
        image = x
        *skips, x = self.encoder(x)
        x = self.middle(x)
        for block in self.up:
            x = block(x, skips.pop())

        x = torch.cat([_fit(self.shuffle(x), image), image], 1)
        out: Tensor = self.classifier(x + self.final(x))
        return out
