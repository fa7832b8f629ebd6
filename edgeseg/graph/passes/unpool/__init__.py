"""Rewrite max-pooling with positions and max-unpooling to operators that every target runs.

SegNet (Badrinarayanan et al. 2015) and ENet (Paszke et al. 2016) put values back where a maximum was. The ONNX standard
has ``MaxPool`` with ``Indices`` and ``MaxUnpool`` for that; TensorRT parses neither, OpenVINO has no ``MaxUnpool``.
"""

import math
from collections.abc import Iterable, Mapping
from types import ModuleType

from onnx import GraphProto, ModelProto, NodeProto, inliner

from edgeseg.errors import GraphError
from edgeseg.graph.graph import Graph, Int, attributes, ints_attribute, is_op, names_read, subgraphs, title
from edgeseg.graph.passes.unpool import extension as extension_form
from edgeseg.graph.passes.unpool import plugin as plugin_form
from edgeseg.graph.passes.unpool.emit import COMPARED, Emitter, Window, codes, place, positions, scatter, unpooled_size
from edgeseg.graph.passes.unpool.torch_scatter import raise_scatters

__all__ = ["lower_unpooling"]

_OLDEST_OPSET = 11  # Range, ScatterElements, and Pad and Equal as they are used here


def lower_unpooling(
    model: ModelProto,
    *,
    plugin: bool = False,
    extension: bool = False,
    shapes: Mapping[str, list[Int | None]] | None = None,
) -> ModelProto:
    """Replace every ``MaxUnpool``, and every ``MaxPool`` whose Indices are used.

    The result computes the same numbers, to the bit (``-0.0`` counts as ``0.0``), as ONNX Runtime's CPU kernels do.
    Values must not be NaN. If the Indices of a ``MaxUnpool`` do not come from a ``MaxPool`` of the file, they must not
    repeat, as for ScatterElements; a value whose index lies outside the output is left out (ONNX Runtime stops).

    Parameters
    ----------
    model : the ONNX graph; it is edited in place unless functions with unpooling must be inlined.
    plugin : use the operators of edgeseg's TensorRT plugin where they fit (2x2 windows), else standard operators.
    extension : use the operators of edgeseg's OpenVINO extension where they fit.
    shapes : sizes of tensors by name, if the input's sizes are open (``edgeseg.graph.passes.dynamic_shapes``).

    Returns
    -------
    ``model``, or a new one if functions had to be inlined.

    Raises
    ------
    GraphError : an operator cannot be lowered exactly, or an output is too small for a pooling's positions.
    """
    # 1. Find what to lower, and refuse what cannot be lowered.
    if any(any(map(_concerns, function.node)) for function in model.functions):
        model = inliner.inline_local_functions(model)
    _refuse_bodies(model.graph)
    if not any(_concerns(node) for node in model.graph.node):
        return model
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < _OLDEST_OPSET:
        raise GraphError(
            "the ONNX file's opset is too old to lower its unpooling",
            got=opset,
            expected=f"{_OLDEST_OPSET} or newer",
            hint="onnx.version_converter.convert_version(model, 17) updates it.",
        )
    for node in filter(_concerns, model.graph.node):
        _check_geometry(node)

    # 2. Read PyTorch's own export back into MaxUnpool.
    graph = Graph(model, shapes)
    raise_scatters(graph)

    # 3. Lower, by operators of our own if given.
    own: ModuleType | None = None
    if plugin:
        own = plugin_form
    elif extension:
        own = extension_form
    _lower(graph, own)
    return model


def _concerns(node: NodeProto) -> bool:
    """Return True if a node must be lowered."""
    return is_op(node, "MaxUnpool") or _gives_indices(node)


def _gives_indices(node: NodeProto) -> bool:
    """Return True if a node is a ``MaxPool`` with Indices."""
    return is_op(node, "MaxPool") and len(node.output) > 1 and bool(node.output[1])


def _refuse_bodies(graph: GraphProto, inside: bool = False) -> None:
    """Raise ``GraphError`` if a subgraph pools with positions or unpools."""
    for node in graph.node:
        if inside and _concerns(node):
            raise GraphError(
                f"{title(node)}: stands in the body of an If, Loop or Scan",
                expected="unpooling in the main graph only",
                hint="Export without control flow around pooling and unpooling.",
            )
        for body in subgraphs(node):
            _refuse_bodies(body, inside=True)


def _check_geometry(node: NodeProto) -> None:
    """Raise ``GraphError`` if the attributes of a node do not have the same number of axes."""
    rank = len(ints_attribute(node, "kernel_shape", []))
    keys = ("kernel_shape", "strides", "dilations")
    lengths = {key: len(ints_attribute(node, key, [1] * rank)) for key in keys}
    lengths["pads"] = len(ints_attribute(node, "pads", [0] * 2 * rank)) // 2
    if not rank or set(lengths.values()) != {rank}:
        raise GraphError(
            f"{title(node)}: its attributes do not fit each other",
            got=f"lengths {lengths}",
            expected="one number an axis each, two for pads",
            hint="Export the net again.",
        )


def _lower(graph: Graph, own: ModuleType | None) -> None:
    """Replace every pooling with positions and every unpooling of ``graph``, by operators of our ``own`` if given."""
    # 1. Find the pooling that each unpooling belongs to.
    pools = {n.output[1]: n for n in graph.graph.node if _gives_indices(n)}
    unpools = [n for n in graph.graph.node if is_op(n, "MaxUnpool")]
    origin = {n.output[0]: _origin(graph, n.input[1], pools) for n in unpools}

    # 2. Choose the unpoolings that codes are enough for (output -> pooling), and those for our own operators.
    fast: dict[str, NodeProto] = {}
    for unpool in unpools:
        pool = pools.get(origin[unpool.output[0]] or "")
        if pool is not None and _fits_codes(graph, unpool, pool):
            fast[unpool.output[0]] = pool
    still_read = _still_read(graph, set(fast))
    by_own: set[str] = set()  # the Indices whose code our own operators make
    if own:
        by_own = _for_own(graph, fast, own.TYPES) - still_read

    # 3. Write the new nodes.
    coded: dict[str, str] = {}  # Indices -> the code tensor that stands for them
    replacements: dict[int, list[NodeProto]] = {}
    for node in graph.graph.node:
        if _concerns(node) and not graph.dtype(node.input[0]):
            raise GraphError(
                f"{title(node)}: nothing tells the element type of its input {node.input[0]!r}",
                hint="Run onnx.checker.check_model(model, full_check=True) and export the net again.",
            )

        emit = Emitter(graph, node)
        if _gives_indices(node):
            if own and node.output[1] in by_own:
                coded[node.output[1]] = own.pool_code(emit, node.input[0], node.output[0])
            else:
                _lower_pool(emit, node, still_read, {id(pool) for pool in fast.values()}, coded)
        elif is_op(node, "MaxUnpool") and node.output[0] in fast:
            pool = fast[node.output[0]]
            if own and pool.output[1] in by_own:
                spatial = (graph.known_shape(pool.input[0]) or [])[2:]
                odd = [size % 2 for size, _ in spatial]
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

    # 4. Put them in place.
    graph.replace(replacements)
    if own and by_own:
        own.finish(graph)


def _for_own(graph: Graph, fast: dict[str, NodeProto], types: tuple[int, ...]) -> set[str]:
    """Return the Indices of the poolings that our operators, for ``types``, can do together with their unpooling."""
    wrong = {pool.output[1] for pool in fast.values() if not _knows_odd(graph, pool.input[0])}
    for node in graph.graph.node:
        pool = fast.get(node.output[0]) if is_op(node, "MaxUnpool") else None
        if pool is not None and not {graph.dtype(pool.input[0]), graph.dtype(node.input[0])} <= {*types}:
            wrong.add(pool.output[1])
    return {pool.output[1] for pool in fast.values()} - wrong


def _knows_odd(graph: Graph, name: str) -> bool:
    """Return True if it is known whether height and width are odd, for every size of the open dimensions."""
    shape = graph.known_shape(name)
    return shape is not None and not any(symbols and size % 2 for size, symbols in shape[2:])


def _check_positions(graph: Graph, node: NodeProto, pool: NodeProto, window: Window) -> None:
    """Raise ``GraphError`` if an unpooling's output is too small for the positions that its pooling can give.

    ONNX Runtime stops in that case; other runtimes write beside the tensor.
    """
    pooled = graph.static_shape(pool.input[0])
    maxima = graph.static_shape(pool.output[0])
    size = graph.unpooled_shape(node)
    if pooled is None or maxima is None or size is None or any(symbols for _, symbols in size):
        return

    places = window.last_position(pooled, maxima) + 1
    room = math.prod(n for n, _ in size)
    if places > room:
        raise GraphError(
            f"{title(node)}: its output is too small for the positions it is given",
            got=f"{_by(n for n, _ in size)} for positions in {_by(pooled)}",
            expected="the size of what was pooled",
            hint="Export with output_size, or at a size that every pooling divides.",
        )


def _by(sizes: Iterable[int]) -> str:
    """Return sizes as text, as ``1x3x360x480``."""
    return "x".join(map(str, sizes))


def _lower_pool(emit: Emitter, node: NodeProto, still_read: set[str], fast: set[int], coded: dict[str, str]) -> None:
    """Pool without Indices, and compute what the readers of the Indices need: the code, the positions, or nothing."""
    window = Window.of(node, emit.graph)
    emit.nodes.append(window.without_positions(node))
    if id(node) in fast:
        coded[node.output[1]] = codes(emit, node.input[0], node.output[0])
    if node.output[1] in still_read:
        positions(emit, node.input[0], node.output[0], window, node.output[1])


def _origin(graph: Graph, indices: str, pools: dict[str, NodeProto]) -> str | None:
    """Return the Indices output of the pooling that ``indices`` come from; ``None`` if there is none.

    Nodes that change neither values nor order may stand in between.
    """
    while indices not in pools:
        node = graph.producer.get(indices)
        if node is None or not _only_passes(graph, node):
            return None
        indices = node.input[0]
    return indices


def _only_passes(graph: Graph, node: NodeProto) -> bool:
    """Return True if a node changes neither values nor order."""
    if is_op(node, "Identity"):
        return True
    if is_op(node, "Cast"):
        return bool(attributes(node)["to"] == graph.dtype(node.input[0]))
    if is_op(node, "Reshape"):
        before = graph.known_shape(node.input[0])
        return before is not None and before == graph.known_shape(node.output[0])
    return False


def _fits_codes(graph: Graph, unpool: NodeProto, pool: NodeProto) -> bool:
    """Return True if 2x2 codes are enough: plain windows, unpooled to exactly the sizes that were pooled."""
    window = Window.of(pool, graph)
    if window.kernel != [2, 2] or window.strides != [2, 2] or window.column_major or any(window.pads):
        return False

    shape = graph.known_shape(pool.input[0])
    size = graph.unpooled_shape(unpool)
    if shape is None or shape != size or window.dilations != [1, 1] or graph.dtype(pool.input[0]) not in COMPARED:
        return False
    return not window.ceil or all(d[0] % 2 == 0 for d in shape[2:])


def _still_read(graph: Graph, fast: set[str]) -> set[str]:
    """Return the names that are still read once the unpoolings ``fast`` read codes.

    Nodes that only pass Indices on to these unpoolings do not count.
    """
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
