"""``doctor``: this machine."""

from edgeseg.cli.common import app, escape, stdout
from edgeseg.errors import MissingDependencyError


@app.command()
def doctor() -> None:
    """Say what this machine can run, what is missing, and the line that installs it."""
    from rich.table import Table

    from edgeseg.doctor import examine

    table = Table()
    for heading in ("part", "", "found", "if you need it"):
        table.add_column(heading, overflow="fold")
    findings = examine()
    for f in findings:
        mark = "[green]ok[/]" if f.ok else "[bold red]missing[/]" if f.needed else "[dim]no[/]"
        table.add_row(f.part, mark, escape(f.found), escape(f.hint))
    stdout().print(table)
    if broken := [f.part for f in findings if f.needed and not f.ok]:
        raise MissingDependencyError(
            f"cannot run engines here: {', '.join(broken)}", hint="The last column says what to do."
        )
