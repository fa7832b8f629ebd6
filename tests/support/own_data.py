"""One small labelled set, and what writes it in the layouts and formats that people have.

Four drives of four frames, 48x64. The top is void, then sky; the lower half is road; a car stands
on the road, drawn over it. ``NAMES[MASKS[...]]`` are the classes by name.
"""

import base64
import io
import json
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from edgeseg.data import Dataset, iterate

Array = npt.NDArray[Any]

CLASSES = ("sky", "road", "car")
COLOURS = ((70, 130, 180), (128, 64, 128), (0, 0, 142))
VOID_COLOUR = (0, 0, 0)
HEIGHT, WIDTH = 48, 64
DRIVES = ("drivea", "driveb", "drivec", "drived")
NAMES = tuple(f"{drive}_{number:04d}" for drive in DRIVES for number in range(4))
VAL_DRIVE = "drived"


def car_box(name: str) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the car, the last two exclusive."""
    left = 4 + 7 * int(name[-4:]) + 3 * DRIVES.index(name.split("_")[0])
    return left, 28, left + 16, 40


def mask_of(name: str) -> Array:
    """(H, W) uint8: 0 sky, 1 road, 2 car, 255 void."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[24:] = 1
    left, top, right, bottom = car_box(name)
    mask[top:bottom, left:right] = 2
    mask[:4] = 255
    return mask


def frame_of(name: str) -> Array:
    """(H, W, 3) uint8 BGR: the colours of the classes, with noise of its own."""
    rng = np.random.default_rng(NAMES.index(name))
    colours = np.array([*COLOURS, VOID_COLOUR], np.float64)[..., ::-1]
    mask = mask_of(name)
    clean = colours[np.where(mask == 255, 3, mask)]
    return np.clip(clean + rng.normal(20, 12, clean.shape), 0, 255).astype(np.uint8)


# The shapes in the order in which they are drawn: class, and box.
def shapes_of(name: str) -> list[tuple[str, tuple[int, int, int, int]]]:
    return [
        ("sky", (0, 0, WIDTH, 24)),
        ("road", (0, 24, WIDTH, HEIGHT)),
        ("car", car_box(name)),
        ("void", (0, 0, WIDTH, 4)),
    ]


def split_of(name: str) -> str:
    return "val" if name.startswith(VAL_DRIVE) else "train"


def write_frame(path: Path, name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), frame_of(name))


def write_ids(path: Path, ids: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), ids)


def write_palette(path: Path, ids: Array, colours: Sequence[tuple[int, int, int]]) -> None:
    """A PNG with a palette, by Pillow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Pillow.fromarray(ids)
    picture.putpalette([channel for colour in colours for channel in colour])
    picture.save(path)


def write_colours(path: Path, ids: Array) -> None:
    table = np.zeros((256, 3), np.uint8)
    table[:3] = COLOURS
    write_ids(path, table[ids][..., ::-1])


def write_folder(root: Path, *, by_split: str = "images/train") -> Path:
    """``folder:`` with masks of ids; ``by_split`` is ``flat``, ``images/train`` or
    ``train/images``.
    """
    for name in NAMES:
        split = split_of(name)
        frames, masks = {
            "flat": ("images", "masks"),
            "images/train": (f"images/{split}", f"masks/{split}"),
            "train/images": (f"{split}/images", f"{split}/masks"),
        }[by_split]
        write_frame(root / frames / f"{name}.png", name)
        write_ids(root / masks / f"{name}.png", mask_of(name))
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return root


def _polygon(box: tuple[int, int, int, int]) -> list[float]:
    left, top, right, bottom = box
    return [left, top, right, top, right, bottom, left, bottom]


def _inside(box: tuple[int, int, int, int]) -> Array:
    left, top, right, bottom = box
    inside = np.zeros((HEIGHT, WIDTH), np.uint8)
    inside[top:bottom, left:right] = 1
    return inside


def write_coco(root: Path, kind: str = "polygons") -> Path:
    """COCO's layout; ``kind`` is ``polygons``, ``runs`` or ``compressed``."""
    from pycocotools import mask as tools

    ids = {"sky": 3, "road": 7, "car": 8, "void": 90}
    for split in ("train", "val"):
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, name in enumerate(NAMES):
            if split_of(name) != split:
                continue
            write_frame(root / f"{split}2017" / f"{name}.png", name)
            images.append(
                {"id": number, "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH}
            )
            for label, box in shapes_of(name):
                shape: Any = [_polygon(box)]
                if kind != "polygons":
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", DeprecationWarning)
                        runs = tools.encode(np.asfortranarray(_inside(box)))
                    shape = {"size": runs["size"], "counts": runs["counts"].decode()}
                if kind == "runs":
                    flat = _inside(box).flatten("F")
                    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
                    counts = np.diff(np.concatenate([[0], edges])).tolist()
                    shape = {"size": [HEIGHT, WIDTH], "counts": counts}
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": number,
                        "category_id": ids[label],
                        "segmentation": shape,
                        "iscrowd": int(kind != "polygons"),
                    }
                )
        value = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": i, "name": name} for name, i in ids.items()],
        }
        path = root / "annotations" / f"instances_{split}2017.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    return root


def png_text(bitmap: Array, *, transparent: bool = False) -> bytes:
    """A small mask as PNG: grey as labelme, or with a transparent palette as Supervisely."""
    picture = Pillow.fromarray(bitmap * (1 if transparent else 255))
    content = io.BytesIO()
    if transparent:
        picture.putpalette([0, 0, 0, 255, 255, 255])
        picture.save(content, "PNG", transparency=0)
    else:
        picture.save(content, "PNG")
    return content.getvalue()


def write_labelme(root: Path) -> Path:
    for name in NAMES:
        folder = root / split_of(name)
        write_frame(folder / f"{name}.png", name)
        shapes: list[dict[str, Any]] = []
        for label, (left, top, right, bottom) in shapes_of(name):
            box = [[left, top], [right - 1, bottom - 1]]
            shape: dict[str, Any] = {"label": label, "points": box, "shape_type": "rectangle"}
            if label == "sky":
                (x0, y0), (x1, y1) = box
                shape["points"] = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
                shape["shape_type"] = "polygon"
            if label == "car":
                bitmap = np.ones((bottom - top, right - left), np.uint8)
                shape["shape_type"] = "mask"
                shape["mask"] = base64.b64encode(png_text(bitmap)).decode()
            shapes.append(shape)
        value: dict[str, Any] = {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": f"{name}.png",
            "imageData": None,
            "imageHeight": HEIGHT,
            "imageWidth": WIDTH,
        }
        (folder / f"{name}.json").write_text(json.dumps(value))
    (root / "labels.txt").write_text("__ignore__\nvoid\nsky\nroad\ncar\n")
    return root


def write_supervisely(root: Path) -> Path:
    names = ("void", *CLASSES)
    classes = [
        {"title": name, "shape": "any", "color": "#{:02X}{:02X}{:02X}".format(*colour)}
        for name, colour in zip(names, (VOID_COLOUR, *COLOURS), strict=True)
    ]
    root.mkdir(parents=True, exist_ok=True)
    (root / "meta.json").write_text(json.dumps({"classes": classes, "tags": []}))
    for name in NAMES:
        folder = root / split_of(name)
        write_frame(folder / "img" / f"{name}.png", name)
        objects: list[dict[str, Any]] = []
        for label, (left, top, right, bottom) in shapes_of(name):
            one: dict[str, Any] = {"classTitle": label, "geometryType": "rectangle"}
            one["points"] = {
                "exterior": [[left, top], [right - 1, bottom - 1]],
                "interior": [],
            }
            if label == "car":
                bitmap = np.ones((bottom - top, right - left), np.uint8)
                bitmap = np.pad(bitmap, 1)  # a margin that is not the car
                data = zlib.compress(png_text(bitmap, transparent=True))
                text = base64.b64encode(data).decode()
                one["geometryType"] = "bitmap"
                one["bitmap"] = {"data": text, "origin": [left - 1, top - 1]}
            objects.append(one)
        value: dict[str, Any] = {
            "size": {"height": HEIGHT, "width": WIDTH},
            "objects": objects,
            "tags": [],
        }
        (folder / "ann").mkdir(exist_ok=True)
        (folder / "ann" / f"{name}.png.json").write_text(json.dumps(value))
    return root


def write_cvat(root: Path) -> Path:
    lines = ["# label:color_rgb:parts:actions", "void:0,0,0::"]
    for name, (red, green, blue) in zip(CLASSES, COLOURS, strict=True):
        lines.append(f"{name}:{red},{green},{blue}::")
    root.mkdir(parents=True, exist_ok=True)
    (root / "labelmap.txt").write_text("\n".join(lines))
    lists: dict[str, list[str]] = {"train": [], "val": []}
    for name in NAMES:
        write_frame(root / "JPEGImages" / f"{name}.png", name)
        write_colours(root / "SegmentationClass" / f"{name}.png", mask_of(name))
        lists[split_of(name)].append(name)
    at = root / "ImageSets" / "Segmentation"
    at.mkdir(parents=True)
    for split, names in lists.items():
        (at / f"{split}.txt").write_text("\n".join(names))
    return root


def _mapped(ids: Sequence[int], void: int) -> Callable[[str], Array]:
    """What gives a mask with other ids for sky, road and car."""
    table = np.full(256, void, np.uint8)
    table[:3] = ids
    return lambda name: table[mask_of(name)]


def write_bdd100k(root: Path) -> Path:
    ids = _mapped((10, 0, 13), 255)
    for name in NAMES:
        write_frame(root / "images" / "10k" / split_of(name) / f"{name}.png", name)
        masks = root / "labels" / "sem_seg" / "masks" / split_of(name)
        write_ids(masks / f"{name}.png", ids(name))
    return root


def write_kitti(root: Path) -> Path:
    ids = _mapped((23, 7, 26), 0)
    for name in NAMES:
        write_frame(root / "training" / "image_2" / f"{name}.png", name)
        write_ids(root / "training" / "semantic" / f"{name}.png", ids(name))
    (root / "val.txt").write_text("\n".join(n for n in NAMES if split_of(n) == "val"))
    return root


def write_ade20k(root: Path) -> Path:
    ids = _mapped((1, 2, 3), 0)
    for name in NAMES:
        split = {"train": "training", "val": "validation"}[split_of(name)]
        write_frame(root / "images" / split / f"{name}.png", name)
        write_ids(root / "annotations" / split / f"{name}.png", ids(name))
    rows = ["Idx\tRatio\tTrain\tVal\tName", "1\t0.1\t1\t1\tsky", "2\t0.1\t1\t1\troad, route"]
    rows += ["3\t0.1\t1\t1\tcar, auto", "4\t0.1\t1\t1\tscreen, door", "5\t0\t1\t1\tscreen, silver"]
    (root / "objectInfo150.txt").write_text("\n".join(rows))
    return root


def write_mapillary(root: Path) -> Path:
    names = ("Sky", "Road", "Car", "Unlabeled")
    colours = (*COLOURS, VOID_COLOUR)
    labels = [
        {"name": f"a--{name.lower()}", "readable": name, "color": colour, "evaluate": True}
        for name, colour in zip(names, colours, strict=True)
    ]
    root.mkdir(parents=True, exist_ok=True)
    (root / "config.json").write_text(json.dumps({"labels": labels}))
    ids = _mapped((0, 1, 2), 3)
    for name in NAMES:
        split = {"train": "training", "val": "validation"}[split_of(name)]
        write_frame(root / split / "images" / f"{name}.png", name)
        write_palette(root / split / "labels" / f"{name}.png", ids(name), colours)
    return root


def named(data: Dataset) -> dict[str, list[list[str]]]:
    """The class of every pixel by name, in lower case, for each frame."""
    names = np.array([*(name.lower() for name in data.labels.names)] + ["?"] * 256)[:256]
    names[data.labels.ignore_id] = "void"
    return {sample.name: names[sample.mask].tolist() for sample in iterate(data)}


def expected(split: str) -> dict[str, list[list[str]]]:
    """What ``named`` gives for the set."""
    names = np.array([*CLASSES, *["?"] * 252, "void"])
    wanted = [name for name in NAMES if split in ("all", split_of(name))]
    return {name: names[mask_of(name)].tolist() for name in wanted}
