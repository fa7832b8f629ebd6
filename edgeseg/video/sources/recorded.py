"""Open recordings: files that have an end, and of which every frame counts."""

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from edgeseg.errors import InputError
from edgeseg.types import Image
from edgeseg.video.containers import Container, early_end, inspect
from edgeseg.video.frames import Frame, Source, VideoInfo
from edgeseg.video.sources.decoding import Decoder, Timed


def open_video(path: Path, start_s: float = 0.0) -> Source:
    """Open a video file.

    Parameters
    ----------
    path : the file.
    start_s : the first frame is the one at or after this time, seconds.

    Raises
    ------
    InputError : the file is no video, cannot be decoded, or is shorter than ``start_s``.
    """
    try:
        container = inspect(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read", got=error.strerror) from error

    try:
        decoder = Decoder(os.fspath(path), str(path), codec=container.codec)
    except InputError as error:
        if not container.is_cut_short and "cannot be opened" not in error.what:
            raise
        raise _broken(str(path), error.got) from error
    return source_of_video(decoder, container, str(path), path=path, start_s=start_s)


def open_recording(address: str, name: str, start_s: float = 0.0) -> Source:
    """Open a recording on a web server.

    Parameters
    ----------
    address : the address, with its user and password if it has any.
    name : the address without them, for errors.
    start_s : the first frame is the one at or after this time, seconds.

    Raises
    ------
    InputError : there is no video, or it cannot be decoded.
    """
    return source_of_video(Decoder(address, name), Container(size=0), name, start_s=start_s)


def _broken(name: str, got: object = None) -> InputError:
    """Return the error of a file that cannot be opened."""
    return InputError(
        f"{name}: cannot be opened as a video",
        got=got,
        expected="a whole mp4, avi, mkv, ... (a file cut short while copying or recording lacks "
        "its index)",
        hint="Copy it again, or check it with: ffprobe FILE",
    )


def source_of_video(
    decoder: Decoder,
    container: Container,
    name: str,
    *,
    path: Path | None = None,
    start_s: float = 0.0,
) -> Source:
    """Return the source of a finite video: every frame, then an error if it ended too early.

    Parameters
    ----------
    decoder : decodes the video; the source closes it.
    container : the facts from the file's headers.
    name : the video's name in errors.
    path : the file, if there is one.
    start_s : the first frame is the one at or after this time, seconds.

    Raises
    ------
    InputError : no frame can be decoded.
    """
    timed = decoder.read_from(start_s) if start_s > 0 else decoder.read()
    first = next(timed, None)
    if first is None:
        decoder.close()
        raise _no_frame(decoder, container, name, start_s)

    fps = decoder.fps
    counted = decoder.frames
    passed = _passed(first, fps) if start_s > 0 else 0
    height, width = first[1].shape[:2]
    total = None if counted is None else max(1, round(counted * container.shown_share) - passed)
    info = VideoInfo(width, height, fps, total, live=False)

    # Frames before the start are not counted one by one, so their number is not exact.
    facts = replace(container, exact_frames=None) if passed else container

    def frames() -> Iterator[Frame]:
        count = 0
        last_s = 0.0
        gap_s = 0.0
        for frame in numbered(itertools.chain([first], timed), fps):
            gap_s = max(gap_s, frame.timestamp_s - last_s if count else 0.0)
            last_s = frame.timestamp_s
            count += 1
            yield frame

        problem = early_end(facts, passed + count, counted, fps, last_s, gap_s)
        if problem:
            raise InputError(
                f"{name}: {problem}", hint="Copy or record it again, or repair it with ffmpeg."
            )

    return Source(info, frames(), path, decoder.close)


def _passed(first: Timed, fps: float | None) -> int:
    """Return about how many frames lie before the first one that is delivered."""
    time_s, _ = first
    return round(time_s * fps) if time_s and fps else 0


def _no_frame(decoder: Decoder, container: Container, name: str, start_s: float) -> InputError:
    """Return the error of a video that opens and gives no frame."""
    if decoder.decoded:
        return InputError(
            f"{name}: is over before the start", got=f"{start_s:g} s", expected=_length(decoder)
        )
    if container.is_cut_short:
        return _broken(name)
    return InputError(
        f"{name}: no frame can be decoded",
        got=f"codec {container.codec or decoder.codec}",
        expected="a codec that this FFmpeg can decode, in a whole file",
        hint="Convert it: ffmpeg -i FILE -c:v libx264 OUT.mp4",
    )


def _length(decoder: Decoder) -> str:
    """Return the times at which a video may start, in words."""
    if decoder.duration_s is None:
        return "a time within the video"
    return f"less than {decoder.duration_s:.3f} s"


def numbered(timed: Iterator[Timed], fps: float | None) -> Iterator[Frame]:
    """Yield decoded frames as ``Frame`` objects, numbered from 0.

    Timestamps come from the container. A frame without one, or with one that goes back, follows the
    frame before it at the frame rate.

    Parameters
    ----------
    timed : times and pixels.
    fps : the frame rate; None if unknown.
    """
    last_s = -1.0
    image: Image
    for index, (time_s, image) in enumerate(timed):
        if time_s is None or not last_s < time_s < math.inf:
            time_s = last_s + 1 / fps if fps and index else max(last_s, 0.0)
        yield Frame(index, image, f"{index:06d}", time_s)
        last_s = time_s
