"""Check labelled data before it is trained on; ``edgeseg.data.quick_check`` does so in a second."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeseg.data.coding import Decoded, described
from edgeseg.data.doubles import Print, find_doubles, fingerprint
from edgeseg.data.inventory import Entry, Inventory, take_inventory
from edgeseg.errors import DataError
from edgeseg.reporter import SILENT, Reporter, track
from edgeseg.spec import LabelSpace

Level = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """Hold one thing that is wrong.

    Attributes
    ----------
    level : ``error`` for what would spoil a training.
    kind : what it is, such as ``size``; findings of a kind are alike.
    text : one line with the file, what is wrong, and what to do.

    Examples
    --------
    >>> Finding("error", "size", "a.png: another size").level
    'error'
    """

    level: Level
    kind: str
    text: str


@dataclass
class DataReport:
    """Hold what a check found.

    Attributes
    ----------
    address : the data.
    labels : its label space.
    how : how the splits were drawn; empty if they are the data's own.
    frames : frames of each split.
    sizes : frames of each (H, W).
    pixels : (classes,) pixels of each class, by split.
    seen : (classes,) frames that show each class, by split.
    ignored : pixels without class, by split.
    findings : what is wrong.
    """

    address: str
    labels: LabelSpace
    how: str = ""
    frames: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    pixels: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    seen: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> list[Finding]:
        """Return what would spoil a training."""
        return [finding for finding in self.findings if finding.level == "error"]

    @property
    def all_pixels(self) -> npt.NDArray[np.int64]:
        """Return the pixels of each class, over all splits."""
        return sum(self.pixels.values(), np.zeros(len(self.labels), np.int64))

    @property
    def all_seen(self) -> npt.NDArray[np.int64]:
        """Return the frames that show each class, over all splits."""
        return sum(self.seen.values(), np.zeros(len(self.labels), np.int64))

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        pixels, seen = self.all_pixels, self.all_seen
        return {
            "data": self.address,
            "splits": dict(self.frames),
            "drawn": self.how or None,
            "sizes": {f"{height}x{width}": n for (height, width), n in self.sizes.items()},
            "classes": [
                {"name": name, "pixels": int(pixels[i]), "frames": int(seen[i])}
                for i, name in enumerate(self.labels.names)
            ],
            "ignored_pixels": sum(self.ignored.values()),
            "findings": [vars(finding) for finding in self.findings],
        }


def check_data(address: str, *, reporter: Reporter = SILENT) -> DataReport:
    """Check all frames and masks of a data set.

    Parameters
    ----------
    address : READER:PATH.
    reporter : receives the progress.

    Raises
    ------
    InputError : unknown reader, or no such folder.
    DataError : the reader finds no data.

    Examples
    --------
    >>> check_data("synthetic://?length=3&size=64x48").errors
    []
    """
    inventory = take_inventory(address)
    report = DataReport(address, inventory.labels, inventory.how)
    for fault in inventory.faults:
        report.findings.append(Finding("error", "split", fault))

    # Look at every frame.
    prints: list[Print] = []
    printed: list[Entry] = []
    for entry in track(inventory.entries, "check", reporter):
        found = _look(entry, report)
        if found is not None:
            prints.append(found)
            printed.append(entry)

    # Look at the whole.
    for mask in inventory.lone_masks:
        text = f"{mask}: no frame of this name; remove it, or add the frame"
        report.findings.append(Finding("warning", "mask without frame", text))
    if "synthetic" not in address.partition(":")[0]:
        report.findings += _doubles(printed, prints)
    report.findings += _classes(report)
    report.findings += _splits(inventory)
    return report


def _look(entry: Entry, report: DataReport) -> Print | None:
    """Read a frame, count its classes, and note what is wrong; return its fingerprint."""
    split = entry.split or "no split"
    report.frames[split] += 1
    if not entry.has_mask:
        text = f"{entry.frame}: no mask for this frame; label it, or move it away"
        report.findings.append(Finding("error", "frame without mask", text))
        return None
    try:
        image, decoded = entry.read()
    except DataError as error:
        report.findings.append(Finding("error", "unreadable", str(error)))
        return None

    # The mask against the frame and the classes.
    where = entry.where
    height, width = image.shape[:2]
    report.sizes[height, width] += 1
    if decoded.ids.shape != (height, width):
        theirs = "x".join(str(side) for side in decoded.ids.shape)
        text = (
            f"{where}: the mask is {theirs}, its frame {height}x{width}; "
            "export the mask at the frame's size (nearest neighbour)"
        )
        report.findings.append(Finding("error", "size", text))
        return fingerprint(image)
    if decoded.unknown:
        level: Level = "error" if decoded.fatal else "warning"
        kind = "no class has this" if decoded.fatal else "stray colours, ignored"
        text = f"{where}: {described(decoded.unknown)}: {kind}. {decoded.hint}"
        report.findings.append(Finding(level, kind, text))

    _count(entry, decoded, split, report)
    return fingerprint(image)


def _count(entry: Entry, decoded: Decoded, split: str, report: DataReport) -> None:
    """Add the pixels of a mask to the report, and note ids of no class and empty masks."""
    labels = report.labels
    counts = np.bincount(decoded.ids.ravel(), minlength=256).astype(np.int64)
    ignored = int(counts[labels.ignore_id])
    counts[labels.ignore_id] = 0
    strange = np.flatnonzero(counts[len(labels) :]) + len(labels)
    if strange.size:
        found = {f"id {number}": int(counts[number]) for number in strange}
        text = f"{entry.where}: {described(found)}: no class has this"
        report.findings.append(Finding("error", "no class has this", text))

    zeros = np.zeros(len(labels), np.int64)
    counts = counts[: len(labels)]
    report.pixels[split] = report.pixels.get(split, zeros) + counts
    report.seen[split] = report.seen.get(split, zeros) + (counts > 0)
    report.ignored[split] += ignored

    if decoded.unknown or strange.size:
        return
    if not counts.any():
        text = f"{entry.where}: an empty mask, every pixel is void"
        report.findings.append(Finding("warning", "empty mask", text))
    elif labels.names[int(counts.argmax())] == "background" and (counts > 0).sum() == 1:
        text = f"{entry.where}: an empty mask, every pixel is background"
        report.findings.append(Finding("warning", "empty mask", text))


def _doubles(entries: Sequence[Entry], prints: Sequence[Print]) -> list[Finding]:
    """Return the frames that occur twice."""
    found: list[Finding] = []
    for double in find_doubles(prints):
        first, second = entries[double.first], entries[double.second]
        across = first.split != second.split and None not in (first.split, second.split)
        alike = "the same picture as" if double.exact else "nearly the same picture as"
        kind = f"{alike} another"
        level: Level = "warning"
        where = second.frame or f"{second.split}/{second.name}"
        other = first.frame or f"{first.split}/{first.name}"
        text = f"{where}: {alike} {other}"
        if across:
            kind += " of another split"
            text += f", of {second.split} and {first.split}: scores would be too high"
            level = "error" if double.exact else "warning"
        found.append(Finding(level, kind, text))
    return found


def _classes(report: DataReport) -> list[Finding]:
    """Return the classes that no frame, or no frame to train on, shows."""
    names = report.labels.names
    everywhere = report.all_pixels
    train = report.pixels.get("train")
    found: list[Finding] = []
    absent = [name for name, count in zip(names, everywhere, strict=True) if not count]
    if absent:
        text = f"{report.address}: no pixel of {', '.join(absent)}"
        void = sum(report.ignored.values())
        if void and len(names) == 2:
            text += (
                f"; {void} pixels are void. If 255 is a class, name it: "
                f'`ids = {{0 = "{names[0]}", 255 = "{names[1]}"}}` in data.toml'
            )
        level: Level = "error" if len(names) == 2 else "warning"
        found.append(Finding(level, "class without pixels", text))

    if train is not None:
        untrained = [
            name
            for name, all_, own in zip(names, everywhere, train, strict=True)
            if all_ and not own
        ]
        if untrained:
            text = f"{report.address}: no pixel in train of {', '.join(untrained)}"
            found.append(Finding("warning", "class without pixels", text))
    return found


def _splits(inventory: Inventory) -> list[Finding]:
    """Return what is wrong with the splits."""
    found: list[Finding] = []
    for wanted in ("train", "val"):
        if wanted not in inventory.splits:
            text = f"{inventory.address}: no split {wanted}; docs/own-data.md shows how to give one"
            found.append(Finding("warning", "split", text))

    # Frames that no split uses.
    left = [entry for entry in inventory.entries if entry.split is None]
    if left and inventory.how:
        text = (
            f"{inventory.address}: {len(left)} frames beside the cuts are in no split, so that "
            "neighbours are not on both sides"
        )
        found.append(Finding("warning", "split", text))
    elif left:
        text = f"{inventory.address}: {len(left)} frames are in no list, such as {left[0].name}"
        found.append(Finding("warning", "split", text))
    return found
