"""Accuracy against precision: several engines on the same frames, side by side; the first is the reference.

One pass labels every frame with every engine and keeps only counts, so memory does not grow with the data. Then latency
is measured in turns on a few of the same frames (``edgeseg.profiling.latency``).
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import edgeseg
from edgeseg.artifact import Passport
from edgeseg.boundary import TOLERANCE, BoundaryScores, BoundaryTruth, boundary_scores
from edgeseg.data import Dataset
from edgeseg.errors import InputError
from edgeseg.evaluation import check_labels
from edgeseg.metrics import Scores, confusion_matrix, scores
from edgeseg.profiling.entry import Entry, check_alike, identify, open_entry
from edgeseg.profiling.frames import Frames, Hashes, Item, Sample, frames_of
from edgeseg.profiling.latency import CALLS, ROUNDS, SECONDS, WARMUP, Clock, Latency, measure_latency
from edgeseg.profiling.machine import describe_machine
from edgeseg.quantize.guard import LabelChange
from edgeseg.runtime.engine import Engine, Image
from edgeseg.spec import LabelSpace
from edgeseg.video.frames import Source

KIND, FORMAT = "edgeseg comparison", 1

Progress = Callable[[int, int | None], None]
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DataFacts:
    """What was compared on; ``labels`` are the engines' where the data is not ``labelled``. Hashes as ``Hashes``."""

    name: str
    frames: int
    sha256: str
    pixels_sha256: str
    labels: LabelSpace
    labelled: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "labelled": self.labelled,
            "frames": self.frames,
            "sha256": self.sha256,
            "pixels_sha256": self.pixels_sha256,
            "labels": self.labels.name,
            "classes": list(self.labels.names),
        }


@dataclass(frozen=True)
class EngineResult:
    """One engine. ``agreement`` is the share of all pixels, void ones too, that it labels as the reference does.

    ``change`` says class by class what it labels otherwise than the reference; ``None`` where the data has labels.
    """

    id: str
    passport: Passport
    size_bytes: int | None
    agreement: float
    latency: Latency
    scores: Scores | None
    boundary: BoundaryScores | None
    change: LabelChange | None = None


@dataclass(frozen=True)
class Comparison:
    """Engines on the same data; ``results[0]`` is the reference. Scores and changes are shares (0..1), not percent."""

    data: DataFacts
    results: tuple[EngineResult, ...]
    protocol: dict[str, Any]
    machine: dict[str, Any]

    @property
    def reference(self) -> EngineResult:
        return self.results[0]

    def iou_change(self, result: EngineResult) -> Vector | None:
        """(classes,) IoU less the reference's; NaN for a class that either has no score for; ``None`` unlabelled."""
        theirs = self.reference.scores
        return None if result.scores is None or theirs is None else result.scores.iou - theirs.iou

    def worst_class(self, result: EngineResult) -> tuple[str, float] | None:
        """The class that lost most IoU against the reference, and its change; ``None`` where none lost."""
        change = self.iou_change(result)
        if change is None or not (change < 0).any():
            return None
        worst = int(np.nanargmin(change))
        return self.data.labels.names[worst], float(change[worst])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a score that does not exist is ``None``. ``check_against`` reads this form."""
        return {
            "kind": KIND,
            "format": FORMAT,
            "edgeseg": edgeseg.__version__,
            "reference": self.reference.id,
            "data": self.data.to_dict(),
            "protocol": copy.deepcopy(self.protocol),
            "machine": copy.deepcopy(self.machine),
            "engines": [self._engine(result) for result in self.results],
        }

    def _engine(self, result: EngineResult) -> dict[str, Any]:
        p, first = result.passport, self.reference
        facts: dict[str, Any] = {
            "id": result.id,
            "name": p.name,
            "precision": p.precision,
            "target": p.target,
            "input_size": list(p.spec.input_size),
            "onnx_sha256": p.onnx_sha256,
            "engine_sha256": p.engine_sha256,
            "size_bytes": result.size_bytes,
            "agreement": result.agreement,
            **result.latency.to_dict(),
            "latency_ratio": round(result.latency.ms_p50 / first.latency.ms_p50, 4) if first.latency.ms_p50 else None,
        }
        if result.change is not None:
            return facts | self._against_reference(result.change)
        if result.scores is None or result.boundary is None or first.scores is None or first.boundary is None:
            return facts
        worst = self.worst_class(result)
        return {
            **facts,
            "miou": _number(result.scores.mean_iou),
            "miou_change": _number(result.scores.mean_iou - first.scores.mean_iou),
            "pixel_accuracy": _number(result.scores.pixel_accuracy),
            "pixel_accuracy_change": _number(result.scores.pixel_accuracy - first.scores.pixel_accuracy),
            "boundary_f": _number(result.boundary.mean_f_score),
            "boundary_f_change": _number(result.boundary.mean_f_score - first.boundary.mean_f_score),
            "worst_class": worst[0] if worst else None,
            "worst_class_iou_change": worst[1] if worst else None,
            "per_class": {
                name: {
                    "iou": _number(result.scores.iou[i]),
                    "iou_change": _number(result.scores.iou[i] - first.scores.iou[i]),
                    "boundary_f": _number(result.boundary.f_score[i]),
                    "boundary_f_change": _number(result.boundary.f_score[i] - first.boundary.f_score[i]),
                }
                for i, name in enumerate(self.data.labels.names)
            },
            "confusion_matrix": result.scores.matrix.tolist(),
        }

    def _against_reference(self, change: LabelChange) -> dict[str, Any]:
        """Return what an engine changed in the reference's labels, for data without labels of its own."""
        worst = change.worst_class
        return {
            "mean_iou_with_reference": change.mean_iou,
            "worst_class_with_reference": None if worst is None else change.names[worst],
            "per_class_with_reference": change.to_dict()["per_class"],
        }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def compare(
    engines: Sequence[Engine | Entry | str | Path],
    data: Dataset | Source,
    *,
    indices: Sequence[int] | None = None,
    name: str | None = None,
    rounds: int = ROUNDS,
    clock: Clock = time.perf_counter,
    on_progress: Progress | None = None,
) -> Comparison:
    """Label the same frames with every engine; score, time and hash it all.

    Parameters
    ----------
    engines : ``Engine`` objects, or what ``edgeseg.profiling.entry.open_entry`` opens. The first is the reference.
        They may differ in input size and target, not in classes.
    data : labelled data, or a source of frames (``edgeseg.video.open_source``): then there are no scores against truth,
        only agreement with the reference, and latency. A source is read to its end, and is the caller's to close.
    indices : which frames, in rising order; all by default. A live source needs them.
    name : of the data, instead of its own.
    rounds : turns an engine for the latency; ``clock`` is that of ``measure_latency``.
    on_progress : called with (steps done, steps in all or ``None``): a step is a frame labelled or a turn timed.

    Raises
    ------
    InputError : no engine, no frame, engines of different classes. DataError : data of other classes than the engines'.
    """
    machine = describe_machine()  # before the work, so that the load it tells is not our own
    entries = tuple(given if isinstance(given, Entry) else open_entry(given) for given in engines)
    check_alike(entries)
    frames = frames_of(data, indices, name)
    space = entries[0].engine.spec.labels
    if frames.labels:
        check_labels(space, frames.labels, frames.name)
    steps = _Steps(on_progress, None if frames.count is None else frames.count + rounds * len(entries))
    tallies, hashes, sample = _label_all(entries, frames, steps)
    latencies = measure_latency(
        [entry.engine for entry in entries], sample.images, rounds=rounds, clock=clock, on_turn=steps.step
    )
    facts = DataFacts(
        name=frames.name,
        frames=hashes.frames,
        sha256=hashes.facts_sha256,
        pixels_sha256=hashes.pixels_sha256,
        labels=frames.labels or space,
        labelled=frames.labels is not None,
    )
    parts = zip(identify(entries), entries, tallies, latencies, strict=True)
    return Comparison(
        facts, tuple(_result(*part, facts) for part in parts), _protocol(rounds, len(sample.images)), machine
    )


class _Steps:
    """Counts steps for ``on_progress``."""

    def __init__(self, tell: Progress | None, total: int | None) -> None:
        self._tell, self._total, self._done = tell, total, 0

    def step(self) -> None:
        self._done += 1
        if self._tell:
            self._tell(self._done, self._total)


@dataclass
class _Tally:
    """What one engine's labels add up to."""

    matrix: npt.NDArray[np.int64]
    boundary: npt.NDArray[np.int64]
    same: int = 0
    pixels: int = 0


def _label_all(entries: Sequence[Entry], frames: Frames, steps: _Steps) -> tuple[list[_Tally], Hashes, Sample]:
    """The one pass over the frames. Raises ``InputError`` where there is none."""
    classes = len(frames.labels or entries[0].engine.spec.labels)
    tallies = [_Tally(np.zeros((classes, classes), np.int64), np.zeros((classes, 4), np.int64)) for _ in entries]
    hashes, sample = Hashes(), Sample(frames.count)
    for item in frames.items:
        hashes.add(item)
        sample.offer(item.image)
        _label(entries, tallies, item, frames.labels)
        steps.step()
    if not hashes.frames:
        raise InputError(f"{frames.name}: no frames to compare on")
    return tallies, hashes, sample


def _label(entries: Sequence[Entry], tallies: Sequence[_Tally], item: Item, labels: LabelSpace | None) -> None:
    """One frame through every engine, into the tallies."""
    reference: Image | None = None
    truth = None if item.mask is None or labels is None else BoundaryTruth(item.mask, len(labels), labels.ignore_id)
    for entry, tally in zip(entries, tallies, strict=True):
        found = entry.engine(item.image)
        if reference is None:
            reference, theirs = found, BoundaryTruth(found, len(tally.matrix))
        tally.same += int(np.count_nonzero(found == reference))
        tally.pixels += found.size
        if item.mask is None or labels is None:
            count = len(tally.matrix)
            tally.matrix += confusion_matrix(reference, found, count, ignore_id=255)
            tally.boundary += theirs.counts(found)
        if truth is not None and item.mask is not None and labels is not None:
            tally.matrix += confusion_matrix(item.mask, found, len(labels), labels.ignore_id)
            tally.boundary += truth.counts(found)


def _result(key: str, entry: Entry, tally: _Tally, latency: Latency, data: DataFacts) -> EngineResult:
    return EngineResult(
        id=key,
        passport=entry.engine.passport,
        size_bytes=entry.size_bytes,
        agreement=tally.same / tally.pixels,
        latency=latency,
        scores=scores(data.labels.names, tally.matrix) if data.labelled else None,
        boundary=boundary_scores(data.labels.names, tally.boundary) if data.labelled else None,
        change=None if data.labelled else LabelChange(data.labels.names, tally.matrix, tally.boundary, data.frames),
    )


def _protocol(rounds: int, timed_frames: int) -> dict[str, Any]:
    return {
        "rounds": rounds,
        "calls_per_turn_at_most": CALLS,
        "seconds_per_turn_at_most": SECONDS,
        "warmup_calls_per_turn": WARMUP,
        "frames_timed": timed_frames,
        "timed": "decoded uint8 BGR frame to uint8 label map of its size, one frame at a time",
        "latency_statistic": "percentiles over all calls of all rounds; engines take turns",
        "iou": "one confusion matrix over all frames, void excluded",
        "boundary": "Csurka et al. 2013; boundary pixels counted over all frames, void and its surroundings excluded",
        "boundary_tolerance_of_diagonal": TOLERANCE,
        "agreement": "share of all pixels labelled as the first engine does",
    }
