"""Write the INT8 activations of a Q/DQ graph as UINT8: the same integers with a zero point.

The Q/DQ file has symmetric INT8 activations, which is what TensorRT reads. The INT8 convolutions of
most x86 processors (all without AMX) take unsigned activations only. OpenVINO converts signed
activations itself there, and its conversion is wrong behind some concats
(``docs/openvino-int8.md``). Written as UINT8, the same graph is computed right and faster.

``int8 value q, zero point 0`` becomes ``uint8 value q + z, zero point z``. Two zero points are
used:

- 128 for tensors of any sign: the 256 integers are the same. Numbers with many bits are rounded to
  whole steps before the zero point is added.
- 0 for tensors behind a ``Relu`` that only layers read. UINT8 would not saturate at 127 as the file
  does, so the ``Relu`` becomes a ``Clip`` to ``127 * scale``.
"""

from dataclasses import dataclass, field

import numpy as np
from onnx import NodeProto, TensorProto

from edgeseg.graph.graph import Graph
from edgeseg.graph.groups import Groups
from edgeseg.graph.nodes import attributes, is_op
from edgeseg.graph.ops import SHIFTED, WEIGHTED
from edgeseg.graph.passes import PassContext
from edgeseg.graph.passes.whole_steps import constant_by_value, is_symmetric_int8, round_first

LARGEST = 127  # the largest INT8 value
MIDDLE = 128  # the UINT8 zero point of a tensor of any sign

# Operators that compare 8-bit tensors: the result is the same when both are shifted by one number.
_COMPARING = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")

# Operators whose results are sums of their inputs, or parts of them.
_SHORT = (
    "Add", "Clip", "Concat", "Identity", "MaxPool", "Pad", "Relu", "Reshape", "Slice", "Squeeze",
    "Transpose",
)  # fmt: skip


def unsigned_activations(graph: Graph, context: PassContext) -> None:
    """Make INT8 activations UINT8 wherever that is exact, if ``context.unsigned``.

    The graph computes the same integers, shifted; float tensors have the same values. A group of
    INT8 tensors that an operator without a shifted form reads stays as it is.

    Parameters
    ----------
    graph : a Q/DQ graph in OpenVINO's form (``edgeseg.graph.lowering``), to edit: unpooling is
        lowered, INT8 tensors may pass through operators that only move values.
    context : the options.
    """
    if not context.unsigned:
        return

    for group in _groups(graph):
        if not group.convertible or not group.quantizers:
            continue
        all_positive = all(_behind_relu(graph, quantizer) for quantizer in group.quantizers)
        positive = all_positive and _only_layers_read(graph, group)
        _convert(graph, group, 0 if positive else MIDDLE)


@dataclass
class _Group:
    """Hold INT8 tensors that must share one zero point, and the nodes that make and read them.

    Attributes
    ----------
    tensors : the names of the tensors.
    quantizers : the Q nodes that make them.
    dequantizers : the DQ nodes that read them.
    movers : the nodes that read them and work on INT8.
    convertible : True if all these nodes have a shifted form.
    """

    tensors: set[str] = field(default_factory=set)
    quantizers: list[NodeProto] = field(default_factory=list)
    dequantizers: list[NodeProto] = field(default_factory=list)
    movers: list[NodeProto] = field(default_factory=list)
    convertible: bool = True


# -- finding the groups ----------------------------------------------------------------------------


def _groups(graph: Graph) -> list[_Group]:
    """Return the groups of INT8 activations."""
    # 1. Find the INT8 tensors, and join those that one node touches.
    together = Groups()
    known: dict[str, None] = {}  # in graph order, so that the same file gives the same bytes
    nodes: list[tuple[NodeProto, str]] = []
    for node in graph.graph.node:
        touched = [name for name in node.input if name in known]
        if is_op(node, "QuantizeLinear"):
            if is_symmetric_int8(graph, node):
                known[node.output[0]] = None
                nodes.append((node, node.output[0]))
        elif touched:
            made = _int8_outputs(node, touched)
            known.update(dict.fromkeys(made))
            for name in (*touched, *made):
                together.join(name, touched[0])
            nodes.append((node, touched[0]))

    # 2. Collect the tensors and the nodes of every group.
    groups: dict[str, _Group] = {}
    for name in known:
        groups.setdefault(together.find(name), _Group()).tensors.add(name)
    for node, name in nodes:
        _enter(graph, groups[together.find(name)], node)
    return list(groups.values())


def _enter(graph: Graph, group: _Group, node: NodeProto) -> None:
    """Add ``node`` to its group."""
    if is_op(node, "QuantizeLinear"):
        group.quantizers.append(node)
    elif is_op(node, "DequantizeLinear"):
        group.dequantizers.append(node)
        group.convertible &= is_symmetric_int8(graph, node)
    else:
        group.movers.append(node)
        group.convertible &= _can_shift(graph, node, group.tensors)
    group.convertible &= not any(graph.is_pinned(name) for name in group.tensors)


def _can_shift(graph: Graph, node: NodeProto, tensors: set[str]) -> bool:
    """Return True if a node gives the shifted result when its 8-bit tensors are shifted."""
    if not is_op(node, *SHIFTED, *_COMPARING):
        return False

    if is_op(node, "Resize"):
        attrs = attributes(node)
        if attrs.get("mode", b"nearest") != b"nearest":
            return False
        if attrs.get("coordinate_transformation_mode") == b"tf_crop_and_resize":
            return False

    # 8-bit tensors beside those of the group must be constants, which can be shifted.
    places = [place for place in _data_places(node) if place < len(node.input)]
    beside = [node.input[place] for place in places if node.input[place]]
    return all(graph.array(name) is not None for name in beside if name not in tensors)


def _behind_relu(graph: Graph, quantizer: NodeProto) -> bool:
    """Return True if a Q node is the only reader of a ``Relu``: that can become a ``Clip``."""
    name = quantizer.input[0]
    if not is_op(graph.producer.get(name), "Relu") or graph.is_pinned(name):
        return False
    return len(graph.readers[name]) == 1


def _only_layers_read(graph: Graph, group: _Group) -> bool:
    """Return True if only layers read the dequantized tensors.

    OpenVINO computes a sum inside the convolution before it. A Q node with zero point 0 between the
    two is then computed without its rounding.
    """
    for dequantizer in group.dequantizers:
        readers = graph.readers.get(dequantizer.output[0], [])
        if not all(is_op(reader, *WEIGHTED) for reader in readers):
            return False
    return True


# -- rewriting -------------------------------------------------------------------------------------


def _convert(graph: Graph, group: _Group, zero_point: int) -> None:
    """Store one group's tensors as UINT8 with ``zero_point``."""
    for node in (*group.quantizers, *group.dequantizers):
        # OpenVINO writes into zero points that several nodes share. So each node gets its own.
        hint = f"{node.output[0]}/zero_point"
        graph.set_input(node, 2, graph.new_constant(hint, np.array(zero_point, np.uint8)))

    for node in group.quantizers:
        _set_output_type(node)
        if zero_point == 0:
            _clip(graph, node)
        elif not _is_whole(graph, node.input[0]):
            round_first(graph, node)

    for node in group.movers:
        _shift_constants(graph, node, group.tensors, zero_point)


def _set_output_type(quantizer: NodeProto) -> None:
    """Correct the attribute that opset 21 added; if it is absent, the zero point's type decides."""
    for attribute in quantizer.attribute:
        if attribute.name == "output_dtype":
            attribute.i = TensorProto.UINT8


def _shift_constants(graph: Graph, node: NodeProto, tensors: set[str], zero_point: int) -> None:
    """Shift the 8-bit constants that a node reads beside the group's tensors."""
    for place in _data_places(node):
        name = node.input[place] if place < len(node.input) else ""
        if name in tensors:
            continue

        value = graph.array(name) if name else np.zeros((), np.int8)
        assert value is not None
        shifted = (value.astype(np.int16) + zero_point).astype(np.uint8)
        graph.set_input(node, place, constant_by_value(graph, "shifted", shifted))


def _clip(graph: Graph, quantizer: NodeProto) -> None:
    """Let the ``Relu`` that ``quantizer`` reads saturate at the largest value that INT8 holds."""
    scale = graph.array(quantizer.input[1])
    relu = graph.producer[quantizer.input[0]]
    assert scale is not None
    largest = np.asarray(LARGEST * np.float32(scale.reshape(())), np.float32)
    least_limit = constant_by_value(graph, "limit", np.zeros_like(largest))
    largest_limit = constant_by_value(graph, "limit", largest)
    graph.set_inputs(relu, [*relu.input, least_limit, largest_limit])
    relu.op_type = "Clip"


def _is_whole(graph: Graph, name: str) -> bool:
    """Return True if a float tensor holds only short numbers: sums of integers times a scale.

    Adding a zero point to these is exact in float32.
    """
    names = [name]
    seen: set[str] = set()
    while names:
        name = names.pop()
        if name in seen:
            continue
        seen.add(name)
        node = graph.producer.get(name)
        if node is None:
            continue  # the image: none of a byte's 256 values is likely to be so near the middle
        if is_op(node, "Conv", "Gemm", "MatMul"):
            factors = [graph.producer.get(factor) for factor in node.input[:2]]
            if not all(is_op(factor, "DequantizeLinear") for factor in factors):
                return False
        elif is_op(node, *_SHORT):
            names += list(node.input) if is_op(node, "Add", "Concat") else [node.input[0]]
        elif not is_op(node, "DequantizeLinear"):
            return False
    return True


def _int8_outputs(node: NodeProto, touched: list[str]) -> list[str]:
    """Return the outputs of a node that are INT8 because its inputs ``touched`` are."""
    if is_op(node, "DequantizeLinear", "Shape", "Size", *_COMPARING):
        return []
    if is_op(node, "MaxPool"):
        return [node.output[0]]
    return [name for name in node.output if name]


def _data_places(node: NodeProto) -> list[int]:
    """Return the places of the inputs of a node that are 8-bit tensors, constants included."""
    count = len(node.input)
    if is_op(node, "Concat", *_COMPARING):
        return list(range(count))
    if is_op(node, "Where"):
        return [1, 2]
    if is_op(node, "ScatterElements"):
        return [0, 2]
    if is_op(node, "Pad") and attributes(node).get("mode", b"constant") == b"constant":
        return [0, 2]
    return [0]
