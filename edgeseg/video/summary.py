"""Summarise a run of the pipeline: frame counts, rate, and latency percentiles per stage."""

import random
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Percentiles:
    """Hold percentiles of one stage's latency.

    Attributes
    ----------
    p50, p95, p99 : milliseconds; linear interpolation between samples.
    """

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Summary:
    """Summarise a run.

    Attributes
    ----------
    frames_in : frames taken from the source.
    frames_out : frames written to every sink.
    dropped : frames that a live source skipped because the network was busy.
    wall_s : seconds from the request for the first frame to the end of writing the last one.
    fps : ``frames_out / wall_s``.
    latency_ms : latency per stage that ran: ``read``, ``network``, ``draw``, ``write``. The stages
        overlap, so do not add them up.
    stopped : ``end of source``, ``camera lost`` (for longer than the source was to wait),
        ``max_frames``, ``interrupted`` (Ctrl-C), ``terminated`` (SIGTERM) or ``window closed``.
    skipped : frames of a live source that were labelled and not written, because drawing or writing
        was slower than the network.
    reconnects : how often a live source was lost and came back.
    age_ms : milliseconds from the camera's shot to the end of writing; None for recordings.
    """

    frames_in: int
    frames_out: int
    dropped: int
    wall_s: float
    fps: float
    latency_ms: dict[str, Percentiles]
    stopped: str
    skipped: int = 0
    reconnects: int = 0
    age_ms: Percentiles | None = None

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return asdict(self)


class Samples:
    """Collect the durations of one stage in bounded memory.

    Keeps every duration up to ``capacity``, then a fair random sample of all (a reservoir).

    Parameters
    ----------
    capacity : number of durations to keep.

    Examples
    --------
    >>> samples = Samples()
    >>> for seconds in (0.01, 0.02, 0.03):
    ...     samples.add(seconds)
    >>> round(samples.percentiles_ms().p50, 3)
    20.0
    """

    def __init__(self, capacity: int = 100_000) -> None:
        self._values = np.empty(capacity, np.float64)
        self._seen = 0
        self._random = random.Random(0)

    def add(self, seconds: float) -> None:
        """Add one duration.

        Parameters
        ----------
        seconds : the duration.
        """
        full = self._seen >= len(self._values)
        slot = self._random.randrange(self._seen + 1) if full else self._seen
        if slot < len(self._values):
            self._values[slot] = seconds
        self._seen += 1

    def __len__(self) -> int:
        return self._seen

    def percentiles_ms(self) -> Percentiles:
        """Return the percentiles of the durations, milliseconds."""
        kept = min(self._seen, len(self._values))
        values_ms = self._values[:kept] * 1e3
        p50, p95, p99 = np.percentile(values_ms, (50, 95, 99), method="linear")
        return Percentiles(float(p50), float(p95), float(p99))
