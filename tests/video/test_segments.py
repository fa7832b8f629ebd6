"""A series of videos: names, places to split, what is deleted, and what killed runs left."""

import itertools
import os
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import av
import numpy as np
import pytest
from reporting import Heard

from edgeseg.errors import OutputError
from edgeseg.video import Frame, Output, VideoInfo, VideoSink, video_sink
from edgeseg.video.segments import Segments
from edgeseg.video.video_file import VideoFile

START = datetime(2026, 11, 28, 10, 0, 0)


def info(*, live: bool) -> VideoInfo:
    return VideoInfo(64, 48, 10.0, None, live=live)


def output(index: int, at_s: float, *, noisy: bool = False) -> Output:
    image = np.full((48, 64, 3), 40 + index % 160, np.uint8)
    if noisy:
        image = np.random.default_rng(index).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return Output(Frame(index, image, f"{index:06d}", at_s), image[:, :, 0], image)


def minutes() -> Callable[[], datetime]:
    """A clock that is a minute later at each look."""
    count = itertools.count()
    return lambda: START + timedelta(minutes=next(count))


def frames_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_camera_is_split_into_files_named_with_their_start(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cam{suffix}"
    with VideoSink(path, info(live=True), split_every_s=2, clock=minutes()) as sink:
        for index in range(50):
            sink.write(output(index, 3 + index / 10))
    times = ["2026-11-28T10-00-00", "2026-11-28T10-01-00", "2026-11-28T10-02-00"]
    assert names(tmp_path) == [f"cam-{time}{suffix}" for time in times]
    assert [frames_of(tmp_path / name) for name in names(tmp_path)] == [20, 20, 10]


def test_a_file_is_split_into_files_named_with_their_position(tmp_path: Path) -> None:
    with VideoSink(tmp_path / "out.mp4", info(live=False), split_every_s=60) as sink:
        for index in range(65):
            sink.write(output(index, 10.0 * index))
    expected = [f"out-00-{minute:02d}-00.mp4" for minute in range(11)]
    assert names(tmp_path) == expected
    assert [frames_of(tmp_path / name) for name in expected] == [6] * 10 + [5]


def test_a_gap_does_not_make_empty_files_and_splits_do_not_drift(tmp_path: Path) -> None:
    times = [0.0, 1.0, 9.0, 9.9, 10.1, 11.9, 12.0]
    with VideoSink(tmp_path / "out.mp4", info(live=False), split_every_s=2) as sink:
        for index, at_s in enumerate(times):
            sink.write(output(index, at_s))
    assert names(tmp_path) == [
        "out-00-00-00.mp4",
        "out-00-00-09.mp4",
        "out-00-00-10.mp4",
        "out-00-00-12.mp4",
    ]
    assert [frames_of(tmp_path / name) for name in names(tmp_path)] == [2, 2, 2, 1]


def test_a_clock_that_is_put_back_overwrites_nothing(tmp_path: Path) -> None:
    with VideoSink(
        tmp_path / "cam.mp4", info(live=True), split_every_s=1, clock=lambda: START
    ) as sink:
        for index in range(30):
            sink.write(output(index, index / 10))
    stem = "cam-2026-11-28T10-00-00"
    assert names(tmp_path) == [f"{stem}.mp4", f"{stem}_2.mp4", f"{stem}_3.mp4"]


def test_the_oldest_are_deleted_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_sink, "_ROOM_CHECK_EVERY", 5)
    others = ["cam.mp4", "cam-holiday.mp4", "camera-2026-11-28T09-00-00.mp4", "notes.txt"]
    for name in others:
        (tmp_path / name).write_bytes(bytes(100_000))
        os.utime(tmp_path / name, (1, 1))

    sink = VideoSink(
        tmp_path / "cam.mp4",
        info(live=True),
        split_every_s=2,
        keep_bytes=300_000,
        clock=minutes(),
    )
    for index in range(300):
        sink.write(output(index, index / 10, noisy=True))
        mine = [path for path in tmp_path.iterdir() if path.name not in others]
        total = sum(path.stat().st_size for path in mine)
        assert total < 300_000 + 60_000  # between two looks it may grow by some frames
    sink.finish()

    kept = [name for name in names(tmp_path) if name not in others]
    assert sum((tmp_path / name).stat().st_size for name in kept) <= 300_000
    assert len(kept) >= 2
    assert kept[-1] == "cam-2026-11-28T10-14-00.mp4"  # the newest
    assert frames_of(tmp_path / kept[-1]) == 20
    assert set(others) <= set(names(tmp_path))


def test_the_file_that_is_written_is_never_deleted(tmp_path: Path) -> None:
    with VideoSink(
        tmp_path / "cam.mp4", info(live=True), split_every_s=60, keep_bytes=1, clock=minutes()
    ) as sink:
        for index in range(200):
            sink.write(output(index, index / 10, noisy=True))
            assert len(names(tmp_path)) == 1


def test_recordings_of_killed_runs_get_their_names(tmp_path: Path) -> None:
    left = tmp_path / "cam-2026-11-28T09-00-00.recording-ab12.mp4"
    left.write_bytes(b"what a killed run left")
    running = VideoFile(tmp_path / "cam-2026-11-28T09-30-00.mp4", (64, 48), 10.0)
    heard = Heard()
    sink = VideoSink(
        tmp_path / "cam.mp4", info(live=True), split_every_s=60, reporter=heard, clock=minutes()
    )
    sink.write(output(0, 0.0))
    sink.finish()

    # The one that is still being written keeps its name.
    recordings = [name for name in names(tmp_path) if "recording" in name]
    assert len(recordings) == 1
    assert re.match(r"cam-2026-11-28T09-30-00\.recording-", recordings[0])
    assert (tmp_path / "cam-2026-11-28T09-00-00.mp4").read_bytes() == b"what a killed run left"
    assert any("was killed" in line for line in heard.lines)
    running.drop()


def test_names_of_paths_with_special_characters(tmp_path: Path) -> None:
    segments = Segments(tmp_path / "a+b (1).mp4", keep_bytes=1)
    name = segments.at_position(3 * 3600 + 125)
    assert name.name == "a+b (1)-03-02-05.mp4"
    name.write_bytes(b"12")
    assert segments.delete_oldest(0) == [name]


def test_an_error_keeps_finished_files(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4", info(live=False), split_every_s=1)
    for index in range(15):
        sink.write(output(index, index / 10))
    sink.abort()
    assert names(tmp_path) == ["out-00-00-00.mp4"]


@pytest.mark.parametrize(
    ("split_every_s", "keep_bytes", "message"),
    [(0.5, None, "too short"), (None, 1e9, "must be split"), (60, 0, "must be positive")],
)
def test_values_that_make_no_sense(
    tmp_path: Path, split_every_s: float | None, keep_bytes: float | None, message: str
) -> None:
    with pytest.raises(OutputError, match=message):
        VideoSink(
            tmp_path / "out.mp4",
            info(live=True),
            split_every_s=split_every_s,
            keep_bytes=keep_bytes,
        )
    assert not names(tmp_path)
