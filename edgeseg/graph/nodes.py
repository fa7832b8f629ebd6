"""Read single ONNX nodes: their operator, attributes, subgraphs, and the names they read."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, helper, numpy_helper

STANDARD = ("", "ai.onnx")  # both names of the domain of ONNX's own operators


def copied(model: ModelProto) -> ModelProto:
    """Return a copy of an ONNX graph that can be edited.

    Parameters
    ----------
    model : the graph to copy.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def opset_of(model: ModelProto) -> int:
    """Return the version of ONNX's own operators that a graph uses, 0 if the file names none.

    Parameters
    ----------
    model : the ONNX graph.

    Examples
    --------
    >>> opset_of(ModelProto(opset_import=[helper.make_opsetid("", 17)]))
    17
    """
    return next((o.version for o in model.opset_import if o.domain in STANDARD), 0)


def attributes(node: NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python values, by name.

    Parameters
    ----------
    node : the node.

    Examples
    --------
    >>> attributes(helper.make_node("Softmax", ["x"], ["y"], axis=1))
    {'axis': 1}
    """
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def ints_attribute(node: NodeProto, name: str, default: list[int]) -> list[int]:
    """Return an attribute that is a list of integers.

    Parameters
    ----------
    node : the node.
    name : the attribute's name.
    default : the result if the attribute is absent or empty.

    Examples
    --------
    >>> pool = helper.make_node("MaxPool", ["x"], ["y"], strides=[2, 2])
    >>> ints_attribute(pool, "strides", [1, 1])
    [2, 2]
    """
    value = attributes(node).get(name)
    return [int(v) for v in value] if value else default


def is_op(node: NodeProto | None, *op_types: str) -> bool:
    """Return True if a node is one of the named operators of the ONNX standard.

    Parameters
    ----------
    node : the node; ``None`` is no operator.
    op_types : the names of the operators.

    Examples
    --------
    >>> is_op(helper.make_node("Relu", ["x"], ["y"]), "Relu", "Clip")
    True
    >>> is_op(None, "Relu")
    False
    """
    return node is not None and node.domain in STANDARD and node.op_type in op_types


def title(node: NodeProto) -> str:
    """Return the words that an error uses for a node.

    Parameters
    ----------
    node : the node.

    Examples
    --------
    >>> title(helper.make_node("Relu", ["x"], ["y"]))
    "Relu node 'y'"
    """
    return f"{node.op_type} node {node.name or node.output[0]!r}"


def constant_value(node: NodeProto) -> npt.NDArray[np.generic] | None:
    """Return the value of a ``Constant`` node.

    Parameters
    ----------
    node : any node.

    Returns
    -------
    The value; ``None`` for another node, for text and for a sparse constant.

    Examples
    --------
    >>> constant_value(helper.make_node("Constant", [], ["c"], value_ints=[1, 2])).tolist()
    [1, 2]
    """
    if is_op(node, "Constant") and len(node.attribute) == 1:
        ((kind, value),) = attributes(node).items()
        if kind == "value":
            return numpy_helper.to_array(value)
        if kind in ("value_int", "value_ints", "value_float", "value_floats"):
            return np.asarray(value, np.int64 if "int" in kind else np.float32)
    return None


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the bodies that a control-flow node runs.

    Parameters
    ----------
    node : any node; most have none.
    """
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def names_read(graph: GraphProto) -> Iterator[str]:
    """Yield every name that the nodes and outputs of a graph read, with those of its subgraphs.

    Parameters
    ----------
    graph : the graph.
    """
    for node in graph.node:
        yield from (name for name in node.input if name)
        yield from names_read_inside(node)
    yield from (value.name for value in graph.output)


def names_read_inside(node: NodeProto) -> Iterator[str]:
    """Yield every name that the bodies of a control-flow node read.

    Parameters
    ----------
    node : any node; most have no bodies.
    """
    for body in subgraphs(node):
        yield from names_read(body)


def rename_reads(body: GraphProto, new: Mapping[str, str]) -> None:
    """Rename the tensors that a subgraph reads, in place.

    Parameters
    ----------
    body : the subgraph.
    new : the new names, by old name; other tensors keep theirs.
    """
    for node in body.node:
        for place, name in enumerate(node.input):
            node.input[place] = new.get(name, name)
        for inner in subgraphs(node):
            rename_reads(inner, new)
    for value in body.output:
        value.name = new.get(value.name, value.name)
