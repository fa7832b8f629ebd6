"""INT8 engines as people build them: calibration, the agreement check, the budget, the passport."""

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from commands import edgeseg
from fragile_net import FRAGILE_DRIVE
from reporting import Heard

from edgeseg.backends.load import load_engine
from edgeseg.build.engine_cache import resolve_engine
from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.build.mixed_precision import Candidate, pareto
from edgeseg.build.options import Quantization
from edgeseg.build.quantized_file import without_folders
from edgeseg.data import open_dataset
from edgeseg.errors import CheckFailedError, InputError
from edgeseg.graph.network import load_network
from edgeseg.graph.ops import is_quantized
from edgeseg.passport import Passport
from edgeseg.quantize.calibration_set import frame_digest, resolve_set
from edgeseg.quantize.ptq import plan_quantization

ANY = ("--min-agreement", "0")  # of a net with random weights
SET = "synthetic://?length=6&size=96x64&seed=5"


def test_an_int8_engine_says_how_it_was_made(small_onnx: Path, tmp_path: Path) -> None:
    engine, file = tmp_path / "n.engine", tmp_path / "n.int8.onnx"
    done = edgeseg(
        "build-engine",
        small_onnx,
        "--int8",
        "--calib",
        SET,
        "-o",
        engine,
        "--save-onnx",
        file,
        *ANY,
    )
    assert done.returncode == 0, done.stderr
    passport = Passport.read(engine)
    assert passport.precision == "int8"
    frames = passport.int8.calibration["frames"]
    drive = open_dataset(SET, "train")
    assert [f["sha256"] for f in frames] == [
        frame_digest(drive[i].image) for i in range(len(drive))
    ]
    assert passport.int8.method == "mse"
    assert (passport.int8.int8_layers or 0) > 10
    change = passport.int8.label_change
    assert change["agreement"] == (passport.int8.label_agreement or 0) >= 0.9
    assert change["frames"] == 6
    assert not change["held_out"]  # the drive has no other frames
    assert sum(row["share"] for row in change["per_class"].values()) == pytest.approx(1, abs=1e-4)
    assert passport.proof["frames"] == 6
    assert passport.proof["agreement"] >= passport.proof["least_agreement"] == 0.999
    assert "gives the scores" in passport.int8.float_layers.values()
    assert passport.openvino.argmax in ("search", "compare")

    # The Q/DQ file is a net of its own: valid, marked, and the same engine comes of it.
    model = onnx.load(file)
    onnx.checker.check_model(model, full_check=True)
    assert is_quantized(model)
    again = load_engine(build_engine(file, out=tmp_path / "again.engine"))
    assert again.passport.precision == "int8"
    frame = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    # Not to the pixel: the faster form of the argmax is measured, and BF16 scores tie in one and
    # not in the other.
    assert (again(frame) == load_engine(engine)(frame)).mean() >= 0.98


def test_frames_of_another_size_calibrate_too(small_onnx: Path, tmp_path: Path) -> None:
    for number in range(3):
        frame = np.random.default_rng(number).integers(0, 256, (90, 200, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), frame)
    done = edgeseg(
        "build-engine", small_onnx, "--int8", "--calib", tmp_path, "-o", tmp_path / "n.engine", *ANY
    )
    assert done.returncode == 0, done.stderr
    assert "stretched by 48 %" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--int8"], "no calibration set given"),
        (["--int8", "--calib", "EMPTY"], "no pictures"),
        (["--precision", "fp32", "--calib", SET], "a fp32 engine is not calibrated"),
        (["--int8", "--precision", "fp32"], "--int8 and --precision disagree"),
        (
            ["--int8", "--calib", SET, "--max-miou-drop", "0.5"],
            "--max-miou-drop needs labelled data",
        ),
        (["--precision", "auto", "--calib", SET], "without labelled data"),
        (["--int8", "--calib", SET, "--keep-float", "nonsense"], "no such layer to keep in float"),
        (["--keep-float", "x"], "INT8 options without a calibration set"),
        (["--scales", "any"], "INT8 options without a calibration set"),
        (["--int8", "--calib", SET, "--save-onnx", "NET"], "not a place for the quantized file"),
        (["--int8", "--calib", SET, "--ranges", "missing.json"], "no such file of ranges"),
    ],
)
def test_bad_requests_are_one_line(
    small_onnx: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "empty").mkdir()
    named = {"EMPTY": str(tmp_path / "empty"), "NET": str(small_onnx)}
    engine = tmp_path / "n.engine"
    done = edgeseg("build-engine", small_onnx, "-o", engine, *(named.get(a, a) for a in arguments))
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not engine.exists()


def test_a_quantized_file_is_not_calibrated_again(small_onnx: Path, tmp_path: Path) -> None:
    file = tmp_path / "q.onnx"
    build_engine(
        small_onnx,
        precision="int8",
        calib=SET,
        out=tmp_path / "n.engine",
        quantization=Quantization(least_agreement=0, save_onnx=file),
    )
    with pytest.raises(InputError, match="quantized already"):
        build_engine(file, precision="int8", calib=SET, out=tmp_path / "x.engine")
    with pytest.raises(InputError, match="is quantized, so INT8"):
        build_engine(file, precision="fp32", out=tmp_path / "x.engine")
    assert not (tmp_path / "x.engine").exists()
    with pytest.raises(InputError, match="needs a calibration set"):
        resolve_engine(small_onnx, precision="int8")


def test_plain_int8_of_a_fragile_net_fails_and_names_the_layer(
    fragile_onnx: Path, tmp_path: Path
) -> None:
    engine = tmp_path / "n.engine"
    done = edgeseg("build-engine", fragile_onnx, "--int8", "--calib", FRAGILE_DRIVE, "-o", engine)
    assert done.returncode == 1, done.stderr
    assert "--keep-float fragile" in done.stderr
    assert not engine.exists()
    done = edgeseg(
        "build-engine",
        fragile_onnx,
        "--int8",
        "--calib",
        FRAGILE_DRIVE,
        "-o",
        engine,
        "--keep-float",
        "fragile",
    )
    assert done.returncode == 0, done.stderr
    assert Passport.read(engine).precision == "mixed"


def test_the_budget_keeps_the_fragile_layer_in_float(fragile_onnx: Path, tmp_path: Path) -> None:
    options = Quantization(data=FRAGILE_DRIVE, split="train", frames=10, max_miou_drop=0.5)
    heard: list[str] = []
    engine = build_engine(
        fragile_onnx,
        precision="int8",
        calib=FRAGILE_DRIVE,
        out=tmp_path / "n.engine",
        quantization=options,
        reporter=Heard(heard),
    )
    passport = Passport.read(engine)
    budget = passport.int8.budget
    assert budget is not None
    assert passport.precision == "mixed"
    assert "fragile" in passport.int8.float_layers
    assert budget.miou >= budget.reference_miou - 0.005
    plain = next(c for c in budget.scored if c["precision"] == "int8")
    assert plain["miou"] < budget.reference_miou - 0.005
    assert budget.pareto
    noise = budget.rounding_noise
    assert max(noise, key=lambda name: noise[name]) == "fragile"
    assert any(
        "calibration frames are frames of" in line for line in heard
    )  # the data is the set itself here


def test_a_budget_nothing_keeps_is_an_error(fragile_onnx: Path, tmp_path: Path) -> None:
    """With every layer in float, only the image is rounded, so only an impossible budget fails."""
    options = Quantization(data=FRAGILE_DRIVE, split="train", frames=4, max_miou_drop=-50)
    with pytest.raises(CheckFailedError, match="no choice of layers keeps the budget"):
        build_engine(
            fragile_onnx,
            precision="int8",
            calib=FRAGILE_DRIVE,
            out=tmp_path / "n.engine",
            quantization=options,
        )


def test_auto_takes_the_fastest_within_the_budget(fragile_onnx: Path, tmp_path: Path) -> None:
    options = Quantization(data=FRAGILE_DRIVE, split="train", frames=10, max_miou_drop=0.5)
    engine = build_engine(
        fragile_onnx,
        precision="auto",
        calib=FRAGILE_DRIVE,
        out=tmp_path / "n.engine",
        quantization=options,
    )
    passport = Passport.read(engine)
    assert passport.int8.budget is not None
    candidates = passport.int8.budget.candidates
    assert {"fp32", "mixed"} <= {c["precision"] for c in candidates}
    best = min((c for c in candidates if c["within_budget"]), key=lambda c: c["latency_ms"])
    assert passport.precision == best["precision"]
    json.dumps(passport.int8.model_dump(mode="json"))


def test_pareto_keeps_what_nothing_beats() -> None:
    fast, good = Candidate("int8", (), 0.5, 1.0), Candidate("fp32", (), 0.6, 4.0)
    beaten = Candidate("mixed", ("a",), 0.49, 2.0)
    assert pareto([good, beaten, fast]) == [fast, good]


def test_any_layer_can_stay_in_float(small_onnx: Path, tmp_path: Path) -> None:
    """A sum inside a convolution needs its own ranges if that convolution stays in float."""
    prepared = plan_quantization(load_network(small_onnx), resolve_set(SET))
    everything = prepared.placement()
    assert everything.sums
    for layer in (*everything.layers, *everything.sums):
        placement = prepared.placement([layer])
        assert layer not in (*placement.layers, *placement.sums)
        onnx.checker.check_model(prepared.quantized(placement).model, full_check=True)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("camvid:/home/someone/data/CamVid", "camvid:CamVid"),
        ("/media/disk/drive.mp4", "drive.mp4"),
        ("synthetic://?length=6&size=96x64", "synthetic://?length=6&size=96x64"),
        ("voc:VOC2012", "voc:VOC2012"),
    ],
)
def test_a_file_for_others_does_not_tell_where_the_frames_lay(source: str, told: str) -> None:
    assert without_folders(source) == told
