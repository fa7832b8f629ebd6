"""Run the whole pipeline for a long time, and look whether it grows.

    python -m benchmarks.soak [--frames 1000000] [--json FILE]

A live source, a tiny network, pictures with legend and status line, an mp4 that is split and
limited, one line of JSON per frame, and the live page with one viewer. Every so often the resident
memory, the descriptors and the threads of the process are noted. The first tenth of the run is
warm-up: caches and pools fill.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.viewer import Viewer
from edgeseg.files import write_json
from edgeseg.profiling.machine import describe_machine
from edgeseg.spec import CAMVID_11, ModelSpec
from edgeseg.types import Image
from edgeseg.video import (
    Frame,
    FramesJsonSink,
    Output,
    PageSink,
    Sink,
    Source,
    VideoInfo,
    VideoSink,
    segment,
)

SIZE = (48, 64)  # H, W: the pipeline is tested, and no picture
LOOKS = 50  # how often memory is looked at
WARM_UP = 0.1  # share of the run
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


class TinyNet:
    """Label pixels by their brightness."""

    spec = ModelSpec(architecture="tiny", input_size=SIZE, labels=CAMVID_11)

    def __call__(self, frame: Image) -> Image:
        """Return the labels of a frame."""
        labels: Image = (frame[:, :, 1] % 11).astype(np.uint8)
        return labels


class Watch(Sink):
    """Note memory, descriptors and threads every so often.

    Parameters
    ----------
    frames : length of the run.
    """

    needs_picture = False

    def __init__(self, frames: int) -> None:
        self.looks: list[dict[str, float]] = []
        self._every = max(1, frames // LOOKS)
        self._seen = 0

    def write(self, output: Output) -> None:
        """Count a frame, and look if it is time."""
        self._seen += 1
        if self._seen % self._every == 0:
            self.looks.append({"frames": self._seen, **resources()})


def resources() -> dict[str, float]:
    """Return resident megabytes, open descriptors and threads of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "rss_mb": pages * PAGE_SIZE / 1e6,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
    }


def drive(frames: int) -> Source:
    """Return a recording of some frames, all drawn ahead."""
    ramp = np.add.outer(np.arange(SIZE[0]), 2 * np.arange(SIZE[1]))
    images = [np.repeat((ramp + 8 * step)[:, :, None] % 256, 3, 2) for step in range(16)]
    images = [np.ascontiguousarray(image, np.uint8) for image in images]

    def read() -> Iterator[Frame]:
        for index in range(frames):
            yield Frame(index, images[index % 16], f"{index:08d}", index / 30)

    return Source(VideoInfo(SIZE[1], SIZE[0], 30.0, frames, live=False), read())


def soak(frames: int, folder: Path) -> dict[str, Any]:
    """Run the pipeline, and return how it grew after the warm-up.

    Parameters
    ----------
    frames : length of the run.
    folder : an empty folder for the outputs.
    """
    watch = Watch(frames)
    source = drive(frames)
    page = PageSink(CAMVID_11, port=0)
    sinks: list[Sink] = [
        watch,
        page,
        FramesJsonSink(folder / "frames.jsonl", CAMVID_11),
        VideoSink(folder / "out.mp4", source.info, split_every_s=600.0, keep_bytes=100e6),
    ]
    before = resources()
    start_s = time.perf_counter()
    with Viewer(page) as viewer:
        summary = segment(TinyNet(), source, sinks)
    seconds = time.perf_counter() - start_s
    after = resources()

    warm = watch.looks[int(len(watch.looks) * WARM_UP)]
    last = watch.looks[-1]
    return {
        "frames": summary.frames_out,
        "seconds": round(seconds, 1),
        "viewer_messages": viewer.received,
        "videos": len(list(folder.glob("out-*.mp4"))),
        "rss_growth_mb": round(last["rss_mb"] - warm["rss_mb"], 2),
        "descriptor_growth": int(last["descriptors"] - warm["descriptors"]),
        "thread_growth": int(last["threads"] - warm["threads"]),
        "descriptors_left": int(after["descriptors"] - before["descriptors"]),
        "looks": watch.looks,
    }


def main() -> None:
    """Run, print, and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="write the result there")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        result = soak(options.frames, Path(folder))
    looks = result.pop("looks")
    Console().print(result)
    if options.json:
        report = {"benchmark": "soak", "machine": describe_machine(), **result, "looks": looks}
        write_json(options.json, report)


if __name__ == "__main__":
    main()
