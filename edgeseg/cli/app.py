"""Hold the program: one ``typer`` app that every command registers itself with."""

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
