"""Compare engines on the same frames: accuracy, latency and size. The first is the reference.

One pass labels every frame with every engine and keeps only counts: a few hundred bytes per frame,
from which the confidence intervals come. Then latency is measured in turns on a few of the same
frames (``edgeseg.profiling.latency``).
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.backends.engine import Engine
from edgeseg.data import Dataset
from edgeseg.errors import InputError
from edgeseg.metrics.bootstrap import CONFIDENCE, DRAWS, FrameCounts
from edgeseg.metrics.boundary import TOLERANCE, BoundaryTruth, boundary_scores
from edgeseg.metrics.confusion import confusion_matrix, scores
from edgeseg.metrics.evaluate import check_labels
from edgeseg.metrics.flicker import ClipFlicker
from edgeseg.profiling.comparison import Comparison, DataFacts, EngineResult
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
from edgeseg.types import Image
from edgeseg.video.frames import Source

Observer = Callable[[Item, Sequence[Image]], None]
Counts = npt.NDArray[np.int64]


def compare(
    engines: Sequence[Engine | Entry | str | Path],
    data: Dataset | Source,
    *,
    indices: Sequence[int] | None = None,
    name: str | None = None,
    rounds: int = ROUNDS,
    clock: Clock = time.perf_counter,
    observer: Observer | None = None,
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
    observer : receives each frame, and its labels by every engine.
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
        labelled = _label_all(entries, frames, observer, reporter)

        # Time the engines on a few of the frames.
        latencies = measure_latency(
            [entry.engine for entry in entries],
            labelled.sample.images,
            rounds=rounds,
            clock=clock,
            reporter=reporter,
        )
        return _collect(entries, frames, labelled, latencies, _Run(rounds, machine))


def _open(given: Engine | Entry | str | Path, opened: ExitStack) -> Entry:
    """Return the entry of an engine; an engine that is opened here is closed with ``opened``."""
    if isinstance(given, Entry):
        return given
    entry = open_entry(given)
    if not isinstance(given, Engine):
        opened.enter_context(entry.engine)
    return entry


@dataclass(frozen=True)
class _Run:
    """Hold how and where a comparison ran."""

    rounds: int
    machine: dict[str, Any]


def _collect(
    entries: tuple[Entry, ...],
    frames: Frames,
    labelled: "_Labelled",
    latencies: Sequence[Latency],
    run: _Run,
) -> Comparison:
    """Return the comparison from counts and latencies."""
    hashes = labelled.hashes
    facts = DataFacts(
        name=frames.name,
        frames=hashes.frames,
        sha256=hashes.facts_sha256,
        pixels_sha256=hashes.pixels_sha256,
        labels=frames.labels or entries[0].engine.spec.labels,
        labelled=frames.labels is not None,
        flicker=labelled.truth.result,
        flicker_unmeasured=labelled.tallies[0].flicker.reason,
    )
    parts = zip(identify(entries), entries, labelled.tallies, latencies, strict=True)
    results = tuple(_result(*part, facts) for part in parts)
    return Comparison(
        facts, results, _protocol(run.rounds, len(labelled.sample.images)), run.machine
    )


@dataclass
class _Tally:
    """Hold the counts of one engine: pixels (classes, classes), boundaries (classes, 4)."""

    matrix: Counts
    boundary: Counts
    flicker: ClipFlicker
    same: int = 0
    pixels: int = 0
    frames: list[Counts] = field(default_factory=list)  # (3, classes) per labelled frame

    def add(self, matrix: Counts, boundary: Counts) -> None:
        """Add the counts of one frame."""
        self.matrix += matrix
        self.boundary += boundary
        self.frames.append(np.stack([matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)]))

    def frame_counts(self) -> FrameCounts:
        """Return the counts of all frames."""
        true_positive, truth, predicted = np.stack(self.frames, axis=1)
        return FrameCounts(true_positive, truth, predicted)


@dataclass(frozen=True)
class _Labelled:
    """Hold what labelling all frames gives; ``truth`` is the flicker of the ground truth."""

    tallies: list[_Tally]
    truth: ClipFlicker
    hashes: Hashes
    sample: Sample


def _label_all(
    entries: Sequence[Entry], frames: Frames, observer: Observer | None, reporter: Reporter
) -> _Labelled:
    """Label all frames in one pass; raise ``InputError`` if there is none."""
    labels = frames.labels or entries[0].engine.spec.labels
    classes = len(labels)
    truth = ClipFlicker(labels)
    tallies: list[_Tally] = []
    for _ in entries:
        matrix = np.zeros((classes, classes), np.int64)
        tallies.append(_Tally(matrix, np.zeros((classes, 4), np.int64), ClipFlicker(labels)))

    hashes = Hashes()
    sample = Sample(frames.count)
    for item in track(frames.items, "compare", reporter, frames.count):
        hashes.add(item)
        sample.offer(item.image)
        found = _label(entries, tallies, item, frames.labels)
        if observer is not None:
            observer(item, found)
        if item.mask is not None:
            truth.add(item.name, item.image, item.mask)
    if not hashes.frames:
        raise InputError(f"{frames.name}: no frames to compare on")
    return _Labelled(tallies, truth, hashes, sample)


def _label(
    entries: Sequence[Entry], tallies: Sequence[_Tally], item: Item, labels: LabelSpace | None
) -> list[Image]:
    """Label one frame with every engine, add to their tallies, and return the labels."""
    every: list[Image] = []
    reference: Image | None = None  # what the first engine finds
    truth: BoundaryTruth | None = None
    if item.mask is not None and labels is not None:
        truth = BoundaryTruth(item.mask, len(labels), labels.ignore_id)

    for entry, tally in zip(entries, tallies, strict=True):
        found = entry.engine(item.image)
        every.append(found)
        if reference is None:
            reference = found
            reference_truth = BoundaryTruth(found, len(tally.matrix))

        tally.same += int(np.count_nonzero(found == reference))
        tally.pixels += found.size
        tally.flicker.add(item.name, item.image, found)

        # Without ground truth, compare with the reference's labels.
        if item.mask is None or labels is None:
            count = len(tally.matrix)
            matrix = confusion_matrix(reference, found, count, ignore_id=255)
            tally.add(matrix, reference_truth.counts(found))
        if truth is not None and item.mask is not None and labels is not None:
            matrix = confusion_matrix(item.mask, found, len(labels), labels.ignore_id)
            tally.add(matrix, truth.counts(found))
    return every


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
        flicker=tally.flicker.result,
        per_frame=tally.frame_counts() if data.labelled else None,
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
        "intervals": f"{CONFIDENCE:.0%} percentile bootstrap, {DRAWS} draws of frames; "
        "changes on the same draws (paired)",
        "boundary": "Csurka et al. 2013; boundary pixels counted over all frames, void and its "
        "surroundings excluded",
        "boundary_tolerance_of_diagonal": TOLERANCE,
        "agreement": "share of all pixels labelled as the first engine does",
        "flicker": "share of the still pixels (edgeseg.imaging.stillness) whose label changes from "
        "one frame to the next",
    }
