"""Define ``data check`` and ``data convert``: look at labelled data, and write it as a folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.app import app
from edgeseg.cli.console import ConsoleReporter, escape, stdout
from edgeseg.cli.json_report import require_json, write_report
from edgeseg.cli.options import Json

if TYPE_CHECKING:
    from edgeseg.data.check import DataReport

_SHOWN = 5  # findings of one kind that are printed

data_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Check labelled data before a training, and convert it.",
)
app.add_typer(data_app, name="data")

DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Labelled data: folder:PATH, coco:PATH, labelme:PATH, cvat:PATH, camvid:PATH, ...",
    ),
]


@data_app.command("check")
def check(
    data: DataArgument,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="FOLDER", help="Write sheet.png (frames and masks) and classes.png."
        ),
    ] = None,
    all_findings: Annotated[
        bool, typer.Option("--all", help="Print every finding, not five of a kind.")
    ] = False,
    json_file: Json = None,
) -> None:
    """Read every frame and mask; list sizes, classes, and what is wrong. Exit 1 on an error."""
    from edgeseg.data.check import check_data

    require_json(json_file)
    with ConsoleReporter() as reporter:
        report = check_data(data, reporter=reporter)
    _print_report(report, len(report.findings) if all_findings else _SHOWN)
    if plot is not None:
        from edgeseg.data.check_pictures import draw_pictures

        for file in draw_pictures(report, plot):
            stdout().print(f"wrote {escape(str(file))}", soft_wrap=True, highlight=False)
    if json_file:
        write_report(json_file, report.to_dict())
    if report.errors:
        raise typer.Exit(1)


@data_app.command("convert")
def convert(
    data: DataArgument,
    out: Annotated[
        str, typer.Argument(metavar="FOLDER", help="The new folder, as folder:PATH or a path.")
    ],
) -> None:
    """Write labelled data as images/SPLIT, masks/SPLIT and classes.txt, which folder:PATH reads."""
    from edgeseg.data.convert import convert_data

    target = Path(out.removeprefix("folder:")).expanduser()
    with ConsoleReporter() as reporter:
        convert_data(data, target, reporter=reporter)
    stdout().print(
        f"wrote {escape(str(target))}; give it as folder:{escape(str(target))}",
        soft_wrap=True,
        highlight=False,
    )


def _print_report(report: "DataReport", shown: int) -> None:
    """Print the splits, the sizes, a table of the classes, and the findings."""
    from rich.table import Table

    console = stdout()
    splits = ", ".join(f"{name} {count}" for name, count in report.frames.items())
    how = f" ({report.how})" if report.how else ""
    console.print(escape(f"{report.address}: {splits} frames{how}"), soft_wrap=True)
    sizes = [f"{height}x{width} ({count})" for (height, width), count in report.sizes.most_common()]
    rest = f" and {len(sizes) - _SHOWN} more" if len(sizes) > _SHOWN else ""
    console.print(f"sizes (frames): {', '.join(sizes[:_SHOWN])}{rest}", soft_wrap=True)

    # One row per class.
    pixels = report.all_pixels
    seen = report.all_seen
    void = sum(report.ignored.values())
    total = max(1, int(pixels.sum()) + void)
    table = Table()
    table.add_column("class")
    for heading in ("pixels", "share", "frames"):
        table.add_column(heading, justify="right")
    for index, name in enumerate(report.labels.names):
        share = f"{100 * pixels[index] / total:.2f} %"
        table.add_row(escape(name), f"{pixels[index]:,}", share, str(seen[index]))
    table.add_row("void", f"{void:,}", f"{100 * void / total:.2f} %", "")
    console.print(table)

    # The findings, those of a kind together.
    kinds: dict[tuple[str, str], list[str]] = {}
    for finding in sorted(report.findings, key=lambda finding: finding.level):
        kinds.setdefault((finding.level, finding.kind), []).append(finding.text)
    for (level, kind), texts in kinds.items():
        for text in texts[:shown]:
            console.print(escape(f"{level}: {text}"), soft_wrap=True, highlight=False)
        if len(texts) > shown:
            line = f"{level}: {kind}: {len(texts) - shown} more; all of them with --all"
            console.print(escape(line), soft_wrap=True, highlight=False)

    errors = len(report.errors)
    warnings = len(report.findings) - errors
    verdict = "errors that would spoil a training" if errors else "nothing that spoils a training"
    console.print(f"{errors or 'found'} {verdict}, {warnings} warnings", highlight=False)
