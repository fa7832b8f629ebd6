"""``segment``: an engine on a source, into videos, masks and a window."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.app import app
from edgeseg.cli.console import escape, progress, stdout
from edgeseg.cli.inputs import open_engine, open_source
from edgeseg.cli.options import (
    EngineArgument,
    Json,
    Precision,
    PrecisionOption,
    Target,
    require_json,
    spec_flags,
    write_report,
)
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.backends.engine import Engine
    from edgeseg.graph.network import Overrides
    from edgeseg.video import Sink, Source, Summary


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
    require_json(json_file, out, Path(source), Path(engine), Path(f"{engine}.json"))
    if not (out or masks or show or json_file):
        raise InputError("nothing to do with the result", hint="Give -o VIDEO, --masks FOLDER, --show or --json FILE.")
    segment_source(
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


def segment_source(
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
        write_report(json_file, {**facts, **summary.to_dict()})
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
