"""``folder:PATH``: layouts, kinds of masks, classes, splits, and a run from training to INT8."""

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import own_data
import pytest
from commands import edgeseg
from onnx_tools import make, node
from paths import SHARED

from edgeseg.data import iterate, open_dataset
from edgeseg.data.collection import CollectionSplit
from edgeseg.data.splits import draw_splits, group_of, grouping
from edgeseg.errors import DataError, InputError
from edgeseg.profiling.frames import open_frames
from edgeseg.reporter import SILENT
from edgeseg.spec import METADATA_KEY, LabelSpace, ModelSpec

# -- layouts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", ["masks", "labels", "annotations"])
@pytest.mark.parametrize("by_split", ["images/train", "train/images"])
def test_folders_are_splits(by_split: str, masks: str, tmp_path: Path) -> None:
    own_data.write_folder(tmp_path, by_split=by_split)
    for folder in [path for path in tmp_path.rglob("masks") if path.is_dir()]:
        folder.rename(folder.with_name(masks))
    for split in ("train", "val", "all"):
        data = open_dataset(f"folder:{tmp_path}", split)
        assert own_data.named(data) == own_data.expected(split)
        for sample in iterate(data):
            np.testing.assert_array_equal(sample.image, own_data.frame_of(sample.name))


def test_other_spellings_of_splits(tmp_path: Path) -> None:
    own_data.write_folder(tmp_path)
    for kind in ("images", "masks"):
        (tmp_path / kind / "val").rename(tmp_path / kind / "validation")
        (tmp_path / kind / "train").rename(tmp_path / kind / "training")
    for split in ("val", "validation", "valid"):
        assert len(open_dataset(f"folder:{tmp_path}", split)) == 4
    with pytest.raises(DataError, match=r"no split 'test': got splits train, val"):
        open_dataset(f"folder:{tmp_path}", "test")


@pytest.mark.parametrize("kind", ["16 bits", "palette", "colours", "palette by colour"])
def test_kinds_of_masks_read_to_the_same_arrays(kind: str, tmp_path: Path) -> None:
    own_data.write_folder(tmp_path)
    palette = [*own_data.COLOURS, *[(9, 9, 9)] * 252, own_data.VOID_COLOUR]
    lines = ["void 0 0 0"]
    for name, colour in zip(own_data.CLASSES, own_data.COLOURS, strict=True):
        lines.append("{} {} {} {}".format(name, *colour))
    if "colour" in kind:
        (tmp_path / "classes.txt").write_text("\n".join(lines))

    for name in own_data.NAMES:
        path = tmp_path / "masks" / own_data.split_of(name) / f"{name}.png"
        ids = own_data.mask_of(name)
        if kind == "16 bits":
            cv2.imwrite(str(path), ids.astype(np.uint16))
        elif kind == "colours":
            own_data.write_colours(path, ids)
        else:
            own_data.write_palette(path, ids, palette)
    data = open_dataset(f"folder:{tmp_path}", "val")
    assert own_data.named(data) == own_data.expected("val")
    if kind != "16 bits":
        assert data.labels.palette == own_data.COLOURS


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.txt", "sky\nroad\ncar"),
        ("classes.json", '{"0": "sky", "1": "road", "2": "car", "255": "void"}'),
        ("labels.json", '{"classes": [{"name": "sky"}, {"name": "road"}, {"name": "car"}]}'),
    ],
)
def test_files_of_classes(name: str, text: str, tmp_path: Path) -> None:
    own_data.write_folder(tmp_path)
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"masks with the ids 0, 1, 2, 255.*Write classes\.txt"):
        open_dataset(f"folder:{tmp_path}", "val")
    (tmp_path / name).write_text(text)
    assert own_data.named(open_dataset(f"folder:{tmp_path}")) == own_data.expected("val")


# -- splits ----------------------------------------------------------------------------------------


def test_lists_are_splits(tmp_path: Path) -> None:
    own_data.write_folder(tmp_path, by_split="flat")
    (tmp_path / "val.txt").write_text("drived_0000\nimages/drived_0001.png\n")
    (tmp_path / "train.txt").write_text("drivea_0000.png\n")
    assert list(open_dataset(f"folder:{tmp_path}", "val").names) == ["drived_0000", "drived_0001"]
    assert list(open_dataset(f"folder:{tmp_path}", "train").names) == ["drivea_0000"]
    (tmp_path / "train.txt").unlink()
    assert len(open_dataset(f"folder:{tmp_path}", "train")) == 14
    (tmp_path / "train.txt").write_text("drived_0001")
    with pytest.raises(DataError, match=r"val\.txt: a frame of two splits: got drived_0001"):
        open_dataset(f"folder:{tmp_path}", "train")
    (tmp_path / "train.txt").write_text("drived_9")
    with pytest.raises(
        DataError, match=r"train\.txt: names a frame that is not here: got drived_9"
    ):
        open_dataset(f"folder:{tmp_path}", "train")


def test_drawn_splits_never_share_a_drive(tmp_path: Path) -> None:
    own_data.write_folder(tmp_path, by_split="flat")
    drives = {}
    for split in ("train", "val"):
        data = open_dataset(f"folder:{tmp_path}", split)
        assert data.name == f"folder/{split} (drawn by group)"
        drives[split] = {name.split("_")[0] for name in data.names}
    assert drives["train"] | drives["val"] == set(own_data.DRIVES)
    assert not drives["train"] & drives["val"]
    assert len(drives["val"]) == 1


VAL_GROUPS = ["d001", "d004", "d005", "d020"]  # of any machine


def test_the_draw_is_the_same_everywhere_and_follows_the_shares() -> None:
    names = [f"d{drive:03d}_{frame:03d}" for drive in range(100) for frame in range(5)]
    groups = [group_of(name) for name in names]
    splits, how = draw_splits(names, groups, {"val": 0.2, "test": 0.1})
    assert how == "drawn by group"
    counts = splits.count("train"), splits.count("val"), splits.count("test")
    assert counts == (350, 100, 50)
    of_group = dict(zip(groups, splits, strict=True))
    assert [of_group[group] for group in groups] == splits
    assert sorted(group for group, split in of_group.items() if split == "val")[:4] == VAL_GROUPS
    assert splits != draw_splits(names, groups, {"val": 0.2, "test": 0.1}, seed=1)[0]


def test_one_drive_is_cut_in_time_with_a_gap() -> None:
    names = [f"frame_{number}" for number in range(100)]
    splits, how = draw_splits(names, ["frame"] * 100, {"val": 0.2})
    assert how == "the end of each group"
    assert splits == ["train"] * 75 + [None] * 5 + ["val"] * 20


def test_two_large_drives_are_cut_too() -> None:
    """Half of the frames for ``val`` would be too many."""
    names = [f"{drive}_{number:02d}" for drive in "ab" for number in range(40)]
    splits, how = draw_splits(names, [name[0] for name in names], {"val": 0.2})
    assert how == "the end of each group"
    assert splits == 2 * (["train"] * 30 + [None] * 2 + ["val"] * 8)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("0001TP_006690", "0001TP"),
        ("aachen_000000_000019", "aachen_000000"),
        ("IMG_0001", "IMG"),
        ("0001", ""),
        ("drive3/left/17", "drive3/left"),
        ("yard_mp4-12_jpg.rf.0123456789abcdef0123456789abcdef", "yard_mp4"),
        ("sunny", "sunny"),
    ],
)
def test_groups_of_names(name: str, group: str) -> None:
    assert group_of(name) == group
    assert grouping("none")(name) == name


# -- what is wrong ---------------------------------------------------------------------------------

PATH = "drived_0000.png"


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (np.full((48, 64), 3, np.uint8), r"no class has this: got id 3 \(3072 pixels\).*offset"),
        (np.full((48, 64), 9, np.uint8), r"got id 9 .*Add its class to .*classes\.txt"),
        (np.full((48, 64), 300, np.uint16), r"got id 300 .*instance"),
        (np.zeros((24, 32), np.uint8), r"its size differs.*got \(24, 32\), expected \(48, 64\)"),
        (np.full((48, 64, 3), (1, 2, 3), np.uint8), r"in colours, but the classes have none"),
    ],
    ids=["next id", "id", "16 bits", "size", "colours"],
)
def test_wrong_masks_are_one_line_with_the_file(
    ids: own_data.Array, says: str, tmp_path: Path
) -> None:
    own_data.write_folder(tmp_path)
    own_data.write_ids(tmp_path / "masks" / "val" / PATH, ids)
    with pytest.raises(DataError, match=rf"masks/val/drived_0000\.png: .*{says}") as caught:
        open_dataset(f"folder:{tmp_path}", "val")[0]
    assert "\n" not in str(caught.value)


def test_a_wrong_colour_is_said_and_a_stray_pixel_is_void(tmp_path: Path) -> None:
    own_data.write_folder(tmp_path)
    (tmp_path / "classes.txt").write_text("sky 70 130 180\nroad 128 64 128\nvoid 0 0 0")
    path = tmp_path / "masks" / "val" / PATH
    own_data.write_colours(path, np.full((48, 64), 2, np.uint8))
    with pytest.raises(DataError, match=r"drived_0000\.png: .*colour 0 0 142 \(3072 pixels\)"):
        open_dataset(f"folder:{tmp_path}", "val")[0]
    ids = np.zeros((48, 64), np.uint8)
    ids[0, 0] = 2
    own_data.write_colours(path, ids)
    mask = open_dataset(f"folder:{tmp_path}", "val")[0].mask
    assert (mask[0, 0], int((mask == 0).sum())) == (255, 48 * 64 - 1)


def test_wrong_folders_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        open_dataset(f"folder:{tmp_path / 'no'}")
    with pytest.raises(DataError, match=r"no frames with masks: got an empty folder"):
        open_dataset(f"folder:{tmp_path}")
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.1 0.1")
    with pytest.raises(DataError, match=r"no folder of masks.*boxes \(YOLO\)"):
        open_dataset(f"folder:{tmp_path}")
    with pytest.raises(InputError, match=r"Did you mean 'folder'\?"):
        open_dataset(f"foldr:{tmp_path}")
    own_data.write_folder(tmp_path / "set")
    (tmp_path / "set" / "masks" / "val" / PATH).unlink()
    with pytest.raises(DataError, match=r"drived_0000\.png: no mask for this frame: got 1 of 4"):
        open_dataset(f"folder:{tmp_path / 'set'}", "val")


# -- wherever camvid:PATH may stand ----------------------------------------------------------------


def small_net(labels: LabelSpace, path: Path) -> Path:
    """Convolutions that find the class whose colour is nearest; two of them change nothing."""
    colours = np.array(own_data.COLOURS, np.float32) / 255
    weight = (2 * colours)[..., None, None]
    bias = -(colours**2).sum(axis=1)
    same = np.eye(3, dtype=np.float32)[..., None, None]
    nodes = [
        node("Conv", "image same", "a"),
        node("Conv", "a weight bias", "b"),
        node("Conv", "b same", "out"),
    ]
    shape = {"image": [1, 3, own_data.HEIGHT, own_data.WIDTH]}
    model = make(nodes, shape, "out", weight=weight, bias=bias, same=same)
    spec = ModelSpec(
        architecture="small",
        input_size=(own_data.HEIGHT, own_data.WIDTH),
        mean=(20 / 255, 20 / 255, 20 / 255),
        std=(1, 1, 1),
        labels=labels,
    )
    onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.save(model, path)
    return path


def test_scored_compared_and_calibrated(tmp_path: Path) -> None:
    own_data.write_folder(tmp_path / "set")
    address = f"folder:{tmp_path / 'set'}"
    small_net(open_dataset(address).labels, tmp_path / "net.onnx")
    for command in (
        ("evaluate", "net.onnx", address, "--precision", "fp32", "--json", "scores.json"),
        ("calibrate", "net.onnx", "--calib", address, "--count", "4", "-o", "net.ranges.json"),
    ):
        result = edgeseg(*command, cwd=tmp_path)
        assert result.returncode == 0, (command, result.stderr)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["frames"] == 4
    assert scores["miou"] > 0.95
    assert scores["pixels"] == 4 * 44 * 64  # void is not counted
    assert isinstance(open_frames(address), CollectionSplit)  # as compare opens them


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_trained_for_two_epochs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("lightning")
    from tiny_recipe import tiny

    from edgeseg.models.checkpoint import load_checkpoint
    from edgeseg.training.fit import train

    address = f"folder:{own_data.write_folder(tmp_path / 'set')}"
    recipe = tiny(tmp_path, data__address=address, fit__epochs=2)
    best = train(recipe, tmp_path / "run", reporter=SILENT)
    _, spec, facts = load_checkpoint(best)
    assert spec.labels.names == own_data.CLASSES
    assert 0 < facts["val_miou"] <= 1
    rows = (tmp_path / "run" / "history.csv").read_text().splitlines()
    assert len(rows) == 3


@pytest.mark.filterwarnings("ignore")
def test_training_ends_at_once_on_a_wrong_id(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("lightning")
    from tiny_recipe import TINY

    own_data.write_folder(tmp_path / "set")
    own_data.write_ids(tmp_path / "set" / "masks" / "val" / PATH, np.full((48, 64), 7, np.uint8))
    recipe = TINY.replace("synthetic://?length=24&size=96x64&seed=1", f"folder:{tmp_path / 'set'}")
    (tmp_path / "tiny.toml").write_text(recipe)
    result = edgeseg("train", "tiny.toml", cwd=tmp_path)
    assert result.returncode == 2
    assert "drived_0000.png: no class has this: got id 7" in result.stderr.replace("\n", " ")
    assert not (tmp_path / "runs" / "tiny" / "last.ckpt").exists()


def test_real_pairs_pass_the_check() -> None:
    for address in ("cityscapes:cityscapes", "voc:VOCdevkit"):
        scheme, _, folder = address.partition(":")
        if not (SHARED / "data" / folder).is_dir():
            pytest.skip(f"{folder} is not here (EDGESEG_SHARED/data/{folder})")
        result = edgeseg("data", "check", f"{scheme}:{SHARED / 'data' / folder}")
        assert result.returncode == 0, result.stdout
