"""Docstrings list the arguments that a function has, all of them and no other."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from paths import ROOT

PACKAGE = ROOT / "edgeseg"
LEAST_SHARE = 0.8  # of the public functions with arguments

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Documented:
    """A public function or class, its arguments, and those that its docstring lists.

    ``listed`` is ``None`` if the docstring has no section ``Parameters``.
    """

    name: str
    arguments: tuple[str, ...]
    listed: tuple[str, ...] | None


def parameters_of(docstring: str) -> tuple[str, ...] | None:
    """Return the names in the section ``Parameters``, ``a, b : text`` giving two."""
    lines = inspect.cleandoc(docstring).splitlines()
    starts = [
        i
        for i, line in enumerate(lines[:-1])
        if line == "Parameters" and set(lines[i + 1]) == {"-"}
    ]
    if not starts:
        return None

    names: list[str] = []
    for line in lines[starts[0] + 2 :]:
        if re.fullmatch("-+", line):
            break
        found = re.match(r"\*{0,2}\w+(, \*{0,2}\w+)* : ", line)
        if found:
            names += [name.strip(" *") for name in found[0].removesuffix(" : ").split(",")]
    return tuple(names)


def arguments_of(function: Function, *, of_class: bool) -> tuple[str, ...]:
    given = function.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    if of_class and names[:1] in (["self"], ["cls"]):
        del names[0]
    names += [a.arg for a in (given.vararg, given.kwarg) if a is not None]
    return tuple(name for name in names if not name.startswith("_"))


def public_names(node: ast.AST, prefix: str, *, of_class: bool = False) -> Iterator[Documented]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
            name = f"{prefix}.{child.name}"
            docstring = ast.get_docstring(child)
            for made in child.body:
                if isinstance(made, ast.FunctionDef) and made.name == "__init__" and docstring:
                    yield Documented(
                        name, arguments_of(made, of_class=True), parameters_of(docstring)
                    )
            yield from public_names(child, name, of_class=True)
        elif isinstance(child, Function) and not child.name.startswith("_"):
            docstring = ast.get_docstring(child)
            if docstring:
                arguments = arguments_of(child, of_class=of_class)
                yield Documented(f"{prefix}.{child.name}", arguments, parameters_of(docstring))


def everything() -> list[Documented]:
    found: list[Documented] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        prefix = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found += public_names(ast.parse(path.read_text(encoding="utf-8")), prefix)
    return [one for one in found if one.arguments]


EVERYTHING = everything()


def test_sections_list_the_arguments_there_are() -> None:
    wrong: list[str] = []
    for one in EVERYTHING:
        if one.listed is not None and set(one.listed) != set(one.arguments):
            wrong.append(f"{one.name}: {sorted(set(one.listed) ^ set(one.arguments))}")
    assert wrong == []


def test_most_public_functions_list_their_arguments() -> None:
    listing = [one for one in EVERYTHING if one.listed is not None]
    assert len(listing) >= LEAST_SHARE * len(EVERYTHING), f"{len(listing)} of {len(EVERYTHING)}"


@pytest.mark.parametrize(
    ("docstring", "names"),
    [
        ("Return 1.", None),
        (
            "Return 1.\n\n    Parameters\n    ----------\n    a : one.\n    b, c : two.\n",
            ("a", "b", "c"),
        ),
        (
            "Return 1.\n\nParameters\n----------\n*a : one,\n    which : is "
            "text.\n\nReturns\n-------\nx : no.",
            ("a",),
        ),
    ],
)
def test_sections_are_read(docstring: str, names: tuple[str, ...] | None) -> None:
    assert parameters_of(docstring) == names


def test_the_most_parameters() -> None:
    """No function has more than 8 parameters; a command has one for each of its options."""
    many: list[str] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.is_relative_to(Path(PACKAGE / "cli")):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, Function):
                names = [
                    a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                ]
                count = len([name for name in names if name not in ("self", "cls")])
                if count > 8:
                    many.append(f"{path.relative_to(ROOT)}: {node.name} has {count}")
    assert many == []
