"""Fully convolutional nets without skip connections: five halvings, five doublings by transposed convolution.

The reports' table; after Long, Shelhamer, Darrell 2015, "Fully Convolutional Networks for Semantic Segmentation".
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

_DOWN = (32, 64, 128, 256, 512)
_UP = (512, 256, 128, 64, 32)


class Encoder(nn.Module):
    """Five 3x3 convolutions with stride 2, each ReLU then batch normalisation; the deepest map last."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        for place, (cin, cout) in enumerate(zip((3, *_DOWN), _DOWN, strict=False)):
            layers = [nn.Conv2d(cin, cout, 3, 2, 1), nn.ReLU(inplace=True), nn.BatchNorm2d(cout)]
            self.blocks.append(nn.Sequential(*layers, nn.Dropout(0.0 if place else dropout)))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps


class Up(nn.Module):
    """A 3x3 transposed convolution with stride 2 to a given size, ReLU, batch normalisation."""

    def __init__(self, cin: int, cout: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(cin, cout, 3, 2, 1)
        self.rest = nn.Sequential(nn.ReLU(inplace=True), nn.BatchNorm2d(cout), nn.Dropout(dropout))

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        out: Tensor = self.rest(self.conv(x, output_size=list(size)))
        return out


class FCN(nn.Module):
    """(N, 3, H, W) float image, H and W at least 32 -> (N, classes, H, W) logits.

    ``encoder``: ``plain``, or ``resnet34``, torchvision's without its last two layers. ``dropout_down`` and
    ``dropout_up`` act behind the first block of the plain encoder and of the decoder.
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
        self.up = nn.ModuleList(
            Up(cin, cout, 0.0 if place else dropout_up)
            for place, (cin, cout) in enumerate(zip((512, *_UP), _UP, strict=False))
        )
        self.classifier = nn.Conv2d(_UP[-1], classes, 1)
        self.encoder: nn.Module = Encoder(dropout_down)
        self.apply(_xavier)
        if encoder == "resnet34":
            from edgeseg.models.resnet import ResNetEncoder

            self.encoder = ResNetEncoder(34)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x, *self.encoder(x)]
        x = maps.pop()
        for block in self.up:
            x = block(x, maps.pop().shape[2:])
        out: Tensor = self.classifier(x)
        return out


def _xavier(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
