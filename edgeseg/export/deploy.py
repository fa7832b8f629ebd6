"""From a net to what a target compiles: frame in, label map out, with the spec inside the graph.

The deployed graph takes ``frame`` (1, H, W, 3) uint8 BGR and gives ``labels`` (1, H, W) uint8 and ``scores``
(1, H, W, classes) float32, the logits that the labels are the argmax of. H, W are ``spec.input_size``. A net that gives
a label map itself has no ``scores``.
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeseg.errors import GraphError
from edgeseg.export.network import Network, fix_input
from edgeseg.export.unpool import lower_unpooling
from edgeseg.preprocess import coefficients

_PREFIX = "edgeseg/"


def deploy(network: Network) -> onnx.ModelProto:
    """The graph of ``network`` with unpooling lowered, preprocessing before it and argmax behind it."""
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    fix_input(model, network.input, network.channels_last, network.spec.input_size)
    model = lower_unpooling(model)
    try:
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # raised as several types, all of them about the graph
        raise GraphError(f"{network.name}: its shapes do not fit together", got=str(error).splitlines()[0]) from error
    graph = _Graph(model)
    _attach_frame(graph, network)
    _attach_output(graph, network)
    del model.metadata_props[:]
    return model


class _Graph:
    """Nodes and constants appended to a model under names of our own."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        self.before: list[onnx.NodeProto] = []

    def constant(self, name: str, value: Any) -> str:
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), _PREFIX + name))
        return _PREFIX + name

    def node(self, kind: str, inputs: list[str], output: str, *, first: bool = False, **attributes: Any) -> str:
        made = helper.make_node(kind, inputs, [output], name=_PREFIX + output.removeprefix(_PREFIX), **attributes)
        (self.before if first else self.graph.node).append(made)
        return output


def _attach_frame(graph: _Graph, network: Network) -> None:
    """uint8 BGR NHWC -> the net's own input tensor, which keeps its name."""
    height, width = network.spec.input_size
    old = next(i for i in graph.graph.input if i.name == network.input)
    element = old.type.tensor_type.elem_type
    gain, offset = coefficients(network.spec)
    # All of it channels-last, the transposition at the end: CPU kernels work channels-last, and find it free.
    x = graph.node("Cast", ["frame"], _PREFIX + "float", first=True, to=TensorProto.FLOAT)
    if network.spec.colour == "rgb":
        order = graph.constant("channel_order", np.array([2, 1, 0], np.int64))
        x = graph.node("Gather", [x, order], _PREFIX + "rgb", first=True, axis=3)
    x = graph.node("Mul", [x, graph.constant("gain", gain.reshape(1, 1, 1, 3))], _PREFIX + "scaled", first=True)
    steps: list[tuple[str, dict[str, Any]]] = []
    if element != TensorProto.FLOAT:
        steps.append(("Cast", {"to": element}))
    if not network.channels_last:
        steps.append(("Transpose", {"perm": [0, 3, 1, 2]}))
    last = network.input if not steps else _PREFIX + "normalised"
    x = graph.node("Add", [x, graph.constant("offset", offset.reshape(1, 1, 1, 3))], last, first=True)
    for i, (kind, attributes) in enumerate(steps):
        last = network.input if i == len(steps) - 1 else f"{_PREFIX}step{i}"
        x = graph.node(kind, [x], last, first=True, **attributes)
    nodes = [*graph.before, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    kept = [i for i in graph.graph.input if i.name != network.input]
    del graph.graph.input[:]
    graph.graph.input.append(helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, height, width, 3]))
    graph.graph.input.extend(kept)


def _attach_output(graph: _Graph, network: Network) -> None:
    """The net's output -> ``labels``, and ``scores`` where it has any, at the input's size."""
    height, width = network.spec.input_size
    classes = len(network.spec.labels)
    shape = next(_shape(v) for v in graph.graph.output if v.name == network.output)
    x = network.output
    outputs = [helper.make_tensor_value_info("labels", TensorProto.UINT8, [1, height, width])]
    if network.form == "labels":
        flat = graph.constant("map_shape", np.array([1, height, width], np.int64))
        x = graph.node("Reshape", [x, flat], _PREFIX + "map")
    else:
        nhwc = network.form == "nhwc"
        if (shape[1:3] if nhwc else shape[2:4]) != [height, width]:
            if nhwc:
                x, nhwc = graph.node("Transpose", [x], _PREFIX + "nchw", perm=[0, 3, 1, 2]), False
            x = _upsample(graph, x, (height, width), classes)
        if not nhwc:
            # Over the last axis: the last convolution writes channels-last, and OpenVINO's search along any other
            # axis is three times slower (3.8 -> 1.2 ms for 11x360x480 on an AVX-512 machine).
            x = graph.node("Transpose", [x], _PREFIX + "pixels", perm=[0, 2, 3, 1])
        graph.node("Cast", [x], "scores", to=TensorProto.FLOAT)
        x = graph.node("ArgMax", ["scores"], _PREFIX + "argmax", axis=3, keepdims=0)
        outputs.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, height, width, classes]))
    graph.node("Cast", [x], "labels", to=TensorProto.UINT8)
    del graph.graph.output[:]
    graph.graph.output.extend(outputs)


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    return [d.dim_value for d in value.type.tensor_type.shape.dim]


def _upsample(graph: _Graph, x: str, size: tuple[int, int], classes: int) -> str:
    """Bilinear, half-pixel centres: PyTorch's ``interpolate(align_corners=False)``."""
    sizes = graph.constant("full_size", np.array([1, classes, *size], np.int64))
    options: dict[str, Any] = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    if graph.opset < 11:
        raise GraphError("an ONNX file with opset 11 or newer is needed", got=f"opset {graph.opset}")
    return graph.node("Resize", [x, "", "", sizes], _PREFIX + "full", **options)

