"""U-Net on a ResNet-34 that doubles by pixel shuffle: the fastai library's DynamicUnet, which the report trained.

After Howard et al., fastai 1.0 (``vision/models/unet.py``); pixel shuffle: Shi et al. 2016; its initialisation:
Aitken et al. 2017.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.resnet import ResNetEncoder


def conv_relu_bn(cin: int, cout: int) -> nn.Sequential:
    """3x3 convolution, ReLU, batch normalisation: in this order there."""
    conv = nn.Conv2d(cin, cout, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight)
    return nn.Sequential(conv, nn.ReLU(inplace=True), nn.BatchNorm2d(cout))


class Shuffle(nn.Module):
    """1x1 convolution to four times the channels, ReLU, and their shuffle to twice the height and width."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, 4 * cout, 1)
        with torch.no_grad():  # the four pixels of a place start alike: no checkerboard
            start = nn.init.kaiming_normal_(torch.empty(cout, cin, 1, 1, device=self.conv.weight.device))
            self.conv.weight.copy_(start.repeat_interleave(4, 0))
            nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(F.relu(self.conv(x)), 2)


class UpBlock(nn.Module):
    """Double, concatenate with the encoder's normalised map, two convolutions."""

    def __init__(self, cin: int, skip: int, cout: int | None = None) -> None:
        super().__init__()
        joined = cin // 2 + skip
        self.shuffle, self.norm = Shuffle(cin, cin // 2), nn.BatchNorm2d(skip)
        self.channels = cout or joined
        self.conv = nn.Sequential(conv_relu_bn(joined, self.channels), conv_relu_bn(self.channels, self.channels))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        joined = torch.cat([_fit(self.shuffle(x), skip), self.norm(skip)], 1)
        out: Tensor = self.conv(F.relu(joined))
        return out


def _fit(x: Tensor, like: Tensor) -> Tensor:
    """``x`` without the last row or column where the map it meets is odd."""
    height, width = like.shape[2:]
    return x if x.shape[2:] == like.shape[2:] else x[:, :, :height, :width]


class UNetResNet34(nn.Module):
    """(N, 3, H, W) float image, H and W at least 32 -> (N, classes, H, W) logits."""

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
        self.up = nn.ModuleList()
        width = deepest
        for place, skip in enumerate(reversed(skips)):
            last = place == len(skips) - 1
            block = UpBlock(width, skip, (width // 2 + skip) // 2 if last else None)
            self.up.append(block)
            width = block.channels
        self.shuffle = Shuffle(width, width)
        width += 3  # the image itself joins
        self.final = nn.Sequential(conv_relu_bn(width, width), conv_relu_bn(width, width))
        self.classifier = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        image = x
        *skips, x = self.encoder(x)
        x = self.middle(x)
        for block in self.up:
            x = block(x, skips.pop())
        x = torch.cat([_fit(self.shuffle(x), image), image], 1)
        out: Tensor = self.classifier(x + self.final(x))
        return out
