"""Read a project of Supervisely: ``supervisely:PATH``.

``meta.json`` has the classes; each data set of the project has ``img/NAME.jpg`` and
``ann/NAME.jpg.json`` with polygons, rectangles and bitmaps. Data sets named ``train``, ``val`` and
``test`` are the splits.
"""

from pathlib import Path
from typing import Any

from edgeseg.data.base import require_folder
from edgeseg.data.class_files import classes_of_json
from edgeseg.data.coding import Decoded
from edgeseg.data.collection import FRAME_SUFFIXES, Collection, Pair
from edgeseg.data.own_folder import with_splits
from edgeseg.data.shape_sets import (
    ShapeClasses,
    empty_mask,
    read_json,
    shape_classes,
    split_address,
)
from edgeseg.data.shapes import bitmap_of_text, draw_bitmap, draw_polygon
from edgeseg.data.splits import SPLIT_NAMES, canonical_split
from edgeseg.errors import DataError
from edgeseg.types import Image


def collect_supervisely(path: str | Path) -> Collection:
    """Find the frames of a project of Supervisely.

    Parameters
    ----------
    path : the folder with ``meta.json``; ``?rest=void`` after it ignores pixels without a shape.

    Raises
    ------
    InputError : no such folder.
    DataError : no ``meta.json``, or no frames.
    """
    root, rest = split_address(path)
    require_folder(root, "supervisely")
    meta = root / "meta.json"
    if not meta.is_file():
        raise DataError(f"{root}: no project of Supervisely", expected="meta.json and DATASET/img/")
    try:
        entries = classes_of_json(read_json(meta)["classes"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{meta}: no classes", got=str(error)[:100]) from error
    classes = shape_classes(entries, str(meta), rest, "supervisely")

    pairs: list[Pair] = []
    lone: list[Path] = []
    for folder in sorted(root.rglob("img")):
        dataset = folder.parent
        name = dataset.relative_to(root).as_posix()
        split = canonical_split(name)
        annotations = {
            file.name.removesuffix(".json"): file
            for file in sorted((dataset / "ann").glob("*.json"))
        }
        for frame in sorted(folder.iterdir()):
            if frame.suffix.lower() in FRAME_SUFFIXES:
                file = annotations.pop(frame.name, annotations.pop(frame.stem, None))
                pairs.append(
                    Pair(
                        f"{name}/{frame.stem}" if split not in SPLIT_NAMES else frame.stem,
                        frame,
                        file,
                        split if split in SPLIT_NAMES else None,
                    )
                )
        lone += annotations.values()
    if not pairs:
        raise DataError(f"{root}: no frames", expected="DATASET/img/NAME.jpg")
    pairs, how = with_splits(root, pairs)

    def decode(pair: Pair) -> Decoded:
        return Decoded(_draw(pair, classes))

    return Collection("supervisely", root, classes.labels, pairs, decode, lone, how)


def _draw(pair: Pair, classes: ShapeClasses) -> Image:
    """Draw the objects of a frame in the order of the file."""
    assert pair.mask is not None
    value = read_json(pair.mask)
    try:
        size = value["size"]["height"], value["size"]["width"]
        objects = value["objects"]
    except (KeyError, TypeError) as error:
        raise DataError(f"{pair.mask}: not Supervisely's format", expected="size, objects") from (
            error
        )

    mask = empty_mask(*size, classes, pair.mask)
    for number, shape in enumerate(objects):
        label = classes.label(str(shape.get("classTitle")), pair.mask)
        try:
            _draw_object(mask, shape, label)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise DataError(
                f"{pair.mask}: object {number} ({shape.get('classTitle')}) cannot be drawn",
                got=str(error)[:100] or type(error).__name__,
            ) from error
    return mask


def _draw_object(mask: Image, shape: dict[str, Any], label: int) -> None:
    """Draw one object."""
    kind = shape.get("geometryType")
    if kind == "bitmap":
        x, y = shape["bitmap"]["origin"]
        draw_bitmap(mask, bitmap_of_text(shape["bitmap"]["data"]), (int(x), int(y)), label)
    elif kind == "polygon":
        points = shape["points"]
        draw_polygon(mask, points["exterior"], points.get("interior", []), label)
    elif kind == "rectangle":
        (left, top), (right, bottom) = shape["points"]["exterior"]
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        draw_polygon(mask, corners, [], label)
    else:
        raise ValueError(f"a shape of the kind {kind!r}, not bitmap, polygon or rectangle")
