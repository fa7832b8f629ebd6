"""Pooling to a value and a one-byte code, and unpooling by it, as the two operators of edgeseg's TensorRT plugin.

``EdgesegMaxPoolCode``: x (N, C, H, W) -> value (N, C, H/2, W/2), and code of that shape, INT8: which element of the 2x2
window is its maximum, 0 to 3 in row-major order, the first of equals. ``EdgesegMaxUnpool``: value, code and an optional
addend -> (N, C, 2h + extra_rows, 2w + extra_columns): each value where its code says, zero elsewhere, plus the addend.

TensorRT knows a plugin by the operator's name. The schemas here tell ONNX the types and shapes; the reference
implementations are what ONNX's own evaluator runs.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper
from onnx.reference.op_run import OpRun

from edgeseg.export.graph import Graph, is_op
from edgeseg.export.unpool.emit import Emitter

DOMAIN = "edgeseg"
POOL, UNPOOL = "EdgesegMaxPoolCode", "EdgesegMaxUnpool"
VERSION = 1
TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8)
_WITHOUT_SUM = TensorProto.INT8  # two INT8 tensors have scales of their own
_NAMED = {"plugin_version": str(VERSION), "plugin_namespace": ""}  # what TensorRT's parser looks for

EXTRA = ("extra_rows", "extra_columns")
_SIDES = slice(2, 4)  # of (N, C, H, W)

Array = npt.NDArray[Any]


def is_plugin(node: NodeProto) -> bool:
    """Whether a node is one of the two."""
    return node.domain == DOMAIN and node.op_type in (POOL, UNPOOL)


def pool_code(emit: Emitter, x: str, pooled: str) -> str:
    """``pooled`` and the name of its code."""
    code = emit.graph.unique(f"{pooled}/code")
    name = emit.graph.unique(f"{pooled}/{POOL}")
    emit.nodes.append(helper.make_node(POOL, [x], [pooled, code], name, domain=DOMAIN, **_NAMED))
    return code


def unpool(emit: Emitter, value: str, code: str, odd: list[int], out: str) -> None:
    """``out`` (N, C, H, W) from a value and its code; ``odd`` is 1 for each of H and W that is odd, else 0."""
    name = emit.graph.unique(f"{out}/{UNPOOL}")
    made = helper.make_node(UNPOOL, [value, code], [out], name, domain=DOMAIN, **_NAMED)
    made.attribute.extend(helper.make_attribute(n, extra) for n, extra in zip(EXTRA, odd, strict=True))
    emit.nodes.append(made)


def finish(graph: Graph) -> None:
    """Tell the model which operators it has; take sums into the unpooling before them."""
    register()
    if not any(o.domain == DOMAIN for o in graph.model.opset_import):
        graph.model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
    graph.refresh()
    for node in [n for n in graph.graph.node if is_plugin(n) and n.op_type == UNPOOL]:
        _take_sum(graph, node)


def _take_sum(graph: Graph, node: NodeProto) -> None:
    """``unpool -> Add`` becomes one node, where nothing else reads what is unpooled."""
    out = node.output[0]
    readers = [n for n in graph.graph.node if out in n.input]
    if len(readers) != 1 or out in graph.outputs or not is_op(readers[0], "Add"):
        return
    add = readers[0]
    other = add.input[1] if add.input[0] == out else add.input[0]
    shape = graph.known_shape(add.output[0])
    if other == out or graph.dtype(add.output[0]) == _WITHOUT_SUM or shape is None or shape != graph.known_shape(other):
        return
    nodes = [n for n in graph.graph.node if n.output[0] != out]
    place = next(i for i, n in enumerate(nodes) if n.output[0] == add.output[0])
    joined = NodeProto()
    joined.CopyFrom(node)
    joined.input.append(other)
    joined.output[0] = add.output[0]
    nodes[place] = joined  # where the sum stood: the addend is made by then
    kept = [NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del graph.graph.node[:]
    graph.graph.node.extend(kept)


# -- what ONNX is told -------------------------------------------------------------------------------------------------


@functools.cache
def register() -> None:
    """Make the operators' types and shapes known to ONNX in this process."""
    schema, param = onnx.defs.OpSchema, onnx.defs.OpSchema.FormalParameter
    single, optional = schema.FormalParameterOption.Single, schema.FormalParameterOption.Optional
    types = [("T", ["tensor(float)", "tensor(float16)", "tensor(int8)"], "")]
    strings = [schema.Attribute(n, schema.AttrType.STRING, "", required=False) for n in _NAMED]
    numbers = [schema.Attribute(n, schema.AttrType.INT, "", required=False) for n in EXTRA]
    pool = schema(
        POOL, DOMAIN, VERSION, inputs=[param("x", "T")], outputs=[param("value", "T"), param("code", "tensor(int8)")],
        type_constraints=types, attributes=strings,
    )  # fmt: skip
    inputs = [param("value", "T"), param("code", "tensor(int8)"), param("addend", "T", param_option=optional)]
    unpool_ = schema(
        UNPOOL, DOMAIN, VERSION, inputs=inputs, outputs=[param("y", "T", param_option=single)],
        type_constraints=types, attributes=[*strings, *numbers],
    )  # fmt: skip
    pool.set_type_and_shape_inference_function(infer_pool(_SIDES))
    unpool_.set_type_and_shape_inference_function(infer_unpool(_SIDES))
    for made in (pool, unpool_):
        onnx.defs.register_schema(made)


def dims_of(kind: onnx.TypeProto) -> list[int] | None:
    """A tensor's shape, 0 where a size is not known; ``None`` where not even the rank is."""
    tensor = kind.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]


def tensor_type(elem_type: int, dims: list[int] | None) -> onnx.TypeProto:
    """The type of a tensor whose shape ``dims_of`` told."""
    return helper.make_tensor_type_proto(elem_type, None if dims is None else [d or None for d in dims])


def infer_pool(sides: slice) -> Callable[[Any], None]:
    """The types and shapes of a pooling with codes; ``sides`` is where height and width stand."""

    def infer(context: Any) -> None:
        kind = context.get_input_type(0)
        dims = dims_of(kind)
        if dims is not None:
            dims[sides] = [d // 2 for d in dims[sides]]
        context.set_output_type(0, tensor_type(kind.tensor_type.elem_type, dims))
        context.set_output_type(1, tensor_type(TensorProto.INT8, dims))

    return infer


def infer_unpool(sides: slice) -> Callable[[Any], None]:
    """The type and shape of an unpooling; ``sides`` is where height and width stand."""

    def infer(context: Any) -> None:
        kind = context.get_input_type(0)
        dims = dims_of(kind)
        if dims is not None:
            given = [context.get_attribute(name) for name in EXTRA]
            extra = [0 if attribute is None else int(attribute.i) for attribute in given]
            dims[sides] = [2 * d + e if d else 0 for d, e in zip(dims[sides], extra, strict=True)]
        context.set_output_type(0, tensor_type(kind.tensor_type.elem_type, dims))

    return infer


# -- what they compute -------------------------------------------------------------------------------------------------


def pool_code_reference(x: Array) -> tuple[Array, Array]:
    """(N, C, H, W) -> value and code, (N, C, H // 2, W // 2). Of NaNs the last is the maximum, as for PyTorch."""
    n, c, height, width = (*x.shape[:2], x.shape[2] // 2, x.shape[3] // 2)
    windows = x[:, :, : 2 * height, : 2 * width].reshape(n, c, height, 2, width, 2)
    windows = windows.transpose(0, 1, 2, 4, 3, 5).reshape(n, c, height, width, 4)
    code = windows.argmax(-1)  # the first of equals
    if x.dtype.kind == "f":
        lost = np.isnan(windows)
        code = np.where(lost.any(-1), 3 - lost[..., ::-1].argmax(-1), code)
    return np.take_along_axis(windows, code[..., None], -1)[..., 0], code.astype(np.int8)


def unpool_reference(value: Array, code: Array, extra_rows: int = 0, extra_columns: int = 0) -> Array:
    """(N, C, h, w) values and codes -> (N, C, 2h + extra_rows, 2w + extra_columns), zero where no value is put."""
    n, c, height, width = value.shape
    windows = np.where(code[..., None] == np.arange(4, dtype=np.int8), value[..., None], value.dtype.type(0))
    plane = windows.reshape(n, c, height, width, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, 2 * height, 2 * width)
    return np.pad(plane, ((0, 0), (0, 0), (0, extra_rows), (0, extra_columns)))


class EdgesegMaxPoolCode(OpRun):
    """For ``onnx.reference.ReferenceEvaluator(model, new_ops=REFERENCE)``."""

    op_domain = DOMAIN

    def _run(self, x: Array, **_: Any) -> tuple[Array, Array]:
        return pool_code_reference(x)


class EdgesegMaxUnpool(OpRun):
    """For ``onnx.reference.ReferenceEvaluator(model, new_ops=REFERENCE)``."""

    op_domain = DOMAIN

    def _run(
        self,
        value: Array,
        code: Array,
        addend: Array | None = None,
        extra_rows: int | None = None,
        extra_columns: int | None = None,
        **_: Any,
    ) -> tuple[Array]:
        plane = unpool_reference(value, code, extra_rows or 0, extra_columns or 0)
        return (plane if addend is None else plane + addend,)


REFERENCE = [EdgesegMaxPoolCode, EdgesegMaxUnpool]
