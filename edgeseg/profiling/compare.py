"""Compare engines on the same frames: accuracy, latency and size. The first is the reference.

One pass labels every frame with every engine and keeps only counts, so memory does not grow with
the data. Then latency is measured in turns on a few of the same frames
(``edgeseg.profiling.latency``).
"""

import copy
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.backends.engine import Engine
from edgeseg.data import Dataset
from edgeseg.errors import InputError
from edgeseg.metrics.boundary import TOLERANCE, BoundaryScores, BoundaryTruth, boundary_scores
from edgeseg.metrics.confusion import Scores, confusion_matrix, scores
from edgeseg.metrics.evaluate import check_labels
from edgeseg.passport import Passport
from edgeseg.profiling.entry import Entry, check_alike, identify, open_entry
from edgeseg.profiling.frames import Frames, Hashes, Item, Sample, frames_of
from edgeseg.profiling.latency import (
    CALLS,
    ROUNDS,
    SECONDS,
    WARMUP,
    Clock,
    Latency,
    measure_latency,
)
from edgeseg.profiling.machine import describe_machine
from edgeseg.quantize.label_change import LabelChange
from edgeseg.reporter import SILENT, Reporter, track
from edgeseg.spec import LabelSpace
from edgeseg.types import Image, Vector
from edgeseg.version import __version__
from edgeseg.video.frames import Source

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
    """

    name: str
    frames: int
    sha256: str
    pixels_sha256: str
    labels: LabelSpace
    labelled: bool

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

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, which ``check_against`` reads.

        A missing score is ``None``.
        """
        return {
            "kind": KIND,
            "format": FORMAT,
            "edgeseg": __version__,
            "reference": self.reference.id,
            "data": self.data.to_dict(),
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
        if mine is None or boundary is None or theirs is None or their_boundary is None:
            return {}

        per_class: dict[str, dict[str, float | None]] = {}
        for i, name in enumerate(self.data.labels.names):
            per_class[name] = {
                "iou": _number(mine.iou[i]),
                "iou_change": _number(mine.iou[i] - theirs.iou[i]),
                "boundary_f": _number(boundary.f_score[i]),
                "boundary_f_change": _number(boundary.f_score[i] - their_boundary.f_score[i]),
            }

        worst = self.worst_class(result)
        return {
            "miou": _number(mine.mean_iou),
            "miou_change": _number(mine.mean_iou - theirs.mean_iou),
            "pixel_accuracy": _number(mine.pixel_accuracy),
            "pixel_accuracy_change": _number(mine.pixel_accuracy - theirs.pixel_accuracy),
            "boundary_f": _number(boundary.mean_f_score),
            "boundary_f_change": _number(boundary.mean_f_score - their_boundary.mean_f_score),
            "worst_class": worst[0] if worst else None,
            "worst_class_iou_change": worst[1] if worst else None,
            "per_class": per_class,
            "confusion_matrix": mine.matrix.tolist(),
        }

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


def compare(
    engines: Sequence[Engine | Entry | str | Path],
    data: Dataset | Source,
    *,
    indices: Sequence[int] | None = None,
    name: str | None = None,
    rounds: int = ROUNDS,
    clock: Clock = time.perf_counter,
    reporter: Reporter = SILENT,
) -> Comparison:
    """Label the same frames with every engine; score, time and hash everything.

    Parameters
    ----------
    engines : ``Engine`` objects, or names and files that ``edgeseg.profiling.entry.open_entry``
        opens and this function closes again. The first is the reference. They may differ in input
        size and target, but not in classes.
    data : labelled data, or a source of frames (``edgeseg.video.open_source``). A source has no
        ground truth: it gives only agreement with the reference, and latency. It is read to its
        end; the caller closes it.
    indices : which frames, in rising order; all by default. A live source needs them.
    name : name of the data, instead of its own.
    rounds : number of turns per engine for the latency.
    clock : clock of ``measure_latency``.
    reporter : receives the progress over the frames, then over the timed turns.

    Raises
    ------
    InputError : no engine, no frame, or engines of different classes.
    DataError : the data has other classes than the engines.
    """
    machine = describe_machine()  # before the work, so that the load is not our own

    # Open engines and frames, and check that they belong together.
    with ExitStack() as opened:
        entries = tuple(_open(given, opened) for given in engines)
        check_alike(entries)
        frames = frames_of(data, indices, name)
        if frames.labels:
            check_labels(entries[0].engine.spec.labels, frames.labels, frames.name)
        return _compare(entries, frames, rounds, clock, reporter, machine)


def _open(given: Engine | Entry | str | Path, opened: ExitStack) -> Entry:
    """Return the entry of an engine; an engine that is opened here is closed with ``opened``."""
    if isinstance(given, Entry):
        return given
    entry = open_entry(given)
    if not isinstance(given, Engine):
        opened.enter_context(entry.engine)
    return entry


def _compare(
    entries: tuple[Entry, ...],
    frames: Frames,
    rounds: int,
    clock: Clock,
    reporter: Reporter,
    machine: dict[str, Any],
) -> Comparison:
    """Compare open engines of one label space, as ``compare`` describes."""
    # Label all frames, then time the engines on a few of them.
    tallies, hashes, sample = _label_all(entries, frames, reporter)
    latencies = measure_latency(
        [entry.engine for entry in entries],
        sample.images,
        rounds=rounds,
        clock=clock,
        reporter=reporter,
    )

    # Collect the results.
    facts = DataFacts(
        name=frames.name,
        frames=hashes.frames,
        sha256=hashes.facts_sha256,
        pixels_sha256=hashes.pixels_sha256,
        labels=frames.labels or entries[0].engine.spec.labels,
        labelled=frames.labels is not None,
    )
    parts = zip(identify(entries), entries, tallies, latencies, strict=True)
    results = tuple(_result(*part, facts) for part in parts)
    return Comparison(facts, results, _protocol(rounds, len(sample.images)), machine)


@dataclass
class _Tally:
    """Hold the counts of one engine: pixels (classes, classes), boundaries (classes, 4)."""

    matrix: npt.NDArray[np.int64]
    boundary: npt.NDArray[np.int64]
    same: int = 0
    pixels: int = 0


def _label_all(
    entries: Sequence[Entry], frames: Frames, reporter: Reporter
) -> tuple[list[_Tally], Hashes, Sample]:
    """Label all frames in one pass; raise ``InputError`` if there is none."""
    classes = len(frames.labels or entries[0].engine.spec.labels)
    tallies: list[_Tally] = []
    for _ in entries:
        tallies.append(
            _Tally(np.zeros((classes, classes), np.int64), np.zeros((classes, 4), np.int64))
        )

    hashes = Hashes()
    sample = Sample(frames.count)
    for item in track(frames.items, "compare", reporter, frames.count):
        hashes.add(item)
        sample.offer(item.image)
        _label(entries, tallies, item, frames.labels)
    if not hashes.frames:
        raise InputError(f"{frames.name}: no frames to compare on")
    return tallies, hashes, sample


def _label(
    entries: Sequence[Entry], tallies: Sequence[_Tally], item: Item, labels: LabelSpace | None
) -> None:
    """Label one frame with every engine, and add to their tallies."""
    reference: Image | None = None  # what the first engine finds
    truth: BoundaryTruth | None = None
    if item.mask is not None and labels is not None:
        truth = BoundaryTruth(item.mask, len(labels), labels.ignore_id)

    for entry, tally in zip(entries, tallies, strict=True):
        found = entry.engine(item.image)
        if reference is None:
            reference = found
            reference_truth = BoundaryTruth(found, len(tally.matrix))

        tally.same += int(np.count_nonzero(found == reference))
        tally.pixels += found.size

        # Without ground truth, compare with the reference's labels.
        if item.mask is None or labels is None:
            count = len(tally.matrix)
            tally.matrix += confusion_matrix(reference, found, count, ignore_id=255)
            tally.boundary += reference_truth.counts(found)
        if truth is not None and item.mask is not None and labels is not None:
            tally.matrix += confusion_matrix(item.mask, found, len(labels), labels.ignore_id)
            tally.boundary += truth.counts(found)


def _result(
    key: str, entry: Entry, tally: _Tally, latency: Latency, data: DataFacts
) -> EngineResult:
    """Return one engine's result from its counts."""
    names = data.labels.names
    change = None
    if not data.labelled:
        change = LabelChange(names, tally.matrix, tally.boundary, data.frames)
    return EngineResult(
        id=key,
        passport=entry.engine.passport,
        size_bytes=entry.size_bytes,
        agreement=tally.same / tally.pixels,
        latency=latency,
        scores=scores(names, tally.matrix) if data.labelled else None,
        boundary=boundary_scores(names, tally.boundary) if data.labelled else None,
        change=change,
    )


def _protocol(rounds: int, timed_frames: int) -> dict[str, Any]:
    """Return how the numbers of a comparison were measured."""
    return {
        "rounds": rounds,
        "calls_per_turn_at_most": CALLS,
        "seconds_per_turn_at_most": SECONDS,
        "warmup_calls_per_turn": WARMUP,
        "frames_timed": timed_frames,
        "timed": "decoded uint8 BGR frame to uint8 label map of its size, one frame at a time",
        "latency_statistic": "percentiles over all calls of all rounds; engines take turns",
        "iou": "one confusion matrix over all frames, void excluded",
        "boundary": "Csurka et al. 2013; boundary pixels counted over all frames, void and its "
        "surroundings excluded",
        "boundary_tolerance_of_diagonal": TOLERANCE,
        "agreement": "share of all pixels labelled as the first engine does",
    }
