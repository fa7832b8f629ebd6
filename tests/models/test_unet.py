"""U-Net and R2U-Net have the parameters of the public implementations."""

import pytest

torch = pytest.importorskip("torch")

from model_tools import parameters  # noqa: E402


def test_unets_parameters_are_the_published_ones() -> None:
    assert round(parameters("unet", 19) / 1e6, 2) == 31.04


def test_r2unets_parameters_are_the_published_ones() -> None:
    assert round(parameters("r2unet", 19) / 1e6, 2) == 39.09
