"""Read power from hwmon (GPUs, boards, power supplies) and from batteries."""

from pathlib import Path

from edgeseg.profiling.power.meter import (
    MACHINE,
    MeterLostError,
    PowerMeter,
    read_number,
    read_text,
)

_READ_ELSEWHERE = ("ina3221", "ina3221x", "ina238")


class HwmonMeter(PowerMeter):
    """Read every ``power*_input`` and ``power*_average`` of hwmon, which are in microwatts.

    Parameters
    ----------
    root : root folder of the file system; tests give another than ``/``.
    """

    name = "hwmon"
    accuracy = "depends on the sensor: see its data sheet"

    def __init__(self, root: Path = Path("/")) -> None:
        self._files: dict[str, Path] = {}
        folder = root / "sys" / "class" / "hwmon"
        self.source = str(folder)
        for chip in sorted(folder.glob("hwmon*")):
            name = read_text(chip / "name") or chip.name
            if name in _READ_ELSEWHERE:
                continue
            for file in sorted([*chip.glob("power*_input"), *chip.glob("power*_average")]):
                number = file.name.split("_")[0]
                label = read_text(chip / f"{number}_label") or number
                rail = f"{name}/{label}"
                if rail in self._files and self._files[rail].parent != chip:
                    rail = f"{name}/{label} ({chip.name})"
                if read_number(file) is not None:
                    self._files.setdefault(rail, file)

    @property
    def rails(self) -> tuple[str, ...]:
        """Return the names of the rails: chip and label."""
        return tuple(self._files)

    def read(self) -> dict[str, float]:
        """Return watts per rail; a rail without a value is left out."""
        watts: dict[str, float] = {}
        for rail, file in self._files.items():
            value = read_number(file)
            if value is not None:
                watts[rail] = value / 1e6
        if not watts:
            raise MeterLostError("no power sensor of hwmon answers")
        return watts


class BatteryMeter(PowerMeter):
    """Read what batteries deliver: ``power_now``, or ``voltage_now`` times ``current_now``.

    It is the power of the whole machine while the machine runs from its batteries. At the mains it
    is the charging, so a battery that does not discharge gives no value.

    Parameters
    ----------
    root : root folder of the file system; tests give another than ``/``.
    """

    name = "battery"
    covers = MACHINE
    accuracy = "a few percent; most batteries give a new value every few seconds only"

    def __init__(self, root: Path = Path("/")) -> None:
        folder = root / "sys" / "class" / "power_supply"
        self.source = str(folder)
        self._batteries: dict[str, Path] = {}
        for supply in sorted(folder.glob("*")):
            if read_text(supply / "type") == "Battery" and _watts_of(supply) is not None:
                self._batteries[supply.name] = supply

    @property
    def rails(self) -> tuple[str, ...]:
        """Return the names of the batteries."""
        return tuple(self._batteries)

    @property
    def discharging(self) -> bool:
        """Return True if at least one battery delivers power now."""
        return any(_discharges(supply) for supply in self._batteries.values())

    def read(self) -> dict[str, float]:
        """Return watts per battery; one that is full beside one that delivers has 0 W."""
        watts: dict[str, float] = {}
        for name, supply in self._batteries.items():
            value = _watts_of(supply)
            if value is not None:
                watts[name] = value if _discharges(supply) else 0.0
        if not watts or not self.discharging:
            raise MeterLostError("no battery discharges")
        return watts


def _discharges(supply: Path) -> bool:
    """Return True if a battery delivers power."""
    return read_text(supply / "status") == "Discharging"


def _watts_of(supply: Path) -> float | None:
    """Return the power of a battery; some drivers give it below zero while it discharges."""
    power = read_number(supply / "power_now")
    if power is not None:
        return abs(power) / 1e6
    voltage = read_number(supply / "voltage_now")
    current = read_number(supply / "current_now")
    if voltage is None or current is None:
        return None
    return abs(voltage * current) / 1e12
