"""SegNet with a light decoder, as a report built it on CamVid.

The encoder is VGG16's first ten convolutions; the decoder has one convolution per level. There are
four poolings and three upsamplings, so the logits have half the image's height and width.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from edgeseg.models.base import SegmentationModel
from edgeseg.models.pooling import max_pool_code, max_unpool_code
from edgeseg.models.segnet import VGG16_STAGES

_DECODER = (512, 256, 128, 64)


class SegNetLight(SegmentationModel):
    """Map (N, 3, H, W) float images to (N, classes, H // 2, W // 2) logits.

    H and W are at least 16.

    Parameters
    ----------
    classes : number of classes.
    upsampling : ``nearest``, as in the report, or ``positions``, which puts values back where the
        encoder found its maxima.
    relu : put a ReLU behind each normalisation of the decoder. In the report the decoder is linear.

    Raises
    ------
    ValueError : ``upsampling`` is neither of the two.

    Examples
    --------
    >>> import torch
    >>> with torch.device("meta"):  # shapes alone: no memory, no computation
    ...     SegNetLight(classes=11).eval()(torch.empty(1, 3, 32, 48)).shape
    torch.Size([1, 11, 16, 24])
    """

    min_side = 16
    output_stride = 2
    pretrained = "vgg16"

    encoder: nn.ModuleList

    def __init__(
        self,
        classes: int,
        upsampling: Literal["nearest", "positions"] = "nearest",
        relu: bool = False,
    ) -> None:
        super().__init__()
        if upsampling not in ("nearest", "positions"):
            raise ValueError(f"upsampling is nearest or positions, not {upsampling!r}")
        self.unpools = upsampling == "positions"

        self.encoder = nn.ModuleList()
        cin = 3
        for cout, count in VGG16_STAGES[:4]:
            layers: list[nn.Module] = []
            for i in range(count):
                layers.append(nn.Conv2d(cin if i == 0 else cout, cout, 3, padding=1))
                layers.append(nn.ReLU(inplace=True))
            self.encoder.append(nn.Sequential(*layers))
            cin = cout

        self.decoder = nn.ModuleList()
        for cout in _DECODER:
            layers = [nn.Conv2d(cin, cout, 3, padding=1), nn.BatchNorm2d(cout)]
            if relu:
                layers.append(nn.ReLU(inplace=True))
            self.decoder.append(nn.Sequential(*layers))
            cin = cout

        self.classifier = nn.Conv2d(cin, classes, 3, padding=1)

    def compute(self, x: Tensor) -> Tensor:
        """Return (N, classes, H // 2, W // 2) logits for (N, 3, H, W) float images."""
        # Down: keep each map before its pooling, and the code if positions are used.
        pooled: list[tuple[Tensor | None, Tensor]] = []
        code: Tensor | None = None
        for stage in self.encoder:
            before = stage(x)
            if self.unpools:
                x, code = max_pool_code(before)
            else:
                x = F.max_pool2d(before, 2)
            pooled.append((code, before))

        # Up: undo all poolings but the first.
        for stage in self.decoder:
            x = stage(x)
            if len(pooled) > 1:
                code, before = pooled.pop()
                x = _enlarge(x, code, before)

        out: Tensor = self.classifier(x)
        return out


def _enlarge(x: Tensor, code: Tensor | None, like: Tensor) -> Tensor:
    """Return ``x`` at the size of ``like``: unpooled if there is a code, else by nearest pixels."""
    if code is None:
        return F.interpolate(x, like.shape[2:])
    return max_unpool_code(x, code, like)
