"""Cityscapes with its nineteen train ids.

Frames are ``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png``, labels
``gtFine/SPLIT/CITY/*_gtFine_labelIds.png``. The 34 label ids become the nineteen train ids of
cityscapesScripts' ``helpers/labels.py``; all others are ignored. Splits: ``train`` (2975 frames),
``val`` (500), and from ``gtCoarse``: ``train_extra``, ``train_coarse``, ``val_coarse``. Source:
cityscapes-dataset.com (gtFine_trainvaltest.zip, leftImg8bit_trainvaltest.zip).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeseg.data.base import Sample, SplitError, require_folder
from edgeseg.data.folder import read_frame, read_raw, require_same_size
from edgeseg.errors import DataError
from edgeseg.spec import CITYSCAPES_19, LabelSpace

_HINT = (
    "Unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip into one folder and give it."
)
# Label ids in the order of their train ids.
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_HIGHEST_ID = 33
_SUFFIX = "_leftImg8bit.png"


class Cityscapes:
    """Read one split, sorted by city and frame. Names are ``CITY_SEQUENCE_FRAME``.

    Parameters
    ----------
    path : the folder with ``leftImg8bit/`` and ``gtFine/`` or ``gtCoarse/``.
    split : ``train``, ``val``, ``train_extra``, ``train_coarse`` or ``val_coarse``.

    Raises
    ------
    InputError : no such folder.
    DataError : no such split, or a frame without label file.
    """

    labels: LabelSpace = CITYSCAPES_19

    def __init__(self, path: str | Path, split: str = "val") -> None:
        root = require_folder(Path(path), "Cityscapes")

        # Find the two folders of the split.
        part = split.removesuffix("_coarse")
        coarse = split.endswith("_coarse") or split == "train_extra"
        kind = "gtCoarse" if coarse else "gtFine"
        frames = root / "leftImg8bit" / part
        masks = root / kind / part
        for folder in (frames, masks):
            if not part or not folder.is_dir():
                raise SplitError(
                    f"Cityscapes split {split!r}: no {folder.relative_to(root)}/ in {root}",
                    got=f"splits {', '.join(_splits(root)) or 'none'}",
                    hint=_HINT,
                )

        # Find the frames and check that each has a label file.
        pictures = sorted(frames.glob(f"*/*{_SUFFIX}"))
        self._frames = {picture.name.removesuffix(_SUFFIX): picture for picture in pictures}
        self._mask_of: dict[str, Path] = {}
        for name, picture in self._frames.items():
            city = picture.parent.name
            self._mask_of[name] = masks / city / f"{name}_{kind}_labelIds.png"
        missing = [mask for mask in self._mask_of.values() if not mask.is_file()]
        if not self._frames:
            raise DataError(f"{frames}: no frames", expected=f"CITY/*{_SUFFIX}", hint=_HINT)
        if missing:
            raise DataError(
                f"{masks}: {len(missing)} frames have no label file",
                got=f"no {missing[0].name}",
                hint=_HINT,
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
        image = read_frame(self._frames[name])
        ids = read_raw(path)
        if ids.ndim != 2 or int(ids.max()) > _HIGHEST_ID:
            raise DataError(
                f"{path}: not a map of label ids",
                got=f"a {ids.ndim}-dimensional picture with values up to {int(ids.max())}",
                expected=f"one channel, ids 0..{_HIGHEST_ID}",
            )
        require_same_size(ids, image, path)
        return Sample(name, image, self._train_id[ids])


def _splits(root: Path) -> list[str]:
    """Return the names of the splits that have labels in ``root``."""
    fine = [folder for folder in root.glob("gtFine/*") if folder.is_dir()]
    coarse = [folder for folder in root.glob("gtCoarse/*") if folder.is_dir()]
    splits = sorted(folder.name for folder in fine)
    splits += sorted(f"{folder.name}_coarse" for folder in coarse)
    return splits
