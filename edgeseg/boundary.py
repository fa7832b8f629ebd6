"""Boundary F-score: how well the edges of every class lie, which IoU hardly sees and quantization damages first.

The measure of Csurka, Larlus, Perronnin, "What is a good evaluation measure for semantic segmentation?", BMVC 2013: the
F-score of boundary precision and recall of a class, with a tolerance of 0.75 % of the image diagonal. Exactly:

- A boundary pixel of class c has label c and at least one of its four neighbours in the frame has another label. The
  frame's border is no boundary.
- Void (``ignore_id``, and any id that is no class) in the truth is void in the prediction, too. A void pixel is no
  boundary, and makes none of its neighbours. Boundary pixels within the tolerance of a void one are not counted, since
  what they match may lie in the void; they may still be matched.
- A boundary pixel is matched where the other map has a boundary pixel of the same class at most
  ``tolerance * hypot(H, W)`` pixels away, Euclidean between pixel centres (4.5 pixels in a frame of 360x480).
- Precision is the share of predicted boundary pixels that are matched, recall that of the true ones,
  F = 2 P R / (P + R). Unlike the paper, which averages scores of frames, pixels are counted over the whole data set
  and divided once, as every score here. A class with boundary in only one of the two maps has F = 0; one without any
  has no score (NaN) and is left out of the mean.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.errors import DataError

TOLERANCE = 0.0075  # of the image diagonal: the paper's

LabelMap = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Bits = npt.NDArray[Any]
Counts = npt.NDArray[np.int64]
Vector = npt.NDArray[np.float64]

_WORD = 64  # classes handled at once: one bit each


class BoundaryTruth:
    """The boundaries of a true label map (H, W) uint8, to which any number of predictions is compared."""

    def __init__(self, truth: LabelMap, classes: int, ignore_id: int = 255, tolerance: float = TOLERANCE) -> None:
        self._classes, self._truth = classes, truth
        self._reach2 = math.floor((tolerance * math.hypot(*truth.shape)) ** 2 + 1e-9)  # squared distances are whole
        self._known = (truth < classes) & (truth != ignore_id)
        self._edges = _edges(truth, self._known)
        self._judged = ~_within((~self._known).astype(np.uint8), self._reach2).astype(np.bool_)
        self._near = [_within(bits, self._reach2) for bits in self._bits(truth, self._edges)]

    def counts(self, prediction: LabelMap) -> Counts:
        """Boundary pixels of a prediction (H, W) uint8: (classes, 4) int64, to be summed over frames.

        The columns: predicted, predicted and matched, true, true and matched. Raises ``DataError`` where shapes
        differ, or a predicted id is not below ``classes``.
        """
        if prediction.shape != self._truth.shape:
            raise DataError("prediction and truth differ in size", got=prediction.shape, expected=self._truth.shape)
        if self._known.any() and (worst := int(prediction[self._known].max())) >= self._classes:
            raise DataError("a predicted label id is out of range", got=worst, expected=f"below {self._classes}")
        edges = _edges(prediction, self._known)
        found, met = np.zeros(edges.shape, np.bool_), np.zeros(edges.shape, np.bool_)
        words = zip(self._bits(prediction, edges), self._bits(self._truth, self._edges), self._near, strict=True)
        for ours, theirs, near in words:
            found |= (ours & near) != 0
            met |= (theirs & _within(ours, self._reach2)) != 0
        predicted, true = edges & self._judged, self._edges & self._judged
        guess, truth = prediction, self._truth
        columns = (guess[predicted], guess[predicted & found], truth[true], truth[true & met])
        return np.stack([np.bincount(ids, minlength=self._classes) for ids in columns], axis=1).astype(np.int64)

    def _bits(self, labels: LabelMap, edges: Flags) -> Iterator[Bits]:
        """Boundary pixels as sets of classes, a bit each, so that all classes of a word are handled at once."""
        for first in range(0, self._classes, _WORD):
            count = min(_WORD, self._classes - first)
            dtype = next(t for t, n in ((np.uint8, 8), (np.uint16, 16), (np.uint32, 32), (np.uint64, 64)) if count <= n)
            table = np.zeros(256, dtype)
            table[first : first + count] = np.left_shift(np.ones(count, dtype), np.arange(count, dtype=dtype))
            yield np.where(edges, table[labels], dtype(0))


def _edges(labels: LabelMap, known: Flags) -> Flags:
    """(H, W) bool: known pixels with a known neighbour (up, down, left, right) of another label."""
    out = np.zeros(labels.shape, np.bool_)
    for axis in (0, 1):
        here = (slice(None),) * axis + (slice(1, None),)
        there = (slice(None),) * axis + (slice(None, -1),)
        differ = (labels[here] != labels[there]) & known[here] & known[there]
        out[here] |= differ
        out[there] |= differ
    return out


def _within(bits: Bits, reach2: int) -> Bits:
    """Every set spread over a disc: at each pixel the union of the sets at most ``sqrt(reach2)`` pixels away.

    A disc is a stack of rows, the longer the nearer to its middle: rows are widened a pixel at a time, and each width
    is put where it belongs. That is exact, and about four passes a pixel of radius for all classes together.
    """
    height, width = bits.shape
    row: Bits = bits.copy()
    out: Bits = bits.copy()
    half = 0
    for dy in range(min(math.isqrt(reach2), height - 1), -1, -1):
        wanted = min(math.isqrt(reach2 - dy * dy), width - 1)
        for dx in range(half + 1, wanted + 1):
            row[:, dx:] |= bits[:, :-dx]
            row[:, :-dx] |= bits[:, dx:]
        half = max(half, wanted)
        out[dy:] |= row[: height - dy]
        out[: height - dy] |= row[dy:]
    return out


@dataclass(frozen=True)
class BoundaryScores:
    """Scores in 0..1, (classes,) float64; NaN where there is no boundary. ``counts`` as ``BoundaryTruth.counts``."""

    names: tuple[str, ...]
    counts: Counts

    @property
    def precision(self) -> Vector:
        """NaN for a class whose boundary was never predicted."""
        return _ratio(self.counts[:, 1], self.counts[:, 0])

    @property
    def recall(self) -> Vector:
        """NaN for a class without true boundary."""
        return _ratio(self.counts[:, 3], self.counts[:, 2])

    @property
    def f_score(self) -> Vector:
        p, r = np.nan_to_num(self.precision), np.nan_to_num(self.recall)
        score = 2 * p * r / np.maximum(p + r, np.finfo(np.float64).tiny)
        out: Vector = np.where(self.counts[:, 0] + self.counts[:, 2] > 0, score, np.nan)
        return out

    @property
    def mean_f_score(self) -> float:
        """The mean over classes that have a boundary."""
        present = self.f_score[~np.isnan(self.f_score)]
        return float(present.mean()) if present.size else float("nan")


def boundary_scores(names: Sequence[str], counts: Counts) -> BoundaryScores:
    """Scores of summed ``BoundaryTruth.counts``. Raises ``DataError`` where names and counts disagree."""
    if counts.shape != (len(names), 4):
        raise DataError("boundary counts and class names disagree", got=counts.shape, expected=(len(names), 4))
    return BoundaryScores(tuple(names), counts)


def _ratio(part: Counts, whole: Counts) -> Vector:
    with np.errstate(divide="ignore", invalid="ignore"):
        out: Vector = part.astype(np.float64) / whole
    return out
