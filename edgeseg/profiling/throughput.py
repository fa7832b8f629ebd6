"""Measure frames per second with several frames in flight, beside the latency of one at a time."""

import importlib
import io
import threading
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from edgeseg.backends.engine import Engine
from edgeseg.backends.openvino import backend, runtime
from edgeseg.backends.openvino.engine import unpack
from edgeseg.capabilities import STREAMS
from edgeseg.cores import usable_cores
from edgeseg.imaging.preprocess import resize_frame, resize_labels
from edgeseg.passport import Passport
from edgeseg.types import Image

IN_FLIGHT = (1, 2, 4)
CPU = "cpu"


def throughput(
    engine: Engine, file: Path | None, frames: Sequence[Image], seconds: float
) -> list[dict[str, Any]]:
    """Return frames per second for 1, 2, ... frames in flight.

    Target cpu: OpenVINO's asynchronous requests, with as many streams as requests, at most as many
    as cores. TensorRT: one call at a time, and the engine's own ``stream``. Frames are resized and
    label maps are written, as in a call.

    Parameters
    ----------
    engine : the engine.
    file : its file; without it, a cpu engine has no figures.
    frames : (H, W, 3) uint8 BGR.
    seconds : time of each measurement.
    """
    if engine.passport.target == CPU and file is not None:
        return [_in_flight(file, engine, frames, seconds, count) for count in IN_FLIGHT]
    if STREAMS in engine.capabilities:
        return [_one_by_one(engine, frames, seconds), _streamed(engine, frames, seconds)]
    return []


def _row(count: int, frames: int, seconds: float, how: str) -> dict[str, Any]:
    """Return the result of one measurement."""
    return {"in_flight": count, "frames_per_s": frames / seconds, "frames": frames, "how": how}


def _one_by_one(engine: Engine, frames: Sequence[Image], seconds: float) -> dict[str, Any]:
    """Call the engine again and again."""
    engine(frames[0])
    start = time.perf_counter()
    count = 0
    while time.perf_counter() - start < seconds or not count:
        engine(frames[count % len(frames)])
        count += 1
    return _row(1, count, time.perf_counter() - start, "one call at a time")


def _streamed(engine: Any, frames: Sequence[Image], seconds: float) -> dict[str, Any]:
    """Use the engine's stream, which overlaps copies and computing."""
    for _ in engine.stream(islice(cycle(frames), 4)):
        pass
    start = time.perf_counter()
    end = start + seconds

    def until_the_end() -> Any:
        for frame in cycle(frames):
            yield frame
            if time.perf_counter() >= end:
                return

    count = sum(1 for _ in engine.stream(until_the_end()))
    return _row(2, count, time.perf_counter() - start, "stream")


def _in_flight(
    file: Path, engine: Engine, frames: Sequence[Image], seconds: float, count: int
) -> dict[str, Any]:
    """Keep ``count`` requests of a cpu engine at work."""
    streams = min(count, usable_cores())
    compiled = open_compiled(file, {"NUM_STREAMS": str(streams)})
    shape = tuple(compiled.input(0).shape)[1:3]
    queue = _queue(compiled, count)

    done = 0
    lock = threading.Lock()

    def finish(request: Any, size: tuple[int, int]) -> None:
        nonlocal done
        resize_labels(request.get_output_tensor(0).data[0].copy(), size)
        with lock:
            done += 1

    def send(number: int) -> None:
        frame = frames[number % len(frames)]
        fitted = resize_frame(frame, shape)
        queue.start_async({0: fitted[None]}, frame.shape[:2])

    queue.set_callback(finish)
    for number in range(2 * count):  # warm up every request
        send(number)
    queue.wait_all()

    done = 0
    number = 0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or not number:
        send(number)
        number += 1
    queue.wait_all()
    spent = time.perf_counter() - start
    return _row(count, done, spent, f"{count} requests, {streams} streams")


def _queue(compiled: Any, count: int) -> Any:
    """Return OpenVINO's queue of ``count`` asynchronous requests."""
    runtime.core()  # imports OpenVINO without its telemetry
    return importlib.import_module("openvino").AsyncInferQueue(compiled, count)


def open_compiled(file: Path, settings: dict[str, str]) -> Any:
    """Open the graph of a cpu engine once more, with other settings.

    Parameters
    ----------
    file : the engine file.
    settings : settings of OpenVINO, beside those of the passport.

    Returns
    -------
    OpenVINO's compiled model, which returns labels.

    Raises
    ------
    EngineError : the file is no engine of the cpu target.
    """
    passport = Passport.read(file)
    backend.prepare_to_open(passport)
    blob, _ = unpack(file.read_bytes(), passport.name)
    config = {**passport.openvino.config, **settings}
    return runtime.core().import_model(io.BytesIO(blob), "CPU", config)
