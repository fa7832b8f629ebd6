"""Choose the layers that run in INT8, and the tensors that carry Q/DQ pairs and share scales.

The rules hold for TensorRT's explicit quantization and for OpenVINO's low-precision passes:

- A *layer* (``Conv``, ``Gemm``, ``MatMul`` with constant weights) runs in INT8 if its input and its
  weights do. A *sum* (``Add`` of two feature maps in front of a layer) runs in INT8 if its branches
  do. A branch carries no pair if it is the direct output of an INT8 convolution and only the sum
  reads it: then the sum is computed inside that convolution, before rounding. (OpenVINO does not
  round there even if the file does; NVIDIA's guide recommends this form.)
- Pairs stand only in front of layers and sums, so nothing comes between a convolution, its
  normalisation and its activation.
- Operators that only move values (max-pooling, unpooling, concat, nearest resize, slicing, ...)
  return the same values whether they run before or after rounding to one scale. They run *in* INT8,
  and their inputs and outputs share a scale.
- These stay in float: the layers that compute the logits (the last layers on every path),
  transposed convolutions, layers on a 1x1 map (squeeze-and-excitation: no time to win, much to
  lose), and the layers that a caller names.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, NodeProto

from edgeseg.errors import InputError, did_you_mean
from edgeseg.graph.graph import Graph
from edgeseg.graph.groups import Groups
from edgeseg.graph.nodes import is_op
from edgeseg.graph.ops import ACTIVATIONS, MOVES, WEIGHTED, data_inputs, data_outputs, moves
from edgeseg.graph.passes.tiny_scales import SMALLEST_SCALE


@dataclass(frozen=True)
class Placement:
    """Hold which nodes of a folded graph run in INT8, and which tensors carry Q/DQ pairs, by name.

    Attributes
    ----------
    layers : layers that run in INT8, in graph order.
    sums : sums that run in INT8, in graph order.
    moves : nodes that only move values and run in INT8, in graph order.
    tensors : tensors that carry a Q/DQ pair, in graph order.
    scale_of : for each of these tensors, the tensor that names its scale.
    sources : for each scale, the tensors that its range is the maximum of.
    floats : every other layer, with the reason why it stays in float.
    """

    layers: tuple[str, ...]
    sums: tuple[str, ...]
    moves: tuple[str, ...]
    tensors: tuple[str, ...]
    scale_of: dict[str, str]
    sources: dict[str, tuple[str, ...]]
    floats: dict[str, str] = field(default_factory=dict)


def place(
    model: ModelProto, keep_float: Collection[str] = (), *, reasons: dict[str, str] | None = None
) -> Placement:
    """Return the placement for a folded float graph (``fold``).

    Parameters
    ----------
    model : the folded float graph.
    keep_float : names of layers and sums that stay in float.
    reasons : why they do, by name, for ``Placement.floats``.

    Raises
    ------
    InputError : a name in ``keep_float`` is not a layer or sum of the graph.

    Examples
    --------
    >>> import onnx
    >>> from onnx import helper, numpy_helper
    >>> nodes = [
    ...     helper.make_node("Conv", ["image", "w"], ["x"], "first"),
    ...     helper.make_node("Conv", ["x", "w"], ["logits"], "last"),
    ... ]
    >>> image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, 4, 4])
    >>> logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 3, 4, 4])
    >>> weights = numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "w")
    >>> graph = helper.make_graph(nodes, "g", [image], [logits], [weights])
    >>> placement = place(helper.make_model(graph))
    >>> placement.layers, placement.tensors, placement.floats
    (('first',), ('image',), {'last': 'gives the scores'})
    """
    return place_graph(Graph(model), keep_float, reasons=reasons)


def place_graph(
    graph: Graph, keep_float: Collection[str] = (), *, reasons: dict[str, str] | None = None
) -> Placement:
    """Decide what runs in INT8 in a graph that is already indexed; see ``place``.

    Parameters
    ----------
    graph : the folded float graph; it is only read.
    keep_float : names of layers and sums that stay in float.
    reasons : why they do, by name.

    Raises
    ------
    InputError : a name in ``keep_float`` is not a layer or sum of the graph.
    """
    # Check the names of the layers to keep in float.
    known: set[str] = set()
    for node in graph.graph.node:
        if is_op(node, *WEIGHTED) or _is_sum(graph, node):
            known.add(node.name)
    unknown = sorted(set(keep_float) - known)
    if unknown:
        raise InputError(
            "no such layer to keep in float",
            got=", ".join(unknown),
            expected=", ".join(sorted(known))[:300],
            hint=did_you_mean(unknown[0], known),
        )

    # Divide the layers into those that run in INT8 and those that stay in float.
    reasons = reasons or {}
    floats: dict[str, str] = {}
    layers = list(_layers(graph, floats))
    for name in keep_float:
        floats[name] = reasons.get(name, "kept in float on request")
    layers = [node for node in layers if node.name not in floats]

    sums = [node for node in _sums_before(graph, layers) if node.name not in floats]
    return _propagate(graph, layers, sums, floats)


def _layers(graph: Graph, floats: dict[str, str]) -> Iterator[NodeProto]:
    """Yield the layers that can run in INT8, and add the others to ``floats`` with the reason."""
    last = _last_layers(graph)
    for node in graph.graph.node:
        if not is_op(node, *WEIGHTED):
            continue
        if is_op(node, "MatMul", "Gemm") and graph.array(node.input[1]) is None:
            continue  # a product of activations is not a layer

        reason = _reason_for_float(graph, node, last)
        if reason:
            floats[node.name] = reason
        else:
            yield node


def _reason_for_float(graph: Graph, node: NodeProto, last: set[str]) -> str:
    """Return why a layer cannot run in INT8, or an empty text if it can."""
    weight = graph.array(node.input[1])
    if weight is None:
        return "its weights are computed, not constant"
    if node.name in last:
        return "gives the scores"
    if is_op(node, "ConvTranspose"):
        return "transposed convolution"
    if _on_one_pixel(graph, node):
        return "works on a 1x1 map"
    if is_op(node, "MatMul") and weight.ndim != 2:
        return "a stack of matrices"
    if weight.dtype != np.float32:
        return f"weights of type {weight.dtype}"
    if graph.array(node.input[0]) is not None:
        return "its input is constant"
    return ""


def _last_layers(graph: Graph) -> set[str]:
    """Return the weighted layers that have no other one behind them on some way to an output."""
    seen: set[str] = set()
    last: set[str] = set()
    open_names = list(graph.outputs)
    while open_names:
        name = open_names.pop()
        node = graph.producer.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)

        if is_op(node, *WEIGHTED) and graph.array(node.input[1]) is not None:
            last.add(node.name)
        elif is_op(node, *MOVES):
            open_names += data_inputs(node)
        elif not is_op(node, "Shape", "Size"):
            open_names += [source for source in node.input if source]
    return last


def _on_one_pixel(graph: Graph, node: NodeProto) -> bool:
    """Return True if a layer's output is one vector per frame: a 1x1 map, or one row."""
    shape = graph.shape(node.output[0])
    if shape is None or len(shape) < 2:
        return False
    positions = shape[2:] if is_op(node, "Conv") else shape[:-1]
    return all(length == (1, ()) for length in positions)


def _is_sum(graph: Graph, node: NodeProto) -> bool:
    """Return True if a node adds two feature maps of one size."""
    if not is_op(node, "Add") or any(graph.array(name) is not None for name in node.input):
        return False
    shapes = [graph.shape(name) for name in node.input]
    return bool(shapes[0] is not None and len(shapes[0]) == 4 and shapes[0] == shapes[1])


def _sums_before(graph: Graph, layers: list[NodeProto]) -> list[NodeProto]:
    """Return the sums that a quantized layer or another such sum reads.

    Activations and moves may stand between them.
    """
    wanted = [node.input[0] for node in layers]
    seen: set[str] = set()
    found: set[str] = set()
    while wanted:
        name = wanted.pop()
        node = graph.producer.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)

        if _is_sum(graph, node):
            found.add(node.name)
            wanted += list(node.input)
        elif is_op(node, *ACTIVATIONS) or moves(node, graph.array):
            wanted += data_inputs(node)
    return [node for node in graph.graph.node if node.name in found]


def _propagate(
    graph: Graph, layers: list[NodeProto], sums: list[NodeProto], floats: dict[str, str]
) -> Placement:
    """Return the placement in which pairs propagate from layers and sums back through the moves."""
    # The tensors in front of layers and sums.
    convolved = {node.output[0] for node in layers if is_op(node, "Conv")}
    rounded = [node.input[0] for node in layers]
    for node in sums:
        rounded += _rounded_branches(graph, node, convolved)

    groups, moved = _through_moves(graph, rounded)
    order = {name: place for place, name in enumerate(_made_in_order(graph))}
    tensors = sorted(groups, key=lambda name: order.get(name, -1))

    # Each group of tensors shares a scale, which is named after the first of them.
    first: dict[str, str] = {}
    for name in tensors:
        first.setdefault(groups[name], name)
    scale_of = {name: first[groups[name]] for name in tensors}

    # Its range is the maximum over the tensors that come into the group from outside.
    outputs_of_moves: set[str] = set()
    for node in graph.graph.node:
        if node.name in moved:
            outputs_of_moves.update(node.output)
    sources: dict[str, list[str]] = {}
    for name in tensors:
        if name not in outputs_of_moves:
            sources.setdefault(scale_of[name], []).append(name)

    return Placement(
        layers=tuple(node.name for node in layers),
        sums=tuple(node.name for node in sums),
        moves=tuple(node.name for node in graph.graph.node if node.name in moved),
        tensors=tuple(tensors),
        scale_of=scale_of,
        sources={key: tuple(value) for key, value in sources.items()},
        floats=floats,
    )


def _through_moves(graph: Graph, rounded: list[str]) -> tuple[dict[str, str], set[str]]:
    """Follow tensors back through the nodes that only move values.

    Returns the group of every tensor on the way, and the names of these nodes. The tensors of a
    group share a scale.
    """
    scales = Groups()
    moved: set[str] = set()
    seen: set[str] = set()
    open_names = list(rounded)
    while open_names:
        name = open_names.pop()
        if name in seen:
            continue
        seen.add(name)
        scales.find(name)

        node = graph.producer.get(name)
        if node is None or name not in data_outputs(node) or not moves(node, graph.array):
            continue
        moved.add(node.name)
        for other in (*data_inputs(node), *data_outputs(node)):
            scales.join(name, other)
            open_names.append(other)
    return {name: scales.find(name) for name in seen}, moved


def _rounded_branches(graph: Graph, node: NodeProto, convolved: set[str]) -> list[str]:
    """Return the branches of a sum that carry a pair.

    These are all branches but the first one that is the output of a convolution and has no other
    reader; ``convolved`` are the outputs of the INT8 convolutions.
    """
    for name in node.input:
        readers = [reader for reader in graph.readers[name] if not is_op(reader, "Shape")]
        if name in convolved and len(readers) == 1 and name not in graph.outputs:
            others = [other for other in node.input if other != name]
            return others or list(node.input)  # all of them for a tensor added to itself
    return list(node.input)


def _made_in_order(graph: Graph) -> Iterator[str]:
    """Yield the inputs of the graph, and the outputs of its nodes in order."""
    yield from (value.name for value in graph.graph.input)
    for node in graph.graph.node:
        yield from node.output


def tensors_to_calibrate(placement: Placement) -> tuple[str, ...]:
    """Return the tensors whose ranges the placement needs, in graph order.

    Parameters
    ----------
    placement : the placement.

    Examples
    --------
    >>> pooled = Placement(
    ...     (), (), ("pool",), ("x", "y"), {"x": "x", "y": "x"}, {"x": ("x",)}
    ... )
    >>> tensors_to_calibrate(pooled)
    ('x',)
    """
    wanted: set[str] = set()
    for names in placement.sources.values():
        wanted.update(names)
    return tuple(name for name in placement.tensors if name in wanted)


def scales(placement: Placement, amax: dict[str, float], *, exact: bool = True) -> dict[str, float]:
    """Return the scale of every tensor that carries a pair.

    It is the largest range of the tensors that share the scale, divided by 127. It is at least
    ``SMALLEST_SCALE``, which is the scale of tensors that are always zero.

    Parameters
    ----------
    placement : the placement.
    amax : the range of each tensor of ``tensors_to_calibrate``.
    exact : use the next power of two (``power_of_two``), so that every runtime computes the same.

    Examples
    --------
    >>> placement = Placement((), (), (), ("x",), {"x": "x"}, {"x": ("x",)})
    >>> scales(placement, {"x": 127.5})
    {'x': 2.0}
    """
    steps: dict[str, float] = {}
    for key, names in placement.sources.items():
        largest = max(amax[name] for name in names)
        step = max(largest / 127.0, SMALLEST_SCALE)
        steps[key] = power_of_two(step) if exact else step
    return {name: steps[placement.scale_of[name]] for name in placement.tensors}


def power_of_two(step: float) -> float:
    """Return the smallest power of two that is not below ``step``.

    Parameters
    ----------
    step : a number above 0.

    Examples
    --------
    >>> power_of_two(0.3), power_of_two(0.5)
    (0.5, 0.5)
    """
    mantissa, exponent = math.frexp(step)  # mantissa in [0.5, 1)
    return math.ldexp(1.0, exponent - 1 if mantissa == 0.5 else exponent)
