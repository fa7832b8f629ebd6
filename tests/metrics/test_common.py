"""Which pixels count, and scores of nothing."""

import math

import numpy as np
import pytest

from edgeseg.errors import DataError
from edgeseg.metrics.common import (
    json_number,
    known_pixels,
    known_predictions,
    mean_of_present,
    ratio,
)


def test_void_is_the_ignored_id_and_every_id_that_is_no_class() -> None:
    truth = np.array([[0, 1], [2, 3], [4, 255]], np.uint8)
    known = known_pixels(truth, classes=4, ignore_id=2)
    np.testing.assert_array_equal(known, [[True, True], [False, True], [False, False]])


def test_predictions_in_void_are_not_checked() -> None:
    known = np.array([[True, False]])
    np.testing.assert_array_equal(
        known_predictions(np.array([[1, 9]], np.uint8), known, classes=2), [1]
    )
    with pytest.raises(DataError, match=r"out of range: got 9 \(expected below 2\)|out of range"):
        known_predictions(np.array([[9, 1]], np.uint8), known, classes=2)
    with pytest.raises(DataError, match="differ in size"):
        known_predictions(np.array([[1]], np.uint8), known, classes=2)
    nothing = np.zeros((1, 2), np.bool_)
    assert known_predictions(np.array([[9, 9]], np.uint8), nothing, classes=2).size == 0


def test_a_ratio_of_nothing_is_not_a_number() -> None:
    for dtype in (np.int64, np.float64):
        found = ratio(np.array([1, 0, 0], dtype), np.array([3, 2, 0], dtype))
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, [1 / 3, 0, np.nan])


def test_a_mean_leaves_out_what_has_no_score() -> None:
    assert mean_of_present(np.array([1.0, np.nan, 0.0])) == 0.5
    assert math.isnan(mean_of_present(np.array([np.nan])))


def test_json_has_no_nan() -> None:
    assert json_number(float("nan")) is None
    assert type(json_number(np.float64(0.25))) is float
