"""A Jetson as a thing that is measured on: its power rails, temperatures, power mode and clocks.

EDGESEG_ROOT is where / is read from when the board is looked at; tests point it at a made-up board.
"""

import contextlib
import os
import re
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeseg.errors import EdgesegError, MissingDependencyError

_COLDEST_C = -200.0  # tegrastats and the kernel say -256 for a sensor whose block is off

# Rails that measure the whole board or module, best first: Thor's developer kit has VIN, Orin NX
# and Nano have VDD_IN.
TOTALS = ("VIN", "VDD_IN")
# Without those: the supplies of the module that have a sensor (AGX Orin; Thor modules on other
# carriers).
SUPPLIES = (
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),
)


# -- tegrastats ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """Hold one line of tegrastats.

    Attributes
    ----------
    at_s : time of a monotonic clock, seconds.
    rails_mw : power per rail at that time, milliwatts.
    temperatures_c : temperature per sensor at that time, degrees Celsius.
    """

    at_s: float
    rails_mw: dict[str, int]
    temperatures_c: dict[str, float]


def parse_tegrastats(line: str, at_s: float = 0.0) -> Sample:
    """Read a line of tegrastats.

    It has items such as ``VDD_IN 4900mW/5000mW`` (now/average; newer versions have a third number)
    and ``tj@46.4C``. Rails and sensors that are switched off are left out. Averages are over
    tegrastats' own life, so they are not used. A rail may be a little below zero when idle.
    """
    rails = {
        name: int(now)
        for name, now in re.findall(r"(?<!\S)([A-Z][A-Z0-9_]*) (-?\d+)mW(?:/-?\d+mW)*(?!\S)", line)
        if name != "NC"  # a channel that is not connected
    }
    found = re.findall(r"(?<!\S)([A-Za-z]\w*)@(-?\d+(?:\.\d+)?)C", line)
    temperatures = {
        name.lower(): float(value) for name, value in found if float(value) > _COLDEST_C
    }
    return Sample(at_s, rails, temperatures)


def total_of(rails_mw: dict[str, float]) -> tuple[float, str] | None:
    """Return the milliwatts of the whole, and the names of the rails that they come from.

    The whole is the input of the board or the module, or the sum of the supplies.
    """
    for name in TOTALS:
        if name in rails_mw:
            return rails_mw[name], name
    for names in SUPPLIES:
        if all(name in rails_mw for name in names):
            return sum(rails_mw[name] for name in names), " + ".join(names)
    return None


def power_of(samples: Sequence[Sample], start_s: float, end_s: float) -> dict[str, Any] | None:
    """Return the mean watts between two moments, of the whole and per rail.

    Return ``None`` if there is no sample or no known rail.
    """
    within = [s for s in samples if start_s <= s.at_s <= end_s and s.rails_mw]
    if not within:
        return None
    names = sorted(set.intersection(*(set(s.rails_mw) for s in within)))
    means: dict[str, float] = {
        name: statistics.fmean(s.rails_mw[name] for s in within) for name in names
    }
    total = total_of(means)
    if total is None:
        return None
    return {
        "power_w_mean": round(total[0] / 1e3, 4),
        "power_of": total[1],
        "rails_w_mean": {name: round(value / 1e3, 4) for name, value in means.items()},
        "samples": len(within),
    }


class Sampler:
    """Run tegrastats in the background; ``samples`` grows until ``stop``.

    Parameters
    ----------
    command : the program and its arguments.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self.samples: list[Sample] = []
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        """Read lines until the program ends."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.samples.append(parse_tegrastats(line, time.monotonic()))

    def stop(self) -> None:
        """End the program."""
        self._process.terminate()
        self._process.wait()
        self._thread.join()
        if self._process.stdout is not None:
            self._process.stdout.close()


# -- the board -------------------------------------------------------------------------------------


def _text(path: Path) -> str | None:
    """Return the text of a file; None if it is empty or not there."""
    try:
        return path.read_bytes().decode(errors="replace").strip("\0 \n") or None
    except OSError:
        return None


@dataclass
class Board:
    """Read the machine: what it is, its temperature, its power mode and clocks.

    Attributes
    ----------
    root : folder of the file system; tests give another than ``/``.
    """

    root: Path = field(default_factory=lambda: Path(os.environ.get("EDGESEG_ROOT") or "/"))

    @property
    def jetson(self) -> bool:
        """Return True on a Jetson."""
        return (self.root / "etc" / "nv_tegra_release").is_file()

    def describe(self) -> dict[str, Any]:
        """Return model, L4T and kernel as plain values for JSON.

        A value is ``None`` if it is not known.
        """
        line = _text(self.root / "etc" / "nv_tegra_release") or ""
        release = re.search(r"R(\d+).*?REVISION: *([\d.]+)", line)
        return {
            "model": _text(self.root / "proc" / "device-tree" / "model"),
            "l4t": f"{release[1]}.{release[2]}" if release else None,
            "jetpack_package": _output(["dpkg-query", "-W", "-f", "${Version}", "nvidia-jetpack"]),
            "kernel": os.uname().release,
        }

    def temperatures_c(self) -> dict[str, float]:
        """Return the degrees Celsius per thermal zone, by its type.

        Zones that are off do not answer and are left out.
        """
        found = {}
        for zone in sorted((self.root / "sys" / "class" / "thermal").glob("thermal_zone*")):
            name = _text(zone / "type")
            value = _text(zone / "temp")
            if name and value and re.fullmatch(r"-?\d+", value) and int(value) / 1e3 > _COLDEST_C:
                found[name] = int(value) / 1e3
        return found

    def hottest_c(self) -> float | None:
        """Return the junction temperature, or the highest of all if there is none.

        The junction temperature, ``tj-thermal``, is the highest on the chip.
        """
        found = self.temperatures_c()
        return found.get("tj-thermal", max(found.values(), default=None))

    def power_mode(self) -> dict[str, Any] | None:
        """Return name and number as ``nvpmodel -q`` prints them."""
        said = _output(["nvpmodel", "-q"]) or ""
        name = re.search(r"NV Power Mode: *(\S+)", said)
        number = re.search(r"^(\d+)$", said, re.M)
        return {"name": name[1], "id": int(number[1])} if name and number else None

    def clocks(self) -> list[str] | None:
        """Return the lines that ``jetson_clocks --show`` prints; it needs root."""
        said = _output(_as_root(["jetson_clocks", "--show"]))
        return said.splitlines() if said else None


def _as_root(command: list[str]) -> list[str]:
    """Return a command that runs as root."""
    return command if os.geteuid() == 0 else ["sudo", "-n", *command]


def _output(command: list[str]) -> str | None:
    """Return what a program prints; ``None`` if it is not there or fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
    except OSError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _do(command: list[str], what: str, hint: str) -> None:
    """Run a program that changes the board. Raises ``EdgesegError`` with ``hint``."""
    try:
        done = subprocess.run(
            _as_root(command), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
    except OSError as error:
        raise MissingDependencyError(
            f"{what}: {error.strerror}", got=command[0], hint=hint
        ) from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise EdgesegError(
            what, got=said[-1] if said else f"exit code {done.returncode}", hint=hint
        )


@contextlib.contextmanager
def sudo_kept(wanted: bool, every_s: float = 60.0) -> Iterator[None]:
    """Keep sudo's permission alive.

    A measurement takes longer than the permission lasts, and restoring the clocks at the end needs
    it.
    """
    over = threading.Event()

    def keep() -> None:
        while not over.wait(every_s):
            _output(["sudo", "-n", "-v"])

    thread = threading.Thread(target=keep, daemon=True)
    if wanted and os.geteuid() != 0:
        thread.start()
    try:
        yield
    finally:
        over.set()


@contextlib.contextmanager
def power_mode(board: Board, mode: int | None) -> Iterator[None]:
    """Set a power mode, and restore the one before at the end."""
    before = board.power_mode()
    if mode is None or (before is not None and before["id"] == mode):
        yield
        return
    hint = (
        "Run it with sudo; /etc/nvpmodel.conf lists the modes. "
        "Some need a reboot: set those by hand first."
    )
    try:
        _do(["nvpmodel", "-m", str(mode)], f"power mode {mode} cannot be set", hint)
        now = board.power_mode()
        if now is None or now["id"] != mode:
            raise EdgesegError(f"power mode {mode} was not taken", got=now, hint=hint)
        yield
    finally:
        if before is not None and board.power_mode() != before:
            _do(
                ["nvpmodel", "-m", str(before["id"])],
                f"power mode {before['id']} cannot be restored",
                hint,
            )


@contextlib.contextmanager
def full_clocks(wanted: bool) -> Iterator[None]:
    """Run ``jetson_clocks``, and restore the clocks at the end."""
    if not wanted:
        yield
        return
    hint = "Run it with sudo, or leave the clocks alone: --clocks off."
    with tempfile.TemporaryDirectory() as folder:
        saved = str(Path(folder) / "clocks.conf")
        _do(["jetson_clocks", "--store", saved], "the clocks cannot be saved", hint)
        try:
            _do(["jetson_clocks"], "the clocks cannot be set", hint)
            yield
        finally:
            _do(
                ["jetson_clocks", "--restore", saved],
                "the clocks cannot be restored",
                "A reboot restores them.",
            )


def cool_down(
    read_c: Callable[[], float | None],
    limit_c: float,
    patience_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Wait until ``read_c`` is at most ``limit_c``, for at most ``patience_s`` seconds.

    Return the temperature that was reached, and when.
    """
    start = clock()
    while (now := read_c()) is not None and now > limit_c and clock() - start < patience_s:
        sleep(1.0)
    reached = None if now is None else now <= limit_c
    return {
        "limit_c": limit_c,
        "reached": reached,
        "temperature_c": now,
        "waited_s": round(clock() - start, 1),
    }
