"""Define ``doctor``: report what this machine can run."""

from dataclasses import asdict, replace

from edgeseg.cli.app import command
from edgeseg.cli.console import escape, stdout
from edgeseg.cli.json_report import require_json, write_report
from edgeseg.cli.options import Json
from edgeseg.cli.spelling import as_options
from edgeseg.doctor import Finding
from edgeseg.errors import MissingDependencyError


@command()
def doctor(json_file: Json = None) -> None:
    """Show what this machine can run, what is missing, and how to install it."""
    from edgeseg.doctor import examine

    require_json(json_file)
    findings = [_spelled(finding) for finding in examine()]
    _print_findings(findings)
    write_report(json_file, {"parts": [asdict(finding) for finding in findings]})

    broken = [finding.part for finding in findings if finding.needed and not finding.ok]
    if broken:
        raise MissingDependencyError(
            f"engines cannot run here without: {', '.join(broken)}",
            hint="The last column of the table says what to do.",
        )


def _spelled(finding: Finding) -> Finding:
    """Return the finding with parameters spelled as options; it is printed and written as JSON."""
    return replace(finding, found=as_options(finding.found), hint=as_options(finding.hint))


def _print_findings(findings: list[Finding]) -> None:
    """Print one row per part of the machine."""
    from rich.table import Table

    table = Table()
    for heading in ("part", "", "found", "what to do"):
        table.add_column(heading, overflow="fold")

    for finding in findings:
        if finding.ok:
            mark = "[green]ok[/]"
        elif finding.needed:
            mark = "[bold red]missing[/]"
        else:
            mark = "[dim]no[/]"
        table.add_row(finding.part, mark, escape(finding.found), escape(finding.hint))
    stdout().print(table)
