"""Layer by layer: what INT8 does to a net with one fragile layer, with labels and without, and what
is said of it.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from commands import edgeseg
from reporting import Heard

from edgeseg.build.mixed_precision import run_with
from edgeseg.cli.sensitivity import print_sensitivity
from edgeseg.data import Dataset, Sample, open_dataset
from edgeseg.errors import DataError, InputError
from edgeseg.graph.network import load_network
from edgeseg.metrics.evaluate import evaluate
from edgeseg.profiling.plots import plot_sensitivity
from edgeseg.profiling.sensitivity import LayerCost, Scorer, Sensitivity, alone, sensitivity
from edgeseg.quantize.calibration_set import CalibrationSet, resolve_set
from edgeseg.quantize.ptq import QuantizationPlan, fold_network, plan_quantization

DRIVE = "synthetic://?length=30&size=64x48&seed=3"
NAMES = {"stem", "fragile", "body", "tail", "sum"}


@pytest.fixture(scope="module")
def calibration() -> CalibrationSet:
    return resolve_set(DRIVE, count=8)


@pytest.fixture(scope="module")
def prepared(
    fragile_onnx: Path, calibration: CalibrationSet, tmp_path_factory: pytest.TempPathFactory
) -> QuantizationPlan:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        return plan_quantization(load_network(fragile_onnx), calibration)


@pytest.fixture(scope="module")
def result(prepared: QuantizationPlan, calibration: CalibrationSet) -> Sensitivity:
    """All layers, on labelled data."""
    return sensitivity(prepared, calibration, open_dataset(DRIVE, "val"), frames=6, layers=0)


def named(result: Sensitivity, name: str) -> LayerCost:
    return next(layer for layer in result.layers if layer.name == name)


def test_the_fixture_is_as_fragile_as_it_says(
    prepared: QuantizationPlan, calibration: CalibrationSet
) -> None:
    """What other tests build on: plain INT8 changes many labels, and next to none with one layer in
    float.
    """
    scorer = Scorer(prepared.network, calibration, open_dataset(DRIVE, "val"), 10)
    plain = scorer(prepared.quantized(prepared.placement()), "int8")
    kept = scorer(prepared.quantized(prepared.placement(["fragile"])), "int8")
    assert plain.labels_changed > 0.10
    assert kept.labels_changed < 0.02
    assert scorer.float_miou is not None
    assert plain.miou is not None
    assert kept.miou is not None
    assert scorer.float_miou - plain.miou > 0.03
    assert abs(scorer.float_miou - kept.miou) < 0.005


def test_the_fragile_layer_comes_first(result: Sensitivity) -> None:
    """By noise and by cost, and it makes up what all of INT8 costs."""
    assert {layer.name for layer in result.layers} == NAMES
    assert result.layers == result.scored
    assert result.layers[0].name == "fragile"
    fragile = result.layers[0]
    for other in result.layers[1:]:
        assert (fragile.noise or 0) > 100 * (other.noise or 0)
        assert (fragile.labels_changed or 0) > 10 * (other.labels_changed or 0)
        assert (fragile.miou_points or 0) > 10 * abs(other.miou_points or 0)
    assert result.int8.labels_changed == pytest.approx(fragile.labels_changed, rel=0.1)
    assert result.int8.miou_points == pytest.approx(fragile.miou_points, rel=0.1)
    ranks = [layer.rank for layer in result.layers]
    assert ranks == sorted(ranks)


def test_a_cost_is_that_of_the_layer_alone(result: Sensitivity, prepared: QuantizationPlan) -> None:
    """Scored again from its definition: the float net and the one with all other layers kept in
    float.
    """
    data = open_dataset(DRIVE, "val")
    indices = result.data["indices"]
    one = prepared.quantized(prepared.placement(sorted(NAMES - {"tail"})))
    labels = [run_with(net, "fp32") for net in (prepared.network, one)]
    miou = [
        evaluate(label, data, labels=prepared.network.spec.labels, indices=indices).mean_iou
        for label in labels
    ]
    changed = [
        float((labels[0](data[i].image) != labels[1](data[i].image)).mean()) for i in indices
    ]
    tail = named(result, "tail")
    assert tail.labels_changed == pytest.approx(np.mean(changed))
    assert tail.miou_points == pytest.approx(100 * (miou[0] - miou[1]))
    assert result.float_miou == pytest.approx(miou[0])


def test_what_is_measured_and_told_of_each(result: Sensitivity) -> None:
    assert named(result, "stem").what == "3x3, 3 to 12"
    assert named(result, "sum").what == "sum"
    assert named(result, "sum").saved_ms is None
    timed = [layer.saved_ms for layer in result.layers if layer.saved_ms is not None]
    assert timed
    assert result.int8.saved_ms == pytest.approx(sum(timed))
    assert result.floats == {"scores": "gives the scores"}
    assert result.scored_on == "6 of the 30 frames of synthetic/val"


def test_a_layer_or_a_sum_alone(prepared: QuantizationPlan) -> None:
    full = prepared.placement()
    assert set(full.layers) | set(full.sums) == NAMES
    layer, added = alone(prepared, full, "body"), alone(prepared, full, "sum")
    assert (layer.layers, layer.sums, layer.tensors) == (("body",), (), ("fragile_relu",))
    assert (added.layers, added.sums, added.tensors) == (
        (),
        ("sum",),
        ("fragile_relu", "body_relu"),
    )
    assert set(added.floats) == NAMES - {"sum"} | {"scores"}
    kinds = [node.op_type for node in prepared.quantized(added).model.graph.node]
    assert kinds.count("QuantizeLinear") == 2


def test_without_labels_those_that_change_are_counted(
    prepared: QuantizationPlan, tmp_path: Path
) -> None:
    """On frames of the calibration set, here a folder; only the noisiest are scored."""
    for index in range(6):
        cv2.imwrite(str(tmp_path / f"{index}.png"), open_dataset(DRIVE, "train")[index * 5].image)
    found = resolve_set(tmp_path)
    heard = Heard()
    result = sensitivity(prepared, found, frames=4, layers=2, reporter=heard)
    scored = [step for step in heard.steps if step[0] == "score layers"]
    assert scored == [("score layers", done, 2) for done in range(3)]
    assert result.float_miou is None
    assert result.scored_on == "4 of the 6 calibration frames"
    assert result.data == {"labelled": False, "frames": 4, "digest": found.subset(4).digest}
    assert len(result.scored) == 2
    fragile = result.layers[0]
    assert (fragile.name, fragile.miou_points) == ("fragile", None)
    assert (fragile.labels_changed or 0) > 0.1
    assert all(layer.labels_changed is None for layer in result.layers[2:])


def test_json_holds_everything(result: Sensitivity) -> None:
    told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert [layer["name"] for layer in told["layers"]] == [layer.name for layer in result.layers]
    assert (
        len(told["network_sha256"])
        == len(told["data"]["pixels_sha256"])
        == len(told["calibration"]["digest"])
        == 64
    )
    assert told["machine"]["cores"]


def test_frames_without_labels_of_their_own_are_told(
    prepared: QuantizationPlan, calibration: CalibrationSet
) -> None:
    data = open_dataset(DRIVE, "val")

    class Void:
        name, labels, names = "void", data.labels, data.names

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Sample:
            return replace(data[index], mask=np.full_like(data[index].mask, 255))

    class Others(Void):
        name, labels = (
            "others",
            data.labels.model_copy(update={"names": ("Other", *data.labels.names[1:])}),
        )

    def score(given: Dataset) -> None:
        Scorer(prepared.network, calibration, given, 2)

    with pytest.raises(DataError, match=r"2 of the 3 frames of void: nothing to score"):
        score(Void())
    with pytest.raises(DataError, match="labels are not those of others"):
        score(Others())


def test_a_net_with_no_layer_for_int8_is_told(fragile_onnx: Path) -> None:
    network = load_network(fragile_onnx)
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    first, last = model.graph.node[0], model.graph.node[-1]
    last.input[0] = "image"
    last.input[1] = "wide"
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.ones((11, 3, 1, 1), np.float32), "wide")
    )
    del model.graph.node[:]
    model.graph.node.append(last)
    assert first.name == "stem"
    with pytest.raises(
        InputError, match=r"no layer of it can run in INT8: got scores gives the scores"
    ):
        fold_network(replace(network, model=model))


def test_the_table_fits_80_columns(
    result: Sensitivity, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = replace(
        result.layers[1],
        name="/encoder/stage2/bottleneck3/branch/conv_projection/Conv",
        labels_changed=None,
    )
    print_sensitivity(replace(result, layers=(*result.layers, long)))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split()[0] for line in lines if line.strip()]
    assert rows.index("fragile") < rows.index("body")
    text = "\n".join(lines)
    for said in ("1 other", "all 6 in INT8", "always float (gives the scores): scores", "mIoU"):
        assert said in text


@pytest.mark.parametrize("labelled", [True, False])
def test_a_picture_is_drawn(result: Sensitivity, tmp_path: Path, labelled: bool) -> None:
    """With every name there is, and where nothing could be timed."""
    shown = result if labelled else replace(result, float_miou=None)
    names = tuple(
        replace(layer, name=f"/a/very/long/{i}/name/of/a/layer/{layer.name}")
        for i, layer in enumerate(result.layers)
    )
    for number, layers in enumerate(
        (result.layers, names, tuple(replace(one, saved_ms=None) for one in names))
    ):
        picture = cv2.imread(
            str(plot_sensitivity(replace(shown, layers=layers), tmp_path / f"{number}.png"))
        )
        assert picture is not None
        assert picture.shape[1] > 1000


# --- the command


def test_the_command(fragile_onnx: Path, tmp_path: Path) -> None:
    facts, plot = tmp_path / "s.json", tmp_path / "s.png"
    done = edgeseg(
        "sensitivity",
        fragile_onnx,
        "--calib",
        DRIVE,
        "--count",
        6,
        "--data",
        DRIVE,
        "--frames",
        3,
        "--layers",
        2,
        "--json",
        facts,
        "--plot",
        plot,
    )
    assert done.returncode == 0, done.stderr
    assert "3 others" in done.stdout
    told = json.loads(facts.read_text())
    assert told["layers"][0]["name"] == "fragile"
    assert (told["data"]["address"], told["data"]["split"], told["data"]["frames"]) == (
        DRIVE,
        "val",
        3,
    )
    assert len(told["calibration"]["frames"]) == 6
    assert plot.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["NET"], "no calibration set given: expected --calib camvid:PATH"),
        (["nowhere", "--calib", DRIVE], "no such model"),
        (["QUANTIZED", "--calib", DRIVE], "is quantized already"),
        (["NET", "--calib", DRIVE, "--data", "camvid:nowhere"], "no such folder"),
        (["NET", "--calib", DRIVE, "--data", "somewhere"], "READER:PATH"),
        (["NET", "--calib", DRIVE, "--data", DRIVE, "--split", "night"], "night"),
        (["NET", "--calib", DRIVE, "--frames", "0"], "--frames"),
        (["NET", "--calib", DRIVE, "--layers", "-1"], "--layers"),
        (["NET", "--calib", DRIVE, "--plot", "p.txt"], "not the name of a picture"),
        (["NET", "--calib", DRIVE, "--json", "s.txt"], "not the name of a JSON file"),
    ],
    ids=lambda value: "-".join(value)[-50:] if isinstance(value, list) else "",
)
def test_errors_are_a_line(
    fragile_onnx: Path,
    prepared: QuantizationPlan,
    tmp_path: Path,
    arguments: Sequence[str],
    said: str,
) -> None:
    quantized = tmp_path / "quantized.onnx"
    onnx.save(prepared.quantized(prepared.placement()).model, quantized)
    known = {"NET": str(fragile_onnx), "QUANTIZED": str(quantized)}
    done = edgeseg("sensitivity", *[known.get(word, word) for word in arguments], cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["quantized.onnx"]


def test_no_torch_is_imported() -> None:
    modules = "edgeseg.profiling.sensitivity, edgeseg.profiling.plots"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
