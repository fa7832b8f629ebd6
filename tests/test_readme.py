"""What the README says is what there is: commands, flags, tables, examples."""

import importlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx_tools import make, node
from paths import ROOT
from typer.testing import CliRunner

from edgeseg.cli import app
from edgeseg.data import open_dataset

README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """Every ``edgeseg ...`` line of the README's code blocks, comments off."""
    blocks = re.findall(r"^```\n(.*?)^```", README, re.M | re.S)
    lines = [line.split("#")[0].strip() for line in "\n".join(blocks).splitlines()]
    return [line for line in lines if line.startswith("edgeseg ")]


def test_there_are_commands_to_check() -> None:
    assert len(commands()) >= 6


@pytest.mark.parametrize("line", commands())
def test_commands_and_flags_exist(line: str) -> None:
    words = shlex.split(line)[1:]
    shown = CliRunner().invoke(app, [words[0], "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert shown.exit_code == 0
    for flag in (w for w in words if re.fullmatch(r"--?[a-z][a-z-]*", w)):
        assert re.search(rf"(?<![\w-]){flag}(?![\w-])", shown.output), (
            f"{flag} is not in edgeseg {words[0]} --help"
        )


def test_speed_tables_are_the_saved_runs() -> None:
    pytest.importorskip("torch")
    from benchmarks.cpu import markdown

    result = json.loads((ROOT / "benchmarks" / "results" / "cpu-amx.json").read_text())
    for line in markdown(result).splitlines():
        assert line in README


@pytest.mark.parametrize("benchmark", ["nets", "plans"])
def test_tables_of_every_net_are_the_saved_runs(benchmark: str) -> None:
    pytest.importorskip("torch")
    saved = json.loads((ROOT / "benchmarks" / "results" / f"{benchmark}.json").read_text())
    for line in importlib.import_module(f"benchmarks.{benchmark}").markdown(saved).splitlines():
        assert line in README


def test_paths_named_exist() -> None:
    for name in re.findall(r"`((?:edgeseg|engines|benchmarks)/[\w./-]+)`", README):
        assert (ROOT / name).exists(), name


def python_examples() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)


def save_foreign_net(path: Path) -> None:
    """A net of two layers and 21 classes, with nothing of edgeseg inside."""
    rng = np.random.default_rng(0)
    nodes = [
        node("Conv", "image first", "x", pads=[1, 1, 1, 1], strides=[4, 4]),
        node("Relu", "x", "y"),
        node("Conv", "y last", "out"),
    ]
    first = rng.normal(size=(8, 3, 3, 3)).astype(np.float32)
    last = rng.normal(size=(21, 8, 1, 1)).astype(np.float32)
    onnx.save(make(nodes, {"image": [1, 3, 360, 640]}, "out", first=first, last=last), path)


def test_python_examples_run(
    small_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = python_examples()
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}

    (tmp_path / "net.onnx").write_bytes(small_onnx.read_bytes())
    cv2.imwrite("street.png", np.zeros((70, 90, 3), np.uint8))
    exec(first, names)  # the README's own text
    assert names["labels"].shape == (70, 90)
    assert names["logits"].shape == (11, 64, 96)

    save_foreign_net(tmp_path / "foreign.onnx")
    drive = open_dataset("synthetic://?length=4&size=640x360", "train")
    writer = cv2.VideoWriter("drive.mp4", cv2.VideoWriter.fourcc(*"mp4v"), 10, (640, 360))
    for index in range(len(drive)):
        writer.write(drive[index].image)
    writer.release()
    exec(second, names)
    assert names["path"].name == "foreign.int8.cpu.engine"
