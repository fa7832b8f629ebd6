"""Define ``build-engine``: compile an ONNX file to an engine."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli.app import app
from edgeseg.cli.console import ConsoleReporter, escape, stdout, tell_assumed, tell_written
from edgeseg.cli.options import (
    Calib,
    DataOptions,
    EngineOptions,
    Json,
    Method,
    Precision,
    SpecOptions,
    option_groups,
    parse_size,
    require_json,
    whole_number,
    write_report,
)
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.backends.base import PlanOptions
    from edgeseg.build.options import Quantization
    from edgeseg.passport import Budget, Passport

# The same values as in edgeseg.build.options, which is imported later.
LEAST_AGREEMENT = 0.9
LEAST_MEAN_IOU = 0.9
LEAST_CLASS_IOU = 0.7

MOST_ROWS = 24  # of the table of classes
SET_EXAMPLES = "camvid:PATH, a folder, a video, synthetic:// or calibration/sets/NAME.toml"

# Titles of groups of options in the help.
_INT8_PANEL = "INT8 (needs --calib)"
_TENSORRT_PANEL = 'TensorRT (needs pip install "edgeseg\\[tensorrt]" or "edgeseg\\[tensorrt-rtx]")'


class Scales(str, Enum):
    """List the values that scales of INT8 may have."""

    power_of_two = "power-of-two"
    any = "any"


@dataclass(frozen=True)
class Int8Options:
    """Hold the options of INT8.

    Attributes
    ----------
    int8 : build an INT8 engine.
    calib : address of the calibration set.
    method : how ranges are chosen.
    scales : values that scales may have.
    ranges : file of ranges to use.
    keep_float : names of layers that stay in float.
    max_miou_drop : budget in points of mIoU.
    frames : number of frames to score on.
    min_agreement, min_iou, min_class_iou : limits below which the engine is refused.
    save_onnx : file to write the quantized graph to.
    """

    int8: Annotated[
        bool,
        typer.Option("--int8", help="The same as --precision int8.", rich_help_panel=_INT8_PANEL),
    ] = False
    calib: Calib = None
    method: Annotated[
        Method,
        typer.Option(
            case_sensitive=False,
            help="How the range of an activation is chosen from its histogram.",
            rich_help_panel=_INT8_PANEL,
        ),
    ] = Method.mse
    scales: Annotated[
        Scales,
        typer.Option(
            help="Values of the scales. power-of-two: every runtime computes the same labels.",
            rich_help_panel=_INT8_PANEL,
        ),
    ] = Scales.power_of_two
    ranges: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Use these ranges, a file that edgeseg calibrate -o wrote.",
            rich_help_panel=_INT8_PANEL,
        ),
    ] = None
    keep_float: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER",
            help="Leave this layer in float. Repeat for more layers.",
            rich_help_panel=_INT8_PANEL,
        ),
    ] = None
    max_miou_drop: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="POINTS",
            help="Leave layers in float until INT8 loses at most this much mIoU on --data.",
            rich_help_panel=_INT8_PANEL,
        ),
    ] = None
    frames: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of frames of --data to score on, evenly spread. Default: all.",
            rich_help_panel=_INT8_PANEL,
        ),
    ] = None
    min_agreement: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Refuse INT8 if fewer pixels (0..1) keep the float model's label; 0: never.",
            rich_help_panel=_INT8_PANEL,
        ),
    ] = LEAST_AGREEMENT
    min_iou: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Refuse INT8 if its mean IoU with the float model's labels is smaller.",
            rich_help_panel=_INT8_PANEL,
        ),
    ] = LEAST_MEAN_IOU
    min_class_iou: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Refuse INT8 if a class with more than 0.1 % of the pixels has a smaller IoU.",
            rich_help_panel=_INT8_PANEL,
        ),
    ] = LEAST_CLASS_IOU
    save_onnx: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write the quantized graph as an ONNX file with Q/DQ nodes.",
            rich_help_panel=_INT8_PANEL,
        ),
    ] = None

    def precision(self, wanted: Precision) -> Precision:
        """Return the precision to build.

        Raises
        ------
        InputError : ``--int8`` is given with another ``--precision``.
        """
        if not self.int8:
            return wanted
        if wanted not in (Precision.auto, Precision.int8):
            raise InputError(
                "--int8 and --precision disagree",
                got=f"--precision {wanted.value}",
                hint="Give one of them.",
            )
        return Precision.int8

    def quantization(self, data: DataOptions) -> "Quantization":
        """Return the options as the build takes them.

        Raises
        ------
        InputError : an option needs a calibration set, and none is given.
        """
        from edgeseg.build.options import Quantization

        needs_set = {
            "--keep-float": self.keep_float,
            "--max-miou-drop": self.max_miou_drop is not None,
            "--data": data.data,
            "--ranges": self.ranges,
            "--scales": self.scales is not Scales.power_of_two,
        }
        given = [option for option, value in needs_set.items() if value]
        if given and not self.calib:
            raise InputError(
                "INT8 options without a calibration set",
                got=", ".join(given),
                hint=f"Give one: --calib {SET_EXAMPLES}.",
            )
        return Quantization(
            method=self.method.value,
            keep_float=tuple(self.keep_float or ()),
            data=data.data,
            split=data.split,
            frames=self.frames,
            max_miou_drop=self.max_miou_drop,
            least_agreement=self.min_agreement,
            least_mean_iou=self.min_iou,
            least_class_iou=self.min_class_iou,
            ranges=self.ranges,
            scales=self.scales.value,
            save_onnx=self.save_onnx,
        )


@dataclass(frozen=True)
class TensorRtOptions:
    """Hold the options of TensorRT and TensorRT-RTX.

    Attributes
    ----------
    sm : compute capabilities to build for.
    workspace : limit of scratch memory, in MiB.
    level : how long to search for fast kernels.
    timing_cache : file of measured kernels.
    scores : the plan returns logits, too.
    version_compatible : later versions of TensorRT open the plan, too.
    kernels : edgeseg's CUDA kernels resize frames and paint pictures.
    batch : range of the number of frames per call.
    sizes : range of input sizes.
    print_trtexec : write the graph, and print the commands for trtexec.
    """

    sm: Annotated[
        str | None,
        typer.Option(
            metavar="75,86,...",
            help="Build for these compute capabilities (TensorRT-RTX only).",
            rich_help_panel=_TENSORRT_PANEL,
        ),
    ] = None
    workspace: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="MIB",
            help="Limit of scratch memory in MiB.",
            rich_help_panel=_TENSORRT_PANEL,
        ),
    ] = None
    level: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=5,
            help="How long TensorRT searches for fast kernels: 0 short, 5 long.",
            rich_help_panel=_TENSORRT_PANEL,
        ),
    ] = None
    timing_cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep the times of measured kernels in this file (not with TensorRT-RTX).",
            rich_help_panel=_TENSORRT_PANEL,
        ),
    ] = None
    scores: Annotated[
        bool,
        typer.Option(
            "--scores",
            help="The plan returns the logits, too.",
            rich_help_panel=_TENSORRT_PANEL,
        ),
    ] = False
    version_compatible: Annotated[
        bool,
        typer.Option(
            "--version-compatible",
            help="Later minor versions of TensorRT open the plan, too.",
            rich_help_panel=_TENSORRT_PANEL,
        ),
    ] = False
    kernels: Annotated[
        bool,
        typer.Option(
            "--kernels",
            help="Resize frames and paint pictures on the GPU (needs edgeseg build-plugin).",
            rich_help_panel=_TENSORRT_PANEL,
        ),
    ] = False
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="N|MIN:BEST:MAX",
            help="Number of frames per call: 8 stands for 1:8:8.",
            rich_help_panel=_TENSORRT_PANEL,
        ),
    ] = None
    sizes: Annotated[
        str | None,
        typer.Option(
            metavar="MIN:BEST:MAX",
            help="Input sizes of the plan, such as 352x480:720x960:1056x1920 (HxW each).",
            rich_help_panel=_TENSORRT_PANEL,
        ),
    ] = None
    print_trtexec: Annotated[
        bool,
        typer.Option(
            "--print-trtexec",
            help="Write the graph that TensorRT gets beside the engine, and print the trtexec "
            "commands that build and run it.",
            rich_help_panel=_TENSORRT_PANEL,
        ),
    ] = False

    def plan(self, unpool: str, *, prove: bool) -> "PlanOptions":
        """Parse the options; ``unpool`` and ``prove`` are for the CPU, too.

        Raises
        ------
        InputError : an option cannot be read.
        """
        from edgeseg.backends.base import PlanOptions

        return PlanOptions(
            unpool,
            parse_capabilities(self.sm),
            self.workspace,
            self.level,
            self.timing_cache,
            scores=self.scores,
            version_compatible=self.version_compatible,
            kernels=self.kernels,
            batch=parse_batches(self.batch),
            sizes=parse_sizes(self.sizes),
            save_graph=self.print_trtexec,
            prove=prove,
        )


@app.command("build-engine")
@option_groups
def build_engine(
    onnx: Annotated[Path, typer.Argument(metavar="ONNX", help="An ONNX file, float or quantized.")],
    engine: EngineOptions,
    data: DataOptions,
    int8_options: Int8Options,
    tensorrt: TensorRtOptions,
    spec: SpecOptions,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="The engine to write. Default: NAME.PRECISION.TARGET.engine.",
        ),
    ] = None,
    unpool: Annotated[
        str,
        typer.Option(
            help="How to unpool: native (standard operators), plugin (edgeseg's own) or auto."
        ),
    ] = "auto",
    proof: Annotated[
        bool,
        typer.Option(
            "--proof/--no-proof",
            help="Compare the engine's labels with those of the ONNX file on a few frames.",
        ),
    ] = True,
    json_file: Json = None,
) -> None:
    """Compile an ONNX file to an engine that takes camera frames and returns label maps.

    Writes the engine and its passport, NAME.engine.json. INT8 needs a calibration set (--calib).
    With --data and --max-miou-drop, the layers that lose most accuracy stay in float. With
    --precision auto, --calib and --data, the fastest precision within the budget is built.
    """
    from edgeseg.build.engine_from_onnx import build_engine as build
    from edgeseg.graph.network import load_network
    from edgeseg.passport import Passport

    require_json(json_file, onnx, out, int8_options.save_onnx)
    precision = int8_options.precision(engine.precision)
    quantization = int8_options.quantization(data)
    plan = tensorrt.plan(unpool, prove=proof)

    with ConsoleReporter(waiting=f"compiling {onnx}") as reporter:
        path = build(
            load_network(onnx, spec.overrides()),
            precision=precision.value,
            target=engine.target,
            calib=int8_options.calib,
            out=out,
            quantization=quantization,
            plan=plan,
            reporter=reporter,
        )

    passport = Passport.read(path)
    _print_candidates(passport.int8.budget)
    _print_classes(passport.int8.label_change)
    tell_assumed(passport.assumed)
    write_report(json_file, {"engine": str(path), "passport": passport.model_dump(mode="json")})
    tell_written(path, _describe(path, passport))
    if tensorrt.print_trtexec:
        _print_trtexec(passport)


def _describe(path: Path, passport: "Passport") -> str:
    """Return the main facts about an engine, for one line."""
    height, width = passport.spec.input_size
    facts = (
        f"{path.stat().st_size / 1e6:.1f} MB",
        f"{passport.precision} for {passport.target}",
        f"input {height}x{width} (HxW)",
        f"{len(passport.spec.labels)} classes",
        f"built in {passport.build_seconds:.1f} s",
    )
    return ", ".join(facts)


def _print_trtexec(passport: "Passport") -> None:
    """Print the commands that build and run the plan with trtexec."""
    facts = passport.tensorrt
    for command in (facts.trtexec_build, facts.trtexec_run):
        stdout().print(command, soft_wrap=True, highlight=False, markup=False)


def parse_capabilities(text: str | None) -> tuple[int, ...]:
    """Parse compute capabilities.

    Parameters
    ----------
    text : capabilities with commas between them: ``86``, ``8.6`` or ``sm86``; None for none.

    Raises
    ------
    InputError : the text is not such a list.

    Examples
    --------
    >>> parse_capabilities("75,8.6")
    (75, 86)
    """
    if not text:
        return ()

    words = text.replace(".", "").replace("sm", "").split(",")
    capabilities = tuple(whole_number(word.strip()) for word in words)
    if not all(capabilities):
        raise InputError(
            "--sm: not compute capabilities",
            got=repr(text),
            expected="numbers such as 75,86 or 8.6",
        )
    return capabilities


def parse_batches(text: str | None) -> tuple[int, int, int]:
    """Parse the range of the number of frames per call.

    Parameters
    ----------
    text : one number, or ``MIN:BEST:MAX``; None for one frame.

    Returns
    -------
    The smallest, the best and the largest number; one number N stands for (1, N, N).

    Raises
    ------
    InputError : the text is not such a range.

    Examples
    --------
    >>> parse_batches("8"), parse_batches("1:4:8")
    ((1, 8, 8), (1, 4, 8))
    """
    if text is None:
        return 1, 1, 1

    numbers = [whole_number(word) for word in text.split(":")]
    if len(numbers) == 1:
        numbers = [1, numbers[0], numbers[0]]
    if len(numbers) != 3 or not 1 <= numbers[0] <= numbers[1] <= numbers[2]:
        raise InputError(
            "--batch: not a range of batches",
            got=repr(text),
            expected="a number such as 8 (1 to 8), or MIN:BEST:MAX such as 1:4:8",
        )
    return numbers[0], numbers[1], numbers[2]


def parse_sizes(text: str | None) -> tuple[tuple[int, int], ...]:
    """Parse the range of input sizes.

    Parameters
    ----------
    text : ``MIN:BEST:MAX``, each ``HEIGHTxWIDTH``; None for the spec's size only.

    Returns
    -------
    Three sizes (H, W), or an empty tuple.

    Raises
    ------
    InputError : the text is not such a range.

    Examples
    --------
    >>> parse_sizes("352x480:720x960:1056x1920")
    ((352, 480), (720, 960), (1056, 1920))
    """
    if text is None:
        return ()

    words = text.split(":")
    if len(words) != 3:
        raise InputError(
            "--sizes: not a range of sizes",
            got=repr(text),
            expected="MIN:BEST:MAX, such as 352x480:720x960:1056x1920",
        )
    return tuple(parse_size(word, "--sizes") for word in words)


def _print_candidates(budget: "Budget | None") -> None:
    """Print the precisions that were compared under a budget, the fastest first, if any were."""
    from rich.table import Table

    if budget is None or len(budget.candidates) < 2:
        return

    limit = f"at most {budget.max_miou_drop:g} points of mIoU below fp32"
    table = Table(title=escape(f"Precisions on {budget.data}; budget: {limit}"))
    for heading in ("precision", "float layers", "mIoU", "ms", "within budget"):
        table.add_column(heading, justify="left" if heading == "precision" else "right")

    for candidate in sorted(budget.candidates, key=lambda candidate: candidate["latency_ms"]):
        table.add_row(
            candidate["precision"],
            str(candidate["float_layers"]),
            f"{100 * candidate['miou']:.2f}",
            f"{candidate['latency_ms']:.2f}",
            "yes" if candidate["within_budget"] else "no",
        )
    stdout().print(table)


def _print_classes(change: dict[str, Any]) -> None:
    """Print what INT8 changed in each class, the most damaged first."""
    from rich.table import Table

    if not change:
        return

    # The title and the columns.
    frames = "not used for calibration" if change["held_out"] else "of the calibration set"
    agreement = f"{100 * change['agreement']:.2f} % of pixels keep their label"
    table = Table(title=f"INT8 against float: {agreement} ({change['frames']} frames {frames})")
    for heading in ("class", "% of pixels", "IoU, %", "boundary F, %"):
        table.add_column(heading, justify="left" if heading == "class" else "right")

    # One row per class that occurs.
    occurring = [item for item in change["per_class"].items() if item[1]["iou"] is not None]
    occurring.sort(key=lambda item: item[1]["iou"])
    for name, row in occurring[:MOST_ROWS]:
        boundary = "" if row["boundary_f"] is None else f"{100 * row['boundary_f']:.1f}"
        share = f"{100 * row['share']:.2f}"
        table.add_row(escape(name), share, f"{100 * row['iou']:.1f}", boundary)
    if len(occurring) > MOST_ROWS:
        table.caption = f"{len(occurring) - MOST_ROWS} more classes changed less"
    stdout().print(table)
