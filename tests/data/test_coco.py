"""Sets in COCO's format, written by pycocotools and as Roboflow lays them out."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import own_data
import pytest

from edgeseg.data import open_dataset
from edgeseg.errors import DataError, InputError

pytest.importorskip("pycocotools", reason='pycocotools is not installed ("edgeseg[datasets]")')


def changed(path: Path, **changes: Any) -> None:
    """Change the first annotation of a file; ``None`` removes a key."""
    value = json.loads(path.read_text())
    for key, new in changes.items():
        value["annotations"][0][key] = new
    path.write_text(json.dumps(value))


@pytest.mark.parametrize("kind", ["polygons", "runs", "compressed"])
def test_shapes_read_to_the_same_arrays(kind: str, tmp_path: Path) -> None:
    own_data.write_coco(tmp_path, kind)
    for split in ("train", "val"):
        data = open_dataset(f"coco:{tmp_path}", split)
        assert data.labels.names == own_data.CLASSES
        assert own_data.named(data) == own_data.expected(split)


def test_masks_are_those_of_cocos_own_tool(tmp_path: Path) -> None:
    """A polygon with corners between pixels, drawn by ``COCO.annToMask``."""
    from pycocotools.coco import COCO

    own_data.write_coco(tmp_path)
    path = tmp_path / "annotations" / "instances_val2017.json"
    changed(path, segmentation=[[3.2, 1.7, 40.6, 9.1, 22.4, 44.9], [50, 2, 60, 2, 55, 20.5]])
    value = json.loads(path.read_text())
    value["annotations"] = value["annotations"][:1]
    path.write_text(json.dumps(value))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        coco = COCO(str(path))
        theirs = coco.annToMask(coco.anns[0])
    ours = open_dataset(f"coco:{tmp_path}?rest=void", "val")[0].mask
    np.testing.assert_array_equal(ours == 0, theirs > 0)
    assert (ours[theirs == 0] == 255).all()
    assert 200 < theirs.sum() < 2000


def test_pixels_without_shape_are_background_unless_told(tmp_path: Path) -> None:
    own_data.write_coco(tmp_path)
    for split in ("train", "val"):
        path = tmp_path / "annotations" / f"instances_{split}2017.json"
        value = json.loads(path.read_text())
        value["categories"] = [c for c in value["categories"] if c["name"] == "car"]
        value["annotations"] = [a for a in value["annotations"] if a["category_id"] == 8]
        path.write_text(json.dumps(value))
    data = open_dataset(f"coco:{tmp_path}", "val")
    assert data.labels.names == ("background", "car")
    assert sorted(np.unique(data[0].mask)) == [0, 1]
    data = open_dataset(f"coco:{tmp_path}?rest=void", "val")
    assert data.labels.names == ("car",)
    assert sorted(np.unique(data[0].mask)) == [0, 255]
    with pytest.raises(InputError, match=r"unknown option: got \?rest=sky"):
        open_dataset(f"coco:{tmp_path}?rest=sky")


def test_roboflows_layout_and_a_file_alone(tmp_path: Path) -> None:
    own_data.write_coco(tmp_path / "a")
    for split in ("train", "val"):
        folder = tmp_path / "b" / {"train": "train", "val": "valid"}[split]
        folder.parent.mkdir(exist_ok=True)
        (tmp_path / "a" / f"{split}2017").rename(folder)
        file = tmp_path / "a" / "annotations" / f"instances_{split}2017.json"
        file.rename(folder / "_annotations.coco.json")
    assert own_data.named(open_dataset(f"coco:{tmp_path / 'b'}")) == own_data.expected("val")
    file = tmp_path / "b" / "valid" / "_annotations.coco.json"
    assert own_data.named(open_dataset(f"coco:{file}", "all")) == own_data.expected("val")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"segmentation": [], "bbox": [0, 0, 3, 3]}, r"annotation 0 of drived_0000.*a box alone"),
        ({"category_id": 12}, r"category that is not in `categories`: got 12"),
        ({"image_id": 99}, r"a shape of no frame: got annotation 0 of image 99"),
        ({"segmentation": [[1, 2]]}, "cannot be drawn"),
        ({"segmentation": {"size": [4, 4], "counts": [16]}}, r"another size: got \(4, 4\)"),
    ],
)
def test_wrong_shapes_are_one_line_with_the_file(
    change: dict[str, Any], says: str, tmp_path: Path
) -> None:
    own_data.write_coco(tmp_path)
    changed(tmp_path / "annotations" / "instances_val2017.json", **change)
    with pytest.raises(DataError, match=rf"instances_val2017\.json.*{says}") as caught:
        open_dataset(f"coco:{tmp_path}", "val")[0]
    assert "\n" not in str(caught.value)


def test_what_is_no_coco_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        open_dataset(f"coco:{tmp_path / 'no'}")
    with pytest.raises(DataError, match="no file in COCO's format"):
        open_dataset(f"coco:{tmp_path}")
    own_data.write_coco(tmp_path)
    path = tmp_path / "annotations" / "instances_val2017.json"
    value = json.loads(path.read_text())
    value["categories"][0]["name"] = "cloud"
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"val2017\.json: other classes than instances_train2017"):
        open_dataset(f"coco:{tmp_path}")
    path.write_text("{")
    with pytest.raises(DataError, match=r"val2017\.json: not readable as JSON"):
        open_dataset(f"coco:{tmp_path}")


def test_sizes_that_are_none_and_names_that_lead_out(tmp_path: Path) -> None:
    own_data.write_coco(tmp_path)
    path = tmp_path / "annotations" / "instances_val2017.json"
    value = json.loads(path.read_text())
    value["images"][0]["file_name"] = "/home/me/drived_0000.png"
    value["images"][1]["file_name"] = "../val2017/drived_0001.png"
    value["images"][2]["height"] = 10**9
    path.write_text(json.dumps(value))
    data = open_dataset(f"coco:{tmp_path}", "val")
    assert list(data.names[:2]) == ["drived_0000", "drived_0001"]
    with pytest.raises(DataError, match=r"val2017\.json: not the size of a picture"):
        data[2]
