"""Tables of operators by what they do: have weights, only move values, activate, or quantize."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto

from edgeseg.graph.nodes import attributes, is_op

LAYERS = ("Conv", "Gemm", "MatMul")
WEIGHTED = (*LAYERS, "ConvTranspose")

# Operators that only move values, and in which roles edgeseg lets them do it. `inputs`: how many of
# the first inputs are data (-1: all). The roles, a letter each:
#   q  works on the INT8 tensor between a DQ and a Q of one scale (MOVES)
#   e  may stand behind a DQ instead of in front of it (RESHAPES)
#   s  gives the shifted result if its 8-bit inputs are shifted by one number (SHIFTED)
#   c  carries a dequantized tensor to an INT8 layer in a graph that computes in FP16 (CARRIERS)
#   b  passes bytes on, to where they are cast (BYTE_MOVES)
#   i  keeps every class id of a label map (ID_MOVES)
_MOVERS = {
    # operator: (inputs, roles)
    "Concat": (-1, "q.s..."),
    "DepthToSpace": (1, "q.sc.."),
    "Expand": (1, "q.sc.."),
    "Flatten": (1, "qescb."),
    "Gather": (1, "..scb."),
    "Identity": (1, "..scbi"),
    "MaxPool": (1, "q.sc.."),
    "MaxUnpool": (1, "q....."),
    "Pad": (1, "qesc.."),
    "Reshape": (1, "qescbi"),
    "Resize": (1, "q.s..."),
    "ScatterElements": (1, "..s..."),
    "Slice": (1, "q.scb."),
    "SpaceToDepth": (1, "q.sc.."),
    "Split": (1, "q.sc.."),
    "Squeeze": (1, "qescbi"),
    "Tile": (1, "q.s..."),
    "Transpose": (1, "qescbi"),
    "Unsqueeze": (1, "qescbi"),
    "Upsample": (1, "q....."),
    "Where": (1, "..s..."),
}


def _with_role(role: str) -> tuple[str, ...]:
    """Return the operators of ``_MOVERS`` that have a role."""
    return tuple(op for op, (_, roles) in _MOVERS.items() if role in roles)


MOVES = {op: _MOVERS[op][0] for op in _with_role("q")}
RESHAPES = _with_role("e")
SHIFTED = _with_role("s")
CARRIERS = _with_role("c")
BYTE_MOVES = _with_role("b")
ID_MOVES = _with_role("i")

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
    "QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
    "MatMulInteger", "DynamicQuantizeLinear", "FakeQuantize",
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
    constant : function that returns the value of a constant by name, and ``None`` for a computed
        tensor.

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
    node : a node; all outputs of a ``Split`` count, else the first (the Indices of a pooling do
        not).

    Examples
    --------
    >>> from onnx import helper
    >>> pool = helper.make_node("MaxPool", ["x"], ["y", "indices"], kernel_shape=[2, 2])
    >>> data_outputs(pool)
    ['y']
    """
    outputs = node.output if is_op(node, "Split") else node.output[:1]
    return [name for name in outputs if name]
