"""Read a USB power meter through the CSV that its logger writes while edgeseg measures."""

import csv
import time
from collections.abc import Callable
from pathlib import Path

from edgeseg.errors import InputError
from edgeseg.profiling.power.meter import MACHINE, MeterLostError, PowerMeter

STALE_S = 5.0  # a logger that writes nothing for so long has stopped
_TAIL_BYTES = 4096
_POWER = ("power", "watt", "p(w)", "p [w]")
_VOLTAGE = ("volt", "v(v)", "v [v]")
_CURRENT = ("curr", "amp", "i(a)", "i [a]")


class UsbMeter(PowerMeter):
    """Read the newest line of a growing CSV: watts, or volts and amperes.

    The first line names the columns. One that contains ``power`` or ``watt`` is in watts; else
    columns that contain ``volt`` and ``curr`` or ``amp`` are multiplied. A heading with ``mW``,
    ``mV`` or ``mA`` is in thousandths.

    Parameters
    ----------
    path : the CSV.
    clock : returns the time in seconds.

    Raises
    ------
    InputError : there is no such file, or it has no such columns.
    """

    name = "usb"
    covers = MACHINE
    accuracy = "the meter's own, usually 0.5 to 1 %; its clock is the logger's"

    def __init__(self, path: Path, clock: Callable[[], float] = time.perf_counter) -> None:
        self.source = str(path)
        self._path = path
        self._clock = clock
        try:
            with path.open(newline="", encoding="utf-8", errors="replace") as file:
                self._dialect = _dialect_of(file.readline())
        except OSError as error:
            raise InputError(f"{path}: cannot be read", got=error.strerror) from error
        self._columns = self._columns_of()
        self._size = -1
        self._grown_s = clock()
        self.read()

    @property
    def rails(self) -> tuple[str, ...]:
        """Return the only rail, ``usb``."""
        return ("usb",)

    def read(self) -> dict[str, float]:
        """Return the watts of the newest whole line; nothing if there is none yet."""
        try:
            size = self._path.stat().st_size
            with self._path.open("rb") as file:
                file.seek(max(0, size - _TAIL_BYTES))
                tail = file.read().decode("utf-8", errors="replace")
        except OSError as error:
            raise MeterLostError(f"{self._path}: {error.strerror}") from error

        if size != self._size:
            self._size, self._grown_s = size, self._clock()
        elif self._clock() - self._grown_s > STALE_S:
            raise MeterLostError(f"{self._path} has not grown for {STALE_S:g} s")

        whole_lines = tail[: tail.rfind("\n") + 1].splitlines()
        for line in reversed(whole_lines):
            watts = self._watts_of(line)
            if watts is not None:
                return {"usb": watts}
        return {}

    def _watts_of(self, line: str) -> float | None:
        """Return the watts of one line; None for the heading or a broken line."""
        cells = next(csv.reader([line], delimiter=self._dialect), [])
        product = 1.0
        try:
            for column, factor in self._columns:
                product *= float(cells[column]) * factor
        except (ValueError, IndexError):
            return None
        return product

    def _columns_of(self) -> list[tuple[int, float]]:
        """Return the columns to multiply, each with the factor of its unit."""
        with self._path.open(newline="", encoding="utf-8", errors="replace") as file:
            headings = next(csv.reader(file, delimiter=self._dialect), [])
        power = _find(headings, _POWER)
        if power is not None:
            return [power]
        voltage = _find(headings, _VOLTAGE)
        current = _find(headings, _CURRENT)
        if voltage is None or current is None:
            raise InputError(
                f"{self._path}: no column of power",
                got=", ".join(headings)[:120] or "an empty file",
                expected="a first line that names power, or voltage and current",
            )
        return [voltage, current]


def _dialect_of(line: str) -> str:
    """Return the character that separates columns."""
    return max(",;\t", key=line.count)


def _find(headings: list[str], words: tuple[str, ...]) -> tuple[int, float] | None:
    """Return the place of the first heading with one of the words, and the factor of its unit."""
    for place, heading in enumerate(headings):
        if any(word in heading.strip().lower() for word in words):
            is_milli = any(unit in heading for unit in ("mW", "mV", "mA"))
            return place, 1e-3 if is_milli else 1.0
    return None
