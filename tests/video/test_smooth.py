"""The filter against flicker: flips go, and what moves keeps its boundary."""

import numpy as np
import pytest
from paths import SHARED

from edgeseg.data import open_dataset
from edgeseg.errors import InputError
from edgeseg.metrics.flicker import FlickerMeter
from edgeseg.spec import CAMVID_11
from edgeseg.types import Image
from edgeseg.video.smooth import DEFAULT_STRENGTH, GREATEST_STRENGTH, LabelSmoother

SIZE = (240, 320)
ROAD, CAR = 3, 8
CAMSEQ = SHARED / "data" / "camvid"


def scene(shift: int = 0, noise: float = 0, seed: int = 0) -> tuple[Image, Image]:
    """Return a grey road with a car of one colour ``shift`` pixels along it, and the true labels.

    The inside of the car has no texture, so it looks still while it moves.
    """
    frame = np.full((*SIZE, 3), 90, np.uint8)
    labels = np.full(SIZE, ROAD, np.uint8)
    frame[100:160, 40 + shift : 120 + shift] = (60, 60, 190)
    labels[100:160, 40 + shift : 120 + shift] = CAR

    rng = np.random.default_rng(seed)
    frame = np.clip(np.rint(frame + rng.normal(0, noise, frame.shape)), 0, 255).astype(np.uint8)
    return frame, labels


def flips(labels: Image, share: float, seed: int) -> Image:
    """Return labels of which a share, at random, is another class."""
    out = np.array(labels)
    wrong = np.random.default_rng(seed).random(labels.shape) < share
    out[wrong] = (out[wrong] + 1) % len(CAMVID_11)
    return out


@pytest.mark.parametrize("noise", [0, 5])
def test_flips_of_a_static_scene_are_removed(noise: float) -> None:
    smoother = LabelSmoother()
    before, after = FlickerMeter(CAMVID_11), FlickerMeter(CAMVID_11)
    wrong = 0
    for index in range(30):
        frame, labels = scene(noise=noise, seed=index)
        raw = labels if index == 0 else flips(labels, 0.02, index)
        smooth = smoother(frame, raw)
        before.add(frame, raw)
        after.add(frame, smooth)
        wrong += int((smooth != labels).sum())

    assert before.overall == pytest.approx(2 * 0.02 * 0.98, rel=0.1)
    assert after.overall is not None
    assert after.overall < 0.001
    assert wrong < 0.001 * 30 * SIZE[0] * SIZE[1]


@pytest.mark.parametrize("noise", [0, 3])
@pytest.mark.parametrize("step", [1, 2, 5, 12])
def test_the_boundary_of_a_moving_object_does_not_lag(step: int, noise: float) -> None:
    smoother = LabelSmoother(strength=GREATEST_STRENGTH)
    for index in range(12):
        frame, labels = scene(shift=step * index, noise=noise, seed=index)
        smooth = smoother(frame, labels)
        assert (smooth == labels).all(), f"frame {index}: {(smooth != labels).sum()} pixels"


def test_flips_on_a_moving_object_pass_but_do_not_stay() -> None:
    smoother = LabelSmoother()
    for index in range(12):
        frame, labels = scene(shift=4 * index)
        smooth = smoother(frame, flips(labels, 0.02, index))
        assert (smooth != labels).mean() < 0.03


@pytest.mark.parametrize("strength", [0, 1, 2, 5])
def test_a_new_label_comes_after_strength_frames(strength: int) -> None:
    smoother = LabelSmoother(strength)
    frame, labels = scene()
    smoother(frame, labels)
    new = np.full_like(labels, CAR)
    shown = [bool((smoother(frame, new) == CAR).all()) for _ in range(8)]
    assert shown == [index >= strength for index in range(8)]


def test_agreement_in_between_starts_the_count_again() -> None:
    smoother = LabelSmoother(strength=2)
    frame = np.zeros((8, 8, 3), np.uint8)
    road, car = np.zeros((8, 8), np.uint8), np.ones((8, 8), np.uint8)
    given = [road, car, car, road, car, car, car, car]
    assert [int(smoother(frame, labels)[0, 0]) for labels in given] == [0, 0, 0, 0, 0, 0, 1, 1]


def test_a_cut_a_new_size_and_a_restart_take_the_new_labels_at_once() -> None:
    smoother = LabelSmoother(strength=9)
    frame, labels = scene()
    new = flips(labels, 1.0, 0)
    smoother(frame, labels)
    assert (smoother(frame, new) == labels).all()
    assert (smoother(255 - frame, new) == new).all()
    assert (smoother(frame[:99, :77], labels[:99, :77]) == labels[:99, :77]).all()
    smoother.restart()
    assert (smoother(frame[:99, :77], new[:99, :77]) == new[:99, :77]).all()


def test_the_caller_owns_what_goes_in_and_what_comes_out() -> None:
    smoother = LabelSmoother(strength=3)
    frame, labels = scene()
    given = labels.copy()
    for _ in range(3):
        out = smoother(frame, given)
        assert out is not given
        assert (out == labels).all()
        out[:] = 0
        assert (given == labels).all()


@pytest.mark.parametrize("strength", [-1, GREATEST_STRENGTH + 1])
def test_a_strength_out_of_range_is_an_error(strength: int) -> None:
    with pytest.raises(InputError, match=f"got {strength}, expected 0 to {GREATEST_STRENGTH}"):
        LabelSmoother(strength)


def test_labels_of_another_size_are_an_error() -> None:
    frame, labels = scene()
    with pytest.raises(InputError, match="differ in size"):
        LabelSmoother()(frame, labels[1:])


@pytest.mark.skipif(not CAMSEQ.is_dir(), reason="CamSeq01 is not here: EDGESEG_SHARED")
def test_on_the_real_clip_it_takes_most_flips_and_leaves_the_truth() -> None:
    data = open_dataset(f"camvid:{CAMSEQ}", "val")
    smoother = LabelSmoother(DEFAULT_STRENGTH)
    truth = LabelSmoother(DEFAULT_STRENGTH)
    before, after = FlickerMeter(data.labels), FlickerMeter(data.labels)
    errors_before, errors_after, lag, known = 0, 0, 0, 0
    for index in range(50, 70):
        sample = data[index]
        raw = flips(sample.mask, 0.02, index)
        smooth = smoother(sample.image, raw)
        before.add(sample.image, raw)
        after.add(sample.image, smooth)
        errors_before += int((raw != sample.mask).sum())
        errors_after += int((smooth != sample.mask).sum())
        lag += int((truth(sample.image, sample.mask) != sample.mask).sum())
        known += sample.mask.size

    assert before.overall is not None
    assert after.overall is not None
    assert after.overall < 0.2 * before.overall
    assert errors_after < errors_before
    assert lag < 0.002 * known
