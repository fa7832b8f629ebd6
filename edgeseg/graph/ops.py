"""Tables of operators by what they do: have weights, only move values, activate, or quantize."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto

from edgeseg.graph.graph import attributes, is_op

LAYERS = ("Conv", "Gemm", "MatMul")
WEIGHTED = (*LAYERS, "ConvTranspose")
# Operators that only move values, and how many of their first inputs are data (-1: all).
MOVES = {
    "MaxPool": 1, "MaxUnpool": 1, "Concat": -1, "Resize": 1, "Upsample": 1, "Slice": 1, "Reshape": 1, "Transpose": 1,
    "Squeeze": 1, "Unsqueeze": 1, "Flatten": 1, "Split": 1, "Pad": 1, "DepthToSpace": 1, "SpaceToDepth": 1,
    "Expand": 1, "Tile": 1,
}  # fmt: skip
ACTIVATIONS = (
    "Relu",
    "PRelu",
    "LeakyRelu",
    "Clip",
    "HardSwish",
    "Sigmoid",
    "HardSigmoid",
    "Elu",
    "Selu",
    "Mish",
    "Gelu",
)
QUANTIZED_OPS = (
    "QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger",
    "DynamicQuantizeLinear", "FakeQuantize",
)  # fmt: skip


def is_quantized(model: ModelProto) -> bool:
    """Return True if the graph has operators of quantization.

    Parameters
    ----------
    model : any ONNX graph.

    Examples
    --------
    >>> is_quantized(ModelProto())
    False
    """
    return any(node.op_type in QUANTIZED_OPS for node in model.graph.node)


def moves(node: NodeProto, constant: Callable[[str], npt.NDArray[np.generic] | None]) -> bool:
    """Return True if a node only moves values.

    Values that it adds of its own, as a padding does, must be zero or lower than all others.

    Parameters
    ----------
    node : the node to look at.
    constant : function that returns the value of a constant by name, and ``None`` for a computed tensor.

    Examples
    --------
    >>> from onnx import helper
    >>> moves(helper.make_node("Transpose", ["x"], ["y"]), lambda name: None)
    True
    >>> moves(helper.make_node("Resize", ["x"], ["y"], mode="linear"), lambda name: None)
    False
    """
    if not is_op(node, *MOVES):
        return False

    attrs = attributes(node)
    if is_op(node, "Resize", "Upsample"):
        # A crop may reach outside of the image, where it writes ``extrapolation_value``.
        crops = attrs.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
        return bool(attrs.get("mode", b"nearest") == b"nearest" and not crops)

    if is_op(node, "Pad"):
        has_value = len(node.input) > 2 and node.input[2]
        value = constant(node.input[2]) if has_value else np.zeros(1)
        pads_zeros = value is not None and not np.any(value)
        return bool(attrs.get("mode", b"constant") != b"constant" or pads_zeros)

    if is_op(node, "Concat"):
        return all(constant(name) is None for name in node.input)
    return constant(node.input[0]) is None


def data_inputs(node: NodeProto) -> list[str]:
    """Return the names of the inputs that a node moves.

    Parameters
    ----------
    node : a node; if its operator is not in ``MOVES``, its first input counts.

    Examples
    --------
    >>> from onnx import helper
    >>> data_inputs(helper.make_node("Concat", ["a", "b"], ["c"], axis=1))
    ['a', 'b']
    """
    count = MOVES.get(node.op_type, 1)
    inputs = node.input if count < 0 else node.input[:count]
    return [name for name in inputs if name]


def data_outputs(node: NodeProto) -> list[str]:
    """Return the names of the outputs that hold moved values.

    Parameters
    ----------
    node : a node; all outputs of a ``Split`` count, else the first (the Indices of a pooling do not).

    Examples
    --------
    >>> from onnx import helper
    >>> data_outputs(helper.make_node("MaxPool", ["x"], ["y", "indices"], kernel_shape=[2, 2]))
    ['y']
    """
    outputs = node.output if is_op(node, "Split") else node.output[:1]
    return [name for name in outputs if name]
