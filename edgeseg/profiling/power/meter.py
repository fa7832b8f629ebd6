"""Define the power meter that every reader implements, and read files of sysfs."""

from abc import ABC, abstractmethod
from pathlib import Path

MACHINE = "machine"  # the meter sees the input of the whole board or machine
PART = "part"  # the meter sees some parts, such as a processor


class MeterLostError(Exception):
    """Report that a meter gives no value any more: its sensor was removed or switched off."""


class PowerMeter(ABC):
    """Read the power of one or more rails.

    Attributes
    ----------
    name : kind of the meter, such as ``ina3221``.
    source : where the values come from: a folder, a file or a device.
    covers : ``MACHINE`` or ``PART``.
    averages : True if a value is the mean since the reading before, as counters of energy give it;
        False if it is the power at the moment of reading.
    accuracy : what the maker states about the error of a value; empty if nothing is known.
    """

    name: str = ""
    source: str = ""
    covers: str = PART
    averages: bool = False
    accuracy: str = ""

    @property
    @abstractmethod
    def rails(self) -> tuple[str, ...]:
        """Return the names of the rails."""

    @abstractmethod
    def read(self) -> dict[str, float]:
        """Return watts per rail; a rail that gives no value now is left out.

        Raises
        ------
        MeterLostError : no rail can be read any more.
        """

    def total_of(self, watts: dict[str, float]) -> tuple[float, tuple[str, ...]] | None:
        """Return the watts of all that the meter sees, and the rails that were added up.

        Parameters
        ----------
        watts : watts per rail.

        Returns
        -------
        ``None`` if a rail that is needed is missing.
        """
        if not watts or any(rail not in watts for rail in self.rails):
            return None
        return sum(watts[rail] for rail in self.rails), self.rails

    def close(self) -> None:  # noqa: B027  optional
        """Give back what the meter holds."""


def read_text(path: Path) -> str | None:
    """Return the text of a file of sysfs; ``None`` if it is empty, absent or not readable.

    Parameters
    ----------
    path : the file.

    Examples
    --------
    >>> read_text(Path("/nowhere/power1_input")) is None
    True
    """
    try:
        return path.read_bytes().decode(errors="replace").strip("\0 \n") or None
    except OSError:
        return None


def read_number(path: Path) -> float | None:
    """Return the number in a file of sysfs; ``None`` if there is none.

    Parameters
    ----------
    path : the file.

    Examples
    --------
    >>> read_number(Path("/nowhere/power1_input")) is None
    True
    """
    text = read_text(path)
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
