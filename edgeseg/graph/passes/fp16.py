"""Write FP16 into the graph: cast tensors to FP16, and keep in FP32 what FP16 cannot hold.

TensorRT builds strongly typed networks: a layer computes in the type that its inputs have. The
graph is walked once. A node computes in FP16 if its operator is known to tolerate it, and if no
tensor that it reads or writes was seen to come near FP16's largest number. If the types of two
nodes differ, a ``Cast`` stands between them.

Layers in INT8, and what follows them up to the next layer, keep their FP32 type: TensorRT computes
those layers in INT8 with FP32 scales (it converts others back, and warns), and what follows is
fused into them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeseg.errors import GraphError
from edgeseg.graph.editor import PREFIX
from edgeseg.graph.graph import Graph, infer_shapes
from edgeseg.graph.nodes import (
    STANDARD,
    attributes,
    copied,
    is_op,
    names_read_inside,
)
from edgeseg.graph.ops import CARRIERS, WEIGHTED
from edgeseg.graph.passes.unpool.plugin import is_plugin

LIMIT = 65504.0 / 4  # for values seen on a few frames; other frames reach further

# Operators that tolerate FP16: elementwise and linear ones, and those that only move values.
# Operators that sum over a plane, exponentiate or divide by a variance stay in FP32: there FP16
# loses accuracy, and they take no time.
_BEARS = frozenset({
    "Abs", "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose",
    "DepthToSpace", "Div", "Einsum", "Elu", "Equal", "Expand", "Flatten", "Gather", "Gemm",
    "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Less",
    "LessOrEqual", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "PRelu", "Pad", "Relu",
    "Reshape", "Resize", "Sigmoid", "Slice", "SpaceToDepth", "Split", "Squeeze", "Sub", "Tanh",
    "Tile", "Transpose", "Unsqueeze", "Where",
})  # fmt: skip
_KEEPS_FLOAT = {"Resize": (1, 2)}  # inputs that are FP32 whatever the data is: roi, scales
# Operators that read any float type and write no float.
_ANY_TYPE = frozenset({"Cast", "Shape", "Size", "ArgMax", "ArgMin"})


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

    A node that reads or writes an activation above ``LIMIT`` stays in FP32, and so does a node
    whose weights FP16 cannot hold.

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
    >>> body = "f (float[1] x) => (float[1] y) {y = Relu (x)}"
    >>> model = parse_model(f'<ir_version: 9, opset_import: ["" : 17]> {body}')
    >>> [node.op_type for node in to_fp16(model).model.graph.node]
    ['Cast', 'Relu', 'Cast']
    >>> dict(to_fp16(model, {"x": 60000.0}).floats)
    {'y': '|x| reaches 6e+04; FP16 ends at 65504'}
    """
    copy = copied(model)
    writer = _Writer(Graph(copy), largest or {})
    writer.run()
    try:
        onnx.checker.check_model(copy)
        onnx.shape_inference.infer_shapes(copy, check_type=True, strict_mode=True)
    except Exception as error:  # raised as several types, all of them about the graph
        reason = str(error).strip().splitlines()[-1][:200]
        raise GraphError("the net cannot be cast to FP16", got=reason) from error
    return Halved(copy, writer.floats)


def halve_ends(model: ModelProto) -> None:
    """Make inputs and outputs of a graph FP16, in place.

    An input becomes FP16 if it is only read in FP16, an output if it is computed in FP16.

    Parameters
    ----------
    model : a graph that ``to_fp16`` returned.
    """
    graph = Graph(model)
    types = _types(model)

    # Inputs: remove the casts behind them.
    for value in graph.graph.input:
        readers = graph.readers.get(value.name, [])
        casts = [node for node in readers if is_op(node, "Cast")]
        to_half = [n for n in casts if attributes(n)["to"] == TensorProto.FLOAT16]
        if types[value.name] != TensorProto.FLOAT or not to_half or to_half != readers:
            continue
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
        for node in to_half:
            graph.remove(node)
            graph.read_instead(value.name, node.output[0])

    # Outputs: the cast in front of them does nothing any more.
    for value in graph.graph.output:
        maker = graph.producer.get(value.name)
        if maker is None or not is_op(maker, "Cast"):
            continue
        if types.get(maker.input[0]) == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
            next(a for a in maker.attribute if a.name == "to").i = TensorProto.FLOAT16


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
    """Walk a graph in its order, choose the type of every node, and add the casts.

    Attributes
    ----------
    graph : the graph to edit.
    largest : the largest absolute value seen of each activation, by name.
    floats : the nodes that stayed in FP32 although their operator tolerates FP16: name -> reason.
    half : the tensors that have become FP16.
    int8 : the tensors between an INT8 layer's input and its next ``Q``.
    carried : those of ``int8`` that come from a ``DQ`` with nothing computed in between.
    """

    graph: Graph
    largest: Mapping[str, float]
    floats: dict[str, str] = field(default_factory=dict)
    half: set[str] = field(default_factory=set)
    int8: set[str] = field(default_factory=set)
    carried: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.types = _types(self.graph.model)  # of the tensors as they were
        self.made: dict[tuple[str, int], str] = {}  # a tensor and a type -> its name in that type

    def run(self) -> None:
        """Rewrite the graph in place."""
        # 1. Make constants initializers, which can be stored in FP16.
        for node in self.graph.nodes("Constant"):
            self._hoist(node)

        # 2. Put every node in FP16 or FP32, with the casts that it needs in front.
        for node in self.graph.nodes():
            if self._is_half(node):
                self._halve(node)
            else:
                self._keep(node)

        # 3. Drop what is stale.
        self.graph.drop_types()
        self.graph.drop_unread_constants()

    def _hoist(self, node: NodeProto) -> None:
        """Make a ``Constant`` node an initializer if it holds a tensor."""
        value = attributes(node).get("value")
        if isinstance(value, TensorProto):
            self.graph.remove(node)
            self.graph.constant(node.output[0], value)
            self.types[node.output[0]] = value.data_type

    def _is_half(self, node: NodeProto) -> bool:
        """Return True if a node computes in FP16.

        If it does not although its operator tolerates it, note the reason.
        """
        # What INT8 layers read and write stays in FP32.
        if self._follows_int8(node):
            return False

        # The operator must tolerate FP16, and all types must be known.
        standard = node.domain in STANDARD and node.op_type in _BEARS
        if not (standard or is_plugin(node)) or node.name.startswith(PREFIX + "frame"):
            return False
        read = _data(node)
        if not all(self.types.get(name) for name in read):  # behind a non-standard operator
            return False

        # The node must read or write floats, and none may come near FP16's limit.
        floats = [n for n in (*read, *node.output) if self.types.get(n) == TensorProto.FLOAT]
        for name in floats:
            tensor = self.graph.constants.get(name)
            seen = self.largest.get(name, 0.0) if tensor is None else _largest(tensor)
            if not seen <= LIMIT:
                reason = f"|{name}| reaches {seen:.3g}; FP16 ends at 65504"
                self.floats[node.name or node.output[0]] = reason
                return False
        return bool(floats)

    def _follows_int8(self, node: NodeProto) -> bool:
        """Return True if a node stands between an INT8 layer's input and its next ``Q``."""
        dequantizes = is_op(node, "DequantizeLinear")
        if dequantizes or (is_op(node, *CARRIERS) and {*node.input[:1]} <= self.carried):
            self.carried |= set(node.output)

        follows = bool(self.int8 & set(node.input)) and not self._is_float_layer(node)
        if dequantizes or follows:
            self.int8 |= set(node.output)
            return True
        return False

    def _is_float_layer(self, node: NodeProto) -> bool:
        """Return True if a node is a layer whose two operands are not both dequantized."""
        return is_op(node, *WEIGHTED, "Einsum") and not {*node.input[:2]} <= self.carried

    def _halve(self, node: NodeProto) -> None:
        """Let a node compute in FP16."""
        # Inputs: cast to FP16 what is FP32.
        fixed = _KEEPS_FLOAT.get(node.op_type, ())
        for place, name in enumerate(node.input):
            if name and self.types.get(name) == TensorProto.FLOAT:
                kind = TensorProto.FLOAT if place in fixed else TensorProto.FLOAT16
                self.graph.set_input(node, place, self._in(name, kind, node))

        # Outputs are FP16 from here on; a graph output keeps its name and type.
        behind = node
        for place, name in enumerate(node.output):
            if self.types.get(name) != TensorProto.FLOAT:
                continue
            if name not in self.graph.outputs:
                self.half.add(name)
                continue
            half = f"{PREFIX}{name}/fp16"
            self.graph.set_output(node, place, half)
            behind = self.graph.add(_cast(half, name, TensorProto.FLOAT), after=behind)
            self.made[name, TensorProto.FLOAT16] = half

    def _keep(self, node: NodeProto) -> None:
        """Let a node that does not compute in FP16 read FP32."""
        if not (node.domain in STANDARD and node.op_type in _ANY_TYPE):
            for place, name in enumerate(node.input):
                if name in self.half:
                    floats = self._in(name, TensorProto.FLOAT, node)
                    self.graph.set_input(node, place, floats)
        for name in dict.fromkeys(names_read_inside(node)):
            if name in self.half:
                floats = self._in(name, TensorProto.FLOAT, node)
                self.graph.read_instead(floats, name, [node])

    def _in(self, name: str, kind: int, reader: NodeProto) -> str:
        """Return the name that a tensor has in a type.

        If there is none yet, add a constant, or a cast in front of ``reader``.
        """
        if (name in self.half) == (kind == TensorProto.FLOAT16) and (name, kind) not in self.made:
            return name
        if (name, kind) not in self.made:
            suffix = "fp16" if kind == TensorProto.FLOAT16 else "fp32"
            new = f"{PREFIX}{name}/{suffix}"
            self.made[name, kind] = new

            if name in self.graph.constants and kind == TensorProto.FLOAT16:
                value = numpy_helper.to_array(self.graph.constants[name])
                self.graph.constant(new, value.astype(np.float16))
            else:
                self.graph.add(_cast(name, new, kind), before=reader)
        return self.made[name, kind]


def _data(node: NodeProto) -> list[str]:
    """Return the inputs that have the type in which a node computes."""
    fixed = _KEEPS_FLOAT.get(node.op_type, ())
    return [name for place, name in enumerate(node.input) if name and place not in fixed]


def _cast(source: str, name: str, kind: int) -> NodeProto:
    """Return a node that casts ``source`` to a type, as the tensor ``name``."""
    return helper.make_node("Cast", [source], [name], name=f"{name}/cast", to=kind)


def _largest(tensor: TensorProto) -> float:
    """Return the largest absolute value of a constant."""
    value = numpy_helper.to_array(tensor)
    return float(np.abs(value).max()) if value.size else 0.0
