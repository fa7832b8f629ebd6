"""The synthetic camera and its burnt-in counter."""

import time

import cv2
import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.video.sources.counter import (
    COUNTER_RANGE,
    counter_age_s,
    counter_at,
    draw_counter,
    read_counter,
)
from edgeseg.video.sources.synthetic import open_synthetic


def noisy(width: int, height: int) -> np.ndarray:
    """A picture of noise."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(68, 48), (160, 90), (641, 359), (1280, 720)])
@pytest.mark.parametrize("number", [0, 1, 123456, COUNTER_RANGE - 1])
def test_a_counter_is_read_as_it_was_drawn(size: tuple[int, int], number: int) -> None:
    image = noisy(*size)
    draw_counter(image, number)
    assert read_counter(image) == number


def test_a_counter_survives_jpeg_and_scaling() -> None:
    image = noisy(640, 360)
    draw_counter(image, 987654)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 25])
    coded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert read_counter(np.asarray(coded, np.uint8)) == 987654
    assert read_counter(np.asarray(cv2.resize(image, (480, 270)), np.uint8)) == 987654


def test_a_picture_without_a_counter_has_none() -> None:
    for seed in range(200):
        image = np.random.default_rng(seed).integers(0, 256, (48, 96, 3), np.uint8)
        assert read_counter(image) is None
    for level in (0, 128, 255):
        assert read_counter(np.full((48, 96, 3), level, np.uint8)) is None

    image = noisy(640, 360)
    draw_counter(image, 77)
    image[:, 200:400] = 0  # a hand in front of it
    assert read_counter(image) is None


def test_too_narrow_for_a_counter() -> None:
    with pytest.raises(InputError, match="too narrow: got 64 pixels, expected at least 68"):
        draw_counter(np.zeros((48, 64, 3), np.uint8), 1)
    with pytest.raises(InputError, match="too narrow"):
        open_synthetic("synthetic://?size=64x48&realtime=1&counter=1")


def test_the_age_of_a_number_survives_the_end_of_its_range() -> None:
    late_s = (COUNTER_RANGE - 2) / 60
    assert counter_age_s(counter_at(late_s, 60), 60, late_s + 0.5) == pytest.approx(0.5)


def test_a_synthetic_camera_keeps_its_rate_and_shows_its_age() -> None:
    with open_synthetic("synthetic://?size=320x180&fps=60&realtime=1&counter=1") as source:
        assert (source.info.live, source.info.frames, source.info.fps) == (True, None, 60.0)
        numbers: list[int] = []
        start_s = time.perf_counter()
        while len(numbers) < 90:
            frame = next(source)
            number = read_counter(frame.image)
            assert number is not None
            assert frame.captured_s is not None
            age_s = counter_age_s(number, 60, time.perf_counter())
            assert age_s == pytest.approx(time.perf_counter() - frame.captured_s, abs=0.01)
            numbers.append(number)
        taken_s = time.perf_counter() - start_s
    assert numbers == sorted(set(numbers))
    assert (numbers[-1] - numbers[0]) / 60 == pytest.approx(taken_s, abs=0.2)
    assert not np.array_equal(frame.image[60:], source_picture())


def source_picture() -> np.ndarray:
    """The first picture of the drive, below the counter."""
    with open_synthetic("synthetic://?size=320x180&fps=60&length=1") as source:
        return next(source).image[60:]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("realtime=2", "realtime: got '2', expected 0 or 1"),
        ("realtime=1&realtime=1", "realtime twice"),
        ("counter=1", "counter: got a drive without realtime=1"),
        ("realtime=1&fault=melt@3", "got 'melt', expected one of stall, drop, resize, unplug"),
        ("realtime=1&fault=unplg@3", "Did you mean 'unplug'"),
        ("realtime=1&fault=unplug", "KIND@SECONDS"),
        ("realtime=1&speed=3", "unknown key"),
        ("realtime=1&size=4x4", "size"),
    ],
)
def test_bad_addresses(query: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        open_synthetic(f"synthetic://?{query}")
    assert says in str(caught.value)


def test_a_drive_that_is_no_camera_is_what_it_was() -> None:
    with open_synthetic("synthetic://?size=64x48&length=3&realtime=0") as source:
        assert not source.info.live
        assert [frame.index for frame in source] == [0, 1, 2]
        assert source.take_events() == []
