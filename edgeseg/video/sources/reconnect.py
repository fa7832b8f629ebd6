"""Keep a live source alive: read a camera, and open it again whenever it is lost.

The reader thread opens, reads and opens again, in sequence. All of these calls end within seconds,
because each camera bounds them. The consumer waits a limited time for each frame: if none comes, it
gets the last one again, marked as lost. So pictures, windows and keys go on without a camera.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from edgeseg.errors import InputError
from edgeseg.imaging.nv12 import Nv12
from edgeseg.types import Image
from edgeseg.video.frames import Finished, Frame, Source, VideoInfo

# Back-off: the wait before the first new try, and the longest wait, seconds.
_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 10.0

# Cameras that fail together must not come back together: waits differ by this share.
_JITTER = 0.2

# How often a lost camera repeats its last frame, and how often a device is looked for, seconds.
_REPEAT_S = 0.5
_LOOK_S = 0.25

# A camera of one frame in two seconds has not stalled after two seconds.
_FRAMES_PER_STALL = 3.0


def _ignore(text: str) -> None:
    """Discard a line."""


@dataclass(frozen=True)
class LiveOptions:
    """Say what a live source does if its camera gives no frames.

    Attributes
    ----------
    stall_s : seconds without a frame after which the camera is opened again.
    give_up_s : seconds without a frame after which the source ends, with ``Source.lost`` set; None
        tries for ever.
    wait : wait for a camera that is not there at the start, for ``give_up_s`` at most. Without it
        the first failure is an error at once.
    on_wait : receives the line ``no signal (...); trying again`` if ``wait`` begins to wait.

    Raises
    ------
    InputError : a time is not positive.

    Examples
    --------
    >>> LiveOptions(give_up_s=60).stall_s
    2.0
    """

    stall_s: float = 2.0
    give_up_s: float | None = None
    wait: bool = False
    on_wait: Callable[[str], None] = _ignore

    def __post_init__(self) -> None:
        """Raise ``InputError`` for a time that is not positive."""
        for name, value in (("stall_s", self.stall_s), ("give_up_s", self.give_up_s)):
            if value is not None and not value > 0:
                raise InputError(f"`{name}`", got=value, expected="a time in seconds, above 0")


@dataclass(frozen=True, eq=False)
class Grab:
    """Hold what a camera gave.

    Attributes
    ----------
    pixels : (H, W, 3) uint8 BGR, or ``Nv12``.
    captured_s : when the camera took the frame, on the clock of ``time.perf_counter``.
    """

    pixels: Image | Nv12
    captured_s: float


class SignalLost(Exception):  # noqa: N818 - a camera that was lost is opened again
    """Tell that a camera gives no frames any more; the text is the reason."""


class CameraEnded(Exception):  # noqa: N818 - no error
    """Tell that a stream has come to its proper end."""


class NoSignalError(InputError):
    """Report a camera or a stream that cannot be opened.

    Parameters
    ----------
    what, got, expected, hint : as for ``InputError``.
    reason : why it cannot be opened, in a few words, such as ``connection refused``.
    """

    def __init__(
        self,
        what: str,
        *,
        reason: str,
        got: object = None,
        expected: object = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(what, got=got, expected=expected, hint=hint)
        self.reason = reason


class Camera(Protocol):
    """Describe an opened camera or stream, of which a first frame was read."""

    @property
    def info(self) -> VideoInfo:
        """Return its facts."""
        ...

    def read(self) -> Grab:
        """Return the next frame, within seconds.

        Raises
        ------
        SignalLost : there is none.
        CameraEnded : there will be none.
        """
        ...

    def close(self) -> None:
        """Free the device or the connection."""
        ...


# Opens the camera, or raises ``InputError``. It returns within seconds.
Connect = Callable[[], Camera]


def connect_first(connect: Connect, options: LiveOptions) -> Camera:
    """Open a camera for the first time.

    Parameters
    ----------
    connect : opens it.
    options : with ``wait``, this tries until the camera is there.

    Raises
    ------
    InputError : it cannot be opened; with ``wait`` only after ``give_up_s``.
    """
    start_s = time.perf_counter()
    is_told = False
    delays_s = _delays_s()
    while True:
        try:
            return connect()
        except InputError as error:
            waited_s = time.perf_counter() - start_s
            is_over = options.give_up_s is not None and waited_s >= options.give_up_s
            if is_over or not options.wait:
                raise
            if not is_told:
                options.on_wait(_no_signal(_reason(error)))
                is_told = True
        time.sleep(next(delays_s))


class LiveSource(Source):
    """Read a camera in a thread, and open it again whenever it is lost.

    Parameters
    ----------
    camera : the camera, opened.
    connect : opens it again.
    options : times.
    is_present : whether the device or its server is there. It is asked four times a second while
        the source waits for the next try, which comes at once if it is back. None for cameras that
        can only be asked by opening them.
    hand_on_nv12 : as for ``Source``.

    Examples
    --------
    >>> import numpy as np
    >>> class Black:
    ...     info = VideoInfo(64, 48, fps=None, frames=None, live=True)
    ...     def read(self) -> Grab:
    ...         time.sleep(0.01)
    ...         return Grab(np.zeros((48, 64, 3), np.uint8), time.perf_counter())
    ...     def close(self) -> None:
    ...         pass
    >>> with LiveSource(Black(), connect=Black) as source:
    ...     next(source).size
    (48, 64)
    """

    def __init__(
        self,
        camera: Camera,
        connect: Connect,
        options: LiveOptions | None = None,
        *,
        is_present: Callable[[], bool] | None = None,
        hand_on_nv12: Callable[[], None] = lambda: None,
    ) -> None:
        self._camera: Camera | None = camera
        self._connect = connect
        self._options = options or LiveOptions()
        self._is_present = is_present
        self._stop = threading.Event()
        self._events: deque[str] = deque()

        fps = camera.info.fps
        slow_s = _FRAMES_PER_STALL / fps if fps else 0.0
        self._stall_s = max(self._options.stall_s, slow_s)

        # The reader thread sets when the last frame came; the consumer keeps what it took last.
        self._arrived_s = time.perf_counter()
        self._last: Frame | None = None
        self._repeated_s: float | None = None

        # This starts the reader thread, so it comes last.
        super().__init__(
            camera.info, self._read_frames(), release=self._disconnect, hand_on_nv12=hand_on_nv12
        )

    def __next__(self) -> Frame:
        """Return the next frame, or the last one again if none came for ``stall_s``.

        A repeated frame has ``lost_s`` set, and comes every half second.
        """
        self._start()
        while True:
            try:
                frame = self._channel.get(self._patience_s())
            except Finished:
                raise StopIteration from None

            if frame is not None:
                self._last = frame
                self._repeated_s = None
                return frame

            # A frame may have come and be on its way while this consumer was busy.
            lost_s = time.perf_counter() - self._arrived_s
            if self._last is not None and lost_s >= self._stall_s:
                self._repeated_s = time.perf_counter()
                return self._repeat(self._last, lost_s)

    def _patience_s(self) -> float:
        """Return how long to wait for a frame before the last one is repeated."""
        due_s = self._arrived_s + self._stall_s
        if self._repeated_s is not None:
            due_s = max(due_s, self._repeated_s + _REPEAT_S)
        return max(due_s - time.perf_counter(), _LOOK_S)

    @staticmethod
    def _repeat(frame: Frame, lost_s: float) -> Frame:
        """Return a frame again, marked as lost. Its time goes on, its capture time does not."""
        timestamp_s = frame.timestamp_s + lost_s
        return replace(frame, timestamp_s=timestamp_s, read_ms=0.0, lost_s=lost_s)

    def take_events(self) -> list[str]:
        """Return what happened since the last call, a line each; see ``Source.take_events``."""
        events: list[str] = []
        while self._events:
            events.append(self._events.popleft())
        return events

    def close(self) -> None:
        """Stop reading, end the wait for a lost camera, and free the device. It never hangs."""
        self._stop.set()
        super().close()

    # --- the reader thread ------------------------------------------------------------------------

    def _read_frames(self) -> Iterator[Frame]:
        """Yield the frames of the camera and of those that follow it."""
        start_s: float | None = None
        timestamp_s = 0.0
        for index, grab in enumerate(self._grabs()):
            if start_s is None:
                start_s = grab.captured_s
            timestamp_s = max(timestamp_s, grab.captured_s - start_s)
            yield Frame(index, grab.pixels, f"{index:06d}", timestamp_s, captured_s=grab.captured_s)

    def _grabs(self) -> Iterator[Grab]:
        """Yield what the camera gives; open it again if it is lost."""
        while self._camera is not None and not self._stop.is_set():
            try:
                grab = self._camera.read()
            except CameraEnded:
                return
            except SignalLost as lost:
                self._disconnect()
                self._camera = self._reconnect(str(lost))
                continue

            self._arrived_s = time.perf_counter()
            yield grab

    def _reconnect(self, reason: str) -> Camera | None:
        """Try until the camera is open again; return None if that is no longer wanted.

        Parameters
        ----------
        reason : why the camera was lost. If it cannot be opened, that error is the better reason.
        """
        is_told = False
        for delay_s in _delays_s():
            self._wait(delay_s)
            if self._stop.is_set():
                return None

            try:
                camera = self._connect()
            except InputError as error:
                reason = _reason(error)
                if not is_told:
                    self._events.append(_no_signal(reason))
                    is_told = True
                if self._gives_up():
                    self._events.append(f"gave up after {self._lost_s():.0f} s ({reason})")
                    self.lost = True
                    return None
                continue

            if not is_told:
                self._events.append(_no_signal(reason))
            self._events.append(f"back after {_seconds(self._lost_s())}")
            self.reconnects += 1
            return camera
        return None

    def _wait(self, delay_s: float) -> None:
        """Wait, but not longer than until the source is closed, gives up, or the device is back."""
        end_s = time.perf_counter() + delay_s
        if self._options.give_up_s is not None:
            end_s = min(end_s, self._arrived_s + self._options.give_up_s)

        was_absent = False
        while not self._stop.is_set():
            left_s = end_s - time.perf_counter()
            if left_s <= 0:
                return
            if self._is_present is None:
                self._stop.wait(left_s)
                continue

            is_present = self._is_present()
            if was_absent and is_present:
                return
            was_absent = not is_present
            self._stop.wait(min(left_s, _LOOK_S))

    def _lost_s(self) -> float:
        """Return the seconds since the last frame."""
        return time.perf_counter() - self._arrived_s

    def _gives_up(self) -> bool:
        """Return whether the camera stayed away too long."""
        limit_s = self._options.give_up_s
        return limit_s is not None and self._lost_s() >= limit_s

    def _disconnect(self) -> None:
        """Close the camera, if one is open."""
        camera, self._camera = self._camera, None
        if camera is not None:
            camera.close()


def _delays_s() -> Iterator[float]:
    """Yield the waits between tries, seconds, without end."""
    delay_s = _FIRST_DELAY_S
    while True:
        yield delay_s * random.uniform(1 - _JITTER, 1 + _JITTER)
        delay_s = min(2 * delay_s, _LONGEST_DELAY_S)


def _reason(error: InputError) -> str:
    """Return why a camera cannot be opened, in a few words."""
    return error.reason if isinstance(error, NoSignalError) else error.what


def _no_signal(reason: str) -> str:
    """Return the line of a camera that is lost."""
    return f"no signal ({reason}); trying again"


def _seconds(value: float) -> str:
    """Return a time in words: short ones with a decimal."""
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"
