"""Integrate sampled power: energy between two moments, per frame, and its sampling error."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Power:
    """Hold the power of a span of time.

    Attributes
    ----------
    watts_mean : energy divided by time.
    energy_j : the energy.
    seconds : length of the span.
    samples : number of samples within it.
    sampling_error_percent : how much the energy changes if every second sample is left out; None
        if there are too few samples to tell.
    """

    watts_mean: float
    energy_j: float
    seconds: float
    samples: int
    sampling_error_percent: float | None


class Trace:
    """Hold the samples of one rail, or of a sum of rails.

    Between two samples, the power is taken to change linearly (the trapezoid rule). If
    ``averages`` is True, it is constant: each sample is the mean since the one before. Before the
    first sample and after the last one, it is constant.

    Parameters
    ----------
    times_s : times of the samples, rising.
    watts : the samples.
    averages : True if each sample is the mean since the one before.

    Examples
    --------
    >>> trace = Trace([0.0, 1.0, 2.0], [10.0, 20.0, 10.0])
    >>> trace.energy_j(0.0, 2.0)
    30.0
    >>> trace.energy_j(0.0, 0.5)
    6.25
    """

    def __init__(
        self,
        times_s: npt.ArrayLike,
        watts: npt.ArrayLike,
        averages: bool = False,
    ) -> None:
        self.times_s: Array = np.asarray(times_s, np.float64)
        self.watts: Array = np.asarray(watts, np.float64)
        self.averages = averages

        gaps = np.diff(self.times_s)
        means = self.watts[1:] if averages else (self.watts[1:] + self.watts[:-1]) / 2
        self._until = np.concatenate([[0.0], np.cumsum(gaps * means)])  # joules at each sample

    def __len__(self) -> int:
        return len(self.times_s)

    def energy_j(self, start_s: float, end_s: float) -> float:
        """Return the energy between two moments, in joules.

        Parameters
        ----------
        start_s, end_s : the moments, on the clock of the samples.
        """
        start, end = self._joules_at(np.array([start_s, end_s]))
        return float(end - start)

    def per_frame_j(self, starts_s: npt.ArrayLike, ends_s: npt.ArrayLike) -> Array:
        """Return the energy of each frame, in joules: frames and samples are joined by time.

        Parameters
        ----------
        starts_s, ends_s : start and end of each frame, on the clock of the samples.
        """
        ends = self._joules_at(np.asarray(ends_s, np.float64))
        return ends - self._joules_at(np.asarray(starts_s, np.float64))

    def between(self, start_s: float, end_s: float) -> Power | None:
        """Return the power between two moments; ``None`` if no sample was taken between them.

        Parameters
        ----------
        start_s, end_s : the moments, on the clock of the samples.
        """
        inside = (self.times_s >= start_s) & (self.times_s <= end_s)
        count = int(inside.sum())
        if not count or end_s <= start_s:
            return None
        energy = self.energy_j(start_s, end_s)
        seconds = end_s - start_s
        return Power(energy / seconds, energy, seconds, count, self._error(start_s, end_s, count))

    def _error(self, start_s: float, end_s: float, count: int) -> float | None:
        """Return the change in percent if every second sample is left out."""
        if count < 4:
            return None
        energy = self.energy_j(start_s, end_s)
        if self.averages:
            # A counter misses nothing between two readings; only the two ends are uncertain.
            edge = float(np.diff(self.times_s).max()) * float(np.ptp(self.watts))
            return 100 * edge / abs(energy) if energy else None
        half = Trace(self.times_s[::2], self.watts[::2])
        return 100 * abs(half.energy_j(start_s, end_s) - energy) / abs(energy) if energy else None

    def _joules_at(self, moments_s: Array) -> Array:
        """Return the energy from the first sample until each moment; below zero before it."""
        last = len(self.times_s) - 1
        index = np.clip(np.searchsorted(self.times_s, moments_s, side="right") - 1, 0, last)
        since = moments_s - self.times_s[index]
        base = self._until[index]

        following = np.minimum(index + 1, last)
        gap = self.times_s[following] - self.times_s[index]
        is_outside = (gap <= 0) | (since < 0)
        if self.averages:
            power = np.where(
                is_outside & (since < 0), self.watts[min(1, last)], self.watts[following]
            )
            joules: Array = base + power * since
            return joules
        slope = np.where(
            is_outside, 0.0, (self.watts[following] - self.watts[index]) / np.where(gap > 0, gap, 1)
        )
        joules = base + self.watts[index] * since + slope * since**2 / 2
        return joules
