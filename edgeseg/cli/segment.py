"""Define ``segment``: run an engine on sources; write videos or masks, show a window or a page."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli.app import command
from edgeseg.cli.console import ConsoleReporter, escape, stdout, tell_warning, tell_written
from edgeseg.cli.groups import option_groups
from edgeseg.cli.inputs import open_engine, open_sources
from edgeseg.cli.json_report import require_json, write_report
from edgeseg.cli.options import EngineOptions, Json, Precision, SpecOptions
from edgeseg.cli.outputs import PLACEHOLDER, open_sinks, require_outputs_differ
from edgeseg.cli.video_options import OutputOptions, PictureOptions, SourceOptions
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.backends.engine import Engine
    from edgeseg.video import Extras, Source, Summary

# Exit codes.
PICTURES_SKIPPED = 1  # some pictures of a folder could not be read
CAMERA_LOST = 3  # the run ended because a camera stayed away


@dataclass(frozen=True)
class SegmentOptions:
    """Hold all options of a run.

    Attributes
    ----------
    outputs : what is written and shown.
    picture : how the pictures look.
    source : which frames are read.
    """

    outputs: OutputOptions = field(default_factory=OutputOptions)
    picture: PictureOptions = field(default_factory=PictureOptions)
    source: SourceOptions = field(default_factory=SourceOptions)


@command()
@option_groups
def segment(
    engine: Annotated[
        str,
        typer.Argument(
            metavar="ENGINE[,ENGINE...]",
            help="An .engine file, an .onnx file, or a model that ships, such as enet-camvid. "
            "Viewers of --page compare several, such as enet-camvid@fp32,enet-camvid@int8.",
        ),
    ],
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Videos, pictures, folders of pictures, camera numbers (0), streams "
            "(rtsp://...), - for a pipe, or synthetic://.",
        ),
    ],
    outputs: OutputOptions,
    picture: PictureOptions,
    source_options: SourceOptions,
    engine_options: EngineOptions,
    spec: SpecOptions,
    json_file: Json = None,
) -> None:
    """Label every frame of one or more sources; write videos or masks, or show the result live."""
    inputs = [Path(word) for word in (*sources, engine, f"{engine}.json")]
    require_json(json_file, outputs.out, *inputs)
    outputs.require_any(json_file)
    overrides = spec.overrides()

    def open_engines() -> "dict[str, Engine]":
        return {
            name: open_engine(file, options, overrides)
            for name, (file, options) in engine_names(engine, engine_options).items()
        }

    options = SegmentOptions(outputs, picture, source_options)
    code = segment_source(open_engines, sources, options, json_file)
    if code:
        raise typer.Exit(code)


def engine_names(text: str, options: EngineOptions) -> dict[str, tuple[str, EngineOptions]]:
    """Return which engines to open, and with which options, by the name that viewers see.

    Parameters
    ----------
    text : a file or a name, or several with commas between them; each may have a precision of its
        own: ``net.onnx@int8``.
    options : precision and target of those without their own.

    Examples
    --------
    >>> engines = engine_names("enet-camvid@fp32,enet-camvid@int8", EngineOptions())
    >>> [options.precision.value for _, options in engines.values()]
    ['fp32', 'int8']
    """
    if Path(text).is_file():
        return {text: (text, options)}

    engines: dict[str, tuple[str, EngineOptions]] = {}
    for part in text.split(","):
        name, at, precision = part.strip().rpartition("@")
        if at and precision.lower() in Precision.__members__:
            chosen = EngineOptions(Precision[precision.lower()], options.target)
            engines[part.strip()] = (name, chosen)
        else:
            engines[part.strip()] = (part.strip(), options)
    return engines


def segment_source(
    open_engines: "Callable[[], dict[str, Engine]]",
    words: Sequence[str],
    options: SegmentOptions,
    json_file: Path | None = None,
) -> int:
    """Run engines on sources, write the outputs, and print a summary.

    Parameters
    ----------
    open_engines : opens the engines by name; called after the sources could be opened. The first
        one labels every frame.
    words : addresses of the sources.
    options : what to read, to write and to show.
    json_file : file for the summary; None to write none.

    Returns
    -------
    The exit code: 0; 1 if pictures of a folder could not be read; 3 if a camera was lost.

    Raises
    ------
    InputError : a source cannot be read, or options contradict each other.
    OutputError : an output cannot be written.
    """
    from edgeseg.video import segment as run
    from edgeseg.video.interrupts import sigterm_stops

    outputs = options.outputs
    outputs.series()
    require_outputs_differ(outputs, json_file)
    view = options.picture.as_view()
    reporter = ConsoleReporter()

    with ExitStack() as stack:
        source = open_sources(words, options.source, reporter)
        stack.callback(source.close)
        engines = open_engines()
        for engine in engines.values():
            stack.enter_context(engine)

        first = next(iter(engines.values()))
        _require_one_label_space(engines)
        view.shown_ids(first.spec.labels)
        sinks = open_sinks(outputs, source, first.spec.labels, list(engines), view, reporter)
        with reporter, sigterm_stops():
            summary = run(
                first,
                source,
                sinks,
                view=view,
                max_frames=outputs.max_frames,
                extras=_extras(engines, options.picture),
                reporter=reporter,
            )

    write_report(json_file, {**_facts(first, source, words), **summary.to_dict()})
    _print_summary(summary, first)
    _tell_outputs(outputs, summary)
    if summary.stopped == "camera lost":
        tell_warning(f"{source.name or 'the camera'}: stayed away, so the run ended")
        return CAMERA_LOST
    if source.skipped:
        tell_warning(f"{len(source.skipped)} pictures could not be read: {source.skipped[0]}")
        return PICTURES_SKIPPED
    return 0


def _require_one_label_space(engines: "dict[str, Engine]") -> None:
    """Raise ``InputError`` if the engines have different classes."""
    spaces = {name: engine.spec.labels for name, engine in engines.items()}
    first, *others = spaces
    for name in others:
        if spaces[name].names != spaces[first].names:
            raise InputError(
                f"{first} and {name} have different classes, so nobody can compare them",
                got=f"{spaces[first].name} and {spaces[name].name}",
                expected="engines of one label space",
            )


def _extras(engines: "dict[str, Engine]", picture: PictureOptions) -> "Extras":
    """Return what the run does beside labelling each frame with the first engine."""
    from edgeseg.metrics.flicker import FlickerMeter
    from edgeseg.profiling.sensors import LiveSensors
    from edgeseg.video import Extras, LabelSmoother

    first, *others = engines
    labels = engines[first].spec.labels
    return Extras(
        others={name: engines[name] for name in others},
        smoother=LabelSmoother if picture.smooth else None,
        flicker=(lambda: FlickerMeter(labels).add) if picture.flicker else None,
        sensors=LiveSensors(),
    )


def _facts(engine: "Engine", source: "Source", words: Sequence[str]) -> dict[str, Any]:
    """Return what identifies the engine and the source in the JSON."""
    from edgeseg.video.redact import redacted

    passport = engine.passport
    shown = [redacted(word) for word in words]
    return {
        "engine": passport.name,
        "precision": passport.precision,
        "engine_sha256": passport.engine_sha256,
        "device": passport.device,
        "source": shown[0] if len(shown) == 1 else shown,
        "size": [source.info.height, source.info.width],
        "source_fps": source.info.fps,
    }


def _print_summary(summary: "Summary", engine: "Engine") -> None:
    """Print the latency of each stage, and what became of the frames."""
    from rich.table import Table

    passport = engine.passport
    table = Table(title=escape(f"{passport.name} ({passport.precision}, {passport.device})"))
    table.add_column("latency, ms")
    for heading in ("p50", "p95", "p99"):
        table.add_column(heading, justify="right")
    rows = dict(summary.latency_ms)
    if summary.age_ms is not None:
        rows["age"] = summary.age_ms
    for stage, times in rows.items():
        table.add_row(stage, f"{times.p50:.1f}", f"{times.p95:.1f}", f"{times.p99:.1f}")

    counts = f"{summary.frames_in} frames in, {summary.frames_out} out, {summary.dropped} dropped"
    if summary.skipped:
        counts += f", {summary.skipped} labelled but not written"
    if summary.reconnects:
        often = "once" if summary.reconnects == 1 else f"{summary.reconnects} times"
        counts += f"; lost and back {often}"
    speed = f"{summary.wall_s:.1f} s, {summary.fps:.1f} FPS"
    console = stdout()
    console.print(table)
    console.print(f"{counts}; {speed}; stopped: {summary.stopped}", soft_wrap=True)


def _tell_outputs(outputs: OutputOptions, summary: "Summary") -> None:
    """Print what was written."""
    out = outputs.out
    if out is not None:
        name = out.name.replace(PLACEHOLDER, "*")
        if outputs.split_every is not None:
            name = f"{Path(name).stem}-*{out.suffix}"
        out = out.with_name(name)
    lines = None if outputs.frames_json == Path("-") else outputs.frames_json
    for path in (out, outputs.masks, lines):
        if path is not None and summary.frames_out:
            tell_written(path)
