"""The reference pages are what the program itself says."""

import re
import runpy
from typing import Any

import pytest
from paths import ROOT

from edgeseg.cli.app import command_names
from edgeseg.training.recipe import AugmentSection, Recipe

REFERENCE = ROOT / "docs" / "reference"
PAGES = ("cli.md", "api.md", "recipe.md", "passport.md")


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "make_reference.py"))


@pytest.mark.parametrize("name", PAGES)
def test_page_is_current(name: str, script: dict[str, Any]) -> None:
    written = script["pages"]()[name]
    assert (REFERENCE / name).read_text(encoding="utf-8") == written, (
        "run: python docs/make_reference.py"
    )


def test_every_page_is_written_by_the_script(script: dict[str, Any]) -> None:
    assert sorted(script["pages"]()) == sorted(PAGES)


def test_every_command_and_every_key_is_there() -> None:
    text = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    for name in command_names():
        assert f"## edgeseg {name}\n" in text

    text = (REFERENCE / "recipe.md").read_text(encoding="utf-8")
    for section, field in Recipe.model_fields.items():
        for key in getattr(field.annotation, "model_fields", {section: None}):
            assert f"| `{key}` |" in text or f"## [[{key}]]" in text


def test_every_key_has_a_meaning() -> None:
    for name in ("recipe.md", "passport.md"):
        text = (REFERENCE / name).read_text(encoding="utf-8")
        assert not re.findall(r"^\| `\w+` \|.*\|\s+\|$", text, re.M), name


def test_docstrings_are_read_to_their_end(script: dict[str, Any]) -> None:
    meanings = script["attributes"](AugmentSection)
    assert set(meanings) == set(AugmentSection.model_fields)
    assert meanings["contrast"] == meanings["brightness"] == "largest relative change."
    assert meanings["mix"].endswith("comes from another drive.")
