"""Check the options of ``segment`` about what is written."""

from pathlib import Path

import pytest

from edgeseg.cli.parsing import parse_bytes, parse_duration
from edgeseg.cli.segment import VIDEO_SUFFIXES, OutputOptions, segment_source
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

    with pytest.raises(InputError, match="no video to split"):
        segment_source(never, "no such source", OutputOptions(out, split_every="10m"))  # type: ignore[arg-type]
