"""Define ``demo``: segment a synthetic drive, and compare precisions on this machine."""

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.app import command
from edgeseg.cli.console import ConsoleReporter, escape, stdout
from edgeseg.cli.inputs import open_engine
from edgeseg.cli.options import EngineOptions, Precision, PrecisionOption
from edgeseg.cli.segment import SegmentOptions, segment_source
from edgeseg.cli.video_options import OutputOptions
from edgeseg.errors import OutputError

if TYPE_CHECKING:
    from edgeseg.data import Dataset
    from edgeseg.profiling.comparison import Comparison

DEMO_NET = "enet-camvid"
DEMO_DATA = "synthetic://?length=225&size=640x480&seed=4&fps=15"
DEMO_FRAMES = 20  # of the data, for the table of precisions


@command()
def demo(
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE", help="The video to write.")
    ] = Path("demo.mp4"),
    source: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="The source to segment; by default a synthetic drive."),
    ] = None,
    precision: PrecisionOption = Precision.auto,
    data: Annotated[
        str,
        typer.Option(
            metavar="DATA",
            help="Labelled data for the table of precisions; by default the same synthetic drive.",
        ),
    ] = DEMO_DATA,
    split: Annotated[str, typer.Option(help="Split of --data.")] = "val",
) -> None:
    """Segment a drive with a model that ships, and compare its precisions on this machine.

    Needs no camera, no download and no GPU.
    """
    from edgeseg.data import open_dataset

    options = EngineOptions(precision)
    outputs = SegmentOptions(OutputOptions(out))
    labelled = open_dataset(data, split)
    with ExitStack() as stack:
        if source is None:
            # Drawing costs more than segmenting: the drive becomes a video first. What can be wrong
            # is told before.
            _require_video(out)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeseg-demo-")))
            source = str(folder / "drive.mp4")
            _draw_drive(Path(source))
        segment_source(lambda: {DEMO_NET: open_engine(DEMO_NET, options)}, [source], outputs)
    _print_precisions(_compare_precisions(labelled))
    _print_next(out)


def _require_video(out: Path) -> None:
    """Raise ``OutputError`` now if the demo's video cannot be written later."""
    from edgeseg.files import require_writable
    from edgeseg.video.video_file import known_suffix

    known_suffix(out)
    require_writable(out)


def _draw_drive(path: Path) -> None:
    """Draw the synthetic drive in all processors, and write it as a video."""
    from edgeseg.data.synthetic import parse_address
    from edgeseg.data.synthetic.ahead import draw_ahead
    from edgeseg.reporter import track
    from edgeseg.video.video_file import VideoFile

    drive = parse_address(DEMO_DATA)
    height, width = drive.size
    start = time.perf_counter()
    try:
        video = VideoFile(path, (width, height), drive.fps)
        with ConsoleReporter() as reporter:
            for i, sample in enumerate(track(draw_ahead(drive), "draw the drive", reporter)):
                video.write(sample.image, i / drive.fps)
        video.keep()
    except OutputError as error:
        # The video is temporary: what was written of it helps nobody.
        raise OutputError(
            f"{path.parent}: the drive cannot be drawn there",
            got=str(error).split(": ")[1],
            hint="Make room, or set the environment variable TMPDIR to another folder.",
        ) from error
    seconds = time.perf_counter() - start
    stdout().print(f"drew {len(drive)} frames of a synthetic drive in {seconds:.1f} s")


def _print_next(out: Path) -> None:
    """Print what to do after the demo."""
    stdout().print(
        f"Open {escape(str(out))} in any browser or player. Next, with your own:\n"
        f"  video   edgeseg segment {DEMO_NET} drive.mp4 -o labelled.mp4\n"
        f"  camera  edgeseg segment {DEMO_NET} 0 --show\n"
        f"  net     edgeseg build-engine net.onnx --precision fp32",
        highlight=False,
        soft_wrap=True,
    )


def _compare_precisions(dataset: "Dataset") -> "Comparison":
    """Score and time the model in each precision that this machine has."""
    from edgeseg.backends.openvino import runtime
    from edgeseg.data.sampling import spread
    from edgeseg.profiling.compare import compare
    from edgeseg.zoo import zoo_int8

    precisions = ["fp32"]
    if "BF16" in runtime.device().features:
        precisions.append("bf16")
    if zoo_int8(DEMO_NET):
        precisions.append("int8")

    indices = spread(len(dataset), min(DEMO_FRAMES, len(dataset)))
    engines = [f"{DEMO_NET}@{precision}" for precision in precisions]
    with ConsoleReporter() as reporter:
        return compare(engines, dataset, indices=indices, reporter=reporter)


def _print_precisions(result: "Comparison") -> None:
    """Print what each precision scores, and how fast it is."""
    from rich.table import Table

    data = result.data
    table = Table(title=escape(f"{DEMO_NET} on {data.name}, {data.frames} frames"))
    for heading in ("precision", "FPS", "ms per frame", "mIoU", "same labels", "MB"):
        table.add_column(heading, justify="left" if heading == "precision" else "right")

    for row in result.results:
        milliseconds = row.latency.ms_p50
        table.add_row(
            row.passport.precision,
            f"{1000 / milliseconds:.0f}",
            f"{milliseconds:.1f}",
            f"{100 * row.scores.mean_iou:.2f}" if row.scores else "-",
            f"{100 * row.agreement:.2f} %",
            f"{(row.size_bytes or 0) / 1e6:.1f}",
        )
    stdout().print(table)
