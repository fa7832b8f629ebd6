"""Read labelme's files: ``labelme:PATH``.

Each frame has a JSON file of its name, beside it or anywhere below the folder. The classes are
those of labelme's ``labels.txt``, or all that the files have, in the order of the alphabet. Shapes
are drawn by Pillow, as labelme draws them: lines ten pixels wide, points with a radius of five.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.data.base import require_folder
from edgeseg.data.class_files import CLASS_FILES, ClassEntry, read_classes
from edgeseg.data.coding import Decoded
from edgeseg.data.collection import Collection, Pair, pictures_in
from edgeseg.data.own_folder import with_splits
from edgeseg.data.shape_sets import (
    ShapeClasses,
    empty_mask,
    read_json,
    shape_classes,
    split_address,
)
from edgeseg.data.shapes import bitmap_of_text, draw_bitmap
from edgeseg.data.splits import SPLIT_NAMES, canonical_split
from edgeseg.errors import DataError, MissingDependencyError
from edgeseg.types import Image

_LINE_WIDTH = 10
_POINT_RADIUS = 5
_POLYGONS = ("polygon", "oriented_rectangle")


def collect_labelme(path: str | Path) -> Collection:
    """Find the frames of a folder with labelme's files.

    Parameters
    ----------
    path : the folder; ``?rest=void`` after it ignores pixels without a shape.

    Raises
    ------
    InputError : no such folder.
    DataError : no JSON file of labelme, or a damaged one.
    MissingDependencyError : Pillow is not installed.
    """
    root, rest = split_address(path)
    require_folder(root, "labelme")
    _pen((1, 1))
    frames = pictures_in(root)
    by_stem: dict[str, list[str]] = {}
    for name in frames:
        by_stem.setdefault(name.rpartition("/")[2], []).append(name)

    # Find the frame of each file.
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    lone: list[Path] = []
    for file in sorted(root.rglob("*.json")):
        value = read_json(file)
        if not isinstance(value, dict) or not isinstance(value.get("shapes"), list):
            continue
        name = file.relative_to(root).with_suffix("").as_posix()
        same = by_stem.get(file.stem, [])
        if name not in frames and len(same) == 1:
            name = same[0]
        if name in frames:
            found[name] = (file, value)
        else:
            lone.append(file)
    if not found:
        raise DataError(
            f"{root}: no frames with labelme's files",
            got=f"{len(frames)} pictures, {len(lone)} files without a picture",
            expected="NAME.jpg and NAME.json",
        )

    classes = _classes(root, [value for _, value in found.values()], rest)
    pairs: list[Pair] = []
    for name, frame in frames.items():
        known = found.get(name)
        # A split's folder is no part of the names.
        top, _, below = name.partition("/")
        split = canonical_split(top) if below else None
        if split not in SPLIT_NAMES:
            split, below = None, name
        known = found.get(name)
        top = canonical_split(name.split("/")[0])
        split = top if "/" in name and top in ("train", "val", "test") else None
        mask = None if known is None else known[0]
        pairs.append(Pair(below, frame, mask, split, about=known[1] if known else None))
    pairs, how = with_splits(root, pairs)

    def decode(pair: Pair) -> Decoded:
        return Decoded(_draw(pair, classes))

    return Collection("labelme", root, classes.labels, pairs, decode, lone, how)


def _classes(root: Path, values: list[dict[str, Any]], rest: str | None) -> ShapeClasses:
    """Return the classes of ``labels.txt``, or those that occur."""
    for file in CLASS_FILES:
        if (root / file).is_file():
            return shape_classes(read_classes(root / file), str(root / file), rest, "labelme")
    names: set[str] = set()
    for value in values:
        names.update(str(shape.get("label")) for shape in value["shapes"])
    entries = [ClassEntry(name) for name in sorted(names)]
    return shape_classes(entries, f"{root}/*.json", rest, "labelme")


def _draw(pair: Pair, classes: ShapeClasses) -> Image:
    """Draw the shapes of a frame in the order of the file."""
    assert pair.mask is not None
    value = pair.about
    size = value.get("imageHeight"), value.get("imageWidth")
    mask = empty_mask(*size, classes, pair.mask)
    for number, shape in enumerate(value["shapes"]):
        label = classes.label(str(shape.get("label")), pair.mask)
        try:
            _draw_shape(mask, shape, label)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise DataError(
                f"{pair.mask}: shape {number} ({shape.get('label')}) cannot be drawn",
                got=str(error)[:100] or type(error).__name__,
            ) from error
    return mask


def _draw_shape(mask: Image, shape: dict[str, Any], label: int) -> None:
    """Draw one shape as ``labelme.utils.shape_to_mask`` does."""
    kind = shape.get("shape_type") or "polygon"
    points = [(float(x), float(y)) for x, y in shape["points"]]
    if kind == "mask":
        corner = int(points[0][0]), int(points[0][1])
        draw_bitmap(mask, bitmap_of_text(shape["mask"]), corner, label)
        return

    area, pen = _pen(mask.shape[:2])
    if kind in _POLYGONS:
        if len(points) < 3:
            raise ValueError(f"a polygon of {len(points)} points")
        pen.polygon(points, fill=1, outline=1)
    elif kind == "rectangle":
        (x0, y0), (x1, y1) = points
        pen.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), fill=1, outline=1)
    elif kind == "circle":
        (x, y), edge = points
        _disc(pen, (x, y), math.dist((x, y), edge))
    elif kind == "point":
        _disc(pen, points[0], _POINT_RADIUS)
    elif kind in ("line", "linestrip"):
        pen.line(points, fill=1, width=_LINE_WIDTH)
    else:
        raise ValueError(f"a shape of the unknown kind {kind!r}")
    mask[np.asarray(area) > 0] = label


def _disc(pen: Any, centre: tuple[float, float], radius: float) -> None:
    """Draw a disc."""
    x, y = centre
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1, outline=1)


def _pen(size: tuple[int, ...]) -> tuple[Any, Any]:
    """Return an empty picture of Pillow, and what draws in it."""
    try:
        from PIL import Image as Pillow
        from PIL import ImageDraw
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "labelme: needs Pillow, which is not installed",
            hint='Install it: pip install "edgeseg[datasets]".',
        ) from error
    height, width = size
    area = Pillow.new("L", (width, height))
    return area, ImageDraw.Draw(area)
