"""Errors that explain themselves in one line.

The line holds what went wrong, what was found, what was expected and what to do next. The command
line prints the line and exits with the error's code. Anything that is not an ``EdgesegError`` is a
bug and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class EdgesegError(Exception):
    """Report a problem of the input or the machine, not of the program. Base of all such errors.

    Parameters
    ----------
    what : what went wrong, with the file or the argument it is about.
    got : what was found there.
    expected : what should have been found.
    hint : what to do next, a sentence or a command.

    Attributes
    ----------
    exit_code : the exit code of the command line: 2, or 1 if a check failed.

    Examples
    --------
    >>> str(EdgesegError("a.onnx: bad size", got="360x481", expected="a multiple of 8"))
    'a.onnx: bad size: got 360x481, expected a multiple of 8.'
    """

    exit_code = 2

    def __init__(
        self, what: str, *, got: object = None, expected: object = None, hint: str | None = None
    ) -> None:
        self.what = what
        self.got = got
        self.expected = expected
        self.hint = hint
        super().__init__(str(self))

    def __str__(self) -> str:
        """Return the error as one line; absent parts are left out."""
        line = self.what.rstrip(".")
        if self.got is not None:
            line += f": got {str(self.got).rstrip('.')}"
        if self.expected is not None:
            separator = "," if self.got is not None else ":"
            line += f"{separator} expected {self.expected}"
        line += "."
        return f"{line} {self.hint.strip()}" if self.hint else line


class InputError(EdgesegError):
    """Report an input that is missing, unreadable or not of the requested kind.

    The input is a file, a folder, an address or an argument.
    """


class DataError(EdgesegError):
    """Report a data set with a layout, sizes or label ids that its reader does not expect."""


class GraphError(EdgesegError):
    """Report an ONNX file that cannot be run.

    It is damaged, or has an operator or a form that the target lacks.
    """


class EngineError(EdgesegError):
    """Report an engine that is damaged, out of date, or built for something else."""


class OutputError(EdgesegError):
    """Report an output that cannot be written."""


class MissingDependencyError(EdgesegError):
    """Report a package or program that is not installed; the hint is the line that installs it."""


class CheckFailedError(EdgesegError):
    """Report that a check which the user requested failed, such as a check for regressions."""

    exit_code = 1


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean ...?`` if a known word is close to ``word``, else an empty string.

    Parameters
    ----------
    word : the unknown word.
    known : the words to choose from; upper and lower case are the same.

    Examples
    --------
    >>> did_you_mean("enet-canvid", ["enet-camvid", "segnet-light-camvid"])
    " Did you mean 'enet-camvid'?"
    >>> did_you_mean("resnet", ["camvid", "voc"])
    ''
    """
    originals = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), originals, n=1)
    return f" Did you mean {originals[close[0]]!r}?" if close else ""
