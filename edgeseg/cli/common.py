"""What the commands share: the program, its options, the terminal, opening what they were given."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from edgeseg.export.network import Overrides
    from edgeseg.runtime import Engine
    from edgeseg.training.recipe import Recipe
    from edgeseg.video import Source

MAX_SIDE = 16384

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Semantic segmentation from PyTorch to a live camera on a small machine.",
)


class Precision(str, Enum):
    """Precisions of the targets there are."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"
    int8 = "int8"


class Colour(str, Enum):
    """Channel order of the net's input."""

    rgb = "rgb"
    bgr = "bgr"


Size = Annotated[str | None, typer.Option(metavar="HEIGHTxWIDTH", help="Input size of the net.")]
Mean = Annotated[tuple[float, float, float] | None, typer.Option(help="Mean a channel, in the net's colour order.")]
Std = Annotated[tuple[float, float, float] | None, typer.Option(help="Standard deviation a channel.")]
Scale = Annotated[float | None, typer.Option(help="Factor on the 0..255 pixel before mean and std.")]
ColourOption = Annotated[Colour | None, typer.Option(help="Colour order of the net's input.")]
Labels = Annotated[str | None, typer.Option(help="Label space: a known name, or a file (JSON, or a name a line).")]
Head = Annotated[str | None, typer.Option(metavar="NAME", help="Which output to use, of a net that has several.")]
PrecisionOption = Annotated[Precision, typer.Option(help="auto: the fastest here that keeps the accuracy.")]
Target = Annotated[str, typer.Option(help="cpu, tensorrt, tensorrt-rtx, or auto.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON, too.")]
RecipeArgument = Annotated[Path, typer.Argument(help="A recipe, such as engines/enet-camvid.toml.")]
RecipeData = Annotated[str | None, typer.Option(help="Where the data is, instead of the recipe's: camvid:PATH.")]
Epochs = Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")]
Encoder = Annotated[str | None, typer.Option(help="Encoder weights: a file, or torchvision.")]
EngineArgument = Annotated[str, typer.Argument(metavar="ENGINE", help="An .engine, an .onnx file, or a shipped net.")]


def stdout() -> Any:
    """A console on standard output, of the width the terminal has now."""
    from rich.console import Console

    return Console()


def stderr() -> Any:
    """A console on standard error."""
    from rich.console import Console

    return Console(stderr=True)


def escape(text: str) -> str:
    """Text as it is, for a console that reads markup; on one line."""
    from rich import markup

    return markup.escape(" ".join(text.splitlines()))


def say_error(text: str) -> None:
    """One line on standard error."""
    stderr().print(f"[bold red]error:[/] {escape(text)}", soft_wrap=True, highlight=False)


def tell_assumed(assumed: tuple[str, ...]) -> None:
    """Say which facts about a foreign file were assumed."""
    if assumed:
        said = escape("; ".join(assumed))
        stderr().print(f"[yellow]assumed:[/] {said} (the file has no edgeseg spec; flags correct this)", soft_wrap=True)


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say on the terminal what is taking its time."""
    with stderr().status(escape(what)):
        yield


@contextlib.contextmanager
def progress(what: str, total: int | None) -> Iterator[Any]:
    """A bar on the terminal; yields ``step(n=1)``."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr(), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda n=1: bar.advance(task, n)


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
    """Turn a missing package of an extra into the line that installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "edgeseg":
            raise
        raise MissingDependencyError(
            f"this command needs {error.name}, which is not installed",
            hint=f'Install it: pip install "edgeseg[{extra}]".',
        ) from error


def read_recipe(
    path: Path, *, data: str | None = None, epochs: int | None = None, encoder: str | None = None
) -> "Recipe":
    """A recipe with what the command line gives instead of what it says."""
    from edgeseg.training.recipe import load_recipe, with_changes

    changes = {"data.address": data, "fit.epochs": epochs, "model.encoder": encoder}
    return with_changes(load_recipe(path), {key: value for key, value in changes.items() if value is not None})


def parse_size(text: str) -> tuple[int, int]:
    """``360x480`` -> (360, 480): height x width."""
    height, cross, width = text.lower().partition("x")
    sides = [int(side) if side.isascii() and side.isdecimal() else 0 for side in (height, width)]
    if not cross or not all(1 <= side <= MAX_SIDE for side in sides):
        raise InputError(
            "not a size", got=repr(text), expected=f"HEIGHTxWIDTH, such as 360x480, each at most {MAX_SIDE}"
        )
    return sides[0], sides[1]


def overrides_of(
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    colour: ColourOption = None,
    labels: Labels = None,
    head: Head = None,
) -> "Overrides":
    """The facts that the seven flags give; its parameters are the flags that ``spec_flags`` adds."""
    from edgeseg.export.network import Overrides

    return Overrides(
        size=parse_size(size) if size else None,
        mean=mean,
        std=std,
        scale=scale,
        colour=colour.value if colour else None,
        labels=labels,
        head=head,
    )


def spec_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the seven flags of a spec, where it has the keyword-only parameter ``overrides: "Overrides"``."""
    flags = inspect.signature(overrides_of).parameters
    shown: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        replaced = parameter.name == "overrides"
        shown += [flag.replace(kind=parameter.kind) for flag in flags.values()] if replaced else [parameter]

    @functools.wraps(command)
    def call(**given: Any) -> None:
        overrides = overrides_of(**{name: given.pop(name) for name in flags})
        command(**given, overrides=overrides)

    # What typer reads: the signature, and the annotations apart from it.
    call.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return call


def open_engine(name: str, precision: Precision, target: str, overrides: "Overrides | None" = None) -> "Engine":
    """An engine by file or shipped name; an .onnx file is compiled first."""
    from edgeseg.runtime import resolve_engine

    with waiting(f"opening {name}"):
        engine = resolve_engine(name, precision=precision.value, target=target, overrides=overrides)
    tell_assumed(engine.passport.assumed)
    return engine


def open_source(uri: str) -> "Source":
    """A source by address, opened while the terminal says so."""
    from edgeseg import video

    with waiting(f"opening {uri}"):
        return video.open_source(uri)
