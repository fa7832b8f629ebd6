"""Rewrite max-pooling with positions and max-unpooling to operators that every target runs.

SegNet (Badrinarayanan et al. 2015) and ENet (Paszke et al. 2016) put values back where a maximum
was. The ONNX standard has ``MaxPool`` with ``Indices`` and ``MaxUnpool`` for that; TensorRT parses
neither, OpenVINO has no ``MaxUnpool``.
"""

from types import ModuleType

from onnx import NodeProto, inliner

from edgeseg.graph.graph import Graph
from edgeseg.graph.nodes import attributes, is_op, names_read_inside
from edgeseg.graph.passes import PassContext
from edgeseg.graph.passes.unpool import extension as extension_form
from edgeseg.graph.passes.unpool import plugin as plugin_form
from edgeseg.graph.passes.unpool.checks import (
    check_lowerable,
    check_positions,
    check_type,
    concerns,
    gives_indices,
    refuse_bodies,
)
from edgeseg.graph.passes.unpool.codes import codes, place
from edgeseg.graph.passes.unpool.emitter import Emitter
from edgeseg.graph.passes.unpool.positions import COMPARED, positions, scatter, unpooled_size
from edgeseg.graph.passes.unpool.torch_scatter import raise_scatters
from edgeseg.graph.passes.unpool.window import Window

__all__ = ["lower_unpooling"]


def lower_unpooling(graph: Graph, context: PassContext) -> None:
    """Replace every ``MaxUnpool``, and every ``MaxPool`` whose Indices are used.

    The result computes the same numbers, to the bit (``-0.0`` counts as ``0.0``), as ONNX Runtime's
    CPU kernels do. Values must not be NaN. If the Indices of a ``MaxUnpool`` do not come from a
    ``MaxPool`` of the file, they must not repeat, as for ScatterElements; a value whose index lies
    outside the output is left out (ONNX Runtime stops).

    Parameters
    ----------
    graph : the graph to edit; functions with unpooling are inlined.
    context : whether edgeseg's own operators are used where they fit (2x2 windows), and whose;
        elsewhere standard operators are used.

    Raises
    ------
    GraphError : an operator cannot be lowered exactly, or an output is too small for a pooling's
        positions.
    """
    # 1. Find what to lower, and refuse what cannot be lowered.
    if any(any(map(concerns, function.node)) for function in graph.model.functions):
        graph.model.CopyFrom(inliner.inline_local_functions(graph.model))
        graph.refresh()
    refuse_bodies(graph.graph)
    if not any(concerns(node) for node in graph.graph.node):
        return
    check_lowerable(graph)

    # 2. Read PyTorch's own export back into MaxUnpool.
    raise_scatters(graph)

    # 3. Lower, by operators of our own if the target has them.
    own: ModuleType | None = None
    if context.own_operators:
        own = extension_form if context.for_openvino else plugin_form
    _Lowering(graph, own).run()


class _Lowering:
    """Choose a form for every pooling with positions and every unpooling, and write it.

    Attributes
    ----------
    graph : the graph to edit.
    own : the module that writes our own operators, if the target has them.
    pools : the poolings with positions, by the name of their Indices.
    origin : the Indices of the pooling that an unpooling belongs to, by the unpooling's output.
    fast : the pooling of each unpooling that codes are enough for, by the unpooling's output.
    still_read : the names that are still read once the unpoolings ``fast`` read codes.
    by_own : the Indices whose code our own operators make.
    coded : the code that stands for Indices, by their name.
    """

    def __init__(self, graph: Graph, own: ModuleType | None) -> None:
        self.graph = graph
        self.own = own
        self.coded: dict[str, str] = {}

        # Find the pooling that each unpooling belongs to.
        self.pools = {n.output[1]: n for n in graph.nodes("MaxPool") if gives_indices(n)}
        unpools = graph.nodes("MaxUnpool")
        self.origin = {n.output[0]: _origin(graph, n.input[1], self.pools) for n in unpools}

        # Choose the unpoolings that codes are enough for, and those for our own operators.
        self.fast: dict[str, NodeProto] = {}
        for unpool in unpools:
            pool = self.pools.get(self.origin[unpool.output[0]] or "")
            if pool is not None and _fits_codes(graph, unpool, pool):
                self.fast[unpool.output[0]] = pool
        self.still_read = _still_read(graph, set(self.fast))
        self.by_own: set[str] = set()
        if own:
            self.by_own = self._for_own(own.TYPES) - self.still_read

    def run(self) -> None:
        """Replace the nodes, then remove what nothing reads any more."""
        unread: list[str] = []
        with self.graph.keeping_types():
            for node in filter(concerns, self.graph.nodes()):
                check_type(self.graph, node)
                self._replace(node)
                unread += node.input

        self.graph.prune(unread)
        if self.own and self.by_own:
            self.own.finish(self.graph)

    def _replace(self, node: NodeProto) -> None:
        """Write the nodes that stand for a node, and remove it."""
        emit = Emitter(self.graph, node)
        if gives_indices(node):
            self._pool(emit, node)
        elif node.output[0] in self.fast:
            self._unpool_by_code(emit, node)
        else:
            self._unpool_by_index(emit, node)
        self.graph.remove(node)

    def _for_own(self, types: tuple[int, ...]) -> set[str]:
        """Return the Indices of the poolings that operators for ``types`` can do.

        They must be able to do all their unpoolings as well.
        """
        wrong: set[str] = set()
        for output, pool in self.fast.items():
            unpool = self.graph.producer[output]
            used = {self.graph.dtype(pool.input[0]), self.graph.dtype(unpool.input[0])}
            if not used <= {*types} or not _knows_odd(self.graph, pool.input[0]):
                wrong.add(pool.output[1])
        return {pool.output[1] for pool in self.fast.values()} - wrong

    def _pool(self, emit: Emitter, node: NodeProto) -> None:
        """Pool, and compute what the readers of the Indices need.

        That is the code, the positions, or nothing.
        """
        x = node.input[0]
        pooled = node.output[0]
        indices = node.output[1]
        if self.own and indices in self.by_own:
            self.coded[indices] = self.own.pool_code(emit, x, pooled)
            return

        window = Window.of(node, self.graph)
        emit.add(window.without_positions(node))
        if any(pool is node for pool in self.fast.values()):
            self.coded[indices] = codes(emit, x, pooled)
        if indices in self.still_read:
            positions(emit, x, pooled, window, indices)

    def _unpool_by_code(self, emit: Emitter, node: NodeProto) -> None:
        """Unpool by the code of the pooling."""
        pool = self.fast[node.output[0]]
        code = self.coded[pool.output[1]]
        if self.own and pool.output[1] in self.by_own:
            spatial = (self.graph.known_shape(pool.input[0]) or [])[2:]
            odd = [size % 2 for size, _ in spatial]
            self.own.unpool(emit, node.input[0], code, odd, node.output[0])
        else:
            place(emit, node.input[0], code, pool.input[0], node.output[0])

    def _unpool_by_index(self, emit: Emitter, node: NodeProto) -> None:
        """Unpool by the Indices of the ONNX standard."""
        pool = self.pools.get(self.origin[node.output[0]] or "")
        window: Window | None = None
        if pool is not None:
            window = Window.of(pool, self.graph)
            check_positions(self.graph, node, pool, window)
        size = unpooled_size(emit, node)
        scatter(emit, node.input[0], node.input[1], size, window, node.output[0])


def _knows_odd(graph: Graph, name: str) -> bool:
    """Return True if it is known whether height and width are odd, for every open size."""
    shape = graph.known_shape(name)
    return shape is not None and not any(symbols and size % 2 for size, symbols in shape[2:])


def _origin(graph: Graph, indices: str, pools: dict[str, NodeProto]) -> str | None:
    """Return the Indices output of the pooling that ``indices`` come from; ``None`` if unknown.

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
    """Return True if 2x2 codes are enough.

    That is for plain windows, unpooled to exactly the sizes that were pooled.
    """
    window = Window.of(pool, graph)
    if window.kernel != [2, 2] or window.strides != [2, 2] or window.dilations != [1, 1]:
        return False
    if window.column_major or any(window.pads):
        return False

    shape = graph.known_shape(pool.input[0])
    size = graph.unpooled_shape(unpool)
    if shape is None or shape != size or graph.dtype(pool.input[0]) not in COMPARED:
        return False
    return not window.ceil or all(size % 2 == 0 for size, _ in shape[2:])


def _still_read(graph: Graph, fast: set[str]) -> set[str]:
    """Return the names that are still read once the unpoolings ``fast`` read codes.

    Nodes that only pass Indices on to these unpoolings do not count.
    """
    nodes = [n for n in graph.nodes() if not (is_op(n, "MaxUnpool") and n.output[0] in fast)]
    while True:
        read = set(graph.outputs)
        for node in nodes:
            read |= {name for name in node.input if name}
            read |= set(names_read_inside(node))

        alive: list[NodeProto] = []
        for node in nodes:
            passes = is_op(node, "Identity", "Cast", "Reshape")
            if not passes or read & set(node.output):
                alive.append(node)
        if len(alive) == len(nodes):
            return read
        nodes = alive
