"""Read temperature and power quickly, for the status line of a live picture."""

from pathlib import Path

from edgeseg.profiling.machine_state import temperatures_c
from edgeseg.profiling.power import MeterLostError, PowerMeter, find_meters

# Sensors of processors; others, such as those of disks, say nothing about the work.
_PROCESSORS = ("cpu", "gpu", "soc", "tj", "x86_pkg", "coretemp", "k10temp", "package", "core")


class LiveSensors:
    """Read the temperature of the hottest processor, and the power of the machine.

    Power is shown only if a meter sees the whole machine or its processors. A meter that stops is
    not asked again.

    Parameters
    ----------
    root : root folder of the file system; tests give another than ``/``.

    Examples
    --------
    >>> LiveSensors(Path("/nowhere"))()
    (None, None)
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._meters: tuple[PowerMeter, ...] = find_meters(root).whole()

    def __call__(self) -> tuple[float | None, float | None]:
        """Return degrees Celsius and watts; None for what is unknown."""
        return self._temperature_c(), self._watts()

    def _temperature_c(self) -> float | None:
        """Return the temperature of the hottest processor."""
        hottest: float | None = None
        for name, degrees in temperatures_c(self._root).items():
            if any(word in name.lower() for word in _PROCESSORS):
                hottest = degrees if hottest is None else max(hottest, degrees)
        return hottest

    def _watts(self) -> float | None:
        """Return the sum of the meters; None if one gives no value now."""
        total = 0.0
        for meter in self._meters:
            try:
                sum_of_rails = meter.total_of(meter.read())
            except MeterLostError:
                self._meters = ()
                return None
            if sum_of_rails is None:
                return None
            total += sum_of_rails[0]
        return total if self._meters else None
