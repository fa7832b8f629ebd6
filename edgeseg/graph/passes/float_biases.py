"""Write INT32 biases as floats."""

import numpy as np
from onnx import NodeProto

from edgeseg.graph.graph import Graph
from edgeseg.graph.nodes import attributes
from edgeseg.graph.passes import PassContext
from edgeseg.types import Float


def float_biases(graph: Graph, context: PassContext) -> None:
    """Make INT32 constants in front of a DQ node floats: TensorRT takes no INT32 there.

    Parameters
    ----------
    graph : a Q/DQ graph or a float graph, to edit.
    context : not used.
    """
    for node in graph.nodes("DequantizeLinear"):
        value = _dequantized(graph, node)
        if value is not None:
            graph.remove(node)
            graph.constant(node.output[0], value)


def _dequantized(graph: Graph, node: NodeProto) -> Float | None:
    """Return the result of a DQ node; ``None`` unless it reads an INT32 constant."""
    whole = graph.array(node.input[0])
    scale = graph.array(node.input[1])
    if whole is None or scale is None or whole.dtype != np.int32:
        return None

    steps = scale.astype(np.float64)
    if steps.size > 1:  # one scale per channel
        axis = attributes(node).get("axis", 1) % whole.ndim if whole.ndim > 1 else 0
        shape = [1] * whole.ndim
        shape[axis] = -1
        steps = steps.reshape(shape)
    return (whole.astype(np.float64) * steps).astype(np.float32)
