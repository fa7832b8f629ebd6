"""Open recordings: files that have an end, and of which every frame counts."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2

from edgeseg.errors import InputError
from edgeseg.types import Image
from edgeseg.video.containers import Container, early_end, inspect
from edgeseg.video.frames import Frame, Source
from edgeseg.video.sources.opencv import backend, bgr, first_frame, open_capture, video_info


def open_video(path: Path) -> Source:
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

    capture = open_capture(str(path), backend(cv2.CAP_FFMPEG))
    if capture is None:
        raise cannot

    promised = container.promised_size
    cut_short = promised is not None and container.size < promised
    first = bgr(first_frame(capture, cannot if cut_short else undecodable(capture, str(path))))
    return recorded(capture, first, container, str(path), path)


def undecodable(capture: cv2.VideoCapture, name: str) -> InputError:
    """Return the error of a video that opens and gives no frame."""
    code = int(capture.get(cv2.CAP_PROP_FOURCC))
    codec = code.to_bytes(4, "little").decode("latin-1") if 0 < code < 1 << 32 else ""
    return InputError(
        f"{name}: no frame can be decoded",
        got=f"codec {codec.strip()}" if codec.isprintable() and codec else "an unknown codec",
        expected="a codec that this OpenCV can decode, in a whole file",
        hint="Convert it: ffmpeg -i FILE -c:v libx264 OUT.mp4",
    )


def recorded(
    capture: cv2.VideoCapture,
    first: Image,
    container: Container,
    name: str,
    path: Path | None,
) -> Source:
    """Return the source of a finite video: every frame, then an error if it ended too early."""
    info = video_info(capture, first, live=False)
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
        image = bgr(raw)
        index += 1
