"""Reading PyTorch's own export of ``max_unpool2d`` back into the standard's ``MaxUnpool``.

``torch.onnx.export`` has no ``MaxUnpool``. It writes ATen's arithmetic out (``torch/_decomp/decompositions.py``,
``_max_unpoolnd``; ``torch/onnx/_internal/exporter/_torchlib/ops/nn.py``, ``aten_max_pool2d_with_indices``)::

    pooled, whole = MaxPool(x)                        # positions in the whole tensor
    _, grid = MaxPool(x, kernel 1, stride 1)          # every element's own position
    local = whole - grid[:, :, :1, :1]                # positions in the plane
    flat = Reshape(local + plane * H * W, [-1])       # and in the whole tensor again; plane = 0 .. N * C - 1
    out = Reshape(ScatterND(zeros, Unsqueeze(flat, -1), Reshape(values, [-1])), [N, C, H, W])

Where all of this holds, out = MaxUnpool(values, whole, [N, C, H, W]). Where one fact is in doubt the nodes stay.
"""

import math

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from edgeseg.export.graph import Graph, Int, attributes, ints_attribute, is_op, number


def raise_scatters(graph: Graph) -> None:
    """Replace every recognised scatter of ``graph`` by a ``MaxUnpool``."""
    replacements = {id(n): nodes for n in graph.graph.node if (nodes := _unpool_of(graph, n))}
    if replacements:
        graph.replace(replacements)
        graph.refresh()


def _unpool_of(graph: Graph, node: NodeProto) -> list[NodeProto]:
    """The ``MaxUnpool``, and its size, that do what the Reshape ``node`` and the scatter before it do; else nothing."""
    scatter = _maker(graph, node.input[0]) if is_op(node, "Reshape") else None
    if scatter is None or not is_op(scatter, "ScatterND") or attributes(scatter).get("reduction", b"none") != b"none":
        return []
    data, indices, updates = scatter.input
    shape, source = graph.ints(node.input[1]), _flattened(graph, updates)
    if shape is None or source is None or shape.shape != (4,):
        return []
    pool = _pool_of(graph, indices, list(shape))
    if pool is None or graph.known_shape(source) != graph.known_shape(pool.output[0]):
        return []
    if _zeros(graph, data) != _product(graph.known_shape(pool.input[0]) or []):
        return []
    # The Reshape may say -1 for the batch; the pooled tensor has the size in full.
    size = graph.unique(f"{node.output[0]}_size")
    kernel = ints_attribute(pool, "kernel_shape", [])
    unpool = helper.make_node(
        "MaxUnpool", [source, pool.output[1], size], list(node.output), node.name, kernel_shape=kernel,
        strides=ints_attribute(pool, "strides", [1] * len(kernel)),
    )  # fmt: skip
    return [helper.make_node("Shape", [pool.input[0]], [size], graph.unique(f"{node.name}/Shape")), unpool]


def _maker(graph: Graph, name: str) -> NodeProto | None:
    """The node that computes ``name``, seen through those that an unoptimised export leaves without effect."""
    node = graph.producer.get(name)
    while node is not None:
        kept = graph.dtype(node.input[0]) == graph.dtype(node.output[0]) if node.input else False
        shape = graph.known_shape(node.input[0]) if node.input else None
        useless = (
            is_op(node, "Identity")
            or (is_op(node, "Cast", "CastLike") and kept)
            or (is_op(node, "Concat") and len(node.input) == 1)
            or (is_op(node, "Transpose") and shape is not None and len(shape) == 1)
            or (is_op(node, "Expand") and shape is not None and shape == graph.known_shape(node.output[0]))
        )
        if not useless:
            break
        node = graph.producer.get(node.input[0])
    return node


def _flattened(graph: Graph, name: str) -> str | None:
    """What a ``Reshape(..., [-1])`` flattens, through a trailing axis of one that ScatterND's indices have."""
    node = _maker(graph, name)
    if node is not None and is_op(node, "Unsqueeze"):
        axes = graph.ints(node.input[1]) if len(node.input) > 1 else None
        given = ints_attribute(node, "axes", []) if axes is None else [a for a, _ in axes.ravel()]
        node = _maker(graph, node.input[0]) if given in ([-1], [1]) else None
    if node is None or not is_op(node, "Reshape"):
        return None
    shape = graph.ints(node.input[1])
    return node.input[0] if shape is not None and list(shape) in ([number(-1)], [number(-1), number(1)]) else None


def _product(sizes: list[Int]) -> Int:
    return (math.prod(size for size, _ in sizes), tuple(sorted(s for _, symbols in sizes for s in symbols)))


def _zeros(graph: Graph, name: str) -> Int | None:
    """How many zeros ``name`` holds, if it holds nothing else."""
    value, node = graph.array(name), _maker(graph, name)
    if value is None and node is not None and is_op(node, "Reshape"):
        value, node = graph.array(node.input[0]), _maker(graph, node.input[0])
    if value is not None:
        return None if np.any(value) else number(value.size)
    if node is None or not is_op(node, "ConstantOfShape"):
        return None
    shape = graph.ints(node.input[0])
    filled = any(np.any(numpy_helper.to_array(a.t)) for a in node.attribute if a.name == "value")
    return None if shape is None or filled else _product(list(shape.ravel()))


def _pool_of(graph: Graph, indices: str, size: list[Int]) -> NodeProto | None:
    """The pooling that ``indices`` come from, provided it pooled a tensor of ``size``; a size may be -1, for any."""
    whole = _flattened(graph, indices)
    total = _maker(graph, whole or "")
    if total is None or not is_op(total, "Add"):
        return None
    for local, starts in (total.input, reversed(total.input)):
        pool = _local_positions(graph, local)
        pooled = graph.known_shape(pool.input[0]) if pool is not None else None
        if pooled is None or any(s not in (p, number(-1)) for s, p in zip(size, pooled, strict=True)):
            continue
        if _are_plane_starts(graph, starts, pooled):
            return pool
    return None


def _local_positions(graph: Graph, name: str) -> NodeProto | None:
    """The pooling whose positions ``name`` counts inside each plane: whole - grid[:, :, :1, :1]."""
    node = _maker(graph, name)
    if node is None or not is_op(node, "Sub"):
        return None
    pool, cut = graph.producer.get(node.input[0]), _maker(graph, node.input[1])
    if not _gives_positions(pool, node.input[0]) or cut is None or not is_op(cut, "Slice") or len(cut.input) < 4:
        return None
    ranges = [graph.ints(i) for i in cut.input[1:]]
    wanted = [[0, 0], [1, 1], [2, 3], [1, 1]]
    if any(r is None or list(r) != [number(w) for w in v] for r, v in zip(ranges, wanted, strict=False)):
        return None
    grid = graph.producer.get(cut.input[0])
    if grid is None or pool is None or not _gives_positions(grid, cut.input[0]) or grid.input[0] != pool.input[0]:
        return None
    ones = all(ints_attribute(grid, key, [1, 1]) == [1, 1] for key in ("kernel_shape", "strides"))
    unpadded = not any(ints_attribute(grid, "pads", [0]))
    return pool if ones and unpadded else None


def _gives_positions(node: NodeProto | None, name: str) -> bool:
    """Whether ``name`` is the second output of a two-dimensional, row-major ``MaxPool``."""
    if node is None or not is_op(node, "MaxPool") or len(node.output) < 2 or node.output[1] != name:
        return False
    return len(ints_attribute(node, "kernel_shape", [])) == 2 and not attributes(node).get("storage_order", 0)


def _are_plane_starts(graph: Graph, name: str, size: list[Int]) -> bool:
    """Whether ``name`` is 0, H * W, 2 * H * W ... in the shape (N, C, 1, 1)."""
    (batch, b), (channels, c), (height, h), (width, w) = size
    plane = (height * width, tuple(sorted((*h, *w))))
    value = graph.array(name)
    if value is not None:
        if b or c or plane[1] or value.shape != (batch, channels, 1, 1):
            return False
        return bool(np.array_equal(value.ravel(), np.arange(batch * channels) * plane[0]))
    node = _maker(graph, name)
    if node is None or not is_op(node, "Mul"):
        return False
    for count, step in (node.input, reversed(node.input)):
        steps = graph.ints(step)
        if steps is not None and list(steps.ravel()) == [plane] and _counts_planes(graph, count, size):
            return True
    return False


def _counts_planes(graph: Graph, name: str, size: list[Int]) -> bool:
    """Whether ``name`` is Reshape(Range(0, N * C, 1), (N or -1, C, 1, 1))."""
    node = _maker(graph, name)
    if node is None or not is_op(node, "Reshape"):
        return False
    (batch, b), (channels, c) = size[:2]
    shape, count = graph.ints(node.input[1]), _maker(graph, node.input[0])
    if shape is None or list(shape)[1:] != [size[1], number(1), number(1)] or shape[0] not in (size[0], number(-1)):
        return False
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
