"""Sources of frames, sinks for label maps and pictures, and the pipeline between them.

Examples
--------
>>> from edgeseg.video import VideoSink, open_source, segment
>>> with open_source("drive.mp4") as source:  # doctest: +SKIP
...     summary = segment(engine, source, [VideoSink("out.mp4", source.info)])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeseg.video.by_source import BySource
    from edgeseg.video.frames import Frame, Source, VideoInfo
    from edgeseg.video.frames_json import FramesJsonSink
    from edgeseg.video.labelling import Extras
    from edgeseg.video.page import PageSink
    from edgeseg.video.painter import Painter
    from edgeseg.video.pipeline import segment
    from edgeseg.video.sinks import (
        ImageFolderSink,
        Output,
        PictureSink,
        Sink,
        WindowSink,
    )
    from edgeseg.video.smooth import LabelSmoother
    from edgeseg.video.sources import expand_sources, open_source
    from edgeseg.video.sources.live import LiveOptions
    from edgeseg.video.sources.merged import merge
    from edgeseg.video.sources.playback import Playback
    from edgeseg.video.status import Status
    from edgeseg.video.stream_sink import StreamSink
    from edgeseg.video.summary import Summary
    from edgeseg.video.video_sink import VideoSink
    from edgeseg.video.view import View

__all__ = [
    "BySource",
    "Extras",
    "Frame",
    "FramesJsonSink",
    "ImageFolderSink",
    "LabelSmoother",
    "LiveOptions",
    "Output",
    "PageSink",
    "Painter",
    "PictureSink",
    "Playback",
    "Sink",
    "Source",
    "Status",
    "StreamSink",
    "Summary",
    "VideoInfo",
    "VideoSink",
    "View",
    "WindowSink",
    "expand_sources",
    "merge",
    "open_source",
    "segment",
]

# Name -> module that defines it. The first use of a name imports its module (PEP 562), so importing
# this package does not load OpenCV.
_HOME = {
    "BySource": "by_source",
    "Extras": "labelling",
    "Frame": "frames",
    "FramesJsonSink": "frames_json",
    "ImageFolderSink": "sinks",
    "LabelSmoother": "smooth",
    "LiveOptions": "sources.live",
    "Output": "sinks",
    "PageSink": "page",
    "Painter": "painter",
    "PictureSink": "sinks",
    "Playback": "sources.playback",
    "Sink": "sinks",
    "Source": "frames",
    "Status": "status",
    "StreamSink": "stream_sink",
    "Summary": "summary",
    "VideoInfo": "frames",
    "VideoSink": "video_sink",
    "View": "view",
    "WindowSink": "sinks",
    "expand_sources": "sources",
    "merge": "sources.merged",
    "open_source": "sources",
    "segment": "pipeline",
}


def __getattr__(name: str) -> Any:
    """Return a public name, and import the module that defines it if needed."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """Return the names of the package, those that are not imported yet included."""
    return sorted({*globals(), *__all__})
