"""What the README says is what there is: its figures, tables and programs."""

import importlib
import json
import re
import runpy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx_tools import make, node
from paths import ROOT

from edgeseg.data import open_dataset

README = (ROOT / "README.md").read_text(encoding="utf-8")
BENCHMARKS = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"


def saved(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 140


def test_table_of_results_is_the_saved_run() -> None:
    table = runpy.run_path(str(ROOT / "docs" / "make_results.py"))["table"]()
    assert table.count("\n| ") == 6
    assert table in README, "run: python docs/make_results.py"


def test_figures_of_the_claims_are_the_saved_runs() -> None:
    claims = re.sub(r"\s+", " ", README.partition("\n- **")[2].partition("## Start")[0])
    segnet, enet = (
        {row["runtime"]: row for row in net["results"]} for net in saved("cpu-amx")["nets"]
    )
    default = segnet["OpenVINO default, PyTorch's own export"]
    miou = {
        net["net"]: {name: 100 * one["miou"] for name, one in net["engines"].items()}
        for net in saved("nets")["nets"]
        if net["trained"] == "ships as `enet-camvid`"
    }["enet"]

    for figure in (
        f"SegNet in FP32 takes {segnet['edgeseg FP32']['latency_ms_p50']:.0f} ms a frame",
        f"in OpenVINO {default['latency_ms_p50']:.0f} ms",
        f"SegNet in INT8 is {segnet['edgeseg INT8']['speedup']:.1f} times as fast",
        f"{miou['fp32']:.1f} % mIoU in FP32 and {miou['int8']:.1f} % in INT8",
        f"ENet takes {enet['edgeseg BF16']['latency_ms_p50']:.1f} ms a frame in BF16",
    ):
        assert figure in claims


def test_speed_tables_are_the_saved_runs() -> None:
    pytest.importorskip("torch")
    from benchmarks.cpu import markdown

    for line in markdown(saved("cpu-amx")).splitlines():
        assert line in BENCHMARKS


@pytest.mark.parametrize("benchmark", ["nets", "plans"])
def test_tables_of_every_net_are_the_saved_runs(benchmark: str) -> None:
    pytest.importorskip("torch")
    lines = importlib.import_module(f"benchmarks.{benchmark}").markdown(saved(benchmark))
    for line in lines.splitlines():
        assert line in BENCHMARKS


def test_pictures_are_small() -> None:
    for name in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README):
        assert (ROOT / name).stat().st_size <= 1_500_000, name


def test_picture_of_the_chain_is_what_its_script_draws(tmp_path: Path) -> None:
    pictures = runpy.run_path(str(ROOT / "docs" / "make_pictures.py"))
    drawn = pictures["chain"](tmp_path).read_text(encoding="utf-8")
    assert drawn == (ROOT / "docs" / "pictures" / "chain.svg").read_text(encoding="utf-8")
    for command, _, _ in pictures["CHAIN"]:
        assert f"\n{command} " in README


def test_picture_of_unpooling_is_what_its_script_draws(tmp_path: Path) -> None:
    pictures = runpy.run_path(str(ROOT / "docs" / "make_pictures.py"))
    drawn = pictures["unpooling"](tmp_path).read_text(encoding="utf-8")
    assert drawn == (ROOT / "docs" / "pictures" / "unpooling.svg").read_text(encoding="utf-8")
    example = programs("docs/unpooling.md")[0]
    assert str([list(row) for row in pictures["VALUES"]]) in example


def programs(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)


def test_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = programs("README.md")
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("street.png", np.zeros((70, 90, 3), np.uint8))
    names: dict[str, Any] = {}
    exec(program, names)  # the README's own text
    assert names["labels"].shape == (70, 90)


def save_foreign_net(path: Path) -> None:
    """Write a net of two layers and 21 classes, with nothing of edgeseg inside."""
    rng = np.random.default_rng(0)
    nodes = [
        node("Conv", "image first", "x", pads=[1, 1, 1, 1], strides=[4, 4]),
        node("Relu", "x", "y"),
        node("Conv", "y last", "out"),
    ]
    first = rng.normal(size=(8, 3, 3, 3)).astype(np.float32)
    last = rng.normal(size=(21, 8, 1, 1)).astype(np.float32)
    onnx.save(make(nodes, {"image": [1, 3, 360, 640]}, "out", first=first, last=last), path)


def test_program_for_a_foreign_net_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = [text for text in programs("docs/python.md") if "foreign.onnx" in text][:1]
    monkeypatch.chdir(tmp_path)
    save_foreign_net(tmp_path / "foreign.onnx")
    drive = open_dataset("synthetic://?length=4&size=640x360", "train")
    writer = cv2.VideoWriter("drive.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 10, (640, 360))
    for index in range(len(drive)):
        writer.write(drive[index].image)
    writer.release()

    names: dict[str, Any] = {}
    exec("import edgeseg\n" + program, names)
    assert names["path"].name == "foreign.int8.cpu.engine"
