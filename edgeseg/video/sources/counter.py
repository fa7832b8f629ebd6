"""Draw a number into a picture that a program and a person can read: for measuring latency.

A row of black and white cells along the upper edge carries the number and a checksum. It survives
video codecs and changes of size. The digits stand below it.
"""

import cv2
import numpy as np

from edgeseg.errors import InputError
from edgeseg.types import Image

# The cells: white, black (these two tell the brightness), 24 bits, 8 bits of checksum.
_BITS = 24
_CHECK_BITS = 8
_CELLS = 2 + _BITS + _CHECK_BITS

# Numbers are counted up to here, and begin at 0 again: 77 hours at 60 frames a second.
COUNTER_RANGE = 1 << _BITS

# A cell needs two pixels; 8 survive strong compression.
_SMALLEST_CELL = 2

# Least difference of white and black, of 255.
_CONTRAST = 60

# The polynomial x^8 + x^2 + x + 1 and the start value of the checksum. With a start of 0, a black
# picture would read as number 0.
_POLYNOMIAL = 0x107
_CHECK_START = 0xFF


def draw_counter(image: Image, number: int) -> None:
    """Draw a number into a picture, in place.

    Parameters
    ----------
    image : (H, W, 3) uint8 BGR, at least 68 pixels wide.
    number : from 0 on; it is drawn modulo ``COUNTER_RANGE``.

    Raises
    ------
    InputError : the picture is too narrow.

    Examples
    --------
    >>> image = np.full((90, 160, 3), 128, np.uint8)
    >>> draw_counter(image, 1234)
    >>> read_counter(image)
    1234
    """
    height, width = image.shape[:2]
    if width < _CELLS * _SMALLEST_CELL:
        raise InputError(
            "counter: the picture is too narrow",
            got=f"{width} pixels",
            expected=f"at least {_CELLS * _SMALLEST_CELL}",
        )

    number %= COUNTER_RANGE
    word = number << _CHECK_BITS | _checksum(number)
    cells = [True, False]
    for bit in reversed(range(_BITS + _CHECK_BITS)):
        cells.append(bool(word >> bit & 1))

    rows = _rows(height, width)
    edges = _edges(width)
    for cell, is_white in enumerate(cells):
        image[:rows, edges[cell] : edges[cell + 1]] = 255 if is_white else 0

    scale = max(0.3, rows / 20)
    place = (2, rows + round(25 * scale))
    for thickness, colour in ((3, (0, 0, 0)), (1, (255, 255, 255))):
        cv2.putText(image, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness)


def read_counter(image: Image) -> int | None:
    """Return the number that ``draw_counter`` drew into a picture; None if there is none.

    Parameters
    ----------
    image : (H, W, 3) uint8 BGR. It may have another size than when the number was drawn, if the
        whole picture was scaled.
    """
    height, width = image.shape[:2]
    if width < _CELLS:
        return None

    # The middle of each cell, since the edges are soft after a codec.
    rows = _rows(height, width)
    edges = _edges(width)
    middle = image[rows // 4 : max(rows * 3 // 4, rows // 4 + 1)].mean(axis=(0, 2))
    levels: list[float] = []
    for cell in range(_CELLS):
        quarter = (edges[cell + 1] - edges[cell]) // 4
        levels.append(float(middle[edges[cell] + quarter : edges[cell + 1] - quarter].mean()))

    white, black = levels[:2]
    if white - black < _CONTRAST:
        return None
    word = 0
    for level in levels[2:]:
        word = word << 1 | (level > (white + black) / 2)

    number = word >> _CHECK_BITS
    return number if _checksum(number) == word & (1 << _CHECK_BITS) - 1 else None


def counter_at(time_s: float, fps: float) -> int:
    """Return the number of a counter at a moment: cameras of one rate show one number.

    Parameters
    ----------
    time_s : the moment on the clock of ``time.perf_counter``.
    fps : the rate at which the counter counts.
    """
    return int(time_s * fps) % COUNTER_RANGE


def counter_age_s(number: int, fps: float, now_s: float) -> float:
    """Return how long ago a counter of ``counter_at`` began to show a number.

    Parameters
    ----------
    number : the number.
    fps : the rate at which the counter counts.
    now_s : the present on the clock of ``time.perf_counter``.

    Examples
    --------
    >>> counter_age_s(counter_at(100.0, 50.0), 50.0, now_s=100.25)
    0.25
    """
    return (now_s * fps - number) % COUNTER_RANGE / fps


def _checksum(number: int) -> int:
    """Return the 8-bit cyclic redundancy check of a number of 24 bits."""
    remainder = _CHECK_START
    for bit in reversed(range(_BITS)):
        remainder = remainder << 1 ^ ((number >> bit & 1) << _CHECK_BITS)
        if remainder >> _CHECK_BITS & 1:
            remainder ^= _POLYNOMIAL
    return remainder & (1 << _CHECK_BITS) - 1


def _edges(width: int) -> list[int]:
    """Return where the cells begin, and where the last one ends."""
    edges = np.round(np.linspace(0, width, _CELLS + 1)).astype(int)
    return [int(edge) for edge in edges]


def _rows(height: int, width: int) -> int:
    """Return the height of the cells: they are square, if the picture is high enough."""
    return max(1, min(width // _CELLS, height // 4))
