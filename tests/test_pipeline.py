"""A recipe's whole chain: which steps run, which are kept, and what makes one run again."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning")

from tiny_recipe import tiny

from edgeseg import pipeline
from edgeseg.backends.openvino import runtime
from edgeseg.backends.openvino.runtime import Device
from edgeseg.build import engine_from_onnx
from edgeseg.errors import DataError, InputError
from edgeseg.export import onnx_from_torch
from edgeseg.files import sha256_file
from edgeseg.graph import network, ops
from edgeseg.pipeline import STATE, Chain, Options, Step, data_digest, make
from edgeseg.profiling import compare, entry
from edgeseg.reporter import SILENT, Reporter
from edgeseg.training import fit
from edgeseg.training.qat import fine_tune
from edgeseg.training.recipe import Recipe


class Steps:
    """A reporter that keeps which steps ran and which were up to date."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.kept: list[str] = []

    def info(self, text: str) -> None:
        if text.endswith(" ..."):
            self.ran.append(text.removesuffix(" ..."))
        elif text.endswith(": up to date"):
            self.kept.append(text.removesuffix(": up to date"))

    def warning(self, text: str) -> None:
        pass

    def progress(self, task: str, done: int, total: int | None) -> None:
        pass


# --- the chain -----------------------------------------------------------------------------------


def run_two(folder: Path, first: str = "a", second: str = "b") -> Steps:
    """Run a chain of two steps, which write their keys into files."""
    steps = Steps()
    chain = Chain(folder, steps)
    for name, value in (("one", first), ("two", second)):
        out = folder / f"{name}.txt"

        def write(out: Path = out, value: str = value) -> None:
            out.write_text(value)

        chain.do(Step(name, {"value": value}, (out,), write))
    return steps


def test_a_step_runs_once(tmp_path: Path) -> None:
    assert run_two(tmp_path).ran == ["one", "two"]
    again = run_two(tmp_path)
    assert again.ran == []
    assert again.kept == ["one", "two"]


def test_a_step_runs_again_if_its_key_changes(tmp_path: Path) -> None:
    run_two(tmp_path)
    assert run_two(tmp_path, second="c").ran == ["two"]
    assert (tmp_path / "two.txt").read_text() == "c"
    assert run_two(tmp_path, second="c").ran == []


@pytest.mark.parametrize("lost", [False, True])
def test_a_step_runs_again_if_its_output_changes(tmp_path: Path, lost: bool) -> None:
    run_two(tmp_path)
    if lost:
        (tmp_path / "one.txt").unlink()
    else:
        (tmp_path / "one.txt").write_text("x")
    again = run_two(tmp_path)
    assert again.ran == ["one"]
    assert again.kept == ["two"]


def test_all_steps_run_again_with_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_two(tmp_path)
    monkeypatch.setattr(pipeline, "__version__", "99.0")
    assert run_two(tmp_path).ran == ["one", "two"]


def test_what_a_step_depends_on_can_be_read(tmp_path: Path) -> None:
    run_two(tmp_path)
    state = json.loads((tmp_path / STATE).read_text())
    assert state["two"]["depends_on"] == {"value": "b"}
    assert list(state["two"]["outputs"]) == ["two.txt"]


def test_steps_before_a_failed_one_are_kept(tmp_path: Path) -> None:
    def fail() -> None:
        raise DataError("no frames")

    run_two(tmp_path)
    chain = Chain(tmp_path, SILENT)
    failing = Step("two", {"value": "c"}, (tmp_path / "two.txt",), fail)
    with pytest.raises(DataError, match="no frames"):
        chain.do(failing)
    assert not Chain(tmp_path, SILENT).is_done(failing)
    assert run_two(tmp_path).kept == ["one", "two"]


def test_a_broken_record_is_said(tmp_path: Path) -> None:
    (tmp_path / STATE).write_text("{")
    with pytest.raises(InputError, match=r"make\.json: cannot be read\. Delete it"):
        Chain(tmp_path, SILENT)


# --- the data's hash -----------------------------------------------------------------------------


def write_frame(root: Path, split: str, name: str, value: int) -> None:
    """Write a frame of one colour in CamVid's layout, all of class 0."""
    for folder in (split, f"{split}annot"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / split / f"{name}.png"), np.full((12, 16, 3), value, np.uint8))
    cv2.imwrite(str(root / f"{split}annot" / f"{name}.png"), np.zeros((12, 16), np.uint8))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for split, value in (("train", 10), ("val", 20)):
        for number in range(3):
            write_frame(root, split, f"0001_{number:05d}", value + number)
    return root


def test_the_datas_hash_covers_names_pixels_and_labels(data: Path) -> None:
    address = f"camvid:{data}"
    digests = {data_digest(address, "train"), data_digest(address, "val")}
    assert data_digest(address, "val") in digests
    assert len(digests) == 2

    write_frame(data, "val", "0001_00001", 99)
    digests.add(data_digest(address, "val"))
    cv2.imwrite(str(data / "valannot" / "0001_00001.png"), np.ones((12, 16), np.uint8))
    digests.add(data_digest(address, "val"))
    write_frame(data, "val", "0001_00003", 20)
    digests.add(data_digest(address, "val"))
    assert len(digests) == 5


# --- a whole recipe ------------------------------------------------------------------------------


class Doubles:
    """Stand-ins of what the steps call: each writes the hash of what it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calibrated: dict[str, bool] = {}
        self.resumed: list[bool] = []
        monkeypatch.setattr(fit, "train", self.train)
        monkeypatch.setattr(onnx_from_torch, "export_checkpoint", self.export)
        monkeypatch.setattr(fine_tune, "tune", self.tune)
        monkeypatch.setattr(network, "load_network", lambda path: SimpleNamespace(model=path))
        monkeypatch.setattr(ops, "is_quantized", lambda path: path.name.endswith(".int8.onnx"))
        monkeypatch.setattr(engine_from_onnx, "build_engine", self.build)
        monkeypatch.setattr(entry, "open_entry", lambda path: path)
        monkeypatch.setattr(compare, "compare", self.compare)
        monkeypatch.setattr(
            runtime, "device", lambda: Device("a processor", ("FP32", "BF16", "INT8"))
        )

    def train(self, recipe: Recipe, out: Path, *, resume: bool, reporter: Reporter) -> None:
        self.resumed.append(resume)
        out.mkdir(exist_ok=True)
        (out / "recipe.json").write_text(recipe.model_dump_json())
        (out / "last.ckpt").touch()
        (out / "best.pt").write_text(recipe.model_dump_json())

    def export(self, best: Path, net: Path) -> None:
        net.write_text(sha256_file(best))

    def tune(self, best: Path, out: Path, tuning: Any, *, reporter: Reporter) -> SimpleNamespace:
        out.write_text(f"{tuning.epochs} {sha256_file(best)}")
        return SimpleNamespace(miou=0.5, epoch=1, float_miou=0.5)

    def build(
        self, source: Path, *, precision: str, out: Path, calib: object, reporter: Reporter
    ) -> None:
        self.calibrated[precision] = calib is not None
        out.write_text(f"{precision} {sha256_file(source)}")
        out.with_name(f"{out.name}.json").write_text("{}")

    def compare(self, entries: list[str], data: Any, *, rounds: int) -> SimpleNamespace:
        return SimpleNamespace(to_dict=lambda: {"engines": entries, "data": {"frames": len(data)}})


@pytest.fixture
def doubles(monkeypatch: pytest.MonkeyPatch) -> Doubles:
    return Doubles(monkeypatch)


BUILDS = ["build fp32", "build bf16", "build int8"]


def run(data: Path, options: Options | None = None, **changes: object) -> Steps:
    """Make the recipe of ``data`` in the folder beside it."""
    steps = Steps()
    recipe = tiny(data.parent, data__address=f"camvid:{data}", **changes)
    make(recipe, data.parent / "run", options, reporter=steps)
    return steps


def test_a_recipe_ends_in_compared_engines(data: Path, doubles: Doubles) -> None:
    steps = run(data)
    assert steps.kept == []
    assert steps.ran == ["train", "export", "qat", *BUILDS, "compare"]
    assert doubles.resumed == [False]

    folder = data.parent / "run"
    facts = json.loads((folder / "compare.json").read_text())
    names = [f"tiny.{precision}.cpu.engine" for precision in ("fp32", "bf16", "int8")]
    assert [Path(path).name for path in facts["engines"]] == names
    assert facts["data"] == {"frames": 3, "address": f"camvid:{data}", "split": "val"}


def test_int8_is_calibrated_only_without_fine_tuning(data: Path, doubles: Doubles) -> None:
    run(data)
    assert doubles.calibrated == {"fp32": False, "bf16": False, "int8": False}
    assert run(data, Options(qat_epochs=0)).ran == ["build int8", "compare"]
    assert doubles.calibrated["int8"]


def test_bf16_is_built_only_where_the_processor_has_it(
    data: Path, doubles: Doubles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "device", lambda: Device("a processor", ("FP32", "INT8")))
    assert "build bf16" not in run(data).ran


def test_nothing_runs_twice(data: Path, doubles: Doubles) -> None:
    first = run(data)
    second = run(data)
    assert second.ran == []
    assert second.kept == first.ran


@pytest.mark.parametrize(
    ("options", "ran"),
    [
        (Options(rounds=4), ["compare"]),
        (Options(qat_epochs=6), ["qat", "build int8", "compare"]),
    ],
)
def test_other_options_run_only_what_they_change(
    data: Path, doubles: Doubles, options: Options, ran: list[str]
) -> None:
    run(data)
    assert run(data, options).ran == ran


@pytest.mark.parametrize(
    ("name", "ran"),
    [
        ("tiny.onnx", "export"),
        ("tiny.int8.onnx", "qat"),
        ("tiny.bf16.cpu.engine", "build bf16"),
        ("tiny.int8.cpu.engine.json", "build int8"),
        ("compare.json", "compare"),
    ],
)
@pytest.mark.parametrize("lost", [False, True])
def test_a_changed_or_lost_file_is_made_again(
    data: Path, doubles: Doubles, name: str, ran: str, lost: bool
) -> None:
    """What is made from it is kept: it is the same as before."""
    run(data)
    path = data.parent / "run" / name
    before = path.read_bytes()
    if lost:
        path.unlink()
    else:
        path.write_text("edited")
    assert run(data).ran == [ran]
    assert path.read_bytes() == before


def test_another_processor_builds_its_own_engines(
    data: Path, doubles: Doubles, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(data)
    monkeypatch.setattr(runtime, "device", lambda: Device("another", ("FP32", "BF16", "INT8")))
    steps = run(data)
    assert steps.ran == BUILDS
    assert steps.kept == ["train", "export", "qat", "compare"]


def test_an_interrupted_training_goes_on(data: Path, doubles: Doubles) -> None:
    run(data)
    (data.parent / "run" / STATE).unlink()
    assert run(data).ran[0] == "train"
    assert doubles.resumed == [False, True]


def test_another_recipe_needs_another_folder(data: Path, doubles: Doubles) -> None:
    run(data)
    state = data.parent / "run" / STATE
    before = state.read_bytes()
    with pytest.raises(InputError, match="holds a run of another recipe"):
        run(data, optim__lr=1e-3)
    assert state.read_bytes() == before


@pytest.mark.parametrize("split", ["train", "val"])
def test_other_data_needs_another_folder(data: Path, doubles: Doubles, split: str) -> None:
    """A finished training does not go on, so its weights would stay those of the old data."""
    run(data)
    write_frame(data, split, "0001_00001", 200)
    with pytest.raises(InputError, match=r"holds a run on other data.* `out`"):
        run(data)
    assert doubles.resumed == [False]
