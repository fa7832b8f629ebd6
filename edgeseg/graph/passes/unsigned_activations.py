"""Write the INT8 activations of a Q/DQ graph as UINT8: the same integers, stored with a zero point.

The Q/DQ file has symmetric INT8 activations, which is what TensorRT reads. The INT8 convolutions of most x86 processors
(all without AMX) take unsigned activations only. OpenVINO converts signed activations itself there, and its conversion
is wrong behind some concats (``docs/openvino-int8.md``). Written as UINT8, the same graph is computed right and faster.

``int8 value q, zero point 0`` becomes ``uint8 value q + z, zero point z``. Two zero points are used:

- 128 for tensors of any sign: the 256 integers are the same. Numbers with many bits are rounded to whole steps before
  the zero point is added.
- 0 for tensors behind a ``Relu`` that only layers read. UINT8 would not saturate at 127 as the file does, so the
  ``Relu`` becomes a ``Clip`` to ``127 * scale``.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeseg.graph.graph import Graph, attributes, ints_attribute, is_op, names_read, subgraphs
from edgeseg.graph.groups import Groups
from edgeseg.graph.ops import WEIGHTED

LARGEST = 127  # the largest INT8 value
MIDDLE = 128  # the UINT8 zero point of a tensor of any sign

# Operators that give the same result, shifted, when all their 8-bit inputs are shifted by one number.
_SHIFTED = (
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape", "Resize",
    "ScatterElements", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where",
)  # fmt: skip
# Operators that compare 8-bit tensors: the result is the same when both are shifted by one number.
_COMPARING = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")

# Operators whose results are sums of their inputs, or parts of them.
_SHORT = ("Add", "Clip", "Concat", "Identity", "MaxPool", "Pad", "Relu", "Reshape", "Slice", "Squeeze", "Transpose")


def unsigned_activations(model: ModelProto) -> ModelProto:
    """Make INT8 activations UINT8 wherever that is exact, in place.

    Parameters
    ----------
    model : a Q/DQ graph in OpenVINO's form (``edgeseg.graph.lowering``): unpooling is lowered, INT8 tensors may pass
        through operators that only move values.

    Returns
    -------
    ``model``. It computes the same integers, shifted; float tensors have the same values. A group of INT8 tensors that
    an operator without a shifted form reads stays as it is.
    """
    _Rewriter(model).run()
    return model


def round_behind_gains(model: ModelProto) -> ModelProto:
    """Round to whole steps before the Q nodes behind a per-channel gain or offset, in place; return ``model``.

    OpenVINO computes gain, offset and quantization in one step with a zero point of 128 in it, even where activations
    are signed, and loses the last bits. All other signed activations it rounds exactly.

    Parameters
    ----------
    model : a Q/DQ graph in OpenVINO's form.
    """
    _Rewriter(model).round_behind_gains()
    return model


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


class _Rewriter:
    """Find the groups of INT8 activations of one model and rewrite them in place."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.graph = model.graph
        self.constants = {t.name: t for t in self.graph.initializer}
        self.producer = _producers(self.graph.node)
        self.fixed = {o.name for o in self.graph.output}
        for node in self.graph.node:
            for body in subgraphs(node):
                self.fixed |= set(names_read(body))
        self._before: dict[str, list[NodeProto]] = {}  # by the output of the quantizer they stand in front of
        self._after: dict[str, NodeProto] = {}  # by the output of the node it stands behind
        self._inputs = {i.name for i in self.graph.input}
        self._used = {*self.constants, *self.producer, *(i.name for i in self.graph.input)}

    def run(self) -> None:
        """Make INT8 activations UINT8 wherever that is exact."""
        for group in self._groups():
            if not group.convertible or not group.quantizers:
                continue
            all_positive = all(self._behind_relu(q) for q in group.quantizers)
            positive = all_positive and self._only_layers_read(group)
            self._convert(group, 0 if positive else MIDDLE)

        self._insert()
        self._convolve_averages()

    def round_behind_gains(self) -> None:
        """Round to whole steps before the Q nodes behind a per-channel gain or offset."""
        for node in self.graph.node:
            is_quantizer = is_op(node, "QuantizeLinear") and self._symmetric_int8(node)
            if is_quantizer and self._behind_gain(node):
                self._round_first(node)
        self._insert()

    def _behind_gain(self, quantizer: NodeProto) -> bool:
        """Return True if a Q node reads the product or the sum of a tensor and a constant."""
        maker = self.producer.get(quantizer.input[0])
        if maker is None or not is_op(maker, "Mul", "Add", "BatchNormalization"):
            return False
        return any(self._array(name) is not None for name in maker.input)

    # -- finding the groups ----------------------------------------------------------------------------------------

    def _groups(self) -> list[_Group]:
        """Return the groups of INT8 activations."""
        # 1. Find the INT8 tensors, and join those that one node touches.
        together = Groups()
        known: dict[str, None] = {}  # in graph order, so that the same file gives the same bytes
        nodes: list[tuple[NodeProto, str]] = []
        for node in self.graph.node:
            touched = [name for name in node.input if name in known]
            if is_op(node, "QuantizeLinear"):
                if self._symmetric_int8(node):
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
            self._enter(groups[together.find(name)], node)
        return list(groups.values())

    def _enter(self, group: _Group, node: NodeProto) -> None:
        """Add ``node`` to its group."""
        if is_op(node, "QuantizeLinear"):
            group.quantizers.append(node)
        elif is_op(node, "DequantizeLinear"):
            group.dequantizers.append(node)
            group.convertible &= self._symmetric_int8(node)
        else:
            group.movers.append(node)
            group.convertible &= self._can_shift(node, group.tensors)
        group.convertible &= not group.tensors & self.fixed

    def _symmetric_int8(self, node: NodeProto) -> bool:
        """Return True if a Q or DQ node has one scale for the tensor, and an INT8 zero point of 0."""
        if len(node.input) < 3:
            return False
        scale = self._array(node.input[1])
        zero = self._array(node.input[2])
        if scale is None or zero is None:
            return False
        return bool(scale.size == 1 and zero.dtype == np.int8 and not np.any(zero))

    def _can_shift(self, node: NodeProto, tensors: set[str]) -> bool:
        """Return True if a node gives the shifted result when its 8-bit tensors are shifted."""
        if not is_op(node, *_SHIFTED, *_COMPARING):
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
        return all(self._array(name) is not None for name in beside if name not in tensors)

    def _array(self, name: str) -> npt.NDArray[np.generic] | None:
        """Return the value of a constant; ``None`` for a computed tensor."""
        if name in self.constants:
            return numpy_helper.to_array(self.constants[name])
        node = self.producer.get(name)
        if is_op(node, "Constant") and node is not None:
            value = attributes(node).get("value")
            return None if value is None else numpy_helper.to_array(value)
        return None

    def _behind_relu(self, quantizer: NodeProto) -> bool:
        """Return True if a Q node reads a ``Relu`` that nothing else reads, so that it can become a ``Clip``."""
        name = quantizer.input[0]
        readers = [n for n in self.graph.node if name in n.input]
        return is_op(self.producer.get(name), "Relu") and len(readers) == 1 and name not in self.fixed

    def _only_layers_read(self, group: _Group) -> bool:
        """Return True if only layers read the dequantized tensors.

        OpenVINO computes a sum inside the convolution before it. A Q node with zero point 0 between the two is then
        computed without its rounding.
        """
        dequantized = {n.output[0] for n in group.dequantizers}
        readers = [n for n in self.graph.node if dequantized & set(n.input)]
        return all(is_op(n, *WEIGHTED) for n in readers)

    # -- rewriting -------------------------------------------------------------------------------------------------

    def _convert(self, group: _Group, zero_point: int) -> None:
        """Store one group's tensors as UINT8 with ``zero_point``."""
        for node in (*group.quantizers, *group.dequantizers):
            # OpenVINO writes into zero points that several nodes share. So each node gets its own.
            node.input[2] = self._own_constant(f"{node.output[0]}/zero_point", np.array(zero_point, np.uint8))

        for node in group.quantizers:
            self._set_output_type(node)
            if zero_point == 0:
                self._clip(node)
            elif not self._is_whole(node.input[0]):
                self._round_first(node)

        for node in group.movers:
            self._shift_constants(node, group.tensors, zero_point)

    @staticmethod
    def _set_output_type(quantizer: NodeProto) -> None:
        """Correct the attribute that opset 21 added; if it is absent, the zero point's type decides."""
        for attribute in quantizer.attribute:
            if attribute.name == "output_dtype":
                attribute.i = TensorProto.UINT8

    def _shift_constants(self, node: NodeProto, tensors: set[str], zero_point: int) -> None:
        """Shift the 8-bit constants that a node reads beside the group's tensors."""
        for place in _data_places(node):
            while len(node.input) <= place:
                node.input.append("")
            name = node.input[place]
            if name in tensors:
                continue

            value = self._array(name) if name else np.zeros((), np.int8)
            assert value is not None
            shifted = (value.astype(np.int16) + zero_point).astype(np.uint8)
            node.input[place] = self._constant("shifted", shifted)

    def _clip(self, quantizer: NodeProto) -> None:
        """Let the ``Relu`` that ``quantizer`` reads saturate at the largest value that INT8 holds."""
        scale = self._array(quantizer.input[1])
        relu = self.producer[quantizer.input[0]]
        assert scale is not None
        largest = np.asarray(LARGEST * np.float32(scale.reshape(())), np.float32)
        relu.op_type = "Clip"
        relu.input.extend([self._constant("limit", np.zeros_like(largest)), self._constant("limit", largest)])

    def _is_whole(self, name: str) -> bool:
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
            node = self.producer.get(name)
            if node is None:
                continue  # the image: a byte has 256 values, and none of them is likely to be so near the middle
            if is_op(node, "Conv", "Gemm", "MatMul"):
                factors = [self.producer.get(factor) for factor in node.input[:2]]
                if not all(is_op(factor, "DequantizeLinear") for factor in factors):
                    return False
            elif is_op(node, *_SHORT):
                names += list(node.input) if is_op(node, "Add", "Concat") else [node.input[0]]
            elif not is_op(node, "DequantizeLinear"):
                return False
        return True

    def _round_first(self, quantizer: NodeProto) -> None:
        """Round to whole steps before the zero point is added.

        OpenVINO adds the zero point first, which costs a float32 number its last bits: a value within 2^-17 of the
        middle between two steps goes to the other side.
        """
        scale = self._array(quantizer.input[1])
        assert scale is not None
        step = np.float32(scale.reshape(()))
        name = quantizer.input[0]
        steps = self._unique(f"{name}/steps")
        whole = self._unique(f"{name}/whole")
        out = self._unique(f"{name}/rounded")

        if np.frexp(step)[0] == 0.5:  # a power of two: the product is exact
            divide = helper.make_node("Mul", [name, self._constant("steps", np.asarray(1 / step))], [steps], steps)
        else:
            divide = helper.make_node("Div", [name, self._constant("steps", np.asarray(step))], [steps], steps)

        self._before[quantizer.output[0]] = [
            divide,
            helper.make_node("Round", [steps], [whole], whole),
            helper.make_node("Mul", [whole, self._constant("step", np.asarray(step))], [out], out),
        ]
        quantizer.input[0] = out

    def _insert(self) -> None:
        """Put the nodes in ``_before`` and ``_after`` where they belong."""
        nodes: list[NodeProto] = []
        for node in self.graph.node:
            nodes += [*self._before.pop(node.output[0], []), node]
            if node.output[0] in self._after:
                nodes.append(self._after.pop(node.output[0]))

        copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.graph.node[:]
        self.graph.node.extend(copies)
        self.producer = _producers(self.graph.node)

    def _convolve_averages(self) -> None:
        """Rewrite average pools as depthwise convolutions with float ones if OpenVINO would compute them on bytes.

        OpenVINO moves a DQ node behind an average pool, and then pads with the zero point instead of with zero. It also
        takes the image's own bytes, gain and offset for a DQ node, and then rounds averages to bytes.
        """
        # 1. Find the pools.
        pools = [n for n in self.graph.node if is_op(n, "AveragePool") and self._is_convolution(n)]
        wrong = [n for n in pools if self._reads_shifted(n.input[0], any(ints_attribute(n, "pads", [0])))]
        if not wrong:
            return

        sizes = Graph(self.model)
        for pool in wrong:
            channels = sizes.static_channels(pool.input[0])
            shape = sizes.static_shape(pool.output[0])
            kernel = ints_attribute(pool, "kernel_shape", [])
            if channels is None or shape is None or len(kernel) != 2:
                continue

            # 2. Divide behind the sum: a sum of whole steps is exact, and so is a tie between two steps.
            out = pool.output[0]
            total = self._unique(f"{out}/sum")
            # One number per column: OpenVINO would multiply a single number into the weights.
            share = self._constant("share", np.full((1, 1, 1, shape[3]), 1 / np.prod(kernel), np.float32))
            self._after[total] = helper.make_node("Mul", [total, share], [out], self._unique(f"{out}/mean"))

            # 3. Sum with weights of one.
            pool.output[0] = total
            pool.op_type = "Conv"
            pool.input.append(self._own_constant(f"{out}/ones", np.ones((channels, 1, *kernel), np.float32)))
            kept = [a for a in pool.attribute if a.name in ("kernel_shape", "strides", "pads", "dilations")]
            del pool.attribute[:]
            pool.attribute.extend(kept)
            pool.attribute.append(helper.make_attribute("group", channels))
        self._insert()

    @staticmethod
    def _is_convolution(pool: NodeProto) -> bool:
        """Return True if an average pool divides every sum by the same number."""
        attrs = attributes(pool)
        counts_all = attrs.get("count_include_pad", 0) or not any(attrs.get("pads", [0]))
        plain = attrs.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID") and not attrs.get("ceil_mode", 0)
        return bool(counts_all and plain)

    def _reads_shifted(self, name: str, padded: bool) -> bool:
        """Return True if a float tensor comes from the image, or (if ``padded``) from a DQ node with a zero point.

        No layer and no quantization may stand in between.
        """
        seen: set[str] = set()
        names = [name]
        while names:
            name = names.pop()
            node = self.producer.get(name)
            if node is None and name in self._inputs:
                return True
            if node is None or name in seen or is_op(node, *WEIGHTED):
                continue
            seen.add(name)
            if is_op(node, "DequantizeLinear"):
                zero = self._array(node.input[2]) if len(node.input) > 2 else None
                if padded and zero is not None and np.any(zero):
                    return True
            else:
                names += node.input
        return False

    def _constant(self, hint: str, value: npt.NDArray[np.generic]) -> str:
        """Return the name of an initializer that holds ``value``."""
        name = f"unsigned/{hint}/{value.dtype}{list(value.shape)}/{hashlib.sha256(value.tobytes()).hexdigest()[:12]}"
        if name not in self.constants:
            tensor = numpy_helper.from_array(value, name)
            self.graph.initializer.append(tensor)
            self.constants[name] = tensor
        return name

    def _own_constant(self, hint: str, value: npt.NDArray[np.generic]) -> str:
        """Return the name of a new initializer that holds ``value``."""
        tensor = numpy_helper.from_array(value, self._unique(hint))
        self.graph.initializer.append(tensor)
        self.constants[tensor.name] = tensor
        return tensor.name

    def _unique(self, hint: str) -> str:
        """Return a name that nothing in the graph has yet, and reserve it."""
        name = hint
        count = 1
        while name in self._used or name in self.constants:
            name = f"{hint}_{count}"
            count += 1
        self._used.add(name)
        return name


def _producers(nodes: Iterable[NodeProto]) -> dict[str, NodeProto]:
    """Return the node that makes a tensor, by the tensor's name."""
    producers: dict[str, NodeProto] = {}
    for node in nodes:
        producers |= {name: node for name in node.output if name}
    return producers


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
