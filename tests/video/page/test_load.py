"""What the page costs the run: nothing left after the end, no slower loop, flat memory."""

import gc
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from live_page import ENGINES, Feed, Scenes, metric, until, watch

from edgeseg.spec import CAMVID_11
from edgeseg.video.page import PageSink


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return Scenes()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def stuck_viewer(page: PageSink) -> socket.socket:
    """A viewer who asks for the plain stream and reads nothing: its connection fills up."""
    raw = socket.create_connection(("127.0.0.1", page.port))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.sendall(f"GET /stream.mjpg HTTP/1.1\r\nHost: 127.0.0.1:{page.port}\r\n\r\n".encode())
    return raw


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="descriptors are counted in /proc")
def test_nothing_is_left_after_the_end(scenes: Scenes) -> None:
    def once(end: str) -> None:
        page = PageSink(CAMVID_11, port=0, engines=ENGINES)
        with ExitStack() as stack:
            viewers = [stack.enter_context(watch(page, *ENGINES)) for _ in range(3)]
            stuck = stack.enter_context(stuck_viewer(page))
            with Feed(page, scenes):
                viewers[0].recv(timeout=5)
                time.sleep(0.2)
            start = time.perf_counter()
            getattr(page, end)()
            assert time.perf_counter() - start < 2.0
            getattr(page, end)()  # a second time does nothing
            page.write(scenes.output(0))  # too late: ignored
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", page.port))  # the port is free
            stuck.close()

    once("finish")
    gc.collect()
    threads, descriptors = threading.active_count(), open_descriptors()
    for end in ("abort", "finish", "abort"):
        once(end)
    gc.collect()
    assert until(lambda: threading.active_count() <= threads)
    assert open_descriptors() <= descriptors


VIEWERS = """
import asyncio, json, sys
from websockets.asyncio.client import connect
port, quick, slow = map(int, sys.argv[1:])

async def view(slow):
    url = f"ws://127.0.0.1:{port}/ws"
    async with connect(url, max_size=None, max_queue=1, proxy=None) as socket:
        await socket.recv()
        await socket.send(json.dumps({"sources": ["camera0"], "engines": ["net fp32"]}))
        while True:
            await socket.recv()
            await asyncio.sleep(2.0 if slow else 0)
            await socket.send('{"ack": "camera0"}')

async def main():
    await asyncio.gather(*[view(i < slow) for i in range(quick + slow)])

asyncio.run(main())
"""


def resident_mb() -> float:
    """Return the memory of this process, megabytes."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="memory is read from /proc")
def test_viewers_slow_nothing_down_and_memory_is_flat(scenes: Scenes) -> None:
    """20 viewers, of whom 10 read slowly, against none: rate of a loop whose engine only sleeps.

    The sleep stands for an engine on its own processor, so the encoding has a core to spare; what
    is measured is what ``write`` and the server's hold on Python's lock cost the loop. The two
    cases take turns, because other programs run here, too.
    """

    def rate(page: PageSink, frames: int = 24) -> float:
        start = time.perf_counter()
        for index in range(frames):
            time.sleep(0.05)
            page.write(scenes.output(index))
        return frames / (time.perf_counter() - start)

    with (
        PageSink(CAMVID_11, port=0, engines=ENGINES) as alone,
        PageSink(CAMVID_11, port=0, engines=ENGINES) as page,
    ):
        arguments = [str(page.port), "10", "10"]
        with subprocess.Popen([sys.executable, "-c", VIEWERS, *arguments]) as viewers:
            try:
                with Feed(page, scenes):
                    assert until(lambda: metric(page, "page_viewers") == 20, 20), viewers.poll()
                    encoded = metric(page, "page_encoded_total")
                    assert until(lambda: metric(page, "page_encoded_total") > encoded + 5)

                ratios = []
                for _ in range(3):
                    ratios.append(rate(page) / rate(alone))
                assert max(ratios) >= 0.95, ratios
                assert metric(page, "page_viewers") == 20

                # Thousands of frames, as fast as they come.
                for index in range(500):
                    page.write(scenes.output(index))
                gc.collect()
                before = resident_mb()
                for index in range(6000):
                    page.write(scenes.output(index))
                    if index % 10 == 0:
                        time.sleep(0.002)
                gc.collect()
                assert resident_mb() - before < 10
            finally:
                viewers.kill()
