"""Boundary F-score: measure how well the edges of every class are placed.

IoU hardly shows errors of edges, and quantization damages edges first. The measure is that of
Csurka, Larlus, Perronnin, "What is a good evaluation measure for semantic segmentation?", BMVC
2013: the F-score of boundary precision and recall per class, with a tolerance of 0.75 % of the
image diagonal. Exactly:

- A boundary pixel of class c has label c, and at least one of its four neighbours in the frame has
  another label. The frame's border is no boundary.
- Void is ``ignore_id`` and any id that is no class. Pixels that are void in the truth are void in
  the prediction, too. A void pixel is no boundary and does not make its neighbours boundary.
  Boundary pixels within the tolerance of a void pixel are not counted, since the pixel that they
  match may lie in the void; other pixels may still be matched to them.
- A boundary pixel is matched if the other map has a boundary pixel of the same class at most
  ``tolerance * hypot(H, W)`` pixels away, Euclidean between pixel centres (4.5 pixels in a frame of
  360x480).
- Precision is the share of predicted boundary pixels that are matched, recall the share of true
  ones, F = 2 P R / (P + R). The paper averages the scores of frames. Here pixels are counted over
  the whole data set and divided once, as for every other score. A class with a boundary in only one
  of the two maps has F = 0. A class without any boundary has no score (NaN) and is left out of the
  mean.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.errors import DataError
from edgeseg.metrics.common import (
    Flags,
    LabelMap,
    known_pixels,
    known_predictions,
    mean_of_present,
    ratio,
)
from edgeseg.types import Vector

TOLERANCE = 0.0075  # of the image diagonal: the paper's

Bits = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]

# The columns of boundary counts.
_PREDICTED = 0
_PREDICTED_MATCHED = 1
_TRUE = 2
_TRUE_MATCHED = 3
_COLUMNS = 4

_WORD = 64  # classes handled at once: one bit each
_UNSIGNED = ((np.uint8, 8), (np.uint16, 16), (np.uint32, 32), (np.uint64, 64))  # dtype, its bits


class BoundaryTruth:
    """Find the boundaries of a true label map, to compare any number of predictions with them.

    Parameters
    ----------
    truth : (H, W) uint8 label ids.
    classes : number of classes.
    ignore_id : id of unlabelled pixels.
    tolerance : largest distance of matched boundary pixels, as a share of the image diagonal.

    Examples
    --------
    >>> truth = np.array([[0, 0, 1, 1]], np.uint8)
    >>> BoundaryTruth(truth, classes=2).counts(truth).tolist()
    [[1, 1, 1, 1], [1, 1, 1, 1]]
    """

    def __init__(
        self, truth: LabelMap, classes: int, ignore_id: int = 255, tolerance: float = TOLERANCE
    ) -> None:
        self._classes = classes
        self._truth = truth

        # Squared distances between pixels are whole numbers; 1e-9 is for rounding errors.
        self._reach2 = math.floor((tolerance * math.hypot(*truth.shape)) ** 2 + 1e-9)
        self._known = known_pixels(truth, classes, ignore_id)
        self._edges = _edges(truth, self._known)

        # Boundary pixels close to void are not counted.
        void = (~self._known).astype(np.uint8)
        self._far_from_void = ~_within(void, self._reach2).astype(np.bool_)

        true_sets = self._bits(truth, self._edges)
        self._within_reach_of_truth = [_within(true_set, self._reach2) for true_set in true_sets]

    def counts(self, prediction: LabelMap) -> Counts:
        """Count the boundary pixels of a prediction; add the counts of all frames before scoring.

        Parameters
        ----------
        prediction : (H, W) uint8 label ids, of the truth's shape.

        Returns
        -------
        (classes, 4) int64. The columns are: predicted, predicted and matched, true, true and
        matched.

        Raises
        ------
        DataError : shapes differ, or a predicted id is not below ``classes``.
        """
        known_predictions(prediction, self._known, self._classes)  # for its checks

        # Match boundary pixels of the same class, 64 classes at once.
        edges = _edges(prediction, self._known)
        predicted_matched = np.zeros(edges.shape, np.bool_)
        true_matched = np.zeros(edges.shape, np.bool_)
        sets = zip(
            self._bits(prediction, edges),
            self._bits(self._truth, self._edges),
            self._within_reach_of_truth,
            strict=True,
        )
        for predicted_set, true_set, within_reach_of_truth in sets:
            within_reach = _within(predicted_set, self._reach2)
            predicted_matched |= (predicted_set & within_reach_of_truth) != 0
            true_matched |= (true_set & within_reach) != 0

        # Count per class the pixels that are far enough from void.
        predicted = edges & self._far_from_void
        true = self._edges & self._far_from_void
        counts = np.zeros((self._classes, _COLUMNS), np.int64)
        counts[:, _PREDICTED] = self._per_class(prediction[predicted])
        counts[:, _PREDICTED_MATCHED] = self._per_class(prediction[predicted & predicted_matched])
        counts[:, _TRUE] = self._per_class(self._truth[true])
        counts[:, _TRUE_MATCHED] = self._per_class(self._truth[true & true_matched])
        return counts

    def _per_class(self, ids: LabelMap) -> Counts:
        """Return the number of pixels of each class."""
        return np.bincount(ids, minlength=self._classes)

    def _bits(self, labels: LabelMap, edges: Flags) -> Iterator[Bits]:
        """Yield the boundary pixels as sets of classes, one bit per class, 64 classes at a time.

        In a map of two classes, a boundary pixel of class 0 is 1, one of class 1 is 2, and any
        other pixel is 0. The dtype is the narrowest with a bit for every class: time goes to memory
        traffic, and one byte per pixel is an eighth of eight.
        """
        for first in range(0, self._classes, _WORD):
            count = min(_WORD, self._classes - first)
            dtype = next(dtype for dtype, bits in _UNSIGNED if count <= bits)

            # The bit of every label id; 0 for classes of another word.
            bit = np.arange(count, dtype=dtype)
            table = np.zeros(256, dtype)
            table[first : first + count] = np.left_shift(np.ones(count, dtype), bit)
            yield np.where(edges, table[labels], dtype(0))


def _edges(labels: LabelMap, known: Flags) -> Flags:
    """Return (H, W) bool: known pixels with a known neighbour of another label (4 neighbours)."""
    out = np.zeros(labels.shape, np.bool_)
    for axis in (0, 1):
        here = (slice(None),) * axis + (slice(1, None),)
        there = (slice(None),) * axis + (slice(None, -1),)
        differ = (labels[here] != labels[there]) & known[here] & known[there]
        out[here] |= differ
        out[there] |= differ
    return out


def _within(bits: Bits, reach2: int) -> Bits:
    """Return at each pixel the union of the sets at most ``sqrt(reach2)`` pixels away.

    A disc is a stack of rows; a row is longer if it is nearer to the middle. So rows are widened
    one pixel at a time, and each width is added at its distance from the middle. That is exact, and
    takes about four passes per pixel of radius for all classes together.

    Examples
    --------
    A row of 1x5 pixels and a radius of 1: class 0 (bit 1) is at the second pixel, class 1 (bit 2)
    at the fourth. The pixel between them has both within reach, 1 | 2 = 3.

    >>> _within(np.array([[0, 1, 0, 2, 0]], np.uint8), reach2=1).tolist()
    [[1, 1, 3, 2, 2]]
    """
    height, width = bits.shape
    row: Bits = bits.copy()
    out: Bits = bits.copy()
    half = 0
    for dy in range(min(math.isqrt(reach2), height - 1), -1, -1):
        # Widen the rows to the disc's width at this distance from its middle.
        wanted = min(math.isqrt(reach2 - dy * dy), width - 1)
        for dx in range(half + 1, wanted + 1):
            row[:, dx:] |= bits[:, :-dx]
            row[:, :-dx] |= bits[:, dx:]
        half = wanted

        # Add them above and below.
        out[dy:] |= row[: height - dy]
        out[: height - dy] |= row[dy:]
    return out


@dataclass(frozen=True)
class BoundaryScores:
    """Compute scores in 0..1 from boundary counts; NaN if there is no boundary.

    Properties of one value per class are (classes,) float64.

    Attributes
    ----------
    names : class names.
    counts : (classes, 4) int64, with the columns of ``BoundaryTruth.counts``.
    """

    names: tuple[str, ...]
    counts: Counts

    @property
    def precision(self) -> Vector:
        """Return the precision per class; NaN for a class whose boundary was never predicted."""
        return ratio(self.counts[:, _PREDICTED_MATCHED], self.counts[:, _PREDICTED])

    @property
    def recall(self) -> Vector:
        """Return the recall per class; NaN for a class without true boundary."""
        return ratio(self.counts[:, _TRUE_MATCHED], self.counts[:, _TRUE])

    @property
    def f_score(self) -> Vector:
        """Return the F-score per class; NaN for a class with a boundary in neither map."""
        precision = np.nan_to_num(self.precision)
        recall = np.nan_to_num(self.recall)
        tiny = np.finfo(np.float64).tiny  # instead of a division by 0
        score = 2 * precision * recall / np.maximum(precision + recall, tiny)

        present = self.counts[:, _PREDICTED] + self.counts[:, _TRUE] > 0
        out: Vector = np.where(present, score, np.nan)
        return out

    @property
    def mean_f_score(self) -> float:
        """Return the mean of the F-score over classes that have a boundary."""
        return mean_of_present(self.f_score)


def boundary_scores(names: Sequence[str], counts: Counts) -> BoundaryScores:
    """Return the scores of boundary counts.

    Parameters
    ----------
    names : class names, in the order of the label ids.
    counts : (classes, 4) int64, the sum of ``BoundaryTruth.counts`` over all frames.

    Raises
    ------
    DataError : the counts have another number of classes than there are names.

    Examples
    --------
    >>> boundary_scores(["road"], np.array([[4, 2, 4, 2]])).mean_f_score
    0.5
    """
    expected = (len(names), _COLUMNS)
    if counts.shape != expected:
        raise DataError(
            "boundary counts and class names disagree", got=counts.shape, expected=expected
        )
    return BoundaryScores(tuple(names), counts)
