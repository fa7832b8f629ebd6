"""``demo``: a shipped net on a synthetic drive, and what each precision costs."""

from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.app import app
from edgeseg.cli.console import escape, progress, stdout
from edgeseg.cli.inputs import open_engine
from edgeseg.cli.options import Precision, PrecisionOption
from edgeseg.cli.segment import segment_source

DEMO_NET = "enet-camvid"
DEMO_SOURCE = "synthetic://?length=225&size=640x480&seed=4&fps=15"
DEMO_DATA = "synthetic://?length=225&size=640x480&seed=4&fps=15"
DEMO_FRAMES = 20  # of the data, for the table of precisions


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
    segment_source(lambda: open_engine(DEMO_NET, precision, "auto"), source, out=out)
    _compare_precisions(data, split)


def _compare_precisions(data: str, split: str) -> None:
    """A small table: what each precision of the shipped net scores, and how fast it is here."""
    from rich.table import Table

    from edgeseg.backends.openvino import session
    from edgeseg.data import open_dataset
    from edgeseg.data.sampling import spread
    from edgeseg.profiling.compare import compare
    from edgeseg.zoo import zoo_int8

    dataset = open_dataset(data, split)
    precisions = [
        "fp32",
        *(["bf16"] if "BF16" in session.device()[1] else []),
        *(["int8"] if zoo_int8(DEMO_NET) else []),
    ]
    count = min(DEMO_FRAMES, len(dataset))
    indices = spread(len(dataset), count)
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
