"""Run one net in INT8 by edgeseg, ONNX Runtime, and NNCF with OpenVINO, on the same frames."""

import os
from importlib import import_module
from typing import Any

from benchmarks.candidates import (
    Candidate,
    Case,
    engine_candidate,
    fastest,
    onnxruntime_candidate,
    openvino_candidate,
    quiet,
)
from edgeseg.backends.openvino import runtime
from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.build.mixed_precision import paying_layers
from edgeseg.build.options import Quantization
from edgeseg.graph.graph import Graph
from edgeseg.graph.network import load_network
from edgeseg.graph.passes import PassContext
from edgeseg.graph.passes.unpool import lower_unpooling
from edgeseg.quantize.ptq import plan_quantization

MIXED = "edgeseg mixed"
NNCF = "NNCF + OpenVINO INT8, edgeseg's unpooling"
ORT = "ONNX Runtime INT8 Q/DQ, standard MaxUnpool"


class LeftOutError(Exception):
    """Report a row that is left out.

    Parameters
    ----------
    row : title of the row.
    why : the reason.
    """

    def __init__(self, row: str, why: str) -> None:
        super().__init__(why)
        self.row = row


def edgeseg_int8(case: Case) -> Candidate:
    """Return edgeseg with INT8 in every layer that allows it."""
    return _edgeseg(case, "edgeseg INT8")


def edgeseg_mixed(case: Case) -> Candidate:
    """Return edgeseg with INT8 only in the layers where a profile shows that it saves time."""
    prepared = plan_quantization(load_network(case.standard), case.calibration)
    placement = prepared.placement()
    saved = paying_layers(prepared.network, prepared.quantized(placement), placement)
    costly = tuple(layer for layer, milliseconds in saved.items() if milliseconds <= 0)
    if not costly:
        raise LeftOutError(
            MIXED, f"INT8 saves time in each of the {len(saved)} layers: the same as edgeseg INT8"
        )
    if len(costly) == len(saved):
        raise LeftOutError(
            MIXED, f"INT8 saves time in none of the {len(saved)} layers: a float row"
        )
    return _edgeseg(case, MIXED, costly)


def _edgeseg(case: Case, title: str, keep_float: tuple[str, ...] = ()) -> Candidate:
    """Build and return an INT8 engine."""
    # The weights are random: how many labels INT8 changes is told, and stops nothing.
    options = Quantization(keep_float=keep_float, least_agreement=0)
    engine = build_engine(
        case.standard, precision="int8", calib=case.calibration, quantization=options
    )
    return engine_candidate(case, engine, title)


def onnxruntime_int8(case: Case) -> Candidate:
    """Return ONNX Runtime's own static quantization, in the faster of two forms.

    S8S8 is symmetric with float biases, which TensorRT reads too. U8S8 is what ONNX Runtime advises
    for x86 with VNNI, with defaults for all else. Both have one scale per channel. Its
    pre-processing changes nothing in these files.
    """
    from onnxruntime.quantization import QuantType

    symmetric = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "OpTypesToExcludeOutputQuantization": ["Conv", "Relu", "Add"],
    }
    return fastest(
        {
            "S8S8": _onnxruntime(
                case, "S8S8", activation_type=QuantType.QInt8, extra_options=symmetric
            ),
            "U8S8": _onnxruntime(case, "U8S8", activation_type=QuantType.QUInt8),
        }
    )


def _onnxruntime(case: Case, form: str, **options: Any) -> Candidate:
    """Quantize with ONNX Runtime in one form."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    source = load_network(case.standard).input

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(case.calibration_tensors())

        def get_next(self) -> dict[str, Any] | None:
            x = next(self._left, None)
            return None if x is None else {source: x}

    path = case.standard.with_name(f"{case.name}-ort-{form.lower()}.onnx")
    with quiet():
        quantize_static(
            str(case.standard),
            str(path),
            Reader(),
            quant_format=QuantFormat.QDQ,
            weight_type=QuantType.QInt8,
            per_channel=True,
            **options,
        )
    return onnxruntime_candidate(path, case.tensor, ORT)


def nncf_int8(case: Case) -> Candidate:
    """Return NNCF's quantization in the faster of its presets, run by OpenVINO.

    OpenVINO computes the float parts in BF16. It gets edgeseg's lowered graph: OpenVINO has no
    ``MaxUnpool``, and PyTorch's scatter export would take seconds per frame.
    """
    os.environ.setdefault("NNCF_CI", "1")  # no telemetry
    try:
        with quiet():
            nncf: Any = import_module("nncf")
    except ImportError as error:
        raise LeftOutError(NNCF, "nncf is not installed (pip install nncf)") from error
    presets = nncf.QuantizationPreset
    best = fastest(
        {
            "preset mixed": _nncf(case, nncf, presets.MIXED),
            "preset performance": _nncf(case, nncf, presets.PERFORMANCE),
        }
    )
    best.detail["about"] = (
        "Its graph is edgeseg's, unpooling lowered: OpenVINO has no MaxUnpool, and a scatter is "
        "slow"
    )
    return best


def _nncf(case: Case, nncf: Any, preset: Any) -> Candidate:
    """Quantize with NNCF in one preset."""
    x = case.tensor
    graph = Graph(load_network(case.standard).model)
    lower_unpooling(graph, PassContext())
    model = runtime.core().read_model(graph.model.SerializeToString())
    model.reshape(list(x.shape))
    frames = case.calibration_tensors()
    with quiet():
        quantized = nncf.quantize(
            model, nncf.Dataset(frames), preset=preset, subset_size=len(frames)
        )
    return openvino_candidate(quantized, x, NNCF)


def int8_candidates(case: Case) -> tuple[list[Candidate], dict[str, str]]:
    """Every way in INT8, and why a row is left out, by its name."""
    found: list[Candidate] = []
    left_out: dict[str, str] = {}
    for build in (edgeseg_int8, edgeseg_mixed, onnxruntime_int8, nncf_int8):
        try:
            found.append(build(case))
        except LeftOutError as error:
            left_out[error.row] = str(error)
    return found, left_out
