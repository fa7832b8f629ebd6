"""Weights that are not numbers make no engine; the tensor is named."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_tools import make, node

from edgeseg.backends.proof import reference
from edgeseg.errors import GraphError
from edgeseg.graph.network import Overrides, load_network
from edgeseg.graph.onnx_file import read_onnx

SHAPE = (3, 3, 1, 1)


def conv(dtype: type = np.float32, **changes: float) -> onnx.ModelProto:
    """A net of one convolution; ``w`` and ``b`` are values put into a weight."""
    weight: np.ndarray = np.full(SHAPE, 0.5, dtype)
    bias: np.ndarray = np.zeros(3, dtype)
    weight.flat[4] = changes.get("w", 0.5)
    bias[1] = changes.get("b", 0.0)
    model = make(
        [node("Conv", "x w b", "y")],
        {"x": [1, 3, 8, 8]},
        "y",
        w=np.zeros(SHAPE, np.float32),
        b=np.zeros(3, np.float32),
    )
    for tensor, values in zip(model.graph.initializer, (weight, bias), strict=True):
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tensor", ["w", "b"])
def test_a_weight_that_is_no_number_is_named(
    tmp_path: Path, dtype: type, value: float, tensor: str
) -> None:
    path = saved(conv(dtype, **{tensor: value}), tmp_path)
    says = f"tensor '{tensor}' has weights that are not numbers"
    with pytest.raises(GraphError, match=says) as caught:
        load_network(path)
    assert ("NaN" if np.isnan(value) else "an infinite value") in str(caught.value)


def test_a_double_that_float_cannot_hold_is_infinite(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"tensor 'w' .* an infinite value"):
        read_onnx(saved(conv(np.float64, w=1e300), tmp_path))


def test_a_constant_node_in_a_subgraph_is_checked(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(np.full(3, np.nan, np.float32))
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    body = helper.make_graph([constant], "b", [], [onnx.ValueInfoProto(name="c")])
    model = conv()
    model.graph.node.append(helper.make_node("If", ["t"], ["d"], then_branch=body))
    with pytest.raises(GraphError, match="tensor 'c' has weights that are not numbers"):
        read_onnx(saved(model, tmp_path))


def test_infinite_limits_and_masks_are_sound(tmp_path: Path) -> None:
    nodes = [node("Clip", "x low high", "a"), node("Max", "a mask", "y")]
    model = make(
        nodes,
        {"x": [1, 3, 8, 8]},
        "y",
        low=np.float32(0),
        high=np.float32(np.inf),
        mask=np.full((3, 8, 8), -np.inf, np.float32),
    )
    read_onnx(saved(model, tmp_path))


def test_a_net_that_gives_nan_on_a_frame_is_refused(tmp_path: Path) -> None:
    """Sound weights, but the logarithm of a normalised pixel is none."""
    nodes = [node("Log", "x", "a"), node("Conv", "a w", "y")]
    model = make(nodes, {"x": [1, 3, 32, 32]}, "y", w=np.ones((3, 3, 1, 1), np.float32))
    network = load_network(saved(model, tmp_path), Overrides(size=(32, 32)))
    with pytest.raises(GraphError, match=r"gives scores that are not numbers: got NaN in .*%"):
        reference(network, [np.zeros((32, 32, 3), np.uint8)])
