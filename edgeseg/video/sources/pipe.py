"""Read video from a pipe: ``ffmpeg ... | edgeseg segment ENGINE -``."""

import itertools
import os
import select
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from edgeseg.errors import InputError
from edgeseg.video.frames import Frame, Source, VideoInfo
from edgeseg.video.sources.decoding import Decoder
from edgeseg.video.sources.recorded import numbered, open_video

STANDARD_INPUT = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")

# How long a pipe may be silent before it is asked whether the source was closed, seconds.
_PATIENCE_S = 0.1

# Bytes that are read at once, if the pipe has as many.
_READ_BYTES = 1 << 20


def is_pipe(uri: str) -> bool:
    """Return whether an address is the standard input or a named pipe.

    Parameters
    ----------
    uri : an address for ``open_source``.

    Examples
    --------
    >>> is_pipe("-"), is_pipe("drive.mp4")
    (True, False)
    """
    if uri in STANDARD_INPUT:
        return True
    try:
        return stat.S_ISFIFO(os.stat(os.path.expanduser(uri)).st_mode)
    except (OSError, ValueError):  # no such file, or no possible name of one
        return False


def open_pipe(uri: str, start_s: float = 0.0, *, realtime: bool = False) -> Source:
    """Open a pipe through which a video comes.

    A pipe delivers every frame: a program that writes faster than the network works has to wait.

    Parameters
    ----------
    uri : ``-`` for the standard input, or the path of a named pipe.
    start_s : for a file as standard input: the first frame is the one at or after this time.
    realtime : drop frames instead of making the writer wait. For a camera's program at the other
        end.

    Raises
    ------
    InputError : nothing comes, or it is no video.
    """
    if uri not in STANDARD_INPUT:
        name = uri
        descriptor = os.open(os.path.expanduser(uri), os.O_RDONLY)
    else:
        name = "the standard input"
        descriptor = _standard_input()
        if stat.S_ISREG(os.fstat(descriptor).st_mode):  # edgeseg segment ENGINE - < drive.mp4
            os.close(descriptor)
            return open_video(Path("/dev/stdin"), start_s)

    pipe = _Pipe(descriptor)
    try:
        decoder = Decoder(pipe, name, low_delay=True)  # type: ignore[arg-type]
    except InputError as error:
        pipe.close()
        raise _not_a_video(name, pipe.received, error) from error

    timed = decoder.read()
    first = next(timed, None)
    if first is None:
        pipe.close()
        decoder.close()
        raise _unreadable(name, f"no whole frame of codec {decoder.codec}")

    def frames() -> Iterator[Frame]:
        for frame in numbered(itertools.chain([first], timed), decoder.fps):
            yield replace(frame, captured_s=time.perf_counter()) if realtime else frame

    def release() -> None:
        decoder.close()
        pipe.close()

    height, width = first[1].shape[:2]
    info = VideoInfo(width, height, decoder.fps, None, live=realtime)
    return _PipeSource(info, frames(), pipe, release)


class _Pipe:
    """Read a pipe for PyAV, such that another thread can end a read that waits.

    Parameters
    ----------
    descriptor : the pipe; it is closed here.

    Attributes
    ----------
    received : number of bytes that came so far.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._stopped = False
        self._is_open = True
        self.received = 0

    def read(self, most: int = _READ_BYTES) -> bytes:
        """Return what has come, at least a byte; nothing at the end.

        Parameters
        ----------
        most : the most bytes to return.
        """
        while not self._stopped:
            ready, _, _ = select.select([self._descriptor], [], [], _PATIENCE_S)
            if ready:
                data = os.read(self._descriptor, most)
                self.received += len(data)
                return data
        return b""

    def stop(self) -> None:
        """Make reads return nothing from now on; any thread may call this."""
        self._stopped = True

    def close(self) -> None:
        """Close the pipe, once nobody reads it."""
        self._stopped = True
        if self._is_open:
            self._is_open = False
            os.close(self._descriptor)


class _PipeSource(Source):
    """Close a pipe without waiting for its writer.

    Parameters
    ----------
    info, frames, release : as for ``Source``.
    pipe : what is read.
    """

    def __init__(
        self,
        info: VideoInfo,
        frames: Iterator[Frame],
        pipe: _Pipe,
        release: Callable[[], None],
    ) -> None:
        self._pipe = pipe
        super().__init__(info, frames, release=release)

    def close(self) -> None:
        """Stop reading and close the pipe."""
        self._pipe.stop()
        super().close()


def _standard_input() -> int:
    """Return a descriptor of the standard input; raise ``InputError`` if nothing is piped in."""
    try:
        descriptor = os.dup(0)
    except OSError as error:
        raise InputError(
            "the standard input is closed", hint="Pipe a video in: ffmpeg ... | edgeseg ..."
        ) from error
    if os.isatty(descriptor):
        os.close(descriptor)
        raise InputError(
            "the standard input is a terminal",
            expected="a video from a pipe",
            hint="For example: ffmpeg -i INPUT -f mpegts - | edgeseg segment ENGINE -",
        )
    return descriptor


def _not_a_video(name: str, received: int, error: InputError) -> InputError:
    """Return the error of a pipe that FFmpeg cannot read."""
    if not received:
        return InputError(
            f"{name}: ends before a video came",
            got="0 bytes",
            hint="Does the program at the other end fail?",
        )
    if "cannot be opened" not in error.what:
        return error
    return _unreadable(name, error.got)


def _unreadable(name: str, got: object) -> InputError:
    """Return the error of a pipe whose video cannot be read."""
    return InputError(
        f"{name}: what comes through the pipe cannot be read as a video",
        got=got,
        expected="a format that needs no seeking: mpegts, matroska, mjpeg, yuv4mpegpipe, "
        "fragmented mp4",
        hint="For example: ffmpeg -i INPUT -f mpegts -",
    )
