"""The CamVid reader on a folder made here, and on the real one where it is."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.data import iterate, open_dataset
from edgeseg.data.camvid import CamVid
from edgeseg.errors import DataError, InputError


def make(root: Path, suffix: str = ".png", split: str = "val") -> Path:
    rng = np.random.default_rng(0)
    for folder in (split, f"{split}annot"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name in ("0016E5_00002", "0001TP_00010", "0001TP_00009"):
        cv2.imwrite(str(root / split / f"{name}{suffix}"), rng.integers(0, 256, (12, 16, 3), np.uint8))
        cv2.imwrite(str(root / f"{split}annot" / f"{name}.png"), rng.integers(0, 12, (12, 16), np.uint8))
    return root


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_reads_the_tutorial_layout(tmp_path: Path, suffix: str) -> None:
    data = open_dataset(f"camvid:{make(tmp_path, suffix)}", "val")
    assert list(data.names) == ["0001TP_00009", "0001TP_00010", "0016E5_00002"]
    sample = data[0]
    assert sample.image.shape == (12, 16, 3)
    truth = cv2.imread(str(tmp_path / "valannot" / "0001TP_00009.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(sample.mask, truth)
    assert len(list(iterate(data))) == len(data) == 3


def test_wrong_folders_are_said(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        CamVid(tmp_path / "absent")
    with pytest.raises(DataError, match="splits val"):
        CamVid(tmp_path, "train")
    (tmp_path / "valannot" / "0001TP_00009.png").unlink()
    with pytest.raises(DataError, match=r"no 0001TP_00009\.png"):
        CamVid(tmp_path)


@pytest.mark.parametrize("fault", ["size", "colour", "ids", "text"])
def test_wrong_masks_are_said(tmp_path: Path, fault: str) -> None:
    path = make(tmp_path) / "valannot" / "0001TP_00009.png"
    bad = {
        "size": np.zeros((5, 5), np.uint8),
        "colour": np.zeros((12, 16, 3), np.uint8),
        "ids": np.full((12, 16), 40, np.uint8),
    }
    if fault == "text":
        path.write_text("no picture")
    else:
        cv2.imwrite(str(path), bad[fault])
    with pytest.raises(DataError, match=r"0001TP_00009\.png"):
        CamVid(tmp_path)[0]


@pytest.mark.parametrize("address", ["camvid", "nonsense:/x", "/just/a/path"])
def test_unknown_addresses_name_the_readers(address: str) -> None:
    with pytest.raises(InputError, match="camvid:PATH"):
        open_dataset(address)


def test_the_real_camvid(camvid_root: Path) -> None:
    data = CamVid(camvid_root, "train")
    assert len(data) == 367
    assert {data.drive(i) for i in range(len(data))} == {"0001TP", "0006R0", "0016E5"}
    assert data[0].image.shape == (360, 480, 3)
