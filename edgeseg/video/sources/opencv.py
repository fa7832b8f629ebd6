"""Call the readers of OpenCV: without its noise, and with frames as BGR."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

# FFmpeg bypasses OpenCV's logger and writes to the terminal. It reads this variable once. The
# InputErrors of this package report the same problems.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy.typing as npt

from edgeseg.errors import InputError
from edgeseg.imaging.nv12 import Nv12
from edgeseg.types import Image
from edgeseg.video.frames import VideoInfo
from edgeseg.video.gstreamer import to_bgr

_quiet_lock = threading.Lock()
_quiet_depth = 0
_loud_level = 0

# A container without a frame rate reports its time base instead, such as 90000.
_FPS_LIMIT = 1000.0


@contextmanager
def quiet() -> Iterator[None]:
    """Keep OpenCV's warnings off the terminal inside the block.

    The errors of this package report the same problems in plain words. The log level belongs to the
    process, so nested and concurrent uses are counted, and the last one to leave restores the
    level.

    Examples
    --------
    >>> with quiet():
    ...     cv2.imread("no such picture.png") is None
    True
    """
    global _quiet_depth, _loud_level
    with _quiet_lock:
        if _quiet_depth == 0:
            _loud_level = _set_log_level(0)
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                _set_log_level(_loud_level)


def _set_log_level(level: int) -> int:
    """Set OpenCV's log level, and return the level before; OpenCV 5 moved the function."""
    module: Any = cv2
    logging = module if hasattr(cv2, "setLogLevel") else module.utils.logging
    return int(logging.setLogLevel(level))


def backend(preferred: int) -> int:
    """Return a video backend that this OpenCV has.

    Parameters
    ----------
    preferred : a constant of OpenCV, such as ``cv2.CAP_FFMPEG``.

    Returns
    -------
    ``preferred`` if this OpenCV has it, else ``cv2.CAP_ANY``, which lets OpenCV choose.
    """
    return preferred if cv2.videoio_registry.hasBackend(preferred) else cv2.CAP_ANY


def open_capture(uri: str | int, api: int, settings: Sequence[int] = ()) -> cv2.VideoCapture | None:
    """Return an opened capture, or None if ``uri`` cannot be opened."""
    with quiet():
        try:
            capture = (
                cv2.VideoCapture(uri, api, settings) if settings else cv2.VideoCapture(uri, api)
            )
        except cv2.error:
            return None

        if capture.isOpened():
            return capture
        capture.release()
        return None


def first_frame(capture: cv2.VideoCapture, error: InputError) -> npt.NDArray[Any]:
    """Read the first frame, as OpenCV hands it over; raise ``error`` if there is none.

    Only this frame shows the true size (phone clips may be rotated), and that there is a decoder.
    """
    with quiet():
        try:
            got, image = capture.read()
        except cv2.error:  # a format that this OpenCV cannot hand over
            got, image = False, None
    if not got or image is None:
        capture.release()
        raise error
    return image


def bgr(image: npt.NDArray[Any]) -> Image:
    """Convert a frame of a file, a camera or a stream to (H, W, 3) BGR.

    It is BGR with or without a fourth channel, or grey.
    """
    channels = 1 if image.ndim == 2 else image.shape[2]
    layout = {1: "GRAY8", 4: "BGRA"}.get(channels, "BGR")
    return to_bgr(image, layout)


def nv12(buffer: npt.NDArray[Any]) -> Nv12:
    """Wrap a frame of a capture, (H * 3 / 2, W), without conversion.

    The colour matrix is the default of ``Nv12``, which is also the one that OpenCV uses.
    """
    return Nv12.from_buffer(buffer.reshape(buffer.shape[:2]))


def video_info(capture: cv2.VideoCapture, image: Image, *, live: bool) -> VideoInfo:
    """Return the facts of a capture whose first frame is ``image``; ignore impossible values."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    frames = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return VideoInfo(
        width=image.shape[1],
        height=image.shape[0],
        fps=fps if 0 < fps < _FPS_LIMIT else None,
        frames=int(frames) if not live and 0 < frames < 2**31 else None,
        live=live,
    )
