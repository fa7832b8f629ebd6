"""Several sources with one engine: a turn each, and none waits for another."""

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.video import Frame, Playback, Source, VideoInfo, merge, open_source
from edgeseg.video.sources import source_name
from edgeseg.video.sources.words import unique_names

BLACK = np.zeros((48, 64, 3), np.uint8)


def recording(frames: int, name: str = "", fail_at: int | None = None) -> Source:
    """A recording of so many frames, which may break."""

    def read() -> Iterator[Frame]:
        for index in range(frames):
            if index == fail_at:
                raise InputError(f"{name}: broke")
            yield Frame(index, BLACK, f"{index:06d}", index / 10)

    source = Source(VideoInfo(64, 48, 10.0, frames, live=False), read())
    source.name = name
    return source


class Camera:
    """A live source that gives a frame every so many seconds, and can be stuck or dead."""

    def __init__(self, every_s: float, name: str = "") -> None:
        self.produced = 0
        self.stop = threading.Event()
        self.stuck = threading.Event()
        self.source = Source(
            VideoInfo(64, 48, 1 / every_s, None, live=True), self._read(every_s), None
        )
        self.source.name = name

    def _read(self, every_s: float) -> Iterator[Frame]:
        while not self.stop.wait(every_s):
            while self.stuck.is_set() and not self.stop.wait(0.01):
                pass
            yield Frame(self.produced, BLACK, f"{self.produced:06d}", self.produced * every_s)
            self.produced += 1


@pytest.fixture(autouse=True)
def _threads_end() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 5
    while [t for t in threading.enumerate() if t.name.startswith("edgeseg-")]:
        assert time.monotonic() < deadline, "threads are left"
        time.sleep(0.01)


def test_files_take_turns_and_lose_nothing() -> None:
    with merge([recording(20, "a"), recording(5, "b"), recording(20, "a")]) as source:
        assert source.info == VideoInfo(64, 48, 10.0, 45, live=False)
        assert source.names == ("a", "b", "a-2")
        assert source.count == 3
        frames = list(source)

    assert len({frame.name for frame in frames}) == len(frames) == 45
    for number, length in enumerate((20, 5, 20)):
        own = [frame for frame in frames if frame.source == number]
        assert [frame.index for frame in own] == list(range(length))
        assert own[0].name == f"{source.names[number]}-000000"
    assert source.dropped == 0


def test_no_source_is_served_twice_while_another_waits() -> None:
    with merge([recording(30), recording(30)]) as source:
        order = []
        for frame in source:
            order.append(frame.source)
            time.sleep(0.005)  # an engine, during which both become ready
    # A busy machine may hold a reader back for a moment.
    repeats = [a for a, b in itertools.pairwise(order) if a == b]
    assert len(repeats) <= 5


def test_a_slow_and_a_dead_camera_delay_nobody() -> None:
    fast, slow, dead = Camera(0.005), Camera(0.2), Camera(0.005)
    dead.stuck.set()
    with merge([dead.source, fast.source, slow.source]) as source:
        assert source.info.live
        next(source)
        start = time.perf_counter()
        taken = [next(source).source for _ in range(100)]
        took_s = time.perf_counter() - start
        for camera in (fast, slow, dead):
            camera.stop.set()

    assert took_s < 2.0  # 0.5 s alone
    assert taken.count(0) == 0
    assert taken.count(1) > 80
    assert 1 <= taken.count(2) <= 10


def test_the_newest_frame_of_each_camera_is_taken_and_the_others_are_counted() -> None:
    cameras = [Camera(0.004), Camera(0.004)]
    with merge([camera.source for camera in cameras]) as source:
        first = [next(source), next(source)]
        for _ in range(10):
            time.sleep(0.1)  # 25 frames
            frame = next(source)
            behind = cameras[frame.source].produced - frame.index
            assert behind <= 12, "an old frame"
        assert source.dropped > 50
        for camera in cameras:
            camera.stop.set()
    assert {frame.source for frame in first} <= {0, 1}


def test_dropped_is_what_was_produced_and_not_shown() -> None:
    cameras = [Camera(0.003), Camera(0.005)]
    with merge([camera.source for camera in cameras]) as source:
        firsts: dict[int, int] = {}
        lasts: dict[int, int] = {}
        shown = 0
        for count, frame in enumerate(source):
            firsts.setdefault(frame.source, frame.index)
            lasts[frame.source] = frame.index
            shown += 1
            time.sleep(0.01)
            if count == 40:
                for camera in cameras:
                    camera.stop.set()
        passed = sum(lasts[number] - firsts[number] + 1 for number in (0, 1))
        # Frames before the first shown of a source may have been dropped, too.
        early = sum(firsts.values())
        assert passed - shown <= source.dropped <= passed - shown + early


def test_a_file_beside_a_camera_loses_nothing() -> None:
    camera = Camera(0.004)
    with merge([camera.source, recording(15)]) as source:
        frames = []
        for frame in source:
            frames.append(frame)
            time.sleep(0.01)
            if [f.source for f in frames].count(1) == 15:
                camera.stop.set()
    assert [f.index for f in frames if f.source == 1] == list(range(15))
    assert [f.source for f in frames].count(0) >= 13


def test_a_lost_cameras_repeated_pictures_pass_and_replace_no_new_ones() -> None:
    gate = threading.Event()

    def read() -> Iterator[Frame]:
        yield Frame(0, BLACK, "000000", 0.0)
        for number in range(5):
            yield Frame(0, BLACK, "000000", 0.0, lost_s=2.0 + number / 2)
            time.sleep(0.01)
        gate.wait(5)

    camera = Source(VideoInfo(64, 48, 10.0, None, live=True), read())
    with merge([camera, recording(2)]) as source:
        frames = [next(source) for _ in range(3)]
        time.sleep(0.2)
        frames.append(next(source))
        gate.set()
    lost = [frame for frame in frames if frame.lost_s is not None]
    assert lost
    assert all(frame.source == 0 for frame in lost)
    assert source.dropped == 0


def test_a_file_that_breaks_ends_alone_and_is_told_at_the_end() -> None:
    with merge([recording(9, "front", fail_at=3), recording(9, "back")]) as source:
        frames: list[Frame] = []
        with pytest.raises(InputError, match="front: broke"):
            frames.extend(source)
        assert next(source, None) is None
    assert [frame.source for frame in frames].count(0) == 3
    assert [frame.source for frame in frames].count(1) == 9


def test_what_a_source_left_out_is_told(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), BLACK)
    (tmp_path / "b.png").write_bytes(b"no picture")
    with merge([recording(3), open_source(str(tmp_path))]) as source:
        assert len(list(source)) == 4
        assert len(source.skipped) == 1
        assert "b.png: cannot be read" in source.skipped[0]


def test_a_batch_holds_one_frame_of_each() -> None:
    with merge([recording(6), recording(6), recording(2)]) as source:
        batches: list[list[Frame]] = []
        while batch := source.ready(4):
            batches.append(batch)
            time.sleep(0.02)
    assert sum(len(batch) for batch in batches) == 14
    for batch in batches:
        assert len({frame.source for frame in batch}) == len(batch)
    assert len(batches[1]) == 3
    with merge([recording(6), recording(6), recording(6)]) as source:
        next(source)
        time.sleep(0.05)
        assert len(source.ready(2)) == 2


def test_closing_four_stuck_cameras_takes_no_longer_than_one() -> None:
    cameras = [Camera(0.005) for _ in range(4)]
    release = threading.Event()

    def hang() -> Iterator[Frame]:
        yield Frame(0, BLACK, "0", 0.0)
        release.wait(20)

    stuck = [Source(VideoInfo(64, 48, None, None, live=True), hang()) for _ in range(4)]
    source = merge([camera.source for camera in cameras] + stuck)
    for _ in range(20):
        next(source)
    start = time.monotonic()
    source.close()
    assert time.monotonic() - start < 4
    assert next(source, None) is None
    release.set()
    for camera in cameras:
        camera.stop.set()


def test_a_waiting_consumer_wakes_when_another_thread_closes() -> None:
    camera = Camera(0.005)
    camera.stuck.set()
    source = merge([camera.source])
    threading.Timer(0.1, source.close).start()
    assert next(source, None) is None
    camera.stop.set()


def test_what_merged_sources_read_is_known(tmp_path: Path) -> None:
    for name in ("left.png", "right.png"):
        cv2.imwrite(str(tmp_path / name), BLACK)
    paths = [tmp_path / "left.png", tmp_path / "right.png"]
    sources = [open_source(str(path)) for path in paths]
    sources.append(open_source("synthetic://?length=1&size=64x48", playback=Playback(every=1)))
    with merge(sources) as source:
        assert source.paths == (*paths, None)
        assert source.names == ("left", "right", "synthetic")
    with pytest.raises(InputError, match="no sources"):
        merge([])


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("0", "camera0"),
        ("/dev/video12", "camera12"),
        ("v4l2:///dev/video3?size=640x480", "camera3"),
        ("v4l2:///dev/v4l/by-id/usb-Cam-index0?fps=30", "usb-Cam-index0"),
        ("csi://1?flip=2", "csi1"),
        ("rtsp://admin:s3cret@front-door.local:554/h264?token=s3cret", "front-door.local"),
        ("http://[fe80::1]:8080/video", "fe80-1"),
        ("rtsp://admin:s3cret@[broken/live", "stream"),
        ("-", "pipe"),
        ("/dev/fd/63", "pipe"),
        ("v4l2src ! appsink", "pipeline"),
        ("synthetic://?length=9", "synthetic"),
        ("clips/../My Drive (1).mp4", "My-Drive-1"),
        ("file:///tmp/a.b.mp4", "a.b"),
        ("/tmp/../..", "source"),
        ("x" * 300 + ".mp4", "x" * 48),  # longer than a file's name may be
        ("\udcff.mp4", "source"),
    ],
)
def test_names_are_short_and_safe(uri: str, name: str) -> None:
    assert source_name(uri) == name


def test_no_two_names_are_equal() -> None:
    names = unique_names(["a", "A", "a-2", "a", ""])
    assert len({name.lower() for name in names}) == 5
    assert names[0] == "a"
