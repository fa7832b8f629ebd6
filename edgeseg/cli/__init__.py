"""Run the ``edgeseg`` command line: each command parses, calls one stage's function, and prints.

A stage is imported only when its command runs, so that ``edgeseg --help`` is fast.
"""

import contextlib
import inspect
import io
import re
import signal
import sys

import typer

from edgeseg.cli.app import app
from edgeseg.cli.console import say_error, stderr
from edgeseg.cli.options import joined_channels
from edgeseg.errors import EdgesegError, did_you_mean

# One line per command, in the order of `edgeseg --help`, which is the order of the data flow.
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

# UsageError of click, or of the copy of click inside newer versions of typer. This finds either.
_UsageError: type[typer.BadParameter] = typer.BadParameter.__bases__[0]


def _set_help() -> None:
    """Make the docstring of each command its help, one line per paragraph.

    typer would keep the line breaks of the source, which do not fit the width of the terminal.
    """
    for command in app.registered_commands:
        paragraphs = inspect.getdoc(command.callback) or ""
        lines = [" ".join(paragraph.split()) for paragraph in paragraphs.split("\n\n")]
        command.help = "\n\n".join(lines)


_set_help()


def main() -> None:
    """Run the command line, and exit with its code.

    An expected error is printed as one line and has its own exit code; a bug keeps its traceback.
    """
    _prepare_streams_and_signals()
    try:
        code = app(args=joined_channels(sys.argv[1:]), standalone_mode=False)
        if code == INTERRUPTED:  # typer's code for Ctrl-C; older versions raise Abort
            raise KeyboardInterrupt
        sys.exit(code)  # None, or the code of a typer.Exit
    except EdgesegError as error:
        say_error(str(error))
        sys.exit(error.exit_code)
    except _UsageError as error:
        problem = error.format_message()  # empty if help was printed because of no arguments
        if problem:
            say_error(_usage(problem, error.ctx.command_path if error.ctx else "edgeseg"))
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


def _prepare_streams_and_signals() -> None:
    """Print names that the terminal cannot encode, and let SIGTERM end a run as Ctrl-C does."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")

    # Outside the main thread this fails: a program that embeds edgeseg handles its own signals.
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(*_: object) -> None:
    """Raise what Ctrl-C raises, so that a recording keeps its frames."""
    raise KeyboardInterrupt


def _usage(problem: str, command: str) -> str:
    """Return one line: what is wrong with a call, and the command that shows the help."""
    text = " ".join(problem.split()).replace("Value error, ", "")
    text = text[0].lower() + text[1:]
    if text[-1] not in ".?":
        text += "."

    unknown = re.match(r"no such command '([^']*)'\.$", text)
    choice = re.search(r"'([^']*)' is not one of (.*)\.$", text)
    if unknown:
        text += did_you_mean(unknown[1], _command_names())
    elif choice:
        text += did_you_mean(choice[1], re.findall(r"'([^']*)'", choice[2]))
    return f"{text} See: {command} --help"


def _command_names() -> list[str]:
    """Return the names of all commands, as they are typed."""
    names: list[str] = []
    for command in app.registered_commands:
        name = command.name or str(getattr(command.callback, "__name__", ""))
        names.append(name.replace("_", "-"))
    return names
