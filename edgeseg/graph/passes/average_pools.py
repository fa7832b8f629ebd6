"""Rewrite average pools that OpenVINO would compute on bytes."""

import numpy as np
from onnx import NodeProto, helper

from edgeseg.graph.graph import Graph
from edgeseg.graph.nodes import attributes, ints_attribute, is_op
from edgeseg.graph.ops import WEIGHTED
from edgeseg.graph.passes import PassContext
from edgeseg.graph.passes.whole_steps import constant_by_value

_OF_CONV = ("kernel_shape", "strides", "pads", "dilations")  # attributes that a Conv has, too


def convolve_averages(graph: Graph, context: PassContext) -> None:
    """Rewrite average pools as depthwise convolutions with float ones, if ``context.unsigned``.

    This is done where OpenVINO would compute them on bytes. It moves a DQ node behind an average
    pool, and then pads with the zero point instead of with zero. It also takes the image's own
    bytes, gain and offset for a DQ node, and then rounds averages to bytes.

    Parameters
    ----------
    graph : a Q/DQ graph after ``unsigned_activations``, to edit.
    context : the options.
    """
    if not context.unsigned:
        return
    pools = [node for node in graph.nodes("AveragePool") if _is_convolution(node)]
    wrong: list[NodeProto] = []
    for pool in pools:
        padded = any(ints_attribute(pool, "pads", [0]))
        if _reads_shifted(graph, pool.input[0], padded):
            wrong.append(pool)
    for pool in wrong:
        _convolve(graph, pool)


def _convolve(graph: Graph, pool: NodeProto) -> None:
    """Make an average pool of known size a convolution and a product."""
    channels = graph.static_channels(pool.input[0])
    shape = graph.static_shape(pool.output[0])
    kernel = ints_attribute(pool, "kernel_shape", [])
    if channels is None or shape is None or len(kernel) != 2:
        return

    # 1. Divide behind the sum: a sum of whole steps is exact, and so is a tie between two steps.
    # One number per column: OpenVINO would multiply a single number into the weights.
    out = pool.output[0]
    total = graph.unique(f"{out}/sum")
    shares = np.full((1, 1, 1, shape[3]), 1 / np.prod(kernel), np.float32)
    share = constant_by_value(graph, "share", shares)
    divide = helper.make_node("Mul", [total, share], [out], graph.unique(f"{out}/mean"))
    graph.set_output(pool, 0, total)
    graph.add(divide, after=pool)

    # 2. Sum with weights of one.
    ones = graph.new_constant(f"{out}/ones", np.ones((channels, 1, *kernel), np.float32))
    graph.set_inputs(pool, [*pool.input, ones])
    pool.op_type = "Conv"
    kept = [attribute for attribute in pool.attribute if attribute.name in _OF_CONV]
    del pool.attribute[:]
    pool.attribute.extend(kept)
    pool.attribute.append(helper.make_attribute("group", channels))


def _is_convolution(pool: NodeProto) -> bool:
    """Return True if an average pool divides every sum by the same number."""
    attrs = attributes(pool)
    counts_all = attrs.get("count_include_pad", 0) or not any(attrs.get("pads", [0]))
    unpadded = attrs.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
    return bool(counts_all and unpadded and not attrs.get("ceil_mode", 0))


def _reads_shifted(graph: Graph, name: str, padded: bool) -> bool:
    """Return True if a float tensor comes from the image.

    If ``padded``, return True also if it comes from a DQ node with a zero point. No layer and no
    quantization may stand in between.
    """
    seen: set[str] = set()
    names = [name]
    while names:
        name = names.pop()
        node = graph.producer.get(name)
        if node is None and name in graph.inputs:
            return True
        if node is None or name in seen or is_op(node, *WEIGHTED):
            continue
        seen.add(name)
        if is_op(node, "DequantizeLinear"):
            zero = graph.array(node.input[2]) if len(node.input) > 2 else None
            if padded and zero is not None and np.any(zero):
                return True
        else:
            names += node.input
    return False
