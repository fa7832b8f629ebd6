"""Define what a sink is; write results to a folder of masks, one picture, or a window.

A file sink shows nothing under its final name until the file is whole: it writes to a temporary
name in the same folder and renames on ``finish``; ``abort`` leaves nothing behind. A sink raises
its errors when it is constructed, as far as they can be known then. ``video_sink`` has the sink
that writes a video.
"""

import os
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import ClassVar

import cv2

from edgeseg.errors import MissingDependencyError, OutputError
from edgeseg.files import require_writable, write_bytes
from edgeseg.imaging.postprocess import LabelMap, Picture, indexed_png
from edgeseg.spec import LabelSpace
from edgeseg.video.frames import Frame
from edgeseg.video.sources.opencv import quiet
from edgeseg.video.status import Status

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
    others : label maps of further engines on the same frame, by the engine's name.
    status : facts about the run at this moment, such as the frame's age.
    """

    frame: Frame
    labels: LabelMap
    picture: Picture | None
    others: Mapping[str, LabelMap] = field(default_factory=dict)
    status: Status = field(default_factory=Status)


class Sink(ABC):
    """Take results in order, in the thread that calls ``segment``.

    After the last result the caller calls ``finish``, or ``abort`` after an error. Both may be
    called again: the second call does nothing.

    Attributes
    ----------
    needs_picture : True if ``write`` needs ``Output.picture``.
    closed : True once the user closed the sink; the pipeline then stops.
    wanted_engines : names of the further engines whose labels the sink needs now. The pipeline
        looks at it before each frame, from another thread.
    path : the file or folder that the sink writes to, if there is one.

    Examples
    --------
    >>> class Names(Sink):
    ...     needs_picture = False
    ...     def write(self, output: Output) -> None:
    ...         print(output.frame.name)
    >>> import numpy as np
    >>> frame = Frame(0, np.zeros((2, 2, 3), np.uint8), "first", timestamp_s=0.0)
    >>> with Names() as sink:
    ...     sink.write(Output(frame, np.zeros((2, 2), np.uint8), picture=None))
    first
    """

    needs_picture: ClassVar[bool] = True
    closed: bool = False
    wanted_engines: frozenset[str] = frozenset()
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
        """Write the mask of one frame; a frame that a lost camera repeats has none."""
        if output.frame.lost_s is not None:
            return
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
