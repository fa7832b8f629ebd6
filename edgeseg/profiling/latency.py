"""Measure the latency of several engines side by side, from a decoded frame to a label map."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgeseg.errors import InputError
from edgeseg.reporter import SILENT, Reporter, track
from edgeseg.types import Image

Candidate = Callable[[Image], object]
Clock = Callable[[], float]

# Defaults of `measure_latency`.
ROUNDS = 5
CALLS = 20
SECONDS = 1.0
WARMUP = 2


@dataclass(frozen=True)
class Latency:
    """Hold the latency of one engine over all rounds.

    Attributes
    ----------
    ms_p50, ms_p95, ms_p99 : percentiles in milliseconds, interpolated linearly.
    ms_mean : mean in milliseconds.
    calls : number of calls that were timed.
    times_ms : milliseconds of every call.

    Examples
    --------
    >>> latency = Latency.of([0.010, 0.012, 0.014])
    >>> round(latency.ms_p50, 3), latency.calls
    (12.0, 3)
    """

    ms_p50: float
    ms_p95: float
    ms_p99: float
    ms_mean: float
    calls: int
    times_ms: tuple[float, ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def of(cls, times_s: Sequence[float]) -> "Latency":
        """Return the latency statistics of timed calls.

        Parameters
        ----------
        times_s : seconds of every call, at least one.
        """
        times_ms = np.asarray(times_s, np.float64) * 1e3
        p50, p95, p99 = np.percentile(times_ms, (50, 95, 99), method="linear")
        return cls(
            ms_p50=float(p50),
            ms_p95=float(p95),
            ms_p99=float(p99),
            ms_mean=float(times_ms.mean()),
            calls=len(times_s),
            times_ms=tuple(times_ms.tolist()),
        )

    def to_dict(self) -> dict[str, float | int]:
        """Return plain numbers for JSON."""
        return {
            "latency_ms_p50": round(self.ms_p50, 4),
            "latency_ms_p95": round(self.ms_p95, 4),
            "latency_ms_p99": round(self.ms_p99, 4),
            "latency_ms_mean": round(self.ms_mean, 4),
            "calls": self.calls,
        }


def measure_latency(
    candidates: Sequence[Candidate],
    frames: Sequence[Image],
    *,
    rounds: int = ROUNDS,
    calls: int = CALLS,
    seconds: float = SECONDS,
    warmup: int = WARMUP,
    clock: Clock = time.perf_counter,
    reporter: Reporter = SILENT,
) -> list[Latency]:
    """Time every candidate on the same frames, in turns.

    Each round gives every candidate one turn, so that a machine whose speed drifts slows all alike.
    Each round starts with the next candidate, so that none always runs after the same other one. A
    turn runs ``warmup`` calls that are not counted, then ``calls`` that are. It starts at the first
    frame and repeats the frames.

    Parameters
    ----------
    candidates : engines, or any functions of a frame.
    frames : (H, W, 3) uint8 BGR, decoded. Use real frames: a constant one makes caches look faster.
    rounds : number of turns per candidate.
    calls : timed calls per turn.
    seconds : a turn ends early after this time, but not before one timed call.
    warmup : calls per turn that are not timed.
    clock : returns the time in seconds; tests pass a fake one.
    reporter : receives the progress over the ``rounds * len(candidates)`` turns.

    Returns
    -------
    One ``Latency`` per candidate, in their order.

    Raises
    ------
    InputError : no frame, no round, no timed call, or a negative ``warmup``.

    Examples
    --------
    >>> frame = np.zeros((4, 4, 3), np.uint8)
    >>> [latency] = measure_latency([np.sum], [frame], rounds=2, calls=3)
    >>> latency.calls
    6
    """
    if not frames:
        raise InputError("no frame to measure latency on")
    if rounds < 1 or calls < 1 or warmup < 0:
        got = f"{rounds} rounds, {calls} calls, {warmup} warm-up calls"
        raise InputError(
            "latency cannot be measured", got=got, expected="at least one round of one call"
        )

    times: list[list[float]] = [[] for _ in candidates]
    count = len(candidates)
    for number in track(range(rounds * count), "time", reporter):
        round_number, place = divmod(number, count)
        turn = (round_number + place) % count
        times[turn] += _turn(candidates[turn], frames, calls, seconds, warmup, clock)
    return [Latency.of(times_s) for times_s in times]


def _turn(
    call: Candidate, frames: Sequence[Image], calls: int, seconds: float, warmup: int, clock: Clock
) -> list[float]:
    """Run one turn, and return the seconds of each timed call."""
    for i in range(warmup):
        call(frames[i % len(frames)])

    times: list[float] = []
    for i in range(calls):
        frame = frames[i % len(frames)]
        start = clock()
        call(frame)
        times.append(clock() - start)

        if sum(times) >= seconds:
            break
    return times
