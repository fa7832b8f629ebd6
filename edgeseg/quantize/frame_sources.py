"""What calibration frames are chosen from: labelled data, folders of pictures, videos; read by index, one at a time."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgeseg.data import READERS, Dataset, open_dataset
from edgeseg.errors import InputError
from edgeseg.spec import LabelSpace
from edgeseg.video.sources import PICTURE_SUFFIXES, open_source

_DEFAULT_SPLIT = "train"  # calibrating on what is scored afterwards would flatter the score


@dataclass(frozen=True, eq=False)
class SourceFrame:
    """A frame: ``image`` (H, W, 3) uint8 BGR; ``mask`` (H, W) uint8 label ids where the source has them."""

    name: str
    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8] | None = None


class FrameSource(Protocol):
    """Frames to choose from. ``read`` yields those at ``indices`` (rising), fewer only where a video ends early."""

    @property
    def split(self) -> str | None: ...
    @property
    def labels(self) -> LabelSpace | None: ...
    def count(self) -> int: ...
    def read(self, indices: Sequence[int]) -> Iterator[SourceFrame]: ...


class DatasetFrames:
    """The frames of a data set's split."""

    def __init__(self, dataset: Dataset, split: str) -> None:
        self._dataset = dataset
        self.split: str | None = split
        self.labels: LabelSpace | None = dataset.labels

    def count(self) -> int:
        return len(self._dataset)

    def read(self, indices: Sequence[int]) -> Iterator[SourceFrame]:
        for index in indices:
            sample = self._dataset[index]
            yield SourceFrame(sample.name, sample.image, sample.mask)


class ImageFiles:
    """SourceFrame files, in natural order (2 before 10)."""

    split: str | None = None
    labels: LabelSpace | None = None

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = sorted(paths, key=_natural)

    def count(self) -> int:
        return len(self._paths)

    def read(self, indices: Sequence[int]) -> Iterator[SourceFrame]:
        for index in indices:
            path = self._paths[index]
            with open_source(str(path)) as source:
                yield SourceFrame(path.name, next(source).image)


class VideoFrames:
    """The frames of a video file, read in sequence: seeking to a frame's number is not exact in every container."""

    split: str | None = None
    labels: LabelSpace | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        with open_source(str(path)) as source:
            self._count = source.info.frames

    def count(self) -> int:
        """What the container says, until reading has found where the video ends."""
        if self._count is None:
            with open_source(str(self._path)) as source:
                self._count = sum(1 for _ in source)
        return self._count

    def read(self, indices: Sequence[int]) -> Iterator[SourceFrame]:
        wanted, end, seen = set(indices), max(indices, default=-1), 0
        with open_source(str(self._path)) as source:
            for frame in source:
                seen += 1
                if frame.index in wanted:
                    yield SourceFrame(frame.name, frame.image)
                if frame.index >= end:
                    return
        self._count = seen


def open_frame_source(source: str, split: str | None) -> FrameSource:
    """Open what frames are chosen from. Raises ``InputError`` or ``DataError`` where there is no such thing."""
    if source.partition(":")[0] in READERS:
        split = split or _DEFAULT_SPLIT
        return DatasetFrames(open_dataset(source, split), split)
    path = Path(source).expanduser()
    if not path.exists() and ("://" in source or source.isdigit() or " ! " in source):
        raise InputError(
            "a calibration set must give the same frames every time",
            got=repr(source),
            hint="Record a video first: `segment(ENGINE, SOURCE, out=VIDEO)`, or save pictures.",
        )
    if split is not None:
        raise InputError(f"{source}: only a data set has splits", got=f"split {split!r}", hint="Leave `split` out.")
    if path.is_dir():
        return ImageFiles(_pictures(path))
    if not path.is_file():
        raise InputError("no such calibration set", got=repr(source), expected=f"{', '.join(_kinds())}")
    return ImageFiles([path]) if path.suffix.lower() in PICTURE_SUFFIXES else VideoFrames(path)


def _kinds() -> list[str]:
    return [f"{name}:PATH" for name in READERS] + ["a folder of pictures", "a video", "a recipe (.toml)"]


def _pictures(folder: Path) -> list[Path]:
    paths = [p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file()]
    if not paths:
        raise InputError(
            f"{folder}: no pictures in this folder",
            expected=f"files that end in {', '.join(sorted(PICTURE_SUFFIXES))}",
            hint="Sub-folders are not searched: give one of them.",
        )
    return paths


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts 2 before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]
