"""PSPNet (Zhao et al. 2017, "Pyramid Scene Parsing Network") on a ResNet-50 dilated to stride 8."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.blocks import conv_bn_relu
from edgeseg.models.resnet import ResNetEncoder

BINS = (1, 2, 3, 6)


def bin_weights(size: int, bins: int) -> Tensor:
    """(bins, size): row b averages PyTorch's adaptive bin b, floor(b * size / bins) to ceil((b + 1) * size / bins)."""
    rows = torch.zeros(bins, size)
    for b in range(bins):
        start, end = b * size // bins, -(-(b + 1) * size // bins)
        rows[b, start:end] = 1 / (end - start)
    return rows


def pool_to_bins(x: Tensor, bins: int) -> Tensor:
    """``adaptive_avg_pool2d(x, bins)``, by two matrix products where ``bins`` do not divide the map: all targets do."""
    height, width = x.shape[2:]
    if bins == 1:
        return x.mean((2, 3), keepdim=True)
    if height % bins == 0 and width % bins == 0:
        return F.avg_pool2d(x, (height // bins, width // bins))
    rows, columns = bin_weights(height, bins).to(x), bin_weights(width, bins).to(x)
    # From the left both times: a constant on the right would be taken for the weights of a layer, and quantized.
    pooled_rows = torch.matmul(rows, x).transpose(2, 3)
    return torch.matmul(columns, pooled_rows).transpose(2, 3)


class Pyramid(nn.Module):
    """Figure 3c: the map averaged in 1, 2, 3 and 6 bins a side, each projected, enlarged, and concatenated to it."""

    def __init__(self, channels: int, cout: int) -> None:
        super().__init__()
        part = channels // len(BINS)
        self.branches = nn.ModuleList(conv_bn_relu(channels, part, 1, bias=False) for _ in BINS)
        self.merge = nn.Sequential(conv_bn_relu(channels + len(BINS) * part, cout, bias=False), nn.Dropout2d(0.1))

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        parts = [x]
        for bins, branch in zip(BINS, self.branches, strict=True):
            parts.append(F.interpolate(branch(pool_to_bins(x, bins)), size, mode="bilinear", align_corners=False))
        out: Tensor = self.merge(torch.cat(parts, 1))
        return out


class PSPNet(nn.Module):
    """(N, 3, H, W) float image, H and W at least 48 -> (N, classes, H / 8, W / 8) logits, sizes rounded up.

    In training, (logits, auxiliary logits): the latter from the third stage, weighed ``auxiliary_weight`` in the loss.
    ``stem``: ``deep``, the authors' three 3x3 convolutions, or ``plain``, torchvision's, whose weights then fit.
    """

    auxiliary_weight = 0.4

    def __init__(self, classes: int, stem: Literal["deep", "plain"] = "deep") -> None:
        super().__init__()
        if stem not in ("deep", "plain"):
            raise ValueError(f"stem is deep or plain, not {stem!r}")
        self.encoder = ResNetEncoder(50, dilated=True, deep_stem=stem == "deep")
        *_, third, last = self.encoder.channels
        self.pyramid = Pyramid(last, 512)
        self.classifier = nn.Conv2d(512, classes, 1)
        self.auxiliary = nn.Sequential(
            conv_bn_relu(third, 512, bias=False), nn.Dropout2d(0.1), nn.Conv2d(512, classes, 1)
        )

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        *_, third, last = self.encoder(x)
        logits: Tensor = self.classifier(self.pyramid(last))
        return (logits, self.auxiliary(third)) if self.training else logits
