"""Frames, and the thread that reads them ahead: no OpenCV here."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from edgeseg.imaging.nv12 import Nv12
from edgeseg.video.channel import Channel, Finished

__all__ = ["Channel", "Finished", "Frame", "Source", "VideoInfo"]

# Frames that are read ahead: this evens out slow key frames, and takes 11 MB at 1280x720.
_READ_AHEAD = 4

# A reader that is stuck inside a driver is left behind (it is a daemon thread), not waited for.
_JOIN_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class VideoInfo:
    """Describe a source of frames before it is read.

    Attributes
    ----------
    width, height : size of the frames, pixels.
    fps : frames per second; None if the source has no frame rate.
    frames : number of frames; None if it is unknown.
    live : True for a camera or a stream, False for something with an end.

    Examples
    --------
    >>> VideoInfo(width=1280, height=720, fps=25.0, frames=None, live=True).width
    1280
    """

    width: int
    height: int
    fps: float | None
    frames: int | None
    live: bool


@dataclass(frozen=True, eq=False)
class Frame:
    """Hold one frame and the facts about it.

    Attributes
    ----------
    index : number of the frame in the source, from 0. It jumps if a live source dropped frames.
    pixels : (H, W, 3) uint8 BGR. After ``Source.hand_on_nv12`` it may be an ``Nv12`` instead; the
        property ``image`` is always BGR.
    name : name for files that belong to the frame, such as its mask.
    timestamp_s : seconds since the start of the source.
    read_ms : milliseconds that reading and decoding took. For a live source this includes the wait
        for the camera.
    captured_s : when the camera took the frame, on the clock of ``time.perf_counter``: the camera's
        own stamp if it has one, else the time of reading. None for recordings.
    lost_s : None for a frame of the source. If a live source gives no frames any more, it repeats
        its last one, with the seconds since then.
    source : number of the source, from 0, if several are read together.

    Examples
    --------
    >>> import numpy as np
    >>> frame = Frame(0, np.zeros((48, 64, 3), np.uint8), "000000", timestamp_s=0.0)
    >>> frame.size
    (48, 64)
    """

    index: int
    pixels: npt.NDArray[np.uint8] | Nv12
    name: str
    timestamp_s: float
    read_ms: float = 0.0
    captured_s: float | None = None
    lost_s: float | None = None
    source: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """Return (H, W)."""
        plane = self.pixels.luma if isinstance(self.pixels, Nv12) else self.pixels
        height, width = plane.shape[:2]
        return height, width

    @cached_property
    def image(self) -> npt.NDArray[np.uint8]:
        """Return the pixels as (H, W, 3) uint8 BGR."""
        return self.pixels.to_bgr() if isinstance(self.pixels, Nv12) else self.pixels


class Source:
    """Iterate over frames that a thread of its own reads ahead; also a context manager.

    Parameters
    ----------
    info : facts that are known before reading. A live source starts to read at once, and keeps only
        the newest frame.
    frames : the frames; the reader thread iterates them.
    path : the file or folder that is read, if there is one.
    release : function that frees the device or the file. It is called once, when nobody reads any
        more.
    hand_on_nv12 : function that makes the frames ``Nv12`` from the next one on, if the source
        delivers that format. Call it for a consumer that takes ``Nv12``: the reader then converts
        nothing.

    Attributes
    ----------
    info : facts that are known before reading.
    path : the file or folder that is read, if there is one.
    name : short name for files and pages, such as ``camera0``; empty if nobody gave one.
    count : number of sources that are read together.
    lost : True if a live source ended because its camera stayed away too long.
    reconnects : how often a live source was lost and came back.
    skipped : errors of pictures that could not be read and were left out.
    notes : what the user should know about the source, a sentence each.

    Examples
    --------
    >>> import numpy as np
    >>> black = np.zeros((48, 64, 3), np.uint8)
    >>> frames = iter([Frame(0, black, "first", 0.0), Frame(1, black, "second", 0.04)])
    >>> with Source(VideoInfo(64, 48, fps=25.0, frames=2, live=False), frames) as source:
    ...     [frame.name for frame in source]
    ['first', 'second']
    """

    def __init__(
        self,
        info: VideoInfo,
        frames: Iterator[Frame],
        path: Path | None = None,
        release: Callable[[], None] | None = None,
        hand_on_nv12: Callable[[], None] = lambda: None,
    ) -> None:
        self.info = info
        self.path = path
        self.hand_on_nv12 = hand_on_nv12
        self._frames = frames
        self._release = release

        capacity = 1 if info.live else _READ_AHEAD
        self._channel: Channel[Frame] = Channel(capacity, keep_newest=info.live)
        self._items = iter(self._channel)

        self._reader: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False

        self.name = ""
        self.count = 1
        self.lost = False
        self.reconnects = 0
        self.skipped: list[str] = []
        self.notes: list[str] = []

        if info.live:
            # While the engine loads, a camera's buffers must not fill with old frames.
            self._start()

    @property
    def dropped(self) -> int:
        """Return how many frames of a live source nobody took, because newer ones replaced them.

        The count starts when the consumer takes its first frame. From that frame on, the frames
        that were read are those that were taken and those that were dropped.
        """
        return self._channel.dropped - self._channel.dropped_before

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        """Return the next frame.

        Raises
        ------
        InputError : a video breaks half-way. Any other exception of the reader is raised here, too.
        """
        self._start()
        return next(self._items)

    def take_events(self) -> list[str]:
        """Return what happened to a live source since the last call, a line each.

        A camera that is lost says ``no signal (connection refused); trying again`` once, and
        ``back after 12 s`` later.
        """
        return []

    def _start(self) -> None:
        """Start the reader thread, unless it runs already or the source is closed."""
        with self._lock:
            if self._reader is None and not self._closed:
                self._reader = threading.Thread(target=self._read, name="edgeseg-read", daemon=True)
                self._reader.start()

    def _read(self) -> None:
        """Put all frames into the channel; the reader thread runs this."""
        error: BaseException | None = None
        try:
            while (frame := self._timed_next()) is not None:
                if not self._channel.put(frame):
                    break
        except BaseException as caught:  # any exception belongs to the consumer
            error = caught
        finally:
            self._free()
            self._channel.finish(error)

    def _timed_next(self) -> Frame | None:
        """Read the next frame and note how long that took; return None at the end."""
        start = time.perf_counter()
        frame = next(self._frames, None)
        read_ms = (time.perf_counter() - start) * 1e3
        return None if frame is None else replace(frame, read_ms=read_ms)

    def _free(self) -> None:
        """Free the device or the file, at most once."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def close(self) -> None:
        """Stop reading and free the device or the file.

        Any thread may call this, any number of times. It never hangs.
        """
        with self._lock:
            self._closed = True
            reader = self._reader
        self._channel.close()

        if reader is None:
            self._free()
        elif reader is not threading.current_thread():
            reader.join(_JOIN_TIMEOUT_S)

    def __enter__(self) -> "Source":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
