"""Frames in, label maps and pictures out: sources, sinks, and the pipeline between them.

Example
-------
>>> from edgeseg.video import VideoSink, open_source, segment  # doctest: +SKIP
>>> with open_source("drive.mp4") as source:  # doctest: +SKIP
...     summary = segment(engine, source, [VideoSink("out.mp4", source.info)])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeseg.video.frames import Frame, Source, VideoInfo
    from edgeseg.video.pipeline import Summary, segment
    from edgeseg.video.sinks import ImageFolderSink, Output, PictureSink, Sink, VideoSink, WindowSink
    from edgeseg.video.sources import open_source

__all__ = [
    "Frame", "ImageFolderSink", "Output", "PictureSink", "Sink", "Source", "Summary", "VideoInfo", "VideoSink",
    "WindowSink", "open_source", "segment",
]  # fmt: skip

# PEP 562: OpenCV is loaded by the first use of a name, not by the import of this package.
_HOME = {
    **dict.fromkeys(("Summary", "segment"), "pipeline"),
    **dict.fromkeys(("ImageFolderSink", "Output", "PictureSink", "Sink", "VideoSink", "WindowSink"), "sinks"),
    **dict.fromkeys(("Frame", "Source", "VideoInfo"), "frames"),
    "open_source": "sources",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
