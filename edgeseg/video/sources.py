"""Open sources of frames: video files, cameras, streams, pictures, the synthetic drive.

Every source reads in its own thread, so that reading overlaps with the network. A file delivers
every frame, in order. A live source delivers the newest frame and drops frames that nobody took in
time: a frame that waits in a buffer is lag.
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

# FFmpeg bypasses OpenCV's logger and writes to the terminal. It reads this variable once. The
# InputErrors of this module report the same problems.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.errors import InputError, MissingDependencyError
from edgeseg.imaging.nv12 import Nv12
from edgeseg.types import Image
from edgeseg.video.addresses import failure_reason
from edgeseg.video.containers import Container, early_end, inspect
from edgeseg.video.frames import Frame, Source, VideoInfo
from edgeseg.video.gstreamer import frame_layout, missing_part, to_bgr

PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})

# Timeouts of network streams; FFmpeg's own default is 30 s.
_OPEN_TIMEOUT_MS = 8000
_READ_TIMEOUT_MS = 8000

# A container without a frame rate reports its time base instead, such as 90000.
_FPS_LIMIT = 1000.0


def open_source(uri: str) -> Source:
    """Open a source of frames.

    Parameters
    ----------
    uri : a video file, a picture, a folder of pictures (in natural order: 2 before 10), the number
        of a camera (``"0"``) or its device (``"/dev/video0"``), a stream (``rtsp://``, ``http://``,
        ...), a GStreamer pipeline (it contains `` ! ``), or ``synthetic://...``.

    Returns
    -------
    A ``Source`` whose first frame could be read. If a file breaks half-way, iteration yields the
    frames before that point and then raises ``InputError``.

    Raises
    ------
    InputError : nothing is there, or it cannot be read.
    MissingDependencyError : ``uri`` is a pipeline, and this OpenCV has no GStreamer.

    Examples
    --------
    >>> with open_source("synthetic://?length=2&size=64x48") as source:
    ...     [frame.image.shape for frame in source]
    [(48, 64, 3), (48, 64, 3)]
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
        raise InputError(
            "no source given",
            expected="a video, a picture, a folder, a camera's number or an address",
        )

    # Anything else is a path.
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


def _capture(uri: str | int, api: int, settings: Sequence[int] = ()) -> cv2.VideoCapture | None:
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


def _first_frame(capture: cv2.VideoCapture, error: InputError) -> npt.NDArray[Any]:
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


def _bgr(image: npt.NDArray[Any]) -> Image:
    """Convert a frame of a file, a camera or a stream to (H, W, 3) BGR.

    It is BGR with or without a fourth channel, or grey.
    """
    channels = 1 if image.ndim == 2 else image.shape[2]
    layout = {1: "GRAY8", 4: "BGRA"}.get(channels, "BGR")
    return to_bgr(image, layout)


def _nv12(buffer: npt.NDArray[Any]) -> Nv12:
    """Wrap a frame of a capture, (H * 3 / 2, W), without conversion.

    The colour matrix is the default of ``Nv12``, which is also the one that OpenCV uses.
    """
    return Nv12.from_buffer(buffer.reshape(buffer.shape[:2]))


def _info(capture: cv2.VideoCapture, image: Image, *, live: bool) -> VideoInfo:
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


def _open_video(path: Path) -> Source:
    """Open a video file."""
    cannot = InputError(
        f"{path}: cannot be opened as a video",
        expected="a whole mp4, avi, mkv, ... (a file cut short while copying or recording lacks "
        "its index)",
        hint="Copy it again, or check it with: ffprobe FILE",
    )
    try:
        container = inspect(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read", got=error.strerror) from error

    capture = _capture(str(path), backend(cv2.CAP_FFMPEG))
    if capture is None:
        raise cannot

    promised = container.promised_size
    cut_short = promised is not None and container.size < promised
    first = _bgr(_first_frame(capture, cannot if cut_short else _undecodable(capture, str(path))))
    return _recorded(capture, first, container, str(path), path)


def _undecodable(capture: cv2.VideoCapture, name: str) -> InputError:
    """Return the error of a video that opens and gives no frame."""
    code = int(capture.get(cv2.CAP_PROP_FOURCC))
    codec = code.to_bytes(4, "little").decode("latin-1") if 0 < code < 1 << 32 else ""
    return InputError(
        f"{name}: no frame can be decoded",
        got=f"codec {codec.strip()}" if codec.isprintable() and codec else "an unknown codec",
        expected="a codec that this OpenCV can decode, in a whole file",
        hint="Convert it: ffmpeg -i FILE -c:v libx264 OUT.mp4",
    )


def _recorded(
    capture: cv2.VideoCapture,
    first: Image,
    container: Container,
    name: str,
    path: Path | None,
) -> Source:
    """Return the source of a finite video: every frame, then an error if it ended too early."""
    info = _info(capture, first, live=False)
    counted = info.frames
    if counted is not None:
        shown = round(counted * container.shown_share)
        info = replace(info, frames=max(1, shown))

    def frames() -> Iterator[Frame]:
        count = 0
        last_s = 0.0
        gap_s = 0.0
        for frame in _numbered(capture, first, info.fps):
            gap_s = max(gap_s, frame.timestamp_s - last_s)
            last_s = frame.timestamp_s
            count += 1
            yield frame

        problem = early_end(container, count, counted, info.fps, last_s, gap_s)
        if problem:
            raise InputError(
                f"{name}: {problem}", hint="Copy or record it again, or repair it with ffmpeg."
            )

    return Source(info, frames(), path, capture.release)


def _numbered(capture: cv2.VideoCapture, first: Image, fps: float | None) -> Iterator[Frame]:
    """Yield the frames of a file.

    Timestamps come from the container, or from the frame rate if the container has none.
    """
    index = 0
    image = first
    last_s = -1.0
    while True:
        timestamp_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        if not last_s < timestamp_s < math.inf:
            timestamp_s = last_s + 1 / fps if fps and index else max(last_s, 0.0)
        yield Frame(index, image, f"{index:06d}", timestamp_s)
        last_s = timestamp_s

        got, raw = capture.read()
        if not got or raw is None:
            return
        image = _bgr(raw)
        index += 1


def _live(capture: cv2.VideoCapture, error: InputError, pipeline: str = "") -> Source:
    """Return the source of a camera, a stream or a GStreamer pipeline.

    Raises ``error`` if it delivers no frame.
    """
    raw = _first_frame(capture, error)
    layout = ""
    if pipeline:
        height = round(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        try:
            layout = frame_layout(raw, height, pipeline)
        except InputError:
            capture.release()
            raise

    def converted(image: npt.NDArray[Any]) -> Image:
        return to_bgr(image, layout) if layout else _bgr(image)

    first = converted(raw)
    start = time.perf_counter()
    hands_on_nv12 = threading.Event()

    def frames() -> Iterator[Frame]:
        yield Frame(0, first, "000000", 0.0)
        for index in itertools.count(1):
            got, image = capture.read()
            if not got or image is None:
                return  # unplugged or switched off: the recording so far is kept
            pixels: Image | Nv12 = _nv12(image) if hands_on_nv12.is_set() else converted(image)
            yield Frame(index, pixels, f"{index:06d}", time.perf_counter() - start)

    return Source(
        _info(capture, first, live=True),
        frames(),
        release=capture.release,
        hand_on_nv12=hands_on_nv12.set if layout == "NV12" else lambda: None,
    )


def _open_camera(uri: str) -> Source:
    """Open a camera by its number or its device."""
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

    # A frame that waits in the driver's buffer is lag.
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return _live(capture, busy)


def _require_device(device: Path) -> None:
    """Raise ``InputError`` unless the device of a camera exists and may be used."""
    if not device.exists():
        found = sorted(Path("/dev").glob("video*"), key=_natural)
        raise InputError(
            f"camera {device}: no such device",
            got=f"only {', '.join(map(str, found))}" if found else "no camera at all",
            hint="Plug it in (in a container: pass it with --device), or give a video file.",
        )
    if not os.access(device, os.R_OK | os.W_OK):
        raise InputError(
            f"camera {device}: no permission", hint="Join its group: sudo usermod -aG video $USER"
        )


def _open_stream(uri: str) -> Source:
    """Open a network address: a live stream, or a recording on a web server."""
    settings = (
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        _OPEN_TIMEOUT_MS,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        _READ_TIMEOUT_MS,
    )
    api = backend(cv2.CAP_FFMPEG)
    capture = _capture(uri, api, settings if api == cv2.CAP_FFMPEG else ())

    address = re.sub(r"//[^/@]*@", "//", uri)  # no password in messages
    what = f"{address}: cannot be opened as a video stream"
    hint = f"Does it play with: ffplay {address}"
    if capture is None:
        raise InputError(what, got=failure_reason(uri), hint=hint)
    silent = InputError(what, got="no frame", hint=hint)

    if not uri.startswith("rtsp") and capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0:
        # A recording on a web server has an end: it is a file, and every frame counts.
        first = _bgr(_first_frame(capture, _undecodable(capture, address)))
        return _recorded(capture, first, Container(size=0), address, None)
    return _live(capture, silent)


def _open_gstreamer(pipeline: str) -> Source:
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

    capture = _capture(pipeline, cv2.CAP_GSTREAMER)
    if capture is None:
        reason = missing_part(pipeline)
        raise InputError(what, got=reason, hint=hint) if reason else broken
    return _live(capture, broken, pipeline)


def _open_folder(folder: Path) -> Source:
    """Open a folder of pictures, in natural order."""
    paths: list[Path] = []
    for path in folder.iterdir():
        if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file():
            paths.append(path)
    paths.sort(key=_natural)

    if not paths:
        raise InputError(
            f"{folder}: no pictures in this folder",
            expected=f"files that end in {', '.join(sorted(PICTURE_SUFFIXES))}",
            hint="Sub-folders are not searched: give one of them.",
        )
    return _source_of_pictures(paths, folder)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return a sort key that puts 2 before 10."""
    key: list[tuple[int, str]] = []
    for part in re.split(r"(\d+)", path.name):
        if part.isdigit():
            key.append((int(part), ""))
        else:
            key.append((-1, part))
    return key


def _source_of_pictures(paths: Sequence[Path], origin: Path) -> Source:
    """Return the source of pictures; ``origin`` is the picture or folder that the user named."""
    first = _read_picture(paths[0])
    height, width = first.shape[:2]
    stems = Counter(path.stem for path in paths)

    def frames() -> Iterator[Frame]:
        for index, path in enumerate(paths):
            image = _read_picture(path) if index else first
            # If a.jpg lies beside a.png, keep the suffix: their masks would be one file otherwise.
            name = path.stem if stems[path.stem] == 1 else path.name
            yield Frame(index, image, name, 0.0)

    info = VideoInfo(width, height, fps=None, frames=len(paths), live=False)
    return Source(info, frames(), origin)


def _read_picture(path: Path) -> Image:
    """Read a picture of any depth and channels as (H, W, 3) uint8 BGR; EXIF rotation is applied."""
    with quiet():
        try:
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        except cv2.error:
            image = None
    if image is None:
        raise InputError(
            f"{path}: cannot be read as a picture",
            hint="Remove it, or save it again as PNG or JPEG.",
        )
    return np.asarray(image, np.uint8)


def _open_synthetic(uri: str) -> Source:
    """Open a synthetic drive."""
    from edgeseg.data.synthetic import parse_address

    drive = parse_address(uri)
    height, width = drive.size

    def frames() -> Iterator[Frame]:
        for index in range(len(drive)):
            sample = drive.frame(index)
            yield Frame(index, sample.image, sample.name, index / drive.fps)

    info = VideoInfo(width, height, fps=drive.fps, frames=len(drive), live=False)
    return Source(info, frames())
