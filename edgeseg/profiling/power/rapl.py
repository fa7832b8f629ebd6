"""Read the energy counters of Intel and AMD processors (RAPL), from the kernel's powercap."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeseg.profiling.power.meter import (
    MACHINE,
    PART,
    MeterLostError,
    PowerMeter,
    read_number,
    read_text,
)

REMEDY = (
    "since Linux 5.10 only root may read energy_uj (CVE-2020-8694): "
    "sudo chmod a+r /sys/class/powercap/*/energy_uj, until the next boot"
)
_MACHINE_RAIL = "psys"  # the platform's zone, on some laptops
_INSIDE_PACKAGE = ("core", "uncore")  # parts that the package's counter has already


@dataclass
class _Zone:
    """Hold one counter: its file, its range, and the last value with its time."""

    file: Path
    range_uj: float
    last_uj: float | None = None
    last_s: float = 0.0


class RaplMeter(PowerMeter):
    """Read every zone of powercap. A value is the mean since the reading before.

    The counters wrap around: ``max_energy_range_uj`` is then added. At 300 W a usual counter of
    262 kJ wraps every 15 minutes, so that one wrap between two readings is the most there is.

    Parameters
    ----------
    root : root folder of the file system; tests give another than ``/``.
    clock : returns the time in seconds.
    """

    name = "rapl"
    averages = True
    accuracy = "measured since Haswell, a model before; no bound is stated. The processor alone"

    def __init__(
        self, root: Path = Path("/"), clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._clock = clock
        self._zones: dict[str, _Zone] = {}
        folder = root / "sys" / "class" / "powercap"
        self.source = str(folder)
        for zone in sorted(folder.glob("*-rapl:*")):
            name = _name_of(zone)
            if name is None or name in self._zones:
                continue
            with (zone / "energy_uj").open("rb"):  # raises PermissionError where it is refused
                pass
            limit = read_number(zone / "max_energy_range_uj") or 2.0**32
            self._zones[name] = _Zone(zone / "energy_uj", limit)
        self.covers = MACHINE if _MACHINE_RAIL in self._zones else PART

    @property
    def rails(self) -> tuple[str, ...]:
        """Return the names of the zones: ``package-0``, ``package-0/dram``, ``psys``."""
        return tuple(self._zones)

    def read(self) -> dict[str, float]:
        """Return the mean watts since the reading before; the first reading has no value yet."""
        watts: dict[str, float] = {}
        alive = 0
        for name, zone in self._zones.items():
            now_uj = read_number(zone.file)
            now_s = self._clock()
            if now_uj is None:
                zone.last_uj = None
                continue
            alive += 1
            if zone.last_uj is not None and now_s > zone.last_s:
                spent = now_uj - zone.last_uj
                if spent < 0:
                    spent += zone.range_uj
                watts[name] = spent / 1e6 / (now_s - zone.last_s)
            zone.last_uj, zone.last_s = now_uj, now_s
        if not alive:
            raise MeterLostError("no counter of powercap answers")
        return watts

    def total_of(self, watts: dict[str, float]) -> tuple[float, tuple[str, ...]] | None:
        """Return the watts of the platform; without its zone, of all packages and memories."""
        if _MACHINE_RAIL in self._zones:
            names: tuple[str, ...] = (_MACHINE_RAIL,)
        else:
            names = tuple(
                name for name in self._zones if name.split("/")[-1] not in _INSIDE_PACKAGE
            )
        if not names or any(name not in watts for name in names):
            return None
        return sum(watts[name] for name in names), names


def _name_of(zone: Path) -> str | None:
    """Return the name of a zone, after its package's for a part of one."""
    name = read_text(zone / "name")
    prefix, _, number = zone.name.partition(":")
    if name is None or ":" not in number:
        return name
    package = read_text(zone.parent / f"{prefix}:{number.split(':')[0]}" / "name")
    return f"{package}/{name}"
