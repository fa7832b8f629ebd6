"""Say how sure a score is: confidence intervals by a bootstrap over frames.

The frames of a data set are a sample of the frames that a net will see. The bootstrap (Efron 1979)
draws as many frames with replacement, many times, and scores each draw; the spread of the scores
is the interval. Two engines are compared on the same draws (paired): a frame that is hard for both
moves both scores, and not their difference. So the interval of a difference is much narrower than
the intervals of the two scores.

A draw needs no labels again: IoU comes from sums of counts over frames, and a draw only weighs
them.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeseg.errors import DataError
from edgeseg.metrics.common import ratio
from edgeseg.types import Vector

DRAWS = 1000
CONFIDENCE = 0.95

Counts = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FrameCounts:
    """Hold what IoU needs of every frame, each (frames, classes) int64.

    Attributes
    ----------
    true_positive : pixels of a class that are predicted as this class.
    truth : pixels of a class.
    predicted : pixels that are predicted as a class; void pixels are not counted.

    Examples
    --------
    >>> counts = FrameCounts.of(np.array([[[3, 1], [0, 4]]]))
    >>> counts.true_positive.tolist(), counts.truth.tolist(), counts.predicted.tolist()
    ([[3, 4]], [[4, 4]], [[3, 5]])
    """

    true_positive: Counts
    truth: Counts
    predicted: Counts

    @classmethod
    def of(cls, matrices: Counts) -> "FrameCounts":
        """Return the counts of confusion matrices.

        Parameters
        ----------
        matrices : (frames, classes, classes) int64, one ``confusion_matrix`` per frame.
        """
        return cls(
            true_positive=np.diagonal(matrices, axis1=1, axis2=2).astype(np.int64),
            truth=matrices.sum(axis=2, dtype=np.int64),
            predicted=matrices.sum(axis=1, dtype=np.int64),
        )

    @property
    def frames(self) -> int:
        """Return the number of frames."""
        return len(self.truth)

    def iou(self, weights: Weights | None = None) -> Values:
        """Return the IoU of every class for each draw, (draws, classes); NaN for absent classes.

        Parameters
        ----------
        weights : (draws, frames): how often a draw has each frame; ``None``: one draw, each frame
            once.
        """
        if weights is None:
            weights = np.ones((1, self.frames))
        right = weights @ self.true_positive.astype(np.float64)
        union = weights @ (self.truth + self.predicted - self.true_positive).astype(np.float64)
        return ratio(right, union)


@dataclass(frozen=True)
class Interval:
    """Hold a value and its confidence interval.

    Attributes
    ----------
    value : the value on all frames.
    low, high : the ends of the interval; NaN if it is not defined.

    Examples
    --------
    >>> Interval(-0.02, -0.03, -0.01).excludes_zero, Interval(0.0, -0.01, 0.01).excludes_zero
    (True, False)
    """

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Return True if the whole interval is above 0, or below."""
        return self.low > 0 or self.high < 0

    def to_list(self) -> list[float] | None:
        """Return the two ends for JSON; ``None`` if they are not defined."""
        return None if np.isnan(self.low) or np.isnan(self.high) else [self.low, self.high]


@dataclass(frozen=True)
class Intervals:
    """Hold the intervals of a score, or of the difference of two engines' scores.

    Attributes
    ----------
    mean : interval of the mean over classes.
    classes : interval of each class.
    """

    mean: Interval
    classes: tuple[Interval, ...]


def draw_weights(frames: int, draws: int = DRAWS, seed: int = 0) -> Weights:
    """Draw frames with replacement: return how often each draw has each frame.

    Parameters
    ----------
    frames : number of frames, which is also the size of a draw.
    draws : number of draws.
    seed : seed of the random numbers; one seed gives the same draws for every engine.

    Returns
    -------
    (draws, frames) float64, whole numbers; every row adds up to ``frames``.

    Raises
    ------
    DataError : there is no frame.

    Examples
    --------
    >>> draw_weights(4, draws=2).sum(axis=1).tolist()
    [4.0, 4.0]
    """
    if frames < 1:
        raise DataError("no frame to draw from")
    rng = np.random.default_rng(seed)
    return rng.multinomial(frames, np.full(frames, 1 / frames), size=draws).astype(np.float64)


def score_intervals(
    counts: FrameCounts, *, confidence: float = CONFIDENCE, draws: int = DRAWS, seed: int = 0
) -> Intervals:
    """Return the intervals of an engine's mIoU and IoU per class.

    Parameters
    ----------
    counts : the engine's counts.
    confidence : share of the draws within an interval.
    draws, seed : as in ``draw_weights``.

    Examples
    --------
    >>> same = FrameCounts.of(np.array([[[3, 1], [0, 4]]] * 5))
    >>> score_intervals(same).mean
    Interval(value=0.775, low=0.775, high=0.775)
    """
    drawn = counts.iou(draw_weights(counts.frames, draws, seed))
    return _intervals(counts.iou()[0], _means(counts.iou())[0], drawn, _means(drawn), confidence)


def change_intervals(
    first: FrameCounts,
    second: FrameCounts,
    *,
    confidence: float = CONFIDENCE,
    draws: int = DRAWS,
    seed: int = 0,
) -> Intervals:
    """Return the intervals of the second engine's scores minus the first's, on the same draws.

    Parameters
    ----------
    first, second : counts of two engines on the same frames in the same order.
    confidence : share of the draws within an interval.
    draws, seed : as in ``draw_weights``.

    Raises
    ------
    DataError : the two are not of the same frames.

    Examples
    --------
    >>> better = FrameCounts.of(np.array([[[4, 0], [0, 4]]] * 5))
    >>> worse = FrameCounts.of(np.array([[[3, 1], [0, 4]]] * 5))
    >>> change_intervals(better, worse).classes[0]
    Interval(value=-0.25, low=-0.25, high=-0.25)
    """
    if not np.array_equal(first.truth, second.truth):
        raise DataError(
            "two engines can be paired only on the same labelled frames",
            got=f"{second.truth.shape} and {first.truth.shape} counts of true pixels",
            expected="equal counts",
        )
    weights = draw_weights(first.frames, draws, seed)
    before = first.iou()
    after = second.iou()
    before_drawn = first.iou(weights)
    after_drawn = second.iou(weights)
    return _intervals(
        (after - before)[0],
        (_means(after) - _means(before))[0],
        after_drawn - before_drawn,
        _means(after_drawn) - _means(before_drawn),
        confidence,
    )


def _means(iou: Values) -> Vector:
    """Return the mean over the classes that each draw has; NaN if it has none."""
    present = ~np.isnan(iou)
    total = np.where(present, iou, 0.0).sum(axis=1)
    return ratio(total, present.sum(axis=1))


def _intervals(
    values: Vector, mean: float, drawn: Values, drawn_means: Vector, confidence: float
) -> Intervals:
    """Return the intervals of values; a draw without a class is left out for this class."""
    tails = 50 * (1 - confidence), 100 - 50 * (1 - confidence)
    classes: list[Interval] = []
    for value, column in zip(values, drawn.T, strict=True):
        classes.append(_interval(float(value), column, tails))
    return Intervals(_interval(float(mean), drawn_means, tails), tuple(classes))


def _interval(value: float, drawn: Vector, tails: tuple[float, float]) -> Interval:
    """Return the interval between two percentiles of the draws."""
    known = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not known.size:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.percentile(known, tails)
    return Interval(value, float(low), float(high))
