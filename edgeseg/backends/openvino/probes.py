"""Probe with small graphs whether OpenVINO computes INT8 here as the ONNX standard says."""

import functools
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeseg.backends.openvino import runtime
from edgeseg.types import Float

CHANNELS, SIDE = 16, 8
_SCALE = np.float32(2.0**-5)

# The probe of products: channels, side of the image, and the largest INT8 value.
_PRODUCT_CHANNELS = 16
_PRODUCT_SIDE = 12
_LARGEST = 127

_CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}


@functools.cache
def int8_is_exact() -> bool:
    """Return True if OpenVINO's INT8 convolutions are exact sums of products.

    This runs a convolution with the largest products. Without VNNI (Intel up to Comet Lake, AMD
    before Zen 4) the sums are wrong: bytes are made unsigned, and two products are added in 16
    bits, which overflow (``vpmaddubsw``). Layers then give other values than the ONNX file, far off
    where weights are large. The result is False, too, if the convolution does not compile.
    """
    x = np.full((1, _PRODUCT_CHANNELS, _PRODUCT_SIDE, _PRODUCT_SIDE), _LARGEST, np.float32)
    found = _answer(products_graph(), x)
    if found is None:
        return False

    whole = 9 * _PRODUCT_CHANNELS * _LARGEST * _LARGEST
    even_right = (found[:, ::2] == whole).all()
    odd_right = (found[:, 1::2] == -whole).all()
    return bool(even_right and odd_right)


@functools.cache
def signed_int8_is_exact() -> bool:
    """Return True if OpenVINO computes signed INT8 activations correctly behind a concat.

    The probe (``concat_graph``) runs once per process. Without AMX the values are wrong; INT8
    networks are then compiled with unsigned activations. The result is False, too, if the probe
    does not compile.
    """
    x = concat_input()
    found = _answer(concat_graph(), x)
    return found is not None and bool(np.array_equal(found, concat_output(x)))


def _answer(graph: onnx.ModelProto, x: Float) -> Any | None:
    """Run a graph of one input and one output; return ``None`` if it does not compile or run."""
    core = runtime.core()
    try:
        model = core.read_model(graph.SerializeToString())
        compiled = core.compile_model(model, "CPU", dict(_CONFIG))
        return compiled([x])[0]
    except RuntimeError:
        return None


def products_graph() -> onnx.ModelProto:
    """Return an INT8 convolution, 3x3, whose weights are 127 and -127 in turns.

    The input is ``x`` (1, 16, 12, 12) float32, the output ``y`` (1, 16, 10, 10) float32.
    """
    channels = _PRODUCT_CHANNELS
    side = _PRODUCT_SIDE
    weights = np.full((channels, channels, 3, 3), _LARGEST, np.int8)
    weights[1::2] = -_LARGEST
    constants = {"one": np.float32(1), "zero": np.int8(0), "weights": weights}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["bytes"]),
        helper.make_node("DequantizeLinear", ["bytes", "one", "zero"], ["read"]),
        helper.make_node("DequantizeLinear", ["weights", "one", "zero"], ["read_weights"]),
        helper.make_node("Conv", ["read", "read_weights"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, side, side])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, channels, side - 2, side - 2])
    tensors = [
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    ]
    graph = helper.make_graph(nodes, "probe", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def concat_graph() -> onnx.ModelProto:
    """Return the smallest graph known on which signed INT8 goes wrong without AMX.

    Two INT8 convolutions of one input, a concat, a ReLU, then INT8 again: OpenVINO moves the second
    quantization up through the concat and loses its scale there, so that values come out as whole
    numbers. The input is ``x`` (1, 16, 8, 8) float32, the output ``y`` (1, 32, 8, 8) float32. All
    weights are identities.
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
    """Return an input of ``concat_graph``: (1, 16, 8, 8) float32, whole multiples of its scale."""
    steps = np.arange(CHANNELS * SIDE * SIDE, dtype=np.float32) % 201 - 100  # of both signs
    x: Float = (steps * _SCALE).reshape(1, CHANNELS, SIDE, SIDE)
    return x


def concat_output(x: Float) -> Float:
    """Return what ``concat_graph`` gives for ``concat_input``: (1, 32, 8, 8) float32."""
    y: Float = np.maximum(np.concatenate([x, -x], axis=1), np.float32(0))
    return y
