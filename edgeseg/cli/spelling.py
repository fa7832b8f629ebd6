"""Spell the parameters that library messages name as options of the command line.

Messages name Python parameters in backticks, such as `` `calib` ``, and calls, such as
`` `build_engine(NAME.onnx)` ``. The command line prints options and commands instead.
"""

import functools
import re
from typing import Any

# Parameters whose option has another name. `precision=int8` is one with its value.
OPTIONS = {
    "archs": "--arch",
    "arguments": "--arg",
    "least_agreement": "--min-agreement",
    "least_class_iou": "--min-class-iou",
    "least_mean_iou": "--min-iou",
    "json": "--json",
    "precision=int8": "--int8",
    "workspace_mib": "--workspace",
    "split_every_s": "--split-every",
    "keep_bytes": "--keep",
    "start_s": "--start",
    "duration_s": "--duration",
    "stall_s": "--stall",
    "give_up_s": "--give-up",
}

_CALL = re.compile(r"`([a-z][a-z0-9_]*)\(([^`]*)\)`")
_PARAMETER = re.compile(r"`([a-z][a-z0-9_]*(?:=[^`]*)?)`")


def as_options(text: str) -> str:
    """Return a message with its parameters spelled as options, and its calls as commands.

    Parameters
    ----------
    text : a message of the library. `` `name` `` and `` `name=value` `` are parameters;
        `` `function(...)` `` is a call with positional and keyword arguments, values without
        quotes. Other text in backticks stays as it is: errors may quote other libraries.

    Examples
    --------
    >>> as_options("Give `calib=camvid:PATH`, or leave `max_miou_drop` out.")
    'Give --calib camvid:PATH, or leave --max-miou-drop out.'
    >>> as_options("Build it again: `build_engine(NAME.onnx, precision=int8, unpool=native)`.")
    'Build it again: edgeseg build-engine NAME.onnx --int8 --unpool native.'
    """
    text = _CALL.sub(_spell_call, text)
    return _PARAMETER.sub(_spell_parameter, text)


def _spell_call(match: re.Match[str]) -> str:
    """Return a call as a command, if there is such a command."""
    is_known = match[1] in _known_names()[0]
    return _command(match[1], match[2]) if is_known else match[0]


def _spell_parameter(match: re.Match[str]) -> str:
    """Return a parameter as an option, if there is such an option."""
    return _option(match[1]) if _is_parameter(match[1]) else match[0]


@functools.cache
def _known_names() -> tuple[frozenset[str], frozenset[str]]:
    """Return the names of all commands and of all their options, as Python spells them."""
    from typer.main import get_command

    from edgeseg.cli.app import app

    program: Any = get_command(app)
    commands: set[str] = set()
    options: set[str] = set()
    for name, command in program.commands.items():
        commands.add(name.replace("-", "_"))
        options |= {param.name for param in command.params if param.param_type_name == "option"}
    return frozenset(commands), frozenset(options)


def _is_parameter(text: str) -> bool:
    """Return True if some command has an option for the parameter of ``name`` or ``name=value``."""
    name = text.partition("=")[0]
    return name in OPTIONS or name in _known_names()[1]


def _command(function: str, arguments: str) -> str:
    """Return the command for a call: positional arguments as they are, keyword ones as options."""
    words = ["edgeseg", function.replace("_", "-")]
    for part in arguments.split(", "):
        argument = part.strip()
        if not argument:
            continue
        is_option = "=" in argument and _is_parameter(argument)
        words.append(_option(argument) if is_option else argument)
    return " ".join(words)


def _option(parameter: str) -> str:
    """Return ``--name value`` for ``name=value``, and a switch for ``name=True``."""
    if parameter in OPTIONS:
        return OPTIONS[parameter]

    name, equals, value = parameter.partition("=")
    option = OPTIONS.get(name, "--" + name.replace("_", "-"))
    if name == "out" and equals:
        option = "-o"

    has_value = bool(equals) and value != "True"
    return f"{option} {value}" if has_value else option
