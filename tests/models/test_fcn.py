"""The FCNs have the parameters of the reports, and of a sum by hand."""

from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")

from model_tools import parameters  # noqa: E402


@pytest.mark.parametrize(
    ("name", "count"),
    [("fcn", 5_500_245), ("fcn-dropout", 5_500_245), ("fcn-resnet34", 25_214_357)],
)
def test_parameters_are_the_reports(name: str, count: int) -> None:
    assert parameters(name, 21) == count


def test_the_fcn_is_its_table() -> None:
    """By hand: 3x3 convolutions with bias, two vectors per normalisation, the 1x1 classifier."""
    blocks = 0
    for widths in ((3, 32, 64, 128, 256, 512), (512, 512, 256, 128, 64, 32)):
        for cin, cout in pairwise(widths):
            blocks += 9 * cin * cout + cout + 2 * cout
    assert parameters("fcn", 21) == blocks + 32 * 21 + 21
