"""Check progress where no bar can be drawn."""

import pytest

from edgeseg.cli import console


def test_a_line_every_ten_seconds_off_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr("edgeseg.cli.console.time.monotonic", lambda: now[0])
    with console.ConsoleReporter() as reporter:
        for done in range(61):
            now[0] += 0.5
            reporter.progress("segment", done, None)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"segment: {done}, 2.0 per second" for done in (20, 40, 60)]


def test_a_task_of_known_length_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("edgeseg.cli.console.time.monotonic", lambda: now[0])
    with console.ConsoleReporter() as reporter:
        for done in (0, 1, 2):
            reporter.progress("calibrate", done, 2)
            now[0] += 20
    assert capsys.readouterr().err.splitlines() == [
        "calibrate: 1 of 2, 0.1 per second",
        "calibrate: 2 of 2, 0.1 per second",
    ]
