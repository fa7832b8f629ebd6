"""Hold all frames of a data set with their masks, before a split is chosen.

Every reader of own data makes a ``Collection``. ``dataset`` gives one split of it to read, and
``edgeseg.data.check`` looks at all of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeseg.data.base import Sample, SplitError
from edgeseg.data.coding import Decoded, require_known
from edgeseg.data.folder import read_frame, require_same_size
from edgeseg.data.splits import canonical_split
from edgeseg.errors import DataError
from edgeseg.spec import LabelSpace

FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
ALL = "all"


@dataclass(frozen=True)
class Pair:
    """Hold where a frame and its mask are.

    Attributes
    ----------
    name : the frame's name, with ``/`` between folders.
    frame : its file.
    mask : file of its mask; ``None`` if it has none.
    split : its split; ``None`` if it is in no split but ``all``.
    group : its drive or sequence.
    about : what the reader needs beside the mask's file, such as the shapes of a COCO file.

    Examples
    --------
    >>> Pair("a", Path("images/a.jpg"), Path("masks/a.png")).split is None
    True
    """

    name: str
    frame: Path
    mask: Path | None
    split: str | None = None
    group: str = ""
    about: Any = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Collection:
    """Hold a data set.

    Attributes
    ----------
    title : its name.
    root : its folder or file, for errors.
    labels : its label space.
    pairs : the frames, in order.
    decode : reads the mask of a pair.
    lone_masks : masks without a frame.
    how : how the splits were drawn; empty if they are the data's own.
    """

    title: str
    root: Path
    labels: LabelSpace
    pairs: Sequence[Pair]
    decode: Callable[[Pair], Decoded]
    lone_masks: Sequence[Path] = ()
    how: str = ""

    @property
    def splits(self) -> list[str]:
        """Return the names of the splits, ``train`` and ``val`` first."""
        found = {pair.split for pair in self.pairs if pair.split is not None}
        usual = [name for name in ("train", "val", "test") if name in found]
        return usual + sorted(found - set(usual))

    def dataset(self, split: str = "val") -> "CollectionSplit":
        """Return one split to read.

        Parameters
        ----------
        split : name of the split; ``all`` for every frame.

        Raises
        ------
        SplitError : there is no such split.
        DataError : a frame of it has no mask, or two frames have one name.
        """
        wanted = canonical_split(split)
        pairs = [pair for pair in self.pairs if wanted in (ALL, pair.split)]
        if not pairs:
            raise SplitError(
                f"{self.root}: no split {split!r}",
                got=f"splits {', '.join(self.splits) or 'none'}",
                expected=f"one of them, or {ALL}",
                hint="docs/own-data.md shows how splits are given.",
            )

        without = [pair for pair in pairs if pair.mask is None]
        if without:
            raise DataError(
                f"{without[0].frame}: no mask for this frame",
                got=f"{len(without)} of {len(pairs)} frames without mask",
                hint='Label them, move them away, or set `unlabelled = "skip"` in data.toml.',
            )
        return CollectionSplit(self, pairs, wanted)


class CollectionSplit:
    """Read one split of a collection; a ``Dataset``.

    Parameters
    ----------
    collection : the data set.
    pairs : the frames of the split; all have masks.
    split : its name.
    """

    def __init__(self, collection: Collection, pairs: Sequence[Pair], split: str) -> None:
        how = f" ({collection.how})" if collection.how and split != ALL else ""
        self.name = f"{collection.title}/{split}{how}"
        self.labels: LabelSpace = collection.labels
        self.names: Sequence[str] = tuple(pair.name for pair in pairs)
        self._collection = collection
        self._pairs = pairs

    def __len__(self) -> int:
        return len(self._pairs)

    def drive(self, index: int) -> str:
        """Return the drive or sequence that a frame comes from.

        Parameters
        ----------
        index : number of the frame in the split.
        """
        return self._pairs[index].group

    def __getitem__(self, index: int) -> Sample:
        pair = self._pairs[index]
        assert pair.mask is not None
        image = read_frame(pair.frame)
        mask = require_known(self._collection.decode(pair), pair.mask)
        require_same_size(mask, image, pair.mask)
        return Sample(pair.name, image, mask)


def pictures_in(folder: Path, suffixes: Sequence[str] = FRAME_SUFFIXES) -> dict[str, Path]:
    """Return the pictures in and below a folder by their names without suffix, sorted.

    Parameters
    ----------
    folder : the folder. Hidden files are left out.
    suffixes : the suffixes to look for, in lower case.

    Raises
    ------
    DataError : two files have one name but for the suffix.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise DataError(f"{path}: two files with one name", got=found[name].name)
        found[name] = path
    return found


def match(
    frames: dict[str, Path], masks: dict[str, Path], split: str | None = None
) -> tuple[list[Pair], list[Path]]:
    """Pair frames with the masks of the same names.

    Parameters
    ----------
    frames, masks : files by name.
    split : split of the frames.

    Returns
    -------
    The pairs, in the order of ``frames``; and the masks without a frame.

    Examples
    --------
    >>> pairs, lone = match({"a": Path("a.jpg")}, {"a": Path("a.png"), "b": Path("b.png")})
    >>> pairs[0].mask, lone
    (PosixPath('a.png'), [PosixPath('b.png')])
    """
    pairs = [Pair(name, path, masks.get(name), split) for name, path in frames.items()]
    return pairs, [path for name, path in masks.items() if name not in frames]
