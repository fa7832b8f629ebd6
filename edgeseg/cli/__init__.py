"""The ``edgeseg`` command: parses, calls one function a stage, prints. Stages are imported when they are called."""

import contextlib
import io
import re
import signal
import sys

import typer

from edgeseg.cli.app import app
from edgeseg.cli.console import say_error, stderr
from edgeseg.cli.options import joined_channels
from edgeseg.errors import EdgesegError, did_you_mean

# One line per command, in the order of `edgeseg --help`: the way of the data.
# isort: off
from edgeseg.cli import models as models
from edgeseg.cli import train as train
from edgeseg.cli import lr_find as lr_find
from edgeseg.cli import export as export
from edgeseg.cli import qat as qat
from edgeseg.cli import make as make
from edgeseg.cli import calibrate as calibrate
from edgeseg.cli import sensitivity as sensitivity
from edgeseg.cli import build_engine as build_engine
from edgeseg.cli import build_plugin as build_plugin
from edgeseg.cli import segment as segment
from edgeseg.cli import demo as demo
from edgeseg.cli import evaluate as evaluate
from edgeseg.cli import compare as compare
from edgeseg.cli import doctor as doctor
# isort: on

__all__ = ["app", "main"]

INTERRUPTED = 130  # 128 + SIGINT, as shells report it

# UsageError: click's, or typer's own copy of it since typer brings one. This reaches either.
_UsageError: type[typer.BadParameter] = typer.BadParameter.__bases__[0]


def main() -> None:
    """Run the command line; the errors people meet are one line and their own exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a name the terminal cannot spell is no reason to fail
    with contextlib.suppress(ValueError):  # not the main thread: an embedding program handles its own signals
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(args=joined_channels(sys.argv[1:]), standalone_mode=False)  # None, or the code of a typer.Exit
        if code == INTERRUPTED:  # what typer makes of Ctrl-C; an older one makes it an Abort
            raise KeyboardInterrupt
        sys.exit(code)
    except EdgesegError as error:
        say_error(str(error))
        sys.exit(error.exit_code)
    except _UsageError as error:
        if what := error.format_message():  # empty where the help was asked for by no arguments; it is printed by now
            say_error(_usage(what, error.ctx.command_path if error.ctx else "edgeseg"))
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        say_error(f"{error.filename}: {error.strerror}.")
        sys.exit(EdgesegError.exit_code)
    except (KeyboardInterrupt, typer.Abort) as error:
        interrupted = isinstance(error.__cause__ or error, KeyboardInterrupt)
        stderr().print("interrupted" if interrupted else "aborted")
        sys.exit(INTERRUPTED if interrupted else 1)


def _interrupt(*_: object) -> None:
    """SIGTERM ends a run as Ctrl-C does: what is recorded so far is kept."""
    raise KeyboardInterrupt


def _usage(what: str, command: str) -> str:
    """Return one line: what is wrong with a call, and where to look."""
    what = " ".join(what.split())
    what = what[0].lower() + what[1:] + ("" if what[-1] in ".?" else ".")

    unknown = re.match(r"no such command '([^']*)'\.$", what)
    if unknown:
        what += did_you_mean(unknown[1], _command_names())
    return f"{what} See: {command} --help"


def _command_names() -> list[str]:
    names = (command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands)
    return [name.replace("_", "-") for name in names]
