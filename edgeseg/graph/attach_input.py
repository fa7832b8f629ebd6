"""Attach the input of a lowered graph: frames with their preprocessing, or a finished tensor."""

import numpy as np
from onnx import TensorProto, helper

from edgeseg.graph.editor import PREFIX
from edgeseg.graph.graph import Graph
from edgeseg.graph.network import Network
from edgeseg.graph.nodes import is_op
from edgeseg.graph.ops import BYTE_MOVES
from edgeseg.graph.outputs import element_type
from edgeseg.graph.passes.dynamic_shapes import DynamicShapes
from edgeseg.imaging.preprocess import coefficients

_BYTES = (TensorProto.UINT8, TensorProto.INT8)
_BYTE_POOL_OPSET = 12  # the first whose MaxPool takes uint8


def attach_frame(
    graph: Graph, network: Network, for_openvino: bool, dynamic: DynamicShapes
) -> None:
    """Add the preprocessing: from ``frame`` (uint8 BGR, NHWC) to the network's own input.

    The input keeps its name. If the target can, channels are put in order while they are still
    bytes. A max-pool of the image itself (ENet's first block has one) moves to the bytes too:
    ``gain * p + offset`` with positive gain rises with p, and so does its rounding, so that pooling
    commutes with it exactly.

    Parameters
    ----------
    graph : the lowered graph of the network, to edit.
    network : the network.
    for_openvino : True if the target computes on bytes.
    dynamic : the open dimensions of the frame.
    """
    element = element_type(graph.model, network.input)

    # Transpose and reorder the channels of the bytes.
    x = "frame"
    if not for_openvino:
        element = _without_bytes(graph, network, element)
        x = graph.node("Cast", [x], PREFIX + "frame", first=True, to=TensorProto.FLOAT)
    if not network.channels_last:
        x = graph.node("Transpose", [x], PREFIX + "planes", first=True, perm=[0, 3, 1, 2])
    if network.spec.colour == "rgb":
        order = graph.constant(PREFIX + "channel_order", np.array([2, 1, 0], np.int64))
        axis = 3 if network.channels_last else 1
        x = graph.node("Gather", [x, order], PREFIX + "rgb", first=True, axis=axis)

    # Normalise.
    gain, offset = coefficients(network.spec)
    shape = (1, 1, 1, 3) if network.channels_last else (1, 3, 1, 1)
    gain_name = graph.constant(PREFIX + "gain", gain.reshape(shape))
    offset_name = graph.constant(PREFIX + "offset", offset.reshape(shape))
    constants = (gain_name, offset_name)
    _normalise(graph, x, network.input, constants, element)
    if for_openvino and (gain > 0).all() and graph.opset >= _BYTE_POOL_OPSET:
        _pool_bytes(graph, x, network.input, constants, element)

    dims = [*dynamic.dims(network.spec.input_size), 3]
    frame = helper.make_tensor_value_info("frame", TensorProto.UINT8, dims)
    graph.replace_input(network.input, frame)


def attach_tensor(graph: Graph, network: Network) -> None:
    """Lead ``tensor`` (1, 3, H, W) float32 to the network's own input, which keeps its name.

    Parameters
    ----------
    graph : the lowered graph of the network, to edit.
    network : the network.
    """
    element = element_type(graph.model, network.input)
    element = _without_bytes(graph, network, element)
    x = "tensor"
    if network.channels_last:
        x = graph.node("Transpose", [x], PREFIX + "pixels_in", first=True, perm=[0, 2, 3, 1])
    if element == TensorProto.FLOAT:
        graph.node("Identity", [x], network.input, first=True)
    else:
        graph.node("Cast", [x], network.input, first=True, to=element)

    dims = [1, 3, *network.spec.input_size]
    tensor = helper.make_tensor_value_info("tensor", TensorProto.FLOAT, dims)
    graph.replace_input(network.input, tensor)


def _without_bytes(graph: Graph, network: Network, element: int) -> int:
    """Avoid bytes inside the graph, in place; return the new element type of the network's input.

    For targets without UINT8 inside. Bytes that are cast to another type before anything is
    computed may be floats from the start; class ids that end as bytes become INT32 and are cast at
    the end.
    """
    if network.form == "labels":
        _widen_ids(graph, network.output)
    if element not in _BYTES:
        return element

    # Forwards from an input of bytes: all readers must move values or cast.
    moved = {network.input}
    for node in graph.nodes():
        if moved & set(node.input) and not is_op(node, "Cast"):
            if not is_op(node, *BYTE_MOVES) or moved & set(node.input[1:]):
                return element
            moved |= set(node.output)
    graph.drop_types(moved)
    return int(TensorProto.FLOAT)


def _widen_ids(graph: Graph, output: str) -> None:
    """Go backwards from a label map, and let its cast to bytes give INT32."""
    name = output
    moved = {output}
    for node in reversed(graph.nodes()):
        if name in node.output and is_op(node, *BYTE_MOVES):
            name = node.input[0]
            moved.add(name)
        elif name in node.output and is_op(node, "Cast"):
            to = next(attribute for attribute in node.attribute if attribute.name == "to")
            to.i = TensorProto.INT32 if to.i in _BYTES else to.i
    graph.drop_types(moved)


def _normalise(graph: Graph, x: str, out: str, constants: tuple[str, str], element: int) -> None:
    """Compute ``gain * x + offset`` of the bytes ``x``, as ``out`` of type ``element``."""
    name = PREFIX + out.removeprefix(PREFIX)
    x = graph.node("Cast", [x], f"{name}/float", first=True, to=TensorProto.FLOAT)
    x = graph.node("Mul", [x, constants[0]], f"{name}/scaled", first=True)
    last = out if element == TensorProto.FLOAT else f"{name}/normalised"
    x = graph.node("Add", [x, constants[1]], last, first=True)
    if element != TensorProto.FLOAT:
        graph.node("Cast", [x], out, first=True, to=element)


def _pool_bytes(graph: Graph, x: str, image: str, constants: tuple[str, str], element: int) -> None:
    """Move every max-pool of ``image`` in front of its normalisation, onto the bytes ``x``.

    Poolings with Indices stay.
    """
    poolings = graph.nodes("MaxPool")
    pools = [node for node in poolings if node.input[0] == image and len(node.output) == 1]
    for number, pool in enumerate(pools):
        out = pool.output[0]
        pooled = f"{PREFIX}pooled{number}"
        graph.remove(pool)
        pool.input[0] = x
        pool.output[0] = pooled
        graph.add(pool, first=True)
        _normalise(graph, pooled, out, constants, element)
