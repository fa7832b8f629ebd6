"""Define ``evaluate``: score an engine on labelled data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.cli.app import command
from edgeseg.cli.console import ConsoleReporter, escape, stdout
from edgeseg.cli.groups import option_groups
from edgeseg.cli.inputs import open_engine
from edgeseg.cli.json_report import require_json, write_report
from edgeseg.cli.options import EngineArgument, EngineOptions, Json, SpecOptions

if TYPE_CHECKING:
    from edgeseg.metrics.confusion import Scores
    from edgeseg.passport import Passport


@command()
@option_groups
def evaluate(
    engine: EngineArgument,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="Labelled data: camvid:PATH, cityscapes:PATH, synthetic://, ..."
        ),
    ],
    engine_options: EngineOptions,
    spec: SpecOptions,
    split: Annotated[str, typer.Option(help="Split of DATA.")] = "val",
    json_file: Json = None,
) -> None:
    """Score an engine on labelled data: mIoU, pixel accuracy, and scores per class."""
    from edgeseg.data import open_dataset
    from edgeseg.metrics.evaluate import evaluate as score

    require_json(json_file, Path(engine), Path(f"{engine}.json"))
    dataset = open_dataset(data, split)
    opened = open_engine(engine, engine_options, spec.overrides())

    with opened, ConsoleReporter() as reporter:
        result = score(opened, dataset, reporter=reporter)
    passport = opened.passport
    where = f"{dataset.name}, {len(dataset)} frames"
    print_scores(result, f"{passport.name} ({passport.precision}) on {where}")
    if json_file:
        facts = {**_engine_facts(passport), "data": data, "split": split, "frames": len(dataset)}
        write_report(json_file, {**facts, **result.to_dict()})


def _engine_facts(passport: "Passport") -> dict[str, Any]:
    """Return what identifies an engine in the JSON."""
    return {
        "engine": passport.name,
        "precision": passport.precision,
        "onnx_sha256": passport.onnx_sha256,
        "engine_sha256": passport.engine_sha256,
    }


def print_scores(result: "Scores", title: str) -> None:
    """Print a table of the classes, and the means below it; all scores in percent.

    Parameters
    ----------
    result : the scores.
    title : title of the table.
    """
    from rich.table import Table

    # One row per class.
    table = Table(title=escape(title), caption="Scores are in percent.")
    table.add_column("class")
    for heading in ("IoU", "Dice = F1", "sensitivity", "precision", "pixels"):
        table.add_column(heading, justify="right")
    pixels = result.matrix.sum(axis=1)
    for index, name in enumerate(result.names):
        table.add_row(
            escape(name),
            _percent(result.iou[index]),
            _percent(result.dice[index]),
            _percent(result.sensitivity[index]),
            _percent(result.precision[index]),
            f"{pixels[index]:,}",
        )

    # The means.
    means = (
        f"mIoU {_percent(result.mean_iou)}",
        f"pixel accuracy {_percent(result.pixel_accuracy)}",
        f"mean pixel accuracy {_percent(result.mean_pixel_accuracy)}",
        f"frequency-weighted IoU {_percent(result.frequency_weighted_iou)}",
        f"mean Dice {_percent(result.mean_dice)}",
    )
    console = stdout()
    console.print(table)
    console.print("   ".join(means), soft_wrap=True)
    if result.absent:
        absent = escape(", ".join(result.absent))
        console.print(f"not in the means, because neither labels nor predictions have it: {absent}")


def _percent(score: float) -> str:
    """Return a score (0..1) in percent; "-" if it is not defined."""
    is_nan = score != score
    return "-" if is_nan else f"{100 * score:.2f}"
