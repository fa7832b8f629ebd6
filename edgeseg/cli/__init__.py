"""Run the ``edgeseg`` command line: each command parses, calls one stage's function, and prints.

A stage is imported only when its command runs, so that ``edgeseg --help`` is fast.
"""

import contextlib
import io
import signal
import sys

import typer

from edgeseg.cli.app import app
from edgeseg.cli.console import print_to_stderr, say_error, stderr
from edgeseg.cli.parsing import joined_channels
from edgeseg.cli.usage import usage_error
from edgeseg.errors import EdgesegError

# Importing a module registers its command with the app. `edgeseg --help` lists the commands in the
# order of these lines, which is the order of the data flow.
# isort: off
from edgeseg.cli import models as models
from edgeseg.cli import data as data
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
from edgeseg.cli import profile as profile
from edgeseg.cli import report as report
from edgeseg.cli import results as results
from edgeseg.cli import latency_test as latency_test
from edgeseg.cli import doctor as doctor
# isort: on

__all__ = ["app", "main"]

INTERRUPTED = 130  # 128 + SIGINT, as shells report it

# UsageError of click, or of the copy of click inside newer versions of typer. This finds either.
_UsageError: type[typer.BadParameter] = typer.BadParameter.__bases__[0]


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
            command = error.ctx.command_path if error.ctx else "edgeseg"
            say_error(usage_error(problem, command))
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
    """Print names that the terminal cannot encode, and let SIGTERM end a run as Ctrl-C does.

    Results go to standard output again, wherever a command before in this process sent them.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    print_to_stderr(False)

    # Outside the main thread this fails: a program that embeds edgeseg handles its own signals.
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(*_: object) -> None:
    """Raise what Ctrl-C raises, so that a recording keeps its frames."""
    raise KeyboardInterrupt
