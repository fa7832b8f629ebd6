"""``models``: the models there are, and what each costs."""

from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.app import app
from edgeseg.cli.console import needs, stdout
from edgeseg.cli.options import (
    Json,
    Size,
    parse_size,
    require_json,
    write_report,
)

if TYPE_CHECKING:
    pass


@app.command()
def models(
    classes: Annotated[int, typer.Option(min=1, max=255, help="Number of classes.")] = 11,
    size: Size = "360x480",
    json_file: Json = None,
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
    require_json(json_file)
    rows = summarise(classes, parse_size(size or "360x480"))
    for row in rows:
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
    write_report(json_file, {"classes": classes, "models": [row.to_dict() for row in rows]})
    console = stdout()
    console.print(table)
    said = f"{classes} classes; MACs: multiply-adds of a frame of {size}, rounded up to the net's stride"
    console.print(f"{said}. encoder: what ImageNet weights it takes.", style="dim", highlight=False)
