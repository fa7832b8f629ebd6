"""One line of JSON a frame: what it says, and what happens to the file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeseg.errors import OutputError
from edgeseg.spec import CAMVID_11, CAMVID_32, ModelSpec
from edgeseg.video.frames import Frame
from edgeseg.video.frames_json import FramesJsonSink
from edgeseg.video.pipeline import segment
from edgeseg.video.sinks import Output
from edgeseg.video.sources import open_source
from edgeseg.video.status import Status

ROAD_AND_CARS = np.array([[3, 3, 3, 8], [3, 3, 3, 11]], np.uint8)


def output(index: int = 0, labels: np.ndarray = ROAD_AND_CARS, **facts: float) -> Output:
    black = np.zeros((*labels.shape, 3), np.uint8)
    frame = Frame(index, black, f"{index:06}", index / 25, source=2)
    return Output(frame, labels, None, status=Status(**facts))  # type: ignore[arg-type]


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_line_holds_time_age_and_shares(tmp_path: Path) -> None:
    path = tmp_path / "new" / "frames.jsonl"
    with FramesJsonSink(path, CAMVID_11) as sink:
        sink.write(output(7, age_ms=48.25, network_ms=11.5))
        sink.write(output(9))
    assert lines(path) == [
        {
            "index": 7,
            "source": 2,
            "name": "000007",
            "time_s": 0.28,
            "age_ms": 48.25,
            "network_ms": 11.5,
            "shares": {"Road": 0.75, "Car": 0.125},
        },
        {
            "index": 9,
            "source": 2,
            "name": "000009",
            "time_s": 0.36,
            "age_ms": None,
            "network_ms": None,
            "shares": {"Road": 0.75, "Car": 0.125},
        },
    ]


def test_shares_are_exact_and_leave_the_ignored_class_out(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 40, (719, 1277), np.uint8)
    with FramesJsonSink(tmp_path / "a.jsonl", CAMVID_32) as sink:
        sink.write(output(labels=labels))
    shares = lines(tmp_path / "a.jsonl")[0]["shares"]
    assert shares == {
        name: round(float((labels == label).mean()), 6)
        for label, name in enumerate(CAMVID_32.names)
        if label != CAMVID_32.ignore_id
    }


def test_frames_without_signal_are_skipped(tmp_path: Path) -> None:
    with FramesJsonSink(tmp_path / "a.jsonl", CAMVID_11) as sink:
        sink.write(output(0))
        sink.write(output(0, lost_s=2.5))
        sink.write(output(1))
    assert [line["index"] for line in lines(tmp_path / "a.jsonl")] == [0, 1]


def test_the_file_has_its_name_at_the_end_and_each_line_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    sink = FramesJsonSink(path, CAMVID_11)
    for count in (1, 2):
        sink.write(output(count))
        assert not path.exists()
        (unfinished,) = tmp_path.iterdir()
        assert len(lines(unfinished)) == count
    sink.finish()
    sink.finish()
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]


def test_an_aborted_file_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("before")
    sink = FramesJsonSink(path, CAMVID_11)
    sink.write(output())
    sink.abort()
    sink.abort()
    assert [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]
    assert path.read_text() == "before"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder"):
        FramesJsonSink(tmp_path, CAMVID_11)


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")

    sink = FramesJsonSink(tmp_path / "a.jsonl", CAMVID_11)
    handle = os.open("/dev/full", os.O_WRONLY)
    os.dup2(handle, sink._file._handle)  # type: ignore[union-attr]
    os.close(handle)
    with pytest.raises(OutputError, match="No space left"):
        sink.write(output())
    sink.abort()
    assert list(tmp_path.iterdir()) == []


def test_the_standard_output_gets_the_same_lines(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for path in ("-", tmp_path / "a.jsonl"):
        with FramesJsonSink(path, CAMVID_11) as sink:
            sink.write(output(3, age_ms=1.0))
    assert capsys.readouterr().out == (tmp_path / "a.jsonl").read_text()


def test_it_needs_no_picture_and_follows_a_whole_run(tmp_path: Path) -> None:
    class Engine:
        spec = ModelSpec(architecture="none", input_size=(48, 64), labels=CAMVID_11)

        def __call__(self, frame: np.ndarray, /) -> np.ndarray:
            return np.full(frame.shape[:2], 3, np.uint8)

    path = tmp_path / "a.jsonl"
    sink = FramesJsonSink(path, CAMVID_11)
    assert not sink.needs_picture
    segment(Engine(), open_source("synthetic://?length=5&size=64x48"), [sink])

    written = lines(path)
    assert [line["index"] for line in written] == [0, 1, 2, 3, 4]
    assert all(line["shares"] == {"Road": 1.0} for line in written)


PROGRAM = """
import numpy as np
from edgeseg.spec import CAMVID_11
from edgeseg.video.frames import Frame
from edgeseg.video.frames_json import FramesJsonSink
from edgeseg.video.sinks import Output
labels = np.zeros((8, 8), np.uint8)
with FramesJsonSink("-", CAMVID_11) as sink:
    count = 0
    while not sink.closed and count < 100_000:
        sink.write(Output(Frame(count, labels, "", 0.0), labels, None))
        count += 1
raise SystemExit(0 if sink.closed else 3)
"""


def test_a_reader_that_leaves_ends_the_run_without_noise() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["index"] == 0
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 0
