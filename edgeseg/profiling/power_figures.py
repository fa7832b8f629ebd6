"""Join the samples of power meters with the calls of an engine."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeseg.profiling.engine_record import EnginePower
from edgeseg.profiling.power import Power, Trace
from edgeseg.profiling.timing import Timed


@dataclass(frozen=True)
class Metered:
    """Hold what the power meters gave during a measurement.

    Attributes
    ----------
    total : samples of the whole, and the rails that were added; None without a meter.
    rails : samples per rail.
    meters : what was read, as plain values.
    lost : why a meter gave no more values, by its name.
    """

    total: tuple[Trace, tuple[str, ...]] | None
    rails: dict[str, Trace]
    meters: list[dict[str, Any]]
    lost: dict[str, str]


def engine_power(
    calls: Timed, metered: Metered, idle_w: float | None, miou: float | None = None
) -> EnginePower | None:
    """Return the power and energy of an engine over its turns.

    The time between turns belongs to other engines and is left out. Time between two calls of one
    turn is counted: it belongs to the frames.

    Parameters
    ----------
    calls : the calls of the engine.
    metered : the samples.
    idle_w : power before the work; None if it is not known.
    miou : mIoU (0..1) of the engine; None without labelled data.

    Returns
    -------
    ``None`` without a meter, or if no sample was taken during a turn.
    """
    if metered.total is None:
        return None
    trace = metered.total[0]
    powers = [power for turn in calls.turns if (power := trace.between(*turn)) is not None]
    if not powers:
        return None

    energy, seconds, frames = _sum(powers, calls)
    gross_w = energy / seconds
    net_w = None if idle_w is None else gross_w - idle_w
    joules = energy / frames
    single = trace.per_frame_j(calls.starts_s, calls.ends_s) * 1e3
    errors = [p.sampling_error_percent for p in powers if p.sampling_error_percent is not None]
    return EnginePower(
        gross_w=gross_w,
        net_w=net_w,
        gross_mj_per_frame=1e3 * joules,
        net_mj_per_frame=None if net_w is None else 1e3 * net_w * seconds / frames,
        frame_mj_p50=float(np.percentile(single, 50)),
        frame_mj_p95=float(np.percentile(single, 95)),
        sampling_error_percent=float(np.mean(errors)) if errors else None,
        samples=sum(power.samples for power in powers),
        miou_per_joule=None if miou is None or joules <= 0 else miou / joules,
        rails_w={name: _mean_w(rail, calls) for name, rail in metered.rails.items()},
    )


def _sum(powers: list[Power], calls: Timed) -> tuple[float, float, int]:
    """Return joules and seconds of the turns with samples, and the frames of that much time."""
    energy = sum(power.energy_j for power in powers)
    seconds = sum(power.seconds for power in powers)
    whole = sum(end - start for start, end in calls.turns)
    frames = len(calls.starts_s) * seconds / whole
    return energy, seconds, max(1, round(frames))


def _mean_w(rail: Trace, calls: Timed) -> float:
    """Return the mean power of one rail over all turns."""
    energy = sum(rail.energy_j(start, end) for start, end in calls.turns)
    return energy / sum(end - start for start, end in calls.turns)
