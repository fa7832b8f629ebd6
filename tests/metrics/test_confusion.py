"""Scores against torchmetrics, and the cases it does not decide: void, absent classes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeseg.errors import DataError
from edgeseg.metrics.confusion import confusion_matrix, scores
from edgeseg.spec import CAMVID_11, CAMVID_32

NAMES = tuple("abcde")


def maps(seed: int, classes: int, void: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, (3, 20, 30)).astype(np.uint8)
    guess = np.where(
        rng.random(truth.shape) < 0.6, truth, rng.integers(0, classes, truth.shape)
    ).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = void
    return truth, guess


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 12))
def test_agrees_with_torchmetrics(seed: int, classes: int) -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional.classification")
    truth, guess = maps(seed, classes, 255)
    result = scores([str(i) for i in range(classes)], confusion_matrix(truth, guess, classes))
    t, p = torch.from_numpy(truth).long(), torch.from_numpy(guess).long()
    options = {"num_classes": classes, "ignore_index": 255}
    iou = functional.multiclass_jaccard_index(p, t, average=None, **options).numpy()
    f1 = functional.multiclass_f1_score(p, t, average=None, **options).numpy()
    recall = functional.multiclass_recall(p, t, average=None, **options).numpy()
    precision = functional.multiclass_precision(p, t, average=None, **options).numpy()
    accuracy = float(functional.multiclass_accuracy(p, t, average="micro", **options))
    np.testing.assert_allclose(np.nan_to_num(result.iou), iou, atol=1e-6)
    np.testing.assert_allclose(np.nan_to_num(result.dice), f1, atol=1e-6)
    np.testing.assert_allclose(np.nan_to_num(result.sensitivity), recall, atol=1e-6)
    np.testing.assert_allclose(np.nan_to_num(result.precision), precision, atol=1e-6)
    assert result.pixel_accuracy == pytest.approx(accuracy, abs=1e-6)
    share = np.bincount(truth[truth < classes], minlength=classes) / (truth < classes).sum()
    assert result.frequency_weighted_iou == pytest.approx(float((iou * share).sum()), abs=1e-6)


def test_known_matrix_by_hand() -> None:
    result = scores(("a", "b", "c"), np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]]))
    np.testing.assert_allclose(result.iou[:2], [3 / 6, 4 / 7])
    np.testing.assert_allclose(result.dice[:2], [6 / 9, 8 / 11])
    np.testing.assert_allclose(result.sensitivity[:2], [3 / 4, 4 / 6])
    assert result.pixel_accuracy == pytest.approx(7 / 10)
    assert result.mean_iou == pytest.approx((3 / 6 + 4 / 7) / 2)
    assert result.absent == ("c",)
    assert np.isnan(result.iou[2])


def test_class_predicted_but_not_there_counts_as_zero() -> None:
    """A class absent from truth but predicted is wrong, not absent."""
    result = scores(("a", "b"), np.array([[3, 1], [0, 0]]))
    assert result.absent == ()
    assert result.iou[1] == 0
    assert result.mean_iou == pytest.approx(3 / 8)


def test_void_is_not_counted() -> None:
    truth = np.full((4, 4), 11, np.uint8)
    truth[0] = 3
    matrix = confusion_matrix(truth, np.full((4, 4), 3, np.uint8), 11, CAMVID_11.ignore_id)
    assert matrix.sum() == 4
    assert matrix[3, 3] == 4


def test_void_inside_the_class_range_is_not_counted() -> None:
    """CamVid-32 names Void as one of its classes."""
    truth = np.full((2, 2), CAMVID_32.ignore_id, np.uint8)
    assert confusion_matrix(truth, truth, 32, CAMVID_32.ignore_id).sum() == 0


def test_nothing_to_score_is_not_a_number() -> None:
    result = scores(NAMES, np.zeros((5, 5), np.int64))
    assert np.isnan(result.mean_iou)
    assert np.isnan(result.pixel_accuracy)
    assert result.to_dict()["miou"] is None
    assert result.absent == NAMES


def test_bad_input_is_said() -> None:
    with pytest.raises(DataError, match="differ in size"):
        confusion_matrix(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), 5)
    with pytest.raises(DataError, match="out of range"):
        confusion_matrix(np.zeros((2, 2), np.uint8), np.full((2, 2), 7, np.uint8), 5)
    with pytest.raises(DataError, match="disagree"):
        scores(("a",), np.zeros((2, 2), np.int64))
