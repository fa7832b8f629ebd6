"""Max-pooling with positions and max-unpooling, rewritten to operators that every target runs.

SegNet (Badrinarayanan et al. 2015) and ENet (Paszke et al. 2016) put values back where a maximum was. The ONNX standard
has ``MaxPool`` with ``Indices`` and ``MaxUnpool`` for that; TensorRT parses neither, OpenVINO has no ``MaxUnpool``.
"""

import math
from collections.abc import Iterable, Mapping
from types import ModuleType

from onnx import GraphProto, ModelProto, NodeProto, inliner

from edgeseg.errors import GraphError
from edgeseg.export.graph import Graph, Int, attributes, ints_attribute, is_op, names_read, subgraphs, title
from edgeseg.export.unpool import extension as extension_form
from edgeseg.export.unpool import plugin as plugin_form
from edgeseg.export.unpool.emit import COMPARED, Emitter, Window, codes, place, positions, scatter, unpooled_size
from edgeseg.export.unpool.torch_scatter import raise_scatters

__all__ = ["lower_unpooling"]

_OLDEST_OPSET = 11  # Range, ScatterElements, and Pad and Equal as they are used here


def lower_unpooling(
    model: ModelProto,
    *,
    plugin: bool = False,
    extension: bool = False,
    shapes: Mapping[str, list[Int | None]] | None = None,
) -> ModelProto:
    """Return a copy of ``model`` without ``MaxUnpool`` and without a ``MaxPool`` whose Indices are used.

    They become standard operators; with ``plugin`` those of edgeseg's TensorRT plugin where they fit, 2x2 windows, with
    ``extension`` those of its OpenVINO extension. ``shapes`` are sizes of its tensors where its input's are free
    (``edgeseg.export.free``).

    The result computes the same numbers, to the bit (``-0.0`` counts as ``0.0``), as ONNX Runtime's CPU kernels do.
    Values must not be NaN. A ``MaxUnpool`` whose Indices the file does not compute by a ``MaxPool`` needs them without
    repetition, as ScatterElements does; a value whose index lies outside the output is left out (ONNX Runtime stops).
    Raises ``GraphError`` for what it cannot lower exactly, and for an output too small for a pooling's positions.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    if any(_concerns(node) for function in copy.functions for node in function.node):
        copy = inliner.inline_local_functions(copy)
    _refuse_bodies(copy.graph)
    if not any(_concerns(node) for node in copy.graph.node):
        return copy
    opset = next((o.version for o in copy.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < _OLDEST_OPSET:
        raise GraphError(
            "the ONNX file's opset is too old to lower its unpooling", got=opset,
            expected=f"{_OLDEST_OPSET} or newer", hint="onnx.version_converter.convert_version(model, 17) updates it.",
        )  # fmt: skip
    for node in filter(_concerns, copy.graph.node):
        _check_geometry(node)
    graph = Graph(copy, shapes)
    raise_scatters(graph)
    _lower(graph, plugin_form if plugin else extension_form if extension else None)
    return copy


def _concerns(node: NodeProto) -> bool:
    return is_op(node, "MaxUnpool") or (is_op(node, "MaxPool") and len(node.output) > 1 and bool(node.output[1]))


def _refuse_bodies(graph: GraphProto, inside: bool = False) -> None:
    for node in graph.node:
        if inside and _concerns(node):
            raise GraphError(
                f"{title(node)}: stands in the body of an If, Loop or Scan",
                expected="unpooling in the main graph only",
                hint="Export without control flow around pooling and unpooling.",
            )  # fmt: skip
        for body in subgraphs(node):
            _refuse_bodies(body, inside=True)


def _check_geometry(node: NodeProto) -> None:
    rank = len(ints_attribute(node, "kernel_shape", []))
    lengths = {key: len(ints_attribute(node, key, [1] * rank)) for key in ("kernel_shape", "strides", "dilations")}
    lengths["pads"] = len(ints_attribute(node, "pads", [0] * 2 * rank)) // 2
    if not rank or set(lengths.values()) != {rank}:
        raise GraphError(
            f"{title(node)}: its attributes do not fit each other", got=f"lengths {lengths}",
            expected="one number an axis each, two for pads", hint="Export the net again.",
        )  # fmt: skip


def _lower(graph: Graph, own: ModuleType | None) -> None:
    """Replace every pooling with positions and every unpooling of ``graph``, by operators of our ``own`` if given."""
    pools = {n.output[1]: n for n in graph.graph.node if is_op(n, "MaxPool") and len(n.output) > 1 and n.output[1]}
    origin = {n.output[0]: _origin(graph, n.input[1], pools) for n in graph.graph.node if is_op(n, "MaxUnpool")}
    coded: dict[str, str] = {}  # Indices -> the code tensor that stands for them
    replacements: dict[int, list[NodeProto]] = {}
    fast = {
        n.output[0]: pool
        for n in graph.graph.node
        if is_op(n, "MaxUnpool") and (pool := pools.get(origin[n.output[0]] or "")) and _fits_codes(graph, n, pool)
    }
    still_read = _still_read(graph, set(fast))
    by_own = _for_own(graph, fast, own.TYPES) - still_read if own else set()  # the Indices whose code those make
    for node in graph.graph.node:
        if _concerns(node) and not graph.dtype(node.input[0]):
            raise GraphError(
                f"{title(node)}: nothing tells the element type of its input {node.input[0]!r}",
                hint="Run onnx.checker.check_model(model, full_check=True) and export the net again.",
            )  # fmt: skip
        emit = Emitter(graph, node)
        if is_op(node, "MaxPool") and len(node.output) > 1 and node.output[1]:
            if own and node.output[1] in by_own:
                coded[node.output[1]] = own.pool_code(emit, node.input[0], node.output[0])
            else:
                _lower_pool(emit, node, still_read, {id(pool) for pool in fast.values()}, coded)
        elif is_op(node, "MaxUnpool") and node.output[0] in fast:
            pool = fast[node.output[0]]
            if own and pool.output[1] in by_own:
                odd = [size % 2 for size, _ in (graph.known_shape(pool.input[0]) or [])[2:]]
                own.unpool(emit, node.input[0], coded[pool.output[1]], odd, node.output[0])
            else:
                place(emit, node.input[0], coded[pool.output[1]], pool.input[0], node.output[0])
        elif is_op(node, "MaxUnpool"):
            source = pools.get(origin[node.output[0]] or "")
            window = None if source is None else Window.of(source, graph)
            if source is not None and window is not None:
                _check_positions(graph, node, source, window)
            scatter(emit, node.input[0], node.input[1], unpooled_size(emit, node), window, node.output[0])
        else:
            continue
        replacements[id(node)] = emit.nodes
    graph.replace(replacements)
    if own and by_own:
        own.finish(graph)


def _for_own(graph: Graph, fast: dict[str, NodeProto], types: tuple[int, ...]) -> set[str]:
    """The Indices of poolings that operators for ``types`` can do, and the unpooling of which they can do."""
    wrong = {pool.output[1] for pool in fast.values() if not _knows_odd(graph, pool.input[0])}
    for node in graph.graph.node:
        pool = fast.get(node.output[0]) if is_op(node, "MaxUnpool") else None
        if pool is not None and not {graph.dtype(pool.input[0]), graph.dtype(node.input[0])} <= {*types}:
            wrong.add(pool.output[1])
    return {pool.output[1] for pool in fast.values()} - wrong


def _knows_odd(graph: Graph, name: str) -> bool:
    """Whether it is known of height and width if they are odd, whatever the size of what is free."""
    shape = graph.known_shape(name)
    return shape is not None and not any(symbols and size % 2 for size, symbols in shape[2:])


def _check_positions(graph: Graph, node: NodeProto, pool: NodeProto, window: Window) -> None:
    """Refuse an unpooling to a tensor in which a position that its pooling can give has no place.

    ONNX Runtime says so when it runs; other runtimes write beside the tensor.
    """
    pooled, maxima = graph.static_shape(pool.input[0]), graph.static_shape(pool.output[0])
    size = graph.unpooled_shape(node)
    if pooled is None or maxima is None or size is None or any(symbols for _, symbols in size):
        return
    places, room = window.last_position(pooled, maxima) + 1, math.prod(n for n, _ in size)
    if places > room:
        raise GraphError(
            f"{title(node)}: its output is too small for the positions it is given",
            got=f"{_by(n for n, _ in size)} for positions in {_by(pooled)}",
            expected="the size of what was pooled",
            hint="Export with output_size, or at a size that every pooling divides.",
        )  # fmt: skip


def _by(sizes: Iterable[int]) -> str:
    return "x".join(map(str, sizes))


def _lower_pool(emit: Emitter, node: NodeProto, still_read: set[str], fast: set[int], coded: dict[str, str]) -> None:
    """Pool without Indices, and make what their readers need: the code, the positions, or nothing."""
    window = Window.of(node, emit.graph)
    emit.nodes.append(window.without_positions(node))
    if id(node) in fast:
        coded[node.output[1]] = codes(emit, node.input[0], node.output[0])
    if node.output[1] in still_read:
        positions(emit, node.input[0], node.output[0], window, node.output[1])


def _origin(graph: Graph, indices: str, pools: dict[str, NodeProto]) -> str | None:
    """The Indices output that ``indices`` are, through nodes that change neither values nor order."""
    while indices not in pools:
        node = graph.producer.get(indices)
        if node is None or not _only_passes(graph, node):
            return None
        indices = node.input[0]
    return indices


def _only_passes(graph: Graph, node: NodeProto) -> bool:
    if is_op(node, "Identity"):
        return True
    if is_op(node, "Cast"):
        return bool(attributes(node)["to"] == graph.dtype(node.input[0]))
    if is_op(node, "Reshape"):
        before = graph.known_shape(node.input[0])
        return before is not None and before == graph.known_shape(node.output[0])
    return False


def _fits_codes(graph: Graph, unpool: NodeProto, pool: NodeProto) -> bool:
    """Whether 2x2 codes tell all: plain windows, unpooled to exactly the sizes that were pooled."""
    window = Window.of(pool, graph)
    if window.kernel != [2, 2] or window.strides != [2, 2] or window.column_major or any(window.pads):
        return False
    shape, size = graph.known_shape(pool.input[0]), graph.unpooled_shape(unpool)
    if shape is None or shape != size or window.dilations != [1, 1] or graph.dtype(pool.input[0]) not in COMPARED:
        return False
    return not window.ceil or all(d[0] % 2 == 0 for d in shape[2:])


def _still_read(graph: Graph, fast: set[str]) -> set[str]:
    """The names somebody reads once the unpoolings ``fast`` read codes, and what passes Indices on to them is gone."""
    nodes = [n for n in graph.graph.node if not (is_op(n, "MaxUnpool") and n.output[0] in fast)]
    while True:
        read = set(graph.outputs)
        for node in nodes:
            read |= {name for name in node.input if name}
            for body in subgraphs(node):
                read |= set(names_read(body))
        alive = [n for n in nodes if not is_op(n, "Identity", "Cast", "Reshape") or read & set(n.output)]
        if len(alive) == len(nodes):
            return read
        nodes = alive
