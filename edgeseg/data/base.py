"""The contract of labelled data, and ``open_dataset``, which finds the reader of an address."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgeseg.errors import DataError, InputError, did_you_mean
from edgeseg.spec import LabelSpace


class SplitError(DataError):
    """Report that a data set has no split of a name."""


@dataclass(frozen=True)
class Sample:
    """Hold one labelled frame.

    Attributes
    ----------
    name : the frame's name in its data set.
    image : (H, W, 3) uint8 BGR.
    mask : (H, W) uint8 label ids of the data set's label space.

    Examples
    --------
    >>> Sample("a", np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.uint8)).mask.shape
    (4, 6)
    """

    name: str
    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]


class Dataset(Protocol):
    """Define what every reader offers: a finite, ordered set of labelled frames."""

    @property
    def name(self) -> str:
        """Return the data set's name and split, such as ``camvid/val``."""
        ...

    @property
    def labels(self) -> LabelSpace:
        """Return the label space of the masks."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Return the names of the frames, in order."""
        ...

    def __len__(self) -> int:
        """Return the number of frames."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """Read the frame at ``index`` and its label map."""
        ...


# Readers that find all of a data set at once: scheme -> (module, function of the path), which
# returns a ``Collection``.
COLLECTORS: dict[str, tuple[str, str]] = {
    "folder": ("edgeseg.data.folder_data", "collect_folder"),
    "coco": ("edgeseg.data.coco", "collect_coco"),
    "labelme": ("edgeseg.data.labelme", "collect_labelme"),
    "cvat": ("edgeseg.data.layouts", "collect_cvat"),
    "supervisely": ("edgeseg.data.supervisely", "collect_supervisely"),
    "bdd100k": ("edgeseg.data.layouts", "collect_bdd100k"),
    "mapillary": ("edgeseg.data.layouts", "collect_mapillary"),
    "kitti": ("edgeseg.data.layouts", "collect_kitti"),
    "ade20k": ("edgeseg.data.layouts", "collect_ade20k"),
}

# All readers. The first five are called with (path, split).
READERS: dict[str, tuple[str, str]] = {
    "camvid": ("edgeseg.data.camvid", "open_camvid"),
    "camseq01": ("edgeseg.data.camvid32", "CamSeq01"),
    "cityscapes": ("edgeseg.data.cityscapes", "Cityscapes"),
    "voc": ("edgeseg.data.voc", "VOC"),
    "synthetic": ("edgeseg.data.synthetic", "SyntheticDataset"),
    **COLLECTORS,
}


def open_dataset(address: str, split: str = "val") -> Dataset:
    """Open labelled data by its address.

    Parameters
    ----------
    address : READER:PATH, such as ``camvid:/data/CamVid``; ``READERS`` has the readers' names.
    split : name of the split, such as ``train`` or ``val``.

    Raises
    ------
    InputError : unknown reader, or no such folder.
    DataError : the folder does not have the layout that the reader expects, or no such split.

    Examples
    --------
    >>> data = open_dataset("synthetic://?length=3&size=64x48", "val")
    >>> len(data), data.labels.name
    (3, 'camvid-11')
    """
    scheme, colon, path = address.partition(":")
    if not colon or scheme not in READERS:
        known = ", ".join(f"{name}:PATH" for name in READERS)
        hint = did_you_mean(scheme, READERS)
        if Path(address).expanduser().is_dir():
            hint = f"For frames and masks of your own: folder:{address}"
        raise InputError(
            "labelled data is given as READER:PATH",
            got=repr(address),
            expected=f"one of {known}",
            hint=hint,
        )

    module, name = READERS[scheme]
    reader: Callable[..., Any] = getattr(import_module(module), name)
    data: Dataset = reader(path).dataset(split) if scheme in COLLECTORS else reader(path, split)
    return data


def iterate(data: Dataset) -> Iterator[Sample]:
    """Yield all samples in order.

    Parameters
    ----------
    data : the data set; each frame is read when it is needed.
    """
    for index in range(len(data)):
        yield data[index]


def require_folder(path: Path, what: str) -> Path:
    """Return ``path`` if it is a folder.

    Parameters
    ----------
    path : the path to check.
    what : what the folder should hold, such as ``CamVid``; for the error.

    Raises
    ------
    InputError : ``path`` is no folder.

    Examples
    --------
    >>> require_folder(Path("/"), "CamVid").is_dir()
    True
    """
    if not path.is_dir():
        raise InputError(f"{what}: no such folder", got=repr(str(path)))
    return path
