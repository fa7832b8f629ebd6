"""The one form that files of every exporter are brought into when they are read; what a net computes stays.

Functions of the file's own are written out, weights are constants (and no inputs with a default, as every weight was
before ONNX's IR version 4), what is kept or computed in FP16 or FP64 is FP32 (precision is a target's affair here), and
class ids that end as floats end as whole numbers. Values that FP16 arithmetic would have rounded on its way are not, so
that scores may differ in FP16's last digit.
"""

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper, inliner, numpy_helper

from edgeseg.errors import GraphError
from edgeseg.export.append import PREFIX
from edgeseg.export.graph import is_op, subgraphs
from edgeseg.export.halves import restore_floats

_FLOAT, _OTHERS = TensorProto.FLOAT, (TensorProto.FLOAT16, TensorProto.DOUBLE)
_MOVES = ("Squeeze", "Unsqueeze", "Reshape", "Identity", "Transpose")
TWO_OUTPUT = PREFIX + "two_classes"
TWO_CLASSES = ("background", "foreground")


def settle(model: ModelProto) -> ModelProto:
    """``model`` in that form; it may be changed. Raises ``GraphError`` where its functions cannot be written out."""
    if model.functions:
        try:
            model = inliner.inline_local_functions(model)
        except Exception as error:  # raised as several types, all of them about the graph
            raise GraphError(
                "the file's own functions cannot be written out", got=str(error).splitlines()[0]
            ) from error
    settle_defaults(model)
    restore_floats(model)
    _to_float(model.graph)
    _whole_ids(model.graph)
    return model


def settle_defaults(model: ModelProto) -> None:
    """Make weights constants that are inputs with a default; in place."""
    defaults = {t.name for t in model.graph.initializer}
    kept = [i for i in model.graph.input if i.name not in defaults]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.ir_version = max(model.ir_version, 4)


def _to_float(graph: GraphProto) -> None:
    """FP16 and FP64 become FP32, in bodies as well; in place."""
    for tensor in graph.initializer:
        _tensor_to_float(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in _OTHERS:
            value.type.tensor_type.elem_type = _FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                _tensor_to_float(attribute.t)
            elif attribute.name in ("to", "dtype", "output_dtype") and attribute.i in _OTHERS:
                attribute.i = _FLOAT
        for body in subgraphs(node):
            _to_float(body)


def _tensor_to_float(tensor: TensorProto) -> None:
    if tensor.data_type in _OTHERS:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))


def _whole_ids(graph: GraphProto) -> None:
    """The outputs that are an ``ArgMax`` cast to float are whole numbers; in place."""
    makers = {name: node for node in graph.node for name in node.output}
    for output in graph.output:
        passed, node = [output.name], makers.get(output.name)
        while is_op(node, *_MOVES):
            assert node is not None
            passed.append(node.input[0])
            node = makers.get(node.input[0])
        search = makers.get(node.input[0]) if node is not None and is_op(node, "Cast") else None
        while is_op(search, *_MOVES):
            assert search is not None
            search = makers.get(search.input[0])
        if node is None or not is_op(search, "ArgMax") or output.type.tensor_type.elem_type != _FLOAT:
            continue
        if any(name in n.input for name in passed for n in graph.node if n.output[0] not in passed):
            continue  # somebody computes with them
        next(a for a in node.attribute if a.name == "to").i = TensorProto.INT64
        for value in [output, *(v for v in graph.value_info if v.name in passed)]:
            value.type.tensor_type.elem_type = TensorProto.INT64


def two_classes(model: ModelProto, output: str, axis: int) -> tuple[str, str]:
    """Scores of two classes for an output of one channel on ``axis``, as a new output; in place.

    The second class has the score above 0, or, behind a ``Sigmoid``, the probability above one half; else the first.
    Returns the new output's name, and what was taken for granted.
    """
    graph = model.graph
    maker = next((node for node in graph.node if output in node.output), None)
    score, told = output, "foreground where it is above 0"
    if is_op(maker, "Sigmoid"):
        assert maker is not None
        score, told = maker.input[0], "foreground above one half"
    negative, name = f"{PREFIX}background", TWO_OUTPUT
    graph.node.append(helper.make_node("Neg", [score], [negative], negative))
    graph.node.append(helper.make_node("Concat", [negative, score], [name], name, axis=axis))
    value = onnx.ValueInfoProto()
    value.CopyFrom(next(o for o in graph.output if o.name == output))
    value.name = name
    value.type.tensor_type.shape.dim[axis].dim_value = 2
    graph.output.append(value)
    graph.output.remove(next(o for o in graph.output if o.name == output))
    return name, told
