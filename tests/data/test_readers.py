"""The CamVid reader on a folder made here, and on the real one where it is."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from paths import SHARED

from edgeseg.backends.load import load_engine
from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.data import iterate, open_dataset
from edgeseg.data.camvid import CamVid
from edgeseg.errors import DataError, InputError
from edgeseg.metrics.evaluate import evaluate
from edgeseg.spec import CAMVID_32, METADATA_KEY, LabelSpace, ModelSpec, voc_colour


def make(root: Path, suffix: str = ".png", split: str = "val") -> Path:
    rng = np.random.default_rng(0)
    for folder in (split, f"{split}annot"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name in ("0016E5_00002", "0001TP_00010", "0001TP_00009"):
        cv2.imwrite(
            str(root / split / f"{name}{suffix}"), rng.integers(0, 256, (12, 16, 3), np.uint8)
        )
        cv2.imwrite(
            str(root / f"{split}annot" / f"{name}.png"), rng.integers(0, 12, (12, 16), np.uint8)
        )
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


# -- VOC -------------------------------------------------------------------------------------------


def make_voc(root: Path) -> Path:
    """Two frames with palette masks in ``train``, and a third by SBD, whose masks are plain ids."""
    rng = np.random.default_rng(0)
    for folder in (
        "ImageSets/Segmentation",
        "JPEGImages",
        "SegmentationClass",
        "SegmentationClassAug",
    ):
        (root / folder).mkdir(parents=True)
    for name in ("2007_000032", "2007_000039", "2008_000002"):
        cv2.imwrite(
            str(root / "JPEGImages" / f"{name}.jpg"), rng.integers(0, 256, (10, 14, 3), np.uint8)
        )
    truth = np.array([[0, 1, 20, 255]] * 10, np.uint8).repeat(4, 1)[:, :14]
    colours = np.array([voc_colour(int(i)) for i in range(256)], np.uint8)
    for name in ("2007_000032", "2007_000039"):
        cv2.imwrite(str(root / "SegmentationClass" / f"{name}.png"), colours[truth][..., ::-1])
    cv2.imwrite(str(root / "SegmentationClassAug" / "2008_000002.png"), truth)
    lists = root / "ImageSets" / "Segmentation"
    (lists / "train.txt").write_text("2007_000032\n2007_000039\n")
    (lists / "trainaug.txt").write_text("2007_000032\n2007_000039\n2008_000002\n")
    return root


def test_voc_reads_palettes_and_plain_ids(tmp_path: Path) -> None:
    make_voc(tmp_path / "VOCdevkit" / "VOC2012")
    for path in (tmp_path, tmp_path / "VOCdevkit", tmp_path / "VOCdevkit" / "VOC2012"):
        data = open_dataset(f"voc:{path}", "trainaug")
        assert data.labels.ignore_id == 255
        assert list(data.names) == ["2007_000032", "2007_000039", "2008_000002"]
        for sample in iterate(data):
            assert sample.mask[0].tolist() == [0] * 4 + [1] * 4 + [20] * 4 + [255] * 2
    assert len(open_dataset(f"voc:{tmp_path}", "train")) == 2


def test_voc_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not PASCAL VOC 2012"):
        open_dataset(f"voc:{tmp_path}", "val")
    root = make_voc(tmp_path / "VOC2012")
    with pytest.raises(DataError, match=r"no list.*splits train, trainaug"):
        open_dataset(f"voc:{root}", "val")
    (root / "SegmentationClassAug" / "2008_000002.png").unlink()
    with pytest.raises(DataError, match=r"2008_000002.*SBD"):
        open_dataset(f"voc:{root}", "trainaug")
    cv2.imwrite(
        str(root / "SegmentationClass" / "2007_000032.png"), np.full((10, 14, 3), 77, np.uint8)
    )
    with pytest.raises(DataError, match=r"colours of no class: got 140 pixels, most often R 77"):
        open_dataset(f"voc:{root}", "train")[0]


# -- Cityscapes ------------------------------------------------------------------------------------


def make_cityscapes(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, city in (("train", "aachen"), ("val", "ulm")):
        for folder in ("leftImg8bit", "gtFine", "gtCoarse"):
            (root / folder / split / city).mkdir(parents=True)
        name = f"{city}_000000_000019"
        frame = rng.integers(0, 256, (8, 34, 3), np.uint8)
        ids = np.arange(34, dtype=np.uint8)[None].repeat(8, 0)
        cv2.imwrite(str(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"), frame)
        cv2.imwrite(str(root / "gtFine" / split / city / f"{name}_gtFine_labelIds.png"), ids)
        cv2.imwrite(
            str(root / "gtCoarse" / split / city / f"{name}_gtCoarse_labelIds.png"),
            np.zeros_like(ids),
        )
    return root


def test_cityscapes_gives_train_ids(tmp_path: Path) -> None:
    """By cityscapesScripts' names of its label ids, in their order."""
    listed = """
        unlabeled ego rectification oov static dynamic ground road sidewalk parking railtrack
        building wall fence guardrail bridge tunnel pole polegroup light sign vegetation terrain sky
        person rider car truck bus caravan trailer train motorcycle bicycle
    """
    names = listed.split()
    data = open_dataset(f"cityscapes:{make_cityscapes(tmp_path)}", "val")
    mask = data[0].mask
    ours = {"traffic light": "light", "traffic sign": "sign"}
    for label, name in enumerate(data.labels.names):
        assert mask[0, names.index(ours.get(name, name))] == label
    assert (mask[0] != 255).sum() == 19
    coarse = open_dataset(f"cityscapes:{tmp_path}", "train_coarse")
    assert (coarse[0].mask == 255).all()


def test_cityscapes_says_what_is_wrong(tmp_path: Path) -> None:
    root = make_cityscapes(tmp_path)
    with pytest.raises(DataError, match=r"no leftImg8bit/test/.*splits train, val"):
        open_dataset(f"cityscapes:{root}", "test")
    path = root / "gtFine" / "val" / "ulm" / "ulm_000000_000019_gtFine_labelIds.png"
    cv2.imwrite(str(path), np.full((8, 34), 200, np.uint8))
    with pytest.raises(DataError, match=r"not a map of label ids.*up to 200"):
        open_dataset(f"cityscapes:{root}", "val")[0]
    path.unlink()
    with pytest.raises(DataError, match="1 frames have no label file"):
        open_dataset(f"cityscapes:{root}", "val")


# -- CamVid and CamSeq01 in 32 classes -------------------------------------------------------------


def make_32(root: Path, frames: str, labels: str, suffix: str, count: int = 10) -> Path:
    """``count`` frames of each of two drives.

    The mask of frame i is class i everywhere but for a void column.
    """
    (root / frames).mkdir(parents=True, exist_ok=True)
    (root / labels).mkdir(parents=True, exist_ok=True)
    for drive in ("0001TP", "0016E5"):
        for i in range(count):
            name = f"{drive}_{i:05d}"
            ids = np.full((6, 8), i, np.uint8)
            ids[:, 0] = CAMVID_32.ignore_id
            cv2.imwrite(str(root / frames / f"{name}.png"), np.full((6, 8, 3), 9 * i, np.uint8))
            picture = (
                np.array(CAMVID_32.palette, np.uint8)[ids][..., ::-1] if suffix == "_L" else ids
            )
            cv2.imwrite(str(root / labels / f"{name}{suffix}.png"), picture)
    return root


@pytest.mark.parametrize(
    ("address", "frames", "labels", "suffix"),
    [
        ("camvid", "701_StillsRaw_full", "LabeledApproved_full", "_L"),
        ("camvid", "images", "labels", "_P"),
        ("camvid", "images", "labels", "_L"),
        ("camseq01", ".", ".", "_L"),
    ],
)
def test_32_classes_in_every_layout(
    tmp_path: Path, address: str, frames: str, labels: str, suffix: str
) -> None:
    make_32(tmp_path, frames, labels, suffix)
    train, val = (open_dataset(f"{address}:{tmp_path}", split) for split in ("train", "val"))
    assert train.labels is val.labels is CAMVID_32
    ends_of_drives = ["0001TP_00008", "0001TP_00009", "0016E5_00008", "0016E5_00009"]
    assert list(val.names) == ends_of_drives
    assert len(train) == 16
    assert not set(train.names) & set(val.names)
    assert "last fifth" in val.name
    for sample in (*iterate(train), *iterate(val)):
        assert sample.mask[0, 1] == int(sample.name[-5:])
        assert sample.mask[0, 0] == CAMVID_32.ignore_id
        assert sample.image[0, 0, 0] == 9 * int(sample.name[-5:])


def test_the_list_of_the_download_is_the_split(tmp_path: Path) -> None:
    make_32(tmp_path, "images", "labels", "_P")
    (tmp_path / "valid.txt").write_text("0016E5_00003.png\n0016E5_00004.png\n")
    val = open_dataset(f"camvid:{tmp_path}", "val")
    assert (list(val.names), val.name) == (["0016E5_00003", "0016E5_00004"], "camvid-32/val")
    assert len(open_dataset(f"camvid:{tmp_path}", "train")) == 18
    (tmp_path / "valid.txt").write_text("0016E5_99999.png\n")
    with pytest.raises(DataError, match="frames that are not here"):
        open_dataset(f"camvid:{tmp_path}", "val")


def test_codes_in_another_order_are_followed(tmp_path: Path) -> None:
    make_32(tmp_path, "images", "labels", "_P", count=3)
    (tmp_path / "codes.txt").write_text("\n".join(reversed(CAMVID_32.names)))
    assert open_dataset(f"camvid:{tmp_path}", "all")[1].mask[0, 1] == 31 - 1
    (tmp_path / "codes.txt").write_text("sky\nroad\n")
    with pytest.raises(DataError, match=r"codes\.txt: not CamVid's classes"):
        open_dataset(f"camvid:{tmp_path}", "all")


def test_codes_that_are_not_utf8_are_said(tmp_path: Path) -> None:
    make_32(tmp_path, "images", "labels", "_P", count=3)
    (tmp_path / "codes.txt").write_bytes("Animal\nArchway\nTraffic Cônes".encode("latin-1"))
    with pytest.raises(DataError) as caught:
        open_dataset(f"camvid:{tmp_path}", "all")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'codes.txt'}: not readable as UTF-8 text")
    assert "expected 32 class names, one per line. Save it as UTF-8" in message


def test_what_is_not_32_classes_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no frames with label pictures"):
        open_dataset(f"camseq01:{tmp_path}", "val")
    make_32(tmp_path, ".", ".", "_L", count=3)
    with pytest.raises(DataError, match=r"no split 'test'"):
        open_dataset(f"camseq01:{tmp_path}", "test")
    cv2.imwrite(str(tmp_path / "0001TP_00000_L.png"), np.full((6, 8, 3), 1, np.uint8))
    with pytest.raises(DataError, match="colours of no class"):
        open_dataset(f"camseq01:{tmp_path}", "all")[0]


# -- the real ones ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "split", "count"),
    [
        ("voc:VOCdevkit", "train", None),
        ("cityscapes:cityscapes", "train", 2),
        ("cityscapes:cityscapes", "val", 1),
    ],
)
def test_real_samples(address: str, split: str, count: int | None) -> None:
    scheme, _, folder = address.partition(":")
    if not (SHARED / "data" / folder).is_dir():
        pytest.skip(f"{folder} is not here (EDGESEG_SHARED/data/{folder})")
    data = open_dataset(f"{scheme}:{SHARED / 'data' / folder}", split)
    assert len(data) == (count or len(data)) > 0
    for sample in iterate(data):
        assert sample.mask.shape == sample.image.shape[:2]
        present = set(np.unique(sample.mask)) - {data.labels.ignore_id}
        assert present
        assert max(present) < len(data.labels)
        assert (sample.mask != data.labels.ignore_id).mean() > 0.5


# -- evaluated end to end --------------------------------------------------------------------------


def small_net(labels: LabelSpace, path: Path) -> Path:
    """One 1x1 convolution from the image to the classes, its spec inside."""
    weight = np.random.default_rng(0).standard_normal((len(labels), 3, 1, 1)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w"], ["logits"])],
        "small",
        [helper.make_tensor_value_info("image", 1, [1, 3, 32, 48])],
        [helper.make_tensor_value_info("logits", 1, [1, len(labels), 32, 48])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    spec = ModelSpec(architecture="small", input_size=(32, 48), labels=labels)
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    "scheme", ["voc", "cityscapes", "camseq01", "camvid", "real voc", "real cityscapes"]
)
def test_an_engine_is_scored_on_every_pixel_that_counts(scheme: str, tmp_path: Path) -> None:
    real, _, name = scheme.rpartition(" ")
    folder = (
        SHARED / "data" / {"voc": "VOCdevkit", "cityscapes": "cityscapes"}.get(name, "")
        if real
        else tmp_path
    )
    if real and not folder.is_dir():
        pytest.skip(f"{folder.name} is not here (EDGESEG_SHARED/data/{folder.name})")
    if not real:
        makers: dict[str, Callable[[Path], object]] = {
            "voc": lambda p: make_voc(p / "VOC2012"),
            "cityscapes": make_cityscapes,
            "camseq01": lambda p: make_32(p, ".", ".", "_L"),
            "camvid": lambda p: make_32(p, "images", "labels", "_L"),
        }
        makers[name](tmp_path)
    data = open_dataset(f"{name}:{folder}", "train")
    engine = load_engine(
        build_engine(small_net(data.labels, tmp_path / "n.onnx"), precision="fp32")
    )
    result = evaluate(engine, data)
    valid = [(s.mask != data.labels.ignore_id) & (s.mask < len(data.labels)) for s in iterate(data)]
    assert result.matrix.sum() == sum(int(v.sum()) for v in valid)
    right = sum(
        int((engine(s.image) == s.mask)[v].sum()) for s, v in zip(iterate(data), valid, strict=True)
    )
    assert result.pixel_accuracy == pytest.approx(right / result.matrix.sum())
