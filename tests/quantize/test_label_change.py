"""INT8 is judged class by class: a thin class that is lost is named, whatever the share of equal
labels.
"""

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from commands import edgeseg
from onnx import helper, numpy_helper
from reporting import Heard

from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.build.options import Quantization
from edgeseg.errors import CheckFailedError
from edgeseg.passport import Passport
from edgeseg.quantize.calibration_set import resolve_set
from edgeseg.quantize.label_change import LabelChange, Limits, compare_labels, require_close
from edgeseg.spec import METADATA_KEY, LabelSpace, ModelSpec

NAMES = ("road", "sky", "lane")
SPACE = LabelSpace(
    name="lanes",
    names=NAMES,
    palette=((128, 64, 128), (70, 130, 180), (255, 255, 0)),
    ignore_id=255,
)
H, W = 48, 64


def streets(folder: Path, count: int = 12) -> Path:
    """Frames: a red road below, a blue sky above, and a lane line one pixel wide, a little green on
    the road.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        frame = np.zeros((H, W, 3), np.uint8)
        frame[: H // 2] = (220, 0, 0)  # BGR
        frame[H // 2 :] = (0, 0, 200)
        frame[H // 2 :, 5 + 4 * number] = (0, 40, 200)
        cv2.imwrite(str(folder / f"{number:02d}.png"), frame)
    return folder


def lanes_onnx(path: Path) -> Path:
    """A net that sees all three classes.

    ``thin`` reads the lane beside channels 400 times as large.

    One range for the tensor is decided by the large channels, and the lane's falls into less than
    half a step: plain INT8 loses that class alone, 0.8 % of the pixels.
    """
    weights = {
        # RGB in 0..1 -> how red and how blue, both times 400, and how green
        "first": (np.array([[400.0, 0, 0], [0, 0, 400.0], [0, 1.0, 0]]), np.zeros(3)),
        "thin": (np.diag([0.0025, 0.0025, 1.0]), np.zeros(3)),
        "body": (np.eye(3), np.zeros(3)),
        # road: red; sky: blue; lane: any green beats both
        "scores": (np.array([[1, 0, 0], [0, 1, 0], [0, 0, 20.0]]), np.zeros(3)),
    }
    nodes, x = [], "image"
    for name in weights:
        out = "logits" if name == "scores" else f"{name}_out"
        nodes.append(
            helper.make_node(
                "Conv", [x, f"{name}.weight", f"{name}.bias"], [out], name, kernel_shape=[1, 1]
            )
        )
        if name != "scores":
            nodes.append(helper.make_node("Relu", [out], [f"{name}_relu"], f"{name}/relu"))
            x = f"{name}_relu"
    tensors = []
    for name, (weight, bias) in weights.items():
        tensors.append(
            numpy_helper.from_array(weight.astype(np.float32)[:, :, None, None], f"{name}.weight")
        )
        tensors.append(numpy_helper.from_array(bias.astype(np.float32), f"{name}.bias"))
    ends = [helper.make_tensor_value_info(n, 1, [1, 3, H, W]) for n in ("image", "logits")]
    graph = helper.make_graph(nodes, "lanes", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    spec = ModelSpec(
        architecture="lanes", input_size=(H, W), mean=(0, 0, 0), std=(1, 1, 1), labels=SPACE
    )
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def lanes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("lanes")
    return lanes_onnx(folder / "lanes.onnx"), streets(folder / "frames")


def test_a_lost_thin_class_is_refused_by_name(lanes: tuple[Path, Path], tmp_path: Path) -> None:
    net, frames = lanes
    engine = tmp_path / "n.engine"
    done = edgeseg(
        "build-engine", net, "--int8", "--calib", frames, "--scales", "any", "-o", engine
    )
    assert done.returncode == 1, done.stdout + done.stderr
    for words in (
        "loses the class 'lane'",
        "expected at least 0.7",
        "--keep-float thin",
        "% of the pixels",
    ):
        assert words in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_share_of_labels_alone_would_have_passed(
    lanes: tuple[Path, Path], tmp_path: Path
) -> None:
    net, frames = lanes
    options = Quantization(least_mean_iou=0, least_class_iou=0)
    passport = Passport.read(
        build_engine(
            net,
            precision="int8",
            calib=str(frames),
            out=tmp_path / "n.engine",
            quantization=options,
        )
    )
    change = passport.int8.label_change
    assert 0.97 < change["agreement"] < 0.995
    assert change["per_class"]["lane"]["iou"] < 0.1
    assert change["per_class"]["road"]["iou"] > 0.9


def test_the_layer_in_float_keeps_the_class_and_the_table_says_so(
    lanes: tuple[Path, Path], tmp_path: Path
) -> None:
    net, frames = lanes
    engine = tmp_path / "n.engine"
    done = edgeseg(
        "build-engine", net, "--int8", "--calib", frames, "--keep-float", "thin", "-o", engine
    )
    assert done.returncode == 0, done.stderr
    assert "INT8 against float" in done.stdout
    assert "lane" in done.stdout
    assert Passport.read(engine).int8.label_change["per_class"]["lane"]["iou"] > 0.9


def test_a_budget_finds_the_layer(lanes: tuple[Path, Path], tmp_path: Path) -> None:
    """The lane has no truth here that mIoU would notice: the class itself is what keeps ``thin`` in
    float.
    """
    net, frames = lanes
    dataset = tmp_path / "camvid"
    (dataset / "val").mkdir(parents=True)
    (dataset / "valannot").mkdir()
    from edgeseg.data import open_dataset
    from edgeseg.spec import CAMVID_11

    spec = ModelSpec(
        architecture="lanes", input_size=(H, W), mean=(0, 0, 0), std=(1, 1, 1), labels=CAMVID_11
    )
    model = onnx.load(net)
    _pad_classes(model, len(CAMVID_11))
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.save(model, tmp_path / "eleven.onnx")
    for path in sorted(frames.iterdir())[:4]:
        image = cv2.imread(str(path))
        assert image is not None
        cv2.imwrite(str(dataset / "val" / path.name), image)
        truth = np.where(image[:, :, 0] > 0, 1, 0).astype(np.uint8)
        truth[image[:, :, 1] > 0] = 11  # void: the data says nothing of lanes
        cv2.imwrite(str(dataset / "valannot" / path.name), truth)
    assert len(open_dataset(f"camvid:{dataset}", "val")) == 4
    options = Quantization(data=f"camvid:{dataset}", max_miou_drop=0.5)
    heard: list[str] = []
    passport = Passport.read(
        build_engine(
            tmp_path / "eleven.onnx",
            precision="int8",
            calib=str(frames),
            out=tmp_path / "n.engine",
            quantization=options,
            reporter=Heard(heard),
        )
    )
    assert any("class 'Pole' at IoU 0.00" in line for line in heard), heard
    assert "thin" in passport.int8.float_layers
    assert passport.int8.label_change["per_class"]["Pole"]["iou"] > 0.9


def _pad_classes(model: onnx.ModelProto, classes: int) -> None:
    """Give the last layer classes that never win."""
    tensors = {t.name: t for t in model.graph.initializer}
    weight, bias = (numpy_helper.to_array(tensors[f"scores.{k}"]) for k in ("weight", "bias"))
    more = classes - len(weight)
    weight = np.concatenate([weight, np.zeros((more, *weight.shape[1:]), np.float32)])
    bias = np.concatenate([bias, np.full(more, -9, np.float32)])
    tensors["scores.weight"].CopyFrom(numpy_helper.from_array(weight, "scores.weight"))
    tensors["scores.bias"].CopyFrom(numpy_helper.from_array(bias, "scores.bias"))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = classes


# -- the numbers -----------------------------------------------------------------------------------


def change_of(truth: np.ndarray, found: np.ndarray) -> LabelChange:
    return compare_labels([truth], lambda _: found, [np.zeros((*truth.shape, 3), np.uint8)], SPACE)


def test_iou_and_shares_are_those_of_sets() -> None:
    draw = np.random.default_rng(0)
    truth, found = draw.integers(0, 3, (2, 40, 50)).astype(np.uint8)
    change = change_of(truth, found)
    for c in range(3):
        a, b = truth == c, found == c
        assert change.iou[c] == pytest.approx((a & b).sum() / (a | b).sum())
        assert change.shares[c] == pytest.approx(a.mean())
    assert change.agreement == pytest.approx((truth == found).mean())
    assert change.mean_iou == pytest.approx(np.mean(change.iou))


def test_what_hardly_exists_is_not_judged() -> None:
    truth = np.zeros((100, 100), np.uint8)
    truth[:50] = 1
    truth[0, 0] = 2  # 0.01 % of the pixels
    found = truth.copy()
    found[0, 0] = 1
    change = change_of(truth, found)
    assert change.judged == [0, 1]
    assert change.passes(Limits())
    truth[0, :20] = 2  # 0.2 %
    assert not change_of(truth, found).passes(Limits())


def test_every_limit_has_its_message() -> None:
    truth = np.zeros((100, 100), np.uint8)
    truth[:50], truth[0] = 1, 2
    noise = {"a": 0.2, "b": 0.01}
    gone, mixed, moved = truth.copy(), truth.copy(), truth.copy()
    gone[0] = 1
    mixed[50:62] = 1
    moved[50:53], moved[0, :15] = 1, 1
    for found, says in ((gone, "loses the class 'lane'"), (mixed, "changes 12.0 % of the labels")):
        with pytest.raises(CheckFailedError, match=says) as error:
            require_close(change_of(truth, found), Limits(), noise, "net")
        assert "`keep_float=a`;" in str(error.value)
    with pytest.raises(CheckFailedError, match=r"mean IoU 0\.9"):
        require_close(change_of(truth, moved), Limits(mean_iou=0.95), noise, "net")
    require_close(change_of(truth, gone), Limits(agreement=0), noise, "net")


def test_frames_are_held_out_where_there_are_enough(tmp_path: Path) -> None:
    folder = streets(tmp_path / "frames")
    chosen = resolve_set(folder, count=4)
    held_out = chosen.held_out(8)
    names = {f.sha256 for f in chosen.frames}
    from edgeseg.quantize.calibration_set import frame_digest

    assert len(held_out) == 8
    assert not names & {frame_digest(image) for image in held_out}
    assert resolve_set(folder, count=5).held_out(8) == []
    assert len(resolve_set(folder, count=5).held_out(7)) == 7
