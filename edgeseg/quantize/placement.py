"""Where INT8 begins and ends in a net: which layers, which tensors carry a Q/DQ pair, which of them share one scale.

The rules, for TensorRT's explicit quantization and OpenVINO's low-precision passes alike:

- A *layer* (``Conv``, ``Gemm``, ``MatMul`` with constant weights) runs in INT8 when its input and its weights do. A
  *sum* (``Add`` of two feature maps in front of a layer) does when its branches do. A branch that is the bare output of
  an INT8 convolution which only the sum reads carries no pair: the sum is computed inside that convolution, before
  rounding. (OpenVINO leaves the rounding out even where the file has it; NVIDIA's guide asks for this form.)
- Pairs stand only where a layer or a sum reads: nothing comes between a convolution, its normalisation and activation.
- Operators that only move values (max-pooling, unpooling, concat, nearest resize, slicing, ...) give the same values
  whether they run before or after rounding to one scale. They run *in* INT8: what they read and what they give share a
  scale.
- Left in float: what gives the scores (the last layers on every path), transposed convolutions, layers on a 1x1 map
  (squeeze-and-excitation: no time to win, much to lose), and the layers a caller names.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np
from onnx import ModelProto, NodeProto

from edgeseg.errors import InputError, did_you_mean
from edgeseg.graph.graph import Graph, is_op
from edgeseg.graph.groups import Groups
from edgeseg.graph.ops import ACTIVATIONS, MOVES, WEIGHTED, data_inputs, data_outputs, moves
from edgeseg.graph.passes.tiny_scales import SMALLEST_SCALE


@dataclass(frozen=True)
class Placement:
    """What runs in INT8, by node and tensor name of the folded net.

    ``layers`` and ``sums`` run in INT8, in graph order. ``tensors`` carry a Q/DQ pair; ``scale_of`` names for each the
    tensor whose range is theirs. ``sources`` are, a scale, the tensors its range is taken over. ``floats`` says of
    every other layer why it stays in float. ``moves`` are the nodes that run in INT8 without computing.
    """

    layers: tuple[str, ...]
    sums: tuple[str, ...]
    moves: tuple[str, ...]
    tensors: tuple[str, ...]
    scale_of: dict[str, str]
    sources: dict[str, tuple[str, ...]]
    floats: dict[str, str] = field(default_factory=dict)


def place(model: ModelProto, keep_float: Collection[str] = (), *, reasons: dict[str, str] | None = None) -> Placement:
    """The placement for a folded float net (``fold``), the layers and sums ``keep_float`` left in float.

    ``reasons`` says why, by name. Raises ``InputError`` for a name that is no layer of the net.
    """
    graph = Graph(model)
    known = {n.name for n in graph.graph.node if is_op(n, *WEIGHTED) or _is_sum(graph, n)}
    unknown = sorted(set(keep_float) - known)
    if unknown:
        raise InputError(
            "no such layer to keep in float",
            got=", ".join(unknown),
            expected=", ".join(sorted(known))[:300],
            hint=did_you_mean(unknown[0], known),
        )
    floats: dict[str, str] = {}
    layers = list(_layers(graph, floats))
    for name in keep_float:
        floats[name] = (reasons or {}).get(name, "kept in float on request")
    layers = [n for n in layers if n.name not in floats]
    sums = [n for n in _sums_before(graph, layers) if n.name not in floats]
    return _spread(graph, layers, sums, floats)


def _layers(graph: Graph, floats: dict[str, str]) -> Iterator[NodeProto]:
    """The layers that can run in INT8; ``floats`` is told of those that cannot."""
    last = _last_layers(graph)
    for node in graph.graph.node:
        if not is_op(node, *WEIGHTED):
            continue
        weight = graph.array(node.input[1])
        if weight is None:
            if not is_op(node, "MatMul", "Gemm"):
                floats[node.name] = "its weights are computed, not constant"
        elif node.name in last:
            floats[node.name] = "gives the scores"
        elif is_op(node, "ConvTranspose"):
            floats[node.name] = "transposed convolution"
        elif _on_one_pixel(graph, node):
            floats[node.name] = "works on a 1x1 map"
        elif is_op(node, "MatMul") and weight.ndim != 2:
            floats[node.name] = "a stack of matrices"
        elif weight.dtype != np.float32:
            floats[node.name] = f"weights of type {weight.dtype}"
        elif graph.array(node.input[0]) is not None:
            floats[node.name] = "its input is constant"
        else:
            yield node


def _last_layers(graph: Graph) -> set[str]:
    """The weighted layers behind which no other stands on the way to an output."""
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
        elif not is_op(node, "Shape", "Size"):
            open_names += data_inputs(node) if is_op(node, *MOVES) else [i for i in node.input if i]
    return last


def _on_one_pixel(graph: Graph, node: NodeProto) -> bool:
    """Whether a layer gives one vector a frame: a map of 1x1, or one row of a matrix product."""
    shape = graph.shape(node.output[0])
    if shape is None or len(shape) < 2:
        return False
    return all(d == (1, ()) for d in (shape[2:] if is_op(node, "Conv") else shape[:-1]))


def _is_sum(graph: Graph, node: NodeProto) -> bool:
    """Whether ``node`` adds two feature maps of one size."""
    if not is_op(node, "Add") or any(graph.array(name) is not None for name in node.input):
        return False
    shapes = [graph.shape(name) for name in node.input]
    return bool(shapes[0] is not None and len(shapes[0]) == 4 and shapes[0] == shapes[1])


def _sums_before(graph: Graph, layers: list[NodeProto]) -> list[NodeProto]:
    """The sums whose result a quantized layer, or another such sum, reads through activations and moves."""
    wanted = [n.input[0] for n in layers]
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
    return [n for n in graph.graph.node if n.name in found]


def _spread(graph: Graph, layers: list[NodeProto], sums: list[NodeProto], floats: dict[str, str]) -> Placement:
    """Take what layers and sums read back through the moves: those run in INT8 on one scale."""
    scales = Groups()
    moved: set[str] = set()
    inside = {n.output[0] for n in layers if is_op(n, "Conv")}
    open_names = [n.input[0] for n in layers] + [name for n in sums for name in _rounded_branches(graph, n, inside)]
    seen: set[str] = set()
    while open_names:
        name = open_names.pop()
        if name in seen:
            continue
        seen.add(name)
        scales.find(name)
        node = graph.producer.get(name)
        if node is not None and name in data_outputs(node) and moves(node, graph.array):
            moved.add(node.name)
            for other in (*data_inputs(node), *data_outputs(node)):
                scales.join(name, other)
                open_names.append(other)
    order = {name: place for place, name in enumerate(_made_in_order(graph))}
    tensors = sorted(seen, key=lambda name: order.get(name, -1))
    made_by_move = {o for n in graph.graph.node if n.name in moved for o in n.output}
    first: dict[str, str] = {}
    for name in tensors:
        first.setdefault(scales.find(name), name)
    scale_of = {name: first[scales.find(name)] for name in tensors}
    sources: dict[str, list[str]] = {}
    for name in tensors:
        if name not in made_by_move:
            sources.setdefault(scale_of[name], []).append(name)
    return Placement(
        layers=tuple(n.name for n in layers),
        sums=tuple(n.name for n in sums),
        moves=tuple(n.name for n in graph.graph.node if n.name in moved),
        tensors=tuple(tensors),
        scale_of=scale_of,
        sources={key: tuple(value) for key, value in sources.items()},
        floats=floats,
    )


def _rounded_branches(graph: Graph, node: NodeProto, convolved: set[str]) -> list[str]:
    """The branches of a sum that carry a pair: all but the first that is a convolution's and nobody else's."""
    for name in node.input:
        readers = [n for n in graph.readers[name] if not is_op(n, "Shape")]
        if name in convolved and len(readers) == 1 and name not in graph.outputs:
            return [other for other in node.input if other != name] or list(node.input)
    return list(node.input)


def _made_in_order(graph: Graph) -> Iterator[str]:
    yield from (value.name for value in graph.graph.input)
    for node in graph.graph.node:
        yield from node.output


def tensors_to_calibrate(placement: Placement) -> tuple[str, ...]:
    """The tensors whose ranges the placement needs, in graph order."""
    wanted = {name for names in placement.sources.values() for name in names}
    return tuple(name for name in placement.tensors if name in wanted)


def scales(placement: Placement, amax: dict[str, float], *, exact: bool = True) -> dict[str, float]:
    """The scale of every tensor that carries a pair: the largest |value| of its group, on 127 steps.

    Dead branches have ``SMALLEST_SCALE``: their values are zeros.

    ``exact``: the next power of two (``power_of_two``), so that every runtime computes the same.
    """
    group = {
        key: max(max(amax[name] for name in names) / 127.0, SMALLEST_SCALE) for key, names in placement.sources.items()
    }
    steps = {key: power_of_two(step) if exact else step for key, step in group.items()}
    return {name: steps[placement.scale_of[name]] for name in placement.tensors}


def power_of_two(step: float) -> float:
    """The smallest power of two that is not below ``step`` (> 0)."""
    mantissa, exponent = math.frexp(step)  # mantissa in [0.5, 1)
    return math.ldexp(1.0, exponent - 1 if mantissa == 0.5 else exponent)
