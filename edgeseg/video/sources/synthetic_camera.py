"""Play a synthetic drive as a live camera plays the world, with faults on request."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from edgeseg.data.synthetic import SyntheticDrive
from edgeseg.errors import InputError, did_you_mean
from edgeseg.types import Image
from edgeseg.video.frames import VideoInfo
from edgeseg.video.sources.counter import draw_counter
from edgeseg.video.sources.reconnect import (
    Camera,
    CameraEnded,
    Grab,
    LiveOptions,
    NoSignalError,
    SignalLost,
)

# What can happen to a camera, and for how many seconds if the address does not say.
#   stall: it is there and gives nothing. drop: the connection breaks. resize: it comes back with
#   another size. unplug: it is away.
FAULTS = {"stall": 5.0, "drop": 0.0, "resize": float("inf"), "unplug": 5.0}

_FAULT = re.compile(r"([a-z]+)@(\d+(?:\.\d+)?)(?::(\d+(?:\.\d+)?))?")
_EXAMPLE = "KIND@SECONDS or KIND@SECONDS:FOR_SECONDS, such as unplug@5:2"

# The drive is drawn ahead, for this time and into this memory, and then played to and fro.
_DRAW_S = 0.7
_LOOP_BYTES = 48 << 20
_LONGEST_LOOP = 60

# How far a slow reader may fall behind before the camera drops frames, seconds.
_QUEUE_S = 1.0


@dataclass(frozen=True)
class Fault:
    """Say what happens to a synthetic camera.

    Attributes
    ----------
    kind : one of ``FAULTS``.
    start_s, end_s : from when to when, in seconds since the camera was first opened.
    """

    kind: str
    start_s: float
    end_s: float


def parse_faults(text: str) -> tuple[Fault, ...]:
    """Read faults.

    Parameters
    ----------
    text : ``KIND@SECONDS`` or ``KIND@SECONDS:FOR_SECONDS``, or several with commas between them;
        empty for none.

    Raises
    ------
    InputError : the text is not of this form, or has another kind.

    Examples
    --------
    >>> parse_faults("unplug@5:2")
    (Fault(kind='unplug', start_s=5.0, end_s=7.0),)
    """
    faults: list[Fault] = []
    for part in text.split(",") if text else []:
        match = _FAULT.fullmatch(part)
        if match is None:
            raise InputError("synthetic drive: fault", got=repr(part), expected=_EXAMPLE)

        kind, start_s, for_s = match.groups()
        if kind not in FAULTS:
            raise InputError(
                "synthetic drive: fault",
                got=repr(kind),
                expected=f"one of {', '.join(FAULTS)}",
                hint=did_you_mean(kind, FAULTS).strip() or None,
            )
        length_s = FAULTS[kind] if for_s is None else float(for_s)
        faults.append(Fault(kind, float(start_s), float(start_s) + length_s))
    return tuple(faults)


class Device:
    """Stand for a camera that exists whether it is opened or not.

    Parameters
    ----------
    drive : what the camera sees, and its rate.
    frames : number of frames until its end; None if it has no end.
    has_counter : draw the number of ``counter_at`` into each frame.
    faults : what happens to it.
    live : its ``stall_s`` is the longest wait for a frame.

    Raises
    ------
    InputError : the frames are too narrow for a counter.
    """

    def __init__(
        self,
        drive: SyntheticDrive,
        frames: int | None,
        *,
        has_counter: bool,
        faults: Sequence[Fault],
        live: LiveOptions,
    ) -> None:
        self.drive = drive
        self.stall_s = live.stall_s
        self.has_counter = has_counter
        self._loop = _drawn_ahead(drive)
        if has_counter:
            draw_counter(self._loop[0].copy(), 0)

        # Frames are numbered by the clock, so that the number in a picture tells its age.
        self._faults = tuple(faults)
        self._start_s = time.perf_counter()
        self.first = int(self._start_s * drive.fps) + 1
        self.last = None if frames is None else self.first + frames - 1

    def connect(self) -> Camera:
        """Open the camera and wait for a frame.

        Raises
        ------
        NoSignalError : it is away, or gives no frame.
        """
        if not self.is_present():
            raise NoSignalError("synthetic camera: no such device", reason="no such device")
        if self.fault("stall", time.perf_counter()) is not None:
            time.sleep(self.stall_s)
            raise NoSignalError("synthetic camera: gives no frames", reason="gives no frames")
        return _SyntheticCamera(self, self.picture_size())

    def is_present(self) -> bool:
        """Return whether the camera is plugged in."""
        return self.fault("unplug", time.perf_counter()) is None

    def fault(self, kind: str, now_s: float, since_s: float | None = None) -> Fault | None:
        """Return a fault of a kind that is in force at a moment, or began since another one."""
        for fault in self._faults:
            begin_s = self._start_s + fault.start_s
            end_s = self._start_s + fault.end_s
            is_new = since_s is not None and since_s < begin_s <= now_s
            if fault.kind == kind and (is_new or begin_s <= now_s < end_s):
                return fault
        return None

    def picture_size(self) -> tuple[int, int]:
        """Return the present (width, height) of the frames."""
        height, width = self.drive.size
        if self.fault("resize", time.perf_counter()) is not None:
            return max(2, width * 3 // 4), max(2, height * 3 // 4)
        return width, height

    def picture(self, number: int, size: tuple[int, int]) -> Image:
        """Return the frame of a number, (H, W, 3) BGR.

        Parameters
        ----------
        number : number of the frame by the clock.
        size : (width, height).
        """
        loop = self._loop
        step = (number - self.first) % max(1, 2 * len(loop) - 2)
        image = loop[step if step < len(loop) else 2 * len(loop) - 2 - step]

        if size != (image.shape[1], image.shape[0]):
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        else:
            image = image.copy()
        if self.has_counter:
            draw_counter(image, number)
        return image


class _SyntheticCamera:
    """Read the frames of a device as they come due."""

    def __init__(self, device: Device, size: tuple[int, int]) -> None:
        self._device = device
        self._size = size
        self._opened_s = time.perf_counter()
        fps = device.drive.fps
        self._next = max(device.first, int(self._opened_s * fps) + 1)
        self.info = VideoInfo(size[0], size[1], fps, frames=None, live=True)

    def read(self) -> Grab:
        """Wait for the next frame and return it."""
        device = self._device
        fps = device.drive.fps
        if device.last is not None and self._next > device.last:
            raise CameraEnded

        # A reader that is slow finds the frames in a queue, and misses some if it is too slow.
        oldest = int((time.perf_counter() - _QUEUE_S) * fps)
        self._next = max(self._next, oldest)
        captured_s = self._next / fps
        time.sleep(max(0.0, captured_s - time.perf_counter()))

        self._raise_fault(captured_s)
        image = device.picture(self._next, self._size)
        self._next += 1
        return Grab(image, captured_s)

    def _raise_fault(self, now_s: float) -> None:
        """Raise ``SignalLost`` if something happened to the camera since it was opened."""
        device = self._device
        if device.fault("unplug", now_s, self._opened_s):
            raise SignalLost("unplugged")
        if device.fault("drop", now_s, self._opened_s):
            raise SignalLost("the stream ended")
        if device.picture_size() != self._size:
            raise SignalLost("another size")
        if device.fault("stall", now_s):
            time.sleep(device.stall_s)
            raise SignalLost(f"no frame for {device.stall_s:g} s")

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


def _drawn_ahead(drive: SyntheticDrive) -> list[Image]:
    """Return the first frames of a drive, as many as time and memory allow."""
    start_s = time.perf_counter()
    height, width = drive.size
    most = min(_LONGEST_LOOP, len(drive), max(2, _LOOP_BYTES // (height * width * 3)))

    loop: list[Image] = []
    for index in range(most):
        loop.append(drive.frame(index).image)
        if len(loop) > 1 and time.perf_counter() - start_s > _DRAW_S:
            break
    return loop
