"""Every score from one confusion matrix over the whole data set: never an average of per-frame scores.

``matrix[t, p]`` counts pixels of true class ``t`` predicted as ``p``; void pixels (the label space's ``ignore_id``, and
any other id outside 0..classes-1) are left out. With TP, FP, FN of a class: IoU = TP / (TP + FP + FN) (Everingham et
al. 2010), Dice = F1 = 2 TP / (2 TP + FP + FN), sensitivity (recall) = TP / (TP + FN). A class that is in neither truth
nor prediction has no score (NaN) and is left out of every mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeseg.errors import DataError

Matrix = npt.NDArray[np.int64]
Vector = npt.NDArray[np.float64]


def confusion_matrix(
    truth: npt.NDArray[np.uint8], prediction: npt.NDArray[np.uint8], classes: int, ignore_id: int = 255
) -> Matrix:
    """Count (classes, classes) int64 pixel pairs of two label maps of one shape; void in ``truth`` is skipped.

    Raises ``DataError`` where shapes differ, or a predicted id is not below ``classes``.
    """
    if truth.shape != prediction.shape:
        raise DataError("prediction and truth differ in size", got=prediction.shape, expected=truth.shape)
    valid = (truth < classes) & (truth != ignore_id)
    t, p = truth[valid], prediction[valid]
    if p.size and int(p.max()) >= classes:
        raise DataError("a predicted label id is out of range", got=int(p.max()), expected=f"below {classes}")
    flat = np.bincount(t.astype(np.int64) * classes + p, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64, copy=False)


def _ratio(numerator: Vector, denominator: Vector) -> Vector:
    with np.errstate(divide="ignore", invalid="ignore"):
        out: Vector = numerator / denominator
    return out


def _mean(values: Vector) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


@dataclass(frozen=True)
class Scores:
    """Scores in 0..1; NaN where nothing was there to score. Per-class vectors are (classes,) float64."""

    names: tuple[str, ...]
    matrix: Matrix

    @property
    def _true_positive(self) -> Vector:
        return np.asarray(np.diag(self.matrix), np.float64)

    @property
    def _truth(self) -> Vector:
        return np.asarray(self.matrix.sum(axis=1), np.float64)

    @property
    def _predicted(self) -> Vector:
        return np.asarray(self.matrix.sum(axis=0), np.float64)

    @property
    def iou(self) -> Vector:
        return _ratio(self._true_positive, self._truth + self._predicted - self._true_positive)

    @property
    def dice(self) -> Vector:
        return _ratio(2 * self._true_positive, self._truth + self._predicted)

    @property
    def sensitivity(self) -> Vector:
        """Recall per class; NaN for a class the truth does not contain."""
        return _ratio(self._true_positive, self._truth)

    @property
    def precision(self) -> Vector:
        """Precision per class; NaN for a class that was never predicted."""
        return _ratio(self._true_positive, self._predicted)

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes in neither truth nor prediction: in no mean."""
        seen = self._truth + self._predicted > 0
        return tuple(name for name, here in zip(self.names, seen, strict=True) if not here)

    @property
    def pixels(self) -> int:
        return int(self.matrix.sum())

    @property
    def pixel_accuracy(self) -> float:
        return float(_ratio(self._true_positive.sum(keepdims=True), self._truth.sum(keepdims=True))[0])

    @property
    def mean_pixel_accuracy(self) -> float:
        return _mean(self.sensitivity)

    @property
    def mean_iou(self) -> float:
        return _mean(self.iou)

    @property
    def frequency_weighted_iou(self) -> float:
        if not self.pixels:
            return float("nan")
        return float(np.nansum(self.iou * self._truth) / self._truth.sum())

    @property
    def mean_dice(self) -> float:
        return _mean(self.dice)

    @property
    def mean_f1(self) -> float:
        """F1 of a class is its Dice; the mean is over the same classes."""
        return _mean(self.dice)

    def to_dict(self) -> dict[str, object]:
        """Plain numbers for JSON; a score that does not exist is ``None``."""

        def number(value: float) -> float | None:
            return None if np.isnan(value) else float(value)

        per_class = {
            name: {
                "iou": number(self.iou[i]),
                "dice": number(self.dice[i]),
                "f1": number(self.dice[i]),
                "sensitivity": number(self.sensitivity[i]),
                "precision": number(self.precision[i]),
                "pixels": int(self._truth[i]),
            }
            for i, name in enumerate(self.names)
        }
        return {
            "miou": number(self.mean_iou),
            "pixel_accuracy": number(self.pixel_accuracy),
            "mean_pixel_accuracy": number(self.mean_pixel_accuracy),
            "frequency_weighted_iou": number(self.frequency_weighted_iou),
            "mean_dice": number(self.mean_dice),
            "mean_f1": number(self.mean_f1),
            "mean_sensitivity": number(self.mean_pixel_accuracy),
            "pixels": self.pixels,
            "classes_absent": list(self.absent),
            "per_class": per_class,
            "confusion_matrix": self.matrix.tolist(),
        }


def scores(names: Sequence[str], matrix: Matrix) -> Scores:
    """Scores of a confusion matrix (classes, classes). Raises ``DataError`` where names and matrix disagree."""
    if matrix.shape != (len(names), len(names)):
        raise DataError("confusion matrix and class names disagree", got=matrix.shape, expected=f"{len(names)} classes")
    return Scores(tuple(names), matrix)
