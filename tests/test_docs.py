"""Every example in a docstring runs, and every public name of the package's face can be learnt from
`help()`.
"""

import doctest
import importlib
import inspect
import pkgutil
import re

import pytest
from paths import ROOT

import edgeseg

NEEDS_TORCH = ("edgeseg.models", "edgeseg.training", "edgeseg.export")
MODULES = [
    found.name
    for found in pkgutil.walk_packages(edgeseg.__path__, "edgeseg.")
    if "__main__" not in found.name
]


@pytest.mark.parametrize("name", ["edgeseg", *MODULES])
def test_the_examples_run(name: str) -> None:
    if name.startswith(NEEDS_TORCH):
        pytest.importorskip("torch")
    result = doctest.testmod(
        importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert result.failed == 0


@pytest.mark.parametrize("name", edgeseg.__all__)
def test_public_names_have_a_docstring(name: str) -> None:
    documented = inspect.getdoc(getattr(edgeseg, name))
    assert documented
    assert documented.splitlines()[0].endswith((".", ":"))


ARCHITECTURE = ROOT / "docs" / "architecture.md"
MOST_STEPS = 40  # of a walk


def walks() -> dict[str, list[str]]:
    """Return the names that each walk of the architecture page passes, in order."""
    found: dict[str, list[str]] = {}
    heading = ""
    for line in ARCHITECTURE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif re.match(r"\d+\. ", line):
            found.setdefault(heading, []).extend(re.findall(r"`(edgeseg\.[\w.]+)`", line))
    return found


@pytest.mark.parametrize("heading", walks())
def test_the_walks_are_what_there_is(heading: str) -> None:
    """Every function named exists where the page says, and a walk stays short."""
    names = walks()[heading]
    assert 5 <= len(names) < MOST_STEPS
    for name in names:
        module, _, attribute = name.rpartition(".")
        if not module.rpartition(".")[2][:1].islower() or module not in MODULES:
            module, _, owner = module.rpartition(".")
            assert hasattr(getattr(importlib.import_module(module), owner), attribute), name
        else:
            assert hasattr(importlib.import_module(module), attribute), name
