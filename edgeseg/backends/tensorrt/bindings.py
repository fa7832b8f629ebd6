"""Find the TensorRT that is installed: its Python module, its version and its log."""

import functools
import importlib
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from edgeseg.backends.tensorrt.cuda import OLD_DRIVER, hint_for
from edgeseg.children import python_command, run_child
from edgeseg.errors import EngineError, MissingDependencyError

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

# What stands before the reason in an error: places in sources, the function, the kind. Behind it
# may stand the place once more.
_BEFORE_REASON = re.compile(r"^(\[[^\]]*\]\s*|[\w:~]+:\s+(?=Error Code \d)|Error Code \d+:\s*)+")
_BEHIND_REASON = re.compile(r"\s+\(In \S+ at \S+:\d+\)$|\s+In \S+ at \S+:\d+(?=\)?$)")
_CUDA_ERROR = re.compile(r"CUDA initialization failure with error: (\d+)")

# What TensorRT constructed although CUDA did not start. Its destructor ends the process, too, so it
# is kept.
_HOLLOW: list[Any] = []

# What a child process runs to see if TensorRT starts. It prints the reason, and what to do.
_START = """
from edgeseg.backends.tensorrt.bindings import library, start
from edgeseg.errors import EngineError
try:
    start(library(sys.argv[1]), "Builder")
except EngineError as error:
    print(error.got, error.hint or "", sep="\\n")
    sys.exit(1)
"""
_START_TIMEOUT_S = 60.0


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

    def last_error(self, since: int = 0) -> str:
        """Return the first error since ``heard``, without source positions; empty if there is none.

        The errors that follow the first one are its consequences.

        Parameters
        ----------
        since : number of messages to skip.
        """
        for message in self.messages[since:]:
            if message.severity == "error":
                return reason_of(message.text)
        return ""


def reason_of(text: str) -> str:
    """Return the reason in an error of TensorRT, without functions, codes and source positions.

    Parameters
    ----------
    text : the error as TensorRT logs it.

    Examples
    --------
    >>> reason_of("IBuilder::buildSerializedNetwork: Error Code 10: Internal Error (no tactic)")
    'Internal Error (no tactic)'
    """
    reason = _BEFORE_REASON.sub("", text.strip())
    return _BEHIND_REASON.sub("", reason)[:300]


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


def start(found: Library, name: str) -> Any:
    """Construct TensorRT's ``Builder`` or ``Runtime``.

    If CUDA does not start, some versions raise ``TypeError``. Others log an error and return an
    object whose methods, and whose destructor, end the process. So no method may be called after an
    error.

    Parameters
    ----------
    found : the imported TensorRT.
    name : ``Builder`` or ``Runtime``.

    Raises
    ------
    EngineError : TensorRT does not start.
    """
    known = len(found.log.messages)
    try:
        made = getattr(found.trt, name)(found.log.logger)
    except TypeError:  # "factory function returned nullptr"
        made = None

    reason = found.log.last_error(since=known)
    if made is None or reason:
        _HOLLOW.append(made)
        raise EngineError(
            f"{found.target} {found.version} does not start",
            got=reason or "no reason given",
            hint=hint_for(_cuda_error(reason)),
        )
    return made


def _cuda_error(reason: str) -> int | None:
    """Return the error code of CUDA in a reason; ``None`` if it has none."""
    code = _CUDA_ERROR.search(reason)
    return int(code[1]) if code else None


def why_not_starting(target: str, timeout_s: float = _START_TIMEOUT_S) -> tuple[str, str]:
    """Return why a TensorRT does not start, and what to do; both are empty if it starts.

    A child process tries it, because a TensorRT that does not fit the driver may end its process or
    never return.

    Parameters
    ----------
    target : ``tensorrt`` or ``tensorrt-rtx``; it must be installed.
    timeout_s : time limit.
    """
    try:
        done = run_child(python_command(_START, target), timeout_s=timeout_s)
    except subprocess.TimeoutExpired:
        return f"it takes longer than {timeout_s:.0f} s", hint_for(OLD_DRIVER)

    if done.returncode == 0:
        return "", ""
    if done.returncode < 0:
        return f"it ends its process by signal {-done.returncode}", hint_for(OLD_DRIVER)
    if done.stdout.count("\n") == 2:
        reason, hint = done.stdout.splitlines()
        return reason, hint or hint_for(OLD_DRIVER)
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return lines[-1], hint_for(OLD_DRIVER)


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
