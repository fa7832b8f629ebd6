"""Read COCO's instances: ``coco:PATH``.

``PATH`` is a JSON file, or a folder with ``annotations/instances_train2017.json`` (COCO, CVAT) or
``train/_annotations.coco.json`` (Roboflow). Polygons and run lengths are drawn by COCO's own
library, pycocotools, so that the masks are those that COCO's tools make.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.data.class_files import ClassEntry
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
from edgeseg.data.splits import SPLIT_NAMES
from edgeseg.errors import DataError, InputError, MissingDependencyError
from edgeseg.types import Image

# Files of COCO that hold no classes of pixels.
_OTHERS = ("captions", "person_keypoints", "image_info", "panoptic", "stuff", "deploy")
_KEYS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class _About:
    """Hold a frame's size and shapes, in the order of the file."""

    size: tuple[Any, Any]  # as the file says
    annotations: Sequence[dict[str, Any]]


def collect_coco(path: str | Path) -> Collection:
    """Find the frames of a set in COCO's format.

    Parameters
    ----------
    path : a JSON file, or the folder of one or more; ``?rest=void`` after it ignores pixels without
        a shape.

    Raises
    ------
    InputError : no such file or folder.
    DataError : no file with instances, or a damaged one.
    MissingDependencyError : pycocotools is not installed.
    """
    root, rest = split_address(path)
    if not root.exists():
        raise InputError("coco: no such file or folder", got=repr(str(root)))
    _mask_tools()

    files = [root] if root.is_file() else _files(root)
    base = root.parent if root.is_file() else root
    pictures = pictures_in_all(base)
    pairs: list[Pair] = []
    lone: list[Path] = []
    categories: dict[int, str] = {}
    for file in files:
        value = _checked(read_json(file), file)
        own = {int(one["id"]): str(one["name"]) for one in value["categories"]}
        if categories and own != categories:
            raise DataError(
                f"{file}: other classes than {files[0].name}",
                got=", ".join(own.values()),
                expected=", ".join(categories.values()),
            )
        categories = own
        found, left = _pairs(value, file, base, pictures)
        pairs += found
        lone += left

    entries = [ClassEntry(categories[number]) for number in sorted(categories)]
    classes = shape_classes(entries, str(files[0]), rest, "coco")
    pairs, how = with_splits(base, pairs)

    def decode(pair: Pair) -> Decoded:
        return Decoded(_draw(pair, categories, classes))

    return Collection("coco", root, classes.labels, pairs, decode, lone, how)


def pictures_in_all(folder: Path) -> dict[str, list[Path]]:
    """Return the pictures in and below a folder by the names of their files.

    Parameters
    ----------
    folder : the folder.
    """
    found: dict[str, list[Path]] = {}
    try:
        paths = list(pictures_in(folder).values())
    except DataError:  # a frame and a mask may share a name here
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in paths:
        found.setdefault(path.name, []).append(path)
    return found


def _files(root: Path) -> list[Path]:
    """Return the JSON files of a folder that may hold instances."""
    found = [path for path in sorted(root.rglob("*.json")) if not path.name.startswith(_OTHERS)]
    instances = [path for path in found if path.name.startswith("instances")]
    files = instances or [path for path in found if _is_coco(path)]
    if not files:
        raise DataError(
            f"{root}: no file in COCO's format",
            got=f"{len(found)} other JSON files",
            expected="annotations/instances_*.json, or SPLIT/_annotations.coco.json",
        )
    return files


def _is_coco(path: Path) -> bool:
    """Return True if a JSON file has COCO's keys."""
    value = read_json(path)
    return isinstance(value, dict) and all(key in value for key in _KEYS)


def _checked(value: Any, path: Path) -> dict[str, Any]:
    """Return the content of a file in COCO's format, or raise ``DataError``."""
    if not isinstance(value, dict) or not all(isinstance(value.get(k), list) for k in _KEYS):
        raise DataError(
            f"{path}: not COCO's format",
            got=", ".join(list(value)[:5]) if isinstance(value, dict) else type(value).__name__,
            expected=", ".join(_KEYS),
        )
    return value


def _pairs(
    value: dict[str, Any], file: Path, base: Path, pictures: dict[str, list[Path]]
) -> tuple[list[Pair], list[Path]]:
    """Return the frames of a file, and those whose picture is missing."""
    split = _split_of(file)
    shapes: dict[Any, list[dict[str, Any]]] = {image["id"]: [] for image in value["images"]}
    for annotation in value["annotations"]:
        if annotation["image_id"] not in shapes:
            raise DataError(
                f"{file}: a shape of no frame",
                got=f"annotation {annotation.get('id')} of image {annotation['image_id']}",
            )
        shapes[annotation["image_id"]].append(annotation)

    pairs: list[Pair] = []
    lone: list[Path] = []
    for image in value["images"]:
        name = Path(str(image["file_name"]))
        frame = _frame(name, file, base, split, pictures)
        if frame is None:
            lone.append(file.parent / name)
            continue
        about = _About((image.get("height"), image.get("width")), shapes[image["id"]])
        leaves = name.is_absolute() or ".." in name.parts
        title = name.stem if leaves else name.with_suffix("").as_posix()
        pairs.append(Pair(title, frame, file, split, about=about))
    if not pairs:
        raise DataError(
            f"{file}: none of its frames is here",
            got=f"no {lone[0].name}" if lone else "no images",
            hint="Put the pictures beside the file, or into images/.",
        )
    return pairs, lone


def _frame(
    name: Path, file: Path, base: Path, split: str | None, pictures: dict[str, list[Path]]
) -> Path | None:
    """Return the picture of a frame, or ``None``."""
    folders = [file.parent, base, base / "images"]
    if split:
        folders += [base / split, base / "images" / split]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    same = pictures.get(name.name, [])
    return same[0] if len(same) == 1 else None


def _split_of(file: Path) -> str | None:
    """Return the split that a file's name, or its folder's, says."""
    for word in (*re.split(r"[^A-Za-z]+", file.stem), file.parent.name):
        for split, spellings in SPLIT_NAMES.items():
            if word.lower() in spellings:
                return split
    return None


def _draw(pair: Pair, categories: dict[int, str], classes: ShapeClasses) -> Image:
    """Draw the shapes of a frame in the order of the file."""
    tools = _mask_tools()
    about: _About = pair.about
    assert pair.mask is not None
    mask = empty_mask(*about.size, classes, pair.mask)
    for annotation in about.annotations:
        what = f"{pair.mask}: annotation {annotation.get('id')} of {pair.name}"
        name = categories.get(annotation.get("category_id", -1))
        if name is None:
            raise DataError(
                f"{what} has a category that is not in `categories`",
                got=annotation.get("category_id"),
                expected=f"one of {', '.join(str(n) for n in sorted(categories))}",
            )
        label = classes.label(name, pair.mask)
        shape = annotation.get("segmentation")
        if not shape:
            raise DataError(
                f"{what} has no shape",
                got="a box alone" if annotation.get("bbox") else "nothing",
                hint="A set for detection cannot train segmentation: export polygons or masks.",
            )

        try:
            inside = _inside(tools, shape, mask.shape)
        except Exception as error:  # pycocotools raises several types on damaged shapes
            raise DataError(f"{what} cannot be drawn", got=str(error)[:100]) from error
        if inside.shape != mask.shape:
            raise DataError(f"{what} has another size", got=inside.shape, expected=mask.shape)
        mask[inside > 0] = label
    return mask


def _inside(tools: Any, shape: Any, size: tuple[int, ...]) -> Image:
    """Return where a shape is: a list of polygons, or run lengths, compressed or not."""
    height, width = size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of pycocotools under NumPy 2
        if isinstance(shape, list):
            runs = tools.merge(tools.frPyObjects(shape, height, width))
        elif isinstance(shape["counts"], list):
            runs = tools.frPyObjects(shape, height, width)
        else:
            runs = shape
        return np.asarray(tools.decode(runs), np.uint8)


def _mask_tools() -> Any:
    """Return pycocotools' module of masks."""
    try:
        from pycocotools import mask
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "coco: needs pycocotools, which is not installed",
            hint='Install it: pip install "edgeseg[datasets]".',
        ) from error
    return mask
