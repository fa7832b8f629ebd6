"""The two bindings to CUDA without a device: calls that CUDA refuses and Python does not, contexts
that do not stay.
"""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from edgeseg.backends.tensorrt import cuda
from edgeseg.errors import EngineError

runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")


class Unheeded(cuda.CudaPython):
    """Goes on after CUDA's refusals with handles that are none, so that every call of a method is
    made.
    """

    def __init__(self) -> None:
        self._api = runtime
        self.codes: list[int] = []

    def _call(self, result: tuple[Any, ...]) -> Any:
        code, *values = result
        self.codes.append(int(code))
        return (0 if values[0] is None else values[0]) if values else None


DRIVER_CALLS = ("cuEventCreate", "cuEventRecord", "cuStreamWaitEvent", "cuEventDestroy_v2")
HOST = np.zeros(16, np.uint8)
STREAM, EVENT = runtime.cudaStream_t(0), runtime.cudaEvent_t(0)
CALLS: dict[str, Callable[[cuda.CudaPython], Any]] = {
    "allocate": lambda gpu: gpu.allocate(16),
    "free": lambda gpu: gpu.free(4096),
    "allocate_host": lambda gpu: gpu.allocate_host(16),
    "free_host": lambda gpu: gpu.free_host(HOST),
    "mapped": lambda gpu: gpu.mapped(HOST),
    "stream": lambda gpu: gpu.stream(),
    "drop_stream": lambda gpu: gpu.drop_stream(runtime.cudaStream_t(4096)),
    "to_device": lambda gpu: gpu.to_device(4096, HOST, STREAM),
    "to_host": lambda gpu: gpu.to_host(HOST, 4096, STREAM),
    "copy": lambda gpu: gpu.copy(4096, 8192, 16, STREAM),
    "event": lambda gpu: gpu.event(),
    "drop_event": lambda gpu: gpu.drop_event(EVENT),
    "record": lambda gpu: gpu.record(EVENT, STREAM),
    "wait": lambda gpu: gpu.wait(EVENT),
    "wait_for": lambda gpu: gpu.wait_for(1, STREAM),
    "milliseconds": lambda gpu: gpu.milliseconds(EVENT, EVENT),
    "begin_capture": lambda gpu: gpu.begin_capture(STREAM),
    "end_capture": lambda gpu: gpu.end_capture(STREAM),
    "launch": lambda gpu: gpu.launch(runtime.cudaGraphExec_t(0), STREAM),
    "drop": lambda gpu: gpu.drop(runtime.cudaGraphExec_t(0)),
}

pytestmark = pytest.mark.skipif(
    cuda.has_gpu(), reason="a device would take these calls, with pointers that are none"
)


@pytest.mark.parametrize("name", CALLS)
def test_cuda_refuses_a_call_and_python_does_not(name: str) -> None:
    gpu = Unheeded()
    CALLS[name](gpu)
    assert gpu.codes
    assert all(gpu.codes), "without a device nothing succeeds"
    refused = cuda.CudaPython.__new__(cuda.CudaPython)
    refused._api = runtime
    with pytest.raises(EngineError, match=r"CUDA failed: got .*driver"):
        CALLS[name](refused)


# A driver that refuses to start. cuda-python 12.6 raises if there is none at all.
REFUSING_DRIVER = """
static const char* text = "the driver refuses";
int cuInit(unsigned flags) { return 999; }
int cuDriverGetVersion(int* version) { *version = 12060; return 0; }
int cuGetErrorString(int error, const char** found) { *found = text; return 0; }
int cuGetErrorName(int error, const char** found) { *found = text; return 0; }
"""


def older_bindings() -> list[Any]:
    """Folders with cuda-python 12.6, JetPack 6's, as ``EDGESEG_TENSORRT_WHEELS`` names them."""
    folders = filter(None, os.environ.get("EDGESEG_TENSORRT_WHEELS", "").split(os.pathsep))
    found = [folder for folder in folders if (Path(folder) / "cuda" / "bindings").is_dir()]
    reason = "cuda-python 12.6 is not in $EDGESEG_TENSORRT_WHEELS"
    return found or [pytest.param("", marks=pytest.mark.skip(reason))]


@pytest.mark.parametrize("folder", older_bindings())
def test_an_older_cuda_python_takes_the_same_calls(folder: str, tmp_path: Path) -> None:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    source = tmp_path / "driver.c"
    source.write_text(REFUSING_DRIVER)
    library = str(tmp_path / "libcuda.so.1")
    subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", library], check=True)

    calls = f"{__file__}::{test_cuda_refuses_a_call_and_python_does_not.__name__}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", calls],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": folder, "LD_LIBRARY_PATH": str(tmp_path)},
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(CALLS)} passed" in done.stdout


def test_every_call_of_the_protocol_is_among_them() -> None:
    methods = {name for name in vars(cuda.Cuda) if not name.startswith("_")}
    assert methods - {"handle"} == set(CALLS)
    assert cuda.CudaPython.__new__(cuda.CudaPython).handle(runtime.cudaStream_t(5)) == 5


class Pycuda:
    """pycuda's driver module as far as contexts go: a stack a thread; a process ends where one is
    not empty.
    """

    def __init__(self) -> None:
        self.stack = threading.local()
        self.calls = 0
        self.Context = SimpleNamespace(pop=lambda: self.contexts().pop())
        self.host_alloc_flags = SimpleNamespace(DEVICEMAP=2)

    def contexts(self) -> list[str]:
        if not hasattr(self.stack, "contexts"):
            self.stack.contexts = list[str]()
        return self.stack.contexts  # type: ignore[no-any-return]

    def _called(self, *arguments: Any) -> "Thing":
        assert self.contexts() == ["primary"], "no context on this thread's stack, or more than one"
        self.calls += 1
        return Thing(self)

    mem_alloc = memcpy_htod_async = memcpy_dtoh_async = memcpy_dtod_async = Stream = Event = _called

    def init(self) -> None: ...

    def Device(self, number: int) -> Any:  # noqa: N802
        primary = SimpleNamespace(push=lambda: self.contexts().append("primary"))
        return SimpleNamespace(retain_primary_context=lambda: primary)

    def pagelocked_empty(self, size: int, dtype: Any, mem_flags: int) -> Any:
        self._called()
        return SimpleNamespace(base=Thing(self), size=size)


class Thing:
    """Memory, a stream or an event of pycuda's."""

    def __init__(self, pycuda: Pycuda) -> None:
        self.free = self.record = self.synchronize = pycuda._called
        self.get_device_pointer = self.time_till = lambda *_: pycuda._called() and 7
        self.handle = 5

    def __int__(self) -> int:
        return 4096


def test_pycudas_contexts_are_taken_off_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """In every thread after every call: pycuda aborts where a thread, or the process, ends with one
    on its stack.
    """
    driver = Pycuda()
    monkeypatch.setitem(sys.modules, "pycuda", SimpleNamespace(driver=driver))
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    calls = MagicMock(**{f"{name}.return_value": 0 for name in DRIVER_CALLS})
    monkeypatch.setattr(cuda, "_driver", lambda: calls)
    gpu, left = cuda.PyCuda(), list[int]()

    def every_call() -> None:
        stream, event, host = gpu.stream(), gpu.event(), gpu.allocate_host(16)
        gpu.to_device(gpu.allocate(16), host, stream)
        gpu.to_host(host, 4096, stream)
        gpu.copy(4096, 8192, 16, stream)
        gpu.record(event, stream)
        gpu.wait(event)
        gpu.wait_for(1, stream)
        assert gpu.milliseconds(event, event) == gpu.mapped(host) == 7
        gpu.free_host(host)
        gpu.free(4096)
        gpu.drop_event(event)
        gpu.drop_stream(stream)
        left.append(len(driver.contexts()))

    for _ in range(2):  # the second thread may have the first one's number
        thread = threading.Thread(target=every_call)
        thread.start()
        thread.join()
    every_call()
    assert left == [0, 0, 0]
    with pytest.raises(RuntimeError, match="no"), gpu._here():
        raise RuntimeError("no")
    assert not driver.contexts()
