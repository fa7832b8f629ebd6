"""Write the result of a command as JSON, to the file of ``--json`` or to standard output."""

from pathlib import Path

from edgeseg.cli import console

STDOUT = Path("-")  # stands for standard output where a file is expected


def json_target(path: Path | None) -> Path | None:
    """Print all results on standard error if the JSON goes to standard output; return ``path``.

    typer calls it as soon as it has read ``--json``, before the command prints anything.

    Parameters
    ----------
    path : the file; None if the option was not used, ``STDOUT`` for standard output.
    """
    if path == STDOUT:
        console.print_to_stderr(True)
    return path


def require_json(path: Path | None, *others: Path | None) -> None:
    """Check that the JSON of ``--json`` can be written.

    Parameters
    ----------
    path : the file; None if the option was not used, ``STDOUT`` for standard output.
    others : the command's inputs and other outputs, which the JSON must not replace.

    Raises
    ------
    OutputError : the file cannot be written, or it is one of the others.
    """
    from edgeseg.files import require_json_output

    if path is not None and path != STDOUT:
        require_json_output(path, *others)


def write_report(path: Path | None, facts: object) -> None:
    """Write facts as JSON to the file of ``--json``, or to standard output.

    Parameters
    ----------
    path : the file; None to write nothing, ``STDOUT`` for standard output.
    facts : what ``json`` can write.
    """
    from edgeseg.files import json_text, write_json

    if path is None:
        return
    if path == STDOUT:
        print(json_text(facts), end="")
    else:
        write_json(path, facts)
