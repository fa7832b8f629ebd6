"""Read what a machine does while it is measured: clocks, governor, temperatures, throttling, load.

Everything comes from sysfs and procfs. What a machine does not have is listed with a reason.
"""

import os
import re
import threading
import time
from pathlib import Path
from typing import Any

from edgeseg.profiling.power.meter import read_number, read_text

_COLDEST_C = -200.0  # the kernel reports -256 for a sensor whose block is off
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def read_state(root: Path = Path("/")) -> dict[str, Any]:
    """Return clocks, governors, temperatures and throttle counters of this moment.

    Parameters
    ----------
    root : root folder of the file system; tests give another than ``/``.

    Returns
    -------
    ``cpu_mhz`` (one per core), ``gpu_mhz`` (per devfreq device), ``governors``,
    ``temperatures_c`` (per sensor), ``throttle_counts`` (events since the boot), ``throttle_flags``
    (what slows the machine down now), and ``absent``: reasons by the name of what is missing.

    Examples
    --------
    >>> sorted(read_state(Path("/nowhere"))["absent"])
    ['cpu_mhz', 'governors', 'temperatures_c', 'throttle_counts']
    """
    state: dict[str, Any] = {
        "cpu_mhz": _cpu_mhz(root),
        "gpu_mhz": _devfreq_mhz(root),
        "governors": _governors(root),
        "temperatures_c": temperatures_c(root),
        "throttle_counts": _throttle_counts(root),
        "throttle_flags": _throttle_flags(root),
    }
    reasons = {
        "cpu_mhz": "neither cpufreq nor /proc/cpuinfo gives clocks",
        "governors": "no cpufreq: a virtual machine, or clocks are fixed",
        "temperatures_c": "no thermal zone and no sensor in hwmon",
        "throttle_counts": "no thermal_throttle counters of the processor or the board",
    }
    state["absent"] = {name: text for name, text in reasons.items() if not state[name]}
    return state


def temperatures_c(root: Path = Path("/")) -> dict[str, float]:
    """Return degrees Celsius per thermal zone and per temperature of hwmon.

    Parameters
    ----------
    root : root folder of the file system.
    """
    found: dict[str, float] = {}
    for zone in sorted((root / "sys" / "class" / "thermal").glob("thermal_zone*")):
        _add_temperature(found, read_text(zone / "type") or zone.name, read_number(zone / "temp"))
    for chip in sorted((root / "sys" / "class" / "hwmon").glob("hwmon*")):
        name = read_text(chip / "name") or chip.name
        for file in sorted(chip.glob("temp*_input")):
            number = file.name.split("_")[0]
            label = read_text(chip / f"{number}_label") or number
            _add_temperature(found, f"{name}/{label}", read_number(file))
    return found


def _add_temperature(found: dict[str, float], name: str, millidegrees: float | None) -> None:
    """Add a temperature, unless its sensor is off. The hotter one of two with one name is kept."""
    if millidegrees is None or millidegrees / 1e3 <= _COLDEST_C:
        return
    found[name] = max(found.get(name, _COLDEST_C), millidegrees / 1e3)


def _cpu_mhz(root: Path) -> list[float]:
    """Return the clock of each core, of cpufreq or of /proc/cpuinfo."""
    cores = root / "sys" / "devices" / "system" / "cpu"
    files = sorted(cores.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"), key=_core_of)
    values = [read_number(file) for file in files]
    clocks = [value / 1e3 for value in values if value is not None]
    if not clocks:
        text = read_text(root / "proc" / "cpuinfo") or ""
        clocks = [float(value) for value in re.findall(r"^cpu MHz\s*: *([\d.]+)", text, re.M)]
    return [round(clock, 1) for clock in clocks]


def _core_of(path: Path) -> int:
    """Return the number of the core that a file belongs to."""
    found = re.search(r"/cpu(\d+)/", str(path))
    return int(found[1]) if found else 0


def _devfreq_mhz(root: Path) -> dict[str, float]:
    """Return the clocks of devfreq devices, such as the GPU of a Jetson."""
    found: dict[str, float] = {}
    for device in sorted((root / "sys" / "class" / "devfreq").glob("*")):
        value = read_number(device / "cur_freq")
        if value is not None:
            found[device.name] = round(value / 1e6, 1)
    return found


def _governors(root: Path) -> list[str]:
    """Return the governors that are in use."""
    cores = root / "sys" / "devices" / "system" / "cpu"
    files = cores.glob("cpu[0-9]*/cpufreq/scaling_governor")
    return sorted({text for file in files if (text := read_text(file)) is not None})


def _throttle_counts(root: Path) -> dict[str, int]:
    """Return counters of throttling: of Intel's processors, and a Jetson's over-current events."""
    found: dict[str, int] = {}
    cores = root / "sys" / "devices" / "system" / "cpu"
    for kind in ("core", "package"):
        files = list(cores.glob(f"cpu[0-9]*/thermal_throttle/{kind}_throttle_count"))
        values = [value for file in files if (value := read_number(file)) is not None]
        if values:
            # Each core reports its package's counter again.
            found[f"{kind} thermal"] = int(sum(values) if kind == "core" else max(values))
    for chip in sorted((root / "sys" / "class" / "hwmon").glob("hwmon*")):
        for file in sorted(chip.glob("oc*_event_cnt")):
            value = read_number(file)
            if value is not None:
                found[f"over-current {file.name.split('_')[0]}"] = int(value)
    return found


def _throttle_flags(root: Path) -> list[str]:
    """Return cooling devices that slow a processor down now, and a Raspberry Pi's flags."""
    flags: list[str] = []
    for device in sorted((root / "sys" / "class" / "thermal").glob("cooling_device*")):
        kind = read_text(device / "type") or ""
        level = read_number(device / "cur_state")
        slows = any(word in kind.lower() for word in ("cpu", "gpu", "processor", "devfreq"))
        if slows and level:
            flags.append(f"{kind} level {level:g}")
    raspberry = read_text(root / "sys/devices/platform/soc/soc:firmware/get_throttled")
    if raspberry and raspberry != "0":
        flags.append(f"Raspberry Pi get_throttled {raspberry}")
    return sorted(set(flags))


def throttle_events(before: dict[str, Any], after: dict[str, Any]) -> dict[str, int]:
    """Return how many throttle events happened between two states, by counter; none are left out.

    Parameters
    ----------
    before, after : states of ``read_state``.

    Examples
    --------
    >>> throttle_events({"throttle_counts": {"core": 3}}, {"throttle_counts": {"core": 5}})
    {'core': 2}
    """
    counts = before["throttle_counts"]
    grown: dict[str, int] = {}
    for name, value in after["throttle_counts"].items():
        if value > counts.get(name, value):
            grown[name] = value - counts[name]
    return grown


class StateWatch:
    """Read the state of the machine once a second until the end of the ``with`` block.

    Parameters
    ----------
    root : root folder of the file system.
    every_s : seconds between two readings.

    Attributes
    ----------
    states : the readings, each with its time ``at_s`` of ``time.perf_counter``.
    """

    def __init__(self, root: Path = Path("/"), every_s: float = 1.0) -> None:
        self.states: list[dict[str, Any]] = []
        self._root = root
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgeseg-state", daemon=True)

    def __enter__(self) -> "StateWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        """Read until the block ends, at least once."""
        while True:
            at_s = time.perf_counter()
            self.states.append({"at_s": at_s, **read_state(self._root)})
            if self._stop.wait(self._every_s):
                return

    def summary(self) -> dict[str, Any]:
        """Return the lowest and highest clocks, the highest temperatures, all throttle flags."""
        clocks = [clock for state in self.states for clock in state["cpu_mhz"]]
        hottest: dict[str, float] = {}
        flags: set[str] = set()
        for state in self.states:
            flags.update(state["throttle_flags"])
            for name, value in state["temperatures_c"].items():
                hottest[name] = max(value, hottest.get(name, value))
        return {
            "cpu_mhz_min": min(clocks, default=None),
            "cpu_mhz_max": max(clocks, default=None),
            "temperatures_c_max": hottest,
            "throttle_flags": sorted(flags),
            "readings": len(self.states),
        }


class CpuLoad:
    """Measure the load of each core since the object was made.

    Parameters
    ----------
    root : root folder of the file system.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._file = root / "proc" / "stat"
        self._before = self._ticks()

    def percent(self) -> list[float]:
        """Return the load of each core in percent, from all processes; empty if not known."""
        loads: list[float] = []
        for name, (busy, total) in self._ticks().items():
            busy_before, total_before = self._before.get(name, (0, 0))
            spent = total - total_before
            loads.append(round(100 * (busy - busy_before) / spent, 1) if spent > 0 else 0.0)
        return loads

    def _ticks(self) -> dict[str, tuple[int, int]]:
        """Return (busy, all) ticks per core."""
        found: dict[str, tuple[int, int]] = {}
        for line in (read_text(self._file) or "").splitlines():
            name, *numbers = line.split()
            if re.fullmatch(r"cpu\d+", name):
                ticks = [int(number) for number in numbers[:8]]  # without guests: they are in user
                found[name] = (sum(ticks) - ticks[3] - ticks[4], sum(ticks))
        return found


def resident_bytes() -> int | None:
    """Return the memory of this process that is in RAM; ``None`` if it is not known."""
    text = read_text(Path("/proc/self/statm"))
    return int(text.split()[1]) * _PAGE if text else None
