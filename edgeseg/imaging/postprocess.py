"""Turn label maps into pictures: colours, overlay, legend, status text, palette PNG.

All are pure functions on BGR uint8 arrays.
"""

import math
import struct
import zlib
from collections.abc import Collection, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.spec import LabelSpace

Picture = npt.NDArray[np.uint8]
LabelMap = npt.NDArray[np.uint8]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_CAP_HEIGHT = 22.0  # pixels of a capital letter at scale 1, measured with cv2.getTextSize
# Height of a legend's row in pixels: below 14, letters cannot be read; above 34, they are too loud.
_ROW_MIN = 14
_ROW_MAX = 34
_PANEL = (32, 28, 26)  # BGR: nearly black, so that swatches and white text both stand out
_INK = (245, 245, 245)
_PNG_LEVEL = (
    3  # zlib: label maps are flat, higher levels cost three times as much for a few per cent
)


def palette_lut(labels: LabelSpace) -> Picture:
    """Return the colour of every possible label id.

    Parameters
    ----------
    labels : the classes and their colours.

    Returns
    -------
    (256, 3) uint8 BGR. The ignored id and ids outside the classes are black.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> palette_lut(CAMVID_11)[[1, 11]].tolist()  # Building, then void
    [[0, 0, 128], [0, 0, 0]]
    """
    lut = np.zeros((256, 3), np.uint8)
    lut[: len(labels)] = np.asarray(labels.palette, np.uint8)[:, ::-1]
    lut[labels.ignore_id] = 0
    return lut


def colourise(label_map: LabelMap, labels: LabelSpace) -> Picture:
    """Paint a label map in the colours of its classes.

    Parameters
    ----------
    label_map : (H, W) uint8 label ids.
    labels : the classes and their colours.

    Returns
    -------
    (H, W, 3) uint8 BGR.

    Raises
    ------
    ValueError : ``label_map`` has another shape or dtype, or is empty.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> colourise(np.array([[1, 11]], np.uint8), CAMVID_11).tolist()  # Building, then void
    [[[0, 0, 128], [0, 0, 0]]]
    """
    _require_label_map(label_map)
    return _paint(label_map, palette_lut(labels))


def overlay(frame: Picture, label_map: LabelMap, labels: LabelSpace, alpha: float = 0.5) -> Picture:
    """Blend the classes' colours over a frame, except where ids are ignored or unknown.

    Parameters
    ----------
    frame : (H, W, 3) uint8 BGR; not changed.
    label_map : (H, W) uint8 ids, of the frame's size.
    labels : the ids' names and colours.
    alpha : weight of the colours, 0 (the frame alone) to 1 (the colours alone).

    Returns
    -------
    (H, W, 3) uint8 BGR, a new array.

    Raises
    ------
    ValueError : shape or dtype of the frame or the label map are not as above, or ``alpha`` is out
        of range.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> frame = np.full((1, 2, 3), 100, np.uint8)
    >>> overlay(frame, np.array([[1, 11]], np.uint8), CAMVID_11).tolist()  # Building, then void
    [[[50, 50, 114], [100, 100, 100]]]
    """
    _require_label_map(label_map)
    if frame.dtype != np.uint8 or frame.shape != (*label_map.shape, 3):
        raise ValueError(
            f"overlay: frame is {frame.shape} {frame.dtype}, expected {(*label_map.shape, 3)} uint8"
        )
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"overlay: alpha is {alpha}, expected 0 to 1")

    colours = _paint(label_map, palette_lut(labels))
    blended = cv2.addWeighted(frame, 1.0 - alpha, colours, alpha, 0.0)

    # Copy the frame back where the id is ignored or no class.
    hidden = np.full(256, 255, np.uint8)
    hidden[: len(labels)] = 0
    hidden[labels.ignore_id] = 255
    cv2.copyTo(frame, cv2.LUT(label_map, hidden), blended)
    return np.asarray(blended, np.uint8)


def legend(labels: LabelSpace, height: int, present: Collection[int] | None = None) -> Picture:
    """Draw a strip that names the classes: swatches and names on a dark ground.

    The strip has as many columns as the height makes necessary, and letters as large as the height
    allows. Letters need a height of 14 or more.

    Parameters
    ----------
    labels : the classes and their colours.
    height : height of the strip in pixels, 1 or more.
    present : the class ids to show, all if ``None``. Ids that are no class are ignored.

    Returns
    -------
    (height, W, 3) uint8 BGR; W follows from the names.

    Raises
    ------
    ValueError : ``height`` is less than 1.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> legend(CAMVID_11, height=360).shape[0]
    360
    """
    if height < 1:
        raise ValueError(f"legend: height is {height}, expected 1 or more")

    # The ids to show.
    shown = [label for label in range(len(labels)) if label != labels.ignore_id]
    if present is not None:
        shown = [label for label in shown if label in present]

    # As many columns as needed, then rows as high as they can be.
    columns = math.ceil(len(shown) / max(1, height // _ROW_MIN)) or 1
    rows = math.ceil(len(shown) / columns) or 1
    row = min(_ROW_MAX, height // rows) or 1

    # Draw the columns; an empty legend is a strip of background.
    groups = [shown[start : start + rows] for start in range(0, len(shown), rows)]
    strips = [_legend_column(labels, group, height, row) for group in groups]
    if not strips:
        strips = [np.full((height, row, 3), _PANEL, np.uint8)]
    picture: Picture = np.hstack(strips)
    return picture


def annotate(frame: Picture, lines: Sequence[str]) -> Picture:
    """Return a copy of a frame with short lines of text at the bottom left, on a dark backing.

    Letters are scaled to the frame's height, and further down if a line would not fit the frame's
    width.

    Parameters
    ----------
    frame : (H, W, 3) uint8 BGR; not changed.
    lines : the text, one string per line.

    Examples
    --------
    >>> frame = np.full((90, 160, 3), 255, np.uint8)
    >>> bool((annotate(frame, ["30 FPS"]) != frame).any())
    True
    """
    picture: Picture = frame.copy()
    if not lines:
        return picture

    # Choose the height of a row, so that the widest line fits.
    height, width = picture.shape[:2]
    row = max(_ROW_MIN, height // 18)
    widest = max(_text_width(line, row) for line in lines)
    if widest + row > width:
        row = max(6, int(row * width / (widest + row)))
        widest = max(_text_width(line, row) for line in lines)

    # Darken the ground.
    top = max(0, height - row * len(lines) - row // 2)
    right = min(width, widest + row)
    backing = picture[top:, :right]
    backing[:] = cv2.addWeighted(backing, 0.3, np.full_like(backing, _PANEL), 0.7, 0.0)

    for index, line in enumerate(lines):
        _write(picture, line, row // 2, top + row // 4 + index * row, row)
    return picture


def indexed_png(label_map: LabelMap, labels: LabelSpace) -> bytes:
    """Encode a label map as a palette PNG: its indices are label ids, its palette their colours.

    OpenCV cannot write palette PNGs, so this is the whole encoder: PNG specification, sections 11.2
    and 12.

    Parameters
    ----------
    label_map : (H, W) uint8 label ids.
    labels : the classes and their colours.

    Returns
    -------
    The bytes of the PNG file.

    Raises
    ------
    ValueError : ``label_map`` has another shape or dtype, or is empty.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> indexed_png(np.zeros((2, 3), np.uint8), CAMVID_11)[1:4]
    b'PNG'
    """
    _require_label_map(label_map)
    height, width = label_map.shape

    # The pixels, as PNG filters them.
    rows = np.zeros((height, width + 1), np.uint8)  # the first byte of a row is its filter: 0, none
    rows[:, 1:] = label_map

    # The file: a signature and four chunks.
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # 8 bits, colour type 3: palette
    chunks = (
        (b"IHDR", header),
        (b"PLTE", palette_lut(labels)[:, ::-1].tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), _PNG_LEVEL)),
        (b"IEND", b""),
    )
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + b"".join(_png_chunk(kind, data) for kind, data in chunks)


def _require_label_map(label_map: LabelMap) -> None:
    """Raise ``ValueError`` unless ``label_map`` is (H, W) uint8 with pixels in it."""
    if label_map.ndim != 2 or label_map.dtype != np.uint8 or label_map.size == 0:
        raise ValueError(
            f"a label map is {label_map.shape} {label_map.dtype}, expected (H, W) uint8"
        )


def _paint(label_map: LabelMap, lut: Picture) -> Picture:
    """Look up every pixel's colour by cv2's own 256-colour look-up, in a third of NumPy's time."""
    return np.asarray(cv2.applyColorMap(label_map, lut.reshape(256, 1, 3)), np.uint8)


def _legend_column(labels: LabelSpace, ids: Sequence[int], height: int, row: int) -> Picture:
    """Draw one column of a legend: a swatch and a name per id, in rows of ``row`` pixels."""
    pad = max(2, row // 4)
    swatch = max(2, (row * 5) // 8)
    text_left = pad + swatch + swatch // 2
    text_width = max(_text_width(labels.names[label], row) for label in ids)
    width = text_left + text_width + 2 * pad

    strip = np.full((height, width, 3), _PANEL, np.uint8)
    for index, label in enumerate(ids):
        top = index * row
        corner = (pad, top + (row - swatch) // 2)
        opposite = (corner[0] + swatch - 1, corner[1] + swatch - 1)

        red, green, blue = labels.palette[label]
        cv2.rectangle(strip, corner, opposite, (blue, green, red), cv2.FILLED)
        cv2.rectangle(
            strip, corner, opposite, (150, 150, 150), 1
        )  # a black or dark class needs its edge

        _write(strip, labels.names[label], text_left, top, row)
    return strip


def _scale(row: int) -> float:
    """Return the font's scale with which capitals are half as high as ``row``."""
    return 0.5 * row / _FONT_CAP_HEIGHT


def _stroke(row: int) -> int:
    """Return the thickness of letters in a row of ``row`` pixels."""
    return max(1, row // 40)


def _text_width(text: str, row: int) -> int:
    """Return the width in pixels of ``text`` in a row of ``row`` pixels."""
    size, _ = cv2.getTextSize(text, _FONT, _scale(row), _stroke(row))
    return int(size[0])


def _write(picture: Picture, text: str, left: int, top: int, row: int) -> None:
    """Write one line into the row of ``row`` pixels at ``top``; capitals are half as high."""
    start = (left, top + round(0.75 * row))
    cv2.putText(picture, text, start, _FONT, _scale(row), _INK, _stroke(row), cv2.LINE_AA)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG file: length, kind, data, checksum."""
    length = struct.pack(">I", len(data))
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return length + kind + data + checksum
