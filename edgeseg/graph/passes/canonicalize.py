"""Bring the files of every exporter into one form when they are read.

The network computes the same.

- Functions that the file defines are inlined.
- Weights are constants, not inputs with a default, as every weight was before ONNX's IR version 4.
- FP16 and FP64 become FP32, stored and computed: precision is a property of the target here. Values
  that FP16 arithmetic would have rounded on the way are not rounded, so that logits may differ in
  FP16's last digit.
- Class ids that end as floats end as whole numbers.
"""

import numpy as np
import onnx
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    TensorProto,
    inliner,
    numpy_helper,
)

from edgeseg.errors import GraphError
from edgeseg.graph.editor import PREFIX
from edgeseg.graph.graph import Graph
from edgeseg.graph.nodes import is_op, subgraphs
from edgeseg.graph.ops import ID_MOVES
from edgeseg.graph.passes.fp16_weights import restore_fp32_weights

_FLOAT = TensorProto.FLOAT
_OTHERS = (TensorProto.FLOAT16, TensorProto.DOUBLE)
TWO_OUTPUT = PREFIX + "two_classes"
TWO_CLASSES = ("background", "foreground")


def canonicalize(model: ModelProto) -> ModelProto:
    """Return a graph in canonical form.

    Parameters
    ----------
    model : the ONNX graph; it may be changed in place.

    Raises
    ------
    GraphError : the functions that the file defines cannot be inlined.

    Examples
    --------
    >>> from onnx.parser import parse_model
    >>> body = "f (float16[1] x) => (float16[1] y) {y = Relu (x)}"
    >>> half = parse_model(f'<ir_version: 9, opset_import: ["" : 17]> {body}')
    >>> canonicalize(half).graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    True
    """
    if model.functions:
        try:
            model = inliner.inline_local_functions(model)
        except Exception as error:  # raised as several types, all of them about the graph
            raise GraphError(
                "the file's own functions cannot be written out", got=str(error).splitlines()[0]
            ) from error

    fill_defaults(model)
    restore_fp32_weights(model)
    _to_float(model.graph)
    _whole_ids(Graph(model))
    return model


def fill_defaults(model: ModelProto) -> None:
    """Make constants of the weights that are inputs with a default, in place.

    Parameters
    ----------
    model : the ONNX graph.
    """
    defaults = {t.name for t in model.graph.initializer}
    kept = [i for i in model.graph.input if i.name not in defaults]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.ir_version = max(model.ir_version, 4)


def _to_float(graph: GraphProto) -> None:
    """Make FP32 of FP16 and FP64, in subgraphs as well, in place."""
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
    """Make a constant FP32 if it is FP16 or FP64, in place."""
    if tensor.data_type in _OTHERS:
        value = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def _whole_ids(graph: Graph) -> None:
    """Make outputs INT64 that are an ``ArgMax`` cast to float, in place."""
    for output in graph.graph.output:
        # Look up from the output to the cast, and from there to the ArgMax.
        passed = [output.name]
        cast = graph.producer.get(output.name)
        while cast is not None and is_op(cast, *ID_MOVES):
            passed.append(cast.input[0])
            cast = graph.producer.get(cast.input[0])
        if cast is None or not is_op(cast, "Cast"):
            continue
        search = graph.producer.get(cast.input[0])
        while search is not None and is_op(search, *ID_MOVES):
            search = graph.producer.get(search.input[0])
        if not is_op(search, "ArgMax") or output.type.tensor_type.elem_type != _FLOAT:
            continue

        # Leave them floats if another node computes with them.
        others = [node for node in graph.nodes() if node.output[0] not in passed]
        if any(set(passed) & set(node.input) for node in others):
            continue

        next(a for a in cast.attribute if a.name == "to").i = TensorProto.INT64
        inside = [value for value in graph.graph.value_info if value.name in passed]
        for value in (output, *inside):
            value.type.tensor_type.elem_type = TensorProto.INT64


def two_classes(model: ModelProto, output: str, axis: int) -> tuple[str, str]:
    """Turn an output of one channel into logits of two classes, in place.

    A pixel is of the second class if its logit is above 0, or, behind a ``Sigmoid``, its
    probability above one half.

    Parameters
    ----------
    model : the ONNX graph.
    output : the name of the output; a new one takes its place.
    axis : the axis of its channel.

    Returns
    -------
    The new output's name, and the rule that is assumed for the foreground.
    """
    graph = Graph(model)
    maker = graph.producer.get(output)
    logits = output
    rule = "foreground where it is above 0"
    if maker is not None and is_op(maker, "Sigmoid"):
        logits = maker.input[0]
        rule = "foreground above one half"

    # Logits of the background are the negative ones.
    negative = graph.node("Neg", [logits], f"{PREFIX}background")
    name = graph.node("Concat", [negative, logits], TWO_OUTPUT, axis=axis)

    # The new output takes the place of the old one, behind the others.
    values = {value.name: value for value in graph.graph.output}
    value = onnx.ValueInfoProto()
    value.CopyFrom(values[output])
    value.name = name
    value.type.tensor_type.shape.dim[axis].dim_value = 2
    graph.graph.output.append(value)
    graph.graph.output.remove(values[output])
    return name, rule
