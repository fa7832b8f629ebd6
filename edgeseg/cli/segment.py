"""Define ``segment``: run an engine on a source, and write a video, masks, or show a window."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli.app import app
from edgeseg.cli.console import ConsoleReporter, escape, stdout, tell_written
from edgeseg.cli.inputs import open_engine, open_source
from edgeseg.cli.options import (
    EngineArgument,
    EngineOptions,
    Json,
    SpecOptions,
    option_groups,
    require_json,
    write_report,
)
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.backends.engine import Engine
    from edgeseg.video import Sink, Source, Summary

VIDEO_SUFFIXES = (".mp4", ".avi")


@dataclass(frozen=True)
class OutputOptions:
    """Hold the options about what is written and shown.

    Attributes
    ----------
    out : video or picture to write.
    masks : folder for the label maps.
    show : show a window.
    alpha : weight of the class colours.
    legend : draw the names of the classes.
    max_frames : number of frames after which the run stops.
    """

    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="Write the frames painted with class colours: .mp4 or .avi; a picture such as "
            ".png if the source is one picture.",
        ),
    ] = None
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Write one label map per frame: a palette PNG of class ids."
        ),
    ] = None
    show: Annotated[bool, typer.Option("--show", help="Show a window; q closes it.")] = False
    alpha: Annotated[
        float, typer.Option(min=0, max=1, help="Weight of the class colours over the frame.")
    ] = 0.5
    legend: Annotated[bool, typer.Option(help="Draw the names of the classes.")] = True
    max_frames: Annotated[
        int | None, typer.Option(min=1, help="Stop after this number of frames.")
    ] = None


@app.command()
@option_groups
def segment(
    engine: EngineArgument,
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A video, a picture, a folder of pictures, a camera number (0), a stream "
            "(rtsp://...), or synthetic://.",
        ),
    ],
    outputs: OutputOptions,
    engine_options: EngineOptions,
    spec: SpecOptions,
    json_file: Json = None,
) -> None:
    """Label every frame of a source; write a video or masks, or show the result live."""
    require_json(json_file, outputs.out, Path(source), Path(engine), Path(f"{engine}.json"))
    overrides = spec.overrides()
    if not (outputs.out or outputs.masks or outputs.show or json_file):
        raise InputError(
            "nothing to do with the result",
            hint="Give -o VIDEO, --masks FOLDER, --show or --json FILE.",
        )
    segment_source(
        lambda: open_engine(engine, engine_options, overrides), source, outputs, json_file
    )


def segment_source(
    open_it: "Callable[[], Engine]",
    uri: str,
    outputs: OutputOptions,
    json_file: Path | None = None,
) -> None:
    """Run an engine on a source, write the outputs, and print a summary.

    Parameters
    ----------
    open_it : opens the engine; called after the source could be opened.
    uri : address of the source.
    outputs : what to write and to show.
    json_file : file for the summary; None to write none.

    Raises
    ------
    InputError : the source cannot be read.
    OutputError : an output cannot be written.
    """
    from edgeseg.video import segment as run

    source = open_source(uri)
    try:
        engine = open_it()
        sinks = _open_sinks(source, engine, outputs)
    except BaseException:
        source.close()
        raise

    with engine, ConsoleReporter() as reporter:
        summary = run(
            engine,
            source,
            sinks,
            alpha=outputs.alpha,
            show_legend=outputs.legend,
            max_frames=outputs.max_frames,
            reporter=reporter,
        )

    write_report(json_file, {**_facts(engine, source, uri), **summary.to_dict()})
    _print_summary(summary, engine)
    for path in (outputs.out, outputs.masks):
        if path and summary.frames_out:
            tell_written(path)


def _facts(engine: "Engine", source: "Source", uri: str) -> dict[str, Any]:
    """Return what identifies the engine and the source in the JSON."""
    passport = engine.passport
    return {
        "engine": passport.name,
        "precision": passport.precision,
        "engine_sha256": passport.engine_sha256,
        "device": passport.device,
        "source": uri,
        "size": [source.info.height, source.info.width],
        "source_fps": source.info.fps,
    }


def _open_sinks(source: "Source", engine: "Engine", outputs: OutputOptions) -> "list[Sink]":
    """Open the outputs; if one fails, remove those opened before it."""
    from edgeseg.video import ImageFolderSink, PictureSink, VideoSink, WindowSink

    sinks: list[Sink] = []
    try:
        if outputs.out:
            is_video = outputs.out.suffix.lower() in VIDEO_SUFFIXES
            if source.info.frames == 1 and not is_video:
                sinks.append(PictureSink(outputs.out))
            else:
                sinks.append(VideoSink(outputs.out, source.info))
        if outputs.masks:
            sinks.append(ImageFolderSink(outputs.masks, engine.spec.labels))
        if outputs.show:
            sinks.append(WindowSink())
    except BaseException:
        for sink in sinks:
            sink.abort()
        raise
    return sinks


def _print_summary(summary: "Summary", engine: "Engine") -> None:
    """Print the latency of each stage, and what became of the frames."""
    from rich.table import Table

    passport = engine.passport
    table = Table(title=escape(f"{passport.name} ({passport.precision}, {passport.device})"))
    table.add_column("latency, ms")
    for heading in ("p50", "p95", "p99"):
        table.add_column(heading, justify="right")
    for stage, times in summary.latency_ms.items():
        table.add_row(stage, f"{times.p50:.1f}", f"{times.p95:.1f}", f"{times.p99:.1f}")

    counts = f"{summary.frames_in} frames in, {summary.frames_out} out, {summary.dropped} dropped"
    speed = f"{summary.wall_s:.1f} s, {summary.fps:.1f} FPS"
    console = stdout()
    console.print(table)
    console.print(f"{counts}; {speed}; stopped: {summary.stopped}", soft_wrap=True)
