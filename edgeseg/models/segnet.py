"""SegNet (Badrinarayanan, Kendall, Cipolla 2015, figure 2).

The paper: "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation". The
encoder is VGG16's 13 convolutions with batch normalisation; the decoder mirrors it. Five poolings
remember positions.
"""

from torch import Tensor, nn

from edgeseg.models.base import SegmentationModel
from edgeseg.models.blocks import conv_bn_relu
from edgeseg.models.pooling import max_pool_code, max_unpool_code

# VGG16's stages: (channels, convolutions), Simonyan & Zisserman 2014, configuration D.
VGG16_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class SegNet(SegmentationModel):
    """Map (N, 3, H, W) float images to (N, classes, H, W) logits; H and W are at least 32.

    Parameters
    ----------
    classes : number of classes.

    Examples
    --------
    >>> import torch
    >>> with torch.device("meta"):  # shapes alone: no memory, no computation
    ...     SegNet(classes=11).eval()(torch.empty(1, 3, 32, 48)).shape
    torch.Size([1, 11, 32, 48])
    """

    min_side = 32
    unpools = True
    pretrained = "vgg16"

    encoder: nn.ModuleList

    def __init__(self, classes: int) -> None:
        super().__init__()

        self.encoder = nn.ModuleList()
        cin = 3
        for cout, count in VGG16_STAGES:
            layers = [conv_bn_relu(cin if i == 0 else cout, cout) for i in range(count)]
            self.encoder.append(nn.Sequential(*layers))
            cin = cout

        # From the deepest stage to the first; the last convolution of a stage narrows to the next.
        self.decoder = nn.ModuleList()
        for stage in reversed(range(len(VGG16_STAGES))):
            channels, count = VGG16_STAGES[stage]
            layers = [conv_bn_relu(channels, channels) for _ in range(count - 1)]
            last: nn.Module
            if stage > 0:
                narrower, _ = VGG16_STAGES[stage - 1]
                last = conv_bn_relu(channels, narrower)
            else:
                last = nn.Conv2d(channels, classes, 3, padding=1)
            self.decoder.append(nn.Sequential(*layers, last))

    def compute(self, x: Tensor) -> Tensor:
        """Return (N, classes, H, W) logits for (N, 3, H, W) float images."""
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
    def classifier(self) -> nn.Conv2d:  # type: ignore[override]  # a layer of the decoder
        """Return the last convolution; its bias shifts the logits of the classes."""
        last: nn.Conv2d = self.decoder[-1][-1]  # type: ignore[index]
        return last
