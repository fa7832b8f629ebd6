"""From a net to what a target compiles: frame in, label map out, with the spec inside the graph.

The deployed graph takes ``frame`` (1, H, W, 3) uint8 BGR and gives ``labels`` (1, H, W) uint8; with ``scores`` it gives
``scores`` (1, H, W, classes) float32 instead, the logits that the labels are the argmax of. With ``both`` it gives
``labels`` and, channels first as TensorRT computes them, ``scores`` (1, classes, H, W) float32. H, W are
``spec.input_size``; batch and size may be left free.

``deploy_bare`` leaves pictures to whoever runs the net: ``tensor`` (1, 3, H, W) in, ``scores`` (1, classes, H, W) out.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeseg.errors import GraphError
from edgeseg.export.append import PREFIX, Appender
from edgeseg.export.argmax import compare_planes, shuffled_scores
from edgeseg.export.carry import carry_int8, dequantize_early
from edgeseg.export.free import Free, Shapes, free_shapes, leave_free
from edgeseg.export.graph import Int, infer_shapes, is_op, subgraphs
from edgeseg.export.network import Network, fix_input
from edgeseg.export.unpool import lower_unpooling
from edgeseg.export.unshare import unshare_slopes
from edgeseg.export.unsigned import round_behind_gains, unsigned_activations
from edgeseg.preprocess import coefficients

_OURS = ("frame", "labels", "scores", "tensor")
_BYTES = (TensorProto.UINT8, TensorProto.INT8)
_BYTE_POOL_OPSET = 12  # the first whose MaxPool takes uint8


def deploy(
    network: Network,
    *,
    scores: bool = False,
    both: bool = False,
    for_openvino: bool = True,
    compare: bool = False,
    plugin: bool = False,
    unsigned: bool = False,
    free: Free | None = None,
) -> onnx.ModelProto:
    """The graph of ``network`` with unpooling lowered, preprocessing before it and argmax (or not) behind it.

    ``for_openvino`` writes the form that is fastest there: bytes are transposed, gathered and pooled (TensorRT does
    none of it on uint8) and INT8 tensors are moved as they are. ``compare`` finds the argmax there by comparing planes
    instead of by a search: the same labels, but where scores tie once they are rounded to BF16. Which of the two is
    faster depends on precision and processor. ``plugin`` unpools by operators of our own where it can: those of the
    OpenVINO extension, or of the TensorRT plugin. ``unsigned`` stores INT8 activations as UINT8 where that is exact
    (``edgeseg.export.unsigned``), for OpenVINO. ``free`` (``edgeseg.export.free.settle``) leaves batch or size open,
    not for OpenVINO. ``scores`` and ``both`` raise ``GraphError`` for a net that gives a label map.
    """
    assert not (free and for_openvino)
    network = without_names(network, _OURS)
    graph, shapes = _lowered(network, for_openvino, plugin, free, unsigned)
    free = free or Free()
    _attach_frame(graph, network, for_openvino, free)
    dims = shapes.get(network.output, []) if shapes else None
    if both:
        _attach_both(graph, network, free, dims)
    else:
        _attach_output(graph, network, scores, compare and for_openvino, free, dims, for_openvino)
    del graph.model.metadata_props[:]
    return graph.model


def deploy_bare(network: Network, *, plugin: bool = False) -> onnx.ModelProto:
    """The graph of ``network`` for TensorRT without what stands before and after it.

    ``tensor`` (1, 3, H, W) float32 is the frame resized and normalised, in the spec's colour order; ``scores`` (1,
    classes, H, W) float32 are at that size. ``plugin`` as for ``deploy``. Raises ``GraphError`` for a net that gives a
    label map.
    """
    network = without_names(network, _OURS)
    require_scores(network, "--kernels")
    graph, _ = _lowered(network, False, plugin, None, False)
    _attach_tensor(graph, network)
    shape = next(_shape(v) for v in graph.graph.output if v.name == network.output)
    del graph.graph.output[:]
    _give_scores(graph, network, *full_size(graph, network, shape), [1, *network.spec.input_size])
    del graph.model.metadata_props[:]
    return graph.model


def _lowered(
    network: Network, for_openvino: bool, plugin: bool, free: Free | None, unsigned: bool
) -> tuple[Appender, Shapes | None]:
    """The net's own graph with unpooling lowered, and the sizes of its tensors where some are free."""
    model = network.model
    if free:
        leave_free(model, network, free)
    else:
        fix_input(model, network.input, network.channels_last, network.spec.input_size)
    if not for_openvino:
        model = float_biases(model)
    if for_openvino:
        model = carry_int8(model)
    elif plugin:  # TensorRT does not take Q and DQ into a plugin
        model = carry_int8(model, only=("MaxPool", "MaxUnpool"))
    shapes = free_shapes(model, network, free) if free else None
    own = {"plugin": plugin and not for_openvino, "extension": plugin and for_openvino}
    model = lower_unpooling(model, **own, shapes=shapes)
    if for_openvino:
        model = dequantize_early(model)
        model = unsigned_activations(model) if unsigned else round_behind_gains(model)
        unshare_slopes(model)
    try:
        model = infer_shapes(model)
    except Exception as error:  # raised as several types, all of them about the graph
        raise GraphError(f"{network.name}: its shapes do not fit together", got=str(error).splitlines()[0]) from error
    return Appender(model), shapes


def without_names(network: Network, names: tuple[str, ...]) -> Network:
    """A copy of ``network`` in which no tensor has one of ``names``: those of the new graph's input and output."""
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    new = {name: f"{PREFIX}net/{name}" for name in names}
    _rename(model.graph, new)
    source, output = (new.get(name, name) for name in (network.input, network.output))
    return replace(network, model=model, input=source, output=output)


def _rename(graph: onnx.GraphProto, new: dict[str, str]) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name in new:
                    names[place] = new[name]
        for body in subgraphs(node):
            _rename(body, new)
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = new.get(value.name, value.name)


def _attach_frame(graph: Appender, network: Network, for_openvino: bool, free: Free) -> None:
    """uint8 BGR NHWC -> the net's own input tensor, which keeps its name.

    Where the target can, channels are put in order while they are still bytes, and a max-pool of the image itself
    (ENet's first block has one) is taken on the bytes too: ``gain * p + offset`` with positive gain rises with p, and
    so does its rounding, so that pooling commutes with it exactly.
    """
    element = next(i for i in graph.graph.input if i.name == network.input).type.tensor_type.elem_type
    x = "frame"
    if not for_openvino:
        element = _without_bytes(graph, network, element)
        x = graph.node("Cast", [x], PREFIX + "frame", first=True, to=TensorProto.FLOAT)
    if not network.channels_last:
        x = graph.node("Transpose", [x], PREFIX + "planes", first=True, perm=[0, 3, 1, 2])
    if network.spec.colour == "rgb":
        order = graph.constant("channel_order", np.array([2, 1, 0], np.int64))
        x = graph.node("Gather", [x, order], PREFIX + "rgb", first=True, axis=3 if network.channels_last else 1)
    gain, offset = coefficients(network.spec)
    shape = (1, 1, 1, 3) if network.channels_last else (1, 3, 1, 1)
    constants = graph.constant("gain", gain.reshape(shape)), graph.constant("offset", offset.reshape(shape))
    _normalise(graph, x, network.input, constants, element)
    if for_openvino and (gain > 0).all() and graph.opset >= _BYTE_POOL_OPSET:
        _pool_bytes(graph, x, network.input, constants, element)
    dims = [*free.dims(network.spec.input_size), 3]
    _replace_input(graph, network.input, helper.make_tensor_value_info("frame", TensorProto.UINT8, dims))


def float_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which INT32 constants behind a ``DequantizeLinear`` are floats: TensorRT takes no INT32 there."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensors = {t.name: t for t in copy.graph.initializer}
    for node in list(copy.graph.node):
        whole = tensors.get(node.input[0]) if is_op(node, "DequantizeLinear") else None
        scale = tensors.get(node.input[1]) if whole is not None else None
        if whole is None or scale is None or whole.data_type != TensorProto.INT32:
            continue
        value = numpy_helper.to_array(whole).astype(np.float64)
        steps = numpy_helper.to_array(scale).astype(np.float64)
        if steps.size > 1:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1) % value.ndim if value.ndim > 1 else 0
            steps = steps.reshape([-1 if i == axis else 1 for i in range(value.ndim)])
        floats = (value * steps).astype(np.float32)
        copy.graph.initializer.append(numpy_helper.from_array(floats, node.output[0]))
        copy.graph.node.remove(node)
    return copy


_MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Identity", "Gather")


def _without_bytes(graph: Appender, network: Network, element: int) -> int:
    """The type to give the net's own input where the target has no UINT8 inside: bytes that are cast to another type
    before anything is computed may be floats from the start, and class ids that end as bytes are cast further on.
    """
    nodes = graph.graph.node
    if network.form == "labels":
        name, moved = network.output, {network.output}
        for node in reversed(nodes):
            if name in node.output and is_op(node, *_MOVES):
                name = node.input[0]
                moved.add(name)
            elif name in node.output and is_op(node, "Cast"):
                to = next(a for a in node.attribute if a.name == "to")
                to.i = TensorProto.INT32 if to.i in _BYTES else to.i
        _forget_types(graph, moved)
    if element not in _BYTES:
        return element
    moved = {network.input}
    for node in nodes:
        if moved & set(node.input) and not is_op(node, "Cast"):
            if not is_op(node, *_MOVES) or moved & set(node.input[1:]):
                return element
            moved |= set(node.output)
    _forget_types(graph, moved)
    return int(TensorProto.FLOAT)


def _forget_types(graph: Appender, names: set[str]) -> None:
    for value in [v for v in graph.graph.value_info if v.name in names]:
        graph.graph.value_info.remove(value)


def _attach_tensor(graph: Appender, network: Network) -> None:
    """``tensor`` -> the net's own input tensor, which keeps its name."""
    element = next(i for i in graph.graph.input if i.name == network.input).type.tensor_type.elem_type
    element = _without_bytes(graph, network, element)
    x = "tensor"
    if network.channels_last:
        x = graph.node("Transpose", [x], PREFIX + "pixels_in", first=True, perm=[0, 2, 3, 1])
    if element == TensorProto.FLOAT:
        graph.node("Identity", [x], network.input, first=True)
    else:
        graph.node("Cast", [x], network.input, first=True, to=element)
    dims = [1, 3, *network.spec.input_size]
    _replace_input(graph, network.input, helper.make_tensor_value_info("tensor", TensorProto.FLOAT, dims))


def _replace_input(graph: Appender, name: str, value: onnx.ValueInfoProto) -> None:
    """``value`` for the graph's input ``name``, and the nodes that stand before the net in their place."""
    nodes = [*graph.before, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    kept = [i for i in graph.graph.input if i.name != name]
    del graph.graph.input[:]
    graph.graph.input.extend([value, *kept])


def _normalise(graph: Appender, x: str, out: str, constants: tuple[str, str], element: int) -> None:
    """Bytes ``x`` -> ``gain * x + offset`` of type ``element``, named ``out``."""
    name = PREFIX + out.removeprefix(PREFIX)
    x = graph.node("Cast", [x], f"{name}/float", first=True, to=TensorProto.FLOAT)
    x = graph.node("Mul", [x, constants[0]], f"{name}/scaled", first=True)
    last = out if element == TensorProto.FLOAT else f"{name}/normalised"
    x = graph.node("Add", [x, constants[1]], last, first=True)
    if element != TensorProto.FLOAT:
        graph.node("Cast", [x], out, first=True, to=element)


def _pool_bytes(graph: Appender, x: str, image: str, constants: tuple[str, str], element: int) -> None:
    """Move every max-pool of ``image`` (values only) in front of its normalisation, onto the bytes ``x``."""
    pools = [n for n in graph.graph.node if n.op_type == "MaxPool" and n.input[0] == image and len(n.output) == 1]
    for number, pool in enumerate(pools):
        out, pooled = pool.output[0], f"{PREFIX}pooled{number}"
        pool.input[0], pool.output[0] = x, pooled
        graph.graph.node.remove(pool)
        graph.before.append(pool)
        _normalise(graph, pooled, out, constants, element)


def _attach_output(
    graph: Appender,
    network: Network,
    scores: bool,
    compare: bool,
    free: Free,
    known: Sequence[Int | None] | None,
    for_openvino: bool,
) -> None:
    """The net's output, of the sizes ``known`` where some are free, -> ``labels`` or ``scores`` at the input's size."""
    classes = len(network.spec.labels)
    size = free.dims(network.spec.input_size)
    shape = known if known is not None else next(_shape(v) for v in graph.graph.output if v.name == network.output)
    x = network.output
    del graph.graph.output[:]
    if network.form == "labels":
        if scores:
            require_scores(network)
        x = _whole_map(graph, x, shape, network.spec.input_size, free)
        x = graph.node("Reshape", [x, _map_shape(graph, size)], PREFIX + "map")
    elif scores:
        x, nhwc = full_size(graph, network, shape, free)
        x = x if nhwc else graph.node("Transpose", [x], PREFIX + "pixels", perm=[0, 2, 3, 1])
        graph.node("Cast", [x], "scores", to=TensorProto.FLOAT)
        graph.graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, [*size, classes]))
        return
    else:
        x = _argmax(graph, network, shape, compare, free, last_axis=for_openvino)
    _give_labels(graph, x, size)


def _whole_map(graph: Appender, x: str, shape: Sequence[int | Int | None], size: tuple[int, int], free: Free) -> str:
    """A label map at the input's size: each pixel takes the id of the one its centre falls into."""
    sides = [side for side in shape[1:] if side != 1] if len(shape) == 4 else list(shape[-2:])
    if free or len(sides) != 2 or not all(isinstance(s, int) and s for s in sides) or tuple(sides) == tuple(size):
        return x
    planes = graph.constant("map_planes", np.array([1, 1, *sides], np.int64))
    x = graph.node("Reshape", [x, planes], PREFIX + "small_map")
    x = graph.node("Cast", [x], PREFIX + "small_map/float", to=TensorProto.FLOAT)  # Resize of whole numbers is rare
    return _resize(
        graph, x, graph.constant("map_size", np.array([1, 1, *size], np.int64)), PREFIX + "map/full", "nearest"
    )


def _attach_both(graph: Appender, network: Network, free: Free, known: Sequence[Int | None] | None) -> None:
    """The net's output, of the sizes ``known`` where some are free, -> ``labels`` and ``scores``, computed once."""
    require_scores(network)
    size = free.dims(network.spec.input_size)
    shape = known if known is not None else next(_shape(v) for v in graph.graph.output if v.name == network.output)
    del graph.graph.output[:]
    x, nhwc = full_size(graph, network, shape, free)
    _give_labels(graph, _search(graph, x, nhwc, last_axis=False), size)
    _give_scores(graph, network, x, nhwc, size)


def _give_scores(graph: Appender, network: Network, x: str, nhwc: bool, size: Sequence[int | str]) -> None:
    """``scores``, channels first, from the scores ``x`` at ``size`` (N, H, W)."""
    planes = graph.node("Transpose", [x], PREFIX + "score_planes", perm=[0, 3, 1, 2]) if nhwc else x
    graph.node("Cast", [planes], "scores", to=TensorProto.FLOAT)
    dims = [size[0], len(network.spec.labels), *size[1:]]
    graph.graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, dims))


def require_scores(network: Network, asked: str = "--scores") -> None:
    """Raise ``GraphError`` for a net that gives a label map; ``asked`` is the flag that needs scores."""
    if network.form == "labels":
        raise GraphError(f"{network.name}: gives a label map, no scores", hint=f"Leave {asked} out.")


def _give_labels(graph: Appender, x: str, size: Sequence[int | str]) -> None:
    graph.node("Cast", [x], "labels", to=TensorProto.UINT8)
    graph.graph.output.append(helper.make_tensor_value_info("labels", TensorProto.UINT8, size))


def _map_shape(graph: Appender, size: Sequence[int | str]) -> str:
    """The shape of a label map of ``size`` (N, H, W), of which the batch or more may be free."""
    free = [side for side in size if isinstance(side, str)]
    if len(free) > 1:
        return _frame_sizes(graph, "map_shape", [0, 1, 2])
    return graph.constant("map_shape", np.array([-1 if side in free else side for side in size], np.int64))


def _frame_sizes(graph: Appender, name: str, axes: list[int]) -> str:
    """The int64 vector of some of the sizes of ``frame``."""
    shape = graph.node("Shape", ["frame"], f"{PREFIX}{name}/frame")
    return graph.node("Gather", [shape, graph.constant(f"{name}/axes", np.array(axes, np.int64))], PREFIX + name)


def _argmax(
    graph: Appender,
    network: Network,
    shape: Sequence[int | Int | None],
    compare: bool,
    free: Free,
    last_axis: bool,
) -> str:
    """The class of the highest score, the first of equals: (1, H, W), of any number type."""
    height, width = network.spec.input_size
    classes = len(network.spec.labels)
    if compare and network.form == "nchw" and list(shape[2:]) == [height, width]:
        shuffled = shuffled_scores(graph, network.output, classes, (height, width))
        if shuffled is not None:
            return shuffled
    x, nhwc = full_size(graph, network, shape, free)
    if compare:
        x = graph.node("Transpose", [x], PREFIX + "score_planes", perm=[0, 3, 1, 2]) if nhwc else x
        x = compare_planes(graph, x, classes)
        size = graph.constant("map_shape", np.array([1, height, width], np.int64))
        return graph.node("Reshape", [x, size], PREFIX + "argmax")
    return _search(graph, x, nhwc, last_axis)


def _search(graph: Appender, x: str, nhwc: bool, last_axis: bool) -> str:
    """The argmax over the classes of the scores ``x``: (1, H, W) int64.

    ``last_axis`` for OpenVINO: the last convolution writes channels-last, and the search along any other axis is much
    slower. TensorRT chooses layouts itself, and fails behind attention over free sizes where one is written down.
    """
    if last_axis and not nhwc:
        x, nhwc = graph.node("Transpose", [x], PREFIX + "pixels", perm=[0, 2, 3, 1]), True
    return graph.node("ArgMax", [x], PREFIX + "argmax", axis=3 if nhwc else 1, keepdims=0)


def full_size(
    graph: Appender, network: Network, shape: Sequence[int | Int | None], free: Free | None = None
) -> tuple[str, bool]:
    """The scores, of ``shape``, at the input's size, and whether they are channels-last."""
    size = network.spec.input_size
    x, nhwc = network.output, network.form == "nhwc"
    whole = free.full_size(size) if free else list(size)
    if list(shape[1:3] if nhwc else shape[2:4]) == whole:
        return x, nhwc
    if nhwc:
        x = graph.node("Transpose", [x], PREFIX + "nchw", perm=[0, 3, 1, 2])
    return _upsample(graph, x, (free or Free()).dims(size), len(network.spec.labels)), False


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    return [d.dim_value for d in value.type.tensor_type.shape.dim]


def _upsample(graph: Appender, x: str, size: Sequence[int | str], classes: int) -> str:
    """To ``size`` (N, H, W), bilinear, half-pixel centres: PyTorch's ``interpolate(align_corners=False)``."""
    if any(isinstance(side, str) for side in size):
        planes = graph.constant("full_planes", np.array([classes], np.int64))
        ends = [_frame_sizes(graph, "full_batch", [0]), planes, _frame_sizes(graph, "full_side", [1, 2])]
        sizes = graph.node("Concat", ends, PREFIX + "full_size", axis=0)
    else:
        sizes = graph.constant("full_size", np.array([size[0], classes, *size[1:]], np.int64))
    return _resize(graph, x, sizes, PREFIX + "full", "linear")


def _resize(graph: Appender, x: str, sizes: str, out: str, mode: str) -> str:
    options: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": "half_pixel"}
    if mode == "nearest":
        options["nearest_mode"] = "round_prefer_ceil"  # with half-pixel centres: the pixel a centre falls into
    if graph.opset < 11:
        raise GraphError(
            "an ONNX file with opset 11 or newer is needed", got=f"opset {graph.opset}",
            hint="onnx.version_converter.convert_version(model, 17) updates it.",
        )  # fmt: skip
    may_be_left_out = graph.opset >= 13
    unused = "" if may_be_left_out else graph.constant("full_unused", np.zeros(0, np.float32))
    return graph.node("Resize", [x, unused, unused, sizes], out, **options)
