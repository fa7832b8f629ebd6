"""Define ``train``: train a model as a recipe says."""

from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.app import command
from edgeseg.cli.console import ConsoleReporter, escape, needs, stdout
from edgeseg.cli.inputs import read_recipe
from edgeseg.cli.options import Encoder, Epochs, RecipeArgument, RecipeData


@command()
def train(
    recipe: RecipeArgument,
    data: RecipeData = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", metavar="FOLDER", help="Folder of the run. Default: runs/NAME."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="Continue a run that was stopped; the folder holds its state.")
    ] = False,
    epochs: Epochs = None,
    encoder: Encoder = None,
) -> None:
    r"""Train a model with a recipe.

    Writes best.pt, curves.png, and panel.png with predictions. Needs PyTorch: pip install
    "edgeseg\[train]".
    """
    with needs("train"):
        from edgeseg.training import distributed
        from edgeseg.training.fit import train as run

    plan = read_recipe(recipe, data=data, epochs=epochs, encoder=encoder)
    folder = out or Path("runs") / plan.name
    console = stdout()
    with ConsoleReporter(console) as reporter:
        best = run(plan, folder, resume=resume, reporter=reporter)
    if distributed.is_first():
        console.print(
            f"best checkpoint: {escape(str(best))}; curves.png and panel.png are beside it",
            soft_wrap=True,
        )
