"""One table of many result files, from comparisons and profiles that were really measured."""

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import edgeseg

from edgeseg.commands import compare
from edgeseg.errors import CheckFailedError, InputError
from edgeseg.profiling.result_table import (
    BEGIN,
    END,
    as_csv,
    as_html,
    as_markdown,
    put_into,
    read_results,
)

DRIVE = "synthetic://?length=3&size=96x64"


@pytest.fixture(scope="module")
def folder(small_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison, a profile of another machine, and two files that are none."""
    root = tmp_path_factory.mktemp("results")
    net = f"{small_onnx}@fp32"
    (root / "here.json").write_text(json.dumps(compare([net], DRIVE, rounds=1).to_dict()))
    done = edgeseg("profile", net, "--data", DRIVE, "--seconds", "0.2", "--json", root / "p.json")
    assert done.returncode == 0, done.stderr
    facts = json.loads((root / "p.json").read_text())
    facts["machine"]["cpu"] = "Another | processor"
    (root / "deep").mkdir()
    (root / "deep" / "there.json").write_text(json.dumps(facts))
    (root / "p.json").write_text("{}")
    (root / "damaged.json").write_text("{")
    return root


def load(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def test_rows_are_the_figures_of_the_files(folder: Path) -> None:
    table = read_results(folder)
    there, here = sorted(table.rows, key=lambda row: row["file"])
    assert (there["file"], here["file"]) == ("deep/there.json", "here.json")

    engine = load(folder / "here.json")["engines"][0]
    assert here["mIoU"] == f"{100 * engine['miou']:.2f}"
    assert here["p50 ms"] == f"{engine['latency_ms_p50']:.2f}"
    record = load(folder / "deep" / "there.json")["engines"][0]
    assert there["p95 ms"] == f"{record['latency']['ms_p95']:.2f}"
    assert there["machine"] == "Another | processor"
    assert there["by"] == "profile"
    assert set(table.skipped) == {"p.json", "damaged.json"}
    assert "is no result" in table.skipped["p.json"]


def test_three_forms_hold_the_same_cells(folder: Path) -> None:
    table = read_results(folder)
    header, *rows = list(csv.reader(io.StringIO(as_csv(table))))
    assert header == list(table.columns)
    assert rows == table.cells()

    lines = as_markdown(table).splitlines()
    assert len(lines) == 2 + len(rows)
    assert all(line.replace("\\|", "").count("|") == len(header) + 1 for line in lines)
    page = as_html(table)
    for row in rows:
        for cell in row:
            assert f">{cell}</td>" in page


def test_cells_are_text_for_browsers_and_spreadsheets(folder: Path) -> None:
    table = read_results(folder)
    table.rows[0]["machine"] = "<script>=1"
    assert "<script>" not in as_html(table)
    table.rows[0]["machine"] = "=HYPERLINK(1)"
    assert "'=HYPERLINK(1)" in as_csv(table)


def test_a_page_is_renewed_and_checked(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nrest\n")
    table = read_results(folder)
    with pytest.raises(CheckFailedError, match="not that of the results"):
        put_into(page, table, check=True)
    assert put_into(page, table)
    assert not put_into(page, table, check=True)
    text = page.read_text()
    assert text.startswith("# Title\n")
    assert text.endswith(f"{END}\n\nrest\n")
    assert as_markdown(table) in text

    page.write_text("no marks")
    with pytest.raises(InputError, match="no place"):
        put_into(page, table)


def test_command(folder: Path, tmp_path: Path) -> None:
    done = edgeseg("results", folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout == as_markdown(read_results(folder))
    assert "skipped: damaged.json" in done.stderr

    for suffix in ("csv", "md", "html"):
        done = edgeseg("results", folder, "-o", tmp_path / f"t.{suffix}")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / f"t.{suffix}").stat().st_size > 100

    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}\n{END}\n")
    assert edgeseg("results", folder, "--into", page, "--check").returncode == 1
    assert edgeseg("results", folder, "--into", page).returncode == 0
    assert edgeseg("results", folder, "--into", page, "--check").returncode == 0


def test_wrong_use_is_told(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "p.json", tmp_path / "p.json")
    for arguments, says in (
        ([tmp_path / "absent"], "no such folder"),
        ([tmp_path], "no result in this folder: got 1 other JSON files"),
        ([folder, "-o", tmp_path / "t.txt"], ".csv, .md or .html"),
        ([folder, "--check"], "--into"),
    ):
        done = edgeseg("results", *arguments)
        assert done.returncode == 2
        assert says in " ".join(done.stderr.split())
