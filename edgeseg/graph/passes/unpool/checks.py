"""Find the nodes that pool with positions or unpool, and refuse those that cannot be lowered."""

import math
from collections.abc import Iterable

from onnx import GraphProto, NodeProto

from edgeseg.errors import GraphError
from edgeseg.graph.graph import Graph
from edgeseg.graph.nodes import ints_attribute, is_op, subgraphs, title
from edgeseg.graph.passes.unpool.window import Window

_OLDEST_OPSET = 11  # Range, ScatterElements, and Pad and Equal as the lowered form uses them


def concerns(node: NodeProto) -> bool:
    """Return True if a node must be lowered.

    Parameters
    ----------
    node : any node.

    Examples
    --------
    >>> from onnx import helper
    >>> concerns(helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2]))
    False
    """
    return is_op(node, "MaxUnpool") or gives_indices(node)


def gives_indices(node: NodeProto) -> bool:
    """Return True if a node is a ``MaxPool`` with Indices.

    Parameters
    ----------
    node : any node.
    """
    return is_op(node, "MaxPool") and len(node.output) > 1 and bool(node.output[1])


def check_lowerable(graph: Graph) -> None:
    """Raise ``GraphError`` if the opset or the attributes of a node do not allow lowering.

    Parameters
    ----------
    graph : a graph with nodes that ``concerns`` is true for.

    Raises
    ------
    GraphError : the opset is too old, or the attributes of a node contradict each other.
    """
    if graph.opset < _OLDEST_OPSET:
        raise GraphError(
            "the ONNX file's opset is too old to lower its unpooling",
            got=graph.opset,
            expected=f"{_OLDEST_OPSET} or newer",
            hint="onnx.version_converter.convert_version(model, 17) updates it.",
        )
    for node in filter(concerns, graph.nodes()):
        _check_geometry(node)


def refuse_bodies(graph: GraphProto, inside: bool = False) -> None:
    """Raise ``GraphError`` if a subgraph pools with positions or unpools.

    Parameters
    ----------
    graph : the graph.
    inside : True if it is a subgraph itself.

    Raises
    ------
    GraphError : a subgraph has such a node.
    """
    for node in graph.node:
        if inside and concerns(node):
            raise GraphError(
                f"{title(node)}: stands in the body of an If, Loop or Scan",
                expected="unpooling in the main graph only",
                hint="Export without control flow around pooling and unpooling.",
            )
        for body in subgraphs(node):
            refuse_bodies(body, inside=True)


def _check_geometry(node: NodeProto) -> None:
    """Raise ``GraphError`` if the attributes of a node do not have the same number of axes."""
    rank = len(ints_attribute(node, "kernel_shape", []))
    keys = ("kernel_shape", "strides", "dilations")
    lengths = {key: len(ints_attribute(node, key, [1] * rank)) for key in keys}
    lengths["pads"] = len(ints_attribute(node, "pads", [0] * 2 * rank)) // 2
    if not rank or set(lengths.values()) != {rank}:
        raise GraphError(
            f"{title(node)}: its attributes do not fit each other",
            got=f"lengths {lengths}",
            expected="one number an axis each, two for pads",
            hint="Export the net again.",
        )


def check_type(graph: Graph, node: NodeProto) -> None:
    """Raise ``GraphError`` if the type of a node's first input is unknown.

    Parameters
    ----------
    graph : the graph of the node.
    node : a node to lower.

    Raises
    ------
    GraphError : the type is unknown.
    """
    if not graph.dtype(node.input[0]):
        raise GraphError(
            f"{title(node)}: nothing tells the element type of its input {node.input[0]!r}",
            hint="Run onnx.checker.check_model(model, full_check=True) and export the net again.",
        )


def check_positions(graph: Graph, node: NodeProto, pool: NodeProto, window: Window) -> None:
    """Raise ``GraphError`` if an output is too small for the positions that its pooling can give.

    ONNX Runtime stops in that case; other runtimes write beside the tensor.

    Parameters
    ----------
    graph : the graph of the nodes.
    node : the unpooling.
    pool : the pooling that its indices come from.
    window : the geometry of the pooling.

    Raises
    ------
    GraphError : the output is too small; unknown sizes are not checked.
    """
    pooled = graph.static_shape(pool.input[0])
    maxima = graph.static_shape(pool.output[0])
    size = graph.unpooled_shape(node)
    if pooled is None or maxima is None or size is None or any(symbols for _, symbols in size):
        return

    places = window.last_position(pooled, maxima) + 1
    room = math.prod(n for n, _ in size)
    if places > room:
        raise GraphError(
            f"{title(node)}: its output is too small for the positions it is given",
            got=f"{_by(n for n, _ in size)} for positions in {_by(pooled)}",
            expected="the size of what was pooled",
            hint="Export with output_size, or at a size that every pooling divides.",
        )


def _by(sizes: Iterable[int]) -> str:
    """Return sizes as text, as ``1x3x360x480``."""
    return "x".join(map(str, sizes))
