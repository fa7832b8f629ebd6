"""Open pictures: one, a list, or a folder of them."""

import os
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

# Where formats say that they hold more than one picture.
_PNG = b"\x89PNG\r\n\x1a\n"
_WEBP_FLAGS_AT = 20
_WEBP_ANIMATED = 0x02


def open_folder(folder: Path, *, strict: bool = False) -> Source:
    """Open a folder of pictures, in natural order; hidden files are left out.

    Parameters
    ----------
    folder : the folder; its sub-folders are not searched.
    strict : as for ``source_of_pictures``.

    Raises
    ------
    InputError : there are no pictures, or none can be read.
    """
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read", got=error.strerror) from error

    paths: list[Path] = []
    for path in entries:
        # macOS puts "._one.jpg", which is no picture, beside "one.jpg".
        hidden = path.name.startswith(".")
        if path.suffix.lower() in PICTURE_SUFFIXES and not hidden and path.is_file():
            paths.append(path)
    paths.sort(key=natural_key)

    if not paths:
        raise InputError(
            f"{folder}: no pictures in this folder",
            expected=f"files that end in {', '.join(sorted(PICTURE_SUFFIXES))}",
            hint="Sub-folders are not searched: give one of them.",
        )
    return source_of_pictures(paths, folder, strict=strict)


def natural_key(path: Path) -> list[tuple[int, str]]:
    """Return a sort key that puts 2 before 10.

    Parameters
    ----------
    path : the path whose name is sorted.
    """
    key: list[tuple[int, str]] = []
    for part in re.split(r"(\d+)", path.name):
        if part.isdecimal():
            key.append((int(part), ""))
        else:
            key.append((-1, part))
    return key


def source_of_pictures(paths: Sequence[Path], origin: Path | None, *, strict: bool) -> Source:
    """Return the source of pictures.

    Parameters
    ----------
    paths : the pictures, at least one.
    origin : the picture or folder that the user named, if it is one.
    strict : raise at the first picture that cannot be read. Otherwise leave it out, and add its
        error to ``Source.skipped``.

    Raises
    ------
    InputError : a picture cannot be read and ``strict`` is set, or no picture can be read.
    """
    skipped: list[str] = []
    notes: list[str] = []
    readable = _readable(paths, strict, skipped, notes)
    first = next(readable, None)
    if first is None:
        raise _none_readable(paths, origin, skipped)
    height, width = first[1].shape[:2]
    names = _unique_stems(paths)

    def frames() -> Iterator[Frame]:
        pictures = _after(first, readable)
        for index, (number, image) in enumerate(pictures):
            yield Frame(index, image, names[number], 0.0)

    info = VideoInfo(width, height, fps=None, frames=len(paths), live=False)
    source = Source(info, frames(), origin)
    source.skipped = skipped
    source.notes = notes
    return source


def _readable(
    paths: Sequence[Path], strict: bool, skipped: list[str], notes: list[str]
) -> Iterator[tuple[int, Image]]:
    """Yield number and pixels of each picture; add to the lists what there is to say."""
    for number, path in enumerate(paths):
        try:
            image = _read_picture(path, notes)
        except InputError as error:
            if strict:
                raise
            skipped.append(str(error))
            continue
        yield number, image


def _after(
    first: tuple[int, Image], others: Iterator[tuple[int, Image]]
) -> Iterator[tuple[int, Image]]:
    """Yield a picture, then the others."""
    yield first
    yield from others


def _none_readable(paths: Sequence[Path], origin: Path | None, skipped: list[str]) -> InputError:
    """Return the error of pictures of which none can be read."""
    if len(paths) == 1:
        return _unreadable(paths[0])
    return InputError(
        f"{origin or paths[0].parent}: none of {len(paths)} pictures can be read",
        got=f"for the first: {skipped[0]}",
    )


def _unique_stems(paths: Sequence[Path]) -> list[str]:
    """Return a name for each picture: masks with these names do not replace each other."""
    stems = Counter(path.stem for path in paths)
    names = Counter(path.name for path in paths)
    unique: list[str] = []
    for number, path in enumerate(paths):
        if stems[path.stem] == 1:
            name = path.stem
        elif names[path.name] == 1:  # a.jpg beside a.png
            name = path.name
        else:  # a/1.png and b/1.png
            name = f"{number:06d}-{path.stem}"

        # OpenCV, which writes the masks, ends the process if a path is not UTF-8.
        unique.append(os.fsencode(name).decode(errors="backslashreplace"))
    return unique


def _read_picture(path: Path, notes: list[str]) -> Image:
    """Read a picture of any depth and channels as (H, W, 3) uint8 BGR; EXIF rotation is applied.

    This function reads the file, and OpenCV decodes it: OpenCV ends the process if a path is not
    UTF-8. Add a note if the file holds more than one picture.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read", got=error.strerror) from error

    image = None
    if data:
        with quiet():
            try:
                image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            except cv2.error:
                image = None
    if image is None:
        raise _unreadable(path)

    if _holds_several(data):
        notes.append(
            f"{path}: only the first of its pictures is read. Split it: ffmpeg -i FILE OUT%04d.png"
        )
    return np.asarray(image, np.uint8)


def _unreadable(path: Path) -> InputError:
    """Return the error of a picture that cannot be decoded."""
    return InputError(
        f"{os.fspath(path)}: cannot be read as a picture",
        hint="Remove it, or save it again as PNG or JPEG.",
    )


def _holds_several(data: bytes) -> bool:
    """Return whether a file is an animated PNG or WebP, or a TIFF of several pages."""
    if data[:8] == _PNG:
        return b"acTL" in data[: max(0, data.find(b"IDAT"))]
    if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X":
        return bool(data[_WEBP_FLAGS_AT] & _WEBP_ANIMATED) if len(data) > _WEBP_FLAGS_AT else False
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_has_more(data)
    return False


def _tiff_has_more(data: bytes) -> bool:
    """Return whether a TIFF holds a second page."""
    is_little = data[:2] == b"II"

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], "little" if is_little else "big")

    # A directory holds a count, entries of 12 bytes, and the place of the next directory.
    directory = number(4, 4)
    entries = number(directory, 2)
    return number(directory + 2 + 12 * entries, 4) != 0
