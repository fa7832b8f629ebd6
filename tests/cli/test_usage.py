"""Check the one line about a wrong call, with messages that click really writes."""

import pytest
import typer

from edgeseg.cli import app
from edgeseg.cli.usage import usage_error

UsageError: type[typer.BadParameter] = typer.BadParameter.__bases__[0]


def real_problem(*words: str) -> str:
    """Return click's message about a wrong call."""
    with pytest.raises(UsageError) as caught:
        app(args=list(words), standalone_mode=False)
    return caught.value.format_message()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["segmen"], "no such command 'segmen'. Did you mean 'segment'? See: edgeseg x --help"),
        (["zzzzzz"], "no such command 'zzzzzz'. See: edgeseg x --help"),
        (
            ["build-engine", "a.onnx", "--colour", "rbg"],
            "invalid value for '--colour': 'rbg' is not one of 'rgb', 'bgr'. Did you mean 'rgb'? "
            "See: edgeseg x --help",
        ),
        (
            ["build-engine", "a.onnx", "--colour", "7"],
            "invalid value for '--colour': '7' is not one of 'rgb', 'bgr'. See: edgeseg x --help",
        ),
    ],
)
def test_a_real_message_becomes_one_line(words: list[str], line: str) -> None:
    assert usage_error(real_problem(*words), "edgeseg x") == line


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        # Versions of click that suggest nothing, and those that do.
        ("No such command 'segmen'.", "no such command 'segmen'. Did you mean 'segment'?"),
        (
            "No such command 'segmen'. Did you mean 'segment'?",
            "no such command 'segmen'. Did you mean 'segment'?",
        ),
        ("Missing argument\n  'SOURCE'", "missing argument 'SOURCE'."),
        ("Invalid value: Value error, too long", "invalid value: too long."),
    ],
)
def test_any_message_becomes_one_line(problem: str, line: str) -> None:
    assert usage_error(problem, "edgeseg segment") == f"{line} See: edgeseg segment --help"
