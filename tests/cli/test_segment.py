"""Check the options of ``segment`` about what is written."""

import json
from pathlib import Path

import av
import pytest
from commands import edgeseg

from edgeseg.cli.options import EngineOptions
from edgeseg.cli.outputs import out_paths, parse_address
from edgeseg.cli.parsing import parse_bytes, parse_duration
from edgeseg.cli.segment import SegmentOptions, engine_names, segment_source
from edgeseg.cli.video_options import VIDEO_SUFFIXES, OutputOptions
from edgeseg.errors import InputError
from edgeseg.video.video_file import SUFFIXES


def test_the_command_line_knows_every_kind_of_video() -> None:
    assert VIDEO_SUFFIXES == SUFFIXES


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5H", 5400), (" 1d ", 86400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text, "--split-every") == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "10 weeks", "-1m", "0s", "nans", "infs", "1e999s"])
def test_no_durations(text: str) -> None:
    with pytest.raises(InputError, match=r"--split-every: not a duration.*such as 90s, 10m"):
        parse_duration(text, "--split-every")


@pytest.mark.parametrize(
    ("text", "amount"), [("20GB", 20e9), ("500mb", 5e8), ("1.5 TB", 1.5e12), ("8kB", 8000)]
)
def test_amounts_of_bytes(text: str, amount: float) -> None:
    assert parse_bytes(text, "--keep") == amount


@pytest.mark.parametrize("text", ["", "20", "GB", "20G", "-1GB", "0MB"])
def test_no_amounts_of_bytes(text: str) -> None:
    with pytest.raises(InputError, match=r"--keep: not an amount of bytes.*such as 500MB"):
        parse_bytes(text, "--keep")


@pytest.mark.parametrize("out", [None, Path("out.png")])
def test_only_a_video_can_be_split(out: Path | None) -> None:
    """It is said before the source or the engine is opened."""

    def never() -> None:
        raise AssertionError

    options = SegmentOptions(OutputOptions(out, split_every="10m"))
    with pytest.raises(InputError, match="no video to split"):
        segment_source(never, ["no such source"], options)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "x", ":", "127.0.0.1", "127.0.0.1:", "1:70000", "0.0.0.0:-1"])
def test_no_addresses_of_a_page(text: str) -> None:
    with pytest.raises(InputError, match=r"--page: not an address.*such as 8000"):
        parse_address(text)


def test_several_sources_need_a_video_each() -> None:
    with pytest.raises(InputError, match=r"one video for 2 sources.*Give -o out-\{source\}\.mp4"):
        out_paths(Path("out.mp4"), ["front", "rear"])
    assert out_paths(Path("out.mp4"), ["front"]) == [Path("out.mp4")]


def test_engines_that_viewers_compare(tmp_path: Path) -> None:
    engines = engine_names("enet-camvid@fp32, enet-camvid@INT8,other.onnx", EngineOptions())
    assert [(name, file, options.precision.value) for name, (file, options) in engines.items()] == [
        ("enet-camvid@fp32", "enet-camvid", "fp32"),
        ("enet-camvid@INT8", "enet-camvid", "int8"),
        ("other.onnx", "other.onnx", "auto"),
    ]

    # A file of that very name is one engine.
    odd = tmp_path / "a,b@int8.engine"
    odd.touch()
    assert list(engine_names(str(odd), EngineOptions())) == [str(odd)]


ENGINE = ("enet-camvid", "--precision", "fp32")


def test_two_sources_at_once(tmp_path: Path) -> None:
    drives = [f"synthetic://?length=3&size=64x48&seed={seed}" for seed in (1, 2)]
    out = tmp_path / "out-{source}.mp4"
    lines = tmp_path / "frames.jsonl"
    done = edgeseg("segment", *ENGINE, *drives, "-o", out, "--frames-json", lines)
    assert done.returncode == 0, done.stderr
    assert "6 frames in, 6 out" in done.stdout
    assert len(list(tmp_path.glob("out-synthetic*.mp4"))) == 2
    sources = [json.loads(line)["source"] for line in lines.read_text().splitlines()]
    assert sorted(sources) == [0, 0, 0, 1, 1, 1]


def test_json_lines_on_standard_output_are_alone_there(tmp_path: Path) -> None:
    done = edgeseg("segment", *ENGINE, "synthetic://?length=2&size=64x48", "--frames-json", "-")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["index"] for line in done.stdout.splitlines()] == [0, 1]
    assert "2 frames in" in done.stderr


def test_the_picture_options_change_the_size_of_the_video(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    drive = "synthetic://?length=2&size=160x120"
    done = edgeseg("segment", *ENGINE, drive, "-o", out, "--view", "side-by-side")
    assert done.returncode == 0, done.stderr
    with av.open(str(out)) as video:
        assert (video.streams.video[0].width, video.streams.video[0].height) == (320, 120)


def test_a_class_that_does_not_exist_is_told_before_the_first_frame(tmp_path: Path) -> None:
    drive = "synthetic://?length=2&size=64x48"
    out = tmp_path / "out.mp4"
    done = edgeseg("segment", *ENGINE, drive, "-o", out, "--classes", "rod,car")
    assert done.returncode == 2
    assert "Road" in done.stderr  # did you mean
    assert not list(tmp_path.iterdir())


def test_a_camera_that_stays_away_has_its_own_exit_code(tmp_path: Path) -> None:
    camera = "synthetic://?size=64x48&fps=30&realtime=1&fault=unplug@0.5:60"
    report = tmp_path / "run.json"
    out = tmp_path / "out.mp4"
    done = edgeseg(
        "segment", *ENGINE, camera, "-o", out, "--stall", "1s", "--give-up", "2s", "--json", report
    )
    assert done.returncode == 3, done.stderr
    assert "stayed away" in done.stderr
    assert json.loads(report.read_text())["stopped"] == "camera lost"
    with av.open(str(out)) as video:
        assert sum(1 for _ in video.decode(video=0)) > 3


def test_a_recording_of_a_camera_overwrites_nothing(tmp_path: Path) -> None:
    out = tmp_path / "camera.mp4"
    out.write_bytes(b"yesterday")
    camera = "synthetic://?size=64x48&fps=30&realtime=1&length=10"
    done = edgeseg("segment", *ENGINE, camera, "-o", out)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == b"yesterday"
    assert len(list(tmp_path.glob("camera-20*.mp4"))) == 1


def test_two_outputs_are_two_files(tmp_path: Path) -> None:
    lines = tmp_path / "x.json"
    done = edgeseg("segment", *ENGINE, "0", "--frames-json", lines, "--json", lines)
    assert done.returncode == 2
    assert "--frames-json and to --json" in done.stderr


def test_no_password_is_stored(tmp_path: Path) -> None:
    """Addresses stand in the JSON of a run and in messages."""
    done = edgeseg("segment", *ENGINE, "rtsp://admin:hunter2@127.0.0.1:1/live", "--masks", tmp_path)
    assert done.returncode == 2
    assert "hunter2" not in done.stdout + done.stderr
    assert "127.0.0.1:1/live" in done.stderr
