"""Rewrite a Q/DQ graph for a target that computes on INT8 tensors: moves of values move bytes.

In the file every operator that moves values stands between a DQ and a Q of one scale,
``DQ -> MaxPool -> Q``. Rounding to one scale keeps order and zero. So moving before rounding gives
the same bytes as moving after it.
"""

import numpy as np
from onnx import NodeProto

from edgeseg.graph.graph import Graph
from edgeseg.graph.nodes import is_op
from edgeseg.graph.ops import MOVES, RESHAPES, moves
from edgeseg.graph.passes import PassContext

_OLDEST_OPSET = 13  # every move takes INT8 from there on
_INTO_THE_PLUGIN = ("MaxPool", "MaxUnpool")  # TensorRT does not take Q and DQ into a plugin


def propagate_qdq(graph: Graph, context: PassContext) -> None:
    """Let moves between a DQ and a Q of the same scale work on the INT8 tensor.

    For OpenVINO that is every operator that moves values; for TensorRT, pooling and unpooling if
    its plugin computes them.

    Parameters
    ----------
    graph : a Q/DQ graph, to edit.
    context : the target.
    """
    if not context.for_openvino and not context.own_operators:
        return
    if graph.opset >= _OLDEST_OPSET:
        for node in graph.nodes(*(MOVES if context.for_openvino else _INTO_THE_PLUGIN)):
            if moves(node, graph.array):
                _carry(graph, node)
    _clean(graph)


def dequantize_early(graph: Graph, context: PassContext) -> None:
    """Move every DQ in front of the reshapes of its INT8 tensor.

    OpenVINO's INT8 convolutions do not recognise a DQ that stands behind one of these operators; in
    front they do.

    Parameters
    ----------
    graph : a Q/DQ graph after ``propagate_qdq``, to edit.
    context : not used.
    """
    swapped = True
    while swapped:
        swapped = any(_hoist(graph, node) for node in graph.nodes("DequantizeLinear"))
    _clean(graph)


def _scale(graph: Graph, node: NodeProto | None) -> float | None:
    """Return the scale of a Q or DQ node, or ``None`` for any other node.

    The node must be per-tensor INT8 with zero point 0.
    """
    if node is None or not is_op(node, "QuantizeLinear", "DequantizeLinear"):
        return None
    if len(node.input) < 3:
        return None

    step = graph.array(node.input[1])
    zero = graph.array(node.input[2])
    if step is None or zero is None or step.size != 1 or zero.dtype != np.int8 or np.any(zero):
        return None
    return float(step.reshape(()))


def _carry(graph: Graph, node: NodeProto) -> None:
    """Make a move work on INT8 if the DQs in front of it and the Qs behind it have one scale."""
    # 1. In front: DQ nodes of one scale.
    count = len(node.input) if MOVES[node.op_type] < 0 else MOVES[node.op_type]
    makers = [graph.producer.get(name) for name in node.input[:count]]
    steps = {_scale(graph, maker) for maker in makers}
    if len(steps) != 1 or None in steps:
        return
    if not all(is_op(maker, "DequantizeLinear") for maker in makers):
        return
    step = steps.pop()

    # 2. Behind each output: Q nodes of the same scale, none of which must keep its output's name.
    outputs = node.output if is_op(node, "Split") else node.output[:1]
    wanted = {name: _quantizers(graph, name, step) for name in outputs if name}
    if not all(wanted.values()):
        return
    for found in wanted.values():
        if any(graph.is_pinned(quantizer.output[0]) for quantizer in found):
            return

    # 3. Read the INT8 tensors in front of the DQs.
    for place, maker in enumerate(makers):
        if maker is not None:
            graph.set_input(node, place, maker.input[0])
    if is_op(node, "Pad") and len(node.input) > 2 and node.input[2]:
        zero = graph.constant(f"{node.input[2]}/int8", np.zeros((), np.int8))
        graph.set_input(node, 2, zero)

    # 4. Write the INT8 tensors behind the Qs.
    for name, quantizers in wanted.items():
        _write_int8(graph, node, name, quantizers)


def _quantizers(graph: Graph, name: str, step: float | None) -> list[NodeProto]:
    """Return the Q nodes with scale ``step`` that read a tensor."""
    readers = [node for node in graph.readers.get(name, []) if is_op(node, "QuantizeLinear")]
    return [node for node in readers if _scale(graph, node) == step]


def _write_int8(graph: Graph, node: NodeProto, name: str, quantizers: list[NodeProto]) -> None:
    """Let a node write the INT8 tensor of the first of ``quantizers``, and remove them.

    Nodes that read the float tensor ``name`` read a DQ of the INT8 tensor instead.
    """
    # 1. The node writes the INT8 tensor, which the readers of all quantizers read.
    first = quantizers[0]
    steps = first.output[0]
    for quantizer in quantizers:
        graph.remove(quantizer)
    graph.set_output(node, list(node.output).index(name), steps)
    for other in quantizers[1:]:
        graph.read_instead(steps, other.output[0])

    # 2. Look for a DQ of the INT8 tensor.
    scale = _scale(graph, first)
    dequantizer: NodeProto | None = None
    for reader in graph.readers.get(steps, []):
        if is_op(reader, "DequantizeLinear") and _scale(graph, reader) == scale:
            dequantizer = reader
            break

    # 3. Readers of the float tensor read that DQ, or a new one under the tensor's name.
    left = list(graph.readers.get(name, []))
    if graph.is_pinned(name) or (left and dequantizer is None):
        inputs = [steps, *first.input[1:3]]
        graph.node("DequantizeLinear", inputs, name, name=f"{first.name}/float")
    elif dequantizer is not None:
        floats = dequantizer.output[0]
        for reader in left:
            graph.read_instead(steps if is_op(reader, "Shape") else floats, name, [reader])


def _hoist(graph: Graph, dequantize: NodeProto) -> bool:
    """Swap a DQ and the reshape in front of it, if nothing else reads the reshape.

    Return True if swapped.
    """
    # 1. Check that the two can be swapped.
    steps = dequantize.input[0]
    reshape = graph.producer.get(steps)
    if _scale(graph, dequantize) is None or reshape is None or not is_op(reshape, *RESHAPES):
        return False
    source = reshape.input[0]
    is_constant = graph.array(source) is not None
    if len(graph.readers[steps]) != 1 or graph.is_pinned(steps) or is_constant:
        return False
    out = dequantize.output[0]
    floats = f"{steps}/early"

    # 2. A padding pads with a float zero from here on.
    if is_op(reshape, "Pad") and len(reshape.input) > 2 and reshape.input[2]:
        value = graph.array(reshape.input[2])
        if value is None or np.any(value):
            return False
        zero = graph.constant(f"{reshape.input[2]}/float", np.zeros((), np.float32))
        graph.set_input(reshape, 2, zero)

    # 3. source -> reshape -> steps -> DQ -> out becomes source -> DQ -> floats -> reshape -> out.
    graph.set_input(dequantize, 0, source)
    graph.set_output(dequantize, 0, floats)
    graph.set_input(reshape, 0, floats)
    graph.set_output(reshape, 0, out)
    return True


def _clean(graph: Graph) -> None:
    """Remove DQ nodes that nothing reads any more, sort the others, and drop inferred types."""
    graph.drop_unread("DequantizeLinear")
    graph.sort()
    graph.drop_types()
