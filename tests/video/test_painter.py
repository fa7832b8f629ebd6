"""Check the pictures of a run: colours over the frame, and the legend, if there is room for it."""

import numpy as np
import pytest

from edgeseg.imaging.postprocess import legend, overlay
from edgeseg.spec import CAMVID_11
from edgeseg.video.frames import Frame
from edgeseg.video.painter import Painter

WIDE = (96, 1000)  # H, W: room for the legend
NARROW = (96, 40)  # the legend would hide more than half


def frame_of(size: tuple[int, int]) -> Frame:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    return Frame(0, pixels, "000000", 0.0)


def test_a_frame_is_painted_as_overlay_paints_it() -> None:
    frame = frame_of(WIDE)
    labels = np.random.default_rng(1).integers(0, len(CAMVID_11), WIDE, np.uint8)
    painted = Painter(CAMVID_11, 0.3, show_legend=True).paint(frame, labels)
    np.testing.assert_array_equal(painted, overlay(frame.image, labels, CAMVID_11, 0.3))


def test_the_legend_is_drawn_in_place_into_the_corner() -> None:
    before = frame_of(WIDE).image
    picture = before.copy()
    assert Painter(CAMVID_11, 0.5, show_legend=True).finish(picture) is picture

    height, width = legend(CAMVID_11, WIDE[0]).shape[:2]
    changed = (picture != before).any(axis=2)
    assert changed[:height, :width].mean() > 0.9
    assert not changed[height:].any()
    assert not changed[:, width:].any()


def test_the_legend_covers_three_quarters_of_what_is_below() -> None:
    picture = np.zeros((*WIDE, 3), np.uint8)
    Painter(CAMVID_11, 0.5, show_legend=True).finish(picture)
    panel = legend(CAMVID_11, WIDE[0])
    corner = picture[: panel.shape[0], : panel.shape[1]]
    np.testing.assert_allclose(corner, 0.75 * panel.astype(float), atol=0.5)


@pytest.mark.parametrize(("size", "show_legend"), [(WIDE, False), (NARROW, True)])
def test_no_legend_without_wish_or_room(size: tuple[int, int], show_legend: bool) -> None:
    picture = frame_of(size).image.copy()
    before = picture.copy()
    Painter(CAMVID_11, 0.5, show_legend).finish(picture)
    np.testing.assert_array_equal(picture, before)


def test_a_legend_is_drawn_once_for_each_frame_size(monkeypatch: pytest.MonkeyPatch) -> None:
    heights: list[int] = []

    def counted(labels: object, height: int) -> np.ndarray:
        heights.append(height)
        return legend(CAMVID_11, height)

    monkeypatch.setattr("edgeseg.video.painter.legend", counted)
    painter = Painter(CAMVID_11, 0.5, show_legend=True)
    for size in (WIDE, WIDE, (480, 640), WIDE, (480, 640), NARROW, NARROW):
        painter.finish(np.zeros((*size, 3), np.uint8))
    assert len(heights) == 3
