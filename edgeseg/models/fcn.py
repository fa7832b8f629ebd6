"""Fully convolutional nets without skip connections: five halvings, then five doublings.

The doublings are transposed convolutions. The widths come from the table of the reports, after
Long, Shelhamer, Darrell 2015, "Fully Convolutional Networks for Semantic Segmentation".
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from edgeseg.models.base import SegmentationModel

_DOWN = (32, 64, 128, 256, 512)
_UP = (512, 256, 128, 64, 32)


class Encoder(nn.Module):
    """Run five 3x3 convolutions with stride 2, each followed by ReLU, then batch normalisation.

    Parameters
    ----------
    dropout : probability of dropout behind the first block.

    Examples
    --------
    >>> import torch
    >>> maps = Encoder(dropout=0.0)(torch.zeros(2, 3, 64, 64))
    >>> maps[-1].shape
    torch.Size([2, 512, 2, 2])
    """

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        cin = 3
        for place, cout in enumerate(_DOWN):
            block = nn.Sequential(
                nn.Conv2d(cin, cout, 3, 2, 1),
                nn.ReLU(inplace=True),
                nn.BatchNorm2d(cout),
                nn.Dropout(0.0 if place else dropout),
            )
            self.blocks.append(block)
            cin = cout

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps after each block for (N, 3, H, W) images; the deepest map comes last."""
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps


class Up(nn.Module):
    """Enlarge a map to a given size: 3x3 transposed convolution with stride 2, ReLU, normalisation.

    Parameters
    ----------
    cin, cout : channels of the input and of the output.
    dropout : probability of dropout behind the batch normalisation.

    Examples
    --------
    >>> import torch
    >>> Up(8, 4, dropout=0.0)(torch.zeros(1, 8, 5, 5), (9, 10)).shape
    torch.Size([1, 4, 9, 10])
    """

    def __init__(self, cin: int, cout: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(cin, cout, 3, 2, 1)
        self.rest = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.BatchNorm2d(cout),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Map (N, cin, h, w) to (N, cout, *size); each side of ``size`` is 2h - 1 or 2h (2w)."""
        out: Tensor = self.rest(self.conv(x, output_size=list(size)))
        return out


class FCN(SegmentationModel):
    """Map (N, 3, H, W) float images to (N, classes, H, W) logits.

    Any H and W work; below 32 pixels the deepest map has no pixel to halve.

    Parameters
    ----------
    classes : number of classes.
    encoder : ``plain``, or ``resnet34``, torchvision's ResNet-34 without its last two layers.
    dropout_down : probability of dropout behind the first block of the plain encoder.
    dropout_up : probability of dropout behind the first block of the decoder.

    Raises
    ------
    ValueError : ``encoder`` is neither of the two.

    Examples
    --------
    >>> import torch
    >>> with torch.device("meta"):  # shapes alone: no memory, no computation
    ...     FCN(classes=11).eval()(torch.empty(1, 3, 33, 64)).shape
    torch.Size([1, 11, 33, 64])
    """

    def __init__(
        self,
        classes: int,
        encoder: Literal["plain", "resnet34"] = "plain",
        dropout_down: float = 0.0,
        dropout_up: float = 0.0,
    ) -> None:
        super().__init__()
        if encoder not in ("plain", "resnet34"):
            raise ValueError(f"encoder is plain or resnet34, not {encoder!r}")

        # The decoder. The order of construction decides the random weights of a seed.
        self.up = nn.ModuleList()
        cin = _DOWN[-1]
        for place, cout in enumerate(_UP):
            self.up.append(Up(cin, cout, 0.0 if place else dropout_up))
            cin = cout
        self.classifier = nn.Conv2d(_UP[-1], classes, 1)

        # The plain encoder, then the weights of all convolutions so far.
        self.encoder = Encoder(dropout_down)
        self.apply(_xavier)

        # A ResNet keeps torchvision's own initialisation.
        if encoder == "resnet34":
            from edgeseg.models.resnet import ResNetEncoder

            self.encoder = ResNetEncoder(34)
            self.pretrained = "resnet34"

    def compute(self, x: Tensor) -> Tensor:
        """Return (N, classes, H, W) logits for (N, 3, H, W) float images."""
        maps = [x, *self.encoder(x)]
        x = maps.pop()
        for block in self.up:
            larger = maps.pop()
            x = block(x, larger.shape[2:])
        out: Tensor = self.classifier(x)
        return out


def _xavier(module: nn.Module) -> None:
    """Initialise a convolution: Xavier uniform weights, zero biases."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
