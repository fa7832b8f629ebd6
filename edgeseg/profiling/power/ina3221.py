"""Read the power sensors of a Jetson: INA3221 (three rails a chip) and Thor's INA238.

Paths are those of NVIDIA's Jetson Linux Developer Guide, "Power Monitors". L4T 32 and older have
the driver ``ina3221x`` with files of IIO; newer ones have the kernel's ``ina3221`` with files of
hwmon, which are sometimes one folder deeper.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from edgeseg.profiling.power.meter import (
    MACHINE,
    MeterLostError,
    PowerMeter,
    read_number,
    read_text,
)

# Rails that measure the whole board or module, best first: Thor's developer kit has VIN, Orin NX
# and Nano have VDD_IN, Nano and TX have POM_5V_IN and VDD_IN.
TOTALS = ("VIN", "VDD_IN", "POM_5V_IN")
# Without those: the supplies of the module that have a sensor (AGX Orin; Thor modules on other
# carriers; AGX Xavier).
SUPPLIES = (
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
)
_NOT_CONNECTED = "NC"

Reader = Callable[[], float | None]


def total_of(watts: dict[str, float]) -> tuple[float, tuple[str, ...]] | None:
    """Return the power of the whole Jetson, and the rails that it comes from.

    The whole is the input of the board or the module, or the sum of the module's supplies.

    Parameters
    ----------
    watts : power per rail, in any unit.

    Examples
    --------
    >>> total_of({"VDD_IN": 4.5, "VDD_SOC": 1.4})
    (4.5, ('VDD_IN',))
    >>> total_of({"VDD_SOC": 1.4}) is None
    True
    """
    for name in TOTALS:
        if name in watts:
            return watts[name], (name,)
    for names in SUPPLIES:
        if all(name in watts for name in names):
            return sum(watts[name] for name in names), names
    return None


class Ina3221Meter(PowerMeter):
    """Read every rail of the INA3221 and INA238 sensors of a Jetson.

    Parameters
    ----------
    root : root folder of the file system; tests give another than ``/``.
    """

    name = "ina3221"
    covers = MACHINE
    # TI SBOS576: gain error at most 0.25 % for the shunt and the bus, 1 % for the shunt resistor.
    accuracy = "about 1.5 % of the value, and 40 uV of offset over the shunt (INA3221 data sheet)"

    def __init__(self, root: Path = Path("/")) -> None:
        self._readers: dict[str, Reader] = {}
        folders: list[str] = []
        for folder in _folders(root):
            found = dict(_rails_of(folder))
            for name, reader in found.items():
                self._readers.setdefault(name, reader)
            if found:
                folders.append(str(folder))
        self.source = ", ".join(folders)

    @property
    def rails(self) -> tuple[str, ...]:
        """Return the names of the rails as the device tree has them."""
        return tuple(self._readers)

    def read(self) -> dict[str, float]:
        """Return watts per rail; a rail without a value is left out."""
        watts: dict[str, float] = {}
        for name, reader in self._readers.items():
            value = reader()
            if value is not None:
                watts[name] = value
        if not watts:
            raise MeterLostError("no rail of the INA3221 answers")
        return watts

    def total_of(self, watts: dict[str, float]) -> tuple[float, tuple[str, ...]] | None:
        """Return the watts of the board or module, and the rails that it comes from."""
        return total_of(watts)


def _folders(root: Path) -> Iterator[Path]:
    """Yield the folders of all sensors: of IIO, of hwmon beside the driver, of hwmon's class."""
    seen: set[Path] = set()
    drivers = root / "sys" / "bus" / "i2c" / "drivers"
    patterns = (
        "ina3221x/*/iio:device*",
        "ina3221x/*/iio_device",
        "ina3221*/*/hwmon/hwmon*",
        "ina238/*/hwmon/hwmon*",
        "ina2xx/*/hwmon/hwmon*",
    )
    found = [folder for pattern in patterns for folder in sorted(drivers.glob(pattern))]
    for folder in sorted((root / "sys" / "class" / "hwmon").glob("hwmon*")):
        if read_text(folder / "name") in ("ina3221", "ina3221x", "ina238"):
            found.append(folder)

    for folder in found:
        real = folder.resolve()
        if real not in seen:
            seen.add(real)
            yield folder


def _rails_of(folder: Path) -> Iterator[tuple[str, Reader]]:
    """Yield name and reader of each rail of one sensor."""
    # L4T 32: rail_name_0, in_power0_input in milliwatts.
    for file in sorted(folder.glob("rail_name_*")):
        number = file.name.removeprefix("rail_name_")
        name = read_text(file)
        if name and name != _NOT_CONNECTED:
            yield name, _milliwatts(folder / f"in_power{number}_input")

    # INA238: power1_input in microwatts, and no label: it measures the input of Thor's carrier.
    if read_text(folder / "name") == "ina238":
        yield "VIN", _microwatts(folder / "power1_input")
        return

    # Newer ones: in1_label, in1_input in millivolts, curr1_input in milliamperes. The files in7_*
    # are the sum of the shunts' voltages, not a rail: it has no current.
    for file in sorted(folder.glob("in*_label")):
        number = file.name.removeprefix("in").removesuffix("_label")
        name = read_text(file)
        is_off = read_text(folder / f"in{number}_enable") == "0"
        has_current = (folder / f"curr{number}_input").exists()
        if name and name != _NOT_CONNECTED and has_current and not is_off:
            yield name, _volts_amperes(folder / f"in{number}_input", folder / f"curr{number}_input")


def _milliwatts(path: Path) -> Reader:
    """Return a reader of a file in milliwatts."""

    def read() -> float | None:
        value = read_number(path)
        return None if value is None else value / 1e3

    return read


def _microwatts(path: Path) -> Reader:
    """Return a reader of a file in microwatts."""

    def read() -> float | None:
        value = read_number(path)
        return None if value is None else value / 1e6

    return read


def _volts_amperes(volts: Path, amperes: Path) -> Reader:
    """Return a reader of two files, in millivolts and milliamperes."""

    def read() -> float | None:
        voltage = read_number(volts)
        current = read_number(amperes)
        if voltage is None or current is None:
            return None
        return voltage * current / 1e6

    return read
