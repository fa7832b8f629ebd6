"""Draw the shapes of labelling tools into label maps, later shapes over earlier ones."""

import base64
import zlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from edgeseg.types import Image

Points = Sequence[Sequence[float]]


def draw_polygon(mask: Image, outer: Points, holes: Sequence[Points], label: int) -> None:
    """Fill a polygon; its holes keep what is below.

    Parameters
    ----------
    mask : (H, W) uint8, changed in place. Corners are rounded to pixels, and the outline is part of
        the shape, as labelme draws it.
    outer : (x, y) of the corners.
    holes : corners of each hole.
    label : what to write.

    Examples
    --------
    >>> mask = np.zeros((3, 4), np.uint8)
    >>> draw_polygon(mask, [(1, 0), (2, 0), (2, 1), (1, 1)], [], 7)
    >>> mask.tolist()
    [[0, 7, 7, 0], [0, 7, 7, 0], [0, 0, 0, 0]]
    """
    inside = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(inside, [_corners(outer)], 1)
    for hole in holes:
        cv2.fillPoly(inside, [_corners(hole)], 0)
    mask[inside > 0] = label


def draw_bitmap(mask: Image, bitmap: Image, corner: tuple[int, int], label: int) -> None:
    """Write a label where a small mask is set.

    Parameters
    ----------
    mask : (H, W) uint8, changed in place.
    bitmap : (h, w); not 0 where the shape is. What lies outside of ``mask`` is cut off.
    corner : (x, y) of the bitmap's first pixel in ``mask``.
    label : what to write.

    Examples
    --------
    >>> mask = np.zeros((2, 3), np.uint8)
    >>> draw_bitmap(mask, np.ones((5, 1), np.uint8), (2, 1), 4)
    >>> mask.tolist()
    [[0, 0, 0], [0, 0, 4]]
    """
    x, y = corner
    left, top = max(0, -x), max(0, -y)
    part = mask[max(0, y) : y + bitmap.shape[0], max(0, x) : x + bitmap.shape[1]]
    cut = bitmap[top : top + part.shape[0], left : left + part.shape[1]]
    part[cut > 0] = label


def bitmap_of_text(text: str) -> Image:
    """Return a bitmap that a JSON file holds as base64 of a PNG, compressed or not.

    Parameters
    ----------
    text : the text in the file.

    Returns
    -------
    (H, W) uint8, 1 where the shape is: not 0 in a grey picture, opaque in one with alpha.

    Raises
    ------
    ValueError : the text holds no picture.
    """
    data = base64.b64decode(text)
    if not data.startswith(b"\x89PNG"):
        try:
            data = zlib.decompress(data)
        except zlib.error as error:
            raise ValueError(f"no compressed picture ({error})") from error
    return picture_mask(data)


def picture_mask(data: bytes) -> Image:
    """Return where a small picture is set.

    Parameters
    ----------
    data : content of a PNG file.

    Returns
    -------
    (H, W) uint8: 1 where it is not black; where it is opaque, if it has alpha.

    Raises
    ------
    ValueError : it is no picture.
    """
    content = np.frombuffer(data, np.uint8)
    picture: Any = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    if picture is None:
        raise ValueError("no picture")
    if picture.ndim == 3 and picture.shape[2] == 4:
        picture = picture[..., 3]
    elif picture.ndim == 3:
        picture = picture.max(axis=2)
    return np.asarray(picture > 0, np.uint8)


def _corners(points: Points) -> Any:
    """Return corners as OpenCV takes them."""
    return np.rint(np.asarray(points, np.float64)).astype(np.int32).reshape(-1, 1, 2)
