"""Read mask files as they are stored: ids, the indices of a palette with its colours, or colours.

OpenCV turns palettes into colours, and scales masks of 1, 2 or 4 bits to 0..255. Both would lose
the ids, so such a PNG gets the header of a plain grey one before it is decoded.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.errors import DataError
from edgeseg.spec import Colour
from edgeseg.types import Image

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
LOSSY_SUFFIXES = (".jpg", ".jpeg", ".webp")

_PNG = b"\x89PNG\r\n\x1a\n"
_HEADER = ">IIBBBBB"  # width, height, depth, colour type, compression, filter, interlace
_GREY = 0
_PALETTE = 3


@dataclass(frozen=True)
class RawMask:
    """Hold a mask as its file has it.

    Attributes
    ----------
    values : (H, W) uint8 or uint16 ids, or (H, W, 3) uint8 BGR colours.
    palette : (R, G, B) of each id; empty if the file has no palette.

    Examples
    --------
    >>> RawMask(np.zeros((2, 3), np.uint8)).is_colour
    False
    """

    values: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    palette: tuple[Colour, ...] = ()

    @property
    def is_colour(self) -> bool:
        """Return True if the file has colours instead of ids."""
        return self.values.ndim == 3


def read_mask_file(path: Path) -> RawMask:
    """Read a mask.

    Parameters
    ----------
    path : a PNG, BMP or TIFF file. Grey pictures that are stored in three channels become ids.

    Raises
    ------
    DataError : the file is missing, damaged, lossy, or has neither 8 nor 16 bits.
    """
    if path.suffix.lower() in LOSSY_SUFFIXES:
        raise DataError(
            f"{path}: a mask in a lossy format",
            got=path.suffix,
            expected="one of " + ", ".join(MASK_SUFFIXES),
            hint="JPEG changes ids and colours: save the masks as PNG from the tool.",
        )
    data = read_bytes(path)
    if data.startswith(_PNG):
        return _read_png(data, path)
    return RawMask(_ids_or_colours(_decode(data, path), path))


def read_bytes(path: Path) -> bytes:
    """Return the content of a picture's file.

    Parameters
    ----------
    path : the file.

    Raises
    ------
    DataError : the file cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: cannot be read as a picture", got="no such file") from None
    except OSError as error:
        problem = error.strerror or str(error)
        raise DataError(f"{path}: cannot be read as a picture", got=problem) from error


def colour_codes(picture: Image) -> npt.NDArray[np.int32]:
    """Return one number per pixel: 8 bits each of red, green and blue.

    Parameters
    ----------
    picture : (H, W, 3) uint8 BGR.

    Examples
    --------
    >>> colour_codes(np.array([[[3, 2, 1]]], np.uint8)).tolist() == [[1 << 16 | 2 << 8 | 3]]
    True
    """
    wide = picture.astype(np.int32)
    codes: npt.NDArray[np.int32] = wide[..., 2] << 16 | wide[..., 1] << 8 | wide[..., 0]
    return codes


def _read_png(data: bytes, path: Path) -> RawMask:
    """Read a PNG; indices of a palette stay indices."""
    try:
        chunks = list(_chunks(data))
        width, height, depth, kind, *rest = struct.unpack(_HEADER, chunks[0][1])
    except (struct.error, IndexError):
        raise DataError(f"{path}: cannot be read as a picture", got="damaged") from None
    if kind != _PALETTE and (kind != _GREY or depth >= 8):
        return RawMask(_ids_or_colours(_decode(data, path), path))

    # The same pixels as a grey picture.
    header = struct.pack(_HEADER, width, height, depth, _GREY, *rest)
    pixels = b"".join(body for name, body in chunks if name == b"IDAT")
    grey = _PNG + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")
    values = _decode(grey, path)
    if values.ndim == 3:
        values = values[..., 0]
    if depth < 8:
        values = values // (255 // (2**depth - 1))

    stored = b"".join(body for name, body in chunks if name == b"PLTE")
    triples = [stored[start : start + 3] for start in range(0, len(stored) - 2, 3)]
    palette = tuple((red, green, blue) for red, green, blue in triples)
    return RawMask(values.astype(np.uint8, copy=False), palette)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and the content of each chunk of a PNG."""
    place = len(_PNG)
    while place + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[place : place + 8])
        yield name, data[place + 8 : place + 8 + length]
        place += length + 12


def _chunk(name: bytes, body: bytes) -> bytes:
    """Return a chunk of a PNG, with its length and its check sum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _decode(data: bytes, path: Path) -> npt.NDArray[Any]:
    """Decode a picture by OpenCV, without changing its depth."""
    content = np.frombuffer(data, np.uint8)
    picture = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    if picture is None:
        raise DataError(f"{path}: cannot be read as a picture", got="damaged")
    return np.asarray(picture)


def _ids_or_colours(
    picture: npt.NDArray[Any], path: Path
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Return ids, or colours without alpha, of a decoded picture."""
    if picture.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{path}: not a mask", got=f"{picture.dtype} pixels", expected="8 or 16 bits"
        )
    if picture.ndim == 2:
        return picture

    # Grey pictures are often saved in three channels.
    colours = picture[..., :3]
    if (colours == colours[..., :1]).all():
        return np.ascontiguousarray(colours[..., 0])
    if picture.dtype == np.uint16:
        raise DataError(f"{path}: not a mask", got="colours of 16 bits", expected="8 bits")
    return np.ascontiguousarray(colours)
