"""SegNet has the parameters of its authors' model."""

import pytest

torch = pytest.importorskip("torch")

from model_tools import parameters  # noqa: E402


def test_parameters_are_the_published_ones() -> None:
    assert round(parameters("segnet", 11) / 1e6, 2) == 29.45
