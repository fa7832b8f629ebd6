"""Read ``data.toml``: the description of a data set whose layout ``folder:PATH`` does not know.

Every key has a default, so that a file may say only what differs.
"""

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeseg.data.class_files import (
    CLASS_FILES,
    IGNORE_ID,
    IGNORE_NAMES,
    ClassEntry,
    ClassTable,
    class_table,
    read_classes,
)
from edgeseg.data.coding import Coding
from edgeseg.data.collection import FRAME_SUFFIXES, Collection, Pair
from edgeseg.data.own_folder import (
    VAL_SHARE,
    collection_of_masks,
    find_classes,
    find_pairs,
    with_palette,
    with_splits,
)
from edgeseg.data.splits import canonical_split, grouping
from edgeseg.errors import DataError, InputError
from edgeseg.spec import Colour, first_problem

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Share = Annotated[float, Field(ge=0, lt=1)]


class _Section(BaseModel):
    """Reject unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassesSection(_Section):
    """Describe the classes.

    Attributes
    ----------
    file : a file with the classes (``edgeseg.data.class_files``).
    names : the names, instead of a file.
    ids : name of each id in the masks, instead of names in order. Ids with one name are one class.
    colours : (R, G, B) of each class in the masks.
    offset : what is added to an id of the masks; -1 if they begin at 1, and 0 is unlabelled.
    ignore_ids : ids without a class.
    ignore_names : names without a class; ``[]`` makes void a class.
    coding : what the masks hold: ids, colours, or ``auto``.
    """

    file: str | None = None
    names: tuple[str, ...] = ()
    ids: dict[int, str] = {}
    colours: dict[str, Colour] = {}
    offset: int = 0
    ignore_ids: tuple[int, ...] = (IGNORE_ID,)
    ignore_names: tuple[str, ...] = IGNORE_NAMES
    coding: Coding = "auto"


class FramesSection(_Section):
    """Describe where some frames and their masks are.

    Attributes
    ----------
    root : folder of the two patterns, from the folder of ``data.toml`` on.
    images : pattern of the frames' files, such as ``*/rgb/*.jpg``; ``**`` is any folders.
    masks : file of a frame's mask. ``{name}`` is the frame's name without suffix, ``{folder}`` its
        folder from ``root`` on, ``{parent}`` the folder above that.
    suffix : end of the frames' names that the masks' do not have, such as ``_rgb``.
    split : split of these frames.
    group : drive or sequence of these frames.
    """

    root: str = "."
    images: str = ""
    masks: str = ""
    suffix: str = ""
    split: str | None = None
    group: str | None = None


class SplitsSection(_Section):
    """Describe the splits.

    Attributes
    ----------
    train, val, test : a list of the split's frames.
    val_share, test_share : share of the frames, if splits are drawn.
    group : ``auto``, ``none``, or a regular expression whose first group is a frame's group.
    seed : another seed draws other groups.
    """

    train: str | None = None
    val: str | None = None
    test: str | None = None
    val_share: Share = VAL_SHARE
    test_share: Share = 0.0
    group: str = "auto"
    seed: int = 0


class Description(_Section):
    """Describe a data set.

    Attributes
    ----------
    name : its name.
    unlabelled : what happens to frames without mask: ``error``, or ``skip``.
    classes, splits : the sections.
    frames : where the frames are; empty for the layouts of ``folder:PATH``.

    Examples
    --------
    >>> Description.model_validate({"classes": {"names": ["road"]}}).classes.offset
    0
    """

    name: str = "folder"
    unlabelled: Annotated[str, Field(pattern="^(error|skip)$")] = "error"
    classes: ClassesSection = ClassesSection()
    splits: SplitsSection = SplitsSection()
    frames: tuple[FramesSection, ...] = ()


def load_description(path: Path) -> Description:
    """Read and check a ``data.toml``.

    Parameters
    ----------
    path : the file.

    Raises
    ------
    InputError : it is missing, is no TOML, or has an unknown key or a wrong value.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("no such description of data", got=repr(str(path))) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problem = str(error).splitlines()[0]
        raise InputError(f"{path}: not a readable TOML file", got=problem) from error

    try:
        description = Description.model_validate(values)
        grouping(description.splits.group)
    except ValidationError as error:
        problem = first_problem(error, Description)
        raise InputError(f"{path}: not a valid description of data", got=problem) from error
    except re.error as error:
        raise InputError(
            f"{path}: splits.group is no regular expression", got=str(error)
        ) from error
    return description


def collect_described(path: Path) -> Collection:
    """Find the frames and masks that a ``data.toml`` describes.

    Parameters
    ----------
    path : the file.

    Raises
    ------
    InputError : the description is not valid.
    DataError : the data is not as described.
    """
    description = load_description(path)
    root = path.parent
    if description.frames:
        pairs: list[Pair] = []
        for section in description.frames:
            pairs += _pairs_of(root, section, path)
        _require_unique(pairs, path)
        lone: list[Path] = []
    else:
        pairs, lone = find_pairs(root)
    if description.unlabelled == "skip":
        pairs = [pair for pair in pairs if pair.mask is not None]

    table = _table_of(root, description, pairs, path)
    splits = description.splits
    named = {"train": splits.train, "val": splits.val, "test": splits.test}
    lists = {split: root / name for split, name in named.items() if name is not None}
    pairs, how = with_splits(
        root,
        pairs,
        lists=lists or None,
        shares={"val": splits.val_share, "test": splits.test_share},
        group=splits.group,
        seed=splits.seed,
    )
    return collection_of_masks(
        description.name,
        path,
        table,
        pairs,
        coding=description.classes.coding,
        lone_masks=lone,
        how=how,
    )


def _pairs_of(root: Path, section: FramesSection, path: Path) -> list[Pair]:
    """Return the frames of a section with their masks."""
    for key in ("images", "masks"):  # no required keys: a misspelt one is named instead
        if not getattr(section, key):
            raise InputError(
                f"{path}: a section of frames without `{key}`",
                expected='such as images = "*/rgb/*.jpg" and masks = "{folder}/{name}.png"',
            )
    base = root / section.root
    if not base.is_dir():
        raise DataError(f"{path}: no such folder", got=section.root, expected="a folder in `root`")
    try:
        files = sorted(base.glob(section.images))
    except (ValueError, NotImplementedError) as error:
        raise InputError(f"{path}: not a pattern of files", got=section.images) from error
    files = [file for file in files if file.suffix.lower() in FRAME_SUFFIXES]
    if not files:
        raise DataError(f"{path}: no frames", got=f"no picture fits {section.images!r} in {base}")

    pairs: list[Pair] = []
    split = canonical_split(section.split) if section.split else None
    for file in files:
        stem = file.stem.removesuffix(section.suffix)
        folder = file.parent.relative_to(base).as_posix()
        values = {"name": stem, "folder": folder, "parent": Path(folder).parent.as_posix()}
        try:
            mask = base / section.masks.format(**values)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise InputError(
                f"{path}: not a pattern of masks",
                got=section.masks,
                expected="{name}, {folder} and {parent} alone",
            ) from error
        name = file.relative_to(root).with_name(stem).as_posix()
        found = mask if mask.is_file() else None
        pairs.append(Pair(name, file, found, split, section.group or ""))

    # A pattern that fits nothing is a mistake in the pattern.
    if all(pair.mask is None for pair in pairs):
        raise DataError(
            f"{path}: no masks fit {section.masks!r}",
            got=f"no file {mask}",
            hint="{name} is the frame's name, {folder} its folder from `root` on.",
        )
    return _shortened(pairs)


def _shortened(pairs: list[Pair]) -> list[Pair]:
    """Return pairs named by their file alone if these names differ; groups stay by folder."""
    short = [pair.name.rpartition("/")[2] for pair in pairs]
    if len({pair.frame.parent for pair in pairs}) > 1 or len(set(short)) < len(short):
        return pairs
    return [replace(pair, name=name) for pair, name in zip(pairs, short, strict=True)]


def _require_unique(pairs: list[Pair], path: Path) -> None:
    """Raise ``DataError`` if two frames have one file or name."""
    seen: dict[str, Path] = {}
    for pair in pairs:
        if pair.name in seen:
            raise DataError(
                f"{path}: two frames with one name",
                got=f"{seen[pair.name]} and {pair.frame}",
                hint="Give one section with a pattern for all folders, such as `*/images/*.png`.",
            )
        seen[pair.name] = pair.frame


def _table_of(root: Path, description: Description, pairs: list[Pair], path: Path) -> ClassTable:
    """Return the classes of a description."""
    section = description.classes
    given = [key for key in ("file", "names", "ids") if getattr(section, key)]
    if len(given) > 1:
        raise InputError(
            f"{path}: classes are given twice", got=" and ".join(given), expected="one of them"
        )
    source = str(path)
    if section.ids:
        entries = [ClassEntry(name, number) for number, name in section.ids.items()]
    elif section.names:
        entries = [ClassEntry(name) for name in section.names]
    elif section.colours and section.file is None:
        entries = [ClassEntry(name) for name in section.colours]
    else:
        found = [root / section.file] if section.file else [root / name for name in CLASS_FILES]
        file = next((file for file in found if file.is_file()), None)
        if file is None and section.file is None:
            return find_classes(root, pairs)
        if file is None:
            raise DataError(f"{path}: no such file of classes", got=section.file)
        entries = read_classes(file)
        source = str(file)

    unknown = set(section.colours) - {entry.name for entry in entries}
    if unknown:
        raise InputError(f"{path}: a colour of no class", got=min(unknown))
    entries = [replace(e, colour=section.colours.get(e.name, e.colour)) for e in entries]
    ignored = tuple(re.sub(r"[\W_]+", "", name.lower()) for name in section.ignore_names)
    table = class_table(
        entries,
        source,
        name=description.name,
        offset=section.offset,
        ignore_ids=section.ignore_ids,
        ignore_names=ignored,
    )
    return with_palette(table, pairs)
