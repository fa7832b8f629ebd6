"""Make one table of many result files: of several machines, engines and commands."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from edgeseg.errors import CheckFailedError, EdgesegError, InputError
from edgeseg.files import write_bytes
from edgeseg.profiling.comparison import FORMAT as COMPARISON_FORMAT
from edgeseg.profiling.comparison import KIND as COMPARISON_KIND
from edgeseg.profiling.results import KIND as RESULT_KIND
from edgeseg.profiling.results import read_result

COLUMNS = (
    "machine",
    "engine",
    "target",
    "size",
    "mIoU",
    "p50 ms",
    "p95 ms",
    "frames/s",
    "W",
    "mJ/frame",
    "measured",
    "by",
    "file",
)
_NUMBERS = COLUMNS[4:10]
BEGIN = "<!-- edgeseg results: begin -->"
END = "<!-- edgeseg results: end -->"

Row = dict[str, str]


@dataclass
class Table:
    """Hold the rows of all files.

    Attributes
    ----------
    rows : a text per column, for every engine of every file; a column that is not known is missing.
    skipped : why a file is not in the table, by its name.
    """

    rows: list[Row] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that some row fills."""
        return tuple(name for name in COLUMNS if any(row.get(name) for row in self.rows))

    def cells(self) -> list[list[str]]:
        """Return the rows as lists of texts, in the order of ``columns``."""
        return [[row.get(name, "") for name in self.columns] for row in self.rows]


def read_results(folder: Path) -> Table:
    """Read all results in a folder and the folders in it.

    These are the JSON files of ``edgeseg profile`` and ``edgeseg compare``. Other JSON files are
    skipped, and named in ``Table.skipped``.

    Parameters
    ----------
    folder : the folder.

    Raises
    ------
    InputError : there is no such folder, or no result in it.
    """
    if not folder.is_dir():
        raise InputError("no such folder of results", got=str(folder))
    table = Table()
    for path in sorted(folder.rglob("*.json")):
        name = path.relative_to(folder).as_posix()
        try:
            table.rows += _rows(path, name)
        except EdgesegError as error:
            table.skipped[name] = str(error).removeprefix(f"{path}: ").rstrip(".")
    if not table.rows:
        got = f"{len(table.skipped)} other JSON files" if table.skipped else "no JSON file"
        raise InputError(
            f"{folder}: no result in this folder",
            got=got,
            expected="files of `profile(ENGINE, json=FILE)` or `compare(ENGINE, json=FILE)`",
        )
    table.rows.sort(key=lambda row: (row["machine"], row["engine"], row["file"]))
    return table


def _rows(path: Path, name: str) -> list[Row]:
    """Return the rows of a file; raise ``InputError`` if it is no result."""
    try:
        facts = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError("cannot be read", got=error) from error

    kind = facts.get("kind") if isinstance(facts, dict) else None
    if kind == RESULT_KIND:
        return _of_result(path, name)
    if kind == COMPARISON_KIND:
        try:
            return _of_comparison(facts, name)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError("the comparison is damaged", got=repr(error)) from error
    raise InputError("is no result", got=f"kind {kind!r}")


def _of_result(path: Path, name: str) -> list[Row]:
    """Return a row per engine of a profile."""
    result = read_result(path)
    rows: list[Row] = []
    for record in result.engines:
        engine = record.engine
        speeds = [one.frames_per_s for one in record.throughput]
        row = _row(result.machine, engine.id, engine.target, engine.input_size)
        row |= {
            "mIoU": _number(record.miou, 100),
            "p50 ms": _number(record.latency.ms_p50),
            "p95 ms": _number(record.latency.ms_p95),
            "frames/s": _number(max(speeds, default=None), digits=1),
            "measured": result.measured_at[:10],
            "by": result.measurement,
            "file": name,
        }
        if record.power is not None:
            row["W"] = _number(record.power.gross_w)
            row["mJ/frame"] = _number(record.power.gross_mj_per_frame, digits=1)
        rows.append(row)
    return rows


def _of_comparison(facts: dict[str, Any], name: str) -> list[Row]:
    """Return a row per engine of a comparison."""
    if facts["format"] != COMPARISON_FORMAT:
        raise InputError(
            "another version of the format", got=facts["format"], expected=COMPARISON_FORMAT
        )
    rows: list[Row] = []
    for engine in facts["engines"]:
        row = _row(facts["machine"], engine["id"], engine["target"], engine["input_size"])
        row |= {
            "mIoU": _number(engine.get("miou"), 100),
            "p50 ms": _number(engine["latency_ms_p50"]),
            "p95 ms": _number(engine["latency_ms_p95"]),
            "by": "compare",
            "file": name,
        }
        rows.append(row)
    return rows


def _row(machine: dict[str, Any], key: str, target: str, size: Sequence[int]) -> Row:
    """Return the columns that every kind of result has."""
    name = str(machine.get("gpu") or machine.get("cpu") or "unknown")
    return {"machine": name, "engine": key, "target": target, "size": "x".join(map(str, size))}


def _number(value: float | None, factor: float = 1, digits: int = 2) -> str:
    """Return a number as text; nothing if it is not known."""
    return "" if value is None else f"{factor * value:.{digits}f}"


def as_csv(table: Table) -> str:
    """Return the table as CSV.

    Parameters
    ----------
    table : the rows.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([table.columns, *(map(_harmless, row) for row in table.cells())])
    return out.getvalue()


def _harmless(text: str) -> str:
    """Return a cell that a spreadsheet does not take for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def as_markdown(table: Table) -> str:
    """Return the table in Markdown.

    Parameters
    ----------
    table : the rows.
    """
    lines = [table.columns, ["--:" if one in _NUMBERS else "---" for one in table.columns]]
    lines += [[cell.replace("|", "\\|") for cell in row] for row in table.cells()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_html(table: Table) -> str:
    """Return the table as a page of its own, without any script.

    Parameters
    ----------
    table : the rows.
    """
    head = _html_row("th", table.columns, table.columns)
    body = "".join(_html_row("td", row, table.columns) for row in table.cells())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Results</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<style>:root{color-scheme:light dark}body{font:14px/1.5 system-ui,sans-serif;margin:16px}"
        "div{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
        "th,td{padding:4px 10px;text-align:left;border-bottom:1px solid #8886;white-space:nowrap}"
        ".n{text-align:right}</style>"
        f'<div tabindex="0"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'
        "</html>\n"
    )


def _html_row(tag: str, cells: Iterable[str], columns: Sequence[str]) -> str:
    """Return a row; numbers stand at the right."""
    parts: list[str] = []
    for cell, column in zip(cells, columns, strict=True):
        css = ' class="n"' if column in _NUMBERS else ""
        parts.append(f"<{tag}{css}>{escape(cell)}</{tag}>")
    return f"<tr>{''.join(parts)}</tr>\n"


FORMS: dict[str, Callable[[Table], str]] = {"csv": as_csv, "html": as_html, "md": as_markdown}


def put_into(page: Path, table: Table, *, check: bool = False) -> bool:
    """Put the table between two marks of a Markdown page; return True if the page changed.

    The marks are ``BEGIN`` and ``END``, each on a line of its own.

    Parameters
    ----------
    page : the page, such as a README.
    table : the rows.
    check : change nothing; raise an error if the page would change.

    Raises
    ------
    InputError : the page cannot be read, or has not both marks.
    CheckFailedError : ``check`` is True, and the page's table is not that of the results.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{page}: cannot be read", got=error.strerror) from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{page}: has no place for the table", expected=f"{BEGIN} and {END}")

    wanted = f"{before}{BEGIN}\n\n{as_markdown(table)}\n{END}{after}"
    if wanted == text:
        return False
    if check:
        raise CheckFailedError(
            f"{page}: the table is not that of the results", hint="Leave `check` out to renew it."
        )
    write_bytes(page, wanted.encode())
    return True
