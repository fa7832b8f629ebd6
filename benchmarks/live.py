"""Compare the frame rate of `segment` with that of the engine alone, output by output.

    python -m benchmarks.live [--engine enet-camvid] [--precision int8] [--rounds 3] [--seconds 4]
                              [--json FILE]

A drive is drawn once, at 480x360 and at 1280x720, and kept in memory as a video file. The engine
alone labels its frames one after the other. `segment` reads the file and writes one output: JSON
lines, masks, an mp4, or the live page with one viewer. All ways take turns, and a round ends when
each had its time, so that a machine whose speed drifts slows all of them alike. The figures are
medians over the rounds.

``extra ms`` is the processor time that a frame needs beyond the network, summed over threads:
drawing and encoding. Where all processors work for the network already, this time is taken from it.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.viewer import Viewer
from edgeseg.backends.engine import Engine
from edgeseg.build.engine_cache import resolve_engine
from edgeseg.files import write_json
from edgeseg.profiling.machine import describe_machine
from edgeseg.types import Image
from edgeseg.video import (
    Frame,
    ImageFolderSink,
    Output,
    Sink,
    Source,
    VideoInfo,
    VideoSink,
    segment,
)

SIZES = ((360, 480), (720, 1280))  # H, W
DRAWN = 24  # frames of the drive; the file repeats them
FPS = 30.0


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", default="enet-camvid", help="an engine, or a net that ships")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a turn")
    parser.add_argument("--json", type=Path, help="write the results there")
    options = parser.parse_args()

    console = Console()
    engine = resolve_engine(options.engine, precision=options.precision)
    rows: list[dict[str, Any]] = []
    with engine, tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            with console.status(f"{size[1]}x{size[0]}: all outputs, a turn each"):
                rows += measure(engine, size, Path(folder), options.rounds, options.seconds)

    console.print(table(rows, engine))
    machine = describe_machine()
    console.print(f"{machine['cpu']}, {os.cpu_count()} processors")
    if options.json:
        report = {
            "benchmark": "live",
            "machine": machine,
            "engine": engine.passport.name,
            "precision": engine.passport.precision,
            "rounds": options.rounds,
            "rows": rows,
        }
        write_json(options.json, report)


def measure(
    engine: Engine, size: tuple[int, int], folder: Path, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Return one row per way to run an engine over a drive.

    Parameters
    ----------
    engine : labels the frames.
    size : (H, W) of the frames.
    folder : an empty folder for the outputs.
    rounds : turns of each way.
    seconds : length of a turn.

    Returns
    -------
    Rows with ``size``, ``output``, ``fps``, ``share`` of the engine's own frame rate, and
    ``extra_ms``.
    """
    images = drive(size)
    video = folder / f"drive-{size[1]}x{size[0]}.mp4"
    with VideoSink(video, VideoInfo(size[1], size[0], FPS, None, live=False)) as sink:
        for index in range(max(120, DRAWN)):
            image = images[index % len(images)]
            sink.write(_output(Frame(index, image, f"{index:06d}", index / FPS), image))

    ways: dict[str, Callable[[], tuple[float, float]]] = {
        "engine alone": lambda: alone(engine, images, seconds),
        "json": lambda: through(engine, video, seconds, lambda info: []),
        "masks": lambda: through(
            engine, video, seconds, lambda info: [ImageFolderSink(folder / "masks", labels)]
        ),
        "mp4": lambda: through(
            engine, video, seconds, lambda info: [VideoSink(folder / "out.mp4", info)]
        ),
        "page, one viewer": lambda: through_page(engine, video, seconds),
    }
    labels = engine.spec.labels

    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            turns[name].append(way())

    rows: list[dict[str, Any]] = []
    own = statistics.median(fps for fps, _ in turns["engine alone"])
    own_busy = statistics.median(busy for _, busy in turns["engine alone"])
    for name, measured in turns.items():
        fps = statistics.median(fps for fps, _ in measured)
        busy = statistics.median(busy for _, busy in measured)  # processor seconds per frame
        rows.append(
            {
                "size": f"{size[1]}x{size[0]}",
                "output": name,
                "fps": round(fps, 2),
                "share": round(fps / own, 3),
                "extra_ms": round(1e3 * (busy - own_busy), 2),
            }
        )
    return rows


def drive(size: tuple[int, int]) -> list[Image]:
    """Return frames of the synthetic drive."""
    from edgeseg.data.synthetic import parse_address

    drawn = parse_address(f"synthetic://?length={DRAWN}&size={size[1]}x{size[0]}&seed=4")
    return [np.ascontiguousarray(drawn.frame(index).image) for index in range(DRAWN)]


@contextmanager
def processor_time(frames: list[int], into: list[float]) -> Iterator[None]:
    """Note the frame rate of the block, and its processor seconds per frame."""
    start_s = time.perf_counter()
    start_busy_s = time.process_time()
    yield
    wall_s = time.perf_counter() - start_s
    into += [frames[0] / wall_s, (time.process_time() - start_busy_s) / max(1, frames[0])]


def alone(engine: Engine, images: Sequence[Image], seconds: float) -> tuple[float, float]:
    """Return the frames per second of the engine alone, and processor seconds per frame."""
    engine(images[0])
    frames = [0]
    result: list[float] = []
    with processor_time(frames, result):
        end_s = time.perf_counter() + seconds
        while time.perf_counter() < end_s:
            engine(images[frames[0] % len(images)])
            frames[0] += 1
    return result[0], result[1]


def through(
    engine: Engine,
    video: Path,
    seconds: float,
    sinks: Callable[[VideoInfo], list[Sink]],
) -> tuple[float, float]:
    """Return the frames per second of `segment` on a video, and processor seconds per frame."""
    source = repeated(video, seconds)
    frames = [0]
    result: list[float] = []
    with processor_time(frames, result):
        frames[0] = segment(engine, source, sinks(source.info)).frames_out
    return result[0], result[1]


def through_page(engine: Engine, video: Path, seconds: float) -> tuple[float, float]:
    """Return the same as ``through`` with the live page and one viewer."""
    from edgeseg.video import PageSink

    page = PageSink(engine.spec.labels, port=0)
    with Viewer(page):
        return through(engine, video, seconds, lambda info: [page])


def repeated(video: Path, seconds: float) -> Source:
    """Return a source that reads a video again and again for some seconds."""
    import cv2

    capture = cv2.VideoCapture(str(video))
    width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
    height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))

    def frames() -> Iterator[Frame]:
        end_s = time.perf_counter() + seconds
        index = 0
        while time.perf_counter() < end_s:
            got, image = capture.read()
            if not got:
                capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
                continue
            yield Frame(index, np.asarray(image, np.uint8), f"{index % 500:06d}", index / FPS)
            index += 1

    info = VideoInfo(width, height, FPS, None, live=False)
    return Source(info, frames(), release=capture.release)


def _output(frame: Frame, image: Image) -> Output:
    """Return an output with a picture and no labels."""
    return Output(frame, np.zeros(frame.size, np.uint8), image)


def table(rows: list[dict[str, Any]], engine: Engine) -> Table:
    """Return the rows as a table to print."""
    made = Table(title=f"{engine.passport.name} ({engine.passport.precision}), frames per second")
    for heading in ("video", "output", "FPS", "of the engine's", "extra ms of processor a frame"):
        made.add_column(heading, justify="left" if heading in ("video", "output") else "right")
    for row in rows:
        made.add_row(
            row["size"],
            row["output"],
            f"{row['fps']:.1f}",
            f"{100 * row['share']:.0f} %",
            f"{row['extra_ms']:.1f}",
        )
    return made


if __name__ == "__main__":
    main()
