"""``edgeseg data convert A B``: any data as ``folder:``, read to the same arrays."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import own_data
import pytest
from commands import edgeseg
from PIL import Image as Pillow

from edgeseg.data import iterate, open_dataset
from edgeseg.data.coding import Decoded
from edgeseg.data.convert import convert_data
from edgeseg.data.inventory import Entry, Inventory
from edgeseg.errors import DataError
from edgeseg.spec import CAMVID_32

IMAGE = np.zeros((4, 4, 3), np.uint8)

WRITERS: dict[str, Callable[[Path], Path]] = {
    "folder": own_data.write_folder,
    "labelme": own_data.write_labelme,
    "cvat": own_data.write_cvat,
    "supervisely": own_data.write_supervisely,
    "mapillary": own_data.write_mapillary,
    "ade20k": own_data.write_ade20k,
}


@pytest.mark.parametrize("scheme", WRITERS)
def test_converted_sets_read_to_the_same_arrays(scheme: str, tmp_path: Path) -> None:
    address = f"{scheme}:{WRITERS[scheme](tmp_path / 'a')}"
    result = edgeseg("data", "convert", address, f"folder:{tmp_path / 'b'}")
    assert result.returncode == 0, result.stderr
    for split in ("train", "val"):
        before = open_dataset(address, split)
        after = open_dataset(f"folder:{tmp_path / 'b'}", split)
        assert after.labels.names == before.labels.names
        assert after.labels.palette == before.labels.palette
        for one, other in zip(iterate(before), iterate(after), strict=True):
            assert one.name == other.name
            np.testing.assert_array_equal(one.image, other.image)
            np.testing.assert_array_equal(one.mask, other.mask)
    assert edgeseg("data", "check", f"folder:{tmp_path / 'b'}").returncode == 0


def test_a_void_class_stays_and_its_pixels_are_ignored(tmp_path: Path) -> None:
    """CamVid's 32 classes count void as one; an engine for them must fit the converted data."""
    for i in range(10):
        name = f"0001TP_{i:05d}"
        own_data.write_frame(tmp_path / "a" / "images" / f"{name}.png", own_data.NAMES[i])
        ids = np.full((48, 64), 31, np.uint8)
        ids[:, :9] = CAMVID_32.ignore_id
        own_data.write_ids(tmp_path / "a" / "labels" / f"{name}_P.png", ids)
    result = edgeseg("data", "convert", f"camvid:{tmp_path / 'a'}", tmp_path / "b")
    assert result.returncode == 0, result.stderr
    data = open_dataset(f"folder:{tmp_path / 'b'}", "val")
    assert data.labels.names == CAMVID_32.names
    assert data[0].mask[0, 8:10].tolist() == [255, 31]


def test_masks_have_the_classes_colours_for_every_viewer(tmp_path: Path) -> None:
    own_data.write_cvat(tmp_path / "a")
    edgeseg("data", "convert", f"cvat:{tmp_path / 'a'}", tmp_path / "b")
    picture = Pillow.open(tmp_path / "b" / "masks" / "val" / "drived_0000.png")
    assert picture.mode == "P"
    assert picture.convert("RGB").getpixel((0, 47)) == own_data.COLOURS[1]


@pytest.mark.parametrize("fault", ["full", "id", "address"])
def test_errors_are_one_line(fault: str, tmp_path: Path) -> None:
    own_data.write_folder(tmp_path / "a")
    address, says = f"folder:{tmp_path / 'a'}", "exists already"
    if fault == "full":
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "mine.txt").write_text("mine")
    if fault == "id":
        path = tmp_path / "a" / "masks" / "val" / "drived_0000.png"
        own_data.write_ids(path, np.full((48, 64), 9, np.uint8))
        says = "drived_0000.png: no class has this: got id 9"
    if fault == "address":
        address, says = "foldr:x", "Did you mean 'folder'?"
    result = edgeseg("data", "convert", address, tmp_path / "b")
    assert result.returncode == 2
    assert says in " ".join(result.stderr.split())
    assert result.stderr.count("\n") == 1


def test_names_cannot_lead_out_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_data.write_folder(tmp_path / "a" / "b", by_split="flat")
    (tmp_path / "a" / "data.toml").write_text(
        '[classes]\nnames = ["sky", "road", "car"]\n[[frames]]\nroot = "b/images"\n'
        'images = "*.png"\nmasks = "../masks/{name}.png"'
    )
    convert_data(f"folder:{tmp_path / 'a'}", tmp_path / "c")
    assert len(list((tmp_path / "c" / "masks").rglob("*.png"))) == 16
    entry = Entry("../../x", "val", "", None, None, True, lambda: (IMAGE, Decoded(IMAGE[..., 0])))
    inventory = Inventory("synthetic:", CAMVID_32, [entry])
    monkeypatch.setattr("edgeseg.data.convert.take_inventory", lambda address: inventory)
    with pytest.raises(DataError, match=r"leads out of the folder: got \.\./\.\./x"):
        convert_data("synthetic:", tmp_path / "d" / "e")
    assert not (tmp_path / "x.png").exists()
