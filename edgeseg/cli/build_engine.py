"""Define ``build-engine``: compile an ONNX file to an engine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli.app import command
from edgeseg.cli.build_options import Int8Options, TensorRtOptions
from edgeseg.cli.console import ConsoleReporter, escape, stdout, tell_assumed, tell_written
from edgeseg.cli.groups import option_groups
from edgeseg.cli.json_report import require_json, write_report
from edgeseg.cli.options import DataOptions, EngineOptions, Json, SpecOptions

if TYPE_CHECKING:
    from edgeseg.facts import Budget
    from edgeseg.passport import Passport

MOST_ROWS = 24  # of the table of classes


@command("build-engine")
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
    precision = int8_options.resolve_precision(engine.precision)
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
    for line in (facts.trtexec_build, facts.trtexec_run):
        stdout().print(line, soft_wrap=True, highlight=False, markup=False)


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
