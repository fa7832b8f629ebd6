"""CamVid and CamSeq01 with all 32 classes: frames at 960x720 and label pictures in colours or ids.

Layouts that are read:

- CamVid's own: ``701_StillsRaw_full/NAME.png`` and ``LabeledApproved_full/NAME_L.png``
- fastai's download: ``images/NAME.png`` and ``labels/NAME_P.png``, with ids in the order of
  ``codes.txt``
- CamSeq01's: ``NAME.png`` and ``NAME_L.png`` in one folder

Void is ignored. Sources: CamVid and CamSeq01 at mi.eng.cam.ac.uk/research/projects/VideoRec;
Brostow, Fauqueur, Cipolla 2009; Fauqueur, Brostow, Cipolla 2007.

Splits: ``all``, or ``train`` and ``val`` by the lists ``valid.txt`` or ``val.txt`` (and
``train.txt``) beside the frames. Without a list, the last fifth of every drive is ``val``. Splits
are never made at random: neighbouring frames look alike.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeseg.data.base import Sample, SplitError, require_folder
from edgeseg.data.folder import (
    ColourTable,
    frames_in,
    read_frame,
    read_list,
    read_raw,
    require_same_size,
    require_unique,
)
from edgeseg.errors import DataError
from edgeseg.spec import CAMVID_32, LabelSpace

_PAIRS = (("701_StillsRaw_full", "LabeledApproved_full"), ("images", "labels"), (".", "."))
_SUFFIXES = ("_L", "_P")  # colours, ids
_VAL_LISTS = ("valid.txt", "val.txt")
_VAL_SHARE = 5  # one frame in five
_HINT = (
    "Give the folder of images/ and labels/, of 701_StillsRaw_full/ and LabeledApproved_full/, "
    "or of CamSeq01's files."
)


def is_layout(path: Path) -> bool:
    """Return True if a folder holds frames and label pictures in one of the layouts.

    Parameters
    ----------
    path : the folder.
    """
    return _folders(path) is not None


class CamVid32:
    """Read one split of CamVid with 32 classes.

    Names sort in video order. The part before ``_`` is the drive that the frame comes from.

    Parameters
    ----------
    path : the folder with the frames and the label pictures.
    split : ``train``, ``val``, ``all``, or the name of a list beside the frames, without ``.txt``.

    Raises
    ------
    InputError : no such folder.
    DataError : the folder has none of the layouts, or no such split.
    """

    labels: LabelSpace = CAMVID_32
    title = "camvid-32"

    def __init__(self, path: str | Path, split: str = "val") -> None:
        root = require_folder(Path(path), self.title)
        found = _folders(root)
        if found is None:
            inside = sorted(path.name for path in root.iterdir())
            raise DataError(
                f"{root}: no frames with label pictures",
                got=", ".join(inside[:5]) or "an empty folder",
                expected="NAME.png and NAME_L.png (colours) or NAME_P.png (ids)",
                hint=_HINT,
            )

        self._frames, self._masks = found
        self._id_of = _ids_by_codes(root, self.labels)
        names, how = _chosen(root, split, list(self._frames))
        self.name = f"{self.title}/{split}{how}"
        self.names: Sequence[str] = tuple(names)
        ids = range(len(self.labels))
        self._table = ColourTable(self.labels.palette, ids, self.labels.ignore_id)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        path = self._masks[name]
        image = read_frame(self._frames[name])
        mask = read_raw(path)
        if mask.ndim == 3:
            mask = self._table.ids(mask, path)
        else:
            highest = int(mask.max())
            if highest >= len(self.labels):
                got = f"id {highest}"
                raise DataError(f"{path}: not a label map", got=got, expected="ids 0..31")
            mask = self._id_of[mask]
        require_same_size(mask, image, path)
        return Sample(name, image, mask)


class CamSeq01(CamVid32):
    """Read CamSeq01, the 101 frames of one drive.

    By default its last fifth is ``val``. The parameters are those of ``CamVid32``.
    """

    title = "camseq01"


def _folders(root: Path) -> tuple[dict[str, Path], dict[str, Path]] | None:
    """Return frames and label pictures by name, of the first layout that fits.

    Frames without a label picture are left out. Return ``None`` if no layout fits.
    """
    for frames_at, labels_at in _PAIRS:
        if not (root / frames_at).is_dir() or not (root / labels_at).is_dir():
            continue

        pictures = frames_in(root / labels_at)
        masks: dict[str, Path] = {}
        for suffix in _SUFFIXES:
            for name, path in pictures.items():
                if name.endswith(suffix):
                    masks[name.removesuffix(suffix)] = path

        found = frames_in(root / frames_at)
        frames = {name: path for name, path in found.items() if name in masks}
        if frames:
            return frames, masks
    return None


def _ids_by_codes(root: Path, labels: LabelSpace) -> npt.NDArray[np.uint8]:
    """Return a table from the label pictures' ids to those of ``labels``.

    The pictures' ids are in the order of ``codes.txt``; without that file, both are the same.
    Raise ``DataError`` if the file cannot be read, or names other classes.
    """
    table = np.arange(256, dtype=np.uint8)
    codes = root / "codes.txt"
    if not codes.is_file():
        return table

    try:
        names = codes.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{codes}: not readable as UTF-8 text",
            got=type(error).__name__,
            expected=f"{len(labels)} class names, one per line",
            hint="Save it as UTF-8, or copy it again from the data set.",
        ) from error

    unknown = [name for name in names if name not in labels.names]
    if unknown or len(names) != len(labels):
        raise DataError(
            f"{codes}: not CamVid's classes",
            got=f"no class {unknown[0]}" if unknown else f"{len(names)} names",
            expected=f"{len(labels)} names, such as Animal",
        )
    table[: len(names)] = [labels.names.index(name) for name in names]
    return table


def _chosen(root: Path, split: str, names: list[str]) -> tuple[list[str], str]:
    """Return the names of a split, and a note if the split was made by a rule instead of a list."""
    if split == "all":
        return names, ""

    # Any other split needs a list of its name.
    split = "val" if split == "valid" else split
    if split not in ("train", "val"):
        own = root / f"{split}.txt"
        if not own.is_file():
            raise SplitError(
                f"{root}: no split {split!r}", expected=f"train, val, all, or a list {own.name}"
            )
        return _listed(own, names), ""

    # The frames of val: by a list, or the last fifth of every drive.
    val_lists = [root / name for name in _VAL_LISTS if (root / name).is_file()]
    if val_lists:
        val = set(_listed(val_lists[0], names))
        how = ""
    else:
        val = set(_last_of_drives(names))
        how = " (last fifth of each drive)"
    if split == "val":
        return [name for name in names if name in val], how

    # The frames of train: by a list, or all others; never one of val.
    train_list = root / "train.txt"
    if train_list.is_file():
        listed = _listed(train_list, names)
        return [name for name in listed if name not in val], ""
    return [name for name in names if name not in val], how


def _listed(path: Path, names: list[str]) -> list[str]:
    """Return the names of a list, sorted. Raise ``DataError`` if a frame is missing."""
    listed = read_list(path)
    require_unique(listed, path)
    known = set(names)
    absent = [name for name in listed if name not in known]
    if absent:
        raise DataError(
            f"{path}: names frames that are not here", got=f"{len(absent)}, such as {absent[0]}"
        )
    return sorted(listed)


def _last_of_drives(names: list[str]) -> list[str]:
    """Return the last fifth of every drive."""
    drives: dict[str, list[str]] = {}
    for name in names:
        drives.setdefault(name.split("_")[0], []).append(name)

    last: list[str] = []
    for frames in drives.values():
        first = len(frames) - len(frames) // _VAL_SHARE
        last += frames[first:]
    return last
