"""Running the program as a user does."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def edgeseg(
    *arguments: object, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """``edgeseg ARGUMENTS`` in a process of its own, with nobody at the keyboard."""
    command = [sys.executable, "-m", "edgeseg", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, stdin=subprocess.DEVNULL)
