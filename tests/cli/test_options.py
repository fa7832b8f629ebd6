"""Check the options that commands share: groups of options, and how values are parsed."""

import inspect
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer

from edgeseg.cli import app
from edgeseg.cli.options import (
    MAX_SIDE,
    DataOptions,
    EngineOptions,
    Precision,
    SpecOptions,
    option_groups,
    parse_channels,
    parse_size,
)
from edgeseg.errors import InputError


def test_a_command_receives_its_groups() -> None:
    received: list[object] = []

    @option_groups
    def command(name: str, engine: EngineOptions, data: DataOptions, count: int = 3) -> None:
        received.extend([name, engine, data, count])

    given = {"precision": Precision.int8, "target": "cpu", "data": "camvid:x", "split": "val"}
    command(name="a.onnx", count=2, **given)
    engine = EngineOptions(Precision.int8, "cpu")
    assert received == ["a.onnx", engine, DataOptions("camvid:x", "val"), 2]


def test_a_group_shows_one_option_per_field() -> None:
    @option_groups
    def command(name: str, data: DataOptions, count: int = 3) -> None: ...

    parameters = inspect.signature(command).parameters
    assert list(parameters) == ["name", "data", "split", "count"]
    assert parameters["split"].default == "val"
    assert parameters["name"].default is inspect.Parameter.empty


def test_two_groups_cannot_have_the_same_option() -> None:
    @dataclass
    class Other:
        split: Annotated[str, typer.Option()] = "train"

    def command(data: DataOptions, other: Other) -> None: ...

    with pytest.raises(ValueError, match="split"):
        option_groups(command)


def test_no_options_are_no_overrides() -> None:
    overrides = SpecOptions().overrides()
    assert overrides.given() == {}
    assert overrides.size is None


def test_options_become_overrides() -> None:
    overrides = SpecOptions(size="64x96", std="1 2 3", labels="voc-21", head="out").overrides()
    assert overrides.size == (64, 96)
    assert overrides.std == (1.0, 2.0, 3.0)
    assert (overrides.labels, overrides.head) == ("voc-21", "out")


@pytest.mark.parametrize(
    "text", ["", "480", "0x4", "-1x4", "4x", "4x4x4", f"4x{MAX_SIDE + 1}", "²x5"]
)
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(InputError, match=r"--sizes: not a size: got .*HEIGHTxWIDTH"):
        parse_size(text, "--sizes")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "--std: wrong number of values: got 0"),
        ("1,2", r"got 2 \('1,2'\), expected 3 numbers, one per channel"),
        ("1,2,x", "--std: not 3 finite numbers"),
        ("1,2,inf", "--std: not 3 finite numbers"),
    ],
)
def test_what_is_not_a_value_per_channel(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_channels(text, "--std")


def test_help_is_one_line_per_paragraph() -> None:
    for command in app.registered_commands:
        paragraphs = (command.help or "").split("\n\n")
        assert all(paragraph and "\n" not in paragraph for paragraph in paragraphs)
