"""Define ``qat``: fine-tune a checkpoint for INT8, and write it as an ONNX file with Q/DQ nodes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.app import command
from edgeseg.cli.console import ConsoleReporter, needs, stdout, tell_written
from edgeseg.cli.options import RecipeData

if TYPE_CHECKING:
    from edgeseg.training.qat.fine_tune import Tuned


@command()
def qat(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A best.pt of edgeseg train.")
    ],
    data: RecipeData = None,
    epochs: Annotated[int, typer.Option(min=1, help="Number of epochs.")] = 5,
    lr: Annotated[
        float, typer.Option(help="Learning rate at the start; it falls along a cosine.")
    ] = 2e-5,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Batch size; replaces the recipe's batch size.")
    ] = None,
    distill: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="WEIGHT",
            help="Weight of the distillation loss: learn from the float model's logits, too.",
        ),
    ] = 0.0,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="The ONNX file to write."),
    ] = None,
) -> None:
    r"""Fine-tune a checkpoint for INT8 (quantization-aware training).

    Writes an ONNX file with Q/DQ nodes; edgeseg build-engine makes an INT8 engine of it. Needs
    PyTorch: pip install "edgeseg\[train]".
    """
    with needs("train"):
        from edgeseg.training.qat.fine_tune import Tuning, tune

    tuning = Tuning(epochs=epochs, lr=lr, batch=batch, distill=distill, data=data)
    with ConsoleReporter(stdout()) as reporter:
        result = tune(checkpoint, out, tuning, reporter=reporter)
    tell_written(result.path, _describe(result))


def _describe(result: "Tuned") -> str:
    """Return the main facts about the file, for one line."""
    inside, layers = result.layers
    facts = (
        f"{result.path.stat().st_size / 1e6:.1f} MB",
        f"{inside} of {layers} layers in INT8",
        f"val mIoU {result.miou:.4f} after epoch {result.epoch} ({result.float_miou:.4f} in float, "
        f"{result.calibrated_miou:.4f} in INT8 before the fine-tuning)",
        f"{100 * result.same_labels:.2f} % of labels are the same in ONNX Runtime and PyTorch",
    )
    return ", ".join(facts)
