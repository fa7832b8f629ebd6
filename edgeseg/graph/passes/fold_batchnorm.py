"""Fold batch normalisation, so that quantization finds nothing between a convolution and its activation.

In inference, batch normalisation is a per-channel gain and offset. It goes into the weights and bias of the convolution
in front of it, through a concat if there is one. The same is done with the ``Mul`` and ``Add`` by constants that some
exporters write instead.
Values change by float rounding only.
"""

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, helper, inliner, numpy_helper

from edgeseg.graph.graph import Graph, attributes, copied, is_op, names_read, subgraphs
from edgeseg.graph.passes.canonicalize import fill_defaults
from edgeseg.types import Float

FOLD_VERSION = 2  # raise it when the tensors of a folded graph change: older calibration statistics are then not used
WEIGHT_LAYERS = ("Conv", "ConvTranspose")


def fold(model: ModelProto) -> ModelProto:
    """Return a copy of a graph with batch normalisation folded.

    In the copy every node has a name, constants are initializers, and there is no ``Identity`` except for one if the
    image itself joins a concat.

    Parameters
    ----------
    model : a float graph; it is not changed.
    """
    copy = copied(model)
    if copy.functions:
        copy = inliner.inline_local_functions(copy)

    # 1. Remove what hides a layer's neighbours.
    name_nodes(copy)
    fill_defaults(copy)
    _hoist_constants(copy)
    _drop_passing(copy)

    # 2. Move normalisation through concats, then fold it, one node at a time.
    for step in (_spread_normalisation, _fold_affine):
        while step(Graph(copy)):
            pass

    # 3. Clean up.
    drop_unread(copy)
    _part_image(copy)
    return copy


def name_nodes(model: ModelProto) -> None:
    """Give every node a unique name, in place: reports and errors name layers. A file's own names have priority.

    Parameters
    ----------
    model : the ONNX graph.

    Examples
    --------
    >>> from onnx.parser import parse_model
    >>> text = '<ir_version: 9, opset_import: ["" : 17]> f (float[1] x) => (float[1] z) {y = Relu (x) z = Relu (y)}'
    >>> model = parse_model(text)
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


def _hoist_constants(model: ModelProto) -> None:
    """Make initializers of ``Constant`` nodes, in place."""
    graph = model.graph
    for node in [n for n in graph.node if is_op(n, "Constant")]:
        value = Graph.constant_value(node)
        if value is not None:
            graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
            graph.node.remove(node)


def _drop_passing(model: ModelProto) -> None:
    """Remove ``Identity``, and ``Dropout`` (which does nothing in inference) if nothing reads its mask."""
    graph = model.graph
    outputs = {o.name for o in graph.output}
    bodies: set[str] = set()
    read: set[str] = set()
    for node in graph.node:
        read |= set(node.input)
        for body in subgraphs(node):
            bodies |= set(names_read(body))
    read |= outputs | bodies

    renamed: dict[str, str] = {}
    for node in list(graph.node):
        unread_mask = not any(name in read for name in node.output[1:])
        passes = is_op(node, "Identity") or (is_op(node, "Dropout") and unread_mask)
        if passes and node.output[0] not in outputs and node.output[0] not in bodies:
            renamed[node.output[0]] = renamed.get(node.input[0], node.input[0])
            graph.node.remove(node)
            continue
        for place, name in enumerate(node.input):
            if name in renamed:
                node.input[place] = renamed[name]


def _part_image(model: ModelProto) -> None:
    """Give a concat an ``Identity`` of the image if other nodes read the image, too.

    A concat has one scale. An image of 2.6 standard deviations beside maps of hundreds would be rounded to a few steps,
    and the first layer, which reads the same tensor, would get these steps as well.
    """
    graph = model.graph
    for value in graph.input:
        readers = [n for n in graph.node if value.name in n.input]
        joined = [n for n in readers if is_op(n, "Concat")]
        if not joined or len(joined) == len(readers):
            continue
        branch = f"{value.name}/joined"
        for node in joined:
            for place, name in enumerate(node.input):
                if name == value.name:
                    node.input[place] = branch
        graph.node.insert(0, helper.make_node("Identity", [value.name], [branch], f"{value.name}/joining"))


def _spread_normalisation(graph: Graph) -> bool:
    """Move one batch normalisation in front of a concat of channels, one slice per input; return True if moved."""
    for node in graph.graph.node:
        # 1. A concat of channels that only this normalisation reads.
        concat = graph.producer.get(node.input[0]) if is_op(node, "BatchNormalization") else None
        if concat is None or not is_op(concat, "Concat") or attributes(concat)["axis"] not in (1, -3):
            continue
        shapes = [graph.static_channels(name) for name in concat.input]
        affine = affine_of(graph, node)
        if affine is None or len(graph.readers[concat.output[0]]) != 1 or concat.output[0] in graph.outputs:
            continue

        # 2. All channel counts are known, and some input comes from a layer that can take its slice.
        sizes = [s for s in shapes if s is not None]
        foldable = any(_can_take(graph, name) for name in concat.input)
        if len(sizes) != len(shapes) or sum(sizes) != len(affine[0]) or not foldable:
            continue

        # 3. Scale every input with its slice of gain and offset.
        start = 0
        before: list[NodeProto] = []
        for place, (name, size) in enumerate(zip(list(concat.input), sizes, strict=True)):
            part = slice(start, start + size)
            start += size
            made, out = _affine_nodes(graph, f"{node.name}/{place}", name, affine[0][part], affine[1][part])
            before += made
            concat.input[place] = out

        # 4. Put the new nodes in front of the concat, and remove the normalisation.
        concat.output[0] = node.output[0]
        index = next(i for i, n in enumerate(graph.graph.node) if n.name == concat.name)
        for offset, made_node in enumerate(before):
            graph.graph.node.insert(index + offset, made_node)
        graph.graph.node.remove(node)
        return True
    return False


def _affine_nodes(graph: Graph, name: str, x: str, gain: Float, offset: Float) -> tuple[list[NodeProto], str]:
    """Return two nodes that compute ``x * gain + offset`` per channel (dimension 1 of four), and their output."""
    shape = (1, -1, 1, 1)
    scaled = graph.unique(f"{name}/scaled")
    out = graph.unique(f"{name}/out")
    gains = _initializer(graph, f"{name}/gain", gain.reshape(shape))
    offsets = _initializer(graph, f"{name}/offset", offset.reshape(shape))
    nodes = [
        helper.make_node("Mul", [x, gains], [scaled], graph.unique(f"{name}/Mul")),
        helper.make_node("Add", [scaled, offsets], [out], graph.unique(f"{name}/Add")),
    ]
    return nodes, out


def _fold_affine(graph: Graph) -> bool:
    """Fold one per-channel gain or offset into the weights in front of it; return True if there was one."""
    for node in graph.graph.node:
        affine = affine_of(graph, node)
        source = _variable_input(graph, node)
        layer = graph.producer.get(source) if affine is not None and source else None
        if affine is None or layer is None or not _can_take(graph, source):
            continue

        _rewrite(graph, layer, *affine)
        layer.output[0] = node.output[0]
        graph.graph.node.remove(node)
        return True
    return False


def _variable_input(graph: Graph, node: NodeProto) -> str:
    """Return the one input of a node that is not constant; ``""`` if there is not exactly one."""
    if is_op(node, "BatchNormalization"):
        return str(node.input[0])
    variable = [name for name in node.input if graph.array(name) is None]
    return variable[0] if len(variable) == 1 else ""


def affine_of(graph: Graph, node: NodeProto) -> tuple[Float, Float] | None:
    """Return the per-channel gain and offset that a node computes, or ``None`` if it computes something else.

    Parameters
    ----------
    graph : the graph of the node.
    node : any node; a batch normalisation, or a ``Mul`` or ``Add`` with a constant, has them.

    Returns
    -------
    Gain and offset, (C,) float32 each.
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
    """Return a constant that gives (N, C, H, W) one number per channel, as (C,) float32; ``None`` for another."""
    if channels is None or value.dtype not in (np.float32, np.float16):
        return None
    shape = (1,) * (4 - value.ndim) + value.shape
    if len(shape) != 4 or shape[0] != 1 or shape[2:] != (1, 1) or shape[1] not in (1, channels):
        return None
    return np.array(np.broadcast_to(value.reshape(-1), (channels,)), np.float32)


def _can_take(graph: Graph, name: str) -> bool:
    """Return True if a tensor is the output of a convolution with constant float32 weights, and one node reads it."""
    layer = graph.producer.get(name)
    if layer is None or not is_op(layer, *WEIGHT_LAYERS) or name in graph.outputs or len(graph.readers[name]) != 1:
        return False
    weights = [graph.array(i) for i in layer.input[1:] if i]
    return all(w is not None and w.dtype == np.float32 for w in weights)


def _rewrite(graph: Graph, layer: NodeProto, gain: Float, offset: Float) -> None:
    """Give a layer weights of its own, scaled by ``gain`` per output channel, and a bias with ``offset``."""
    weight = np.asarray(graph.array(layer.input[1]), np.float32)
    bias = graph.array(layer.input[2]) if len(layer.input) > 2 and layer.input[2] else None
    before = np.zeros_like(gain) if bias is None else np.asarray(bias, np.float32)

    if layer.op_type == "Conv":
        scaled = weight * gain.reshape(-1, *[1] * (weight.ndim - 1))
    else:  # (in, out / group, kh, kw): output channel o of group g is gain[g * out / group + o]
        group = attributes(layer).get("group", 1)
        gains = gain.reshape(group, 1, -1, *[1] * (weight.ndim - 2))
        scaled = (weight.reshape(group, -1, *weight.shape[1:]) * gains).reshape(weight.shape)

    del layer.input[2:]
    layer.input[1] = _initializer(graph, f"{layer.name}/weight", scaled)
    layer.input.append(_initializer(graph, f"{layer.name}/bias", before * gain + offset))


def _initializer(graph: Graph, hint: str, value: Float) -> str:
    """Add a float32 constant and return its name."""
    name = graph.unique(hint)
    graph.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    return name


def drop_unread(model: onnx.ModelProto) -> None:
    """Remove initializers that nothing reads, in place.

    Parameters
    ----------
    model : the ONNX graph.
    """
    read = set(names_read(model.graph))
    kept = [t for t in model.graph.initializer if t.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
