"""Define ``results``: one table of many result files."""

from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.app import command
from edgeseg.cli.console import escape, stderr, stdout
from edgeseg.errors import InputError, OutputError


@command()
def results(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="Folder of JSON files of edgeseg profile and edgeseg compare."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="File to write: .csv, .md or .html. Default: Markdown on standard output.",
        ),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            metavar="PAGE.md",
            help="Put the table into a Markdown page, between the lines "
            "'<!-- edgeseg results: begin -->' and '<!-- edgeseg results: end -->'.",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="With --into: change nothing; exit with 1 if the page is out of date."
        ),
    ] = False,
) -> None:
    """Make one table of many result files, of any number of machines: CSV, Markdown or HTML."""
    from edgeseg.files import write_bytes
    from edgeseg.profiling.result_table import FORMS, as_markdown, put_into, read_results

    if check and into is None:
        raise InputError("--check works only with --into", hint="Give --into PAGE.md.")
    form = "md" if out is None else out.suffix.lower().removeprefix(".")
    if form not in FORMS:
        raise OutputError(
            f"{out}: not the name of a table", expected="a name that ends in .csv, .md or .html"
        )

    table = read_results(folder)
    for name, reason in table.skipped.items():
        stderr().print(escape(f"skipped: {name}: {reason}"), style="dim", soft_wrap=True)

    console = stdout()
    if out is not None:
        write_bytes(out, FORMS[form](table).encode())
        console.print(escape(f"{out}: {len(table.rows)} rows"), soft_wrap=True, highlight=False)
    if into is not None:
        is_new = put_into(into, table, check=check)
        said = "renewed" if is_new else "up to date"
        console.print(escape(f"{into}: {said}"), soft_wrap=True, highlight=False)
    if out is None and into is None:
        print(as_markdown(table), end="")
