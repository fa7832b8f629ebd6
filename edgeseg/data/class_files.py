"""Read the classes of a data set: names, with ids or colours if a file gives them.

Text files have one class per line, in one of these forms; ``#`` begins a comment:

- ``road``
- ``7 road`` or ``7: road``, if all lines begin with an id
- ``road 128 64 128``, ``128 64 128 road``, or CVAT's ``road:128,64,128::``

JSON files hold a list of names, a list of objects (``name`` or ``title``, ``id``, ``color``), or an
object of names by ids, of ids by names, or of colours by names. The list may be below ``classes``,
``labels`` or ``categories``.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgeseg.errors import DataError
from edgeseg.spec import Colour, LabelSpace, first_problem, voc_colour

IGNORE_ID = 255
# Names of what is no class. Case, spaces, hyphens and underscores do not count.
IGNORE_NAMES = ("void", "ignore", "ignored", "unlabelled", "unlabeled", "dontcare", "ignoreregion")
CLASS_FILES = (
    "classes.txt",
    "labels.txt",
    "labelmap.txt",
    "classes.json",
    "labels.json",
)

_LISTS = ("classes", "labels", "categories")
_CVAT = re.compile(r"^([^:]+):(\d+),(\d+),(\d+):[^:]*:[^:]*$")
_NUMBERED = re.compile(r"^(\d+)\s*[:\t ]\s*(\D.*)$")
_COLOUR_LAST = re.compile(r"^(.*?)[\s:,;]+(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})$")
_COLOUR_FIRST = re.compile(r"^(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(.*)$")


@dataclass(frozen=True)
class ClassEntry:
    """Hold what a file says about one class.

    Attributes
    ----------
    name : its name.
    id : its id in the masks; ``None`` for its place in the list.
    colour : its colour in the masks, (R, G, B); ``None`` if the file has none.
    """

    name: str
    id: int | None = None
    colour: Colour | None = None


@dataclass(frozen=True)
class ClassTable:
    """Hold the classes of a data set, and what their pixels are in its masks.

    Attributes
    ----------
    labels : the label space; ids without gaps, in the order of the file, 255 ignored.
    label_of : label id of each id in the masks; 255 for what is ignored.
    label_of_colour : label id of each colour in the masks; 255 for what is ignored.
    source : the file the classes come from, for errors.
    """

    labels: LabelSpace
    label_of: Mapping[int, int]
    label_of_colour: Mapping[Colour, int]
    source: str


def is_ignored(name: str, ignore_names: Collection[str] = IGNORE_NAMES) -> bool:
    """Return True if a name means that pixels have no class.

    Parameters
    ----------
    name : the name.
    ignore_names : the names that mean it, in lower case, letters alone.

    Examples
    --------
    >>> is_ignored("Void"), is_ignored("dont-care"), is_ignored("road")
    (True, True, False)
    """
    return re.sub(r"[\W_]+", "", name.lower()) in ignore_names


def class_table(
    entries: Sequence[ClassEntry],
    source: str,
    *,
    name: str = "own",
    offset: int = 0,
    ignore_ids: Collection[int] = (IGNORE_ID,),
    ignore_names: Collection[str] = IGNORE_NAMES,
) -> ClassTable:
    """Build the table of a data set's classes.

    Entries with one name are one class. Entries whose name is ignored are no class.

    Parameters
    ----------
    entries : the classes, in order.
    source : where they come from, for errors.
    name : name of the label space.
    offset : what is added to an id of the masks to get an entry's id; ids below 0 are then ignored.
    ignore_ids : ids of the masks without a class, unless an entry has them.
    ignore_names : names without a class (``is_ignored``).

    Raises
    ------
    DataError : no classes, more than 255, or two classes with one id or colour.

    Examples
    --------
    >>> table = class_table([ClassEntry("void"), ClassEntry("road"), ClassEntry("car")], "text")
    >>> table.labels.names, dict(table.label_of)
    (('road', 'car'), {0: 255, 1: 0, 2: 1, 255: 255})
    """
    labels: dict[str, int] = {}
    colours: dict[int, Colour] = {}
    label_of: dict[int, int] = {}
    label_of_colour: dict[Colour, int] = {}
    for place, entry in enumerate(entries):
        # Number the classes in the order of their first entry.
        if is_ignored(entry.name, ignore_names):
            label = IGNORE_ID
        else:
            label = labels.setdefault(entry.name, len(labels))
            if entry.colour is not None:
                colours.setdefault(label, entry.colour)

        number = (place if entry.id is None else entry.id) - offset
        _put(label_of, number, label, f"id {number}", source)
        if entry.colour is not None:
            text = "colour {} {} {}".format(*entry.colour)
            _put(label_of_colour, entry.colour, label, text, source)

    # Ids without a class.
    for ignored in (*ignore_ids, *range(-offset)):
        label_of.setdefault(ignored, IGNORE_ID)

    palette = [colours.get(label, voc_colour(label)) for label in range(len(labels))]
    try:
        space = LabelSpace(
            name=name, names=tuple(labels), palette=tuple(palette), ignore_id=IGNORE_ID
        )
    except ValidationError as error:
        raise DataError(
            f"{source}: not the classes of a data set",
            got=f"{len(labels)} names" if not 1 <= len(labels) <= 255 else first_problem(error),
            expected="1 to 255 names",
        ) from error
    return ClassTable(space, label_of, label_of_colour, source)


def read_classes(path: Path) -> list[ClassEntry]:
    """Read the classes that a file lists.

    Parameters
    ----------
    path : a text or a JSON file, in one of the forms above.

    Raises
    ------
    DataError : the file cannot be read, or has none of the forms.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: not readable as UTF-8 text",
            got=type(error).__name__,
            expected="the names of the classes",
        ) from error
    if path.suffix.lower() != ".json":
        return _entries_of_lines(text, path)

    try:
        return classes_of_json(json.loads(text))
    except ValueError as error:
        raise DataError(
            f"{path}: not the classes of a data set",
            got=str(error).splitlines()[0],
            expected='a list of names, or {"0": "road", ...}',
        ) from error


def classes_of_json(value: Any) -> list[ClassEntry]:
    """Return the classes in a value that was read from JSON.

    Parameters
    ----------
    value : the value, in one of the forms above.

    Raises
    ------
    ValueError : it has none of the forms.

    Examples
    --------
    >>> [entry.id for entry in classes_of_json({"7": "road", "8": "car"})]
    [7, 8]
    """
    if isinstance(value, dict):
        for key in _LISTS:
            if isinstance(value.get(key), list | dict):
                return classes_of_json(value[key])
        return [_entry_of_pair(key, inner) for key, inner in value.items()]
    if isinstance(value, list):
        return [_entry_of_item(item) for item in value]
    raise ValueError(f"a {type(value).__name__}")


def _put(table: dict[Any, int], key: Any, label: int, text: str, source: str) -> None:
    """Add an id or a colour to a table, or raise ``DataError`` if another class has it."""
    if table.setdefault(key, label) != label:
        raise DataError(f"{source}: two classes share one mark in the masks", got=text)


def _entries_of_lines(text: str, path: Path) -> list[ClassEntry]:
    """Return the classes of a text file."""
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    numbered = [_NUMBERED.match(line) for line in lines]
    if lines and all(numbered) and not all(_COLOUR_FIRST.match(line) for line in lines):
        pairs = [(match[1], match[2]) for match in numbered if match]
        return [_with_colour(name, int(number), path) for number, name in pairs]
    return [_with_colour(line, None, path) for line in lines]


def _with_colour(line: str, number: int | None, path: Path) -> ClassEntry:
    """Return the class of a line, with its colour if it has one."""
    first = _COLOUR_FIRST.match(line)
    last = _CVAT.match(line) or _COLOUR_LAST.match(line)
    if first:
        channels, name = first.groups()[:3], first[4]
    elif last:
        channels, name = last.groups()[1:], last[1]
    else:
        return ClassEntry(line, number)
    return ClassEntry(name.strip(), number, _colour(channels, f"{path}: {name.strip()}"))


def _colour(channels: Sequence[Any], what: str) -> Colour:
    """Return a colour of three channels."""
    values = [int(channel) for channel in channels]
    if len(values) != 3 or not all(0 <= value <= 255 for value in values):
        raise DataError(f"{what}: not a colour", got=values, expected="R G B, each 0..255")
    return values[0], values[1], values[2]


def _entry_of_pair(key: str, value: Any) -> ClassEntry:
    """Return the class of one pair of a JSON object."""
    if isinstance(value, str):
        return ClassEntry(value, int(key))
    if isinstance(value, int):
        return ClassEntry(key, value)
    if isinstance(value, list):
        return ClassEntry(key, None, _colour(value, key))
    raise ValueError(f"{key}: a {type(value).__name__}")


def _entry_of_item(item: Any) -> ClassEntry:
    """Return the class of one item of a JSON list."""
    if isinstance(item, str):
        return ClassEntry(item)
    name = item.get("name") or item.get("title") if isinstance(item, dict) else None
    if not isinstance(name, str):
        raise ValueError(f"an item without a name: {item!r:.60}")

    colour = item.get("color", item.get("colour"))
    if isinstance(colour, str):
        colour = bytes.fromhex(colour.lstrip("#"))
    number = item.get("id")
    return ClassEntry(
        name,
        number if isinstance(number, int) else None,
        _colour(colour, name) if colour else None,
    )
