"""Hold the results of a comparison, and write them as JSON."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeseg.metrics.bootstrap import (
    Counts,
    FrameCounts,
    Intervals,
    change_intervals,
    score_intervals,
)
from edgeseg.metrics.boundary import BoundaryScores
from edgeseg.metrics.confusion import Scores
from edgeseg.metrics.flicker import Flicker
from edgeseg.passport import Passport
from edgeseg.profiling.latency import Latency
from edgeseg.quantize.label_change import LabelChange
from edgeseg.spec import LabelSpace
from edgeseg.types import Vector
from edgeseg.version import __version__

KIND = "edgeseg comparison"
FORMAT = 1


@dataclass(frozen=True)
class DataFacts:
    """Describe the data of a comparison.

    Attributes
    ----------
    name : name of the data.
    frames : number of frames.
    sha256 : hash of the facts that scores depend on, as in ``Hashes``.
    pixels_sha256 : hash of the pixels, as in ``Hashes``.
    labels : the data's label space; the engines' if the data is not labelled.
    labelled : True if the data has ground truth.
    flicker : flicker of the ground truth; ``None`` if it is not measured.
    flicker_unmeasured : why the flicker of the engines is not measured; empty if it is.
    """

    name: str
    frames: int
    sha256: str
    pixels_sha256: str
    labels: LabelSpace
    labelled: bool
    flicker: Flicker | None = None
    flicker_unmeasured: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "name": self.name,
            "labelled": self.labelled,
            "frames": self.frames,
            "sha256": self.sha256,
            "pixels_sha256": self.pixels_sha256,
            "labels": self.labels.name,
            "classes": list(self.labels.names),
            "flicker": None if self.flicker is None else self.flicker.to_dict(),
            "flicker_unmeasured": self.flicker_unmeasured or None,
        }


@dataclass(frozen=True)
class EngineResult:
    """Hold the result of one engine.

    Attributes
    ----------
    id : NAME@PRECISION, unique within the comparison.
    passport : the engine's passport.
    size_bytes : size of the engine file; ``None`` if the file is not known.
    agreement : share of all pixels, void ones too, that it labels as the reference does.
    latency : its latency on this machine.
    scores : scores against ground truth; ``None`` if the data is not labelled.
    boundary : boundary scores against ground truth; ``None`` if the data is not labelled.
    change : per class, how its labels differ from the reference's; ``None`` if the data is
        labelled.
    flicker : how often its labels change where the picture does not; ``None`` if the frames are not
        consecutive.
    per_frame : the counts of every frame; ``None`` if the data is not labelled.
    """

    id: str
    passport: Passport
    size_bytes: int | None
    agreement: float
    latency: Latency
    scores: Scores | None
    boundary: BoundaryScores | None
    change: LabelChange | None = None
    flicker: Flicker | None = None
    per_frame: FrameCounts | None = None


@dataclass(frozen=True)
class Comparison:
    """Hold the results of several engines on the same data.

    Scores and changes are shares (0..1), not percent.

    Attributes
    ----------
    data : what the engines were compared on.
    results : one result per engine; the first is the reference.
    protocol : how the numbers were measured.
    machine : the machine, as ``describe_machine`` returns it.
    """

    data: DataFacts
    results: tuple[EngineResult, ...]
    protocol: dict[str, Any]
    machine: dict[str, Any]

    @property
    def reference(self) -> EngineResult:
        """Return the result of the first engine."""
        return self.results[0]

    def iou_change(self, result: EngineResult) -> Vector | None:
        """Return the IoU of each class minus the reference's, (classes,) float64.

        It is NaN if one of both has no score for the class. The result is ``None`` if the data is
        not labelled.

        Parameters
        ----------
        result : the result of one of the compared engines.
        """
        theirs = self.reference.scores
        if result.scores is None or theirs is None:
            return None
        return result.scores.iou - theirs.iou

    def worst_class(self, result: EngineResult) -> tuple[str, float] | None:
        """Return the class that lost the most IoU against the reference, and its change (below 0).

        The result is ``None`` if no class lost any.

        Parameters
        ----------
        result : the result of one of the compared engines.
        """
        change = self.iou_change(result)
        if change is None or not (change < 0).any():
            return None
        worst = int(np.nanargmin(change))
        return self.data.labels.names[worst], float(change[worst])

    def score_intervals(self, result: EngineResult) -> Intervals | None:
        """Return the confidence intervals of an engine's scores; ``None`` without labels.

        Parameters
        ----------
        result : the result of one of the compared engines.
        """
        return None if result.per_frame is None else score_intervals(result.per_frame)

    def change_intervals(self, result: EngineResult) -> Intervals | None:
        """Return the intervals of an engine's changes against the reference, on the same draws.

        The result is ``None`` if the data is not labelled.

        Parameters
        ----------
        result : the result of one of the compared engines.
        """
        theirs = self.reference.per_frame
        if result.per_frame is None or theirs is None:
            return None
        return change_intervals(theirs, result.per_frame)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, which ``check_against`` reads.

        A missing score is ``None``.
        """
        data = self.data.to_dict()
        if self.reference.per_frame is not None:
            data["truth_per_frame"] = self._by_class(self.reference.per_frame.truth)
        return {
            "kind": KIND,
            "format": FORMAT,
            "edgeseg": __version__,
            "reference": self.reference.id,
            "data": data,
            "protocol": copy.deepcopy(self.protocol),
            "machine": copy.deepcopy(self.machine),
            "engines": [self._engine(result) for result in self.results],
        }

    def _engine(self, result: EngineResult) -> dict[str, Any]:
        """Return plain values for one engine."""
        passport = result.passport
        first = self.reference
        latency_ratio = None
        if first.latency.ms_p50:
            latency_ratio = round(result.latency.ms_p50 / first.latency.ms_p50, 4)

        facts: dict[str, Any] = {
            "id": result.id,
            "name": passport.name,
            "precision": passport.precision,
            "target": passport.target,
            "input_size": list(passport.spec.input_size),
            "onnx_sha256": passport.onnx_sha256,
            "engine_sha256": passport.engine_sha256,
            "size_bytes": result.size_bytes,
            "agreement": result.agreement,
            **result.latency.to_dict(),
            "latency_ratio": latency_ratio,
            "flicker": None if result.flicker is None else result.flicker.to_dict(),
        }
        if result.change is not None:
            return facts | self._against_reference(result.change)
        return facts | self._against_truth(result)

    def _against_truth(self, result: EngineResult) -> dict[str, Any]:
        """Return an engine's scores and their changes; nothing if the data is not labelled."""
        mine = result.scores
        boundary = result.boundary
        theirs = self.reference.scores
        their_boundary = self.reference.boundary
        spread = self.score_intervals(result)
        moved = self.change_intervals(result)
        counts = result.per_frame
        if spread is None or moved is None or counts is None:
            return {}
        if mine is None or boundary is None or theirs is None or their_boundary is None:
            return {}

        per_class: dict[str, dict[str, Any]] = {}
        for i, name in enumerate(self.data.labels.names):
            per_class[name] = {
                "iou": _number(mine.iou[i]),
                "iou_interval": spread.classes[i].to_list(),
                "iou_change": _number(mine.iou[i] - theirs.iou[i]),
                "iou_change_interval": moved.classes[i].to_list(),
                "boundary_f": _number(boundary.f_score[i]),
                "boundary_f_change": _number(boundary.f_score[i] - their_boundary.f_score[i]),
            }

        worst = self.worst_class(result)
        return {
            "miou": _number(mine.mean_iou),
            "miou_interval": spread.mean.to_list(),
            "miou_change": _number(mine.mean_iou - theirs.mean_iou),
            "miou_change_interval": moved.mean.to_list(),
            "pixel_accuracy": _number(mine.pixel_accuracy),
            "pixel_accuracy_change": _number(mine.pixel_accuracy - theirs.pixel_accuracy),
            "boundary_f": _number(boundary.mean_f_score),
            "boundary_f_change": _number(boundary.mean_f_score - their_boundary.mean_f_score),
            "worst_class": worst[0] if worst else None,
            "worst_class_iou_change": worst[1] if worst else None,
            "per_class": per_class,
            "confusion_matrix": mine.matrix.tolist(),
            "true_positive_per_frame": self._by_class(counts.true_positive),
            "predicted_per_frame": self._by_class(counts.predicted),
        }

    def _by_class(self, counts: Counts) -> dict[str, str]:
        """Return counts (frames, classes) as one line of numbers per class."""
        lines: dict[str, str] = {}
        for name, column in zip(self.data.labels.names, counts.T, strict=True):
            lines[name] = " ".join(map(str, column.tolist()))
        return lines

    def _against_reference(self, change: LabelChange) -> dict[str, Any]:
        """Return how an engine's labels differ from the reference's, for data without labels."""
        worst = change.worst_class
        return {
            "mean_iou_with_reference": change.mean_iou,
            "worst_class_with_reference": None if worst is None else change.names[worst],
            "per_class_with_reference": change.to_dict()["per_class"],
        }


def _number(value: float) -> float | None:
    """Return ``value`` for JSON: ``None`` for NaN."""
    return None if np.isnan(value) else float(value)
