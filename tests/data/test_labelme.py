"""labelme's files: every kind of shape, drawn as labelme draws it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import own_data
import pytest

from edgeseg.data import open_dataset
from edgeseg.errors import DataError

VAL = Path("val") / "drived_0000.json"


def with_shapes(root: Path, *shapes: dict[str, Any]) -> Path:
    """The set, the first frame of ``val`` with these shapes alone."""
    own_data.write_labelme(root)
    value = json.loads((root / VAL).read_text())
    value["shapes"] = list(shapes)
    (root / VAL).write_text(json.dumps(value))
    return root


def shape(kind: str, points: list[list[float]], label: str = "car") -> dict[str, Any]:
    return {"label": label, "shape_type": kind, "points": points}


@pytest.mark.parametrize("split", ["train", "val"])
def test_shapes_read_to_the_same_arrays(split: str, tmp_path: Path) -> None:
    data = open_dataset(f"labelme:{own_data.write_labelme(tmp_path)}", split)
    assert data.labels.names == own_data.CLASSES
    assert own_data.named(data) == own_data.expected(split)


def test_classes_without_a_list_are_those_that_occur(tmp_path: Path) -> None:
    (own_data.write_labelme(tmp_path) / "labels.txt").unlink()
    data = open_dataset(f"labelme:{tmp_path}", "val")
    assert data.labels.names == ("car", "road", "sky")
    assert own_data.named(data) == own_data.expected("val")


SHAPES = [
    shape("circle", [[30, 20], [30, 28]]),
    shape("point", [[30, 20]]),
    shape("line", [[5, 30], [55, 30]]),
    shape("linestrip", [[5, 10], [5, 40], [50, 40]]),
    shape("rectangle", [[40, 30], [10, 8]]),
    shape("polygon", [[3.2, 1.7], [40.6, 9.1], [22.4, 44.9]]),
    shape("oriented_rectangle", [[20, 5], [40, 20], [30, 34], [10, 19]]),
]


OF_LABELME = {
    "circle": (221, "484fc6de548e"),
    "point": (97, "c403229d3349"),
    "line": (510, "deb6ae110d48"),
    "linestrip": (740, "6be9052aa5b4"),
    "rectangle": (713, "8770b6a84ee7"),
    "polygon": (763, "87b4cbcf3056"),
    "oriented_rectangle": (460, "6f575521b851"),
}


@pytest.mark.parametrize("one", SHAPES, ids=lambda one: str(one["shape_type"]))
def test_shapes_are_as_labelme_draws_them(one: dict[str, Any], tmp_path: Path) -> None:
    """The pixels of ``labelme.utils.shape_to_mask``, version 6.3.1, by count and hash."""
    data = open_dataset(f"labelme:{with_shapes(tmp_path, one)}", "val")
    ours = data[0].mask == data.labels.names.index("car")
    found = int(ours.sum()), hashlib.sha256(np.packbits(ours).tobytes()).hexdigest()[:12]
    assert found == OF_LABELME[one["shape_type"]]


@pytest.mark.parametrize(
    ("one", "says"),
    [
        (shape("polygon", [[0, 0], [3, 3]]), r"shape 0 \(car\) cannot be drawn: got a polygon"),
        (shape("cube", [[0, 0]]), "unknown kind 'cube'"),
        (shape("mask", [[0, 0], [3, 3]]), "shape 0"),
        (shape("rectangle", [[0, 0], [3, 3]], "cra"), r"a shape of no class: got 'cra'.*'car'"),
    ],
)
def test_wrong_shapes_are_one_line_with_the_file(
    one: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with_shapes(tmp_path, one)
    with pytest.raises(DataError, match=rf"drived_0000\.json.*{says}") as caught:
        open_dataset(f"labelme:{tmp_path}", "val")[0]
    assert "\n" not in str(caught.value)


def test_a_file_of_another_size_is_said(tmp_path: Path) -> None:
    own_data.write_labelme(tmp_path)
    value = json.loads((tmp_path / VAL).read_text())
    value["imageHeight"] = 96
    (tmp_path / VAL).write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"drived_0000\.json: its size differs.*\(96, 64\)"):
        open_dataset(f"labelme:{tmp_path}", "val")[0]


def test_frames_without_file_are_said(tmp_path: Path) -> None:
    (own_data.write_labelme(tmp_path) / VAL).unlink()
    with pytest.raises(DataError, match=r"drived_0000\.png: no mask for this frame: got 1 of 4"):
        open_dataset(f"labelme:{tmp_path}", "val")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no frames with labelme's files"):
        open_dataset(f"labelme:{tmp_path / 'none'}", "val")
