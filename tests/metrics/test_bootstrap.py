"""Intervals against a bootstrap written as a loop; what is flagged in 200 draws of frames."""

import time

import numpy as np
import pytest

from edgeseg.errors import DataError
from edgeseg.metrics.bootstrap import (
    FrameCounts,
    change_intervals,
    draw_weights,
    score_intervals,
)
from edgeseg.metrics.confusion import Scores
from edgeseg.profiling.regression import GATE_CONFIDENCE, is_beyond

CLASSES = 11
NAMES = tuple(map(str, range(CLASSES)))


def drive(frames: int, seed: int = 0) -> np.ndarray:
    """Confusion matrices of frames that differ as real ones do, in sizes and in difficulty."""
    rng = np.random.default_rng(seed)
    sizes = np.geomspace(60000, 900, CLASSES) * rng.lognormal(0, 0.6, (frames, CLASSES))
    right = np.clip(rng.normal(np.linspace(0.97, 0.6, CLASSES), 0.08, (frames, CLASSES)), 0, 1)
    hit = (sizes * right).astype(np.int64)
    missed = sizes.astype(np.int64) - hit

    matrices = np.zeros((frames, CLASSES, CLASSES), np.int64)
    for index in range(CLASSES):
        matrices[:, index, index] = hit[:, index]
        matrices[:, index, (index + 1) % CLASSES] = missed[:, index]
    return matrices


def damaged(matrices: np.ndarray, index: int, points: float, seed: int = 1) -> np.ndarray:
    """Move pixels of one class to the next one until its IoU is ``points`` lower over all frames.

    The frames lose unequal shares, as they do with a real engine.
    """
    rng = np.random.default_rng(seed)
    uneven = rng.gamma(2, 0.5, len(matrices))
    wanted = Scores(NAMES, matrices.sum(axis=0)).iou[index] - points / 100
    low, high = 0.0, 1.0
    out: np.ndarray = matrices.copy()
    for _ in range(40):
        share = (low + high) / 2
        out = matrices.copy()
        moved = (out[:, index, index] * np.clip(share * uneven, 0, 1)).astype(np.int64)
        out[:, index, index] -= moved
        out[:, index, (index + 1) % CLASSES] += moved
        low, high = (share, high) if Scores(NAMES, out.sum(0)).iou[index] > wanted else (low, share)
    return out


def flagged(first: FrameCounts, second: FrameCounts, tolerance: float) -> list[int]:
    """Classes that the gate reports: beyond the interval and the tolerance."""
    found = change_intervals(first, second, confidence=GATE_CONFIDENCE)
    return [i for i, one in enumerate(found.classes) if is_beyond(one, one.value, tolerance)]


def test_counts_give_the_iou_of_the_confusion_matrix() -> None:
    matrices = drive(7)
    expected = Scores(NAMES, matrices.sum(axis=0))
    found = score_intervals(FrameCounts.of(matrices))
    np.testing.assert_allclose([one.value for one in found.classes], expected.iou, rtol=1e-12)
    assert found.mean.value == pytest.approx(expected.mean_iou, rel=1e-12)


def test_intervals_are_those_of_a_loop_over_draws() -> None:
    """The same draws, each summed and scored as a data set of its own."""
    first, second = drive(9), damaged(drive(9), 8, 3)
    changes, means = [], []
    for row in draw_weights(9, 300).astype(int):
        frames = np.repeat(np.arange(9), row)
        before = Scores(NAMES, first[frames].sum(axis=0))
        after = Scores(NAMES, second[frames].sum(axis=0))
        changes.append(after.iou - before.iou)
        means.append(after.mean_iou - before.mean_iou)

    found = change_intervals(FrameCounts.of(first), FrameCounts.of(second), draws=300)
    expected = np.percentile(changes, (2.5, 97.5), axis=0)
    np.testing.assert_allclose([one.low for one in found.classes], expected[0], atol=1e-12)
    np.testing.assert_allclose([one.high for one in found.classes], expected[1], atol=1e-12)
    assert [found.mean.low, found.mean.high] == pytest.approx(np.percentile(means, (2.5, 97.5)))


def test_pairing_narrows_the_interval() -> None:
    first, second = FrameCounts.of(drive(100)), FrameCounts.of(damaged(drive(100), 8, 2))
    paired = change_intervals(first, second).classes[8]
    alone = score_intervals(second).classes[8]
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)


def test_the_interval_holds_the_true_score_as_often_as_it_says() -> None:
    """Data sets of 60 frames of one world: 95 % intervals miss its score in about 5 %."""
    world = drive(4000)
    true = Scores(NAMES, world.sum(axis=0)).mean_iou
    rng = np.random.default_rng(5)
    held = 0
    for seed in range(200):
        sample = FrameCounts.of(world[rng.integers(0, len(world), 60)])
        mean = score_intervals(sample, draws=400, seed=seed).mean
        held += mean.low <= true <= mean.high
    assert 0.88 <= held / 200 <= 0.99


def test_one_engine_twice_is_never_flagged() -> None:
    """A second run may round a few pixels the other way; that is no regression."""
    rng = np.random.default_rng(2)
    first = drive(100)
    second = first.copy()
    for index in range(CLASSES):
        moved = rng.binomial(first[:, index, index], 2e-4)
        second[:, index, index] -= moved
        second[:, index, (index + 1) % CLASSES] += moved
    for seed in range(200):
        frames = np.random.default_rng(seed).integers(0, 100, 100)
        same = FrameCounts.of(first[frames])
        assert flagged(same, same, 0.0) == []
        assert flagged(same, FrameCounts.of(second[frames]), 0.5) == []


def test_noise_without_a_cause_is_not_flagged() -> None:
    """An engine that is better in some frames and worse in others, by more than the tolerance.

    The tolerance alone would cry wolf.
    """
    first = drive(60)
    rng = np.random.default_rng(3)
    alarms = alone = 0
    for _ in range(200):
        second = first.copy()
        room = np.minimum(second[:, 10, 10], second[:, 10, 0])
        moved = (room * rng.normal(0, 0.4, 60).clip(-1, 1)).astype(np.int64)
        second[:, 10, 10] -= moved
        second[:, 10, 0] += moved
        a, b = FrameCounts.of(first), FrameCounts.of(second)
        alarms += 10 in flagged(a, b, 0.5)
        alone += abs(b.iou()[0, 10] - a.iou()[0, 10]) > 0.005
    assert alone > 100
    assert alarms < 0.05 * 200


def test_a_class_that_lost_two_points_is_flagged() -> None:
    first = drive(100)
    second = damaged(first, 8, 2)
    hits = 0
    for seed in range(200):
        frames = np.random.default_rng(seed).integers(0, 100, 100)
        found = flagged(FrameCounts.of(first[frames]), FrameCounts.of(second[frames]), 1.0)
        assert set(found) <= {8, 9}, "only the damaged class, and the one that it is taken for"
        hits += 8 in found
    assert hits >= 0.95 * 200


def test_a_class_that_no_frame_has_is_not_defined() -> None:
    matrices = drive(5)
    matrices[:, 10] = 0
    matrices[:, :, 10] = 0
    counts = FrameCounts.of(matrices)
    assert np.isnan(score_intervals(counts).classes[10].low)
    absent = change_intervals(counts, counts).classes[10]
    assert absent.to_list() is None
    assert not absent.excludes_zero


def test_other_frames_cannot_be_paired() -> None:
    with pytest.raises(DataError, match="same labelled frames"):
        change_intervals(FrameCounts.of(drive(5)), FrameCounts.of(drive(5, seed=1)))
    with pytest.raises(DataError, match="no frame"):
        draw_weights(0)


def test_a_thousand_draws_of_a_hundred_frames_are_fast() -> None:
    first, second = FrameCounts.of(drive(100)), FrameCounts.of(drive(100))
    start = time.process_time()
    change_intervals(first, second, draws=1000)
    assert time.process_time() - start < 1
