"""Turn label maps into pictures: colours, overlay, palette PNG.

All work on BGR uint8 arrays.
"""

import struct
import zlib
from collections.abc import Collection

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.spec import LabelSpace

Picture = npt.NDArray[np.uint8]
LabelMap = npt.NDArray[np.uint8]

# zlib: label maps are flat, higher levels cost three times as much for a few per cent.
_PNG_LEVEL = 3


def palette_lut(labels: LabelSpace, shown: Collection[int] | None = None) -> Picture:
    """Return the colour of every possible label id.

    Parameters
    ----------
    labels : the classes and their colours.
    shown : ids of the classes to paint; all if ``None``.

    Returns
    -------
    (256, 3) uint8 BGR. The ignored id, ids outside the classes and ids not shown are black.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> palette_lut(CAMVID_11)[[1, 11]].tolist()  # Building, then void
    [[0, 0, 128], [0, 0, 0]]
    """
    lut = np.zeros((256, 3), np.uint8)
    lut[: len(labels)] = np.asarray(labels.palette, np.uint8)[:, ::-1]
    lut[hidden_ids(labels, shown) > 0] = 0
    return lut


def hidden_ids(labels: LabelSpace, shown: Collection[int] | None = None) -> npt.NDArray[np.uint8]:
    """Return which label ids are not painted.

    Parameters
    ----------
    labels : the classes.
    shown : ids of the classes to paint; all if ``None``.

    Returns
    -------
    (256,) uint8: 255 for the ignored id, ids outside the classes and ids not shown, else 0.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> hidden_ids(CAMVID_11, shown={3})[[1, 3, 11]].tolist()  # Building, Road, void
    [255, 0, 255]
    """
    hidden = np.full(256, 255, np.uint8)
    hidden[: len(labels)] = 0
    if shown is not None:
        absent = [label for label in range(len(labels)) if label not in shown]
        hidden[absent] = 255
    hidden[labels.ignore_id] = 255
    return hidden


def colourise(
    label_map: LabelMap,
    labels: LabelSpace,
    shown: Collection[int] | None = None,
    out: Picture | None = None,
) -> Picture:
    """Paint a label map in the colours of its classes.

    Parameters
    ----------
    label_map : (H, W) uint8 label ids.
    labels : the classes and their colours.
    shown : ids of the classes to paint; all if ``None``.
    out : (H, W, 3) uint8 array to paint into; a new one if ``None``.

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
    return _paint(label_map, palette_lut(labels, shown), out)


def overlay(
    frame: Picture,
    label_map: LabelMap,
    labels: LabelSpace,
    alpha: float = 0.5,
    shown: Collection[int] | None = None,
    out: Picture | None = None,
) -> Picture:
    """Blend the classes' colours over a frame, except where ids are ignored or unknown.

    Parameters
    ----------
    frame : (H, W, 3) uint8 BGR; not changed.
    label_map : (H, W) uint8 ids, of the frame's size.
    labels : the ids' names and colours.
    alpha : weight of the colours, 0 (the frame alone) to 1 (the colours alone).
    shown : ids of the classes to paint; all if ``None``.
    out : (H, W, 3) uint8 array to paint into, not the frame; a new one if ``None``.

    Returns
    -------
    (H, W, 3) uint8 BGR.

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

    picture = _paint(label_map, palette_lut(labels, shown), out)
    cv2.addWeighted(frame, 1.0 - alpha, picture, alpha, 0.0, dst=picture)

    # Copy the frame back where nothing is painted.
    hidden = hidden_ids(labels, shown)
    if hidden[: int(label_map.max()) + 1].any():
        cv2.copyTo(frame, cv2.LUT(label_map, hidden), picture)
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


def _paint(label_map: LabelMap, lut: Picture, out: Picture | None = None) -> Picture:
    """Look up every pixel's colour by cv2's own 256-colour look-up, in a third of NumPy's time."""
    painted = cv2.applyColorMap(label_map, lut.reshape(256, 1, 3), dst=out)
    return np.asarray(painted, np.uint8)


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG file: length, kind, data, checksum."""
    length = struct.pack(">I", len(data))
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return length + kind + data + checksum
