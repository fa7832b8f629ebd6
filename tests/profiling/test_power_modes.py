"""Power modes on a made-up nvpmodel: the mode before is put back, whatever ends the sweep."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from paths import ROOT

from edgeseg.errors import EdgesegError, InputError
from edgeseg.profiling.power_modes import (
    PowerMode,
    current_mode,
    kept_mode,
    known_modes,
    pareto,
    resolve_modes,
    set_mode,
)

CONF = """
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
< PM_CONFIG DEFAULT=1 >
"""


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a made-up nvpmodel on PATH, its mode in a file, and the list of modes."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nvpmodel.conf").write_text(CONF)
    (tmp_path / "mode").write_text("1\n")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "nvpmodel").write_text(
        f'#!/bin/sh\n[ "$1" = -m ] && echo "$2" >{tmp_path}/mode\n'
        f'echo "$*" >>{tmp_path}/log\n'
        f'case "$(cat {tmp_path}/mode)" in 0) n=15W;; 1) n=25W;; *) n=MAXN_SUPER;; esac\n'
        f'echo "NV Power Mode: $n"\ncat {tmp_path}/mode\n'
    )
    (programs / "sudo").write_text('#!/bin/sh\nshift\nexec "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def mode_of(board: Path) -> str:
    return (board / "mode").read_text().strip()


def test_modes_are_known_by_name_and_number(board: Path) -> None:
    assert [mode.name for mode in known_modes(board)] == ["15W", "25W", "MAXN_SUPER"]
    assert resolve_modes(["maxn_super", "0"], board) == [
        PowerMode(2, "MAXN_SUPER"),
        PowerMode(0, "15W"),
    ]
    with pytest.raises(InputError, match=r"no such power mode: got '15', expected 15W, 25W"):
        resolve_modes(["15"], board)
    with pytest.raises(InputError, match="no power modes"):
        resolve_modes(["15W"], board / "etc")


def test_the_mode_is_back_after_the_end_and_after_an_error(board: Path) -> None:
    with kept_mode() as before:
        assert before == PowerMode(1, "25W")
        set_mode(PowerMode(0, "15W"))
        assert mode_of(board) == "0"
    assert mode_of(board) == "1"

    with pytest.raises(RuntimeError, match="broken"), kept_mode():  # noqa: PT012
        set_mode(PowerMode(2, "MAXN_SUPER"))
        raise RuntimeError("broken")
    assert mode_of(board) == "1"
    assert (board / "log").read_text().count("-m 1") == 2, (
        "the guardian sets nothing if all is well"
    )


def test_a_mode_that_is_not_taken_is_an_error(board: Path) -> None:
    (board / "bin/nvpmodel").write_text("#!/bin/sh\nprintf 'NV Power Mode: 25W\\n1\\n'\n")
    with pytest.raises(EdgesegError, match=r"15W was not taken: got 25W\. Run it with sudo"):
        set_mode(PowerMode(0, "15W"))


SWEEP = """
import sys, time
from edgeseg.profiling.power_modes import PowerMode, kept_mode, set_mode
with kept_mode():
    set_mode(PowerMode(0, "15W"))
    print("set", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_killed_in_the_middle_the_mode_before_is_back(board: Path, number: signal.Signals) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = subprocess.Popen(
        [sys.executable, "-c", SWEEP],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "set\n"
    assert mode_of(board) == "0"
    # The whole group, as a terminal does it: the guardian is in a session of its own.
    os.killpg(running.pid, number)
    running.communicate(timeout=30)
    assert running.returncode != 0
    deadline = time.monotonic() + 15
    while mode_of(board) != "1" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert mode_of(board) == "1"
    assert current_mode() == PowerMode(1, "25W")


def test_pareto_keeps_what_no_other_beats() -> None:
    assert pareto([(30, -10, 0.6), (30, -12, 0.6), (40, -15, 0.5), (10, -20, 0.4)]) == [
        True,
        False,
        True,
        False,
    ]
    assert pareto([(1, 1), (1, 1)]) == [True, True]
