"""Read frames by index from labelled data, folders of pictures and videos, one at a time.

Calibration sets are chosen from these sources.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgeseg.data import READERS, Dataset, open_dataset
from edgeseg.errors import InputError, did_you_mean
from edgeseg.spec import LabelSpace
from edgeseg.video.sources import PICTURE_SUFFIXES, open_source

# Not the split that is scored afterwards: calibrating on it would give too high a score.
_DEFAULT_SPLIT = "train"


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """Hold one frame of a source.

    Attributes
    ----------
    name : the frame's name in its source.
    image : (H, W, 3) uint8 BGR.
    mask : (H, W) uint8 label ids; ``None`` if the source has no labels.

    Examples
    --------
    >>> SourceFrame("1.png", np.zeros((2, 3, 3), np.uint8)).mask is None
    True
    """

    name: str
    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8] | None = None


class FrameSource(Protocol):
    """Read frames of a source by index."""

    @property
    def split(self) -> str | None:
        """Return the split of a data set; ``None`` for other sources."""

    @property
    def labels(self) -> LabelSpace | None:
        """Return the label space of the masks; ``None`` if there are no masks."""

    def count(self) -> int:
        """Return the number of frames."""

    def read(self, indices: Sequence[int]) -> Iterator[SourceFrame]:
        """Yield some frames, one at a time.

        Only a video that ends early yields fewer frames than there are indices.

        Parameters
        ----------
        indices : the frames' indices, in rising order.
        """


class DatasetFrames:
    """Read the frames of a data set; the methods are those of ``FrameSource``.

    Parameters
    ----------
    dataset : the data set.
    split : name of its split.
    """

    def __init__(self, dataset: Dataset, split: str) -> None:
        self._dataset = dataset
        self.split: str | None = split
        self.labels: LabelSpace | None = dataset.labels

    def count(self) -> int:
        """Return the number of frames."""
        return len(self._dataset)

    def read(self, indices: Sequence[int]) -> Iterator[SourceFrame]:
        """Yield the frames at rising indices, with their masks."""
        for index in indices:
            sample = self._dataset[index]
            yield SourceFrame(sample.name, sample.image, sample.mask)


class ImageFiles:
    """Read picture files in natural order (2 before 10); the methods are those of ``FrameSource``.

    Parameters
    ----------
    paths : the picture files, in any order.
    """

    split: str | None = None
    labels: LabelSpace | None = None

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = sorted(paths, key=_natural)

    def count(self) -> int:
        """Return the number of pictures."""
        return len(self._paths)

    def read(self, indices: Sequence[int]) -> Iterator[SourceFrame]:
        """Yield the pictures at rising indices."""
        for index in indices:
            path = self._paths[index]
            with open_source(str(path)) as source:
                yield SourceFrame(path.name, next(source).image)


class VideoFrames:
    """Read the frames of a video file; the methods are those of ``FrameSource``.

    The video is read from its start, since seeking to a frame's number is not exact in every
    container.

    Parameters
    ----------
    path : the video file.
    """

    split: str | None = None
    labels: LabelSpace | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        with open_source(str(path)) as source:
            self._count = source.info.frames

    def count(self) -> int:
        """Return the number of frames.

        It is the container's number until reading has reached the end of the video.
        """
        if self._count is None:
            with open_source(str(self._path)) as source:
                self._count = sum(1 for _ in source)
        return self._count

    def read(self, indices: Sequence[int]) -> Iterator[SourceFrame]:
        """Yield the frames at rising indices; fewer if the video ends before the last one."""
        wanted = set(indices)
        end = max(indices, default=-1)
        seen = 0
        with open_source(str(self._path)) as source:
            for frame in source:
                seen += 1
                if frame.index in wanted:
                    yield SourceFrame(frame.name, frame.image)
                if frame.index >= end:
                    return
        self._count = seen


def open_frame_source(source: str, split: str | None) -> FrameSource:
    """Open a source of frames.

    Parameters
    ----------
    source : a data set's address (``camvid:PATH``), a folder of pictures, a picture, or a video.
    split : split of a data set; ``None``: ``train``.

    Raises
    ------
    InputError : there is no such source, it is a camera or a stream, a folder has no pictures, or
        ``split`` is given for a source without splits.
    DataError : the data set cannot be opened.

    Examples
    --------
    >>> source = open_frame_source("synthetic://?length=8&size=48x32&seed=3", None)
    >>> source.split, source.count()
    ('train', 8)
    """
    # A data set.
    if source.partition(":")[0] in READERS:
        split = split or _DEFAULT_SPLIT
        return DatasetFrames(open_dataset(source, split), split)

    # Cameras, streams, and paths that do not exist.
    path = Path(source).expanduser()
    if not path.exists() and ("://" in source or source.isdigit() or " ! " in source):
        raise InputError(
            "a calibration set must give the same frames every time",
            got=repr(source),
            hint="Record a video first: `segment(ENGINE, SOURCE, out=VIDEO)`, or save pictures.",
        )
    if split is not None:
        raise InputError(
            f"{source}: only a data set has splits",
            got=f"split {split!r}",
            hint="Leave `split` out.",
        )

    # Pictures and videos.
    if path.is_dir():
        return ImageFiles(_pictures(path))
    if not path.is_file():
        raise InputError(
            "no such calibration set",
            got=repr(source),
            expected=", ".join(_kinds()),
            hint=did_you_mean(source.partition(":")[0], READERS),
        )
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return ImageFiles([path])
    return VideoFrames(path)


def _kinds() -> list[str]:
    """Return the kinds of sources in words, for errors."""
    datasets = [f"{name}:PATH" for name in READERS]
    return [*datasets, "a folder of pictures", "a video", "a recipe (.toml)"]


def _pictures(folder: Path) -> list[Path]:
    """Return the picture files of a folder."""
    files = [path for path in folder.iterdir() if path.is_file()]
    paths = [path for path in files if path.suffix.lower() in PICTURE_SUFFIXES]
    if not paths:
        raise InputError(
            f"{folder}: no pictures in this folder",
            expected=f"files that end in {', '.join(sorted(PICTURE_SUFFIXES))}",
            hint="Sub-folders are not searched: give one of them.",
        )
    return paths


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return a sort key that puts 2 before 10."""
    key = []
    for part in re.split(r"(\d+)", path.name):
        key.append((int(part), "") if part.isdigit() else (-1, part))
    return key
