"""Blocks that several models are built from."""

from torch import nn


def conv_bn_relu(
    cin: int,
    cout: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    bias: bool = True,
) -> nn.Sequential:
    """Return a convolution, batch normalisation and ReLU.

    Parameters
    ----------
    cin, cout : channels of the input and of the output.
    kernel : side of the kernel, pixels; odd, so that the padding is 'same'.
    stride : stride of the convolution.
    bias : whether the convolution has a bias.

    Examples
    --------
    >>> import torch
    >>> conv_bn_relu(3, 8, stride=2)(torch.zeros(1, 3, 16, 16)).shape
    torch.Size([1, 8, 8, 8])
    """
    conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=bias)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), nn.ReLU(inplace=True))


def double_conv(cin: int, cout: int) -> nn.Sequential:
    """Return two 3x3 convolutions, each with batch normalisation and ReLU.

    Parameters
    ----------
    cin, cout : channels of the input and of the output.

    Examples
    --------
    >>> import torch
    >>> double_conv(3, 8)(torch.zeros(1, 3, 16, 16)).shape
    torch.Size([1, 8, 16, 16])
    """
    first = conv_bn_relu(cin, cout)
    second = conv_bn_relu(cout, cout)
    return nn.Sequential(*first, *second)
