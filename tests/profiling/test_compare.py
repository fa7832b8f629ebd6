"""Engines side by side: scores against evaluate's, latency on a fake clock, golden files that alarm
both ways.
"""

import copy
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from commands import edgeseg
from linear_net import linear_net
from reporting import Heard

from edgeseg.backends.engine import Engine
from edgeseg.backends.load import load_engine
from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.cli.compare import print_comparison
from edgeseg.data import open_dataset
from edgeseg.data.sampling import spread
from edgeseg.errors import DataError, EngineError, InputError
from edgeseg.graph.network import Overrides, load_network
from edgeseg.metrics.boundary import BoundaryTruth, boundary_scores
from edgeseg.metrics.evaluate import evaluate
from edgeseg.metrics.flicker import FlickerMeter
from edgeseg.profiling.compare import compare
from edgeseg.profiling.comparison import Comparison
from edgeseg.profiling.entry import Entry, check_alike, identify, open_entry, split_precision
from edgeseg.profiling.frames import Sample, frames_of
from edgeseg.profiling.latency import Latency, measure_latency
from edgeseg.profiling.machine import describe_machine
from edgeseg.profiling.regression import check_against, read_baseline, warnings_against
from edgeseg.spec import CAMVID_11
from edgeseg.video import Source, VideoInfo, open_source

DRIVE = "synthetic://?length=5&size=96x64"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Engines a, b (other weights) and c (a's weights, half the size), all of CamVid's classes.

    D of three classes.
    """
    root = tmp_path_factory.mktemp("engines")
    nets = {"a": linear_net(root / "a.onnx"), "b": linear_net(root / "b.onnx", seed=1)}
    nets["c"] = linear_net(root / "c.onnx", size=(32, 48))
    nets["d"] = linear_net(root / "d.onnx", classes=3)
    for name, path in nets.items():
        facts = Overrides(labels=None if name == "d" else "camvid-11")
        build_engine(load_network(path, facts), precision="fp32", out=root / f"{name}.engine")
    return root


@pytest.fixture(scope="module")
def comparison(folder: Path) -> Comparison:
    names = [folder / f"{name}.engine" for name in "abc"]
    return compare(names, open_dataset(DRIVE), rounds=1, clock=ticking(0.001))


def ticking(step_s: float) -> Callable[[], float]:
    """A clock that moves ``step_s`` each time it is read."""
    now = [0.0]

    def clock() -> float:
        now[0] += step_s
        return now[0]

    return clock


class FakeClock:
    """Time that passes only where a candidate says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[tuple[str, int]] = []

    def __call__(self) -> float:
        return self.now

    def candidate(self, name: str, times_s: Iterator[float]) -> Callable[[np.ndarray], None]:
        def call(frame: np.ndarray) -> None:
            self.log.append((name, int(frame[0, 0, 0])))
            self.now += next(times_s)

        return call


FRAMES = [np.full((2, 2, 3), i, np.uint8) for i in range(3)]


def constant(value: float) -> Iterator[float]:
    while True:
        yield value


def test_latency_is_measured_in_turns() -> None:
    clock, turns = FakeClock(), Heard()
    a, b = clock.candidate("a", constant(0.01)), clock.candidate("b", constant(0.03))
    found = measure_latency(
        [a, b], FRAMES, rounds=2, calls=4, warmup=1, clock=clock, reporter=turns
    )
    assert [name for name, _ in clock.log] == [*"aaaaabbbbb", *"bbbbbaaaaa"]
    assert [frame for _, frame in clock.log[:5]] == [0, 0, 1, 2, 0]
    assert turns.steps == [("time", done, 4) for done in range(5)]
    assert found[0].calls == found[1].calls == 8
    assert found[0].ms_p50 == pytest.approx(10)
    assert found[1].ms_p95 == pytest.approx(30)


def test_warm_up_is_not_counted_and_a_turn_ends_in_time() -> None:
    clock = FakeClock()
    slow = clock.candidate("slow", iter([9.0, 0.4, 0.4, 0.4, 0.4, 0.4]))
    (found,) = measure_latency(
        [slow], FRAMES, rounds=1, calls=20, seconds=1.0, warmup=1, clock=clock
    )
    assert found.calls == 3
    assert found.ms_mean == pytest.approx(400)


def test_percentiles_are_numpys() -> None:
    times_s = np.random.default_rng(0).exponential(0.01, 137)
    found = Latency.of(list(times_s))
    expected = np.percentile(times_s * 1e3, (50, 95, 99))
    np.testing.assert_allclose((found.ms_p50, found.ms_p95, found.ms_p99), expected)
    assert found.to_dict()["calls"] == 137


def test_latency_of_nothing_is_said() -> None:
    with pytest.raises(InputError, match="no frame"):
        measure_latency([lambda frame: None], [])
    with pytest.raises(InputError, match="0 rounds"):
        measure_latency([lambda frame: None], FRAMES, rounds=0)


def test_machine_is_plain_values() -> None:
    found = describe_machine()
    assert found["cores"] >= found["cores_usable"] >= 1
    assert found["versions"]["openvino"]
    assert "torch" not in found["versions"]
    assert json.loads(json.dumps(found)) == found
    assert describe_machine(("no-such-package",))["versions"] == {}


def test_scores_are_those_of_evaluate(folder: Path, comparison: Comparison) -> None:
    data = open_dataset(DRIVE)
    for name, result in zip("abc", comparison.results, strict=True):
        engine = load_engine(folder / f"{name}.engine")
        assert result.scores is not None
        assert result.boundary is not None
        np.testing.assert_array_equal(result.scores.matrix, evaluate(engine, data).matrix)
        samples = map(data.__getitem__, range(5))
        counts = np.sum(
            [BoundaryTruth(s.mask, 11, 11).counts(engine(s.image)) for s in samples], axis=0
        )
        np.testing.assert_array_equal(
            result.boundary.counts, boundary_scores(CAMVID_11.names, counts).counts
        )
        assert result.size_bytes == (folder / f"{name}.engine").stat().st_size


def test_label_agreement_is_with_the_first(folder: Path, comparison: Comparison) -> None:
    a, b = load_engine(folder / "a.engine"), load_engine(folder / "b.engine")
    images = [open_dataset(DRIVE)[i].image for i in range(5)]
    assert comparison.results[0].agreement == 1
    assert comparison.results[1].agreement == pytest.approx(
        np.mean([(a(x) == b(x)).mean() for x in images])
    )


def test_engines_that_are_opened_here_are_closed_and_others_stay_open(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Entry] = []

    def keep(given: Engine | str | Path) -> Entry:
        opened.append(open_entry(given))
        return opened[-1]

    monkeypatch.setattr("edgeseg.profiling.compare.open_entry", keep)
    mine = load_engine(folder / "a.engine")
    compare(
        [mine, folder / "b.engine"],
        open_dataset(DRIVE),
        indices=[0],
        rounds=1,
        clock=ticking(0.001),
    )
    image = open_dataset(DRIVE)[0].image
    assert opened[0].engine is mine
    assert mine(image).shape == image.shape[:2]
    with pytest.raises(EngineError, match="b: the engine is closed"):
        opened[1].engine(image)

    with pytest.raises(InputError):
        compare([folder / "a.engine", folder / "no.engine"], open_dataset(DRIVE))
    with pytest.raises(EngineError, match="a: the engine is closed"):
        opened[-1].engine(image)


def test_inputs_may_differ_in_size(comparison: Comparison) -> None:
    sizes = [result.passport.spec.input_size for result in comparison.results]
    assert sizes == [(64, 96), (64, 96), (32, 48)]
    assert 0.2 < comparison.results[2].agreement < 1


def test_changes_are_against_the_first(comparison: Comparison) -> None:
    saved = comparison.to_dict()
    a, b = saved["engines"][:2]
    assert saved["reference"] == a["id"] == "a@fp32"
    assert a["miou_change"] == a["boundary_f_change"] == 0
    assert a["worst_class"] is None
    assert b["miou_change"] == pytest.approx(b["miou"] - a["miou"])
    lost = {
        name: c["iou_change"] for name, c in b["per_class"].items() if c["iou_change"] is not None
    }
    assert b["worst_class"] == min(lost, key=lambda name: lost[name])
    assert b["worst_class_iou_change"] == min(lost.values())
    assert b["latency_ratio"] == pytest.approx(1)  # the fake clock gives all the same


def test_result_is_json_without_nan(comparison: Comparison) -> None:
    saved = comparison.to_dict()
    assert json.loads(json.dumps(saved, allow_nan=False)) == saved
    assert saved["data"]["frames"] == 5
    assert saved["data"]["labelled"] is True
    assert saved["machine"]["cpu"]
    assert saved["protocol"]["rounds"] == 1


def test_data_hash_sees_names_masks_and_pixels(folder: Path) -> None:
    class Changed:
        """The drive with one pixel of one frame or mask changed, or another name."""

        name, labels = "changed", CAMVID_11

        def __init__(self, what: str) -> None:
            self.what, self.inner = what, open_dataset(DRIVE)
            self.names = self.inner.names

        def __len__(self) -> int:
            return len(self.inner)

        def __getitem__(self, index: int) -> Any:
            sample = copy.deepcopy(self.inner[index])
            if index == 2 and self.what in ("image", "mask"):
                changed = getattr(sample, self.what)
                changed[3, 4] = 1 - changed[3, 4].clip(0, 1)
            return type(sample)(
                sample.name + ("x" if self.what == "name" else ""), sample.image, sample.mask
            )

    def hashes(what: str) -> tuple[str, str]:
        data = compare([folder / "a.engine"], Changed(what), rounds=1).data
        return data.sha256, data.pixels_sha256

    same = hashes("nothing")
    assert hashes("nothing") == same
    assert hashes("image")[0] == same[0]
    assert hashes("image")[1] != same[1]
    for what in ("mask", "name"):
        assert hashes(what)[0] != same[0]
        assert hashes(what)[1] == same[1]


def test_unlabelled_data_gives_agreement_and_latency(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"{i}.png"), rng.integers(0, 256, (40 + i, 50, 3), np.uint8))
    with open_source(str(tmp_path)) as source:
        found = compare([folder / "a.engine", folder / "b.engine"], source, rounds=1)
    saved = found.to_dict()
    assert saved["data"]["labelled"] is False
    assert saved["data"]["frames"] == 4
    assert 0 < saved["engines"][1]["agreement"] < 1
    assert saved["engines"][1]["latency_ms_p50"] > 0
    assert "miou" not in saved["engines"][1]
    assert check_against(saved, found) == []


def test_unlabelled_data_says_what_became_of_each_class(folder: Path, tmp_path: Path) -> None:
    """The first engine's labels are the truth: the confusion matrix of two label maps, by another
    implementation.
    """
    data = open_dataset(DRIVE)
    images = [data[i].image for i in range(3)]
    for i, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
    with open_source(str(tmp_path)) as source:
        found = compare([folder / "a.engine", folder / "b.engine"], source, rounds=1)
    first, second = found.to_dict()["engines"]
    assert first["mean_iou_with_reference"] == 1
    one, other = (load_engine(folder / f"{name}.engine") for name in "ab")
    truth, guess = (np.stack([engine(image) for image in images]) for engine in (one, other))
    for c, name in enumerate(found.data.labels.names):
        a, b = truth == c, guess == c
        told = second["per_class_with_reference"][name]
        assert told["share"] == pytest.approx(a.mean(), abs=1e-6)
        if (a | b).any():
            assert told["iou"] == pytest.approx((a & b).sum() / (a | b).sum(), abs=1e-5)
        else:
            assert told["iou"] is None
    judged = {
        n: row["iou"]
        for n, row in second["per_class_with_reference"].items()
        if row["share"] > 0.001
    }
    assert second["worst_class_with_reference"] == min(judged, key=lambda n: judged[n])
    assert second["mean_iou_with_reference"] == pytest.approx(
        np.mean(list(judged.values())), abs=1e-5
    )


def test_frames_are_chosen_by_index(folder: Path) -> None:
    names = []
    with open_source("synthetic://?length=9&size=96x64") as source:
        names = [item.name for item in frames_of(source, [1, 4, 7]).items]
    with open_source("synthetic://?length=9&size=96x64") as source:
        every = [frame.name for frame in source]
    assert names == [every[1], every[4], every[7]]
    data = open_dataset(DRIVE)
    assert [item.name for item in frames_of(data, [0, 3]).items] == [data.names[0], data.names[3]]


def test_live_source_needs_a_number(folder: Path) -> None:
    """A camera has no end; with a number, whatever frames come are taken."""

    def frames() -> Iterator[Any]:
        with open_source("synthetic://?length=30&size=96x64") as inner:
            yield from inner

    info = VideoInfo(96, 64, fps=None, frames=None, live=True)
    with Source(info, frames()) as source, pytest.raises(InputError, match="no end"):
        compare([folder / "a.engine"], source)
    with Source(info, frames()) as source:
        assert compare([folder / "a.engine"], source, indices=range(2), rounds=1).data.frames <= 2


def test_spread_and_sample() -> None:
    assert spread(3, 5) == [0, 1, 2]
    assert spread(10, 2) == [2, 7]
    assert spread(101, 1) == [50]
    for total, wanted in itertools.product(range(1, 40), range(1, 45)):
        assert len(set(spread(total, wanted))) == min(total, wanted)
    for count, given, kept in ((100, 100, 8), (3, 3, 3), (None, 50, 8), (100, 1, 1)):
        sample = Sample(count)
        for i in range(given):
            sample.offer(np.full((1, 1, 3), i, np.uint8))
        assert len(sample.images) == kept


def test_different_classes_are_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"d@fp32 and a@fp32 have different classes.*3 .*11 .*class0 / Sky"
    ):
        compare([folder / "a.engine", folder / "d.engine"], open_dataset(DRIVE))
    with pytest.raises(DataError, match="labels are not those of synthetic/val"):
        compare([folder / "d.engine"], open_dataset(DRIVE))
    with pytest.raises(InputError, match="at least one engine"):
        compare([], open_dataset(DRIVE))
    check_alike([open_entry(folder / "d.engine")])


def test_ids_are_unique(folder: Path) -> None:
    a = open_entry(folder / "a.engine")
    assert identify([a, open_entry(folder / "b.engine"), a, a]) == (
        "a@fp32",
        "b@fp32",
        "a@fp32#2",
        "a@fp32#3",
    )


def test_precision_suffix(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert split_precision("enet-camvid@bf16") == ("enet-camvid", "bf16")
    assert split_precision("net.onnx@fp32") == ("net.onnx", "fp32")
    assert split_precision("a@b/net.onnx") == ("a@b/net.onnx", "auto")
    assert split_precision("@fp32") == ("@fp32", "auto")
    monkeypatch.chdir(tmp_path)
    linear_net(tmp_path / "odd@fp32").rename(tmp_path / "odd@x")
    assert split_precision("odd@x") == ("odd@x", "auto")
    with pytest.raises(InputError, match="is a fp32 engine"):
        open_entry(f"{folder / 'a.engine'}@bf16")


def test_size_of_an_engine_from_the_cache(folder: Path) -> None:
    entry = open_entry(f"{folder / 'a.onnx'}@fp32", Overrides(labels="camvid-11"))
    assert entry.size_bytes is not None
    assert abs(entry.size_bytes - (folder / "a.engine").stat().st_size) < 4096
    assert open_entry(entry.engine).size_bytes == entry.size_bytes
    assert open_entry(load_engine(folder / "a.engine")).size_bytes in (None, entry.size_bytes)


def test_progress_counts_frames_and_turns(folder: Path) -> None:
    heard = Heard()
    engines: list[Engine | Entry | str | Path] = [folder / "a.engine", folder / "b.engine"]
    compare(
        engines,
        open_dataset(DRIVE),
        rounds=2,
        clock=ticking(0.1),
        reporter=heard,
    )
    assert heard.steps == [
        *(("compare", i, 5) for i in range(6)),
        *(("time", i, 4) for i in range(5)),
    ]


def changed(comparison: Comparison, path: str, points: float) -> dict[str, Any]:
    """The comparison's JSON with one number of its second engine moved, so that it now is
    ``points`` better.
    """
    saved = json.loads(json.dumps(comparison.to_dict()))
    place = saved["engines"][1]
    *way, last = path.split(".")
    for key in way:
        place = place[key]
    place[last] -= points / 100
    return dict(saved)


def test_same_again_is_no_regression(comparison: Comparison) -> None:
    assert check_against(comparison.to_dict(), comparison, max_drop=0) == []
    assert warnings_against(comparison.to_dict(), comparison) == []


@pytest.mark.parametrize(
    ("path", "title", "band"),
    [
        ("miou", "b@fp32: mIoU", 0.5),
        ("boundary_f", "b@fp32: boundary F", 0.5),
        ("agreement", "b@fp32: label agreement", 0.5),
        ("per_class.Road.iou", "b@fp32: IoU of Road", 1.0),
    ],
)
def test_golden_alarms_both_ways(
    comparison: Comparison, path: str, title: str, band: float
) -> None:
    assert check_against(changed(comparison, path, -band + 0.01), comparison) == []
    assert check_against(changed(comparison, path, band - 0.01), comparison) == []
    (drop,) = check_against(changed(comparison, path, -band - 0.01), comparison)
    assert drop.startswith(title)
    assert f"{-band - 0.01:+.2f} points, a drop of more than {band:g}" in drop
    (gain,) = check_against(changed(comparison, path, band + 0.01), comparison)
    assert gain.startswith(title)
    assert "improved without explanation" in gain
    assert "`json`" in gain
    assert check_against(changed(comparison, path, band + 0.01), comparison, max_gain=1) == []
    assert check_against(changed(comparison, path, -band - 0.01), comparison, max_drop=1) == []


def test_a_baseline_without_counts_has_the_wide_band(comparison: Comparison) -> None:
    for points, lines in ((-1.99, 0), (-2.01, 1)):
        saved = changed(comparison, "per_class.Road.iou", points)
        for engine in saved["engines"]:
            del engine["true_positive_per_frame"]
        assert len(check_against(saved, comparison)) == lines


def test_a_change_within_its_interval_is_no_alarm(comparison: Comparison) -> None:
    """One frame of five that was much better makes a large change, and a wide interval."""
    saved = json.loads(json.dumps(comparison.to_dict()))
    engine = saved["engines"][1]
    right = engine["true_positive_per_frame"]["Road"].split()
    truth = saved["data"]["truth_per_frame"]["Road"].split()
    predicted = engine["predicted_per_frame"]["Road"].split()
    union = sum(map(int, truth)) + sum(map(int, predicted))
    index = max(range(5), key=lambda i: int(truth[i]) - int(right[i]))
    right[index] = str(int(right[index]) + (int(truth[index]) - int(right[index])) // 2)
    engine["true_positive_per_frame"]["Road"] = " ".join(right)
    total = sum(map(int, right))
    iou = total / (union - total)
    assert 100 * (iou - engine["per_class"]["Road"]["iou"]) > 1
    engine["per_class"]["Road"]["iou"] = iou
    assert check_against(saved, comparison) == []
    for one in saved["engines"]:
        one["true_positive_per_frame"] = None
    if 100 * (iou - comparison.to_dict()["engines"][1]["per_class"]["Road"]["iou"]) > 2:
        assert len(check_against(saved, comparison)) == 1


def test_damaged_counts_are_named(comparison: Comparison) -> None:
    saved = json.loads(json.dumps(comparison.to_dict()))
    saved["engines"][1]["predicted_per_frame"]["Road"] = "1 2 three"
    with pytest.raises(InputError, match="counts per frame are damaged"):
        check_against(saved, comparison)


def test_intervals_are_in_the_json_and_in_the_table(
    comparison: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = comparison.to_dict()["engines"][1]
    low, high = engine["miou_change_interval"]
    assert low <= engine["miou_change"] <= high
    assert engine["miou_interval"][0] <= engine["miou"] <= engine["miou_interval"][1]
    print_comparison(comparison)
    shown = capsys.readouterr().out
    assert "95 % interval" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80
    stars = [
        name
        for name, row in engine["per_class"].items()
        if row["iou_change_interval"]
        and row["iou_change_interval"][0] * row["iou_change_interval"][1] > 0
    ]
    assert stars
    for name in stars:
        assert next(line for line in shown.splitlines() if name in line and "*" in line)


def test_a_class_that_comes_or_goes_is_told(comparison: Comparison) -> None:
    saved = comparison.to_dict()
    saved["engines"][1]["per_class"]["Road"]["iou"] = None
    (line,) = check_against(saved, comparison)
    assert "IoU of Road" in line
    assert line.endswith("was none")


def test_latency_warns_and_fails_only_if_asked(comparison: Comparison) -> None:
    saved = comparison.to_dict()
    saved["engines"][1]["latency_ratio"] = 0.5
    assert check_against(saved, comparison) == []
    (line,) = warnings_against(saved, comparison)
    assert "b@fp32: median latency is 1.00 of a@fp32's, was 0.50: 2.00 times as slow" in line
    (problem,) = check_against(saved, comparison, max_slowdown=1.5)
    assert problem.startswith(line)
    saved["machine"]["cpu"] = "Another"
    assert "another processor (Another" in warnings_against(saved, comparison)[1]
    saved["engines"][1]["latency_ratio"] = 0.9
    assert warnings_against(saved, comparison) == []


def test_other_pixels_are_a_warning(comparison: Comparison) -> None:
    saved = comparison.to_dict()
    saved["data"]["pixels_sha256"] = "0" * 64
    assert check_against(saved, comparison) == []
    assert "decoder" in warnings_against(saved, comparison)[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s["data"].update(frames=6), "other frames: got 5, expected 6"),
        (lambda s: s["data"].update(sha256="f" * 64), "other data"),
        (lambda s: s.update(reference="b@fp32"), "other first engine"),
        (lambda s: s["engines"].pop(), "other engines"),
        (lambda s: s["engines"].append({**s["engines"][1], "id": "x@int8"}), "x@int8"),
        (lambda s: s["engines"][1]["per_class"].pop("Road"), "other classes"),
        (lambda s: s.update(kind="benchmark"), "not a saved comparison"),
        (lambda s: s.pop("kind"), "not a saved comparison"),
        (lambda s: s.update(format=2), "another edgeseg's format"),
        (lambda s: s.pop("engines"), "damaged: got engines"),
        (lambda s: s["engines"][1].update(miou="high"), "engines.1.miou"),
        (lambda s: s["engines"][1].update(miou=float("nan")), "engines.1.miou"),
    ],
)
def test_baselines_that_do_not_fit(
    comparison: Comparison, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    saved = json.loads(json.dumps(comparison.to_dict()))
    change(saved)
    with pytest.raises(InputError) as caught:
        check_against(saved, comparison)
    assert says in str(caught.value)


def test_bands_are_numbers(comparison: Comparison) -> None:
    for band in (-1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="band"):
            check_against(comparison.to_dict(), comparison, max_drop=band)


def test_baseline_files(comparison: Comparison, tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    path.write_text(json.dumps(comparison.to_dict()))
    assert check_against(read_baseline(path), comparison) == []
    for damage in (b'{"kind": "edgeseg comp', b"\xff\xfe", b"[1, 2]", b'{"miou": 0.5}'):
        path.write_bytes(damage)
        with pytest.raises(InputError, match=r"b\.json"):
            read_baseline(path)
    with pytest.raises(InputError, match="no such baseline"):
        read_baseline(tmp_path / "absent.json")


def test_command(small_onnx: Path, tmp_path: Path) -> None:
    """The whole way on ENet at two input forms: saved, held against itself, against a worse and a
    better baseline.
    """
    saved, again = tmp_path / "b.json", tmp_path / "again.json"
    given = (f"{small_onnx}@fp32", small_onnx, "--data", DRIVE, "--frames", "3", "--rounds", "1")
    done = edgeseg("compare", *given, "--json", saved)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    for word in ("mIoU", "boundary", "Pedestrian", "synthetic/val: 3 frames"):
        assert word in done.stdout
    facts = json.loads(saved.read_text())
    assert facts["data"]["address"] == DRIVE
    assert [e["size_bytes"] > 0 for e in facts["engines"]] == [True, True]

    done = edgeseg("compare", *given, "--baseline", saved, "--json", again)
    assert done.returncode == 0, done.stderr
    assert "as the baseline" in done.stdout

    for points, says in ((1, "drop of more than 0.25"), (-1, "improved without explanation")):
        worse = copy.deepcopy(facts)
        worse["engines"][1]["miou"] += points / 100
        saved.write_text(json.dumps(worse))
        done = edgeseg(
            "compare", *given, "--baseline", saved, "--max-drop", "0.25", "--json", again
        )
        assert done.returncode == 1
        assert says in done.stdout
        assert "1 of the baseline's numbers left" in done.stderr
        assert again.is_file()


def test_command_without_labels(small_onnx: Path) -> None:
    video = "synthetic://?length=3&size=96x64"
    folder = small_onnx.parent / "pictures"
    folder.mkdir(exist_ok=True)
    with open_source(video) as source:
        for frame in source:
            cv2.imwrite(str(folder / f"{frame.name}.png"), frame.image)
    done = edgeseg("compare", f"{small_onnx}@fp32", "--data", folder, "--rounds", "1")
    assert done.returncode == 0, done.stderr
    assert "mIoU" not in done.stdout
    assert "100.00" in done.stdout
    both = edgeseg(
        "compare", f"{small_onnx}@fp32", f"{small_onnx}@fp32", "--data", folder, "--rounds", "1"
    )
    assert both.returncode == 0, both.stderr
    assert "with the first engine's labels as the truth" in " ".join(both.stdout.split())
    assert "worst" in both.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["absent", "--data", DRIVE], "no such engine"),
        (["NET@int3", "--data", DRIVE], "int3"),
        (["NET", "--data", "nonsense"], "no such data"),
        (["NET", "--data", "camvid:absent"], "no such folder"),
        (["NET", "--data", DRIVE, "--split", "night"], "night"),
        (["NET"], "--data"),
        (["--data", DRIVE], "ENGINE"),
        (["NET", "tiny.onnx", "--data", DRIVE], "different classes"),
        (["NET", "--data", DRIVE, "--max-drop", "1"], "--baseline"),
        (["NET", "--data", DRIVE, "--baseline", "absent.json"], "no such baseline"),
        (["NET", "--data", DRIVE, "--baseline", "tiny.onnx"], "not JSON"),
        (["NET", "--data", DRIVE, "--baseline", "other.json"], "not a saved comparison"),
        (["NET", "--data", DRIVE, "--json", "out.txt"], ".json"),
        (["NET", "--data", DRIVE, "--baseline", "other.json", "--json", "other.json"], "in use"),
        (["enet-camvid", "--data", DRIVE, "--mean", "0", "0", "0"], "for .onnx files"),
        (["NET", "--data", DRIVE, "--frames", "0"], "--frames"),
    ],
    ids=lambda value: "-".join(value)[:60] if isinstance(value, list) else "",
)
def test_command_errors(small_onnx: Path, tmp_path: Path, arguments: list[str], says: str) -> None:
    """Exit code 2, one line (but for what was assumed of a foreign file), no new file."""
    linear_net(tmp_path / "tiny.onnx", classes=3)
    (tmp_path / "other.json").write_text('{"benchmark": "cpu"}')
    before = sorted(tmp_path.rglob("*"))
    wide = {**os.environ, "COLUMNS": "200"}
    done = edgeseg(
        "compare", *[a.replace("NET", str(small_onnx)) for a in arguments], cwd=tmp_path, env=wide
    )
    assert done.returncode == 2, done.stderr
    lines = [
        line
        for line in done.stderr.splitlines()
        if line.strip() and not line.startswith("assumed:")
    ]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert says in lines[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_imports_no_torch() -> None:
    modules = (
        "edgeseg.profiling.compare",
        "edgeseg.profiling.regression",
        "edgeseg.metrics.boundary",
        "edgeseg.cli.compare",
    )
    heavy = "torch", "lightning", "tensorrt"
    code = f"import sys, {', '.join(modules)}; print(*[m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_every_public_name_resolves() -> None:
    from edgeseg import profiling

    assert all(getattr(profiling, name) is not None for name in profiling.__all__)
    with pytest.raises(AttributeError, match="no attribute"):
        profiling.nonsense  # noqa: B018


def test_flicker_is_that_of_a_meter_and_shown(
    folder: Path, comparison: Comparison, capsys: pytest.CaptureFixture[str]
) -> None:
    """Noise of random nets on a drive: each engine's own, in JSON and in the table."""
    with open_source("synthetic://?length=5&size=96x64") as source:
        frames = [frame.image for frame in source]
    with open_source("synthetic://?length=5&size=96x64") as source:
        names = [folder / "a.engine", folder / "b.engine"]
        result = compare(names, source, rounds=1, clock=ticking(0.001))

    facts = result.to_dict()
    for name, row, saved in zip("ab", result.results, facts["engines"], strict=True):
        meter = FlickerMeter(CAMVID_11)
        with load_engine(folder / f"{name}.engine") as engine:
            for image in frames:
                meter.add(image, engine(image))
        assert row.flicker is not None
        assert row.flicker.overall == meter.overall
        assert saved["flicker"]["per_class"] == meter.by_class
    assert facts["data"]["flicker_unmeasured"] is None

    print_comparison(result)
    shown = capsys.readouterr().out
    assert "flicker" in shown.splitlines()[2] + shown.splitlines()[1]
    assert "boundary" in shown, "no heading is cut"
    assert max(map(len, shown.splitlines())) <= 80

    # Frames that do not follow each other: no column, and the reason.
    assert comparison.results[0].flicker is None
    assert "not consecutive" in comparison.to_dict()["data"]["flicker_unmeasured"]
    print_comparison(comparison)
    assert "flicker is not measured: the frames are not" in " ".join(
        capsys.readouterr().out.split()
    )
