"""The errors people meet: what went wrong, what was got, what was expected, what to do next; all in one line.

The command line prints the line and exits with the error's code. Anything that is not an ``EdgesegError`` is a bug and
keeps its traceback.
"""


class EdgesegError(Exception):
    """Base of every error that is the input's or the machine's, not the program's.

    Parameters
    ----------
    what : what went wrong, with the file or the argument it is about.
    got : what was found there.
    expected : what should have been found.
    hint : what to do next, a sentence or a command.
    """

    exit_code = 2

    def __init__(self, what: str, *, got: object = None, expected: object = None, hint: str | None = None) -> None:
        self.what, self.got, self.expected, self.hint = what, got, expected, hint
        super().__init__(str(self))

    def __str__(self) -> str:
        parts = [self.what.rstrip(".")]
        if self.got is not None:
            parts.append(f": got {str(self.got).rstrip('.')}")
        if self.expected is not None:
            parts.append(f"{',' if self.got is not None else ':'} expected {self.expected}")
        line = "".join(parts) + "."
        return f"{line} {self.hint}" if self.hint else line


class InputError(EdgesegError):
    """A file, folder, address or argument that is missing, unreadable or not of the kind asked for."""


class DataError(EdgesegError):
    """A data set whose layout, sizes or label ids are not what its reader expects."""


class GraphError(EdgesegError):
    """An ONNX file that cannot be run: damaged, or with an operator or a form the target lacks."""


class EngineError(EdgesegError):
    """An engine that is damaged, out of date, or was built for something else."""


class OutputError(EdgesegError):
    """An output that cannot be written."""


class MissingDependencyError(EdgesegError):
    """A package or a program that is not installed; the hint is the line that installs it."""


class CheckFailedError(EdgesegError):
    """A check the user asked for did not hold (a regression, say)."""

    exit_code = 1
