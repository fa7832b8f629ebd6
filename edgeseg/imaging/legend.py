"""Draw legends: the colours, names and shares of classes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.imaging.lettering import panel, text_width, write

Picture = npt.NDArray[np.uint8]
Bgr = tuple[int, int, int]

LEAST_ROW = 15  # pixels; letters of smaller rows cannot be read
_EDGE: Bgr = (150, 150, 150)  # a swatch as dark as the panel needs an edge
_ABSENT = 0.4  # weight of the rows of classes that are not in the picture
_WIDEST_SHARE = "100 %"


@dataclass(frozen=True)
class LegendRow:
    """Hold what a legend says about one class.

    Attributes
    ----------
    name : name of the class.
    colour : its colour, (B, G, R).
    share : share of the picture's pixels, 0 to 1. None leaves it out.

    Examples
    --------
    >>> LegendRow("Road", (128, 64, 128), share=0.31).name
    'Road'
    """

    name: str
    colour: Bgr
    share: float | None = None


def legend(rows: Sequence[LegendRow], row: int, columns: int = 1, width: int = 0) -> Picture:
    """Draw a panel with a swatch, a name and a share for each class.

    Parameters
    ----------
    rows : the classes, from top to bottom, then in the next column.
    row : height of a row in pixels.
    columns : number of columns.
    width : width of a column in pixels; that of the longest name if 0.

    Returns
    -------
    (H, W, 3) uint8 BGR. Rows with a share of 0 are dim.

    Examples
    --------
    >>> legend([LegendRow("Road", (128, 64, 128), 0.31)], row=20, width=150).shape
    (28, 150, 3)
    """
    if not width:
        width = column_width([entry.name for entry in rows], row)
    pad = _pad(row)
    lines = max(1, math.ceil(len(rows) / columns))
    drawn = panel(lines * row + 2 * pad, width * columns)

    for index, entry in enumerate(rows):
        column, line = divmod(index, lines)
        top = pad + line * row
        _draw_row(drawn[top : top + row, column * width : (column + 1) * width], entry)
    return drawn


def swatches(rows: int, row: int, columns: int, width: int) -> list[tuple[slice, slice]]:
    """Return where the swatches are in a legend's panel.

    Parameters
    ----------
    rows : number of classes.
    row : height of a row in pixels.
    columns : number of columns.
    width : width of a column in pixels.

    Returns
    -------
    The rows and the columns of pixels of each swatch.

    Examples
    --------
    >>> swatches(1, row=20, columns=1, width=150)
    [(slice(8, 20, None), slice(6, 18, None))]
    """
    lines = max(1, math.ceil(rows / columns))
    side = _swatch_side(row)
    places = []
    for index in range(rows):
        column, line = divmod(index, lines)
        top = _pad(row) + line * row + (row - side) // 2
        left = column * width + _swatch_left(row)
        places.append((slice(top, top + side), slice(left, left + side)))
    return places


def column_width(names: Sequence[str], row: int) -> int:
    """Return the width in pixels of a legend's column that has room for names and shares.

    Parameters
    ----------
    names : the names of the classes.
    row : height of a row in pixels.

    Examples
    --------
    >>> column_width(["Road"], row=20) < column_width(["Road", "Pedestrian"], row=20)
    True
    """
    widest = max((text_width(name, row) for name in names), default=0)
    share = text_width(_WIDEST_SHARE, row)
    return _text_left(row) + widest + row // 2 + share + 2 * _pad(row)


def panel_height(rows: int, row: int) -> int:
    """Return the height in pixels of a legend's column of rows.

    Parameters
    ----------
    rows : number of rows.
    row : height of a row in pixels.

    Examples
    --------
    >>> panel_height(1, row=20)
    28
    """
    return rows * row + 2 * _pad(row)


def share_text(share: float) -> str:
    """Return a share as the legend writes it, in whole per cent.

    Parameters
    ----------
    share : 0 to 1.

    Examples
    --------
    >>> share_text(0.314), share_text(0.002), share_text(0.0)
    ('31 %', '<1 %', '')
    """
    if share <= 0:
        return ""
    return f"{100 * share:.0f} %" if share >= 0.01 else "<1 %"


def _draw_row(part: Picture, entry: LegendRow) -> None:
    """Draw one class into its row of the panel."""
    row, width = part.shape[:2]
    write(part, entry.name, (_text_left(row), 0), row)

    side = _swatch_side(row)
    corner = (_swatch_left(row), (row - side) // 2)
    opposite = (corner[0] + side - 1, corner[1] + side - 1)
    cv2.rectangle(part, corner, opposite, entry.colour, cv2.FILLED)
    cv2.rectangle(part, corner, opposite, _EDGE, 1)

    if entry.share is None:
        return
    if entry.share <= 0:
        part[:] = cv2.addWeighted(part, _ABSENT, panel(row, width), 1 - _ABSENT, 0.0)
        return

    text = share_text(entry.share)
    write(part, text, (width - _pad(row) - row // 8 - text_width(text, row), 0), row)


def _pad(row: int) -> int:
    """Return the free space around a panel's rows."""
    return max(2, row // 5)


def _swatch_side(row: int) -> int:
    """Return the side of a swatch in pixels."""
    return (row * 5) // 8


def _swatch_left(row: int) -> int:
    """Return where the swatches start in a row."""
    return _pad(row) + row // 8


def _text_left(row: int) -> int:
    """Return where the names start in a row."""
    return _swatch_left(row) + _swatch_side(row) + row // 3
