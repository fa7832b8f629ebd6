"""Options that several commands share: their types, their help, and how their words are read."""

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli import console
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.graph.network import Overrides

MAX_SIDE = 16384
STDOUT = Path("-")  # instead of a file

# Options of one value a channel. They take `0.485,0.456,0.406` as well as three words.
PER_CHANNEL = ("--mean", "--std")


class Precision(str, Enum):
    """Precisions of the targets there are."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"
    int8 = "int8"


class Colour(str, Enum):
    """Channel order of the model's input."""

    rgb = "rgb"
    bgr = "bgr"


def _json_target(path: Path | None) -> Path | None:
    """Keep standard output for the JSON alone if it goes there."""
    console.print_to_stderr(path == STDOUT)
    return path


Size = Annotated[str | None, typer.Option(metavar="HEIGHTxWIDTH", help="Input size, such as 360x480.")]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,C", help="Per-channel mean, e.g. 0.485,0.456,0.406 (channels in the model's colour order)."
    ),
]
Std = Annotated[
    str | None,
    typer.Option(metavar="A,B,C", help="Per-channel standard deviation, e.g. 0.229,0.224,0.225."),
]
Scale = Annotated[
    float | None, typer.Option(help="Factor that pixels of 0..255 are multiplied by before mean and std, e.g. 0.00392.")
]
ColourOption = Annotated[Colour | None, typer.Option(case_sensitive=False, help="Colour order of the model's input.")]
Labels = Annotated[
    str | None,
    typer.Option(help="Class names: a known label space, a JSON file, or a text file with one name per line."),
]
Head = Annotated[str | None, typer.Option(metavar="NAME", help="The output to use, if the model has several.")]
PrecisionOption = Annotated[
    Precision,
    typer.Option(case_sensitive=False, help="auto: the fastest precision on this machine that keeps the accuracy."),
]
Target = Annotated[str, typer.Option(help="cpu, tensorrt, tensorrt-rtx, or auto.")]
Json = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE|-", callback=_json_target, help="Also write the result as JSON; - prints it."),
]
RecipeArgument = Annotated[Path, typer.Argument(help="A recipe, such as engines/enet-camvid.toml.")]
RecipeData = Annotated[str | None, typer.Option(help="Where the data is, instead of the recipe's: camvid:PATH.")]
Epochs = Annotated[int | None, typer.Option(min=1, help="Number of epochs, instead of the recipe's.")]
Encoder = Annotated[str | None, typer.Option(help="Encoder weights: a file, or torchvision.")]
EngineArgument = Annotated[
    str, typer.Argument(metavar="ENGINE", help="An .engine file, an .onnx file, or a model that ships with edgeseg.")
]


def joined_channels(words: Sequence[str]) -> list[str]:
    """Join the words of per-channel options, so that ``--mean 0.5 0.5 0.5`` reads as ``--mean 0.5,0.5,0.5``.

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
    try:
        float(text)
    except ValueError:
        return False
    return True


def parse_channels(text: str, option: str) -> tuple[float, float, float]:
    """Read one value per channel.

    Parameters
    ----------
    text : three numbers with commas or spaces between them.
    option : the option's name, for the error.

    Raises
    ------
    InputError : not three finite numbers.
    """
    words = text.replace(",", " ").split()
    values = [float(word) if _is_number(word) else math.nan for word in words]
    expected = "3 numbers, one per channel, such as 0.485,0.456,0.406"
    if len(values) != 3:
        raise InputError(f"{option}: wrong number of values", got=f"{len(values)} ({text!r})", expected=expected)
    if not all(map(math.isfinite, values)):
        raise InputError(f"{option}: not numbers", got=repr(text), expected=expected)
    return values[0], values[1], values[2]


def parse_size(text: str) -> tuple[int, int]:
    """Read a size: ``360x480`` is (360, 480), height x width."""
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
    """Return the facts that the seven options of a spec give; ``spec_flags`` adds these options to a command."""
    from edgeseg.graph.network import Overrides

    return Overrides(
        size=parse_size(size) if size else None,
        mean=parse_channels(mean, "--mean") if mean is not None else None,
        std=parse_channels(std, "--std") if std is not None else None,
        scale=scale,
        colour=colour.value if colour else None,
        labels=labels,
        head=head,
    )


def spec_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the seven options of a spec in place of its keyword-only parameter ``overrides: "Overrides"``."""
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


def require_json(path: Path | None, *others: Path | None) -> None:
    """Raise ``OutputError`` unless the JSON can be written to ``path``, which must be none of the ``others``."""
    from edgeseg.files import require_json_output

    if path is not None and path != STDOUT:
        require_json_output(path, *others)


def write_report(path: Path | None, facts: object) -> None:
    """Write ``facts`` as JSON to the file that ``--json`` names, or to standard output if that is ``-``."""
    from edgeseg.files import json_text, write_json

    if path is None:
        return
    if path == STDOUT:
        print(json_text(facts), end="")
    else:
        write_json(path, facts)
