"""Gather what is known about a run at the moment of a frame: rate, age, temperature, power."""

import time
from typing import Any

from edgeseg.video.labelling import Extras, Labelled, Segmenter
from edgeseg.video.status import Status

_SENSORS_EVERY_S = 1.0


class Gauges:
    """Make the status of each frame; read the sensors at most once a second.

    Parameters
    ----------
    engine : the engine of the run; its passport gives the name on the picture.
    extras : has the function that reads the sensors.
    """

    def __init__(self, engine: Segmenter, extras: Extras) -> None:
        self._engine = engine
        self._read_sensors = extras.sensors
        self._sensors: tuple[float | None, float | None] = (None, None)
        self._sensors_at_s = float("-inf")

    def status(self, labelled: Labelled, dropped: int) -> Status:
        """Return the status at this moment.

        Parameters
        ----------
        labelled : the frame and its labels.
        dropped : frames that the source skipped so far.
        """
        now_s = time.perf_counter()
        if self._read_sensors is not None and now_s - self._sensors_at_s >= _SENSORS_EVERY_S:
            self._sensors = self._read_sensors()
            self._sensors_at_s = now_s
        temperature_c, watts = self._sensors

        captured_s = labelled.frame.captured_s
        return Status(
            fps=labelled.fps,
            age_ms=None if captured_s is None else (now_s - captured_s) * 1e3,
            network_ms=labelled.network_ms,
            dropped=dropped,
            lost_s=labelled.frame.lost_s,
            engine=_describe(self._engine),
            temperature_c=temperature_c,
            watts=watts,
            flicker=labelled.flicker,
        )


def _describe(engine: Any) -> str:
    """Return the name, precision and target of an engine; empty if it has no passport."""
    passport = getattr(engine, "passport", None)
    if passport is None:
        return ""
    name = passport.name.removesuffix(f".{passport.precision}")
    return f"{name} {passport.precision} {passport.target}"
