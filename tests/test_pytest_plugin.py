"""The plugin of pytest, in a small repository of its own that a test makes."""

import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from linear_net import linear_net
from paths import ROOT

DRIVE = "synthetic://?length=6&size=96x64"
TEST = """
def test_accuracy(engine, scores, assert_no_regression):
    assert engine.passport.precision == "fp32"
    assert scores.data.frames == 6
    assert_no_regression(max_drop=0.5{more})
"""


def build(folder: Path, name: str, road: float) -> Path:
    """An engine that finds road everywhere, or nowhere."""
    from edgeseg.build.engine_from_onnx import build_engine
    from edgeseg.graph.network import Overrides, load_network

    path = linear_net(folder / "net.onnx", road=road)
    network = load_network(path, Overrides(labels="camvid-11"))
    return build_engine(network, precision="fp32", out=folder / name)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository: two engines of one name, a baseline of the good one, a test, settings."""
    from edgeseg.commands import compare

    root = tmp_path_factory.mktemp("repository")
    build(root, "good.engine", road=300)
    (root / "worse").mkdir()
    build(root / "worse", "bad.engine", road=-300)
    saved = compare([root / "good.engine"], DRIVE, rounds=1).to_dict()
    saved["data"] |= {"address": DRIVE, "split": "val"}
    (root / "baseline.json").write_text(json.dumps(saved))
    (root / "test_net.py").write_text(TEST.format(more=""))
    (root / "pytest.ini").write_text("[pytest]\nedgeseg_baseline = baseline.json\n")
    return root


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run pytest as a user does; name the plugin unless the installed edgeseg offers it."""
    installed = any(point.name == "edgeseg" for point in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "edgeseg.pytest_plugin"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin]
    return subprocess.run(
        [*command, *map(str, arguments)], cwd=folder, capture_output=True, text=True
    )


def test_the_same_engine_passes(repository: Path) -> None:
    done = run(repository, "--edgeseg-engine=good.engine")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_a_damaged_engine_fails_with_classes_and_points(repository: Path) -> None:
    done = run(repository, "--edgeseg-engine=worse/bad.engine", "--edgeseg-baseline=baseline.json")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "accuracy changed on synthetic/val, 6 frames:" in done.stdout

    # pytest repeats the line in its summary, whole where the variable CI is set.
    lines = [one for one in done.stdout.splitlines() if "IoU of Road" in one and "was" in one]
    assert lines
    assert "points, a drop of more than 1" in lines[0]
    assert "Traceback" not in done.stdout


def test_two_engines_need_no_baseline(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "test_net.py").write_text(TEST.format(more=", min_agreement=0.999"))
    engines = [repository / "good.engine", repository / "worse" / "bad.engine"]
    given = [f"--edgeseg-engine={engine}" for engine in engines]
    done = run(tmp_path, *given, f"--edgeseg-data={DRIVE}")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "IoU of Road -" in done.stdout
    assert "99 % interval" in done.stdout
    assert "of the labels are those of net@fp32, less than 99.9 %" in done.stdout

    done = run(tmp_path, given[0], given[0], f"--edgeseg-data={DRIVE}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "no engine: give --edgeseg-engine"),
        (["--edgeseg-engine=absent"], "no such engine"),
        (["--edgeseg-engine=good.engine", "--edgeseg-baseline=absent.json"], "no such base"),
    ],
)
def test_wrong_use_is_told(repository: Path, arguments: list[str], says: str) -> None:
    done = run(repository, *arguments)
    assert done.returncode != 0
    assert says in done.stdout + done.stderr


def test_a_run_that_does_not_use_it_imports_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import sys\n\ndef test_it():\n"
        "    heavy = {'numpy', 'openvino', 'onnx', 'cv2', 'typer', 'rich', 'pydantic'}\n"
        "    assert 'edgeseg.pytest_plugin' in sys.modules\n"
        "    assert not heavy & set(sys.modules)\n"
    )
    done = run(tmp_path, "-p", "no:hypothesispytest", "-p", "no:playwright")
    assert done.returncode == 0, done.stdout


def test_the_package_offers_the_plugin() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    line = 'edgeseg = "edgeseg.pytest_plugin"'
    assert f"[project.entry-points.pytest11]\n{line}\n" in text
