"""SegNet (Badrinarayanan, Kendall, Cipolla 2015, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image
Segmentation", figure 2): VGG16's 13 convolutions with batch normalisation, mirrored, five poolings with positions.
"""

from torch import Tensor, nn

from edgeseg.models.blocks import conv_bn_relu
from edgeseg.models.pooling import max_pool_code, max_unpool_code

# VGG16's stages: (channels, convolutions), Simonyan & Zisserman 2014, configuration D.
VGG16_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class SegNet(nn.Module):
    """(N, 3, H, W) float image, H and W at least 32 -> (N, classes, H, W) logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.encoder = nn.ModuleList()
        cin = 3
        for cout, count in VGG16_STAGES:
            layers = [conv_bn_relu(cin if i == 0 else cout, cout) for i in range(count)]
            self.encoder.append(nn.Sequential(*layers))
            cin = cout
        self.decoder = nn.ModuleList()
        for stage in reversed(range(len(VGG16_STAGES))):
            channels, count = VGG16_STAGES[stage]
            narrower = VGG16_STAGES[stage - 1][0] if stage else channels
            layers = [conv_bn_relu(channels, channels) for _ in range(count - 1)]
            last = conv_bn_relu(channels, narrower) if stage else nn.Conv2d(channels, classes, 3, padding=1)
            self.decoder.append(nn.Sequential(*layers, last))

    def forward(self, x: Tensor) -> Tensor:
        codes: list[tuple[Tensor, Tensor]] = []
        for stage in self.encoder:
            before = stage(x)
            x, code = max_pool_code(before)
            codes.append((code, before))
        for stage in self.decoder:
            code, before = codes.pop()
            x = stage(max_unpool_code(x, code, before))
        return x

    @property
    def classifier(self) -> nn.Conv2d:
        """The last convolution, whose bias shifts the classes' scores."""
        last: nn.Conv2d = self.decoder[-1][-1]  # type: ignore[index]
        return last

    def encoder_convolutions(self) -> list[nn.Conv2d]:
        """The thirteen convolutions in VGG16's order, for loading its weights."""
        return [m for m in self.encoder.modules() if isinstance(m, nn.Conv2d)]
