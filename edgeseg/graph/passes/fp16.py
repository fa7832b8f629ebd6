"""Write FP16 into the graph: cast tensors to FP16, and keep in FP32 what FP16 cannot hold.

TensorRT builds strongly typed networks: a layer computes in the type that its inputs have. The graph is walked once. A
node computes in FP16 if its operator is known to tolerate it, and if no tensor that it reads or writes was seen to come
near FP16's largest number. If the types of two nodes differ, a ``Cast`` stands between them.

Layers in INT8, and what follows them up to the next layer, keep their FP32 type: TensorRT computes those layers in INT8
with FP32 scales (it converts others back, and warns), and what follows is fused into them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeseg.errors import GraphError
from edgeseg.graph.append import PREFIX
from edgeseg.graph.graph import attributes, copied, infer_shapes, is_op, names_read, subgraphs
from edgeseg.graph.passes.unpool.plugin import is_plugin

LIMIT = 65504.0 / 4  # for values seen on a few frames; other frames reach further

# Operators that tolerate FP16: elementwise and linear ones, and those that only move values. Operators that sum over a
# plane, exponentiate or divide by a variance stay in FP32: there FP16 loses accuracy, and they take no time.
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
_ANY_TYPE = frozenset({"Cast", "Shape", "Size", "ArgMax", "ArgMin"})  # read any float type, write no float


@dataclass(frozen=True)
class Halved:
    """Hold a graph that computes in FP16, and what stayed in FP32.

    Attributes
    ----------
    model : the graph.
    floats : the nodes that stayed in FP32 although their operator tolerates FP16: name -> reason.
    """

    model: ModelProto
    floats: Mapping[str, str]


def to_fp16(model: ModelProto, largest: Mapping[str, float] | None = None) -> Halved:
    """Return a copy of a graph that computes in FP16; its inputs and outputs keep their types.

    A node that reads or writes an activation above ``LIMIT`` stays in FP32, and so does a node whose weights FP16
    cannot hold.

    Parameters
    ----------
    model : an FP32 or Q/DQ graph; it is not changed.
    largest : the largest absolute value seen of each activation, by name.

    Raises
    ------
    GraphError : the types of the result do not fit together.

    Examples
    --------
    >>> from onnx.parser import parse_model
    >>> model = parse_model('<ir_version: 9, opset_import: ["" : 17]> f (float[1] x) => (float[1] y) {y = Relu (x)}')
    >>> [node.op_type for node in to_fp16(model).model.graph.node]
    ['Cast', 'Relu', 'Cast']
    >>> dict(to_fp16(model, {"x": 60000.0}).floats)
    {'y': '|x| reaches 6e+04; FP16 ends at 65504'}
    """
    copy = copied(model)
    writer = _Writer(copy, largest or {})
    writer.run()
    try:
        onnx.checker.check_model(copy)
        onnx.shape_inference.infer_shapes(copy, check_type=True, strict_mode=True)
    except Exception as error:  # raised as several types, all of them about the graph
        raise GraphError("the net cannot be cast to FP16", got=str(error).strip().splitlines()[-1][:200]) from error
    return Halved(copy, writer.floats)


def halve_ends(model: ModelProto) -> None:
    """Make inputs FP16 if they are only read in FP16, and outputs if they are computed in FP16; in place.

    Parameters
    ----------
    model : a graph that ``to_fp16`` returned.
    """
    graph = model.graph
    types = _types(model)

    # Inputs: remove the casts behind them.
    for value in graph.input:
        readers = [node for node in graph.node if value.name in node.input]
        casts = [node for node in readers if is_op(node, "Cast") and attributes(node)["to"] == TensorProto.FLOAT16]
        if types[value.name] == TensorProto.FLOAT and casts and casts == readers:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
            _without(graph, casts, value.name)

    # Outputs: the cast in front of them does nothing any more.
    for value in graph.output:
        maker = next((node for node in graph.node if value.name in node.output), None)
        if maker is not None and is_op(maker, "Cast") and types.get(maker.input[0]) == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
            next(a for a in maker.attribute if a.name == "to").i = TensorProto.FLOAT16


def _without(graph: onnx.GraphProto, nodes: list[NodeProto], name: str) -> None:
    """Remove nodes with one output from the graph; their readers read ``name`` instead."""
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
    """Return the names of the FP32 tensors that the nodes of a graph write.

    Parameters
    ----------
    model : the graph.
    """
    types = _types(model)
    made: list[str] = []
    for node in model.graph.node:
        made += [name for name in node.output if name]
    return tuple(name for name in made if types.get(name) == TensorProto.FLOAT)


def _types(model: ModelProto) -> dict[str, int]:
    """Return the ONNX element type of every tensor, by name."""
    inferred = infer_shapes(model).graph
    values = [*inferred.input, *inferred.value_info, *inferred.output]
    types = {v.name: v.type.tensor_type.elem_type for v in values}
    return types | {t.name: t.data_type for t in inferred.initializer}


@dataclass
class _Writer:
    """Walk the graph in its order and rewire it.

    Attributes
    ----------
    model : the graph, edited in place.
    largest : the largest absolute value seen of each activation, by name.
    floats : the nodes that stayed in FP32 although their operator tolerates FP16: name -> reason.
    half : the tensors that have become FP16.
    int8 : the tensors between an INT8 layer's input and its next ``Q``.
    carried : those of ``int8`` that come from a ``DQ`` with nothing computed in between.
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
        # 1. Make constants initializers, which can be stored in FP16.
        for node in list(self.graph.node):
            self._hoist(node)

        # 2. Put every node in FP16 or FP32, with the casts that it needs in front.
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

        # 3. Drop the initializers that nothing reads any more.
        read = set(self.outputs)
        for node in self.graph.node:
            read |= set(node.input)
            for body in subgraphs(node):
                read |= set(names_read(body))
        for tensor in [t for t in self.graph.initializer if t.name not in read]:
            self.graph.initializer.remove(tensor)

    def _hoist(self, node: NodeProto) -> None:
        """Make a ``Constant`` node an initializer."""
        value = attributes(node).get("value") if is_op(node, "Constant") else None
        if isinstance(value, TensorProto):
            tensor = self.graph.initializer.add()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
            self.weights[tensor.name] = tensor
            self.types[tensor.name] = tensor.data_type

    def _is_half(self, node: NodeProto) -> bool:
        """Return True if a node computes in FP16; note the reason if it does not although its operator tolerates it."""
        # What INT8 layers read and write stays in FP32.
        if is_op(node, "DequantizeLinear") or (is_op(node, *_MOVES) and {*node.input[:1]} <= self.carried):
            self.carried |= set(node.output)
        if is_op(node, "DequantizeLinear") or (self.int8 & set(node.input) and not self._is_float_layer(node)):
            self.int8 |= set(node.output)
            return False

        # The operator must tolerate FP16, and all types must be known.
        standard = node.domain in ("", "ai.onnx") and node.op_type in _BEARS
        if not (standard or is_plugin(node)) or node.name.startswith(PREFIX + "frame"):
            return False
        if not all(self.types.get(name) for name in self._data(node)):  # behind a non-standard operator
            return False

        # The node must read or write floats, and none may come near FP16's limit.
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
        """Return True if a node is a layer whose two operands are not both dequantized."""
        return is_op(node, *_LAYERS, "Einsum") and not {*node.input[:2]} <= self.carried

    @staticmethod
    def _data(node: NodeProto) -> list[str]:
        """Return the inputs that have the type in which the node computes."""
        fixed = _KEEPS_FLOAT.get(node.op_type, ())
        return [name for place, name in enumerate(node.input) if name and place not in fixed]

    def _halve(self, node: NodeProto) -> None:
        """Add a node that computes in FP16."""
        # Inputs: cast to FP16 what is FP32.
        fixed = _KEEPS_FLOAT.get(node.op_type, ())
        for place, name in enumerate(node.input):
            if name and self.types.get(name) == TensorProto.FLOAT:
                kind = TensorProto.FLOAT if place in fixed else TensorProto.FLOAT16
                node.input[place] = self._in(name, kind)

        # Outputs are FP16 from here on.
        after: list[NodeProto] = []
        for place, name in enumerate(node.output):
            if self.types.get(name) != TensorProto.FLOAT:
                continue
            if name in self.outputs:  # a graph output keeps its name and type
                node.output[place] = f"{PREFIX}{name}/fp16"
                after.append(_cast(node.output[place], name, TensorProto.FLOAT))
                self.made[name, TensorProto.FLOAT16] = node.output[place]
            else:
                self.half.add(name)
        self.nodes += [node, *after]

    def _keep(self, node: NodeProto) -> None:
        """Add a node that does not compute in FP16; it reads FP32."""
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
        """Return the name that a tensor has in a type; add a cast or a constant if there is none yet."""
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
    """Return a node that casts ``source`` to a type, as the tensor ``name``."""
    return helper.make_node("Cast", [source], [name], name=f"{name}/cast", to=kind)


def _largest(tensor: TensorProto) -> float:
    """Return the largest absolute value of a constant."""
    value = numpy_helper.to_array(tensor)
    return float(np.abs(value).max()) if value.size else 0.0


def _rename_reads(body: onnx.GraphProto, new: Mapping[str, str]) -> None:
    """Rename the tensors that a subgraph reads, in place; ``new`` maps old names to new ones."""
    for node in body.node:
        for place, name in enumerate(node.input):
            node.input[place] = new.get(name, name)
        for inner in subgraphs(node):
            _rename_reads(inner, new)
    for value in body.output:
        value.name = new.get(value.name, value.name)
