"""The panel with colours, names and shares."""

import numpy as np
import pytest

from edgeseg.imaging.legend import (
    LegendRow,
    column_width,
    legend,
    panel_height,
    share_text,
    swatches,
)
from edgeseg.imaging.lettering import PANEL
from edgeseg.spec import CAMVID_32

ROWS = [
    LegendRow(name, (blue, green, red), 0.03)
    for name, (red, green, blue) in zip(CAMVID_32.names, CAMVID_32.palette, strict=True)
]


@pytest.mark.parametrize("row", [15, 24, 36])
@pytest.mark.parametrize("columns", [1, 2, 5])
def test_every_swatch_has_its_colour(row: int, columns: int) -> None:
    width = column_width([entry.name for entry in ROWS], row)
    drawn = legend(ROWS, row, columns)
    lines = -(-len(ROWS) // columns)
    assert drawn.shape == (panel_height(lines, row), columns * width, 3)

    places = swatches(len(ROWS), row, columns, width)
    for entry, place in zip(ROWS, places, strict=True):
        inside = drawn[place][1:-1, 1:-1]
        assert inside.size > 0
        assert (inside == entry.colour).all()


def test_the_longest_name_and_share_do_not_touch() -> None:
    entry = LegendRow("SUVPickupTruck", (0, 0, 255), 1.0)
    drawn = legend([entry], 24)
    ink = (drawn[:, 30:].min(axis=2) > 130).any(axis=0)
    gaps = np.diff(np.flatnonzero(ink))
    assert gaps.max() >= 6
    assert not ink[-4:].any()


def test_a_class_that_is_not_there_is_dim_and_has_no_share() -> None:
    here, absent = (legend([LegendRow("Road", (9, 200, 9), share)], 24) for share in (0.5, 0.0))
    assert absent.max() < 150 < here.max()
    assert (absent[:, absent.shape[1] // 2 :] == PANEL).all()


def test_without_a_share_there_is_none() -> None:
    drawn = legend([LegendRow("Road", (9, 200, 9))], 24)
    assert drawn.max() > 200
    assert (drawn[:, drawn.shape[1] * 2 // 3 :] == PANEL).all()


def test_an_empty_legend_is_an_empty_panel() -> None:
    assert (legend([], 24) == PANEL).all()


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, ""),
        (0.0001, "<1 %"),
        (0.0099, "<1 %"),
        (0.01, "1 %"),
        (0.995, "100 %"),
        (1.0, "100 %"),
    ],
)
def test_shares_in_whole_per_cent(share: float, text: str) -> None:
    assert share_text(share) == text
