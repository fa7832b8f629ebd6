"""Compute class weights from the frequencies of the classes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgeseg.data import Sample
from edgeseg.spec import LabelSpace

LOG_OFFSET = 1.02  # ENet (Paszke et al. 2016, section 5.1): w = 1 / ln(1.02 + p)


def class_pixels(samples: Sequence[Sample], labels: LabelSpace) -> npt.NDArray[np.int64]:
    """Count the pixels of each class, void left out.

    Parameters
    ----------
    samples : the labelled frames; all of them are read.
    labels : their label space.

    Returns
    -------
    (2, classes) int64: the pixels of each class, and all pixels of the frames it occurs in.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> mask = np.array([[0, 0, 1, CAMVID_11.ignore_id]], np.uint8)
    >>> sample = Sample("frame", np.zeros((1, 4, 3), np.uint8), mask)
    >>> class_pixels([sample], CAMVID_11)[:, :3].tolist()
    [[2, 1, 0], [3, 3, 0]]
    """
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
    """Return what to add to the logits to take back a share of the class weights' effect.

    A model trained with weights w estimates probabilities in proportion to w * p; subtracting
    log(w) gives p again (Menon et al. 2021, "Long-tail learning via logit adjustment"). Rare
    classes are then found less often where they are not.

    Parameters
    ----------
    weights : (classes,) float32 class weights; 0 for a class that never occurs.
    share : share of the effect to take back, 0..1.

    Returns
    -------
    (classes,) float32; 0 for a class that never occurs.

    Examples
    --------
    >>> print(prior_shift(np.array([0.5, 2, 0], np.float32), share=1.0).round(2))
    [ 0.69 -0.69  0.  ]
    """
    occurs = weights > 0
    logarithms = np.log(np.where(occurs, weights, 1.0))
    return np.asarray(np.where(occurs, -share * logarithms, 0.0), np.float32)


def class_weights(
    counts: npt.NDArray[np.int64], kind: str, power: float = 1.0
) -> npt.NDArray[np.float32]:
    """Return the weights of the classes in the loss, with mean 1 over the pixels.

    Parameters
    ----------
    counts : what ``class_pixels`` returned.
    kind : how the weight depends on p, the share of the class's pixels.

        - ``none``: equal weights.
        - ``inverse``: 1 / p.
        - ``median``: median-frequency balancing (Eigen & Fergus 2015), median(f) / f, where f is
          the share of the class in the frames it occurs in.
        - ``log``: ENet's 1 / ln(1.02 + p).
    power : exponent of the weights, which tempers them; 0 gives equal weights.

    Returns
    -------
    (classes,) float32; 0 for a class that never occurs.

    Examples
    --------
    >>> counts = np.array([[90, 10, 0], [100, 100, 0]])
    >>> print(class_weights(counts, "inverse").round(2))
    [0.56 5.   0.  ]
    """
    pixels, frames = counts.astype(np.float64)
    occurs = pixels > 0
    share = pixels / max(pixels.sum(), 1)

    # Classes that never occur divide by zero; their weights become 0 below.
    raw = np.ones_like(share)
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "inverse":
            raw = 1 / share
        elif kind == "median":
            frequency = pixels / frames
            raw = np.median(frequency[occurs]) / frequency
        elif kind == "log":
            raw = 1 / np.log(LOG_OFFSET + share)

    weights = np.where(occurs, raw, 0.0) ** power * occurs
    return np.asarray(weights / (weights * share).sum(), np.float32)
