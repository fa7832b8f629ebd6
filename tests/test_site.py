"""The site of the documentation builds without a warning, and loads nothing from elsewhere."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(module, reason="the extra docs is not installed")
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return out


def test_every_page_is_in_the_site(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file(), page
    for name in ("index", "contributing", "changelog", "security", "jetson", "examples"):
        assert (site / f"{name}.html").is_file()


def test_links_and_pictures_lead_to_files_of_the_site(site: Path) -> None:
    count = 0
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r'(?:href|src)="([^"]+)"', text):
            path = link.partition("#")[0].partition("?")[0]
            if path and not re.match(r"[a-z]+:|/", path) and page.name != "404.html":
                assert (page.parent / path).exists(), f"{page}: {link}"
                count += 1
    assert count > 500


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r'src="(?:https?:)?//', text), page
        assert not re.search(r'<link[^>]+href="(?:https?:)?//', text), page


def test_search_knows_the_pages(site: Path) -> None:
    index: Any = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    texts = {entry["location"]: entry["text"] for entry in index["docs"]}
    assert any("unpooling" in text.lower() for text in texts.values())
    assert any(location.startswith("reference/cli.html#edgeseg-segment") for location in texts)


def test_api_page_shows_parameters_with_type_and_meaning(site: Path) -> None:
    text = (site / "reference" / "api.html").read_text(encoding="utf-8")
    words = " ".join(re.sub(r"<[^>]+>", " ", text).split())
    assert "an ONNX file, float or quantized" in words
    assert "``" not in words


def test_docstrings_become_numpydoc() -> None:
    pytest.importorskip("griffe", reason="the extra docs is not installed")
    numpydoc = runpy.run_path(str(ROOT / "docs" / "docstrings.py"))["numpydoc"]
    text = """Do it.

Parameters
----------
a, b : two sides : both,
    in pixels.

Returns
-------
The area.

In pixels.

Raises
------
InputError : bad.
Any exception of the source
is raised again.
"""
    wanted = """Do it.

Parameters
----------
a, b
    two sides : both,
    in pixels.

Returns
-------
int
    The area.

    In pixels.

Raises
------
InputError
    bad.
Exception
    Any exception of the source
    is raised again.
"""
    assert numpydoc(text, "int").rstrip() == wanted.rstrip()
