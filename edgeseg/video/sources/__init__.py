"""Open sources of frames: video files, cameras, streams, pipes, pictures, the synthetic drive.

Every source reads in its own thread, so that reading overlaps with the network. A file delivers
every frame, in order. A live source delivers the newest frame and drops frames that nobody took in
time: a frame that waits in a buffer is lag.
"""

import os
import re
from pathlib import Path

from edgeseg.errors import InputError
from edgeseg.video.frames import Source
from edgeseg.video.sources.camera_address import CSI, V4L2, csi_pipeline, parse_v4l2
from edgeseg.video.sources.live import LiveOptions, open_camera, open_gstreamer, open_stream
from edgeseg.video.sources.merged import Merged, merge
from edgeseg.video.sources.pictures import PICTURE_SUFFIXES, open_folder, source_of_pictures
from edgeseg.video.sources.pipe import is_pipe, open_pipe
from edgeseg.video.sources.playback import Playback, play
from edgeseg.video.sources.recorded import open_video
from edgeseg.video.sources.synthetic import open_synthetic
from edgeseg.video.sources.words import described, expand_sources, is_glob, pictures_of, source_name

__all__ = [
    "PICTURE_SUFFIXES",
    "LiveOptions",
    "Merged",
    "Playback",
    "described",
    "expand_sources",
    "merge",
    "open_source",
    "play",
    "source_name",
]

_LIVE = LiveOptions()
_EVERYTHING = Playback()


def open_source(
    uri: str,
    live: LiveOptions = _LIVE,
    playback: Playback = _EVERYTHING,
    *,
    strict: bool = False,
) -> Source:
    """Open a source of frames.

    Parameters
    ----------
    uri : one of

        - a video file; a picture; a folder of pictures, in natural order (2 before 10) and without
          hidden files; a glob of pictures (``frames/*.png``) or of one video
        - a camera's number (``0``), its device (``/dev/video0``), or its address
          (``v4l2:///dev/video0?size=1280x720&fps=30&format=MJPG``)
        - a Jetson's CSI camera (``csi://0?size=1920x1080&fps=30&flip=2``)
        - a stream or a recording on a server (``rtsp://``, ``http://``, ...)
        - ``-``, ``/dev/stdin`` or a named pipe: a video that another program writes
        - a GStreamer pipeline (it contains `` ! ``)
        - ``synthetic://...``
    live : what a live source does if its camera gives no frames.
    playback : what part is played, and how fast. In video files the start is found by seeking.
    strict : raise at the first picture that cannot be read. Otherwise leave it out, and add its
        error to ``Source.skipped``.

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
    if not uri:
        raise InputError(
            "no source given",
            expected="a video, a picture, a folder, a camera's number or an address",
        )
    if is_glob(uri):
        uri = _only_match(uri)

    source = _open_live(uri, live)
    is_started = False
    if source is None and is_pipe(uri):
        source = open_pipe(uri, playback.start_s, realtime=playback.realtime)
        is_started = source.path is not None  # not a pipe, but a file as standard input
    elif source is None:
        source = _open_paths(uri, playback, strict)
        is_started = True

    source.name = source.name or source_name(uri)
    return play(source, playback, is_started=is_started)


def _open_live(uri: str, live: LiveOptions) -> Source | None:
    """Open a camera, a stream or a drive; return None if ``uri`` is a path."""
    if " ! " in uri:
        return open_gstreamer(uri, live)
    if uri.startswith("synthetic:"):
        return open_synthetic(uri, live)
    if uri.startswith(CSI):
        return open_gstreamer(csi_pipeline(uri), live)
    if uri.startswith(V4L2):
        device, settings = parse_v4l2(uri)
        return open_camera(device, settings, live)
    if "://" in uri and not uri.startswith("file://"):
        return open_stream(uri, live)
    if re.fullmatch(r"[0-9]+", uri) or uri.startswith(("/dev/video", "/dev/v4l/")):
        return open_camera(uri, live=live)
    return None


def _open_paths(uri: str, playback: Playback, strict: bool) -> Source:
    """Open a video, a picture, a folder, or a list of pictures."""
    pictures = pictures_of(uri)
    if pictures:
        parents = {path.parent for path in pictures}
        origin = parents.pop() if len(parents) == 1 else None
        return source_of_pictures(pictures, origin, strict=strict)

    path = Path(os.path.expanduser(uri.removeprefix("file://")))
    if os.path.isdir(path):
        return open_folder(path, strict=strict)
    if not os.path.isfile(path):  # unlike Path.is_file, False for impossible names
        raise InputError(
            f"{path}: no such video, picture or folder",
            hint='Cameras are numbers ("0"), streams start with rtsp:// or http://.',
        )
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return source_of_pictures([path], path, strict=strict)
    return open_video(path, playback.start_s)


def _only_match(uri: str) -> str:
    """Return the one source that a glob names; raise ``InputError`` if there are several."""
    found = expand_sources([uri])
    if len(found) > 1:
        raise InputError(
            f"{uri}: matches several sources",
            got=len(found),
            expected="one, or a glob of pictures only",
            hint="Open each that `expand_sources` returns, and `merge` them.",
        )
    return found[0]
