"""Add the nodes that replace a node."""

from typing import Any

import numpy as np
from onnx import NodeProto, helper

from edgeseg.graph.graph import Graph


class Emitter:
    """Add nodes in front of the node that they replace, with names that start with its name.

    Parameters
    ----------
    graph : the graph to edit.
    replaced : the node that they replace; it stays until the caller removes it.

    Attributes
    ----------
    graph : the same graph.
    """

    def __init__(self, graph: Graph, replaced: NodeProto) -> None:
        self.graph = graph
        self._replaced = replaced
        self._prefix = replaced.name or replaced.output[0]

    def add(self, node: NodeProto) -> None:
        """Add a node that has its names already.

        Parameters
        ----------
        node : the node.
        """
        self.graph.add(node, before=self._replaced)

    def op(self, op_type: str, *inputs: str, out: str | None = None, **attrs: Any) -> str:
        """Add a node with one output, and return the output's name.

        Parameters
        ----------
        op_type : the operator.
        inputs : the names of its inputs.
        out : the name of its output; a new one unless given.
        attrs : the attributes of the operator.
        """
        name = self.graph.unique(f"{self._prefix}/{op_type}")
        out = out or self.graph.unique(f"{name}_out")
        return self.graph.node(op_type, inputs, out, name=name, before=self._replaced, **attrs)

    def ints(self, values: list[int] | int) -> str:
        """Return the name of an int64 constant.

        Parameters
        ----------
        values : a list for a vector, a number for a scalar.
        """
        return self.graph.shared_constant("unpool/i64", np.asarray(values, np.int64))

    def scalar(self, value: float, elem_type: int) -> str:
        """Return the name of a scalar constant.

        Parameters
        ----------
        value : its value.
        elem_type : its ONNX element type.
        """
        dtype = helper.tensor_dtype_to_np_dtype(elem_type)
        return self.graph.shared_constant("unpool/value", np.asarray(value, dtype))

    def shape(self, name: str) -> str:
        """Return the name of a tensor's shape: a constant if it is known, else computed.

        Parameters
        ----------
        name : the tensor's name.
        """
        static = self.graph.static_shape(name)
        return self.ints(static) if static is not None else self.op("Shape", name)

    def part(self, vector: str, start: int, end: int) -> str:
        """Return the name of a part of an int64 vector; runtimes fold it if the vector is constant.

        Parameters
        ----------
        vector : the vector's name.
        start, end : the part, as in a Python slice.
        """
        return self.op("Slice", vector, self.ints([start]), self.ints([end]), self.ints([0]))
