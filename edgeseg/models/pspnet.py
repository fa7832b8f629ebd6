"""PSPNet (Zhao et al. 2017, "Pyramid Scene Parsing Network") on a ResNet-50 dilated to stride 8."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.base import SegmentationModel
from edgeseg.models.blocks import conv_bn_relu
from edgeseg.models.resnet import ResNetEncoder

BINS = (1, 2, 3, 6)  # bins per side, one pyramid level each


def bin_weights(size: int, bins: int) -> Tensor:
    """Return the matrix that averages a side of a map in bins, as PyTorch's adaptive pooling does.

    Bin b goes from floor(b * size / bins) to ceil((b + 1) * size / bins).

    Parameters
    ----------
    size : pixels of the side.
    bins : number of bins.

    Returns
    -------
    (bins, size) float32; row b holds the weights of bin b.

    Examples
    --------
    >>> bin_weights(3, 2)
    tensor([[0.5000, 0.5000, 0.0000],
            [0.0000, 0.5000, 0.5000]])
    """
    rows = torch.zeros(bins, size)
    for index in range(bins):
        start = index * size // bins
        end = -(-(index + 1) * size // bins)  # rounded up
        rows[index, start:end] = 1 / (end - start)
    return rows


def pool_to_bins(x: Tensor, bins: int) -> Tensor:
    """Average a map in ``bins`` x ``bins`` bins, as ``adaptive_avg_pool2d(x, bins)`` does.

    If ``bins`` does not divide the map's sides, two matrix products do it: every target supports
    those.

    Parameters
    ----------
    x : (N, C, H, W).
    bins : bins per side.

    Returns
    -------
    (N, C, bins, bins).

    Examples
    --------
    >>> pool_to_bins(torch.ones(1, 8, 7, 9), 2).shape
    torch.Size([1, 8, 2, 2])
    """
    height, width = x.shape[2:]
    if bins == 1:
        return x.mean((2, 3), keepdim=True)
    if height % bins == 0 and width % bins == 0:
        return F.avg_pool2d(x, (height // bins, width // bins))

    rows = bin_weights(height, bins).to(x)
    columns = bin_weights(width, bins).to(x)

    # Multiply from the left both times: a constant on the right would be taken for the weights of a
    # layer, and quantized.
    pooled_rows = torch.matmul(rows, x).transpose(2, 3)
    return torch.matmul(columns, pooled_rows).transpose(2, 3)


class Pyramid(nn.Module):
    """Concatenate a map with its averages in 1, 2, 3 and 6 bins per side (figure 3c).

    Each average is projected and enlarged before.

    Parameters
    ----------
    channels : channels of the input.
    cout : channels of the output.

    Examples
    --------
    >>> Pyramid(16, 8).eval()(torch.zeros(1, 16, 6, 7)).shape
    torch.Size([1, 8, 6, 7])
    """

    def __init__(self, channels: int, cout: int) -> None:
        super().__init__()
        part = channels // len(BINS)
        joined = channels + len(BINS) * part
        self.branches = nn.ModuleList(conv_bn_relu(channels, part, 1, bias=False) for _ in BINS)
        self.merge = nn.Sequential(conv_bn_relu(joined, cout, bias=False), nn.Dropout2d(0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, H, W) to (N, cout, H, W)."""
        size = x.shape[2:]
        parts = [x]
        for bins, branch in zip(BINS, self.branches, strict=True):
            average = branch(pool_to_bins(x, bins))
            parts.append(F.interpolate(average, size, mode="bilinear", align_corners=False))
        out: Tensor = self.merge(torch.cat(parts, 1))
        return out


class PSPNet(SegmentationModel):
    """Map (N, 3, H, W) float images to (N, classes, H / 8, W / 8) logits, sizes rounded up.

    Any H and W work; from 48 pixels on, each bin of the pyramid has a pixel of its own. In training
    mode the output is (logits, auxiliary logits): the auxiliary logits come from the third stage.

    Parameters
    ----------
    classes : number of classes.
    stem : ``deep``, the authors' three 3x3 convolutions, or ``plain``, torchvision's single
        convolution. torchvision's weights fit the encoder only with ``plain``.

    Raises
    ------
    ValueError : ``stem`` is neither of the two.

    Examples
    --------
    >>> with torch.device("meta"):  # shapes alone: no memory, no computation
    ...     PSPNet(classes=11).eval()(torch.empty(1, 3, 64, 96)).shape
    torch.Size([1, 11, 8, 12])
    """

    output_stride = 8
    auxiliary_weight = 0.4
    pretrained = "resnet50"

    encoder: ResNetEncoder

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

    def compute(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits for (N, 3, H, W) float images; in training mode, auxiliary logits too."""
        *_, third, last = self.encoder(x)
        logits: Tensor = self.classifier(self.pyramid(last))
        return (logits, self.auxiliary(third)) if self.training else logits
