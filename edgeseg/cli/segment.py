"""Define ``segment``: run an engine on a source, and write a video, masks, or show a window."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli.app import command
from edgeseg.cli.console import ConsoleReporter, escape, stdout, tell_written
from edgeseg.cli.groups import option_groups
from edgeseg.cli.inputs import open_engine, open_source
from edgeseg.cli.json_report import require_json, write_report
from edgeseg.cli.options import EngineArgument, EngineOptions, Json, SpecOptions
from edgeseg.cli.parsing import parse_bytes, parse_duration
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.backends.engine import Engine
    from edgeseg.reporter import Reporter
    from edgeseg.video import Sink, Source, Summary

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi")


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
    split_every : length of the files of a video that is written as a series of them.
    keep : room for all files of the series.
    """

    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="Write the frames painted with class colours: .mp4 or .mkv (H.264), .webm or "
            ".avi; a picture such as .png if the source is one picture.",
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
    split_every: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Begin a new video after this time, such as 10m: out.mp4 becomes files named "
            "with the time of their start.",
        ),
    ] = None
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Delete the oldest of the files of --split-every if they take more room than "
            "this, such as 20GB.",
        ),
    ] = None


@command()
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

    series = _series(outputs)
    source = open_source(uri)
    reporter = ConsoleReporter()
    try:
        engine = open_it()
        sinks = _open_sinks(source, engine, outputs, series, reporter)
    except BaseException:
        source.close()
        raise

    with engine, reporter:
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
    out = outputs.out
    if out and "split_every_s" in series:
        out = out.with_name(f"{out.stem}-*{out.suffix}")
    for path in (out, outputs.masks):
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


def _series(outputs: OutputOptions) -> dict[str, float]:
    """Return the arguments of ``VideoSink`` about a series of files.

    Raises
    ------
    InputError : a value cannot be read, or there is no video to split.
    """
    series: dict[str, float] = {}
    if outputs.split_every is not None:
        series["split_every_s"] = parse_duration(outputs.split_every, "--split-every")
    if outputs.keep is not None:
        series["keep_bytes"] = parse_bytes(outputs.keep, "--keep")

    is_video = outputs.out is not None and outputs.out.suffix.lower() in VIDEO_SUFFIXES
    if series and not is_video:
        raise InputError("there is no video to split", hint="Give -o VIDEO, too.")
    return series


def _open_sinks(
    source: "Source",
    engine: "Engine",
    outputs: OutputOptions,
    series: dict[str, float],
    reporter: "Reporter",
) -> "list[Sink]":
    """Open the outputs; if one fails, remove those opened before it."""
    from edgeseg.video import ImageFolderSink, PictureSink, WindowSink

    sinks: list[Sink] = []
    try:
        if outputs.out:
            is_video = outputs.out.suffix.lower() in VIDEO_SUFFIXES
            if source.info.frames == 1 and not is_video:
                sinks.append(PictureSink(outputs.out))
            else:
                from edgeseg.video import VideoSink

                video = VideoSink(
                    outputs.out,
                    source.info,
                    split_every_s=series.get("split_every_s"),
                    keep_bytes=series.get("keep_bytes"),
                    reporter=reporter,
                )
                sinks.append(video)
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
