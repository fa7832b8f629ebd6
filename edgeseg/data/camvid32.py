"""CamVid and CamSeq01 with all 32 classes: frames at 960x720 beside colour-coded or id-coded label pictures.

Layouts read: CamVid's own (``701_StillsRaw_full/NAME.png``, ``LabeledApproved_full/NAME_L.png``), the one of fastai's
download (``images/NAME.png``, ``labels/NAME_P.png`` with ids in the order of ``codes.txt``), and CamSeq01's
(``NAME.png`` and ``NAME_L.png`` in one folder). Void is ignored. Sources: CamVid and CamSeq01 at
mi.eng.cam.ac.uk/research/projects/VideoRec; Brostow, Fauqueur, Cipolla 2009; Fauqueur, Brostow, Cipolla 2007.

Splits: ``all``, or ``train`` and ``val`` by the lists ``valid.txt`` or ``val.txt`` (and ``train.txt``) beside the
frames; without a list, the last fifth of every drive is ``val``. Never at random: a frame's neighbours look alike.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgeseg.data import Sample, require_folder
from edgeseg.data.pictures import (
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
_VAL_SHARE = 5
_HINT = (
    "Give the folder of images/ and labels/, of 701_StillsRaw_full/ and LabeledApproved_full/, or of CamSeq01's files."
)


def is_layout(path: Path) -> bool:
    """Whether a folder holds such frames and labels."""
    return _folders(path) is not None


class CamVid32:
    """One split. Names sort in video order; the part before ``_`` is the drive."""

    labels: LabelSpace = CAMVID_32
    title = "camvid-32"

    def __init__(self, path: str | Path, split: str = "val") -> None:
        root = require_folder(Path(path), self.title)
        found = _folders(root)
        if found is None:
            raise DataError(
                f"{root}: no frames with label pictures", hint=_HINT,
                got=", ".join(sorted(p.name for p in root.iterdir())[:5]) or "an empty folder",
                expected="NAME.png and NAME_L.png (colours) or NAME_P.png (ids)",
            )  # fmt: skip
        self._frames, self._masks = found
        self._id_of = _ids_by_codes(root, self.labels)
        names, how = _chosen(root, split, list(self._frames))
        self.name = f"{self.title}/{split}{how}"
        self.names: Sequence[str] = tuple(names)
        self._table = ColourTable(self.labels.palette, range(len(self.labels)), self.labels.ignore_id)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        path = self._masks[name]
        image, mask = read_frame(self._frames[name]), read_raw(path)
        if mask.ndim == 3:
            mask = self._table.ids(mask, path)
        else:
            if int(mask.max()) >= len(self.labels):
                raise DataError(f"{path}: not a label map", got=f"id {int(mask.max())}", expected="ids 0..31")
            mask = self._id_of[mask]
        require_same_size(mask, image, path)
        return Sample(name, image, mask)


class CamSeq01(CamVid32):
    """The 101 frames of one drive; by default its last fifth is ``val``."""

    title = "camseq01"


def _folders(root: Path) -> tuple[dict[str, Path], dict[str, Path]] | None:
    """Frames and label pictures by name, of the first layout that fits; a frame without label is left out."""
    for frames_at, labels_at in _PAIRS:
        if not (root / frames_at).is_dir() or not (root / labels_at).is_dir():
            continue
        pictures = frames_in(root / labels_at)
        masks = {n[:-2]: p for suffix in _SUFFIXES for n, p in pictures.items() if n.endswith(suffix)}
        frames = {n: p for n, p in frames_in(root / frames_at).items() if n in masks}
        if frames:
            return frames, masks
    return None


def _ids_by_codes(root: Path, labels: LabelSpace) -> npt.NDArray[np.uint8]:
    """Our id for every id of the label pictures: theirs are in the order of ``codes.txt``, if there is one."""
    table = np.arange(256, dtype=np.uint8)
    codes = root / "codes.txt"
    if codes.is_file():
        names = codes.read_text(encoding="utf-8").split()
        unknown = [n for n in names if n not in labels.names]
        if unknown or len(names) != len(labels):
            got = f"no class {unknown[0]}" if unknown else f"{len(names)} names"
            raise DataError(f"{codes}: not CamVid's classes", got=got, expected=f"{len(labels)} names, such as Animal")
        table[: len(names)] = [labels.names.index(n) for n in names]
    return table


def _chosen(root: Path, split: str, names: list[str]) -> tuple[list[str], str]:
    """The names of a split, and how it was made unless a list or the split itself says it."""
    if split == "all":
        return names, ""
    split = "val" if split == "valid" else split
    if split not in ("train", "val"):
        own = root / f"{split}.txt"
        if not own.is_file():
            raise DataError(f"{root}: no split {split!r}", expected=f"train, val, all, or a list {own.name}")
        return _listed(own, names), ""
    val_list = next((root / n for n in _VAL_LISTS if (root / n).is_file()), None)
    if val_list is not None:
        val, how = set(_listed(val_list, names)), ""
    else:
        val, how = set(_last_of_drives(names)), " (last fifth of each drive)"
    train_list = root / "train.txt"
    if split == "train" and train_list.is_file():
        train = [n for n in _listed(train_list, names) if n not in val]
        return train, ""
    return [n for n in names if (n in val) == (split == "val")], how


def _listed(path: Path, names: list[str]) -> list[str]:
    listed = read_list(path)
    require_unique(listed, path)
    absent = [n for n in listed if n not in set(names)]
    if absent:
        raise DataError(f"{path}: names frames that are not here", got=f"{len(absent)}, such as {absent[0]}")
    return sorted(listed)


def _last_of_drives(names: list[str]) -> list[str]:
    drives: dict[str, list[str]] = {}
    for name in names:
        drives.setdefault(name.split("_")[0], []).append(name)
    return [n for frames in drives.values() for n in frames[len(frames) - len(frames) // _VAL_SHARE :]]
