"""TensorRT that cannot start CUDA, and drivers that are too old or closed to the user.

The real Python modules are used where ``EDGESEG_TENSORRT_WHEELS`` names folders with installs of
``tensorrt-cu12-bindings`` or of ``tensorrt-lean-cu12-bindings`` and ``-libs``.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_gpu import FakeCuda, FakeRuntime, fake_library

from edgeseg import doctor
from edgeseg.backends.tensorrt import bindings, cuda
from edgeseg.backends.tensorrt.bindings import Library, Log, Message, reason_of, start
from edgeseg.errors import EngineError

NO_CUDA = (
    "createInferRuntime: Error Code 6: API Usage Error (CUDA initialization failure with error: "
    "35 In checkCudaInstallation at /_src/runtime/dispatch/runtime.cpp:811)"
)


class Hollow:
    """What a runtime is that could not start: nothing of it may be used, nor may it end."""

    dropped = 0

    def __del__(self) -> None:
        type(self).dropped += 1  # at exit, the module has no `Hollow` any more

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} of an object that did not start")


def with_constructor(construct: Any) -> Library:
    log: Any = Log.__new__(Log)
    log.messages = []
    log.logger = log.messages
    return Library("tensorrt", SimpleNamespace(Builder=construct, Runtime=construct), "10.3", log)


@pytest.mark.parametrize("name", ["Builder", "Runtime"])
def test_a_constructor_that_returns_null_is_told(name: str) -> None:
    def construct(logger: list[Message]) -> Any:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    with pytest.raises(EngineError, match=r"tensorrt 10\.3 does not start: got no reason given"):
        start(with_constructor(construct), name)


def test_nothing_is_called_on_what_did_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def construct(logger: list[Message]) -> Any:
        logger.append(Message("error", NO_CUDA))
        return Hollow()

    monkeypatch.setattr(cuda, "driver_version", lambda: "driver 550.54, CUDA 12.4")
    monkeypatch.setattr(bindings, "_HOLLOW", bindings._HOLLOW)
    before = Hollow.dropped
    with pytest.raises(EngineError) as caught:
        start(with_constructor(construct), "Runtime")
    told = str(caught.value)
    assert "got API Usage Error (CUDA initialization failure with error: 35)." in told
    assert "driver 550.54, CUDA 12.4" in told
    assert "driver 580" in told
    assert 'pip install tensorrt-cu12 "cuda-python<13"' in told
    assert Hollow.dropped == before


def test_errors_before_do_not_count() -> None:
    found = fake_library()
    found.log.messages.append(Message("error", "of something else"))
    assert isinstance(start(found, "Runtime"), FakeRuntime)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (NO_CUDA, "API Usage Error (CUDA initialization failure with error: 35)"),
        (
            "[checkMacros.cpp::catchCudaError::229] Error Code 1: Cuda Runtime (In catchCudaError "
            "at /_src/common/dispatch/checkMacros.cpp:229)",
            "Cuda Runtime",
        ),
        (
            "IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (no tactic for {a})",
            "Internal Error (no tactic for {a})",
        ),
        ("[optimizer.cpp::computeCosts::4048] Error Code 10: no tactic", "no tactic"),
        ("a warning: of two parts", "a warning: of two parts"),
    ],
)
def test_reasons_have_no_functions_codes_and_places(text: str, reason: str) -> None:
    assert reason_of(text) == reason


# -- a child process tries it ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("pass", ""),
        ("import sys; print('no CUDA'); print('Do this.'); sys.exit(1)", "no CUDA"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "it ends its process by sig"),
        ("import time; time.sleep(60)", "it takes longer than 1 s"),
        ("raise ValueError('strange')", "ValueError: strange"),
    ],
)
def test_doctor_starts_tensorrt_in_a_child(
    monkeypatch: pytest.MonkeyPatch, code: str, reason: str
) -> None:
    monkeypatch.setattr(bindings, "_START", code)
    found, hint = bindings.why_not_starting("tensorrt", timeout_s=1 if "sleep" in code else 15)
    assert found.startswith(reason)
    assert bool(found) == bool(reason) == bool(hint)

    told = bindings.why_not_starting
    monkeypatch.setattr(bindings, "why_not_starting", lambda target: told(target, 1))
    monkeypatch.setattr(bindings, "library", lambda target: SimpleNamespace(version="10.3.0"))
    if "sleep" not in code:
        monkeypatch.setattr(bindings, "why_not_starting", lambda target: (found, hint))
    finding = doctor._tensorrt("tensorrt", "TensorRT")
    assert finding.ok == (not reason)
    assert finding.found.startswith("10.3.0 does not start: " if reason else "10.3.0")


# -- drivers ---------------------------------------------------------------------------------------


def driver(code: int, version: int = 12040) -> SimpleNamespace:
    def get_version(pointer: Any) -> int:
        pointer._obj.value = version
        return 0

    return SimpleNamespace(cuInit=lambda flags: code, cuDriverGetVersion=get_version)


@pytest.fixture
def use_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def use(code: int, *, jetson: bool = False) -> None:
        cuda._devices.cache_clear()
        cuda._start_code.cache_clear()
        monkeypatch.setattr(cuda, "_driver", lambda: driver(code))
        release = tmp_path / "nv_tegra_release"
        if jetson:
            release.write_text("# R36\n")
        monkeypatch.setattr(cuda, "_JETSON_RELEASE", release)
        monkeypatch.setattr(cuda, "_BOARDS", tmp_path / "compatible")
        monkeypatch.setattr(cuda, "_DRIVER_RELEASE", tmp_path / "version")

    yield use
    cuda._devices.cache_clear()
    cuda._start_code.cache_clear()


@pytest.mark.parametrize("code", [999, 801])
def test_a_jetson_closed_to_the_user_names_the_groups(use_driver: Any, code: int) -> None:
    use_driver(code, jetson=True)
    assert not cuda.has_gpu()
    assert str(code) in cuda.why_no_gpu()
    assert "video,render" in cuda.gpu_hint()
    cuda.binding.cache_clear()
    with pytest.raises(EngineError, match="usermod -aG video,render"):
        cuda.binding()
    finding = doctor._gpu()
    assert (finding.found, finding.hint) == (f"{cuda.why_no_gpu()}, CUDA 12.4", cuda.gpu_hint())


def test_elsewhere_the_driver_is_reloaded(use_driver: Any) -> None:
    use_driver(999)
    assert "modprobe" in cuda.gpu_hint()
    use_driver(100)
    assert (cuda.why_no_gpu(), cuda.gpu_hint()) == ("no CUDA device", "")


def test_cuda_python_with_an_old_driver_is_told(use_driver: Any) -> None:
    use_driver(0)
    binding = cuda.CudaPython.__new__(cuda.CudaPython)
    binding._api = SimpleNamespace(cudaGetErrorString=lambda code: (0, b"driver is insufficient"))
    with pytest.raises(EngineError, match=r'insufficient\. .*CUDA 12\.4.*"cuda-python<13"'):
        binding._call((35,))


# -- the real modules ------------------------------------------------------------------------------

_STARTS = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
sys.modules["tensorrt"] = importlib.import_module(sys.argv[2])
from edgeseg.backends.tensorrt.bindings import library, start
from edgeseg.errors import EngineError
for name in sys.argv[3:]:
    try:
        start(library("tensorrt"), name)
    except EngineError as error:
        print(name, error)
"""


def installed(module: str) -> list[Any]:
    folders = filter(None, os.environ.get("EDGESEG_TENSORRT_WHEELS", "").split(os.pathsep))
    found = [folder for folder in folders if (Path(folder) / module).is_dir()]
    reason = f"{module} is not in $EDGESEG_TENSORRT_WHEELS"
    return found or [pytest.param("", marks=pytest.mark.skip(reason))]


def child(folder: str, libraries: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", _STARTS, folder, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "LD_LIBRARY_PATH": str(libraries)},
        timeout=30,
    )


@pytest.mark.parametrize("folder", installed("tensorrt_bindings"))
def test_real_bindings_over_a_library_that_returns_null(folder: str, tmp_path: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    source = tmp_path / "null.c"
    names = (
        *(f"createInfer{each}_INTERNAL" for each in ("Builder", "Refitter", "Runtime")),
        "createNvOnnxParserRefitter_INTERNAL",
        "createNvOnnxParser_INTERNAL",
        "getBuilderPluginRegistry",
        "getPluginRegistry",
        "initLibNvInferPlugins",
        "getNvOnnxParserVersion",
    )
    source.write_text("".join(f"void* {name}(void) {{ return 0; }}\n" for name in names))
    major = "11" if "11." in folder else "10"
    for library in ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser"):
        name = f"{library}.so.{major}"
        flags = ["-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(tmp_path / name)]
        subprocess.run([compiler, *flags, str(source)], check=True)

    done = child(folder, tmp_path, "tensorrt_bindings", "Builder", "Runtime")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("does not start: got no reason given") == 2


@pytest.mark.parametrize("folder", installed("tensorrt_lean_bindings"))
@pytest.mark.skipif(cuda.has_gpu(), reason="is about machines without a GPU")
def test_the_lean_runtime_without_a_driver(folder: str) -> None:
    """It returns a runtime whose methods, and whose end, are segmentation faults."""
    libraries = Path(folder) / "tensorrt_lean_libs"
    done = child(folder, libraries, "tensorrt_lean_bindings", "Runtime")
    assert done.returncode == 0, done.stderr
    assert "CUDA initialization failure with error: 35)" in done.stdout
    assert "driver 580" in done.stdout


def test_an_engine_of_a_runtime_that_did_not_start_is_not_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from edgeseg.backends.tensorrt.engine import TensorRTEngine
    from edgeseg.facts import TensorRTFacts
    from edgeseg.passport import Passport
    from edgeseg.spec import ModelSpec, generic_space

    def construct(logger: list[Message]) -> Any:
        logger.append(Message("error", NO_CUDA))
        return Hollow()

    facts: dict[str, Any] = dict.fromkeys(
        ("onnx_sha256", "engine_sha256", "edgeseg", "library", "library_version", "built_at"), ""
    )
    spec = ModelSpec(architecture="test", input_size=(8, 8), labels=generic_space(2))
    passport = Passport(
        name="net",
        target="tensorrt",
        precision="fp32",
        spec=spec,
        device="",
        build_seconds=0,
        facts=TensorRTFacts(),
        **facts,
    )
    with pytest.raises(EngineError, match="does not start"):
        TensorRTEngine(passport, b"plan", with_constructor(construct), device=FakeCuda())
