"""Legends of real label maps: which classes, which colours, which shares, where."""

import numpy as np
import pytest

from edgeseg.imaging.postprocess import overlay
from edgeseg.spec import CAMVID_11, CAMVID_32, CITYSCAPES_19, LabelSpace
from edgeseg.video.legends import CornerLegend, SideLegend, class_shares

ALL = frozenset(range(11))


def scene(size: tuple[int, int], ids: tuple[int, ...] = (3, 8)) -> np.ndarray:
    """Return a label map of upright stripes of equal width."""
    columns = np.arange(size[1]) * len(ids) // size[1]
    return np.tile(np.array(ids, np.uint8)[columns], (size[0], 1))


def frame_of(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(60, 200, (*size, 3), np.uint8)


def drawn(size: tuple[int, int], ids: tuple[int, ...], space: LabelSpace = CAMVID_11) -> np.ndarray:
    """Return which pixels a corner legend changes."""
    labels = scene(size, ids)
    picture = np.full((*size, 3), 255, np.uint8)
    shown = frozenset(range(len(space)))
    CornerLegend(space, shown).draw(picture, labels, exact=True)
    return np.asarray((picture != 255).any(axis=2))


@pytest.mark.parametrize("size", [(240, 320), (479, 641), (720, 1280), (1280, 720), (1080, 1920)])
def test_the_corner_has_a_row_for_each_present_class(size: tuple[int, int]) -> None:
    heights = []
    for ids in ((3,), (3, 8), (0, 1, 3, 5, 8)):
        changed = drawn(size, ids)
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        assert rows[0] == columns[0] == 0
        assert columns[-1] < size[1] / 2
        heights.append(int(rows[-1]) + 1)

    row = heights[1] - heights[0]
    assert heights[2] - heights[1] == 3 * row
    assert row >= 15


@pytest.mark.parametrize("space", [CAMVID_32, CITYSCAPES_19], ids=lambda space: space.name)
@pytest.mark.parametrize("size", [(270, 480), (480, 854), (720, 1280), (640, 360)])
def test_many_classes_never_hide_more_than_half(space: LabelSpace, size: tuple[int, int]) -> None:
    changed = drawn(size, tuple(range(len(space))), space)
    assert changed.any()
    assert changed[:, size[1] // 2 :].sum() == 0
    assert not changed[-size[0] // 10 :].any()


def test_if_not_all_fit_the_largest_are_drawn() -> None:
    size = (60, 320)  # three rows
    ids = (0, 1, 1, 1, 3, 3, 3, 5, 8, 8)
    labels = scene(size, ids)
    picture = np.full((*size, 3), 255, np.uint8)
    CornerLegend(CAMVID_11, ALL).draw(picture, labels, exact=True)
    for label in (1, 3, 8):
        assert (picture == CAMVID_11.palette[label][::-1]).all(axis=2).any()
    for label in (0, 5):
        assert not (picture == CAMVID_11.palette[label][::-1]).all(axis=2).any()


@pytest.mark.parametrize("size", [(96, 40), (10, 400), (1, 1)])
def test_without_room_there_is_none(size: tuple[int, int]) -> None:
    assert not drawn(size, (3,)).any()


def test_classes_that_are_not_shown_are_not_named() -> None:
    labels = scene((240, 320), (3, 8))
    picture = np.full((240, 320, 3), 255, np.uint8)
    CornerLegend(CAMVID_11, frozenset({0})).draw(picture, labels, exact=True)
    assert (picture == 255).all()


def test_swatches_have_the_colours_of_the_picture() -> None:
    size = (720, 1280)
    labels = scene(size)
    frame = frame_of(size)
    frame[:, :640] //= 3  # the road lies in the shade
    picture = overlay(frame, labels, CAMVID_11, 0.5)
    means = [picture[labels == label].mean(axis=0) for label in (3, 8)]
    CornerLegend(CAMVID_11, ALL).draw(picture, labels, exact=False)

    # The middles of the swatches: the pad, a margin, and half a swatch from the left.
    for mean, middle in zip(means, (4 + 12, 4 + 24 + 12), strict=True):
        np.testing.assert_allclose(picture[middle, 14], mean, atol=4)


def test_a_class_that_just_went_stays_for_a_second_and_is_dim() -> None:
    legend = CornerLegend(CAMVID_11, ALL)
    both, one = scene((240, 320)), scene((240, 320), (3,))

    def height(labels: np.ndarray, name: str = "") -> int:
        picture = np.full((240, 320, 3), 255, np.uint8)
        legend.draw(picture, labels, exact=True, name=name)
        return int((picture[:, 0] != 255).any(axis=1).sum())

    tall = height(both)
    heights = [height(one) for _ in range(30)]
    assert heights[:24] == [tall] * 24
    assert heights[24:] == [tall - 15] * 6
    assert height(one, "another") == tall - 15


@pytest.mark.parametrize("space", [CAMVID_11, CAMVID_32, CITYSCAPES_19], ids=lambda s: s.name)
@pytest.mark.parametrize("size", [(240, 320), (479, 641), (720, 1280), (1280, 720)])
def test_the_panel_names_every_class_and_keeps_its_width(
    space: LabelSpace, size: tuple[int, int]
) -> None:
    shown = frozenset(range(len(space)))
    legend = SideLegend(space, shown)
    body = np.zeros((*size, 3), np.uint8)
    everything = legend.draw(body, scene(size, tuple(range(len(space)))), exact=True)
    assert everything.shape == (size[0], legend.width(size[0]), 3)
    assert everything.shape[1] % 2 == 0
    for red, green, blue in space.palette:
        assert (everything == (blue, green, red)).all(axis=2).any()

    for labels in (scene(size, (3,)), None):
        assert legend.draw(body, labels, exact=True).shape == everything.shape


def test_shares_are_those_of_the_pixels() -> None:
    labels = scene((720, 1280), (0, 3, 3, 8, 255))
    shares = class_shares(labels)
    assert shares[[0, 3, 8, 255]] == pytest.approx([0.2, 0.4, 0.2, 0.2], abs=0.01)
    assert shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 2000), (2000, 3)])
def test_shares_of_any_size_add_up(size: tuple[int, int]) -> None:
    assert class_shares(np.full(size, 3, np.uint8))[3] == 1
