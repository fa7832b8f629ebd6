"""Find the frames, masks, classes and splits of a folder in the layouts of ``folder:PATH``.

``images/`` holds the frames and ``masks/``, ``labels/`` or ``annotations/`` the masks of the same
names, directly or below ``train/``, ``val/`` and ``test/``; or each split's folder holds the two.
The classes are in ``classes.txt``, ``labels.txt`` or JSON (``edgeseg.data.class_files``). Without
split folders, lists such as ``train.txt`` are the splits; without lists, they are drawn by group
(``edgeseg.data.splits``).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgeseg.data.class_files import CLASS_FILES, ClassTable, class_table, read_classes
from edgeseg.data.coding import Coding, Decoded, MaskDecoder
from edgeseg.data.collection import Collection, Pair, match, pictures_in
from edgeseg.data.folder import read_list
from edgeseg.data.mask_files import LOSSY_SUFFIXES, MASK_SUFFIXES, read_mask_file
from edgeseg.data.splits import SPLIT_NAMES, canonical_split, draw_splits, grouping
from edgeseg.errors import DataError

VAL_SHARE = 0.2

_IMAGES = "images"
_MASKS = ("masks", "labels", "annotations")
_LISTS_AT = (".", "splits", "ImageSets/Segmentation")
_LOOKED_AT = 8  # masks that are read to say which ids they have
HINT = "docs/own-data.md shows the layouts, and how data.toml describes any other."


def collection_of_masks(
    title: str,
    root: Path,
    table: ClassTable,
    pairs: Sequence[Pair],
    *,
    coding: Coding = "auto",
    lone_masks: Sequence[Path] = (),
    how: str = "",
) -> Collection:
    """Return a collection whose masks are files of ids or colours.

    Parameters
    ----------
    title : its name.
    root : its folder.
    table : its classes.
    pairs : its frames and masks.
    coding : what the masks hold.
    lone_masks : masks without a frame.
    how : how the splits were drawn.
    """
    decoder = MaskDecoder(table, coding)

    def decode(pair: Pair) -> Decoded:
        assert pair.mask is not None
        return decoder(pair.mask)

    return Collection(title, root, table.labels, pairs, decode, lone_masks, how)


def find_pairs(root: Path) -> tuple[list[Pair], list[Path]]:
    """Find frames and masks in the layouts that need no description.

    Parameters
    ----------
    root : the folder.

    Returns
    -------
    The pairs, with splits if folders give them; and the masks without a frame.

    Raises
    ------
    DataError : the folder has no such layout, or masks in a lossy format.
    """
    images = root / _IMAGES
    if images.is_dir():
        masks = _masks_beside(root)
        folders = [folder for folder in sorted(images.iterdir()) if _is_split(folder)]
        if not folders:
            return match(_frames(images), _mask_files(masks))
        parts = [(folder, masks / folder.name, folder.name) for folder in folders]
    else:
        folders = [path for path in sorted(root.iterdir()) if _is_split(path)]
        folders = [folder for folder in folders if (folder / _IMAGES).is_dir()]
        parts = [(path / _IMAGES, _masks_beside(path), path.name) for path in folders]
    if not parts:
        inside = sorted(path.name for path in root.iterdir())
        raise DataError(
            f"{root}: no frames with masks",
            got=", ".join(inside[:5]) or "an empty folder",
            expected="images/ and masks/, labels/ or annotations/",
            hint=HINT,
        )

    pairs: list[Pair] = []
    lone: list[Path] = []
    for frames, masks, name in parts:
        found, left = match(_frames(frames), _mask_files(masks), canonical_split(name))
        pairs += found
        lone += left
    return pairs, lone


def find_classes(root: Path, pairs: Sequence[Pair]) -> ClassTable:
    """Read the classes of a folder.

    Parameters
    ----------
    root : the folder.
    pairs : its frames and masks; some are read for their palette, or for the error.

    Raises
    ------
    DataError : no file with the classes; the error says which ids the masks have.
    """
    for name in CLASS_FILES:
        path = root / name
        if path.is_file():
            return with_palette(class_table(read_classes(path), str(path)), pairs)

    seen: set[int] = set()
    colours = False
    for pair in [pair for pair in pairs if pair.mask is not None][:_LOOKED_AT]:
        assert pair.mask is not None
        raw = read_mask_file(pair.mask)
        colours |= raw.is_colour
        if not raw.is_colour:
            seen.update(int(number) for number in np.unique(raw.values))
    ids = ", ".join(str(number) for number in sorted(seen)[:20])
    raise DataError(
        f"{root}: no file with the names of the classes",
        got="masks in colours" if colours else f"masks with the ids {ids}",
        expected=f"one of {', '.join(CLASS_FILES)}",
        hint="Write classes.txt: one name per line, in the order of the ids"
        + (", each with its colour: road 128 64 128." if colours else "."),
    )


def with_palette(table: ClassTable, pairs: Sequence[Pair]) -> ClassTable:
    """Return a table of classes with the colours of the first mask's palette, if it has one.

    Parameters
    ----------
    table : the classes.
    pairs : the frames and masks.
    """
    first = next((pair.mask for pair in pairs if pair.mask is not None), None)
    if table.label_of_colour or first is None or first.suffix.lower() != ".png":
        return table

    palette = read_mask_file(first).palette
    colours = list(table.labels.palette)
    for number, label in table.label_of.items():
        if label < len(colours) and number < len(palette):
            colours[label] = palette[number]
    return replace(table, labels=table.labels.model_copy(update={"palette": tuple(colours)}))


def with_splits(
    root: Path,
    pairs: Sequence[Pair],
    *,
    lists: dict[str, Path] | None = None,
    shares: dict[str, float] | None = None,
    group: str = "auto",
    seed: int = 0,
) -> tuple[list[Pair], str]:
    """Return the pairs with their groups and splits.

    Parameters
    ----------
    root : the folder.
    pairs : the frames; those with a split keep it.
    lists : file with the frames of each split; those beside the folders if ``None``.
    shares : share of the frames of each split but ``train``, where splits are drawn.
    group : how frames are grouped (``edgeseg.data.splits.grouping``).
    seed : seed of the draw.

    Returns
    -------
    The pairs; and how the splits were drawn, empty if they were given.

    Raises
    ------
    DataError : a list names a frame that is not here, or two lists name one frame.
    """
    rule = grouping(group)
    pairs = [pair if pair.group else replace(pair, group=rule(pair.name)) for pair in pairs]
    if any(pair.split is not None for pair in pairs):
        return pairs, ""

    found = _lists(root) if lists is None else lists
    if found:
        split_of = _listed(found, pairs)
        return [replace(pair, split=split_of.get(pair.name)) for pair in pairs], ""

    names = [pair.name for pair in pairs]
    groups = [pair.group for pair in pairs]
    splits, how = draw_splits(names, groups, shares or {"val": VAL_SHARE}, seed)
    drawn = [replace(pair, split=split) for pair, split in zip(pairs, splits, strict=True)]
    return drawn, how


def _listed(lists: dict[str, Path], pairs: Sequence[Pair]) -> dict[str, str]:
    """Return the split of each frame by lists; without one of ``train`` or ``val``, the rest."""
    by_name = {pair.name: pair.name for pair in pairs}
    by_stem = {pair.name.rpartition("/")[2]: pair.name for pair in pairs}
    split_of: dict[str, str] = {}
    list_of: dict[str, Path] = {}
    for split, path in lists.items():
        for line in _lines(path):
            whole = Path(line).with_suffix("").as_posix() if Path(line).suffix else line
            name = by_name.get(whole) or by_name.get(line) or by_stem.get(Path(line).stem)
            name = name or by_stem.get(Path(line).name)
            if name is None:
                raise DataError(
                    f"{path}: names a frame that is not here",
                    got=line,
                    expected=f"names such as {next(iter(by_name), 'none')}",
                )
            if split_of.get(name, split) != split:
                raise DataError(
                    f"{path}: a frame of two splits",
                    got=f"{name}, also in {list_of[name]}",
                    hint="Remove it from one of the lists: what is scored must not be trained on.",
                )
            split_of[name] = split
            list_of[name] = path

    # All other frames are the split that has no list.
    missing = [split for split in ("train", "val") if split not in lists]
    if len(missing) == 1:
        for pair in pairs:
            split_of.setdefault(pair.name, missing[0])
    return split_of


def _lines(path: Path) -> list[str]:
    """Return the first word of each line of a list."""
    read_list(path)  # raises if it is no text
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines if line.split()]


def _lists(root: Path) -> dict[str, Path]:
    """Return the lists of splits beside the folders, by split."""
    for place in _LISTS_AT:
        found: dict[str, Path] = {}
        for split, spellings in SPLIT_NAMES.items():
            for name in spellings:
                path = root / place / f"{name}.txt"
                if path.is_file():
                    found.setdefault(split, path)
        if found:
            return found
    return {}


def _is_split(path: Path) -> bool:
    """Return True if a folder has the name of a split."""
    return path.is_dir() and canonical_split(path.name) in SPLIT_NAMES


def _frames(folder: Path) -> dict[str, Path]:
    """Return the frames of a folder, or raise ``DataError`` if there are none."""
    frames = pictures_in(folder)
    if not frames:
        raise DataError(f"{folder}: no frames", got="no .png or .jpg file", hint=HINT)
    return frames


def _masks_beside(folder: Path) -> Path:
    """Return the folder of masks beside ``images``: the first that has pictures."""
    there = [folder / name for name in _MASKS if (folder / name).is_dir()]
    for masks in there:
        if any(path.suffix.lower() in MASK_SUFFIXES for path in masks.rglob("*")):
            return masks
    got = f"{', '.join(path.name for path in there)} without pictures" if there else "none"
    kinds = {path.suffix.lower() for masks in there for path in masks.rglob("*.*")}
    hint = HINT
    if ".txt" in kinds:
        hint = "Lists of boxes (YOLO) are no masks: export masks as PNG, or COCO for coco:PATH."
    if ".json" in kinds:
        hint = "For JSON files use coco:PATH, labelme:PATH or supervisely:PATH."
    if kinds & set(LOSSY_SUFFIXES):
        hint = "JPEG changes ids and colours: save the masks as PNG from the tool."
    raise DataError(
        f"{folder}: no folder of masks beside {_IMAGES}/",
        got=got,
        expected=", ".join(f"{name}/" for name in _MASKS),
        hint=hint,
    )


def _mask_files(folder: Path) -> dict[str, Path]:
    """Return the masks of a folder; none if it is not there."""
    return pictures_in(folder, MASK_SUFFIXES) if folder.is_dir() else {}
