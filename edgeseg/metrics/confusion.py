"""Compute every score from one confusion matrix over the whole data set, never by averaging frames.

``matrix[t, p]`` counts pixels of true class ``t`` predicted as ``p``. Void pixels are not counted:
those of the label space's ``ignore_id``, and of any other id outside 0..classes-1. With TP, FP, FN
of a class:

- IoU = TP / (TP + FP + FN) (Everingham et al. 2010)
- Dice = F1 = 2 TP / (2 TP + FP + FN)
- sensitivity (recall) = TP / (TP + FN)

A class that is in neither truth nor prediction has no score (NaN) and is left out of every mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeseg.errors import DataError
from edgeseg.metrics.common import (
    json_number,
    known_pixels,
    known_predictions,
    mean_of_present,
    ratio,
)
from edgeseg.types import Vector

Matrix = npt.NDArray[np.int64]


def confusion_matrix(
    truth: npt.NDArray[np.uint8],
    prediction: npt.NDArray[np.uint8],
    classes: int,
    ignore_id: int = 255,
) -> Matrix:
    """Count the pairs of true and predicted class of every pixel.

    Parameters
    ----------
    truth : (H, W) uint8 label ids. Pixels of ``ignore_id`` or of an id not below ``classes`` are
        skipped.
    prediction : (H, W) uint8 label ids.
    classes : number of classes.
    ignore_id : id of unlabelled pixels.

    Returns
    -------
    (classes, classes) int64; rows are true classes, columns are predicted ones.

    Raises
    ------
    DataError : shapes differ, or a predicted id is not below ``classes``.

    Examples
    --------
    >>> truth = np.array([[0, 0, 1, 255]], np.uint8)
    >>> prediction = np.array([[0, 1, 1, 1]], np.uint8)
    >>> confusion_matrix(truth, prediction, classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    # Drop void pixels.
    known = known_pixels(truth, classes, ignore_id)
    predicted = known_predictions(prediction, known, classes)
    true = truth[known]

    # Count pairs as numbers of one cell each.
    cell = true.astype(np.int64) * classes + predicted
    flat = np.bincount(cell, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64, copy=False)


@dataclass(frozen=True)
class Scores:
    """Compute scores in 0..1 from a confusion matrix; NaN if there is nothing to score.

    Properties of one value per class are (classes,) float64.

    Attributes
    ----------
    names : class names.
    matrix : (classes, classes) int64 pixel counts, as ``confusion_matrix`` returns them.

    Examples
    --------
    >>> result = Scores(("road", "car"), np.array([[3, 1], [0, 4]]))
    >>> result.iou.tolist()
    [0.75, 0.8]
    >>> result.pixel_accuracy
    0.875
    """

    names: tuple[str, ...]
    matrix: Matrix

    @property
    def _true_positive(self) -> Vector:
        """Return the number of right pixels per class."""
        return np.asarray(np.diag(self.matrix), np.float64)

    @property
    def _truth(self) -> Vector:
        """Return the number of true pixels per class."""
        return np.asarray(self.matrix.sum(axis=1), np.float64)

    @property
    def _predicted(self) -> Vector:
        """Return the number of predicted pixels per class."""
        return np.asarray(self.matrix.sum(axis=0), np.float64)

    @property
    def iou(self) -> Vector:
        """Return the intersection over union per class."""
        return ratio(self._true_positive, self._truth + self._predicted - self._true_positive)

    @property
    def dice(self) -> Vector:
        """Return the Dice coefficient per class; it equals F1."""
        return ratio(2 * self._true_positive, self._truth + self._predicted)

    @property
    def sensitivity(self) -> Vector:
        """Return the recall per class; NaN for a class that the truth does not contain."""
        return ratio(self._true_positive, self._truth)

    @property
    def precision(self) -> Vector:
        """Return the precision per class; NaN for a class that was never predicted."""
        return ratio(self._true_positive, self._predicted)

    @property
    def absent(self) -> tuple[str, ...]:
        """Return the classes that are in neither truth nor prediction; no mean counts them."""
        seen = self._truth + self._predicted > 0
        return tuple(name for name, here in zip(self.names, seen, strict=True) if not here)

    @property
    def pixels(self) -> int:
        """Return the number of pixels that were scored."""
        return int(self.matrix.sum())

    @property
    def pixel_accuracy(self) -> float:
        """Return the share of right pixels."""
        if not self.pixels:
            return float("nan")
        return float(self._true_positive.sum() / self._truth.sum())

    @property
    def mean_pixel_accuracy(self) -> float:
        """Return the mean of the sensitivity over classes."""
        return mean_of_present(self.sensitivity)

    @property
    def mean_iou(self) -> float:
        """Return the mean of the IoU over classes."""
        return mean_of_present(self.iou)

    @property
    def frequency_weighted_iou(self) -> float:
        """Return the mean of the IoU over classes, weighted by their true pixels."""
        if not self.pixels:
            return float("nan")
        return float(np.nansum(self.iou * self._truth) / self._truth.sum())

    @property
    def mean_dice(self) -> float:
        """Return the mean of the Dice coefficient over classes."""
        return mean_of_present(self.dice)

    @property
    def mean_f1(self) -> float:
        """Return the mean of F1 over classes; it equals ``mean_dice``, since F1 is Dice."""
        return mean_of_present(self.dice)

    def to_dict(self) -> dict[str, object]:
        """Return plain numbers for JSON; a score that does not exist is ``None``."""
        # Every property computes its whole vector, so each is read once, before the loop.
        iou = self.iou
        dice = self.dice
        sensitivity = self.sensitivity
        precision = self.precision
        truth = self._truth

        per_class: dict[str, dict[str, float | None]] = {}
        for i, name in enumerate(self.names):
            per_class[name] = {
                "iou": json_number(iou[i]),
                "dice": json_number(dice[i]),
                "f1": json_number(dice[i]),
                "sensitivity": json_number(sensitivity[i]),
                "precision": json_number(precision[i]),
                "pixels": int(truth[i]),
            }

        # Two numbers have two names each, since papers use both: "mean_f1" is "mean_dice", and
        # "mean_sensitivity" is "mean_pixel_accuracy".
        return {
            "miou": json_number(self.mean_iou),
            "pixel_accuracy": json_number(self.pixel_accuracy),
            "mean_pixel_accuracy": json_number(self.mean_pixel_accuracy),
            "frequency_weighted_iou": json_number(self.frequency_weighted_iou),
            "mean_dice": json_number(self.mean_dice),
            "mean_f1": json_number(self.mean_f1),
            "mean_sensitivity": json_number(self.mean_pixel_accuracy),
            "pixels": self.pixels,
            "classes_absent": list(self.absent),
            "per_class": per_class,
            "confusion_matrix": self.matrix.tolist(),
        }


def scores(names: Sequence[str], matrix: Matrix) -> Scores:
    """Return the scores of a confusion matrix.

    Parameters
    ----------
    names : class names, in the order of the label ids.
    matrix : (classes, classes) int64, the sum of the ``confusion_matrix`` of all frames.

    Raises
    ------
    DataError : the matrix has another number of classes than there are names.

    Examples
    --------
    >>> scores(["road", "car"], np.array([[3, 1], [0, 4]])).mean_iou
    0.775
    """
    if matrix.shape != (len(names), len(names)):
        raise DataError(
            "confusion matrix and class names disagree",
            got=matrix.shape,
            expected=f"{len(names)} classes",
        )
    return Scores(tuple(names), matrix)
