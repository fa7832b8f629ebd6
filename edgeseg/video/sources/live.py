"""Open what gives frames for ever: cameras, network streams, GStreamer pipelines."""

import itertools
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy.typing as npt

from edgeseg.errors import InputError, MissingDependencyError
from edgeseg.imaging.nv12 import Nv12
from edgeseg.types import Image
from edgeseg.video.addresses import failure_reason
from edgeseg.video.containers import Container
from edgeseg.video.frames import Frame, Source
from edgeseg.video.gstreamer import frame_layout, missing_part, to_bgr
from edgeseg.video.sources.opencv import backend, bgr, first_frame, nv12, open_capture, video_info
from edgeseg.video.sources.pictures import natural_key
from edgeseg.video.sources.recorded import recorded, undecodable

# Timeouts of network streams; FFmpeg's own default is 30 s.
_OPEN_TIMEOUT_MS = 8000
_READ_TIMEOUT_MS = 8000


def _live(capture: cv2.VideoCapture, error: InputError, pipeline: str = "") -> Source:
    """Return the source of a camera, a stream or a GStreamer pipeline.

    Raises ``error`` if it delivers no frame.
    """
    raw = first_frame(capture, error)
    layout = ""
    if pipeline:
        height = round(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        try:
            layout = frame_layout(raw, height, pipeline)
        except InputError:
            capture.release()
            raise

    def converted(image: npt.NDArray[Any]) -> Image:
        return to_bgr(image, layout) if layout else bgr(image)

    first = converted(raw)
    start = time.perf_counter()
    hands_on_nv12 = threading.Event()

    def frames() -> Iterator[Frame]:
        yield Frame(0, first, "000000", 0.0)
        for index in itertools.count(1):
            got, image = capture.read()
            if not got or image is None:
                return  # unplugged or switched off: the recording so far is kept
            pixels: Image | Nv12 = nv12(image) if hands_on_nv12.is_set() else converted(image)
            yield Frame(index, pixels, f"{index:06d}", time.perf_counter() - start)

    return Source(
        video_info(capture, first, live=True),
        frames(),
        release=capture.release,
        hand_on_nv12=hands_on_nv12.set if layout == "NV12" else lambda: None,
    )


def open_camera(uri: str) -> Source:
    """Open a camera by its number or its device."""
    device = Path(f"/dev/video{uri}" if uri.isdigit() else uri)
    linux = sys.platform == "linux"
    if linux:
        _require_device(device)

    api = backend(cv2.CAP_V4L2) if linux else cv2.CAP_ANY
    capture = open_capture(int(uri) if uri.isdigit() else uri, api)

    busy = InputError(
        f"camera {uri}: gives no frames",
        hint="Is another program using it? One camera often has several numbers: try the next.",
    )
    if capture is None:
        raise busy

    # A frame that waits in the driver's buffer is lag.
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return _live(capture, busy)


def _require_device(device: Path) -> None:
    """Raise ``InputError`` unless the device of a camera exists and may be used."""
    if not device.exists():
        found = sorted(Path("/dev").glob("video*"), key=natural_key)
        raise InputError(
            f"camera {device}: no such device",
            got=f"only {', '.join(map(str, found))}" if found else "no camera at all",
            hint="Plug it in (in a container: pass it with --device), or give a video file.",
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise InputError(
            f"camera {device}: no permission", hint="Join its group: sudo usermod -aG video $USER"
        )


def open_stream(uri: str) -> Source:
    """Open a network address: a live stream, or a recording on a web server."""
    settings = (
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        _OPEN_TIMEOUT_MS,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        _READ_TIMEOUT_MS,
    )
    api = backend(cv2.CAP_FFMPEG)
    capture = open_capture(uri, api, settings if api == cv2.CAP_FFMPEG else ())

    address = re.sub(r"//[^/@]*@", "//", uri)  # no password in messages
    what = f"{address}: cannot be opened as a video stream"
    hint = f"Does it play with: ffplay {address}"
    if capture is None:
        raise InputError(what, got=failure_reason(uri), hint=hint)
    silent = InputError(what, got="no frame", hint=hint)

    if not uri.startswith("rtsp") and capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0:
        # A recording on a web server has an end: it is a file, and every frame counts.
        first = bgr(first_frame(capture, undecodable(capture, address)))
        return recorded(capture, first, Container(size=0), address, None)
    return _live(capture, silent)


def open_gstreamer(pipeline: str) -> Source:
    """Open a GStreamer pipeline as a live source."""
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise MissingDependencyError(
            "this OpenCV has no GStreamer, so it cannot run a pipeline",
            got=f"OpenCV {cv2.__version__} from pip",
            hint="On Jetson use the system's OpenCV (apt install python3-opencv; venv with "
            "--system-site-packages).",
        )

    what = "the GStreamer pipeline gives no frames"
    expected = (
        "one that ends in: video/x-raw,format=NV12 ! appsink (or BGR, BGRx, GRAY8, I420, YUY2, ...)"
    )
    hint = "Try it with gst-launch-1.0 and fakesink at its end."
    broken = InputError(what, got=repr(pipeline), expected=expected, hint=hint)

    capture = open_capture(pipeline, cv2.CAP_GSTREAMER)
    if capture is None:
        reason = missing_part(pipeline)
        raise InputError(what, got=reason, hint=hint) if reason else broken
    return _live(capture, broken, pipeline)
