"""``lr-find``: the loss against a rising learning rate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.app import app
from edgeseg.cli.console import escape, needs, progress, stdout
from edgeseg.cli.inputs import read_recipe
from edgeseg.cli.options import (
    Encoder,
    RecipeArgument,
    RecipeData,
)

if TYPE_CHECKING:
    pass


@app.command("lr-find")
def lr_find(
    recipe: RecipeArgument,
    data: RecipeData = None,
    encoder: Encoder = None,
    low: Annotated[float, typer.Option(min=1e-12, help="First learning rate.")] = 1e-6,
    high: Annotated[float, typer.Option(min=1e-12, help="Last learning rate.")] = 1.0,
    steps: Annotated[int, typer.Option(min=10, help="Batches to train on.")] = 100,
    out: Annotated[Path, typer.Option("-o", "--out", help="The plot to write.")] = Path("lr.png"),
) -> None:
    """Find a learning rate: train at a rising one, plot the loss, say where it falls fastest."""
    with needs("train"):
        from edgeseg.training.lr_find import draw, find_lr
    from edgeseg.errors import InputError
    from edgeseg.files import require_writable

    if not low < high:
        raise InputError("the rates do not rise", got=f"--low {low:g} --high {high:g}")
    require_writable(out)
    plan = read_recipe(recipe, data=data, encoder=encoder)
    first = plan.of_stage(plan.stage[0]) if plan.stage else plan
    with progress("range test", steps) as step:
        test = find_lr(first, low=low, high=high, steps=steps, progress=step)
    draw(test, out)
    stdout().print(
        f"the loss falls fastest at {test.suggested:.2e}; it was lost, or the test ended, at {test.rates[-1]:.2e}; "
        f"plot: {escape(str(out))}",
        soft_wrap=True,
    )
