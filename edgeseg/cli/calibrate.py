"""Define ``calibrate``: find the ranges that INT8 needs, and check the calibration set."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from edgeseg.cli.app import command
from edgeseg.cli.console import (
    ConsoleReporter,
    escape,
    stderr,
    stdout,
    tell_notes,
    tell_written,
    waiting,
)
from edgeseg.cli.groups import option_groups
from edgeseg.cli.inputs import find_onnx, open_folded, open_labelled
from edgeseg.cli.json_report import require_json, write_report
from edgeseg.cli.options import (
    Calib,
    Count,
    DataOptions,
    Json,
    Method,
    MethodOption,
    OnnxArgument,
    SpecOptions,
)
from edgeseg.cli.spelling import as_options
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.data import Dataset
    from edgeseg.graph.network import Network, Overrides
    from edgeseg.profiling.sensitivity import Scorer
    from edgeseg.quantize.calibration_check.report import SetReport
    from edgeseg.quantize.calibration_set import CalibrationSet
    from edgeseg.quantize.ptq import FoldedNetwork
    from edgeseg.quantize.ranges import Ranges, Statistics

MOST_CLIPPED = 8  # tensors listed
SCORED_FRAMES = 25  # of --data, at every stage of the check

_MARKS = {
    "good": "[green]good[/]",
    "warning": "[yellow]warning[/]",
    "not checked": "[dim]not checked[/]",
}


class Choose(str, Enum):
    """List the ways to choose frames from a source."""

    spread = "spread"
    random = "random"
    first = "first"
    cover = "cover"


@dataclass(frozen=True)
class SetOptions:
    """Hold the options that choose the calibration frames.

    Attributes
    ----------
    calib : address of the calibration set.
    split : split of a data set.
    count : number of frames.
    choose : how the frames are chosen.
    seed : seed of the random choice.
    """

    calib: Calib = None
    split: Annotated[
        str | None, typer.Option(help="Split of --calib, if it is a data set. Default: train.")
    ] = None
    count: Count = None
    choose: Annotated[
        Choose | None,
        typer.Option(help="How frames are chosen; cover prefers rare classes. Default: spread."),
    ] = None
    seed: Annotated[int | None, typer.Option(help="Seed of --choose random.")] = None

    def read(self) -> "CalibrationSet":
        """Choose the frames; ``cover`` reads all labels for that.

        Raises
        ------
        InputError : there is no such set, or an option does not fit it.
        """
        from edgeseg.quantize.calibration_set import resolve_set

        source = self.calib or "the calibration set"
        with ConsoleReporter(waiting=f"reading {source}") as reporter:
            return resolve_set(
                self.calib,
                split=self.split,
                count=self.count,
                seed=self.seed,
                choose=self.choose.value if self.choose else None,
                reporter=reporter,
            )


@dataclass(frozen=True)
class MethodOptions:
    """Hold the options that choose ranges from histograms.

    Attributes
    ----------
    method : the method.
    percentile : percentile of the method ``percentile``; None for its default.
    """

    method: MethodOption = Method.mse
    percentile: Annotated[
        float | None, typer.Option(help="Percentile of --method percentile. Default: 99.99.")
    ] = None

    def require(self) -> None:
        """Raise ``InputError`` if the percentile is wrong or does nothing."""
        from edgeseg.quantize.ranges import require_method

        if self.percentile is None:
            return
        if self.method is not Method.percentile:
            raise InputError(
                "--percentile works only with --method percentile",
                got=f"--method {self.method.value}",
                hint="Leave --percentile out, or change the method.",
            )
        require_method(self.method.value, self.percentile)

    def find(self, statistics: "Statistics") -> "Ranges":
        """Return the ranges of all tensors."""
        from edgeseg.quantize.ranges import PERCENTILE, ranges

        percentile = PERCENTILE if self.percentile is None else self.percentile
        return ranges(statistics, self.method.value, percentile=percentile)


@dataclass(frozen=True)
class CheckOptions:
    """Hold the options of the check of the set.

    Attributes
    ----------
    check : check the set.
    data : labelled data to score on.
    data_split : split of the labelled data.
    plot : file of the picture.
    """

    HELP_PANEL: ClassVar[str] = "Check of the calibration set"

    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Check whether the set is good enough for this model.",
        ),
    ] = False
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Labelled data to score INT8 on, such as camvid:PATH.",
        ),
    ] = None
    data_split: Annotated[str, typer.Option(help="Split of --data.")] = "val"
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='Draw the result to a picture (needs pip install "edgeseg\\[train]").',
        ),
    ] = None

    def require(self) -> None:
        """Raise ``InputError`` if an option has no effect, or ``plot`` cannot be drawn."""
        if not self.check and (self.data or self.plot):
            option = "--data" if self.data else "--plot"
            raise InputError(f"{option} works only with --check", hint="Add --check.")
        if self.plot:
            from edgeseg.profiling.plots import require_picture

            require_picture(self.plot)


@dataclass(frozen=True)
class _Inputs:
    """Hold what the command reads.

    Attributes
    ----------
    path : the ONNX file.
    overrides : facts of a file without a spec.
    folded : the network, folded.
    calibration : the calibration set.
    validation : labelled data to score on; None if none is given.
    """

    path: Path
    overrides: "Overrides"
    folded: "FoldedNetwork"
    calibration: "CalibrationSet"
    validation: "Dataset | None"

    @property
    def network(self) -> "Network":
        """Return the folded network."""
        return self.folded.network


@command()
@option_groups
def calibrate(
    model: OnnxArgument,
    set_options: SetOptions,
    method_options: MethodOptions,
    check_options: CheckOptions,
    spec: SpecOptions,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="FILE", help="Write the ranges to this file, NAME.ranges.json."
        ),
    ] = None,
    json_file: Json = None,
) -> None:
    """Run a float model on calibration frames, and find the ranges of activations for INT8.

    edgeseg build-engine --int8 --calib SET --ranges FILE uses the ranges. --check also tells
    whether the calibration set is good enough.
    """
    from edgeseg.quantize.ranges import belonging, write_ranges

    _require_outputs(model, out, json_file)
    method_options.require()
    check_options.require()
    inputs = _read_inputs(model, spec.overrides(), set_options, check_options)

    statistics, stages, from_cache = _collect(inputs, in_stages=check_options.check)
    with waiting(f"choosing ranges by {method_options.method.value}"):
        ranges = method_options.find(statistics)
        ranges = belonging(ranges, inputs.network.sha256, inputs.calibration)
    _print_ranges(ranges, statistics, inputs.network.name, from_cache)
    facts = {
        "network": inputs.network.name,
        "set": inputs.calibration.to_dict(),
        "ranges": ranges.model_dump(mode="json"),
        "check": None,
    }

    if stages:
        report, scored_on = _check(inputs, stages, method_options)
        _print_report(report, scored_on)
        facts |= {"check": report.to_dict(), "scored_on": scored_on}
        if check_options.plot:
            from edgeseg.profiling.plots import plot_report

            tell_written(plot_report(report, check_options.plot))
    if out:
        tell_written(write_ranges(out, ranges))
    write_report(json_file, facts)


def _require_outputs(model: str, out: Path | None, json_file: Path | None) -> None:
    """Raise now if an output cannot be written, not after minutes of work."""
    from edgeseg.files import require_json_output

    if out:
        require_json_output(out, Path(model))
    require_json(json_file, out, Path(model))


def _read_inputs(
    model: str, overrides: "Overrides", set_options: SetOptions, check_options: CheckOptions
) -> _Inputs:
    """Read the network, the labelled data and the calibration set, in this order."""
    path = find_onnx(model)
    folded = open_folded(path, overrides)
    data = DataOptions(check_options.data, check_options.data_split)
    validation = open_labelled(data, folded.network)
    return _Inputs(path, overrides, folded, set_options.read(), validation)


def _collect(
    inputs: _Inputs, in_stages: bool
) -> "tuple[Statistics, dict[int, Statistics] | None, bool]":
    """Run the network on the frames.

    Returns the statistics, those of 1, 2, 4, ... frames if ``in_stages``, and whether the first
    ones came from the cache.
    """
    from edgeseg.quantize.calibration_check.check import settle
    from edgeseg.quantize.ptq import network_input
    from edgeseg.quantize.ranges import cached_statistics

    network = inputs.network
    calibration = inputs.calibration
    with ConsoleReporter() as reporter:
        stages = None
        if in_stages:
            stages = settle(network, calibration, inputs.folded.tensors_to_range, reporter=reporter)
        statistics, from_cache = cached_statistics(
            network.model,
            network.sha256,
            inputs.folded.tensors_to_range,
            calibration,
            lambda image: network_input(network, image),
            collected=stages[len(calibration)] if stages else None,
            reporter=reporter,
        )
    return statistics, stages, from_cache


def _check(
    inputs: _Inputs, stages: "dict[int, Statistics]", method_options: MethodOptions
) -> "tuple[SetReport, str]":
    """Check the set; return the report, and what was scored in words.

    If the set has no labels, the float engine predicts the classes of its frames.
    """
    from edgeseg.build.engine_cache import resolve_engine
    from edgeseg.build.mixed_precision import AGREEMENT_FRAMES
    from edgeseg.profiling.sensitivity import Scorer
    from edgeseg.quantize.calibration_check.check import check_set
    from edgeseg.quantize.ptq import QuantizationPlan

    network = inputs.network
    calibration = inputs.calibration
    frames = SCORED_FRAMES if inputs.validation else AGREEMENT_FRAMES
    with ExitStack() as opened, stderr().status("checking the calibration set") as status:
        engine = None
        if not calibration.labels:
            engine = resolve_engine(inputs.path, precision="fp32", overrides=inputs.overrides)
            opened.enter_context(engine)
        scorer = Scorer(network, calibration, inputs.validation, frames)

        def score(count: int, statistics: "Statistics") -> float:
            """Return mIoU, or the share of equal labels, with the ranges of ``count`` frames."""
            status.update(f"scoring INT8 with the ranges of {count} frames")
            plan = QuantizationPlan(
                inputs.folded, method_options.find(statistics), from_cache=False
            )
            result = scorer(plan.quantized(plan.placement()), "int8")
            return 1 - result.labels_changed if result.miou is None else result.miou

        report = check_set(
            network,
            calibration,
            tensors=inputs.folded.tensors_to_range,
            validation=inputs.validation,
            engine_labels=engine,
            score=score,
            stages=stages,
        )

    return _spelled(report), _describe_score(scorer)


def _describe_score(scorer: "Scorer") -> str:
    """Return what was scored, in words."""
    if scorer.float_miou is None:
        return f"share of labels that stay as the float net's, on {scorer.on}"
    return f"mIoU on {scorer.on}, evenly spread (float {100 * scorer.float_miou:.2f})"


def _spelled(report: "SetReport") -> "SetReport":
    """Return the report with parameters spelled as options; it is printed and written as JSON."""
    verdicts = [replace(verdict, advice=as_options(verdict.advice)) for verdict in report.verdicts]
    return replace(report, verdicts=tuple(verdicts))


def _print_ranges(ranges: "Ranges", statistics: "Statistics", name: str, from_cache: bool) -> None:
    """Print the tensors that lose most of their range, and the notes about single tensors."""
    from rich.table import Table

    # The share of the largest value that each range keeps.
    largest = dict(zip(statistics.tensors, statistics.largest.tolist(), strict=True))
    kept: dict[str, float] = {}
    for tensor, amax in ranges.amax.items():
        if largest[tensor] > 0:
            kept[tensor] = amax / largest[tensor]

    # The title and the columns.
    method = ranges.method
    if ranges.percentile is not None:
        method += f" {ranges.percentile:g}"
    where = f"{name} on {ranges.set_description}"
    table = Table(title=escape(f"{where}: {len(ranges.amax)} ranges by {method}"))
    table.add_column("activation")
    for heading in ("largest |x|", "range", "part kept", "zeros"):
        table.add_column(heading, justify="right")

    # The rows.
    rows = {tensor: row for row, tensor in enumerate(statistics.tensors)}
    for tensor in sorted(kept, key=kept.__getitem__)[:MOST_CLIPPED]:
        row = rows[tensor]
        zeros = statistics.zeros[row] / statistics.elements[row]
        table.add_row(
            escape(tensor),
            f"{largest[tensor]:.4g}",
            f"{ranges.amax[tensor]:.4g}",
            f"{100 * kept[tensor]:.0f} %",
            f"{100 * zeros:.0f} %",
        )

    console = stdout()
    console.print(table)
    rest = len(kept) - MOST_CLIPPED
    if rest > 0:
        console.print(f"{rest} more activations keep a larger part of their range")
    if from_cache:
        console.print("nothing was run: the cache has the histograms of this model on these frames")
    tell_notes(ranges.notes)


def _print_report(report: "SetReport", scored_on: str) -> None:
    """Print the classes that the set shows, and the verdicts of the check."""
    from rich.table import Table

    console = stdout()
    if report.coverage:
        classes = Table(title=escape(f"Classes in the calibration set, by {report.coverage_from}"))
        classes.add_column("class")
        for heading in ("frames", "pixels"):
            classes.add_column(heading, justify="right")
        for coverage in report.coverage:
            frames = f"{coverage.frames} of {report.frames}"
            classes.add_row(escape(coverage.name), frames, f"{100 * coverage.share:.2f} %")
        console.print(classes)

    for verdict in report.verdicts:
        advice = f" {verdict.advice}" if verdict.advice else ""
        text = escape(f"{verdict.item}: {verdict.found}.{advice}")
        console.print(f"{_MARKS[verdict.state]}  {text}", soft_wrap=True)
    score = escape(f"The score is {scored_on}.")
    console.print(score, style="dim", soft_wrap=True, highlight=False)
