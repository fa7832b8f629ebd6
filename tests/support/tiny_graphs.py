"""Nodes of pooling with positions and unpooling."""

from typing import Any

import onnx
from onnx import helper


def pool(out: str = "p", indices: str = "i", x: str = "x", **geometry: Any) -> onnx.NodeProto:
    geometry = {"kernel_shape": [2, 2], "strides": [2, 2], **geometry}
    return helper.make_node("MaxPool", [x], [out, indices], f"pool_{out}", **geometry)


def unpool(*inputs: str, out: str = "y", **geometry: Any) -> onnx.NodeProto:
    geometry = {"kernel_shape": [2, 2], "strides": [2, 2], **geometry}
    return helper.make_node("MaxUnpool", list(inputs), [out], f"unpool_{out}", **geometry)
