"""Labelled data: every reader yields the same ``Sample``; ``open_dataset("camvid:PATH", split)`` finds the reader."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgeseg.errors import InputError
from edgeseg.spec import LabelSpace


@dataclass(frozen=True)
class Sample:
    """One labelled frame: ``image`` (H, W, 3) uint8 BGR, ``mask`` (H, W) uint8 label ids of the data set's space."""

    name: str
    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]


class Dataset(Protocol):
    """A finite, ordered set of labelled frames."""

    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> LabelSpace: ...
    @property
    def names(self) -> Sequence[str]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


# scheme -> (module, name); a class or function, called with (path, split).
READERS: dict[str, tuple[str, str]] = {
    "camvid": ("edgeseg.data.camvid", "open_camvid"),
    "camseq01": ("edgeseg.data.camvid32", "CamSeq01"),
    "cityscapes": ("edgeseg.data.cityscapes", "Cityscapes"),
    "voc": ("edgeseg.data.voc", "VOC"),
    "synthetic": ("edgeseg.data.synthetic", "SyntheticDataset"),
}


def open_dataset(address: str, split: str = "val") -> Dataset:
    """Open labelled data by address, such as ``camvid:/data/CamVid``. Raises ``InputError`` or ``DataError``."""
    scheme, colon, path = address.partition(":")
    if not colon or scheme not in READERS:
        known = ", ".join(f"{name}:PATH" for name in READERS)
        raise InputError("labelled data is given as READER:PATH", got=repr(address), expected=f"one of {known}")
    module, name = READERS[scheme]
    reader: Callable[[str, str], Dataset] = getattr(import_module(module), name)
    return reader(path, split)


def iterate(data: Dataset) -> Iterator[Sample]:
    """All samples in order."""
    for index in range(len(data)):
        yield data[index]


def require_folder(path: Path, what: str) -> Path:
    """``path`` if it is a folder; otherwise an ``InputError`` that says what was meant to be there."""
    if not path.is_dir():
        raise InputError(f"{what}: no such folder", got=repr(str(path)))
    return path
