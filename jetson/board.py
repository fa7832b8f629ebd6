"""A Jetson as a thing that is measured on: its temperatures, power mode and clocks.

EDGESEG_ROOT is where / is read from when the board is looked at; tests point it at a made-up board.
"""

import contextlib
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeseg.errors import EdgesegError, MissingDependencyError
from edgeseg.profiling.power_modes import PowerMode, as_root, current_mode, kept_mode, set_mode

_COLDEST_C = -200.0  # the kernel says -256 for a sensor whose block is off


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
        mode = current_mode()
        return None if mode is None else {"name": mode.name, "id": mode.id}

    def clocks(self) -> list[str] | None:
        """Return the lines that ``jetson_clocks --show`` prints; it needs root."""
        said = _output(as_root(["jetson_clocks", "--show"]))
        return said.splitlines() if said else None


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
            as_root(command), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
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
    """Set a power mode, and restore the one before at the end, also if this process is killed."""
    before = board.power_mode()
    if mode is None or (before is not None and before["id"] == mode):
        yield
        return
    with kept_mode():
        set_mode(PowerMode(mode, str(mode)))
        yield


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
