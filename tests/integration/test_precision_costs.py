"""What INT8 costs the nets that ship: golden numbers that alarm both ways.

The synthetic drive is always there; CamVid only where the data is. Scores of FP32 repeat on every
processor but for rounding, those of INT8 with the form that its kernels want.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeseg.commands import compare
from edgeseg.profiling.comparison import Comparison
from edgeseg.profiling.regression import check_against_first
from edgeseg.zoo import zoo

DRIVE = "synthetic://?length=6&size=480x360"
FRAMES = 6


@dataclass(frozen=True)
class Golden:
    """Scores in percent, measured on six frames."""

    fp32: float
    int8: float
    agreement: float


GOLDEN = {
    ("enet-camvid", "synthetic"): Golden(fp32=47.92, int8=48.26, agreement=97.11),
    ("enet-camvid", "camvid"): Golden(fp32=69.22, int8=69.11, agreement=99.24),
    ("segnet-light-camvid", "synthetic"): Golden(fp32=60.08, int8=59.81, agreement=98.72),
    ("segnet-light-camvid", "camvid"): Golden(fp32=72.27, int8=72.37, agreement=99.10),
}
BAND = 0.5  # points; another processor rounds otherwise
NETS = pytest.mark.parametrize("net", sorted(zoo()))


def measured(net: str, data: str) -> Comparison:
    return compare([f"{net}@fp32", f"{net}@int8"], data, frames=FRAMES, rounds=1)


def check(found: Comparison, golden: Golden) -> None:
    fp32, int8 = found.results
    assert fp32.scores is not None
    assert int8.scores is not None
    assert 100 * fp32.scores.mean_iou == pytest.approx(golden.fp32, abs=BAND)
    assert 100 * int8.scores.mean_iou == pytest.approx(golden.int8, abs=BAND)
    assert 100 * int8.agreement == pytest.approx(golden.agreement, abs=BAND)


def test_every_net_has_golden_numbers() -> None:
    assert {net for net, _ in GOLDEN} == set(zoo())


@pytest.mark.slow  # builds two engines
@NETS
def test_on_the_synthetic_drive(net: str) -> None:
    """Pictures that no net was trained on: labels are less sure, and INT8 changes more of them."""
    check(measured(net, DRIVE), GOLDEN[net, "synthetic"])


@pytest.mark.slow  # builds two engines
@NETS
def test_on_real_frames(net: str, camvid_root: Path) -> None:
    """INT8 costs at most a point of mIoU and two of a class, or it is within the interval."""
    found = measured(net, f"camvid:{camvid_root}")
    check(found, GOLDEN[net, "camvid"])
    assert check_against_first(found, max_drop=1.0) == []
