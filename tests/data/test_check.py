"""``edgeseg data check``: what it counts, what it finds, its pictures, and the quick check."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import own_data
import pytest
from commands import edgeseg
from reporting import Heard

from edgeseg.data import Sample, open_dataset
from edgeseg.data.check import check_data
from edgeseg.data.doubles import Double, find_doubles, fingerprint
from edgeseg.data.quick_check import check_sample
from edgeseg.errors import DataError
from edgeseg.spec import LabelSpace

FRAME = Path("images") / "val" / "drived_0000.png"
MASK = Path("masks") / "val" / "drived_0000.png"


def test_a_sound_set_has_no_findings_and_right_counts(tmp_path: Path) -> None:
    heard = Heard()
    report = check_data(f"folder:{own_data.write_folder(tmp_path)}", reporter=heard)
    assert report.findings == []
    assert dict(report.frames) == {"train": 12, "val": 4}
    assert dict(report.sizes) == {(48, 64): 16}
    masks = np.stack([own_data.mask_of(name) for name in own_data.NAMES])
    counts = np.bincount(masks.ravel(), minlength=256)
    assert report.all_pixels.tolist() == counts[:3].tolist()
    assert report.all_seen.tolist() == [16, 16, 16]
    assert sum(report.ignored.values()) == counts[255]
    assert heard.steps[-1] == ("check", 16, 16)


def wrong_id(root: Path) -> None:
    mask = own_data.mask_of("drived_0000")
    mask[30, :12] = 9
    own_data.write_ids(root / MASK, mask)


def all_wrong(root: Path) -> None:
    own_data.write_ids(root / MASK, np.full((48, 64), 1001, np.uint16))


def wrong_size(root: Path) -> None:
    own_data.write_ids(root / MASK, np.zeros((24, 32), np.uint8))


def damaged(root: Path) -> None:
    (root / MASK).write_text("x")


def lone_mask(root: Path) -> None:
    (root / FRAME).unlink()


def copied(root: Path) -> None:
    data = (root / "images" / "train" / "drivea_0001.png").read_bytes()
    (root / FRAME).write_bytes(data)


def nearly_copied(root: Path) -> None:
    image = own_data.frame_of("drivea_0001")
    cv2.imwrite(str((root / FRAME).with_suffix(".jpg")), image)
    (root / FRAME).unlink()


def copied_within(root: Path) -> None:
    data = (root / "images" / "val" / "drived_0001.png").read_bytes()
    (root / FRAME).write_bytes(data)


def empty(root: Path) -> None:
    own_data.write_ids(root / MASK, np.full((48, 64), 255, np.uint8))


def class_unused(root: Path) -> None:
    (root / "classes.txt").write_text("sky\nroad\ncar\nboat")


FAULTS: list[tuple[Callable[[Path], None], str, str]] = [
    (wrong_id, "error", r"masks/val/drived_0000\.png: id 9 \(12 pixels\): no class.*Add its class"),
    (all_wrong, "error", r"masks/val/drived_0000\.png: id 1001 \(3072 pixels\): .*instance"),
    (wrong_size, "error", r"masks/val/drived_0000\.png: the mask is 24x32, its frame 48x64"),
    (lambda root: (root / MASK).unlink(), "error", r"images/val/drived_0000\.png: no mask"),
    (damaged, "error", r"drived_0000\.png: .*damaged"),
    (lone_mask, "warning", r"masks/val/drived_0000\.png: no frame of this name"),
    (copied, "error", r"val/drived_0000\.png: the same picture as .*drivea_0001\.png, of val and"),
    (nearly_copied, "warning", r"drived_0000\.jpg: nearly the same picture as .*of val and train"),
    (copied_within, "warning", r"drived_0001\.png: the same picture as .*drived_0000\.png$"),
    (empty, "warning", r"masks/val/drived_0000\.png: an empty mask"),
    (class_unused, "warning", r"no pixel of boat"),
]


@pytest.mark.parametrize(("fault", "level", "says"), FAULTS)
def test_faults_are_one_line_with_the_file(
    fault: Callable[[Path], None], level: str, says: str, tmp_path: Path
) -> None:
    fault(own_data.write_folder(tmp_path))
    result = edgeseg("data", "check", f"folder:{tmp_path}", "--json", tmp_path / "r.json")
    assert result.returncode == (1 if level == "error" else 0), result.stderr
    (finding,) = json.loads((tmp_path / "r.json").read_text())["findings"]
    assert finding["level"] == level
    assert re.search(says, finding["text"]), finding["text"]
    assert finding["text"] in result.stdout


def test_frames_that_no_split_uses_are_said(tmp_path: Path) -> None:
    own_data.write_folder(tmp_path, by_split="flat")
    (tmp_path / "train.txt").write_text("\n".join(own_data.NAMES[:8]))
    (tmp_path / "val.txt").write_text("\n".join(own_data.NAMES[12:]))
    (found,) = check_data(f"folder:{tmp_path}").findings
    assert found.text.endswith("4 frames are in no list, such as drivec_0000")
    (tmp_path / "train.txt").unlink()
    (tmp_path / "val.txt").unlink()
    (tmp_path / "data.toml").write_text('[splits]\ngroup = "drive"')
    (found,) = check_data(f"folder:{tmp_path}").findings
    assert "1 frames beside the cuts are in no split" in found.text


def test_copies_are_found_and_neighbours_are_not(camvid_root: Path) -> None:
    """Real frames: JPEG, half the size and night, against frames that are a second apart."""
    data = open_dataset(f"camvid:{camvid_root}", "val")
    images = [data[index].image for index in range(12)]
    night = [(image // 16).astype(np.uint8) for image in images]
    assert find_doubles([fingerprint(image) for image in images]) == []
    assert find_doubles([fingerprint(image) for image in night]) == []
    half = cv2.resize(images[3], (240, 180), interpolation=cv2.INTER_AREA)
    _, coded = cv2.imencode(".jpg", images[5], [cv2.IMWRITE_JPEG_QUALITY, 50])
    copies = [half, cv2.imdecode(coded, cv2.IMREAD_COLOR), images[7]]
    prints = [fingerprint(np.asarray(image, np.uint8)) for image in (*images, *copies)]
    assert find_doubles(prints) == [
        Double(3, 12, False),
        Double(5, 13, False),
        Double(7, 14, True),
    ]


def test_foreground_as_255_is_an_error(tmp_path: Path) -> None:
    own_data.write_folder(tmp_path)
    (tmp_path / "classes.txt").write_text("road\nscratch")
    for name in own_data.NAMES:
        mask = np.where(own_data.mask_of(name) == 2, 255, 0).astype(np.uint8)
        own_data.write_ids(tmp_path / "masks" / own_data.split_of(name) / f"{name}.png", mask)
    (error,) = check_data(f"folder:{tmp_path}").errors
    assert 'ids = {0 = "road", 255 = "scratch"}' in error.text
    heard = Heard()
    check_sample([open_dataset(f"folder:{tmp_path}")], reporter=heard)
    assert heard.lines == [
        "warning: folder/val: 4 masks that were looked at have no class but road"
    ]
    (tmp_path / "data.toml").write_text('[classes]\nids = {0 = "road", 255 = "scratch"}')
    assert check_data(f"folder:{tmp_path}").findings == []


def test_a_wrong_colour_names_it(tmp_path: Path) -> None:
    own_data.write_cvat(tmp_path)
    path = tmp_path / "SegmentationClass" / "drived_0000.png"
    own_data.write_ids(path, np.full((48, 64, 3), (3, 2, 1), np.uint8))
    (error,) = check_data(f"cvat:{tmp_path}").errors
    assert "drived_0000.png: colour 1 2 3 (3072 pixels)" in error.text


def test_other_readers_are_checked_by_split(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for folder in (split, f"{split}annot"):
            (tmp_path / folder).mkdir()
        own_data.write_frame(tmp_path / split / "a_1.png", "drivea_0001")
        own_data.write_ids(tmp_path / f"{split}annot" / "a_1.png", np.full((48, 64), 12, np.uint8))
    report = check_data(f"camvid:{tmp_path}")
    masks = [f"{tmp_path / folder / 'a_1.png'}" for folder in ("trainannot", "valannot")]
    assert [error.text.split(":")[0] for error in report.errors] == masks
    (tmp_path / "valannot" / "a_1.png").unlink()
    assert any("have no label file" in e.text for e in check_data(f"camvid:{tmp_path}").errors)


def test_pictures_show_frames_and_classes(tmp_path: Path) -> None:
    own_data.write_folder(tmp_path / "set")
    wrong_size(tmp_path / "set")
    edgeseg("data", "check", f"folder:{tmp_path / 'set'}", "--plot", tmp_path / "plot")
    sheet = cv2.imread(str(tmp_path / "plot" / "sheet.png"))
    classes = cv2.imread(str(tmp_path / "plot" / "classes.png"))
    assert sheet is not None
    assert classes is not None
    assert sheet.shape[1] == 4 * 326
    assert sheet.shape[0] > 4 * 240
    for red, green, blue in check_data(f"folder:{tmp_path / 'set'}").labels.palette:
        assert (classes == (blue, green, red)).all(axis=2).sum() > 20


class Slow:
    """A set whose frames take a tenth of a second each, the last with an id of no class."""

    name = "slow/train"
    labels = LabelSpace(name="two", names=("a", "b"), palette=((0, 0, 0), (1, 1, 1)), ignore_id=255)
    names = tuple(f"{i}" for i in range(100))

    def __init__(self, wrong: int | None = None) -> None:
        self.wrong = wrong
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        time.sleep(0.05)
        self.read.append(index)
        mask = np.array([[0, 1, 255, 9 if index == self.wrong else 0]], np.uint8)
        return Sample(self.names[index], np.zeros((1, 4, 3), np.uint8), mask)


def test_the_quick_check_takes_a_second_and_spreads() -> None:
    data = Slow()
    start = time.perf_counter()
    read = check_sample([data], seconds=0.3)
    assert time.perf_counter() - start < 1
    assert 1 < read == len(data.read) <= 7
    assert data.read[:3] == [50, 25, 75]
    with pytest.raises(DataError, match=r"slow/train: frame 25 has ids of no class: got id 9"):
        check_sample([Slow(), Slow(wrong=25)], seconds=5)


def test_help_and_misspelt_commands() -> None:
    assert "convert" in edgeseg("data", "--help").stdout
    result = edgeseg("data", "chek", "folder:x")
    assert result.returncode == 2
    assert "Did you mean 'check'?" in result.stderr
    assert "Did you mean 'data'?" in edgeseg("dta", "check").stderr
