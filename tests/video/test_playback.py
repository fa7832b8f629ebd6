"""A part of a source: from a time on, for a while, every Nth frame, at its own speed."""

import itertools
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.video import Frame, Playback, Source, VideoInfo, open_source
from edgeseg.video.sources import play

FFMPEG = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="the program ffmpeg is not installed")

BLACK = np.zeros((48, 64, 3), np.uint8)


def recording(frames: int = 40, fps: float = 20.0) -> Source:
    """A recording in memory."""

    def read() -> Iterator[Frame]:
        for index in range(frames):
            yield Frame(index, BLACK, f"{index:06d}", index / fps)

    return Source(VideoInfo(64, 48, fps, frames, live=False), read())


# Key frames far apart, so that a seek lands before the frame that is wanted; all the ways in which
# containers seek: by an index, by bytes, by searching, not at all.
FILES = {
    "index.mp4": ["-c:v", "mpeg4", "-g", "12", "-bf", "2"],
    "cues.mkv": ["-c:v", "mpeg4", "-g", "12"],
    "search.ts": ["-c:v", "mpeg2video", "-g", "12", "-bf", "2"],
    "bytes.avi": ["-c:v", "mpeg4", "-g", "12"],
    "none.m2v": ["-c:v", "mpeg2video", "-g", "12"],
    "raw.y4m": ["-pix_fmt", "yuv420p"],
    "variable.mkv": ["-vf", "select='lt(n,10)+not(mod(n,7))'", "-vsync", "vfr", "-c:v", "mpeg4"],
}


def make_clip(path: Path) -> Path:
    """A clip of 4 s whose frames all differ."""
    assert FFMPEG is not None
    picture = "testsrc=size=64x48:rate=10:duration=4"
    command = [FFMPEG, "-v", "error", "-f", "lavfi", "-i", picture, *FILES[path.name], str(path)]
    subprocess.run(command, check=True)
    return path


@needs_ffmpeg
@pytest.mark.parametrize("name", FILES)
def test_a_file_starts_exactly(tmp_path: Path, name: str) -> None:
    path = str(make_clip(tmp_path / name))
    with open_source(path) as source:
        everything = list(source)

    last_s = everything[-1].timestamp_s
    for start_s in (0.05, 1.0, 1.25, last_s / 2, last_s):
        expected = [f for f in everything if f.timestamp_s >= start_s - 1e-6]
        with open_source(path, playback=Playback(start_s=start_s)) as source:
            frames = list(source)
        assert len(frames) == len(expected), start_s
        assert frames[0].index == 0
        assert frames[0].timestamp_s == pytest.approx(expected[0].timestamp_s, abs=1e-6)
        for frame, same in zip(frames, expected, strict=True):
            np.testing.assert_array_equal(frame.pixels, same.pixels)


@needs_ffmpeg
def test_a_start_behind_the_end_is_an_error(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "index.mp4")
    with pytest.raises(InputError, match="is over before the start: got 9 s, expected less than 4"):
        open_source(str(path), playback=Playback(start_s=9))


@needs_ffmpeg
def test_start_duration_and_step_together(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "index.mp4")
    with open_source(str(path), playback=Playback(start_s=1, duration_s=2, every=3)) as source:
        assert source.info.frames == 7
        assert source.info.fps == pytest.approx(10 / 3)
        times = [round(frame.timestamp_s, 3) for frame in source]
    assert times == [1.0, 1.3, 1.6, 1.9, 2.2, 2.5, 2.8]


def test_any_source_can_be_played_in_part() -> None:
    with play(recording(), Playback(start_s=0.5, duration_s=1, every=5)) as source:
        assert source.info.frames == 4
        frames = list(source)
    assert [frame.index for frame in frames] == [10, 15, 20, 25]


def test_a_plain_playback_is_the_source_itself() -> None:
    source = recording()
    assert play(source, Playback()) is source


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"start_s": -1.0}, "`start_s`: no such time: got -1.0"),
        ({"start_s": float("nan")}, "`start_s`: no such time: got nan"),
        ({"duration_s": 0.0}, "`duration_s`: no such duration: got 0.0"),
        ({"every": 0}, "`every`: no such step: got 0"),
    ],
)
def test_values_out_of_range(values: dict[str, float], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Playback(**values)  # type: ignore[arg-type]


def test_pictures_have_no_times(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.png"), BLACK)
    with pytest.raises(InputError, match="pictures have no times"):
        open_source(str(tmp_path), playback=Playback(start_s=1))
    with open_source(str(tmp_path), playback=Playback(every=2)) as source:
        assert [frame.name for frame in source] == ["0", "2", "4"]


# --- at its own speed -----------------------------------------------------------------------------


def test_a_recording_plays_at_its_own_speed() -> None:
    with play(recording(), Playback(realtime=True)) as source:
        assert (source.info.live, source.info.frames) == (True, None)
        time.sleep(0.5)  # as long as an engine takes to load: nothing is missed

        start = time.perf_counter()
        frames = [next(source) for _ in range(10)]
        took_s = time.perf_counter() - start

    assert [frame.index for frame in frames] == list(range(10))
    assert took_s >= frames[-1].timestamp_s - 0.001
    assert took_s < frames[-1].timestamp_s + 0.5
    for frame in frames:
        assert frame.captured_s is not None
        late_s = frame.captured_s - start - frame.timestamp_s
        assert -0.001 < late_s < 0.5


def test_a_recording_at_its_own_speed_drops_what_nobody_takes() -> None:
    with play(recording(), Playback(realtime=True)) as source:
        first = next(source)
        time.sleep(1.0)
        later = list(source)
    assert (first.index, later[-1].index) == (0, 39)
    assert source.dropped == 40 - 1 - len(later)
    assert source.dropped >= 10


def test_closing_does_not_wait_for_the_next_frame() -> None:
    def slides() -> Iterator[Frame]:
        for index in range(3):
            yield Frame(index, BLACK, f"{index}", timestamp_s=60.0 * index)

    inner = Source(VideoInfo(64, 48, 1 / 60, 3, live=False), slides())
    source = play(inner, Playback(realtime=True))
    next(source)
    start = time.monotonic()
    source.close()
    assert time.monotonic() - start < 0.5
    assert [t.name for t in threading.enumerate() if t.name.startswith("edgeseg-")] == []


# --- live sources ---------------------------------------------------------------------------------


def camera(stop: threading.Event) -> Source:
    """A camera of 200 frames a second that is lost for a moment after frame 5."""

    def read() -> Iterator[Frame]:
        for index in itertools.count():
            if stop.wait(0.005):
                return
            if index == 6:
                for _ in range(2):
                    yield Frame(5, BLACK, "000005", 0.03, lost_s=1.0)
                    time.sleep(0.02)
            yield Frame(index, BLACK, f"{index:06d}", index / 200)

    return Source(VideoInfo(64, 48, 200.0, None, live=True), read())


def test_every_nth_frame_of_a_camera() -> None:
    stop = threading.Event()
    with play(camera(stop), Playback(every=4)) as source:
        assert source.info.fps == 50.0
        indices = [next(source).index for _ in range(8)]
        stop.set()
    steps = np.diff(indices)
    assert steps.max() >= 3


def test_repeated_pictures_pass_and_are_not_counted() -> None:
    stop = threading.Event()
    with play(camera(stop), Playback(every=1000)) as source:
        frames = [next(source), next(source)]
        stop.set()
    assert (frames[0].lost_s, frames[1].lost_s) == (None, 1.0)


def test_a_camera_is_read_for_a_while() -> None:
    stop = threading.Event()
    with play(camera(stop), Playback(duration_s=0.2)) as source:
        frames = list(source)
    assert frames[-1].timestamp_s < 0.2
    assert not stop.is_set()
    assert [t.name for t in threading.enumerate() if t.name.startswith("edgeseg-")] == []
    stop.set()
