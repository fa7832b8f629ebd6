"""Cross-entropy and its class weights."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgeseg.data import Sample
from edgeseg.spec import LabelSpace

LOG_OFFSET = 1.02  # ENet (Paszke et al. 2016, section 5.1): w = 1 / ln(1.02 + p)


def class_pixels(samples: Sequence[Sample], labels: LabelSpace) -> npt.NDArray[np.int64]:
    """For each label id its pixels, and the pixels of all frames it occurs in: (2, classes) int64, void left out."""
    classes = len(labels)
    counts = np.zeros((2, classes), np.int64)
    for sample in samples:
        here = np.bincount(sample.mask.ravel(), minlength=256)
        here[labels.ignore_id] = 0
        here = here[:classes]
        counts[0] += here
        counts[1] += np.where(here > 0, here.sum(), 0)
    return counts


def prior_shift(weights: npt.NDArray[np.float32], share: float) -> npt.NDArray[np.float32]:
    """What to add to the logits, (classes,), to take back ``share`` (0..1) of the class weights' effect.

    A net trained with weights w estimates scores in proportion to w * p; subtracting log(w) gives p again (Menon et
    al. 2021, "Long-tail learning via logit adjustment"). Rare classes are then found less often where they are not.
    """
    seen = weights > 0
    return np.asarray(np.where(seen, -share * np.log(np.where(seen, weights, 1.0)), 0.0), np.float32)


def class_weights(counts: npt.NDArray[np.int64], kind: str, power: float = 1.0) -> npt.NDArray[np.float32]:
    """Weights (classes,) from ``class_pixels``, with mean 1 over the pixels; a class never seen weighs 0.

    ``inverse``: 1 / p. ``median``: median-frequency balancing (Eigen & Fergus 2015): median(f) / f with f the share of
    the class in the frames it occurs in. ``log``: ENet's 1 / ln(1.02 + p). All to the ``power``, which tempers them.
    """
    pixels, frames = counts.astype(np.float64)
    seen = pixels > 0
    share = pixels / max(pixels.sum(), 1)
    raw = np.ones_like(share)
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "inverse":
            raw = 1 / share
        elif kind == "median":
            frequency = pixels / frames
            raw = np.median(frequency[seen]) / frequency
        elif kind == "log":
            raw = 1 / np.log(LOG_OFFSET + share)
    weights = np.where(seen, raw, 0.0) ** power * seen
    return np.asarray(weights / (weights * share).sum(), np.float32)
