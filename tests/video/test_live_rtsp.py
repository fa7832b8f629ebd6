"""RTSP from a real server: fresh frames, true reasons, and the way back."""

import time
from collections.abc import Iterator

import pytest
from live_sources import RtspServer, descriptors, reader_threads

from edgeseg.errors import InputError
from edgeseg.video.addresses import failure_reason
from edgeseg.video.frames import Frame, Source
from edgeseg.video.sources.counter import counter_age_s, read_counter
from edgeseg.video.sources.live import LiveOptions, open_stream

FPS = 30


@pytest.fixture
def server() -> Iterator[RtspServer]:
    with RtspServer(fps=FPS) as running:
        yield running


def age_s(frame: Frame) -> float:
    """The age of the counter in a frame, now."""
    number = read_counter(frame.image)
    assert number is not None
    return counter_age_s(number, FPS, time.perf_counter())


def read_for(source: Source, seconds: float) -> list[Frame]:
    """The frames of some seconds."""
    frames: list[Frame] = []
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        frames.append(next(source))
    return frames


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_frames_are_fresh_from_the_first_one_on(codec: str) -> None:
    """The median age is about a frame and a half: FFmpeg finds a frame's end by the next one."""
    with RtspServer(fps=FPS, codec=codec) as running, open_stream(running.uri) as source:
        assert (source.info.width, source.info.height, source.info.fps) == (640, 360, FPS)
        ages = []
        for _ in range(60):
            ages.append(age_s(next(source)))
    assert sorted(ages[:15])[7] < 0.3  # what was read to learn the format is not shown
    assert sorted(ages)[30] < 0.2


def test_a_slow_consumer_gets_fresh_frames_and_every_frame_is_counted(server: RtspServer) -> None:
    with open_stream(server.uri) as source:
        first = next(source)
        ages: list[float] = []
        taken = 1
        for _ in range(25):
            frame = next(source)
            taken += 1
            time.sleep(0.1)
            ages.append(age_s(frame))
        source.close()
        assert frame.index - first.index + 1 <= taken + source.dropped
        assert taken + source.dropped - (frame.index - first.index + 1) <= 5  # came while it slept
    ages.sort()
    transport_s = 0.1  # of the server's encoder, and of a busy machine
    assert ages[int(0.95 * len(ages))] <= 1.5 * 0.1 + 1 / FPS + transport_s


def test_a_server_that_is_killed_and_comes_back() -> None:
    """Twice; the same with twenty came back as fast."""
    server = RtspServer(fps=FPS)
    before = 0
    with server, open_stream(server.uri, LiveOptions(stall_s=1.0)) as source:
        for number in range(2):
            assert next(source).lost_s is None
            before = before or descriptors()
            server.stop()
            while next(source).lost_s is None:
                pass
            server.start()
            back_s = time.perf_counter()
            while (frame := next(source)).lost_s is not None:
                pass
            assert time.perf_counter() - back_s < 4.0
            assert age_s(frame) < 0.5
            assert source.reconnects == number + 1
            events = source.take_events()
            assert events[0] == "no signal (connection refused); trying again"
            assert events[1].startswith("back after")
            assert len(events) == 2
        read_for(source, 0.3)
        assert descriptors() <= before
        assert len(reader_threads()) == 1
    assert reader_threads() == []


def test_the_reasons_of_a_real_server() -> None:
    with RtspServer(user="edge", password="seg:ment") as server:
        place = server.uri.removeprefix("rtsp://")
        with open_stream(f"rtsp://edge:seg%3Ament@{place}") as source:
            assert next(source).size == (360, 640)

        wrong = f"rtsp://edge:wrong@{place}"
        with pytest.raises(InputError, match="401 Unauthorized: wrong user or password") as caught:
            open_stream(wrong)
        assert "edge" not in str(caught.value)
        with pytest.raises(InputError, match="got RTSP 401 Unauthorized"):
            open_stream(server.uri)
        assert failure_reason(f"rtsp://edge:seg%3Ament@{place}") is None

        missing = f"rtsp://edge:seg%3Ament@{place.replace('live', 'none')}"
        with pytest.raises(InputError, match="got RTSP 404 Not Found"):
            open_stream(missing)
