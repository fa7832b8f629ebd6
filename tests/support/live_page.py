"""A run to look at on the live page: frames of the synthetic drive, a second engine, a browser."""

import json
import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.sync.client import ClientConnection, connect

from edgeseg.data.synthetic import SyntheticDrive
from edgeseg.imaging.postprocess import LabelMap
from edgeseg.video.frames import Frame
from edgeseg.video.page import PageSink
from edgeseg.video.sinks import Output
from edgeseg.video.status import Status

CHROMIUM = Path("/usr/bin/chromium")
ENGINES = ("net fp32", "net int8")
SIZE = (180, 240)
ROAD, CAR = 3, 8  # ids of CamVid


def second_opinion(labels: LabelMap) -> LabelMap:
    """Return what the further engine says: it takes every car for road."""
    return np.where(labels == CAR, ROAD, labels).astype(np.uint8)


class Scenes:
    """Make results of the synthetic drive, over and over; the frames are made once.

    Parameters
    ----------
    count : number of different frames.
    size : (H, W) of the frames.
    """

    def __init__(self, count: int = 6, size: tuple[int, int] = SIZE) -> None:
        drive = SyntheticDrive(length=60, size=size, seed=3)
        self.samples = [drive.frame(i) for i in range(count)]

    def output(
        self,
        index: int,
        *,
        source: int = 0,
        lost_s: float | None = None,
        engines: frozenset[str] = frozenset(),
    ) -> Output:
        sample = self.samples[index % len(self.samples)]
        frame = Frame(
            index,
            sample.image,
            f"{index:06d}",
            index / 20,
            captured_s=time.perf_counter(),
            lost_s=lost_s,
            source=source,
        )
        others = {name: second_opinion(sample.mask) for name in engines}
        status = Status(network_ms=12.5, dropped=3, temperature_c=61.0, engine="net fp32 cpu")
        return Output(frame, sample.mask, None, others, status)


class Feed:
    """Write results to a page 10 times a second, from a thread of its own.

    Attributes
    ----------
    lost_s : set it for a source without signal.
    hold : set it to write the same frame again and again.
    """

    def __init__(self, page: PageSink, scenes: Scenes, sources: int = 1) -> None:
        self.page = page
        self.lost_s: float | None = None
        self.hold = False
        self.index = 0
        self._scenes = scenes
        self._sources = sources
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            for source in range(self._sources):
                self.page.write(
                    self._scenes.output(
                        self.index,
                        source=source,
                        lost_s=self.lost_s,
                        engines=self.page.wanted_engines,
                    )
                )
            self.index += 0 if self.hold else 1

    def __enter__(self) -> "Feed":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(5)


@contextmanager
def chromium() -> Iterator[Any]:
    """Start a headless Chromium; skip the test where there is none."""
    if not CHROMIUM.is_file():
        pytest.skip(f"there is no {CHROMIUM}")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


def get(page: PageSink, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{page.port}{path}", timeout=5) as answer:
        return bytes(answer.read())


@contextmanager
def watch(
    page: PageSink, *engines: str, sources: tuple[str, ...] = ("camera0",)
) -> Iterator[ClientConnection]:
    """Connect as a viewer of some engines."""
    url = f"ws://127.0.0.1:{page.port}/ws"
    with connect(url, proxy=None, max_size=None, close_timeout=0.5) as viewer:
        assert json.loads(viewer.recv(timeout=5))["type"] == "hello"
        viewer.send(json.dumps({"sources": sources, "engines": engines}))
        yield viewer


def received(viewer: ClientConnection) -> bytes:
    """Return the viewer's next binary message."""
    message = viewer.recv(timeout=5)
    assert isinstance(message, bytes)
    return message


def until(condition: object, seconds: float = 5.0) -> bool:
    """Wait until a function returns something true."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return bool(condition())


def metric(page: PageSink, name: str) -> float:
    found = re.search(rf"^edgeseg_{re.escape(name)} (\S+)$", get(page, "/metrics").decode(), re.M)
    assert found, name
    return float(found[1])
