"""The ranges of the shipped net on a fixed set, against those that are kept: alarms in both directions."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from edgeseg.export.network import load_network
from edgeseg.quantize.ptq import DEFAULT_METHOD, prepare
from edgeseg.quantize.ranges import Ranges, read_ranges
from edgeseg.quantize.sets import resolve_set
from edgeseg.runtime.load import zoo

ROOT = Path(__file__).resolve().parent.parent
NET = "enet-camvid"
SET, GOLDEN = "calibration/sets/golden.toml", f"calibration/golden/{NET}.json"
RENEW = f"If that is meant, with CamVid in data/camvid: edgeseg calibrate {NET} --calib {SET} -o {GOLDEN}"
# Other optimizations of ONNX Runtime move a range by 0.1 %; one grey level of noise on every pixel by 1.7 %.
TOLERANCE = 0.02


def changes(golden: Mapping[str, float], found: Mapping[str, float]) -> list[str]:
    """A line for every tensor that came, went, or whose range grew or shrank by more than the tolerance."""
    said = [f"{name}: is new" for name in found if name not in golden]
    for name, before in golden.items():
        now = found.get(name)
        if now is None:
            said.append(f"{name}: is no longer ranged")
        elif not abs(now / before - 1) <= TOLERANCE:
            said.append(f"{name}: {before:.5g} -> {now:.5g} ({100 * (now / before - 1):+.1f} %)")
    return said


def require_same(golden: Ranges, found: Ranges) -> None:
    """Fail where ``found`` is of another net, set or method, or not within the tolerance; name it, and the command."""
    for fact in ("network_sha256", "set_digest", "method", "frames", "bits"):
        was, now = getattr(golden, fact), getattr(found, fact)
        if was != now:
            pytest.fail(f"{GOLDEN} is of another {fact}: {was}, not {now}. {RENEW}", pytrace=False)
    said = changes(golden.amax, found.amax)
    if said:
        first = "\n  ".join(said[:10])
        pytest.fail(f"{len(said)} of {len(golden.amax)} ranges changed:\n  {first}\n{RENEW}", pytrace=False)


def test_the_golden_ranges_are_of_the_net_that_ships() -> None:
    """Needs no data, so that a new net without new ranges is told everywhere."""
    golden, sha256 = read_ranges(ROOT / GOLDEN), load_network(zoo()[NET]).sha256
    require_same(golden, golden.model_copy(update={"network_sha256": sha256, "method": DEFAULT_METHOD}))


def test_the_ranges_are_the_golden_ones(camvid_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "camvid").symlink_to(camvid_root)
    monkeypatch.chdir(tmp_path)
    require_same(read_ranges(ROOT / GOLDEN), prepare(load_network(zoo()[NET]), resolve_set(ROOT / SET)).ranges)


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
    require_same(golden, golden)
    with pytest.raises(pytest.fail.Exception) as caught:
        require_same(golden, golden.model_copy(update=change))
    assert said in str(caught.value)
    assert f"edgeseg calibrate enet-camvid --calib {SET} -o {GOLDEN}" in str(caught.value)
