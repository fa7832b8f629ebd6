"""``train``: a recipe to trained weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.app import app
from edgeseg.cli.console import escape, needs, stdout
from edgeseg.cli.inputs import read_recipe
from edgeseg.cli.options import (
    Encoder,
    Epochs,
    RecipeArgument,
    RecipeData,
)

if TYPE_CHECKING:
    pass


@app.command()
def train(
    recipe: RecipeArgument,
    data: RecipeData = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder of the run (default runs/NAME).")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with a run that was stopped.")] = False,
    epochs: Epochs = None,
    encoder: Encoder = None,
) -> None:
    """Train a net by a recipe; leaves best.pt, curves and a panel of predictions."""
    with needs("train"):
        from edgeseg.training import distributed
        from edgeseg.training.fit import train as run
    plan = read_recipe(recipe, data=data, epochs=epochs, encoder=encoder)
    console = stdout()
    folder = out or Path("runs") / plan.name
    best = run(
        plan,
        folder,
        resume=resume,
        say=lambda line: console.print(escape(line), soft_wrap=True),
        progress=console.is_terminal,
    )
    if distributed.is_first():
        console.print(f"best checkpoint: {escape(str(best))}; curves.png and panel.png beside it", soft_wrap=True)
