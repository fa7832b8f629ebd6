"""One Q/DQ file, the same labels in every runtime; and TensorRT builds it without a complaint.

A value that falls on the edge between two steps goes to one or the other by the last bit of a
float, and behind some dozens of layers that is another sample of the rounding noise: scales of any
value cost some thousandths of the labels. With scales that are powers of two there is no last bit
to differ in, and what is left is layers kept in float.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import foreign_nets
import numpy as np
import onnx
import processors
import pytest
from lowered import deploy, dequantize_early, lower_unpooling, propagate_qdq
from once import made_once
from onnx import numpy_helper
from onnx_tools import assert_builds, kinds, make, node, run_openvino, run_ort

from edgeseg.backends.openvino import probes
from edgeseg.backends.tensorrt.graphs import graph_for
from edgeseg.graph.graph import Graph
from edgeseg.graph.network import Network, load_network
from edgeseg.graph.ops import moves
from edgeseg.graph.passes.fold_batchnorm import fold
from edgeseg.imaging.preprocess import resize_frame, to_input
from edgeseg.quantize.calibration_set import resolve_set
from edgeseg.quantize.placement import Placement, place, scales, tensors_to_calibrate
from edgeseg.quantize.ptq import QuantizationPlan, plan_quantization
from edgeseg.quantize.qdq import describe, write_qdq
from edgeseg.reporter import SILENT
from edgeseg.zoo import zoo

SAME = 0.999
SIZE = foreign_nets.SIZE
DRIVE = f"synthetic://?length=5&size={SIZE[1]}x{SIZE[0]}&seed=7"
SLOW = [
    pytest.param(name, marks=pytest.mark.slow) for name in ("enet", "segnet")
]  # exporting them is


@dataclass(frozen=True)
class Case:
    """A net, its Q/DQ form and frames of its input size."""

    float_net: Network
    prepared: QuantizationPlan
    int8_net: Network
    placement: Placement
    frames: tuple[np.ndarray, ...]

    def scores(self, network: Network, frame: np.ndarray) -> np.ndarray:
        """(1, classes, H, W) of the file itself."""
        return run_ort(network.model, **{network.input: to_input(frame, network.spec)})[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("int8")


@pytest.fixture(scope="module", params=[*SLOW, *foreign_nets.NETS])
def case(request: pytest.FixtureRequest, folder: Path) -> Case:
    name = request.param
    if name in foreign_nets.NETS:
        return quantized(foreign_nets.write(name, folder), DRIVE, folder)

    # The run without AMX reads the same file: an export takes ten seconds.
    path = made_once(f"settled/{name}.onnx", lambda path: settled(name, path))
    return quantized(path, DRIVE, folder)


@pytest.fixture(scope="module")
def shipped(folder: Path) -> Case:
    return quantized(zoo()["enet-camvid"], "synthetic://?length=4&seed=7", folder, frames=1)


def quantized(path: Path, drive: str, folder: Path, frames: int = 2) -> Case:
    network = load_network(path)
    calibration = resolve_set(drive)
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # the fixtures of a module come before those of a test
        patch.setenv("EDGESEG_CACHE", str(folder / "cache"))
        prepared = plan_quantization(network, calibration)
    placement = prepared.placement()
    images = [
        np.ascontiguousarray(resize_frame(i, network.spec.input_size)) for i in calibration.images()
    ]
    return Case(network, prepared, prepared.quantized(placement), placement, tuple(images[:frames]))


def settled(name: str, path: Path) -> None:
    """Export a net of ours with random weights.

    Its normalisation is settled on noise; its scores have mean 0 and deviation 1 on frames.
    """
    torch = pytest.importorskip("torch")
    from edgeseg.export.onnx_from_torch import export_module
    from edgeseg.models import architecture, create
    from edgeseg.spec import CAMVID_11, ModelSpec

    torch.manual_seed(0)
    spec = ModelSpec(
        architecture=name, input_size=SIZE, stride=architecture(name).stride, labels=CAMVID_11
    )
    net = create(name, len(CAMVID_11)).train()
    frames = torch.from_numpy(
        np.concatenate([to_input(image, spec) for image in resolve_set(DRIVE).images()])
    )
    with torch.no_grad():
        for _ in range(2):
            net(torch.randn(1, 3, *SIZE))
        scores = net.eval()(frames)
        mean, deviation = scores.mean(dim=(0, 2, 3)), scores.std(dim=(0, 2, 3))
        last: Any = net.classifier
        last.weight /= deviation.reshape(
            (1, -1, 1, 1) if isinstance(last, torch.nn.ConvTranspose2d) else (-1, 1, 1, 1)
        )
        last.bias.copy_((last.bias - mean) / deviation)
    export_module(net, spec, path)


# -- the file --------------------------------------------------------------------------------------


def test_the_file_is_valid_and_differs_from_the_net_by_rounding_alone(case: Case) -> None:
    onnx.checker.check_model(case.int8_net.model, full_check=True)
    inside, layers = describe(case.int8_net.model)
    assert inside == len(case.placement.layers) >= 6
    assert layers - inside == len(case.placement.floats)
    frame = case.frames[0]
    exact, rounded = (case.scores(net, frame) for net in (case.float_net, case.int8_net))
    shares = np.bincount(rounded.argmax(1).ravel(), minlength=exact.shape[1]) / rounded[0, 0].size
    assert (shares > 0.02).sum() >= 3, "a net that sees one class everywhere proves nothing"
    error = np.sqrt(np.mean((rounded - exact) ** 2)) / exact.std()
    assert 0 < error < 0.8  # of a random net, whose classes lie as close as noise


def test_any_choice_of_layers_left_in_float_can_be_written(case: Case) -> None:
    """Whatever stays in float, the ranges collected once are enough."""
    names = [*case.placement.layers, *case.placement.sums]
    draw = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.9):
        kept = [name for name in names if draw.random() < share] or names[:1]
        placement = case.prepared.placement(kept)
        assert set(placement.layers) == set(case.placement.layers) - set(kept)
        assert set(placement.sums) <= set(case.placement.sums) - set(
            kept
        )  # one in front of floats alone is one, too
        model = case.prepared.quantized(placement).model
        onnx.checker.check_model(model, full_check=True)
        assert describe(model)[0] == len(placement.layers)


def test_nothing_is_rounded_behind_a_move_in_the_deployed_graph(case: Case) -> None:
    model = deploy(case.int8_net)
    onnx.checker.check_model(model, full_check=True)
    graph = Graph(model)
    for quantizer in (n for n in model.graph.node if n.op_type == "QuantizeLinear"):
        source = graph.producer.get(quantizer.input[0])
        assert source is None or not moves(source, graph.array), quantizer.name
    assert kinds(model)["QuantizeLinear"] == len(tensors_to_calibrate(case.placement))


# -- the same labels -------------------------------------------------------------------------------


def agreement(case: Case, run: Callable[[np.ndarray], np.ndarray], want: list[np.ndarray]) -> float:
    return float(np.mean([(run(f) == w).mean() for f, w in zip(case.frames, want, strict=True)]))


def assert_same_labels(case: Case) -> None:
    """OpenVINO on the forms of the deployed graph, and on TensorRT's, against the file in ONNX
    Runtime.

    Signed activations, as TensorRT's form has them, are asked of OpenVINO only where this processor
    has them right.
    """
    want = [case.scores(case.int8_net, frame).argmax(1) for frame in case.frames]
    tensorrt_form = deploy(case.int8_net, for_openvino=False)
    assert agreement(case, lambda f: run_ort(tensorrt_form, frame=f[None])[0], want) >= SAME
    forms = {
        "search, unsigned": deploy(case.int8_net, unsigned=True),
        "compare, unsigned": deploy(case.int8_net, unsigned=True, compare=True),
    }
    if probes.signed_int8_is_exact():
        forms |= {
            "search": deploy(case.int8_net),
            "compare": deploy(case.int8_net, compare=True),
            "tensorrt": tensorrt_form,
        }

    def run_by(model: onnx.ModelProto) -> Callable[[np.ndarray], np.ndarray]:
        return lambda frame: run_openvino(model, frame=frame[None])[0]

    found = {k: agreement(case, run_by(m), want) for k, m in forms.items()}
    print(f"{case.float_net.name} on {processors.name()}: {found}")
    assert min(found.values()) >= SAME, (processors.name(), found)


def test_every_scale_is_a_power_of_two_unless_any_is_asked_for(case: Case) -> None:
    def mantissas(network: Network) -> set[float]:
        constants = {t.name: numpy_helper.to_array(t) for t in network.model.graph.initializer}
        pairs = [
            n
            for n in network.model.graph.node
            if n.op_type in ("QuantizeLinear", "DequantizeLinear")
        ]
        scales = [constants[pair.input[1]].ravel() for pair in pairs]
        return set(np.frexp(np.concatenate(scales))[0].tolist())

    assert mantissas(case.int8_net) == {0.5}
    any_scales = replace(case.prepared, exact=False)
    assert len(mantissas(any_scales.quantized(case.placement))) > len(case.placement.layers)


def test_labels_are_the_same_in_onnx_runtime_and_openvino(case: Case) -> None:
    assert_same_labels(case)


@pytest.mark.slow
def test_the_shipped_net_has_the_same_labels(shipped: Case) -> None:
    onnx.checker.check_model(shipped.int8_net.model, full_check=True)
    assert_same_labels(shipped)


CONSTANTS = {"sizes": np.array([1, 16, 12, 12])}
MAX_POOL: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
BLOCKS: dict[
    str, tuple[list[onnx.NodeProto], int]
] = {  # nodes from ``x`` to ``y``, sums among them that run in INT8
    "residual": (
        [node("Conv", "x b c", "r", pads=[1] * 4), node("Add", "r x", "s"), node("Relu", "s", "y")],
        1,
    ),
    "projected": (
        [
            node("Conv", "x b c", "r", pads=[1] * 4),
            node("Conv", "x p c", "q"),
            node("Add", "r q", "s"),
            node("PRelu", "s slope", "y"),
        ],
        1,
    ),
    "linear": ([node("Conv", "x p c", "r"), node("Add", "x r", "y")], 1),
    "activated": ([node("Conv", "x p c", "r"), node("Relu", "r", "t"), node("Add", "t x", "y")], 1),
    "sum of sums": (
        [
            node("Conv", "x p c", "r"),
            node("Add", "r x", "s"),
            node("Conv", "s b c", "t", pads=[1] * 4),
            node("Add", "s t", "u"),
            node("Relu", "u", "y"),
        ],
        2,
    ),
    "unpooled": (
        [
            node("MaxPool", "x", "m i", **MAX_POOL),
            node("Conv", "m p c", "r"),
            node("MaxUnpool", "r i sizes", "u", **MAX_POOL),
            node("Conv", "x p c", "t"),
            node("Add", "u t", "s"),
            node("Relu", "s", "y"),
        ],
        1,
    ),
    "concatenated": (
        [
            node("Conv", "x p c", "r"),
            node("Relu", "r", "t"),
            node("Concat", "t x", "v", axis=1),
            node("Conv", "v wide c", "s"),
            node("HardSwish", "s", "y"),
        ],
        0,
    ),
    "depthwise": (
        [
            node("Conv", "x deep c", "r", group=16, pads=[1] * 4),
            node("Clip", "r zero six", "t"),
            node("Conv", "t p c", "y"),
        ],
        0,
    ),
    "gated": (
        [
            node("GlobalAveragePool", "x", "g"),
            node("Conv", "g p c", "h"),
            node("Sigmoid", "h", "k"),
            node("Mul", "x k", "s"),
            node("Conv", "s p c", "y"),
        ],
        0,
    ),
    "upsampled": (
        [
            node("MaxPool", "x", "m", **MAX_POOL),
            node("Resize", "m - - sizes", "n", mode="nearest"),
            node("Resize", "m - - sizes", "l", mode="linear"),
            node("Add", "n l", "y"),
        ],
        1,
    ),
    "deconvolved": (
        [
            node("MaxPool", "x", "m", **MAX_POOL),
            node("ConvTranspose", "m up c", "d", strides=[2, 2]),
            node("Add", "d x", "s"),
            node("Relu", "s", "y"),
        ],
        1,
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_openvino_rounds_where_the_file_does_and_nowhere_else(name: str) -> None:
    """A block between two layers, its sums and activations fused as OpenVINO likes: scores equal to
    float rounding.

    A rounding more or less would move most of them by a part of a step, hundreds of times what is
    allowed.
    """
    draw = np.random.default_rng(len(name))

    def weights(*shape: int) -> np.ndarray:
        return draw.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype(np.float32)

    nodes, sums = BLOCKS[name]
    constants = {
        "p": weights(16, 16, 1, 1),
        "b": weights(16, 16, 3, 3),
        "wide": weights(16, 32, 1, 1),
        "up": weights(16, 16, 2, 2),
        "deep": weights(16, 1, 3, 3),
        "c": weights(16),
        "slope": draw.uniform(0.1, 0.6, (16, 1, 1)).astype(np.float32),
        "zero": np.float32(0),
        "six": np.float32(6),
        **CONSTANTS,
    }
    ends = [node("Conv", "image b c", "stem", pads=[1] * 4), node("Relu", "stem", "x")]
    ends += [
        *nodes,
        node("Conv", "y b c", "z", pads=[1] * 4),
        node("Relu", "z", "a"),
        node("Conv", "a p c", "out"),
    ]
    model = fold(make(ends, {"image": [1, 16, 12, 12]}, "out", **constants))
    image = draw.normal(size=(1, 16, 12, 12)).astype(np.float32)
    placement = place(model)
    assert len(placement.sums) == sums
    names = tensors_to_calibrate(placement)
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    seen.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name != "image")
    found = dict(
        zip([o.name for o in seen.graph.output], run_ort(seen, image=image), strict=True),
        image=image,
    )
    # Three quarters of the largest value: some are clipped.
    file = write_qdq(
        model,
        placement,
        scales(placement, {n: 0.75 * float(np.abs(found[n]).max()) for n in names}),
    )
    want = run_ort(file, image=image)[0]
    got = run_openvino(dequantize_early(lower_unpooling(propagate_qdq(file))), image=image)[0]
    assert np.mean(np.abs(got - want) > 1e-5 * want.std()) < 0.02


# -- TensorRT --------------------------------------------------------------------------------------


def test_tensorrt_rtx_builds_it_and_has_nothing_to_say(
    tensorrt_rtx: ModuleType, case: Case
) -> None:
    graph, _ = graph_for(case.int8_net, "int8", None, SILENT)
    # TensorRT-RTX has no matrix product of these types for Turing.
    assert_builds(
        tensorrt_rtx, graph, turing=not {"Gemm", "MatMul"} & {n.op_type for n in graph.graph.node}
    )


@pytest.mark.slow
def test_tensorrt_rtx_builds_the_shipped_net(tensorrt_rtx: ModuleType, shipped: Case) -> None:
    assert_builds(tensorrt_rtx, graph_for(shipped.int8_net, "int8", None, SILENT)[0])
