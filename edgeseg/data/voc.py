"""PASCAL VOC 2012 segmentation.

Frames are in ``JPEGImages``, masks in ``SegmentationClass``, lists in ``ImageSets/Segmentation``.
Masks are palette pictures with ids 0..20; 255 (borders, difficult) is ignored. Splits: ``train``
(1464 frames), ``val`` (1449), ``trainval``. ``trainaug`` (10582) needs the extension of Hariharan
et al. 2011 ("SBD"): its list in the same folder, its masks, plain ids, in ``SegmentationClassAug``.
Source: host.robots.ox.ac.uk/pascal/VOC/voc2012.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeseg.data.base import Sample, SplitError, require_folder
from edgeseg.data.folder import (
    ColourTable,
    read_frame,
    read_list,
    read_raw,
    require_same_size,
    require_unique,
)
from edgeseg.errors import DataError
from edgeseg.spec import VOC_21, LabelSpace, voc_colour

_HINT = "Unpack VOCtrainval_11-May-2012.tar and give the folder VOCdevkit/VOC2012."
_SBD_HINT = "trainaug needs SBD: ImageSets/Segmentation/trainaug.txt and SegmentationClassAug/."
_LISTS = Path("ImageSets", "Segmentation")
_AUGMENTED = ("trainaug", "train_aug")


class VOC:
    """Read one split, in the order of its list.

    Parameters
    ----------
    path : ``VOC2012``, or a folder above it.
    split : name of a list in ``ImageSets/Segmentation``, without ``.txt``.

    Raises
    ------
    InputError : no such folder.
    DataError : the folder is not PASCAL VOC 2012, no such split, or a frame without mask.
    """

    labels: LabelSpace = VOC_21

    def __init__(self, path: str | Path, split: str = "val") -> None:
        root = _root(Path(path))
        self._frames = root / "JPEGImages"
        self._masks = root / "SegmentationClass"
        self._extra = root / "SegmentationClassAug"
        hint = _SBD_HINT if split in _AUGMENTED else _HINT

        # Read the split's list.
        listed = root / _LISTS / f"{split}.txt"
        if not listed.is_file():
            splits = sorted(path.stem for path in (root / _LISTS).glob("*.txt"))
            raise SplitError(
                f"VOC split {split!r}: no list",
                got=f"splits {', '.join(splits) or 'none'}",
                hint=hint,
            )
        self.name = f"voc/{split}"
        self.names: Sequence[str] = read_list(listed)
        require_unique(self.names, listed)

        # Check that every frame has a mask.
        without = [name for name in self.names if self._mask_path(name) is None]
        if without:
            raise DataError(
                f"{root}: {len(without)} frames of {split} have no mask", got=without[0], hint=hint
            )

        ids = (*range(len(self.labels)), 255)
        palette = [voc_colour(label) for label in ids]
        self._table = ColourTable(palette, ids, 255)

    def __len__(self) -> int:
        return len(self.names)

    def _mask_path(self, name: str) -> Path | None:
        """Return the file of a frame's mask, VOC's own before SBD's; ``None`` if there is none."""
        for folder in (self._masks, self._extra):
            path = folder / f"{name}.png"
            if path.is_file():
                return path
        return None

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        path = self._mask_path(name)
        assert path is not None
        image = read_frame(self._frames / f"{name}.jpg")
        mask = read_raw(path)
        if mask.ndim == 3:
            mask = self._table.ids(mask, path)
        elif np.any((mask >= len(self.labels)) & (mask != 255)):
            highest = int(mask[mask != 255].max())
            raise DataError(f"{path}: not a VOC mask", got=f"id {highest}", expected="0..20, 255")
        require_same_size(mask, image, path)
        return Sample(name, image, mask)


def _root(path: Path) -> Path:
    """Return the folder of VOC 2012 in or below ``path``. Raise ``DataError`` if there is none."""
    require_folder(path, "VOC")
    for place in (path, path / "VOC2012", path / "VOCdevkit" / "VOC2012"):
        if (place / _LISTS).is_dir() and (place / "JPEGImages").is_dir():
            return place

    inside = sorted(entry.name for entry in path.iterdir())
    raise DataError(
        f"{path}: not PASCAL VOC 2012",
        got=", ".join(inside[:5]) or "an empty folder",
        expected="ImageSets/Segmentation/ and JPEGImages/",
        hint=_HINT,
    )
