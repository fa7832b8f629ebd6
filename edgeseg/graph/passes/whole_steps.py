"""Round to whole steps in front of Q nodes whose rounding OpenVINO would get wrong.

OpenVINO adds the zero point before it rounds, which costs a float32 number its last bits: a value
within 2^-17 of the middle between two steps goes to the other side.
"""

import hashlib

import numpy as np
import numpy.typing as npt
from onnx import NodeProto

from edgeseg.graph.graph import Graph
from edgeseg.graph.nodes import is_op
from edgeseg.graph.passes import PassContext


def round_behind_gains(graph: Graph, context: PassContext) -> None:
    """Round to whole steps before the Q nodes behind a per-channel gain or offset.

    This is for signed activations, unless ``context.unsigned``. OpenVINO computes gain, offset and
    quantization in one step with a zero point of 128 in it, even where activations are signed, and
    loses the last bits. All other signed activations it rounds exactly.

    Parameters
    ----------
    graph : a Q/DQ graph in OpenVINO's form, to edit.
    context : the options.
    """
    if context.unsigned:
        return
    for node in graph.nodes("QuantizeLinear"):
        if is_symmetric_int8(graph, node) and _behind_gain(graph, node):
            round_first(graph, node)


def _behind_gain(graph: Graph, quantizer: NodeProto) -> bool:
    """Return True if a Q node reads the product or the sum of a tensor and a constant."""
    maker = graph.producer.get(quantizer.input[0])
    if maker is None or not is_op(maker, "Mul", "Add", "BatchNormalization"):
        return False
    return any(graph.array(name) is not None for name in maker.input)


def is_symmetric_int8(graph: Graph, node: NodeProto) -> bool:
    """Return True if a Q or DQ node has one scale for the tensor, and an INT8 zero point of 0.

    Parameters
    ----------
    graph : the graph of the node.
    node : a Q or DQ node.
    """
    if len(node.input) < 3:
        return False
    scale = graph.array(node.input[1])
    zero = graph.array(node.input[2])
    if scale is None or zero is None:
        return False
    return bool(scale.size == 1 and zero.dtype == np.int8 and not np.any(zero))


def round_first(graph: Graph, quantizer: NodeProto) -> None:
    """Round to whole steps in front of a Q node, before the zero point is added.

    Parameters
    ----------
    graph : the graph to edit.
    quantizer : the Q node; its scale is one constant.
    """
    scale = graph.array(quantizer.input[1])
    assert scale is not None
    step = np.float32(scale.reshape(()))
    name = quantizer.input[0]
    steps = graph.unique(f"{name}/steps")
    whole = graph.unique(f"{name}/whole")
    out = graph.unique(f"{name}/rounded")

    # A power of two: the product with its inverse is exact.
    if np.frexp(step)[0] == 0.5:
        factor = constant_by_value(graph, "steps", np.asarray(1 / step))
        graph.node("Mul", [name, factor], steps, name=steps, before=quantizer)
    else:
        divisor = constant_by_value(graph, "steps", np.asarray(step))
        graph.node("Div", [name, divisor], steps, name=steps, before=quantizer)

    back = constant_by_value(graph, "step", np.asarray(step))
    graph.node("Round", [steps], whole, name=whole, before=quantizer)
    graph.node("Mul", [whole, back], out, name=out, before=quantizer)
    graph.set_input(quantizer, 0, out)


def constant_by_value(graph: Graph, hint: str, value: npt.NDArray[np.generic]) -> str:
    """Return the name of an initializer that holds a value, and that its name describes.

    Parameters
    ----------
    graph : the graph to edit.
    hint : a word of the name.
    value : the value.
    """
    digest = hashlib.sha256(value.tobytes()).hexdigest()[:12]
    return graph.constant(f"unsigned/{hint}/{value.dtype}{list(value.shape)}/{digest}", value)
