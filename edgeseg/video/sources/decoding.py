"""Decode video with PyAV: upright BGR frames with the container's own times.

PyAV and OpenCV both stand on FFmpeg, are equally fast and give the same pixels. PyAV also tells the
time and the true size of each frame, names codecs, reads pipes and has a decoder for AV1.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import IO

import av
import cv2
import numpy as np
from av.codec.context import ThreadType
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from edgeseg.errors import InputError
from edgeseg.types import Image

# A container without a frame rate reports its time base instead, such as 90000.
_FPS_LIMIT = 1000.0

# Timeouts of a recording on a web server, seconds: to open, and for each read.
_TIMEOUTS_S = (8.0, 8.0)

# Seconds to go back further if a seek ended behind its target.
_STEPS_BACK_S = (0.0, 5.0, 30.0)

# Times are sums of fractions: a frame this little before the start is the start.
_SAME_S = 1e-6

# Degrees, counter-clockwise, by which a frame is turned to stand upright.
_TURNS = {
    90: cv2.ROTATE_90_COUNTERCLOCKWISE,
    180: cv2.ROTATE_180,
    270: cv2.ROTATE_90_CLOCKWISE,
}

# Formats in which FFmpeg paints a text as a video.
_TEXTS = frozenset({"tty", "bin", "xbin", "adf", "idf"})

# What PyAV raises if FFmpeg cannot open, read or decode.
_ERRORS = (av.error.FFmpegError, OSError, ValueError)

Timed = tuple[float | None, Image]  # seconds since the start of the stream, and the frame


class Decoder:
    """Decode the video stream of a file, a web address or an open binary file.

    Parameters
    ----------
    source : a path, an address, or a binary file object that PyAV reads.
    name : the source's name in errors.
    low_delay : decode with one thread. Several threads are faster, and hold a frame back each.
    codec : the codec by the container's headers, for errors; empty if unknown.

    Attributes
    ----------
    codec : name of the codec, such as ``h264``.
    fps : frames per second; None if the container has no rate.
    frames : number of frames that the container promises, or duration times rate; None if unknown.
    duration_s : duration in seconds; None if unknown.
    decoded : number of frames that were decoded so far, with those that a search for a time passed.

    Raises
    ------
    InputError : FFmpeg does not know the format, or there is no video in it.
    """

    def __init__(
        self, source: str | IO[bytes], name: str, *, low_delay: bool = False, codec: str = ""
    ) -> None:
        self._source = source
        self._name = name
        self._codec = codec
        self._low_delay = low_delay
        self._reformatter = VideoReformatter()
        self.decoded = 0
        self._open()

        decoder = self._stream.codec_context.codec
        # Not "libdav1d" but "av1"; an older PyAV knows only the former.
        self.codec = str(getattr(decoder, "canonical_name", decoder.name))
        self.fps = _rate(self._stream.guessed_rate) or _rate(self._stream.average_rate)
        self.duration_s = self._duration_s()
        self.frames = self._stream.frames or None
        if self.frames is None and self.duration_s and self.fps:
            self.frames = int(self.duration_s * self.fps + 0.5)

    def _open(self) -> None:
        """Open the container at its start."""
        self._container = _opened(self._source, self._name)
        self._stream = self._video_stream(self._container)
        self._stream.thread_type = ThreadType.SLICE if self._low_delay else ThreadType.AUTO

    def _video_stream(self, container: InputContainer) -> VideoStream:
        """Return the video stream that is meant to be seen; raise ``InputError`` without one."""
        streams = container.streams.video
        if not streams:
            kinds = sorted({stream.type for stream in container.streams})
            container.close()
            raise InputError(
                f"{self._name}: has no video in it",
                got=" and ".join(kinds) or "nothing",
                expected="a video stream",
            )

        # FFmpeg's choice is not the cover of a film, which is a stream of one picture.
        best = container.streams.best("video")
        chosen = best if isinstance(best, VideoStream) else streams[0]
        if container.format.name in _TEXTS:
            container.close()
            raise InputError(f"{self._name}: cannot be opened as a video", got="a text")
        if getattr(chosen, "codec_context", None) is None:
            container.close()
            raise InputError(
                f"{self._name}: no frame can be decoded",
                got=f"codec {self._codec}" if self._codec else "an unknown codec",
                expected="a codec that this FFmpeg can decode",
                hint="Convert it: ffmpeg -i FILE -c:v libx264 OUT.mp4",
            )
        return chosen

    def _duration_s(self) -> float | None:
        """Return the duration that the container states."""
        if self._container.duration:
            return float(self._container.duration / av.time_base)
        if self._stream.duration and self._stream.time_base:
            return float(self._stream.duration * self._stream.time_base)
        return None

    def read(self) -> Iterator[Timed]:
        """Yield time and pixels of each frame from here on; skip what cannot be decoded."""
        for frame in self._decoded():
            yield self._time_of(frame), self._bgr(frame)

    def read_from(self, start_s: float) -> Iterator[Timed]:
        """Yield the frames at or after a time.

        Seeks to a key frame before that time. Where a container cannot seek that exactly, this
        reads from the start.

        Parameters
        ----------
        start_s : the time, seconds since the start of the stream.
        """
        for back_s in _STEPS_BACK_S:
            frames = self._seek(start_s - back_s)
            first = None if frames is None else next(frames, None)
            if frames is None or first is None:
                continue

            first_s = self._time_of(first)
            if first_s is not None and first_s <= start_s + _SAME_S:
                yield from self._later(first, frames, start_s)
                return

        # Nothing fits: read from the very start, as a container without an index needs.
        self._container.close()
        self._open()
        frames = self._decoded()
        first = next(frames, None)
        if first is not None:
            yield from self._later(first, frames, start_s)

    def _later(
        self, first: VideoFrame, others: Iterator[VideoFrame], start_s: float
    ) -> Iterator[Timed]:
        """Yield the frames at or after a time; frames without a time are counted."""
        index = 0
        frame: VideoFrame | None = first
        while frame is not None:
            time_s = self._time_of(frame)
            if time_s is None and self.fps:
                time_s = index / self.fps
            if time_s is None or time_s >= start_s - _SAME_S:
                yield time_s, self._bgr(frame)
            index += 1
            frame = next(others, None)

    def _seek(self, time_s: float) -> Iterator[VideoFrame] | None:
        """Go to a key frame at or before a time; return the frames there, None if that fails."""
        tick = self._stream.time_base
        if tick is None:
            return None
        target = int(max(0.0, time_s) / tick) + (self._stream.start_time or 0)
        try:
            self._container.seek(target, stream=self._stream)
        except _ERRORS:
            return None
        return self._decoded(needs_key=True)

    def _decoded(self, *, needs_key: bool = False) -> Iterator[VideoFrame]:
        """Yield frames; with ``needs_key`` none if the first packet is no key frame."""
        packets = self._container.demux(self._stream)
        is_mp4 = "mp4" in self._container.format.name.split(",")
        is_first = True
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except _ERRORS:  # the file is damaged here; the decoder still holds frames
                yield from self._flushed()
                return

            if is_first and needs_key and not packet.is_keyframe:
                return
            is_first = False
            if packet.is_corrupt and is_mp4:  # cut off: its frame would be half a picture
                continue
            try:
                frames = packet.decode()
            except _ERRORS:
                continue
            for frame in frames:
                if isinstance(frame, VideoFrame):
                    self.decoded += 1
                    yield frame

    def _flushed(self) -> Iterator[VideoFrame]:
        """Yield the frames that the decoder still holds."""
        try:
            yield from self._stream.codec_context.decode(None)
        except _ERRORS:
            return

    def _time_of(self, frame: VideoFrame) -> float | None:
        """Return the time of a frame since the start of its stream, seconds."""
        if frame.pts is None or frame.time_base is None:
            return None
        start = self._stream.start_time or 0
        return float((frame.pts - start) * frame.time_base)

    def _bgr(self, frame: VideoFrame) -> Image:
        """Return a frame as (H, W, 3) BGR by its own colour matrix, upright."""
        pixels = np.asarray(
            self._reformatter.reformat(frame, format="bgr24").to_ndarray(), np.uint8
        )
        turn = _TURNS.get(round(getattr(frame, "rotation", 0)) % 360)
        return pixels if turn is None else np.asarray(cv2.rotate(pixels, turn), np.uint8)

    def close(self) -> None:
        """Close the file."""
        self._container.close()


def _opened(source: str | IO[bytes], name: str) -> InputContainer:
    """Open a container; raise ``InputError`` if FFmpeg cannot."""
    timeout = _TIMEOUTS_S if isinstance(source, str) and "://" in source else None
    try:
        return av.open(source, "r", timeout=timeout)
    except _ERRORS as error:
        raise InputError(f"{name}: cannot be opened as a video", got=_words(error)) from error


def _words(error: BaseException) -> str:
    """Return FFmpeg's reason without the file's name, which the message has already."""
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:]


def _rate(rate: Fraction | None) -> float | None:
    """Return a frame rate; None if it is impossible."""
    value = float(rate) if rate else 0.0
    return value if 0 < value < _FPS_LIMIT else None
