"""Every way of joining features: the engine labels as its Q/DQ file does in ONNX Runtime, on every
processor.

Also where the file went through QAT's module, and where it is what ONNX Runtime's own quantizer
writes.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import processors
import pytest
from onnx_tools import run_ort
from reporting import Heard

torch = pytest.importorskip("torch")
from int8_patterns import CLASSES, DRIVE, OVERRIDES, PATTERNS, H, W, export  # noqa: E402
from lowered import deploy  # noqa: E402

from edgeseg.backends.openvino import forms, probes  # noqa: E402
from edgeseg.backends.proof import reference  # noqa: E402
from edgeseg.data import open_dataset  # noqa: E402
from edgeseg.graph.network import Network, load_network  # noqa: E402
from edgeseg.imaging.preprocess import to_input  # noqa: E402
from edgeseg.quantize.calibration_set import CalibrationSet, resolve_set  # noqa: E402
from edgeseg.quantize.ptq import QuantizationPlan, plan_quantization  # noqa: E402

SAME, SAME_ANY_SCALE = 0.999, 0.995
SCALES = pytest.mark.parametrize("exact", [True, False], ids=["power-of-two", "any"])
ALL = pytest.mark.parametrize("pattern", PATTERNS)
Made = Callable[[str], QuantizationPlan]


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    data = open_dataset(DRIVE, "train")
    return [data[i].image for i in range(len(data))]


@pytest.fixture(scope="module")
def calibration() -> CalibrationSet:
    return resolve_set(DRIVE)


@pytest.fixture(scope="module")
def made(
    frames: list[np.ndarray], calibration: CalibrationSet, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    """A pattern's float net with its ranges, made once for both kinds of scales."""
    folder = tmp_path_factory.mktemp("patterns")
    found: dict[str, QuantizationPlan] = {}

    def prepared(pattern: str) -> QuantizationPlan:
        if pattern not in found:
            path = folder / f"{len(found)}.onnx"
            export(pattern, frames, path)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("EDGESEG_CACHE", str(folder / "cache"))
                found[pattern] = plan_quantization(load_network(path, OVERRIDES), calibration)
        return found[pattern]

    return prepared


def assert_engine_is_the_file(
    network: Network, frames: list[np.ndarray], least: float = SAME, repairs: int = 0
) -> forms.Form:
    """What a build chooses for this processor labels as the file does; all classes are there.

    At most ``repairs`` layers had to be computed in float.
    """
    known = reference(network, frames)
    assert known is not None
    heard: list[str] = []
    chosen = forms.choose(network, "int8", known=known, reporter=Heard(heard))
    graph = deploy(network, for_openvino=False)
    want = np.stack([run_ort(graph, frame=frame[None])[0][0] for frame in frames])
    assert np.unique(want).size >= CLASSES - 1, "a net that sees one class proves nothing"
    same = float(
        np.mean(
            [(np.array(chosen.compiled(f)) == w).mean() for f, w in zip(frames, want, strict=True)]
        )
    )
    assert same >= least, (processors.name(), chosen.form)
    assert len(chosen.form.rounded) <= repairs, heard
    return chosen.form


@ALL
@SCALES
def test_the_engine_labels_as_its_file(
    pattern: str, exact: bool, made: Made, frames: list[np.ndarray]
) -> None:
    prepared = made(pattern)
    prepared = QuantizationPlan(prepared.folded, prepared.ranges, prepared.from_cache, exact)
    network = prepared.quantized(prepared.placement())
    form = assert_engine_is_the_file(network, frames)
    if probes.int8_is_exact():
        assert (form.activations == "signed") == probes.signed_int8_is_exact()


@pytest.mark.slow
def test_the_engines_label_as_their_files_without_amx(
    made: Made, frames: list[np.ndarray], tmp_path: Path
) -> None:
    """The same files, all in one process that sees this processor without AMX."""
    processors.skip_unless_amx_can_be_hidden()
    files, names = list[Path](), list[str]()
    for pattern in PATTERNS:
        for exact in (True, False):
            prepared = replace(made(pattern), exact=exact)
            files.append(tmp_path / f"{len(files)}.onnx")
            onnx.save(prepared.quantized(prepared.placement()).model, files[-1])
            names.append(f"{pattern}, {'power-of-two' if exact else 'any'}")
    facts = {"size": (H, W), "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    found = processors.same_labels(processors.WITHOUT_AMX, files, frames, tmp_path, **facts)
    wrong = {
        n: one for n, one in zip(names, found, strict=True) if one["same"] < SAME or one["repaired"]
    }
    assert not wrong, processors.WITHOUT_AMX
    assert len(found) == 2 * len(PATTERNS)


TRAINABLE = (
    "concat, relu",
    "relu of concat of three",
    "sum behind a concat",
    "concat of features and average-pooled image",
    "average pool of any sign with padding",
    "sum, prelu, twice",
)
THROUGH_OTHERS = (
    "relu of concat of up and norm of skip",
    "relu of concat of features and pooled image",
    "concat of features and average-pooled image",
    "relu of concat of float and INT8",
    "average pool of any sign with padding",
    "sum, prelu, twice",
    "pad on one side",
)


@pytest.mark.parametrize("pattern", TRAINABLE)
def test_a_file_that_was_fine_tuned(pattern: str, made: Made, frames: list[np.ndarray]) -> None:
    """QAT writes its own file."""
    from edgeseg.training.qat.fake_quant import Quantizer

    prepared = made(pattern)
    quantizer = Quantizer(prepared.network.model, prepared.placement())
    module = quantizer.module(prepared.ranges.amax)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1 + 0.01 * torch.randn_like(parameter))
    assert_engine_is_the_file(replace(prepared.network, model=quantizer.to_onnx(module)), frames)


@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("pattern", THROUGH_OTHERS)
def test_a_file_of_onnx_runtimes_quantizer(
    pattern: str, symmetric: bool, made: Made, frames: list[np.ndarray], tmp_path: Path
) -> None:
    """Its scales are of any value.

    By default activations are UINT8 with a zero point, and every tensor has a pair.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    network = made(pattern).network
    source, target = tmp_path / "float.onnx", tmp_path / "qdq.onnx"
    onnx.save(network.model, source)

    class Frames(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self.inputs = iter([{network.input: to_input(frame, network.spec)} for frame in frames])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.inputs, None)

    kind = QuantType.QInt8 if symmetric else QuantType.QUInt8
    quantize_static(
        source,
        target,
        Frames(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=kind,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": symmetric, "QuantizeBias": False},
    )
    # OpenVINO leaves the rounding of a sum's branch out, which edgeseg's own files have in none: a
    # repair or two.
    assert_engine_is_the_file(
        load_network(target, OVERRIDES), frames, least=SAME_ANY_SCALE, repairs=2
    )
