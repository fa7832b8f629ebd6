"""``make gpu-test`` as far as it goes without a GPU: what it reads, what it asks of engines, on the
GPU of NumPy.
"""

import json
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_gpu import FakeCuda, fake_library
from host_kernels import Late, build_library, opened, passport_of
from lowered import deploy
from onnx_tools import run_ort
from rich.console import Console

from benchmarks import gpu
from edgeseg.backends.base import PlanOptions
from edgeseg.backends.tensorrt import cuda
from edgeseg.backends.tensorrt.engine import TensorRTEngine
from edgeseg.backends.tensorrt.graphs import graph_for
from edgeseg.backends.tensorrt.profiles import profile_for
from edgeseg.errors import EngineError, MissingDependencyError
from edgeseg.graph.network import load_network
from edgeseg.passport import Passport
from edgeseg.reporter import SILENT

SAID = """\
logged: nothing
fp16 hwc8, code chw32    1x64x352x480  pool 0.0200 ms 1892 GB/s  unpool 0.0160 ms 2365 GB/s  \
copy 0.0180 ms 2102 GB/s
preprocess bgr   1080x1920 net 352x480  7234560 bytes  0.0100 ms  copy 0.0090 ms
preprocess nv12  1080x1920 net 352x480  4124160 bytes  0.0080 ms  copy 0.0060 ms
overlay bgr      1080x1920 net 352x480  18232320 bytes  0.0200 ms  copy 0.0170 ms
"""


def test_lines_are_read() -> None:
    (row,) = gpu.bandwidth(SAID)
    assert (row["form"], row["shape"], row["pool_of_copy"]) == (
        "fp16 hwc8, code chw32",
        [1, 64, 352, 480],
        0.9,
    )
    assert row["bytes"] == 37836000
    names = [(r["kernel"], r["bytes"], r["of_copy"]) for r in gpu.pictures(SAID)]
    assert names == [
        ("preprocess bgr", 7234560, 0.9),
        ("preprocess nv12", 4124160, 0.75),
        ("overlay bgr", 18232320, 0.85),
    ]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("exit 0", "clean"),
        (
            'echo "========= COMPUTE-SANITIZER"; '
            'echo "========= Invalid __global__ read of size 4"; exit 86',
            "Invalid",
        ),
        ('echo "========= ERROR SUMMARY: 0 errors"; exit 1', "ERROR SUMMARY: 0"),
        ('echo "Unable to find a device"; exit 3', None),
    ],
)
def test_the_sanitizers_word_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str | None
) -> None:
    program = tmp_path / "compute-sanitizer"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(gpu, "find_nvcc", lambda: tmp_path / "nvcc")
    found = gpu.sanitized("memcheck", ["program"], Console(quiet=True))
    assert (found is None) == (says is None)
    assert (found or "").startswith(says or "")


def test_every_feature_is_asked_for(
    small_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = build_library(tmp_path)
    monkeypatch.setattr(gpu, "WARM", 1)
    monkeypatch.setattr(gpu, "CALLS", 2)
    network = load_network(small_onnx)

    def open_plan(name: str, plan: PlanOptions, folder: Path) -> tuple[Any, Path]:
        if plan.kernels:
            return opened(small_onnx, Late(library), FakeCuda()), folder
        ranges = profile_for(network, plan)
        model, _ = graph_for(
            network, "fp32", None, SILENT, scores=plan.scores, dynamic=ranges.dynamic
        )
        (folder / "graph.onnx").write_bytes(model.SerializeToString())
        passport = passport_of(
            network, outputs="labels, scores" if plan.scores else "labels", **ranges.facts()
        )
        engine = TensorRTEngine(
            passport, model.SerializeToString(), fake_library(), device=FakeCuda(), zero_copy=False
        )
        return engine, folder / "graph.onnx"

    monkeypatch.setattr(gpu, "open_plan", open_plan)
    # Where TensorRT is, this would be a real build.
    monkeypatch.setattr(gpu, "_BUILD_LATER", "raise SystemExit('no TensorRT')")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    rows = gpu.features_on_device(
        "enet-camvid", "synthetic://?length=3&size=96x64", Console(quiet=True)
    )
    found = {row["feature"]: row for row in rows}
    assert list(found) == ["batches", "sizes", "scores", "arrays", "later versions", "kernels"]
    for feature in ("batches", "sizes", "scores", "kernels"):
        assert found[feature]["holds"], found[feature]
        assert found[feature]["same"] >= 0.999
    assert found["kernels"]["picture_off_by"] <= 1
    assert found["arrays"]["left_out"] == "PyTorch sees no device"
    assert "does not build" in found["later versions"]["error"]
    assert not found["later versions"]["holds"]


def test_without_headers_the_plugin_is_left_out_and_the_rest_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a PC with TensorRT from PyPI, from the first line to the JSON."""
    asked = list[str]()

    def no_headers(given: Path | None) -> Path:
        raise MissingDependencyError("TensorRT's headers were not found", hint="apt install them")

    def one_engine(path: Path, source: Path, precision: str, unpool: str, frames: Any) -> Any:
        asked.append(unpool)
        return {"holds": True}

    def beside_alone(feature: Any, name: str, frames: Any, folder: Path) -> dict[str, Any]:
        asked.append(feature.__name__)
        return {"holds": True}

    monkeypatch.setattr(gpu, "find_nvcc", lambda: tmp_path / "nvcc")
    monkeypatch.setattr(gpu, "find_tensorrt_include", no_headers)
    monkeypatch.setattr(gpu, "one_engine", one_engine)
    monkeypatch.setattr(gpu, "_beside_alone", beside_alone)
    monkeypatch.setattr(gpu, "is_installed", lambda target: True)
    monkeypatch.setattr(gpu, "library", lambda target: SimpleNamespace(version="11.4.0"))
    monkeypatch.setattr(cuda, "has_gpu", lambda: True)
    monkeypatch.setattr(cuda, "device", lambda: ("NVIDIA GeForce RTX 4090", 89))
    assert gpu.main(["--out", str(tmp_path), "--data", "synthetic://?length=3&size=96x64"]) == 0

    result = json.loads((tmp_path / "gpu-nvidia-geforce-rtx-4090.json").read_text())
    assert "headers were not found" in result["plugin"]["left_out"]
    assert set(asked) == {"native", "batches", "sizes", "scores", "arrays"}
    left_out = [row for row in result["engines"] if "left_out" in row]
    assert {row["unpool"] for row in left_out} == {"plugin"}
    assert [row["feature"] for row in result["features"] if "left_out" in row] == [
        "later versions",
        "kernels",
    ]


def test_later_versions_need_the_plugin_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "_BUILD_LATER", "print('built')")
    facts = SimpleNamespace(tensorrt=SimpleNamespace(plugin=""))
    monkeypatch.setattr(Passport, "read", lambda path: facts)
    with pytest.raises(EngineError, match="was built without the plugin: got built"):
        gpu.later_versions("enet-camvid", None, [], tmp_path)  # type: ignore[arg-type]
    monkeypatch.setattr(gpu, "_BUILD_LATER", "raise SystemExit('no room')")
    with pytest.raises(EngineError, match="does not build: got no room"):
        gpu.later_versions("enet-camvid", None, [], tmp_path)  # type: ignore[arg-type]


def test_labels_that_differ_do_not_hold() -> None:
    one = np.zeros((10, 100), np.uint8)
    other = one.copy()
    other[0, :2] = 1
    assert gpu._same(one, other) == {"same": 0.998, "holds": False}
    assert gpu._same(one, one)["holds"]


def test_what_fails_is_a_row() -> None:
    def fails() -> dict[str, Any]:
        raise RuntimeError("no kernel image is available")

    row = gpu.measured({"net": "n"}, fails, Console(quiet=True))
    assert row == {
        "net": "n",
        "error": "RuntimeError: no kernel image is available",
        "holds": False,
    }
    assert gpu.measured({"net": "n"}, lambda: {"holds": True}, Console(quiet=True)) == {
        "net": "n",
        "holds": True,
    }


def test_the_cpus_labels_are_those_in_fp32(small_onnx: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    (labels,) = gpu.on_cpu(small_onnx, [frame])
    (want,) = run_ort(deploy(load_network(small_onnx), for_openvino=False), frame=frame[None])
    assert np.mean(labels == want[0]) >= 0.9999
    (large,) = gpu.on_cpu(small_onnx, [np.zeros((100, 50, 3), np.uint8)])
    assert large.shape == (100, 50)
