"""Check how commands register themselves with the program, and what their help is."""

from collections.abc import Iterator

import pytest
from commands import edgeseg

from edgeseg.cli import app
from edgeseg.cli.app import command, command_names


@pytest.fixture
def registered() -> Iterator[None]:
    """Forget the commands that a test registers."""
    before = list(app.registered_commands)
    yield
    app.registered_commands[:] = before


def test_help_is_one_line_per_paragraph() -> None:
    for info in app.registered_commands:
        paragraphs = (info.help or "").split("\n\n")
        assert all(paragraph and "\n" not in paragraph for paragraph in paragraphs)


@pytest.mark.usefixtures("registered")
def test_a_docstring_becomes_help_of_one_line_per_paragraph() -> None:
    @command("a-name")
    def registered() -> None:
        """Do a thing that
        takes two lines.

        A second
        paragraph.
        """

    info = app.registered_commands[-1]
    assert (info.name, info.callback) == ("a-name", registered)
    assert info.help == "Do a thing that takes two lines.\n\nA second paragraph."


@pytest.mark.usefixtures("registered")
def test_a_command_without_a_name_has_that_of_its_function() -> None:
    @command()
    def fold_a_graph() -> None:
        """Fold."""

    assert command_names()[-1] == "fold-a-graph"


def test_every_command_can_be_called_by_its_name() -> None:
    assert {"models", "lr-find", "build-engine", "doctor"} <= set(command_names())
    for name in command_names():
        done = edgeseg(name, "--help")
        assert done.returncode == 0, done.stderr
        assert f"edgeseg {name}" in done.stdout
