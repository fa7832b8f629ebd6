"""Small graphs that show whether OpenVINO computes INT8 on this processor as the ONNX standard
says.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeseg.types import Float

CHANNELS, SIDE = 16, 8
_SCALE = np.float32(2.0**-5)


def concat_graph() -> onnx.ModelProto:
    """Return the smallest graph known on which signed INT8 goes wrong without AMX.

    Two INT8 convolutions of one input, a concat, a ReLU, then INT8 again: OpenVINO moves the second
    quantization up
    through the concat and loses its scale there, so that values come out as whole numbers. The
    input is ``x``
    (1, 16, 8, 8) float32, the output ``y`` (1, 32, 8, 8) float32. All weights are identities.
    """
    identity = np.eye(CHANNELS, dtype=np.int8)[:, :, None, None]
    wide = np.eye(2 * CHANNELS, dtype=np.int8)[:, :, None, None]
    constants = {
        "scale": np.array(_SCALE),
        "one": np.array(1, np.float32),
        "zero": np.array(0, np.int8),
        "left": identity,
        "right": -identity,
        "wide": wide,
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["x/int8"]),
        helper.make_node("DequantizeLinear", ["x/int8", "scale", "zero"], ["x/dq"]),
        helper.make_node("DequantizeLinear", ["left", "one", "zero"], ["left/dq"]),
        helper.make_node("DequantizeLinear", ["right", "one", "zero"], ["right/dq"]),
        helper.make_node("DequantizeLinear", ["wide", "one", "zero"], ["wide/dq"]),
        helper.make_node("Conv", ["x/dq", "left/dq"], ["a"]),
        helper.make_node("Conv", ["x/dq", "right/dq"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["joined"], axis=1),
        helper.make_node("Relu", ["joined"], ["positive"]),
        helper.make_node("QuantizeLinear", ["positive", "scale", "zero"], ["positive/int8"]),
        helper.make_node("DequantizeLinear", ["positive/int8", "scale", "zero"], ["positive/dq"]),
        helper.make_node("Conv", ["positive/dq", "wide/dq"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CHANNELS, SIDE, SIDE]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2 * CHANNELS, SIDE, SIDE]),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "concat_probe", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def concat_input() -> Float:
    """Return an input of ``concat_graph``: (1, 16, 8, 8) float32 whole multiples of its scale, of
    both signs.
    """
    steps = np.arange(CHANNELS * SIDE * SIDE, dtype=np.float32) % 201 - 100
    x: Float = (steps * _SCALE).reshape(1, CHANNELS, SIDE, SIDE)
    return x


def concat_output(x: Float) -> Float:
    """Return what ``concat_graph`` gives for ``concat_input``: (1, 32, 8, 8) float32."""
    y: Float = np.maximum(np.concatenate([x, -x], axis=1), np.float32(0))
    return y
