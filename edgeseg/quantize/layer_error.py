"""Measure the rounding noise of each layer if only that layer runs in INT8, in one pass per frame.

Beside every layer, the same layer is computed from its rounded input and its rounded weights. The
power of the difference is divided by the power of the layer's output. This needs no labels; it
ranks the layers for the searches that do.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from edgeseg.errors import InputError
from edgeseg.graph.graph import Graph
from edgeseg.graph.nodes import copied
from edgeseg.quantize.placement import Placement
from edgeseg.quantize.qdq import output_axis, quantize_weight
from edgeseg.reporter import SILENT, Reporter, track
from edgeseg.types import Float

_PREFIX = "edgeseg/noise/"
_EPSILON = 1e-12  # is added to the signal power, against a division by 0


def local_errors(
    model: ModelProto,
    placement: Placement,
    scale: dict[str, float],
    inputs: Iterable[Float],
    *,
    exact: bool = True,
    reporter: Reporter = SILENT,
) -> dict[str, float]:
    """Return noise power over signal power at the output of each layer and sum.

    Parameters
    ----------
    model : the folded float graph.
    placement : the layers and sums to measure.
    scale : the scale of every tensor that carries a pair.
    inputs : input tensors of the graph, one frame each.
    exact : make scales of weights powers of two, as for ``quantize_weight``.
    reporter : receives the progress over the frames.

    Returns
    -------
    The mean over the frames, by name of the layer or sum; 0 if a layer's output is constant.

    Raises
    ------
    InputError : there are no inputs.
    """
    import onnxruntime

    # A graph that computes the ratio of every layer.
    measured = _with_noise(model, placement, scale, exact)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # only errors
    session = onnxruntime.InferenceSession(
        measured.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    # Run it on every frame.
    names = [*placement.layers, *placement.sums]
    outputs = [_PREFIX + name for name in names]
    source = session.get_inputs()[0].name
    found: list[Float] = []
    for frame in track(inputs, "measure layers", reporter):
        ratios = session.run(outputs, {source: frame})
        found.append(np.array([float(ratio) for ratio in ratios], np.float32))
    if not found:
        raise InputError("no frames to measure rounding noise on", expected="at least one")
    return dict(zip(names, np.mean(found, axis=0).tolist(), strict=True))


def _with_noise(
    model: ModelProto, placement: Placement, scale: dict[str, float], exact: bool
) -> ModelProto:
    """Return a copy of a graph with a rounded twin of each layer, and the ratios as outputs."""
    copy = copied(model)
    graph = Graph(copy)
    graph.clear_outputs()
    twin = _Twin(graph, placement, scale, exact)
    for node in graph.nodes():
        if node.name in twin.wanted:
            twin.add(node)
    return copy


class _Twin:
    """Add rounded twins of layers and sums to a graph."""

    def __init__(
        self, graph: Graph, placement: Placement, scale: dict[str, float], exact: bool
    ) -> None:
        self.graph = graph
        self.scale = scale
        self.exact = exact
        self.layers = set(placement.layers)
        self.wanted = {*placement.layers, *placement.sums}
        self._rounded: dict[str, str] = {}
        self._constant("zero", np.int8(0))
        self._constant("epsilon", np.float32(_EPSILON))

    def _constant(self, name: str, value: object) -> str:
        """Add a constant and return its name."""
        return self.graph.constant(_PREFIX + name, np.asarray(value))

    def _node(self, kind: str, inputs: list[str], output: str, **attrs: Any) -> str:
        """Add a node and return the name of its output."""
        return self.graph.node(kind, inputs, output, name=output, **attrs)

    def rounded(self, name: str) -> str:
        """Return the name of a tensor rounded to its scale."""
        if name not in self._rounded:
            step = self._constant(f"{name}/scale", np.float32(self.scale[name]))
            zero = _PREFIX + "zero"
            quantized = self._node("QuantizeLinear", [name, step, zero], f"{_PREFIX}{name}/q")
            inputs = [quantized, step, zero]
            self._rounded[name] = self._node("DequantizeLinear", inputs, f"{_PREFIX}{name}/dq")
        return self._rounded[name]

    def add(self, node: NodeProto) -> None:
        """Add the rounded twin of a node, and the scalar output that compares the two."""
        # The same node with another output.
        twin = onnx.NodeProto()
        twin.CopyFrom(node)
        twin.name = f"{_PREFIX}{node.name}/twin"
        out = f"{_PREFIX}{node.name}/rounded"
        del twin.output[:]
        twin.output.append(out)

        # Its inputs rounded.
        if node.name in self.layers:
            twin.input[0] = self.rounded(node.input[0])
            weights = _rounded_weight(node, self.graph.constants[node.input[1]], self.exact)
            twin.input[1] = self._constant(f"{node.name}/weights", weights)
        else:
            for place, name in enumerate(node.input):
                twin.input[place] = self.rounded(name) if name in self.scale else name
        self.graph.add(twin)

        # Noise power over signal power.
        noise = self._power(self._node("Sub", [out, node.output[0]], f"{out}/error"))
        signal = self._power(node.output[0], f"{out}/signal")
        signal = self._node("Add", [signal, _PREFIX + "epsilon"], f"{out}/signal_power")
        self._node("Div", [noise, signal], _PREFIX + node.name)
        self.graph.add_output(_PREFIX + node.name, TensorProto.FLOAT, [])

    def _power(self, name: str, prefix: str = "") -> str:
        """Return the name of a tensor's mean square; ``prefix`` begins the names of the nodes."""
        base = prefix or name
        squared = self._node("Mul", [name, name], f"{base}/squared")
        return self._node("ReduceMean", [squared], f"{base}/mean", keepdims=0)


def _rounded_weight(node: NodeProto, tensor: TensorProto, exact: bool) -> Float:
    """Return a layer's weights, rounded to INT8, as float32."""
    weight = np.asarray(numpy_helper.to_array(tensor), np.float32)
    axis = output_axis(node)
    steps, scale = quantize_weight(weight, axis, exact=exact)
    shape = [1] * weight.ndim
    shape[axis] = -1
    return steps.astype(np.float32) * scale.reshape(shape)
