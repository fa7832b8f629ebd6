"""Measure in several power modes of a Jetson, and put the mode before back, whatever happens.

A guardian, a small process of its own, sets the mode back if this process is killed. A normal end,
an error, Ctrl-C and SIGTERM set it back from here.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from edgeseg.errors import EdgesegError, InputError, MissingDependencyError, did_you_mean
from edgeseg.profiling.mode_guardian import DONE

PROGRAM = "nvpmodel"
_HINT = "Run it with sudo. Some modes need a reboot: set those by hand first."


@dataclass(frozen=True)
class PowerMode:
    """Name a power mode of a Jetson.

    Attributes
    ----------
    id : its number.
    name : its name, such as ``15W`` or ``MAXN``.
    """

    id: int
    name: str


def current_mode() -> PowerMode | None:
    """Return the mode that ``nvpmodel -q`` reports; ``None`` if there is no such program."""
    try:
        done = subprocess.run(
            [PROGRAM, "-q"], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
    except OSError:
        return None
    name = re.search(r"NV Power Mode: *(\S+)", done.stdout)
    number = re.search(r"^(\d+)$", done.stdout, re.M)
    return PowerMode(int(number[1]), name[1]) if name and number else None


def known_modes(root: Path = Path("/")) -> list[PowerMode]:
    """Return the modes of ``/etc/nvpmodel.conf``.

    Parameters
    ----------
    root : root folder of the file system.

    Examples
    --------
    >>> known_modes(Path("/nowhere"))
    []
    """
    try:
        text = (root / "etc" / "nvpmodel.conf").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = re.findall(r"^\s*<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", text, re.M)
    return [PowerMode(int(number), name) for number, name in found]


def resolve_modes(names: Sequence[str], root: Path = Path("/")) -> list[PowerMode]:
    """Return power modes by name or number.

    Parameters
    ----------
    names : names as in ``/etc/nvpmodel.conf``, in any case, with or without the prefix ``MODE_``;
        or numbers.
    root : root folder of the file system.

    Raises
    ------
    InputError : this machine has no power modes, or not these.
    """
    modes = known_modes(root)
    if not modes or current_mode() is None:
        raise InputError(
            "this machine has no power modes",
            got="neither nvpmodel nor /etc/nvpmodel.conf",
            expected="a Jetson",
            hint="Leave `power_modes` out.",
        )
    by_name: dict[str, PowerMode] = {}
    for mode in modes:
        by_name[mode.name.upper()] = mode
        by_name[mode.name.upper().removeprefix("MODE_")] = mode
        by_name[str(mode.id)] = mode

    chosen: list[PowerMode] = []
    for name in names:
        if name.strip().upper() not in by_name:
            raise InputError(
                "no such power mode",
                got=repr(name),
                expected=", ".join(mode.name for mode in modes),
                hint=did_you_mean(name, by_name).strip() or None,
            )
        chosen.append(by_name[name.strip().upper()])
    return chosen


def set_mode(mode: PowerMode) -> None:
    """Set a power mode, and check that it was taken.

    Parameters
    ----------
    mode : the mode.

    Raises
    ------
    EdgesegError : nvpmodel failed, or the mode needs a reboot.
    MissingDependencyError : there is no nvpmodel.
    """
    what = f"power mode {mode.name} cannot be set"
    try:
        done = subprocess.run(
            as_root([PROGRAM, "-m", str(mode.id)]),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except OSError as error:
        raise MissingDependencyError(what, got=f"{PROGRAM}: {error.strerror}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise EdgesegError(
            what, got=said[-1] if said else f"exit code {done.returncode}", hint=_HINT
        )
    now = current_mode()
    if now is None or now.id != mode.id:
        got = None if now is None else now.name
        raise EdgesegError(f"power mode {mode.name} was not taken", got=got, hint=_HINT)


def as_root(command: list[str]) -> list[str]:
    """Return a command that runs as root.

    Parameters
    ----------
    command : the program and its arguments.
    """
    return command if os.geteuid() == 0 else ["sudo", "-n", *command]


@contextlib.contextmanager
def kept_mode() -> Iterator[PowerMode]:
    """Put the present power mode back at the end of the block, also if this process is killed.

    SIGTERM and SIGHUP become ``KeyboardInterrupt`` inside the block, as Ctrl-C is.

    Yields
    ------
    The present mode.

    Raises
    ------
    InputError : this machine has no power modes.
    EdgesegError : the mode cannot be put back.
    """
    before = current_mode()
    if before is None:
        raise InputError("this machine has no power modes", expected="a Jetson with nvpmodel")

    with _guardian(before) as guardian, _signals_interrupt():
        try:
            yield before
        finally:
            if current_mode() != before:
                set_mode(before)
            _dismiss(guardian)


@contextlib.contextmanager
def _guardian(mode: PowerMode) -> Iterator["subprocess.Popen[str]"]:
    """Start the guardian: it waits until its input ends, and then puts the mode back."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "edgeseg.profiling.mode_guardian",
            *as_root([PROGRAM, "-m", str(mode.id)]),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # so that signals to the terminal's group do not reach it
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it ignores signals from now on
        yield process
    finally:
        for stream in (process.stdin, process.stdout):
            _close(stream)
        process.wait()


def _close(stream: IO[Any] | None) -> None:
    """Close a pipe; the other end may be gone."""
    if stream is not None:
        with contextlib.suppress(OSError):
            stream.close()


def _dismiss(guardian: "subprocess.Popen[str]") -> None:
    """Tell the guardian that the mode is back."""
    if guardian.stdin is not None:
        with contextlib.suppress(OSError):
            guardian.stdin.write(DONE)
            guardian.stdin.flush()


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise ``KeyboardInterrupt``, in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def pareto(points: Sequence[tuple[float, ...]]) -> list[bool]:
    """Return for each point if no other one is at least as good in all and better in one.

    Parameters
    ----------
    points : figures of which more is better, one tuple per point; give watts below zero.

    Examples
    --------
    >>> pareto([(30, -10), (20, -10), (15, -5)])
    [True, False, True]
    """
    best: list[bool] = []
    for mine in points:
        beaten = any(
            other != mine and all(a >= b for a, b in zip(other, mine, strict=True))
            for other in points
        )
        best.append(not beaten)
    return best
