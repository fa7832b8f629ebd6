"""Check that a calibration set fits its network.

The check counts the classes that the set shows, the frames that repeat others, and those that the
scored data has, too. It also tests whether more frames would change the ranges.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.data import Dataset, iterate
from edgeseg.errors import GraphError
from edgeseg.graph.network import Network
from edgeseg.quantize.calibration_check.report import (
    ClassCoverage,
    Pair,
    SetReport,
    Settling,
    half_way,
    judge_coverage,
    judge_frames,
    judge_overlap,
    judge_repeats,
    judge_scores,
    judge_settling,
    many_repeats,
)
from edgeseg.quantize.calibration_set import CalibrationSet, frame_digest, spread_ranks
from edgeseg.quantize.histograms import Statistics, collect_parts, tensors_to_watch
from edgeseg.quantize.ptq import network_input
from edgeseg.quantize.ranges import ranges
from edgeseg.reporter import SILENT, Reporter
from edgeseg.types import Float, Image, Vector

SETTLING_METHODS = ("minmax", "percentile", "mse")
_THUMBNAIL = (32, 24)  # width, height
# Largest mean difference of the thumbnails of two frames that look alike, in grey levels.
# Neighbours at 15 frames per second differ by 2 to 5 in CamSeq01 and on a motorway; frames one
# second apart differ by 20 in CamVid, unless the car stands.
_ALIKE = 6.0
# A frame shows a class if it has at least this many pixels of it.
_SEEN_PIXELS = 50
_LISTED_PAIRS = 200  # longest list of pairs in a report


@dataclass(frozen=True, eq=False)
class _Survey:
    """Hold what one pass over the frames finds.

    Attributes
    ----------
    thumbnails : (frames, pixels) float32 grey levels.
    classes : (frames, classes) int64 pixels of each class; ``None`` if there are no labels.
    class_names : names of the classes.
    source : where the labels are from: ``labels``, ``predictions``, or empty if there are none.
    """

    thumbnails: Float
    classes: npt.NDArray[np.int64] | None
    class_names: tuple[str, ...]
    source: str


def check_set(
    network: Network,
    calibration_set: CalibrationSet,
    *,
    tensors: tuple[str, ...] | None = None,
    validation: Dataset | None = None,
    engine_labels: Callable[[Image], Image] | None = None,
    score: Callable[[int, Statistics], float] | None = None,
    stages: dict[int, Statistics] | None = None,
    reporter: Reporter = SILENT,
) -> SetReport:
    """Check a calibration set for a network.

    Parameters
    ----------
    network : the float network.
    calibration_set : the set to check.
    tensors : the tensors whose ranges are compared; by default those of ``tensors_to_watch``.
    validation : data that the INT8 network will be scored on. None of its frames should be in the
        set.
    engine_labels : the float engine, (H, W, 3) uint8 BGR -> (H, W) uint8. It is used if the set has
        no labels.
    score : returns the mIoU or the label agreement (0..1) of the network quantized with the ranges
        of ``calibration_set.subset(n)``; its arguments are n and the statistics of that subset.
    stages : what ``settle`` returned, if it was called before.
    reporter : receives the progress over the frames.

    Raises
    ------
    GraphError : every activation is zero on every frame, or ``collect`` cannot run the graph.
    """
    survey = _survey(network, calibration_set, engine_labels)
    names = [frame.name for frame in calibration_set.frames]
    coverage = _coverage(survey)
    repeated, repeats = _repeats(names, survey.thumbnails)
    identical, alike = _overlap(calibration_set, survey.thumbnails, validation)
    tensors = tensors or tensors_to_watch(network.model)
    stages = stages or settle(network, calibration_set, tensors, reporter=reporter)
    settling = _settling(stages, score)

    stretched = calibration_set.aspect_warnings(network.spec.input_size)
    verdicts = [
        judge_frames(len(calibration_set), stretched),
        judge_coverage(coverage, survey.source),
        judge_repeats(repeated, len(names)),
        judge_overlap(identical, alike, validation),
        judge_settling(settling, many_repeats(repeated, len(names))),
    ]
    if settling.scores:
        verdicts.append(judge_scores(settling))
    return SetReport(
        network=network.name,
        set_description=calibration_set.describe(),
        set_digest=calibration_set.digest,
        frames=len(names),
        coverage=coverage,
        coverage_from=survey.source if coverage else "",
        repeated=repeated,
        repeats=repeats,
        identical=identical,
        alike=alike,
        settling=settling,
        verdicts=tuple(verdicts),
    )


def settle(
    network: Network,
    calibration_set: CalibrationSet,
    tensors: tuple[str, ...],
    *,
    reporter: Reporter = SILENT,
) -> dict[int, Statistics]:
    """Return the statistics of growing subsets of a calibration set, from one pass over it.

    Parameters
    ----------
    network : the float network.
    calibration_set : the set.
    tensors : names of float activations.
    reporter : receives the progress over the frames.

    Returns
    -------
    The statistics of ``calibration_set.subset(n)`` by n: for n = 1, 2, 4, ..., and for the whole
    set.

    Raises
    ------
    GraphError : the graph has no such activation, or one is not finite.
    """
    # Every frame belongs to the part that it adds to the subset before.
    total = len(calibration_set)
    counts = [1 << k for k in range((total - 1).bit_length())] + [total]
    ranks = spread_ranks(total)

    def part_of(index: int) -> int:
        return bisect_right(counts, ranks[index])

    inputs = (network_input(network, image) for image in calibration_set.images())
    parts = collect_parts(network.model, tensors, inputs, part_of, total=total, reporter=reporter)

    # Add up the parts.
    stages = {counts[0]: parts[0]}
    for count, before, part in zip(counts[1:], counts, parts[1:], strict=False):
        stages[count] = stages[before].merged(part)
    return stages


def _survey(
    network: Network,
    calibration_set: CalibrationSet,
    engine_labels: Callable[[Image], Image] | None,
) -> _Survey:
    """Read the set once: make the thumbnails and count the classes."""
    labels = calibration_set.labels or network.spec.labels
    source = ""
    if calibration_set.labels:
        source = "labels"
    elif engine_labels:
        source = "predictions"

    thumbnails = []
    rows = []
    for picture in calibration_set.pictures():
        thumbnails.append(_thumbnail(picture.image))
        mask = picture.mask
        if mask is None and engine_labels:
            mask = engine_labels(picture.image)
        if mask is not None:
            rows.append(np.bincount(mask.ravel(), minlength=256)[: len(labels)])

    classes = np.stack(rows).astype(np.int64) if rows else None
    return _Survey(np.stack(thumbnails), classes, labels.names, source)


def _thumbnail(image: Image) -> Float:
    """Return a small grey copy of a frame, (pixels,) float32."""
    small = cv2.resize(image, _THUMBNAIL, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    return grey.astype(np.float32).ravel()


def _coverage(survey: _Survey) -> tuple[ClassCoverage, ...]:
    """Return how much the set shows of each class; empty without labels."""
    if survey.classes is None:
        return ()

    pixels = survey.classes.sum(axis=0)
    frames = (survey.classes >= _SEEN_PIXELS).sum(axis=0)
    total = max(int(pixels.sum()), 1)
    covered = []
    for i, name in enumerate(survey.class_names):
        share = float(pixels[i] / total)
        covered.append(ClassCoverage(name, int(pixels[i]), share, int(frames[i])))
    return tuple(covered)


def _alike_to(thumbnail: Float, others: Float) -> Iterator[tuple[int, float]]:
    """Yield the indices of the thumbnails that look like one, with their differences.

    ``thumbnail`` is (pixels,), ``others`` are (N, pixels).
    """
    if len(others):
        difference = np.abs(others - thumbnail).mean(axis=1)
        for place in np.flatnonzero(difference <= _ALIKE).tolist():
            yield place, round(float(difference[place]), 2)


def _repeats(names: list[str], thumbnails: Float) -> tuple[int, tuple[Pair, ...]]:
    """Return the number of repeated frames, and all pairs that look alike.

    A frame is repeated if it looks like an earlier one that is not itself repeated.
    """
    new: list[bool] = []  # False for a repeated frame
    pairs = []
    for place, thumbnail in enumerate(thumbnails):
        near = list(_alike_to(thumbnail, thumbnails[:place]))
        new.append(not any(new[other] for other, _ in near))
        pairs += [Pair(names[other], names[place], difference) for other, difference in near]

    pairs.sort(key=lambda pair: pair.difference)
    return new.count(False), tuple(pairs[:_LISTED_PAIRS])


def _overlap(
    calibration_set: CalibrationSet, thumbnails: Float, validation: Dataset | None
) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Return the pairs of a frame of the set and one of the validation data.

    The first pairs are identical, the second ones only look alike.
    """
    identical = []
    alike = []
    by_hash = {frame.sha256: frame.name for frame in calibration_set.frames}
    for sample in iterate(validation) if validation is not None else ():
        same = by_hash.get(frame_digest(sample.image))
        if same is not None:
            identical.append(Pair(same, sample.name, 0.0))
        for place, difference in _alike_to(_thumbnail(sample.image), thumbnails):
            name = calibration_set.frames[place].name
            if name != same:
                alike.append(Pair(name, sample.name, difference))

    alike.sort(key=lambda pair: pair.difference)
    return tuple(identical[:_LISTED_PAIRS]), tuple(alike[:_LISTED_PAIRS])


def _settling(
    stages: dict[int, Statistics], score: Callable[[int, Statistics], float] | None
) -> Settling:
    """Return how the ranges and the score change with the number of frames."""
    counts = tuple(stages)
    final = stages[counts[-1]]
    live = [final.tensors[row] for row in np.flatnonzero(final.largest > 0)]
    if not live:
        raise GraphError(
            "every activation is zero on every calibration frame",
            hint="Check the network's weights.",
        )

    # Change of the ranges.
    median: dict[str, tuple[float, ...]] = {}
    worst: dict[str, tuple[float, ...]] = {}
    worst_tensor = ""
    for method in SETTLING_METHODS:
        change = _change(stages, method, live)
        median[method] = tuple(float(value) for value in np.median(change, axis=1))
        worst[method] = tuple(float(value) for value in change.max(axis=1))
        if method == "percentile":
            worst_tensor = live[int(change[half_way(counts)].argmax())]

    scores: list[float] = []
    if score:
        scores = [score(count, statistics) for count, statistics in stages.items()]
    return Settling(counts, median, worst, worst_tensor, tuple(scores))


def _change(stages: dict[int, Statistics], method: str, tensors: list[str]) -> Vector:
    """Return how far ranges are from their final values, as a share of those: (stages, tensors)."""
    rows = []
    for statistics in stages.values():
        amax = ranges(statistics, method).amax
        rows.append([amax[name] for name in tensors])

    values = np.array(rows, np.float64)
    end = values[-1]
    return np.asarray(np.abs(values - end) / end, np.float64)
