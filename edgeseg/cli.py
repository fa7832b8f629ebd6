"""The ``edgeseg`` command: parses, calls one function a stage, prints. Stages are imported when they are called."""

import contextlib
import io
import signal
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeseg.errors import EdgesegError, InputError, MissingDependencyError

if TYPE_CHECKING:
    from edgeseg.export.network import Overrides
    from edgeseg.metrics import Scores
    from edgeseg.runtime import Engine
    from edgeseg.video import Sink, Source, Summary

MAX_SIDE = 16384
DEMO_NET = "enet-camvid"
DEMO_SOURCE = "synthetic://?length=225&size=640x480&seed=4&fps=15"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Semantic segmentation from PyTorch to a live camera on a small machine.",
)


class Precision(str, Enum):
    """Precisions of the targets there are."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class Colour(str, Enum):
    """Channel order of the net's input."""

    rgb = "rgb"
    bgr = "bgr"


Size = Annotated[str | None, typer.Option(metavar="HEIGHTxWIDTH", help="Input size of the net.")]
Mean = Annotated[tuple[float, float, float] | None, typer.Option(help="Mean a channel, in the net's colour order.")]
Std = Annotated[tuple[float, float, float] | None, typer.Option(help="Standard deviation a channel.")]
Scale = Annotated[float | None, typer.Option(help="Factor on the 0..255 pixel before mean and std.")]
ColourOption = Annotated[Colour | None, typer.Option(help="Colour order of the net's input.")]
Labels = Annotated[str | None, typer.Option(help="Label space: a known name, or a file (JSON, or a name a line).")]
PrecisionOption = Annotated[Precision, typer.Option(help="auto: the fastest this machine computes natively.")]
Target = Annotated[str, typer.Option(help="auto or cpu.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON, too.")]
EngineArgument = Annotated[str, typer.Argument(metavar="ENGINE", help="An .engine, an .onnx file, or a shipped net.")]


def main() -> None:
    """Run the command line; the errors people meet are one line and their own exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a name the terminal cannot spell is no reason to fail
    with contextlib.suppress(ValueError):  # not the main thread: an embedding program handles its own signals
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        app(standalone_mode=True)
    except EdgesegError as error:
        _stderr().print(f"[bold red]error:[/] {_escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        _stderr().print(f"[bold red]error:[/] {_escape(f'{error.filename}: {error.strerror}.')}", soft_wrap=True)
        sys.exit(EdgesegError.exit_code)
    except KeyboardInterrupt:
        _stderr().print("interrupted")
        sys.exit(130)


def _interrupt(*_: object) -> None:
    """SIGTERM ends a run as Ctrl-C does: what is recorded so far is kept."""
    raise KeyboardInterrupt


def _escape(text: str) -> str:
    """Text as it is, for a console that reads markup; on one line."""
    from rich.markup import escape

    return escape(" ".join(text.splitlines()))


def _stdout() -> Any:
    from rich.console import Console

    return Console()


def _stderr() -> Any:
    from rich.console import Console

    return Console(stderr=True)


@contextlib.contextmanager
def _needs(extra: str) -> Iterator[None]:
    """Turn a missing package of an extra into the line that installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "edgeseg":
            raise
        raise MissingDependencyError(
            f"this command needs {error.name}, which is not installed",
            hint=f'Install it: pip install "edgeseg[{extra}]".',
        ) from error


def _overrides(
    size: str | None,
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
    scale: float | None,
    colour: Colour | None,
    labels: str | None,
) -> "Overrides":
    from edgeseg.export.network import Overrides

    return Overrides(
        size=parse_size(size) if size else None,
        mean=mean,
        std=std,
        scale=scale,
        colour=colour.value if colour else None,
        labels=labels,
    )


def parse_size(text: str) -> tuple[int, int]:
    """``360x480`` -> (360, 480): height x width."""
    height, cross, width = text.lower().partition("x")
    sides = [int(side) if side.isascii() and side.isdecimal() else 0 for side in (height, width)]
    if not cross or not all(1 <= side <= MAX_SIDE for side in sides):
        raise InputError(
            "not a size", got=repr(text), expected=f"HEIGHTxWIDTH, such as 360x480, each at most {MAX_SIDE}"
        )
    return sides[0], sides[1]


def _tell_assumed(assumed: tuple[str, ...]) -> None:
    if assumed:
        said = _escape("; ".join(assumed))
        _stderr().print(
            f"[yellow]assumed:[/] {said} (the file has no edgeseg spec; flags correct this)", soft_wrap=True
        )


@contextlib.contextmanager
def _waiting(what: str) -> Iterator[None]:
    with _stderr().status(_escape(what)):
        yield


def _engine(name: str, precision: Precision, target: str, overrides: "Overrides | None" = None) -> "Engine":
    from edgeseg.runtime import resolve_engine

    with _waiting(f"opening {name}"):
        engine = resolve_engine(name, precision=precision.value, target=target, overrides=overrides)
    _tell_assumed(engine.passport.assumed)
    return engine


@app.command()
def models(
    classes: Annotated[int, typer.Option(min=1, max=255, help="Number of classes.")] = 11, size: Size = "360x480"
) -> None:
    """List the nets: parameters, multiply-adds, stride, source."""
    from rich.table import Table

    with _needs("train"):
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
    _stdout().print(table)


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
    with _needs("train"):
        from edgeseg.training.fit import train as run
    from edgeseg.training.recipe import load_recipe, with_changes

    changes = {"data.address": data, "fit.epochs": epochs, "model.encoder": encoder}
    plan = with_changes(load_recipe(recipe), {key: value for key, value in changes.items() if value is not None})
    console = _stdout()
    folder = out or Path("runs") / plan.name
    best = run(
        plan,
        folder,
        resume=resume,
        say=lambda line: console.print(_escape(line), soft_wrap=True),
        progress=console.is_terminal,
    )
    console.print(f"best checkpoint: {_escape(str(best))}; curves.png and panel.png beside it", soft_wrap=True)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A best.pt of edgeseg train.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The ONNX file to write.")] = None,
) -> None:
    """Write a checkpoint as an ONNX file with its spec inside, checked against PyTorch."""
    with _needs("train"), _waiting(f"exporting {checkpoint}"):
        from edgeseg.export.to_onnx import export_checkpoint

        path = export_checkpoint(checkpoint, out)
    _stdout().print(f"wrote {_escape(str(path))} ({path.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)


@app.command("build-engine")
def build_engine(
    onnx: Annotated[Path, typer.Argument(help="An ONNX file.")],
    precision: PrecisionOption = Precision.auto,
    target: Target = "auto",
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The .engine file to write.")] = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    colour: ColourOption = None,
    labels: Labels = None,
) -> None:
    """Compile an ONNX file for a target: frame in, label map out. Writes the engine and its passport."""
    from edgeseg.artifact import Passport
    from edgeseg.runtime import build_engine as build

    facts = _overrides(size, mean, std, scale, colour, labels)
    with _waiting(f"compiling {onnx}"):
        path = build(onnx, precision=precision.value, target=target, out=out, overrides=facts)
    passport = Passport.read(path)
    _tell_assumed(passport.assumed)
    height, width = passport.spec.input_size
    _stdout().print(
        f"wrote {_escape(str(path))} ({path.stat().st_size / 1e6:.1f} MB; {passport.precision} for {passport.target}, "
        f"{height}x{width}, {len(passport.spec.labels)} classes; {passport.build_seconds:.1f} s)",
        soft_wrap=True,
    )


@app.command()
def segment(
    engine: EngineArgument,
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A video, picture or folder, a camera (0), a stream, or synthetic://."),
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Overlay: .mp4, .avi, or a picture of a picture.")
    ] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder for palette masks (PNG, ids as indices).")] = None,
    show: Annotated[bool, typer.Option("--show", help="Show a window; q closes it.")] = False,
    alpha: Annotated[float, typer.Option(min=0, max=1, help="Weight of the colours over the frame.")] = 0.5,
    legend: Annotated[bool, typer.Option(help="Draw the classes' names.")] = True,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    precision: PrecisionOption = Precision.auto,
    target: Target = "auto",
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    colour: ColourOption = None,
    labels: Labels = None,
    json_file: Json = None,
) -> None:
    """Label every frame of a source; write a video, masks, or show it live."""
    from edgeseg.artifact import require_json_output

    if json_file:
        require_json_output(json_file, out, Path(source), Path(engine), Path(f"{engine}.json"))
    if not (out or masks or show or json_file):
        raise InputError("nothing to do with the result", hint="Give -o VIDEO, --masks FOLDER, --show or --json FILE.")
    facts = _overrides(size, mean, std, scale, colour, labels)
    _segment(
        lambda: _engine(engine, precision, target, facts),
        source,
        out=out,
        masks=masks,
        show=show,
        alpha=alpha,
        legend=legend,
        max_frames=max_frames,
        json_file=json_file,
    )


def _segment(
    open_engine: "Callable[[], Engine]",
    uri: str,
    *,
    out: Path | None,
    masks: Path | None = None,
    show: bool = False,
    alpha: float = 0.5,
    legend: bool = True,
    max_frames: int | None = None,
    json_file: Path | None = None,
) -> None:
    """Open the source and the sinks, run, print the summary."""
    from edgeseg.artifact import write_json
    from edgeseg.video import segment as run

    source = open_source_of(uri)
    try:
        engine = open_engine()
        sinks = _sinks(source, engine, out, masks, show)
    except BaseException:
        source.close()
        raise
    with _progress("segmenting", source.info.frames) as step:
        summary = run(
            engine,
            source,
            sinks,
            alpha=alpha,
            show_legend=legend,
            max_frames=max_frames,
            on_progress=lambda done, total: step(),
        )
    if json_file:
        facts = {
            "engine": engine.passport.name,
            "precision": engine.passport.precision,
            "engine_sha256": engine.passport.engine_sha256,
            "device": engine.passport.device,
            "source": uri,
            "size": [source.info.height, source.info.width],
            "source_fps": source.info.fps,
        }
        write_json(json_file, {**facts, **summary.to_dict()})
    _print_summary(summary, engine)
    for path in (out, masks):
        if path and summary.frames_out:
            _stdout().print(f"wrote {_escape(str(path))}", soft_wrap=True)


def open_source_of(uri: str) -> "Source":
    """A source by address, opened while the terminal says so."""
    from edgeseg.video import open_source

    with _waiting(f"opening {uri}"):
        return open_source(uri)


def _sinks(source: "Source", engine: "Engine", out: Path | None, masks: Path | None, show: bool) -> "list[Sink]":
    """The sinks asked for; those made before one fails are removed again."""
    from edgeseg.video import ImageFolderSink, PictureSink, VideoSink, WindowSink

    sinks: list[Sink] = []
    try:
        if out:
            picture = source.info.frames == 1 and out.suffix.lower() not in (".mp4", ".avi")
            sinks.append(PictureSink(out) if picture else VideoSink(out, source.info))
        if masks:
            sinks.append(ImageFolderSink(masks, engine.spec.labels))
        if show:
            sinks.append(WindowSink())
    except BaseException:
        for sink in sinks:
            sink.abort()
        raise
    return sinks


def _print_summary(summary: "Summary", engine: "Engine") -> None:
    from rich.table import Table

    passport = engine.passport
    table = Table(title=_escape(f"{passport.name} ({passport.precision}, {passport.device})"))
    table.add_column("latency, ms")
    for heading in ("p50", "p95", "p99"):
        table.add_column(heading, justify="right")
    for stage, times in summary.latency_ms.items():
        table.add_row(stage, f"{times.p50:.1f}", f"{times.p95:.1f}", f"{times.p99:.1f}")
    console = _stdout()
    console.print(table)
    console.print(
        f"{summary.frames_in} frames in, {summary.frames_out} out, {summary.dropped} dropped; {summary.wall_s:.1f} s, "
        f"{summary.fps:.1f} FPS; stopped: {summary.stopped}",
        soft_wrap=True,
    )


@app.command()
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="The video to write.")] = Path("demo.mp4"),
    source: Annotated[str, typer.Option(help="What to segment instead of the synthetic drive.")] = DEMO_SOURCE,
    precision: PrecisionOption = Precision.auto,
) -> None:
    """Segment a drive with the net that ships, into a video. Needs no camera, no download and no GPU."""
    _segment(lambda: _engine(DEMO_NET, precision, "auto"), source, out=out)


@app.command()
def evaluate(
    engine: EngineArgument,
    data: Annotated[str, typer.Argument(metavar="DATA", help="Labelled data: camvid:PATH or synthetic://.")],
    split: Annotated[str, typer.Option(help="Which split.")] = "val",
    precision: PrecisionOption = Precision.auto,
    target: Target = "auto",
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    colour: ColourOption = None,
    labels: Labels = None,
    json_file: Json = None,
) -> None:
    """Score an engine on labelled data: mIoU and the rest, from one confusion matrix."""
    from edgeseg.artifact import require_json_output, write_json
    from edgeseg.data import open_dataset
    from edgeseg.evaluation import evaluate as score

    if json_file:
        require_json_output(json_file, Path(engine), Path(f"{engine}.json"))
    dataset = open_dataset(data, split)
    opened = _engine(engine, precision, target, _overrides(size, mean, std, scale, colour, labels))
    with _progress("scoring", len(dataset)) as step:
        result = score(opened, dataset, on_frame=lambda _: step())
    _print_scores(
        result, f"{opened.passport.name} ({opened.passport.precision}) on {dataset.name}, {len(dataset)} frames"
    )
    if json_file:
        facts = {
            "engine": opened.passport.name,
            "precision": opened.passport.precision,
            "onnx_sha256": opened.passport.onnx_sha256,
            "engine_sha256": opened.passport.engine_sha256,
            "data": data,
            "split": split,
            "frames": len(dataset),
        }
        write_json(json_file, {**facts, **result.to_dict()})


@contextlib.contextmanager
def _progress(what: str, total: int | None) -> Iterator[Any]:
    """A bar on the terminal; yields ``step(n=1)``."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_stderr(), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda n=1: bar.advance(task, n)


def _print_scores(result: "Scores", title: str) -> None:
    from rich.table import Table

    table = Table(title=_escape(title))
    table.add_column("class")
    for heading in ("IoU", "Dice = F1", "sensitivity", "precision", "pixels"):
        table.add_column(heading, justify="right")

    def number(value: float) -> str:
        return "-" if value != value else f"{100 * value:.2f}"

    truth = result.matrix.sum(axis=1)
    for i, name in enumerate(result.names):
        row = (result.iou[i], result.dice[i], result.sensitivity[i], result.precision[i])
        table.add_row(_escape(name), *(number(v) for v in row), f"{truth[i]:,}")
    console = _stdout()
    console.print(table)
    console.print(
        f"mIoU {number(result.mean_iou)}   pixel accuracy {number(result.pixel_accuracy)}   "
        f"mean pixel accuracy {number(result.mean_pixel_accuracy)}   "
        f"frequency-weighted IoU {number(result.frequency_weighted_iou)}   mean Dice {number(result.mean_dice)}",
        soft_wrap=True,
    )
    if result.absent:
        console.print(f"in neither truth nor prediction, so in no mean: {_escape(', '.join(result.absent))}")


@app.command()
def doctor() -> None:
    """Say what this machine can run, what is missing, and the line that installs it."""
    from rich.table import Table

    from edgeseg.doctor import examine

    table = Table()
    for heading in ("part", "", "found", "if you need it"):
        table.add_column(heading, overflow="fold")
    findings = examine()
    for f in findings:
        mark = "[green]ok[/]" if f.ok else "[bold red]missing[/]" if f.needed else "[dim]no[/]"
        table.add_row(f.part, mark, _escape(f.found), _escape(f.hint))
    _stdout().print(table)
    if broken := [f.part for f in findings if f.needed and not f.ok]:
        raise MissingDependencyError(
            f"cannot run engines here: {', '.join(broken)}", hint="The last column says what to do."
        )
