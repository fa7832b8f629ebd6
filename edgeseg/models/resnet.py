"""ResNets (He et al. 2015) as encoders: torchvision's models without their last two layers.

The parameters keep torchvision's names, so that its weight files load without changes.
"""

from torch import Tensor, nn
from torchvision.models import resnet34, resnet50

from edgeseg.models.blocks import conv_bn_relu

# Layers -> channels of the maps after the stem and the four stages.
CHANNELS = {34: (64, 64, 128, 256, 512), 50: (64, 256, 512, 1024, 2048)}


class ResNetEncoder(nn.Module):
    """Map (N, 3, H, W) images to the maps after the stem and the four stages.

    The maps have 1/2, 1/4, 1/8, 1/16 and 1/32 of the image's height and width, rounded up.

    Parameters
    ----------
    depth : number of layers, 34 or 50.
    dilated : the last two stages stay at 1/8 and dilate by 2 and 4 instead (Yu & Koltun 2017).
    deep_stem : the stem is three 3x3 convolutions to 128 channels instead of one 7x7 to 64 (the
        ResNet of Zhao et al. 2017). Only 50 layers have this option and ``dilated``.

    Attributes
    ----------
    depth : number of layers.
    channels : channels of the five maps.

    Examples
    --------
    >>> import torch
    >>> with torch.device("meta"):  # shapes alone: no memory, no computation
    ...     maps = ResNetEncoder(34)(torch.empty(1, 3, 64, 64))
    >>> [tuple(x.shape[1:]) for x in maps]
    [(64, 32, 32), (64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)]
    """

    def __init__(self, depth: int, *, dilated: bool = False, deep_stem: bool = False) -> None:
        super().__init__()
        self.depth = depth
        self.channels = CHANNELS[depth]

        # torchvision's model, without the average pooling and the classifier.
        if depth == 50:
            trunk = resnet50(weights=None, replace_stride_with_dilation=[False, dilated, dilated])
        else:
            trunk = resnet34(weights=None)
        self.conv1 = trunk.conv1
        self.bn1 = trunk.bn1
        self.relu = trunk.relu
        self.maxpool = trunk.maxpool
        self.layer1 = trunk.layer1
        self.layer2 = trunk.layer2
        self.layer3 = trunk.layer3
        self.layer4 = trunk.layer4

        if deep_stem:
            # Replace the stem, and what reads its 128 channels.
            first = conv_bn_relu(3, 64, stride=2, bias=False)
            second = conv_bn_relu(64, 64, bias=False)
            self.conv1 = nn.Sequential(*first, *second, nn.Conv2d(64, 128, 3, 1, 1, bias=False))
            self.bn1 = nn.BatchNorm2d(128)
            block = self.layer1[0]
            block.conv1 = nn.Conv2d(128, 64, 1, bias=False)
            block.downsample[0] = nn.Conv2d(128, 256, 1, bias=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the five maps for (N, 3, H, W) images, the largest first."""
        x = self.relu(self.bn1(self.conv1(x)))
        maps = [x]
        x = self.maxpool(x)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps
