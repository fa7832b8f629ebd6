"""Cityscapes: ``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`` beside ``gtFine/SPLIT/CITY/*_gtFine_labelIds.png``.

The 34 label ids become the nineteen train ids of cityscapesScripts' ``helpers/labels.py``; all others are ignored.
Splits: ``train`` (2975), ``val`` (500), and from ``gtCoarse`` ``train_extra``, ``train_coarse``, ``val_coarse``.
Source: cityscapes-dataset.com (gtFine_trainvaltest.zip, leftImg8bit_trainvaltest.zip).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeseg.data import Sample, require_folder
from edgeseg.data.pictures import read_frame, read_raw, require_same_size
from edgeseg.errors import DataError
from edgeseg.spec import CITYSCAPES_19, LabelSpace

_HINT = "Unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip into one folder and give it."
# Label ids in the order of their train ids.
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_HIGHEST_ID = 33
_SUFFIX = "_leftImg8bit.png"


class Cityscapes:
    """One split, sorted by city and frame. Names are ``CITY_SEQUENCE_FRAME``."""

    labels: LabelSpace = CITYSCAPES_19

    def __init__(self, path: str | Path, split: str = "val") -> None:
        root = require_folder(Path(path), "Cityscapes")
        part, kind = split.removesuffix("_coarse"), "gtFine"
        if split.endswith("_coarse") or split == "train_extra":
            kind = "gtCoarse"
        frames, masks = root / "leftImg8bit" / part, root / kind / part
        for folder in (frames, masks):
            if not part or not folder.is_dir():
                splits = sorted(p.name for p in root.glob("gtFine/*") if p.is_dir())
                splits += sorted(f"{p.name}_coarse" for p in root.glob("gtCoarse/*") if p.is_dir())
                raise DataError(
                    f"Cityscapes split {split!r}: no {folder.relative_to(root)}/ in {root}",
                    got=f"splits {', '.join(splits) or 'none'}", hint=_HINT,
                )  # fmt: skip
        self._frames = {p.name.removesuffix(_SUFFIX): p for p in sorted(frames.glob(f"*/*{_SUFFIX}"))}
        self._mask_of = {
            name: masks / p.parent.name / f"{name}_{kind}_labelIds.png" for name, p in self._frames.items()
        }
        missing = [p for p in self._mask_of.values() if not p.is_file()]
        if not self._frames:
            raise DataError(f"{frames}: no frames", expected=f"CITY/*{_SUFFIX}", hint=_HINT)
        if missing:
            raise DataError(
                f"{masks}: {len(missing)} frames have no label file", got=f"no {missing[0].name}", hint=_HINT
            )
        self.name = f"cityscapes/{split}"
        self.names: Sequence[str] = tuple(self._frames)
        self._train_id = np.full(256, self.labels.ignore_id, np.uint8)
        self._train_id[list(LABEL_IDS)] = np.arange(len(LABEL_IDS))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        path = self._mask_of[name]
        image, ids = read_frame(self._frames[name]), read_raw(path)
        if ids.ndim != 2 or int(ids.max()) > _HIGHEST_ID:
            found = f"a {ids.ndim}-dimensional picture with values up to {int(ids.max())}"
            raise DataError(f"{path}: not a map of label ids", got=found, expected=f"one channel, ids 0..{_HIGHEST_ID}")
        require_same_size(ids, image, path)
        return Sample(name, image, self._train_id[ids])
