"""Hold what is known about a run at the moment of one frame."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Status:
    """Hold what is known about a run at the moment of one frame.

    Attributes
    ----------
    fps : frames per second that the network labels, over the last second or so; None at the start.
    age_ms : milliseconds since the camera took the frame; None for recordings.
    network_ms : milliseconds that the network took for this frame.
    dropped : frames that a live source skipped so far.
    lost_s : seconds since the last frame of a live source that gives none any more, else None.
    engine : name of the engine's model, its precision and its device, such as
        ``enet-camvid int8 cpu``; empty if unknown.
    temperature_c : temperature of the hottest processor, degrees Celsius; None if unknown.
    watts : power of the whole device; None if it has no meter.
    flicker : share of the pixels whose label changed though their colour did not, 0 to 1; None if
        it is not measured.

    Examples
    --------
    >>> Status(fps=31.2, age_ms=48.0).age_ms
    48.0
    """

    fps: float | None = None
    age_ms: float | None = None
    network_ms: float | None = None
    dropped: int = 0
    lost_s: float | None = None
    engine: str = ""
    temperature_c: float | None = None
    watts: float | None = None
    flicker: float | None = None
