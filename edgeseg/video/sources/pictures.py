"""Open pictures: one, or a folder of them."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from edgeseg.errors import InputError
from edgeseg.types import Image
from edgeseg.video.frames import Frame, Source, VideoInfo
from edgeseg.video.sources.opencv import quiet

PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def open_folder(folder: Path) -> Source:
    """Open a folder of pictures, in natural order."""
    paths: list[Path] = []
    for path in folder.iterdir():
        if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file():
            paths.append(path)
    paths.sort(key=natural_key)

    if not paths:
        raise InputError(
            f"{folder}: no pictures in this folder",
            expected=f"files that end in {', '.join(sorted(PICTURE_SUFFIXES))}",
            hint="Sub-folders are not searched: give one of them.",
        )
    return source_of_pictures(paths, folder)


def natural_key(path: Path) -> list[tuple[int, str]]:
    """Return a sort key that puts 2 before 10."""
    key: list[tuple[int, str]] = []
    for part in re.split(r"(\d+)", path.name):
        if part.isdigit():
            key.append((int(part), ""))
        else:
            key.append((-1, part))
    return key


def source_of_pictures(paths: Sequence[Path], origin: Path) -> Source:
    """Return the source of pictures; ``origin`` is the picture or folder that the user named."""
    first = _read_picture(paths[0])
    height, width = first.shape[:2]
    stems = Counter(path.stem for path in paths)

    def frames() -> Iterator[Frame]:
        for index, path in enumerate(paths):
            image = _read_picture(path) if index else first
            # If a.jpg lies beside a.png, keep the suffix: their masks would be one file otherwise.
            name = path.stem if stems[path.stem] == 1 else path.name
            yield Frame(index, image, name, 0.0)

    info = VideoInfo(width, height, fps=None, frames=len(paths), live=False)
    return Source(info, frames(), origin)


def _read_picture(path: Path) -> Image:
    """Read a picture of any depth and channels as (H, W, 3) uint8 BGR; EXIF rotation is applied."""
    with quiet():
        try:
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        except cv2.error:
            image = None
    if image is None:
        raise InputError(
            f"{path}: cannot be read as a picture",
            hint="Remove it, or save it again as PNG or JPEG.",
        )
    return np.asarray(image, np.uint8)
