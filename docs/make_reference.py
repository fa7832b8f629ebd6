"""Write the reference pages that the program itself knows: commands, recipes, passports.

    python docs/make_reference.py

``tests/test_reference.py`` fails if a page is not what this writes.
"""

import enum
import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import edgeseg
from edgeseg import facts, passport, spec
from edgeseg.cli import app
from edgeseg.quantize.calibration_set import SetRecipe
from edgeseg.training import recipe

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- Written by `python docs/make_reference.py`: do not edit. -->"

SECTIONS: dict[str, type[BaseModel]] = {
    "model": recipe.ModelSection,
    "data": recipe.DataSection,
    "augment": recipe.AugmentSection,
    "loss": recipe.LossSection,
    "optim": recipe.OptimSection,
    "fit": recipe.FitSection,
    "stage": recipe.Stage,
}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def main() -> None:
    """Write every page."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"wrote {FOLDER / name}")


def pages() -> dict[str, str]:
    """Return the text of each page by its file name."""
    return {
        "cli.md": cli_page(),
        "api.md": api_page(),
        "recipe.md": recipe_page(),
        "passport.md": passport_page(),
    }


# The commands


def cli_page() -> str:
    """Return the page of all commands."""
    program: Any = typer.main.get_command(app)
    lines = ["# Commands", "", NOTE, "", program.help, ""]
    lines += [
        "`edgeseg COMMAND --help` prints the same. Exit codes: [exit codes](../exit-codes.md).",
        "",
    ]
    lines += list(_options(program.params))[1:]

    for name, found in _commands(program):
        lines += ["", *_command(name, found)]
    return "\n".join(lines) + "\n"


def _commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the commands of a group with their names, and those of groups in it."""
    for name, found in group.commands.items():
        if found.hidden:
            continue
        if hasattr(found, "commands"):
            yield from _commands(found, f"{before}{name} ")
        else:
            yield f"{before}{name}", found


def _command(name: str, found: Any) -> Iterator[str]:
    """Yield the lines of one command."""
    arguments = [each for each in found.params if each.param_type_name == "argument"]
    words = " ".join(_name_of(argument) for argument in arguments)
    yield f"## edgeseg {name}"
    yield ""
    yield f"`edgeseg {name} [OPTIONS] {words}".rstrip() + "`"
    yield ""
    yield _plain(found.help)
    yield ""
    for argument in arguments:
        yield f"- `{_name_of(argument)}`: {_plain(argument.help)}"
    options = list(_options(found.params))
    yield from options if arguments else options[1:]


def _options(parameters: list[Any]) -> Iterator[str]:
    """Yield the lines of options, panel by panel."""
    panels: dict[str | None, list[Any]] = {}
    for parameter in parameters:
        if parameter.param_type_name == "option" and not parameter.hidden:
            panels.setdefault(parameter.rich_help_panel, []).append(parameter)

    for panel, found in panels.items():
        if panel:
            yield from ("", f"**{panel}**")
        yield ""
        for parameter in found:
            yield _option(parameter)


def _option(parameter: Any) -> str:
    """Return the line of one option."""
    spelled = ", ".join(f"`{word}`" for word in (*parameter.opts, *parameter.secondary_opts))
    choices = _choices(parameter)
    value = parameter.metavar or ("|".join(choices) if choices else "")
    if value:
        spelled += f" `{value}`"

    text = _plain(parameter.help)
    default = parameter.default
    if isinstance(default, enum.Enum):
        default = default.value
    if isinstance(default, bool):
        default = None if not parameter.secondary_opts else parameter.opts[0]
    if default is None or callable(default) or default in ("", (), []):
        return f"- {spelled}: {text}"
    return f"- {spelled}: {text} Default: `{default}`."


def _choices(parameter: Any) -> list[str]:
    """Return the values that an option takes if they are few; typer keeps them in two ways."""
    annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return [str(member.value) for member in annotation]
    kind = getattr(parameter, "type", None)
    return [str(getattr(c, "value", c)) for c in getattr(kind, "choices", ())]


def _name_of(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _plain(text: str | None) -> str:
    """Return a help text as Markdown: no markup of the terminal, no HTML, no links by accident."""
    text = (text or "").replace("\\[", "[")
    text = re.sub(r"\[/?(?:bold|dim|italic|cyan|green)\]", "", text)
    return re.sub(r"([<>*_])", r"\\\1", text).strip()


# The public names


def api_page() -> str:
    """Return the page that mkdocstrings fills with the docstrings of all public names."""
    lines = [
        "# Python API",
        "",
        NOTE,
        "",
        "The public names of `import edgeseg`. How they are used: [Python](../python.md). In a",
        "terminal, `help(edgeseg.compare)` prints the same.",
    ]
    functions = [name for name in edgeseg.__all__ if name[0].islower()]
    classes = [name for name in edgeseg.__all__ if name not in functions]
    for name in functions + classes:
        lines += ["", f"::: {getattr(edgeseg, name).__module__}.{name}"]
    return "\n".join(lines) + "\n"


# The keys of a file


def recipe_page() -> str:
    """Return the page of a recipe's keys, and of those of a calibration set."""
    lines = [
        "# Recipes",
        "",
        NOTE,
        "",
        "A recipe is a TOML file: one experiment. `engines/` has many. `edgeseg train`, `make` and",
        "`lr-find` read it. A key that does not exist is an error.",
        "",
        "## Top level",
        "",
        *_table(recipe.Recipe, skip=tuple(SECTIONS)),
    ]
    for name, section in SECTIONS.items():
        heading = f"[[{name}]]" if name == "stage" else f"[{name}]"
        lines += ["", f"## {heading}", "", *_about(section), "", *_table(section)]
    lines += [
        "",
        "## Calibration sets",
        "",
        "A set is a TOML file of its own: `calibration/sets/` has some.",
        "",
        *_table(SetRecipe),
    ]
    return "\n".join(lines) + "\n"


def passport_page() -> str:
    """Return the page of the keys of a passport."""
    lines = [
        "# Passports",
        "",
        NOTE,
        "",
        "`NAME.engine.json` stands beside every engine and describes it. Empty facts are left out.",
        "`passport_sha256` is the digest of everything else in the file.",
        "",
        "## Passport",
        "",
        *_table(passport.Passport),
    ]
    parts: dict[str, type[BaseModel]] = {
        "spec": spec.ModelSpec,
        "spec.labels": spec.LabelSpace,
        "facts of the target cpu": facts.OpenVinoFacts,
        "facts of TensorRT": facts.TensorRTFacts,
        "int8": facts.Int8Facts,
        "int8.budget": facts.Budget,
    }
    for name, model in parts.items():
        lines += ["", f"## {name}", "", *_about(model), "", *_table(model)]
    return "\n".join(lines) + "\n"


def _about(model: type[BaseModel]) -> list[str]:
    """Return the first paragraph of a model's docstring."""
    return [_code(" ".join((inspect.getdoc(model) or "").split("\n\n")[0].split()))]


def _table(model: type[BaseModel], skip: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield a table of a model's keys."""
    meanings = attributes(model)
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in model.model_fields.items():
        if name in skip:
            continue
        meaning = _code(meanings.get(name, "")).replace("|", "\\|")
        default = "" if field.is_required() else f"`{_value(field.default)}`"
        kind = _field(field).replace("|", "\\|")
        yield f"| `{name}` | {kind} | {default} | {meaning} |"


def attributes(model: type[BaseModel]) -> dict[str, str]:
    """Return what a model's docstring says of each of its attributes.

    Parameters
    ----------
    model : a class with a section ``Attributes`` in its docstring.
    """
    found: dict[str, str] = {}
    for parent in reversed(model.__mro__):
        text = (
            inspect.cleandoc(parent.__doc__ or "") if "Attributes" in (parent.__doc__ or "") else ""
        )
        _, _, section = text.partition("Attributes\n----------\n")
        section = re.split(r"\n\n[A-Z]\w+\n-+\n", section)[0]
        for entry in re.split(r"\n(?=\S)", section):
            names, colon, meaning = entry.partition(" : ")
            if colon:
                words = " ".join(meaning.split())
                found.update(dict.fromkeys((name.strip() for name in names.split(",")), words))
    return found


def _code(text: str) -> str:
    """Return a docstring's text as Markdown."""
    return text.replace("``", "`")


def _value(value: object) -> str:
    """Return a default as it is written in TOML, as far as that has a word for it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, BaseModel):
        return "{}"
    return "none" if value is None else str(value) or '""'


def _field(field: FieldInfo) -> str:
    """Return the values that a key takes, in words."""
    return _kind(field.annotation) + _limits(field.metadata)


def _limits(metadata: list[Any] | tuple[Any, ...]) -> str:
    """Return the bounds of a number, in words."""
    words: list[str] = []
    for item in metadata:
        parts = item.metadata if isinstance(item, FieldInfo) else [item]
        for part in parts:
            for bound, word in BOUNDS.items():
                if getattr(part, bound, None) is not None:
                    words.append(f"{word} {getattr(part, bound):g}")
    return f", {', '.join(words)}" if words else ""


def _kind(annotation: Any) -> str:
    """Return a type, in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0]) + _limits(arguments[1:])
    if origin is Literal:
        return " | ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " | ".join(_kind(part) for part in arguments if part is not type(None))
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"list of {_kind(arguments[0])}"
        return f"{len(arguments)} x {_kind(arguments[0])}"
    if origin is list:
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        return "table"
    names = {int: "integer", float: "number", str: "string", bool: "`true` or `false`"}
    return names.get(annotation) or str(getattr(annotation, "__name__", annotation))


if __name__ == "__main__":
    main()
