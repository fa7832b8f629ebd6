"""Profile engines: latency, stages, throughput, start, power, layers; one result for a file."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.backends.engine import Engine
from edgeseg.errors import InputError
from edgeseg.imaging.preprocess import resize_frame, resize_labels
from edgeseg.profiling import timing
from edgeseg.profiling.engine_record import (
    EngineRecord,
    LatencyFigures,
    Stages,
    ThroughputRow,
)
from edgeseg.profiling.entry import Entry
from edgeseg.profiling.layers import profile_layers
from edgeseg.profiling.machine import describe_machine
from edgeseg.profiling.machine_state import (
    CpuLoad,
    StateWatch,
    read_state,
    resident_bytes,
    throttle_events,
)
from edgeseg.profiling.power import Found, PowerSampler, find_meters
from edgeseg.profiling.power_figures import Metered, engine_power
from edgeseg.profiling.results import Limits, PowerFacts, Result
from edgeseg.profiling.roofline import judge, measure_limits
from edgeseg.profiling.soak import soak_of
from edgeseg.profiling.subjects import Subject, first_calls, open_all, score
from edgeseg.profiling.throughput import CPU, throughput
from edgeseg.profiling.workload import Workload
from edgeseg.reporter import SILENT, Reporter
from edgeseg.types import Image

STAGE_CALLS = 3  # per turn
IDLE_S = 2.0
_BINS = 40


@dataclass(frozen=True)
class ProfileOptions:
    """Choose what is measured, and for how long.

    Attributes
    ----------
    seconds : time of calls per engine.
    throughput_s : time of each throughput measurement; 0 for none.
    layers : True to time the layers, too.
    soak : True if the calls are a soak: results are also given minute by minute.
    idle_s : seconds of idle power before the engines are opened.
    usb_csv : CSV that the logger of a USB power meter writes.
    root : root folder of the file system; tests give another than ``/``.

    Examples
    --------
    >>> ProfileOptions(seconds=2.0).layers
    False
    """

    seconds: float = 10.0
    throughput_s: float = 2.0
    layers: bool = False
    soak: bool = False
    idle_s: float = IDLE_S
    usb_csv: Path | None = None
    root: Path = field(default_factory=lambda: Path("/"))


def profile(
    engines: Sequence[Engine | str | Path | Entry],
    work: Workload,
    options: ProfileOptions | None = None,
    *,
    reporter: Reporter = SILENT,
) -> Result:
    """Measure engines side by side on this machine.

    Parameters
    ----------
    engines : engine files, ONNX files, names of shipped models (each optionally ``@PRECISION``), or
        engines. Those that are not open yet are opened here, and closed at the end.
    work : the frames.
    options : what to measure; by default ``ProfileOptions()``.
    reporter : receives messages and progress.

    Raises
    ------
    InputError : no engine, no frame, or no time.
    EdgesegError : an engine cannot be opened.
    """
    options = options or ProfileOptions()
    _require(engines, work, options)
    machine = describe_machine()
    before = read_state(options.root)
    found = find_meters(options.root, options.usb_csv)

    with ExitStack() as opened:
        opened.callback(found.close)
        idle = _idle(found, options.idle_s, reporter)
        subjects = open_all(engines, opened, reporter)
        for subject in subjects:
            first_calls(subject, work.frames, reporter)
            score(subject, work, reporter)
        timed, metered, state = _measure(subjects, work, options, found, reporter)

        records: list[EngineRecord] = []
        limits = measure_limits(options.root) if _wants_layers(subjects, options) else None
        for subject, calls in zip(subjects, timed, strict=True):
            record = _record(subject, calls, metered, idle)
            if options.soak:
                record.soak = soak_of(calls, metered, state["states"])
            _add_throughput(record, subject, work, options)
            _add_layers(record, subject, work, limits, options)
            records.append(record)

    after = read_state(options.root)
    return Result(
        measurement="profile",
        machine=machine,
        state={
            "before": before,
            "during": state["during"],
            "after": after,
            "throttle_events": throttle_events(before, after),
            "cpu_load_percent": state["cpu_load_percent"],
            "memory_bytes": resident_bytes(),
            "gpu": _gpu_state(found),
        },
        protocol=_protocol(options),
        data=work.facts(),
        engines=records,
        power=_power_facts(found, metered, idle),
        limits=limits,
    )


def _require(engines: Sequence[Any], work: Workload, options: ProfileOptions) -> None:
    """Raise ``InputError`` if there is nothing to measure."""
    if not engines:
        raise InputError("nothing to profile", expected="at least one engine")
    if not work.frames:
        raise InputError(f"{work.address}: no frame to profile on")
    if options.seconds <= 0:
        raise InputError("no time to measure", got=f"{options.seconds:g} s", expected="more than 0")


def _protocol(options: ProfileOptions) -> dict[str, Any]:
    """Return the numbers and rules of the measurement."""
    return {
        "seconds_per_engine": options.seconds,
        "turn_s": timing.TURN_S,
        "warm_up": timing.RULE,
        "timed": "from a decoded uint8 BGR frame to its uint8 label map, batch 1",
        "turns": "engines take turns; a turn starts with one call that is not counted",
        "stages": f"{STAGE_CALLS} calls after each turn, stage by stage; normalization and argmax "
        "are in the network's graph",
        "throughput_s": options.throughput_s,
        "idle_s": options.idle_s,
        "soak": options.soak,
    }


# -- measuring -------------------------------------------------------------------------------------


def _idle(found: Found, seconds: float, reporter: Reporter) -> float | None:
    """Return the power of the machine before the work; ``None`` without a meter."""
    if not found.meters or seconds <= 0:
        return None
    reporter.info(f"measuring idle power for {seconds:g} s")
    with PowerSampler(found.whole()) as sampler:
        start = time.perf_counter()
        time.sleep(seconds)
        end = time.perf_counter()
    total = sampler.total()
    power = None if total is None else total[0].between(start, end)
    return None if power is None else power.watts_mean


def _measure(
    subjects: Sequence[Subject],
    work: Workload,
    options: ProfileOptions,
    found: Found,
    reporter: Reporter,
) -> tuple[list[timing.Timed], Metered, dict[str, Any]]:
    """Run the turns while power and the state of the machine are read."""

    def after_turn(place: int) -> None:
        subjects[place].stages += _stage_times(subjects[place].engine, work.frames)

    load = CpuLoad(options.root)
    others = tuple(meter for meter in found.meters if meter not in found.whole())
    with (
        StateWatch(options.root) as watch,
        PowerSampler(found.whole()) as sampler,
        PowerSampler(others) as beside,
    ):
        timed = timing.take_turns(
            [subject.engine for subject in subjects],
            work.frames,
            options.seconds,
            reporter=reporter,
            after_turn=after_turn,
        )
    state = {
        "during": watch.summary(),
        "states": watch.states,
        "cpu_load_percent": load.percent(),
    }
    lost = sampler.lost | beside.lost
    for name, why in lost.items():
        reporter.warning(f"power meter {name}: {why}")
    rails = sampler.rails() | beside.rails()
    meters = [*sampler.describe(), *beside.describe()]
    return timed, Metered(sampler.total(), rails, meters, lost), state


def _stage_times(engine: Engine, frames: Sequence[Image]) -> list[tuple[float, float, float]]:
    """Return seconds of (preprocess, network, postprocess) of a few calls."""
    size = engine.spec.input_size
    times: list[tuple[float, float, float]] = []
    for number in range(STAGE_CALLS):
        frame = frames[number % len(frames)]
        start = time.perf_counter()
        fitted = np.ascontiguousarray(resize_frame(frame, size))
        sized = time.perf_counter()
        labels = engine(fitted)
        labelled = time.perf_counter()
        resize_labels(labels, frame.shape[:2])
        times.append((sized - start, labelled - sized, time.perf_counter() - labelled))
    return times


# -- figures ---------------------------------------------------------------------------------------


def latency_figures(milliseconds: Any) -> LatencyFigures:
    """Return the statistics of the times of calls.

    Parameters
    ----------
    milliseconds : the times, at least one.

    Examples
    --------
    >>> latency_figures([1.0, 2.0, 3.0]).ms_p50
    2.0
    """
    times = np.asarray(milliseconds, np.float64)
    p50, p90, p95, p99 = (float(v) for v in np.percentile(times, (50, 90, 95, 99)))
    low = float(times.min())
    edges = np.linspace(low, max(p99, low * 1.001 + 1e-6), _BINS + 1)
    counts = [int(count) for count in np.histogram(times, edges)[0]]
    return LatencyFigures(
        ms_p50=p50,
        ms_p90=p90,
        ms_p95=p95,
        ms_p99=p99,
        ms_min=low,
        ms_max=float(times.max()),
        ms_mean=float(times.mean()),
        calls=len(times),
        histogram_edges_ms=[float(edge) for edge in edges],
        histogram_counts=[*counts, int((times > edges[-1]).sum())],
    )


def _record(
    subject: Subject, calls: timing.Timed, metered: Metered, idle_w: float | None
) -> EngineRecord:
    """Return the figures of one engine."""
    stages = np.median(np.asarray(subject.stages, np.float64), axis=0) * 1e3
    record = EngineRecord(
        engine=subject.facts,
        start=subject.start,
        latency=latency_figures(calls.milliseconds),
        stages=Stages(
            preprocess_ms=float(stages[0]),
            network_ms=float(stages[1]),
            postprocess_ms=float(stages[2]),
        ),
        miou=subject.miou,
        missing=subject.missing,
    )
    record.power = engine_power(calls, metered, idle_w, subject.miou)
    if record.power is None:
        record.missing["power"] = "no power meter on this machine gave enough samples"
    return record


def _add_throughput(
    record: EngineRecord, subject: Subject, work: Workload, options: ProfileOptions
) -> None:
    """Measure frames per second with several frames in flight."""
    if options.throughput_s <= 0:
        record.missing["throughput"] = "not asked for"
        return
    rows = throughput(subject.engine, subject.file, work.frames, options.throughput_s)
    record.throughput = [ThroughputRow(**row) for row in rows]
    if not rows:
        record.missing["throughput"] = "the engine's file is not known, and it has no stream"


def _wants_layers(subjects: Sequence[Subject], options: ProfileOptions) -> bool:
    """Return True if layers are wanted, and an engine can time them."""
    return options.layers and any(subject.engine.passport.target == CPU for subject in subjects)


def _add_layers(
    record: EngineRecord,
    subject: Subject,
    work: Workload,
    limits: Limits | None,
    options: ProfileOptions,
) -> None:
    """Time the layers, and judge them by the limits of the machine."""
    if not options.layers:
        return
    if subject.engine.passport.target != CPU:
        record.missing["layers"] = (
            f"layers of target {subject.engine.passport.target} are not timed"
        )
    elif subject.file is None:
        record.missing["layers"] = "the engine's file is not known"
    else:
        table = profile_layers(subject.file, work.frames)
        record.layers = table if limits is None else judge(table, limits)


def _power_facts(found: Found, metered: Metered, idle_w: float | None) -> PowerFacts:
    """Return what was known about power."""
    return PowerFacts(
        meters=metered.meters,
        whole=[] if metered.total is None else list(metered.total[1]),
        idle_w=idle_w,
        missing=found.missing | metered.lost,
    )


def _gpu_state(found: Found) -> dict[str, Any]:
    """Return clocks, temperature, memory and throttling of NVIDIA GPUs."""
    for meter in found.meters:
        ask: Callable[[], dict[str, Any]] | None = getattr(meter, "state", None)
        if ask is not None:
            return ask()
    return {}
