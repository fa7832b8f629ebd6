"""Lower a network to the graph that a target compiles: frame in, label map out, with the spec inside.

The lowered graph takes ``frame`` (1, H, W, 3) uint8 BGR and gives ``labels`` (1, H, W) uint8, or the logits that the
labels are the argmax of (``LoweringOptions``). H, W are ``spec.input_size``; batch and size may be left dynamic.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeseg.errors import GraphError
from edgeseg.graph.append import PREFIX, Appender
from edgeseg.graph.graph import Int, copied, infer_shapes, is_op, subgraphs
from edgeseg.graph.network import Network
from edgeseg.graph.outputs import fix_input
from edgeseg.graph.passes.argmax import compare_planes, shuffled_scores
from edgeseg.graph.passes.dynamic_shapes import DynamicShapes, Shapes, infer_dynamic_shapes, open_dimensions
from edgeseg.graph.passes.qdq_propagation import dequantize_early, propagate_qdq
from edgeseg.graph.passes.unpool import lower_unpooling
from edgeseg.graph.passes.unpool.extension import is_extension
from edgeseg.graph.passes.unpool.plugin import is_plugin
from edgeseg.graph.passes.unshare_slopes import unshare_slopes
from edgeseg.graph.passes.unsigned_activations import round_behind_gains, unsigned_activations
from edgeseg.imaging.preprocess import coefficients

_OURS = ("frame", "labels", "scores", "tensor")
_BYTES = (TensorProto.UINT8, TensorProto.INT8)
_KEPT_BODIES = 3  # lowered bodies that stay with a network: native, with own operators, for ONNX Runtime
_BYTE_POOL_OPSET = 12  # the first whose MaxPool takes uint8


@dataclass(frozen=True)
class LoweringOptions:
    """Choose what a network is lowered to.

    Attributes
    ----------
    for_openvino : write the form that is fastest there: bytes are transposed, gathered and pooled (TensorRT does none
        of it on uint8), and INT8 tensors are moved as they are.
    scores : give ``scores`` (1, H, W, classes) float32, the logits, instead of ``labels``.
    both : give ``labels`` and ``scores`` (1, classes, H, W) float32, channels first as TensorRT computes them.
    compare : for OpenVINO, find the argmax by comparing planes instead of by a search. The labels are the same,
        except if logits tie once they are rounded to BF16. Which of the two is faster depends on precision and
        processor.
    plugin : unpool by edgeseg's own operators where they fit: the OpenVINO extension's or the TensorRT plugin's.
    unsigned : for OpenVINO, store INT8 activations as UINT8 if that is exact (``passes.unsigned_activations``).
    dynamic : leave batch or size open (``resolve_dynamic_shapes``); not for OpenVINO.
    bare : leave images to the code that runs the network: ``tensor`` (1, 3, H, W) float32 in, resized and
        normalised, in the spec's colour order; ``scores`` (1, classes, H, W) float32 out. For TensorRT.

    Examples
    --------
    >>> LoweringOptions(scores=True, unsigned=True).body == LoweringOptions(unsigned=True)
    True
    """

    for_openvino: bool = True
    scores: bool = False
    both: bool = False
    compare: bool = False
    plugin: bool = False
    unsigned: bool = False
    dynamic: DynamicShapes | None = None
    bare: bool = False

    @property
    def body(self) -> "LoweringOptions":
        """Return these options without the ones that only concern the outputs."""
        return replace(self, scores=False, both=False, compare=False)


@dataclass(frozen=True)
class Lowered:
    """Hold a graph that a target can compile, and facts about it.

    Attributes
    ----------
    model : the graph.
    uses_plugin : True if it has operators of the TensorRT plugin or of the OpenVINO extension.
    """

    model: onnx.ModelProto
    uses_plugin: bool


def lower(network: Network, options: LoweringOptions | None = None) -> Lowered:
    """Lower a network: unpool by the target's operators, add preprocessing in front and argmax behind.

    The body is lowered once for each kind of body and kept with ``network``: another output costs a copy.

    Parameters
    ----------
    network : a float network or a Q/DQ network.
    options : what to lower it to; labels for OpenVINO unless given.

    Raises
    ------
    GraphError : an operator or a size has no form that the target takes; or the options need logits and the network
        gives labels.
    """
    options = options or LoweringOptions()
    assert not (options.dynamic and options.for_openvino)
    assert not (options.bare and options.for_openvino)
    if options.bare:
        require_scores(network, "kernels")

    # The body: from the frame to the network's own output.
    body, shapes = _body(network, options.body)
    renamed = _renamed(network)
    graph = Appender(copied(body))
    dynamic = options.dynamic or DynamicShapes()
    dims = shapes.get(renamed.output, []) if shapes else None

    # The output.
    if options.bare:
        _attach_bare_scores(graph, renamed)
    elif options.both:
        _attach_both(graph, renamed, dynamic, dims)
    else:
        _attach_output(graph, renamed, options, dynamic, dims)
    del graph.model.metadata_props[:]

    uses_plugin = any(is_plugin(node) or is_extension(node) for node in graph.graph.node)
    return Lowered(graph.model, uses_plugin)


def _body(network: Network, options: LoweringOptions) -> tuple[onnx.ModelProto, Shapes | None]:
    """Return the graph from the frame to the network's own output, and the sizes of its tensors if dynamic."""
    if options in network.lowered:
        return network.lowered[options]

    named = without_names(network, _OURS)
    graph, shapes = _lowered_body(named, options)
    if options.bare:
        _attach_tensor(graph, named)
    else:
        _attach_frame(graph, named, options.for_openvino, options.dynamic or DynamicShapes())

    while len(network.lowered) >= _KEPT_BODIES:
        network.lowered.pop(next(iter(network.lowered)))
    network.lowered[options] = (graph.model, shapes)
    return graph.model, shapes


def _lowered_body(network: Network, options: LoweringOptions) -> tuple[Appender, Shapes | None]:
    """Lower the network's own graph in place; also return the sizes of its tensors if dynamic."""
    model = network.model
    dynamic = options.dynamic

    # 1. Set the size of the input.
    if dynamic:
        open_dimensions(model, network, dynamic)
    else:
        fix_input(model, network.input, network.channels_last, network.spec.input_size)

    # 2. Let INT8 tensors pass through operators that only move values.
    if options.for_openvino:
        model = propagate_qdq(model)
    else:
        model = float_biases(model)
        if options.plugin:  # TensorRT does not take Q and DQ into a plugin
            model = propagate_qdq(model, only=("MaxPool", "MaxUnpool"))

    # 3. Write unpooling in operators of the target.
    shapes = infer_dynamic_shapes(model, network, dynamic) if dynamic else None
    model = lower_unpooling(
        model,
        plugin=options.plugin and not options.for_openvino,
        extension=options.plugin and options.for_openvino,
        shapes=shapes,
    )

    # 4. Bring INT8 into the form that OpenVINO computes fast and right.
    if options.for_openvino:
        model = dequantize_early(model)
        model = unsigned_activations(model) if options.unsigned else round_behind_gains(model)
        unshare_slopes(model)

    # 5. Infer the shapes of the result.
    try:
        model = infer_shapes(model)
    except Exception as error:  # raised as several types, all of them about the graph
        raise GraphError(f"{network.name}: its shapes do not fit together", got=str(error).splitlines()[0]) from error
    return Appender(model), shapes


def _renamed(network: Network) -> Network:
    """Return the network with the names that ``without_names`` gives its input and output.

    Its graph is not renamed.
    """
    source, output = (_own_name(name, _OURS) for name in (network.input, network.output))
    return replace(network, input=source, output=output)


def without_names(network: Network, names: tuple[str, ...]) -> Network:
    """Return a copy of a network in which no tensor has one of some names.

    Parameters
    ----------
    network : the network to copy.
    names : the names that the new graph needs for its inputs and outputs.
    """
    model = copied(network.model)
    _rename(model.graph, {name: _own_name(name, names) for name in names})
    source, output = (_own_name(name, names) for name in (network.input, network.output))
    return replace(network, model=model, input=source, output=output)


def _own_name(name: str, names: tuple[str, ...]) -> str:
    """Return the name of a tensor, with a prefix if it is one of ``names``."""
    return f"{PREFIX}net/{name}" if name in names else name


def _rename(graph: onnx.GraphProto, new: dict[str, str]) -> None:
    """Rename tensors of a graph and its subgraphs, in place; ``new`` maps old names to new ones."""
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name in new:
                    names[place] = new[name]
        for body in subgraphs(node):
            _rename(body, new)
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = new.get(value.name, value.name)


def _attach_frame(graph: Appender, network: Network, for_openvino: bool, dynamic: DynamicShapes) -> None:
    """Add the preprocessing: from ``frame`` (uint8 BGR, NHWC) to the network's own input, which keeps its name.

    If the target can, channels are put in order while they are still bytes. A max-pool of the image itself (ENet's
    first block has one) moves to the bytes too: ``gain * p + offset`` with positive gain rises with p, and so does its
    rounding, so that pooling commutes with it exactly.
    """
    element = _element_type(graph, network.input)

    # Transpose and reorder the channels of the bytes.
    x = "frame"
    if not for_openvino:
        element = _without_bytes(graph, network, element)
        x = graph.node("Cast", [x], PREFIX + "frame", first=True, to=TensorProto.FLOAT)
    if not network.channels_last:
        x = graph.node("Transpose", [x], PREFIX + "planes", first=True, perm=[0, 3, 1, 2])
    if network.spec.colour == "rgb":
        order = graph.constant("channel_order", np.array([2, 1, 0], np.int64))
        x = graph.node("Gather", [x, order], PREFIX + "rgb", first=True, axis=3 if network.channels_last else 1)

    # Normalise.
    gain, offset = coefficients(network.spec)
    shape = (1, 1, 1, 3) if network.channels_last else (1, 3, 1, 1)
    gain_name = graph.constant("gain", gain.reshape(shape))
    offset_name = graph.constant("offset", offset.reshape(shape))
    constants = (gain_name, offset_name)
    _normalise(graph, x, network.input, constants, element)
    if for_openvino and (gain > 0).all() and graph.opset >= _BYTE_POOL_OPSET:
        _pool_bytes(graph, x, network.input, constants, element)

    dims = [*dynamic.dims(network.spec.input_size), 3]
    _replace_input(graph, network.input, helper.make_tensor_value_info("frame", TensorProto.UINT8, dims))


def _element_type(graph: Appender, name: str) -> int:
    """Return the ONNX element type of a graph input."""
    value = next(i for i in graph.graph.input if i.name == name)
    return int(value.type.tensor_type.elem_type)


def float_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """Make INT32 constants in front of a ``DequantizeLinear`` floats, in place; return ``model``.

    TensorRT takes no INT32 there.

    Parameters
    ----------
    model : a Q/DQ graph or a float graph.
    """
    tensors = {t.name: t for t in model.graph.initializer}
    for node in list(model.graph.node):
        whole = tensors.get(node.input[0]) if is_op(node, "DequantizeLinear") else None
        scale = tensors.get(node.input[1]) if whole is not None else None
        if whole is None or scale is None or whole.data_type != TensorProto.INT32:
            continue

        value = numpy_helper.to_array(whole).astype(np.float64)
        steps = numpy_helper.to_array(scale).astype(np.float64)
        if steps.size > 1:  # one scale per channel
            axis = 0
            if value.ndim > 1:
                axis = next((a.i for a in node.attribute if a.name == "axis"), 1) % value.ndim
            steps = steps.reshape([-1 if i == axis else 1 for i in range(value.ndim)])

        floats = (value * steps).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(floats, node.output[0]))
        model.graph.node.remove(node)
    return model


_MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Identity", "Gather")


def _without_bytes(graph: Appender, network: Network, element: int) -> int:
    """Avoid bytes inside the graph, in place; return the element type that the network's own input gets.

    For targets without UINT8 inside. Bytes that are cast to another type before anything is computed may be floats from
    the start; class ids that end as bytes become INT32 and are cast at the end.
    """
    nodes = graph.graph.node

    # Backwards from a label map: its cast to bytes.
    if network.form == "labels":
        name = network.output
        moved = {network.output}
        for node in reversed(nodes):
            if name in node.output and is_op(node, *_MOVES):
                name = node.input[0]
                moved.add(name)
            elif name in node.output and is_op(node, "Cast"):
                to = next(a for a in node.attribute if a.name == "to")
                to.i = TensorProto.INT32 if to.i in _BYTES else to.i
        _forget_types(graph, moved)

    # Forwards from an input of bytes: all readers must move values or cast.
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
    """Remove the inferred types of some tensors."""
    for value in [v for v in graph.graph.value_info if v.name in names]:
        graph.graph.value_info.remove(value)


def _attach_tensor(graph: Appender, network: Network) -> None:
    """Lead ``tensor`` to the network's own input, which keeps its name."""
    element = _element_type(graph, network.input)
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
    """Put ``value`` in the place of the graph's input ``name``, and the nodes of ``before`` in front."""
    nodes = [*graph.before, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    kept = [i for i in graph.graph.input if i.name != name]
    del graph.graph.input[:]
    graph.graph.input.extend([value, *kept])


def _normalise(graph: Appender, x: str, out: str, constants: tuple[str, str], element: int) -> None:
    """Compute ``gain * x + offset`` of the bytes ``x``, as the tensor ``out`` of type ``element``."""
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
        out = pool.output[0]
        pooled = f"{PREFIX}pooled{number}"
        pool.input[0] = x
        pool.output[0] = pooled
        graph.graph.node.remove(pool)
        graph.before.append(pool)
        _normalise(graph, pooled, out, constants, element)


def _attach_bare_scores(graph: Appender, network: Network) -> None:
    """Turn the network's output into ``scores`` at the input's size, channels first."""
    shape = _output_shape(graph, network)
    del graph.graph.output[:]
    x, nhwc = full_size(graph, network, shape)
    _give_scores(graph, network, x, nhwc, [1, *network.spec.input_size])


def _attach_output(
    graph: Appender,
    network: Network,
    options: LoweringOptions,
    dynamic: DynamicShapes,
    known: Sequence[Int | None] | None,
) -> None:
    """Turn the network's output into ``labels`` or ``scores`` at the input's size.

    ``known`` are the output's sizes if some are dynamic.
    """
    classes = len(network.spec.labels)
    size = dynamic.dims(network.spec.input_size)
    shape = known if known is not None else _output_shape(graph, network)
    x = network.output
    del graph.graph.output[:]

    if network.form == "labels":
        if options.scores:
            require_scores(network)
        x = _whole_map(graph, x, shape, network.spec.input_size, dynamic)
        x = graph.node("Reshape", [x, _map_shape(graph, size)], PREFIX + "map")
    elif options.scores:
        x, nhwc = full_size(graph, network, shape, dynamic)
        x = x if nhwc else graph.node("Transpose", [x], PREFIX + "pixels", perm=[0, 2, 3, 1])
        graph.node("Cast", [x], "scores", to=TensorProto.FLOAT)
        graph.graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, [*size, classes]))
        return
    else:
        compare = options.compare and options.for_openvino
        x = _argmax(graph, network, shape, compare, dynamic, last_axis=options.for_openvino)

    _give_labels(graph, x, size)


def _whole_map(
    graph: Appender, x: str, shape: Sequence[int | Int | None], size: tuple[int, int], dynamic: DynamicShapes
) -> str:
    """Return a label map at the input's size: each pixel takes the id of the pixel that its centre falls into."""
    sides = [side for side in shape[1:] if side != 1] if len(shape) == 4 else list(shape[-2:])
    if dynamic or len(sides) != 2 or not all(isinstance(s, int) and s for s in sides) or tuple(sides) == tuple(size):
        return x

    planes = graph.constant("map_planes", np.array([1, 1, *sides], np.int64))
    x = graph.node("Reshape", [x, planes], PREFIX + "small_map")
    x = graph.node("Cast", [x], PREFIX + "small_map/float", to=TensorProto.FLOAT)  # Resize of whole numbers is rare
    full = graph.constant("map_size", np.array([1, 1, *size], np.int64))
    return _resize(graph, x, full, PREFIX + "map/full", "nearest")


def _attach_both(graph: Appender, network: Network, dynamic: DynamicShapes, known: Sequence[Int | None] | None) -> None:
    """Turn the network's output into ``labels`` and ``scores``, computed once; ``known`` are its sizes if dynamic."""
    require_scores(network)
    size = dynamic.dims(network.spec.input_size)
    shape = known if known is not None else _output_shape(graph, network)
    del graph.graph.output[:]

    x, nhwc = full_size(graph, network, shape, dynamic)
    _give_labels(graph, _search(graph, x, nhwc, last_axis=False), size)
    _give_scores(graph, network, x, nhwc, size)


def _give_scores(graph: Appender, network: Network, x: str, nhwc: bool, size: Sequence[int | str]) -> None:
    """Add the output ``scores``, channels first, from the logits ``x`` at ``size`` (N, H, W)."""
    planes = x
    if nhwc:
        planes = graph.node("Transpose", [x], PREFIX + "score_planes", perm=[0, 3, 1, 2])
    graph.node("Cast", [planes], "scores", to=TensorProto.FLOAT)
    dims = [size[0], len(network.spec.labels), *size[1:]]
    graph.graph.output.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, dims))


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
        raise GraphError(f"{network.name}: gives a label map, no scores", hint=f"Leave `{asked}` out.")


def _give_labels(graph: Appender, x: str, size: Sequence[int | str]) -> None:
    """Add the output ``labels`` from the class ids ``x``, of ``size`` (N, H, W)."""
    graph.node("Cast", [x], "labels", to=TensorProto.UINT8)
    graph.graph.output.append(helper.make_tensor_value_info("labels", TensorProto.UINT8, size))


def _map_shape(graph: Appender, size: Sequence[int | str]) -> str:
    """Return the name of a label map's shape, of ``size`` (N, H, W); the batch or more may be dynamic."""
    dynamic = [side for side in size if isinstance(side, str)]
    if len(dynamic) > 1:
        return _frame_sizes(graph, "map_shape", [0, 1, 2])
    sides = [-1 if side in dynamic else side for side in size]
    return graph.constant("map_shape", np.array(sides, np.int64))


def _frame_sizes(graph: Appender, name: str, axes: list[int]) -> str:
    """Return the name of an int64 vector: the sizes of ``frame`` on ``axes``."""
    shape = graph.node("Shape", ["frame"], f"{PREFIX}{name}/frame")
    chosen = graph.constant(f"{name}/axes", np.array(axes, np.int64))
    return graph.node("Gather", [shape, chosen], PREFIX + name)


def _argmax(
    graph: Appender,
    network: Network,
    shape: Sequence[int | Int | None],
    compare: bool,
    dynamic: DynamicShapes,
    last_axis: bool,
) -> str:
    """Return the name of the class ids with the highest logit, the first of equals: (1, H, W), any number type."""
    height, width = network.spec.input_size
    classes = len(network.spec.labels)

    if compare and network.form == "nchw" and list(shape[2:]) == [height, width]:
        shuffled = shuffled_scores(graph, network.output, classes, (height, width))
        if shuffled is not None:
            return shuffled

    x, nhwc = full_size(graph, network, shape, dynamic)
    if compare:
        x = graph.node("Transpose", [x], PREFIX + "score_planes", perm=[0, 3, 1, 2]) if nhwc else x
        x = compare_planes(graph, x, classes)
        size = graph.constant("map_shape", np.array([1, height, width], np.int64))
        return graph.node("Reshape", [x, size], PREFIX + "argmax")
    return _search(graph, x, nhwc, last_axis)


def _search(graph: Appender, x: str, nhwc: bool, last_axis: bool) -> str:
    """Return the name of the argmax of the logits ``x`` over the classes: (1, H, W) int64.

    ``last_axis`` is for OpenVINO: the last convolution writes channels-last, and the search along any other axis is
    much slower. TensorRT chooses layouts itself, and fails behind attention over dynamic sizes if the graph fixes one.
    """
    if last_axis and not nhwc:
        x = graph.node("Transpose", [x], PREFIX + "pixels", perm=[0, 2, 3, 1])
        nhwc = True
    return graph.node("ArgMax", [x], PREFIX + "argmax", axis=3 if nhwc else 1, keepdims=0)


def full_size(
    graph: Appender, network: Network, shape: Sequence[int | Int | None], dynamic: DynamicShapes | None = None
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
    return _upsample(graph, x, (dynamic or DynamicShapes()).dims(size), len(network.spec.labels)), False


def _output_shape(graph: Appender, network: Network) -> list[int]:
    """Return the shape of the network's output, 0 for unknown sizes."""
    value = next(output for output in graph.graph.output if output.name == network.output)
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _upsample(graph: Appender, x: str, size: Sequence[int | str], classes: int) -> str:
    """Resize to ``size`` (N, H, W), bilinear, half-pixel centres: PyTorch's ``interpolate(align_corners=False)``."""
    if any(isinstance(side, str) for side in size):
        planes = graph.constant("full_planes", np.array([classes], np.int64))
        batch = _frame_sizes(graph, "full_batch", [0])
        sides = _frame_sizes(graph, "full_side", [1, 2])
        sizes = graph.node("Concat", [batch, planes, sides], PREFIX + "full_size", axis=0)
    else:
        sizes = graph.constant("full_size", np.array([size[0], classes, *size[1:]], np.int64))
    return _resize(graph, x, sizes, PREFIX + "full", "linear")


def _resize(graph: Appender, x: str, sizes: str, out: str, mode: str) -> str:
    """Resize ``x`` to the shape ``sizes`` with half-pixel centres; ``mode`` is ``linear`` or ``nearest``."""
    options: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": "half_pixel"}
    if mode == "nearest":
        options["nearest_mode"] = "round_prefer_ceil"  # with half-pixel centres: the pixel a centre falls into
    if graph.opset < 11:
        raise GraphError(
            "an ONNX file with opset 11 or newer is needed",
            got=f"opset {graph.opset}",
            hint="onnx.version_converter.convert_version(model, 17) updates it.",
        )

    may_be_left_out = graph.opset >= 13
    unused = "" if may_be_left_out else graph.constant("full_unused", np.zeros(0, np.float32))
    return graph.node("Resize", [x, unused, unused, sizes], out, **options)
