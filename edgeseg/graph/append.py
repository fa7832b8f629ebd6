"""Add nodes and constants to a network's graph, under names that no exporter uses."""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

PREFIX = "edgeseg/"


class Appender:
    """Append nodes and constants to a graph, under names that start with ``PREFIX``.

    Parameters
    ----------
    model : the graph to append to, in place.

    Attributes
    ----------
    model : the same graph.
    graph : ``model.graph``.
    opset : the version of the standard operators that the graph uses.
    before : nodes that belong in front of all others; the caller inserts them.

    Examples
    --------
    >>> model = onnx.ModelProto(opset_import=[helper.make_opsetid("", 17)])
    >>> graph = Appender(model)
    >>> graph.node("Relu", ["x"], PREFIX + "positive")
    'edgeseg/positive'
    >>> [node.op_type for node in model.graph.node]
    ['Relu']
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = model.graph
        standard = ("", "ai.onnx")
        self.opset = next(o.version for o in model.opset_import if o.domain in standard)
        self.before: list[onnx.NodeProto] = []

    def constant(self, name: str, value: Any) -> str:
        """Add an initializer and return its name.

        Parameters
        ----------
        name : the name behind ``PREFIX``.
        value : the value, as a numpy array or a number.
        """
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), PREFIX + name))
        return PREFIX + name

    def node(self, kind: str, inputs: list[str], output: str, *, first: bool = False, **attributes: Any) -> str:
        """Add a node with one output and return the name of the output.

        Parameters
        ----------
        kind : the operator.
        inputs : the names of its inputs.
        output : the name of its output; the node is called the same, behind ``PREFIX``.
        first : add it to ``before`` instead of to the end of the graph.
        attributes : the attributes of the operator.
        """
        node_name = PREFIX + output.removeprefix(PREFIX)
        made = helper.make_node(kind, inputs, [output], name=node_name, **attributes)
        nodes = self.before if first else self.graph.node
        nodes.append(made)
        return output
