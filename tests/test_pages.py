"""What the pages say is what there is: commands, options, links, programs.

A shell block that begins with three backticks and ``sh`` runs here, line by line, on the synthetic
drive. The other ones need data, a camera, PyTorch or a GPU: their commands and options are checked.
"""

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from commands import edgeseg
from paths import ROOT
from small_net import save_small_net
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


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the code blocks of a page in some languages; ``""`` is a block without a language."""
    found: list[str] = []
    lines: list[str] | None = None  # of the block that is open
    wanted = False
    for line in text_of(page).splitlines(keepends=True):
        if not line.startswith("```"):
            if lines is not None:
                lines.append(line)
        elif lines is None:
            lines, wanted = [], line[3:].strip() in languages
        else:
            if wanted:
                found.append("".join(lines))
            lines = None
    assert lines is None, f"{page}: a block has no end"
    return found


def commands(page: Path) -> list[str]:
    """Return every ``edgeseg ...`` of a page's shell blocks, without comments and pipes."""
    lines = "\n".join(blocks(page, "", "sh", "bash", "console")).replace("\\\n", " ").splitlines()
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
            assert anchor in map(anchor_of, headings), f"{page}: {target}"


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


RUN_PAGES = [page for page in PAGES if blocks(page, "sh")]


@pytest.mark.parametrize("page", RUN_PAGES, ids=str)
def test_shell_blocks_run(page: Path, tmp_path: Path) -> None:
    """Type every line of a page's ``sh`` blocks, where ``net.onnx`` is a small network."""
    save_small_net(tmp_path / "net.onnx")
    for line in "".join(blocks(page, "sh")).splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        assert words[0] == "edgeseg", line
        done = edgeseg(*words[1:], cwd=tmp_path)
        assert done.returncode == 0, f"{page}: {line}\n{done.stderr}"


def test_tutorials_have_lines_that_run() -> None:
    assert {"docs/tutorials/camera.md", "docs/tutorials/int8.md"} <= set(map(str, RUN_PAGES))


# Plain English: pages that a newcomer reads first.

FIRST_PAGES = [
    page
    for page in PAGES
    if page == Path("README.md") or page.is_relative_to(Path("docs") / "tutorials")
]
LONGEST_SENTENCE = 35  # words
SELLING = (
    "blazing", "cutting-edge", "easy", "easily", "effortless", "innovative", "lightning",
    "powerful", "revolutionary", "robust", "seamless", "simply", "state-of-the-art", "unleash",
    "world-class",
)  # fmt: skip


def sentences(text: str) -> list[str]:
    """Return the sentences of a page's prose: no code, no tables, no comments, no headings."""
    text = re.sub(r"^```.*?^```", "\n", text, flags=re.M | re.S)
    text = re.sub(r"<!--.*?-->", "\n", text, flags=re.S)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "\n", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    text = re.sub(r"^(?:\|.*|#.*)$", "\n", text, flags=re.M)
    text = re.sub(r"^\s*(?:[-*]|\d+\.) ", "\n\n", text, flags=re.M)

    found: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        words = " ".join(paragraph.split())
        found += [one for one in re.split(r"(?<=[.:;!?])(?:\*\*)? ", words) if one]
    return found


def test_sentences_are_found() -> None:
    text = (
        "# Head\n\nOne two. Three\nfour: five.\n\n- a [b](c.md)\n- d\n\n```\ncode\n```\n| table |\n"
    )
    assert sentences(text) == ["One two.", "Three four:", "five.", "a [b]", "d"]


@pytest.mark.parametrize("page", FIRST_PAGES, ids=str)
def test_sentences_are_short(page: Path) -> None:
    for sentence in sentences(text_of(page)):
        assert len(sentence.split()) <= LONGEST_SENTENCE, sentence


@pytest.mark.parametrize("page", FIRST_PAGES, ids=str)
def test_nothing_is_praised(page: Path) -> None:
    words = set(re.findall(r"[a-z-]+", text_of(page).lower()))
    assert not words & set(SELLING)


# Environment variables


def variables_of(folder: Path, suffixes: tuple[str, ...]) -> set[str]:
    """Return the names of edgeseg's variables that the programs of a folder read."""
    found: set[str] = set()
    for path in folder.rglob("*"):
        if path.suffix in suffixes and "src" not in path.parts:
            found |= set(re.findall(r"[\"$\'{](EDGESEG_[A-Z_]+)", path.read_text(encoding="utf-8")))
    return found


def test_every_environment_variable_is_documented() -> None:
    page = text_of(Path("docs/environment.md"))
    documented = set(re.findall(r"`(EDGESEG_[A-Z_]+)`", page))
    used = variables_of(ROOT / "edgeseg", (".py",)) | variables_of(ROOT / "jetson", (".py", ".sh"))
    assert {"EDGESEG_CACHE", "EDGESEG_TARGET", "EDGESEG_CUDA", "EDGESEG_ROOT"} <= used
    assert used <= documented

    everywhere = used | variables_of(ROOT / "tests", (".py",))
    everywhere |= set(re.findall(r"EDGESEG_[A-Z_]+", (ROOT / "Makefile").read_text("utf-8")))
    assert documented <= everywhere


def test_every_reader_of_data_is_documented() -> None:
    from edgeseg.data.base import READERS

    for name in READERS:
        assert f"`{name}:" in text_of(Path("docs/data.md")), name


def test_errors_of_the_catalogue_are_messages_of_the_program() -> None:
    """Find each part of a message in the package's own strings, joined where a line ends."""
    paths = (ROOT / "edgeseg").rglob("*.py")
    code = "".join(path.read_text(encoding="utf-8") for path in paths)
    code = re.sub(r'"\s*\n\s*f?"', "", code)

    rows = re.findall(r"^\| `([^`]+)` \|", text_of(Path("docs/errors.md")), re.M)
    assert len(rows) > 20
    for row in rows:
        for part in re.split(r"\s*\.\.\.\s*", row):
            assert part in code, row
