"""Label map -> pictures: colours, overlay, legend, status text, palette PNG. Pure functions on BGR uint8 arrays."""

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
_ROW_MIN, _ROW_MAX = 14, 34  # a legend's row, pixels: below 14 the letters fall apart, above 34 they shout
_PANEL = (32, 28, 26)  # BGR: nearly black, so that swatches and white text both stand out
_INK = (245, 245, 245)
_PNG_LEVEL = 3  # zlib: label maps are flat, higher levels cost three times as much for a few per cent


def palette_lut(labels: LabelSpace) -> Picture:
    """The colour of every possible id: (256, 3) uint8 BGR. Ids outside the classes and the ignored id are black."""
    lut = np.zeros((256, 3), np.uint8)
    lut[: len(labels)] = np.asarray(labels.palette, np.uint8)[:, ::-1]
    lut[labels.ignore_id] = 0
    return lut


def colourise(label_map: LabelMap, labels: LabelSpace) -> Picture:
    """Paint a label map: (H, W) uint8 ids -> (H, W, 3) uint8 BGR."""
    _require_label_map(label_map)
    return _paint(label_map, palette_lut(labels))


def overlay(frame: Picture, label_map: LabelMap, labels: LabelSpace, alpha: float = 0.5) -> Picture:
    """Blend the classes' colours over a frame; pixels with ignored or unknown ids stay as they are.

    Parameters
    ----------
    frame : (H, W, 3) uint8 BGR; not changed.
    label_map : (H, W) uint8 ids, of the frame's size.
    labels : the ids' names and colours.
    alpha : weight of the colours, 0 (the frame alone) to 1 (the colours alone).

    Returns
    -------
    (H, W, 3) uint8 BGR, a new array. Raises ``ValueError`` where sizes or types differ from the above.
    """
    _require_label_map(label_map)
    if frame.dtype != np.uint8 or frame.shape != (*label_map.shape, 3):
        raise ValueError(f"overlay: frame is {frame.shape} {frame.dtype}, expected {(*label_map.shape, 3)} uint8")
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"overlay: alpha is {alpha}, expected 0 to 1")
    blended = cv2.addWeighted(frame, 1.0 - alpha, _paint(label_map, palette_lut(labels)), alpha, 0.0)
    hidden = np.full(256, 255, np.uint8)
    hidden[: len(labels)] = 0
    hidden[labels.ignore_id] = 255
    cv2.copyTo(frame, cv2.LUT(label_map, hidden), blended)
    return np.asarray(blended, np.uint8)


def legend(labels: LabelSpace, height: int, present: Collection[int] | None = None) -> Picture:
    """A strip that names the classes: (height, W, 3) uint8 BGR, swatches and names on a dark ground.

    As many columns as the height makes necessary, letters as large as it allows; W follows from the names. ``present``
    limits it to those ids (others than class ids are passed over). Letters need a height of 14 or more.
    """
    if height < 1:
        raise ValueError(f"legend: height is {height}, expected 1 or more")
    shown = [i for i in range(len(labels)) if i != labels.ignore_id and (present is None or i in present)]
    columns = math.ceil(len(shown) / max(1, height // _ROW_MIN)) or 1
    rows = math.ceil(len(shown) / columns) or 1
    row = min(_ROW_MAX, height // rows) or 1
    groups = [shown[start : start + rows] for start in range(0, len(shown), rows)]
    strips = [_legend_column(labels, group, height, row) for group in groups]
    picture: Picture = np.hstack(strips or [np.full((height, row, 3), _PANEL, np.uint8)])
    return picture


def annotate(frame: Picture, lines: Sequence[str]) -> Picture:
    """A copy of an (H, W, 3) uint8 BGR frame with short lines of text, bottom left, on a dark backing.

    Letters are scaled to the frame's height, and down further where a line would not fit its width.
    """
    picture: Picture = frame.copy()
    if not lines:
        return picture
    height, width = picture.shape[:2]
    row = max(_ROW_MIN, height // 18)
    widest = max(_text_width(line, row) for line in lines)
    if widest + row > width:
        row = max(6, int(row * width / (widest + row)))
        widest = max(_text_width(line, row) for line in lines)
    top, right = max(0, height - row * len(lines) - row // 2), min(width, widest + row)
    backing = picture[top:, :right]
    backing[:] = cv2.addWeighted(backing, 0.3, np.full_like(backing, _PANEL), 0.7, 0.0)
    for index, line in enumerate(lines):
        _write(picture, line, row // 2, top + row // 4 + index * row, row)
    return picture


def indexed_png(label_map: LabelMap, labels: LabelSpace) -> bytes:
    """A palette PNG: its 8-bit indices are the (H, W) uint8 label ids, its palette the classes' colours (RGB).

    OpenCV cannot write palette PNGs, so this is the whole encoder: PNG specification, sections 11.2 and 12.
    """
    _require_label_map(label_map)
    height, width = label_map.shape
    rows = np.zeros((height, width + 1), np.uint8)  # the first byte of a row is its filter: 0, none
    rows[:, 1:] = label_map
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # 8 bits, colour type 3: palette
    chunks = (
        (b"IHDR", header),
        (b"PLTE", palette_lut(labels)[:, ::-1].tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), _PNG_LEVEL)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, data) for kind, data in chunks)


def _require_label_map(label_map: LabelMap) -> None:
    if label_map.ndim != 2 or label_map.dtype != np.uint8 or label_map.size == 0:
        raise ValueError(f"a label map is {label_map.shape} {label_map.dtype}, expected (H, W) uint8")


def _paint(label_map: LabelMap, lut: Picture) -> Picture:
    # cv2's own 256-colour look-up: a third of the time of NumPy's.
    return np.asarray(cv2.applyColorMap(label_map, lut.reshape(256, 1, 3)), np.uint8)


def _legend_column(labels: LabelSpace, ids: Sequence[int], height: int, row: int) -> Picture:
    pad, swatch = max(2, row // 4), max(2, (row * 5) // 8)
    text_left = pad + swatch + swatch // 2
    width = text_left + max(_text_width(labels.names[i], row) for i in ids) + 2 * pad
    strip = np.full((height, width, 3), _PANEL, np.uint8)
    for index, label in enumerate(ids):
        top = index * row
        corner = (pad, top + (row - swatch) // 2)
        opposite = (corner[0] + swatch - 1, corner[1] + swatch - 1)
        red, green, blue = labels.palette[label]
        cv2.rectangle(strip, corner, opposite, (blue, green, red), cv2.FILLED)
        cv2.rectangle(strip, corner, opposite, (150, 150, 150), 1)  # a black or dark class needs its edge
        _write(strip, labels.names[label], text_left, top, row)
    return strip


def _scale(row: int) -> float:
    return 0.5 * row / _FONT_CAP_HEIGHT


def _stroke(row: int) -> int:
    return max(1, row // 40)


def _text_width(text: str, row: int) -> int:
    return int(cv2.getTextSize(text, _FONT, _scale(row), _stroke(row))[0][0])


def _write(picture: Picture, text: str, left: int, top: int, row: int) -> None:
    """Write one line into the row of ``row`` pixels that starts at ``top``; its capitals are half as high."""
    cv2.putText(picture, text, (left, top + round(0.75 * row)), _FONT, _scale(row), _INK, _stroke(row), cv2.LINE_AA)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
