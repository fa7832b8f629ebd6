"""Text on panels, and the alphabet that is shipped."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from edgeseg.imaging.lettering import PANEL, panel, text_width, writable, write


def drawn(text: str, row: int) -> np.ndarray:
    ground = panel(row, text_width(text, row))
    write(ground, text, (0, 0), row)
    return ground


def test_letters_are_smooth_and_grow_with_the_row() -> None:
    heights = []
    for row in (15, 24, 36, 72):
        ink = drawn("H", row).min(axis=2) > 130
        heights.append(np.flatnonzero(ink.any(axis=1)).size)
    assert heights == sorted(set(heights))
    assert heights[0] >= 7

    levels = np.unique(drawn("Street", 24)[..., 0])
    assert levels.size > 20  # a letter that is not smooth has two


@pytest.mark.parametrize("text", ["Ñ", "ü", "ß", "°", "·", "ő", "Å", "g"])
@pytest.mark.parametrize("row", [15, 24, 36])
def test_letters_beyond_ascii_are_written_whole(text: str, row: int) -> None:
    picture = drawn(text, row)
    assert (picture > 130).any()
    assert writable(text) == text
    assert not (picture[0] > 130).any()
    assert not (picture[-1] > 130).any()


def test_accents_make_a_difference() -> None:
    plain, accented = drawn("u", 24), drawn("ü", 24)
    assert plain.shape == accented.shape
    assert (plain[:7] == PANEL).all()
    assert (accented[:7] > 130).any()


def test_what_cannot_be_written_is_replaced() -> None:
    assert writable("Hà Nội") == "Hà Noi"
    assert writable("道路\n") == "???"
    assert writable("u\u0308") == "ü"
    assert writable("fine") == "fine"


def test_text_that_reaches_over_the_panel_is_cut() -> None:
    ground = panel(20, 30)
    write(ground, "a long line of text", (10, 5), 20)
    write(ground, "outside", (40, 0), 20)
    write(ground, "", (0, 0), 20)
    assert ground.shape == (20, 30, 3)
    assert (ground[:, :10] == PANEL).all()


def test_a_panel_is_never_shared() -> None:
    first = panel(20, 60)
    write(first, "Road", (0, 0), 20)
    assert (panel(20, 60) == PANEL).all()


def test_the_shipped_alphabet_is_what_its_script_makes() -> None:
    pytest.importorskip("PIL", reason="Pillow draws the alphabet")
    pytest.importorskip("matplotlib", reason="matplotlib brings the font")
    script = runpy.run_path(str(Path(__file__).with_name("make_lettering.py")))
    made = script["alphabet"]()
    with np.load(script["SHIPPED"]) as shipped:
        np.testing.assert_array_equal(shipped["codes"], made["codes"])
        if shipped["strip"].shape != made["strip"].shape:
            pytest.skip("another version of the font")
        difference = shipped["strip"].astype(int) - made["strip"].astype(int)
    assert np.abs(difference).mean() < 2
