"""Frames, the thread that reads them ahead, and the channel that carries them: no OpenCV here."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from edgeseg.nv12 import Nv12

_READ_AHEAD = 4  # frames: evens out slow key frames; 11 MB at 1280x720
_JOIN_TIMEOUT_S = 2.0  # a reader stuck inside a driver is left behind (a daemon thread) rather than waited for

T = TypeVar("T")


@dataclass(frozen=True)
class VideoInfo:
    """What a source says of itself: pixels, frames a second (None: has none), frame count (None: unknown)."""

    width: int
    height: int
    fps: float | None
    frames: int | None
    live: bool


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame.

    ``pixels`` is (H, W, 3) uint8 BGR, or, after ``Source.hand_on_nv12``, maybe an ``Nv12``; ``image`` is always BGR.
    ``index`` counts what the source produced from 0 (where a live source dropped frames it jumps); ``timestamp_s``
    counts from its start; ``read_ms`` is how long reading and decoding took (for a live source that includes the wait
    for the camera).
    """

    index: int
    pixels: npt.NDArray[np.uint8] | Nv12
    name: str
    timestamp_s: float
    read_ms: float = 0.0

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        height, width = (self.pixels.luma if isinstance(self.pixels, Nv12) else self.pixels).shape[:2]
        return height, width

    @cached_property
    def image(self) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 BGR."""
        return self.pixels.to_bgr() if isinstance(self.pixels, Nv12) else self.pixels


class Channel(Generic[T]):
    """A bounded queue between two threads that neither side can hang on.

    The producer's ``put`` waits for room (or, with ``keep_newest``, drops the oldest item and counts it). ``finish``
    ends the stream, or hands the producer's exception to the consumer after the items before it. The consumer's
    ``close`` wakes both sides: ``put`` then says False.
    """

    def __init__(self, capacity: int, *, keep_newest: bool = False) -> None:
        self._capacity, self._keep_newest = capacity, keep_newest
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._finished = self._closed = False
        self._error: BaseException | None = None
        self.dropped = 0

    def put(self, item: T) -> bool:
        """Add an item; False where the consumer is gone and the producer should stop."""
        with self._changed:
            while not (self._closed or self._keep_newest) and len(self._items) >= self._capacity:
                self._changed.wait()
            if self._closed:
                return False
            if len(self._items) >= self._capacity:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._changed.notify_all()
            return True

    def finish(self, error: BaseException | None = None) -> None:
        with self._changed:
            self._finished, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                while not (self._items or self._finished or self._closed):
                    self._changed.wait()
                if self._items:
                    item = self._items.popleft()
                    self._changed.notify_all()
                elif self._error is not None and not self._closed:
                    raise self._error
                else:
                    return
            yield item


class Source:
    """An iterator over frames, read ahead by a thread of its own; also a context manager.

    Parameters
    ----------
    info : what is known before reading. A live source reads from now on and keeps only the newest frame.
    frames : the frames; the reader thread iterates them.
    path : the file or folder that is read, where there is one.
    release : frees the device or file; called once, when nobody reads any more.
    hand_on_nv12 : lets frames be ``Nv12`` from the next one on, where they come so. Call it for a consumer that takes
        those: the reader then converts nothing.
    """

    def __init__(
        self,
        info: VideoInfo,
        frames: Iterator[Frame],
        path: Path | None = None,
        release: Callable[[], None] | None = None,
        hand_on_nv12: Callable[[], None] = lambda: None,
    ) -> None:
        self.info, self.path, self.hand_on_nv12 = info, path, hand_on_nv12
        self._frames, self._release = frames, release
        self._channel: Channel[Frame] = Channel(1 if info.live else _READ_AHEAD, keep_newest=info.live)
        self._items = iter(self._channel)
        self._reader: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._dropped_before: int | None = None
        if info.live:
            self._start()  # while the engine loads, a camera's buffers must not fill with old frames

    @property
    def dropped(self) -> int:
        """Frames of a live source that were never taken, because a newer one came; since the first was asked for."""
        return self._channel.dropped - (self._dropped_before or 0)

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        """The next frame. Raises what the reader met: ``InputError`` for a video that breaks half-way."""
        self._start()
        if self._dropped_before is None:
            self._dropped_before = self._channel.dropped
        return next(self._items)

    def _start(self) -> None:
        with self._lock:
            if self._reader is None and not self._closed:
                self._reader = threading.Thread(target=self._read, name="edgeseg-read", daemon=True)
                self._reader.start()

    def _read(self) -> None:
        error: BaseException | None = None
        try:
            while (frame := self._timed_next()) is not None:
                if not self._channel.put(frame):
                    break
        except BaseException as caught:  # all of it belongs to the consumer
            error = caught
        finally:
            self._free()
            self._channel.finish(error)

    def _timed_next(self) -> Frame | None:
        start = time.perf_counter()
        frame = next(self._frames, None)
        read_ms = (time.perf_counter() - start) * 1e3
        return None if frame is None else replace(frame, read_ms=read_ms)

    def _free(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()

    def close(self) -> None:
        """Stop reading and free the device or file; from any thread, any number of times; never hangs."""
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
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
