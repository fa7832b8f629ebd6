"""``models``, ``train``, ``export``: from a recipe to an ONNX file."""

from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.common import Size, app, escape, needs, parse_size, stdout, waiting


@app.command()
def models(
    classes: Annotated[int, typer.Option(min=1, max=255, help="Number of classes.")] = 11, size: Size = "360x480"
) -> None:
    """List the nets: parameters, multiply-adds, stride, source."""
    from rich.table import Table

    with needs("train"):
        from edgeseg.models.summary import summarise
    table = Table(title=f"{classes} classes; a frame of {size}, rounded up to the net's stride")
    for heading in ("net", "parameters", "multiply-adds", "stride", "pretrained encoder", "source"):
        table.add_column(heading, justify="right" if heading in ("parameters", "multiply-adds", "stride") else "left")
    for row in summarise(classes, parse_size(size or "360x480")):
        a = row.architecture
        table.add_row(
            a.name,
            f"{row.parameters / 1e6:.2f} M",
            f"{row.multiply_adds / 1e9:.2f} G",
            str(a.stride),
            a.pretrained or "-",
            a.source,
        )
    stdout().print(table)


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, such as engines/enet-camvid.toml.")],
    data: Annotated[str | None, typer.Option(help="Where the data is, instead of the recipe's: camvid:PATH.")] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder of the run (default runs/NAME).")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with a run that was stopped.")] = False,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    encoder: Annotated[str | None, typer.Option(help="Encoder weights: a file, or torchvision.")] = None,
) -> None:
    """Train a net by a recipe; leaves best.pt, curves and a panel of predictions."""
    with needs("train"):
        from edgeseg.training.fit import train as run
    from edgeseg.training.recipe import load_recipe, with_changes

    changes = {"data.address": data, "fit.epochs": epochs, "model.encoder": encoder}
    plan = with_changes(load_recipe(recipe), {key: value for key, value in changes.items() if value is not None})
    console = stdout()
    folder = out or Path("runs") / plan.name
    best = run(
        plan,
        folder,
        resume=resume,
        say=lambda line: console.print(escape(line), soft_wrap=True),
        progress=console.is_terminal,
    )
    console.print(f"best checkpoint: {escape(str(best))}; curves.png and panel.png beside it", soft_wrap=True)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A best.pt of edgeseg train.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The ONNX file to write.")] = None,
) -> None:
    """Write a checkpoint as an ONNX file with its spec inside, checked against PyTorch."""
    with needs("train"), waiting(f"exporting {checkpoint}"):
        from edgeseg.export.to_onnx import export_checkpoint

        path = export_checkpoint(checkpoint, out)
    stdout().print(f"wrote {escape(str(path))} ({path.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)
