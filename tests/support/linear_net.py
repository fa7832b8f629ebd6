"""A net of one convolution with random weights: no torch, no spec inside."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def linear_net(
    path: Path, classes: int = 11, size: tuple[int, int] = (64, 96), seed: int = 0, road: float = 0
) -> Path:
    """Write a net of one 3x3 convolution; ``road`` is added to the scores of class 3."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(classes, 3, 3, 3)).astype(np.float32)
    bias = np.zeros(classes, np.float32)
    if road:
        bias[3] = road
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], pads=[1, 1, 1, 1])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, *size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, classes, *size])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path
    )
    return path
