"""Every call of cuda-python, as the runner makes it, without a device: CUDA refuses it, Python does not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgeseg.errors import EngineError
from edgeseg.runtime.tensorrt import cuda

runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")


class Unheeded(cuda.CudaPython):
    """Goes on after CUDA's refusals with handles that are none, so that every call of a method is made."""

    def __init__(self) -> None:
        self._api = runtime
        self.codes: list[int] = []

    def _call(self, result: tuple[Any, ...]) -> Any:
        code, *values = result
        self.codes.append(int(code))
        return (0 if values[0] is None else values[0]) if values else None


HOST = np.zeros(16, np.uint8)
STREAM, EVENT = runtime.cudaStream_t(0), runtime.cudaEvent_t(0)
CALLS: dict[str, Callable[[cuda.CudaPython], Any]] = {
    "allocate": lambda gpu: gpu.allocate(16),
    "free": lambda gpu: gpu.free(4096),
    "allocate_host": lambda gpu: gpu.allocate_host(16),
    "free_host": lambda gpu: gpu.free_host(HOST),
    "mapped": lambda gpu: gpu.mapped(HOST),
    "stream": lambda gpu: gpu.stream(),
    "to_device": lambda gpu: gpu.to_device(4096, HOST, STREAM),
    "to_host": lambda gpu: gpu.to_host(HOST, 4096, STREAM),
    "event": lambda gpu: gpu.event(),
    "record": lambda gpu: gpu.record(EVENT, STREAM),
    "wait": lambda gpu: gpu.wait(EVENT),
    "wait_for": lambda gpu: gpu.wait_for(1, STREAM),
    "milliseconds": lambda gpu: gpu.milliseconds(EVENT, EVENT),
    "begin_capture": lambda gpu: gpu.begin_capture(STREAM),
    "end_capture": lambda gpu: gpu.end_capture(STREAM),
    "launch": lambda gpu: gpu.launch(runtime.cudaGraphExec_t(0), STREAM),
    "drop": lambda gpu: gpu.drop(runtime.cudaGraphExec_t(0)),
}

pytestmark = pytest.mark.skipif(cuda.has_gpu(), reason="a device would take these calls, with pointers that are none")


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


def test_every_call_of_the_protocol_is_among_them() -> None:
    methods = {name for name in vars(cuda.Cuda) if not name.startswith("_")}
    assert methods - {"handle"} == set(CALLS)
    assert cuda.CudaPython.__new__(cuda.CudaPython).handle(runtime.cudaStream_t(5)) == 5
