"""Define the options that several commands share: types, help, groups and parsing."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli import console
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.graph.network import Overrides

MAX_SIDE = 16384
STDOUT = Path("-")  # stands for standard output where a file is expected

# Options with one value per channel. They take `0.485,0.456,0.406` as well as three words.
PER_CHANNEL = ("--mean", "--std")

# Title of a group of options in the help.
_SPEC_PANEL = "Model facts (needed if the file has no edgeseg spec)"


class Precision(str, Enum):
    """List the precisions of all targets."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"
    int8 = "int8"


class Colour(str, Enum):
    """List the colour orders of a model's input."""

    rgb = "rgb"
    bgr = "bgr"


class Method(str, Enum):
    """List the ways to choose a range from a histogram."""

    minmax = "minmax"
    percentile = "percentile"
    entropy = "entropy"
    mse = "mse"


def _json_target(path: Path | None) -> Path | None:
    """Print all results on standard error if the JSON goes to standard output; return ``path``."""
    console.print_to_stderr(path == STDOUT)
    return path


# One option each.
Size = Annotated[
    str | None, typer.Option(metavar="HEIGHTxWIDTH", help="Input size, such as 360x480 (HxW).")
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        case_sensitive=False,
        help="auto: the fastest precision on this machine that keeps the accuracy. bf16 needs a "
        "processor with BF16 (see edgeseg doctor); fp16 is for TensorRT.",
    ),
]
Target = Annotated[
    str,
    typer.Option(
        help="cpu, tensorrt, tensorrt-rtx or auto. auto is TensorRT if it is installed and the "
        "machine has an NVIDIA GPU, else cpu."
    ),
]
Json = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE|-",
        callback=_json_target,
        help="Also write the result as JSON to a file; - writes it to standard output.",
    ),
]
RecipeArgument = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A recipe, such as engines/enet-camvid.toml.")
]
RecipeData = Annotated[
    str | None,
    typer.Option(
        metavar="DATA", help="Training data, such as camvid:PATH; replaces the recipe's data."
    ),
]
Epochs = Annotated[
    int | None, typer.Option(min=1, help="Number of epochs; replaces the recipe's number.")
]
Encoder = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|torchvision", help="File of encoder weights, or torchvision: download them."
    ),
]
EngineArgument = Annotated[
    str,
    typer.Argument(
        metavar="ENGINE",
        help="An .engine file, an .onnx file, or a model that ships, such as enet-camvid.",
    ),
]
OnnxArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A float .onnx file, or the name of a model that ships with edgeseg.",
    ),
]
Calib = Annotated[
    str | None,
    typer.Option(
        metavar="SET",
        help="Calibration set: camvid:PATH, a folder of pictures, a video, synthetic://, or a set "
        "recipe (calibration/sets/NAME.toml).",
    ),
]
Count = Annotated[int | None, typer.Option(help="Number of calibration frames. Default: 100.")]
MethodOption = Annotated[
    Method,
    typer.Option(
        case_sensitive=False, help="How the range of an activation is chosen from its histogram."
    ),
]
Frames = Annotated[
    int | None,
    typer.Option(min=1, help="Number of frames to use, evenly spread. Default: all frames."),
]
Rounds = Annotated[
    int, typer.Option(min=1, help="How many times each engine is timed; the engines take turns.")
]


@dataclass(frozen=True)
class SpecOptions:
    """Hold the options that give the facts of a spec: what a file without one does not say.

    Attributes
    ----------
    size : input size as ``HEIGHTxWIDTH``.
    mean : mean per channel, as ``A,B,C``.
    std : standard deviation per channel, as ``A,B,C``.
    scale : factor of the pixels before mean and std.
    colour : colour order of the model's input.
    labels : name of a label space, or a file of class names.
    head : name of the output to use.

    Examples
    --------
    >>> SpecOptions(size="360x480", mean="0.5,0.5,0.5").overrides().mean
    (0.5, 0.5, 0.5)
    """

    size: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHTxWIDTH",
            help="Input size, such as 360x480 (HxW).",
            rich_help_panel=_SPEC_PANEL,
        ),
    ] = None
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="Per-channel mean, e.g. 0.485,0.456,0.406 (channels in the model's colour order).",
            rich_help_panel=_SPEC_PANEL,
        ),
    ] = None
    std: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="Per-channel standard deviation, e.g. 0.229,0.224,0.225.",
            rich_help_panel=_SPEC_PANEL,
        ),
    ] = None
    scale: Annotated[
        float | None,
        typer.Option(
            help="Factor for pixel values of 0..255, applied before mean and std, e.g. 0.00392.",
            rich_help_panel=_SPEC_PANEL,
        ),
    ] = None
    colour: Annotated[
        Colour | None,
        typer.Option(
            case_sensitive=False,
            help="Colour order of the model's input.",
            rich_help_panel=_SPEC_PANEL,
        ),
    ] = None
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Class names: a known label space such as camvid-11, a JSON file, or a text file "
            "with one name per line.",
            rich_help_panel=_SPEC_PANEL,
        ),
    ] = None
    head: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the output to use, if the model has several.",
            rich_help_panel=_SPEC_PANEL,
        ),
    ] = None

    def overrides(self) -> "Overrides":
        """Parse the options.

        Raises
        ------
        InputError : a size or a list of channels cannot be read.
        """
        from edgeseg.graph.network import Overrides

        return Overrides(
            size=parse_size(self.size) if self.size else None,
            mean=None if self.mean is None else parse_channels(self.mean, "--mean"),
            std=None if self.std is None else parse_channels(self.std, "--std"),
            scale=self.scale,
            colour=self.colour.value if self.colour else None,
            labels=self.labels,
            head=self.head,
        )


@dataclass(frozen=True)
class EngineOptions:
    """Hold the options that choose the engine of an ONNX file or of a model that ships.

    Attributes
    ----------
    precision : the precision of the engine.
    target : the library and device that run it.
    """

    precision: PrecisionOption = Precision.auto
    target: Target = "auto"


@dataclass(frozen=True)
class DataOptions:
    """Hold the options that choose labelled data to score on.

    Attributes
    ----------
    data : address of the data, such as ``camvid:PATH``; None for no data.
    split : the split of the data.
    """

    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="Labelled data to compute mIoU on: camvid:PATH, synthetic://, ..."
        ),
    ] = None
    split: Annotated[str, typer.Option(help="Split of --data.")] = "val"


def option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Show the fields of option groups as options of a command.

    A parameter whose type is a dataclass is a group. typer sees one option per field in its place;
    the command receives the dataclass.

    Parameters
    ----------
    command : the function of a command, before typer registers it.

    Examples
    --------
    >>> @option_groups
    ... def show(name: str, engine: EngineOptions) -> None:
    ...     print(name, engine.target)
    >>> list(inspect.signature(show).parameters)
    ['name', 'precision', 'target']
    >>> show(name="a.onnx", precision=Precision.fp32, target="cpu")
    a.onnx cpu
    """
    groups: dict[str, Any] = {}
    shown: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if dataclasses.is_dataclass(parameter.annotation):
            groups[parameter.name] = parameter.annotation
            shown += _fields_as_parameters(parameter.annotation)
        else:
            shown.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def call(**given: Any) -> None:
        built: dict[str, Any] = {}
        for name, group in groups.items():
            values = {field.name: given.pop(field.name) for field in dataclasses.fields(group)}
            built[name] = group(**values)
        command(**given, **built)

    # typer reads the signature, and the annotations apart from it.
    call.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return call


def _fields_as_parameters(group: Any) -> list[inspect.Parameter]:
    """Return one keyword parameter per field of a dataclass, with its type and its default."""
    parameters: list[inspect.Parameter] = []
    for field in dataclasses.fields(group):
        default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        parameters.append(
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field.type
            )
        )
    return parameters


def joined_channels(words: Sequence[str]) -> list[str]:
    """Join the values of per-channel options: ``0.5 0.4 0.3`` becomes ``0.5,0.4,0.3``.

    Parameters
    ----------
    words : the command line, without the program's name.

    Examples
    --------
    >>> joined_channels(["segment", "n.onnx", "--mean", "0.5", "0.4", "0.3", "0"])
    ['segment', 'n.onnx', '--mean', '0.5,0.4,0.3', '0']
    """
    joined: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        joined.append(word)
        if word not in PER_CHANNEL:
            continue

        values: list[str] = []
        while left and len(values) < 3 and _is_number(left[0]):
            values.append(left.pop(0))
        if values:
            joined.append(",".join(values))
    return joined


def _is_number(text: str) -> bool:
    """Return True if ``float`` can read the text."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def parse_channels(text: str, option: str) -> tuple[float, float, float]:
    """Parse one value per channel.

    Parameters
    ----------
    text : three numbers with commas or spaces between them.
    option : the option's name, for the error.

    Raises
    ------
    InputError : the text is not three finite numbers.

    Examples
    --------
    >>> parse_channels("0.5,0.4,0.3", "--mean")
    (0.5, 0.4, 0.3)
    """
    words = text.replace(",", " ").split()
    expected = "3 numbers, one per channel, such as 0.485,0.456,0.406"
    if len(words) != 3:
        raise InputError(
            f"{option}: wrong number of values", got=f"{len(words)} ({text!r})", expected=expected
        )

    values = [float(word) if _is_number(word) else math.nan for word in words]
    if not all(math.isfinite(value) for value in values):
        raise InputError(f"{option}: not 3 finite numbers", got=repr(text), expected=expected)
    return values[0], values[1], values[2]


def parse_size(text: str, option: str = "--size") -> tuple[int, int]:
    """Parse a size.

    Parameters
    ----------
    text : ``HEIGHTxWIDTH``.
    option : the option's name, for the error.

    Returns
    -------
    Height and width.

    Raises
    ------
    InputError : the text is not a size, or a side is longer than ``MAX_SIDE``.

    Examples
    --------
    >>> parse_size("360x480")
    (360, 480)
    """
    height, cross, width = text.lower().partition("x")
    sides = [whole_number(side) for side in (height, width)]
    if not cross or not all(1 <= side <= MAX_SIDE for side in sides):
        raise InputError(
            f"{option}: not a size",
            got=repr(text),
            expected=f"HEIGHTxWIDTH, such as 360x480, each side at most {MAX_SIDE}",
        )
    return sides[0], sides[1]


def whole_number(text: str) -> int:
    """Return the positive whole number that the text is; 0 if it is none.

    Parameters
    ----------
    text : the digits 0 to 9; signs, spaces and other characters are no number.

    Examples
    --------
    >>> whole_number("480"), whole_number("²"), whole_number("-3")
    (480, 0, 0)
    """
    return int(text) if text.isascii() and text.isdecimal() else 0


def require_json(path: Path | None, *others: Path | None) -> None:
    """Check that the JSON of ``--json`` can be written.

    Parameters
    ----------
    path : the file; None if the option was not used, ``STDOUT`` for standard output.
    others : the command's inputs and other outputs, which the JSON must not replace.

    Raises
    ------
    OutputError : the file cannot be written, or it is one of the others.
    """
    from edgeseg.files import require_json_output

    if path is not None and path != STDOUT:
        require_json_output(path, *others)


def write_report(path: Path | None, facts: object) -> None:
    """Write facts as JSON to the file of ``--json``, or to standard output.

    Parameters
    ----------
    path : the file; None to write nothing, ``STDOUT`` for standard output.
    facts : what ``json`` can write.
    """
    from edgeseg.files import json_text, write_json

    if path is None:
        return
    if path == STDOUT:
        print(json_text(facts), end="")
    else:
        write_json(path, facts)
