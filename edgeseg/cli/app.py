"""Hold the program: one ``typer`` app that every command registers itself with."""

import inspect
from collections.abc import Callable
from typing import Annotated

import typer

from edgeseg.version import __version__

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Semantic segmentation from PyTorch to a live camera on a small machine.",
)


def command(name: str | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that registers a function as a command of the program.

    The docstring of the function is the command's help, with one line per paragraph: typer would
    keep the line breaks of the source, which do not fit the width of the terminal.

    Parameters
    ----------
    name : the command's name; None for the name of the function.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        paragraphs = (inspect.getdoc(function) or "").split("\n\n")
        lines = [" ".join(paragraph.split()) for paragraph in paragraphs]
        return app.command(name, help="\n\n".join(lines))(function)

    return register


def command_names() -> list[str]:
    """Return the names of all registered commands, as they are typed."""
    names: list[str] = []
    for info in app.registered_commands:
        name = info.name or str(getattr(info.callback, "__name__", ""))
        names.append(name.replace("_", "-"))
    return names


def _show_version(wanted: bool) -> None:
    """Print the version and exit if ``--version`` was given."""
    if wanted:
        print(f"edgeseg {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Define the options of the program itself."""
