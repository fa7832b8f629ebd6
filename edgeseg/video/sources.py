"""Where frames come from: video files, cameras, streams, pictures, the synthetic drive.

Every source reads in its own thread, so that reading overlaps the network. A file gives every frame, in order. A live
source gives the newest frame and drops the ones nobody took: a frame that waits in a buffer is lag.
"""

import itertools
import math
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

# FFmpeg writes to the terminal past OpenCV's logger and reads this once; what it would say, an InputError says instead.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.errors import InputError, MissingDependencyError
from edgeseg.nv12 import Nv12
from edgeseg.video.containers import Container, early_end, inspect
from edgeseg.video.frames import Frame, Source, VideoInfo

Image = npt.NDArray[np.uint8]

PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})

_OPEN_TIMEOUT_MS, _READ_TIMEOUT_MS = 8000, 8000  # of network streams; FFmpeg's own default is 30 s
_FPS_LIMIT = 1000.0  # containers without a frame rate report their time base (90000, say)


def open_source(uri: str) -> Source:
    """Open a source of frames.

    Parameters
    ----------
    uri : a video file, a picture, a folder of pictures (in natural order: 2 before 10), a camera's number (``"0"``) or
        device (``"/dev/video0"``), a stream (``rtsp://``, ``http://``, ...), a GStreamer pipeline (it has `` ! `` in
        it), or ``synthetic://...``.

    Returns
    -------
    A ``Source`` whose first frame could be read. Iterating it raises ``InputError`` where a file breaks half-way, after
    the frames that could be read.

    Raises
    ------
    InputError : nothing there, or nothing that can be read. MissingDependencyError : an OpenCV without GStreamer.
    """
    if " ! " in uri:
        return _open_gstreamer(uri)
    if uri.startswith("synthetic:"):
        return _open_synthetic(uri)
    if "://" in uri and not uri.startswith("file://"):
        return _open_stream(uri)
    if re.fullmatch(r"[0-9]+", uri) or uri.startswith("/dev/video"):
        return _open_camera(uri)
    if not uri:
        raise InputError("no source given", expected="a video, a picture, a folder, a camera's number or an address")
    path = Path(os.path.expanduser(uri.removeprefix("file://")))
    if path.is_dir():
        return _open_folder(path)
    if not path.is_file():
        raise InputError(
            f"{path}: no such video, picture or folder",
            hint='Cameras are numbers ("0"), streams start with rtsp:// or http://.',
        )
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return _source_of_pictures([path], path)
    return _open_video(path)


_quiet_lock = threading.Lock()
_quiet_depth = 0
_loud_level = 0


@contextmanager
def quiet() -> Iterator[None]:
    """Keep OpenCV's warnings off the terminal: the errors raised here say the same in plain words.

    The level is the process's, so nested and concurrent uses are counted, and the last one out restores it.
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
    """Set OpenCV's log level, give back the one before; OpenCV 5 moved the function."""
    module: Any = cv2
    return int(module.setLogLevel(level) if hasattr(cv2, "setLogLevel") else module.utils.logging.setLogLevel(level))


def backend(preferred: int) -> int:
    """``preferred`` where this OpenCV has it, otherwise its own choice."""
    return preferred if cv2.videoio_registry.hasBackend(preferred) else cv2.CAP_ANY


def _capture(uri: str | int, api: int, settings: Sequence[int] = ()) -> cv2.VideoCapture | None:
    """An opened capture, or None."""
    with quiet():
        try:
            capture = cv2.VideoCapture(uri, api, settings) if settings else cv2.VideoCapture(uri, api)
        except cv2.error:
            return None
        if capture.isOpened():
            return capture
        capture.release()
        return None


def _first_frame(capture: cv2.VideoCapture, error: InputError, layout: str = "") -> Image:
    """The first frame, read now: it alone shows the true size (rotated phone clips) and that there is a decoder."""
    with quiet():
        got, image = capture.read()
    if not got or image is None:
        capture.release()
        raise error
    return _bgr(image, layout)


# What OpenCV hands on as a GStreamer pipeline gives it: taken, so that a pipeline needs no videoconvert at its end.
_LAYOUTS = {
    "NV12": cv2.COLOR_YUV2BGR_NV12, "NV21": cv2.COLOR_YUV2BGR_NV21, "I420": cv2.COLOR_YUV2BGR_I420,
    "YV12": cv2.COLOR_YUV2BGR_YV12, "YUY2": cv2.COLOR_YUV2BGR_YUY2, "UYVY": cv2.COLOR_YUV2BGR_UYVY,
}  # fmt: skip


def _bgr(image: npt.NDArray[Any], layout: str = "") -> Image:
    """A frame as a capture gives it, of one of ``_LAYOUTS``, or grey, or with a fourth channel -> (H, W, 3) BGR."""
    code = _LAYOUTS.get(layout)
    if code is None:
        channels = 1 if image.ndim == 2 else image.shape[2]
        code = {1: cv2.COLOR_GRAY2BGR, 4: cv2.COLOR_BGRA2BGR}.get(channels)
    return np.asarray(image if code is None else cv2.cvtColor(image, code), np.uint8)


def _nv12(buffer: npt.NDArray[Any]) -> Nv12:
    """The same without converting: (H * 3 / 2, W) as OpenCV gives it, by the matrix that OpenCV converts by."""
    return Nv12.from_buffer(buffer.reshape(buffer.shape[:2]))


def layout_of(pipeline: str) -> str:
    """The last format that a GStreamer pipeline names, such as ``NV12``; ``""`` where it names none."""
    found = re.findall(r"format\s*=\s*(?:\(string\)\s*)?\"?(\w+)", pipeline)
    return found[-1] if found else ""


def _info(capture: cv2.VideoCapture, image: Image, *, live: bool) -> VideoInfo:
    fps, frames = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return VideoInfo(
        width=image.shape[1],
        height=image.shape[0],
        fps=fps if 0 < fps < _FPS_LIMIT else None,
        frames=int(frames) if not live and 0 < frames < 2**31 else None,
        live=live,
    )


def _open_video(path: Path) -> Source:
    cannot = InputError(
        f"{path}: cannot be opened as a video",
        expected="a whole mp4, avi, mkv, ... (a file cut short while copying or recording lacks its index)",
        hint="Copy it again, or check it with: ffprobe FILE",
    )
    try:
        container = inspect(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read", got=error.strerror) from error
    capture = _capture(str(path), backend(cv2.CAP_FFMPEG))
    if capture is None:
        raise cannot
    return _recorded(capture, _first_frame(capture, cannot), container, str(path), path)


def _recorded(capture: cv2.VideoCapture, first: Image, container: Container, name: str, path: Path | None) -> Source:
    """A finite video: every frame, and an error at its end where it ended too early."""
    info = _info(capture, first, live=False)
    counted = info.frames
    if counted is not None:
        info = replace(info, frames=max(1, round(counted * container.shown_share)))

    def frames() -> Iterator[Frame]:
        count, last_s, gap_s = 0, 0.0, 0.0
        for frame in _numbered(capture, first, info.fps):
            gap_s = max(gap_s, frame.timestamp_s - last_s)
            count, last_s = count + 1, frame.timestamp_s
            yield frame
        problem = early_end(container, count, counted, info.fps, last_s, gap_s)
        if problem:
            raise InputError(f"{name}: {problem}", hint="Copy or record it again, or repair it with ffmpeg.")

    return Source(info, frames(), path, capture.release)


def _numbered(capture: cv2.VideoCapture, first: Image, fps: float | None) -> Iterator[Frame]:
    """The frames of a file; timestamps are the container's, or the rate's where it has none."""
    index, image, last_s = 0, first, -1.0
    while True:
        timestamp_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        if not last_s < timestamp_s < math.inf:
            timestamp_s = last_s + 1 / fps if fps and index else max(last_s, 0.0)
        yield Frame(index, image, f"{index:06d}", timestamp_s)
        last_s = timestamp_s
        got, raw = capture.read()
        if not got or raw is None:
            return
        index, image = index + 1, _bgr(raw)


def _live(capture: cv2.VideoCapture, error: InputError, layout: str = "") -> Source:
    first = _first_frame(capture, error, layout)
    start = time.perf_counter()
    as_it_is = threading.Event()

    def frames() -> Iterator[Frame]:
        yield Frame(0, first, "000000", 0.0)
        for index in itertools.count(1):
            got, raw = capture.read()
            if not got or raw is None:
                return  # unplugged or switched off: what was recorded so far is kept
            pixels: Image | Nv12 = _nv12(raw) if as_it_is.is_set() else _bgr(raw, layout)
            yield Frame(index, pixels, f"{index:06d}", time.perf_counter() - start)

    hand_on = as_it_is.set if layout == "NV12" else lambda: None
    return Source(_info(capture, first, live=True), frames(), release=capture.release, hand_on_nv12=hand_on)


def _open_camera(uri: str) -> Source:
    device = Path(f"/dev/video{uri}" if uri.isdigit() else uri)
    linux = sys.platform == "linux"
    if linux:
        _require_device(device)
    api = backend(cv2.CAP_V4L2) if linux else cv2.CAP_ANY
    capture = _capture(int(uri) if uri.isdigit() else uri, api)
    busy = InputError(
        f"camera {uri}: gives no frames",
        hint="Is another program using it? One camera often has several numbers: try the next.",
    )
    if capture is None:
        raise busy
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return _live(capture, busy)


def _require_device(device: Path) -> None:
    if not device.exists():
        found = sorted(Path("/dev").glob("video*"), key=_natural)
        raise InputError(
            f"camera {device}: no such device",
            got=f"only {', '.join(map(str, found))}" if found else "no camera at all",
            hint="Plug it in (in a container: pass it with --device), or give a video file.",
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise InputError(f"camera {device}: no permission", hint="Join its group: sudo usermod -aG video $USER")


def _open_stream(uri: str) -> Source:
    settings = (
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _READ_TIMEOUT_MS
    )  # fmt: skip
    api = backend(cv2.CAP_FFMPEG)
    capture = _capture(uri, api, settings if api == cv2.CAP_FFMPEG else ())
    address = re.sub(r"//[^/@]*@", "//", uri)  # no password in messages
    silent = InputError(f"{address}: cannot be opened as a video stream", hint=f"Does it play with: ffplay {address}")
    if capture is None:
        raise silent
    if not uri.startswith("rtsp") and capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0:
        # a recording on a web server has an end: it is a file, and every frame counts
        return _recorded(capture, _first_frame(capture, silent), Container(size=0), address, None)
    return _live(capture, silent)


def _open_gstreamer(pipeline: str) -> Source:
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise MissingDependencyError(
            "this OpenCV has no GStreamer, so it cannot run a pipeline",
            got=f"OpenCV {cv2.__version__} from pip",
            hint="On Jetson use the system's OpenCV (apt install python3-opencv; venv with --system-site-packages).",
        )
    broken = InputError(
        "the GStreamer pipeline gives no frames",
        got=repr(pipeline),
        expected="one that ends in: video/x-raw,format=NV12 ! appsink (or BGR, BGRx, GRAY8, I420, YUY2, ...)",
        hint="Try it with gst-launch-1.0 and fakesink at its end.",
    )
    capture = _capture(pipeline, cv2.CAP_GSTREAMER)
    if capture is None:
        raise broken
    return _live(capture, broken, layout_of(pipeline))


def _open_folder(folder: Path) -> Source:
    paths = sorted((p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file()), key=_natural)
    if not paths:
        raise InputError(
            f"{folder}: no pictures in this folder",
            expected=f"files that end in {', '.join(sorted(PICTURE_SUFFIXES))}",
            hint="Sub-folders are not searched: give one of them.",
        )
    return _source_of_pictures(paths, folder)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key that puts 2 before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _source_of_pictures(paths: Sequence[Path], origin: Path) -> Source:
    first = _read_picture(paths[0])
    height, width = first.shape[:2]
    stems = Counter(path.stem for path in paths)

    def frames() -> Iterator[Frame]:
        for index, path in enumerate(paths):
            image = _read_picture(path) if index else first
            # a.jpg beside a.png: keep the suffix, or their masks would be one file
            yield Frame(index, image, path.stem if stems[path.stem] == 1 else path.name, 0.0)

    return Source(VideoInfo(width, height, fps=None, frames=len(paths), live=False), frames(), origin)


def _read_picture(path: Path) -> Image:
    """(H, W, 3) uint8 BGR whatever the file's depth and channels; EXIF rotation is applied."""
    with quiet():
        try:
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        except cv2.error:
            image = None
    if image is None:
        raise InputError(f"{path}: cannot be read as a picture", hint="Remove it, or save it again as PNG or JPEG.")
    return np.asarray(image, np.uint8)


def _open_synthetic(uri: str) -> Source:
    from edgeseg.data.synthetic import parse_address

    drive = parse_address(uri)
    height, width = drive.size

    def frames() -> Iterator[Frame]:
        for index in range(len(drive)):
            sample = drive.frame(index)
            yield Frame(index, sample.image, sample.name, index / drive.fps)

    return Source(VideoInfo(width, height, fps=drive.fps, frames=len(drive), live=False), frames())
