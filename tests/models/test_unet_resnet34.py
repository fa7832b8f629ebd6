"""The DynamicUnet has the parameters of the report."""

import pytest

torch = pytest.importorskip("torch")

from model_tools import parameters  # noqa: E402


def test_parameters_are_the_reports() -> None:
    assert round(parameters("unet-resnet34", 32) / 1e6, 2) == 41.23
