"""``compare``: engines side by side on the same frames, and against a saved comparison."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.app import app
from edgeseg.cli.console import escape, progress, stdout, tell_assumed, waiting
from edgeseg.cli.options import Json, require_json, spec_flags, write_report
from edgeseg.errors import CheckFailedError, InputError

if TYPE_CHECKING:
    from rich.table import Table

    from edgeseg.graph.network import Overrides
    from edgeseg.profiling.compare import Comparison, EngineResult
    from edgeseg.profiling.entry import Entry

MAX_DROP = 0.5  # points of mIoU


@app.command()
@spec_flags
def compare(
    engines: Annotated[
        list[str],
        typer.Argument(
            metavar="ENGINE...",
            help="Each an .engine, an .onnx file, or a shipped net; of the last two @PRECISION says at which "
            "(enet-camvid@fp32 enet-camvid@bf16). The first is the reference.",
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="DATA", help="Labelled data (camvid:PATH, synthetic://), or a video, a folder of pictures, ..."
        ),
    ],
    split: Annotated[str, typer.Option(help="Which split of labelled data.")] = "val",
    frames: Annotated[int | None, typer.Option(min=1, help="Only so many frames, evenly spread.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns an engine, to measure latency.")] = 5,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A saved --json: exit 1 where a score left its band.")
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0,
            help=f"The band, in points of mIoU, boundary F and label agreement; a class has four times that. "
            f"A gain beyond it fails, too: it wants a reason and a new baseline. Default {MAX_DROP}.",
        ),
    ] = None,
    max_slowdown: Annotated[
        float | None,
        typer.Option(min=1, help="Fail, not warn, where latency relative to the first engine grew by this factor."),
    ] = None,
    *,
    overrides: "Overrides",
    json_file: Json = None,
) -> None:
    """Compare engines on the same frames: scores, boundaries, label agreement, latency, size; the first is the measure.

    Without labels (a video, a folder) the first engine's labels are the truth: what does each other engine change?

    The flags of a spec (--size, --mean, ...) are for .onnx files that carry none.
    """
    from edgeseg.profiling.regression import read_baseline

    if baseline is None and (max_drop is not None or max_slowdown is not None):
        raise InputError("a band needs what it is around", hint="Give --baseline FILE, a saved --json.")
    require_json(json_file, baseline, *(Path(e) for e in engines), *(Path(f"{e}.json") for e in engines))
    saved = read_baseline(baseline) if baseline else None
    result = _run(engines, data, split, frames, rounds, overrides)
    print_comparison(result)
    if json_file:
        facts = result.to_dict()
        write_report(json_file, {**facts, "data": {**facts["data"], "address": data, "split": split}})
    if saved is not None:
        _check(saved, result, MAX_DROP if max_drop is None else max_drop, max_slowdown)


def _run(
    engines: Sequence[str], address: str, split: str, frames: int | None, rounds: int, overrides: "Overrides"
) -> "Comparison":
    """Open the data and the engines, compare, with a bar."""
    from edgeseg.profiling.compare import compare as run
    from edgeseg.profiling.frames import open_frames, spread_frames
    from edgeseg.video import Source

    with waiting(f"opening {address}"):
        data = open_frames(address, split)
    try:
        entries = _open_all(engines, overrides)
        known = data.info.frames if isinstance(data, Source) else len(data)
        indices = spread_frames(data, frames)
        count = known if indices is None else len(indices)
        with progress("comparing", None if count is None else count + rounds * len(entries)) as step:
            name = address if isinstance(data, Source) else None
            return run(entries, data, indices=indices, name=name, rounds=rounds, on_progress=lambda *_: step())
    finally:
        if isinstance(data, Source):
            data.close()


def _open_all(engines: Sequence[str], overrides: "Overrides") -> "list[Entry]":
    from edgeseg.profiling.entry import open_entry, split_precision

    files = [split_precision(name)[0].lower().endswith(".onnx") for name in engines]
    if (overrides.given() or overrides.labels) and not any(files):
        raise InputError("the flags of a spec are for .onnx files", got=", ".join(engines), hint="Leave them out.")
    entries = []
    for name, is_onnx in zip(engines, files, strict=True):
        with waiting(f"opening {name}"):
            entry = open_entry(name, overrides if is_onnx else None)
        tell_assumed(entry.engine.passport.assumed)
        entries.append(entry)
    return entries


def _check(saved: "dict[str, object]", result: "Comparison", max_drop: float, max_slowdown: float | None) -> None:
    """Print what left its band, and fail; print what is only worth knowing."""
    from edgeseg.profiling.regression import check_against, warnings_against

    console = stdout()
    problems = check_against(saved, result, max_drop=max_drop, max_slowdown=max_slowdown)
    for line in problems:
        console.print(f"[bold red]changed:[/] {escape(line)}", soft_wrap=True, highlight=False)
    for line in warnings_against(saved, result):
        if not any(problem.startswith(line) for problem in problems):
            console.print(f"[yellow]warning:[/] {escape(line)}", soft_wrap=True, highlight=False)
    if problems:
        raise CheckFailedError(f"{len(problems)} of the baseline's numbers left their band, see above")
    console.print(f"as the baseline: every score within {max_drop:g} points (a class within four times that)")


def print_comparison(result: "Comparison") -> None:
    """The engines, what became of each class, and what the numbers mean; readable in 80 columns."""
    console = stdout()
    console.print(_engines_table(result))
    if result.data.labelled:
        console.print(_classes_table(result))
    first, data, machine = result.reference, result.data, result.machine
    said = ["Scores are percent; changes are points, against the first engine"]
    if not data.labelled:
        said = ["No labels: IoU and boundary F are percent, with the first engine's labels as the truth"]
    said.append(f"same labels: share of pixels labelled as by {first.id}")
    said.append("p50, p95: decoded frame to label map, below it how many times as fast as the first")
    console.print(escape("; ".join(said) + "."), style="dim", highlight=False)
    where = f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_average_1min']} before"
    console.print(escape(f"{data.name}: {data.frames} frames. {where}."), style="dim", highlight=False)


def _points(change: float) -> str:
    """A change of a share (0..1) in points."""
    text = f"{100 * change:+.2f}"
    return "-" if change != change else "0.00" if text in ("+0.00", "-0.00") else text


def _percent(score: float) -> str:
    return "-" if score != score else f"{100 * score:.2f}"


def _engines_table(result: "Comparison") -> "Table":
    """A row an engine; the second line of a cell is the change against the first engine."""
    from rich import box
    from rich.table import Table

    labelled, first = result.data.labelled, result.reference
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("engine", overflow="fold")
    headings = ["mIoU" if labelled else "mean\nIoU", "boundary\nF", "worst\nclass"]
    for heading in (*headings, "same\nlabels", "p50\nms", "p95\nms", "MB"):
        table.add_column(heading, justify="right")
    for row in result.results:
        height, width = row.passport.spec.input_size
        speed = first.latency.ms_p50 / row.latency.ms_p50 if row.latency.ms_p50 else float("nan")
        cells = [
            f"{_percent(row.agreement)}",
            f"{row.latency.ms_p50:.2f}" + ("" if row is first else f"\n[dim]{speed:.2f}x[/]"),
            f"{row.latency.ms_p95:.2f}",
            "-" if row.size_bytes is None else f"{row.size_bytes / 1e6:.1f}",
        ]
        name, _, precision = row.id.rpartition("@")
        title = f"{escape(name)}\n[bold]{escape(precision)}[/] [dim]{height}x{width}[/]"
        table.add_row(title, *_score_cells(result, row), *cells)
    return table


def _score_cells(result: "Comparison", row: "EngineResult") -> list[str]:
    """Return mIoU, boundary F and the worst class of a row; with the first engine's labels where the data has none."""
    first = result.reference
    if row.change is not None:
        return _change_cells(row, row is first)
    if row.scores is None or row.boundary is None or first.scores is None or first.boundary is None:
        return []
    scored = [_percent(row.scores.mean_iou), _percent(row.boundary.mean_f_score)]
    if row is first:
        return [*scored, ""]
    changes = (
        row.scores.mean_iou - first.scores.mean_iou,
        row.boundary.mean_f_score - first.boundary.mean_f_score,
    )
    cells = [f"{score}\n[dim]{_points(change)}[/]" for score, change in zip(scored, changes, strict=True)]
    worst = result.worst_class(row)
    return [*cells, f"{escape(worst[0])}\n[dim]{_points(worst[1])}[/]" if worst else "-"]


def _change_cells(row: "EngineResult", is_first: bool) -> list[str]:
    """Return mean IoU, mean boundary F and the worst class of an engine with the first engine's labels."""
    import numpy as np

    change = row.change
    if change is None or is_first:
        return ["-", "-", ""]
    boundary = change.boundary_f[~np.isnan(change.boundary_f)]
    mean = float(boundary.mean()) if boundary.size else float("nan")
    worst = change.worst_class
    told = "-" if worst is None else f"{escape(change.names[worst])}\n[dim]{_percent(float(change.iou[worst]))}[/]"
    return [_percent(change.mean_iou), _percent(mean), told]


def _classes_table(result: "Comparison") -> "Table":
    """A row a class: the first engine's IoU and boundary F, and what each other engine changed of the IoU."""
    from rich import box
    from rich.table import Table

    first, others = result.reference, result.results[1:]
    one_name = len({row.passport.name for row in result.results}) == 1
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("class", overflow="fold")
    for heading in (f"IoU\n{_short(first.id, one_name)}", f"boundary F\n{_short(first.id, one_name)}"):
        table.add_column(heading, justify="right", overflow="fold")
    for row in others:
        table.add_column(f"change\n{_short(row.id, one_name)}", justify="right", overflow="fold")
    changes = [result.iou_change(row) for row in others]
    if first.scores is not None and first.boundary is not None:
        for i, name in enumerate(result.data.labels.names):
            moved = [_points(float(change[i])) for change in changes if change is not None]
            table.add_row(escape(name), _percent(first.scores.iou[i]), _percent(first.boundary.f_score[i]), *moved)
    return table


def _short(key: str, one_name: bool) -> str:
    """An id as a heading: the precision alone where all engines are of one net."""
    return escape(key.rpartition("@")[2] if one_name else key)
