"""Read PyTorch's own export of ``max_unpool2d`` back into the standard's ``MaxUnpool``.

``torch.onnx.export`` has no ``MaxUnpool``. It writes ATen's arithmetic out
(``torch/_decomp/decompositions.py``, ``_max_unpoolnd``;
``torch/onnx/_internal/exporter/_torchlib/ops/nn.py``, ``aten_max_pool2d_with_indices``)::

    pooled, whole = MaxPool(x)                        # positions in the whole tensor
    _, grid = MaxPool(x, kernel 1, stride 1)          # every element's own position
    local = whole - grid[:, :, :1, :1]                # positions in the plane
    flat = Reshape(local + plane * H * W, [-1])       # and in the whole tensor again
    out = Reshape(ScatterND(zeros, Unsqueeze(flat, -1), Reshape(values, [-1])), [N, C, H, W])

where ``plane`` is 0 .. N * C - 1. If all of this holds, ``out`` is
``MaxUnpool(values, whole, [N, C, H, W])``. If one fact is in doubt, the nodes stay.
"""

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from edgeseg.graph.graph import Graph
from edgeseg.graph.nodes import attributes, ints_attribute, is_op
from edgeseg.graph.sizes import Int, number


def raise_scatters(graph: Graph) -> None:
    """Replace every recognised scatter by a ``MaxUnpool``, in place.

    Parameters
    ----------
    graph : the graph to edit.
    """
    unread: list[str] = []
    with graph.keeping_types():
        for node in graph.nodes("Reshape"):
            nodes = _unpool_of(graph, node)
            for made in nodes:
                graph.add(made, before=node)
            if nodes:
                unread += node.input
                graph.remove(node)

    if unread:
        graph.prune(unread)
        graph.forget_inferred()


def _unpool_of(graph: Graph, node: NodeProto) -> list[NodeProto]:
    """Return a ``Shape`` and a ``MaxUnpool`` that stand for a Reshape and the scatter before it.

    The result is empty if the node is no such Reshape.
    """
    # 1. Reshape(ScatterND(data, indices, updates)).
    scatter = _maker(graph, node.input[0])
    if scatter is None or not is_op(scatter, "ScatterND"):
        return []
    if attributes(scatter).get("reduction", b"none") != b"none":
        return []

    # 2. The updates are values of four dimensions, flattened.
    data, indices, updates = scatter.input
    shape = graph.ints(node.input[1])
    source = _flattened(graph, updates)
    if shape is None or source is None or shape.shape != (4,):
        return []

    # 3. The indices come from a pooling, and the data are as many zeros as it read elements.
    pool = _pool_of(graph, indices, list(shape))
    if pool is None or graph.known_shape(source) != graph.known_shape(pool.output[0]):
        return []
    if _zeros(graph, data) != _product(graph.known_shape(pool.input[0]) or []):
        return []

    # 4. The Reshape may have -1 for the batch; the pooled tensor has the whole size.
    size = graph.unique(f"{node.output[0]}_size")
    kernel = ints_attribute(pool, "kernel_shape", [])
    unpool = helper.make_node(
        "MaxUnpool",
        [source, pool.output[1], size],
        list(node.output),
        node.name,
        kernel_shape=kernel,
        strides=ints_attribute(pool, "strides", [1] * len(kernel)),
    )
    sizes = helper.make_node("Shape", [pool.input[0]], [size], graph.unique(f"{node.name}/Shape"))
    return [sizes, unpool]


def _maker(graph: Graph, name: str) -> NodeProto | None:
    """Return the node that computes a tensor.

    Nodes without effect, which an unoptimised export leaves in the file, are passed over.
    """
    node = graph.producer.get(name)
    while node is not None:
        kept = graph.dtype(node.input[0]) == graph.dtype(node.output[0]) if node.input else False
        shape = graph.known_shape(node.input[0]) if node.input else None
        useless = (
            is_op(node, "Identity")
            or (is_op(node, "Cast", "CastLike") and kept)
            or (is_op(node, "Concat") and len(node.input) == 1)
            or (is_op(node, "Transpose") and shape is not None and len(shape) == 1)
            or (
                is_op(node, "Expand")
                and shape is not None
                and shape == graph.known_shape(node.output[0])
            )
        )
        if not useless:
            break
        node = graph.producer.get(node.input[0])
    return node


def _flattened(graph: Graph, name: str) -> str | None:
    """Return the name of the tensor that a ``Reshape(..., [-1])`` flattens.

    The result is ``None`` if the node is another one. A trailing axis of one, which ScatterND's
    indices have, may follow.
    """
    node = _maker(graph, name)
    if node is not None and is_op(node, "Unsqueeze"):
        axes = graph.ints(node.input[1]) if len(node.input) > 1 else None
        given = ints_attribute(node, "axes", [])
        if axes is not None:
            given = [axis for axis, _ in axes.ravel()]
        node = _maker(graph, node.input[0]) if given in ([-1], [1]) else None
    if node is None or not is_op(node, "Reshape"):
        return None

    shape = graph.ints(node.input[1])
    flat = ([number(-1)], [number(-1), number(1)])
    return node.input[0] if shape is not None and list(shape) in flat else None


def _product(sizes: list[Int]) -> Int:
    """Return the product of sizes."""
    coefficient = 1
    factors: list[str] = []
    for size, symbols in sizes:
        coefficient *= size
        factors += symbols
    return (coefficient, tuple(sorted(factors)))


def _zeros(graph: Graph, name: str) -> Int | None:
    """Return how many zeros a tensor holds; ``None`` if it may hold other values."""
    value = graph.array(name)
    node = _maker(graph, name)
    if value is None and node is not None and is_op(node, "Reshape"):
        value = graph.array(node.input[0])
        node = _maker(graph, node.input[0])

    if value is not None:
        return None if np.any(value) else number(value.size)
    if node is None or not is_op(node, "ConstantOfShape"):
        return None
    shape = graph.ints(node.input[0])
    filled = any(np.any(numpy_helper.to_array(a.t)) for a in node.attribute if a.name == "value")
    return None if shape is None or filled else _product(list(shape.ravel()))


def _pool_of(graph: Graph, indices: str, size: list[Int]) -> NodeProto | None:
    """Return the pooling that ``indices`` come from, if it pooled a tensor of ``size``.

    -1 stands for any size.
    """
    whole = _flattened(graph, indices)
    total = _maker(graph, whole or "")
    if total is None or not is_op(total, "Add"):
        return None

    # The sum of positions in a plane and of plane starts, in either order.
    for local, starts in (total.input, reversed(total.input)):
        pool = _local_positions(graph, local)
        pooled = graph.known_shape(pool.input[0]) if pool is not None else None
        if pooled is None or any(
            s not in (p, number(-1)) for s, p in zip(size, pooled, strict=True)
        ):
            continue
        if _are_plane_starts(graph, starts, pooled):
            return pool
    return None


def _local_positions(graph: Graph, name: str) -> NodeProto | None:
    """Return the pooling whose positions a tensor holds, counted inside each plane.

    That is whole - grid[:, :, :1, :1].
    """
    node = _maker(graph, name)
    if node is None or not is_op(node, "Sub"):
        return None

    # 1. The pooling, and a slice of one element per plane.
    pool = graph.producer.get(node.input[0])
    cut = _maker(graph, node.input[1])
    if pool is None or not _gives_positions(pool, node.input[0]):
        return None
    if cut is None or not is_op(cut, "Slice") or len(cut.input) < 4:
        return None
    ranges = [graph.ints(i) for i in cut.input[1:]]
    wanted = [[0, 0], [1, 1], [2, 3], [1, 1]]
    for found, values in zip(ranges, wanted, strict=False):
        if found is None or list(found) != [number(value) for value in values]:
            return None

    # 2. The slice is of a pooling of the same tensor by windows of one element.
    grid = graph.producer.get(cut.input[0])
    if grid is None:
        return None
    if not _gives_positions(grid, cut.input[0]) or grid.input[0] != pool.input[0]:
        return None
    ones = all(ints_attribute(grid, key, [1, 1]) == [1, 1] for key in ("kernel_shape", "strides"))
    unpadded = not any(ints_attribute(grid, "pads", [0]))
    return pool if ones and unpadded else None


def _gives_positions(node: NodeProto | None, name: str) -> bool:
    """Return True if a tensor is the second output of a two-dimensional, row-major ``MaxPool``."""
    if node is None or not is_op(node, "MaxPool") or len(node.output) < 2 or node.output[1] != name:
        return False
    return len(ints_attribute(node, "kernel_shape", [])) == 2 and not attributes(node).get(
        "storage_order", 0
    )


def _are_plane_starts(graph: Graph, name: str, size: list[Int]) -> bool:
    """Return True if a tensor is 0, H * W, 2 * H * W ... in the shape (N, C, 1, 1)."""
    (batch, b), (channels, c), (height, h), (width, w) = size
    plane = (height * width, tuple(sorted((*h, *w))))

    # As a constant.
    value = graph.array(name)
    if value is not None:
        if b or c or plane[1] or value.shape != (batch, channels, 1, 1):
            return False
        return bool(np.array_equal(value.ravel(), np.arange(batch * channels) * plane[0]))

    # As a product: a count of planes times H * W.
    node = _maker(graph, name)
    if node is None or not is_op(node, "Mul"):
        return False
    for count, step in (node.input, reversed(node.input)):
        steps = graph.ints(step)
        is_plane = steps is not None and list(steps.ravel()) == [plane]
        if is_plane and _counts_planes(graph, count, size):
            return True
    return False


def _counts_planes(graph: Graph, name: str, size: list[Int]) -> bool:
    """Return True if a tensor is Reshape(Range(0, N * C, 1), (N or -1, C, 1, 1))."""
    node = _maker(graph, name)
    if node is None or not is_op(node, "Reshape"):
        return False
    (batch, b), (channels, c) = size[:2]
    shape = graph.ints(node.input[1])
    count = _maker(graph, node.input[0])
    if shape is None or list(shape)[1:] != [size[1], number(1), number(1)]:
        return False
    if shape[0] not in (size[0], number(-1)):
        return False

    # The count is a constant or a Range.
    value = graph.array(node.input[0])
    if value is not None:
        return not b and not c and bool(np.array_equal(value, np.arange(batch * channels)))
    if count is None or not is_op(count, "Range"):
        return False
    limits = [graph.ints(i) for i in count.input]
    planes = (batch * channels, tuple(sorted((*b, *c))))
    return all(
        got is not None and list(got.ravel()) == [want]
        for got, want in zip(limits, (number(0), planes, number(1)), strict=True)
    )
