"""Define ``lr-find``: plot the loss against a rising learning rate."""

from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.app import command
from edgeseg.cli.console import ConsoleReporter, needs, stdout, tell_written
from edgeseg.cli.inputs import read_recipe
from edgeseg.cli.options import Encoder, RecipeArgument, RecipeData
from edgeseg.errors import InputError


@command("lr-find")
def lr_find(
    recipe: RecipeArgument,
    data: RecipeData = None,
    encoder: Encoder = None,
    low: Annotated[float, typer.Option(min=1e-12, help="First learning rate.")] = 1e-6,
    high: Annotated[float, typer.Option(min=1e-12, help="Last learning rate.")] = 1.0,
    steps: Annotated[int, typer.Option(min=10, help="Number of batches to train on.")] = 100,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FILE", help="The plot to write.")
    ] = Path("lr.png"),
) -> None:
    r"""Find a learning rate: train with a rising one, and plot the loss.

    Prints the learning rate at which the loss falls fastest. Needs PyTorch: pip install
    "edgeseg\[train]".
    """
    from edgeseg.files import require_writable

    with needs("train"):
        from edgeseg.training.lr_find import draw, find_lr
    if not low < high:
        raise InputError(
            "the rates do not rise",
            got=f"--low {low:g} --high {high:g}",
            expected="--low smaller than --high",
        )
    require_writable(out)

    plan = read_recipe(recipe, data=data, encoder=encoder)
    first = plan.of_stage(plan.stage[0]) if plan.stage else plan
    with ConsoleReporter() as reporter:
        test = find_lr(first, low=low, high=high, steps=steps, reporter=reporter)
    draw(test, out)
    stdout().print(
        f"the loss falls fastest at a learning rate of {test.suggested:.2e}; the test ended at "
        f"{test.rates[-1]:.2e}, its last rate or the rate at which the loss became too large",
        soft_wrap=True,
    )
    tell_written(out)
