"""Several processes draw the frames that one draws, and they end with their parent."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgeseg.data.synthetic import SyntheticDrive
from edgeseg.data.synthetic.ahead import draw_ahead


def test_two_processes_draw_the_same_frames_in_their_order() -> None:
    drive = SyntheticDrive(length=24, size=(48, 64), seed=6)
    drawn = list(draw_ahead(drive, processes=2))
    assert [sample.name for sample in drawn] == [f"synthetic_6_{i:06d}" for i in range(24)]
    for i in (0, 11, 23):
        assert np.array_equal(drawn[i].image, drive.frame(i).image)
        assert np.array_equal(drawn[i].mask, drive.frame(i).mask)


def test_a_short_drive_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeseg.data.synthetic.ahead.ProcessPoolExecutor", None)
    drive = SyntheticDrive(length=3, size=(16, 16))
    assert len(list(draw_ahead(drive, processes=8))) == 3


_PROGRAM = """
import multiprocessing, time
from edgeseg.data.synthetic import SyntheticDrive
from edgeseg.data.synthetic.ahead import draw_ahead
if __name__ == "__main__":
    frames = draw_ahead(SyntheticDrive(length=100000, size=(48, 64)), processes=2)
    next(frames)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    for _ in frames: time.sleep(0.2)
"""


def test_a_killed_parent_leaves_no_process(tmp_path: Path) -> None:
    program = tmp_path / "draw.py"
    program.write_text(_PROGRAM)
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        children = [int(word) for word in run.stdout.readline().split()]
        assert len(children) == 2
        run.send_signal(signal.SIGKILL)

    end = time.monotonic() + 60
    while any(_lives(pid) for pid in children):
        assert time.monotonic() < end, "a process lives on without its parent"
        time.sleep(0.1)


def _lives(pid: int) -> bool:
    """Return True if a process runs; one that has ended and waits for its parent does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
