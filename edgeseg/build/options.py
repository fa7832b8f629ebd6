"""Options for how a float network becomes an INT8 engine."""

from dataclasses import dataclass
from pathlib import Path

from edgeseg.quantize.label_change import Limits

LEAST_AGREEMENT = 0.9  # of the labels with the float net's
LEAST_MEAN_IOU = 0.9  # of the classes, the float net's labels being the truth
LEAST_CLASS_IOU = 0.7  # of each class of more than 0.1 % of the pixels
SCALES = ("power-of-two", "any")


@dataclass(frozen=True)
class Quantization:
    """Describe how a float network becomes an INT8 engine.

    Attributes
    ----------
    method : method of ranges, one of ``edgeseg.quantize.ranges.METHODS``.
    keep_float : names of layers that stay in float.
    data : labelled data to keep the budget ``max_miou_drop`` on.
    split : split of ``data``.
    frames : number of frames of ``data`` to score, evenly spread; ``None``: all.
    max_miou_drop : most points of mIoU that INT8 may lose against float.
    least_agreement : least share of the float network's labels that INT8 keeps, if there is no
        ``data``; 0 accepts any result.
    least_mean_iou : least mean IoU with the float network's labels (``quantize.label_change``).
    least_class_iou : least IoU of each class with the float network's labels.
    ranges : file of ``edgeseg calibrate``; a file of another network or set is ignored.
    scales : one of ``SCALES``. Every runtime computes powers of two the same
        (``edgeseg.quantize.qdq``); scales of any value use the ranges to the full.
    save_onnx : file for the Q/DQ network that an INT8 engine is compiled from, with its spec
        inside, for other targets and tools.

    Examples
    --------
    >>> Quantization(least_agreement=0.95).limits.agreement
    0.95
    """

    method: str | None = None
    keep_float: tuple[str, ...] = ()
    data: str | None = None
    split: str = "val"
    frames: int | None = None
    max_miou_drop: float | None = None
    least_agreement: float = LEAST_AGREEMENT
    least_mean_iou: float = LEAST_MEAN_IOU
    least_class_iou: float = LEAST_CLASS_IOU
    ranges: Path | None = None
    scales: str = SCALES[0]
    save_onnx: Path | None = None

    @property
    def limits(self) -> Limits:
        """Return what INT8 must keep of the float net's labels."""
        return Limits(self.least_agreement, self.least_mean_iou, self.least_class_iou)
