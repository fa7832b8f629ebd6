"""The status line and the card of a lost signal."""

import numpy as np
import pytest

from edgeseg.video.hud import draw_no_signal, draw_status, row_height, status_parts
from edgeseg.video.status import Status

FULL = Status(
    fps=24.96,
    age_ms=48.3,
    engine="enet-camvid int8 cpu",
    temperature_c=61.2,
    watts=12.34,
    flicker=0.0123,
)
SIZES = [(240, 320), (360, 480), (479, 641), (720, 1280), (1280, 720), (1080, 1920)]


def grey(size: tuple[int, int], level: int = 128) -> np.ndarray:
    return np.full((*size, 3), level, np.uint8)


def test_everything_known_is_said_and_nothing_else() -> None:
    assert status_parts(FULL, "front") == [
        "front",
        "25 FPS",
        "48 ms old",
        "enet-camvid int8 cpu",
        "61 °C",
        "12.3 W",
        "flicker 1.2 %",
    ]
    assert status_parts(Status()) == []


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (Status(fps=9.94), "9.9 FPS"),
        (Status(fps=9.96), "10 FPS"),
        (Status(age_ms=9999.0), "9999 ms old"),
        (Status(age_ms=12_300.0), "12 s old"),
        (Status(flicker=0.0), "flicker 0.0 %"),
    ],
)
def test_numbers_have_the_digits_that_mean_something(status: Status, text: str) -> None:
    assert status_parts(status) == [text]


@pytest.mark.parametrize("size", SIZES)
def test_the_line_is_at_the_bottom_left_and_covers_little(size: tuple[int, int]) -> None:
    picture = grey(size)
    height = draw_status(picture, FULL)
    changed = (picture != 128).any(axis=2)
    assert changed[-1, 0]
    assert not changed[: size[0] - height].any()
    assert changed.mean() < 0.14

    ink = picture.min(axis=2) > 190
    letters = np.flatnonzero(ink.any(axis=1))
    assert letters.size >= 8  # rows of pixels: readable at 320x240
    assert not ink[:, -1].any()


@pytest.mark.parametrize("size", SIZES)
def test_letters_are_as_large_as_the_picture_asks_for(size: tuple[int, int]) -> None:
    assert 15 <= row_height(*size) <= min(size) / 15
    assert row_height(*size) == row_height(*size[::-1])


def test_the_picture_shines_through_the_line() -> None:
    dark, bright = grey((240, 320), 0), grey((240, 320), 255)
    for picture in (dark, bright):
        draw_status(picture, FULL)
    assert 50 < int(bright[-1, 0, 0]) - int(dark[-1, 0, 0]) < 80


@pytest.mark.parametrize("size", [(1, 1), (20, 30), (40, 60), (240, 20)])
def test_a_picture_without_room_stays_as_it_is_or_gets_what_fits(size: tuple[int, int]) -> None:
    picture = grey(size)
    height = draw_status(picture, FULL, "a-camera-with-a-long-name")
    assert height <= size[0] // 3
    assert ((picture != 128).any()) == (height > 0)


def test_the_parts_that_do_not_fit_are_the_last_ones() -> None:
    narrow, short = grey((240, 160)), grey((240, 160))
    draw_status(narrow, FULL)
    draw_status(short, Status(fps=FULL.fps, age_ms=FULL.age_ms, engine=FULL.engine))
    np.testing.assert_array_equal(narrow, short)


def test_nothing_known_draws_nothing() -> None:
    picture = grey((240, 320))
    assert draw_status(picture, Status()) == 0
    assert (picture == 128).all()


@pytest.mark.parametrize("size", SIZES)
def test_a_lost_signal_dims_the_picture_and_says_so_in_the_middle(size: tuple[int, int]) -> None:
    picture = grey(size, 200)
    draw_no_signal(picture, 12.7)
    assert (picture[0] == 70).all()
    assert (picture[-1] == 70).all()

    ink = picture.min(axis=2) > 200
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    assert abs(rows.mean() - size[0] / 2) < size[0] * 0.05
    assert abs(columns.mean() - size[1] / 2) < size[1] * 0.05
    assert rows.size >= 14
    assert columns[-1] - columns[0] > 100


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (40, 300), (240, 40)])
def test_a_lost_signal_fits_any_picture(size: tuple[int, int]) -> None:
    picture = grey(size, 200)
    draw_no_signal(picture, 1e6, "a-camera-with-a-long-name")
    assert picture.shape == (*size, 3)


def test_seconds_minutes_and_hours_are_different_cards() -> None:
    cards = set()
    for seconds in (12.0, 12.9, 72.0, 3672.0):
        picture = grey((240, 480), 200)
        draw_no_signal(picture, seconds)
        cards.add(picture.tobytes())
    assert len(cards) == 3
