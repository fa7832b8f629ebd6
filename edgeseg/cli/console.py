"""The terminal: what commands print, where, and how they show that they are at work."""

import contextlib
from collections.abc import Iterator
from typing import Any

from edgeseg.cli.spelling import as_options
from edgeseg.errors import MissingDependencyError

_results_to_stderr = False


def print_to_stderr(wanted: bool) -> None:
    """Print results on standard error from now on: standard output belongs to JSON."""
    global _results_to_stderr
    _results_to_stderr = wanted


def stdout() -> Any:
    """Return a console for results, as wide as the terminal is now: standard output, unless that belongs to JSON."""
    from rich.console import Console

    return Console(stderr=_results_to_stderr)


def stderr() -> Any:
    """Return a console on standard error, for progress and warnings."""
    from rich.console import Console

    return Console(stderr=True)


def escape(text: str) -> str:
    """Return text on one line for a console that reads markup, parameters spelled as options."""
    from rich import markup

    return markup.escape(as_options(" ".join(text.splitlines())))


def say_error(text: str) -> None:
    """Print one line on standard error."""
    stderr().print(f"[bold red]error:[/] {escape(text)}", soft_wrap=True, highlight=False)


def tell_assumed(assumed: tuple[str, ...]) -> None:
    """Say which facts about a foreign file were assumed."""
    if assumed:
        said = escape("; ".join(assumed))
        stderr().print(f"[yellow]assumed:[/] {said} (the file has no edgeseg spec; flags correct this)", soft_wrap=True)


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show what takes its time while the body runs."""
    with stderr().status(escape(what)):
        yield


@contextlib.contextmanager
def progress(what: str, total: int | None) -> Iterator[Any]:
    """Show a progress bar while the body runs; yields ``step(n=1)``."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr(), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda n=1: bar.advance(task, n)


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turn a missing package of an extra into the line that installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "edgeseg":
            raise
        raise MissingDependencyError(
            f"this command needs {error.name}, which is not installed",
            hint=f'Install it: pip install "edgeseg[{extra}]".',
        ) from error
