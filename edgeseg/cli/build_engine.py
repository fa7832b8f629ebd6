"""``build-engine``: from an ONNX file to an engine."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli.app import app
from edgeseg.cli.console import escape, stderr, stdout, tell_assumed
from edgeseg.cli.options import (
    Json,
    Precision,
    PrecisionOption,
    Target,
    parse_size,
    require_json,
    spec_flags,
    write_report,
)
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.graph.network import Overrides


# As edgeseg.build.options has them, which is imported later.
LEAST_AGREEMENT, LEAST_MEAN_IOU, LEAST_CLASS_IOU = 0.9, 0.9, 0.7

MOST_ROWS = 24  # of the table of classes
SET_EXAMPLES = "camvid:PATH, a folder, a video, synthetic:// or calibration/sets/NAME.toml"


class Method(str, Enum):
    """How a range is chosen from a histogram."""

    minmax = "minmax"
    percentile = "percentile"
    entropy = "entropy"
    mse = "mse"


class Scales(str, Enum):
    """What values the scales of INT8 may have."""

    power_of_two = "power-of-two"
    any = "any"


@app.command("build-engine")
@spec_flags
def build_engine(
    onnx: Annotated[Path, typer.Argument(help="An ONNX file.")],
    precision: PrecisionOption = Precision.auto,
    target: Target = "auto",
    int8: Annotated[bool, typer.Option("--int8", help="The same as --precision int8.")] = False,
    calib: Annotated[
        str | None,
        typer.Option(metavar="SET", help="Calibration set: camvid:PATH, a folder, a video, synthetic:// or a .toml."),
    ] = None,
    method: Annotated[Method, typer.Option(case_sensitive=False, help="How INT8 ranges are chosen.")] = Method.mse,
    scales: Annotated[
        Scales, typer.Option(help="Of INT8. power-of-two: the same labels in every runtime.")
    ] = Scales.power_of_two,
    ranges: Annotated[Path | None, typer.Option(metavar="FILE", help="Ranges that edgeseg calibrate wrote.")] = None,
    keep_float: Annotated[
        list[str] | None, typer.Option(metavar="LAYER", help="Leave a layer in float; may be repeated.")
    ] = None,
    max_miou_drop: Annotated[
        float | None, typer.Option(min=0, metavar="POINTS", help="Leave layers in float until INT8 costs no more.")
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="DATA", help="Labelled data to keep that budget on.")] = None,
    split: Annotated[str, typer.Option(help="Split of --data.")] = "val",
    frames: Annotated[int | None, typer.Option(min=1, help="Score on so many frames of it, evenly spread.")] = None,
    min_agreement: Annotated[
        float,
        typer.Option(min=0, max=1, help="Least share of the float net's labels that INT8 must keep; 0 accepts any."),
    ] = LEAST_AGREEMENT,
    min_iou: Annotated[
        float, typer.Option(min=0, max=1, help="Least mean IoU of INT8's classes with the float net's labels.")
    ] = LEAST_MEAN_IOU,
    min_class_iou: Annotated[
        float, typer.Option(min=0, max=1, help="Least IoU of each class of more than 0.1 % of the pixels.")
    ] = LEAST_CLASS_IOU,
    save_onnx: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the Q/DQ file of an INT8 engine, too.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The .engine file to write.")] = None,
    sm: Annotated[
        str | None,
        typer.Option(
            metavar="75,86,...", help="TensorRT-RTX: build for these compute capabilities.", rich_help_panel="TensorRT"
        ),
    ] = None,
    unpool: Annotated[
        str, typer.Option(help="How values are unpooled: native, plugin (our own operators) or auto.")
    ] = "auto",
    workspace: Annotated[
        int | None, typer.Option(min=1, metavar="MIB", help="Limit scratch memory.", rich_help_panel="TensorRT")
    ] = None,
    level: Annotated[
        int | None,
        typer.Option(min=0, max=5, help="How long to search for fast kernels.", rich_help_panel="TensorRT"),
    ] = None,
    timing_cache: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep measured kernels there (not RTX).", rich_help_panel="TensorRT"),
    ] = None,
    scores: Annotated[
        bool,
        typer.Option("--scores", help="The plan gives the net's scores, too.", rich_help_panel="TensorRT"),
    ] = False,
    version_compatible: Annotated[
        bool,
        typer.Option(
            "--version-compatible", help="A plan for later versions of TensorRT, too.", rich_help_panel="TensorRT"
        ),
    ] = False,
    kernels: Annotated[
        bool,
        typer.Option(
            "--kernels",
            help="Frames of any size are resized, and pictures painted, on the GPU, by edgeseg's library.",
            rich_help_panel="TensorRT",
        ),
    ] = False,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="N or LEAST:BEST:LARGEST", help="Frames the plan takes at a time.", rich_help_panel="TensorRT"
        ),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            metavar="LEAST:BEST:LARGEST",
            help="Sizes the plan takes, HEIGHTxWIDTH each.",
            rich_help_panel="TensorRT",
        ),
    ] = None,
    proof: Annotated[
        bool,
        typer.Option("--proof/--no-proof", help="Compare the engine with the ONNX file on a few frames."),
    ] = True,
    print_trtexec: Annotated[
        bool,
        typer.Option(
            "--print-trtexec",
            help="Write the graph TensorRT is given beside the engine, and the commands for it.",
            rich_help_panel="TensorRT",
        ),
    ] = False,
    *,
    overrides: "Overrides",
    json_file: Json = None,
) -> None:
    """Compile an ONNX file for a target: frame in, label map out. Writes the engine and its passport.

    INT8 needs a calibration set. With --data and --max-miou-drop the layers that cost most stay in float, and with
    --precision auto the fastest of all precisions within that budget is built.
    """
    from edgeseg.backends.base import PlanOptions
    from edgeseg.build.engine_from_onnx import build_engine as build
    from edgeseg.build.options import Quantization
    from edgeseg.passport import Passport

    require_json(json_file, onnx, out, save_onnx)
    if int8 and precision not in (Precision.auto, Precision.int8):
        raise InputError("--int8 and --precision disagree", got=f"--precision {precision.value}")
    if not calib and (keep_float or max_miou_drop is not None or data or ranges or scales is not Scales.power_of_two):
        raise InputError("INT8 options without a calibration set", hint=f"Give one: --calib {SET_EXAMPLES}.")
    wanted = Precision.int8 if int8 else precision
    options = Quantization(
        method=method.value,
        keep_float=tuple(keep_float or ()),
        data=data,
        split=split,
        frames=frames,
        max_miou_drop=max_miou_drop,
        least_agreement=min_agreement,
        least_mean_iou=min_iou,
        least_class_iou=min_class_iou,
        ranges=ranges,
        scales=scales.value,
    )
    plan = PlanOptions(
        unpool,
        _capabilities(sm),
        workspace,
        level,
        timing_cache,
        scores=scores,
        version_compatible=version_compatible,
        kernels=kernels,
        batch=_batches(batch),
        sizes=_sizes(sizes),
    )
    console = stderr()
    with console.status(escape(f"compiling {onnx}")) as status:

        def say(line: str) -> None:
            if line.startswith(("calibrating", "building")):
                status.update(escape(f"compiling {onnx}: {line}"))
            else:
                console.print(escape(line), soft_wrap=True, highlight=False)

        path = build(
            onnx,
            precision=wanted.value,
            target=target,
            calib=calib,
            out=out,
            overrides=overrides,
            quantization=options,
            save_onnx=save_onnx,
            plan=plan,
            save_graph=print_trtexec,
            prove=proof,
            say=say,
        )
    passport = Passport.read(path)
    _print_candidates(passport.int8)
    _print_classes(passport.int8)
    tell_assumed(passport.assumed)
    height, width = passport.spec.input_size
    write_report(json_file, {"engine": str(path), "passport": passport.model_dump(mode="json")})
    stdout().print(
        f"wrote {escape(str(path))} ({path.stat().st_size / 1e6:.1f} MB; {passport.precision} for {passport.target}, "
        f"{height}x{width}, {len(passport.spec.labels)} classes; {passport.build_seconds:.1f} s)",
        soft_wrap=True,
    )
    if print_trtexec:
        for key in ("trtexec_build", "trtexec_run"):
            stdout().print(passport.settings[key], soft_wrap=True, highlight=False, markup=False)


def _capabilities(text: str | None) -> tuple[int, ...]:
    """``75,8.6`` -> (75, 86)."""
    words = (text or "").replace(".", "").replace("sm", "").split(",") if text else []
    if not all(w.strip().isascii() and w.strip().isdecimal() for w in words):
        raise InputError("not compute capabilities", got=repr(text), expected="such as 75,86,89 or 8.6")
    return tuple(int(w) for w in words)


def _batches(text: str | None) -> tuple[int, int, int]:
    """``8`` -> (1, 8, 8); ``1:4:8`` -> (1, 4, 8)."""
    if text is None:
        return 1, 1, 1
    numbers = [int(word) if word.isascii() and word.isdecimal() else 0 for word in text.split(":")]
    least, best, largest = numbers if len(numbers) == 3 else (1, numbers[0], numbers[0] if len(numbers) == 1 else 0)
    if not 1 <= least <= best <= largest:
        raise InputError("not a range of batches", got=repr(text), expected="such as 8 (1 to 8) or 1:4:8")
    return least, best, largest


def _sizes(text: str | None) -> tuple[tuple[int, int], ...]:
    """``352x480:720x960:1056x1920`` -> ((352, 480), (720, 960), (1056, 1920))."""
    if text is None:
        return ()
    words = text.split(":")
    if len(words) != 3:
        expected = "the least, the best and the largest, such as 352x480:720x960:1056x1920"
        raise InputError("not a range of sizes", got=repr(text), expected=expected)
    return tuple(parse_size(word) for word in words)


def _print_candidates(int8: "dict[str, Any]") -> None:
    """The precisions that were measured against each other, if there was a choice."""
    candidates = int8.get("budget", {}).get("candidates", [])
    if len(candidates) < 2:
        return
    from rich.table import Table

    table = Table(
        title=escape(f"within {int8['budget']['max_miou_drop']:g} points of fp32 on {int8['budget']['data']}?")
    )
    for heading in ("precision", "float layers", "mIoU", "ms", "within"):
        table.add_column(heading, justify="left" if heading == "precision" else "right")
    for c in sorted(candidates, key=lambda c: c["latency_ms"]):
        table.add_row(
            c["precision"],
            str(c["float_layers"]),
            f"{100 * c['miou']:.2f}",
            f"{c['latency_ms']:.2f}",
            "yes" if c["within_budget"] else "no",
        )
    stdout().print(table)


def _print_classes(int8: "dict[str, Any]") -> None:
    """Print what INT8 changed in every class, the most damaged first."""
    change = int8.get("label_change")
    if not change:
        return
    from rich.table import Table

    seen = "held out of the calibration set" if change["held_out"] else "of the calibration set"
    same = f"{100 * change['agreement']:.2f} % of the labels equal"
    table = Table(title=f"INT8 against float: {same}, {change['frames']} frames {seen}")
    for heading in ("class", "% of pixels", "IoU", "boundary F"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    rows = [(name, row) for name, row in change["per_class"].items() if row["iou"] is not None]
    for name, row in sorted(rows, key=lambda item: item[1]["iou"])[:MOST_ROWS]:
        boundary = "" if row["boundary_f"] is None else f"{100 * row['boundary_f']:.1f}"
        table.add_row(escape(name), f"{100 * row['share']:.2f}", f"{100 * row['iou']:.1f}", boundary)
    if len(rows) > MOST_ROWS:
        table.caption = f"and {len(rows) - MOST_ROWS} classes that changed less"
    stdout().print(table)
