"""Profile engines in several power modes of a Jetson."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edgeseg.backends.engine import Engine
from edgeseg.errors import InputError
from edgeseg.profiling.engine_record import EngineRecord
from edgeseg.profiling.power_modes import PowerMode, kept_mode, pareto, set_mode
from edgeseg.profiling.profile import ProfileOptions, profile
from edgeseg.profiling.results import ModeRecord, Result
from edgeseg.profiling.workload import Workload
from edgeseg.reporter import SILENT, Reporter

SETTLE_S = 2.0  # after a change of the mode, before anything is measured


def sweep(
    engines: Sequence[Engine | str | Path],
    work: Workload,
    options: ProfileOptions,
    modes: Sequence[PowerMode],
    *,
    reporter: Reporter = SILENT,
    sleep: Callable[[float], None] = time.sleep,
) -> Result:
    """Measure engines in each power mode; the mode before is put back, also if this is killed.

    Parameters
    ----------
    engines : the engines, as ``profile`` takes them.
    work : the frames.
    options : what to measure in each mode.
    modes : the power modes, as ``resolve_modes`` returns them.
    reporter : receives messages and progress.
    sleep : waits; tests pass a fake one.

    Returns
    -------
    The result of the last mode, with ``power_modes`` of all.

    Raises
    ------
    InputError : no mode.
    EdgesegError : a mode cannot be set, or needs a reboot.
    """
    if not modes:
        raise InputError("no power mode to measure in", expected="at least one")

    records: list[ModeRecord] = []
    with kept_mode() as before:
        for mode in modes:
            reporter.info(f"power mode {mode.name} (before: {before.name})")
            set_mode(mode)
            sleep(SETTLE_S)
            result = profile(engines, work, options, reporter=reporter)
            records.append(ModeRecord(mode=mode.name, engines=result.engines, power=result.power))
    return result.model_copy(update={"power_modes": records})


def best_frames_per_s(record: EngineRecord) -> float:
    """Return the most frames per second of an engine, with any number of frames in flight.

    Parameters
    ----------
    record : the engine's figures.
    """
    one_by_one = 1e3 / record.latency.ms_mean
    return max([one_by_one, *(row.frames_per_s for row in record.throughput)])


def pareto_rows(result: Result) -> list[tuple[str, EngineRecord, bool]]:
    """Return (mode, engine, best) for every mode and engine of a result.

    ``best`` is True if no other row has as many frames per second, as few watts and as much mIoU,
    and more of one. A figure that was not measured in every row is left out.

    Parameters
    ----------
    result : the result; without power modes, its engines are the rows.
    """
    rows = [(mode.mode, record) for mode in result.power_modes for record in mode.engines]
    if not rows:
        rows = [("", record) for record in result.engines]
    has_power = all(record.power is not None for _, record in rows)
    has_score = all(record.miou is not None for _, record in rows)

    points: list[tuple[float, ...]] = []
    for _, record in rows:
        point = [best_frames_per_s(record)]
        if has_power and record.power is not None:
            point.append(-record.power.gross_w)
        if has_score and record.miou is not None:
            point.append(record.miou)
        points.append(tuple(point))
    best = pareto(points)
    return [(mode, record, good) for (mode, record), good in zip(rows, best, strict=True)]
