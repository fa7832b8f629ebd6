"""Nodes computed in float, rounded as the file rounds.

Equal to the Q/DQ file, whichever nodes are chosen.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from lowered import deploy
from onnx_tools import kinds, make, node, run_ort

from edgeseg.backends.base import PlanOptions
from edgeseg.backends.openvino.forms import named
from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.build.options import Quantization
from edgeseg.graph.network import Network, load_network
from edgeseg.graph.passes.float_rounding import quantized_readers, round_in_float

SET = "synthetic://?length=3&size=96x64&seed=4"


@pytest.fixture(scope="module")
def network(small_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Network:
    """ENet at 64x96 as a Q/DQ net."""
    folder = tmp_path_factory.mktemp("rounding")
    build_engine(
        small_onnx,
        precision="int8",
        calib=SET,
        out=folder / "e.engine",
        quantization=Quantization(least_agreement=0, save_onnx=folder / "q.onnx"),
        plan=PlanOptions(prove=False),
    )
    return named(load_network(folder / "q.onnx"))


def scores(network: Network, model: onnx.ModelProto) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(1, 3, 64, 96)).astype(np.float32)
    return run_ort(model, **{network.input: x})[0]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_any_choice_of_nodes_gives_the_same_scores(network: Network, share: float) -> None:
    names = quantized_readers(network.model)
    assert len(names) > 60
    draw = np.random.default_rng(int(10 * share))
    chosen = [name for name in names if draw.random() < share]
    before = network.model.SerializeToString(deterministic=True)
    model = round_in_float(network.model, chosen)
    assert network.model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(scores(network, model), scores(network, network.model))
    left = kinds(model)["QuantizeLinear"]
    assert left == 0 if share == 1 else left <= kinds(network.model)["QuantizeLinear"]
    assert not set(chosen) & set(quantized_readers(model))


def test_unsigned_and_shifted_activations() -> None:
    """As other quantizers write them: UINT8 with a zero point."""
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("DequantizeLinear", "w ws wz", "wd", axis=0),
        node("Conv", "d wd", "y"),
    ]
    constants = {
        "s": np.float32(0.03),
        "z": np.uint8(77),
        "w": np.arange(-12, 12, dtype=np.int8).reshape(4, 6, 1, 1),
        "ws": np.array([0.1, 0.2, 0.3, 0.4], np.float32),
        "wz": np.zeros(4, np.int8),
    }
    model = make(nodes, {"x": [1, 6, 5, 5]}, "y", **constants)
    x = np.random.default_rng(0).normal(0, 4, (1, 6, 5, 5)).astype(np.float32)
    rounded = round_in_float(model, ["y"])
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(kinds(rounded))
    np.testing.assert_allclose(run_ort(rounded, x=x)[0], run_ort(model, x=x)[0], atol=1e-5)


def test_what_is_not_there_is_ignored(network: Network) -> None:
    model = round_in_float(network.model, ["no such node"])
    assert kinds(model) == kinds(network.model)


def test_the_deployed_graph_labels_alike(network: Network) -> None:
    from dataclasses import replace

    names = quantized_readers(network.model)[::3]
    rounded = replace(network, model=round_in_float(network.model, names))
    frame = np.random.default_rng(1).integers(0, 256, (1, 64, 96, 3), np.uint8)
    ways: tuple[dict[str, Any], ...] = ({"for_openvino": False}, {"unsigned": True}, {})
    for options in ways:
        want = run_ort(deploy(network, for_openvino=False), frame=frame)[0]
        np.testing.assert_array_equal(run_ort(deploy(rounded, **options), frame=frame)[0], want)
