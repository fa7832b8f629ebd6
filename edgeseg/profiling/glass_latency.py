"""Measure the time from light to picture: glass to glass.

A code that holds the present time goes into the camera, and is read again from the frame of the
finished picture. The difference is what a person sees as lag: exposure, the camera's own
processing, its cable or network, waiting, the network, drawing.

The code comes from the synthetic camera, which draws its time into the frames, or from a window
that the camera films. The window is drawn anew after each picture, so the code on it may be as old
as one picture: that much of the age may be the window's.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np

from edgeseg.types import Image
from edgeseg.video import Output, Sink
from edgeseg.video.sources.counter import counter_age_s, read_counter
from edgeseg.video.summary import Percentiles, Samples

_WINDOW = "edgeseg latency-test: point the camera at this"
_CELL = 20  # pixels of the screen for a cell of the QR code: readable from an arm's length
_QUIET_CELLS = 4  # white around a QR code, as its standard wants

Show = Callable[[Image], bool]  # a picture -> whether the user closed the window

_MARK = "EDGESEG"
_CYCLE_MS = 10**8  # times are counted up to a day, and begin at 0 again


@dataclass(frozen=True)
class GlassLatency:
    """Hold the ages of pictures.

    Attributes
    ----------
    age_ms : milliseconds from light to picture; None if no code was read.
    frames : pictures that were looked at.
    read : pictures in which the code was read.
    """

    age_ms: Percentiles | None
    frames: int
    read: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        age = self.age_ms
        ages = None if age is None else {"p50": age.p50, "p95": age.p95, "p99": age.p99}
        return {"age_ms": ages, "frames": self.frames, "read": self.read}


class CounterSink(Sink):
    """Read the counter that the synthetic camera draws, and note how old it is.

    Parameters
    ----------
    fps : frames per second of the synthetic camera.

    Examples
    --------
    >>> CounterSink(fps=30.0).result().frames
    0
    """

    needs_picture: ClassVar[bool] = True  # the picture must be finished, as for a person

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._ages = Samples()
        self._frames = 0

    def write(self, output: Output) -> None:
        """Note the age of one picture."""
        if output.frame.lost_s is not None:
            return
        now_s = time.perf_counter()
        self._frames += 1
        number = read_counter(output.frame.image)
        if number is not None:
            self._ages.add(counter_age_s(number, self._fps, now_s))

    def result(self) -> GlassLatency:
        """Return the ages so far."""
        return _result(self._ages, self._frames)


class ScreenSink(Sink):
    """Show a code with the present time in a window, and read it from the camera's frames.

    Parameters
    ----------
    show : shows a picture, and returns whether the user closed the window; tests pass their own.
        Unless given, a window.
    """

    needs_picture: ClassVar[bool] = True

    def __init__(self, show: Show | None = None) -> None:
        self._close: Callable[[], None] = lambda: None
        if show is None:
            show, self._close = _window()
        self._show = show
        self._reader = cv2.QRCodeDetector()
        self._ages = Samples()
        self._frames = 0
        self._show_time()

    def write(self, output: Output) -> None:
        """Note the age of one picture, and show the time of now."""
        if output.frame.lost_s is None:
            now_ms = time_ms()
            self._frames += 1
            shown_ms = read_time(self._reader, output.frame.image)
            if shown_ms is not None:
                self._ages.add((now_ms - shown_ms) % _CYCLE_MS / 1e3)
        self._show_time()

    def _show_time(self) -> None:
        """Draw the window anew."""
        self.closed = self._show(time_code(time_ms())) or self.closed

    def result(self) -> GlassLatency:
        """Return the ages so far."""
        return _result(self._ages, self._frames)

    def finish(self) -> None:
        """Close the window."""
        self._close()

    def abort(self) -> None:
        """Close the window."""
        self.finish()


def time_ms() -> int:
    """Return the present time, milliseconds on a clock that counts up to a day."""
    return round(time.perf_counter() * 1e3) % _CYCLE_MS


def time_code(milliseconds: int) -> Image:
    """Return a QR code that holds a time.

    Parameters
    ----------
    milliseconds : the time, as ``time_ms`` returns it.

    Returns
    -------
    (H, H, 3) uint8 BGR.

    Examples
    --------
    >>> read_time(cv2.QRCodeDetector(), time_code(12345678))
    12345678
    """
    encoder: Any = cv2.QRCodeEncoder
    cells = np.asarray(encoder.create().encode(f"{_MARK}{milliseconds:08d}"), np.uint8)
    padded = np.pad(cells, _QUIET_CELLS, constant_values=255)
    large = np.kron(padded, np.ones((_CELL, _CELL), np.uint8))
    return np.asarray(cv2.cvtColor(large, cv2.COLOR_GRAY2BGR), np.uint8)


def read_time(reader: Any, image: Image) -> int | None:
    """Return the time that a filmed code holds; None if there is no readable code.

    Parameters
    ----------
    reader : a ``cv2.QRCodeDetector``.
    image : (H, W, 3) uint8 BGR.
    """
    try:
        text = reader.detectAndDecode(image)[0]
    except cv2.error:  # a shape that looks like a code and is none
        return None
    digits = text.removeprefix(_MARK)
    return int(digits) if text.startswith(_MARK) and digits.isdecimal() else None


def _window() -> tuple[Show, Callable[[], None]]:
    """Open a window; return what shows a picture in it, and what closes it.

    Raises ``OutputError`` if there is no display.
    """
    from edgeseg.video import WindowSink
    from edgeseg.video.frames import Frame

    window = WindowSink(_WINDOW)

    def show(picture: Image) -> bool:
        frame = Frame(0, picture, "code", timestamp_s=0.0)
        window.write(Output(frame, picture[:, :, 0], picture))
        return window.closed

    return show, window.finish


def _result(ages: Samples, frames: int) -> GlassLatency:
    """Return the percentiles of the ages."""
    age_ms = ages.percentiles_ms() if len(ages) else None
    return GlassLatency(age_ms, frames, len(ages))
