"""Watch the frames of a comparison: boundaries by distance, maps of disagreement, worst frames."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from edgeseg.metrics.boundary import BoundaryTruth, boundary_scores
from edgeseg.metrics.confusion import Scores, confusion_matrix
from edgeseg.profiling.frames import Item
from edgeseg.profiling.report.pictures import (
    Share,
    difference,
    fitted,
    heat,
    labels_picture,
    photo,
)
from edgeseg.spec import LabelSpace
from edgeseg.types import Image

DISTANCES = (1, 2, 3, 5, 9)  # pixels of the frame
WORST = 20


@dataclass(frozen=True, order=True)
class _Candidate:
    """Hold a frame that may be one of the worst; the larger ``badness``, the worse."""

    badness: int
    order: int
    engine: int
    item: Item
    labels: tuple[Image, ...]


class Watcher:
    """Collect from every frame what a report shows beside the scores.

    Parameters
    ----------
    labels : the classes.
    worst : number of frames to keep: those in which an engine makes most errors that the first
        engine does not make.

    Attributes
    ----------
    pictures : the pictures of the worst frames and the maps, by name; after ``facts``.
    """

    def __init__(self, labels: LabelSpace, worst: int = WORST) -> None:
        self._labels = labels
        self._worst = worst
        self._kept: list[_Candidate] = []
        self._frames = 0
        self._boundary: list[Any] = []
        self._differ: list[Share] = []
        self.pictures: dict[str, str] = {}

    def __call__(self, item: Item, found: Sequence[Image]) -> None:
        """Take one frame.

        Parameters
        ----------
        item : the frame.
        found : its labels by every engine.
        """
        if not self._boundary:
            shape = (len(DISTANCES), len(self._labels), 4)
            self._boundary = [np.zeros(shape, np.int64) for _ in found]
            size = fitted(*found[0].shape)
            self._differ = [np.zeros(size, np.float32) for _ in found]
        self._add_boundaries(item, found)
        self._add_differences(found)
        self._offer(item, found)
        self._frames += 1

    def facts(self, ids: Sequence[str]) -> dict[str, Any]:
        """Return what was found, as plain values for JSON, and make the pictures.

        Parameters
        ----------
        ids : the engines.
        """
        boundary: dict[str, list[float | None]] = {}
        for key, counts in zip(ids, self._boundary, strict=True):
            scores = [boundary_scores(self._labels.names, one).mean_f_score for one in counts]
            boundary[key] = [None if math.isnan(score) else score for score in scores]

        maps: dict[str, dict[str, float]] = {}
        for key, differ in zip(ids[1:], self._differ[1:], strict=True):
            share = (differ / self._frames).astype(np.float32)
            self.pictures[f"map {key}"], most = heat(share)
            maps[key] = {"mean_share": float(share.mean()), "opaque_share": most}

        # The worst frame comes first.
        worst: list[dict[str, Any]] = []
        for candidate in sorted(self._kept, reverse=True):
            worst.append(self._worst_frame(candidate, ids))
        return {
            "boundary_by_distance": {"pixels": list(DISTANCES), "engines": boundary},
            "disagreement": maps,
            "worst_frames": worst,
        }

    def _add_boundaries(self, item: Item, found: Sequence[Image]) -> None:
        """Count the boundaries of every engine at every distance."""
        truth = found[0] if item.mask is None else item.mask
        diagonal = math.hypot(*truth.shape)
        for row, distance in enumerate(DISTANCES):
            edges = BoundaryTruth(
                truth, len(self._labels), self._labels.ignore_id, distance / diagonal
            )
            for counts, labels in zip(self._boundary, found, strict=True):
                counts[row] += edges.counts(labels)

    def _add_differences(self, found: Sequence[Image]) -> None:
        """Add where each engine's labels are not the first engine's."""
        for total, labels in zip(self._differ, found, strict=True):
            differ = (labels != found[0]).astype(np.float32)
            height, width = total.shape
            total += cv2.resize(differ, (width, height), interpolation=cv2.INTER_AREA)

    def _offer(self, item: Item, found: Sequence[Image]) -> None:
        """Keep the frame if it is one of the worst so far."""
        engine, badness = 0, -1
        for index in range(min(1, len(found) - 1), len(found)):
            errors = self._errors(item, found[index], found[0], index)
            if errors > badness:
                engine, badness = index, errors
        candidate = _Candidate(badness, -self._frames, engine, item, tuple(found))
        if len(self._kept) < self._worst:
            heapq.heappush(self._kept, candidate)
        else:
            heapq.heappushpop(self._kept, candidate)

    def _errors(self, item: Item, labels: Image, first: Image, index: int) -> int:
        """Return how many pixels an engine labels wrongly that the first labels rightly.

        Without ground truth: how many it labels differently. For a first engine alone: its errors.
        """
        if item.mask is None:
            return int(np.count_nonzero(labels != first))
        known = (item.mask < len(self._labels)) & (item.mask != self._labels.ignore_id)
        wrong = known & (labels != item.mask)
        if index == 0:
            return int(np.count_nonzero(wrong))
        return int(np.count_nonzero(wrong & (first == item.mask)))

    def _worst_frame(self, candidate: _Candidate, ids: Sequence[str]) -> dict[str, Any]:
        """Return the facts of a frame, and make its pictures."""
        item = candidate.item
        first, other = candidate.labels[0], candidate.labels[candidate.engine]
        name = item.name
        self.pictures[f"frame {name}"] = photo(item.image)
        self.pictures[f"first {name}"] = labels_picture(first, self._labels)
        self.pictures[f"other {name}"] = labels_picture(other, self._labels)
        facts: dict[str, Any] = {
            "name": name,
            "engine": ids[candidate.engine],
            "pixels": candidate.badness,
            "changed_share": float((first != other).mean()),
            "miou_first": None,
            "miou": None,
        }
        if item.mask is not None:
            self.pictures[f"truth {name}"] = labels_picture(item.mask, self._labels)
            facts["miou_first"] = self._miou(item.mask, first)
            facts["miou"] = self._miou(item.mask, other)
        against = first if candidate.engine or item.mask is None else item.mask
        self.pictures[f"difference {name}"] = difference(
            item.image, against, other, item.mask, self._labels
        )
        return facts

    def _miou(self, truth: Image, found: Image) -> float | None:
        """Return the mIoU of one frame; ``None`` if the truth is void."""
        matrix = confusion_matrix(truth, found, len(self._labels), self._labels.ignore_id)
        miou = Scores(self._labels.names, matrix).mean_iou
        return None if math.isnan(miou) else miou
