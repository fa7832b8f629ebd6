"""Write smooth text on dark panels, in any size and with the letters of most European languages.

OpenCV's own letters are strokes, and ASCII alone: "ü" becomes "??". The letters here are those of
DejaVu Sans, drawn once at 32 pixels by `tests/imaging/make_lettering.py` and shrunk to the size
that is needed. Their licence stands beside them, in `lettering.LICENSE.txt`.
"""

import unicodedata
from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.uint8]

INK = (245, 245, 245)  # BGR
PANEL = (32, 28, 26)  # BGR: nearly black, so that colours and white text both stand out

_FILE = Path(__file__).with_name("lettering.npz")
_EM = 32.0  # pixels of the font's em in the file
_EM_SHARE = 0.74  # of a row; letters with accents and descenders then just fit into the row
_UNKNOWN = "?"
_MOST_TEXTS = 256  # drawn texts that are kept


@lru_cache(maxsize=_MOST_TEXTS)
def text_width(text: str, row: int) -> int:
    """Return the width in pixels of text in a row of ``row`` pixels.

    Parameters
    ----------
    text : one line.
    row : height of the row in pixels.

    Examples
    --------
    >>> text_width("Road", 20) < text_width("Pavement", 20)
    True
    """
    letters = _letters()
    width = sum(letters[character].shape[1] for character in writable(text))
    return max(1, round(width * row * _EM_SHARE / _EM)) if width else 0


def panel(height: int, width: int) -> Picture:
    """Return an empty panel, nearly black.

    Parameters
    ----------
    height, width : its size in pixels.

    Examples
    --------
    >>> panel(20, 80).shape
    (20, 80, 3)
    """
    empty: Picture = _empty_panel(height, width).copy()
    return empty


def write(panel: Picture, text: str, corner: tuple[int, int], row: int) -> None:
    """Write one line of text into a panel, in place; what reaches over its edges is cut off.

    Parameters
    ----------
    panel : (H, W, 3) uint8 BGR, from ``panel``. What stands below the text is lost.
    text : one line.
    corner : (left, top) of the row, 0 or more.
    row : height of the row in pixels; capitals are about half as high.

    Examples
    --------
    >>> ground = panel(20, 80)
    >>> write(ground, "Größe", (2, 0), row=20)
    >>> int(ground.max()) > 200
    True
    """
    left, top = corner
    line = _line(text, row)
    part = panel[top : top + line.shape[0], left : left + line.shape[1]]
    part[:] = line[: part.shape[0], : part.shape[1]]


def writable(text: str) -> str:
    """Return text with the letters that cannot be written replaced: by plain ones, else by ``?``.

    Parameters
    ----------
    text : any text.

    Examples
    --------
    >>> writable("Straße, Hà Nội, 道")
    'Straße, Hà Noi, ?'
    """
    letters = _letters()
    known = []
    for character in unicodedata.normalize("NFC", text):
        if character in letters:
            known.append(character)
            continue
        plain = unicodedata.normalize("NFKD", character)
        kept = "".join(part for part in plain if part in letters)
        known.append(kept or _UNKNOWN)
    return "".join(known)


@cache
def _letters() -> dict[str, Mask]:
    """Return the coverage of each letter, all of one height."""
    with np.load(_FILE) as file:
        strip, starts, codes = file["strip"], file["starts"], file["codes"]

    letters: dict[str, Mask] = {}
    for index, code in enumerate(codes):
        letters[chr(code)] = strip[:, starts[index] : starts[index + 1]]
    return letters


@lru_cache(maxsize=32)
def _empty_panel(height: int, width: int) -> Picture:
    """Return an empty panel; callers only copy it."""
    return np.full((height, width, 3), PANEL, np.uint8)


@lru_cache(maxsize=_MOST_TEXTS)
def _line(text: str, row: int) -> Picture:
    """Return a line of text on a panel, (row, W, 3) uint8 BGR; callers only copy it."""
    letters = _letters()
    width = text_width(text, row)
    if width == 0:
        return panel(row, 0)

    strip = np.hstack([letters[character] for character in writable(text)])
    height = max(1, round(strip.shape[0] * row * _EM_SHARE / _EM))
    how = cv2.INTER_AREA if height < strip.shape[0] else cv2.INTER_LINEAR
    scaled = cv2.resize(strip, (width, height), interpolation=how)

    # Centre the line in its row.
    coverage = np.zeros((row, width), np.uint8)
    top = max(0, (row - height) // 2)
    lines = min(row, height)
    coverage[top : top + lines] = scaled[:lines]
    return np.asarray(cv2.applyColorMap(coverage, _ramp()), np.uint8)


@cache
def _ramp() -> Picture:
    """Return the colour for each coverage, from the panel's to the ink's: (256, 1, 3)."""
    weight = np.arange(256)[:, None] / 255
    colours = np.array(PANEL) * (1 - weight) + np.array(INK) * weight
    ramp: Picture = colours.round().astype(np.uint8)[:, None]
    return ramp
