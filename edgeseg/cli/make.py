"""Define ``make``: take a recipe all the way to compared engines."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeseg.cli.app import command
from edgeseg.cli.console import ConsoleReporter, escape, needs, stdout
from edgeseg.cli.inputs import read_recipe
from edgeseg.cli.options import Encoder, Epochs, RecipeArgument, RecipeData, Rounds


@command()
def make(
    recipe: RecipeArgument,
    data: RecipeData = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="Folder for everything that is written. Default: runs/NAME.",
        ),
    ] = None,
    epochs: Epochs = None,
    encoder: Encoder = None,
    qat_epochs: Annotated[
        int,
        typer.Option(min=0, help="Epochs of fine-tuning for INT8; 0: only calibrate."),
    ] = 5,
    rounds: Rounds = 3,
) -> None:
    r"""Train, fine-tune for INT8, export, build engines, and compare them.

    A step whose result exists already is not repeated. Needs PyTorch: pip install
    "edgeseg\[train]".
    """
    from edgeseg.pipeline import Options
    from edgeseg.pipeline import make as run

    plan = read_recipe(recipe, data=data, epochs=epochs, encoder=encoder)
    folder = out or Path("runs") / plan.name
    with needs("train"), ConsoleReporter(stdout()) as reporter:
        result = run(plan, folder, Options(qat_epochs, rounds), reporter=reporter)
    _print_comparison(json.loads(result.read_text(encoding="utf-8")), result)


def _print_comparison(facts: dict[str, Any], path: Path) -> None:
    """Print one row per engine of a saved comparison, and where the rest of it is."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("engine")
    for heading in ("mIoU", "pixel accuracy", "same labels", "p50 ms", "FPS", "MB"):
        table.add_column(heading, justify="right")

    for row in facts["engines"]:
        milliseconds = row["latency_ms_p50"]
        table.add_row(
            escape(row["id"]),
            _percent(row["miou"]),
            _percent(row["pixel_accuracy"]),
            _percent(row["agreement"]),
            f"{milliseconds:.2f}",
            f"{1e3 / milliseconds:.1f}",
            f"{row['size_bytes'] / 1e6:.1f}",
        )

    data = facts["data"]
    console = stdout()
    console.print(table)
    console.print(
        escape(f"scored on {data['address']}, {data['split']}; all numbers: {path}"), soft_wrap=True
    )


def _percent(share: float | None) -> str:
    """Return a share (0..1) in percent; "-" if there is none."""
    return "-" if share is None else f"{100 * share:.2f}"
