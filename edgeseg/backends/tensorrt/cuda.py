"""Use CUDA from Python: by cuda-python, or by pycuda on a device that has it.

Importing this module imports no binding and creates no context.
"""

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgeseg.errors import EngineError, InputError, MissingDependencyError

BINDINGS = ("cuda-python", "pycuda")
CHOICE = "EDGESEG_CUDA"  # environment variable that names one of them
_NO_ERROR = 0
_MAJOR, _MINOR, _INTEGRATED = 75, 76, 18  # CU_DEVICE_ATTRIBUTE_...
_DISABLE_TIMING = 2  # CU_EVENT_DISABLE_TIMING
_DRIVERS = ("libcuda.so.1", "libcuda.so") if sys.platform != "win32" else ("nvcuda.dll",)

# Codes of the driver and of CUDA's runtime, and what they mean for the user.
_STUB, OLD_DRIVER, _NO_DEVICE, _NOT_SUPPORTED, _MISMATCH, _UNKNOWN = 34, 35, 100, 801, 803, 999
_REASONS = {
    _STUB: "only CUDA's stub library is found",
    OLD_DRIVER: "the NVIDIA driver is too old (error 35)",
    _NO_DEVICE: "no CUDA device",
    _NOT_SUPPORTED: "the NVIDIA driver does not support this (error 801)",
    _MISMATCH: "the driver and CUDA do not match",
    _UNKNOWN: "the NVIDIA driver cannot reach the GPU (error 999)",
}

# What is only on a Jetson: NVIDIA's release file; the device tree's list of boards.
_JETSON_RELEASE = Path("/etc/nv_tegra_release")
_BOARDS = Path("/proc/device-tree/compatible")
_DRIVER_RELEASE = Path("/sys/module/nvidia/version")

Bytes = npt.NDArray[np.uint8]


# -- the devices, by the driver itself: that needs no binding --------------------------------------


@functools.cache
def _driver() -> ctypes.CDLL | None:
    """Load the NVIDIA driver's library; return None if there is none."""
    for name in _DRIVERS:
        with contextlib.suppress(OSError):
            return ctypes.CDLL(name)
    return None


@functools.cache
def _devices() -> tuple[int, str]:
    """Return the number of CUDA devices, and the reason if there is none."""
    driver = _driver()
    if driver is None:
        return 0, "no NVIDIA driver"

    count = ctypes.c_int(0)
    code = _start_code()
    if code == _NO_ERROR:
        code = int(driver.cuDeviceGetCount(ctypes.byref(count)))
    if code != _NO_ERROR:
        return 0, _REASONS.get(code, f"the NVIDIA driver gives error {code}")
    return count.value, "" if count.value else _REASONS[_NO_DEVICE]


@functools.cache
def _start_code() -> int:
    """Start the driver and return its code; 0 if it starts, or if there is none."""
    driver = _driver()
    return _NO_ERROR if driver is None else int(driver.cuInit(0))


def has_gpu() -> bool:
    """Return True if there is a CUDA device to build and run on."""
    return _devices()[0] > 0


def why_no_gpu() -> str:
    """Return in a few words why there is no CUDA device; empty if there is one."""
    return _devices()[1]


def gpu_hint() -> str:
    """Return what to do if a GPU is here, but the driver cannot use it; empty if nothing helps."""
    return hint_for(_start_code())


def hint_for(code: int | None) -> str:
    """Return what to do about an error code of CUDA; empty if there is no advice.

    Parameters
    ----------
    code : error code of the driver or of CUDA's runtime; ``None`` if it is not known.
    """
    if code in (_UNKNOWN, _NOT_SUPPORTED) and is_jetson():
        return "Let this user use the GPU (sudo usermod -aG video,render $USER) and log in again."
    if code == _UNKNOWN:
        return "Reload the driver (sudo modprobe -r nvidia_uvm; sudo modprobe nvidia_uvm)."
    if code in (OLD_DRIVER, _MISMATCH):
        return (
            f"The driver here: {driver_version() or 'unknown'}. Update it: CUDA 13 needs driver "
            "580 or newer. Or install what is made for CUDA 12: "
            'pip install tensorrt-cu12 "cuda-python<13".'
        )
    return ""


def is_jetson() -> bool:
    """Return True if this is a Jetson, also if its GPU cannot be used."""
    if _JETSON_RELEASE.is_file():
        return True
    with contextlib.suppress(OSError):
        return b"nvidia,tegra" in _BOARDS.read_bytes()
    return False


def driver_version() -> str:
    """Return the driver's version and the newest CUDA that it supports; empty without a driver.

    It is such as ``driver 580.65.06, CUDA 13.0``.
    """
    driver = _driver()
    if driver is None:
        return ""

    known: list[str] = []
    with contextlib.suppress(OSError):
        known.append(f"driver {_DRIVER_RELEASE.read_text().strip()}")
    version = ctypes.c_int(0)
    if int(driver.cuDriverGetVersion(ctypes.byref(version))) == _NO_ERROR:
        known.append(f"CUDA {version.value // 1000}.{version.value % 1000 // 10}")
    return ", ".join(known)


@functools.cache
def device() -> tuple[str, int]:
    """Return the name and the compute capability of the first CUDA device; call ``has_gpu`` first.

    Returns
    -------
    The name, and the compute capability as a whole number: 86 for 8.6.
    """
    driver = _driver()
    assert driver is not None
    number = _first()
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, len(name), number)
    capability = 10 * _attribute(_MAJOR) + _attribute(_MINOR)
    return name.value.decode(errors="replace"), capability


def is_integrated() -> bool:
    """Return True if the GPU works in the processor's own memory, as a Jetson's does.

    Nothing has to be copied to such a GPU.
    """
    return bool(_attribute(_INTEGRATED))


def _first() -> ctypes.c_int:
    """Return the driver's number of the first device."""
    driver = _driver()
    assert driver is not None
    assert has_gpu()
    number = ctypes.c_int(0)
    driver.cuDeviceGet(ctypes.byref(number), 0)
    return number


def _call(code: int) -> None:
    """Raise ``EngineError`` for an error code of the driver."""
    if code != _NO_ERROR:
        got = f"error {code} of the NVIDIA driver"
        raise EngineError("CUDA failed", got=got, hint=hint_for(code))


def _attribute(which: int) -> int:
    """Return an attribute of the first device, by the driver's number of the attribute."""
    driver = _driver()
    assert driver is not None
    value = ctypes.c_int(0)
    driver.cuDeviceGetAttribute(ctypes.byref(value), which, _first())
    return value.value


# -- the binding -----------------------------------------------------------------------------------


class Cuda(Protocol):
    """Describe what the engines need of CUDA.

    Pointers, streams, events and graphs are numbers or the binding's own objects. Every method
    raises ``EngineError`` if CUDA fails (pycuda raises its own errors).

    Attributes
    ----------
    name : name of the binding.
    has_graphs : True if it has CUDA graphs.
    """

    name: str
    has_graphs: bool

    def allocate(self, size: int) -> int:
        """Allocate ``size`` bytes of device memory and return their address."""

    def free(self, pointer: int) -> None:
        """Free device memory."""

    def allocate_host(self, size: int) -> Bytes:
        """Allocate ``size`` bytes of page-locked host memory and return them, (size,) uint8."""

    def free_host(self, host: Bytes) -> None:
        """Free page-locked memory."""

    def mapped(self, host: Bytes) -> int:
        """Return the address at which the device sees page-locked memory."""

    def stream(self) -> Any:
        """Create a stream and return it."""

    def drop_stream(self, stream: Any) -> None:
        """Destroy a stream."""

    def handle(self, stream: Any) -> int:
        """Return the number that TensorRT takes for a stream."""

    def to_device(self, pointer: int, host: Bytes, stream: Any) -> None:
        """Copy all of ``host`` to the device; do not wait."""

    def to_host(self, host: Bytes, pointer: int, stream: Any) -> None:
        """Copy from the device until ``host`` is full; do not wait."""

    def copy(self, to: int, pointer: int, size: int, stream: Any) -> None:
        """Copy ``size`` bytes on the device; do not wait."""

    def event(self) -> Any:
        """Create an event that records the time, and return it."""

    def drop_event(self, event: Any) -> None:
        """Destroy an event."""

    def record(self, event: Any, stream: Any) -> None:
        """Record an event behind the work that a stream has so far."""

    def wait(self, event: Any) -> None:
        """Wait for an event."""

    def wait_for(self, handle: int, stream: Any) -> None:
        """Let ``stream`` wait for the work that another stream has so far.

        Parameters
        ----------
        handle : the other stream by its handle; 1 and 2 are CUDA's default streams.
        stream : the stream that waits.
        """

    def milliseconds(self, start: Any, end: Any) -> float:
        """Return the device time between two events that are complete."""

    def begin_capture(self, stream: Any) -> None:
        """Begin to keep the work of a stream in a graph instead of running it."""

    def end_capture(self, stream: Any) -> Any:
        """End the capture and return the graph, ready to launch."""

    def launch(self, graph: Any, stream: Any) -> None:
        """Run a graph in a stream; do not wait."""

    def drop(self, graph: Any) -> None:
        """Destroy a graph."""


@functools.cache
def binding() -> Cuda:
    """Return the binding to use: the one that ``$EDGESEG_CUDA`` names, else cuda-python or pycuda.

    Raises
    ------
    InputError : ``$EDGESEG_CUDA`` names no binding.
    EngineError : there is no GPU.
    MissingDependencyError : the binding is not installed; without a choice, neither is.
    """
    wanted = os.environ.get(CHOICE, "")
    if wanted and wanted not in BINDINGS:
        expected = " or ".join(BINDINGS)
        raise InputError(f"{CHOICE} names no CUDA binding", got=repr(wanted), expected=expected)
    if not has_gpu():
        hint = gpu_hint() or "The cpu target needs none."
        raise EngineError("no NVIDIA GPU to run on", got=why_no_gpu(), hint=hint)

    classes: tuple[Callable[[], Cuda], ...] = (CudaPython, PyCuda)
    for name, make in zip(BINDINGS, classes, strict=True):
        if wanted in ("", name):
            with contextlib.suppress(ModuleNotFoundError):
                return make()

    needed = wanted or BINDINGS[0]
    raise MissingDependencyError(
        f"a TensorRT engine needs {needed} to run", hint=f"Install it: pip install {needed}."
    )


class CudaPython:
    """Call CUDA by NVIDIA's binding ``cuda.bindings.runtime``. ``Cuda`` describes the methods."""

    name = BINDINGS[0]
    has_graphs = True

    def __init__(self) -> None:
        from cuda.bindings import runtime

        self._api: Any = runtime
        self._call(runtime.cudaSetDevice(0))

    def _call(self, result: tuple[Any, ...]) -> Any:
        """Return the value of a call's result; raise ``EngineError`` for an error code."""
        code, *values = result
        if int(code) != _NO_ERROR:
            _, text = self._api.cudaGetErrorString(code)
            got = text.decode() if isinstance(text, bytes) else str(text)
            raise EngineError("CUDA failed", got=got, hint=hint_for(int(code)))
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

    def drop_stream(self, stream: Any) -> None:
        self._call(self._api.cudaStreamDestroy(stream))

    def handle(self, stream: Any) -> int:
        return int(stream)

    def to_device(self, pointer: int, host: Bytes, stream: Any) -> None:
        kind = self._api.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call(self._api.cudaMemcpyAsync(pointer, host.ctypes.data, host.nbytes, kind, stream))

    def to_host(self, host: Bytes, pointer: int, stream: Any) -> None:
        kind = self._api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call(self._api.cudaMemcpyAsync(host.ctypes.data, pointer, host.nbytes, kind, stream))

    def copy(self, to: int, pointer: int, size: int, stream: Any) -> None:
        # "Default", since on an integrated GPU the addresses may be the host's.
        kind = self._api.cudaMemcpyKind.cudaMemcpyDefault
        self._call(self._api.cudaMemcpyAsync(to, pointer, size, kind, stream))

    def event(self) -> Any:
        return self._call(self._api.cudaEventCreate())

    def drop_event(self, event: Any) -> None:
        self._call(self._api.cudaEventDestroy(event))

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
    """Call CUDA by pycuda, which has no graphs. ``Cuda`` describes the methods.

    pycuda keeps a stack of contexts per thread. If a thread ends with a context on its stack,
    pycuda ends the process. So every call pushes the context and pops it again. TensorRT and the
    plugin, which run afterwards, need no context on the stack: CUDA's runtime uses the device's
    primary context, and this is the same one.
    """

    name = BINDINGS[1]
    has_graphs = False

    def __init__(self) -> None:
        import pycuda.driver as driver

        driver.init()
        self._api: Any = driver
        self._context: Any = driver.Device(0).retain_primary_context()
        self._kept: dict[int, Any] = {}  # pycuda frees memory that nothing refers to

    @contextlib.contextmanager
    def _here(self) -> Iterator[Any]:
        """Yield pycuda's driver module, with the context on the stack of the calling thread."""
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
            flags = api.host_alloc_flags.DEVICEMAP
            host: Bytes = api.pagelocked_empty(size, np.uint8, mem_flags=flags)
        return host

    def free_host(self, host: Bytes) -> None:
        # Otherwise the last array that refers to it would free it, maybe in a thread without the
        # context.
        with self._here():
            host.base.free()  # type: ignore[union-attr]

    def mapped(self, host: Bytes) -> int:
        with self._here():
            return int(host.base.get_device_pointer())  # type: ignore[union-attr]

    def stream(self) -> Any:
        with self._here() as api:
            return api.Stream()

    def drop_stream(self, stream: Any) -> None:
        """Do nothing: pycuda destroys a stream that nothing refers to."""

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

    def drop_event(self, event: Any) -> None:
        """Do nothing: pycuda destroys an event that nothing refers to."""

    def record(self, event: Any, stream: Any) -> None:
        with self._here():
            event.record(stream)

    def wait(self, event: Any) -> None:
        with self._here():
            event.synchronize()

    def wait_for(self, handle: int, stream: Any) -> None:
        """Call the driver itself, since pycuda has no streams except its own."""
        driver = _driver()
        assert driver is not None
        event = ctypes.c_void_p()
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
