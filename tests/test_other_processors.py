"""INT8 where OpenVINO computes it otherwise: what libraries choose on other processors, by hiding instruction sets."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeseg.artifact import Passport
from edgeseg.doctor import examine
from edgeseg.errors import EngineError
from edgeseg.runtime import build_engine, load_engine
from edgeseg.runtime import cpu as cpu_target

SET = "synthetic://?length=4&size=96x64&seed=1"
PROBE = "from edgeseg.runtime import cpu; print(cpu.int8_is_exact(), *cpu.device()[1])"
LABEL = """
import json, sys, numpy, edgeseg
engine = edgeseg.load_engine(edgeseg.build_engine(sys.argv[1], precision="int8", out=sys.argv[2]))
frames = numpy.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), numpy.uint8)
numpy.save(sys.argv[3], numpy.stack([engine(frame) for frame in frames]))
print(json.dumps(engine.passport.settings))
"""


@pytest.fixture(scope="module")
def hiding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc")
    if sys.platform != "linux" or platform.machine() != "x86_64" or compiler is None:
        pytest.skip("instruction sets are hidden on Linux on x86 alone, with gcc")
    if " cpuid_fault" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("CPUID cannot be made to fault on this processor")
    out = tmp_path_factory.mktemp("other") / "other_processor.so"
    source = Path(__file__).with_suffix("").with_name("other_processor.c")
    command = [compiler, "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", str(source), "-o", str(out), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def on(processor: str, hiding: Path, code: str, *arguments: object) -> str:
    """What a Python program prints on another processor."""
    env = {**os.environ, "LD_PRELOAD": str(hiding), "OTHER_PROCESSOR": processor}
    words = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, env=env)
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(("processor", "exact"), [("avx2", False), ("avx2-vnni", True), ("avx512", False)])
def test_where_int8_saturates(hiding: Path, processor: str, exact: bool) -> None:
    told, *features = on(processor, hiding, PROBE).split()
    assert "BF16" not in features
    assert "INT8" in features  # whatever OpenVINO says of itself
    assert told == str(exact)


@pytest.fixture(scope="module")
def quantized(small_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quantized")
    build_engine(small_onnx, precision="int8", calib=SET, out=folder / "e.engine", save_onnx=folder / "q.onnx")
    return folder / "q.onnx"


def test_the_labels_are_the_same_without_vnni(hiding: Path, quantized: Path, tmp_path: Path) -> None:
    labels, settings = {}, {}
    for processor in ("avx2", "avx2-vnni"):
        out = tmp_path / f"{processor}.npy"
        settings[processor] = json.loads(on(processor, hiding, LABEL, quantized, tmp_path / f"{processor}.engine", out))
        labels[processor] = np.load(out)
    assert settings["avx2"]["LP_TRANSFORMS_MODE"] == "NO"
    assert "LP_TRANSFORMS_MODE" not in settings["avx2-vnni"]
    assert np.mean(labels["avx2"] == labels["avx2-vnni"]) >= 0.999


# -- what is said, wherever this runs ----------------------------------------------------------------------------------


@pytest.fixture
def saturating(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_target, "int8_is_exact", lambda: False)


@pytest.mark.usefixtures("saturating")
def test_it_is_said_and_float_is_left_alone(quantized: Path, small_onnx: Path, tmp_path: Path) -> None:
    heard: list[str] = []
    passport = Passport.read(build_engine(quantized, precision="int8", out=tmp_path / "a.engine", say=heard.append))
    assert passport.settings["LP_TRANSFORMS_MODE"] == "NO"
    assert any("INT8 is not exact on this processor (no VNNI)" in line for line in heard)
    heard.clear()
    passport = Passport.read(build_engine(small_onnx, precision="fp32", out=tmp_path / "b.engine", say=heard.append))
    assert "LP_TRANSFORMS_MODE" not in passport.settings
    assert not heard
    assert any("no VNNI: INT8 nets are computed in float" in row.found for row in examine())


def test_an_engine_for_bytes_is_refused_without_vnni(
    quantized: Path, small_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not cpu_target.int8_is_exact():
        pytest.skip("this processor has no VNNI")
    engines = {
        "int8": build_engine(quantized, precision="int8", out=tmp_path / "a.engine"),
        "fp32": build_engine(small_onnx, precision="fp32", out=tmp_path / "b.engine"),
    }
    frame = np.zeros((64, 96, 3), np.uint8)
    for path in engines.values():
        load_engine(path)(frame)
    monkeypatch.setattr(cpu_target, "int8_is_exact", lambda: False)
    load_engine(engines["fp32"])(frame)
    with pytest.raises(EngineError, match=r"this processor lacks VNNI.*Build it again"):
        load_engine(engines["int8"])
