"""``calibrate``: the ranges of a net's activations on a calibration set, and whether that set is fit for it."""

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.app import app
from edgeseg.cli.console import escape, progress, stderr, stdout, tell_assumed, waiting
from edgeseg.cli.options import Json, require_json, spec_flags, write_report
from edgeseg.cli.spelling import as_options
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.data import Dataset
    from edgeseg.graph.network import Network, Overrides
    from edgeseg.quantize.calibration_check.report import SetReport
    from edgeseg.quantize.calibration_set import CalibrationSet
    from edgeseg.quantize.ranges import Ranges, Statistics

MOST_CLIPPED = 8  # tensors listed
SCORED_FRAMES = 25  # of --data, at every stage of the check
_MARKS = {"good": "[green]good[/]", "warning": "[yellow]warning[/]", "not checked": "[dim]not checked[/]"}


class Method(str, Enum):
    """How a range is chosen from a histogram."""

    minmax = "minmax"
    percentile = "percentile"
    entropy = "entropy"
    mse = "mse"


class Choose(str, Enum):
    """How frames are chosen from a source."""

    spread = "spread"
    random = "random"
    first = "first"
    cover = "cover"


@app.command()
@spec_flags
def calibrate(
    net: Annotated[str, typer.Argument(metavar="NET", help="An .onnx file, or a shipped net.")],
    calib: Annotated[
        str | None,
        typer.Option(metavar="SET", help="camvid:PATH, a folder, a video, synthetic:// or calibration/sets/NAME.toml."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of a data set (default train).")] = None,
    count: Annotated[int | None, typer.Option(help="Frames (default 100).")] = None,
    choose: Annotated[
        Choose | None, typer.Option(help="cover: frames that show rare classes (default spread).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of --choose random.")] = None,
    method: Annotated[Method, typer.Option(case_sensitive=False, help="How a range is chosen.")] = Method.mse,
    percentile: Annotated[float | None, typer.Option(help="Of --method percentile (default 99.99).")] = None,
    check: Annotated[bool, typer.Option("--check", help="Say whether the set is fit for the net.")] = False,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="With --check: what the net is scored on, camvid:PATH.")
    ] = None,
    data_split: Annotated[str, typer.Option(help="Split of --data.")] = "val",
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The ranges as a file, NAME.ranges.json.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="With --check: a picture of what it found.")] = None,
    *,
    overrides: "Overrides",
    json_file: Json = None,
) -> None:
    """Run a float net on a calibration set and find the ranges INT8 needs; --check judges the set.

    The ranges are of the net as build-engine quantizes it, and it takes the file: build-engine --int8 --ranges FILE.
    """
    from edgeseg.quantize.calibration_check.check import network_input, settle
    from edgeseg.quantize.ptq import tensors_to_range
    from edgeseg.quantize.ranges import PERCENTILE, Ranges, belonging, cached_statistics, ranges, write_ranges

    _require(net, check, data, method, percentile, out, plot, json_file)
    path = net_file(net)
    network = _folded(path, overrides)
    tensors = tensors_to_range(network)
    validation = _validation(network, data, data_split)
    chosen = _read_set(calib, split, count, seed, choose)

    def by_method(statistics: "Statistics") -> Ranges:
        return ranges(statistics, method.value, percentile=PERCENTILE if percentile is None else percentile)

    with progress(f"running {network.name}", len(chosen)) as step:
        stages = settle(network, chosen, tensors, on_frame=lambda _: step()) if check else None
        statistics, from_cache = cached_statistics(
            network.model,
            network.sha256,
            tensors,
            chosen,
            lambda image: network_input(network, image),
            collected=stages[len(chosen)] if stages else None,
            on_frame=lambda _: step(),
        )
    with waiting(f"finding ranges by {method.value}"):
        found = belonging(by_method(statistics), network.sha256, chosen)
    _print_ranges(found, statistics, network.name, from_cache)
    facts = {"network": network.name, "set": chosen.to_dict(), "ranges": found.model_dump(mode="json"), "check": None}
    if stages:
        report, scored_on = _check(network, path, overrides, chosen, tensors, stages, validation, by_method)
        _print_report(report, scored_on)
        facts |= {"check": report.to_dict(), "scored_on": scored_on}
        if plot:
            from edgeseg.profiling.plots import plot_report

            tell_written(plot_report(report, plot))
    if out:
        tell_written(write_ranges(out, found))
    write_report(json_file, facts)


def _require(
    net: str,
    check: bool,
    data: str | None,
    method: Method,
    percentile: float | None,
    out: Path | None,
    plot: Path | None,
    json_file: Path | None,
) -> None:
    """Raise now what would fail after minutes: outputs that cannot be written, flags that do nothing."""
    from edgeseg.files import require_json_output
    from edgeseg.quantize.ranges import require_method

    if percentile is not None:
        if method is not Method.percentile:
            raise InputError(
                "--percentile belongs to a method", got=method.value, hint="Give --method percentile, too."
            )
        require_method(method.value, percentile)
    if not check and (data or plot):
        raise InputError(f"{'--data' if data else '--plot'} belongs to the check of a set", hint="Give --check, too.")
    if out:
        require_json_output(out, Path(net))
    require_json(json_file, out, Path(net))
    if plot:
        from edgeseg.profiling.plots import require_picture

        require_picture(plot)


def net_file(name: str) -> Path:
    """An ONNX file by its path or, where there is none, by the name of a net that ships. Raises ``InputError``."""
    from edgeseg.zoo import zoo

    shipped = zoo()
    path = Path(name)
    if path.is_file() or name not in shipped:
        if not path.is_file():
            raise InputError(
                "no such net",
                got=repr(name),
                expected=f"an .onnx file or a net that ships ({', '.join(shipped) or 'none'})",
            )
        return path
    return shipped[name]


def _folded(path: Path, overrides: "Overrides") -> "Network":
    """The net in the form quantization starts from: its tensors' names are those that build-engine asks for."""
    from edgeseg.graph.network import load_network
    from edgeseg.quantize.ptq import folded

    network = folded(load_network(path, overrides))
    tell_assumed(network.assumed)
    return network


def _validation(network: "Network", data: str | None, split: str) -> "Dataset | None":
    """What the net is scored on, if it is given; its labels must be the net's."""
    from edgeseg.data import open_dataset
    from edgeseg.metrics.evaluate import check_labels

    dataset = open_dataset(data, split) if data else None
    if dataset is not None:
        check_labels(network.spec.labels, dataset.labels, dataset.name)
    return dataset


def _read_set(
    calib: str | None, split: str | None, count: int | None, seed: int | None, choose: Choose | None
) -> "CalibrationSet":
    """The set, settled: ``cover`` reads every label first."""
    from edgeseg.quantize.calibration_set import resolve_set

    with waiting(f"reading {calib}" if calib else "reading"):
        return resolve_set(calib, split=split, count=count, seed=seed, choose=choose.value if choose else None)


def _check(
    network: "Network",
    path: Path,
    overrides: "Overrides",
    chosen: "CalibrationSet",
    tensors: tuple[str, ...],
    stages: "dict[int, Statistics]",
    validation: "Dataset | None",
    by_method: "Callable[[Statistics], Ranges]",
) -> "tuple[SetReport, str]":
    """The check, and what it scored in words; the float engine predicts classes where the set has no labels."""
    from edgeseg.build.engine_cache import resolve_engine
    from edgeseg.build.mixed_precision import AGREEMENT_FRAMES
    from edgeseg.profiling.sensitivity import Scorer
    from edgeseg.quantize.calibration_check.check import check_set
    from edgeseg.quantize.ptq import Prepared

    with stderr().status("checking the set") as status:
        engine = None if chosen.labels else resolve_engine(path, precision="fp32", overrides=overrides)
        scorer = Scorer(network, chosen, validation, SCORED_FRAMES if validation else AGREEMENT_FRAMES)

        def score(count: int, statistics: "Statistics") -> float:
            status.update(f"scoring INT8 with the ranges of {count} frames")
            prepared = Prepared(network, by_method(statistics), from_cache=False)
            found = scorer(prepared.quantized(prepared.placement()), "int8")
            return 1 - found.labels_changed if found.miou is None else found.miou

        report = check_set(
            network,
            chosen,
            tensors=tensors,
            validation=validation,
            engine_labels=engine,
            score=score,
            stages=stages,
        )
    verdicts = tuple(replace(verdict, advice=as_options(verdict.advice)) for verdict in report.verdicts)
    report = replace(report, verdicts=verdicts)  # it is printed, and written as JSON
    if scorer.float_miou is None:
        return report, f"share of labels that stay as the float net's, on {scorer.on}"
    return report, f"mIoU on {scorer.on}, evenly spread (float {100 * scorer.float_miou:.2f})"


def _print_ranges(found: "Ranges", statistics: "Statistics", name: str, from_cache: bool) -> None:
    """The tensors that lose most of their range, and what is odd about any."""
    from rich.table import Table

    largest = dict(zip(statistics.tensors, statistics.largest.tolist(), strict=True))
    kept = {tensor: amax / largest[tensor] for tensor, amax in found.amax.items() if largest[tensor] > 0}
    by = f"{found.method} {found.percentile:g}" if found.percentile is not None else found.method
    table = Table(title=escape(f"{name} on {found.set_description}: {len(found.amax)} ranges by {by}"))
    table.add_column("activation")
    for heading in ("largest |x|", "range", "kept of it", "zeros"):
        table.add_column(heading, justify="right")
    rows = {tensor: row for row, tensor in enumerate(statistics.tensors)}
    for tensor in sorted(kept, key=kept.__getitem__)[:MOST_CLIPPED]:
        zeros = statistics.zeros[rows[tensor]] / statistics.elements[rows[tensor]]
        table.add_row(
            escape(tensor),
            f"{largest[tensor]:.4g}",
            f"{found.amax[tensor]:.4g}",
            f"{100 * kept[tensor]:.0f} %",
            f"{100 * zeros:.0f} %",
        )
    console = stdout()
    console.print(table)
    rest = len(kept) - min(len(kept), MOST_CLIPPED)
    if rest:
        console.print(f"{rest} more keep more of theirs")
    if from_cache:
        console.print("nothing was run: this net has met these frames before")
    tell_notes(found)


def tell_notes(found: "Ranges") -> None:
    """What is odd about single tensors."""
    for tensor, note in found.notes.items():
        stdout().print(f"[yellow]note:[/] {escape(tensor)}: {escape(note)}", soft_wrap=True)


def _print_report(report: "SetReport", scored_on: str) -> None:
    from rich.table import Table

    console = stdout()
    if report.coverage:
        classes = Table(title=escape(f"classes shown, by {report.coverage_from}"))
        classes.add_column("class")
        for heading in ("frames", "pixels"):
            classes.add_column(heading, justify="right")
        for one in report.coverage:
            classes.add_row(escape(one.name), f"{one.frames} of {report.frames}", f"{100 * one.share:.2f} %")
        console.print(classes)
    for verdict in report.verdicts:
        advice = f" {escape(verdict.advice)}" if verdict.advice else ""
        console.print(
            f"{_MARKS[verdict.state]}  {escape(verdict.item)}: {escape(verdict.found)}.{advice}", soft_wrap=True
        )
    console.print(escape(f"The score is {scored_on}."), style="dim", soft_wrap=True, highlight=False)


def tell_written(path: Path) -> None:
    """Say which file was written."""
    stdout().print(f"wrote {escape(str(path))}", soft_wrap=True)
