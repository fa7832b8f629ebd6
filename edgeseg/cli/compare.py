"""Define ``compare``: compare engines on the same frames, and with a saved comparison."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from edgeseg.cli.app import command
from edgeseg.cli.console import ConsoleReporter, escape, stdout, tell_assumed, waiting
from edgeseg.cli.groups import option_groups
from edgeseg.cli.json_report import require_json, write_report
from edgeseg.cli.options import Frames, Json, Rounds, SpecOptions
from edgeseg.errors import CheckFailedError, InputError

if TYPE_CHECKING:
    from rich.table import Table

    from edgeseg.graph.network import Overrides
    from edgeseg.profiling.comparison import Comparison, EngineResult
    from edgeseg.profiling.entry import Entry

MAX_DROP = 0.5  # points of mIoU


@dataclass(frozen=True)
class BaselineOptions:
    """Hold the options of the check against a saved comparison.

    Attributes
    ----------
    baseline : file of the saved comparison.
    max_drop : the tolerance in points; None for ``MAX_DROP``.
    max_slowdown : factor of the latency from which on the check fails.
    """

    HELP_PANEL: ClassVar[str] = "Check against a saved comparison"

    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A comparison saved by --json. Exit with 1 if a score left the tolerance.",
        ),
    ] = None
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="POINTS",
            help="Tolerance of mIoU, boundary F and label agreement, in points; the IoU of a "
            "class has twice that. A change of IoU within its 99 % interval over frames is no "
            "alarm. A gain beyond it fails, too: find its reason, and save a "
            f"new baseline. Default: {MAX_DROP}.",
        ),
    ] = None
    max_slowdown: Annotated[
        float | None,
        typer.Option(
            min=1,
            metavar="FACTOR",
            help="Fail if an engine's latency, relative to the first engine, grew by more than "
            "this factor. Without it, a slower engine is a warning.",
        ),
    ] = None

    def read(self) -> dict[str, Any] | None:
        """Read the saved comparison, if one is given.

        Raises
        ------
        InputError : a tolerance is given without it, or the file is not a saved comparison.
        """
        from edgeseg.profiling.regression import read_baseline

        if self.baseline is not None:
            return read_baseline(self.baseline)
        if self.max_drop is not None or self.max_slowdown is not None:
            option = "--max-slowdown" if self.max_drop is None else "--max-drop"
            raise InputError(
                f"{option} works only with --baseline",
                hint="Give --baseline FILE, a comparison that --json saved.",
            )
        return None

    def check(self, saved: dict[str, Any], result: "Comparison") -> None:
        """Print what changed against the saved comparison.

        Raises
        ------
        CheckFailedError : a number changed by more than its tolerance.
        InputError : the saved comparison is of other data or engines.
        """
        from edgeseg.profiling.regression import check_against, warnings_against

        max_drop = MAX_DROP if self.max_drop is None else self.max_drop
        problems = check_against(saved, result, max_drop=max_drop, max_slowdown=self.max_slowdown)

        console = stdout()
        for line in problems:
            console.print(f"[bold red]changed:[/] {escape(line)}", soft_wrap=True, highlight=False)
        for line in warnings_against(saved, result):
            if not any(problem.startswith(line) for problem in problems):
                text = f"[yellow]warning:[/] {escape(line)}"
                console.print(text, soft_wrap=True, highlight=False)

        if problems:
            raise CheckFailedError(
                f"{len(problems)} of the baseline's numbers left the tolerance, see above"
            )
        console.print(
            f"as the baseline: scores within {max_drop:g} points or their intervals over frames"
        )


@command()
@option_groups
def compare(
    engines: Annotated[
        list[str],
        typer.Argument(
            metavar="ENGINE",
            help="The engines; the first is the reference. Each is an .engine file, an .onnx file, "
            "or a model that ships with edgeseg; the last two may have a precision: "
            "enet-camvid@fp32 enet-camvid@bf16.",
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="DATA",
            help="Labelled data (camvid:PATH, synthetic://, ...), or frames without labels: a "
            "video, a folder of pictures, a camera.",
        ),
    ],
    baseline_options: BaselineOptions,
    spec: SpecOptions,
    split: Annotated[str, typer.Option(help="Split of labelled --data.")] = "val",
    frames: Frames = None,
    rounds: Rounds = 5,
    json_file: Json = None,
) -> None:
    """Compare engines on the same frames: scores, boundaries, equal labels, latency, file size.

    Without labels (a video, a folder), the labels of the first engine are the truth: the table
    shows what each other engine changes. Flicker is measured if the frames are consecutive.
    """
    passports = [Path(f"{engine}.json") for engine in engines]
    inputs = [Path(engine) for engine in engines]
    require_json(json_file, baseline_options.baseline, *inputs, *passports)
    saved = baseline_options.read()

    result = _run(engines, data, split, frames, rounds, spec.overrides())
    print_comparison(result)
    if json_file:
        facts = result.to_dict()
        facts["data"] = {**facts["data"], "address": data, "split": split}
        write_report(json_file, facts)
    if saved is not None:
        baseline_options.check(saved, result)


def _run(
    engines: Sequence[str],
    address: str,
    split: str,
    frames: int | None,
    rounds: int,
    overrides: "Overrides",
) -> "Comparison":
    """Open the data and the engines, and compare; show progress."""
    from edgeseg.profiling.compare import compare as run
    from edgeseg.profiling.frames import open_frames, spread_frames
    from edgeseg.video import Source

    with waiting(f"opening {address}"):
        data = open_frames(address, split)
    try:
        with ExitStack() as opened, ConsoleReporter() as reporter:
            entries = _open_all(engines, overrides, opened)
            indices = spread_frames(data, frames)
            name = address if isinstance(data, Source) else None
            return run(entries, data, indices=indices, name=name, rounds=rounds, reporter=reporter)
    finally:
        if isinstance(data, Source):
            data.close()


def _open_all(engines: Sequence[str], overrides: "Overrides", opened: ExitStack) -> "list[Entry]":
    """Open the engines; ``opened`` closes them."""
    from edgeseg.profiling.entry import open_entry, split_precision

    are_onnx = [split_precision(name)[0].lower().endswith(".onnx") for name in engines]
    if (overrides.given() or overrides.labels) and not any(are_onnx):
        raise InputError(
            "--size, --mean and the like are for .onnx files",
            got=", ".join(engines),
            hint="Leave these options out.",
        )

    entries: list[Entry] = []
    for name, is_onnx in zip(engines, are_onnx, strict=True):
        with waiting(f"opening {name}"):
            entry = open_entry(name, overrides if is_onnx else None)
        opened.enter_context(entry.engine)
        tell_assumed(entry.engine.passport.assumed)
        entries.append(entry)
    return entries


def print_comparison(result: "Comparison") -> None:
    """Print the engines, the classes, and what the numbers mean; it fits 80 columns.

    Parameters
    ----------
    result : the comparison.
    """
    console = stdout()
    console.print(_engines_table(result))
    if result.data.labelled:
        console.print(_classes_table(result))

    # What the numbers mean.
    legend = ["Scores are in percent; changes, below them, are points against the first engine"]
    if not result.data.labelled:
        legend = [
            "No labels: IoU and boundary F in percent, with the first engine's labels as the truth"
        ]
    legend += [
        f"same labels: share of pixels labelled as by {result.reference.id}",
        "p50, p95: latency from a decoded frame to its label map; 2x: twice as fast as the first",
        _about_flicker(result),
        "sizes are HxW",
        *_about_intervals(result),
    ]
    console.print(escape("; ".join(legend) + "."), style="dim", highlight=False)

    # Where they were measured.
    machine = result.machine
    load = f"load {machine['load_average_1min']} before the measurement"
    where = f"{machine['cpu']}, {machine['cores']} cores, {load}"
    frames = f"{result.data.name}: {result.data.frames} frames"
    console.print(escape(f"{frames}. {where}."), style="dim", highlight=False)


def _about_intervals(result: "Comparison") -> list[str]:
    """Return the interval of every engine's change of mIoU, and what a star means."""
    told: list[str] = []
    for row in result.results[1:]:
        intervals = result.change_intervals(row)
        if intervals is not None:
            mean = intervals.mean
            ends = f"{_points(mean.low)} to {_points(mean.high)}"
            told.append(f"{row.id}: mIoU {_points(mean.value)}, 95 % interval {ends}")
    if told:
        told.append("*: the interval over frames excludes 0")
    return told


def _about_flicker(result: "Comparison") -> str:
    """Return what the flicker means, and that of the ground truth; or why it is not measured."""
    if result.data.flicker_unmeasured:
        return f"flicker is not measured: {result.data.flicker_unmeasured}"
    text = "flicker: share of labels that change where the picture does not"
    if result.data.flicker is not None:
        text += f"; the ground truth's is {_percent(result.data.flicker.overall)}"
    return text


def _points(change: float) -> str:
    """Return a change of a share (0..1) in points, without "-0.00"; "-" if it is not defined."""
    if change != change:
        return "-"
    text = f"{100 * change:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text


def _percent(score: float) -> str:
    """Return a score (0..1) in percent; "-" if it is not defined."""
    is_nan = score != score
    return "-" if is_nan else f"{100 * score:.2f}"


def _engines_table(result: "Comparison") -> "Table":
    """Return one row per engine; a second line in a cell is the change against the first one."""
    from rich import box
    from rich.table import Table

    # The columns.
    has_flicker = not result.data.flicker_unmeasured
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=has_flicker)
    table.add_column("engine", overflow="fold")
    iou = "mIoU" if result.data.labelled else "mean\nIoU"
    headings = [iou, "boundary\nF", "worst\nclass", "same\nlabels"]
    if has_flicker:
        headings.append("flicker")
    headings += ["p50\nms", "p95\nms", "MB"]
    for heading in headings:
        table.add_column(heading, justify="right")

    # The rows.
    first = result.reference
    for row in result.results:
        name, _, precision = row.id.rpartition("@")
        height, width = row.passport.spec.input_size
        size = f"[dim]{height}x{width}[/]"
        table.add_row(
            f"{escape(name)}\n[bold]{escape(precision)}[/] {size}",
            *_score_cells(result, row),
            _percent(row.agreement),
            *([_flicker_cell(row, first)] if has_flicker else []),
            _latency_cell(row, first),
            f"{row.latency.ms_p95:.2f}",
            "-" if row.size_bytes is None else f"{row.size_bytes / 1e6:.1f}",
        )
    return table


def _flicker_cell(row: "EngineResult", first: "EngineResult") -> str:
    """Return the flicker, and below it its change against the first engine."""
    if row.flicker is None:
        return "-"
    percent = _percent(row.flicker.overall)
    if row is first or first.flicker is None:
        return percent
    return _two_lines(percent, _points(row.flicker.overall - first.flicker.overall))


def _latency_cell(row: "EngineResult", first: "EngineResult") -> str:
    """Return the median latency, and below it how many times as fast as the first engine it is."""
    milliseconds = f"{row.latency.ms_p50:.2f}"
    if row is first:
        return milliseconds
    speed = float("nan")
    if row.latency.ms_p50:
        speed = first.latency.ms_p50 / row.latency.ms_p50
    return f"{milliseconds}\n[dim]{speed:.2f}x[/]"


def _score_cells(result: "Comparison", row: "EngineResult") -> list[str]:
    """Return mIoU, boundary F and the worst class of an engine.

    If the data has no labels, they are computed with the labels of the first engine.
    """
    first = result.reference
    if row.change is not None:
        return _change_cells(row, row is first)
    if row.scores is None or row.boundary is None or first.scores is None or first.boundary is None:
        return []

    miou = row.scores.mean_iou
    boundary = row.boundary.mean_f_score
    if row is first:
        return [_percent(miou), _percent(boundary), ""]

    worst = "-"
    worst_class = result.worst_class(row)
    if worst_class is not None:
        worst = _two_lines(escape(worst_class[0]), _points(worst_class[1]))
    return [
        _two_lines(_percent(miou), _points(miou - first.scores.mean_iou)),
        _two_lines(_percent(boundary), _points(boundary - first.boundary.mean_f_score)),
        worst,
    ]


def _two_lines(upper: str, lower: str) -> str:
    """Return the text of a cell with a dim second line."""
    return f"{upper}\n[dim]{lower}[/]"


def _change_cells(row: "EngineResult", is_first: bool) -> list[str]:
    """Return mean IoU, mean boundary F and the worst class with the first engine's labels."""
    import numpy as np

    change = row.change
    if change is None or is_first:
        return ["-", "-", ""]

    boundary = change.boundary_f[~np.isnan(change.boundary_f)]
    mean_boundary = float(boundary.mean()) if boundary.size else float("nan")
    worst = "-"
    if change.worst_class is not None:
        index = change.worst_class
        worst = _two_lines(escape(change.names[index]), _percent(float(change.iou[index])))
    return [_percent(change.mean_iou), _percent(mean_boundary), worst]


def _classes_table(result: "Comparison") -> "Table":
    """Return one row per class: scores of the first engine, and how the others change its IoU."""
    from rich import box
    from rich.table import Table

    # The columns.
    first = result.reference
    others = result.results[1:]
    one_name = len({row.passport.name for row in result.results}) == 1
    headings = [f"IoU\n{_short(first.id, one_name)}", f"boundary F\n{_short(first.id, one_name)}"]
    headings += [f"change\n{_short(row.id, one_name)}" for row in others]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("class", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", overflow="fold")
    if first.scores is None or first.boundary is None:
        return table

    # The rows.
    changes = [result.iou_change(row) for row in others]
    intervals = [result.change_intervals(row) for row in others]
    for index, name in enumerate(result.data.labels.names):
        moved = [_points(float(change[index])) for change in changes if change is not None]
        for column, interval in enumerate(intervals):
            if interval is not None and interval.classes[index].excludes_zero:
                moved[column] += "*"
        iou = _percent(first.scores.iou[index])
        boundary = _percent(first.boundary.f_score[index])
        table.add_row(escape(name), iou, boundary, *moved)
    return table


def _short(key: str, one_name: bool) -> str:
    """Return an engine's id as a heading: the precision alone if all engines have one name."""
    return escape(key.rpartition("@")[2] if one_name else key)
