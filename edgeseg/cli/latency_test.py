"""Define ``latency-test``: measure the time from light to picture."""

from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.app import command
from edgeseg.cli.console import ConsoleReporter, escape, stdout
from edgeseg.cli.groups import option_groups
from edgeseg.cli.inputs import open_engine, open_sources
from edgeseg.cli.json_report import require_json, write_report
from edgeseg.cli.options import EngineOptions, Json
from edgeseg.cli.parsing import parse_duration
from edgeseg.cli.video_options import SourceOptions
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.profiling.glass_latency import GlassLatency
    from edgeseg.video import Summary

CAMERA = "synthetic://?size=640x480&fps=30&realtime=1&counter=1"


@command("latency-test")
@option_groups
def latency_test(
    engine_options: EngineOptions,
    engine: Annotated[
        str,
        typer.Argument(
            metavar="[ENGINE]",
            help="An .engine file, an .onnx file, or a model that ships. Default: enet-camvid.",
        ),
    ] = "enet-camvid",
    source: Annotated[
        str,
        typer.Argument(
            metavar="[SOURCE]",
            help="A camera that films the window with the code; by default a synthetic camera "
            "with a counter in its frames.",
        ),
    ] = CAMERA,
    seconds: Annotated[
        str, typer.Option(metavar="TIME", help="How long to measure, such as 10s.")
    ] = "10s",
    json_file: Json = None,
) -> None:
    """Measure glass to glass: the time from light on the camera to the finished picture.

    A window shows a code with the present time; point the camera at it. The synthetic camera draws
    the time into its frames instead, and needs neither camera nor display.
    """
    require_json(json_file)
    parse_duration(seconds, "--seconds")
    latency, summary = _measure(engine, source, engine_options, seconds)

    if latency.age_ms is None:
        raise InputError(
            f"{source}: no code was read",
            got=f"{latency.frames} frames without one",
            hint="Point the camera at the window, so that the code fills a quarter of the frame "
            "and is sharp.",
        )
    write_report(json_file, {"source": source, **latency.to_dict(), "pipeline": summary.to_dict()})
    _print(latency, summary)


def _measure(
    engine: str, source: str, options: EngineOptions, seconds: str
) -> "tuple[GlassLatency, Summary]":
    """Run the engine on the source, and measure the age of its pictures."""
    from edgeseg.profiling.glass_latency import CounterSink, ScreenSink
    from edgeseg.video import segment

    reporter = ConsoleReporter()
    # The engine first: the time of the camera runs from when it is opened.
    with open_engine(engine, options) as opened, reporter:
        camera = open_sources([source], SourceOptions(duration=seconds), reporter)
        with camera:
            if not camera.info.live:
                raise InputError(
                    f"{source}: is a recording, so its pictures have no age",
                    expected="a camera, or synthetic://?realtime=1&counter=1",
                )
            has_counter = source.startswith("synthetic:")
            sink = CounterSink(camera.info.fps or 30.0) if has_counter else ScreenSink()
            summary = segment(opened, camera, [sink], reporter=reporter)
    return sink.result(), summary


def _print(latency: "GlassLatency", summary: "Summary") -> None:
    """Print the ages, and what the stages take of them."""
    from rich.table import Table

    table = Table(title="from light to picture")
    table.add_column("latency, ms")
    for heading in ("p50", "p95", "p99"):
        table.add_column(heading, justify="right")
    rows = {"light to picture": latency.age_ms, **summary.latency_ms}
    for name, times in rows.items():
        if times is not None:
            table.add_row(escape(name), f"{times.p50:.1f}", f"{times.p95:.1f}", f"{times.p99:.1f}")
    stdout().print(table)
    stdout().print(
        f"{latency.read} of {latency.frames} pictures had a readable code; {summary.fps:.1f} FPS",
        soft_wrap=True,
    )
