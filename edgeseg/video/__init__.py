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
    from edgeseg.video.frames import Frame, Source, VideoInfo
    from edgeseg.video.pipeline import segment
    from edgeseg.video.sinks import (
        ImageFolderSink,
        Output,
        PictureSink,
        Sink,
        WindowSink,
    )
    from edgeseg.video.sources import open_source
    from edgeseg.video.summary import Summary
    from edgeseg.video.video_sink import VideoSink

__all__ = [
    "Frame",
    "ImageFolderSink",
    "Output",
    "PictureSink",
    "Sink",
    "Source",
    "Summary",
    "VideoInfo",
    "VideoSink",
    "WindowSink",
    "open_source",
    "segment",
]

# Name -> module that defines it. The first use of a name imports its module (PEP 562), so importing
# this package does not load OpenCV.
_HOME = {
    "Frame": "frames",
    "ImageFolderSink": "sinks",
    "Output": "sinks",
    "PictureSink": "sinks",
    "Sink": "sinks",
    "Source": "frames",
    "Summary": "summary",
    "VideoInfo": "frames",
    "VideoSink": "video_sink",
    "WindowSink": "sinks",
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
