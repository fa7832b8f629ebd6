"""What the pages say is what there is: commands, options, links, programs."""

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from paths import ROOT
from typer.testing import CliRunner

from edgeseg.cli import app

PAGES = sorted(
    path.relative_to(ROOT)
    for path in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("*/README.md"),
    ]
    if not path.is_relative_to(ROOT / "docs" / "site")
)


def text_of(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page; ``language`` is empty for commands of a shell."""
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.M | re.S)
    return found


def commands(page: Path) -> list[str]:
    """Return every ``edgeseg ...`` of a page's shell blocks, without comments and pipes."""
    lines = "\n".join(blocks(page, "(?:sh|bash|console)?")).replace("\\\n", " ").splitlines()
    found: list[str] = []
    for line in lines:
        for part in re.split(r"\s\|\s|&&", re.sub(r"(^|\s)#.*", "", line)):
            if part.strip().startswith("edgeseg "):
                found.append(part.strip())
    return found


@cache
def help_of(*names: str) -> str:
    result = CliRunner().invoke(app, [*names, "--help"], env={"COLUMNS": "220", "TERM": "dumb"})
    assert result.exit_code == 0, f"there is no command: edgeseg {' '.join(names)}"
    return result.output


@pytest.mark.parametrize(
    ("page", "line"),
    [(page, line) for page in PAGES for line in commands(page)],
    ids=lambda value: str(value),
)
def test_commands_and_options_exist(page: Path, line: str) -> None:
    words = shlex.split(line)[1:]
    if words[0].startswith("-"):
        shown = help_of()
    else:
        shown = help_of(words[0])
        if re.search(r"COMMAND \[ARGS\]", shown):
            shown = help_of(words[0], words[1])
    for option in (word for word in words if re.fullmatch(r"--?[a-z][a-z-]*", word)):
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", shown), f"{page}: {line}: {option}"


def anchor_of(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if anchor and path.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
            anchors = {
                re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings
            }
            assert anchor in anchors, f"{page}: {target}"


PROGRAMS = [
    (page, number)
    for page in PAGES
    if page != Path("README.md")  # its programs have tests of their own
    for number in range(len(blocks(page, "python")))
]


@pytest.mark.parametrize(("page", "number"), PROGRAMS, ids=lambda value: str(value))
def test_programs_run(page: Path, number: int, tmp_path: Path) -> None:
    program = blocks(page, "python")[number]
    if program.startswith("# not run: "):
        pytest.skip(program.splitlines()[0])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
