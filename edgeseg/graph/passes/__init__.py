"""Passes: functions that rewrite an ONNX graph in place."""

from collections.abc import Callable
from dataclasses import dataclass

from edgeseg.graph.graph import Graph


@dataclass(frozen=True)
class PassContext:
    """Tell the passes of a lowering which target the graph is for.

    Attributes
    ----------
    for_openvino : True for OpenVINO, False for TensorRT.
    own_operators : use edgeseg's own operators where they fit: those of the OpenVINO extension or
        of the TensorRT plugin.
    unsigned : for OpenVINO, store INT8 activations as UINT8.
    """

    for_openvino: bool = False
    own_operators: bool = False
    unsigned: bool = False


Pass = Callable[[Graph, PassContext], None]  # rewrites the graph in place
