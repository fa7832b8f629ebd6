"""Draw the legends of a run: present classes in a corner, or all classes beside the picture."""

import math

import numpy as np
import numpy.typing as npt

from edgeseg.imaging.legend import (
    LEAST_ROW,
    Bgr,
    LegendRow,
    column_width,
    legend,
    panel_height,
    swatches,
)
from edgeseg.imaging.lettering import panel
from edgeseg.imaging.postprocess import LabelMap, Picture
from edgeseg.spec import LabelSpace
from edgeseg.video.hud import lay, row_height

Shares = npt.NDArray[np.float64]

_SAMPLES = 20_000  # pixels that are counted, evenly spread
_COLOUR_SAMPLES = 5_000  # pixels whose colours are averaged
_WIDEST = 0.5  # share of the picture's width; a wider legend hides more than it tells
_TALLEST = 0.85  # share of the picture's height; below it stands the status
_LINGER = 25  # frames for which a class that went stays, so that the legend does not jump


class CornerLegend:
    """Draw the classes that are in a picture into its top left corner.

    Parameters
    ----------
    labels : classes, with their names and colours.
    shown : ids of the classes that are painted.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> legend = CornerLegend(CAMVID_11, frozenset({3}))
    >>> picture, road = np.full((240, 320, 3), 200, np.uint8), np.full((240, 320), 3, np.uint8)
    >>> legend.draw(picture, road, exact=True)
    >>> bool((picture[0] < 200).any()), bool((picture[120:] < 200).any())
    (True, False)
    """

    def __init__(self, labels: LabelSpace, shown: frozenset[int]) -> None:
        self._labels = labels
        self._shown = sorted(shown)
        self._names = [labels.names[label] for label in self._shown]
        self._frames: dict[str, int] = {}
        self._last_seen: dict[str, dict[int, int]] = {}

    def draw(self, body: Picture, labels: LabelMap, exact: bool, name: str = "") -> None:
        """Draw the panel into a picture, in place, if there are classes and there is room.

        If not all classes fit, those with the largest shares are drawn.

        Parameters
        ----------
        body : (H, W, 3) uint8 BGR, the painted picture.
        labels : its (H, W) uint8 label map.
        exact : draw the palette's colours instead of the picture's.
        name : name of the source; each has its own memory of the classes that just went.
        """
        # What there is room for.
        height, width = labels.shape
        row = row_height(height, width)
        column = column_width(self._names, row)
        most_columns = int(width * _WIDEST) // column
        most_lines = int(height * _TALLEST) // row
        if most_columns < 1 or most_lines < 1:
            return

        # What there is to draw.
        shares = class_shares(labels)
        present = self._present(shares, name)
        if len(present) > most_columns * most_lines:
            by_share = sorted(present, key=lambda label: -shares[label])
            present = sorted(by_share[: most_columns * most_lines])
        if not present:
            return

        rows = _rows(self._labels, present, shares, _colours(self._labels, body, labels, exact))
        columns = math.ceil(len(rows) / most_lines)
        drawn = legend(rows, row, columns, column)
        part = body[: drawn.shape[0], : drawn.shape[1]]
        lay(part, drawn)

        # The picture must not shine through the swatches: they show exactly its colours.
        for place in swatches(len(rows), row, columns, column):
            part[place] = drawn[place]

    def _present(self, shares: Shares, name: str) -> list[int]:
        """Return the classes to draw: those in the picture, and those that just went."""
        frame = self._frames.get(name, 0)
        self._frames[name] = frame + 1

        last_seen = self._last_seen.setdefault(name, {})
        for label in self._shown:
            if shares[label] > 0:
                last_seen[label] = frame
        return [label for label in self._shown if frame - last_seen.get(label, -_LINGER) < _LINGER]


class SideLegend:
    """Draw all classes into a panel beside the picture; those that are not in it are dim.

    Parameters
    ----------
    labels : classes, with their names and colours.
    shown : ids of the classes that are painted.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> legend = SideLegend(CAMVID_11, frozenset({3, 8}))
    >>> picture, road = np.zeros((240, 320, 3), np.uint8), np.full((240, 320), 3, np.uint8)
    >>> legend.draw(picture, road, exact=True).shape == (240, legend.width(240), 3)
    True
    """

    def __init__(self, labels: LabelSpace, shown: frozenset[int]) -> None:
        self._labels = labels
        self._shown = sorted(shown)
        self._names = [labels.names[label] for label in self._shown]

    def width(self, height: int) -> int:
        """Return the width of the panel in pixels, an even number.

        Parameters
        ----------
        height : height of the picture in pixels.
        """
        row, columns = self._layout(height)
        width = columns * column_width(self._names, row)
        return width + width % 2

    def draw(self, body: Picture, labels: LabelMap | None, exact: bool) -> Picture:
        """Return the panel for a picture, as high as the picture.

        Parameters
        ----------
        body : (H, W, 3) uint8 BGR, the painted picture.
        labels : its (H, W) uint8 label map; None if it was not labelled: all classes are then dim.
        exact : draw the palette's colours instead of the picture's.
        """
        height = body.shape[0]
        row, columns = self._layout(height)
        shares = np.zeros(256) if labels is None else class_shares(labels)
        colours = _colours(self._labels, body, labels, exact)

        rows = _rows(self._labels, self._shown, shares, colours)
        drawn = legend(rows, row, columns, column_width(self._names, row))[:height]
        whole = panel(height, self.width(height))
        whole[: drawn.shape[0], : drawn.shape[1]] = drawn
        return whole

    def _layout(self, height: int) -> tuple[int, int]:
        """Return the height of a row, and the number of columns that hold all classes."""
        row = row_height(height, height)
        while row > LEAST_ROW and panel_height(len(self._names), row) > height:
            row -= 1
        lines = max(1, (height - panel_height(0, row)) // row)
        return row, math.ceil(len(self._names) / lines)


def class_shares(labels: LabelMap) -> Shares:
    """Return the share of the pixels of each label, counted in evenly spread pixels.

    Parameters
    ----------
    labels : (H, W) uint8 label map.

    Returns
    -------
    (256,) shares, 0 to 1.

    Examples
    --------
    >>> class_shares(np.array([[3, 3, 3, 8]], np.uint8))[[3, 8]].tolist()
    [0.75, 0.25]
    """
    counted = labels[_grid(labels, _SAMPLES)].ravel()
    shares: Shares = np.bincount(counted, minlength=256) / counted.size
    return shares


def _grid(labels: LabelMap, samples: int) -> tuple[slice, slice]:
    """Return about ``samples`` evenly spread pixels of a label map."""
    step = max(1, round((labels.size / samples) ** 0.5))
    rows = slice(min(step, labels.shape[0]) // 2, None, step)
    columns = slice(min(step, labels.shape[1]) // 2, None, step)
    return rows, columns


def _rows(
    labels: LabelSpace, ids: list[int], shares: Shares, colours: dict[int, Bgr]
) -> list[LegendRow]:
    """Return the rows of a legend."""
    return [LegendRow(labels.names[label], colours[label], float(shares[label])) for label in ids]


def _colours(
    labels: LabelSpace, body: Picture, label_map: LabelMap | None, exact: bool
) -> dict[int, Bgr]:
    """Return the colour of each class: its pixels' mean in the picture, or the palette's."""
    colours: dict[int, Bgr] = {}
    for label, (red, green, blue) in enumerate(labels.palette):
        colours[label] = blue, green, red
    if exact or label_map is None:
        return colours

    grid = _grid(label_map, _COLOUR_SAMPLES)
    sampled = label_map[grid].ravel()
    pixels = body[grid].reshape(-1, 3)
    counts = np.bincount(sampled, minlength=256)
    sums = [np.bincount(sampled, weights=pixels[:, channel], minlength=256) for channel in range(3)]

    for label in colours:
        if counts[label] > 0:
            blue, green, red = (
                round(float(channel[label]) / int(counts[label])) for channel in sums
            )
            colours[label] = blue, green, red
    return colours
