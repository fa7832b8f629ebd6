"""``doctor``: this machine."""

from dataclasses import asdict, replace

from edgeseg.cli.app import app
from edgeseg.cli.console import escape, stdout
from edgeseg.cli.options import Json, require_json, write_report
from edgeseg.cli.spelling import as_options
from edgeseg.errors import MissingDependencyError


@app.command()
def doctor(json_file: Json = None) -> None:
    """Say what this machine can run, what is missing, and the line that installs it."""
    from rich.table import Table

    from edgeseg.doctor import examine

    table = Table()
    for heading in ("part", "", "found", "if you need it"):
        table.add_column(heading, overflow="fold")
    require_json(json_file)
    findings = [replace(f, found=as_options(f.found), hint=as_options(f.hint)) for f in examine()]
    for f in findings:
        mark = "[green]ok[/]" if f.ok else "[bold red]missing[/]" if f.needed else "[dim]no[/]"
        table.add_row(f.part, mark, escape(f.found), escape(f.hint))
    stdout().print(table)
    write_report(json_file, {"parts": [asdict(finding) for finding in findings]})
    if broken := [f.part for f in findings if f.needed and not f.ok]:
        raise MissingDependencyError(
            f"cannot run engines here: {', '.join(broken)}", hint="The last column says what to do."
        )
