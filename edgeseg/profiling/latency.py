"""Latency of several engines, side by side: from a decoded uint8 BGR frame to a uint8 label map."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeseg.errors import InputError

Image = npt.NDArray[np.uint8]
Candidate = Callable[[Image], object]
Clock = Callable[[], float]

ROUNDS, CALLS, SECONDS, WARMUP = 5, 20, 1.0, 2


@dataclass(frozen=True)
class Latency:
    """Of one engine over all rounds, milliseconds; percentiles are interpolated linearly. ``calls`` were timed."""

    ms_p50: float
    ms_p95: float
    ms_p99: float
    ms_mean: float
    calls: int

    @classmethod
    def of(cls, times_s: Sequence[float]) -> "Latency":
        """From the seconds of every call, at least one."""
        times_ms = np.asarray(times_s, np.float64) * 1e3
        p50, p95, p99 = (float(p) for p in np.percentile(times_ms, (50, 95, 99), method="linear"))
        return cls(p50, p95, p99, float(times_ms.mean()), len(times_s))

    def to_dict(self) -> dict[str, float | int]:
        """Plain numbers for JSON."""
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
    on_turn: Callable[[], None] | None = None,
) -> list[Latency]:
    """Time every candidate on the same frames, in turns; one ``Latency`` each, in their order.

    A round gives every candidate one turn, so that a machine whose speed drifts slows them alike; each round starts
    with the next candidate, so that none always runs after the same other. A turn is ``warmup`` calls that are not
    counted, then ``calls`` that are, over the frames again and again from the first; it ends early once ``seconds``
    have passed, after at least one call.

    Parameters
    ----------
    candidates : engines, or any functions of a frame.
    frames : (H, W, 3) uint8 BGR, decoded: real frames, since a constant one flatters caches.
    rounds, calls, seconds, warmup : as above.
    clock : seconds; passed in so that tests use a fake one.
    on_turn : called after every turn (``rounds * len(candidates)`` times).

    Raises
    ------
    InputError : no frame, or a count that is not positive.
    """
    if not frames:
        raise InputError("no frame to measure latency on")
    if rounds < 1 or calls < 1 or warmup < 0:
        got = f"{rounds} rounds, {calls} calls, {warmup} warm-up calls"
        raise InputError("latency cannot be measured", got=got, expected="at least one round of one call")
    times: list[list[float]] = [[] for _ in candidates]
    for number in range(rounds):
        for k in range(len(candidates)):
            turn = (number + k) % len(candidates)
            times[turn] += _turn(candidates[turn], frames, calls, seconds, warmup, clock)
            if on_turn:
                on_turn()
    return [Latency.of(t) for t in times]


def _turn(
    call: Candidate, frames: Sequence[Image], calls: int, seconds: float, warmup: int, clock: Clock
) -> list[float]:
    """The seconds of each call of one turn."""
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
