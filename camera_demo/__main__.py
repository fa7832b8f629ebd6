"""Segment what a camera sees, live: in a window, or on a page for browsers.

    python -m camera_demo [SOURCE] [--engine ENGINE] [--page [HOST:]PORT] [-o VIDEO]

Without SOURCE, the first camera that gives frames is taken; if there is none, a drive through a
drawn town is played. The picture starts at once. The engine is built while it runs, first in
FP32, which takes seconds, then in the fastest precision that keeps the accuracy here.
"""

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import edgeseg
from edgeseg.errors import EdgesegError
from edgeseg.reporter import LINES
from edgeseg.video import PageSink, Sink, Source, VideoSink, WindowSink
from edgeseg.zoo import zoo

DRIVE = "synthetic://?size=640x480&fps=15&seed=4&realtime=1"
PORT = 8000


class GrowingEngine:
    """Label frames by the best engine that is ready; by none before the first is.

    Parameters
    ----------
    name : an engine file, an ONNX file, or a model that ships with edgeseg.
    precisions : what to build, one after the other: the last one stays.
    """

    def __init__(self, name: str, precisions: Sequence[str]) -> None:
        self._name = name
        self._precisions = precisions
        self._engine: edgeseg.Engine | None = None
        self.error: EdgesegError | None = None
        self.spec = _spec_of(name)
        self._builder = threading.Thread(target=self._build, daemon=True)
        self._builder.start()

    @property
    def passport(self) -> object | None:
        """Return the passport of the engine in use; the page shows its name from it."""
        return None if self._engine is None else self._engine.passport

    def __call__(self, frame: "np.typing.NDArray[np.uint8]") -> "np.typing.NDArray[np.uint8]":
        """Return the (H, W) uint8 label map of an (H, W, 3) uint8 BGR frame."""
        if self.error is not None:
            raise self.error
        if self._engine is None:
            return np.full(frame.shape[:2], self.spec.labels.ignore_id, np.uint8)
        return self._engine(frame)

    def leave(self) -> None:
        """End the process if an engine is still being built: nothing can interrupt a compiler."""
        if self._builder.is_alive():
            sys.stdout.flush()
            os._exit(0)

    def _build(self) -> None:
        """Build the engines, and change to each as soon as it is ready."""
        for precision in self._precisions:
            try:
                engine = edgeseg.load_engine(self._name, precision=precision)
            except EdgesegError as error:
                if self._engine is None:
                    self.error = error
                return
            self._engine = engine
            print(f"labels by {self._name} in {engine.passport.precision}", flush=True)


def _spec_of(name: str) -> "edgeseg.ModelSpec":
    """Return the spec of an engine file, an ONNX file or a model that ships."""
    if name.endswith(".engine"):
        with edgeseg.load_engine(name) as engine:
            return engine.spec
    return edgeseg.load_network(zoo().get(name, name)).spec


def open_camera() -> Source:
    """Open the first camera that gives frames, else a drive through a drawn town."""
    for device in sorted(Path("/dev").glob("video*")):
        try:
            return edgeseg.open_source(str(device))
        except EdgesegError:
            continue  # a camera has several devices, and only one of them gives pictures
    print("no camera found: this is a drive through a drawn town", flush=True)
    return edgeseg.open_source(DRIVE)


def open_display(page: str | None, source: Source, spec: "edgeseg.ModelSpec", name: str) -> Sink:
    """Open a window where there is a display and no page is wanted, else the page."""
    if page is None:
        try:
            return WindowSink(f"edgeseg: {name}")
        except EdgesegError:
            page = str(PORT)  # no display here

    host, _, port = page.rpartition(":")
    sources = [source.name or "camera"]
    return PageSink(
        spec.labels, host or "127.0.0.1", int(port), sources=sources, engines=[name], reporter=LINES
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the demo until its window is closed or Ctrl-C is pressed."""
    parser = argparse.ArgumentParser(
        prog="python -m camera_demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", nargs="?", help="a camera, a video, a stream or synthetic://")
    parser.add_argument("--engine", default="enet-camvid", help="default: enet-camvid")
    parser.add_argument("--page", metavar="[HOST:]PORT", help="show a page, not a window")
    parser.add_argument("-o", "--out", type=Path, metavar="VIDEO", help="record the picture, too")
    parser.add_argument("--max-frames", type=int, help="stop after this number of frames")
    options = parser.parse_args(arguments)

    try:
        source = edgeseg.open_source(options.source) if options.source else open_camera()
        ships = not options.engine.endswith(".engine")
        engine = GrowingEngine(options.engine, ("fp32", "auto") if ships else ("auto",))
        sinks = [open_display(options.page, source, engine.spec, options.engine)]
        if options.out is not None:
            sinks.append(VideoSink(options.out, source.info, reporter=LINES))
        summary = edgeseg.segment(engine, source, sinks, max_frames=options.max_frames)
    except EdgesegError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(f"{summary.frames_out} frames, {summary.fps:.1f} per second, {summary.dropped} dropped")
    engine.leave()


if __name__ == "__main__":
    main()
