"""Is a calibration set fit for its net: what it lacks, repeats, shares with scored data; have its ranges settled?"""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.data import Dataset, iterate
from edgeseg.errors import GraphError
from edgeseg.graph.network import Network
from edgeseg.imaging.preprocess import to_input
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
from edgeseg.quantize.ranges import ranges
from edgeseg.types import Float, Image

SETTLING_METHODS = ("minmax", "percentile", "mse")
_THUMBNAIL = (32, 24)  # width, height
# Mean difference of two thumbnails in grey levels. Neighbours at 15 frames a second differ by 2 to 5 in CamSeq01 and on
# a motorway; frames one second apart in CamVid by 20, unless the car stands.
_ALIKE = 6.0
_SEEN_PIXELS = 50  # of a class: fewer do not show it
_LISTED_PAIRS = 200


@dataclass(frozen=True, eq=False)
class _Survey:
    """One pass over the frames: thumbnails (N, pixels) float32; pixels of every class a frame (N, classes) int64."""

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
    on_frame: Callable[[int], None] | None = None,
) -> SetReport:
    """Check a set against the net it is to calibrate.

    Parameters
    ----------
    tensors : whose ranges are watched; those of ``tensors_to_watch`` unless given.
    validation : what the INT8 net will be scored on; no frame of it should be in the set.
    engine_labels : the float engine, (H, W, 3) uint8 BGR -> (H, W) uint8; used where the set has no labels.
    score : mIoU or label agreement (0..1) of the net quantized with the ranges of n frames: those of
        ``calibration_set.subset(n)``, whose statistics it is given, too.
    stages : what ``settle`` gave, where it has been called already.
    on_frame : called with the number of frames run through the net.
    """
    survey = _survey(network, calibration_set, engine_labels)
    names = [frame.name for frame in calibration_set.frames]
    coverage = _coverage(survey)
    repeated, repeats = _repeats(names, survey.thumbnails)
    identical, alike = _overlap(calibration_set, survey.thumbnails, validation)
    tensors = tensors or tensors_to_watch(network.model)
    stages = stages or settle(network, calibration_set, tensors, on_frame=on_frame)
    settling = _settling(stages, score)
    verdicts = (
        judge_frames(len(calibration_set), calibration_set.aspect_warnings(network.spec.input_size)),
        judge_coverage(coverage, survey.source),
        judge_repeats(repeated, len(names)),
        judge_overlap(identical, alike, validation),
        judge_settling(settling, many_repeats(repeated, len(names))),
        *([judge_scores(settling)] if settling.scores else []),
    )
    return SetReport(
        network.name,
        calibration_set.describe(),
        calibration_set.digest,
        len(names),
        coverage,
        survey.source if coverage else "",
        repeated,
        repeats,
        identical,
        alike,
        settling,
        verdicts,
    )


def settle(
    network: Network,
    calibration_set: CalibrationSet,
    tensors: tuple[str, ...],
    *,
    on_frame: Callable[[int], None] | None = None,
) -> dict[int, Statistics]:
    """The statistics of ``calibration_set.subset(n)`` for n = 1, 2, 4, ... and all of it, from one pass over it."""
    total = len(calibration_set)
    counts = [1 << k for k in range((total - 1).bit_length())] + [total]
    ranks = spread_ranks(total)
    inputs = (network_input(network, image) for image in calibration_set.images())
    parts = collect_parts(network.model, tensors, inputs, lambda i: bisect_right(counts, ranks[i]), on_frame=on_frame)
    stages = {counts[0]: parts[0]}
    for count, before, part in zip(counts[1:], counts, parts[1:], strict=False):
        stages[count] = stages[before].merged(part)
    return stages


def network_input(network: Network, image: Image) -> Float:
    """A frame as the net's input: (1, 3, H, W) float32, or (1, H, W, 3) where it is channels-last."""
    tensor = to_input(image, network.spec)
    return np.ascontiguousarray(tensor.transpose(0, 2, 3, 1)) if network.channels_last else tensor


def _survey(
    network: Network, calibration_set: CalibrationSet, engine_labels: Callable[[Image], Image] | None
) -> _Survey:
    labels = calibration_set.labels or network.spec.labels
    source = "labels" if calibration_set.labels else "predictions" if engine_labels else ""
    thumbnails, rows = [], []
    for picture in calibration_set.pictures():
        thumbnails.append(_thumbnail(picture.image))
        mask = picture.mask if picture.mask is not None else engine_labels(picture.image) if engine_labels else None
        if mask is not None:
            rows.append(np.bincount(mask.ravel(), minlength=256)[: len(labels)])
    classes = np.stack(rows).astype(np.int64) if rows else None
    return _Survey(np.stack(thumbnails), classes, labels.names, source)


def _thumbnail(image: Image) -> Float:
    grey = cv2.cvtColor(cv2.resize(image, _THUMBNAIL, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    return grey.astype(np.float32).ravel()


def _coverage(survey: _Survey) -> tuple[ClassCoverage, ...]:
    if survey.classes is None:
        return ()
    pixels, frames = survey.classes.sum(axis=0), (survey.classes >= _SEEN_PIXELS).sum(axis=0)
    total = max(int(pixels.sum()), 1)
    return tuple(
        ClassCoverage(name, int(pixels[i]), float(pixels[i] / total), int(frames[i]))
        for i, name in enumerate(survey.class_names)
    )


def _alike_to(thumbnail: Float, others: Float) -> Iterator[tuple[int, float]]:
    """Indices of ``others`` (N, pixels) that look like a thumbnail (pixels,), with their differences."""
    if len(others):
        difference = np.abs(others - thumbnail).mean(axis=1)
        for place in np.flatnonzero(difference <= _ALIKE).tolist():
            yield place, round(float(difference[place]), 2)


def _repeats(names: list[str], thumbnails: Float) -> tuple[int, tuple[Pair, ...]]:
    """How many frames look like an earlier frame that is no repeat itself, and all pairs that look alike."""
    first: list[bool] = []  # whether a frame looks like none of those before it that are new themselves
    pairs = []
    for place, thumbnail in enumerate(thumbnails):
        near = list(_alike_to(thumbnail, thumbnails[:place]))
        first.append(not any(first[other] for other, _ in near))
        pairs += [Pair(names[other], names[place], difference) for other, difference in near]
    pairs.sort(key=lambda pair: pair.difference)
    return first.count(False), tuple(pairs[:_LISTED_PAIRS])


def _overlap(
    calibration_set: CalibrationSet, thumbnails: Float, validation: Dataset | None
) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """Pairs of a frame of the set and one of the validation data that are the same, and that look alike."""
    identical, alike = [], []
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


def _settling(stages: dict[int, Statistics], score: Callable[[int, Statistics], float] | None) -> Settling:
    counts = tuple(stages)
    final = stages[counts[-1]]
    live = [name for name, largest in zip(final.tensors, final.largest, strict=True) if largest > 0]
    if not live:
        raise GraphError("every activation is zero on every calibration frame", hint="Check the net's weights.")
    median: dict[str, tuple[float, ...]] = {}
    worst: dict[str, tuple[float, ...]] = {}
    worst_tensor = ""
    for method in SETTLING_METHODS:
        amax = {count: ranges(statistics, method).amax for count, statistics in stages.items()}
        end = np.array([amax[counts[-1]][name] for name in live])
        change = np.array([np.abs([amax[count][name] for name in live] - end) / end for count in counts])
        median[method] = tuple(float(value) for value in np.median(change, axis=1))
        worst[method] = tuple(float(value) for value in change.max(axis=1))
        if method == "percentile":
            worst_tensor = live[int(change[half_way(counts)].argmax())]
    scores = tuple(score(count, stages[count]) for count in counts) if score else ()
    return Settling(counts, median, worst, worst_tensor, scores)
