"""A V4L2 camera that OpenCV's own backend opens: a library answers for ``/dev/video42``.

The camera runs in a child process, which starts with the library.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from paths import ROOT, TESTS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="V4L2 is of Linux")

READ = """
import json, os, sys, time
from pathlib import Path
from edgeseg.errors import InputError
from edgeseg.video.sources.live import CameraSettings, LiveOptions, open_camera

folder = Path(os.environ["FAKE_CAMERA"])
found = {}

def wait(source, lost):
    start = time.perf_counter()
    while ((frame := next(source)).lost_s is not None) != lost:
        assert time.perf_counter() - start < 10
    return time.perf_counter() - start, frame
"""

PLAY = (
    READ
    + """
settings = CameraSettings(**json.loads(sys.argv[1]))
with open_camera("/dev/video42", settings) as source:
    next(source)
    ages, levels, start = [], [], time.perf_counter()
    frames = []
    while time.perf_counter() - start < 1.0:
        frame = next(source)
        ages.append(time.perf_counter() - frame.captured_s)
        levels.append(frame.image.mean(axis=(0, 1)).tolist())
        frames.append(frame)
    took = time.perf_counter() - start
    stamps = [frame.captured_s for frame in frames]
    print(json.dumps({
        "info": [source.info.width, source.info.height, source.info.fps],
        "shape": frames[0].image.shape, "rate": (len(frames) + source.dropped) / took,
        "age": sorted(ages)[len(ages) // 2], "level": levels[0],
        "stamped": len(set(stamps)) == len(stamps) and stamps == sorted(stamps),
    }))
"""
)

LOSE = (
    READ
    + """
before = len(os.listdir("/proc/self/fd"))
with open_camera("/dev/video42", CameraSettings(format="MJPG"), LiveOptions(stall_s=1)) as source:
    wait(source, lost=False)
    found["returns"] = []
    for fault in ("unplugged", "stalled"):
        (folder / fault).touch()
        wait(source, lost=True)
        time.sleep(0.6)
        (folder / fault).unlink()
        seconds, frame = wait(source, lost=False)
        found["returns"].append(seconds)
    found["reconnects"] = source.reconnects
    found["events"] = source.take_events()
found["left"] = len(os.listdir("/proc/self/fd")) - before
(folder / "unplugged").touch()
try:
    open_camera("/dev/video42")
except InputError as error:
    found["error"] = str(error)
print(json.dumps(found))
"""
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the camera with")
    built = tmp_path_factory.mktemp("camera") / "v4l2_camera.so"
    source = TESTS / "support" / "v4l2_camera.c"
    words = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(built), str(source), "-ldl"]
    done = subprocess.run([compiler, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return built


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for width, height in ((640, 360), (320, 180)):
        image = np.full((height, width, 3), (30, 60, 200), np.uint8)
        assert cv2.imwrite(str(tmp_path / f"{width}x{height}.jpg"), image)
    return tmp_path


def run(code: str, library: Path, folder: Path, *arguments: str) -> dict[str, Any]:
    """What a child process with the camera found."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "LD_PRELOAD": str(library),
            "FAKE_CAMERA": str(folder),
        },
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("settings", "size", "fps", "kind"),
    [
        ({}, (640, 360), 30, "YUYV"),
        ({"size": (320, 180), "fps": 60, "format": "MJPG"}, (320, 180), 60, "MJPG"),
    ],
)
def test_a_camera_gives_what_it_is_asked_for(
    library: Path,
    folder: Path,
    settings: dict[str, object],
    size: tuple[int, int],
    fps: int,
    kind: str,
) -> None:
    found = run(PLAY, library, folder, json.dumps(settings))
    assert found["info"] == [*size, fps]
    assert found["shape"] == [size[1], size[0], 3]
    assert (folder / "log").read_text().splitlines()[-1].startswith(f"{kind} {size[0]}x{size[1]} ")
    assert found["rate"] > 0.7 * fps  # with one buffer it would be half of it
    assert found["age"] < 0.03
    assert found["stamped"]

    blue, green, red = found["level"]
    if kind == "MJPG":
        assert (blue, green, red) == pytest.approx((30, 60, 200), abs=4)
    else:
        assert max(found["level"]) - min(found["level"]) < 3


def test_a_camera_that_is_unplugged_and_comes_back(library: Path, folder: Path) -> None:
    found = run(LOSE, library, folder)
    assert max(found["returns"]) < 2.0
    assert found["reconnects"] == 2
    assert found["left"] == 0
    assert found["events"][0] == "no signal (no such device); trying again"
    assert found["events"][1].startswith("back after")
    assert len(found["events"]) == 4
    assert "camera /dev/video42: no such device" in found["error"]
