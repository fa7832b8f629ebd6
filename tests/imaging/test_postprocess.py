"""Label map -> pictures, against NumPy and against independent PNG readers."""

import cv2
import numpy as np
import pytest

from edgeseg.imaging.postprocess import (
    colourise,
    hidden_ids,
    indexed_png,
    overlay,
    palette_lut,
)
from edgeseg.spec import CAMVID_11, CAMVID_32, CITYSCAPES_19, VOC_21, LabelSpace

SPACES = (CAMVID_11, CAMVID_32, CITYSCAPES_19, VOC_21)


def label_map(height: int = 37, width: int = 53, high: int = 256) -> np.ndarray:
    ids = np.random.default_rng(0).integers(0, high, (height, width), dtype=np.uint8)
    ids.flat[: min(256, high)] = np.arange(min(256, high))  # every id is there
    return ids


def frame_like(ids: np.ndarray) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (*ids.shape, 3), dtype=np.uint8)


@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.name)
def test_palette_is_bgr_and_black_outside_the_classes(space: LabelSpace) -> None:
    lut = palette_lut(space)
    assert lut.shape == (256, 3)
    assert lut.dtype == np.uint8
    for index, (red, green, blue) in enumerate(space.palette):
        assert tuple(lut[index]) == ((0, 0, 0) if index == space.ignore_id else (blue, green, red))
    assert not lut[len(space) :].any()


def test_an_ignored_class_with_a_colour_is_black() -> None:
    space = LabelSpace(name="x", names=("a", "b"), palette=((1, 2, 3), (4, 5, 6)), ignore_id=1)
    assert palette_lut(space)[:2].tolist() == [[3, 2, 1], [0, 0, 0]]


def test_colourise_is_the_look_up() -> None:
    ids = label_map()
    np.testing.assert_array_equal(colourise(ids, CAMVID_11), palette_lut(CAMVID_11)[ids])


def test_colourise_takes_a_view_that_is_not_contiguous() -> None:
    ids = label_map()[::2, ::-3]
    np.testing.assert_array_equal(colourise(ids, VOC_21), palette_lut(VOC_21)[ids])


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_overlay_blends_classes_and_leaves_the_rest(alpha: float) -> None:
    ids = label_map()
    frame = frame_like(ids)
    before = frame.copy()
    picture = overlay(frame, ids, CAMVID_11, alpha)
    np.testing.assert_array_equal(frame, before)
    known = ids < len(CAMVID_11)
    np.testing.assert_array_equal(picture[~known], frame[~known])
    expected = frame * (1 - alpha) + palette_lut(CAMVID_11)[ids].astype(float) * alpha
    assert np.abs(picture.astype(float) - expected)[known].max() <= 0.5 + 1e-4


def test_overlay_leaves_an_ignored_id_that_is_a_class() -> None:
    ids = np.full((4, 4), CAMVID_32.ignore_id, np.uint8)
    frame = frame_like(ids)
    np.testing.assert_array_equal(overlay(frame, ids, CAMVID_32), frame)


@pytest.mark.parametrize(
    ("shape", "dtype", "alpha"),
    [((5, 4, 3), np.uint8, 0.5), ((4, 4, 3), np.float32, 0.5), ((4, 4, 3), np.uint8, 1.5)],
)
def test_overlay_refuses_what_does_not_fit(
    shape: tuple[int, ...], dtype: type, alpha: float
) -> None:
    with pytest.raises(ValueError, match="overlay"):
        overlay(np.zeros(shape, dtype), np.zeros((4, 4), np.uint8), CAMVID_11, alpha)


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4), np.int64), np.zeros((1, 4, 4), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_a_label_map_is_checked(bad: np.ndarray) -> None:
    for paint in (colourise, indexed_png):
        with pytest.raises(ValueError, match="label map"):
            paint(bad, CAMVID_11)


def test_only_the_classes_that_are_shown_are_painted() -> None:
    ids = label_map()
    frame = frame_like(ids)
    shown = {3, 8}
    painted = np.isin(ids, list(shown))
    everything = overlay(frame, ids, CAMVID_11)

    picture = overlay(frame, ids, CAMVID_11, 0.5, shown)
    np.testing.assert_array_equal(picture[painted], everything[painted])
    np.testing.assert_array_equal(picture[~painted], frame[~painted])
    assert not colourise(ids, CAMVID_11, shown)[~painted].any()
    np.testing.assert_array_equal(
        colourise(ids, CAMVID_11, shown)[painted], colourise(ids, CAMVID_11)[painted]
    )


def test_an_ignored_class_is_hidden_even_if_it_is_asked_for() -> None:
    ids = np.full((4, 4), CAMVID_32.ignore_id, np.uint8)
    assert not colourise(ids, CAMVID_32, {CAMVID_32.ignore_id}).any()
    assert hidden_ids(CAMVID_32, {CAMVID_32.ignore_id}).all()


@pytest.mark.parametrize("shown", [None, {1, 3}])
def test_pictures_are_painted_into_an_array_that_is_given(shown: set[int] | None) -> None:
    ids = label_map()
    frame = frame_like(ids)
    whole = np.empty_like(frame)
    assert overlay(frame, ids, CAMVID_11, 0.4, shown, whole) is whole
    np.testing.assert_array_equal(whole, overlay(frame, ids, CAMVID_11, 0.4, shown))

    assert colourise(ids, CAMVID_11, shown, whole) is whole
    np.testing.assert_array_equal(whole, colourise(ids, CAMVID_11, shown))


@pytest.mark.parametrize("shape", [(1, 1), (37, 53), (360, 480)])
@pytest.mark.parametrize("space", SPACES, ids=lambda s: s.name)
def test_indexed_png_shows_the_colours(space: LabelSpace, shape: tuple[int, int]) -> None:
    ids = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
    shown = cv2.imdecode(np.frombuffer(indexed_png(ids, space), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(shown, colourise(ids, space))


def test_indexed_png_keeps_the_ids() -> None:
    image = pytest.importorskip("PIL.Image")
    import io

    ids = label_map()
    with image.open(io.BytesIO(indexed_png(ids, CAMVID_11))) as png:
        assert png.mode == "P"
        np.testing.assert_array_equal(np.asarray(png), ids)
        palette = np.array(CAMVID_11.palette).ravel().tolist()
        assert png.getpalette()[: len(palette)] == palette
