"""Find labels by comparing the planes of the logits.

OpenVINO fuses this into one or two passes over them. Its own search is a general top-k. In BF16 it
takes as long as several convolutions of a small network.
"""

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper

from edgeseg.graph.editor import PREFIX
from edgeseg.graph.graph import Graph
from edgeseg.graph.nodes import attributes, is_op

_SIZES_ARE_AN_INPUT = 13  # of Split, from this opset on


def compare_planes(graph: Graph, x: str, classes: int) -> str:
    """Append the argmax over the classes, the first of equals, by comparing planes.

    Class ids, at most 255, are whole numbers in BF16, too.

    Parameters
    ----------
    graph : the graph to append to.
    x : the name of the logits, (1, classes, H, W).
    classes : the number of classes.

    Returns
    -------
    The name of the class ids, (1, 1, H, W) float.
    """
    # One class: 0 everywhere.
    if classes == 1:
        never = graph.node("Less", [x, x], PREFIX + "never")
        return graph.node("Cast", [never], PREFIX + "found0", to=TensorProto.FLOAT)

    # One plane per class.
    planes = [f"{PREFIX}class{i}" for i in range(classes)]
    split = helper.make_node("Split", [x], planes, name=PREFIX + "classes", axis=1)
    if graph.opset >= _SIZES_ARE_AN_INPUT:
        split.input.append(graph.constant(PREFIX + "plane_sizes", np.ones(classes, np.int64)))
    else:
        split.attribute.append(helper.make_attribute("split", [1] * classes))
    graph.add(split)

    # Keep the best logit so far, and its class.
    best = planes[0]
    found = graph.constant(PREFIX + "id0", np.zeros((1, 1, 1, 1), np.float32))
    for i, plane in enumerate(planes[1:], 1):
        number = graph.constant(f"{PREFIX}id{i}", np.full((1, 1, 1, 1), i, np.float32))
        higher = graph.node("Greater", [plane, best], f"{PREFIX}higher{i}")
        best = graph.node("Max", [best, plane], f"{PREFIX}best{i}")
        found = graph.node("Where", [higher, number, found], f"{PREFIX}found{i}")
    return found


def shuffled_scores(graph: Graph, output: str, classes: int, size: tuple[int, int]) -> str | None:
    """Append labels for logits that come from a transposed convolution without overlapping windows.

    Such a layer is a 1x1 convolution to k * k times the classes and a shuffle of the result (Shi et
    al. 2016, "Is the deconvolution layer the same as a convolutional layer?"). The argmax comes
    before the shuffle: one plane is shuffled, not one per class.

    Parameters
    ----------
    graph : the graph to append to.
    output : the name of the logits.
    classes : the number of classes.
    size : height and width of the logits.

    Returns
    -------
    The name of the labels, (1, H, W); ``None`` if the last layer is another one.
    """
    # 1. The last layer.
    layer = graph.producer.get(output)
    if layer is None or not is_op(layer, "ConvTranspose"):
        return None
    weight = graph.array(layer.input[1])
    if weight is None or not _tiles(layer, weight) or weight.shape[1] != classes:
        return None
    if graph.readers.get(output):
        return None  # another node needs all logits

    block = weight.shape[2]
    height = size[0] // block
    width = size[1] // block
    has_bias = len(layer.input) > 2 and layer.input[2]
    bias = graph.array(layer.input[2]) if has_bias else None
    if has_bias and bias is None:
        return None

    # 2. The convolution: (in, class, row, column) -> one output channel per class, row and column.
    kernel = weight.reshape(weight.shape[0], -1).T[:, :, None, None]
    inputs = [layer.input[0], graph.constant(PREFIX + "last_weight", np.ascontiguousarray(kernel))]
    if bias is not None:
        inputs.append(graph.constant(PREFIX + "last_bias", np.repeat(bias, block * block)))
    x = graph.node("Conv", inputs, PREFIX + "last")

    # 3. The argmax over the classes, the k * k planes of a class on top of each other.
    stack = np.array([1, classes, block * block * height, width], np.int64)
    stacked = graph.constant(PREFIX + "stacked", stack)
    x = graph.node("Reshape", [x, stacked], PREFIX + "stack")
    x = compare_planes(graph, x, classes)

    # 4. The shuffle.
    corners = np.array([1, block * block, height, width], np.int64)
    planes = graph.constant(PREFIX + "planes_shape", corners)
    x = graph.node("Reshape", [x, planes], PREFIX + "corner_planes")
    x = graph.node("DepthToSpace", [x], PREFIX + "shuffled", blocksize=block)
    graph.remove(layer)
    whole = graph.constant(PREFIX + "map_shape", np.array([1, *size], np.int64))
    return graph.node("Reshape", [x, whole], PREFIX + "argmax")


def _tiles(layer: NodeProto, weight: npt.NDArray[np.generic]) -> bool:
    """Return True if every output pixel of a transposed convolution belongs to one input pixel."""
    attrs = attributes(layer)
    block = weight.shape[2]
    return (
        weight.ndim == 4
        and weight.shape[3] == block
        and list(attrs.get("strides", [1, 1])) == [block, block]
        and attrs.get("group", 1) == 1
        and not any(attrs.get("pads", [0]))
        and not any(attrs.get("output_padding", [0]))
        and attrs.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
        and list(attrs.get("dilations", [1, 1])) == [1, 1]
        and "output_shape" not in attrs
    )
