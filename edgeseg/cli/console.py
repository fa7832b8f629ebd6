"""Print to the terminal: results, errors, warnings, and progress."""

import contextlib
import functools
import sys
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeseg.cli.spelling import as_options
from edgeseg.errors import MissingDependencyError

_results_to_stderr = False

_LINE_EVERY_S = 10.0  # progress where no bar can be drawn, such as in a service's log


def print_to_stderr(wanted: bool) -> None:
    """Choose where results are printed from now on.

    Parameters
    ----------
    wanted : True for standard error, because standard output takes JSON; False for standard output.
    """
    global _results_to_stderr
    _results_to_stderr = wanted


def stdout() -> Any:
    """Return a console for results: on standard output, unless that takes JSON.

    A new one is made each time, so that it is as wide as the terminal is now.
    """
    return _console_kind()(stderr=_results_to_stderr)


def stderr() -> Any:
    """Return a console on standard error, for progress and warnings."""
    return _console_kind()(stderr=True)


@functools.cache
def _console_kind() -> Any:
    """Return rich's console with every text made ``printable``: titles and cells of tables, too."""
    from rich.console import Console
    from rich.text import Text

    class PrintableConsole(Console):
        """Print texts that may come from files."""

        def render_str(self, text: str, **options: Any) -> Text:
            """Return a text as rich shows it, without what a terminal would obey."""
            return super().render_str(printable(text), **options)

    return PrintableConsole


def escape(text: str) -> str:
    r"""Return text on one line for a console that reads markup, with parameters spelled as options.

    Parameters
    ----------
    text : any text; what looks like markup in it is printed as it is.

    Examples
    --------
    >>> escape("leave\n`size` out")
    'leave --size out'
    >>> escape("a\x1b[31m.onnx")
    'a\\x1b[31m.onnx'
    """
    from rich import markup

    return markup.escape(as_options(printable(" ".join(text.splitlines()))))


def printable(text: str) -> str:
    r"""Return text with what a terminal would obey, or cannot show, written as its escape.

    Names in files reach the screen. Control characters in them could change colours, titles or
    the clipboard, and marks of direction could reorder a line.

    Parameters
    ----------
    text : any text.

    Examples
    --------
    >>> printable("caf\u00e9\x1b]0;x\x07") == "caf\u00e9\\x1b]0;x\\x07"
    True
    """
    if text.isprintable():
        return text
    shown = []
    for letter in text:
        is_shown = letter.isprintable() or letter in "\n\t" or unicodedata.category(letter) == "Zs"
        shown.append(letter if is_shown else letter.encode("unicode_escape").decode("ascii"))
    return "".join(shown)


def say_error(text: str) -> None:
    """Print an error on standard error, as one line."""
    stderr().print(f"[bold red]error:[/] {escape(text)}", soft_wrap=True, highlight=False)


def tell_assumed(assumed: Sequence[str]) -> None:
    """Print on standard error which facts about an ONNX file were assumed, if any.

    Parameters
    ----------
    assumed : the facts, as ``Network.assumed`` lists them.
    """
    if assumed:
        facts = escape("; ".join(assumed))
        advice = "If this is wrong, give --mean, --std, --scale, --colour, --labels or --head."
        stderr().print(f"[yellow]assumed:[/] {facts}. {advice}", soft_wrap=True, highlight=False)


def tell_warning(text: str) -> None:
    """Print a warning on standard error, as one line."""
    stderr().print(f"[yellow]warning:[/] {escape(text)}", soft_wrap=True, highlight=False)


def tell_notes(notes: Mapping[str, str]) -> None:
    """Print notes about single tensors.

    Parameters
    ----------
    notes : a line of text by tensor, as ``Ranges.notes`` has them.
    """
    for tensor, note in notes.items():
        stdout().print(f"[yellow]note:[/] {escape(f'{tensor}: {note}')}", soft_wrap=True)


def tell_written(path: Path, detail: str = "") -> None:
    """Print which file was written.

    Parameters
    ----------
    path : the file or folder.
    detail : facts about it, such as its size; empty for none.
    """
    text = f"wrote {path}: {detail}" if detail else f"wrote {path}"
    stdout().print(escape(text), soft_wrap=True, highlight=False)


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show a spinner with a text while the block runs.

    Parameters
    ----------
    what : what is being done, such as ``opening drive.mp4``.
    """
    with stderr().status(escape(what)):
        yield


class ConsoleReporter:
    """Print messages, and draw one progress bar on standard error for each task that runs.

    Use it as a context manager: leaving the block removes the bars. If standard error is no
    terminal, such as in the log of a service, a task prints a line every ten seconds instead.

    Parameters
    ----------
    console : where messages go; standard error unless given.
    waiting : what is shown while no task reports progress, such as ``compiling net.onnx``; empty
        for nothing.

    Examples
    --------
    >>> with ConsoleReporter() as reporter:
    ...     for done in range(4):
    ...         reporter.progress("calibrate", done, 3)
    """

    def __init__(self, console: Any = None, *, waiting: str = "") -> None:
        self._console = console or stderr()
        self._waiting = waiting
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._lines: dict[str, _Lines] = {}

    def __enter__(self) -> "ConsoleReporter":
        if self._waiting:
            self._start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def info(self, text: str) -> None:
        """Print a message."""
        self._console.print(escape(text), soft_wrap=True, highlight=False)

    def warning(self, text: str) -> None:
        """Print a warning."""
        self._console.print(f"[yellow]warning:[/] {escape(text)}", soft_wrap=True, highlight=False)

    def progress(self, task: str, done: int, total: int | None) -> None:
        """Draw how far a task is; remove its bar when it is done."""
        if self._bars is None:
            self._start()
        if self._bars.disable:
            self._print_line(task, done, total)
            return

        if task not in self._tasks:
            self._tasks[task] = self._bars.add_task(escape(task), total=total, count="")
        count = "" if total is None else f"{done}/{total}"
        self._bars.update(self._tasks[task], completed=done, total=total, count=count)

        if done == total:
            self._bars.remove_task(self._tasks.pop(task))

    def _print_line(self, task: str, done: int, total: int | None) -> None:
        """Print how far a task is, if the line before is ten seconds old."""
        lines = self._lines.setdefault(task, _Lines())
        text = lines.next(task, done, total, time.monotonic())
        if text:
            stderr().print(escape(text), soft_wrap=True, highlight=False)
        if done == total:
            del self._lines[task]

    def _start(self) -> None:
        """Start to draw bars."""
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        # Standard output may be a file while standard error is a terminal: it is then left alone.
        console = stderr()
        self._bars = Progress(
            *columns,
            console=console,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
            disable=not console.is_terminal,
        )
        self._bars.start()
        if self._waiting:
            self._bars.add_task(escape(self._waiting), total=None, count="")


class _Lines:
    """Write the lines about one task, ten seconds apart."""

    def __init__(self) -> None:
        self._last_s: float | None = None
        self._last_done = 0

    def next(self, task: str, done: int, total: int | None, now_s: float) -> str:
        """Return the line that is due now, with the rate since the line before, or nothing."""
        if self._last_s is None:
            self._last_s = now_s
            self._last_done = done
            return ""

        passed_s = now_s - self._last_s
        if passed_s < _LINE_EVERY_S:
            return ""
        rate = (done - self._last_done) / passed_s
        self._last_s = now_s
        self._last_done = done
        count = f"{done}" if total is None else f"{done} of {total}"
        return f"{task}: {count}, {rate:.1f} per second"


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turn a missing package into an error with the command that installs it.

    Parameters
    ----------
    extra : the extra of edgeseg that installs what the block imports, such as ``train``.

    Raises
    ------
    MissingDependencyError : an import inside the block found no such package.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "edgeseg":
            raise
        raise MissingDependencyError(
            f"this command needs {error.name}, which is not installed",
            hint=f'Install it: pip install "edgeseg[{extra}]".',
        ) from error
