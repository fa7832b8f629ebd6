"""Files that several test processes need, made once a run."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

FOLDER = "EDGESEG_TEST_RUN"  # in the environment: the folder of this run (`tests/conftest.py`)


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """Return the file ``name`` of this run.

    The first process that asks calls ``make`` with its path; others wait until it is there. The
    file is everybody's: read it, or copy it.
    """
    path = Path(os.environ[FOLDER]) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f"{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            make(path)
    return path
