"""Check groups of options: what typer sees, what the command receives, and what is refused."""

import inspect
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, get_args

import pytest
import typer

from edgeseg.cli.groups import option_groups
from edgeseg.cli.options import DataOptions, EngineOptions, Precision

Shared = Annotated[str | None, typer.Option(help="An option of several groups.")]


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


def panel_of(parameter: inspect.Parameter) -> str | None:
    """Return the help panel of an option."""
    panel: str | None = get_args(parameter.annotation)[1].rich_help_panel
    return panel


def test_the_options_of_a_group_are_in_its_panel() -> None:
    @dataclass
    class Camera:
        HELP_PANEL: ClassVar[str] = "The camera"

        shared: Shared = None
        lens: Annotated[str, typer.Option(rich_help_panel="The lens")] = "wide"
        plain: int = 3

    @dataclass
    class Display:
        shared_too: Shared = None

    @option_groups
    def command(camera: Camera, display: Display) -> None: ...

    parameters = inspect.signature(command).parameters
    assert list(parameters) == ["shared", "lens", "plain", "shared_too"]
    assert panel_of(parameters["shared"]) == "The camera"
    assert panel_of(parameters["lens"]) == "The lens"  # its own
    assert parameters["plain"].annotation is int
    assert panel_of(parameters["shared_too"]) is None
    assert get_args(Shared)[1].rich_help_panel is None  # the shared option is not changed
    assert get_args(parameters["shared"].annotation)[0] == str | None


def test_a_group_whose_annotation_is_a_string_is_refused() -> None:
    def command(name: str, data: "DataOptions") -> None: ...

    with pytest.raises(TypeError, match="parameter `data`: the annotation is a string: got 'Data"):
        option_groups(command)


def test_a_field_whose_annotation_is_a_string_is_refused() -> None:
    @dataclass
    class Camera:
        lens: "str" = "wide"

    def command(camera: Camera) -> None: ...

    with pytest.raises(TypeError, match="field `lens`: the annotation is a string"):
        option_groups(command)


def test_a_field_with_a_default_factory_is_refused() -> None:
    @dataclass
    class Camera:
        lenses: Annotated[list[str], typer.Option()] = field(default_factory=list)

    def command(camera: Camera) -> None: ...

    with pytest.raises(TypeError, match=r"field `lenses`: .* default_factory"):
        option_groups(command)


def test_a_field_without_a_default_is_required() -> None:
    @dataclass
    class Camera:
        lens: Annotated[str, typer.Option()]

    received: list[Any] = []

    @option_groups
    def command(camera: Camera) -> None:
        received.append(camera)

    assert inspect.signature(command).parameters["lens"].default is inspect.Parameter.empty
    command(lens="wide")
    assert received == [Camera("wide")]
