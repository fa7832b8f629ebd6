"""Read the layouts of public driving sets, and of tools that write masks as pictures.

- ``bdd100k:``: ``images/10k/SPLIT`` and ``labels/sem_seg/masks/SPLIT``, or ``seg/images/SPLIT`` and
  ``seg/labels/SPLIT`` with ``_train_id`` names; Cityscapes' nineteen train ids
- ``mapillary:``: Vistas 1.2 (``training/labels``) and 2.0 (``training/v2.0/labels``), with the
  classes of its ``config.json``
- ``kitti:``: ``training/image_2`` and ``training/semantic``, with Cityscapes' label ids
- ``ade20k:``: ``images/training`` and ``annotations/training`` of the scene parsing challenge, with
  the names of ``objectInfo150.txt``; 0 is unlabelled
- ``cvat:``: CVAT's "segmentation mask 1.1": ``SegmentationClass`` in the colours of
  ``labelmap.txt``, frames in ``JPEGImages`` or ``images``
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeseg.data.base import require_folder
from edgeseg.data.cityscapes import LABEL_IDS
from edgeseg.data.class_files import (
    IGNORE_ID,
    ClassEntry,
    ClassTable,
    class_table,
    classes_of_json,
    read_classes,
)
from edgeseg.data.collection import Collection, Pair, match, pictures_in
from edgeseg.data.mask_files import MASK_SUFFIXES
from edgeseg.data.own_folder import collection_of_masks, with_splits
from edgeseg.data.splits import canonical_split
from edgeseg.errors import DataError
from edgeseg.spec import CITYSCAPES_19

_CITYSCAPES_HIGHEST = 33
_ADE20K_CLASSES = 150

# A folder of frames, the folder of their masks, and what the masks' names have at their end.
Part = tuple[str, str, str]


def collect_bdd100k(path: str | Path) -> Collection:
    """Find the frames of BDD100K's semantic segmentation.

    Parameters
    ----------
    path : the folder with ``images/`` and ``labels/``, or with ``seg/``.

    Raises
    ------
    InputError : no such folder.
    DataError : the folder has neither layout.
    """
    root = require_folder(Path(path).expanduser(), "BDD100K")
    parts: list[Part] = [("images/10k", "labels/sem_seg/masks", "")]
    parts += [(f"{at}images", f"{at}labels", "_train_id") for at in ("seg/", "")]
    entries = [
        ClassEntry(name, label, colour)
        for label, (name, colour) in enumerate(
            zip(CITYSCAPES_19.names, CITYSCAPES_19.palette, strict=True)
        )
    ]
    table = class_table(entries, "BDD100K's train ids", name="bdd100k")
    return _by_split("bdd100k", root, parts, _without_colours(table))


def collect_kitti(path: str | Path) -> Collection:
    """Find the frames of KITTI's semantic segmentation.

    Parameters
    ----------
    path : the folder with ``training/``.

    Raises
    ------
    InputError : no such folder.
    DataError : the folder has no such layout.
    """
    root = require_folder(Path(path).expanduser(), "KITTI")
    pairs, lone = _part(root, "kitti", "training/image_2", "training/semantic", "")
    entries = []
    for number, name, colour in zip(
        LABEL_IDS, CITYSCAPES_19.names, CITYSCAPES_19.palette, strict=True
    ):
        entries.append(ClassEntry(name, number, colour))
    ignored = {*range(_CITYSCAPES_HIGHEST + 1), IGNORE_ID} - set(LABEL_IDS)
    table = class_table(entries, "Cityscapes' label ids", name="kitti", ignore_ids=ignored)
    pairs, how = with_splits(root, pairs)
    return collection_of_masks(
        "kitti", root, _without_colours(table), pairs, lone_masks=lone, how=how
    )


def collect_ade20k(path: str | Path) -> Collection:
    """Find the frames of ADE20K as the scene parsing challenge has them.

    Parameters
    ----------
    path : the folder ``ADEChallengeData2016``.

    Raises
    ------
    InputError : no such folder.
    DataError : the folder has no such layout, or no ``objectInfo150.txt``.
    """
    root = require_folder(Path(path).expanduser(), "ADE20K")
    listed = root / "objectInfo150.txt"
    if not listed.is_file():
        raise DataError(
            f"{listed}: no such file",
            expected="the names of the classes",
            hint="It is in ADEChallengeData2016.zip, beside images/ and annotations/.",
        )
    rows = [line.split("\t") for line in listed.read_text(encoding="utf-8").splitlines()[1:]]
    wholes = [row[-1].strip() for row in rows if row[0].strip().isdigit()]
    if not wholes or len(wholes) > _ADE20K_CLASSES:
        raise DataError(f"{listed}: not ADE20K's list", got=f"{len(wholes)} rows with a number")
    table = class_table(
        [ClassEntry(name) for name in _short(wholes)], str(listed), name="ade20k", offset=-1
    )
    return _by_split("ade20k", root, [("images", "annotations", "")], table)


def collect_mapillary(path: str | Path) -> Collection:
    """Find the frames of Mapillary Vistas, 2.0 before 1.2.

    Parameters
    ----------
    path : the folder with ``training/`` and ``config.json``.

    Raises
    ------
    InputError : no such folder.
    DataError : the folder has no such layout, or no ``config.json``.
    """
    root = require_folder(Path(path).expanduser(), "Mapillary Vistas")
    configs = [root / f"config{version}.json" for version in ("_v2.0", "_v1.2", "")]
    config = next((config for config in configs if config.is_file()), None)
    if config is None:
        raise DataError(
            f"{root}: no config.json", expected="config_v2.0.json, config_v1.2.json or config.json"
        )

    # The names are paths such as construction--flat--road; the readable ones may repeat.
    try:
        items: Any = json.loads(config.read_text(encoding="utf-8"))["labels"]
        readable = [str(item.get("readable") or item["name"]) for item in items]
        if len(set(readable)) == len(readable):
            items = [{**item, "name": name} for item, name in zip(items, readable, strict=True)]
        entries = classes_of_json(items)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{config}: not Vistas' classes", got=type(error).__name__) from error

    table = _without_colours(class_table(entries, str(config), name="mapillary"))
    labels = "{split}/v2.0/labels" if "v2.0" in config.name else "{split}/v1.2/labels"
    pairs: list[Pair] = []
    lone: list[Path] = []
    for split in ("training", "validation"):
        folders = [labels.format(split=split), f"{split}/labels"]
        masks = next((name for name in folders if (root / name).is_dir()), None)
        if masks is not None and (root / split / "images").is_dir():
            found, left = _part(root, "mapillary", f"{split}/images", masks, "", split)
            pairs += found
            lone += left
    if not pairs:
        raise _no_layout(root, "mapillary", "training/images and training/labels")
    pairs, how = with_splits(root, pairs)
    return collection_of_masks("mapillary", root, table, pairs, lone_masks=lone, how=how)


def collect_cvat(path: str | Path) -> Collection:
    """Find the frames of an export of CVAT in the form "segmentation mask 1.1".

    Parameters
    ----------
    path : the folder with ``labelmap.txt`` and ``SegmentationClass/``.

    Raises
    ------
    InputError : no such folder.
    DataError : the folder has no such layout.
    """
    root = require_folder(Path(path).expanduser(), "CVAT")
    labelmap = root / "labelmap.txt"
    if not labelmap.is_file():
        raise _no_layout(root, "cvat", "labelmap.txt and SegmentationClass/")
    table = class_table(read_classes(labelmap), str(labelmap), name="cvat")
    frames = next((n for n in ("JPEGImages", "images") if (root / n).is_dir()), None)
    if frames is None:
        raise DataError(
            f"{root}: masks without their frames",
            expected="JPEGImages/ or images/",
            hint='Export again with "Save images" on, or copy the frames into images/.',
        )
    pairs, lone = _part(root, "cvat", frames, "SegmentationClass", "")
    pairs, how = with_splits(root, pairs)
    return collection_of_masks("cvat", root, table, pairs, lone_masks=lone, how=how)


def _by_split(title: str, root: Path, parts: Sequence[Part], table: ClassTable) -> Collection:
    """Return a collection whose frames and masks are in one folder per split."""
    for frames, masks, suffix in parts:
        if not (root / frames).is_dir() or not (root / masks).is_dir():
            continue
        pairs: list[Pair] = []
        lone: list[Path] = []
        for folder in sorted((root / masks).iterdir()):
            at = f"{frames}/{folder.name}"
            if folder.is_dir() and (root / at).is_dir():
                found, left = _part(root, title, at, f"{masks}/{folder.name}", suffix, folder.name)
                pairs += found
                lone += left
        if pairs:
            pairs, how = with_splits(root, pairs)
            return collection_of_masks(title, root, table, pairs, lone_masks=lone, how=how)
    layouts = " or ".join(f"{frames}/SPLIT and {masks}/SPLIT" for frames, masks, _ in parts)
    raise _no_layout(root, title, layouts)


def _part(
    root: Path, title: str, frames: str, masks: str, suffix: str, split: str | None = None
) -> tuple[list[Pair], list[Path]]:
    """Return the pairs of two folders, and the masks without a frame."""
    if not (root / frames).is_dir() or not (root / masks).is_dir():
        raise _no_layout(root, title, f"{frames}/ and {masks}/")
    pictures = pictures_in(root / masks, MASK_SUFFIXES)
    named = {
        name.removesuffix(suffix): path for name, path in pictures.items() if name.endswith(suffix)
    }
    name = canonical_split(split) if split else None
    return match(pictures_in(root / frames), named, name)


def _no_layout(root: Path, title: str, expected: str) -> DataError:
    """Return the error about a folder without a layout."""
    inside = sorted(path.name for path in root.iterdir())
    return DataError(
        f"{root}: not the layout of {title}:",
        got=", ".join(inside[:5]) or "an empty folder",
        expected=expected,
    )


def _without_colours(table: ClassTable) -> ClassTable:
    """Return a table for masks of ids: their palettes are for display alone."""
    return ClassTable(table.labels, table.label_of, {}, table.source)


def _short(names: Sequence[str]) -> list[str]:
    """Return the first of the synonyms of each name; the whole ones if two are then the same."""
    short = [name.split(",")[0].strip() for name in names]
    return [s if short.count(s) == 1 else name for s, name in zip(short, names, strict=True)]
