"""Define ``models``: list the architectures, and what each one costs."""

from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.app import command
from edgeseg.cli.console import needs, stdout
from edgeseg.cli.json_report import require_json, write_report
from edgeseg.cli.options import Json, Size
from edgeseg.cli.parsing import parse_size

if TYPE_CHECKING:
    from edgeseg.models.summary import Summary

DEFAULT_SIZE = "360x480"


@command()
def models(
    classes: Annotated[int, typer.Option(min=1, max=255, help="Number of classes.")] = 11,
    size: Size = DEFAULT_SIZE,
    json_file: Json = None,
) -> None:
    r"""List the model architectures: parameters, multiply-adds, stride, source.

    Needs PyTorch: pip install "edgeseg\[train]".
    """
    with needs("train"):
        from edgeseg.models.summary import summarise

    require_json(json_file)
    shown_size = size or DEFAULT_SIZE
    rows = summarise(classes, parse_size(shown_size))
    write_report(json_file, {"classes": classes, "models": [row.to_dict() for row in rows]})
    _print_models(rows, classes, shown_size)


def _print_models(rows: "list[Summary]", classes: int, size: str) -> None:
    """Print one row per architecture, and what the columns mean."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("model", "params\nM", "MACs\nG", "stride", "out", "encoder", "source"):
        is_number = heading.startswith(("params", "MACs", "stride"))
        table.add_column(
            heading, justify="right" if is_number else "left", no_wrap=heading != "source"
        )

    for row in rows:
        architecture = row.architecture
        reduction = architecture.output_stride
        table.add_row(
            architecture.name,
            f"{row.parameters / 1e6:.2f}",
            f"{row.multiply_adds / 1e9:.2f}",
            str(architecture.stride),
            "full" if reduction == 1 else f"1/{reduction}",
            architecture.pretrained or "-",
            architecture.source,
        )

    console = stdout()
    console.print(table)
    console.print(
        f"With {classes} classes. MACs: multiply-adds per frame of {size} (HxW), rounded up to "
        "multiples of the stride. out: size of the output against the input. encoder: the ImageNet "
        "weights that fit.",
        style="dim",
        highlight=False,
    )
