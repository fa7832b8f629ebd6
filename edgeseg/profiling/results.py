"""Define the file of a measurement: one versioned schema, checked when it is written and read.

A file tells what was measured (engines by hash), on what (machine, clocks, versions), how
(command, protocol), and the figures. Milliseconds, watts and shares (0..1) are plain numbers; what
could not be measured is ``null``, with the reason in ``missing``.
"""

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from edgeseg.errors import InputError
from edgeseg.files import write_json
from edgeseg.profiling.engine_record import EngineRecord, Record
from edgeseg.version import __version__

KIND = "edgeseg result"
FORMAT = 1


class DataFacts(Record):
    """Describe the frames.

    Attributes
    ----------
    address : data or source as it was given.
    split : split of labelled data.
    frames : number of frames that were timed on, in turn.
    sha256 : hash of these frames' pixels.
    scored_frames : number of frames that mIoU is of; 0 without labels.
    """

    address: str
    split: str | None = None
    frames: int
    sha256: str
    scored_frames: int = 0


class PowerFacts(Record):
    """Describe the power meters.

    Attributes
    ----------
    meters : what was read: meter, source, rails, accuracy, interval.
    whole : the rails whose sum is ``gross_w``.
    idle_w : power before the work; None without a meter.
    missing : why other meters were not read, by name.
    """

    meters: list[dict[str, Any]] = Field(default_factory=list)
    whole: list[str] = Field(default_factory=list)
    idle_w: float | None = None
    missing: dict[str, str] = Field(default_factory=dict)


class Limits(Record):
    """Hold the two limits of a machine, measured.

    Attributes
    ----------
    memory_gb_s : bytes per second of a triad that does not fit into caches.
    cache_gb_s : the same for one that does.
    gmac_s : multiply-adds per second of a matrix product, in 10^9, by precision.
    how : how they were measured.
    """

    memory_gb_s: float
    cache_gb_s: float
    gmac_s: dict[str, float]
    how: str


class ModeRecord(Record):
    """Hold what was measured in one power mode.

    Attributes
    ----------
    mode : name of the mode.
    engines : the engines' figures.
    power : the meters in this mode.
    """

    mode: str
    engines: list[EngineRecord]
    power: PowerFacts


class Result(Record):
    """Hold a measurement.

    Attributes
    ----------
    kind, format : what the file is, and the version of this schema.
    measurement : the command: ``profile``.
    measured_at : time of the end, in UTC.
    edgeseg : version.
    command : the command line; empty if a program called the function.
    machine : facts of ``describe_machine``.
    state : clocks, temperatures and throttling ``before``, ``during`` and ``after``; load of the
        cores; memory.
    protocol : the numbers and rules of the measurement.
    data : the frames.
    engines : figures per engine.
    power : the meters.
    limits : the machine's limits; None if layers were not measured.
    power_modes : figures per power mode.
    """

    kind: str = KIND
    format: int = FORMAT
    measurement: str
    measured_at: str = Field(
        default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds")
    )
    edgeseg: str = __version__
    command: str = ""
    machine: dict[str, Any]
    state: dict[str, Any]
    protocol: dict[str, Any]
    data: DataFacts
    engines: list[EngineRecord]
    power: PowerFacts = Field(default_factory=PowerFacts)
    limits: Limits | None = None
    power_modes: list[ModeRecord] = Field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; floats have six significant digits."""
        rounded: dict[str, Any] = _rounded(self.model_dump(mode="json"))
        return rounded

    def write(self, path: Path) -> Path:
        """Write the result as JSON, whole or not at all.

        Parameters
        ----------
        path : the file.

        Raises
        ------
        OutputError : the file cannot be written.
        """
        return write_json(path, self.to_dict())


def read_result(path: Path) -> Result:
    """Read a file that ``Result.write`` or ``edgeseg profile`` wrote.

    Parameters
    ----------
    path : the file.

    Raises
    ------
    InputError : it cannot be read, or is not such a result.

    Examples
    --------
    >>> read_result(Path("nowhere.json"))
    Traceback (most recent call last):
    edgeseg.errors.InputError: nowhere.json: cannot be read: got No such file or directory.
    """
    try:
        facts = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read", got=error.strerror) from error
    except ValueError as error:
        raise InputError(f"{path}: is no JSON", got=error) from error

    kind = facts.get("kind") if isinstance(facts, dict) else None
    if kind != KIND:
        raise InputError(
            f"{path}: is no result of a measurement",
            got=repr(kind),
            expected=repr(KIND),
            hint="Write one: `profile(ENGINE, json=FILE)`.",
        )
    if facts.get("format") != FORMAT:
        raise InputError(
            f"{path}: has another version of the schema", got=facts.get("format"), expected=FORMAT
        )
    try:
        return Result.model_validate(facts)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InputError(f"{path}: {where}", got=problem["msg"]) from error


def _rounded(value: Any) -> Any:
    """Return plain values with floats of six significant digits; NaN is None."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if value == value and abs(value) != float("inf") else None
    return value
