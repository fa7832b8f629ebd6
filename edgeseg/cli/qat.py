"""``qat``: a checkpoint fine-tuned for INT8, to a Q/DQ ONNX file."""

from pathlib import Path
from typing import Annotated

import typer

from edgeseg.cli.app import app
from edgeseg.cli.console import escape, needs, stdout
from edgeseg.cli.options import RecipeData


@app.command()
def qat(
    checkpoint: Annotated[Path, typer.Argument(help="A best.pt of edgeseg train.")],
    data: RecipeData = None,
    epochs: Annotated[int, typer.Option(min=1, help="How long to fine-tune.")] = 5,
    lr: Annotated[float, typer.Option(help="Learning rate at the start; it falls along a cosine.")] = 2e-5,
    batch: Annotated[int | None, typer.Option(min=1, help="Frames a step, instead of the recipe's.")] = None,
    distill: Annotated[
        float, typer.Option(min=0, metavar="WEIGHT", help="Weight of learning from the float net's scores, too.")
    ] = 0.0,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The ONNX file to write.")] = None,
) -> None:
    """Fine-tune a checkpoint while it rounds as INT8 does; writes a Q/DQ ONNX file to build engines from."""
    with needs("train"):
        from edgeseg.training.qat.fine_tune import Tuning, tune

    console = stdout()
    result = tune(
        checkpoint,
        out,
        Tuning(epochs=epochs, lr=lr, batch=batch, distill=distill, data=data),
        say=lambda line: console.print(escape(line), soft_wrap=True),
        progress=console.is_terminal,
    )
    inside, layers = result.layers
    console.print(
        f"wrote {escape(str(result.path))} ({result.path.stat().st_size / 1e6:.1f} MB; {inside} of {layers} layers in "
        f"INT8; val mIoU {result.miou:.4f} after epoch {result.epoch}, {result.calibrated_miou:.4f} as calibrated, "
        f"{result.float_miou:.4f} in float; ONNX Runtime labels {100 * result.same_labels:.2f} % of pixels as PyTorch)",
        soft_wrap=True,
    )
