"""Read cameras and pipelines through OpenCV: as BGR or NV12, with the camera's own times."""

import threading
import time
from typing import Any

import cv2
import numpy.typing as npt

from edgeseg.errors import InputError
from edgeseg.imaging.nv12 import Nv12
from edgeseg.types import Image
from edgeseg.video.frames import VideoInfo
from edgeseg.video.gstreamer import frame_layout, to_bgr
from edgeseg.video.sources.opencv import bgr, first_frame, nv12, quiet, video_info
from edgeseg.video.sources.reconnect import CameraEnded, Grab, SignalLost

# A stamp of the driver is believed if it lies this near before now, seconds.
_OLDEST_STAMP_S = 5.0

# A read that fails later than this waited for a frame in vain, seconds.
_WAITED_S = 0.9


class CaptureCamera:
    """Read frames from an opened capture of OpenCV.

    Parameters
    ----------
    capture : the capture. It is released here if it gives no usable frame.
    error : what to raise if it gives none.
    pipeline : the GStreamer pipeline, if it is one: it tells the format of the frames.
    hands_on_nv12 : while it is set, frames of the format NV12 are not converted.
    has_stamps : the driver stamps frames: V4L2.
    ends : the pipeline has an end, such as that of a file. Else it is lost if it ends.

    Raises
    ------
    InputError : the capture gives no frame, or one of a format that cannot be used.
    """

    def __init__(
        self,
        capture: cv2.VideoCapture,
        error: InputError,
        *,
        pipeline: str = "",
        hands_on_nv12: threading.Event | None = None,
        has_stamps: bool = False,
        ends: bool = False,
    ) -> None:
        self._capture = capture
        self._hands_on_nv12 = hands_on_nv12
        self._has_stamps = has_stamps
        self._ends = ends

        raw = first_frame(capture, error)
        captured_s = self._captured_s()
        self.layout = ""
        if pipeline:
            height = round(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
            try:
                self.layout = frame_layout(raw, height, pipeline)
            except InputError:
                capture.release()
                raise

        image = self._to_bgr(raw)
        self._info = video_info(capture, image, live=True)
        self._first: Grab | None = Grab(image, captured_s)

    @property
    def info(self) -> VideoInfo:
        """Return the facts of the capture."""
        return self._info

    def read(self) -> Grab:
        """Return the next frame; the one that was read at the start comes first."""
        first, self._first = self._first, None
        if first is not None:
            return first

        start_s = time.perf_counter()
        raw = self._next()
        if raw is None:
            raise self._why(time.perf_counter() - start_s)

        captured_s = self._captured_s()
        hands_on = self._hands_on_nv12 is not None and self._hands_on_nv12.is_set()
        pixels: Image | Nv12 = nv12(raw) if hands_on else self._to_bgr(raw)
        return Grab(pixels, captured_s)

    def _next(self) -> npt.NDArray[Any] | None:
        """Return the next frame as OpenCV hands it over; None if there is none."""
        with quiet():
            try:
                got, raw = self._capture.read()
            except cv2.error:
                return None
        return raw if got else None

    def _why(self, waited_s: float) -> Exception:
        """Return the exception of a read that gave nothing after some seconds."""
        if waited_s > _WAITED_S:
            return SignalLost(f"no frame for {waited_s:.0f} s")
        return CameraEnded() if self._ends else SignalLost("it ended")

    def _to_bgr(self, raw: npt.NDArray[Any]) -> Image:
        """Convert a frame to BGR."""
        return to_bgr(raw, self.layout) if self.layout else bgr(raw)

    def _captured_s(self) -> float:
        """Return when the frame was taken: the driver's stamp if it can be believed, else now."""
        now_s = time.perf_counter()
        if not self._has_stamps:
            return now_s
        stamp_s = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1e3
        return stamp_s if 0 <= now_s - stamp_s < _OLDEST_STAMP_S else now_s

    def close(self) -> None:
        """Release the capture."""
        with quiet():
            self._capture.release()
