"""Define the options that several commands share: their types, their help, and groups of them."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from edgeseg.cli.json_report import json_target
from edgeseg.cli.parsing import parse_channels, parse_size

if TYPE_CHECKING:
    from edgeseg.graph.network import Overrides


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
        callback=json_target,
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

    HELP_PANEL: ClassVar[str] = "Model facts (needed if the file has no edgeseg spec)"

    size: Size = None
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="Per-channel mean, e.g. 0.485,0.456,0.406 (channels in the model's colour order).",
        ),
    ] = None
    std: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="Per-channel standard deviation, e.g. 0.229,0.224,0.225.",
        ),
    ] = None
    scale: Annotated[
        float | None,
        typer.Option(
            help="Factor for pixel values of 0..255, applied before mean and std, e.g. 0.00392.",
        ),
    ] = None
    colour: Annotated[
        Colour | None,
        typer.Option(
            case_sensitive=False,
            help="Colour order of the model's input.",
        ),
    ] = None
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Class names: a known label space such as camvid-11, a JSON file, or a text file "
            "with one name per line.",
        ),
    ] = None
    head: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the output to use, if the model has several.",
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
