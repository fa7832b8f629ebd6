"""Share what readers of shapes (COCO, labelme, Supervisely) have in common.

Shapes of one class are one class, whatever their instance; later shapes lie over earlier ones.
Pixels without a shape are ``background``, unless the classes have a name for unlabelled pixels
(``void``, ``__ignore__``), or the address ends in ``?rest=void``.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.data.class_files import IGNORE_ID, ClassEntry, class_table, is_ignored
from edgeseg.errors import DataError, InputError, did_you_mean
from edgeseg.spec import LabelSpace
from edgeseg.types import Image

BACKGROUND = "background"
_MOST_PIXELS = 1 << 28
_RESTS = (BACKGROUND, "void")


@dataclass(frozen=True)
class ShapeClasses:
    """Hold the classes of shapes.

    Attributes
    ----------
    labels : the label space.
    label_of : label id of each name in the files.
    rest : label id of pixels without a shape.
    source : the file the classes come from.
    """

    labels: LabelSpace
    label_of: dict[str, int]
    rest: int
    source: str

    def label(self, name: str, path: Path) -> int:
        """Return the label id of a shape's class.

        Parameters
        ----------
        name : the class in the file.
        path : the file, for the error.

        Raises
        ------
        DataError : there is no such class.
        """
        found = self.label_of.get(name)
        if found is None:
            raise DataError(
                f"{path}: a shape of no class",
                got=repr(name),
                expected=f"a class of {self.source}",
                hint=did_you_mean(name, self.label_of) or f"Add it to {self.source}.",
            )
        return found


def shape_classes(
    entries: Sequence[ClassEntry], source: str, rest: str | None, title: str
) -> ShapeClasses:
    """Return the classes of shapes.

    Parameters
    ----------
    entries : the classes in order.
    source : where they come from.
    rest : what pixels without a shape are: ``background``, ``void``, or ``None`` for the rule of
        this module.
    title : name of the label space.

    Raises
    ------
    DataError : no classes, or more than 255.

    Examples
    --------
    >>> found = shape_classes([ClassEntry("car")], "coco.json", None, "coco")
    >>> found.labels.names, found.label_of, found.rest
    (('background', 'car'), {'car': 1}, 0)
    """
    # Without a name for unlabelled pixels, they are a class of their own, the first.
    names = [entry.name for entry in entries]
    grounds = [name for name in names if _plain(name) == BACKGROUND]
    if rest is None:
        has_void = any(is_ignored(name) for name in names)
        rest = BACKGROUND if grounds or not has_void else "void"
    if rest == BACKGROUND and not grounds:
        entries = [ClassEntry(BACKGROUND, colour=(0, 0, 0)), *entries]

    plain = [
        ClassEntry(BACKGROUND if entry.name in grounds else entry.name, None, None)
        for entry in entries
    ]
    table = class_table(plain, source, name=title)
    labels = table.labels
    palette = list(labels.palette)
    label_of: dict[str, int] = {}
    for entry, same in zip(entries, plain, strict=True):
        label = IGNORE_ID if is_ignored(same.name) else labels.names.index(same.name)
        if entry.name in names:
            label_of[entry.name] = label
        if entry.colour is not None and label != IGNORE_ID:
            palette[label] = entry.colour
    labels = labels.model_copy(update={"palette": tuple(palette)})
    label = labels.names.index(BACKGROUND) if rest == BACKGROUND else IGNORE_ID
    return ShapeClasses(labels, label_of, label, source)


def split_address(path: str | Path) -> tuple[Path, str | None]:
    """Return the path of an address, and what its ``?rest=`` says.

    Parameters
    ----------
    path : the address without its reader, such as ``/data/set?rest=void``.

    Raises
    ------
    InputError : another option, or another value.

    Examples
    --------
    >>> split_address("/data/set?rest=void")
    (PosixPath('/data/set'), 'void')
    """
    text, _, query = str(path).partition("?")
    if not query:
        return Path(text).expanduser(), None
    key, _, value = query.partition("=")
    if key != "rest" or value not in _RESTS:
        raise InputError(
            f"{text}: unknown option",
            got=f"?{query}",
            expected=" or ".join(f"?rest={known}" for known in _RESTS),
        )
    return Path(text).expanduser(), value


def empty_mask(height: Any, width: Any, classes: ShapeClasses, path: Path) -> Image:
    """Return a mask without shapes.

    Parameters
    ----------
    height, width : its size as the file says.
    classes : the classes; they say what pixels without a shape are.
    path : the file, for the error.

    Raises
    ------
    DataError : it is no size of a picture.
    """
    sides = isinstance(height, int) and isinstance(width, int)
    if not sides or min(height, width) < 1 or height * width > _MOST_PIXELS:
        raise DataError(
            f"{path}: not the size of a picture",
            got=f"height {height!r}, width {width!r}",
            expected=f"1 to {_MOST_PIXELS} pixels",
        )
    return np.full((height, width), classes.rest, np.uint8)


def read_json(path: Path) -> Any:
    """Return the value of a JSON file.

    Parameters
    ----------
    path : the file.

    Raises
    ------
    DataError : it cannot be read as JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        problem = str(error).splitlines()[0]
        raise DataError(f"{path}: not readable as JSON", got=problem) from error


def _plain(name: str) -> str:
    """Return a name in lower case, letters alone."""
    return re.sub(r"[\W_]+", "", name.lower())
