"""Measure flicker: labels that change although the picture does not. No ground truth is needed.

Over all pairs of consecutive frames, with still pixels as ``edgeseg.imaging.stillness`` finds them:

    flicker = still pixels whose label differs from the frame before / still pixels

The flicker of a class counts the pixels that had its label in the frame before. Annotated frames
flicker too, because annotators draw each frame anew: 0.4 % on CamSeq01. An engine below that is not
better than the truth; it only repeats itself more exactly (docs/flicker.md).
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.errors import DataError
from edgeseg.imaging.stillness import Stillness
from edgeseg.metrics.common import LabelMap, json_number, known_pixels, ratio
from edgeseg.reporter import SILENT, Reporter, track
from edgeseg.spec import LabelSpace
from edgeseg.types import Image, Vector

Counts = npt.NDArray[np.int64]

# Greatest step between the numbers of frames that count as consecutive: a tenth of a second at 30
# frames per second. CamVid's annotated frames are 30 apart, those of CamSeq01 2.
_GREATEST_STEP = 3


@dataclass(frozen=True)
class Flicker:
    """Compute shares in 0..1 from counts of pixels; NaN if there is nothing to measure.

    Attributes
    ----------
    names : class names.
    changed : (classes,) int64, still pixels whose label changed, by their label before.
    still : (classes,) int64, all still pixels, by their label before.
    pixels : all pixels of the pairs, moving ones too.
    pairs : number of pairs of frames.

    Examples
    --------
    >>> found = Flicker(("road", "car"), np.array([1, 1]), np.array([100, 10]), pixels=220, pairs=1)
    >>> round(found.overall, 4), found.by_class.tolist(), found.still_share
    (0.0182, [0.01, 0.1], 0.5)
    """

    names: tuple[str, ...]
    changed: Counts
    still: Counts
    pixels: int
    pairs: int

    @property
    def overall(self) -> float:
        """Return the share of the still pixels whose label changed."""
        return float(ratio(self.changed.sum(keepdims=True), self.still.sum(keepdims=True))[0])

    @property
    def by_class(self) -> Vector:
        """Return the share per class, (classes,) float64; NaN for a class without still pixel."""
        return ratio(self.changed, self.still)

    @property
    def still_share(self) -> float:
        """Return the share of all pixels that were still, and so were measured."""
        return int(self.still.sum()) / self.pixels if self.pixels else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; a share that does not exist is ``None``."""
        by_class = self.by_class
        return {
            "flicker": json_number(self.overall),
            "still_share": json_number(self.still_share),
            "pairs": self.pairs,
            "per_class": {
                name: json_number(by_class[index]) for index, name in enumerate(self.names)
            },
        }


class FlickerMeter:
    """Measure flicker frame by frame.

    The labels are compared at full size. Only the search for still pixels works at a reduced size.
    The meter holds the state of one source: make one for each.

    Parameters
    ----------
    labels : the label space. Pixels of an id outside it, such as void ones, are left out.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> meter = FlickerMeter(CAMVID_11)
    >>> frame, labels = np.zeros((10, 10, 3), np.uint8), np.zeros((10, 10), np.uint8)
    >>> meter.add(frame, labels) is None
    True
    >>> labels = labels.copy()
    >>> labels[0, :3] = 8
    >>> meter.add(frame, labels)
    0.03
    """

    def __init__(self, labels: LabelSpace) -> None:
        self._labels = labels
        self._stillness = Stillness()
        self._previous: LabelMap | None = None
        self._changed = np.zeros(len(labels), np.int64)
        self._still = np.zeros(len(labels), np.int64)
        self._pixels = 0
        self._pairs = 0

    def restart(self) -> None:
        """Forget the last frame, but not the counts: the next frame does not follow it."""
        self._stillness.restart()

    def add(self, frame: Image, label_map: LabelMap) -> float | None:
        """Compare a frame and its labels with those before.

        Parameters
        ----------
        frame : (H, W, 3) uint8 BGR.
        label_map : (H, W) uint8 label ids.

        Returns
        -------
        The flicker of this pair of frames, 0 to 1. ``None`` for the first frame, after a change of
        size or a scene cut, and if no pixel is still.

        Raises
        ------
        DataError : frame and labels differ in size.
        """
        if frame.shape[:2] != label_map.shape:
            raise DataError(
                "frame and labels differ in size",
                got=f"labels {label_map.shape}",
                expected=f"{frame.shape[:2]}",
            )

        still = self._stillness.add(frame)
        previous = self._previous
        self._previous = label_map.copy()
        if still is None or previous is None:
            return None

        # Leave out pixels that are void in one of the frames.
        classes = len(self._labels)
        ignore_id = self._labels.ignore_id
        for ids in (previous, label_map):
            if ids.max(initial=0) >= classes or ignore_id < classes:
                still &= known_pixels(ids, classes, ignore_id)

        # Count by the label before. The bytes of ``left_out`` are 0 if still, else 255: no class.
        left_out = still.view(np.uint8) - np.uint8(1)
        total = _histogram(previous | left_out, classes)
        changed = _histogram(previous[(label_map != previous) & still], classes)
        self._changed += changed
        self._still += total
        self._pixels += label_map.size
        self._pairs += 1

        pixels = int(total.sum())
        return int(changed.sum()) / pixels if pixels else None

    @property
    def flicker(self) -> Flicker:
        """Return the flicker of all frames so far."""
        return Flicker(
            self._labels.names,
            self._changed.copy(),
            self._still.copy(),
            pixels=self._pixels,
            pairs=self._pairs,
        )

    @property
    def overall(self) -> float | None:
        """Return the flicker of all frames so far, 0 to 1; ``None`` if no pixel was still."""
        return json_number(self.flicker.overall)

    @property
    def by_class(self) -> dict[str, float | None]:
        """Return the flicker per class, 0 to 1; ``None`` for a class without still pixel."""
        shares: dict[str, float | None] = self.flicker.to_dict()["per_class"]
        return shares


def _histogram(labels: LabelMap, classes: int) -> Counts:
    """Count the pixels of each class, (classes,) int64; other ids are left out."""
    # OpenCV is twice as fast as numpy.bincount. It counts in float32, which is exact up to 16
    # million pixels of one class.
    if not labels.size:
        return np.zeros(classes, np.int64)
    counts = cv2.calcHist([labels], [0], None, [256], [0, 256])
    return counts.ravel()[:classes].astype(np.int64)


class ClipFlicker:
    """Measure the flicker of named frames, pair by pair where they follow each other in a video.

    Parameters
    ----------
    labels : the label space.

    Attributes
    ----------
    frames : number of frames so far.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> clip = ClipFlicker(CAMVID_11)
    >>> frame, labels = np.zeros((10, 10, 3), np.uint8), np.zeros((10, 10), np.uint8)
    >>> for name in ("drive_0001", "drive_0031", "drive_0061"):
    ...     clip.add(name, frame, labels)
    >>> clip.result is None, clip.reason
    (True, 'the frames are not consecutive: drive_0031 follows drive_0001')
    """

    def __init__(self, labels: LabelSpace) -> None:
        self._meter = FlickerMeter(labels)
        self._last: str | None = None
        self._followed = 0
        self._gaps = 0
        self._first_gap = ""
        self.frames = 0

    def add(self, name: str, frame: Image, label_map: LabelMap) -> None:
        """Compare a frame and its labels with those before, if it follows them.

        Parameters
        ----------
        name : name of the frame.
        frame : (H, W, 3) uint8 BGR.
        label_map : (H, W) uint8 label ids.
        """
        if self._last is not None:
            follows = is_next(self._last, name)
            self._followed += follows
            self._gaps += not follows
            if not follows:
                self._meter.restart()
                self._first_gap = self._first_gap or f"{name} follows {self._last}"

        self.frames += 1
        self._last = name
        self._meter.add(frame, label_map)

    @property
    def result(self) -> Flicker | None:
        """Return the flicker; ``None`` if it is not measured, see ``reason``."""
        return None if self.reason else self._meter.flicker

    @property
    def reason(self) -> str:
        """Return why there is no result; empty if there is one."""
        if not self._followed and not self._gaps:
            return "there is only one frame"
        if self._gaps >= self._followed:
            return f"the frames are not consecutive: {self._first_gap}"
        if not self._meter.flicker.still.sum():
            return "no pixel keeps its colour from one frame to the next"
        return ""


def is_next(before: str, name: str) -> bool:
    """Return whether a frame follows another in a video, at most a tenth of a second later.

    Parameters
    ----------
    before : name of the first frame.
    name : name of the second one. Both end in the number of the frame.

    Examples
    --------
    >>> is_next("0016E5_07959", "0016E5_07961"), is_next("0001TP_006690", "0001TP_006720")
    (True, False)
    """
    first = re.fullmatch(r"(.*?)(\d+)\D*", before)
    second = re.fullmatch(r"(.*?)(\d+)\D*", name)
    if first is None or second is None or first[1] != second[1]:
        return False
    return 0 < int(second[2]) - int(first[2]) <= _GREATEST_STEP


def measure_flicker(
    engine: Callable[[Image], Image],
    frames: Iterable[tuple[str, Image]],
    labels: LabelSpace,
    *,
    count: int | None = None,
    reporter: Reporter = SILENT,
) -> ClipFlicker:
    """Label a clip without ground truth and measure its flicker.

    Parameters
    ----------
    engine : maps a frame (H, W, 3) uint8 BGR to its label map (H, W) uint8.
    frames : name and image of each frame, in order.
    labels : the engine's label space.
    count : number of frames; ``None`` if it is not known in advance.
    reporter : receives the progress over the frames.

    Returns
    -------
    The finished measurement, with ``result`` and ``reason``.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> frames = [(str(index), np.zeros((4, 4, 3), np.uint8)) for index in range(3)]
    >>> clip = measure_flicker(lambda image: image[:, :, 0], frames, CAMVID_11)
    >>> clip.result.overall, clip.result.pairs
    (0.0, 2)
    """
    clip = ClipFlicker(labels)
    for name, image in track(frames, "flicker", reporter, count):
        clip.add(name, image, engine(image))
    return clip
