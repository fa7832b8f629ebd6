"""Running the program as a user does."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def edgeseg(
    *arguments: object, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """``edgeseg ARGUMENTS`` in a process of its own, with nobody at the keyboard."""
    command = [sys.executable, "-m", "edgeseg", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, stdin=subprocess.DEVNULL)


def assert_build_refused(net: Path, folder: Path, arguments: Sequence[object], says: str) -> None:
    """``edgeseg build-engine NET ARGUMENTS`` gives one line with ``says`` and exit code 2; ``folder`` stays empty."""
    done = edgeseg("build-engine", net, "-o", folder / "e.engine", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert says in done.stderr
    assert not list(folder.iterdir())
