"""Find the TensorRT that is installed: its Python module, its version and its log."""

import functools
import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from edgeseg.errors import MissingDependencyError

TENSORRT, RTX = "tensorrt", "tensorrt-rtx"
TARGETS = (TENSORRT, RTX)

# Modules to try per target. TensorRT-RTX without the package that joins its two base wheels is
# imported under the second name.
_MODULES = {TENSORRT: ("tensorrt",), RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings")}

_OLDEST = {TENSORRT: (10, 3), RTX: (1, 2)}
_INSTALL = {
    TENSORRT: "On a Jetson it comes with JetPack 6.1 or newer: make the environment with "
    '--system-site-packages. Elsewhere: pip install "edgeseg[tensorrt]".',
    RTX: 'Install it: pip install "edgeseg[tensorrt-rtx]".',
}
_TOO_OLD = {
    TENSORRT: "JetPack 5 and 6.0 have TensorRT 8, without strong typing: use JetPack 6.1 or newer.",
    RTX: 'Update it: pip install -U "edgeseg[tensorrt-rtx]".',
}

# TensorRT's names of severities, and ours; all others are "verbose".
_SEVERITIES = {
    "INTERNAL_ERROR": "error",
    "ERROR": "error",
    "WARNING": "warning",
    "INFO": "info",
}


@dataclass(frozen=True)
class Message:
    """Hold one line of TensorRT's log.

    Attributes
    ----------
    severity : ``error``, ``warning``, ``info`` or ``verbose``.
    text : the line.
    """

    severity: str
    text: str


class Log:
    """Collect the messages of TensorRT.

    A process has one log per library, because TensorRT keeps the first logger for good.

    Parameters
    ----------
    trt : TensorRT's Python module.

    Attributes
    ----------
    messages : the messages since ``heard`` was called.
    keeps : severities that are kept: errors and warnings, unless more are added. A build logs ten
        thousand other messages.
    logger : the logger object for TensorRT.
    """

    def __init__(self, trt: Any) -> None:
        self.messages: list[Message] = []
        self.keeps = {"error", "warning"}
        messages = self.messages
        keeps = self.keeps
        severities = {getattr(trt.ILogger.Severity, key): ours for key, ours in _SEVERITIES.items()}

        class Logger(trt.ILogger):  # type: ignore[misc]
            """Keep messages of some severities. It does not refer to the log, which owns it."""

            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                name = severities.get(severity, "verbose")
                if name in keeps:
                    messages.append(Message(name, message))

        self.logger = Logger()

    @contextmanager
    def heard(self) -> Iterator[list[Message]]:
        """Clear the messages, and yield the list of those that follow."""
        self.messages.clear()
        yield self.messages

    def last_error(self) -> str:
        """Return the first error since ``heard``, without source positions; empty if there is none.

        The errors that follow the first one are its consequences.
        """
        for message in self.messages:
            if message.severity == "error":
                return re.sub(r"^(\[[^\]]*\]\s*|Error Code \d+:\s*)+", "", message.text)[:300]
        return ""


@dataclass(frozen=True)
class Library:
    """Hold an imported TensorRT.

    Attributes
    ----------
    target : ``tensorrt`` or ``tensorrt-rtx``.
    trt : its Python module.
    version : its version, as the module reports it.
    log : its log.
    """

    target: str
    trt: Any
    version: str
    log: Log


@functools.cache
def library(target: str) -> Library:
    """Import the TensorRT of a target.

    Parameters
    ----------
    target : ``tensorrt`` or ``tensorrt-rtx``.

    Raises
    ------
    MissingDependencyError : it is not installed, cannot be loaded, or is too old.
    """
    trouble = ""
    for name in _MODULES[target]:
        try:
            trt = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError, RuntimeError) as error:
            # The module is installed, but its shared libraries are not.
            trouble = str(error).splitlines()[0]
            continue
        return _checked(target, trt)

    raise MissingDependencyError(
        f"the target {target} needs the Python package {_MODULES[target][0]}",
        got=trouble or "not installed",
        hint=_INSTALL[target],
    )


def _checked(target: str, trt: ModuleType) -> Library:
    """Return an imported TensorRT; raise ``MissingDependencyError`` if it is too old."""
    version = str(trt.__version__)
    if _numbers(version) < _OLDEST[target]:
        oldest = ".".join(map(str, _OLDEST[target]))
        raise MissingDependencyError(
            f"the installed {target} is too old",
            got=version,
            expected=f"{oldest} or newer",
            hint=_TOO_OLD[target],
        )
    return Library(target, trt, version, Log(trt))


def opens(built: str, here: str) -> bool:
    """Return True if a version-compatible plan of one version opens in another.

    It opens in the same version and in later ones of the same major.

    Parameters
    ----------
    built : version of the TensorRT that built the plan.
    here : version of the TensorRT that opens it.

    Examples
    --------
    >>> opens("10.3.0", "10.13.0"), opens("10.13.0", "10.3.0"), opens("10.3.0", "11.0.0")
    (True, False, False)
    """
    is_same_major = _numbers(built)[:1] == _numbers(here)[:1]
    return is_same_major and _numbers(built) <= _numbers(here)


def _numbers(version: str) -> tuple[int, ...]:
    """Return major and minor of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def is_installed(target: str) -> bool:
    """Return True if the TensorRT of a target can be imported, and is new enough.

    Parameters
    ----------
    target : ``tensorrt`` or ``tensorrt-rtx``.
    """
    try:
        library(target)
    except MissingDependencyError:
        return False
    return True
