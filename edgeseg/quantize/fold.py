"""The form of a net that quantization starts from: nothing between a convolution and its activation.

Batch normalisation, in inference a gain and an offset a channel, goes into the weights and bias of the convolution
before it, through a concat where it must; so do the ``Mul`` and ``Add`` by constants that some exporters write instead.
Values change by float rounding only.
"""

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, helper, inliner, numpy_helper

from edgeseg.export.graph import Graph, attributes, is_op, names_read, subgraphs
from edgeseg.export.settle import settle_defaults

Float = npt.NDArray[np.float32]

FOLD_VERSION = 2  # raise it when a folded net's tensors change: statistics collected before are then left alone
WEIGHT_LAYERS = ("Conv", "ConvTranspose")


def fold(model: ModelProto) -> ModelProto:
    """A copy of ``model`` in that form; every node has a name, constants are initializers, ``Identity`` is gone
    (but for one where the image itself joins a concat).
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    if copy.functions:
        copy = inliner.inline_local_functions(copy)
    name_nodes(copy)
    settle_defaults(copy)
    _hoist_constants(copy)
    _drop_passing(copy)
    for step in (_spread_normalisation, _fold_affine):
        while step(Graph(copy)):
            pass
    drop_unread(copy)
    _part_image(copy)
    return copy


def name_nodes(model: ModelProto) -> None:
    """Give every node a name of its own: layers are spoken of by name. A file's own names go before made ones."""
    used: set[str] = set()
    for node in sorted(model.graph.node, key=lambda n: not n.name):
        base = node.name or next((o for o in node.output if o), node.op_type)
        name, count = base, 1
        while name in used:
            name, count = f"{base}_{count}", count + 1
        node.name = name
        used.add(name)


def _hoist_constants(model: ModelProto) -> None:
    graph = model.graph
    for node in [n for n in graph.node if is_op(n, "Constant")]:
        value = Graph.constant_value(node)
        if value is not None:
            graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
            graph.node.remove(node)


def _drop_passing(model: ModelProto) -> None:
    """Remove ``Identity`` and, being in inference, ``Dropout`` whose mask nobody reads."""
    graph = model.graph
    outputs = {o.name for o in graph.output}
    bodies = {name for node in graph.node for body in subgraphs(node) for name in names_read(body)}
    read = {name for node in graph.node for name in node.input} | outputs | bodies
    renamed: dict[str, str] = {}
    for node in list(graph.node):
        passes = is_op(node, "Identity") or (is_op(node, "Dropout") and not any(o in read for o in node.output[1:]))
        if passes and node.output[0] not in outputs and node.output[0] not in bodies:
            renamed[node.output[0]] = renamed.get(node.input[0], node.input[0])
            graph.node.remove(node)
            continue
        for place, name in enumerate(node.input):
            if name in renamed:
                node.input[place] = renamed[name]


def _part_image(model: ModelProto) -> None:
    """Give a concat an ``Identity`` of the image, where the image is read elsewhere, too.

    A concat has one scale. An image of 2.6 standard deviations beside maps of hundreds would fall into a few steps, and
    the first layer, which reads it as well, with it.
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
    """Move one batch normalisation behind a concat of channels in front of it, a slice an input."""
    for node in graph.graph.node:
        concat = graph.producer.get(node.input[0]) if is_op(node, "BatchNormalization") else None
        if concat is None or not is_op(concat, "Concat") or attributes(concat)["axis"] not in (1, -3):
            continue
        shapes = [graph.static_channels(name) for name in concat.input]
        affine = affine_of(graph, node)
        if affine is None or len(graph.readers[concat.output[0]]) != 1 or concat.output[0] in graph.outputs:
            continue
        sizes = [s for s in shapes if s is not None]
        foldable = any(_can_take(graph, name) for name in concat.input)
        if len(sizes) != len(shapes) or sum(sizes) != len(affine[0]) or not foldable:
            continue
        start = 0
        before: list[NodeProto] = []
        for place, (name, size) in enumerate(zip(list(concat.input), sizes, strict=True)):
            part = slice(start, start + size)
            start += size
            made, out = _affine_nodes(graph, f"{node.name}/{place}", name, affine[0][part], affine[1][part])
            before += made
            concat.input[place] = out
        concat.output[0] = node.output[0]
        index = next(i for i, n in enumerate(graph.graph.node) if n.name == concat.name)
        for offset, made_node in enumerate(before):
            graph.graph.node.insert(index + offset, made_node)
        graph.graph.node.remove(node)
        return True
    return False


def _affine_nodes(graph: Graph, name: str, x: str, gain: Float, offset: Float) -> tuple[list[NodeProto], str]:
    """``x * gain + offset`` a channel (dimension 1 of four) as two nodes."""
    shape = (1, -1, 1, 1)
    scaled, out = graph.unique(f"{name}/scaled"), graph.unique(f"{name}/out")
    constants = [
        _initializer(graph, f"{name}/{kind}", v.reshape(shape)) for kind, v in (("gain", gain), ("offset", offset))
    ]
    nodes = [
        helper.make_node("Mul", [x, constants[0]], [scaled], graph.unique(f"{name}/Mul")),
        helper.make_node("Add", [scaled, constants[1]], [out], graph.unique(f"{name}/Add")),
    ]
    return nodes, out


def _fold_affine(graph: Graph) -> bool:
    """Fold one gain or offset a channel into the weights before it; says whether there was one."""
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
    if is_op(node, "BatchNormalization"):
        return str(node.input[0])
    variable = [name for name in node.input if graph.array(name) is None]
    return variable[0] if len(variable) == 1 else ""


def affine_of(graph: Graph, node: NodeProto) -> tuple[Float, Float] | None:
    """Gain and offset a channel, (C,) float32 each, that ``node`` computes; ``None`` where it is something else."""
    if is_op(node, "BatchNormalization"):
        values = [graph.array(name) for name in node.input[1:5]]
        if any(v is None for v in values) or attributes(node).get("training_mode", 0):
            return None
        gamma, beta, mean, var = (np.asarray(v, np.float64) for v in values)
        gain = gamma / np.sqrt(var + attributes(node).get("epsilon", 1e-5))
        return gain.astype(np.float32), (beta - mean * gain).astype(np.float32)
    if not is_op(node, "Mul", "Add") or len(node.input) != 2 or not _variable_input(graph, node):
        return None
    constant = next(v for v in (graph.array(name) for name in node.input) if v is not None)
    channels = graph.static_channels(_variable_input(graph, node))
    flat = _per_channel(np.asarray(constant), channels)
    if flat is None:
        return None
    return (flat, np.zeros_like(flat)) if node.op_type == "Mul" else (np.ones_like(flat), flat)


def _per_channel(value: npt.NDArray[np.generic], channels: int | None) -> Float | None:
    """A constant that broadcasts against (N, C, H, W) one number a channel, as (C,) float32."""
    if channels is None or value.dtype not in (np.float32, np.float16):
        return None
    shape = (1,) * (4 - value.ndim) + value.shape
    if len(shape) != 4 or shape[0] != 1 or shape[2:] != (1, 1) or shape[1] not in (1, channels):
        return None
    return np.array(np.broadcast_to(value.reshape(-1), (channels,)), np.float32)


def _can_take(graph: Graph, name: str) -> bool:
    """Whether ``name`` is a convolution's output that one node alone reads, its weights constant and float32."""
    layer = graph.producer.get(name)
    if layer is None or not is_op(layer, *WEIGHT_LAYERS) or name in graph.outputs or len(graph.readers[name]) != 1:
        return False
    weights = [graph.array(i) for i in layer.input[1:] if i]
    return all(w is not None and w.dtype == np.float32 for w in weights)


def _rewrite(graph: Graph, layer: NodeProto, gain: Float, offset: Float) -> None:
    """Give ``layer`` weights of its own, scaled by ``gain`` a channel of its output, and a bias with ``offset``."""
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
    """Add a float32 constant; returns its name."""
    name = graph.unique(hint)
    graph.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    return name


def drop_unread(model: onnx.ModelProto) -> None:
    """Remove initializers that no node reads, in place."""
    read = set(names_read(model.graph))
    kept = [t for t in model.graph.initializer if t.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
