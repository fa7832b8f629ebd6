"""Small nets, each a way of joining features, for the tests of INT8: what one exporter or another
writes.

Two or three convolutions of the image are joined as the pattern says; two more convolutions and
four scores a pixel follow. The scores have mean 0 and deviation 1 a class on the frames, so that
every class is somewhere.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.graph.network import Overrides

H, W = 48, 64
CLASSES = 4
DRIVE = f"synthetic://?length=4&size={W}x{H}&seed=11"
OVERRIDES = Overrides(size=(H, W), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
Join = Callable[["Net", Tensor, Tensor, Tensor], Tensor]


class Net(nn.Module):
    """The image's features ``a`` and ``b``, (N, 16, H / 2, W / 2) each, behind a ReLU, joined as
    ``pattern`` says.
    """

    def __init__(self, pattern: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.pattern = pattern
        self.left = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.right = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.third = nn.Conv2d(3, 7, 3, stride=2, padding=1)
        self.down = nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.mix = nn.Conv2d(16, 16, 1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.deep = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.dilated = nn.Conv2d(16, 16, 3, padding=2, dilation=2)
        self.valid = nn.Conv2d(16, 16, 3)
        self.odd = nn.Conv2d(16, 13, 3, padding=1)
        self.wide = nn.Conv2d(32, 16, 1)
        self.norm = nn.BatchNorm2d(32)
        self.slope = nn.PReLU(32)
        self.slope16 = nn.PReLU(16)
        self.up = nn.ConvTranspose2d(16, 16, 2, stride=2)
        for norm in (self.norm,):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.uniform_(-0.2, 0.2)
            norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
        for prelu in (self.slope, self.slope16):
            nn.init.uniform_(prelu.weight, -0.1, 0.6)
        widths = (3, 8, 13, 16, 19, 23, 26, 29, 32, 39, 48, 55, 64)
        self.next = nn.ModuleDict({str(n): nn.Conv2d(n, 24, 3, padding=1) for n in widths})
        self.last = nn.Conv2d(24, 24, 3, padding=1)
        self.scores = nn.ConvTranspose2d(24, CLASSES, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        joined = PATTERNS[self.pattern](self, x, F.relu(self.left(x)), F.relu(self.right(x)))
        y = F.relu(self.next[str(int(joined.shape[1]))](joined))
        scores: Tensor = self.scores(F.relu(self.last(y)))
        return scores


def cat(*parts: Tensor) -> Tensor:
    return torch.cat(parts, 1)


def _shuffle(n: Net, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    joined, count = cat(a, b), int(x.shape[0])
    return (
        joined.view(count, 2, 16, H // 2, W // 2).transpose(1, 2).reshape(count, 32, H // 2, W // 2)
    )


def _swap(n: Net, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    left, right = cat(a, b).chunk(2, 1)
    return cat(right, left)


def _three_parts(n: Net, x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    first, second, third = torch.split(cat(a, b), [8, 16, 8], dim=1)
    return cat(third, first, n.mix(second))


def _halves(x: Tensor) -> Tensor:
    return F.interpolate(F.max_pool2d(x, 2), scale_factor=2)


PATTERNS: dict[str, Join] = {
    # Concats
    "concat": lambda n, x, a, b: cat(a, b),
    "concat, relu": lambda n, x, a, b: F.relu(cat(n.left(x), n.right(x))),
    "concat, norm, relu": lambda n, x, a, b: F.relu(n.norm(cat(a, b))),
    "concat, norm, prelu": lambda n, x, a, b: n.slope(n.norm(cat(n.left(x), n.right(x)))),
    "relu of concat of up and norm of skip": lambda n, x, a, b: F.relu(
        cat(n.up(F.relu(n.down(a))), b * 1.3 - 0.2)
    ),
    "concat of up and skip": lambda n, x, a, b: cat(n.up(F.relu(n.down(a))), b),
    "concat of three": lambda n, x, a, b: cat(a, F.relu(n.third(x)), b),
    "relu of concat of three": lambda n, x, a, b: F.relu(cat(n.left(x), n.third(x), n.right(x))),
    "concat of itself": lambda n, x, a, b: cat(a, a),
    "relu of concat of itself and its negative": lambda n, x, a, b: F.relu(
        cat(n.left(x), -n.left(x))
    ),
    "nested concats": lambda n, x, a, b: cat(cat(a, b), F.relu(cat(n.left(x), n.third(x)))),
    "concat of float and INT8": lambda n, x, a, b: cat(torch.sigmoid(n.left(x)), b),
    "relu of concat of float and INT8": lambda n, x, a, b: F.relu(
        cat(torch.tanh(n.left(x)), n.right(x))
    ),
    "concat of odd channel counts": lambda n, x, a, b: F.relu(
        cat(n.odd(a), n.third(x), n.mix(b)[:, :6])
    ),
    "concat of one convolution, twice read": lambda n, x, a, b: cat(n.mix(cat(a, b)[:, 8:24]), a),
    "concat, concat of its parts": _swap,
    "concat, three parts": _three_parts,
    "concat, shuffle": _shuffle,
    # Pools and images
    "concat, max-pool": lambda n, x, a, b: F.max_pool2d(cat(a, b), 3, 1, 1),
    "concat, average pool with padding": lambda n, x, a, b: F.avg_pool2d(cat(a, b), 3, 1, 1),
    "concat of features and pooled image": lambda n, x, a, b: cat(a, F.max_pool2d(x, 2)),
    "concat of features and average-pooled image": lambda n, x, a, b: cat(
        a, F.avg_pool2d(x, 3, 2, 1)
    ),
    "relu of concat of features and pooled image": lambda n, x, a, b: F.relu(
        cat(a, F.max_pool2d(x, 2) - 0.3)
    ),
    "average-pooled image": lambda n, x, a, b: F.avg_pool2d(x, 3, 2, 1),
    "two average pools in a row": lambda n, x, a, b: cat(
        a, F.avg_pool2d(F.avg_pool2d(x, 3, 2, 1), 3, 1, 1)
    ),
    "average pool with padding": lambda n, x, a, b: F.avg_pool2d(a, 3, 1, 1),
    "average pool of any sign with padding": lambda n, x, a, b: F.avg_pool2d(
        n.slope16(n.left(x)), 3, 1, 1
    ),
    "average pool, padding not counted": lambda n, x, a, b: F.avg_pool2d(
        a, 3, 1, 1, count_include_pad=False
    ),
    "global average pool": lambda n, x, a, b: cat(a, F.adaptive_avg_pool2d(b, 1).expand_as(b)),
    "pyramid": lambda n, x, a, b: cat(
        a, F.interpolate(n.mix(F.adaptive_avg_pool2d(b, 2)), scale_factor=(12, 16))
    ),
    # Moves
    "concat, nearest": lambda n, x, a, b: _halves(cat(a, b)),
    "concat, bilinear": lambda n, x, a, b: F.interpolate(
        F.max_pool2d(cat(a, b), 2), scale_factor=2, mode="bilinear"
    ),
    "slice": lambda n, x, a, b: cat(a[:, 4:12], b)[:, :16],
    "gather": lambda n, x, a, b: cat(a, b)[:, [3, 30, 5, 7, 11, 2, 19, 0, 21, 8, 1, 17, 29]],
    "pad": lambda n, x, a, b: n.valid(F.pad(n.slope16(n.left(x)), (1, 1, 1, 1))),
    "pad on one side": lambda n, x, a, b: n.valid(F.pad(n.slope16(n.left(x)), (0, 2, 0, 2))),
    "pixel shuffle": lambda n, x, a, b: F.pixel_unshuffle(
        F.pixel_shuffle(n.slope16(n.left(x)), 2), 2
    ),
    # Sums and products
    "sum": lambda n, x, a, b: a + b,
    "sum of any sign": lambda n, x, a, b: F.relu(n.mix(a) + n.slope16(n.left(x))),
    "sum behind a concat": lambda n, x, a, b: F.relu(n.wide(cat(a, b)) + a),
    "sum of a concat's parts": lambda n, x, a, b: F.relu(cat(a, b)[:, :16] + cat(a, b)[:, 16:]),
    "sum, prelu, twice": lambda n, x, a, b: n.slope16(n.mix(n.slope16(n.mix(a) + b)) + b),
    "gate": lambda n, x, a, b: a * torch.sigmoid(b),
    "squeeze and excite": lambda n, x, a, b: a * torch.sigmoid(b.mean((2, 3), keepdim=True)),
    # Activations
    "leaky": lambda n, x, a, b: F.leaky_relu(n.left(x), 0.1),
    "prelu": lambda n, x, a, b: n.slope16(n.left(x)),
    "hard-swish, concat": lambda n, x, a, b: cat(F.hardswish(n.left(x)), F.hardswish(n.right(x))),
    # Convolutions, of an input of any sign
    "group convolution": lambda n, x, a, b: n.grouped(n.slope16(n.left(x))),
    "depthwise convolution": lambda n, x, a, b: n.mix(F.relu6(n.deep(n.slope16(n.left(x))))),
    "1x1 convolution": lambda n, x, a, b: n.mix(n.slope16(n.left(x))),
    "dilated convolution": lambda n, x, a, b: n.dilated(n.slope16(n.left(x))),
    "convolution of stride 2": lambda n, x, a, b: F.interpolate(
        n.down(n.slope16(n.left(x))), scale_factor=2
    ),
}


def balanced(pattern: str, inputs: np.ndarray) -> Net:
    """Return a net whose scores have mean 0 and deviation 1 per class on ``inputs``."""
    net = Net(pattern).eval()
    with torch.no_grad():
        scores = net(torch.from_numpy(inputs))
        mean, deviation = scores.mean((0, 2, 3)), scores.std((0, 2, 3))
        assert net.scores.bias is not None
        net.scores.weight /= deviation.reshape(1, -1, 1, 1)
        net.scores.bias.copy_((net.scores.bias - mean) / deviation)
    return net


def export(pattern: str, frames: list[np.ndarray], path: Path) -> None:
    """The pattern's net as an ONNX file, by the exporter that writes what people have."""
    inputs = np.concatenate(
        [f[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32) / 255 for f in frames]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter is out of fashion
        torch.onnx.export(
            balanced(pattern, inputs),
            (torch.rand(1, 3, H, W),),
            str(path),
            opset_version=13,
            dynamo=False,
            input_names=["image"],
            output_names=["scores"],
        )
