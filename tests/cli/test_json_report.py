"""Check where the JSON of a command goes, and what it must not replace."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeseg.cli import console
from edgeseg.cli.json_report import STDOUT, json_target, require_json, write_report
from edgeseg.errors import OutputError

FACTS = {"frames": 3, "name": "enet"}


@pytest.fixture(autouse=True)
def results_on_standard_output() -> Iterator[None]:
    """Print results on standard output after a test."""
    yield
    console.print_to_stderr(False)


def test_facts_are_written_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "facts.json"
    write_report(path, FACTS)
    assert json.loads(path.read_text()) == FACTS
    assert capsys.readouterr().out == ""


def test_a_dash_is_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    write_report(STDOUT, FACTS)
    assert json.loads(capsys.readouterr().out) == FACTS


def test_nothing_is_written_without_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    require_json(None)
    write_report(None, FACTS)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("path", "stream"), [(STDOUT, "err"), (None, "out"), (Path("facts.json"), "out")]
)
def test_results_leave_standard_output_to_the_json(
    path: Path | None, stream: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert json_target(path) == path
    console.stdout().print("a result")
    assert getattr(capsys.readouterr(), stream) == "a result\n"


def test_json_does_not_replace_what_a_command_uses(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    require_json(path, tmp_path / "other.json", None)
    require_json(STDOUT, STDOUT)
    with pytest.raises(OutputError, match="in use by this command"):
        require_json(path, tmp_path / "." / "facts.json")
    with pytest.raises(OutputError, match="not the name of a JSON file"):
        require_json(tmp_path / "facts.txt")
