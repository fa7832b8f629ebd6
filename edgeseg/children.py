"""Run other programs so that nothing in the current folder decides what they do.

A child starts in a neutral folder. A child that is Python ignores ``PYTHON*`` variables, and never
looks for modules in the current folder.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

NEUTRAL = "/"  # the folder that children start in; only the administrator can write there

# Variables that make Python or a shell run code of their value.
_DROPPED_PREFIX = "PYTHON"
_DROPPED = frozenset({"BASH_ENV", "ENV", "SHELLOPTS", "BASHOPTS"})

# Folders of modules come in one argument, separated as in PATH. They are appended, so that they
# cannot hide what is installed.
_PROLOGUE = "import os, sys; sys.path += [p for p in sys.argv.pop(1).split(os.pathsep) if p]\n"


def run_child(
    command: Sequence[str], *, timeout_s: float | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end, in a neutral folder and with a clean environment.

    Parameters
    ----------
    command : the program's path and its arguments. Paths in it must be absolute.
    timeout_s : time limit; ``None`` for none.

    Returns
    -------
    The exit code, and what the program wrote.

    Raises
    ------
    OSError : the program cannot be started.
    subprocess.TimeoutExpired : it took too long, and was ended.

    Examples
    --------
    >>> run_child(["/bin/pwd"]).stdout.strip()
    '/'
    """
    return subprocess.run(
        list(command),
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        cwd=NEUTRAL,
        env=clean_environment(),
        timeout=timeout_s,
    )


def python_command(code: str, *arguments: str) -> list[str]:
    """Return the command that runs code in a Python of its own, isolated from the current folder.

    The child finds the modules that are installed, then edgeseg itself and the other folders of
    this process's ``sys.path``, but never the current folder.

    Parameters
    ----------
    code : Python code; ``sys.argv[1:]`` holds the arguments.
    arguments : the arguments.

    Examples
    --------
    >>> run_child(python_command("import sys; print(sys.argv[1:])", "one")).stdout.strip()
    "['one']"
    """
    # An embedded Python has no `sys.executable`: starting "" fails with an OSError.
    return [sys.executable or "", "-I", "-c", _PROLOGUE + code, _module_folders(), *arguments]


def clean_environment() -> dict[str, str]:
    """Return this process's environment without the variables that make a child run code.

    Examples
    --------
    >>> any(name.startswith("PYTHON") for name in clean_environment())
    False
    """
    kept = {}
    for name, value in os.environ.items():
        if not name.startswith(_DROPPED_PREFIX) and name not in _DROPPED:
            kept[name] = value
    return kept


def _module_folders() -> str:
    """Return edgeseg's folder and the absolute folders of ``sys.path``, separated as in ``PATH``.

    The current folder is left out, and so are relative ones, which depend on it.
    """
    package = Path(__file__).resolve().parent.parent
    here = os.path.realpath(os.curdir)

    folders = [str(package)]
    for folder in sys.path:
        if os.path.isabs(folder) and os.path.realpath(folder) != here and folder not in folders:
            folders.append(folder)
    return os.pathsep.join(folders)
