"""Check how the values of options are parsed, and what is refused."""

import pytest

from edgeseg.cli.parsing import (
    MAX_SIDE,
    joined_channels,
    parse_channels,
    parse_size,
    whole_number,
)
from edgeseg.errors import InputError


@pytest.mark.parametrize(
    "text", ["", "480", "0x4", "-1x4", "4x", "4x4x4", f"4x{MAX_SIDE + 1}", "²x5"]
)
def test_what_is_not_a_size(text: str) -> None:
    with pytest.raises(InputError, match=r"--sizes: not a size: got .*HEIGHTxWIDTH"):
        parse_size(text, "--sizes")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "--std: wrong number of values: got 0"),
        ("1,2", r"got 2 \('1,2'\), expected 3 numbers, one per channel"),
        ("1,2,x", "--std: not 3 finite numbers"),
        ("1,2,inf", "--std: not 3 finite numbers"),
    ],
)
def test_what_is_not_a_value_per_channel(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parse_channels(text, "--std")


@pytest.mark.parametrize("text", ["0.5,0.4,0.3", "0.5 0.4 0.3", " 0.5, 0.4  0.3 "])
def test_commas_and_spaces_part_channels(text: str) -> None:
    assert parse_channels(text, "--mean") == (0.5, 0.4, 0.3)


@pytest.mark.parametrize("text", ["360x480", "360X480"])
def test_a_size_is_height_and_width(text: str) -> None:
    assert parse_size(text) == (360, 480)


@pytest.mark.parametrize(
    ("words", "joined"),
    [
        ([], []),
        (["--mean"], ["--mean"]),
        (["--mean", "0.5,0.4,0.3", "x"], ["--mean", "0.5,0.4,0.3", "x"]),
        (["--std", "1", "2", "3", "4"], ["--std", "1,2,3", "4"]),
        (["--mean", "1", "--std", "-1", "2e3", "x"], ["--mean", "1", "--std", "-1,2e3", "x"]),
        (["--scale", "1", "2"], ["--scale", "1", "2"]),
    ],
)
def test_values_of_channels_are_joined(words: list[str], joined: list[str]) -> None:
    assert joined_channels(words) == joined


@pytest.mark.parametrize("text", ["", "-3", "+3", " 3", "3.0", "²", "٣", "1_000"])
def test_what_is_no_whole_number(text: str) -> None:
    assert whole_number(text) == 0
