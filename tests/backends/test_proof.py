"""A build proves its engine: right ones pass, wrong kernels are repaired, or the build fails."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import reporting
from commands import edgeseg
from processors import WITHOUT_AMX, run_on
from reporting import Heard

from edgeseg.backends import proof
from edgeseg.backends.base import PlanOptions
from edgeseg.backends.load import load_engine
from edgeseg.backends.openvino import probes, runtime
from edgeseg.backends.proof import (
    MOST_FRAMES,
    PROOF_FRAMES,
    Reference,
    Verdict,
    frames_needed,
    judge,
    reference,
)
from edgeseg.build import engine_from_onnx
from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.build.options import Quantization
from edgeseg.errors import CheckFailedError
from edgeseg.graph.network import load_network
from edgeseg.passport import Passport

SET = "synthetic://?length=4&size=96x64&seed=6"


@pytest.fixture(scope="module")
def quantized(small_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("proof")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESEG_CACHE", str(folder / "cache"))
        build_engine(
            small_onnx,
            precision="int8",
            calib=SET,
            out=folder / "e.engine",
            quantization=Quantization(least_agreement=0, save_onnx=folder / "small.int8.onnx"),
        )
    return folder / "small.int8.onnx"


# -- what passes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_float_engines_are_proven(small_onnx: Path, tmp_path: Path, precision: str) -> None:
    if precision not in ("fp32", runtime.best_precision()):
        pytest.skip("this processor has no BF16")
    passport = Passport.read(
        build_engine(small_onnx, precision=precision, out=tmp_path / "e.engine")
    )
    assert passport.proof["frames"] >= PROOF_FRAMES
    assert passport.proof["against"].startswith("ONNX Runtime")
    assert passport.proof["wrong_pixels"] <= proof.WRONG_PIXELS[precision]
    if precision == "fp32":
        assert passport.proof["agreement"] >= 0.999


def test_a_quantized_file_is_proven_without_a_calibration_set(
    quantized: Path, tmp_path: Path
) -> None:
    passport = Passport.read(build_engine(quantized, out=tmp_path / "e.engine"))
    assert passport.proof["agreement"] >= passport.proof["least_agreement"] == 0.999
    assert passport.openvino.activations == (
        "signed" if probes.signed_int8_is_exact() else "unsigned"
    )


def test_bf16_beside_int8_only_where_labels_stay(quantized: Path, tmp_path: Path) -> None:
    """ENet has float in the middle; in BF16 it changes some labels in a thousand."""
    passport = Passport.read(build_engine(quantized, out=tmp_path / "e.engine"))
    assert passport.openvino.floats == "fp32"
    assert passport.openvino.config["INFERENCE_PRECISION_HINT"] == "f32"


def test_small_nets_are_proven_on_more_frames() -> None:
    assert frames_needed((720, 960)) == PROOF_FRAMES
    assert frames_needed((360, 480)) == 2
    assert frames_needed((200, 300)) == 4
    assert frames_needed((48, 64)) == MOST_FRAMES


# -- how labels are judged -------------------------------------------------------------------------


def known(scores: np.ndarray) -> Reference:
    """A reference of one frame with these scores (classes, H, W)."""
    frame = np.zeros((*scores.shape[1:], 3), np.uint8)
    return Reference((frame,), (scores.argmax(0).astype(np.uint8),), (scores,), "ONNX Runtime")


def test_ties_within_rounding_are_no_errors() -> None:
    scores = np.random.default_rng(0).normal(size=(3, 40, 50)).astype(np.float32)
    scores[1] = scores[0] + 1e-4
    given = known(scores)
    swapped = np.where(given.labels[0] == 1, 0, given.labels[0]).astype(np.uint8)
    assert not judge(given, lambda _: swapped, "int8", 0.999).passed
    assert judge(given, lambda _: swapped, "fp32").passed
    wrong = np.roll(given.labels[0], 7)
    for precision in ("fp32", "bf16"):
        assert not judge(given, lambda _: wrong, precision).passed


def test_a_class_that_is_no_class_is_wrong() -> None:
    scores = np.random.default_rng(0).normal(size=(3, 10, 10)).astype(np.float32)
    assert judge(known(scores), lambda _: np.full((10, 10), 9, np.uint8), "fp32").wrong_pixels == 1


def test_a_lost_thin_class_fails_whatever_the_share() -> None:
    """Two lines of a hundred: 99.5 % of the labels are the same, and one class in two is gone."""
    labels = np.zeros((400, 400), np.uint8)
    labels[100], labels[300, :] = 1, 2
    given = Reference((np.zeros((400, 400, 3), np.uint8),), (labels,), (), "ONNX Runtime")
    damaged = labels.copy()
    damaged[300] = 0
    verdict = judge(given, lambda _: damaged, "int8", 0.995)
    assert verdict.agreement >= 0.995
    assert not verdict.passed
    assert given.lost_class(lambda _: damaged) == 2
    assert judge(given, lambda _: labels, "int8", 0.995).passed


def test_few_labels_prove_little() -> None:
    assert Verdict(True, 1.0, pixels=200_000).is_surely(0.999)
    assert not Verdict(True, 1.0, pixels=2_000).is_surely(0.999)
    assert not Verdict(True, 0.9991, pixels=200_000).is_surely(0.999)
    assert Verdict(True, 0.9997, pixels=200_000).is_surely(0.999)


# -- wrong kernels, real ones ----------------------------------------------------------------------

SUPPORT = Path(reporting.__file__).parent
REPAIR = """
import json, sys, pathlib, numpy
import edgeseg
from edgeseg.graph import lowering
if sys.argv[3] == "wrong":  # as if nothing were known of unsigned activations
    left_out = ("unsigned_activations", "convolve_averages")
    kept = [step for step in lowering.OPENVINO_PASSES if step.__name__ not in left_out]
    lowering.OPENVINO_PASSES = tuple(kept)
sys.path.insert(0, sys.argv[5])
from reporting import Heard
heard = []
path = edgeseg.build_engine(sys.argv[1], precision="int8", out=sys.argv[2], reporter=Heard(heard))
engine = edgeseg.load_engine(path)
frames = numpy.load(sys.argv[4])
labels = numpy.stack([engine(frame) for frame in frames])
passport = engine.passport
form = passport.openvino.model_dump(mode="json")
told = {"heard": heard, "form": form, "proof": passport.proof, "labels": labels.tolist()}
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Q/DQ file of a net that OpenVINO computes wrongly without AMX: a ReLU behind a concat."""
    pytest.importorskip("torch")
    from int8_patterns import DRIVE, OVERRIDES, H, W, export

    from edgeseg.data import open_dataset

    folder = tmp_path_factory.mktemp("joined")
    data = open_dataset(DRIVE, "train")
    export("concat, relu", [data[i].image for i in range(len(data))], folder / "net.onnx")
    assert data[0].image.shape[:2] == (H, W)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGESEG_CACHE", str(folder / "cache"))
        build_engine(
            load_network(folder / "net.onnx", OVERRIDES),
            precision="int8",
            calib=DRIVE,
            out=folder / "n.engine",
            quantization=Quantization(least_agreement=0, save_onnx=folder / "net.int8.onnx"),
        )
    np.save(folder / "frames.npy", np.stack([data[i].image for i in range(len(data))]))
    return folder / "net.int8.onnx"


@pytest.mark.parametrize("how", ["right", "wrong"])
def test_the_wrong_layer_is_found_named_and_computed_in_float(
    joined: Path, tmp_path: Path, how: str
) -> None:
    frames = joined.with_name("frames.npy")
    told = json.loads(
        run_on(WITHOUT_AMX, REPAIR, joined, tmp_path / "n.engine", how, frames, SUPPORT)
    )
    network = load_network(joined)
    given = reference(network, list(np.load(frames)))
    assert given is not None
    same = np.mean(
        [np.mean(np.array(a) == b) for a, b in zip(told["labels"], given.labels, strict=False)]
    )
    assert same >= 0.999
    assert told["proof"]["agreement"] >= 0.999
    if how == "right":
        assert "rounded_in_float" not in told["form"]
        return
    layers = told["form"]["rounded_in_float"]
    assert 1 <= len(layers) <= 2
    assert set(layers) <= {node.name for node in network.model.graph.node}
    (line,) = (line for line in told["heard"] if line.startswith("computed in float"))
    for word in (*layers, "OpenVINO", "ONNX Runtime"):
        assert word in line


# -- what cannot be repaired -----------------------------------------------------------------------


@pytest.fixture
def another_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime gives something else than OpenVINO ever will."""

    def upside_down(network: object, frames: object) -> Reference | None:
        found = reference(network, frames)  # type: ignore[arg-type]
        if found is None:
            return None
        flip = tuple(np.ascontiguousarray(one[::-1]) for one in found.labels)
        return replace(
            found, labels=flip, scores=tuple(np.ascontiguousarray(s[:, ::-1]) for s in found.scores)
        )

    monkeypatch.setattr(engine_from_onnx, "reference", upside_down)


@pytest.mark.usefixtures("another_file")
@pytest.mark.parametrize("kind", ["int8", "fp32"])
def test_an_engine_of_another_net_is_refused(
    small_onnx: Path, quantized: Path, tmp_path: Path, kind: str
) -> None:
    source, precision = (quantized, "auto") if kind == "int8" else (small_onnx, "fp32")
    with pytest.raises(
        CheckFailedError, match=f"the {kind} engine does not label as the ONNX file does"
    ) as error:
        build_engine(source, precision=precision, out=tmp_path / "e.engine")
    for word in ("OpenVINO 20", "ONNX Runtime", "% of the labels equal"):
        assert word in str(error.value)
    assert not list(tmp_path.iterdir())
    build_engine(
        source, precision=precision, out=tmp_path / "e.engine", plan=PlanOptions(prove=False)
    )
    assert Passport.read(tmp_path / "e.engine").proof == {}
    load_engine(tmp_path / "e.engine")


def test_no_proof_on_the_command_line(small_onnx: Path, tmp_path: Path) -> None:
    done = edgeseg(
        "build-engine", small_onnx, "--precision", "fp32", "--no-proof", "-o", tmp_path / "e.engine"
    )
    assert done.returncode == 0, done.stderr
    assert Passport.read(tmp_path / "e.engine").proof == {}


def test_a_file_that_onnx_runtime_does_not_run_is_built_and_that_is_said(
    small_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    def refuses(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuses)
    heard: list[str] = []
    passport = Passport.read(
        build_engine(small_onnx, precision="fp32", out=tmp_path / "e.engine", reporter=Heard(heard))
    )
    assert passport.proof == {}
    assert any("ONNX Runtime does not run this file" in line for line in heard)
