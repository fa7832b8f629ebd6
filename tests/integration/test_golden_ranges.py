"""The ranges of the shipped nets on a fixed set, against those that are kept: alarms in both
directions.
"""

from collections.abc import Mapping
from pathlib import Path

import pytest
from paths import ROOT

from edgeseg.graph.network import load_network
from edgeseg.quantize.calibration_set import resolve_set
from edgeseg.quantize.ptq import DEFAULT_METHOD, plan_quantization
from edgeseg.quantize.ranges import Ranges, read_ranges
from edgeseg.zoo import zoo

NETS = ("enet-camvid", "segnet-light-camvid")
SET = "calibration/sets/golden.toml"
# Other optimizations of ONNX Runtime move a range by 0.1 %; one grey level of noise on every pixel
# by 1.7 %.
TOLERANCE = 0.02


def golden_file(net: str) -> str:
    return f"calibration/golden/{net}.json"


def changes(golden: Mapping[str, float], found: Mapping[str, float]) -> list[str]:
    """A line for every tensor that came, went, or whose range grew or shrank by more than the
    tolerance.
    """
    said = [f"{name}: is new" for name in found if name not in golden]
    for name, before in golden.items():
        now = found.get(name)
        if now is None:
            said.append(f"{name}: is no longer ranged")
        elif not abs(now / before - 1) <= TOLERANCE:
            said.append(f"{name}: {before:.5g} -> {now:.5g} ({100 * (now / before - 1):+.1f} %)")
    return said


def require_same(net: str, golden: Ranges, found: Ranges) -> None:
    """Fail where ``found`` is of another net, set or method, or not within the tolerance.

    Name it, and the command.
    """
    file = golden_file(net)
    command = f"edgeseg calibrate {net} --calib {SET} -o {file}"
    renew = f"If that is meant, with CamVid in data/camvid: {command}"
    for fact in ("network_sha256", "set_digest", "method", "frames", "bits"):
        was, now = getattr(golden, fact), getattr(found, fact)
        if was != now:
            pytest.fail(f"{file} is of another {fact}: {was}, not {now}. {renew}", pytrace=False)
    said = changes(golden.amax, found.amax)
    if said:
        first = "\n  ".join(said[:10])
        pytest.fail(
            f"{len(said)} of {len(golden.amax)} ranges changed:\n  {first}\n{renew}", pytrace=False
        )


def test_every_net_that_ships_has_golden_ranges() -> None:
    assert set(zoo()) == set(NETS)


@pytest.mark.parametrize("net", NETS)
def test_the_golden_ranges_are_of_the_net_that_ships(net: str) -> None:
    """Needs no data, so that a new net without new ranges is told everywhere."""
    golden, sha256 = read_ranges(ROOT / golden_file(net)), load_network(zoo()[net]).sha256
    require_same(
        net, golden, golden.model_copy(update={"network_sha256": sha256, "method": DEFAULT_METHOD})
    )


@pytest.mark.parametrize("net", NETS)
def test_the_ranges_are_the_golden_ones(
    net: str, camvid_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "camvid").symlink_to(camvid_root)
    monkeypatch.chdir(tmp_path)
    found = plan_quantization(load_network(zoo()[net]), resolve_set(ROOT / SET)).ranges
    require_same(net, read_ranges(ROOT / golden_file(net)), found)


def test_the_alarm_rings_in_both_directions() -> None:
    golden = {"a": 1.0, "b": 2.0, "c": 3.0}
    assert changes(golden, {"a": 1.019, "b": 1.961, "c": 3.0}) == []
    assert changes(golden, {"a": 1.03, "b": 1.9, "d": 1.0}) == [
        "d: is new",
        "a: 1 -> 1.03 (+3.0 %)",
        "b: 2 -> 1.9 (-5.0 %)",
        "c: is no longer ranged",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"network_sha256": "f" * 64}, "another network_sha256"),
        ({"set_digest": "f" * 64}, "another set_digest"),
        ({"method": "minmax"}, "another method"),
        ({"amax": {"image": 1.0, "conv": 7.0}}, "conv: 5 -> 7"),
    ],
)
def test_what_fails_says_the_command_that_renews(change: dict[str, object], said: str) -> None:
    golden = Ranges(method="mse", bits=8, frames=2, amax={"image": 1.0, "conv": 5.0})
    require_same("enet-camvid", golden, golden)
    with pytest.raises(pytest.fail.Exception) as caught:
        require_same("enet-camvid", golden, golden.model_copy(update=change))
    assert said in str(caught.value)
    assert f"edgeseg calibrate enet-camvid --calib {SET} -o {golden_file('enet-camvid')}" in str(
        caught.value
    )
