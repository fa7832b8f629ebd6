"""``make``: a recipe all the way to compared engines."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeseg.cli.app import app
from edgeseg.cli.console import escape, needs, stdout
from edgeseg.cli.inputs import read_recipe
from edgeseg.cli.options import Encoder, Epochs, RecipeArgument, RecipeData


@app.command()
def make(
    recipe: RecipeArgument,
    data: RecipeData = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of everything made (default runs/NAME).")
    ] = None,
    epochs: Epochs = None,
    encoder: Encoder = None,
    qat_epochs: Annotated[int, typer.Option(min=0, help="Fine-tune for INT8; 0: calibrate only.")] = 5,
    rounds: Annotated[int, typer.Option(min=1, help="Turns an engine, to measure latency.")] = 3,
) -> None:
    """Train, export, fine-tune for INT8, build engines, compare them; what is done already is not done again."""
    from edgeseg.pipeline import Options
    from edgeseg.pipeline import make as run

    plan = read_recipe(recipe, data=data, epochs=epochs, encoder=encoder)
    console = stdout()
    with needs("train"):
        result = run(
            plan,
            out or Path("runs") / plan.name,
            Options(qat_epochs, rounds),
            say=lambda line: console.print(escape(line), soft_wrap=True),
            progress=console.is_terminal,
        )
    _print(json.loads(result.read_text(encoding="utf-8")), result)


def _print(facts: dict[str, Any], path: Path) -> None:
    """The comparison in short: a row an engine."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("engine")
    for heading in ("mIoU", "pixel accuracy", "same labels", "p50 ms", "FPS", "MB"):
        table.add_column(heading, justify="right")
    for row in facts["engines"]:
        shares = [row["miou"], row["pixel_accuracy"], row["agreement"]]
        ms = row["latency_ms_p50"]
        table.add_row(
            escape(row["id"]),
            *("-" if share is None else f"{100 * share:.2f}" for share in shares),
            f"{ms:.2f}",
            f"{1e3 / ms:.1f}",
            f"{row['size_bytes'] / 1e6:.1f}",
        )
    console = stdout()
    console.print(table)
    console.print(
        f"{facts['data']['address']}, {facts['data']['split']}; all of it: {escape(str(path))}", soft_wrap=True
    )
