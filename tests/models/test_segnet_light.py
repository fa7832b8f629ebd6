"""The light SegNet has the parameters of the report."""

import pytest

torch = pytest.importorskip("torch")
from model_tools import parameters  # noqa: E402
from torch import nn  # noqa: E402

from edgeseg.models import create  # noqa: E402


def test_parameters_are_the_reports() -> None:
    assert parameters("segnet-light", 101) == 11_604_005


def test_the_convolutions_are_the_reports() -> None:
    with torch.device("meta"):
        model = create("segnet-light", 101)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert sum(p.numel() for conv in convolutions for p in conv.parameters()) == 11_602_085
    assert sum(p.numel() for p in model.encoder.parameters()) == 7_635_264
