"""Find the power meters of this machine, and say why the others are not used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeseg.profiling.power.hwmon import BatteryMeter, HwmonMeter
from edgeseg.profiling.power.ina3221 import Ina3221Meter
from edgeseg.profiling.power.meter import MACHINE, PowerMeter
from edgeseg.profiling.power.nvml import NvmlError, NvmlMeter
from edgeseg.profiling.power.rapl import REMEDY, RaplMeter
from edgeseg.profiling.power.usb import UsbMeter

# Meters of parts that are added up if no meter sees the whole machine. A sensor of hwmon may be a
# part of what another one sees, so it is only used alone.
_ADDED = ("rapl", "nvml")


@dataclass(frozen=True)
class Found:
    """Hold the meters of a machine.

    Attributes
    ----------
    meters : meters that can be read, those of the whole machine first.
    missing : why other kinds cannot be read, by the name of the kind.
    """

    meters: tuple[PowerMeter, ...]
    missing: dict[str, str]

    def whole(self) -> tuple[PowerMeter, ...]:
        """Return the meters whose sum is the best known power of the machine.

        It is one meter of the whole machine, or all meters of processors and GPUs.
        """
        for meter in self.meters:
            if meter.covers == MACHINE:
                return (meter,)
        added = tuple(meter for meter in self.meters if meter.name in _ADDED)
        return added or self.meters[:1]

    def close(self) -> None:
        """Close all meters."""
        for meter in self.meters:
            meter.close()


def find_meters(root: Path = Path("/"), usb_csv: Path | None = None) -> Found:
    """Find all power meters.

    Parameters
    ----------
    root : root folder of the file system; tests give another than ``/``. NVML is asked for ``/``
        only.
    usb_csv : CSV that the logger of a USB meter writes; None if there is none.

    Raises
    ------
    InputError : ``usb_csv`` cannot be read.

    Examples
    --------
    >>> found = find_meters(Path("/nowhere"))
    >>> found.meters, found.missing["rapl"]
    ((), 'no powercap zones in /nowhere/sys/class/powercap')
    """
    meters: list[PowerMeter] = []
    missing: dict[str, str] = {}
    if usb_csv is not None:
        meters.append(UsbMeter(usb_csv))

    kinds: Sequence[tuple[str, Callable[[], PowerMeter], str]] = (
        ("ina3221", lambda: Ina3221Meter(root), "this is no Jetson"),
        ("battery", lambda: BatteryMeter(root), "there is none"),
        ("rapl", lambda: RaplMeter(root), f"no powercap zones in {root}/sys/class/powercap"),
        ("hwmon", lambda: HwmonMeter(root), "no sensor gives power"),
        ("nvml", NvmlMeter, "no GPU"),
    )
    for name, make, absent in kinds:
        if name == "nvml" and root != Path("/"):
            continue
        try:
            meter = make()
        except PermissionError as error:
            missing[name] = f"{error.filename}: permission denied; {REMEDY}"
            continue
        except NvmlError as error:
            missing[name] = str(error)
            continue
        if not meter.rails:
            missing[name] = absent.replace("//", "/")
        elif isinstance(meter, BatteryMeter) and not meter.discharging:
            missing[name] = "the battery does not discharge: unplug the machine to measure with it"
        else:
            meters.append(meter)

    meters.sort(key=lambda meter: meter.covers != MACHINE)
    return Found(tuple(meters), missing)
