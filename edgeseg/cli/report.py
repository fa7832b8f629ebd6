"""Define ``report``: one HTML file that shows what each precision costs."""

import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeseg.cli.app import command
from edgeseg.cli.console import ConsoleReporter, escape, stdout, waiting
from edgeseg.cli.json_report import require_json, write_report
from edgeseg.cli.options import Frames, Json, Rounds
from edgeseg.errors import InputError, OutputError

if TYPE_CHECKING:
    from edgeseg.profiling.report import Report
    from edgeseg.profiling.report.write import Extras


@command()
def report(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="ENGINE... [RESULT.json...]",
            help="The engines; the first is the reference. Each is an .engine file, an .onnx file, "
            "or a model that ships with edgeseg, the last two with a precision or without: "
            "enet-camvid@fp32. Results of edgeseg profile and edgeseg sensitivity (--json) add "
            "watts, frames/s and the cost of layers.",
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="DATA",
            help="Labelled data (camvid:PATH, synthetic://, ...), or frames without labels.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE.html", help="The file to write.")
    ] = Path("report.html"),
    split: Annotated[str, typer.Option(help="Split of labelled --data.")] = "val",
    frames: Frames = None,
    rounds: Rounds = 3,
    json_file: Json = None,
) -> None:
    """Write one HTML file on what each precision costs: it works offline, and prints well.

    It has a verdict, scores with confidence intervals, boundaries, confusions, maps, the worst
    frames, latency, calibration, and the protocol. It contains no address of the network.
    """
    from edgeseg.profiling.report.write import Extras

    results = [Path(name) for name in inputs if name.lower().endswith(".json")]
    engines = [name for name in inputs if not name.lower().endswith(".json")]
    if not engines:
        raise InputError("no engine to report on", got=", ".join(inputs), expected="ENGINE...")
    _require_output(out)
    require_json(json_file, out, *results, *(Path(engine) for engine in engines))

    made = _run(engines, data, split, frames, rounds, Extras.read(results))
    made.write(out)
    write_report(json_file, made.facts)
    console = stdout()
    console.print(escape(made.facts["verdict"]), soft_wrap=True, highlight=False)
    size = len(made.html.encode()) / 1e6
    console.print(escape(f"{out}: {size:.1f} MB"), soft_wrap=True, highlight=False)


def _require_output(path: Path) -> None:
    """Raise ``OutputError`` unless the page can be written."""
    from edgeseg.files import require_writable

    if path.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"{path}: not the name of a page", expected="a name that ends in .html")
    require_writable(path)


def _run(
    engines: list[str],
    address: str,
    split: str,
    frames: int | None,
    rounds: int,
    extras: "Extras",
) -> "Report":
    """Open the data and the engines, and make the report; show progress."""
    from edgeseg.profiling.entry import Entry, open_entry
    from edgeseg.profiling.frames import open_frames, spread_frames
    from edgeseg.profiling.report import report as run
    from edgeseg.video import Source

    with waiting(f"opening {address}"):
        data = open_frames(address, split)
    try:
        with ExitStack() as opened:
            entries: list[Entry] = []
            for name in engines:
                with waiting(f"opening {name}"):
                    entry = open_entry(name)
                opened.enter_context(entry.engine)
                entries.append(entry)
            reporter = opened.enter_context(ConsoleReporter())
            return run(
                entries,
                data,
                indices=spread_frames(data, frames),
                name=address if isinstance(data, Source) else None,
                extras=extras,
                rounds=rounds,
                command=shlex.join(["edgeseg", *sys.argv[1:]]),
                reporter=reporter,
            )
    finally:
        if isinstance(data, Source):
            data.close()
