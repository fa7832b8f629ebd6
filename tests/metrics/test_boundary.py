"""The boundary F-score against a reference that looks at every pair of pixels, and its cases."""

import itertools
import math
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.data import open_dataset
from edgeseg.errors import DataError
from edgeseg.metrics.boundary import TOLERANCE, BoundaryTruth, boundary_scores

VOID = 255


def brute_force(
    truth: np.ndarray, guess: np.ndarray, classes: int, void: int, tolerance: float
) -> np.ndarray:
    """The module's definition, pixel by pixel and pair by pair."""
    height, width = truth.shape
    limit = tolerance * math.hypot(height, width) + 1e-9
    pixels = list(itertools.product(range(height), range(width)))
    unknown = [p for p in pixels if truth[p] == void or truth[p] >= classes]

    def boundary(labels: np.ndarray) -> list[tuple[int, int]]:
        found = []
        for y, x in pixels:
            around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            known = [
                p for p in around if 0 <= p[0] < height and 0 <= p[1] < width and p not in unknown
            ]
            if (y, x) not in unknown and any(labels[p] != labels[y, x] for p in known):
                found.append((y, x))
        return found

    counts = np.zeros((classes, 4), int)
    edges = boundary(guess), boundary(truth)
    for column, (mine, labels, theirs, others) in enumerate(
        ((edges[0], guess, edges[1], truth), (edges[1], truth, edges[0], guess))
    ):
        for p in mine:
            if any(math.dist(p, q) <= limit for q in unknown):
                continue
            counts[labels[p], 2 * column] += 1
            near = any(others[q] == labels[p] and math.dist(p, q) <= limit for q in theirs)
            counts[labels[p], 2 * column + 1] += near
    return counts


def blobs(rng: np.random.Generator, height: int, width: int, classes: int) -> np.ndarray:
    """A label map of rectangles."""
    labels = np.full((height, width), rng.integers(classes), np.uint8)
    for _ in range(4):
        y, x = rng.integers(height), rng.integers(width)
        labels[y : y + rng.integers(1, height + 1), x : x + rng.integers(1, width + 1)] = (
            rng.integers(classes)
        )
    return labels


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    height=st.integers(1, 11),
    width=st.integers(1, 13),
    classes=st.sampled_from([1, 2, 5, 11]),
    tolerance=st.sampled_from([0.0, 0.05, 0.1, 0.21, 2.0]),
    void=st.sampled_from([VOID, 0]),
)
def test_agrees_with_brute_force(
    seed: int, height: int, width: int, classes: int, tolerance: float, void: int
) -> None:
    rng = np.random.default_rng(seed)
    truth = blobs(rng, height, width, classes)
    guess = np.where(rng.random(truth.shape) < 0.15, blobs(rng, height, width, classes), truth)
    truth[rng.random(truth.shape) < 0.05] = VOID
    found = BoundaryTruth(truth, classes, void, tolerance).counts(guess)
    np.testing.assert_array_equal(found, brute_force(truth, guess, classes, void, tolerance))


def test_many_classes_are_handled_in_words() -> None:
    """Beyond 64 classes a second word of bits begins."""
    rng = np.random.default_rng(3)
    truth = rng.choice(np.array([0, 62, 63, 64, 65, 129], np.uint8), (9, 12))
    guess = np.where(rng.random(truth.shape) < 0.3, np.roll(truth, 1, 1), truth)
    found = BoundaryTruth(truth, 130, VOID, 0.1).counts(guess)
    np.testing.assert_array_equal(found, brute_force(truth, guess, 130, VOID, 0.1))


def halves(column: int, shape: tuple[int, int] = (300, 400)) -> np.ndarray:
    """Class 0 left of ``column``, class 1 from it on."""
    labels = np.zeros(shape, np.uint8)
    labels[:, column:] = 1
    return labels


def test_tolerance_is_a_share_of_the_diagonal() -> None:
    """300x400 has a diagonal of 500, so 3.75 pixels: 3 pixels off is right, 4 pixels are wrong."""
    truth = BoundaryTruth(halves(200), 2)
    assert TOLERANCE * 500 == 3.75
    for shift, score in ((0, 1.0), (3, 1.0), (4, 0.0), (-3, 1.0), (-4, 0.0)):
        result = boundary_scores("ab", truth.counts(halves(200 + shift)))
        np.testing.assert_allclose(result.f_score, score)
        assert result.mean_f_score == score


def test_precision_recall_and_f_by_hand() -> None:
    """Half of the true edge is found, and a third of what is predicted is it."""
    result = boundary_scores(("a",), np.array([[30, 10, 20, 10]]))
    assert result.precision[0] == pytest.approx(1 / 3)
    assert result.recall[0] == pytest.approx(1 / 2)
    assert result.f_score[0] == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))


def test_a_class_on_one_side_scores_zero_and_one_on_neither_not_at_all() -> None:
    result = boundary_scores(
        "abcd", np.array([[5, 5, 5, 5], [5, 0, 0, 0], [0, 0, 5, 0], [0, 0, 0, 0]])
    )
    np.testing.assert_array_equal(result.f_score, [1, 0, 0, np.nan])
    assert result.mean_f_score == pytest.approx(1 / 3)
    assert np.isnan(boundary_scores("a", np.zeros((1, 4), int)).mean_f_score)


def test_void_hides_what_lies_in_it() -> None:
    """Predictions inside a void region, and within the tolerance of it, change no count."""
    truth = halves(200)
    truth[100:200, 150:250] = VOID
    scorer = BoundaryTruth(truth, 2)
    guess = halves(200)
    clean = scorer.counts(guess)
    guess[120:180, 160:240:2] ^= 1
    np.testing.assert_array_equal(scorer.counts(guess), clean)
    assert (
        clean[0, 0] == clean[0, 2] == 2 * (100 - 3)
    )  # 3.75 pixels above and below the void are not counted


def test_frame_border_is_no_boundary() -> None:
    flat = np.ones((20, 30), np.uint8)
    assert not BoundaryTruth(flat, 2).counts(flat).any()


def test_counts_add_up_over_frames() -> None:
    """Frames that are scored apart make the whole, if counts are added before the division."""
    rng = np.random.default_rng(0)
    pairs = [(blobs(rng, 60, 80, 4), blobs(rng, 60, 80, 4)) for _ in range(4)]
    counts = [BoundaryTruth(t, 4).counts(g) for t, g in pairs]
    total = boundary_scores("abcd", np.sum(counts, axis=0))
    assert total.precision[1] == pytest.approx(
        sum(c[1, 1] for c in counts) / sum(c[1, 0] for c in counts)
    )


def test_bad_input_is_said() -> None:
    truth = BoundaryTruth(np.zeros((4, 4), np.uint8), 3)
    with pytest.raises(DataError, match="differ in size"):
        truth.counts(np.zeros((4, 5), np.uint8))
    with pytest.raises(DataError, match="out of range"):
        truth.counts(np.full((4, 4), 3, np.uint8))
    with pytest.raises(DataError, match="disagree"):
        boundary_scores("ab", np.zeros((3, 4), int))


def test_fast_enough_for_every_frame(camvid_root: Path) -> None:
    """All eleven classes of a CamVid frame; ten times what it takes on an idle machine."""
    data = open_dataset(f"camvid:{camvid_root}", "val")
    truth, guess = data[0].mask, np.minimum(data[1].mask, 10)
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        BoundaryTruth(truth, 11, data.labels.ignore_id).counts(guess)
        best = min(best, time.perf_counter() - start)
    assert best < 0.05
