"""From a net to what a target compiles: frame in, label map out, with the spec inside the graph.

The deployed graph takes ``frame`` (1, H, W, 3) uint8 BGR and gives ``labels`` (1, H, W) uint8; with ``scores`` it gives
``scores`` (1, H, W, classes) float32 instead, the logits that the labels are the argmax of. H, W are
``spec.input_size``.
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
_BYTE_POOL_OPSET = 12  # the first whose MaxPool takes uint8


def deploy(network: Network, *, scores: bool = False, byte_operators: bool = True) -> onnx.ModelProto:
    """The graph of ``network`` with unpooling lowered, preprocessing before it and argmax (or not) behind it.

    ``byte_operators`` is whether the target transposes, gathers and pools uint8 (OpenVINO does, TensorRT does not).
    """
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    fix_input(model, network.input, network.channels_last, network.spec.input_size)
    model = lower_unpooling(model)
    try:
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # raised as several types, all of them about the graph
        raise GraphError(f"{network.name}: its shapes do not fit together", got=str(error).splitlines()[0]) from error
    graph = _Graph(model)
    _attach_frame(graph, network, byte_operators)
    _attach_output(graph, network, scores)
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


def _attach_frame(graph: _Graph, network: Network, byte_operators: bool) -> None:
    """uint8 BGR NHWC -> the net's own input tensor, which keeps its name.

    Where the target can, channels are put in order while they are still bytes, and a max-pool of the image itself
    (ENet's first block has one) is taken on the bytes too: ``gain * p + offset`` with positive gain rises with p, and
    so does its rounding, so that pooling commutes with it exactly.
    """
    height, width = network.spec.input_size
    element = next(i for i in graph.graph.input if i.name == network.input).type.tensor_type.elem_type
    x = "frame"
    if not byte_operators:
        x = graph.node("Cast", [x], _PREFIX + "frame", first=True, to=TensorProto.FLOAT)
    if not network.channels_last:
        x = graph.node("Transpose", [x], _PREFIX + "planes", first=True, perm=[0, 3, 1, 2])
    if network.spec.colour == "rgb":
        order = graph.constant("channel_order", np.array([2, 1, 0], np.int64))
        x = graph.node("Gather", [x, order], _PREFIX + "rgb", first=True, axis=3 if network.channels_last else 1)
    gain, offset = coefficients(network.spec)
    shape = (1, 1, 1, 3) if network.channels_last else (1, 3, 1, 1)
    constants = graph.constant("gain", gain.reshape(shape)), graph.constant("offset", offset.reshape(shape))
    _normalise(graph, x, network.input, constants, element)
    if byte_operators and (gain > 0).all() and graph.opset >= _BYTE_POOL_OPSET:
        _pool_bytes(graph, x, network.input, constants, element)
    nodes = [*graph.before, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    kept = [i for i in graph.graph.input if i.name != network.input]
    del graph.graph.input[:]
    graph.graph.input.append(helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, height, width, 3]))
    graph.graph.input.extend(kept)


def _normalise(graph: _Graph, x: str, out: str, constants: tuple[str, str], element: int) -> None:
    """Bytes ``x`` -> ``gain * x + offset`` of type ``element``, named ``out``."""
    name = _PREFIX + out.removeprefix(_PREFIX)
    x = graph.node("Cast", [x], f"{name}/float", first=True, to=TensorProto.FLOAT)
    x = graph.node("Mul", [x, constants[0]], f"{name}/scaled", first=True)
    last = out if element == TensorProto.FLOAT else f"{name}/normalised"
    x = graph.node("Add", [x, constants[1]], last, first=True)
    if element != TensorProto.FLOAT:
        graph.node("Cast", [x], out, first=True, to=element)


def _pool_bytes(graph: _Graph, x: str, image: str, constants: tuple[str, str], element: int) -> None:
    """Move every max-pool of ``image`` (values only) in front of its normalisation, onto the bytes ``x``."""
    pools = [n for n in graph.graph.node if n.op_type == "MaxPool" and n.input[0] == image and len(n.output) == 1]
    for number, pool in enumerate(pools):
        out, pooled = pool.output[0], f"{_PREFIX}pooled{number}"
        pool.input[0], pool.output[0] = x, pooled
        graph.graph.node.remove(pool)
        graph.before.append(pool)
        _normalise(graph, pooled, out, constants, element)


def _attach_output(graph: _Graph, network: Network, scores: bool) -> None:
    """The net's output -> ``labels`` or ``scores`` at the input's size."""
    height, width = network.spec.input_size
    classes = len(network.spec.labels)
    shape = next(_shape(v) for v in graph.graph.output if v.name == network.output)
    x = network.output
    del graph.graph.output[:]
    if network.form == "labels":
        if scores:
            raise GraphError(f"{network.name}: gives a label map, no scores")
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
            # axis is much slower.
            x = graph.node("Transpose", [x], _PREFIX + "pixels", perm=[0, 2, 3, 1])
        if scores:
            graph.node("Cast", [x], "scores", to=TensorProto.FLOAT)
            dims = [1, height, width, classes]
            graph.graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, dims))
            return
        x = graph.node("ArgMax", [x], _PREFIX + "argmax", axis=3, keepdims=0)
    graph.node("Cast", [x], "labels", to=TensorProto.UINT8)
    graph.graph.output.append(helper.make_tensor_value_info("labels", TensorProto.UINT8, [1, height, width]))


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    return [d.dim_value for d in value.type.tensor_type.shape.dim]


def _upsample(graph: _Graph, x: str, size: tuple[int, int], classes: int) -> str:
    """Bilinear, half-pixel centres: PyTorch's ``interpolate(align_corners=False)``."""
    sizes = graph.constant("full_size", np.array([1, classes, *size], np.int64))
    options: dict[str, Any] = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    if graph.opset < 11:
        raise GraphError("an ONNX file with opset 11 or newer is needed", got=f"opset {graph.opset}")
    return graph.node("Resize", [x, "", "", sizes], _PREFIX + "full", **options)
