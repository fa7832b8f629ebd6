"""Attach the output of a lowered graph: the label map, the logits, or both, at the input's size."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto

from edgeseg.errors import GraphError
from edgeseg.graph.editor import PREFIX
from edgeseg.graph.graph import Graph
from edgeseg.graph.network import Network
from edgeseg.graph.passes.argmax import compare_planes, shuffled_scores
from edgeseg.graph.passes.dynamic_shapes import DynamicShapes
from edgeseg.graph.sizes import Int

Sizes = Sequence[int | Int | None]  # the shape of a tensor; 0 or None for unknown sizes

_RESIZE_OPSET = 11  # the first whose Resize has half-pixel centres
_OPTIONAL_SCALES_OPSET = 13  # the first whose Resize may leave out the region and the scales


def attach_logits(graph: Graph, network: Network) -> None:
    """Turn the network's output into ``scores`` at the input's size, channels first.

    Parameters
    ----------
    graph : the lowered graph of the network, to edit.
    network : the network; it gives logits.
    """
    shape = _output_shape(graph, network)
    graph.clear_outputs()
    x, nhwc = full_size(graph, network, shape)
    _give_scores(graph, network, x, nhwc, [1, *network.spec.input_size])


def attach_both(
    graph: Graph, network: Network, dynamic: DynamicShapes, known: Sequence[Int | None] | None
) -> None:
    """Turn the network's output into ``labels`` and ``scores``, computed once.

    Parameters
    ----------
    graph : the lowered graph of the network, to edit.
    network : the network.
    dynamic : the open dimensions of the frame.
    known : the sizes of the output if some are dynamic.

    Raises
    ------
    GraphError : the network gives a label map.
    """
    require_scores(network)
    size = dynamic.dims(network.spec.input_size)
    shape = known if known is not None else _output_shape(graph, network)
    graph.clear_outputs()

    x, nhwc = full_size(graph, network, shape, dynamic)
    _give_labels(graph, _search(graph, x, nhwc, last_axis=False), size)
    _give_scores(graph, network, x, nhwc, size)


def attach_output(
    graph: Graph,
    network: Network,
    dynamic: DynamicShapes,
    known: Sequence[Int | None] | None,
    *,
    scores: bool,
    compare: bool,
    last_axis: bool,
) -> None:
    """Turn the network's output into ``labels`` or ``scores`` at the input's size.

    Parameters
    ----------
    graph : the lowered graph of the network, to edit.
    network : the network.
    dynamic : the open dimensions of the frame.
    known : the sizes of the output if some are dynamic.
    scores : give ``scores``, channels last, instead of ``labels``.
    compare : find the argmax by comparing planes instead of by a search.
    last_axis : search along the last axis.

    Raises
    ------
    GraphError : scores are wanted, and the network gives a label map.
    """
    classes = len(network.spec.labels)
    size = dynamic.dims(network.spec.input_size)
    shape = known if known is not None else _output_shape(graph, network)
    x = network.output
    graph.clear_outputs()

    if scores:
        require_scores(network)
        x, nhwc = full_size(graph, network, shape, dynamic)
        x = x if nhwc else graph.node("Transpose", [x], PREFIX + "pixels", perm=[0, 2, 3, 1])
        graph.node("Cast", [x], "scores", to=TensorProto.FLOAT)
        graph.add_output("scores", TensorProto.FLOAT, [*size, classes])
        return

    if network.form == "labels":
        if not dynamic:
            x = _whole_map(graph, x, shape, network.spec.input_size)
        x = graph.node("Reshape", [x, _map_shape(graph, size)], PREFIX + "map")
    elif compare:
        x = _compared(graph, network, shape, dynamic)
    else:
        x, nhwc = full_size(graph, network, shape, dynamic)
        x = _search(graph, x, nhwc, last_axis)
    _give_labels(graph, x, size)


def _whole_map(graph: Graph, x: str, shape: Sizes, size: tuple[int, int]) -> str:
    """Return a label map at the input's size.

    Each pixel takes the id of the pixel that its centre falls into.
    """
    sides = [side for side in shape[1:] if side != 1] if len(shape) == 4 else list(shape[-2:])
    known = len(sides) == 2 and all(isinstance(side, int) and side for side in sides)
    if not known or tuple(sides) == tuple(size):
        return x

    planes = graph.constant(PREFIX + "map_planes", np.array([1, 1, *sides], np.int64))
    x = graph.node("Reshape", [x, planes], PREFIX + "small_map")
    # Few runtimes resize whole numbers.
    x = graph.node("Cast", [x], PREFIX + "small_map/float", to=TensorProto.FLOAT)
    full = graph.constant(PREFIX + "map_size", np.array([1, 1, *size], np.int64))
    return _resize(graph, x, full, PREFIX + "map/full", "nearest")


def _give_scores(
    graph: Graph, network: Network, x: str, nhwc: bool, size: Sequence[int | str]
) -> None:
    """Add the output ``scores``, channels first, from the logits ``x`` at ``size`` (N, H, W)."""
    planes = x
    if nhwc:
        planes = graph.node("Transpose", [x], PREFIX + "score_planes", perm=[0, 3, 1, 2])
    graph.node("Cast", [planes], "scores", to=TensorProto.FLOAT)
    dims = [size[0], len(network.spec.labels), *size[1:]]
    graph.add_output("scores", TensorProto.FLOAT, dims)


def require_scores(network: Network, asked: str = "scores") -> None:
    """Raise an error if a network gives a label map instead of logits.

    Parameters
    ----------
    network : the network.
    asked : the parameter of the caller that needs logits, for the error.

    Raises
    ------
    GraphError : the network gives a label map.
    """
    if network.form == "labels":
        raise GraphError(
            f"{network.name}: gives a label map, no scores", hint=f"Leave `{asked}` out."
        )


def _give_labels(graph: Graph, x: str, size: Sequence[int | str]) -> None:
    """Add the output ``labels`` from the class ids ``x``, of ``size`` (N, H, W)."""
    graph.node("Cast", [x], "labels", to=TensorProto.UINT8)
    graph.add_output("labels", TensorProto.UINT8, size)


def _map_shape(graph: Graph, size: Sequence[int | str]) -> str:
    """Return the name of a label map's shape, of ``size`` (N, H, W).

    The batch or more may be dynamic.
    """
    dynamic = [side for side in size if isinstance(side, str)]
    if len(dynamic) > 1:
        return _frame_sizes(graph, "map_shape", [0, 1, 2])
    sides = [-1 if side in dynamic else side for side in size]
    return graph.constant(PREFIX + "map_shape", np.array(sides, np.int64))


def _frame_sizes(graph: Graph, name: str, axes: list[int]) -> str:
    """Return the name of an int64 vector: the sizes of ``frame`` on ``axes``."""
    shape = graph.node("Shape", ["frame"], f"{PREFIX}{name}/frame")
    chosen = graph.constant(f"{PREFIX}{name}/axes", np.array(axes, np.int64))
    return graph.node("Gather", [shape, chosen], PREFIX + name)


def _compared(graph: Graph, network: Network, shape: Sizes, dynamic: DynamicShapes) -> str:
    """Return the name of the class ids (1, H, W), found by comparing planes."""
    height, width = network.spec.input_size
    classes = len(network.spec.labels)

    if network.form == "nchw" and list(shape[2:]) == [height, width]:
        shuffled = shuffled_scores(graph, network.output, classes, (height, width))
        if shuffled is not None:
            return shuffled

    x, nhwc = full_size(graph, network, shape, dynamic)
    if nhwc:
        x = graph.node("Transpose", [x], PREFIX + "score_planes", perm=[0, 3, 1, 2])
    x = compare_planes(graph, x, classes)
    size = graph.constant(PREFIX + "map_shape", np.array([1, height, width], np.int64))
    return graph.node("Reshape", [x, size], PREFIX + "argmax")


def _search(graph: Graph, x: str, nhwc: bool, last_axis: bool) -> str:
    """Return the name of the argmax of the logits ``x`` over the classes: (1, H, W) int64.

    Of equal logits the first wins. ``last_axis`` is for OpenVINO: the last convolution writes
    channels-last, and the search along any other axis is much slower. TensorRT chooses layouts
    itself, and fails behind attention over dynamic sizes if the graph fixes one.
    """
    if last_axis and not nhwc:
        x = graph.node("Transpose", [x], PREFIX + "pixels", perm=[0, 2, 3, 1])
        nhwc = True
    return graph.node("ArgMax", [x], PREFIX + "argmax", axis=3 if nhwc else 1, keepdims=0)


def full_size(
    graph: Graph,
    network: Network,
    shape: Sizes,
    dynamic: DynamicShapes | None = None,
) -> tuple[str, bool]:
    """Add nodes that bring the logits to the input's size, if they have another.

    Parameters
    ----------
    graph : the graph to append to.
    network : the network whose output the logits are.
    shape : the shape of the logits.
    dynamic : the open sizes of the frame, if there are any.

    Returns
    -------
    The name of the logits at the input's size, and True if they are channels-last.
    """
    size = network.spec.input_size
    x = network.output
    nhwc = network.form == "nhwc"

    whole = dynamic.full_size(size) if dynamic else list(size)
    own = shape[1:3] if nhwc else shape[2:4]
    if list(own) == whole:
        return x, nhwc

    if nhwc:
        x = graph.node("Transpose", [x], PREFIX + "nchw", perm=[0, 3, 1, 2])
    dims = (dynamic or DynamicShapes()).dims(size)
    return _upsample(graph, x, dims, len(network.spec.labels)), False


def _output_shape(graph: Graph, network: Network) -> list[int]:
    """Return the shape of the network's output, 0 for unknown sizes."""
    value = next(output for output in graph.graph.output if output.name == network.output)
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _upsample(graph: Graph, x: str, size: Sequence[int | str], classes: int) -> str:
    """Resize to ``size`` (N, H, W), bilinear, half-pixel centres.

    That is PyTorch's ``interpolate(align_corners=False)``.
    """
    if any(isinstance(side, str) for side in size):
        planes = graph.constant(PREFIX + "full_planes", np.array([classes], np.int64))
        batch = _frame_sizes(graph, "full_batch", [0])
        sides = _frame_sizes(graph, "full_side", [1, 2])
        sizes = graph.node("Concat", [batch, planes, sides], PREFIX + "full_size", axis=0)
    else:
        fixed = np.array([size[0], classes, *size[1:]], np.int64)
        sizes = graph.constant(PREFIX + "full_size", fixed)
    return _resize(graph, x, sizes, PREFIX + "full", "linear")


def _resize(graph: Graph, x: str, sizes: str, out: str, mode: str) -> str:
    """Resize ``x`` to the shape ``sizes`` with half-pixel centres.

    ``mode`` is ``linear`` or ``nearest``.
    """
    if graph.opset < _RESIZE_OPSET:
        raise GraphError(
            "an ONNX file with opset 11 or newer is needed",
            got=f"opset {graph.opset}",
            hint="onnx.version_converter.convert_version(model, 17) updates it.",
        )
    options: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": "half_pixel"}
    if mode == "nearest":
        # With half-pixel centres: the pixel that a centre falls into.
        options["nearest_mode"] = "round_prefer_ceil"

    unused = ""
    if graph.opset < _OPTIONAL_SCALES_OPSET:
        unused = graph.constant(PREFIX + "full_unused", np.zeros(0, np.float32))
    return graph.node("Resize", [x, unused, unused, sizes], out, **options)
