"""The graph a target compiles.

Preprocessing and argmax inside, to the bit what the contract says outside.
"""

from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
from lowered import deploy
from onnx_tools import rtx_log

from edgeseg.graph.network import load_network
from edgeseg.imaging.preprocess import coefficients, to_input
from edgeseg.spec import CAMVID_11, ModelSpec
from edgeseg.zoo import zoo


def run(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, feed)[0])


@pytest.mark.parametrize("for_openvino", [True, False])
def test_preprocessing_inside_is_the_contract_outside(small_onnx: Path, for_openvino: bool) -> None:
    """Scores of the deployed graph against the plain file fed by ``to_input``.

    Both by ONNX Runtime, unoptimised.
    """
    network = load_network(small_onnx)
    frame = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    want = run(onnx.load(small_onnx), {"image": to_input(frame, network.spec)})
    got = run(deploy(network, scores=True, for_openvino=for_openvino), {"frame": frame[None]})
    np.testing.assert_allclose(got[0].transpose(2, 0, 1), want[0], atol=2e-5 * np.ptp(want))
    labels = run(deploy(network, for_openvino=for_openvino), {"frame": frame[None]})
    np.testing.assert_array_equal(labels[0], got[0].argmax(2))


def test_pooling_bytes_changes_nothing(small_onnx: Path) -> None:
    network = load_network(small_onnx)
    frame = np.random.default_rng(1).integers(0, 256, (1, 64, 96, 3), np.uint8)
    bytes_first, floats_first = (
        deploy(network, scores=True, for_openvino=flag) for flag in (True, False)
    )
    first = next(n for n in bytes_first.graph.node if n.op_type == "MaxPool")
    assert first.input[0] == "edgeseg/rgb"  # the byte planes
    np.testing.assert_array_equal(
        run(bytes_first, {"frame": frame}), run(floats_first, {"frame": frame})
    )


def test_deployed_graph_is_valid_onnx(small_onnx: Path) -> None:
    network = load_network(small_onnx)
    before = network.model.SerializeToString()
    for flag in (True, False):
        model = deploy(network, for_openvino=flag)
        onnx.checker.check_model(model, full_check=True)
        assert [i.name for i in model.graph.input] == ["frame"]
        assert [o.name for o in model.graph.output] == ["labels"]
    assert network.model.SerializeToString() == before


def test_coefficients_are_the_formula() -> None:
    spec = ModelSpec(
        architecture="x",
        input_size=(2, 2),
        labels=CAMVID_11,
        mean=(0.1, 0.2, 0.3),
        std=(0.5, 0.25, 2.0),
    )
    gain, offset = coefficients(spec)
    pixel = np.array([10.0, 100.0, 200.0])
    np.testing.assert_allclose(
        gain * pixel + offset, (pixel / 255 - spec.mean) / spec.std, rtol=1e-6
    )
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[..., 2] = 255  # red, in BGR
    np.testing.assert_allclose(
        to_input(frame, spec)[0, :, 0, 0], [(1 - 0.1) / 0.5, -0.2 / 0.25, -0.3 / 2.0], rtol=1e-6
    )


def test_tensorrt_rtx_builds_the_shipped_net(tensorrt_rtx: ModuleType) -> None:
    """Frame in, label map out, unpooling native.

    Parsed and built ahead of time for two GPUs on a machine with none.
    """
    trt = tensorrt_rtx
    model = deploy(load_network(zoo()["enet-camvid"]), for_openvino=False)
    builder = trt.Builder(rtx_log().logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, rtx_log().logger)
    assert parser.parse(model.SerializeToString()), [
        parser.get_error(i).desc() for i in range(parser.num_errors)
    ]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 2
    for place, capability in enumerate((trt.ComputeCapability.SM86, trt.ComputeCapability.SM89)):
        config.set_compute_capability(capability, place)
    assert builder.build_serialized_network(network, config) is not None


def test_slopes_shared_by_activations_are_not_in_the_engine() -> None:
    """Shared slopes keep OpenVINO from fusing PReLU into convolutions.

    The values stay what they were.
    """
    network = load_network(zoo()["enet-camvid"])
    slopes = [n.input[1] for n in network.model.graph.node if n.op_type == "PRelu"]
    for node in network.model.graph.node:
        if node.op_type == "PRelu" and node.input[1] == slopes[-2]:
            node.input[1] = (
                slopes[-1] if _same_shape(network.model, slopes[-2], slopes[-1]) else slopes[-2]
            )
    model = deploy(network)
    used = [n.input[1] for n in model.graph.node if n.op_type == "PRelu"]
    assert len(used) == len(set(used)) == len(slopes)


def _same_shape(model: onnx.ModelProto, one: str, other: str) -> bool:
    dims = {t.name: list(t.dims) for t in model.graph.initializer}
    return dims[one] == dims[other]
