"""Compute chosen nodes of a Q/DQ graph in float, rounded as the file rounds.

A runtime whose INT8 kernels compute a layer wrongly can still run the file: the layer reads its
input rounded by plain operators (divide, round, clip, multiply) and its weights as float constants.
Values are those of the Q/DQ nodes, so the labels stay; the layer takes the time of a float layer.
"""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, helper

from edgeseg.graph.graph import Graph
from edgeseg.graph.nodes import attributes, copied, is_op
from edgeseg.types import Float


def quantized_readers(model: ModelProto) -> list[str]:
    """Return the names of the nodes that read a dequantized activation, in graph order.

    ``round_in_float`` can compute these in float: convolutions, matrix products, sums, pools,
    concats, ...

    Parameters
    ----------
    model : a Q/DQ graph with named nodes.
    """
    graph = Graph(model)
    nodes = [node for node in graph.nodes() if not is_op(node, "QuantizeLinear")]
    return [node.name for node in nodes if _activations(graph, node)]


def round_in_float(model: ModelProto, names: Collection[str]) -> ModelProto:
    """Return a copy of ``model`` in which some nodes read rounded floats.

    The others read dequantized integers as before.

    Parameters
    ----------
    model : a Q/DQ graph with named nodes, before INT8 tensors pass through other operators.
    names : names that ``quantized_readers`` returned; other names are ignored.
    """
    copy = copied(model)
    graph = Graph(copy)
    wanted = set(names)
    last: dict[str, NodeProto] = {}  # the last node added behind a tensor's maker, by the tensor

    for node in graph.nodes():
        if node.name not in wanted or is_op(node, "QuantizeLinear"):
            continue
        for place, dequantizer in _activations(graph, node).items():
            graph.set_input(node, place, _rounded(graph, dequantizer, last))
        for place, name in enumerate(node.input):
            constant = _folded_weight(graph, name)
            if constant is not None:
                graph.set_input(node, place, constant)

    graph.drop_unread("QuantizeLinear", "DequantizeLinear")
    graph.drop_unread_constants()
    return copy


def _activations(graph: Graph, node: NodeProto) -> dict[int, NodeProto]:
    """Return the DQ nodes of activations that ``node`` reads, by the place of its input."""
    found = {}
    for place, name in enumerate(node.input):
        dequantizer = graph.producer.get(name)
        if dequantizer is None or not is_op(dequantizer, "DequantizeLinear"):
            continue
        quantizer = graph.producer.get(dequantizer.input[0])
        if quantizer is None or not is_op(quantizer, "QuantizeLinear"):
            continue
        parameters = _parameters(graph, dequantizer)
        if parameters is not None and parameters == _parameters(graph, quantizer):
            found[place] = dequantizer
    return found


def _parameters(graph: Graph, node: NodeProto) -> tuple[float, int, np.dtype[np.generic]] | None:
    """Return scale, zero point and integer type of a Q or DQ node.

    The result is ``None`` if they are not one constant each.
    """
    scale = graph.array(node.input[1])
    has_zero = len(node.input) > 2 and node.input[2]
    zero = graph.array(node.input[2]) if has_zero else np.zeros((), np.uint8)
    if scale is None or zero is None or scale.size != 1 or zero.size != 1:
        return None
    return float(scale.reshape(())), int(zero.reshape(())), zero.dtype


def _rounded(graph: Graph, dequantizer: NodeProto, last: dict[str, NodeProto]) -> str:
    """Compute a DQ node's output by plain operators, and return its name.

    The new nodes go behind the maker of the tensor that they read, and behind those of ``last``.
    """
    parameters = _parameters(graph, dequantizer)
    quantizer = graph.producer[dequantizer.input[0]]
    assert parameters is not None
    scale, zero, dtype = parameters
    source = quantizer.input[0]
    base = f"{dequantizer.output[0]}/float"
    out = f"{base}/rounded"
    if out in graph.producer:
        return out

    # float: divide by the step, round, clip to the integers' range, multiply.
    limits = np.iinfo(dtype.name)
    step = graph.constant(f"{base}/step", np.float32(scale))
    least = graph.constant(f"{base}/least", np.float32(limits.min - zero))
    largest = graph.constant(f"{base}/largest", np.float32(limits.max - zero))
    steps = f"{base}/steps"
    whole = f"{base}/whole"
    clipped = f"{base}/clipped"
    chain = [
        helper.make_node("Div", [source, step], [steps], steps),
        helper.make_node("Round", [steps], [whole], whole),
        helper.make_node("Clip", [whole, least, largest], [clipped], clipped),
        helper.make_node("Mul", [clipped, step], [out], out),
    ]

    # Put them in place; without a maker, the source is an input of the graph.
    is_input = source not in graph.producer
    behind = last.get(source, graph.producer.get(source))
    for made in chain:
        behind = graph.add(made, after=behind, first=is_input)
        last[source] = behind
    return out


def _folded_weight(graph: Graph, name: str) -> str | None:
    """Return the name of a float constant that equals a dequantized constant.

    The result is ``None`` for another tensor.
    """
    dequantizer = graph.producer.get(name)
    if dequantizer is None or not is_op(dequantizer, "DequantizeLinear"):
        return None

    steps = graph.array(dequantizer.input[0])
    scale = graph.array(dequantizer.input[1])
    if steps is None or scale is None or attributes(dequantizer).get("block_size", 0):
        return None
    has_zero = len(dequantizer.input) > 2 and dequantizer.input[2]
    zero = graph.array(dequantizer.input[2]) if has_zero else None

    axis = attributes(dequantizer).get("axis", 1)
    return graph.constant(f"{name}/float", _dequantized(steps, scale, zero, axis))


def _dequantized(
    steps: npt.NDArray[np.generic],
    scale: npt.NDArray[np.generic],
    zero: npt.NDArray[np.generic] | None,
    axis: int,
) -> Float:
    """Return ``float32(steps - zero) * scale``, per tensor or per channel along ``axis``."""
    shape = [1] * steps.ndim
    if scale.size > 1:
        shape[axis] = -1
    shifted = steps.astype(np.int64)
    if zero is not None:
        shifted = shifted - zero.astype(np.int64).reshape(shape)
    factors = scale.astype(np.float32).reshape(shape)
    return (shifted.astype(np.float32) * factors).astype(np.float32)
