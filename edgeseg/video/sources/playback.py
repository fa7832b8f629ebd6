"""Play a part of a source: from a time on, for a while, every Nth frame, at its own speed."""

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgeseg.errors import InputError
from edgeseg.video.frames import Frame, Source, VideoInfo

# The rate at which pictures, which have no times, are played if they are played as a camera.
_PICTURES_FPS = 15.0

# Times are sums of fractions: a frame this little before the start is the start.
_SAME_S = 1e-6


@dataclass(frozen=True)
class Playback:
    """Tell which frames of a source are played, and how fast.

    Attributes
    ----------
    start_s : the first frame is the one at or after this time, seconds since the source's start.
    duration_s : how long to play, seconds of the source; None until its end.
    every : play one frame of so many, 1 for all.
    realtime : play a recording at its own speed, as a camera would: frames that come while the
        network works are dropped.

    Raises
    ------
    InputError : a value is out of range.

    Examples
    --------
    >>> Playback(start_s=60, duration_s=10).is_plain, Playback().is_plain
    (False, True)
    """

    start_s: float = 0.0
    duration_s: float | None = None
    every: int = 1
    realtime: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.start_s < math.inf:
            raise InputError("`start_s`: no such time", got=self.start_s, expected="0 or more")
        if self.duration_s is not None and not 0 < self.duration_s < math.inf:
            raise InputError(
                "`duration_s`: no such duration", got=self.duration_s, expected="more than 0"
            )
        if self.every < 1:
            raise InputError("`every`: no such step", got=self.every, expected="1 or more")

    @property
    def is_plain(self) -> bool:
        """Return whether this plays everything, as fast as the consumer takes it."""
        return self == Playback()


def play(source: Source, playback: Playback, *, is_started: bool = False) -> Source:
    """Return a source that plays a part of another one.

    The other source is closed with it. To start within a video file, ``open_source`` with a
    ``playback`` is faster: it seeks, and this function reads up to the start.

    Parameters
    ----------
    source : the source.
    playback : what to play of it. The pace of a live source is its own, with or without
        ``realtime``.
    is_started : whether the source was opened at ``start_s``.

    Raises
    ------
    InputError : pictures, which have no times, are to be played from a time on or for a while.

    Examples
    --------
    >>> from edgeseg.video.sources import open_source
    >>> drive = open_source("synthetic://?length=9&size=64x48")
    >>> with play(drive, Playback(every=4)) as source:
    ...     [frame.index for frame in source]
    [0, 4, 8]
    """
    if playback.is_plain:
        return source

    has_times = source.info.live or source.info.fps is not None or source.info.frames is None
    if not has_times and (playback.start_s or playback.duration_s is not None):
        source.close()
        raise InputError(
            "pictures have no times, so they cannot be played from a time on or for a while",
            hint="Take every Nth picture instead (`every`), or a part of the folder.",
        )
    return _Played(source, playback, is_started)


class _Played(Source):
    """Play a part of a source.

    Parameters
    ----------
    source : the source.
    playback : what to play of it.
    is_started : whether the source was opened at its start.
    """

    def __init__(self, source: Source, playback: Playback, is_started: bool) -> None:
        self._inner = source
        self._playback = playback
        self._begun = threading.Event()
        self._stopped = threading.Event()
        self._dropped_inside = 0
        self._paced = playback.realtime and not source.info.live

        super().__init__(
            _played_info(source.info, playback, is_started),
            self._frames_played(),
            source.path,
            source.close,
            source.hand_on_nv12,
        )
        self.name = source.name
        self.skipped = source.skipped
        self.notes = source.notes

    def _frames_played(self) -> Iterator[Frame]:
        """Yield the frames, each at its time if they have a pace."""
        frames = _selected(self._inner, self._playback)
        if self._paced:
            frames = self._at_their_times(frames)
        for frame in frames:
            self.lost = self._inner.lost
            self.reconnects = self._inner.reconnects
            yield frame
        self.lost = self._inner.lost
        self.reconnects = self._inner.reconnects

    def _at_their_times(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Yield frames at their times, counted from when the consumer takes the first one."""
        start_s = 0.0
        first_s: float | None = None
        for frame in frames:
            at_s = _time_of(frame, self._inner.info)
            if first_s is None:
                # Engines take seconds to load, and must not miss the start of a short clip.
                self._begun.wait()
                first_s = at_s
                start_s = time.perf_counter()

            wait_s = start_s + at_s - first_s - time.perf_counter()
            if self._stopped.wait(max(0.0, wait_s)):
                return
            yield replace(frame, timestamp_s=at_s, captured_s=time.perf_counter())

    @property
    def dropped(self) -> int:
        """Return how many frames were dropped since the consumer took its first one."""
        return super().dropped + self._inner.dropped - self._dropped_inside

    def take_events(self) -> list[str]:
        """Return what happened to the source since the last call; see ``Source.take_events``."""
        return self._inner.take_events()

    def __next__(self) -> Frame:
        """Return the next frame."""
        if not self._begun.is_set():
            self._dropped_inside = self._inner.dropped
            self._begun.set()
        return super().__next__()

    def close(self) -> None:
        """Stop playing and close the source."""
        self._stopped.set()
        self._begun.set()
        self._inner.close()  # this wakes a reader that waits for a frame
        super().close()


def _selected(frames: Iterator[Frame], playback: Playback) -> Iterator[Frame]:
    """Yield the frames that are played; those that a lost source repeats are not counted."""
    end_s = math.inf if playback.duration_s is None else playback.start_s + playback.duration_s
    count = 0
    for frame in frames:
        if frame.timestamp_s >= end_s - _SAME_S:
            return
        if frame.timestamp_s < playback.start_s - _SAME_S:
            continue
        if frame.lost_s is not None:
            yield frame
            continue
        if count % playback.every == 0:
            yield frame
        count += 1


def _time_of(frame: Frame, info: VideoInfo) -> float:
    """Return the time of a frame; pictures get one by a rate."""
    if info.fps is None and frame.timestamp_s == 0:
        return frame.index / _PICTURES_FPS
    return frame.timestamp_s


def _played_info(info: VideoInfo, playback: Playback, is_started: bool) -> VideoInfo:
    """Return the facts of what is played."""
    frames = info.frames
    if frames is not None and info.fps:
        if not is_started:
            frames = max(0, frames - math.ceil(playback.start_s * info.fps - _SAME_S))
        if playback.duration_s is not None:
            frames = min(frames, math.ceil(playback.duration_s * info.fps - _SAME_S))
    if frames is not None:
        frames = math.ceil(frames / playback.every)

    fps = info.fps / playback.every if info.fps else None
    live = info.live or playback.realtime
    return replace(info, frames=None if live else frames, fps=fps, live=live)
