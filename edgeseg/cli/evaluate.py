"""``evaluate``: an engine on labelled data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.app import app
from edgeseg.cli.console import escape, progress, stdout
from edgeseg.cli.inputs import open_engine
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

if TYPE_CHECKING:
    from edgeseg.graph.network import Overrides
    from edgeseg.metrics.confusion import Scores


@app.command()
@spec_flags
def evaluate(
    engine: EngineArgument,
    data: Annotated[str, typer.Argument(metavar="DATA", help="Labelled data: camvid:PATH or synthetic://.")],
    split: Annotated[str, typer.Option(help="Which split.")] = "val",
    precision: PrecisionOption = Precision.auto,
    target: Target = "auto",
    *,
    overrides: "Overrides",
    json_file: Json = None,
) -> None:
    """Score an engine on labelled data: mIoU and the rest, from one confusion matrix."""
    from edgeseg.data import open_dataset
    from edgeseg.metrics.evaluate import evaluate as score

    require_json(json_file, Path(engine), Path(f"{engine}.json"))
    dataset = open_dataset(data, split)
    opened = open_engine(engine, precision, target, overrides)
    with progress("scoring", len(dataset)) as step:
        result = score(opened, dataset, on_frame=lambda _: step())
    print_scores(
        result, f"{opened.passport.name} ({opened.passport.precision}) on {dataset.name}, {len(dataset)} frames"
    )
    if json_file:
        facts = {
            "engine": opened.passport.name,
            "precision": opened.passport.precision,
            "onnx_sha256": opened.passport.onnx_sha256,
            "engine_sha256": opened.passport.engine_sha256,
            "data": data,
            "split": split,
            "frames": len(dataset),
        }
        write_report(json_file, {**facts, **result.to_dict()})


def print_scores(result: "Scores", title: str) -> None:
    """A table of the classes, and the means under it."""
    from rich.table import Table

    table = Table(title=escape(title))
    table.add_column("class")
    for heading in ("IoU", "Dice = F1", "sensitivity", "precision", "pixels"):
        table.add_column(heading, justify="right")

    def number(value: float) -> str:
        return "-" if value != value else f"{100 * value:.2f}"

    truth = result.matrix.sum(axis=1)
    for i, name in enumerate(result.names):
        row = (result.iou[i], result.dice[i], result.sensitivity[i], result.precision[i])
        table.add_row(escape(name), *(number(v) for v in row), f"{truth[i]:,}")
    console = stdout()
    console.print(table)
    console.print(
        f"mIoU {number(result.mean_iou)}   pixel accuracy {number(result.pixel_accuracy)}   "
        f"mean pixel accuracy {number(result.mean_pixel_accuracy)}   "
        f"frequency-weighted IoU {number(result.frequency_weighted_iou)}   mean Dice {number(result.mean_dice)}",
        soft_wrap=True,
    )
    if result.absent:
        console.print(f"in neither truth nor prediction, so in no mean: {escape(', '.join(result.absent))}")
