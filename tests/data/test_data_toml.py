"""``data.toml``: globs, several roots, maps of ids and colours, offsets, groups, and its errors."""

from pathlib import Path

import numpy as np
import own_data
import pytest

from edgeseg.data import open_dataset
from edgeseg.errors import DataError, EdgesegError, InputError

OWN = """
name = "yard"
[classes]
ids = { 7 = "sky", 8 = "road", 26 = "car", 0 = "void" }
[[frames]]
root = "first"
images = "*/rgb/*.png"
masks = "{parent}/labels/{name}_L.png"
suffix = "_rgb"
[[frames]]
root = "second"
images = "**/*.jpeg.png"
masks = "{folder}/{name}.mask.png"
suffix = ".jpeg"
split = "val"
"""


def write_two_roots(root: Path) -> Path:
    """Three drives in one layout, the fourth in another; ids of Cityscapes' kind."""
    table = np.zeros(256, np.uint8)
    table[:3] = 7, 8, 26
    for name in own_data.NAMES:
        drive = name.split("_")[0]
        ids = table[own_data.mask_of(name)]
        if drive == own_data.VAL_DRIVE:
            at = root / "second" / "x" / "y"
            own_data.write_frame(at / f"{name}.jpeg.png", name)
            own_data.write_ids(at / f"{name}.mask.png", ids)
        else:
            at = root / "first" / drive
            own_data.write_frame(at / "rgb" / f"{name}_rgb.png", name)
            own_data.write_ids(at / "labels" / f"{name}_L.png", ids)
    (root / "data.toml").write_text(OWN)
    return root


def renamed(found: dict[str, list[list[str]]]) -> dict[str, list[list[str]]]:
    """Without the folders in the names."""
    return {name.rpartition("/")[2]: mask for name, mask in found.items()}


def test_globs_several_roots_and_a_map_of_ids(tmp_path: Path) -> None:
    write_two_roots(tmp_path)
    text = OWN.replace('suffix = "_rgb"', 'suffix = "_rgb"\nsplit = "train"')
    (tmp_path / "data.toml").write_text(text)
    for path in (tmp_path, tmp_path / "data.toml"):
        for split in ("train", "val"):
            data = open_dataset(f"folder:{path}", split)
            assert data.labels.names == own_data.CLASSES
            assert renamed(own_data.named(data)) == own_data.expected(split)
    assert open_dataset(f"folder:{tmp_path}", "val").name == "yard/val"


def test_an_offset_makes_0_unlabelled(tmp_path: Path) -> None:
    own_data.write_folder(tmp_path)
    table = np.zeros(256, np.uint8)
    table[:3] = 1, 2, 3
    for name in own_data.NAMES:
        path = tmp_path / "masks" / own_data.split_of(name) / f"{name}.png"
        own_data.write_ids(path, table[own_data.mask_of(name)])
    (tmp_path / "data.toml").write_text("[classes]\noffset = -1")
    assert own_data.named(open_dataset(f"folder:{tmp_path}")) == own_data.expected("val")


def test_a_map_of_colours(tmp_path: Path) -> None:
    own_data.write_folder(tmp_path)
    for name in own_data.NAMES:
        path = tmp_path / "masks" / own_data.split_of(name) / f"{name}.png"
        own_data.write_colours(path, own_data.mask_of(name))
    (tmp_path / "data.toml").write_text(
        "[classes.colours]\nsky = [70, 130, 180]\nroad = [128, 64, 128]\n"
        "car = [0, 0, 142]\nvoid = [0, 0, 0]"
    )
    (tmp_path / "classes.txt").unlink()
    assert own_data.named(open_dataset(f"folder:{tmp_path}")) == own_data.expected("val")


def test_an_id_above_255_that_is_named(tmp_path: Path) -> None:
    own_data.write_folder(tmp_path)
    for name in own_data.NAMES:
        ids = own_data.mask_of(name).astype(np.uint16)
        ids[ids == 2] = 26003
        path = tmp_path / "masks" / own_data.split_of(name) / f"{name}.png"
        own_data.write_ids(path, ids)
    (tmp_path / "data.toml").write_text('[classes.ids]\n0 = "sky"\n1 = "road"\n26003 = "car"')
    assert own_data.named(open_dataset(f"folder:{tmp_path}")) == own_data.expected("val")


def test_void_can_be_a_class(tmp_path: Path) -> None:
    own_data.write_folder(tmp_path)
    (tmp_path / "data.toml").write_text(
        '[classes]\nnames = ["void", "road", "car"]\nignore_names = []'
    )
    assert open_dataset(f"folder:{tmp_path}").labels.names == ("void", "road", "car")


def test_frames_without_mask_can_be_left_out(tmp_path: Path) -> None:
    own_data.write_folder(tmp_path)
    (tmp_path / "masks" / "val" / "drived_0000.png").unlink()
    with pytest.raises(DataError, match="unlabelled"):
        open_dataset(f"folder:{tmp_path}")
    (tmp_path / "data.toml").write_text('unlabelled = "skip"')
    assert len(open_dataset(f"folder:{tmp_path}")) == 3


def test_groups_shares_and_lists(tmp_path: Path) -> None:
    own_data.write_folder(tmp_path, by_split="flat")
    (tmp_path / "data.toml").write_text(
        '[splits]\nval_share = 0.25\ntest_share = 0.25\ngroup = "^drive([a-z])"'
    )
    found = {}
    for split in ("train", "val", "test"):
        found[split] = {name[5] for name in open_dataset(f"folder:{tmp_path}", split).names}
    assert [len(found[split]) for split in found] == [2, 1, 1]
    assert set().union(*found.values()) == set("abcd")
    (tmp_path / "night.txt").write_text("driveb_0002")
    (tmp_path / "data.toml").write_text('[splits]\nval = "night.txt"')
    assert list(open_dataset(f"folder:{tmp_path}", "val").names) == ["driveb_0002"]
    assert len(open_dataset(f"folder:{tmp_path}", "train")) == 15


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[classes", "not a readable TOML file"),
        ("[clases]", r"clases.*Did you mean 'classes'\?"),
        ("[classes]\nofset = 1", r"classes\.ofset.*Did you mean 'offset'\?"),
        ("[[frames]]\nimages = '*.png'\nmask = 'a'", r"frames.0.mask:.*Did you mean 'masks'\?"),
        ("[splits]\nval_share = 1.5", r"splits\.val_share"),
        ("[splits]\ngroup = '('", "no regular expression"),
        ("unlabelled = 'no'", "unlabelled"),
        ("[classes]\nfile = 'a'\nnames = ['b']", "classes are given twice: got file and names"),
        ("[classes]\nfile = 'a.txt'", r"no such file of classes: got a\.txt"),
        ("[[frames]]\nimages = '*.png'", "a section of frames without `masks`"),
        ("[classes]\nnames = ['road']\ncolours = { rode = [1, 2, 3] }", "a colour of no class"),
        ("[[frames]]\nroot = 'no'\nimages = '*'\nmasks = 'a'", "no such folder: got no"),
        ("[[frames]]\nimages = '*.png'\nmasks = 'a'", r"no frames: got no picture fits '\*\.png'"),
        ("[[frames]]\nimages = 'images/*/*.png'\nmasks = '{nam}.png'", r"not a pattern of masks"),
        ("[[frames]]\nimages = 'images/*/*.png'\nmasks = '{name}.png'", r"no masks fit"),
        ("[splits]\nval = 'no.txt'", r"no\.txt: not a readable list"),
    ],
)
def test_errors_are_one_line_with_the_file(text: str, says: str, tmp_path: Path) -> None:
    own_data.write_folder(tmp_path, by_split="flat" if "splits" in text else "images/train")
    (tmp_path / "data.toml").write_text(text)
    with pytest.raises(EdgesegError, match=says) as caught:
        open_dataset(f"folder:{tmp_path}")
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_no_such_description(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such description"):
        open_dataset(f"folder:{tmp_path / 'data.toml'}")
