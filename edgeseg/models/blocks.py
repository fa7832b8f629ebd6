"""What several nets are made of."""

from torch import nn


def conv_bn_relu(cin: int, cout: int, kernel: int = 3, *, stride: int = 1, bias: bool = True) -> nn.Sequential:
    """Convolution with 'same' padding (odd kernels), batch normalisation, ReLU."""
    conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=bias)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), nn.ReLU(inplace=True))


def double_conv(cin: int, cout: int) -> nn.Sequential:
    """Two 3x3 convolutions, each with batch normalisation and ReLU."""
    return nn.Sequential(*conv_bn_relu(cin, cout), *conv_bn_relu(cout, cout))
