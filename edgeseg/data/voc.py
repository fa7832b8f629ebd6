"""PASCAL VOC 2012 segmentation: ``JPEGImages``, ``SegmentationClass``, lists in ``ImageSets/Segmentation``.

Masks are palette pictures, ids 0..20 and 255 (borders, difficult) ignored. Splits: ``train`` (1464), ``val`` (1449),
``trainval``; ``trainaug`` (10582) where the extension of Hariharan et al. 2011 ("SBD") is there: its list in the same
folder, its masks, plain ids, in ``SegmentationClassAug``. Source: host.robots.ox.ac.uk/pascal/VOC/voc2012.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeseg.data import Sample, require_folder
from edgeseg.data.pictures import ColourTable, read_frame, read_list, read_raw, require_same_size, require_unique
from edgeseg.errors import DataError
from edgeseg.spec import VOC_21, LabelSpace, voc_colour

_HINT = "Unpack VOCtrainval_11-May-2012.tar and give the folder VOCdevkit/VOC2012."
_SBD_HINT = "trainaug needs SBD: ImageSets/Segmentation/trainaug.txt and SegmentationClassAug/."
_LISTS = Path("ImageSets", "Segmentation")
_AUGMENTED = ("trainaug", "train_aug")


class VOC:
    """One split, in the order of its list; ``path`` is ``VOC2012`` or a folder above it."""

    labels: LabelSpace = VOC_21

    def __init__(self, path: str | Path, split: str = "val") -> None:
        root = _root(Path(path))
        self._frames, self._masks = root / "JPEGImages", root / "SegmentationClass"
        listed = root / _LISTS / f"{split}.txt"
        if not listed.is_file():
            splits = sorted(p.stem for p in (root / _LISTS).glob("*.txt"))
            hint = _SBD_HINT if split in _AUGMENTED else _HINT
            raise DataError(f"VOC split {split!r}: no list", got=f"splits {', '.join(splits) or 'none'}", hint=hint)
        self._extra = root / "SegmentationClassAug"
        self.name = f"voc/{split}"
        self.names: Sequence[str] = read_list(listed)
        require_unique(self.names, listed)
        without = [n for n in self.names if self._mask_path(n) is None]
        if without:
            hint = _SBD_HINT if split in _AUGMENTED else _HINT
            raise DataError(f"{root}: {len(without)} frames of {split} have no mask", got=without[0], hint=hint)
        palette = [voc_colour(i) for i in (*range(len(self.labels)), 255)]
        self._table = ColourTable(palette, (*range(len(self.labels)), 255), 255)

    def __len__(self) -> int:
        return len(self.names)

    def _mask_path(self, name: str) -> Path | None:
        found = (folder / f"{name}.png" for folder in (self._masks, self._extra))
        return next((p for p in found if p.is_file()), None)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        path = self._mask_path(name)
        assert path is not None
        image, mask = read_frame(self._frames / f"{name}.jpg"), read_raw(path)
        if mask.ndim == 3:
            mask = self._table.ids(mask, path)
        elif np.any((mask >= len(self.labels)) & (mask != 255)):
            raise DataError(f"{path}: not a VOC mask", got=f"id {int(mask[mask != 255].max())}", expected="0..20, 255")
        require_same_size(mask, image, path)
        return Sample(name, image, mask)


def _root(path: Path) -> Path:
    require_folder(path, "VOC")
    for place in (path, path / "VOC2012", path / "VOCdevkit" / "VOC2012"):
        if (place / _LISTS).is_dir() and (place / "JPEGImages").is_dir():
            return place
    raise DataError(
        f"{path}: not PASCAL VOC 2012", got=", ".join(sorted(p.name for p in path.iterdir())[:5]) or "an empty folder",
        expected="ImageSets/Segmentation/ and JPEGImages/", hint=_HINT,
    )  # fmt: skip
