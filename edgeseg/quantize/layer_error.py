"""How much of each layer's output is rounding noise when that layer alone runs in INT8: one float pass tells of all.

Beside every layer the same layer is computed from its rounded input and rounded weights, and what differs is compared
with what is there: noise power over signal power. It needs no labels, and ranks layers for the searches that do.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeseg.errors import InputError
from edgeseg.graph.graph import copied
from edgeseg.quantize.placement import Placement
from edgeseg.quantize.qdq import output_axis, quantize_weight
from edgeseg.types import Float

_PREFIX = "edgeseg/noise/"
_EPSILON = 1e-12


def local_errors(
    model: ModelProto,
    placement: Placement,
    scale: dict[str, float],
    inputs: Iterable[Float],
    *,
    exact: bool = True,
    on_frame: Callable[[int], None] | None = None,
) -> dict[str, float]:
    """Noise power over signal power at the output of every layer and sum of ``placement``, the mean over ``inputs``.

    ``model`` is the folded float net, ``scale`` of every tensor that carries a pair, ``inputs`` the net's own input
    tensors, one frame each; ``exact`` as ``quantize_weight`` has it. A layer whose output is constant counts as 0.
    """
    import onnxruntime

    measured = _with_noise(model, placement, scale, exact)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(measured.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [*placement.layers, *placement.sums]
    outputs = [_PREFIX + name for name in names]
    source = session.get_inputs()[0].name
    found: list[Float] = []
    for done, x in enumerate(inputs, 1):
        found.append(np.array([float(v) for v in session.run(outputs, {source: x})], np.float32))
        if on_frame:
            on_frame(done)
    if not found:
        raise InputError("no frames to measure rounding noise on", expected="at least one")
    return dict(zip(names, np.mean(found, axis=0).tolist(), strict=True))


def _with_noise(model: ModelProto, placement: Placement, scale: dict[str, float], exact: bool) -> ModelProto:
    """``model`` with a second, rounded copy of each layer, and the ratio of powers as a scalar output for each."""
    copy = copied(model)
    del copy.graph.output[:]
    twin = _Twin(copy, placement, scale, exact)
    for node in list(copy.graph.node):
        if node.name in twin.wanted:
            twin.add(node)
    return copy


class _Twin:
    def __init__(self, model: ModelProto, placement: Placement, scale: dict[str, float], exact: bool) -> None:
        self.model, self.scale, self.exact = model, scale, exact
        self.layers = set(placement.layers)
        self.wanted = {*placement.layers, *placement.sums}
        self.values = {t.name: t for t in model.graph.initializer}
        self._rounded: dict[str, str] = {}
        self._constant("zero", np.int8(0))
        self._constant("epsilon", np.float32(_EPSILON))

    def _constant(self, name: str, value: object) -> str:
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), _PREFIX + name))
        return _PREFIX + name

    def _node(self, kind: str, inputs: list[str], output: str, **attrs: Any) -> str:
        self.model.graph.node.append(helper.make_node(kind, inputs, [output], name=output, **attrs))
        return output

    def rounded(self, name: str) -> str:
        """A tensor rounded to its scale."""
        if name not in self._rounded:
            step = self._constant(f"{name}/scale", np.float32(self.scale[name]))
            zero = _PREFIX + "zero"
            steps = self._node("QuantizeLinear", [name, step, zero], f"{_PREFIX}{name}/q")
            self._rounded[name] = self._node("DequantizeLinear", [steps, step, zero], f"{_PREFIX}{name}/dq")
        return self._rounded[name]

    def add(self, node: NodeProto) -> None:
        """The rounded twin of ``node`` and the scalar output that compares the two."""
        twin = onnx.NodeProto()
        twin.CopyFrom(node)
        twin.name, out = f"{_PREFIX}{node.name}/twin", f"{_PREFIX}{node.name}/rounded"
        del twin.output[:]
        twin.output.append(out)
        if node.name in self.layers:
            twin.input[0] = self.rounded(node.input[0])
            weights = _rounded_weight(node, self.values[node.input[1]], self.exact)
            twin.input[1] = self._constant(f"{node.name}/weights", weights)
        else:
            for place, name in enumerate(node.input):
                twin.input[place] = self.rounded(name) if name in self.scale else name
        self.model.graph.node.append(twin)
        noise = self._power(self._node("Sub", [out, node.output[0]], f"{out}/error"))
        signal = self._power(node.output[0], f"{out}/signal")
        signal = self._node("Add", [signal, _PREFIX + "epsilon"], f"{out}/signal_power")
        self._node("Div", [noise, signal], _PREFIX + node.name)
        self.model.graph.output.append(helper.make_tensor_value_info(_PREFIX + node.name, TensorProto.FLOAT, []))

    def _power(self, name: str, prefix: str = "") -> str:
        base = prefix or name
        return self._node(
            "ReduceMean", [self._node("Mul", [name, name], f"{base}/squared")], f"{base}/mean", keepdims=0
        )


def _rounded_weight(node: NodeProto, tensor: TensorProto, exact: bool) -> Float:
    weight = np.asarray(numpy_helper.to_array(tensor), np.float32)
    axis = output_axis(node)
    steps, scale = quantize_weight(weight, axis, exact=exact)
    shape = [1] * weight.ndim
    shape[axis] = -1
    return steps.astype(np.float32) * scale.reshape(shape)
