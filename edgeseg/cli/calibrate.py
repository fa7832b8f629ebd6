"""``calibrate``: the ranges of a net's activations on a calibration set, and whether that set is fit for it."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.common import (
    Json,
    app,
    escape,
    progress,
    spec_flags,
    stdout,
    tell_assumed,
    waiting,
)
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.export.network import Network, Overrides
    from edgeseg.quantize.ranges import Ranges, Statistics
    from edgeseg.quantize.report import SetReport
    from edgeseg.quantize.sets import CalibrationSet

MOST_CLIPPED = 8  # tensors listed
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
    method: Annotated[Method, typer.Option(help="How a range is chosen.")] = Method.percentile,
    percentile: Annotated[float, typer.Option(help="Of --method percentile.")] = 99.99,
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
    """Run a float net on a calibration set and find the range of every activation; --check judges the set."""
    from edgeseg.artifact import write_json
    from edgeseg.export.network import load_network
    from edgeseg.quantize.check import network_input, settle
    from edgeseg.quantize.ranges import belonging, cached_statistics, ranges, require_method, write_ranges

    _require(net, check, data, out, plot, json_file)
    require_method(method.value, percentile)
    path = _net_file(net)
    network = load_network(path, overrides)
    tell_assumed(network.assumed)
    chosen = _read_set(calib, split, count, seed, choose)
    tensors = _tensors(network)
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
        found = belonging(ranges(statistics, method.value, percentile=percentile), network.sha256, chosen)
    _print_ranges(found, statistics, network.name, from_cache)
    report = _check(network, path, overrides, chosen, tensors, stages, data, data_split) if stages else None
    if report:
        _print_report(report)
    if plot and report:
        from edgeseg.quantize.plot import plot_report

        _tell_written(plot_report(report, plot))
    if out:
        _tell_written(write_ranges(out, found))
    if json_file:
        facts = {"network": network.name, "set": chosen.to_dict(), "ranges": found.model_dump(mode="json")}
        write_json(json_file, {**facts, "check": report.to_dict() if report else None})


def _require(
    net: str, check: bool, data: str | None, out: Path | None, plot: Path | None, json_file: Path | None
) -> None:
    """Raise now what would fail after minutes: outputs that cannot be written, flags that do nothing."""
    from edgeseg.artifact import require_json_output

    if not check and (data or plot):
        raise InputError(f"{'--data' if data else '--plot'} belongs to the check of a set", hint="Give --check, too.")
    if out:
        require_json_output(out, Path(net))
    if json_file:
        require_json_output(json_file, out, Path(net))
    if plot:
        from edgeseg.quantize.plot import require_picture

        require_picture(plot)


def _net_file(name: str) -> Path:
    from edgeseg.runtime.load import zoo

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


def _tensors(network: "Network") -> tuple[str, ...]:
    """The activations whose ranges are wanted."""
    from edgeseg.quantize.observe import tensors_to_watch

    return tensors_to_watch(network.model)


def _read_set(
    calib: str | None, split: str | None, count: int | None, seed: int | None, choose: Choose | None
) -> "CalibrationSet":
    """The set, settled: ``cover`` reads every label first."""
    from edgeseg.quantize.sets import resolve_set

    with waiting(f"reading {calib}" if calib else "reading"):
        return resolve_set(calib, split=split, count=count, seed=seed, choose=choose.value if choose else None)


def _check(
    network: "Network",
    path: Path,
    overrides: "Overrides",
    chosen: "CalibrationSet",
    tensors: tuple[str, ...],
    stages: "dict[int, Statistics]",
    data: str | None,
    data_split: str,
) -> "SetReport":
    """The check, with the float engine's predictions where the set has no labels."""
    from edgeseg.data import open_dataset
    from edgeseg.quantize.check import check_set
    from edgeseg.runtime import resolve_engine

    validation = open_dataset(data, data_split) if data else None
    with waiting("checking the set"):
        engine = None if chosen.labels else resolve_engine(path, precision="fp32", overrides=overrides)
        return check_set(network, chosen, tensors=tensors, validation=validation, engine_labels=engine, stages=stages)


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
    for tensor, note in found.notes.items():
        console.print(f"[yellow]note:[/] {escape(tensor)}: {escape(note)}", soft_wrap=True)


def _print_report(report: "SetReport") -> None:
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


def _tell_written(path: Path) -> None:
    stdout().print(f"wrote {escape(str(path))}", soft_wrap=True)
