"""Sample power meters in a thread with its own clock."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from edgeseg.profiling.power.meter import MeterLostError, PowerMeter
from edgeseg.profiling.power.trace import Trace

INTERVAL_S = 0.05  # the INA3221 of a Jetson converts three channels in about 10 ms


class PowerSampler:
    """Read meters again and again until the end of the ``with`` block.

    Times are of ``time.perf_counter``, as those of frames are. Samples are taken at multiples of
    the interval after the start, so that a slow reading does not shift the later ones.

    Parameters
    ----------
    meters : the meters to read.
    interval_s : seconds between two readings.
    clock : returns the time in seconds.

    Attributes
    ----------
    lost : why a meter gave no more values, by the meter's name.

    Examples
    --------
    >>> with PowerSampler([]) as sampler:
    ...     pass
    >>> sampler.total() is None
    True
    """

    def __init__(
        self,
        meters: Sequence[PowerMeter],
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.lost: dict[str, str] = {}
        self._meters = tuple(meters)
        self._interval_s = interval_s
        self._clock = clock
        self._samples: dict[int, list[tuple[float, dict[str, float]]]] = {
            place: [] for place in range(len(self._meters))
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgeseg-power", daemon=True)

    def __enter__(self) -> "PowerSampler":
        if self._meters:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._meters:
            self._thread.join()

    def _run(self) -> None:
        """Read every meter at each tick, until it is lost or the block ends."""
        alive = dict(enumerate(self._meters))
        start = self._clock()
        tick = 0
        while alive and not self._stop.is_set():
            for place, meter in list(alive.items()):
                before = self._clock()
                try:
                    watts = meter.read()
                except MeterLostError as error:
                    self.lost[meter.name] = str(error)
                    del alive[place]
                    continue
                # A counter was read at the end of the call, a sensor in the middle of it.
                after = self._clock()
                moment = after if meter.averages else (before + after) / 2
                self._samples[place].append((moment, watts))

            tick += 1
            late = self._clock() - start - tick * self._interval_s
            if late > 0:
                tick += int(late / self._interval_s)
            self._stop.wait(max(0.0, start + tick * self._interval_s - self._clock()))

    def rails(self) -> dict[str, Trace]:
        """Return the samples of every rail so far, by ``meter:rail``."""
        found: dict[str, Trace] = {}
        for place, meter in enumerate(self._meters):
            for rail in meter.rails:
                points = [(t, watts[rail]) for t, watts in self._taken(place) if rail in watts]
                if len(points) > 1:
                    found[f"{meter.name}:{rail}"] = _trace(points, meter.averages)
        return found

    def total(self) -> tuple[Trace, tuple[str, ...]] | None:
        """Return the summed samples of all meters, and the rails that were added.

        The sum is taken at the times of the first meter.

        Returns
        -------
        ``None`` if a meter has fewer than two samples of all that it sees.
        """
        whole: Trace | None = None
        names: list[str] = []
        for place, meter in enumerate(self._meters):
            points: list[tuple[float, float]] = []
            rails: tuple[str, ...] = ()
            for moment, watts in self._taken(place):
                found = meter.total_of(watts)
                if found is not None:
                    points.append((moment, found[0]))
                    rails = found[1]
            if len(points) < 2:
                return None
            names += [f"{meter.name}:{rail}" for rail in rails]
            trace = _trace(points, meter.averages)
            whole = trace if whole is None else _add(whole, trace)
        return None if whole is None else (whole, tuple(names))

    def describe(self) -> list[dict[str, Any]]:
        """Return what was read, as plain values for JSON."""
        return [
            {
                "meter": meter.name,
                "source": meter.source,
                "covers": meter.covers,
                "rails": list(meter.rails),
                "accuracy": meter.accuracy,
                "interval_s": self._interval_s,
            }
            for meter in self._meters
        ]

    def _taken(self, place: int) -> list[tuple[float, dict[str, float]]]:
        """Return the samples of one meter so far; the thread may append more meanwhile."""
        return list(self._samples[place])


def _trace(points: Sequence[tuple[float, float]], averages: bool) -> Trace:
    """Return the trace of points (seconds, watts)."""
    return Trace([t for t, _ in points], [watts for _, watts in points], averages)


def _add(one: Trace, other: Trace) -> Trace:
    """Return the sum of two traces at the times of the first one; no energy is lost."""
    energies = other.per_frame_j(one.times_s[:-1], one.times_s[1:])
    gaps = one.times_s[1:] - one.times_s[:-1]
    means = energies / gaps
    watts = one.watts.copy()
    if not one.averages:
        # Both as means between samples: the sum is a counter's trace.
        watts[1:] = (one.watts[1:] + one.watts[:-1]) / 2
    watts[1:] += means
    watts[0] = watts[1]
    return Trace(one.times_s, watts, averages=True)
