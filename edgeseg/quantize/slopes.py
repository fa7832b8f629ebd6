"""Round the slopes of PReLU and LeakyReLU so that what follows them is exact in every runtime.

With scales that are powers of two an INT8 layer's sums are whole multiples of a step (``edgeseg.quantize.qdq``). A
slope of any value makes numbers with 24 significant bits of them.

A runtime that adds a zero point of 128 before it rounds to INT8 loses the last of these bits. OpenVINO does so on
processors whose INT8 is unsigned. A value within ``2 ** -17`` of the middle between two steps then goes to the other
side, and behind some dozens of layers some labels in a thousand change.

A slope that is a multiple of ``2 ** -bits`` leaves numbers short enough for that addition to be exact. For ENet
``bits`` is 5 to 9, so that slopes move by 1 / 64 at most.
"""

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, helper, numpy_helper

from edgeseg.export.graph import attributes, is_op

FRACTION_BITS = 16  # behind the point of a float32 number in 128..256

LEAST_BITS = 5  # below that a slope would move by more than 1 / 64; it is left as it is

# Operators that give values their input has, or sums of them: the step stays.
_KEEPS_STEP = ("Clip", "Concat", "Identity", "MaxPool", "MaxUnpool", "Pad", "Relu", "Reshape", "Slice", "Transpose")

Vector = npt.NDArray[np.float64]


def round_slopes(model: ModelProto) -> int:
    """Round the slopes of a Q/DQ graph in place, wherever that makes the next rounding exact.

    Parameters
    ----------
    model : a Q/DQ graph with scales of powers of two.

    Returns
    -------
    How many ``PRelu`` and ``LeakyRelu`` nodes have other slopes than before.
    """
    return _Slopes(model).round()


class _Slopes:
    """Look-ups over one Q/DQ graph."""

    def __init__(self, model: ModelProto) -> None:
        self.graph = model.graph
        self.constants = {t.name: numpy_helper.to_array(t) for t in self.graph.initializer if _is_small(t.dims)}
        self.producer = {o: n for n in self.graph.node for o in n.output if o}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def round(self) -> int:
        """Round every slope that can be; return how many nodes changed."""
        changed = 0
        for node in self.graph.node:
            if is_op(node, "PRelu"):
                changed += self._round_prelu(node)
            elif is_op(node, "LeakyRelu"):
                changed += self._round_leaky(node)
        return changed

    def _round_prelu(self, node: NodeProto) -> bool:
        slope = self.constants.get(node.input[1])
        if slope is None or slope.dtype != np.float32:
            return False
        bits = self._bits(node, slope.size)
        if bits is None:
            return False
        rounded = _rounded(slope.astype(np.float64).reshape(-1), bits)
        rounded = rounded.reshape(slope.shape).astype(np.float32)
        if np.array_equal(rounded, slope):
            return False
        name = f"{node.output[0]}/slope"
        self.graph.initializer.append(numpy_helper.from_array(rounded, name))
        node.input[1] = name
        return True

    def _round_leaky(self, node: NodeProto) -> bool:
        bits = self._bits(node, 1)
        if bits is None:
            return False
        slope = float(attributes(node).get("alpha", 0.01))
        rounded = float(_rounded(np.float64(slope), bits.min()))
        if rounded == slope:
            return False
        kept = [a for a in node.attribute if a.name != "alpha"]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("alpha", rounded)])
        return True

    def _bits(self, node: NodeProto, channels: int) -> Vector | None:
        """Return how many bits behind the point a slope may have, (channels,); ``None`` where nothing is known."""
        quantizers = [n for n in self.readers.get(node.output[0], []) if is_op(n, "QuantizeLinear")]
        scales = [self.constants.get(n.input[1]) for n in quantizers]
        step = self._step(node.input[0])
        if not scales or step is None or any(s is None or s.size != 1 for s in scales):
            return None
        least = min(float(np.log2(s.reshape(()))) for s in scales if s is not None)
        if not np.all(np.isfinite(step)) or not np.isfinite(least):
            return None
        shift = least - (step if step.size in (1, channels) else step.min())
        return np.broadcast_to(FRACTION_BITS - np.ceil(shift), (channels,)).astype(np.float64)

    def _step(self, name: str, depth: int = 0) -> Vector | None:
        """Return log2 of the step that a tensor's values are multiples of: one number, or one a channel."""
        node = self.producer.get(name)
        if node is None or depth > len(self.producer):
            return None
        if is_op(node, "DequantizeLinear"):
            scale = self.constants.get(node.input[1])
            return None if scale is None else np.log2(scale.astype(np.float64).reshape(-1))
        if is_op(node, "Conv"):
            x, weight = (self.producer.get(i) for i in node.input[:2])
            if x is None or not is_op(x, "DequantizeLinear") or not is_op(weight, "DequantizeLinear"):
                return None
            steps = [self._step(i, depth + 1) for i in node.input[:2]]
            return None if steps[0] is None or steps[1] is None else steps[0] + steps[1]
        if is_op(node, "Add"):
            return self._least([str(i) for i in node.input], depth)
        if is_op(node, *_KEEPS_STEP):
            names = list(node.input) if is_op(node, "Concat") else [node.input[0]]
            step = self._least([str(i) for i in names], depth)
            same_channels = not is_op(node, "Concat", "Reshape", "Slice", "Transpose")
            return step if step is None or same_channels else step.min(keepdims=True)
        return None

    def _least(self, names: list[str], depth: int) -> Vector | None:
        """Return the smallest of several tensors' steps, channel by channel where both have the same channels."""
        steps = [self._step(name, depth + 1) for name in names]
        known = [s for s in steps if s is not None]
        if len(known) < len(steps):
            return None
        if len({s.size for s in known} - {1}) > 1:
            known = [s.min(keepdims=True) for s in known]
        least = known[0]
        for step in known[1:]:
            least = np.minimum(least, step)
        return least


def _rounded(slope: Vector | np.float64, bits: Vector | np.float64) -> Vector:
    """Return slopes as multiples of ``2 ** -bits``; those with too few bits as they are."""
    unit = np.exp2(-np.clip(bits, LEAST_BITS, 24))
    return np.where(bits >= LEAST_BITS, np.rint(slope / unit) * unit, slope)


def _is_small(dims: object) -> bool:
    """Return whether a constant can be a scale or slopes, and is no layer's weights."""
    return int(np.prod(np.asarray(dims, np.int64))) <= 1 << 16
