"""Still pixels of made clips: noise is no motion, motion is, and a cut is neither."""

import cv2
import numpy as np
import pytest

from edgeseg.imaging.stillness import Stillness
from edgeseg.types import Image

RNG = np.random.default_rng(0)
TEXTURE = cv2.GaussianBlur(RNG.integers(0, 256, (360, 480, 3), np.uint8), (0, 0), 2)
SCENE = np.asarray(TEXTURE // 2 + 60, np.uint8)


def noisy(image: Image, sigma: float) -> Image:
    """Add noise of a sensor, independent per pixel and channel."""
    noise = RNG.normal(0, sigma, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def shares(sigma: float, count: int = 6) -> list[float]:
    """Return the still share of each pair of a static, noisy clip."""
    stillness = Stillness()
    found = [stillness.add(noisy(SCENE, sigma)) for _ in range(count)]
    return [float(still.mean()) for still in found if still is not None]


@pytest.mark.parametrize("sigma", [0, 2, 5, 10])
def test_noise_is_not_motion(sigma: float) -> None:
    assert min(shares(sigma)) > 0.97


def test_the_threshold_follows_the_noise() -> None:
    thresholds = []
    for sigma in (0, 5, 10):
        stillness = Stillness()
        for _ in range(3):
            stillness.add(noisy(SCENE, sigma))
        thresholds.append(stillness.threshold)
    assert thresholds == sorted(set(thresholds))


@pytest.mark.parametrize("size", [(360, 480), (720, 1280), (241, 319), (40, 50)])
def test_what_moves_is_left_out_and_the_rest_is_still(size: tuple[int, int]) -> None:
    height, width = size
    stillness = Stillness()
    first = np.full((height, width, 3), 60, np.uint8)
    second = first.copy()
    top, left = height // 2, width // 2
    first[top : top + 12, left : left + 12] = 200
    second[top : top + 12, left + 1 : left + 13] = 200
    stillness.add(first)
    still = stillness.add(second)

    assert still is not None
    assert still.shape == size
    assert still.dtype == np.bool_
    assert not still[(first != second).any(axis=2)].any()
    assert still[: height // 4].all()


def test_first_frame_size_change_cut_and_restart_have_no_answer() -> None:
    stillness = Stillness()
    assert stillness.add(SCENE) is None
    assert stillness.add(SCENE) is not None
    assert stillness.add(SCENE[:100, :100]) is None
    assert stillness.add(SCENE) is None
    assert stillness.add(255 - SCENE // 2) is None, "a cut"
    assert stillness.add(255 - SCENE // 2) is not None
    stillness.restart()
    assert stillness.add(255 - SCENE // 2) is None


def test_a_frame_that_the_caller_draws_into_later_was_kept_before() -> None:
    frame = np.full((60, 80, 3), 50, np.uint8)
    stillness = Stillness()
    stillness.add(frame)
    frame[:] = 70
    still = stillness.add(np.full((60, 80, 3), 50, np.uint8))
    assert still is not None
    assert still.all()


def test_a_moment_of_motion_is_not_taken_for_noise() -> None:
    stillness = Stillness()
    for _ in range(3):
        stillness.add(noisy(SCENE, 2))
    before = stillness.threshold
    stillness.add(noisy(np.roll(SCENE, 9, axis=1), 2))
    assert stillness.threshold <= 1.1 * before + 0.1
