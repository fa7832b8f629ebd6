"""Counts that a file or an argument asks for have limits, and so have packed parts of the cache."""

import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx_tools import make, node

from edgeseg.errors import DataError, InputError
from edgeseg.quantize import calibration_set
from edgeseg.quantize.calibration_set import MOST_FRAMES, MOST_SOURCE_FRAMES, resolve_set
from edgeseg.quantize.frame_sources import open_frame_source
from edgeseg.quantize.histograms import Statistics
from edgeseg.quantize.ranges import cached_statistics
from edgeseg.types import Float, Image


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    return tmp_path


@pytest.mark.parametrize("count", [10**18, MOST_FRAMES + 1, 0])
def test_a_set_of_too_many_frames_is_refused(pictures: Path, count: int) -> None:
    with pytest.raises(InputError, match=r"number of frames: got \d+, expected 1 to 100,000"):
        resolve_set(str(pictures), count=count)
    assert len(resolve_set(str(pictures), count=MOST_FRAMES)) == 1


def test_a_recipe_that_asks_for_too_many_frames_is_refused(pictures: Path) -> None:
    recipe = pictures / "set.toml"
    recipe.write_text(f'source = "{pictures}"\ncount = {10**18}\n')
    with pytest.raises(InputError, match="number of frames"):
        resolve_set(str(recipe))


def test_a_source_that_says_it_has_too_many_frames_is_refused(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def endless(*arguments: str) -> object:
        pool = open_frame_source(*arguments)
        monkeypatch.setattr(type(pool), "count", lambda self: MOST_SOURCE_FRAMES + 1)
        return pool

    monkeypatch.setattr(calibration_set, "open_frame_source", endless)
    with pytest.raises(DataError, match="says that it has too many frames: got 10,000,001"):
        resolve_set(str(pictures))


def test_ranges_that_unfold_to_too_much_are_collected_again(pictures: Path) -> None:
    """The right arrays beside a bomb: nothing of the file is used."""
    model = make([node("Relu", "x", "a"), node("Relu", "a", "y")], {"x": [1, 3, 8, 8]}, "y")
    frames = resolve_set(str(pictures))
    cache = pictures / "ranges"

    def ask() -> tuple[Statistics, bool]:
        return cached_statistics(model, "0" * 64, ("a",), frames, to_input, cache)

    before, _ = ask()
    assert ask()[1]
    (file,) = cache.iterdir()
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as parts:
        parts.writestr("bomb.npy", bytes(10 << 20))
    after, was_cached = ask()
    assert not was_cached
    np.testing.assert_array_equal(after.histogram, before.histogram)
    assert ask()[1]  # the bomb was replaced


def to_input(frame: Image) -> Float:
    return np.ascontiguousarray(frame.transpose(2, 0, 1)[None], np.float32)
