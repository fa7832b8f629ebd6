"""Which TensorRT there is: the module, its version, its log; and what this machine has to run it on."""

import functools
import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from edgeseg.errors import MissingDependencyError

TENSORRT, RTX = "tensorrt", "tensorrt-rtx"
TARGETS = (TENSORRT, RTX)
# The two base wheels of TensorRT-RTX alone, without the package that joins them, are imported under the second name.
_MODULES = {TENSORRT: ("tensorrt",), RTX: ("tensorrt_rtx", "tensorrt_rtx_bindings")}
_OLDEST = {TENSORRT: (10, 3), RTX: (1, 2)}
_INSTALL = {
    TENSORRT: "On a Jetson it comes with JetPack 6.1 or newer: make the environment with --system-site-packages. "
    'Elsewhere: pip install "edgeseg[tensorrt]".',
    RTX: 'Install it: pip install "edgeseg[tensorrt-rtx]".',
}
_TOO_OLD = {
    TENSORRT: "JetPack 5 and 6.0 have TensorRT 8, without strong typing: update to JetPack 6.1 or newer.",
    RTX: 'Update it: pip install -U "edgeseg[tensorrt-rtx]".',
}


@dataclass(frozen=True)
class Message:
    """One line of TensorRT's log. ``severity``: ``error``, ``warning``, ``info`` or ``verbose``."""

    severity: str
    text: str


class Log:
    """What TensorRT says. A process has one for each library: TensorRT keeps the first it is given for good.

    Of errors and warnings, unless more is added to ``keeps``: a build says ten thousand other things.
    """

    def __init__(self, trt: Any) -> None:
        self.messages: list[Message] = []
        names = {"INTERNAL_ERROR": "error", "ERROR": "error", "WARNING": "warning", "INFO": "info"}
        severities = {getattr(trt.ILogger.Severity, key): name for key, name in names.items()}
        kept, keeps = self.messages, {"error", "warning"}
        self.keeps = keeps

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if (name := severities.get(severity, "verbose")) in keeps:
                    kept.append(Message(name, message))

        self.logger = Logger()

    @contextmanager
    def heard(self) -> Iterator[list[Message]]:
        """Collect what is said from here on."""
        self.messages.clear()
        yield self.messages

    def last_error(self) -> str:
        """The first error since ``heard``: what follows is its consequence. Without source positions; or ``""``."""
        found = next((m.text for m in self.messages if m.severity == "error"), "")
        return re.sub(r"^(\[[^\]]*\]\s*|Error Code \d+:\s*)+", "", found)[:300]


@dataclass(frozen=True)
class Library:
    """An imported TensorRT. ``trt`` is its module, ``version`` as it says it."""

    target: str
    trt: Any
    version: str
    log: Log


@functools.cache
def library(target: str) -> Library:
    """Import the TensorRT of a target. Raises ``MissingDependencyError`` where it is absent, broken or too old."""
    trouble = ""
    for name in _MODULES[target]:
        try:
            trt = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError, RuntimeError) as error:  # found, but its shared libraries are not
            trouble = str(error).splitlines()[0]
            continue
        version = str(trt.__version__)
        if _numbers(version) < _OLDEST[target]:
            oldest = ".".join(map(str, _OLDEST[target]))
            raise MissingDependencyError(
                f"the installed {target} is too old", got=version, expected=f"{oldest} or newer", hint=_TOO_OLD[target]
            )
        return Library(target, trt, version, Log(trt))
    raise MissingDependencyError(
        f"the target {target} needs the Python package {_MODULES[target][0]}",
        got=trouble or "not installed",
        hint=_INSTALL[target],
    )


def opens(built: str, here: str) -> bool:
    """Whether a version-compatible plan of one version opens in another: of the same major, and not an older one."""
    return _numbers(built)[:1] == _numbers(here)[:1] and _numbers(built) <= _numbers(here)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:2])


def is_installed(target: str) -> bool:
    """Whether the TensorRT of a target can be imported."""
    try:
        library(target)
    except MissingDependencyError:
        return False
    return True
