"""Compare the first minute of a long run with the last: heat, throttling, drift."""

import itertools
import re
from typing import Any

import numpy as np

from edgeseg.errors import InputError
from edgeseg.profiling.engine_record import Minute, Soak
from edgeseg.profiling.power_figures import Metered
from edgeseg.profiling.timing import Timed

MINUTE_S = 60.0
_LEAST_PARTS = 6  # of a run that is shorter than so many minutes
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_duration(text: str) -> float:
    """Return the seconds of a text such as ``30m``, ``90s``, ``1.5h`` or ``45``.

    Parameters
    ----------
    text : number and unit; without a unit it is in seconds.

    Raises
    ------
    InputError : it is no duration, or not above zero.

    Examples
    --------
    >>> parse_duration("30m")
    1800.0
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|m|min|h)?\s*", text)
    seconds = float(found[1]) * _UNITS[found[2] or ""] if found else 0.0
    if not seconds:
        raise InputError("no duration", got=repr(text), expected="such as 30m, 90s or 2h")
    return seconds


def soak_of(calls: Timed, metered: Metered, states: list[dict[str, Any]]) -> Soak:
    """Return the parts of a long run, and how much it changed.

    A part is a minute; of a run that is shorter than six minutes it is a sixth.

    Parameters
    ----------
    calls : the calls of one engine.
    metered : the samples of the power meters.
    states : states of the machine with their times, as ``StateWatch`` takes them.
    """
    starts = np.asarray(calls.starts_s)
    begin = float(starts[0])
    length = float(calls.ends_s[-1]) - begin
    parts = max(_LEAST_PARTS, int(length // MINUTE_S))
    edges = begin + np.linspace(0, length, parts + 1)

    minutes: list[Minute] = []
    for low, high in itertools.pairwise(edges):
        inside = (starts >= low) & (starts < high)
        if not inside.any():
            continue
        times = calls.milliseconds[inside]
        seen = [state for state in states if low <= state["at_s"] < high]
        minutes.append(
            Minute(
                start_s=float(low - begin),
                end_s=float(high - begin),
                ms_p50=float(np.median(times)),
                ms_p95=float(np.percentile(times, 95)),
                calls=int(inside.sum()),
                temperature_c=_hottest(seen),
                cpu_mhz=_mean_clock(seen),
                watts=_watts(metered, float(low), float(high)),
            )
        )

    medians = np.array([minute.ms_p50 for minute in minutes])
    hours = np.array([(minute.start_s + minute.end_s) / 7200 for minute in minutes])
    slope = float(np.polyfit(hours, medians, 1)[0]) if len(minutes) > 1 else 0.0
    return Soak(
        minutes=minutes,
        change_percent=100 * (float(medians[-1] / medians[0]) - 1),
        drift_percent_per_hour=100 * slope / float(medians[0]),
    )


def _hottest(states: list[dict[str, Any]]) -> float | None:
    """Return the highest temperature of some states."""
    values = [value for state in states for value in state["temperatures_c"].values()]
    return max(values, default=None)


def _mean_clock(states: list[dict[str, Any]]) -> float | None:
    """Return the mean clock of all cores over some states."""
    values = [value for state in states for value in state["cpu_mhz"]]
    return float(np.mean(values)) if values else None


def _watts(metered: Metered, start_s: float, end_s: float) -> float | None:
    """Return the mean power of a span; None without samples."""
    if metered.total is None:
        return None
    power = metered.total[0].between(start_s, end_s)
    return None if power is None else power.watts_mean
