"""Read the frames that engines are compared on, with ground truth or without, and hash them."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.data import READERS, Dataset, open_dataset
from edgeseg.data.sampling import spread
from edgeseg.errors import InputError, did_you_mean
from edgeseg.spec import LabelSpace
from edgeseg.types import Image
from edgeseg.video.frames import Source
from edgeseg.video.sources import open_source

_TIMED_FRAMES = 8  # kept decoded to measure latency: 22 MB at 1280x720


@dataclass(frozen=True)
class Item:
    """Hold one frame.

    Attributes
    ----------
    name : the frame's name.
    image : (H, W, 3) uint8 BGR.
    mask : ground truth (H, W) uint8; ``None`` if there is none.
    """

    name: str
    image: Image
    mask: Image | None


@dataclass(frozen=True)
class Frames:
    """Hold frames that can be read once.

    Attributes
    ----------
    name : name of the data.
    items : the frames.
    count : number of frames; ``None`` if it is not known in advance.
    labels : label space of the ground truth; ``None`` if there is none.
    """

    name: str
    items: Iterator[Item]
    count: int | None
    labels: LabelSpace | None


def open_frames(address: str, split: str = "val") -> Dataset | Source:
    """Open what engines are compared on.

    That is labelled data if the address names a reader, otherwise a frame source.

    Parameters
    ----------
    address : ``camvid:PATH`` and the like; or a video, a folder of pictures, a camera, a stream.
    split : the split of labelled data.

    Raises
    ------
    InputError : there is no such data.
    """
    scheme, colon, _ = address.partition(":")
    if colon and scheme in READERS:
        return open_dataset(address, split)

    # A misspelt reader looks like the address of a stream.
    suggestion = did_you_mean(scheme, READERS) if colon else ""
    is_address = ":" in address or "!" in address or address.isdigit()
    if (suggestion or not is_address) and not Path(address).expanduser().exists():
        known = ", ".join(f"{name}:PATH" for name in READERS)
        raise InputError(
            "no such data",
            got=repr(address),
            expected=f"{known}, a video or a folder of pictures",
            hint=suggestion,
        )
    return open_source(address, strict=True)


def spread_frames(data: Dataset | Source, frames: int | None) -> list[int] | None:
    """Return the indices of evenly spread frames; ``None``, for all, if ``frames`` is ``None``.

    For a source that does not know its length these are the first ones.

    Parameters
    ----------
    data : labelled data or a source.
    frames : number of frames.
    """
    if frames is None:
        return None
    known = data.info.frames if isinstance(data, Source) else len(data)
    return spread(known or frames, frames)


def frames_of(
    data: Dataset | Source, indices: Sequence[int] | None = None, name: str | None = None
) -> Frames:
    """Return labelled data, or a source of frames, as ``Frames``.

    Parameters
    ----------
    data : labelled data or a source.
    indices : which frames, in rising order; all by default. For a live source only their number
        counts.
    name : name of the data, instead of its own.

    Raises
    ------
    InputError : a live source without ``indices``; it has no end.
    """
    if not isinstance(data, Source):
        chosen = range(len(data)) if indices is None else indices
        samples = (data[index] for index in chosen)
        items = (Item(sample.name, sample.image, sample.mask) for sample in samples)
        return Frames(name or data.name, items, len(chosen), data.labels)

    if data.info.live and indices is None:
        raise InputError(
            "a live source has no end", expected="a number of frames", hint="Give `frames=N`."
        )
    count = data.info.frames if indices is None else len(indices)
    return Frames(name or str(data.path or "frames"), _of_source(data, indices), count, None)


def _of_source(source: Source, indices: Sequence[int] | None) -> Iterator[Item]:
    """Yield the frames of a source that ``indices`` chooses; all of them for ``None``."""
    if indices is not None and not indices:
        return

    # A camera skips numbers while the engines work, so any frame is taken.
    if source.info.live and indices is not None:
        for frame in itertools.islice(source, len(indices)):
            yield Item(frame.name, frame.image, None)
        return

    chosen = None if indices is None else set(indices)
    for frame in source:
        if chosen is None or frame.index in chosen:
            yield Item(frame.name, frame.image, None)
        if chosen is not None and frame.index >= max(chosen):
            return


@dataclass
class Hashes:
    """Compute two SHA-256 hashes of frames: of the facts that scores depend on, and of the pixels.

    The first hash covers names, sizes and masks; without a mask names, sizes and pixels. There are
    two hashes because masks are the same on every machine, while a JPEG or a video may decode
    slightly differently.

    Attributes
    ----------
    frames : number of frames added.

    Examples
    --------
    >>> hashes = Hashes()
    >>> hashes.add(Item("a", np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8)))
    >>> hashes.frames, hashes.facts_sha256 == hashes.pixels_sha256
    (1, False)
    """

    frames: int = 0
    _facts: Any = field(default_factory=hashlib.sha256)
    _pixels: Any = field(default_factory=hashlib.sha256)

    def add(self, item: Item) -> None:
        """Add one frame to both hashes.

        Parameters
        ----------
        item : the frame, and its labels if there are any.
        """
        self.frames += 1
        pixels = np.ascontiguousarray(item.image).data
        self._pixels.update(pixels)

        self._facts.update(repr((item.name, item.image.shape)).encode())
        if item.mask is None:
            self._facts.update(pixels)
        else:
            self._facts.update(np.ascontiguousarray(item.mask).data)

    @property
    def facts_sha256(self) -> str:
        """Return the hash of names, sizes and masks, in hexadecimal."""
        return str(self._facts.hexdigest())

    @property
    def pixels_sha256(self) -> str:
        """Return the hash of the pixels, in hexadecimal."""
        return str(self._pixels.hexdigest())


class Sample:
    """Keep eight of many frames, evenly spread.

    Parameters
    ----------
    count : number of frames in all; ``None`` if unknown: then the first ones are kept.

    Attributes
    ----------
    images : the kept frames, (H, W, 3) uint8 BGR.

    Examples
    --------
    >>> sample = Sample(16)
    >>> for value in range(16):
    ...     sample.offer(np.full((1, 1, 3), value, np.uint8))
    >>> [int(image.max()) for image in sample.images]
    [0, 2, 4, 6, 8, 10, 12, 14]
    """

    def __init__(self, count: int | None) -> None:
        if count is None:
            self._wanted = set(range(_TIMED_FRAMES))
        else:
            self._wanted = {part * count // _TIMED_FRAMES for part in range(_TIMED_FRAMES)}
        self._seen = 0
        self.images: list[Image] = []

    def offer(self, image: Image) -> None:
        """Keep the image if it is one of the chosen ones; call it for every frame in order.

        Parameters
        ----------
        image : (H, W, 3) uint8 BGR.
        """
        if self._seen in self._wanted:
            self.images.append(image)
        self._seen += 1
