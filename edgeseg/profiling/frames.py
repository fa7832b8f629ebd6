"""What engines are compared on: frames with truth or without, hashed as they go by."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.data import Dataset
from edgeseg.errors import InputError
from edgeseg.spec import LabelSpace
from edgeseg.video.frames import Source

Image = npt.NDArray[np.uint8]

_TIMED_FRAMES = 8  # kept decoded for the latency: 22 MB at 1280x720


@dataclass(frozen=True)
class Item:
    """A frame (H, W, 3) uint8 BGR and, where there is one, its truth (H, W) uint8."""

    name: str
    image: Image
    mask: Image | None


@dataclass(frozen=True)
class Frames:
    """Frames to go through once. ``count`` is ``None`` where it is not known before; ``labels`` where unlabelled."""

    name: str
    items: Iterator[Item]
    count: int | None
    labels: LabelSpace | None


def frames_of(data: Dataset | Source, indices: Sequence[int] | None = None, name: str | None = None) -> Frames:
    """Labelled data or a source as ``Frames``; ``indices`` (rising) chooses, of a live source how many.

    Raises ``InputError`` for a live source without ``indices``: it has no end.
    """
    if not isinstance(data, Source):
        chosen = range(len(data)) if indices is None else indices
        samples = (data[index] for index in chosen)
        return Frames(name or data.name, (Item(s.name, s.image, s.mask) for s in samples), len(chosen), data.labels)
    if data.info.live and indices is None:
        raise InputError("a live source has no end", expected="a number of frames", hint="Give --frames N.")
    count = data.info.frames if indices is None else len(indices)
    return Frames(name or str(data.path or "frames"), _of_source(data, indices), count, None)


def _of_source(source: Source, indices: Sequence[int] | None) -> Iterator[Item]:
    if indices is not None and not indices:
        return
    if source.info.live and indices is not None:
        # While the engines are at work a camera skips numbers: whatever comes is taken.
        yield from (Item(frame.name, frame.image, None) for frame in itertools.islice(source, len(indices)))
        return
    chosen = None if indices is None else set(indices)
    for frame in source:
        if chosen is None or frame.index in chosen:
            yield Item(frame.name, frame.image, None)
        if chosen is not None and frame.index >= max(chosen):
            return


def spread(total: int, wanted: int) -> list[int]:
    """``wanted`` of the numbers 0..total-1 (all, where there are fewer), evenly spread: the middles of equal parts."""
    return list(range(total)) if wanted >= total else [(2 * k + 1) * total // (2 * wanted) for k in range(wanted)]


@dataclass
class Hashes:
    """SHA-256 of items as they go by: what scores depend on, and the pixels alone.

    The first is of names, sizes and masks; of names, sizes and pixels where there is no mask. There are two, because
    masks are the same everywhere, while a JPEG or a video may decode a little differently elsewhere.
    """

    frames: int = 0
    _facts: Any = field(default_factory=hashlib.sha256)
    _pixels: Any = field(default_factory=hashlib.sha256)

    def add(self, item: Item) -> None:
        """Take an item in."""
        self.frames += 1
        pixels = np.ascontiguousarray(item.image).data
        self._pixels.update(pixels)
        self._facts.update(repr((item.name, item.image.shape)).encode())
        self._facts.update(pixels if item.mask is None else np.ascontiguousarray(item.mask).data)

    @property
    def facts_sha256(self) -> str:
        return str(self._facts.hexdigest())

    @property
    def pixels_sha256(self) -> str:
        return str(self._pixels.hexdigest())


class Sample:
    """A few of the frames that go by, evenly spread over ``count`` (the first ones where that is unknown)."""

    def __init__(self, count: int | None) -> None:
        parts = range(_TIMED_FRAMES)
        self._wanted = set(parts if count is None else (k * count // _TIMED_FRAMES for k in parts))
        self._seen = 0
        self.images: list[Image] = []

    def offer(self, image: Image) -> None:
        """Keep the image if it is one of the few."""
        if self._seen in self._wanted:
            self.images.append(image)
        self._seen += 1
