"""Engines are built once, and a model that ships opens in float where its INT8 cannot be built."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reporting import Heard

from edgeseg.backends.engine import Engine
from edgeseg.backends.load import load_engine as open_file
from edgeseg.build import engine_cache
from edgeseg.build.engine_cache import resolve_engine
from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.build.options import Quantization
from edgeseg.errors import (
    CheckFailedError,
    EngineError,
    GraphError,
    MissingDependencyError,
    OutputError,
)

SET = "synthetic://?length=4&size=96x64&seed=6"
FRAME = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)


@pytest.fixture(scope="module")
def quantized(small_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    file = folder / "small.int8.onnx"
    options = Quantization(least_agreement=0, save_onnx=file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESEG_CACHE", str(folder / "own"))
        build_engine(
            small_onnx, precision="int8", calib=SET, out=folder / "e.engine", quantization=options
        )
    return file


@pytest.fixture
def shipped(
    small_onnx: Path, quantized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A zoo of one small net, and an empty cache."""
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(engine_cache, "zoo", lambda: {"small": small_onnx})
    monkeypatch.setattr(engine_cache, "zoo_int8", lambda name: quantized)
    return tmp_path / "cache"


def failing(error: Exception, tried: list[str]) -> Callable[..., Path]:
    """``build_engine`` that cannot build INT8."""

    def build(*arguments: Any, precision: str, **options: Any) -> Path:
        tried.append(precision)
        if precision == "int8":
            raise error
        return build_engine(*arguments, precision=precision, **options)

    return build


@pytest.mark.parametrize("kind", [EngineError, GraphError, CheckFailedError])
def test_a_failed_int8_build_opens_float_and_is_remembered(
    shipped: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    tried: list[str] = []
    monkeypatch.setattr(engine_cache, "build_engine", failing(kind("no kernel for node 7"), tried))

    first = Heard()
    with resolve_engine("small", reporter=first) as engine:
        assert engine.passport.precision in ("fp32", "bf16")
        assert engine(FRAME).shape == FRAME.shape[:2]
    assert [
        line
        for line in first.lines
        if line.startswith("warning: small.int8.onnx: cannot be built in int8 here")
    ]
    assert tried.count("int8") == 1

    # The next start does not try again, and says why.
    second = Heard()
    with resolve_engine("small", reporter=second) as engine:
        assert engine.passport.precision in ("fp32", "bf16")
    assert tried.count("int8") == 1
    assert any("failed before: no kernel for node 7" in line for line in second.lines)

    # Who asks for INT8 gets the error.
    with pytest.raises(kind, match="no kernel"):
        resolve_engine("small", precision="int8")


def test_a_full_disk_is_no_failure_of_int8(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.setattr(
        engine_cache, "build_engine", failing(OutputError("the disk is full"), tried)
    )
    for _ in range(2):
        with pytest.raises(OutputError, match="the disk is full"):
            resolve_engine("small")
    assert tried.count("int8") == 2


def test_an_engine_whose_plugin_is_gone_is_built_again(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_engine("small", precision="fp32").close()
    opened: list[Path] = []

    def load_engine(path: Path) -> Engine:
        opened.append(path)
        if len(opened) == 1:
            raise MissingDependencyError("the TensorRT plugin is not built")
        return open_file(path)

    monkeypatch.setattr(engine_cache, "load_engine", load_engine)
    heard = Heard()
    with resolve_engine("small", precision="fp32", reporter=heard) as engine:
        assert engine.passport.precision == "fp32"
    assert len(opened) == 2
    tasks = [step for step in heard.steps if step[0].startswith("compile small.onnx for cpu, once")]
    assert [(done, total) for _, done, total in tasks] == [(0, None), (1, 1)]


def test_the_slower_of_two_engines_is_closed(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Engine] = []

    def load_engine(path: Path) -> Engine:
        opened.append(open_file(path))
        return opened[-1]

    monkeypatch.setattr(engine_cache, "load_engine", load_engine)
    winner = resolve_engine("small")
    assert len(opened) == 2
    (loser,) = [engine for engine in opened if engine is not winner]
    with pytest.raises(EngineError, match="closed"):
        loser(FRAME)
    winner(FRAME)
    winner.close()
