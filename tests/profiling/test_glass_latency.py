"""Check the time from light to picture: on the synthetic camera, and on filmed codes."""

import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from commands import edgeseg

from edgeseg.profiling.glass_latency import CounterSink, ScreenSink, read_time, time_code
from edgeseg.spec import CAMVID_11, ModelSpec
from edgeseg.types import Image
from edgeseg.video import Frame, Output, open_source, segment

CAMERA = "synthetic://?size=160x120&fps=30&realtime=1&counter=1&length=45"
SPEC = ModelSpec(architecture="stub", input_size=(120, 160), labels=CAMVID_11)


class Engine:
    """A network that takes a fixed time."""

    spec = SPEC

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, frame: Image) -> Image:
        time.sleep(self.seconds)
        return np.zeros(frame.shape[:2], np.uint8)


def output(image: Image) -> Output:
    return Output(Frame(0, image, "x", 0.0), np.zeros(image.shape[:2], np.uint8), image)


def test_the_age_grows_with_the_time_of_the_network() -> None:
    medians = []
    for seconds in (0.005, 0.105):
        sink = CounterSink(fps=30.0)
        segment(Engine(seconds), open_source(CAMERA), [sink])
        result = sink.result()
        assert result.read == result.frames > 5
        assert result.age_ms is not None
        assert result.age_ms.p50 >= seconds * 1e3
        medians.append(result.age_ms.p50)
    # A network of 100 ms more: its own time, and the wait of a frame for the network before it.
    assert 80 < medians[1] - medians[0] < 250


def filmed(code: Image) -> Image:
    """Return a code as a camera sees it: askew, on a dull wall, blurred, noisy."""
    wall = np.full((480, 640, 3), (90, 100, 95), np.uint8)
    side = code.shape[0]
    corners = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float32)
    seen = np.array([[210, 90], [450, 110], [440, 350], [195, 325]], np.float32)
    warp = cv2.getPerspectiveTransform(corners, seen)
    picture = cv2.warpPerspective(code, warp, (640, 480))
    inside = cv2.warpPerspective(np.full((side, side), 255, np.uint8), warp, (640, 480))
    wall[inside > 0] = picture[inside > 0]
    noise = np.random.default_rng(0).normal(0, 4, wall.shape)
    return np.clip(cv2.GaussianBlur(wall, (3, 3), 0) + noise, 0, 255).astype(np.uint8)


def test_a_filmed_code_is_read() -> None:
    assert read_time(cv2.QRCodeDetector(), filmed(time_code(98765432))) == 98765432


def test_no_code_is_no_time() -> None:
    reader = cv2.QRCodeDetector()
    encoder: Any = cv2.QRCodeEncoder.create()
    cells = np.asarray(encoder.encode("https://example.org"), np.uint8)
    code = np.kron(np.pad(cells, 4, constant_values=255), np.ones((10, 10), np.uint8))
    other = np.asarray(cv2.cvtColor(code.astype(np.uint8), cv2.COLOR_GRAY2BGR), np.uint8)
    assert cv2.QRCodeDetector().detectAndDecode(other)[0] == "https://example.org"
    assert read_time(reader, other) is None
    assert read_time(reader, np.zeros((480, 640, 3), np.uint8)) is None


def test_a_camera_that_films_the_window() -> None:
    """Each frame is what the window showed 250 ms before the picture was finished."""
    shown: list[tuple[float, Image]] = []

    def show(picture: Image) -> bool:
        shown.append((time.perf_counter(), picture))
        return len(shown) > 6

    sink = ScreenSink(show)
    while not sink.closed:
        time.sleep(0.25)
        sink.write(output(filmed(shown[-1][1])))
    result = sink.result()
    assert result.read >= 4
    assert result.age_ms is not None
    assert 250 <= result.age_ms.p50 < 600


def test_the_command_on_the_synthetic_camera(tmp_path: Path) -> None:
    report = tmp_path / "age.json"
    camera = "synthetic://?size=160x120&fps=30&realtime=1&counter=1"
    done = edgeseg(
        "latency-test", "enet-camvid", camera, "--precision", "fp32", "--seconds", "3s",
        "--json", report,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "light to picture" in done.stdout
    facts = json.loads(report.read_text())
    assert facts["read"] > 0
    assert facts["age_ms"]["p95"] >= facts["age_ms"]["p50"] > 0
    assert facts["pipeline"]["latency_ms"]["network"]["p50"] < facts["age_ms"]["p50"]


def test_a_recording_has_no_age(tmp_path: Path) -> None:
    done = edgeseg("latency-test", "enet-camvid", "synthetic://?length=3", "--precision", "fp32")
    assert done.returncode == 2
    assert "is a recording" in done.stderr
