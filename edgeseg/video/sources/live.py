"""Open what gives frames for ever: cameras, network streams, GStreamer pipelines."""

import math
import os
import re
import sys
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2

from edgeseg.errors import InputError, MissingDependencyError
from edgeseg.video.addresses import is_listening
from edgeseg.video.frames import Source
from edgeseg.video.gstreamer import missing_part
from edgeseg.video.redact import redacted
from edgeseg.video.sources.captures import CaptureCamera
from edgeseg.video.sources.network import StreamCamera
from edgeseg.video.sources.opencv import backend, open_capture
from edgeseg.video.sources.pictures import natural_key
from edgeseg.video.sources.reconnect import (
    Camera,
    LiveOptions,
    LiveSource,
    NoSignalError,
    connect_first,
)
from edgeseg.video.sources.recorded import open_recording

__all__ = ["CameraSettings", "LiveOptions", "open_camera", "open_gstreamer", "open_stream"]

# Buffers of a V4L2 camera: one that the camera fills while the frame of the other is decoded. One
# alone halves the rate of many cameras, and frames that wait in more are old.
_BUFFERS = 2

# OpenCV reads it once, before the first frame of the first camera: whole seconds.
_V4L2_TIMEOUT = "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"

# Time limit to open a GStreamer pipeline; OpenCV's own is 30 s.
_OPEN_TIMEOUT_MS = 8000

# Parts of a pipeline that has an end.
_FINITE = re.compile(r"\bnum-buffers=[1-9]|\b(?:multi)?filesrc\b|\bfile://")

_DEFAULT = LiveOptions()


@dataclass(frozen=True)
class CameraSettings:
    """Say which format a camera should give; what is None is left to the camera.

    Attributes
    ----------
    size : (width, height) in pixels.
    fps : frames per second.
    format : four characters of V4L2, such as ``MJPG`` or ``YUYV``.

    Examples
    --------
    >>> CameraSettings(size=(1280, 720), format="MJPG").fps is None
    True
    """

    size: tuple[int, int] | None = None
    fps: float | None = None
    format: str | None = None


def open_camera(
    uri: str, settings: CameraSettings | None = None, live: LiveOptions = _DEFAULT
) -> Source:
    """Open a camera by its number or its device.

    Parameters
    ----------
    uri : the number, such as ``0``, or the device, such as ``/dev/video0``.
    settings : the format to ask for.
    live : what to do if the camera gives no frames.

    Raises
    ------
    InputError : there is no such camera, or it gives no frames in that format.
    """
    device = Path(f"/dev/video{uri}" if uri.isdigit() else uri)
    is_linux = sys.platform == "linux"
    if is_linux:
        os.environ.setdefault(_V4L2_TIMEOUT, str(math.ceil(live.stall_s)))

    def connect() -> Camera:
        if is_linux:
            _require_device(device)
        return _connect_camera(uri, settings or CameraSettings())

    camera = connect_first(connect, live)
    is_present = device.exists if is_linux else None
    return LiveSource(camera, connect, live, is_present=is_present)


def _connect_camera(uri: str, settings: CameraSettings) -> CaptureCamera:
    """Open a camera, set its format, and read a frame."""
    api = backend(cv2.CAP_V4L2) if sys.platform == "linux" else cv2.CAP_ANY
    busy = NoSignalError(
        f"camera {uri}: gives no frames",
        reason="gives no frames",
        hint="Is another program using it? One camera often has several numbers: try the next.",
    )
    capture = open_capture(int(uri) if uri.isdigit() else uri, api)
    if capture is None:
        raise busy

    # The format first: a camera has other sizes and rates in each.
    if settings.format is not None:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*settings.format))
    if settings.size is not None:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, settings.size[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, settings.size[1])
    if settings.fps is not None:
        capture.set(cv2.CAP_PROP_FPS, settings.fps)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, _BUFFERS)
    return CaptureCamera(capture, busy, has_stamps=api == cv2.CAP_V4L2)


def _require_device(device: Path) -> None:
    """Raise ``InputError`` unless the device of a camera exists and may be used."""
    if not device.exists():
        found = sorted(Path("/dev").glob("video*"), key=natural_key)
        raise NoSignalError(
            f"camera {device}: no such device",
            reason="no such device",
            got=f"only {', '.join(map(str, found))}" if found else "no camera at all",
            hint="Plug it in (in a container: pass it with --device), or give a video file.",
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise InputError(
            f"camera {device}: no permission", hint="Join its group: sudo usermod -aG video $USER"
        )


def open_stream(uri: str, live: LiveOptions = _DEFAULT) -> Source:
    """Open a network address: a live stream, or a recording on a web server.

    Parameters
    ----------
    uri : the address; it may have a user and a password.
    live : what to do if the stream gives no frames.

    Raises
    ------
    InputError : it cannot be opened. The error has the server's reason.
    """
    address = redacted(uri)

    def connect() -> StreamCamera:
        return StreamCamera(uri, address, live.stall_s)

    def connect_again() -> StreamCamera:
        return StreamCamera(uri, address, live.stall_s, knows_rate=True)

    camera = connect_first(connect, live)
    if isinstance(camera, StreamCamera) and camera.is_recording:
        # It has an end: it is a file, and every frame counts.
        camera.close()
        return open_recording(uri, address)
    is_present = partial(is_listening, uri) if uri.startswith("rtsp://") else None
    return LiveSource(camera, connect_again, live, is_present=is_present)


def open_gstreamer(pipeline: str, live: LiveOptions = _DEFAULT) -> Source:
    """Open a GStreamer pipeline as a live source.

    Parameters
    ----------
    pipeline : the pipeline, as for ``gst-launch-1.0``, with ``appsink`` at its end.
    live : what to do if the pipeline gives no frames. A pipeline that reads a file or a number of
        frames has an end, and is not started again.

    Raises
    ------
    InputError : it gives no frames, or frames of a format that cannot be used.
    MissingDependencyError : this OpenCV has no GStreamer.
    """
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise MissingDependencyError(
            "this OpenCV has no GStreamer, so it cannot run a pipeline",
            got=f"OpenCV {cv2.__version__} from pip",
            hint="On Jetson use the system's OpenCV (apt install python3-opencv; venv with "
            "--system-site-packages).",
        )

    hands_on_nv12 = threading.Event()

    def connect() -> CaptureCamera:
        return _connect_pipeline(pipeline, live.stall_s, hands_on_nv12)

    camera = connect_first(connect, live)
    is_nv12 = isinstance(camera, CaptureCamera) and camera.layout == "NV12"
    hand_on = hands_on_nv12.set if is_nv12 else lambda: None
    return LiveSource(camera, connect, live, hand_on_nv12=hand_on)


def _connect_pipeline(
    pipeline: str, stall_s: float, hands_on_nv12: threading.Event
) -> CaptureCamera:
    """Start a pipeline and read a frame."""
    what = "the GStreamer pipeline gives no frames"
    hint = "Try it with gst-launch-1.0 and fakesink at its end."
    limits = (
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        _OPEN_TIMEOUT_MS,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        round(stall_s * 1e3),
    )
    # An older OpenCV does not know these limits.
    capture = open_capture(pipeline, cv2.CAP_GSTREAMER, limits)
    if capture is None:
        capture = open_capture(pipeline, cv2.CAP_GSTREAMER)
    if capture is None:
        reason = missing_part(pipeline)
        if reason:
            raise NoSignalError(what, reason=reason, got=reason, hint=hint)
    broken = NoSignalError(
        what,
        reason="no frames",
        got=repr(redacted(pipeline)),
        expected="one that ends in: video/x-raw,format=NV12 ! appsink (or BGR, BGRx, GRAY8, "
        "I420, YUY2, ...)",
        hint=hint,
    )
    if capture is None:
        raise broken
    return CaptureCamera(
        capture,
        broken,
        pipeline=pipeline,
        hands_on_nv12=hands_on_nv12,
        ends=_FINITE.search(pipeline) is not None,
    )
