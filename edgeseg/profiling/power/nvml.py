"""Read the power of NVIDIA GPUs through NVML: by nvidia-ml-py if it is installed, else by ctypes.

NVML is part of NVIDIA's driver. Jetsons with JetPack 6 and older have none; they have an INA3221.
"""

import contextlib
import ctypes
import functools
import importlib
import time
from collections.abc import Callable
from typing import Any

from edgeseg.profiling.power.meter import MeterLostError, PowerMeter

LIBRARY = "libnvidia-ml.so.1"
_NAME_BYTES = 96
_CLOCKS = {"graphics_mhz": 0, "memory_mhz": 2}  # nvmlClockType_t
_TEMPERATURE_GPU = 0  # nvmlTemperatureSensors_t

# Bits of nvmlClocksEventReasons (nvml.h) that slow a GPU down.
THROTTLE_REASONS = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "thermal slowdown (software)",
    0x40: "thermal slowdown (hardware)",
    0x80: "power brake",
}


class NvmlError(Exception):
    """Report that a call of NVML failed."""


class _Memory(ctypes.Structure):
    """Match nvmlMemory_t."""

    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


class _ByCtypes:
    """Call NVML with the names of nvidia-ml-py, as far as edgeseg needs them."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(LIBRARY)

    def _call(self, name: str, *arguments: Any) -> None:
        try:
            function = getattr(self._library, name)
        except AttributeError as error:
            raise NvmlError(f"{name} is not in this driver") from error
        code = function(*arguments)
        if code != 0:
            raise NvmlError(f"{name} returned {code}")

    def _number(self, name: str, kind: Any, *arguments: Any) -> int:
        value = kind()
        self._call(name, *arguments, ctypes.byref(value))
        return int(value.value)

    def nvmlInit(self) -> None:  # noqa: N802  the names of nvidia-ml-py
        self._call("nvmlInit_v2")

    def nvmlShutdown(self) -> None:  # noqa: N802
        self._call("nvmlShutdown")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self._number("nvmlDeviceGetCount_v2", ctypes.c_uint)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        handle = ctypes.c_void_p()
        self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
        return handle

    def nvmlDeviceGetName(self, handle: Any) -> str:  # noqa: N802
        text = ctypes.create_string_buffer(_NAME_BYTES)
        self._call("nvmlDeviceGetName", handle, text, ctypes.c_uint(_NAME_BYTES))
        return text.value.decode(errors="replace")

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:  # noqa: N802
        return self._number("nvmlDeviceGetPowerUsage", ctypes.c_uint, handle)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:  # noqa: N802
        return self._number("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong, handle)

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: int) -> int:  # noqa: N802
        return self._number(
            "nvmlDeviceGetTemperature", ctypes.c_uint, handle, ctypes.c_uint(sensor)
        )

    def nvmlDeviceGetClockInfo(self, handle: Any, kind: int) -> int:  # noqa: N802
        return self._number("nvmlDeviceGetClockInfo", ctypes.c_uint, handle, ctypes.c_uint(kind))

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any) -> int:  # noqa: N802
        name = "nvmlDeviceGetCurrentClocksThrottleReasons"
        return self._number(name, ctypes.c_ulonglong, handle)

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:  # noqa: N802
        memory = _Memory()
        self._call("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory))
        return memory


class NvmlMeter(PowerMeter):
    """Read the power of every NVIDIA GPU.

    GPUs since Volta count their energy: a value is then the mean since the reading before. Older
    ones report a power that the driver smooths.

    Parameters
    ----------
    clock : returns the time in seconds.

    Raises
    ------
    NvmlError : there is no driver, or no GPU whose power can be read.
    """

    name = "nvml"
    accuracy = "5 W (NVML reference), of the GPU's board alone"

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._nvml, self._errors = _library()
        self._handles: dict[str, Any] = {}
        self._last: dict[str, tuple[int, float]] = {}
        names: list[str] = []
        try:
            self._nvml.nvmlInit()
            for index in range(self._nvml.nvmlDeviceGetCount()):
                handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
                self._nvml.nvmlDeviceGetPowerUsage(handle)
                self._handles[f"gpu{index}"] = handle
                name = self._nvml.nvmlDeviceGetName(handle)
                names.append(name.decode() if isinstance(name, bytes) else str(name))
        except self._errors as error:
            raise NvmlError(f"NVML: {error}") from error
        if not self._handles:
            raise NvmlError("NVML: no GPU")
        self.source = ", ".join(names)
        self.averages = self._counts_energy()

    @property
    def rails(self) -> tuple[str, ...]:
        """Return ``gpu0``, ``gpu1`` and so on."""
        return tuple(self._handles)

    def read(self) -> dict[str, float]:
        """Return watts per GPU; with counters of energy, the first reading has no value."""
        watts: dict[str, float] = {}
        lost = 0
        for rail, handle in self._handles.items():
            try:
                if self.averages:
                    watts.update(self._mean_since_last(rail, handle))
                else:
                    watts[rail] = self._nvml.nvmlDeviceGetPowerUsage(handle) / 1e3
            except self._errors:
                lost += 1
        if lost == len(self._handles):
            raise MeterLostError("no GPU answers NVML")
        return watts

    def state(self) -> dict[str, dict[str, Any]]:
        """Return clocks, temperature, memory and throttle reasons per GPU; unknown ones absent."""
        return {rail: self._state_of(handle) for rail, handle in self._handles.items()}

    def close(self) -> None:
        """End the session with NVML."""
        with contextlib.suppress(*self._errors):
            self._nvml.nvmlShutdown()

    def _counts_energy(self) -> bool:
        """Return True if every GPU counts its energy."""
        try:
            for handle in self._handles.values():
                self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        except self._errors:
            return False
        return True

    def _mean_since_last(self, rail: str, handle: Any) -> dict[str, float]:
        """Return the mean power of one GPU since its last reading; nothing for the first one."""
        energy_mj = int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        now_s = self._clock()
        before = self._last.get(rail)
        self._last[rail] = (energy_mj, now_s)
        if before is None or now_s <= before[1] or energy_mj < before[0]:
            return {}
        return {rail: (energy_mj - before[0]) / 1e3 / (now_s - before[1])}

    def _state_of(self, handle: Any) -> dict[str, Any]:
        """Return what one GPU tells about itself."""
        nvml = self._nvml
        facts: dict[str, Any] = {}

        def ask(name: str, question: Callable[[], Any]) -> None:
            with contextlib.suppress(*self._errors):
                facts[name] = question()

        for name, kind in _CLOCKS.items():
            ask(name, functools.partial(nvml.nvmlDeviceGetClockInfo, handle, kind))
        ask(
            "temperature_c",
            lambda: float(nvml.nvmlDeviceGetTemperature(handle, _TEMPERATURE_GPU)),
        )
        ask("memory_used_bytes", lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).used))
        ask(
            "throttle",
            lambda: throttle_names(int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))),
        )
        return facts


def throttle_names(bits: int) -> list[str]:
    """Return what slows a GPU down.

    Parameters
    ----------
    bits : the mask that NVML returns; idle clocks and clocks that the user set are no throttling.

    Examples
    --------
    >>> throttle_names(0x44)
    ['power cap', 'thermal slowdown (hardware)']
    >>> throttle_names(0x1)
    []
    """
    return [name for bit, name in THROTTLE_REASONS.items() if bits & bit]


def _library() -> tuple[Any, tuple[type[Exception], ...]]:
    """Return NVML, and the errors that its calls raise."""
    try:
        module = importlib.import_module("pynvml")
    except ModuleNotFoundError:
        try:
            return _ByCtypes(), (NvmlError,)
        except OSError as error:
            raise NvmlError(f"no NVIDIA driver ({LIBRARY} is not there)") from error
    return module, (module.NVMLError,)
