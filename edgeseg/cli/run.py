"""``segment``, ``demo``: an engine on a source, into videos, masks and a window."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.common import (
    EngineArgument,
    Json,
    Precision,
    PrecisionOption,
    Target,
    app,
    escape,
    open_engine,
    open_source,
    progress,
    spec_flags,
    stdout,
)
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.export.network import Overrides
    from edgeseg.runtime import Engine
    from edgeseg.video import Sink, Source, Summary

DEMO_NET = "enet-camvid"
DEMO_SOURCE = "synthetic://?length=225&size=640x480&seed=4&fps=15"
DEMO_DATA = "synthetic://?length=225&size=640x480&seed=4&fps=15"
DEMO_FRAMES = 20  # of the data, for the table of precisions


@app.command()
@spec_flags
def segment(
    engine: EngineArgument,
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A video, picture or folder, a camera (0), a stream, or synthetic://."),
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Overlay: .mp4, .avi, or a picture of a picture.")
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder for palette masks (PNG, ids as indices).")] = None,
    show: Annotated[bool, typer.Option("--show", help="Show a window; q closes it.")] = False,
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Weight of the colours over the frame.")] = 0.5,
    legend: Annotated[bool, typer.Option(help="Draw the classes' names.")] = True,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    precision: PrecisionOption = Precision.auto,
    target: Target = "auto",
    *,
    overrides: "Overrides",
    json_file: Json = None,
) -> None:
    """Label every frame of a source; write a video, masks, or show it live."""
    from edgeseg.artifact import require_json_output

    if json_file:
        require_json_output(json_file, out, Path(source), Path(engine), Path(f"{engine}.json"))
    if not (out or masks or show or json_file):
        raise InputError("nothing to do with the result", hint="Give -o VIDEO, --masks FOLDER, --show or --json FILE.")
    _segment(
        lambda: open_engine(engine, precision, target, overrides),
        source,
        out=out,
        masks=masks,
        show=show,
        alpha=alpha,
        legend=legend,
        max_frames=max_frames,
        json_file=json_file,
    )


def _segment(
    engine_of: "Callable[[], Engine]",
    uri: str,
    *,
    out: Path | None,
    masks: Path | None = None,
    show: bool = False,
    alpha: float = 0.5,
    legend: bool = True,
    max_frames: int | None = None,
    json_file: Path | None = None,
) -> None:
    """Open the source and the sinks, run, print the summary."""
    from edgeseg.artifact import write_json
    from edgeseg.video import segment as run

    source = open_source(uri)
    try:
        engine = engine_of()
        sinks = _sinks(source, engine, out, masks, show)
    except BaseException:
        source.close()
        raise
    with progress("segmenting", source.info.frames) as step:
        summary = run(
            engine,
            source,
            sinks,
            alpha=alpha,
            show_legend=legend,
            max_frames=max_frames,
            on_progress=lambda done, total: step(),
        )
    if json_file:
        facts = {
            "engine": engine.passport.name,
            "precision": engine.passport.precision,
            "engine_sha256": engine.passport.engine_sha256,
            "device": engine.passport.device,
            "source": uri,
            "size": [source.info.height, source.info.width],
            "source_fps": source.info.fps,
        }
        write_json(json_file, {**facts, **summary.to_dict()})
    _print_summary(summary, engine)
    for path in (out, masks):
        if path and summary.frames_out:
            stdout().print(f"wrote {escape(str(path))}", soft_wrap=True)


def _sinks(source: "Source", engine: "Engine", out: Path | None, masks: Path | None, show: bool) -> "list[Sink]":
    """The sinks asked for; those made before one fails are removed again."""
    from edgeseg.video import ImageFolderSink, PictureSink, VideoSink, WindowSink

    sinks: list[Sink] = []
    try:
        if out:
            picture = source.info.frames == 1 and out.suffix.lower() not in (".mp4", ".avi")
            sinks.append(PictureSink(out) if picture else VideoSink(out, source.info))
        if masks:
            sinks.append(ImageFolderSink(masks, engine.spec.labels))
        if show:
            sinks.append(WindowSink())
    except BaseException:
        for sink in sinks:
            sink.abort()
        raise
    return sinks


def _print_summary(summary: "Summary", engine: "Engine") -> None:
    from rich.table import Table

    passport = engine.passport
    table = Table(title=escape(f"{passport.name} ({passport.precision}, {passport.device})"))
    table.add_column("latency, ms")
    for heading in ("p50", "p95", "p99"):
        table.add_column(heading, justify="right")
    for stage, times in summary.latency_ms.items():
        table.add_row(stage, f"{times.p50:.1f}", f"{times.p95:.1f}", f"{times.p99:.1f}")
    console = stdout()
    console.print(table)
    console.print(
        f"{summary.frames_in} frames in, {summary.frames_out} out, {summary.dropped} dropped; {summary.wall_s:.1f} s, "
        f"{summary.fps:.1f} FPS; stopped: {summary.stopped}",
        soft_wrap=True,
    )


@app.command()
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="The video to write.")] = Path("demo.mp4"),
    source: Annotated[str, typer.Option(help="What to segment instead of the synthetic drive.")] = DEMO_SOURCE,
    precision: PrecisionOption = Precision.auto,
    data: Annotated[str, typer.Option(help="Labelled data for the table of precisions.")] = DEMO_DATA,
    split: Annotated[str, typer.Option(help="Split of --data.")] = "val",
) -> None:
    """Segment a drive with the net that ships, into a video, and compare its precisions on this machine.

    Needs no camera, no download and no GPU.
    """
    _segment(lambda: open_engine(DEMO_NET, precision, "auto"), source, out=out)
    _compare_precisions(data, split)


def _compare_precisions(data: str, split: str) -> None:
    """A small table: what each precision of the shipped net scores, and how fast it is here."""
    from rich.table import Table

    from edgeseg.data import open_dataset
    from edgeseg.profiling.compare import compare
    from edgeseg.runtime import cpu, zoo_int8

    dataset = open_dataset(data, split)
    precisions = ["fp32", *(["bf16"] if "BF16" in cpu.device()[1] else []), *(["int8"] if zoo_int8(DEMO_NET) else [])]
    count = min(DEMO_FRAMES, len(dataset))
    indices = sorted({round(i * (len(dataset) - 1) / max(count - 1, 1)) for i in range(count)})
    with progress("comparing precisions", None) as step:
        result = compare(
            [f"{DEMO_NET}@{p}" for p in precisions], dataset, indices=indices, on_progress=lambda *_: step()
        )
    table = Table(title=escape(f"{DEMO_NET} on {dataset.name}, {len(indices)} frames"))
    for heading in ("precision", "FPS", "ms a frame", "mIoU", "same labels", "MB"):
        table.add_column(heading, justify="left" if heading == "precision" else "right")
    for found in result.results:
        milliseconds = found.latency.ms_p50
        table.add_row(
            found.passport.precision,
            f"{1000 / milliseconds:.0f}",
            f"{milliseconds:.1f}",
            f"{100 * found.scores.mean_iou:.2f}" if found.scores else "-",
            f"{100 * found.agreement:.2f} %",
            f"{(found.size_bytes or 0) / 1e6:.1f}",
        )
    stdout().print(table)
