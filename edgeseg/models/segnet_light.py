"""SegNet with a light decoder: VGG16's first ten convolutions, one convolution a level on the way up.

Four poolings, three upsamplings, scores at half size, as a report built it on CamVid.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.pooling import max_pool_code, max_unpool_code
from edgeseg.models.segnet import VGG16_STAGES

_DECODER = (512, 256, 128, 64)


class SegNetLight(nn.Module):
    """(N, 3, H, W) float image, H and W at least 16 -> (N, classes, H // 2, W // 2) logits.

    ``upsampling``: ``nearest``, the report's, or ``positions``: values go back where the encoder found its maxima.
    ``relu`` puts one behind each normalisation of the decoder, which in the report is linear.
    """

    def __init__(
        self, classes: int, upsampling: Literal["nearest", "positions"] = "nearest", relu: bool = False
    ) -> None:
        super().__init__()
        if upsampling not in ("nearest", "positions"):
            raise ValueError(f"upsampling is nearest or positions, not {upsampling!r}")
        self.positions = upsampling == "positions"
        self.encoder = nn.ModuleList()
        cin = 3
        for cout, count in VGG16_STAGES[:4]:
            layers: list[nn.Module] = []
            for i in range(count):
                layers += [nn.Conv2d(cin if i == 0 else cout, cout, 3, padding=1), nn.ReLU(inplace=True)]
            self.encoder.append(nn.Sequential(*layers))
            cin = cout
        self.decoder = nn.ModuleList()
        for cout in _DECODER:
            layers = [nn.Conv2d(cin, cout, 3, padding=1), nn.BatchNorm2d(cout)]
            self.decoder.append(nn.Sequential(*layers, *[nn.ReLU(inplace=True)] * relu))
            cin = cout
        self.classifier = nn.Conv2d(cin, classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        pooled: list[tuple[Tensor | None, Tensor]] = []
        code: Tensor | None = None
        for stage in self.encoder:
            before = stage(x)
            if self.positions:
                x, code = max_pool_code(before)
            else:
                x = F.max_pool2d(before, 2)
            pooled.append((code, before))
        for stage in self.decoder:
            x = stage(x)
            if len(pooled) > 1:  # the first pooling is not undone
                code, before = pooled.pop()
                x = F.interpolate(x, before.shape[2:]) if code is None else max_unpool_code(x, code, before)
        out: Tensor = self.classifier(x)
        return out

    def encoder_convolutions(self) -> list[nn.Conv2d]:
        """The ten convolutions in VGG16's order, for loading its weights."""
        return [m for m in self.encoder.modules() if isinstance(m, nn.Conv2d)]
