"""Sources, sinks and the pipeline, with real codecs and real threads.

Only the network is a plain function.
"""

import http.server
import itertools
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
from paths import SHARED
from reporting import Heard

import edgeseg.video
from edgeseg.capabilities import NV12, PAINT
from edgeseg.errors import EngineError, InputError, MissingDependencyError, OutputError
from edgeseg.imaging.nv12 import Nv12
from edgeseg.imaging.postprocess import overlay
from edgeseg.reporter import SILENT
from edgeseg.spec import CAMVID_11, ModelSpec
from edgeseg.video import (
    Frame,
    ImageFolderSink,
    Output,
    PictureSink,
    Sink,
    Source,
    VideoInfo,
    VideoSink,
    WindowSink,
    open_source,
    segment,
    sinks,
)
from edgeseg.video.containers import Container, early_end, inspect
from edgeseg.video.frames import Channel
from edgeseg.video.sources import opencv
from edgeseg.video.sources.captures import CaptureCamera
from edgeseg.video.sources.reconnect import LiveSource
from edgeseg.video.summary import Samples
from edgeseg.video.view import Legend, View

CLIPS = SHARED / "data" / "clips"
SPEC = ModelSpec(architecture="stub", input_size=(48, 64), labels=CAMVID_11)
PLAIN = View(legend="off", hud=False, smooth=False)


class Engine:
    """A network for the mechanics: the label is the brightness, so it says which frame it saw."""

    spec = SPEC

    def __init__(self, also: Callable[[int], object] = lambda call: None) -> None:
        self.calls, self.also = 0, also

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        self.also(self.calls)
        self.calls += 1
        return frame[:, :, 0] // 20


class Recorder(Sink):
    """Remembers what was done to it."""

    def __init__(self, on_write: Callable[[int], object] = lambda index: None) -> None:
        self.outputs: list[Output] = []
        self.events: list[str] = []
        self.on_write = on_write

    def write(self, output: Output) -> None:
        self.on_write(len(self.outputs))
        self.outputs.append(output)

    def finish(self) -> None:
        self.events.append("finish")

    def abort(self) -> None:
        self.events.append("abort")


def picture(index: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """A frame whose brightness tells its number apart from its neighbours' after a codec went over
    it.
    """
    image = np.full((size[1], size[0], 3), 20 + 10 * (index % 20), np.uint8)
    image[: size[1] // 4] = np.random.default_rng(index).integers(
        0, 256, (size[1] // 4, size[0], 3)
    )
    return image


def make_video(
    path: Path, frames: int = 30, fps: float = 15.0, size: tuple[int, int] = (64, 48)
) -> Path:
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size)
    assert writer.isOpened()
    for index in range(frames):
        writer.write(picture(index, size))
    writer.release()
    return path


def memory_source(
    frames: int = 20, release: Callable[[], None] | None = None, fail_at: int | None = None
) -> Source:
    def read() -> Iterator[Frame]:
        for index in range(frames):
            if index == fail_at:
                raise InputError("the reader broke")
            yield Frame(index, picture(index), f"{index:06d}", index / 15)

    return Source(VideoInfo(64, 48, 15.0, frames, live=False), read(), release=release)


def decode(path: Path) -> tuple[list[np.ndarray], float]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (result := capture.read())[0]:
        frames.append(result[1])
    return frames, capture.get(cv2.CAP_PROP_FPS)


def boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    found, position = [], 0
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        found.append((kind, data[position + 8 : position + length]))
        position += length
    return found


def edit(data: bytes, path: tuple[bytes, ...], change: Callable[[bytes], bytes]) -> bytes:
    """Rewrite the payload of the mp4 box at ``path`` (nothing left: the box goes), the sizes around
    it too.
    """
    out = b""
    for kind, payload in boxes(data):
        if kind == path[0]:
            payload = edit(payload, path[1:], change) if len(path) > 1 else change(payload)
            if not payload:
                continue
        out += struct.pack(">I4s", 8 + len(payload), kind) + payload
    return out


TRACK = (b"moov", b"trak")
TABLE = (*TRACK, b"mdia", b"minf", b"stbl")


def index_first(data: bytes) -> bytes:
    """The same mp4 with its index in front, as the web wants it: such a file can be opened when it
    is cut short.
    """
    parts = dict(boxes(data))
    shift = 8 + len(parts[b"moov"])

    def move(table: bytes) -> bytes:
        count = struct.unpack_from(">I", table, 4)[0]
        offsets = struct.unpack_from(f">{count}I", table, 8)
        return table[:8] + struct.pack(f">{count}I", *(offset + shift for offset in offsets))

    moved = dict(boxes(edit(data, (*TABLE, b"stco"), move)))
    order = (b"ftyp", b"moov", b"free", b"mdat")
    return b"".join(struct.pack(">I4s", 8 + len(moved[kind]), kind) + moved[kind] for kind in order)


def read_until_error(path: Path) -> tuple[int, str]:
    """How many frames came before the ``InputError``, and what it said."""
    with open_source(str(path)) as source:
        for count in itertools.count():
            try:
                next(source)
            except InputError as error:
                return count, str(error)
    raise AssertionError


def no_threads_left() -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not [t for t in threading.enumerate() if t.name.startswith("edgeseg-")]:
            return True
        time.sleep(0.01)
    return False


@pytest.fixture(autouse=True)
def _threads_end() -> Iterator[None]:
    yield
    assert no_threads_left()


# --- sources --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["clip.mp4", "clip.avi", "clip.mkv"])
@pytest.mark.parametrize("fps", [15.0, 29.97])
def test_a_video_file_gives_every_frame_in_order(tmp_path: Path, name: str, fps: float) -> None:
    path = make_video(tmp_path / name, frames=23, fps=fps)
    reference, _ = decode(path)
    with open_source(str(path)) as source:
        assert (source.info.width, source.info.height, source.info.live) == (64, 48, False)
        assert source.info.frames == 23
        assert source.info.fps == pytest.approx(fps, abs=0.01)
        frames = list(source)
        assert source.dropped == 0
    assert [f.index for f in frames] == list(range(23))
    assert [f.name for f in frames][:2] == ["000000", "000001"]
    for frame, expected in zip(frames, reference, strict=True):
        np.testing.assert_array_equal(frame.image, expected)
    np.testing.assert_allclose([f.timestamp_s for f in frames], np.arange(23) / fps, atol=2e-3)
    assert all(f.read_ms > 0 for f in frames)


def test_a_file_is_read_ahead_but_not_far(tmp_path: Path) -> None:
    taken = []

    def read() -> Iterator[Frame]:
        for index in range(100):
            taken.append(index)
            yield Frame(index, picture(0), "x", 0.0)

    with Source(VideoInfo(64, 48, 15.0, 100, live=False), read()) as source:
        next(source)
        time.sleep(0.2)
        assert 3 <= len(taken) <= 8


def test_a_video_cut_short_gives_its_frames_and_then_the_error(tmp_path: Path) -> None:
    whole = index_first(make_video(tmp_path / "whole.mp4", frames=60).read_bytes())
    (tmp_path / "front.mp4").write_bytes(whole)
    with open_source(str(tmp_path / "front.mp4")) as source:
        assert len(list(source)) == 60
    for share in (0.5, 0.97):
        path = tmp_path / "cut.mp4"
        path.write_bytes(whole[: int(len(whole) * share)])
        count, message = read_until_error(path)
        assert share * 40 < count <= 60
        assert f"ends after frame {count} of 60 (the file is cut short" in message


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_other_containers_cut_short(tmp_path: Path, suffix: str) -> None:
    path = make_video(tmp_path / f"cut{suffix}", frames=60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    count, message = read_until_error(path)
    assert 20 < count < 40
    assert f"ends after frame {count} of 60" in message


def test_a_video_whose_second_half_is_zeros(tmp_path: Path) -> None:
    whole = index_first(make_video(tmp_path / "whole.mp4", frames=60).read_bytes())
    path = tmp_path / "zeros.mp4"
    path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    count, message = read_until_error(path)
    assert 20 < count < 40
    assert f"ends after frame {count} of 60" in message


def test_a_clip_trimmed_by_an_edit_list_is_whole(tmp_path: Path) -> None:
    """What phones write when a clip is trimmed: 60 samples, of which an edit list shows the first
    second.
    """
    data = make_video(tmp_path / "whole.mp4", frames=60).read_bytes()
    clock = struct.unpack_from(">I", dict(boxes(dict(boxes(data))[b"moov"]))[b"mvhd"], 12)[0]
    trimmed = edit(
        data,
        (*TRACK, b"edts", b"elst"),
        lambda elst: elst[:8] + struct.pack(">I", clock) + elst[12:],
    )
    path = tmp_path / "trimmed.mp4"
    path.write_bytes(trimmed)
    with open_source(str(path)) as source:
        assert source.info.frames == 15
        assert len(list(source)) == 15


@pytest.mark.parametrize(
    ("announced", "held", "shown_share"),
    [
        (1, 12, 0.25),
        (9, 12, 0.25),
        (9, 12 + 8, 0.25),  # eight bytes of a second entry
        (9, 0, 1.0),
        (1, -4, 1.0),  # not even the count
    ],
)
def test_a_broken_edit_list_leaves_the_other_facts(
    tmp_path: Path, announced: int, held: int, shown_share: float
) -> None:
    """An edit list may announce more entries than it holds; those that it holds count."""
    data = make_video(tmp_path / "whole.mp4", frames=60).read_bytes()
    clock = struct.unpack_from(">I", dict(boxes(dict(boxes(data))[b"moov"]))[b"mvhd"], 12)[0]
    entries = struct.pack(">Iii", clock, 0, 1 << 16) * 2
    broken = (struct.pack(">II", 0, announced) + entries)[: 8 + held]
    path = tmp_path / "broken.mp4"
    path.write_bytes(edit(data, (*TRACK, b"edts", b"elst"), lambda _: broken))
    facts = inspect(path)
    assert facts.promised_size == path.stat().st_size
    assert facts.exact_frames == 60
    assert facts.shown_share == pytest.approx(shown_share, abs=0.01)


def test_a_variable_frame_rate_is_whole(tmp_path: Path) -> None:
    def slow_down(table: bytes) -> bytes:
        step = struct.unpack_from(">I", table, 12)[0]
        return table[:4] + struct.pack(">5I", 2, 40, step, 20, 10 * step)

    data = make_video(tmp_path / "whole.mp4", frames=60).read_bytes()
    data = edit(edit(data, (*TRACK, b"edts"), lambda _: b""), (*TABLE, b"stts"), slow_down)
    path = tmp_path / "vfr.mp4"
    path.write_bytes(data)
    with open_source(str(path)) as source:
        frames = list(source)
    assert len(frames) == 60
    assert frames[-1].timestamp_s == pytest.approx(40 / 15 + 19 * 10 / 15, abs=0.01)


WHOLE = Container(size=100, promised_size=100)


@pytest.mark.parametrize(
    ("container", "read", "counted", "fps", "last_s", "gap_s", "problem"),
    [
        (WHOLE, 100, 100, 10.0, 9.9, 0.1, None),
        (WHOLE, 99, 100, 10.0, 9.8, 0.1, None),  # rounding of duration times rate
        (WHOLE, 60, 100, 10.0, 5.9, 0.1, "ends after frame 60 of 100"),
        (
            WHOLE,
            60,
            100,
            10.0,
            9.7,
            0.9,
            None,
        ),  # an estimate, but time ran to the end: variable rate
        (WHOLE, 60, 100, 10.0, 5.9, 3.0, None),  # the last frame may be held as long as one before
        (WHOLE, 105, 100, 10.0, 10.4, 0.1, None),
        (WHOLE, 60, None, None, 5.9, 0.1, None),
        (
            Container(100, 100, exact_frames=100),
            60,
            100,
            10.0,
            9.9,
            2.0,
            "only 60 of 100 frames can be decoded",
        ),
        (
            Container(100, 100, exact_frames=100),
            60,
            100,
            10.0,
            5.9,
            0.1,
            "ends after frame 60 of 100",
        ),
        (Container(100, 100, exact_frames=100, shown_share=0.6), 60, 100, 10.0, 5.9, 0.1, None),
        (
            Container(100, 100, exact_frames=100, shown_share=0.6),
            30,
            100,
            10.0,
            2.9,
            0.1,
            "ends after frame 30 of 60",
        ),
        (
            Container(90, 100),
            100,
            100,
            10.0,
            9.9,
            0.1,
            "ends after frame 100 of 100 (the file is cut short",
        ),
        (Container(90, 100), 7, None, None, 0.0, 0.0, "ends after frame 7 (the file is cut short"),
    ],
)
def test_the_rule_of_early_ends(
    container: Container,
    read: int,
    counted: int | None,
    fps: float | None,
    last_s: float,
    gap_s: float,
    problem: str | None,
) -> None:
    found = early_end(container, read, counted, fps, last_s, gap_s)
    assert found is None if problem is None else found is not None and found.startswith(problem)


def test_a_recording_on_a_web_server_gives_every_frame(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(
        index_first(make_video(tmp_path / "whole.mp4", frames=30).read_bytes())
    )

    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Silent, directory=str(tmp_path))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with open_source(f"http://127.0.0.1:{server.server_port}/clip.mp4") as source:
            assert not source.info.live
            assert len(list(source)) == 30
        server.shutdown()


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        cv2.imwrite(str(tmp_path / f"f{number}.png"), picture(number))
    cv2.imwrite(str(tmp_path / "f3.png"), picture(3, (30, 20)))  # another size
    cv2.imwrite(str(tmp_path / "f4.png"), picture(4)[:, :, 0])  # grey
    (tmp_path / "notes.txt").write_text("no picture")
    with open_source(str(tmp_path)) as source:
        frames = list(source)
        assert source.info == VideoInfo(64, 48, None, 5, live=False)
    assert [f.name for f in frames] == ["f1", "f2", "f3", "f4", "f10"]
    np.testing.assert_array_equal(frames[0].image, picture(1))
    assert frames[2].image.shape == (20, 30, 3)
    np.testing.assert_array_equal(frames[3].image, np.repeat(picture(4)[:, :, :1], 3, axis=2))


def test_equal_stems_keep_their_suffix(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b.png"):
        cv2.imwrite(str(tmp_path / name), picture(0))
    with open_source(str(tmp_path)) as source:
        assert [f.name for f in source] == ["a.jpg", "a.png", "b"]


def test_a_picture_in_a_folder_that_is_damaged_reaches_the_consumer(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.png"), picture(1))
    (tmp_path / "2.png").write_bytes(b"no picture")
    with open_source(str(tmp_path), strict=True) as source:
        assert next(source).name == "1"
        with pytest.raises(InputError, match=r"2\.png: cannot be read as a picture"):
            next(source)


def test_the_synthetic_drive_is_a_source() -> None:
    with open_source("synthetic://") as source:
        frames = [next(source), next(source)]
        assert frames[1].image.shape == (source.info.height, source.info.width, 3)
        assert source.info.fps is not None
        assert frames[1].timestamp_s == pytest.approx(1 / source.info.fps)
        assert source.info.frames is not None


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p / "none.mp4", "no such video, picture or folder"),
        (lambda p: (p / "empty").mkdir() or p / "empty", "no pictures in this folder"),
        (
            lambda p: (p / "text.mp4").write_text("hello\n" * 99) and p / "text.mp4",
            "cannot be opened as a video",
        ),
        (lambda p: (p / "zero.mp4").touch() or p / "zero.mp4", "cannot be opened as a video"),
        (
            lambda p: (p / "text.png").write_text("hello") and p / "text.png",
            "cannot be read as a picture",
        ),
    ],
)
def test_what_cannot_be_opened(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], make: Callable[[Path], Path], says: str
) -> None:
    path = make(tmp_path)
    with pytest.raises(InputError, match=says) as caught:
        open_source(str(path))
    assert str(path) in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_an_mp4_without_its_index_cannot_be_opened(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = make_video(tmp_path / "clip.mp4")
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])
    with pytest.raises(InputError, match="lacks its index"):
        open_source(str(path))
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="cameras are devices on Linux only")
@pytest.mark.parametrize("uri", ["97", "/dev/video97"])
def test_a_camera_that_is_not_there(uri: str, capfd: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match="/dev/video97: no such device"):
        open_source(uri)
    assert time.monotonic() - start < 1
    assert capfd.readouterr() == ("", "")


def test_a_device_that_is_no_camera(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("edgeseg.video.sources.live._require_device", lambda device: None)
    with pytest.raises(InputError, match="camera 97: gives no frames"):
        open_source("97")
    assert capfd.readouterr() == ("", "")


def test_a_stream_nobody_serves_keeps_its_password_out_of_the_message(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(InputError, match=r"rtsp://127\.0\.0\.1:9/live: cannot be opened") as caught:
        open_source("rtsp://user:secret@127.0.0.1:9/live")
    assert "secret" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(
    cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER), reason="this OpenCV has GStreamer"
)
def test_a_pipeline_without_gstreamer() -> None:
    with pytest.raises(MissingDependencyError, match="has no GStreamer"):
        open_source("videotestsrc ! videoconvert ! appsink")


class Capture:
    """What OpenCV gives of a live pipeline at 48 lines: frames as their format lays them out."""

    def __init__(self, frames: list[np.ndarray]) -> None:
        self.frames = frames

    def read(self) -> tuple[bool, np.ndarray | None]:
        return (True, self.frames.pop(0)) if self.frames else (False, None)

    def get(self, which: int) -> float:
        return 48.0 if which == cv2.CAP_PROP_FRAME_HEIGHT else 30.0

    def release(self) -> None:
        pass


class Nv12Engine:
    """Labels from the luma alone, of whatever it is given; knows what that was."""

    def __init__(self, takes_nv12: bool, paints: bool) -> None:
        self.spec = ModelSpec(architecture="enet", input_size=(48, 64), labels=CAMVID_11)
        able = {NV12: takes_nv12, PAINT: paints}
        self.capabilities, self.given = frozenset(name for name in able if able[name]), list[type]()

    def __call__(self, frame: Any) -> np.ndarray:
        self.given.append(type(frame))
        bgr = frame.to_bgr() if isinstance(frame, Nv12) else frame
        return (bgr[:, :, 1] // 32).astype(np.uint8)

    def paint(self, frame: Any, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        labels = self(frame)
        bgr = frame.to_bgr() if isinstance(frame, Nv12) else frame
        return labels, overlay(bgr, labels, CAMVID_11, alpha)


@pytest.mark.parametrize("paints", [False, True])
def test_a_cameras_nv12_reaches_the_engine_that_takes_it_unconverted(paints: bool) -> None:
    """Labels and pictures are those of an engine that is given BGR.

    Only the first frame, read early, is converted.
    """
    laid = [cv2.cvtColor(picture(i, (64, 48)), cv2.COLOR_BGR2YUV_I420) for i in range(6)]
    for planar in laid:
        planar[48:] = (
            planar[48:].reshape(2, -1).T.reshape(24, 64)
        )  # two planes of chroma become one

    def run(takes_nv12: bool) -> tuple[Nv12Engine, list[Output]]:
        gate = threading.Event()

        class Slow(Capture):
            def read(self) -> tuple[bool, np.ndarray | None]:
                if len(self.frames) < len(laid):
                    gate.wait(10)  # a camera that gives the next frame once it is wanted
                return super().read()

        capture = cast(cv2.VideoCapture, Slow([one.copy() for one in laid]))
        pipeline = "nvarguscamerasrc ! nvvidconv ! video/x-raw,format=NV12 ! appsink"
        hands_on = threading.Event()
        camera = CaptureCamera(
            capture, InputError("none"), pipeline=pipeline, hands_on_nv12=hands_on, ends=True
        )
        source = LiveSource(camera, lambda: pytest.fail("reopened"), hand_on_nv12=hands_on.set)
        # None is dropped, so that two runs can be compared.
        source._channel._keep_newest = False
        source.info = replace(source.info, live=False)
        plain_hand_on = source.hand_on_nv12

        def hand_on() -> None:
            plain_hand_on()
            gate.set()

        source.hand_on_nv12 = hand_on
        if not takes_nv12:
            gate.set()
        engine, kept = Nv12Engine(takes_nv12, paints), Recorder()
        segment(engine, source, [kept], view=PLAIN)
        return engine, kept.outputs

    engine, outputs = run(True)
    assert engine.given == [np.ndarray] + [Nv12] * 5
    plain, wanted = run(False)
    assert plain.given == [np.ndarray] * 6
    for one, other in zip(outputs, wanted, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.picture, other.picture)
        np.testing.assert_array_equal(one.frame.image, other.frame.image)
        assert one.frame.size == (48, 64)


def test_opencvs_log_level_comes_back_when_the_last_is_out() -> None:
    before = opencv._set_log_level(3)
    with opencv.quiet():
        with opencv.quiet():
            pass
        assert opencv._set_log_level(0) == 0
    assert opencv._set_log_level(before) == 3


def test_a_live_source_gives_the_newest_frame_and_counts_the_dropped() -> None:
    produced, go = threading.Event(), threading.Event()

    def read() -> Iterator[Frame]:
        for index in range(10):
            yield Frame(index, picture(index), f"{index:06d}", index / 15)
        produced.set()
        go.wait(5)
        for index in range(10, 16):
            yield Frame(index, picture(index), f"{index:06d}", index / 15)

    with Source(VideoInfo(64, 48, 15.0, None, live=True), read()) as source:
        assert produced.wait(5)  # reads before anybody asks
        assert next(source).index == 9
        assert source.dropped == 0  # what nobody waited for was not dropped
        go.set()
        source._reader.join(5)  # type: ignore[union-attr]
        assert next(source).index == 15
        assert source.dropped == 5
        assert next(source, None) is None


def test_closing_returns_while_the_reader_is_stuck_and_while_the_consumer_waits() -> None:
    stuck = threading.Event()
    released = []

    def read() -> Iterator[Frame]:
        stuck.wait(30)
        yield Frame(0, picture(0), "x", 0.0)

    source = Source(
        VideoInfo(64, 48, None, None, live=True), read(), release=lambda: released.append(1)
    )
    got: list[Frame | None] = []
    consumer = threading.Thread(target=lambda: got.append(next(source, None)))
    consumer.start()
    time.sleep(0.05)
    start = time.monotonic()
    source.close()
    assert time.monotonic() - start < 4
    consumer.join(2)
    assert got == [None]
    assert released == []  # never under the reader's hands
    stuck.set()
    assert no_threads_left()
    assert released == [1]
    source.close()
    assert next(source, None) is None


def test_a_source_nobody_read_is_released_once() -> None:
    released = []
    source = memory_source(release=lambda: released.append(1))
    source.close()
    source.close()
    assert released == [1]
    assert next(source, None) is None


def test_a_channel_hands_over_errors_after_items_and_never_mistakes_them_for_the_end() -> None:
    channel: Channel[int] = Channel(4)
    assert channel.put(1)
    channel.finish(StopIteration())
    items = iter(channel)
    assert next(items) == 1
    with pytest.raises(RuntimeError):
        next(items)
    channel.close()
    assert not channel.put(2)


# --- sinks ----------------------------------------------------------------------------------------


def info(
    width: int = 64, height: int = 48, fps: float | None = 15.0, *, live: bool = False
) -> VideoInfo:
    return VideoInfo(width, height, fps, None, live=live)


def output(index: int, size: tuple[int, int] = (64, 48), at_s: float | None = None) -> Output:
    image = picture(index, size)
    frame = Frame(index, image, f"{index:06d}", index / 15 if at_s is None else at_s)
    return Output(frame, image[:, :, 0] // 20, image)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".MP4"])
@pytest.mark.parametrize("fps", [15.0, 29.97, 30000 / 1001, 59.94])
def test_a_written_video_has_the_size_rate_and_frames_given(
    tmp_path: Path, suffix: str, fps: float
) -> None:
    path = tmp_path / f"out{suffix}"
    sink = VideoSink(path, info(fps=fps))
    for index in range(20):
        sink.write(output(index, at_s=index / fps))
        assert not path.exists()
    assert [p.suffix for p in tmp_path.iterdir()] == [suffix]  # the temporary one
    sink.finish()
    sink.finish()
    sink.abort()
    assert list(tmp_path.iterdir()) == [path]
    frames, rate = decode(path)
    assert rate == pytest.approx(fps, abs=2e-3)
    assert len(frames) == 20
    for index, frame in enumerate(frames):
        assert frame.shape == (48, 64, 3)
        assert abs(float(frame[24:].mean()) - (20 + 10 * index)) < 4


@pytest.mark.parametrize(("suffix", "shape"), [(".mp4", (48, 64)), (".avi", (47, 63))])
def test_odd_sizes_lose_no_row(tmp_path: Path, suffix: str, shape: tuple[int, int]) -> None:
    path = tmp_path / f"odd{suffix}"
    with VideoSink(path, info(63, 47)) as sink:
        for index in range(3):
            sink.write(output(index, (63, 47)))
    frames, _ = decode(path)
    assert [f.shape[:2] for f in frames] == [shape] * 3


def test_a_source_without_a_rate_gets_fifteen(tmp_path: Path) -> None:
    with VideoSink(tmp_path / "out.mp4", info(fps=None)) as sink:
        sink.write(output(0))
    frames, rate = decode(tmp_path / "out.mp4")
    assert (len(frames), rate) == (1, 15.0)


def test_a_live_video_keeps_the_clocks_time(tmp_path: Path) -> None:
    """Ten frames a second out of a camera of thirty."""
    with VideoSink(tmp_path / "out.mp4", info(fps=30.0, live=True)) as sink:
        for index in range(10):
            sink.write(output(index, at_s=5 + index / 10))
    frames, rate = decode(tmp_path / "out.mp4")
    assert len(frames) == 10
    assert rate == pytest.approx(10, abs=1)
    assert abs(float(frames[9][24:].mean()) - (20 + 10 * 9)) < 4


def test_a_failure_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"from before")

    def fail() -> None:
        with VideoSink(path, info()) as sink:
            sink.write(output(0))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]
    assert path.read_bytes() == b"from before"


def test_a_video_of_no_frames_is_no_file(tmp_path: Path) -> None:
    VideoSink(tmp_path / "out.mp4", info()).finish()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "make",
    [
        lambda p: VideoSink(p / "out.xyz", info()),
        lambda p: VideoSink(p / "out", info()),
        lambda p: VideoSink(p / "file" / "out.mp4", info()),
        lambda p: VideoSink(p / "out.mp4", info(0, 0)),
        lambda p: PictureSink(p / "out.xyz"),
        lambda p: PictureSink(p / "out"),
        lambda p: PictureSink(p / "file" / "out.png"),
        lambda p: ImageFolderSink(p / "file", CAMVID_11),
        lambda p: ImageFolderSink(p / "file" / "masks", CAMVID_11),
    ],
)
def test_outputs_that_cannot_be_are_refused_at_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], make: Callable[[Path], Sink]
) -> None:
    (tmp_path / "file").write_text("a file, no folder")
    with pytest.raises(OutputError):
        make(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert capfd.readouterr() == ("", "")


def test_masks_are_named_after_the_frames(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    with ImageFolderSink(tmp_path / "new" / "masks", CAMVID_11) as sink:
        sink.write(output(7))
    assert [p.name for p in (tmp_path / "new" / "masks").iterdir()] == ["000007.png"]
    with image.open(tmp_path / "new" / "masks" / "000007.png") as png:
        np.testing.assert_array_equal(np.asarray(png), output(7).labels)


def test_one_picture(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    sink = PictureSink(path)
    sink.write(output(3))
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError, match="several frames"):
        sink.write(output(4))
    sink.finish()
    np.testing.assert_array_equal(cv2.imread(str(path)), picture(3))


@pytest.mark.skipif(sys.platform != "linux", reason="displays are named so on Linux")
@pytest.mark.parametrize("display", [None, ":97"])
def test_a_window_without_a_display(monkeypatch: pytest.MonkeyPatch, display: str | None) -> None:
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    if display:
        monkeypatch.setenv("DISPLAY", display)
    with pytest.raises(OutputError, match="no display"):
        WindowSink()


@pytest.mark.parametrize(("key", "visible"), [(ord("q"), 1), (27, 1), (-1, 0)])
def test_a_window_stops_the_run_and_keeps_the_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: int, visible: int
) -> None:
    """The display is a fake: the third frame meets the key, or the close button."""
    shown: list[np.ndarray] = []
    monkeypatch.setattr(sinks, "_require_display", lambda: None)
    for name in ("namedWindow", "resizeWindow", "destroyWindow"):
        monkeypatch.setattr(cv2, name, lambda *_: None)
    monkeypatch.setattr(cv2, "imshow", lambda _, image: shown.append(image))
    monkeypatch.setattr(cv2, "waitKey", lambda _: key if len(shown) == 3 else -1)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: visible if len(shown) == 3 else 1)
    source = memory_source(500)
    summary = segment(
        Engine(), source, [VideoSink(tmp_path / "out.mp4", source.info), WindowSink()]
    )
    assert (summary.stopped, summary.frames_out) == ("window closed", 3)
    assert len(decode(tmp_path / "out.mp4")[0]) == 3


# --- the pipeline ---------------------------------------------------------------------------------


def test_the_overlapped_run_is_the_serial_one(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mp4", frames=40)
    recorder = Recorder()
    heard = Heard()
    with open_source(str(path)) as source:
        summary = segment(
            Engine(), source, [recorder], view=replace(PLAIN, alpha=0.3), reporter=heard
        )
    reference, _ = decode(path)
    assert len(recorder.outputs) == len(reference) == 40
    for index, (result, frame) in enumerate(zip(recorder.outputs, reference, strict=True)):
        labels = Engine()(frame)
        assert result.frame.index == index
        np.testing.assert_array_equal(result.labels, labels)
        np.testing.assert_array_equal(result.picture, overlay(frame, labels, CAMVID_11, 0.3))
    assert heard.steps == [("segment", n, 40) for n in range(1, 41)]
    assert recorder.events == ["finish"]
    assert (summary.frames_in, summary.frames_out, summary.dropped) == (40, 40, 0)
    assert summary.stopped == "end of source"
    assert set(summary.latency_ms) == {"read", "network", "draw", "write"}


def test_video_in_video_and_masks_out(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mp4", frames=40, fps=29.97)
    with open_source(str(path)) as source:
        segment(
            Engine(),
            source,
            [
                VideoSink(tmp_path / "o.mp4", source.info),
                ImageFolderSink(tmp_path / "m", CAMVID_11),
            ],
        )
    frames, fps = decode(tmp_path / "o.mp4")
    assert (len(frames), frames[0].shape) == (40, (48, 64, 3))
    assert fps == pytest.approx(29.97, abs=1e-3)
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [f"{i:06d}.png" for i in range(40)]


def test_the_legend_goes_into_the_corner_where_there_is_room() -> None:
    def pictures(size: tuple[int, int], legend: Legend) -> np.ndarray:
        frame = Frame(0, np.full((size[1], size[0], 3), 100, np.uint8), "x", 0.0)
        source = Source(VideoInfo(*size, None, 1, live=False), iter([frame]))
        recorder = Recorder()
        segment(Engine(), source, [recorder], view=replace(PLAIN, legend=legend))
        assert recorder.outputs[0].picture is not None
        return recorder.outputs[0].picture

    changed = (pictures((480, 360), "auto") != pictures((480, 360), "off")).any(axis=2)
    assert 0.01 < changed.mean() < 0.25
    np.testing.assert_array_equal(pictures((32, 24), "auto"), pictures((32, 24), "off"))


class Painting(Engine):
    """Paints, too: in a way that nobody else would."""

    capabilities = frozenset({PAINT})

    def paint(self, frame: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
        return self(frame), np.full_like(frame, round(100 * alpha))


def test_an_engine_that_paints_does() -> None:
    engine, recorder = Painting(), Recorder()
    summary = segment(engine, memory_source(5), [recorder], view=replace(PLAIN, alpha=0.3))
    assert engine.calls == len(recorder.outputs) == 5
    for got in recorder.outputs:
        np.testing.assert_array_equal(got.labels, Engine()(got.frame.image))
        assert got.picture is not None
        assert (got.picture.shape, set(got.picture.ravel().tolist())) == (
            got.frame.image.shape,
            {30},
        )
    assert set(summary.latency_ms) == {"read", "network", "draw", "write"}
    legends = Recorder()
    frame = Frame(0, np.zeros((360, 480, 3), np.uint8), "x", 0.0)
    segment(Painting(), Source(VideoInfo(480, 360, None, 1, live=False), iter([frame])), [legends])
    picture = legends.outputs[0].picture
    assert picture is not None
    assert (picture[:100, :50] != 50).any()
    assert (picture[:, 240:] == 50).all()


def test_masks_alone_are_not_painted(tmp_path: Path) -> None:
    engine = Painting()
    engine.paint = lambda frame, alpha: pytest.fail("painted")  # type: ignore[method-assign]
    segment(engine, memory_source(3), [ImageFolderSink(tmp_path, CAMVID_11)])
    assert engine.calls == 3


def test_nothing_is_drawn_for_masks_alone(tmp_path: Path) -> None:
    summary = segment(Engine(), memory_source(5), [ImageFolderSink(tmp_path, CAMVID_11)])
    assert set(summary.latency_ms) == {"read", "network", "write"}


def test_the_stages_overlap() -> None:
    """Twenty frames of 20 ms network and 20 ms writing take about 0.4 s, not 0.8 s."""
    summary = segment(
        Engine(lambda _: time.sleep(0.02)),
        memory_source(20),
        [Recorder(lambda _: time.sleep(0.02))],
        view=PLAIN,
    )
    assert summary.wall_s < 0.65


@pytest.mark.parametrize("limit", [0, 1, 7, 20, 99])
def test_max_frames(limit: int) -> None:
    recorder, engine = Recorder(), Engine()
    heard = Heard()
    summary = segment(engine, memory_source(20), [recorder], max_frames=limit, reporter=heard)
    assert (
        summary.frames_out
        == summary.frames_in
        == len(recorder.outputs)
        == engine.calls
        == min(limit, 20)
    )
    assert summary.stopped == ("max_frames" if limit <= 20 else "end of source")
    assert {total for _, _, total in heard.steps} <= {min(limit, 20)}
    json.dumps(summary.to_dict(), allow_nan=False)


def boom(at: int) -> Callable[[int], None]:
    def raise_at(index: int) -> None:
        if index == at:
            raise ZeroDivisionError(f"at {at}")

    return raise_at


@pytest.mark.parametrize("at", [0, 1, 12])
@pytest.mark.parametrize(
    "stage", ["read", "network", "draw", "write", "progress", "finish", "wrong labels"]
)
def test_a_failing_stage_stops_all_and_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, at: int
) -> None:
    released: list[int] = []
    source = memory_source(200, lambda: released.append(1), fail_at=at if stage == "read" else None)
    engine: Engine = Engine(boom(at) if stage == "network" else lambda _: None)
    recorder = Recorder(boom(at) if stage == "write" else lambda _: None)
    video, after = VideoSink(tmp_path / "out.mp4", source.info), Recorder()
    expected: type[Exception] = ZeroDivisionError
    if stage == "read":
        expected = InputError
    elif stage == "draw":
        fail, count = boom(at), iter(range(1000))
        monkeypatch.setattr("edgeseg.video.painter.overlay", lambda f, *a: fail(next(count)) or f)
    elif stage == "finish":
        monkeypatch.setattr(recorder, "finish", lambda: boom(0)(0))
    elif stage == "wrong labels":
        expected = EngineError
        monkeypatch.setattr(Engine, "__call__", lambda self, frame: frame[:, :, 0].astype(np.int64))
    with pytest.raises(expected):
        segment(
            engine,
            source,
            [recorder, video, after],
            reporter=Heard(on_progress=lambda _, done, __: boom(at)(done - 1))
            if stage == "progress"
            else SILENT,
        )
    assert not list(tmp_path.iterdir())
    assert after.events == ["abort"]
    assert released == [1]
    assert no_threads_left()


def test_an_engine_that_raises_stop_iteration_does_not_end_the_video_quietly() -> None:
    def stop(call: int) -> None:
        if call == 3:
            raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        segment(Engine(stop), memory_source(), [Recorder()])


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own handler, which a shell's background job (``pytest &``) starts without."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("where", ["progress", "sink", "waiting"])
def test_ctrl_c_keeps_what_was_made(tmp_path: Path, where: str) -> None:
    """A real SIGINT: between frames, in the middle of writing one, and while waiting for a slow
    network.
    """

    def interrupt(index: int) -> None:
        if index == 5:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    def slow(call: int) -> None:
        if call == 5:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            time.sleep(0.4)

    source = memory_source(500)
    video = VideoSink(tmp_path / "out.mp4", source.info)
    recorder = Recorder(interrupt if where == "sink" else lambda _: None)
    summary = segment(
        Engine(slow if where == "waiting" else lambda _: None),
        source,
        [video, recorder],
        reporter=Heard(on_progress=lambda _, done, __: interrupt(done - 1))
        if where == "progress"
        else SILENT,
    )
    assert summary.stopped == "interrupted"
    assert summary.frames_out == (5 if where == "waiting" else 6)
    assert len(recorder.outputs) == summary.frames_out
    assert recorder.events == ["finish"]
    assert len(decode(tmp_path / "out.mp4")[0]) == summary.frames_out
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_live_run_drops_frames_instead_of_lagging() -> None:
    def read() -> Iterator[Frame]:
        for index in range(40):
            time.sleep(0.005)
            yield Frame(index, picture(index), f"{index:06d}", index * 0.005)

    recorder = Recorder()
    source = Source(VideoInfo(64, 48, 200.0, None, live=True), read())
    summary = segment(Engine(lambda _: time.sleep(0.02)), source, [recorder])
    seen = [o.frame.index for o in recorder.outputs]
    assert seen == sorted(set(seen))
    assert seen[-1] == 39  # the newest
    assert summary.dropped > 10
    assert summary.frames_out == len(seen)
    assert summary.frames_in == summary.frames_out + summary.skipped


def test_the_rate_counts_intervals_rightly() -> None:
    """Ten frames of 100 ms each, on a clock that only the sink moves: ten a second, not nine or
    eleven.
    """
    now = [100.0]

    def tick(_: int) -> None:
        now[0] += 0.1

    summary = segment(Engine(), memory_source(10), [Recorder(tick)], clock=lambda: now[0])
    assert summary.wall_s == pytest.approx(1.0)
    assert summary.fps == pytest.approx(10.0)
    assert summary.latency_ms["write"].p50 == pytest.approx(100.0)


def test_latency_percentiles_are_of_each_stage() -> None:
    """Every thread has a clock of its own, so that a stage's time is its own."""
    local = threading.local()

    def advance(seconds: float) -> None:
        local.now = getattr(local, "now", 0.0) + seconds

    network = [(7 * i) % 100 / 1000 for i in range(100)]
    recorder = Recorder(lambda i: advance(0.001 * (i + 1)))
    summary = segment(
        Engine(lambda i: advance(network[i])),
        memory_source(100),
        [recorder],
        clock=lambda: getattr(local, "now", 0.0),
    )
    for name, expected in (("network", network), ("write", [0.001 * (i + 1) for i in range(100)])):
        found = summary.latency_ms[name]
        assert (found.p50, found.p95, found.p99) == pytest.approx(
            tuple(np.percentile(expected, (50, 95, 99)) * 1e3)
        )


def test_the_read_latency_is_the_readers_own() -> None:
    def read() -> Iterator[Frame]:
        for index in range(5):
            time.sleep(0.02)
            yield Frame(index, picture(index), "x", 0.0)

    summary = segment(
        Engine(lambda _: time.sleep(0.03)),
        Source(VideoInfo(64, 48, 1.0, 5, live=False), read()),
        [Recorder()],
    )
    assert (
        20 <= summary.latency_ms["read"].p50 < 30
    )  # although the pipeline itself never waited so long


def test_samples_are_exact_until_full_and_fair_after() -> None:
    samples = Samples(capacity=1000)
    for value in range(1000):
        samples.add(value / 1000)
    assert samples.percentiles_ms().p95 == pytest.approx(np.percentile(np.arange(1000), 95))
    for value in range(1000, 50_000):
        samples.add(value / 1000)
    assert len(samples) == 50_000
    assert samples.percentiles_ms().p50 == pytest.approx(
        25_000, rel=0.1
    )  # neither the first nor the last thousand


@pytest.mark.parametrize("kind", ["video", "masks"])
def test_the_source_is_not_overwritten(tmp_path: Path, kind: str) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), picture(0))
    clip = make_video(tmp_path / "clip.mp4")
    before = clip.read_bytes(), (tmp_path / "a.png").read_bytes()
    source = open_source(str(clip if kind == "video" else tmp_path))
    sink = (
        VideoSink(clip, source.info)
        if kind == "video"
        else ImageFolderSink(tmp_path / ".", CAMVID_11)
    )
    with pytest.raises(OutputError, match="is what is being read"):
        segment(Engine(), source, [sink])
    assert (clip.read_bytes(), (tmp_path / "a.png").read_bytes()) == before
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("name", "frames", "fps", "size"),
    [
        ("camseq01_480x360_15fps.mp4", 101, 15.0, (480, 360)),
        ("highway_1280x720_25fps.mp4", 38, 25.0, (1280, 720)),
    ],
)
def test_real_clips(
    tmp_path: Path, name: str, frames: int, fps: float, size: tuple[int, int]
) -> None:
    if not (CLIPS / name).is_file():
        pytest.skip(f"{CLIPS / name} is not here")
    with open_source(str(CLIPS / name)) as source:
        summary = segment(Engine(), source, [VideoSink(tmp_path / "out.mp4", source.info)])
    assert summary.frames_out == frames
    written, rate = decode(tmp_path / "out.mp4")
    assert (len(written), rate, written[0].shape[1::-1]) == (frames, fps, size)


def test_importing_the_package_loads_neither_torch_nor_opencv() -> None:
    code = (
        "import sys, edgeseg.video as v; assert 'cv2' not in sys.modules; assert 'segment' in "
        "dir(v); "
        "[getattr(v, n) for n in v.__all__]; assert 'cv2' in sys.modules; assert 'torch' not in "
        "sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="nothing"):
        _ = edgeseg.video.nothing
