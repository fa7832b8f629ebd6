"""Mask files as they are stored, classes of files, and the layouts of masks that people have."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import own_data
import pytest
from PIL import Image as Pillow

from edgeseg.data import iterate, open_dataset
from edgeseg.data.class_files import ClassEntry, class_table, read_classes
from edgeseg.data.coding import MaskDecoder
from edgeseg.data.mask_files import read_mask_file
from edgeseg.errors import DataError, InputError

# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_indices_and_colours_of_a_palette(bits: int, tmp_path: Path) -> None:
    ids = np.arange(8, dtype=np.uint8).reshape(2, 4) % min(2**bits, 8)
    palette = [(i, 255 - i, 7) for i in range(2**bits)]
    picture = Pillow.fromarray(ids)
    picture.putpalette([channel for colour in palette for channel in colour])
    picture.save(tmp_path / "a.png", bits=bits)
    raw = read_mask_file(tmp_path / "a.png")
    assert raw.values.tolist() == ids.tolist()
    assert raw.palette[: len(palette)] == tuple(palette)


def test_a_mask_of_one_bit_keeps_its_ids(tmp_path: Path) -> None:
    """OpenCV makes 0 and 255 of it."""
    ids = np.eye(9, dtype=bool)
    Pillow.fromarray(ids).save(tmp_path / "a.png")
    assert read_mask_file(tmp_path / "a.png").values.tolist() == ids.astype(int).tolist()


def test_a_grey_mask_in_three_channels_is_ids(tmp_path: Path) -> None:
    ids = np.array([[0, 1], [2, 255]], np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), np.repeat(ids[..., None], 3, 2))
    assert read_mask_file(tmp_path / "a.png").values.tolist() == ids.tolist()


def test_sixteen_bits_are_refused_never_wrapped(tmp_path: Path) -> None:
    table = class_table([ClassEntry("sky"), ClassEntry("road")], "classes.txt")
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.array([[0, 1, 255]], np.uint16))
    assert MaskDecoder(table)(path).ids.tolist() == [[0, 1, 255]]
    cv2.imwrite(str(path), np.array([[0, 257, 26001]], np.uint16))  # 257 would wrap to 1
    decoded = MaskDecoder(table)(path)
    assert decoded.fatal
    assert decoded.unknown == {"id 257": 1, "id 26001": 1}
    assert "instance" in decoded.hint


def test_todays_readers_refuse_sixteen_bits_too(tmp_path: Path) -> None:
    for folder in ("val", "valannot"):
        (tmp_path / folder).mkdir()
    cv2.imwrite(str(tmp_path / "val" / "a.png"), np.zeros((2, 2, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "valannot" / "a.png"), np.full((2, 2), 257, np.uint16))
    with pytest.raises(DataError, match=r"a\.png: a value above 255: got 257"):
        open_dataset(f"camvid:{tmp_path}", "val")[0]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jpg", b"", "lossy format"),
        ("a.png", b"", "damaged"),
        ("a.png", b"\x89PNG\r\n\x1a\n", "damaged"),
        ("a.png", b"GIF89a", "damaged"),
        ("a.tif", None, "no such file"),
    ],
)
def test_files_that_are_no_masks(
    name: str, content: bytes | None, says: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}.*{says}"):
        read_mask_file(tmp_path / name)


# -- classes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "entries"),
    [
        ("c.txt", "sky\nroad\n# no\n\ncar", [("sky", None), ("road", None), ("car", None)]),
        ("c.txt", "7 road\n8: traffic light", [("road", 7), ("traffic light", 8)]),
        ("c.json", '["sky", "road"]', [("sky", None), ("road", None)]),
        ("c.json", '{"7": "road", "8": "car"}', [("road", 7), ("car", 8)]),
        ("c.json", '{"road": 7}', [("road", 7)]),
        ("c.json", '{"classes": [{"name": "road", "id": 3}]}', [("road", 3)]),
    ],
)
def test_classes_of_files(
    name: str, text: str, entries: list[tuple[str, int | None]], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    assert [(entry.name, entry.id) for entry in read_classes(tmp_path / name)] == entries


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.txt", "road 128 64 128"),
        ("c.txt", "128 64 128\troad"),
        ("c.txt", "road:128,64,128::"),
        ("c.json", '[{"title": "road", "color": "#804080"}]'),
        ("c.json", '{"road": [128, 64, 128]}'),
    ],
)
def test_colours_of_classes(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert read_classes(tmp_path / name) == [ClassEntry("road", None, (128, 64, 128))]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("c.txt", "road 128 64 300", "not a colour"),
        ("c.txt", "", "got 0 names"),
        ("c.txt", "\n".join(f"c{i}x" for i in range(256)), "got 256 names"),
        ("c.json", "{", "not the classes"),
        ("c.json", "[3]", "not the classes"),
        ("c.json", '[{"name": "a", "id": 1}, {"name": "b", "id": 1}]', "id 1"),
        ("c.txt", "a 1 2 3\nb 1 2 3", "colour 1 2 3"),
    ],
)
def test_files_that_name_no_classes(name: str, text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=says):
        class_table(read_classes(tmp_path / name), str(tmp_path / name))


def test_void_is_no_class_wherever_it_stands() -> None:
    entries = [ClassEntry(name) for name in ("Unlabelled", "road", "__ignore__", "car")]
    table = class_table(entries, "classes.txt")
    assert table.labels.names == ("road", "car")
    assert [table.label_of[number] for number in range(4)] == [255, 0, 255, 1]


def test_ids_with_one_name_are_one_class() -> None:
    table = class_table([ClassEntry("road", 7), ClassEntry("road", 8)], "data.toml")
    assert (table.labels.names, table.label_of[7], table.label_of[8]) == (("road",), 0, 0)


# -- public layouts --------------------------------------------------------------------------------

LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "cvat": own_data.write_cvat,
    "supervisely": own_data.write_supervisely,
    "bdd100k": own_data.write_bdd100k,
    "mapillary": own_data.write_mapillary,
    "kitti": own_data.write_kitti,
    "ade20k": own_data.write_ade20k,
}


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("scheme", LAYOUTS)
def test_layouts_read_to_the_same_arrays(scheme: str, split: str, tmp_path: Path) -> None:
    data = open_dataset(f"{scheme}:{LAYOUTS[scheme](tmp_path / 'set')}", split)
    assert own_data.named(data) == own_data.expected(split)
    for sample in iterate(data):
        np.testing.assert_array_equal(sample.image, own_data.frame_of(sample.name))


@pytest.mark.parametrize("scheme", LAYOUTS)
def test_an_empty_folder_is_no_layout(scheme: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=str(tmp_path)):
        open_dataset(f"{scheme}:{tmp_path}")
    with pytest.raises(InputError, match="no such folder"):
        open_dataset(f"{scheme}:{tmp_path / 'no'}")


def test_ade20k_tells_synonyms_apart(tmp_path: Path) -> None:
    names = open_dataset(f"ade20k:{own_data.write_ade20k(tmp_path)}").labels.names
    assert names == ("sky", "road", "car", "screen, door", "screen, silver")


def test_bdd100k_in_its_first_layout(tmp_path: Path) -> None:
    own_data.write_bdd100k(tmp_path / "new")
    for split in ("train", "val"):
        (tmp_path / "old" / "seg" / "images").mkdir(parents=True, exist_ok=True)
        (tmp_path / "old" / "seg" / "labels" / split).mkdir(parents=True)
        frames = tmp_path / "new" / "images" / "10k" / split
        frames.rename(tmp_path / "old" / "seg" / "images" / split)
        for mask in (tmp_path / "new" / "labels" / "sem_seg" / "masks" / split).iterdir():
            at = tmp_path / "old" / "seg" / "labels" / split
            mask.rename(at / f"{mask.stem}_train_id.png")
    data = open_dataset(f"bdd100k:{tmp_path / 'old'}", "val")
    assert own_data.named(data) == own_data.expected("val")


def test_kitti_refuses_ids_that_cityscapes_has_not(tmp_path: Path) -> None:
    own_data.write_kitti(tmp_path)
    path = tmp_path / "training" / "semantic" / "drived_0000.png"
    own_data.write_ids(path, np.full((48, 64), 40, np.uint8))
    with pytest.raises(DataError, match=r"drived_0000\.png: no class has this: got id 40"):
        open_dataset(f"kitti:{tmp_path}")[0]


def test_supervisely_names_the_shape(tmp_path: Path) -> None:
    own_data.write_supervisely(tmp_path)
    path = tmp_path / "val" / "ann" / "drived_0000.png.json"
    text = path.read_text()
    path.write_text(text.replace('"car"', '"cat"'))
    with pytest.raises(DataError, match=r"png\.json: a shape of no class: got 'cat'.*'car'\?"):
        open_dataset(f"supervisely:{tmp_path}")[0]
    path.write_text(text.replace('"bitmap", "points"', '"cuboid", "points"'))
    with pytest.raises(DataError, match=r"object 2 \(car\) cannot be drawn: got a shape .*cuboid"):
        open_dataset(f"supervisely:{tmp_path}")[0]
