"""List the frames of any data set with what a check needs: split, files, and how to read them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from edgeseg.data.base import COLLECTORS, Dataset, SplitError, open_dataset
from edgeseg.data.coding import Decoded
from edgeseg.data.collection import Collection, Pair
from edgeseg.data.folder import read_frame
from edgeseg.errors import DataError
from edgeseg.spec import LabelSpace
from edgeseg.types import Image

# Splits that the other readers may have.
_SPLITS = ("train", "val", "test", "all")


@dataclass(frozen=True)
class Entry:
    """Hold one frame of a data set.

    Attributes
    ----------
    name : its name.
    split : its split; ``None`` for none.
    group : its drive or sequence; empty if not known.
    frame : its file; ``None`` if the reader does not say.
    mask : file of its mask; ``None`` as well.
    has_mask : whether there is a mask.
    read : reads the frame and its mask.
    """

    name: str
    split: str | None
    group: str
    frame: Path | None
    mask: Path | None
    has_mask: bool
    read: Callable[[], tuple[Image, Decoded]]

    @property
    def where(self) -> str:
        """Return the mask's file, or the frame's name, for messages."""
        return str(self.mask or self.frame or f"{self.split}/{self.name}")


@dataclass(frozen=True)
class Inventory:
    """Hold the frames of a data set.

    Attributes
    ----------
    address : its address.
    labels : its label space.
    entries : its frames.
    lone_masks : masks without a frame.
    faults : what kept a split from being opened.
    how : how the splits were drawn; empty if they are the data's own.
    """

    address: str
    labels: LabelSpace
    entries: Sequence[Entry]
    lone_masks: Sequence[Path] = ()
    faults: Sequence[str] = ()
    how: str = ""

    @property
    def splits(self) -> list[str]:
        """Return the names of the splits in their order."""
        return list(dict.fromkeys(e.split for e in self.entries if e.split is not None))


def take_inventory(address: str) -> Inventory:
    """List the frames of a data set.

    Parameters
    ----------
    address : READER:PATH.

    Raises
    ------
    InputError : unknown reader, or no such folder.
    DataError : the reader finds no data.
    """
    scheme, _, path = address.partition(":")
    if scheme in COLLECTORS:
        module, name = COLLECTORS[scheme]
        collection: Collection = getattr(import_module(module), name)(path)
        order = {split: number for number, split in enumerate(collection.splits)}
        pairs = sorted(collection.pairs, key=lambda pair: order.get(pair.split or "", len(order)))
        entries = [_of_pair(collection, pair) for pair in pairs]
        return Inventory(
            address, collection.labels, entries, collection.lone_masks, (), collection.how
        )
    return _by_splits(address)


def _of_pair(collection: Collection, pair: Pair) -> Entry:
    """Return the entry of a pair."""

    def read() -> tuple[Image, Decoded]:
        return read_frame(pair.frame), collection.decode(pair)

    return Entry(
        pair.name, pair.split, pair.group, pair.frame, pair.mask, pair.mask is not None, read
    )


def _by_splits(address: str) -> Inventory:
    """List the frames of a reader that opens one split at a time."""
    opened: dict[str, Dataset] = {}
    faults: list[str] = []
    missing: SplitError | None = None
    for split in _SPLITS:
        if split == "all" and opened:
            continue
        try:
            opened[split] = open_dataset(address, split)
        except SplitError as error:
            missing = missing or error
        except DataError as error:
            faults.append(str(error))
    if not opened:
        raise missing if missing and not faults else DataError(faults[0])

    entries: list[Entry] = []
    for split, data in opened.items():
        entries += _of_dataset(data, split)
    return Inventory(address, next(iter(opened.values())).labels, entries, (), faults)


def _of_dataset(data: Dataset, split: str) -> Iterator[Entry]:
    """Yield the entries of an open split."""
    for index, name in enumerate(data.names):

        def read(index: int = index) -> tuple[Image, Decoded]:
            sample = data[index]
            return sample.image, Decoded(sample.mask)

        yield Entry(name, split, "", None, None, True, read)
