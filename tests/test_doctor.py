"""Check what ``edgeseg doctor`` finds on this machine, and what it advises."""

import pytest

from edgeseg import doctor
from edgeseg.cli.spelling import as_options


def test_everything_that_is_needed_is_there() -> None:
    assert [finding for finding in doctor.examine() if finding.needed and not finding.ok] == []


def test_each_missing_part_has_advice() -> None:
    for finding in doctor.examine():
        assert finding.found
        assert finding.ok or finding.hint
        assert "`" not in as_options(finding.hint)


def test_a_package_that_is_not_installed_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "_version", lambda *packages: None)
    (plots,) = [finding for finding in doctor.examine() if finding.part == "plots"]
    assert (plots.ok, plots.found) == (False, "not installed")
    assert plots.hint == 'pip install "edgeseg[train]"'
