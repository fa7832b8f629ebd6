"""Refuse networks whose weights are not numbers.

A single NaN makes every label wrong without an error. So it is looked for where a file is read.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

from edgeseg.errors import GraphError
from edgeseg.graph.nodes import subgraphs

_FLOATS = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
)

# Operators whose inputs are infinite in sound files: limits, and masks of attention.
_MAY_BE_INFINITE = frozenset(
    {
        "Clip",
        "Min",
        "Max",
        "Where",
        "Pad",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Equal",
        "ConstantOfShape",
        "Expand",
        "Identity",
        "Cast",
    }
)


def check_finite(model: ModelProto, path: Path) -> None:
    """Raise an error if a weight is NaN, or infinite and no limit or mask.

    Parameters
    ----------
    model : the ONNX graph, with its weights inside.
    path : its file, for the error.

    Raises
    ------
    GraphError : a weight is not finite (the tensor is named), or a tensor is damaged.
    """
    _check_graph(model.graph, path)


def _check_graph(graph: GraphProto, path: Path) -> None:
    """Check the constants of a graph and of its subgraphs."""
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)

    for tensor in graph.initializer:
        _check_tensor(tensor, tensor.name, readers, path)
    for sparse in graph.sparse_initializer:
        _check_tensor(sparse.values, sparse.values.name, readers, path)
    for node in graph.node:
        if node.op_type in ("Constant", "ConstantOfShape"):
            for attribute in node.attribute:
                _check_attribute(attribute, node, readers, path)
        for body in subgraphs(node):
            _check_graph(body, path)


def _check_attribute(
    attribute: onnx.AttributeProto,
    node: onnx.NodeProto,
    readers: dict[str, set[str]],
    path: Path,
) -> None:
    """Check the value of a ``Constant`` or ``ConstantOfShape`` node."""
    name = node.output[0] if node.output else node.name
    if attribute.HasField("t"):
        _check_tensor(attribute.t, name, readers, path)
    elif attribute.HasField("sparse_tensor"):
        _check_tensor(attribute.sparse_tensor.values, name, readers, path)
    elif attribute.name in ("value_float", "value_floats"):
        values = np.array([attribute.f, *attribute.floats], np.float32)
        _check_values(values, name, readers, path)


def _check_tensor(tensor: TensorProto, name: str, readers: dict[str, set[str]], path: Path) -> None:
    """Check one tensor, if it is of a float type."""
    if tensor.data_type not in _FLOATS:
        return
    try:
        values = numpy_helper.to_array(tensor)
    except Exception as error:  # raised as several types, all of them about the tensor
        raise GraphError(
            f"{path}: tensor {name!r} is damaged", got=(str(error).splitlines() or [""])[0][:200]
        ) from error
    _check_values(values, name, readers, path)


def _check_values(
    values: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]",
    name: str,
    readers: dict[str, set[str]],
    path: Path,
) -> None:
    """Raise ``GraphError`` for NaN, and for infinite values that an operator computes with."""
    # FP64 is computed as FP32 here.
    with np.errstate(over="ignore"):
        values = values.astype(np.float32, copy=False)
    if np.isfinite(values).all():
        return

    found = "NaN"
    if not np.isnan(values).any():
        if readers.get(name, set()) <= _MAY_BE_INFINITE:
            return
        found = "an infinite value"
    raise GraphError(
        f"{path}: tensor {name!r} has weights that are not numbers",
        got=f"{found} in {values.size:,} values",
        hint="The training failed, or the file is damaged: export an earlier checkpoint.",
    )
