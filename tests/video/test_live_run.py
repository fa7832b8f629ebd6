"""Check runs on live sources: nothing slows the network, every frame tells its age, a lost camera
is told from an end.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from reporting import Heard

from edgeseg.errors import InputError
from edgeseg.imaging.postprocess import LabelMap
from edgeseg.spec import CAMVID_11, ModelSpec
from edgeseg.types import Image
from edgeseg.video import (
    Frame,
    ImageFolderSink,
    LiveOptions,
    Output,
    Playback,
    Sink,
    Source,
    VideoInfo,
    merge,
    open_source,
    segment,
)
from edgeseg.video.interrupts import sigterm_stops

SPEC = ModelSpec(architecture="stub", input_size=(48, 64), labels=CAMVID_11)


class Engine:
    """A network that takes a fixed time."""

    spec = SPEC

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self, frame: Image) -> LabelMap:
        time.sleep(self.seconds)
        return np.zeros(frame.shape[:2], np.uint8)


class Recorder(Sink):
    """Keep every output; take a fixed time for each."""

    needs_picture = False

    def __init__(self, seconds: float = 0.0) -> None:
        self.outputs: list[Output] = []
        self.seconds = seconds

    def write(self, output: Output) -> None:
        time.sleep(self.seconds)
        self.outputs.append(output)


def camera(seconds: float, fps: float) -> Source:
    """Return a camera that runs for some seconds."""

    def frames() -> Iterator[Frame]:
        start_s = time.perf_counter()
        for index in range(round(seconds * fps)):
            due_s = start_s + index / fps
            time.sleep(max(0.0, due_s - time.perf_counter()))
            image = np.zeros((48, 64, 3), np.uint8)
            yield Frame(index, image, f"{index:06d}", index / fps, captured_s=time.perf_counter())

    return Source(VideoInfo(64, 48, fps, None, live=True), frames())


def test_a_slow_sink_does_not_slow_the_network() -> None:
    sink = Recorder(seconds=0.2)
    summary = segment(Engine(0.01), camera(2.0, fps=50), [sink])
    assert summary.frames_in + summary.dropped == pytest.approx(100, abs=2)
    assert summary.frames_in >= 3 * summary.frames_out
    assert summary.skipped == summary.frames_in - summary.frames_out

    # What it writes is the newest there is: its own frame, and at most the two that wait before it.
    assert summary.age_ms is not None
    assert summary.age_ms.p95 < 3 * 200 + 100


def test_every_result_has_its_age_and_rate() -> None:
    sink = Recorder()
    summary = segment(Engine(0.02), camera(1.0, fps=100), [sink])
    ages = [output.status.age_ms for output in sink.outputs]
    assert all(age is not None and 20 <= age < 500 for age in ages)
    rate = sink.outputs[-1].status.fps
    assert rate is not None
    assert 10 < rate <= 50.5
    assert summary.age_ms is not None
    assert summary.age_ms.p50 >= 20


def test_a_recording_has_no_age() -> None:
    frames = iter([Frame(0, np.zeros((48, 64, 3), np.uint8), "000000", 0.0)])
    sink = Recorder()
    summary = segment(Engine(), Source(VideoInfo(64, 48, 25.0, 1, live=False), frames), [sink])
    assert summary.age_ms is None
    assert sink.outputs[0].status.age_ms is None


def lost_camera() -> Source:
    """Return a camera that gives two frames and is lost; its last frame is repeated."""
    image = np.zeros((48, 64, 3), np.uint8)

    def frames() -> Iterator[Frame]:
        yield Frame(0, image, "000000", 0.0, captured_s=time.perf_counter())
        time.sleep(0.1)
        yield Frame(1, image, "000001", 0.1, captured_s=time.perf_counter())
        for half_seconds in range(1, 4):
            time.sleep(0.1)
            yield Frame(1, image, "000001", 0.1, lost_s=half_seconds / 2)

    source = Source(VideoInfo(64, 48, 10.0, None, live=True), frames())
    source.lost = True
    return source


def test_a_lost_camera_is_shown_and_told_from_an_end(tmp_path: Path) -> None:
    sink = Recorder()
    masks = ImageFolderSink(tmp_path / "masks", CAMVID_11)
    summary = segment(Engine(), lost_camera(), [sink, masks])
    assert summary.stopped == "camera lost"
    assert summary.frames_out == 2
    lost = [output.status.lost_s for output in sink.outputs]
    assert lost[:2] == [None, None]
    assert lost[-1] == 1.5
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == [
        "000000.png",
        "000001.png",
    ]


def test_a_lost_camera_and_one_of_several_that_ends_are_told() -> None:
    camera = "synthetic://?size=64x48&fps=30&realtime=1&length=60&fault=unplug@0.3:1"
    heard = Heard()
    live = LiveOptions(stall_s=0.5)
    source = open_source(camera, live=live, playback=Playback(duration_s=60))
    segment(Engine(), source, [Recorder()], reporter=heard)
    assert len(heard.lines) == 2
    assert heard.lines[0].startswith("warning: synthetic: no signal")
    assert heard.lines[1].startswith("warning: synthetic: back after")


def test_a_source_of_several_that_breaks_is_told_at_once() -> None:
    def broken() -> Iterator[Frame]:
        yield Frame(0, np.zeros((48, 64, 3), np.uint8), "000000", 0.0)
        raise InputError("the file is cut short")

    heard = Heard()
    part = Source(VideoInfo(64, 48, 10.0, None, live=False), broken())
    part.name = "rear"
    whole = camera(0.5, fps=20)
    whole.name = "front"
    with pytest.raises(InputError, match="cut short"):
        segment(Engine(), merge([whole, part]), [Recorder()], reporter=heard)
    assert heard.lines == ["warning: rear: ended: the file is cut short."]


def test_sigterm_ends_a_run_in_order() -> None:
    finished: list[bool] = []

    class Finishing(Recorder):
        def finish(self) -> None:
            finished.append(True)

    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with sigterm_stops():
        summary = segment(Engine(), camera(30.0, fps=20), [Finishing()])
    assert summary.stopped == "terminated"
    assert finished == [True]
