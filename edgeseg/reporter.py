"""Define how long work reports what it does: messages, warnings and progress.

A function that takes more than a few seconds has a parameter ``reporter``. The command line passes
one
that draws progress bars; a program passes its own, or none and hears nothing.
"""

from collections.abc import Iterable, Iterator, Sized
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Reporter(Protocol):
    """Receive messages and progress of one piece of work.

    Examples
    --------
    >>> class Printer:
    ...     def info(self, text: str) -> None:
    ...         print(text)
    ...
    ...     def warning(self, text: str) -> None:
    ...         print("warning:", text)
    ...
    ...     def progress(self, task: str, done: int, total: int | None) -> None:
    ...         print(f"{task}: {done} of {total}")
    >>> frames = list(track(["a", "b"], "calibrate", Printer()))
    calibrate: 0 of 2
    calibrate: 1 of 2
    calibrate: 2 of 2
    """

    def info(self, text: str) -> None:
        """Report a fact or a decision.

        Parameters
        ----------
        text : one line, without a period.
        """

    def warning(self, text: str) -> None:
        """Report something that the user should look at.

        Parameters
        ----------
        text : one line, without a period and without the word "warning".
        """

    def progress(self, task: str, done: int, total: int | None) -> None:
        """Report how far a task is.

        A task begins with its first call and ends with ``done == total``. Another name begins
        another task.

        Parameters
        ----------
        task : what is done, such as ``calibrate``.
        done : number of finished steps, from 0 on.
        total : number of all steps; ``None`` if it is not known.
        """


class Silent:
    """Discard all messages and progress."""

    def info(self, text: str) -> None:
        """Discard a message."""

    def warning(self, text: str) -> None:
        """Discard a warning."""

    def progress(self, task: str, done: int, total: int | None) -> None:
        """Discard progress."""


class Lines:
    """Print messages and warnings, one line each; discard progress.

    Examples
    --------
    >>> Lines().warning("2 frames are alike")
    warning: 2 frames are alike
    """

    def info(self, text: str) -> None:
        """Print a message."""
        print(text)

    def warning(self, text: str) -> None:
        """Print a warning."""
        print(f"warning: {text}")

    def progress(self, task: str, done: int, total: int | None) -> None:
        """Discard progress."""


SILENT: Reporter = Silent()
LINES: Reporter = Lines()


def track(
    items: Iterable[Item], task: str, reporter: Reporter, total: int | None = None
) -> Iterator[Item]:
    """Yield items, and report each one as a finished step when the next is asked for.

    Parameters
    ----------
    items : what to go through.
    task : name of the task, such as ``calibrate``.
    reporter : receives the progress.
    total : number of items; by default ``len(items)`` if it has a length, else unknown.

    Examples
    --------
    >>> list(track("ab", "spell", SILENT))
    ['a', 'b']
    """
    if total is None and isinstance(items, Sized):
        total = len(items)

    reporter.progress(task, 0, total)
    for done, item in enumerate(items, 1):
        yield item
        reporter.progress(task, done, total)
