"""FP16 as a property of the graph: tensors are cast, and what FP16 cannot hold stays in FP32.

TensorRT builds strongly typed networks: a layer computes in the type its inputs have. The graph is walked once: a node
computes in FP16 if its operator is known to bear it and nothing it reads or writes was seen to come near FP16's largest
number; where the types of two nodes differ, a ``Cast`` stands between them.

Layers in INT8, and what follows them up to the next layer, keep their FP32 type: TensorRT computes those layers in INT8
with FP32 scales (it converts others back, and warns), and what follows is fused into them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeseg.errors import GraphError
from edgeseg.export.append import PREFIX
from edgeseg.export.graph import attributes, infer_shapes, is_op, names_read, subgraphs
from edgeseg.export.unpool.plugin import is_plugin

LIMIT = 65504.0 / 4  # of what was seen on a few frames; other frames reach further

# Elementwise and linear operators, and those that only move values. What sums over a plane, exponentiates or divides by
# a variance stays in FP32: those are where FP16 loses accuracy, and they take no time.
_BEARS = frozenset({
    "Abs", "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "DepthToSpace", "Div",
    "Einsum", "Elu", "Equal", "Expand", "Flatten", "Gather", "Gemm", "Greater", "GreaterOrEqual", "HardSigmoid",
    "HardSwish", "Identity", "LeakyRelu", "Less", "LessOrEqual", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg",
    "PRelu", "Pad", "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "SpaceToDepth", "Split", "Squeeze", "Sub", "Tanh",
    "Tile", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_MOVES = (
    "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Identity", "Pad", "MaxPool", "Expand",
    "Gather", "DepthToSpace", "SpaceToDepth",
)  # fmt: skip
_KEEPS_FLOAT = {"Resize": (1, 2)}  # inputs that are FP32 whatever the data is: roi, scales
_ANY_TYPE = frozenset({"Cast", "Shape", "Size", "ArgMax", "ArgMin"})  # read any float type, and give none


@dataclass(frozen=True)
class Halved:
    """``model``, and the nodes that stayed in FP32 although their operator bears FP16: name -> why."""

    model: ModelProto
    floats: Mapping[str, str]


def to_fp16(model: ModelProto, largest: Mapping[str, float] | None = None) -> Halved:
    """A copy of ``model`` (FP32 or Q/DQ) that computes in FP16; its inputs and outputs keep their types.

    ``largest`` is the largest |x| seen of activations, by name: a node that reads or writes one above ``LIMIT`` stays
    in FP32, and so does one whose weights FP16 cannot hold. Raises ``GraphError`` where the types do not fit at last.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    writer = _Writer(copy, largest or {})
    writer.run()
    try:
        onnx.checker.check_model(copy)
        onnx.shape_inference.infer_shapes(copy, check_type=True, strict_mode=True)
    except Exception as error:  # raised as several types, all of them about the graph
        raise GraphError("the net cannot be cast to FP16", got=str(error).strip().splitlines()[-1][:200]) from error
    return Halved(copy, writer.floats)


def halve_ends(model: ModelProto) -> None:
    """Let inputs that are only read in FP16, and outputs that are made in it, be FP16 themselves; in place."""
    graph, types = model.graph, _types(model)
    for value in graph.input:
        readers = [node for node in graph.node if value.name in node.input]
        casts = [node for node in readers if is_op(node, "Cast") and attributes(node)["to"] == TensorProto.FLOAT16]
        if types[value.name] == TensorProto.FLOAT and casts and casts == readers:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
            _without(graph, casts, value.name)
    for value in graph.output:
        maker = next((node for node in graph.node if value.name in node.output), None)
        if maker is not None and is_op(maker, "Cast") and types.get(maker.input[0]) == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
            next(a for a in maker.attribute if a.name == "to").i = TensorProto.FLOAT16


def _without(graph: onnx.GraphProto, nodes: list[NodeProto], name: str) -> None:
    """Take nodes of one output out of the graph, whose readers take ``name`` instead."""
    gone = {node.output[0]: name for node in nodes}
    kept = [node for node in graph.node if node not in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    for node in graph.node:
        for place, read in enumerate(node.input):
            node.input[place] = gone.get(read, read)
        for body in subgraphs(node):
            _rename_reads(body, gone)


def activations(model: ModelProto) -> tuple[str, ...]:
    """The names of the FP32 tensors that ``model``'s nodes write and read, constants left out."""
    types = _types(model)
    made = [name for node in model.graph.node for name in node.output if name]
    return tuple(name for name in made if types.get(name) == TensorProto.FLOAT)


def _types(model: ModelProto) -> dict[str, int]:
    """The element type of every tensor."""
    inferred = infer_shapes(model).graph
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    types = {v.name: v.type.tensor_type.elem_type for v in values}
    return types | {t.name: t.data_type for t in inferred.initializer}


@dataclass
class _Writer:
    """Walks the graph in its order and rewires it.

    ``half`` are the tensors that have become FP16, ``int8`` those between an INT8 layer's input and its next ``Q``,
    ``carried`` those of them that come from a ``DQ`` with nothing computed in between.
    """

    model: ModelProto
    largest: Mapping[str, float]
    floats: dict[str, str] = field(default_factory=dict)
    half: set[str] = field(default_factory=set)
    int8: set[str] = field(default_factory=set)
    carried: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.graph = self.model.graph
        self.types = _types(self.model)
        self.weights = {t.name: t for t in self.graph.initializer}
        self.outputs = {v.name for v in self.graph.output}
        self.made: dict[tuple[str, int], str] = {}  # a tensor and a type -> the name it has in that type
        self.nodes: list[NodeProto] = []

    def run(self) -> None:
        """Rewrite the graph in place."""
        for node in list(self.graph.node):
            self._hoist(node)
        for node in list(self.graph.node):
            if is_op(node, "Constant") and node.output[0] in self.weights:
                continue
            if self._is_half(node):
                self._halve(node)
            else:
                self._keep(node)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        del self.graph.value_info[:]
        read = {name for node in self.graph.node for name in node.input} | self.outputs
        read |= {name for node in self.graph.node for body in subgraphs(node) for name in names_read(body)}
        for tensor in [t for t in self.graph.initializer if t.name not in read]:
            self.graph.initializer.remove(tensor)

    def _hoist(self, node: NodeProto) -> None:
        """A ``Constant`` becomes an initializer."""
        value = attributes(node).get("value") if is_op(node, "Constant") else None
        if isinstance(value, TensorProto):
            tensor = self.graph.initializer.add()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
            self.weights[tensor.name] = tensor
            self.types[tensor.name] = tensor.data_type

    def _is_half(self, node: NodeProto) -> bool:
        """Whether a node computes in FP16; notes why not where its operator would bear it."""
        if is_op(node, "DequantizeLinear") or (is_op(node, *_MOVES) and {*node.input[:1]} <= self.carried):
            self.carried |= set(node.output)
        if is_op(node, "DequantizeLinear") or (self.int8 & set(node.input) and not self._is_float_layer(node)):
            self.int8 |= set(node.output)
            return False
        standard = node.domain in ("", "ai.onnx") and node.op_type in _BEARS
        if not (standard or is_plugin(node)) or node.name.startswith(PREFIX + "frame"):
            return False
        if not all(self.types.get(name) for name in self._data(node)):  # behind an operator that is not the standard's
            return False
        data = [n for n in self._data(node) if self.types.get(n) == TensorProto.FLOAT]
        results = [n for n in node.output if self.types.get(n) == TensorProto.FLOAT]
        if not data and not results:
            return False
        for name in (*data, *results):
            tensor = self.weights.get(name)
            seen = self.largest.get(name, 0.0) if tensor is None else _largest(tensor)
            if not seen <= LIMIT:
                self.floats[node.name or node.output[0]] = f"|{name}| reaches {seen:.3g}; FP16 ends at 65504"
                return False
        return True

    def _is_float_layer(self, node: NodeProto) -> bool:
        """Whether a layer is not between two dequantized operands."""
        return is_op(node, *_LAYERS, "Einsum") and not {*node.input[:2]} <= self.carried

    @staticmethod
    def _data(node: NodeProto) -> list[str]:
        """The inputs that have the type the node computes in."""
        fixed = _KEEPS_FLOAT.get(node.op_type, ())
        return [name for place, name in enumerate(node.input) if name and place not in fixed]

    def _halve(self, node: NodeProto) -> None:
        fixed = _KEEPS_FLOAT.get(node.op_type, ())
        for place, name in enumerate(node.input):
            if name and self.types.get(name) == TensorProto.FLOAT:
                kind = TensorProto.FLOAT if place in fixed else TensorProto.FLOAT16
                node.input[place] = self._in(name, kind)
        after: list[NodeProto] = []
        for place, name in enumerate(node.output):
            if self.types.get(name) != TensorProto.FLOAT:
                continue
            if name in self.outputs:  # keeps its name and type for whoever asks
                node.output[place] = f"{PREFIX}{name}/fp16"
                after.append(_cast(node.output[place], name, TensorProto.FLOAT))
                self.made[name, TensorProto.FLOAT16] = node.output[place]
            else:
                self.half.add(name)
        self.nodes += [node, *after]

    def _keep(self, node: NodeProto) -> None:
        if not (node.domain in ("", "ai.onnx") and node.op_type in _ANY_TYPE):
            for place, name in enumerate(node.input):
                if name in self.half:
                    node.input[place] = self._in(name, TensorProto.FLOAT)
        for body in subgraphs(node):
            wanted = {name for name in names_read(body) if name in self.half}
            if wanted:
                _rename_reads(body, {name: self._in(name, TensorProto.FLOAT) for name in wanted})
        self.nodes.append(node)

    def _in(self, name: str, kind: int) -> str:
        """The name of tensor ``name`` in a type, made where it does not exist yet."""
        if (name in self.half) == (kind == TensorProto.FLOAT16) and (name, kind) not in self.made:
            return name
        if (name, kind) not in self.made:
            suffix = "fp16" if kind == TensorProto.FLOAT16 else "fp32"
            new = f"{PREFIX}{name}/{suffix}"
            self.made[name, kind] = new
            if name in self.weights and kind == TensorProto.FLOAT16:
                value = numpy_helper.to_array(self.weights[name]).astype(np.float16)
                self.graph.initializer.append(numpy_helper.from_array(value, new))
            else:
                self.nodes.append(_cast(name, new, kind))
        return self.made[name, kind]


def _cast(source: str, name: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [source], [name], name=f"{name}/cast", to=kind)


def _largest(tensor: TensorProto) -> float:
    value = numpy_helper.to_array(tensor)
    return float(np.abs(value).max()) if value.size else 0.0


def _rename_reads(body: onnx.GraphProto, new: Mapping[str, str]) -> None:
    for node in body.node:
        for place, name in enumerate(node.input):
            node.input[place] = new.get(name, name)
        for inner in subgraphs(node):
            _rename_reads(inner, new)
    for value in body.output:
        value.name = new.get(value.name, value.name)
