"""Start the live demo as a user does, on a machine without camera and display."""

import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from paths import ROOT

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")


@contextmanager
def demo(*arguments: str, cache: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the demo without a display, and end it after the block."""
    environment = {**os.environ, "EDGESEG_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}
    environment.pop("DISPLAY", None)
    environment.pop("WAYLAND_DISPLAY", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "camera_demo", *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def url_of(process: subprocess.Popen[str]) -> str:
    """Return the address of the page that the demo prints."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"http://\S+", line):
            return found[0]
    raise AssertionError("the demo ended without a page")


def snapshot(url: str) -> np.ndarray | None:
    """Return the picture of now; None if there is none yet."""
    try:
        with urllib.request.urlopen(f"{url}snapshot.jpg", timeout=5) as answer:
            return cv2.imdecode(np.frombuffer(answer.read(), np.uint8), cv2.IMREAD_COLOR)
    except urllib.error.HTTPError:
        return None


@pytest.mark.skipif(any(Path("/dev").glob("video*")), reason="this machine has a camera")
def test_with_nothing_at_hand_a_page_shows_the_drive(tmp_path: Path) -> None:
    start_s = time.monotonic()
    with demo("--page", "0", cache=tmp_path) as process:
        url = url_of(process)
        while (picture := snapshot(url)) is None:
            assert time.monotonic() - start_s < 30
            time.sleep(0.1)
        seconds = time.monotonic() - start_s
    assert picture.shape[1] >= 640
    assert picture.std() > 20  # a street, not a blank picture
    assert seconds < 20, "10 s on an idle machine"


def test_an_unknown_source_is_one_line(tmp_path: Path) -> None:
    with demo("no-such-video.mp4", cache=tmp_path) as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert len(out.splitlines()) == 1
    assert out.startswith("error: no-such-video.mp4: no such")
