"""Compare the labels of an INT8 network with those of the float network, class by class.

A share of equal labels hides thin classes. Poles, signs, people and lanes are a percent of the
pixels, and an engine that has lost one of them still labels 97 % of the pixels as the float network
does.

So each class is judged by its own IoU, with the float network's label map as the truth and the INT8
network's as the prediction.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.errors import CheckFailedError
from edgeseg.metrics.boundary import BoundaryTruth, boundary_scores
from edgeseg.metrics.confusion import confusion_matrix, scores
from edgeseg.spec import LabelSpace
from edgeseg.types import Image

Labeller = Callable[[Image], Image]

# Classes of a smaller share of the float network's pixels are not judged.
JUDGED_SHARE = 0.001
# Errors name the layers whose noise power over signal power is above it.
OUTLIER = 0.05


@dataclass(frozen=True)
class Limits:
    """Hold what an INT8 network must keep of the float network's labels; all values are in 0..1.

    Attributes
    ----------
    agreement : smallest share of equal labels; 0 turns all limits off.
    mean_iou : smallest mean IoU of the judged classes.
    class_iou : smallest IoU of each judged class.

    Examples
    --------
    >>> Limits(class_iou=0.5)
    Limits(agreement=0.9, mean_iou=0.9, class_iou=0.5)
    """

    agreement: float = 0.9
    mean_iou: float = 0.9
    class_iou: float = 0.7


@dataclass(frozen=True)
class LabelChange:
    """Hold what INT8 changed in the labels of some frames.

    Attributes
    ----------
    names : class names.
    matrix : (classes, classes) int64, pixels by the float network's class (row) and the INT8
        network's class (column).
    boundary : (classes, 4) int64, as ``edgeseg.metrics.boundary.BoundaryTruth.counts``.
    frames : number of compared frames.
    held_out : True if the ranges were computed without these frames.

    Examples
    --------
    >>> change = LabelChange(
    ...     ("road", "pole"), np.array([[90, 0], [4, 6]]), np.zeros((2, 4), np.int64), frames=1
    ... )
    >>> change.agreement, change.worst_class, change.passes(Limits())
    (0.96, 1, False)
    """

    names: tuple[str, ...]
    matrix: npt.NDArray[np.int64]
    boundary: npt.NDArray[np.int64]
    frames: int
    held_out: bool = False

    @property
    def agreement(self) -> float:
        """Return the share of all pixels with the same label."""
        return float(np.trace(self.matrix) / max(int(self.matrix.sum()), 1))

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """Return each class's share of the float network's pixels, (classes,)."""
        total = max(int(self.matrix.sum()), 1)
        return np.asarray(self.matrix.sum(axis=1) / total, np.float64)

    @property
    def iou(self) -> npt.NDArray[np.float64]:
        """Return each class's IoU, (classes,); NaN for a class in neither label map."""
        return scores(self.names, self.matrix).iou

    @property
    def boundary_f(self) -> npt.NDArray[np.float64]:
        """Return each class's boundary F-score, (classes,); NaN for a class without a boundary."""
        return boundary_scores(self.names, self.boundary).f_score

    @property
    def judged(self) -> list[int]:
        """Return the judged classes: those of more than 0.1 % of the float network's pixels."""
        return [int(c) for c in np.flatnonzero(self.shares > JUDGED_SHARE)]

    @property
    def mean_iou(self) -> float:
        """Return the mean IoU of the judged classes; 1 if no class is judged."""
        return float(np.mean(self.iou[self.judged])) if self.judged else 1.0

    @property
    def worst_class(self) -> int | None:
        """Return the judged class of the lowest IoU; ``None`` if no class is judged."""
        iou = self.iou
        return min(self.judged, key=lambda c: float(iou[c]), default=None)

    def passes(self, limits: Limits) -> bool:
        """Return True if the labels are close enough to the float network's.

        Parameters
        ----------
        limits : what the INT8 network must keep.
        """
        if limits.agreement == 0:
            return True

        worst = self.worst_class
        lowest = 1.0 if worst is None else float(self.iou[worst])
        return (
            self.agreement >= limits.agreement
            and self.mean_iou >= limits.mean_iou
            and lowest >= limits.class_iou
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the passport; a score that does not exist is ``None``."""
        iou = self.iou
        boundary = self.boundary_f
        per_class: dict[str, dict[str, float | None]] = {}
        for c, name in enumerate(self.names):
            per_class[name] = {
                "share": round(float(self.shares[c]), 6),
                "iou": _number(iou[c]),
                "boundary_f": _number(boundary[c]),
            }
        return {
            "frames": self.frames,
            "held_out": self.held_out,
            "agreement": round(self.agreement, 5),
            "mean_iou": round(self.mean_iou, 5),
            "per_class": per_class,
        }


def _number(value: float) -> float | None:
    """Return a rounded score; ``None`` for NaN."""
    return None if np.isnan(value) else round(float(value), 5)


def compare_labels(
    full: Iterable[Image],
    quantized: Labeller,
    frames: Iterable[Image],
    labels: LabelSpace,
    *,
    held_out: bool = False,
) -> LabelChange:
    """Label frames with an INT8 network and compare the labels with those of the float network.

    Parameters
    ----------
    full : the float network's label map of each frame, (H, W) uint8.
    quantized : the INT8 network, (H, W, 3) uint8 BGR -> (H, W) uint8.
    frames : the frames, (H, W, 3) uint8 BGR of any size.
    labels : the classes of both networks.
    held_out : True if the ranges were computed without these frames.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> frame = np.zeros((2, 2, 3), np.uint8)
    >>> labels = np.zeros((2, 2), np.uint8)
    >>> compare_labels([labels], lambda _: labels, [frame], CAMVID_11).agreement
    1.0
    """
    count = len(labels)
    matrix = np.zeros((count, count), np.int64)
    boundary = np.zeros((count, 4), np.int64)
    seen = 0
    for truth, frame in zip(full, frames, strict=True):
        found = quantized(frame)
        matrix += confusion_matrix(truth, found, count, ignore_id=255)
        boundary += BoundaryTruth(truth, count).counts(found)
        seen += 1
    return LabelChange(labels.names, matrix, boundary, seen, held_out)


def require_close(change: LabelChange, limits: Limits, noise: dict[str, float], name: str) -> None:
    """Check that INT8 did not change the labels too much.

    Parameters
    ----------
    change : what INT8 changed.
    limits : what the INT8 network must keep.
    noise : rounding noise power over signal power, by layer.
    name : name of the network.

    Raises
    ------
    CheckFailedError : INT8 changed too much; the error names the class, and the layers to leave in
        float.
    """
    if change.passes(limits):
        return

    hint = _hint(noise)
    c = change.worst_class
    if c is not None and change.iou[c] < limits.class_iou:
        raise CheckFailedError(
            f"{name}: INT8 loses the class {change.names[c]!r}",
            got=f"IoU {change.iou[c]:.3f} with the float network's labels, which are "
            f"{100 * change.shares[c]:.2g} % of the pixels",
            expected=f"at least {limits.class_iou:g}",
            hint=hint,
        )
    if change.agreement < limits.agreement:
        raise CheckFailedError(
            f"{name}: INT8 changes {100 * (1 - change.agreement):.1f} % of the labels",
            expected=f"at most {100 * (1 - limits.agreement):.0f} %",
            hint=hint,
        )
    raise CheckFailedError(
        f"{name}: INT8 changes the classes too much",
        got=f"mean IoU {change.mean_iou:.3f} with the float network's labels",
        expected=f"at least {limits.mean_iou:g}",
        hint=hint,
    )


def _hint(noise: dict[str, float]) -> str:
    """Return the hint of an error: the layers with the most rounding noise, and what to do."""
    worst = sorted(noise, key=lambda layer: -noise[layer])[:3]
    listed = ", ".join(f"{layer} ({100 * noise[layer]:.1f} % of its output)" for layer in worst)

    outliers = [layer for layer in worst if noise[layer] > OUTLIER]
    kept = " ".join(f"`keep_float={layer}`" for layer in outliers or worst[:1])
    return (
        f"Most rounding noise is in {listed}. Leave these layers in float: {kept}; "
        "or give labelled data and a budget, which finds them: `data=DATA` `max_miou_drop=0.5`."
    )
