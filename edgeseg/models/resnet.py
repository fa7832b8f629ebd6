"""ResNets (He et al. 2015) as encoders: torchvision's, without their last two layers.

The parameters keep torchvision's names, so that its weight files load as they are.
"""

from torch import Tensor, nn
from torchvision.models import resnet34, resnet50

from edgeseg.models.blocks import conv_bn_relu

CHANNELS = {34: (64, 64, 128, 256, 512), 50: (64, 256, 512, 1024, 2048)}


class ResNetEncoder(nn.Module):
    """(N, 3, H, W) -> the maps after the stem and the four stages, at 1/2, 1/4, 1/8, 1/16, 1/32 (rounded up).

    ``dilated``: the last two stages keep 1/8 and dilate by 2 and 4 instead (Yu & Koltun 2017). ``deep_stem``: three 3x3
    convolutions to 128 channels instead of one 7x7 to 64 (the ResNet of Zhao et al. 2017); only 50 layers have both.
    """

    def __init__(self, depth: int, *, dilated: bool = False, deep_stem: bool = False) -> None:
        super().__init__()
        self.depth, self.channels = depth, CHANNELS[depth]
        if depth == 50:
            trunk = resnet50(weights=None, replace_stride_with_dilation=[False, dilated, dilated])
        else:
            trunk = resnet34(weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = trunk.conv1, trunk.bn1, trunk.relu, trunk.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4
        if deep_stem:
            first, second = conv_bn_relu(3, 64, stride=2, bias=False), conv_bn_relu(64, 64, bias=False)
            self.conv1 = nn.Sequential(*first, *second, nn.Conv2d(64, 128, 3, 1, 1, bias=False))
            self.bn1 = nn.BatchNorm2d(128)
            block = self.layer1[0]
            block.conv1 = nn.Conv2d(128, 64, 1, bias=False)
            block.downsample[0] = nn.Conv2d(128, 256, 1, bias=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.relu(self.bn1(self.conv1(x)))
        maps = [x]
        x = self.maxpool(x)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps
