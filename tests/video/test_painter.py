"""Check the pictures of a run: every mode against the plain functions, and what stays the same."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.imaging.enlarge import smooth_boundaries
from edgeseg.imaging.palettes import colour_blind_safe
from edgeseg.imaging.postprocess import colourise, overlay
from edgeseg.imaging.preprocess import resize_labels
from edgeseg.spec import CAMVID_11
from edgeseg.video.frames import Frame
from edgeseg.video.painter import Painter
from edgeseg.video.status import Status
from edgeseg.video.view import View

SIZE = (180, 320)
CLIP = Path(os.environ.get("EDGESEG_SHARED", "")) / "data/clips/highway_1280x720_25fps.mp4"
STATUS = Status(fps=25.0, age_ms=48.0, engine="enet-camvid int8 cpu", temperature_c=61.0)
MODES = ("overlay", "mask", "side-by-side", "edges", "blend")


def frame_of(size: tuple[int, int] = SIZE) -> Frame:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    return Frame(0, pixels, "000000", 0.0)


def labels_of(size: tuple[int, int] = SIZE) -> np.ndarray:
    blocks = np.random.default_rng(1).integers(0, len(CAMVID_11), (9, 16), np.uint8)
    return resize_labels(blocks, size)


def plain(**fields: Any) -> Painter:
    """Return a painter without legend and text."""
    return Painter(CAMVID_11, View(**{"legend": "off", "hud": False, **fields}))


def test_an_overlay_is_painted_as_overlay_paints_it() -> None:
    frame, labels = frame_of(), labels_of()
    painted = plain(alpha=0.3).paint(frame, labels)
    np.testing.assert_array_equal(painted, overlay(frame.image, labels, CAMVID_11, 0.3))


def test_a_mask_has_the_colours_alone() -> None:
    labels = labels_of()
    painted = plain(mode="mask").paint(frame_of(), labels)
    np.testing.assert_array_equal(painted, colourise(labels, CAMVID_11))


def test_side_by_side_shows_the_frame_and_its_overlay() -> None:
    frame, labels = frame_of(), labels_of()
    painted = plain(mode="side-by-side").paint(frame, labels)
    np.testing.assert_array_equal(painted[:, :320], frame.image)
    np.testing.assert_array_equal(painted[:, 320:], overlay(frame.image, labels, CAMVID_11))


def test_blend_lies_over_the_frame_in_grey() -> None:
    frame, labels = frame_of(), labels_of()
    grey = cv2.cvtColor(cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    wanted = overlay(np.asarray(grey, np.uint8), labels, CAMVID_11, 0.6)
    np.testing.assert_array_equal(plain(mode="blend", alpha=0.6).paint(frame, labels), wanted)


def test_edges_are_lines_in_the_colours_of_their_sides() -> None:
    frame = frame_of((720, 1280))
    labels = np.full((720, 1280), 3, np.uint8)
    labels[200:500, 300:700] = 8
    painted = plain(mode="edges").paint(frame, labels)

    changed = (painted != frame.image).any(axis=2)
    assert 0 < changed.mean() < 0.02
    assert not changed[220:480, 320:680].any()
    assert (painted[300, 300] == CAMVID_11.palette[8][::-1]).all()
    assert (painted[300, 299] == CAMVID_11.palette[3][::-1]).all()


def test_edges_between_classes_that_are_not_shown_are_not_drawn() -> None:
    frame = frame_of()
    labels = labels_of()
    labels[labels == 8] = 0
    np.testing.assert_array_equal(
        plain(mode="edges", classes=("car",)).paint(frame, labels), frame.image
    )


@pytest.mark.parametrize("mode", MODES)
def test_only_the_named_classes_are_coloured(mode: str) -> None:
    frame, labels = frame_of(), labels_of()
    everything = plain(mode=mode).paint(frame, labels)
    nothing = plain(mode=mode, classes=("bicyclist",)).paint(frame, np.zeros_like(labels))
    some = plain(mode=mode, classes=("road", 8)).paint(frame, labels)

    painted = np.isin(labels, (3, 8))
    if mode == "side-by-side":
        painted = np.hstack([np.zeros_like(painted), painted])
    np.testing.assert_array_equal(some[~painted], nothing[~painted])
    np.testing.assert_array_equal(some[painted], everything[painted])


@pytest.mark.parametrize("mode", MODES)
def test_the_frame_and_the_labels_never_change(mode: str) -> None:
    frame, labels = frame_of(), labels_of()
    image, ids = frame.image.copy(), labels.copy()
    for lost_s in (None, 12.0):
        for legend in ("auto", "right", "off"):
            painter = Painter(CAMVID_11, View(mode=mode, legend=legend), (90, 160))  # type: ignore[arg-type]
            painter.finish(painter.paint(frame, labels), labels, Status(fps=9, lost_s=lost_s))
            painter.finish(painter.paint(frame, None), None, Status(lost_s=lost_s))
    np.testing.assert_array_equal(frame.image, image)
    np.testing.assert_array_equal(labels, ids)


@pytest.mark.parametrize("size", [(240, 320), (479, 641), (720, 1280), (640, 360), (16, 16)])
@pytest.mark.parametrize("legend", ["auto", "right", "off"])
@pytest.mark.parametrize("mode", MODES)
def test_every_picture_has_the_size_that_was_told(
    mode: Any, legend: Any, size: tuple[int, int]
) -> None:
    painter = Painter(CAMVID_11, View(mode=mode, legend=legend), (90, 160))
    frame, labels = frame_of(size), labels_of(size)
    pictures = [
        painter.finish(painter.paint(frame, labels), labels, STATUS, "front"),
        painter.finish(painter.paint(frame, labels), labels, Status(lost_s=3.0)),
        painter.finish(painter.paint(frame, None), None, Status(lost_s=3.0)),
    ]
    for picture in pictures:
        assert picture.shape == (*painter.picture_size(size), 3)
        assert picture.dtype == np.uint8


def test_the_safe_palette_paints_other_colours() -> None:
    labels = labels_of()
    painted = plain(mode="mask", palette="colour-blind").paint(frame_of(), labels)
    np.testing.assert_array_equal(painted, colourise(labels, colour_blind_safe(CAMVID_11)))


@pytest.mark.parametrize("mode", ["overlay", "mask"])
def test_boundaries_are_smooth_where_labels_were_enlarged(mode: Any) -> None:
    frame, labels = frame_of(), labels_of()
    view = View(mode=mode, legend="off", hud=False)
    smooth = Painter(CAMVID_11, view, (9, 16)).paint(frame, labels)
    wanted = plain(mode=mode).paint(frame, smooth_boundaries(labels, (9, 16)))
    np.testing.assert_array_equal(smooth, wanted)
    assert (smooth != plain(mode=mode).paint(frame, labels)).any()

    stairs = Painter(CAMVID_11, View(mode=mode, smooth=False), (9, 16)).paint(frame, labels)
    np.testing.assert_array_equal(stairs, plain(mode=mode).paint(frame, labels))


def test_text_and_legend_are_drawn_in_place_and_can_be_left_out() -> None:
    frame, labels = frame_of(), labels_of()
    painter = Painter(CAMVID_11, View())
    bare = plain().paint(frame, labels)
    picture = painter.paint(frame, labels)
    assert painter.finish(picture, labels, STATUS) is picture

    changed = (picture != bare).any(axis=2)
    assert changed[0, 0]
    assert changed[-1, 0]
    assert not changed[:, 200:][:140].any()
    np.testing.assert_array_equal(
        plain().finish(plain().paint(frame, labels), labels, STATUS), bare
    )


def test_the_legend_at_the_right_is_beside_the_picture() -> None:
    frame, labels = frame_of(), labels_of()
    painter = Painter(CAMVID_11, View(legend="right", hud=False))
    picture = painter.finish(painter.paint(frame, labels), labels)
    np.testing.assert_array_equal(picture[:, :320], plain().paint(frame, labels))
    assert (picture[:, 320:].min(axis=2) > 150).any()


def test_the_source_is_named() -> None:
    frame, labels = frame_of(), labels_of()
    painter = Painter(CAMVID_11, View(legend="off"))
    pictures = {
        name: painter.finish(painter.paint(frame, labels), labels, STATUS, name).tobytes()
        for name in ("", "front", "rear")
    }
    assert len(set(pictures.values())) == 3


def test_a_lost_signal_dims_the_picture_each_time_alike() -> None:
    """The frame is repeated; it must not get darker and darker."""
    frame = frame_of()
    painter = Painter(CAMVID_11, View())
    pictures = [
        painter.finish(painter.paint(frame, None), None, Status(lost_s=12.0)).copy()
        for _ in range(3)
    ]
    np.testing.assert_array_equal(pictures[0], pictures[2])
    assert pictures[0][0].mean() == pytest.approx(0.35 * frame.image[0].mean(), abs=1)


def test_a_class_that_does_not_exist_is_an_error_at_once() -> None:
    with pytest.raises(InputError, match="Did you mean 'Road'"):
        Painter(CAMVID_11, View(classes=("raod",)))


@pytest.mark.parametrize(
    ("view", "takes"),
    [
        (View(), True),
        (View(legend="right", hud=False, alpha=0.2), True),
        (View(mode="mask"), False),
        (View(classes=("road",)), False),
        (View(palette="colour-blind"), False),
    ],
)
def test_an_engine_may_paint_what_it_can(view: View, takes: bool) -> None:
    assert Painter(CAMVID_11, view).takes_engine_pictures is takes


def test_pictures_that_are_held_are_never_painted_over() -> None:
    painter = Painter(CAMVID_11, View())
    labels = labels_of()
    frames = [
        Frame(index, np.full((*SIZE, 3), 9 * index, np.uint8), "", 0.0) for index in range(20)
    ]
    held = [painter.finish(painter.paint(frame, labels), labels, STATUS) for frame in frames]
    for frame, picture in zip(frames, held, strict=True):
        again = Painter(CAMVID_11, View())
        wanted = again.finish(again.paint(frame, labels), labels, STATUS)
        np.testing.assert_array_equal(picture, wanted)


def test_a_real_frame_keeps_most_of_its_picture() -> None:
    if not CLIP.is_file():
        pytest.skip("the highway clip is not under EDGESEG_SHARED")
    capture = cv2.VideoCapture(str(CLIP))
    frame = Frame(0, np.asarray(capture.read()[1], np.uint8), "000000", 0.0)
    capture.release()

    labels = labels_of(frame.size)
    bare = plain().paint(frame, labels)
    painter = Painter(CAMVID_11, View())
    picture = painter.finish(painter.paint(frame, labels), labels, STATUS)
    assert (picture != bare).any(axis=2).mean() < 0.1
