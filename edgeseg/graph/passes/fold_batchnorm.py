"""Fold batch normalisation into the convolution in front of it.

Quantization then finds nothing between a convolution and its activation.

In inference, batch normalisation is a per-channel gain and offset. It goes into the weights and
bias of the convolution in front of it, through a concat if there is one. The same is done with the
``Mul`` and ``Add`` by constants that some exporters write instead. Values change by float rounding
only.
"""

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, inliner

from edgeseg.graph.graph import Graph
from edgeseg.graph.nodes import attributes, copied, is_op
from edgeseg.graph.passes.canonicalize import fill_defaults
from edgeseg.types import Float

# Raise it when the tensors of a folded graph change: older calibration statistics are then not
# used.
FOLD_VERSION = 2
WEIGHT_LAYERS = ("Conv", "ConvTranspose")


def fold(model: ModelProto) -> ModelProto:
    """Return a copy of a graph with batch normalisation folded.

    In the copy every node has a name, constants are initializers, and there is no ``Identity``
    except for one if the image itself joins a concat.

    Parameters
    ----------
    model : a float graph; it is not changed.
    """
    return fold_in_place(copied(model))


def fold_in_place(model: ModelProto) -> ModelProto:
    """Fold batch normalisation in a graph, and return the graph; see ``fold``.

    Parameters
    ----------
    model : a float graph. If it has functions, another graph is returned: they are inlined in it.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)

    # 1. Remove what hides a layer's neighbours.
    name_nodes(model)
    fill_defaults(model)
    graph = Graph(model)
    graph.hoist_constants()
    _drop_passing(graph)

    # 2. Move normalisation through concats, then fold it, one node at a time.
    for step in (_spread_normalisation, _fold_affine):
        while step(graph):
            pass

    # 3. Clean up.
    graph.drop_unread_constants()
    _part_image(graph)
    return model


def name_nodes(model: ModelProto) -> None:
    """Give every node a unique name, in place: reports and errors name layers.

    A file's own names have priority.

    Parameters
    ----------
    model : the ONNX graph.

    Examples
    --------
    >>> from onnx.parser import parse_model
    >>> body = "f (float[1] x) => (float[1] z) {y = Relu (x) z = Relu (y)}"
    >>> model = parse_model(f'<ir_version: 9, opset_import: ["" : 17]> {body}')
    >>> name_nodes(model)
    >>> [node.name for node in model.graph.node]
    ['y', 'z']
    """
    used: set[str] = set()
    for node in sorted(model.graph.node, key=lambda n: not n.name):
        base = node.name or next((o for o in node.output if o), node.op_type)
        name = base
        count = 1
        while name in used:
            name = f"{base}_{count}"
            count += 1
        node.name = name
        used.add(name)


def _drop_passing(graph: Graph) -> None:
    """Remove ``Identity`` and ``Dropout``, which does nothing in inference.

    A ``Dropout`` whose mask is read stays.
    """
    for node in graph.nodes("Identity", "Dropout"):
        reads_mask = any(graph.is_read(name) for name in node.output[1:])
        if not reads_mask and not graph.is_pinned(node.output[0]):
            graph.remove(node)
            graph.read_instead(node.input[0], node.output[0])


def _part_image(graph: Graph) -> None:
    """Give a concat an ``Identity`` of the image if other nodes read the image, too.

    A concat has one scale. An image of 2.6 standard deviations beside maps of hundreds would be
    rounded to a few steps, and the first layer, which reads the same tensor, would get these steps
    as well.
    """
    for name in [value.name for value in graph.graph.input]:
        readers = [node for node in graph.nodes() if name in node.input]
        joined = [node for node in readers if is_op(node, "Concat")]
        if not joined or len(joined) == len(readers):
            continue
        branch = f"{name}/joined"
        graph.read_instead(branch, name, joined)
        graph.node("Identity", [name], branch, name=f"{name}/joining", before=graph.nodes()[0])


def _spread_normalisation(graph: Graph) -> bool:
    """Move one batch normalisation in front of a concat of channels; return True if moved.

    Each input of the concat gets a slice of its gain and offset.
    """
    for node in graph.nodes("BatchNormalization"):
        # 1. A concat of channels that only this normalisation reads.
        concat = graph.producer.get(node.input[0])
        if concat is None or not is_op(concat, "Concat"):
            continue
        if attributes(concat)["axis"] not in (1, -3):
            continue
        joined = concat.output[0]
        affine = affine_of(graph, node)
        if affine is None or len(graph.readers[joined]) != 1 or joined in graph.outputs:
            continue

        # 2. All channel counts are known, and some input comes from a layer that takes its slice.
        counts = [graph.static_channels(name) for name in concat.input]
        known = [count for count in counts if count is not None]
        foldable = any(_can_take(graph, name) for name in concat.input)
        if len(known) != len(counts) or sum(known) != len(affine[0]) or not foldable:
            continue

        # 3. Scale every input with its slice of gain and offset.
        start = 0
        for place, count in enumerate(known):
            part = slice(start, start + count)
            start += count
            slices = (affine[0][part], affine[1][part])
            out = _scale(graph, f"{node.name}/{place}", concat.input[place], slices, concat)
            graph.set_input(concat, place, out)

        # 4. Remove the normalisation.
        graph.remove(node)
        graph.set_output(concat, 0, node.output[0])
        return True
    return False


def _scale(graph: Graph, name: str, x: str, affine: tuple[Float, Float], before: NodeProto) -> str:
    """Add nodes that compute ``x * gain + offset`` per channel (dimension 1 of four).

    They go in front of ``before``. Return the name of the result.
    """
    gain, offset = affine
    shape = (1, -1, 1, 1)
    scaled = graph.unique(f"{name}/scaled")
    out = graph.unique(f"{name}/out")
    gains = _initializer(graph, f"{name}/gain", gain.reshape(shape))
    offsets = _initializer(graph, f"{name}/offset", offset.reshape(shape))

    multiply = graph.unique(f"{name}/Mul")
    graph.node("Mul", [x, gains], scaled, name=multiply, before=before)
    add = graph.unique(f"{name}/Add")
    graph.node("Add", [scaled, offsets], out, name=add, before=before)
    graph.assume_like(scaled, x)
    graph.assume_like(out, x)
    return out


def _fold_affine(graph: Graph) -> bool:
    """Fold one per-channel gain or offset into the weights in front of it.

    Return True if there was one.
    """
    for node in graph.nodes("BatchNormalization", "Mul", "Add"):
        source = _variable_input(graph, node)
        layer = graph.producer.get(source) if source else None
        if layer is None or not _can_take(graph, source):
            continue
        affine = affine_of(graph, node)
        if affine is None:
            continue

        _rewrite(graph, layer, *affine)
        graph.remove(node)
        graph.set_output(layer, 0, node.output[0])
        return True
    return False


def _variable_input(graph: Graph, node: NodeProto) -> str:
    """Return the one input of a node that is not constant; ``""`` if there is not exactly one."""
    if is_op(node, "BatchNormalization"):
        return str(node.input[0])
    variable = [name for name in node.input if graph.array(name) is None]
    return variable[0] if len(variable) == 1 else ""


def affine_of(graph: Graph, node: NodeProto) -> tuple[Float, Float] | None:
    """Return the per-channel gain and offset that a node computes.

    Parameters
    ----------
    graph : the graph of the node.
    node : any node; a batch normalisation, or a ``Mul`` or ``Add`` with a constant, has them.

    Returns
    -------
    Gain and offset, (C,) float32 each; ``None`` if the node computes something else.
    """
    # Batch normalisation.
    if is_op(node, "BatchNormalization"):
        values = [graph.array(name) for name in node.input[1:5]]
        if any(v is None for v in values) or attributes(node).get("training_mode", 0):
            return None
        gamma, beta, mean, var = (np.asarray(v, np.float64) for v in values)
        gain = gamma / np.sqrt(var + attributes(node).get("epsilon", 1e-5))
        return gain.astype(np.float32), (beta - mean * gain).astype(np.float32)

    # A product or a sum with a constant.
    if not is_op(node, "Mul", "Add") or len(node.input) != 2 or not _variable_input(graph, node):
        return None
    values = [graph.array(name) for name in node.input]
    constant = next(value for value in values if value is not None)
    channels = graph.static_channels(_variable_input(graph, node))
    flat = _per_channel(np.asarray(constant), channels)
    if flat is None:
        return None
    if node.op_type == "Mul":
        return flat, np.zeros_like(flat)
    return np.ones_like(flat), flat


def _per_channel(value: npt.NDArray[np.generic], channels: int | None) -> Float | None:
    """Return a constant that gives (N, C, H, W) one number per channel, as (C,) float32.

    The result is ``None`` for a constant of another shape.
    """
    if channels is None or value.dtype not in (np.float32, np.float16):
        return None
    shape = (1,) * (4 - value.ndim) + value.shape
    if len(shape) != 4 or shape[0] != 1 or shape[2:] != (1, 1) or shape[1] not in (1, channels):
        return None
    return np.array(np.broadcast_to(value.reshape(-1), (channels,)), np.float32)


def _can_take(graph: Graph, name: str) -> bool:
    """Return True if a convolution with constant float32 weights makes a tensor for one reader."""
    layer = graph.producer.get(name)
    if layer is None or not is_op(layer, *WEIGHT_LAYERS) or name in graph.outputs:
        return False
    if len(graph.readers[name]) != 1:
        return False
    weights = [graph.array(i) for i in layer.input[1:] if i]
    return all(w is not None and w.dtype == np.float32 for w in weights)


def _rewrite(graph: Graph, layer: NodeProto, gain: Float, offset: Float) -> None:
    """Give a layer weights of its own, scaled by ``gain``, and a bias with ``offset``."""
    weight = np.asarray(graph.array(layer.input[1]), np.float32)
    bias = graph.array(layer.input[2]) if len(layer.input) > 2 and layer.input[2] else None
    before = np.zeros_like(gain) if bias is None else np.asarray(bias, np.float32)

    if layer.op_type == "Conv":
        scaled = weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
    else:  # (in, out / group, kh, kw): output channel o of group g is gain[g * out / group + o]
        group = attributes(layer).get("group", 1)
        gains = gain.reshape(group, 1, -1, *[1] * (weight.ndim - 2))
        scaled = (weight.reshape(group, -1, *weight.shape[1:]) * gains).reshape(weight.shape)

    weights = _initializer(graph, f"{layer.name}/weight", scaled)
    biases = _initializer(graph, f"{layer.name}/bias", before * gain + offset)
    graph.set_inputs(layer, [layer.input[0], weights, biases])


def _initializer(graph: Graph, hint: str, value: Float) -> str:
    """Add a float32 constant and return its name."""
    return graph.new_constant(hint, np.asarray(value, np.float32))
