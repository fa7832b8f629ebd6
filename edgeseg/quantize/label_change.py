"""Compare an INT8 net's labels with the float net's, class by class.

A share of equal labels hides thin classes. Poles, signs, people and lanes are a percent of the pixels, and an engine
that has lost one of them still labels 97 % of the pixels as the float net does.

So every class of the float net is judged by its own IoU: with the float net's label map as the truth, and the INT8
net's as the prediction.
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

JUDGED_SHARE = 0.001  # of the pixels: classes that the float net gives fewer of are not judged


@dataclass(frozen=True)
class Limits:
    """What an INT8 net must keep of the float net's labels; shares in 0..1.

    Attributes
    ----------
    agreement : least share of equal labels. 0 accepts any labels, whatever the classes.
    mean_iou : least mean of the classes' IoU.
    class_iou : least IoU of each class.
    """

    agreement: float = 0.9
    mean_iou: float = 0.9
    class_iou: float = 0.7


@dataclass(frozen=True)
class LabelChange:
    """What INT8 changed in the labels of some frames.

    Attributes
    ----------
    names : the classes.
    matrix : (classes, classes) int64, pixels of the float net's class (row) and of the INT8 net's (column).
    boundary : (classes, 4) int64, as ``edgeseg.metrics.boundary.BoundaryTruth.counts``.
    frames : how many frames were compared.
    held_out : whether these frames had no part in the ranges.
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
        """Return each class's share of the float net's pixels, (classes,)."""
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
        """Return the classes that are judged: those of more than 0.1 % of the float net's pixels."""
        return [int(c) for c in np.flatnonzero(self.shares > JUDGED_SHARE)]

    @property
    def mean_iou(self) -> float:
        """Return the mean IoU of the judged classes."""
        return float(np.mean(self.iou[self.judged])) if self.judged else 1.0

    @property
    def worst_class(self) -> int | None:
        """Return the judged class of the lowest IoU; ``None`` if no class is judged."""
        return min(self.judged, key=lambda c: float(self.iou[c])) if self.judged else None

    def passes(self, limits: Limits) -> bool:
        """Return whether the labels are close enough to the float net's."""
        if limits.agreement == 0:
            return True
        worst = self.worst_class
        lowest = 1.0 if worst is None else float(self.iou[worst])
        return self.agreement >= limits.agreement and self.mean_iou >= limits.mean_iou and lowest >= limits.class_iou

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the passport; a score that does not exist is ``None``."""
        iou, boundary = self.iou, self.boundary_f
        return {
            "frames": self.frames,
            "held_out": self.held_out,
            "agreement": round(self.agreement, 5),
            "mean_iou": round(self.mean_iou, 5),
            "per_class": {
                name: {
                    "share": round(float(self.shares[c]), 6),
                    "iou": _number(iou[c]),
                    "boundary_f": _number(boundary[c]),
                }
                for c, name in enumerate(self.names)
            },
        }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 5)


def compare_labels(
    full: Iterable[Image], quantized: Labeller, frames: Iterable[Image], labels: LabelSpace, *, held_out: bool = False
) -> LabelChange:
    """Label frames by an INT8 net and count what differs from the float net's labels.

    Parameters
    ----------
    full : the float net's label map of each frame, (H, W) uint8.
    quantized : the INT8 net, (H, W, 3) uint8 BGR -> (H, W) uint8.
    frames : of any size.
    labels : the nets' classes.
    held_out : whether the frames had no part in the ranges.
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
    """Raise ``CheckFailedError`` if INT8 changed too much; it names the class, and the layers to leave in float.

    Parameters
    ----------
    change : what INT8 changed.
    limits : what it may change.
    noise : rounding noise power over signal power, by layer.
    name : of the net.
    """
    if change.passes(limits):
        return
    worst = sorted(noise, key=lambda layer: -noise[layer])[:3]
    told = ", ".join(f"{layer} ({100 * noise[layer]:.1f} % of its output)" for layer in worst)
    loud = [layer for layer in worst if noise[layer] > OUTLIER] or worst[:1]
    kept = " ".join(f"`keep_float={layer}`" for layer in loud)
    hint = (
        f"Most rounding noise is in {told}. Leave these layers in float: {kept}; "
        "or give labelled data and a budget, which finds them: `data=DATA` `max_miou_drop=0.5`."
    )
    c = change.worst_class
    if c is not None and change.iou[c] < limits.class_iou:
        raise CheckFailedError(
            f"{name}: INT8 loses the class {change.names[c]!r}",
            got=f"IoU {change.iou[c]:.3f} with the float net's labels ({100 * change.shares[c]:.2g} % of the pixels)",
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
        got=f"mean IoU {change.mean_iou:.3f} with the float net's labels",
        expected=f"at least {limits.mean_iou:g}",
        hint=hint,
    )


OUTLIER = 0.05  # noise over signal power of a layer that is spoken of in errors
