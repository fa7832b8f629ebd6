"""Open sources of frames: video files, cameras, streams, pictures, the synthetic drive.

Every source reads in its own thread, so that reading overlaps with the network. A file delivers
every frame, in order. A live source delivers the newest frame and drops frames that nobody took in
time: a frame that waits in a buffer is lag.
"""

import os
import re
from pathlib import Path

from edgeseg.errors import InputError
from edgeseg.video.frames import Source
from edgeseg.video.sources.live import open_camera, open_gstreamer, open_stream
from edgeseg.video.sources.pictures import PICTURE_SUFFIXES, open_folder, source_of_pictures
from edgeseg.video.sources.recorded import open_video
from edgeseg.video.sources.synthetic import open_synthetic

__all__ = ["PICTURE_SUFFIXES", "open_source"]


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
        return open_gstreamer(uri)
    if uri.startswith("synthetic:"):
        return open_synthetic(uri)
    if "://" in uri and not uri.startswith("file://"):
        return open_stream(uri)
    if re.fullmatch(r"[0-9]+", uri) or uri.startswith("/dev/video"):
        return open_camera(uri)
    if not uri:
        raise InputError(
            "no source given",
            expected="a video, a picture, a folder, a camera's number or an address",
        )

    # Anything else is a path.
    path = Path(os.path.expanduser(uri.removeprefix("file://")))
    if path.is_dir():
        return open_folder(path)
    if not path.is_file():
        raise InputError(
            f"{path}: no such video, picture or folder",
            hint='Cameras are numbers ("0"), streams start with rtsp:// or http://.',
        )
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return source_of_pictures([path], path)
    return open_video(path)
