"""Raise the scales of dead branches.

Training with weight decay leaves branches whose values are about 1e-39. The scale of such a branch
is so small that ``1 / scale`` is infinite in float32. OpenVINO multiplies by that, and NaN follows
everywhere behind the branch.

With a larger scale every value of the branch rounds to zero, and beside all other values it is
zero.
"""

import numpy as np
from onnx import ModelProto, numpy_helper

from edgeseg.graph.graph import Graph

# 1 / scale, and products of two scales of other layers, stay normal float32 numbers.
SMALLEST_SCALE = 2.0**-100


def raise_tiny_scales(model: ModelProto) -> int:
    """Raise scales of Q and DQ nodes to ``SMALLEST_SCALE``, in place.

    Parameters
    ----------
    model : any ONNX graph.

    Returns
    -------
    The number of scale tensors that were raised.

    Examples
    --------
    >>> raise_tiny_scales(ModelProto())
    0
    """
    graph = Graph(model)
    raised: dict[str, str] = {}
    for node in graph.nodes("QuantizeLinear", "DequantizeLinear"):
        name = node.input[1]
        if name not in graph.constants:
            continue

        if name not in raised:
            scale = numpy_helper.to_array(graph.constants[name])
            if scale.dtype != np.float32 or not np.any(scale < SMALLEST_SCALE):
                continue
            value = np.maximum(scale, np.float32(SMALLEST_SCALE))
            raised[name] = graph.constant(f"{name}/raised", value)
        graph.set_input(node, 1, raised[name])
    return len(raised)
