"""Read network streams with little delay, through PyAV: RTSP, HTTP, and what else FFmpeg speaks.

PyAV takes its options for each stream. OpenCV takes them from the environment of the whole process,
where they would change how files are read.
"""

import time
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from edgeseg.types import Image
from edgeseg.video.addresses import failure_reason
from edgeseg.video.frames import VideoInfo
from edgeseg.video.sources.reconnect import Grab, NoSignalError, SignalLost

# Opening may take several exchanges with a slow server, seconds.
_OPEN_TIMEOUT_S = 8.0

# TCP loses no packets; FFmpeg takes UDP if the server has no TCP. Sound is not asked for.
_RTSP_OPTIONS = {"rtsp_flags": "prefer_tcp", "allowed_media_types": "video"}

# FFmpeg reads 20 frames to learn the rate. A camera that comes back is known: it is open half a
# second earlier without.
_KNOWN_RATE = {"fpsprobesize": "1"}

# What PyAV raises if FFmpeg cannot open, read or decode.
_ERRORS = (av.error.FFmpegError, OSError, ValueError)

# A packet that came faster than this was waiting in a buffer: it is older than it seems, seconds.
_WAITED_S = 0.002

# How long frames that waited are skipped at the start, seconds.
_LONGEST_SKIP_S = 1.0

# A stream without a frame rate reports its time base instead, such as 90000.
_FPS_LIMIT = 1000.0

# Frames over which the least delay is searched.
_CLOCK_FRAMES = 60


class StreamClock:
    """Tell when frames were captured, from their stamps and their arrival.

    The stamps run with the camera's clock, whose zero is unknown. The frame that arrived with the
    least delay tells it: the others are late by as much as they took longer. So a frame that waited
    in the network is known to be old.

    Examples
    --------
    >>> clock = StreamClock()
    >>> [clock.captured_s(stamp, arrival) for stamp, arrival in ((0.0, 5.0), (0.1, 5.4))]
    [5.0, 5.1]
    """

    def __init__(self) -> None:
        # A window, because clocks drift and stamps jump.
        self._offsets_s: deque[float] = deque(maxlen=_CLOCK_FRAMES)

    def captured_s(self, stamp_s: float | None, arrived_s: float) -> float:
        """Return when a frame was captured, on the clock of the arrival.

        Parameters
        ----------
        stamp_s : the frame's own time, seconds; None if it has none.
        arrived_s : when it arrived, seconds.
        """
        if stamp_s is None:
            return arrived_s
        self._offsets_s.append(arrived_s - stamp_s)
        return stamp_s + min(self._offsets_s)


class StreamCamera:
    """Read frames from a network stream.

    Parameters
    ----------
    uri : the address, with its user and password if it has any.
    address : the address without them, for errors.
    stall_s : longest wait for a frame, seconds.
    knows_rate : the frame rate is known from before, and need not be measured.

    Attributes
    ----------
    is_recording : True for a video with an end, such as a file on a web server.

    Raises
    ------
    NoSignalError : the stream cannot be opened, or gives no frame.
    """

    def __init__(self, uri: str, address: str, stall_s: float, *, knows_rate: bool = False) -> None:
        self._what = f"{address}: cannot be opened as a video stream"
        self._hint = f"Does it play with: ffplay {address}"
        self._stall_s = stall_s
        self._reformatter = VideoReformatter()
        self._clock = StreamClock()

        self._container = self._opened(uri, knows_rate)
        try:
            self._stream = self._video_stream()
            is_rtsp = uri.startswith("rtsp")
            self.is_recording = not is_rtsp and bool(self._container.duration)
            self._frames = self._decoded()
            self._first: Grab | None = self._newest(0.0 if self.is_recording else _LONGEST_SKIP_S)
        except BaseException:
            self.close()
            raise

        height, width = self._first.pixels.shape[:2]  # type: ignore[union-attr]  # always BGR
        fps = _rate(self._stream.guessed_rate) or _rate(self._stream.average_rate)
        self._info = VideoInfo(width, height, fps, frames=None, live=True)

    @property
    def info(self) -> VideoInfo:
        """Return the facts of the stream."""
        return self._info

    def _opened(self, uri: str, knows_rate: bool) -> InputContainer:
        """Open the stream; raise ``NoSignalError`` with the server's reason if that fails."""
        options: dict[str, str] = {}
        if uri.startswith("rtsp"):
            options.update(_RTSP_OPTIONS)
        if knows_rate:
            options.update(_KNOWN_RATE)
        try:
            return av.open(uri, "r", options=options, timeout=(_OPEN_TIMEOUT_S, self._stall_s))
        except _ERRORS as error:
            reason = failure_reason(uri) or _words(error)
            raise self._no_signal(reason) from error

    def _no_signal(self, reason: str) -> NoSignalError:
        """Return the error of a stream that cannot be opened."""
        return NoSignalError(self._what, reason=reason, got=reason, hint=self._hint)

    def _video_stream(self) -> VideoStream:
        """Return the video stream, set to decode without delay."""
        streams = self._container.streams.video
        if not streams:
            raise self._no_signal("no video in it")

        stream = streams[0]
        context = getattr(stream, "codec_context", None)
        if context is None:
            raise self._no_signal("a codec without a decoder")

        # Each further thread of the decoder holds one frame back.
        context.thread_count = 1
        context.flags |= Flags.low_delay
        return stream

    def _newest(self, skip_s: float) -> Grab:
        """Return the first frame that is not old.

        Those before it waited in buffers: of the server, of the system, and of FFmpeg, which reads
        ahead to learn the format.
        """
        start_s = time.perf_counter()
        while True:
            try:
                frame, arrived_s, waited_s = next(self._frames)
            except SignalLost as lost:
                raise self._no_signal(f"no frame: {lost}") from lost
            captured_s = self._clock.captured_s(frame.time, arrived_s)
            if waited_s >= _WAITED_S or arrived_s - start_s >= skip_s:
                return Grab(self._bgr(frame), captured_s)

    def read(self) -> Grab:
        """Return the next frame; the one that was read at the start comes first."""
        first, self._first = self._first, None
        if first is not None:
            return first
        frame, arrived_s, _ = next(self._frames)
        return Grab(self._bgr(frame), self._clock.captured_s(frame.time, arrived_s))

    def _decoded(self) -> Iterator[tuple[VideoFrame, float, float]]:
        """Yield frames, when each arrived, and how long it was waited for, seconds.

        Raises ``SignalLost`` at the end.
        """
        packets = self._container.demux()
        last_s = time.perf_counter()
        while True:
            start_s = time.perf_counter()
            try:
                packet = next(packets)
            except StopIteration:
                raise SignalLost("the stream ended") from None
            except av.error.ExitError:  # the time limit
                raise SignalLost(f"no frame for {self._stall_s:g} s") from None
            except _ERRORS as error:
                raise SignalLost(_words(error)) from error

            arrived_s = time.perf_counter()
            for frame in self._frames_of(packet):
                last_s = arrived_s
                yield frame, arrived_s, arrived_s - start_s
            if arrived_s - last_s > self._stall_s:
                raise SignalLost(f"no frame for {self._stall_s:g} s")

    def _frames_of(self, packet: "Packet[Any]") -> list[VideoFrame]:
        """Return the frames of a packet; none if it is damaged or of another stream."""
        if packet.stream.index != self._stream.index:
            return []
        frames: list[VideoFrame] = []
        try:
            for frame in packet.decode():
                if isinstance(frame, VideoFrame):
                    frames.append(frame)
        except _ERRORS:  # such as the frames before the first key frame
            return []
        return frames

    def _bgr(self, frame: VideoFrame) -> Image:
        """Return a frame as (H, W, 3) BGR by its own colour matrix."""
        return np.asarray(self._reformatter.reformat(frame, format="bgr24").to_ndarray(), np.uint8)

    def close(self) -> None:
        """Close the connection."""
        self._container.close()


def _words(error: BaseException) -> str:
    """Return FFmpeg's reason, without the address, which may have a password."""
    text = str(getattr(error, "strerror", None) or type(error).__name__)
    return text[:1].lower() + text[1:]


def _rate(rate: Fraction | None) -> float | None:
    """Return a frame rate; None if it is impossible."""
    value = float(rate) if rate else 0.0
    return value if 0 < value < _FPS_LIMIT else None
