"""``models``, ``train``, ``export``: from a recipe to an ONNX file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.common import (
    Encoder,
    Epochs,
    RecipeArgument,
    RecipeData,
    Size,
    app,
    escape,
    needs,
    parse_size,
    progress,
    read_recipe,
    spec_flags,
    stdout,
    waiting,
)  # fmt: skip

if TYPE_CHECKING:
    from edgeseg.export.network import Overrides


@app.command()
def models(
    classes: Annotated[int, typer.Option(min=1, max=255, help="Number of classes.")] = 11, size: Size = "360x480"
) -> None:
    """List the nets: parameters, multiply-adds, stride, source."""
    from rich import box
    from rich.table import Table

    with needs("train"):
        from edgeseg.models.summary import summarise
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("net", "params\nM", "MACs\nG", "stride", "out", "encoder", "source"):
        number = heading.startswith(("params", "MACs", "stride"))
        table.add_column(heading, justify="right" if number else "left", no_wrap=heading != "source")
    for row in summarise(classes, parse_size(size or "360x480")):
        a = row.architecture
        table.add_row(
            a.name,
            f"{row.parameters / 1e6:.2f}",
            f"{row.multiply_adds / 1e9:.2f}",
            str(a.stride),
            "full" if a.output_stride == 1 else f"1/{a.output_stride}",
            a.pretrained or "-",
            a.source,
        )
    console = stdout()
    console.print(table)
    said = f"{classes} classes; MACs: multiply-adds of a frame of {size}, rounded up to the net's stride"
    console.print(f"{said}. encoder: what ImageNet weights it takes.", style="dim", highlight=False)


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
        from edgeseg.training import processes
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
    if processes.is_first():
        console.print(f"best checkpoint: {escape(str(best))}; curves.png and panel.png beside it", soft_wrap=True)


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
    from edgeseg.artifact import require_writable
    from edgeseg.errors import InputError

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


@app.command()
@spec_flags
def export(
    net: Annotated[
        str,
        typer.Argument(
            metavar="NET",
            help="A best.pt of edgeseg train, or a PyTorch net: package.module:factory. With --triton or --deepstream "
            "also an ONNX file, a net that ships or, for Triton, a TensorRT engine.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The ONNX file to write; a checkpoint again, if NAME.pt.")
    ] = None,
    arg: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An argument of the factory; may be repeated.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="State dict to load into the factory's net.")
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Store the weights in FP16: half the file.")] = False,
    triton: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Put the net into this model repository of Triton.")
    ] = None,
    deepstream: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the net for DeepStream's nvinfer into this folder.")
    ] = None,
    *,
    overrides: "Overrides",
) -> None:
    """Write a net as an ONNX file with its spec inside, checked against PyTorch.

    A net that is not edgeseg's needs --size, and --labels where its classes have names.
    """
    from edgeseg.cli import interchange

    path = interchange.finished(net) if triton or deepstream else None
    if path is not None:
        flags = {"--out": out, "--arg": arg, "--weights": weights, "--half": half}
        interchange.require_nothing_to_export(net, flags)
        interchange.hand_over(path, triton, deepstream, overrides)
        return
    with needs("train"), waiting(f"exporting {net}"):
        from edgeseg.export.foreign import is_factory

        if is_factory(net) and not Path(net).exists():
            path = _export_foreign(net, arg or [], weights, out, overrides, half)
        else:
            path = _export_checkpoint(net, arg, weights, out, overrides, half)
    stdout().print(f"wrote {escape(str(path))} ({path.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)
    if triton or deepstream:
        interchange.hand_over(path, triton, deepstream, None)


def _export_checkpoint(
    net: str, arg: list[str] | None, weights: Path | None, out: Path | None, overrides: "Overrides", half: bool
) -> Path:
    from edgeseg.errors import InputError
    from edgeseg.export.to_onnx import export_checkpoint

    given = {k: v for k, v in vars(overrides).items() if v is not None and k != "size"}
    if given or arg or weights:
        raise InputError(
            f"{net}: a checkpoint has its spec inside", got=f"--{next(iter(given), 'arg' if arg else 'weights')}",
            expected="at most --size", hint="For a net of your own give package.module:factory.",
        )  # fmt: skip
    return export_checkpoint(net, out, overrides.size, half=half)


def _export_foreign(
    name: str, arg: list[str], weights: Path | None, out: Path | None, overrides: "Overrides", half: bool
) -> Path:
    from edgeseg.export.foreign import build_module, parse_arguments
    from edgeseg.export.to_onnx import export_foreign

    module = build_module(name, parse_arguments(arg), weights)
    return export_foreign(module, name.partition(":")[2], overrides, out, half=half)
