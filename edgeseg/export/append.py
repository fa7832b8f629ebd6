"""Nodes and constants that edgeseg adds to a net's graph, under names of its own."""

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

PREFIX = "edgeseg/"


class Appender:
    """Nodes and constants appended to a model under names of our own."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.graph = model, model.graph
        self.opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        self.before: list[onnx.NodeProto] = []

    def constant(self, name: str, value: Any) -> str:
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), PREFIX + name))
        return PREFIX + name

    def node(self, kind: str, inputs: list[str], output: str, *, first: bool = False, **attributes: Any) -> str:
        made = helper.make_node(kind, inputs, [output], name=PREFIX + output.removeprefix(PREFIX), **attributes)
        (self.before if first else self.graph.node).append(made)
        return output
