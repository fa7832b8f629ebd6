"""Define ``profile``: measure engines on this machine."""

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from edgeseg.cli.app import command
from edgeseg.cli.console import ConsoleReporter, stderr, tell_written, waiting
from edgeseg.cli.groups import option_groups
from edgeseg.cli.json_report import require_json, write_report
from edgeseg.cli.options import Json
from edgeseg.errors import InputError

if TYPE_CHECKING:
    from edgeseg.profiling.profile import ProfileOptions
    from edgeseg.profiling.results import Result
    from edgeseg.profiling.workload import Workload


@dataclass(frozen=True)
class LongRuns:
    """Hold the options of long runs and of a Jetson's power modes.

    Attributes
    ----------
    soak : duration of a long run.
    power_modes : modes to measure in, separated by commas.
    yes : True to change the power mode without a question.
    """

    HELP_PANEL: ClassVar[str] = "Long runs and power modes"

    soak: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="Run for so long (30m, 2h, 90s), all engines together, and compare the first "
            "minute with the last; replaces --seconds.",
        ),
    ] = None
    power_modes: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="On a Jetson: measure in each of these power modes (15W,25W,MAXN), then put the "
            "mode back.",
        ),
    ] = None
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Change the power mode without a question.")
    ] = False


@dataclass(frozen=True)
class Extras:
    """Hold the options of what else is measured and drawn.

    Attributes
    ----------
    layers : True to time the layers.
    plots : folder for plots.
    usb_csv : CSV of a USB power meter.
    """

    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            help="Time every layer, count its multiply-adds and bytes, and tell if memory or "
            "arithmetic bounds it (target cpu).",
        ),
    ] = False
    plots: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Draw PNG plots: latency, and the roofline, soak and power modes if measured.",
        ),
    ] = None
    usb_csv: Annotated[
        Path | None,
        typer.Option(
            "--usb-csv",
            metavar="FILE",
            help="CSV that the logger of a USB power meter is writing: watts, or volts and "
            "amperes, named in its first line.",
        ),
    ] = None


@command()
@option_groups
def profile(
    engines: Annotated[
        list[str],
        typer.Argument(
            metavar="ENGINE",
            help="The engines: .engine files, .onnx files, or models that ship with edgeseg; the "
            "last two may have a precision: enet-camvid@fp32 enet-camvid@int8.",
        ),
    ],
    extras: Extras,
    long_runs: LongRuns,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Labelled data to score and to time on: camvid:PATH."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Frames to time on: a video, a folder, a camera. Default: --data, or a synthetic "
            "drive.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of --data.")] = "val",
    frames: Annotated[
        int | None, typer.Option(min=1, help="Number of frames to score. Default: all.")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="Time of calls per engine; the engines take turns.")
    ] = 10.0,
    json_file: Json = None,
) -> None:
    """Measure engines on this machine: latency, throughput, start, memory, power, temperature.

    After a warm-up, the engines take turns. Power is read from the meters that the machine has; the
    command tells which ones are missing and why.
    """
    from edgeseg.cli.profile_tables import print_result
    from edgeseg.profiling.soak import parse_duration
    from edgeseg.profiling.workload import open_workload

    # Check all that can be wrong before the long work.
    require_json(json_file, *(Path(engine) for engine in engines))
    duration = None if long_runs.soak is None else parse_duration(long_runs.soak)
    _require_plots(extras.plots)
    if duration is not None and long_runs.power_modes is not None:
        raise InputError("--soak and --power-modes do not go together", hint="Run one of them.")

    with waiting("reading frames"):
        work = open_workload(data, source, split=split, frames=frames)
    options = _options(engines, seconds, duration, extras)
    if long_runs.power_modes is None:
        with ConsoleReporter() as reporter:
            from edgeseg.profiling.profile import profile as measure

            result = measure(engines, work, options, reporter=reporter)
    else:
        result = _sweep(engines, work, options, long_runs)
    result = result.model_copy(update={"command": _command_line()})

    print_result(result)
    if json_file:
        write_report(json_file, result.to_dict())
    if extras.plots is not None:
        from edgeseg.profiling.profile_plots import draw_all

        for path in draw_all(result, extras.plots):
            tell_written(path)


def _options(
    engines: list[str], seconds: float, duration: float | None, extras: Extras
) -> "ProfileOptions":
    """Return the options of the measurement; a soak shares its time among the engines."""
    from edgeseg.profiling.profile import ProfileOptions

    time_of_each = seconds if duration is None else duration / len(engines)
    return ProfileOptions(
        seconds=time_of_each,
        throughput_s=min(ProfileOptions.throughput_s, time_of_each),
        layers=extras.layers,
        soak=duration is not None,
        usb_csv=extras.usb_csv,
    )


def _require_plots(folder: Path | None) -> None:
    """Raise an error before the work if plots cannot be drawn into a folder."""
    if folder is not None:
        from edgeseg.profiling.plots import require_picture

        require_picture(folder / "latency.png")


def _sweep(
    engines: list[str], work: "Workload", options: "ProfileOptions", long_runs: LongRuns
) -> "Result":
    """Measure in each power mode, after a question."""
    from edgeseg.profiling.mode_sweep import sweep
    from edgeseg.profiling.power_modes import current_mode, resolve_modes

    modes = resolve_modes((long_runs.power_modes or "").split(","))
    before = current_mode()
    names = ", ".join(mode.name for mode in modes)
    if not long_runs.yes:
        if not sys.stdin.isatty():
            raise InputError(
                "the power mode would be changed, and nobody can be asked",
                got=names,
                hint="Give --yes.",
            )
        now = "" if before is None else f" (now {before.name}, which is put back)"
        typer.confirm(f"Change the power mode to {names}{now}?", abort=True, err=True)
    with ExitStack() as stack:
        reporter = stack.enter_context(ConsoleReporter(stderr()))
        return sweep(engines, work, options, modes, reporter=reporter)


def _command_line() -> str:
    """Return the command as it was typed, without the folder of the program."""
    import shlex

    return shlex.join(["edgeseg", *sys.argv[1:]])
