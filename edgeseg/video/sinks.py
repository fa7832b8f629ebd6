"""Write results to a video, a folder of masks, one picture, or a window.

A file sink shows nothing under its final name until the file is whole: it writes to a temporary
name in the same folder and renames on ``finish``; ``abort`` leaves nothing behind. A sink raises
its errors when it is constructed, as far as they can be known then.
"""

import os
import shutil
import socket
import sys
import tempfile
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import ClassVar

import cv2
import numpy as np

from edgeseg.errors import MissingDependencyError, OutputError
from edgeseg.files import atomic_path, require_writable, write_bytes
from edgeseg.imaging.postprocess import LabelMap, Picture, indexed_png
from edgeseg.spec import LabelSpace
from edgeseg.video.frames import Frame, VideoInfo
from edgeseg.video.sources import backend, quiet

DEFAULT_FPS = 15.0  # frame rate of sources without one, such as a folder of pictures

# Suffix -> codecs in order of preference. Browsers play H.264 (avc1) only, but OpenCV's wheels
# cannot encode it.
_CODECS = {".mp4": ("avc1", "mp4v"), ".avi": ("MJPG",)}

# Frames between two checks of the disk: cv2.VideoWriter does not report that a disk is full.
_DISK_CHECK_EVERY = 64
_DISK_MIN_BYTES = 1 << 20

_ESCAPE = 27  # key code


@dataclass(frozen=True, eq=False)
class Output:
    """Hold one frame's result.

    Attributes
    ----------
    frame : the frame.
    labels : (H, W) uint8 label ids.
    picture : (H, W, 3) uint8 BGR, the frame with the colours of its labels; None if no sink uses
        it.
    """

    frame: Frame
    labels: LabelMap
    picture: Picture | None


class Sink(ABC):
    """Take results in order, in the thread that calls ``segment``.

    After the last result the caller calls ``finish``, or ``abort`` after an error. Both may be
    called again: the second call does nothing.

    Attributes
    ----------
    needs_picture : True if ``write`` needs ``Output.picture``.
    closed : True once the user closed the sink; the pipeline then stops.
    path : the file or folder that the sink writes to, if there is one.

    Examples
    --------
    >>> class Names(Sink):
    ...     needs_picture = False
    ...     def write(self, output: Output) -> None:
    ...         print(output.frame.name)
    >>> frame = Frame(0, np.zeros((2, 2, 3), np.uint8), "first", timestamp_s=0.0)
    >>> with Names() as sink:
    ...     sink.write(Output(frame, np.zeros((2, 2), np.uint8), picture=None))
    first
    """

    needs_picture: ClassVar[bool] = True
    closed: bool = False
    path: Path | None = None

    @abstractmethod
    def write(self, output: Output) -> None:
        """Write one result.

        Parameters
        ----------
        output : the result; its ``picture`` is set if ``needs_picture`` is True.
        """

    def finish(self) -> None:  # noqa: B027 - a sink that keeps nothing has nothing to do
        """Give the output its final name.

        Raises
        ------
        OutputError : the output is not whole.
        """

    def abort(self) -> None:  # noqa: B027
        """Remove unfinished output; never raises."""

    def __enter__(self) -> "Sink":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.abort()


class _File:
    """Hold a temporary file until ``keep`` gives it its final name, or ``drop`` removes it.

    ``atomic_path`` does the same, but for a ``with`` block; a sink needs it in two calls.
    """

    def __init__(self, path: Path) -> None:
        self._block: AbstractContextManager[Path] | None = atomic_path(path)
        self.temporary = self._block.__enter__()

    @property
    def open(self) -> bool:
        """Return whether neither ``keep`` nor ``drop`` was called yet."""
        return self._block is not None

    def keep(self) -> None:
        """Give the file its final name."""
        block, self._block = self._block, None
        if block is not None:
            block.__exit__(None, None, None)

    def drop(self) -> None:
        """Remove the file."""
        block, self._block = self._block, None
        if block is not None:
            dropped = Exception("dropped")  # atomic_path then cleans up, and does not swallow it
            block.__exit__(Exception, dropped, None)


class VideoSink(Sink):
    """Write the pictures as a video with the size, the rate and the number of frames of the source.

    ``.mp4`` is H.264 if this OpenCV can encode it, otherwise MPEG-4 part 2; ``.avi`` is Motion
    JPEG. An mp4 has even sizes only: an odd size grows by one row or column, a copy of its
    neighbour. The video of a source without a frame rate gets 15 frames per second. A live source
    drops frames, so its pictures are repeated: the video keeps the clock's time.

    Parameters
    ----------
    path : the video to write, ``.mp4`` or ``.avi``.
    info : facts about the source: size, frame rate, live or not.

    Raises
    ------
    OutputError : at once for an unknown suffix or a folder that cannot be written; by ``write`` and
        ``finish`` for a picture of another size, a full disk, or a video that is not whole.
    """

    def __init__(self, path: str | Path, info: VideoInfo) -> None:
        self.path = Path(path)
        self._suffix = self.path.suffix.lower()
        if self._suffix not in _CODECS:
            raise OutputError(
                f"{self.path}: unknown kind of video",
                got=self._suffix or "no suffix",
                expected=" or ".join(_CODECS),
            )
        self._size = (info.width, info.height)
        self._fps = info.fps or DEFAULT_FPS
        self._live = info.live
        self._start_s = 0.0
        self._written = 0
        self._file = _File(self.path)
        try:
            self._writer = self._open_writer()
        except BaseException:
            self._file.drop()
            raise

    def _open_writer(self) -> cv2.VideoWriter:
        """Return a writer for the first codec that this OpenCV can encode."""
        width, height = self._size
        odd = bool(width % 2 or height % 2)

        # FFmpeg's writer cuts odd sizes down; OpenCV's own Motion JPEG writer keeps them.
        api = cv2.CAP_OPENCV_MJPEG if odd and self._suffix == ".avi" else cv2.CAP_ANY

        # An mp4 has even sizes only: rows and columns to add.
        self._pad = (height % 2, width % 2) if self._suffix == ".mp4" else (0, 0)
        size = (width + self._pad[1], height + self._pad[0])

        for codec in _CODECS[self._suffix]:
            if codec == "avc1" and not _has_h264():
                continue
            writer = _writer(self._file.temporary, codec, self._fps, size, api)
            if writer is not None:
                return writer

        raise OutputError(
            f"{self.path}: this OpenCV cannot encode it",
            got=f"{width}x{height} at {self._fps:g} frames a second",
            hint="Try .avi, or write masks to a folder.",
        )

    def write(self, output: Output) -> None:
        """Write one picture: once, or as often as the clock of a live source requires."""
        picture = output.picture
        frame = output.frame
        if picture is None:
            raise ValueError("VideoSink: needs a picture")
        if picture.shape[1::-1] != self._size:
            raise OutputError(
                f"{self.path}: a video has one size, and frame {frame.name} has another",
                got="{}x{}".format(*picture.shape[1::-1]),
                expected="{}x{}".format(*self._size),
                hint="Write masks to a folder instead, or bring the pictures to one size.",
            )

        # Grow odd sizes by copies of the last row and column.
        if any(self._pad):
            bottom, right = self._pad
            padded = cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
            picture = np.asarray(padded, np.uint8)

        for _ in range(self._due(frame) - self._written):
            self._writer.write(picture)
            self._written += 1
            if self._written % _DISK_CHECK_EVERY == 0:
                self._require_space()

    def _due(self, frame: Frame) -> int:
        """Return how many frames the video should have after ``frame`` is written."""
        if not self._live:
            return self._written + 1

        if self._written == 0:
            self._start_s = frame.timestamp_s
        elapsed_s = frame.timestamp_s - self._start_s
        return int(elapsed_s * self._fps + 0.5) + 1

    def _require_space(self) -> None:
        """Raise ``OutputError`` if the disk is full."""
        free = shutil.disk_usage(self._file.temporary.parent).free
        if free < _DISK_MIN_BYTES:
            raise OutputError(f"{self.path}: the disk is full", got=f"{free} bytes left")

    def finish(self) -> None:
        """Close the video, check that it is whole, and give it its final name."""
        if not self._file.open:
            return

        try:
            self._writer.release()
            if self._written:
                self._require_whole()
        except BaseException:
            self._file.drop()
            raise

        if self._written:
            self._file.keep()
        else:
            self._file.drop()  # without a single frame the file would be unreadable

    def _require_whole(self) -> None:
        """Raise ``OutputError`` unless the file has all frames and the first one can be read."""
        with quiet():
            capture = cv2.VideoCapture(str(self._file.temporary), backend(cv2.CAP_FFMPEG))
            frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
            readable = capture.isOpened() and capture.read()[0]
            capture.release()

        if frames != self._written or not readable:
            raise OutputError(
                f"{self.path}: the written video is not whole",
                got=f"{frames if readable else 'no'} readable frames",
                expected=self._written,
                hint="Is the disk full?",
            )

    def abort(self) -> None:
        """Remove the unfinished video."""
        if self._file.open:
            self._writer.release()
            self._file.drop()


class ImageFolderSink(Sink):
    """Write one mask per frame: a palette PNG, ``NAME.png`` after the frame's name.

    The indices of the PNG are the label ids. Each file is written atomically, so the masks of a
    run that fails later stay: each of them is whole.

    Parameters
    ----------
    folder : the folder for the masks; it need not exist.
    labels : gives the palette.

    Raises
    ------
    OutputError : the folder cannot be written.
    """

    needs_picture: ClassVar[bool] = False

    def __init__(self, folder: str | Path, labels: LabelSpace) -> None:
        self.path: Path = Path(folder)
        self._labels = labels
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path}: is a file", expected="a folder for the masks")
        require_writable(self.path / "mask.png")

    def write(self, output: Output) -> None:
        """Write the mask of one frame."""
        path = self.path / f"{output.frame.name}.png"
        write_bytes(path, indexed_png(output.labels, self._labels))


class PictureSink(Sink):
    """Write the picture of a source that has a single frame.

    Parameters
    ----------
    path : the picture to write; its suffix names the format, such as ``.png`` or ``.jpg``.

    Raises
    ------
    OutputError : at once for an unknown suffix or a path that cannot be written; by ``write`` for a
        second frame.
    """

    def __init__(self, path: str | Path) -> None:
        self.path: Path = Path(path)
        if not self.path.suffix or not cv2.haveImageWriter(str(self.path)):
            raise OutputError(
                f"{self.path}: unknown kind of picture",
                got=self.path.suffix or "no suffix",
                expected=".png or .jpg",
            )
        require_writable(self.path)
        self._picture: Picture | None = None

    def write(self, output: Output) -> None:
        """Remember the picture; ``finish`` writes it."""
        if self._picture is not None:
            raise OutputError(
                f"{self.path}: one picture cannot hold a source of several frames",
                hint="Give a video, such as out.mp4.",
            )
        self._picture = output.picture

    def finish(self) -> None:
        """Encode the picture and write it."""
        picture, self._picture = self._picture, None
        if picture is not None:
            encoded = cv2.imencode(self.path.suffix, picture)[1]
            write_bytes(self.path, encoded.tobytes())

    def abort(self) -> None:
        """Forget the picture."""
        self._picture = None


class WindowSink(Sink):
    """Show the pictures in a window; ``q``, Esc or its close button stops the pipeline.

    Parameters
    ----------
    title : title of the window.

    Raises
    ------
    OutputError : there is no display.
    MissingDependencyError : this OpenCV was built without windows.
    """

    def __init__(self, title: str = "edgeseg") -> None:
        _require_display()
        self._title = title
        try:
            with quiet():
                cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        except cv2.error as error:
            raise MissingDependencyError(
                "this OpenCV was built without windows",
                hint="pip uninstall opencv-python-headless; pip install opencv-python",
            ) from error
        self._sized = False

    def write(self, output: Output) -> None:
        """Show one picture, and note if the user closed the window."""
        if output.picture is None:
            raise ValueError("WindowSink: needs a picture")

        # The first picture gives the window its size.
        if not self._sized:
            height, width = output.picture.shape[:2]
            cv2.resizeWindow(self._title, width, height)
            self._sized = True

        cv2.imshow(self._title, output.picture)
        key = cv2.waitKey(1) & 0xFF
        gone = cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1
        self.closed = self.closed or gone or key in (ord("q"), _ESCAPE)

    def finish(self) -> None:
        """Close the window."""
        with quiet():
            try:
                cv2.destroyWindow(self._title)
            except cv2.error:  # the user closed it before
                return

    def abort(self) -> None:
        """Close the window."""
        self.finish()


def _writer(
    path: Path, codec: str, fps: float, size: tuple[int, int], api: int = cv2.CAP_ANY
) -> cv2.VideoWriter | None:
    """Return an opened writer, or None if this OpenCV cannot open one."""
    with quiet():
        try:
            writer = cv2.VideoWriter(str(path), api, cv2.VideoWriter.fourcc(*codec), fps, size)
        except cv2.error:
            return None
        return writer if writer.isOpened() else None


@cache
def _has_h264() -> bool:
    """Return whether OpenCV can really encode H.264, found by writing and reading three frames.

    Opening a writer proves nothing: hardware encoders may open, and then write nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.mp4"
        writer = _writer(path, "avc1", DEFAULT_FPS, (128, 128))
        if writer is None:
            return False

        for level in (0, 128, 255):
            writer.write(np.full((128, 128, 3), level, np.uint8))
        writer.release()

        frames = 0
        with quiet():
            capture = cv2.VideoCapture(str(path), backend(cv2.CAP_FFMPEG))
            for _ in range(3):
                if capture.isOpened() and capture.read()[0]:
                    frames += 1
            capture.release()
        return frames == 3


def _require_display() -> None:
    """Raise ``OutputError`` if there is no display: Qt would end the whole process instead."""
    if sys.platform != "linux" or os.environ.get("WAYLAND_DISPLAY"):
        return

    display = os.environ.get("DISPLAY", "")
    if not display or (display.startswith(":") and not _x_server_answers(display)):
        raise OutputError(
            "no display to open a window on",
            got=f"DISPLAY={display}" if display else "neither DISPLAY nor WAYLAND_DISPLAY set",
            hint="Write a video instead, or connect with: ssh -X",
        )


def _x_server_answers(display: str) -> bool:
    """Return whether a local X server accepts connections for ``display``, such as ``:0``."""
    path = f"/tmp/.X11-unix/X{display[1:].split('.')[0]}"
    for address in (path, "\0" + path):  # the second is Linux's abstract name
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            if server.connect_ex(address) == 0:
                return True
    return False
