"""Library messages name Python parameters in backticks; the command line spells them as its options."""

import functools
import re
from typing import Any

# Parameters whose option has another name.
OPTIONS = {
    "archs": "--arch",
    "arguments": "--arg",
    "least_agreement": "--min-agreement",
    "least_class_iou": "--min-class-iou",
    "least_mean_iou": "--min-iou",
    "json": "--json",
    "precision=int8": "--int8",
    "workspace_mib": "--workspace",
}

_CALL = re.compile(r"`([a-z][a-z0-9_]*)\(([^`]*)\)`")
_PARAMETER = re.compile(r"`([a-z][a-z0-9_]*(?:=[^`]*)?)`")


def as_options(text: str) -> str:
    """Return a message with its parameters spelled as options, and its calls as commands.

    Parameters
    ----------
    text : a message of the library. `` `name` `` and `` `name=value` `` are parameters, `` `function(...)` `` is a call
        with positional and keyword arguments; values are written without quotes. Other text in backticks stays as it
        is: what others' libraries say is among the errors, too.

    Examples
    --------
    >>> as_options("Give `calib=camvid:PATH`, or leave `max_miou_drop` out.")
    'Give --calib camvid:PATH, or leave --max-miou-drop out.'
    >>> as_options("Build it again: `build_engine(NAME.onnx, precision=int8, unpool=native)`.")
    'Build it again: edgeseg build-engine NAME.onnx --int8 --unpool native.'
    """
    text = _CALL.sub(lambda match: _command(match[1], match[2]) if match[1] in _commands()[0] else match[0], text)
    return _PARAMETER.sub(lambda match: _option(match[1]) if _is_parameter(match[1]) else match[0], text)


@functools.cache
def _commands() -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of the commands, as functions have them, and of all their options, as parameters have them."""
    from typer.main import get_command

    from edgeseg.cli.app import app

    program: Any = get_command(app)
    options = [p.name for command in program.commands.values() for p in command.params if p.param_type_name == "option"]
    return frozenset(name.replace("-", "_") for name in program.commands), frozenset(options)


def _is_parameter(text: str) -> bool:
    """Return whether ``name`` or ``name=value`` is about a parameter that some command has an option for."""
    name = text.partition("=")[0]
    return name in OPTIONS or name in _commands()[1]


def _command(function: str, arguments: str) -> str:
    words = ["edgeseg", function.replace("_", "-")]
    for argument in filter(None, (part.strip() for part in arguments.split(", "))):
        is_option = "=" in argument and _is_parameter(argument)
        words.append(_option(argument) if is_option else argument)
    return " ".join(words)


def _option(parameter: str) -> str:
    """Return ``--name``, or ``--name value`` for ``name=value``; ``name=True`` is a switch, ``out=X`` is ``-o X``."""
    if parameter in OPTIONS:
        return OPTIONS[parameter]
    name, equals, value = parameter.partition("=")
    option = "-o" if name == "out" and equals else OPTIONS.get(name, "--" + name.replace("_", "-"))
    return f"{option} {value}" if equals and value != "True" else option
