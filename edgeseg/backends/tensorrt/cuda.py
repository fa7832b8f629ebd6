"""CUDA from Python: cuda-python, or pycuda where the device has that. Nothing is imported or made at import."""

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgeseg.errors import EngineError, InputError, MissingDependencyError

BINDINGS = ("cuda-python", "pycuda")
CHOICE = "EDGESEG_CUDA"  # the environment variable that names one of them
_NO_ERROR = 0
_MAJOR, _MINOR, _INTEGRATED = 75, 76, 18  # CU_DEVICE_ATTRIBUTE_...
_DISABLE_TIMING = 2  # CU_EVENT_DISABLE_TIMING
_DRIVERS = ("libcuda.so.1", "libcuda.so") if sys.platform != "win32" else ("nvcuda.dll",)
_REASONS = {34: "only CUDA's stub library is found", 100: "no CUDA device", 803: "the driver and CUDA do not match"}

Bytes = npt.NDArray[np.uint8]


# -- what there is, asked of the driver itself, which needs no binding -------------------------------------------------


@functools.cache
def _driver() -> ctypes.CDLL | None:
    for name in _DRIVERS:
        with contextlib.suppress(OSError):
            return ctypes.CDLL(name)
    return None


@functools.cache
def _devices() -> tuple[int, str]:
    """How many CUDA devices there are, and why none."""
    driver = _driver()
    if driver is None:
        return 0, "no NVIDIA driver"
    count = ctypes.c_int(0)
    code = int(driver.cuInit(0)) or int(driver.cuDeviceGetCount(ctypes.byref(count)))
    if code != _NO_ERROR:
        return 0, _REASONS.get(code, f"the NVIDIA driver gives error {code}")
    return count.value, "" if count.value else "no CUDA device"


def has_gpu() -> bool:
    """Whether there is a CUDA device to build and run on."""
    return _devices()[0] > 0


def why_no_gpu() -> str:
    """What is missing, in a few words; ``""`` where a device is there."""
    return _devices()[1]


@functools.cache
def device() -> tuple[str, int]:
    """The first CUDA device's name and compute capability (86: 8.6). Call it where ``has_gpu``."""
    driver, number = _driver(), _first()
    assert driver is not None
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, len(name), number)
    return name.value.decode(errors="replace"), 10 * _attribute(_MAJOR) + _attribute(_MINOR)


def is_integrated() -> bool:
    """Whether the GPU works in the processor's own memory, as a Jetson's does: nothing has to be copied to it then."""
    return bool(_attribute(_INTEGRATED))


def _first() -> ctypes.c_int:
    driver, number = _driver(), ctypes.c_int(0)
    assert driver is not None
    assert has_gpu()
    driver.cuDeviceGet(ctypes.byref(number), 0)
    return number


def _call(code: int) -> None:
    if code != _NO_ERROR:
        raise EngineError("CUDA failed", got=f"error {code} of the NVIDIA driver")


def _attribute(which: int) -> int:
    driver, value = _driver(), ctypes.c_int(0)
    assert driver is not None
    driver.cuDeviceGetAttribute(ctypes.byref(value), which, _first())
    return value.value


# -- the binding -------------------------------------------------------------------------------------------------------


class Cuda(Protocol):
    """What the runner needs of CUDA. Pointers, streams, events and graphs are numbers or the binding's own objects."""

    name: str
    has_graphs: bool

    def allocate(self, size: int) -> int:
        """``size`` bytes of device memory."""

    def free(self, pointer: int) -> None:
        """Give device memory back."""

    def allocate_host(self, size: int) -> Bytes:
        """``size`` bytes of page-locked host memory."""

    def free_host(self, host: Bytes) -> None:
        """Give page-locked memory back."""

    def mapped(self, host: Bytes) -> int:
        """The address by which the device sees page-locked memory."""

    def stream(self) -> Any:
        """A new stream."""

    def handle(self, stream: Any) -> int:
        """A stream as TensorRT takes it."""

    def to_device(self, pointer: int, host: Bytes, stream: Any) -> None:
        """Copy, without waiting."""

    def to_host(self, host: Bytes, pointer: int, stream: Any) -> None:
        """Copy, without waiting."""

    def copy(self, to: int, pointer: int, size: int, stream: Any) -> None:
        """Copy on the device, without waiting."""

    def event(self) -> Any:
        """A new event that takes the time."""

    def record(self, event: Any, stream: Any) -> None:
        """Put an event behind what the stream was given so far."""

    def wait(self, event: Any) -> None:
        """Wait for an event."""

    def wait_for(self, handle: int, stream: Any) -> None:
        """A stream waits for what another, by its handle (1 and 2: CUDA's default ones), was given so far."""

    def milliseconds(self, start: Any, end: Any) -> float:
        """Device time between two events that have come."""

    def begin_capture(self, stream: Any) -> None:
        """What the stream is given from here on is kept in a graph, not run."""

    def end_capture(self, stream: Any) -> Any:
        """The graph, ready to launch."""

    def launch(self, graph: Any, stream: Any) -> None:
        """Run a graph."""

    def drop(self, graph: Any) -> None:
        """Give a graph back."""


@functools.cache
def binding() -> Cuda:
    """The binding to use: the one ``EDGESEG_CUDA`` names, else cuda-python, else pycuda.

    Raises ``MissingDependencyError`` without either, and ``EngineError`` where there is no GPU.
    """
    wanted = os.environ.get(CHOICE, "")
    if wanted and wanted not in BINDINGS:
        raise InputError(f"{CHOICE} names no CUDA binding", got=repr(wanted), expected=" or ".join(BINDINGS))
    if not has_gpu():
        raise EngineError("no NVIDIA GPU to run on", got=why_no_gpu(), hint="The cpu target needs none.")
    for name, make in (("cuda-python", CudaPython), ("pycuda", PyCuda)):
        if wanted in ("", name):
            with contextlib.suppress(ModuleNotFoundError):
                return make()
        needed = wanted or BINDINGS[0]
    raise MissingDependencyError(f"a TensorRT engine needs {needed} to run", hint=f"Install it: pip install {needed}.")


class CudaPython:
    """NVIDIA's own binding: ``cuda.bindings.runtime``."""

    name, has_graphs = BINDINGS[0], True

    def __init__(self) -> None:
        from cuda.bindings import runtime

        self._api: Any = runtime
        self._call(runtime.cudaSetDevice(0))

    def _call(self, result: tuple[Any, ...]) -> Any:
        code, *values = result
        if int(code) != _NO_ERROR:
            _, text = self._api.cudaGetErrorString(code)
            raise EngineError("CUDA failed", got=text.decode() if isinstance(text, bytes) else str(text))
        return values[0] if values else None

    def allocate(self, size: int) -> int:
        return int(self._call(self._api.cudaMalloc(size)))

    def free(self, pointer: int) -> None:
        self._call(self._api.cudaFree(pointer))

    def allocate_host(self, size: int) -> Bytes:
        flags = self._api.cudaHostAllocMapped
        pointer = int(self._call(self._api.cudaHostAlloc(size, flags)))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))

    def free_host(self, host: Bytes) -> None:
        self._call(self._api.cudaFreeHost(host.ctypes.data))

    def mapped(self, host: Bytes) -> int:
        return int(self._call(self._api.cudaHostGetDevicePointer(host.ctypes.data, 0)))

    def stream(self) -> Any:
        return self._call(self._api.cudaStreamCreateWithFlags(self._api.cudaStreamNonBlocking))

    def handle(self, stream: Any) -> int:
        return int(stream)

    def to_device(self, pointer: int, host: Bytes, stream: Any) -> None:
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call(self._api.cudaMemcpyAsync(pointer, host.ctypes.data, host.nbytes, kind, stream))

    def to_host(self, host: Bytes, pointer: int, stream: Any) -> None:
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call(self._api.cudaMemcpyAsync(host.ctypes.data, pointer, host.nbytes, kind, stream))

    def copy(self, to: int, pointer: int, size: int, stream: Any) -> None:
        kind = self._api.cudaMemcpyKind.cudaMemcpyDefault  # an integrated GPU may be given the host's
        self._call(self._api.cudaMemcpyAsync(to, pointer, size, kind, stream))

    def event(self) -> Any:
        return self._call(self._api.cudaEventCreate())

    def record(self, event: Any, stream: Any) -> None:
        self._call(self._api.cudaEventRecord(event, stream))

    def wait(self, event: Any) -> None:
        self._call(self._api.cudaEventSynchronize(event))

    def wait_for(self, handle: int, stream: Any) -> None:
        event = self._call(self._api.cudaEventCreateWithFlags(self._api.cudaEventDisableTiming))
        try:
            self._call(self._api.cudaEventRecord(event, self._api.cudaStream_t(handle)))
            self._call(self._api.cudaStreamWaitEvent(stream, event, 0))
        finally:
            self._call(self._api.cudaEventDestroy(event))

    def milliseconds(self, start: Any, end: Any) -> float:
        return float(self._call(self._api.cudaEventElapsedTime(start, end)))

    def begin_capture(self, stream: Any) -> None:
        mode = self._api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call(self._api.cudaStreamBeginCapture(stream, mode))

    def end_capture(self, stream: Any) -> Any:
        graph = self._call(self._api.cudaStreamEndCapture(stream))
        try:
            return self._call(self._api.cudaGraphInstantiate(graph, 0))
        finally:
            self._call(self._api.cudaGraphDestroy(graph))

    def launch(self, graph: Any, stream: Any) -> None:
        self._call(self._api.cudaGraphLaunch(graph, stream))

    def drop(self, graph: Any) -> None:
        self._call(self._api.cudaGraphExecDestroy(graph))


class PyCuda:
    """pycuda, which knows no graphs.

    A context belongs to a thread, on a stack that pycuda keeps of its own: it ends the process where a thread ends with
    one still on it. So every call puts the context there and takes it off again. What comes after, TensorRT and the
    plugin, needs none: CUDA's runtime takes the device's primary context, which this one is.
    """

    name, has_graphs = BINDINGS[1], False

    def __init__(self) -> None:
        import pycuda.driver as driver

        driver.init()
        self._api: Any = driver
        self._context: Any = driver.Device(0).retain_primary_context()
        self._kept: dict[int, Any] = {}  # pycuda frees what nothing refers to

    @contextlib.contextmanager
    def _here(self) -> Iterator[Any]:
        """pycuda, with the context on the calling thread's stack."""
        self._context.push()
        try:
            yield self._api
        finally:
            self._api.Context.pop()

    def allocate(self, size: int) -> int:
        with self._here() as api:
            memory = api.mem_alloc(size)
        self._kept[int(memory)] = memory
        return int(memory)

    def free(self, pointer: int) -> None:
        with self._here():
            self._kept.pop(pointer).free()

    def allocate_host(self, size: int) -> Bytes:
        with self._here() as api:
            host: Bytes = api.pagelocked_empty(size, np.uint8, mem_flags=api.host_alloc_flags.DEVICEMAP)
        return host

    def free_host(self, host: Bytes) -> None:
        with self._here():  # by the last array that refers to it, it may be in a thread without the context
            host.base.free()  # type: ignore[union-attr]

    def mapped(self, host: Bytes) -> int:
        with self._here():
            return int(host.base.get_device_pointer())  # type: ignore[union-attr]

    def stream(self) -> Any:
        with self._here() as api:
            return api.Stream()

    def handle(self, stream: Any) -> int:
        return int(stream.handle)

    def to_device(self, pointer: int, host: Bytes, stream: Any) -> None:
        with self._here() as api:
            api.memcpy_htod_async(pointer, host, stream)

    def to_host(self, host: Bytes, pointer: int, stream: Any) -> None:
        with self._here() as api:
            api.memcpy_dtoh_async(host, pointer, stream)

    def copy(self, to: int, pointer: int, size: int, stream: Any) -> None:
        with self._here() as api:
            api.memcpy_dtod_async(to, pointer, size, stream)

    def event(self) -> Any:
        with self._here() as api:
            return api.Event()

    def record(self, event: Any, stream: Any) -> None:
        with self._here():
            event.record(stream)

    def wait(self, event: Any) -> None:
        with self._here():
            event.synchronize()

    def wait_for(self, handle: int, stream: Any) -> None:
        """By the driver itself: pycuda has no streams but its own."""
        driver, event = _driver(), ctypes.c_void_p()
        assert driver is not None
        with self._here():
            _call(driver.cuEventCreate(ctypes.byref(event), _DISABLE_TIMING))
            try:
                _call(driver.cuEventRecord(event, ctypes.c_void_p(handle)))
                _call(driver.cuStreamWaitEvent(ctypes.c_void_p(self.handle(stream)), event, 0))
            finally:
                _call(driver.cuEventDestroy_v2(event))

    def milliseconds(self, start: Any, end: Any) -> float:
        with self._here():
            return float(start.time_till(end))

    def begin_capture(self, stream: Any) -> None:
        raise NotImplementedError

    def end_capture(self, stream: Any) -> Any:
        raise NotImplementedError

    def launch(self, graph: Any, stream: Any) -> None:
        raise NotImplementedError

    def drop(self, graph: Any) -> None:
        raise NotImplementedError
