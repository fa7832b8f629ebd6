"""Run the program as a user does."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

Completed = subprocess.CompletedProcess[str]


def edgeseg(
    *arguments: object, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Completed:
    """Run ``edgeseg ARGUMENTS`` with nobody at the keyboard.

    It runs in this process, which saves the import of every library; in a process of its own if
    ``env`` is given. ``edgeseg_process`` always takes a process of its own.
    """
    if env is not None:
        return edgeseg_process(*arguments, cwd=cwd, env=env)

    out = io.StringIO()
    err = io.StringIO()
    words = list(map(str, arguments))
    folder = os.getcwd()
    os.chdir(cwd or folder)
    try:
        with _as_program(words, out, err):
            code = _exit_code()
    finally:
        os.chdir(folder)
    return subprocess.CompletedProcess(["edgeseg", *words], code, out.getvalue(), err.getvalue())


def edgeseg_process(
    *arguments: object, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Completed:
    """Run ``edgeseg ARGUMENTS`` in a process of its own, with nobody at the keyboard."""
    command = [sys.executable, "-m", "edgeseg", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=env, stdin=subprocess.DEVNULL
    )


def _exit_code() -> int:
    """Run the program, and return its exit code as a shell would see it."""
    from edgeseg.cli import main

    try:
        main()
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 0
    except Exception:
        traceback.print_exc()
        return 1
    return 0


@contextlib.contextmanager
def _as_program(arguments: Sequence[str], out: io.StringIO, err: io.StringIO) -> Iterator[None]:
    """Give the body the arguments, streams, warnings and signals of a new process, and put ours
    back.
    """
    from edgeseg.cli.console import print_to_stderr

    argv = sys.argv
    stdin = sys.stdin
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with open(os.devnull) as nothing, contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        stack.enter_context(warnings.catch_warnings())
        _filter_warnings_as_python_does()
        sys.argv = ["edgeseg", *arguments]
        sys.stdin = nothing
        try:
            yield
        finally:
            sys.argv = argv
            sys.stdin = stdin
            signal.signal(signal.SIGTERM, on_sigterm)
            print_to_stderr(False)


def _filter_warnings_as_python_does() -> None:
    """Set the filters that Python starts with."""
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)


def assert_build_refused(net: Path, folder: Path, arguments: Sequence[object], says: str) -> None:
    """``edgeseg build-engine NET ARGUMENTS`` gives one line with ``says`` and exit code 2.

    ``folder`` stays empty.
    """
    done = edgeseg("build-engine", net, "-o", folder / "e.engine", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert says in done.stderr
    assert not list(folder.iterdir())
