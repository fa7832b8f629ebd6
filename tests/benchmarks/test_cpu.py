"""The CPU benchmark: its arithmetic and tables on canned data, and every INT8 candidate on a small
net.
"""

import io
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import ROOT
from rich.console import Console

pytest.importorskip("torch")

from benchmarks import cpu, int8, nodes
from benchmarks.candidates import Candidate, Case, engine_candidate, fastest, onnxruntime_candidate
from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.data import open_dataset
from edgeseg.graph.network import load_network
from edgeseg.imaging.preprocess import resize_frame
from edgeseg.quantize.calibration_set import resolve_set

DATA = "synthetic://?size=96x64&seed=0"
RESULTS = ROOT / "benchmarks" / "results"


def fake(name: str, milliseconds: list[float], labels: list[int], **detail: Any) -> Candidate:
    times = [value / 1e3 for value in milliseconds]
    return Candidate(
        name, name.startswith("edgeseg"), lambda: None, lambda: np.array(labels), times, detail
    )


def run(wall: float, **types: float) -> nodes.Run:
    return wall, list(types.items())


def test_summary_is_medians_with_transposed_convolutions_counted() -> None:
    runs = [
        (
            10.0,
            [
                ("Convolution", 3.0),
                ("Convolution", 1.0),
                ("ConvolutionBackpropData", 1.0),
                ("MaxPool", 2.0),
            ],
        ),
        (
            12.0,
            [
                ("Convolution", 5.0),
                ("ConvolutionBackpropData", 1.0),
                ("MaxPool", 4.0),
                ("Result", 0.0),
            ],
        ),
        (
            99.0,
            [
                ("Convolution", 50.0),
                ("ConvolutionBackpropData", 2.0),
                ("MaxPool", 3.0),
                ("Reorder", 7.0),
            ],
        ),
    ]
    assert nodes.summary(runs) == {
        "runs": 3,
        "graph_ms": 12.0,
        "nodes_ms": 10.0,
        "convolution_ms": 6.0,
        "ratio": 2.0,
        "by_type_ms": {"Convolution": 5.0, "MaxPool": 3.0, "ConvolutionBackpropData": 1.0},
    }


def test_summary_without_convolutions_has_no_ratio() -> None:
    assert nodes.summary([run(2.0, MaxPool=1.0)])["ratio"] is None


def test_running_means_are_told_apart() -> None:
    """OpenVINO gives the mean since compilation.

    A cold first call must not be in those behind it.
    """
    calls = [[100.0, 7.0], [4.0, 3.0], [6.0, 0.0]]
    before = [0.0, 0.0]
    for number, expected in enumerate(calls, 1):
        means = np.mean(calls[:number], axis=0).tolist()
        spent, before = nodes.last_call(means, number, before)
        assert spent == pytest.approx(expected)


def test_results_are_slowest_first_and_against_the_first_candidate() -> None:
    found = [
        fake("eager", [20, 10, 30], [1, 1, 2, 3]),
        fake("edgeseg INT8", [4, 5, 6], [1, 1, 2, 0], int8_layers=7),
        fake("peer", [40, 41], [1, 1, 2, 3]),
    ]
    rows = cpu.results(found, {"edgeseg INT8": {"ratio": 1.5}})
    assert [row["runtime"] for row in rows] == ["peer", "eager", "edgeseg INT8"]
    assert [row["speedup"] for row in rows] == [0.494, 1.0, 4.0]
    assert [row["same_labels"] for row in rows] == [1.0, 1.0, 0.75]
    assert [row["edgeseg"] for row in rows] == [False, False, True]
    assert rows[2]["int8_layers"] == 7
    assert [row.get("profile") for row in rows] == [None, None, {"ratio": 1.5}]
    assert rows[0]["latency_ms_p50"] == 40.5
    assert rows[0]["calls"] == 2


def test_time_all_goes_round_all_candidates() -> None:
    order: list[str] = []

    def candidate(name: str) -> Candidate:
        return Candidate(name, False, lambda: order.append(name), lambda: None)

    found = [candidate("a"), candidate("b")]
    cpu.time_all(found, rounds=2, seconds=0, console=Console(file=io.StringIO()))
    assert order == [
        "a",
        "b",
        *["a", "a", "b", "b"] * 2,
    ]  # first calls; then a warm-up and a timed call, a round each
    assert [len(c.times) for c in found] == [2, 2]


def test_fastest_tells_what_it_tried() -> None:
    def sleeps(seconds: float) -> Candidate:
        return Candidate(
            "peer", False, lambda: time.sleep(seconds), lambda: None, detail={"float_parts": "f32"}
        )

    slow, quick = sleeps(0.02), sleeps(0.001)
    assert fastest({"slow": slow, "quick": quick}) is quick
    assert quick.detail["variant"] == "quick"
    assert quick.detail["float_parts"] == "f32"
    assert quick.detail["tried_ms"]["slow"] > quick.detail["tried_ms"]["quick"] > 0


def canned() -> dict[str, Any]:
    """Return a net's part of a saved run: a peer that loses, one that wins, a row between them."""

    def row(name: str, ms: float, same: float, **more: Any) -> dict[str, Any]:
        ours = name.startswith("edgeseg")
        common = {
            "latency_ms_p50": ms,
            "latency_ms_p95": ms,
            "calls": 5,
            "speedup": 100 / ms,
            "same_labels": same,
        }
        return {"runtime": name, "edgeseg": ours, **common, **more}

    inside = {
        "graph_ms": 19.5,
        "nodes_ms": 19,
        "convolution_ms": 13.0,
        "ratio": 1.5,
        "by_type_ms": {
            "Convolution": 12,
            "MaxPool": 3.25,
            "Deconvolution": 1,
            "Reorder": 0.96,
            "TopK": 0.5,
            "Pad": 0,
        },
    }
    return {
        "net": "enet",
        "size": [360, 480],
        "calibration": {"set": "synthetic:// train, 8 frames (spread)"},
        "left_out": {"NNCF": "nncf is not installed"},
        "results": [
            row(
                "ORT INT8",
                200,
                0.81,
                variant="U8S8",
                tried_ms={"S8S8": 437.04, "U8S8": 201.0},
                about="Said",
            ),
            row("eager", 100, 1),
            row("edgeseg INT8", 20, 0.932, int8_layers=25, layers=26, profile=inside),
            row("quick", 10, 1),
        ],
    }


def test_markdown_shows_wins_losses_notes_and_profiles() -> None:
    assert cpu.markdown({"nets": [canned()]}).splitlines() == [
        "| enet 360x480 (HxW) | ms | faster than eager |",
        "|---|---|---|",
        "| ORT INT8 | 200.0 | 0.50x |",
        "| eager | 100.0 | 1.00x |",
        "| **edgeseg INT8** | 20.0 | 5.00x |",
        "| quick | 10.0 | 10.00x |",
        "",
        "- INT8 is calibrated on synthetic:// train, 8 frames (spread), the same for all. The "
        "weights are random, so "
        "these rows say nothing of accuracy: 81.0 to 93.2 % of their labels are those of eager "
        "FP32.",
        "- ORT INT8: U8S8, the fastest in a short trial (S8S8 437.0 ms, U8S8 201.0 ms). Said.",
        "- edgeseg INT8: 25 of 26 layers in INT8.",
        "- NNCF is left out: nncf is not installed.",
        "",
        "| inside the engine, enet 360x480 (HxW) | graph ms | its convolutions ms | ratio | the "
        "rest, ms |",
        "|---|---|---|---|---|",
        "| edgeseg INT8 | 19.5 | 13.0 | 1.50 | MaxPool 3.2, Reorder 1.0, TopK 0.5 |",
    ]


def test_the_console_shows_the_same() -> None:
    out = io.StringIO()
    cpu.show(canned(), Console(file=out, width=160))
    told = out.getvalue()
    for words in ("ORT INT8", "0.50x", "93.20 %", "MaxPool 3.2", *cpu.notes(canned())):
        assert words in told


@pytest.mark.parametrize("path", sorted(RESULTS.glob("cpu-*.json")), ids=lambda path: path.stem)
def test_saved_runs_of_any_age_can_be_shown(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    lines = cpu.markdown(result).splitlines()
    for net in result["nets"]:
        for row in net["results"]:
            assert (
                sum(
                    row["runtime"] in line and f" {row['latency_ms_p50']:.1f} " in line
                    for line in lines
                )
                >= 1
            )


@pytest.fixture(scope="module")
def case(small_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """ENet at 64x96, in a folder of its own: engines are written beside the file."""
    path = tmp_path_factory.mktemp("benchmark") / "small.onnx"
    shutil.copy(small_onnx, path)
    spec = load_network(path).spec
    frame = np.ascontiguousarray(resize_frame(open_dataset(DATA, "val")[0].image, spec.input_size))
    return Case("small", path, spec, frame, resolve_set(DATA, split="train", count=2))


def check_labels(case: Case, candidate: Candidate) -> None:
    """INT8 labels are labels of this frame: most of them are those of ONNX Runtime in float."""
    truth = onnxruntime_candidate(case.standard, case.tensor, "float").labels()
    labels = np.asarray(candidate.labels())
    assert labels.shape == case.frame.shape[:2]
    assert (labels == truth).mean() > 0.6


def test_edgeseg_int8(case: Case) -> None:
    candidate = int8.edgeseg_int8(case)
    assert candidate.ours
    assert candidate.detail["layers"] > candidate.detail["int8_layers"] > 50
    check_labels(case, candidate)


def test_edgeseg_mixed_keeps_in_float_what_costs_time(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def saved(network: Any, quantized: Any, placement: Any) -> dict[str, float]:
        return {layer: 1.0 if number % 2 else -1.0 for number, layer in enumerate(placement.layers)}

    monkeypatch.setattr(int8, "paying_layers", saved)
    candidate = int8.edgeseg_mixed(case)
    assert candidate.engine is not None
    assert candidate.engine.name == "small.mixed.cpu.engine"
    assert 0.4 < candidate.detail["int8_layers"] / candidate.detail["layers"] < 0.6
    check_labels(case, candidate)


@pytest.mark.parametrize(("milliseconds", "why"), [(1.0, "in each of"), (-1.0, "in none of")])
def test_edgeseg_mixed_is_left_out_where_it_is_another_row(
    case: Case, monkeypatch: pytest.MonkeyPatch, milliseconds: float, why: str
) -> None:
    monkeypatch.setattr(
        int8, "paying_layers", lambda n, q, placement: dict.fromkeys(placement.layers, milliseconds)
    )
    with pytest.raises(int8.LeftOutError, match=why) as error:
        int8.edgeseg_mixed(case)
    assert error.value.row == int8.MIXED


def test_onnxruntime_int8(case: Case) -> None:
    candidate = int8.onnxruntime_int8(case)
    assert set(candidate.detail["tried_ms"]) == {"S8S8", "U8S8"}
    check_labels(case, candidate)


def test_nncf_int8(case: Case) -> None:
    try:
        candidate = int8.nncf_int8(case)
    except int8.LeftOutError as error:
        pytest.skip(str(error))
    assert set(candidate.detail["tried_ms"]) == {"preset mixed", "preset performance"}
    assert candidate.detail["float_parts"] in ("bf16", "f32")
    check_labels(case, candidate)


def test_without_nncf_its_row_is_left_out_and_said(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)

    def named(name: str) -> Callable[[Case], Candidate]:
        return lambda _: Candidate(name, False, lambda: None, lambda: None)

    for name in ("edgeseg_int8", "edgeseg_mixed", "onnxruntime_int8"):
        monkeypatch.setattr(int8, name, named(name))
    found, left_out = int8.int8_candidates(case)
    assert [c.name for c in found] == ["edgeseg_int8", "edgeseg_mixed", "onnxruntime_int8"]
    assert left_out == {int8.NNCF: "nncf is not installed (pip install nncf)"}


def test_profile_of_an_engine(case: Case) -> None:
    engine = build_engine(case.standard, precision="fp32")
    profiled = nodes.Profiled(engine)
    for _ in range(
        5
    ):  # the nodes of a call take no longer than the call; they did when cold calls were counted in
        wall, spent = profiled(case.frame)
        assert 0 < sum(milliseconds for _, milliseconds in spent) < wall + 0.5
    (found,) = nodes.profile({"engine": engine}, case.frame).values()
    assert found["runs"] == nodes.RUNS
    assert found["by_type_ms"]["Convolution"] <= found["convolution_ms"] <= found["nodes_ms"]
    assert found["ratio"] == pytest.approx(found["graph_ms"] / found["convolution_ms"], rel=0.01)
    assert engine_candidate(case, engine, "edgeseg FP32").labels().shape == case.frame.shape[:2]
