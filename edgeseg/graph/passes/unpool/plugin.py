"""Pool to a value and a one-byte code, and unpool by it, with edgeseg's TensorRT plugin.

``EdgesegMaxPoolCode``: x (N, C, H, W) -> value (N, C, H/2, W/2), and an INT8 code of the same
shape. The code is the element of the 2x2 window that is its maximum, 0 to 3 in row-major order, the
first of equals.

``EdgesegMaxUnpool``: value, code and an optional addend -> (N, C, 2h + extra_rows, 2w +
extra_columns). It puts each value at the place that its code gives, zero elsewhere, and adds the
addend.

TensorRT finds a plugin by the operator's name. The schemas here give ONNX the types and shapes;
ONNX's own evaluator runs the reference implementations.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper
from onnx.reference.op_run import OpRun

from edgeseg.graph.graph import Graph
from edgeseg.graph.nodes import is_op
from edgeseg.graph.passes.unpool.emitter import Emitter

DOMAIN = "edgeseg"
POOL, UNPOOL = "EdgesegMaxPoolCode", "EdgesegMaxUnpool"
VERSION = 1
TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8)
_WITHOUT_SUM = TensorProto.INT8  # two INT8 tensors have scales of their own
_NAMED = {
    "plugin_version": str(VERSION),
    "plugin_namespace": "",
}  # what TensorRT's parser looks for

EXTRA = ("extra_rows", "extra_columns")
_SIDES = slice(2, 4)  # of (N, C, H, W)

Array = npt.NDArray[Any]


def is_plugin(node: NodeProto) -> bool:
    """Return True if a node is one of the plugin's two operators.

    Parameters
    ----------
    node : any node.

    Examples
    --------
    >>> is_plugin(helper.make_node(POOL, ["x"], ["value", "code"], domain=DOMAIN))
    True
    """
    return node.domain == DOMAIN and node.op_type in (POOL, UNPOOL)


def pool_code(emit: Emitter, x: str, pooled: str) -> str:
    """Append a pooling, and return the name of its code.

    Parameters
    ----------
    emit : the emitter of the pooling.
    x : the name of the tensor to pool, (N, C, H, W).
    pooled : the name of the maxima.
    """
    code = emit.graph.unique(f"{pooled}/code")
    name = emit.graph.unique(f"{pooled}/{POOL}")
    emit.add(helper.make_node(POOL, [x], [pooled, code], name, domain=DOMAIN, **_NAMED))
    return code


def unpool(emit: Emitter, value: str, code: str, odd: list[int], out: str) -> None:
    """Append an unpooling.

    Parameters
    ----------
    emit : the emitter of the unpooling.
    value : the name of the values, (N, C, h, w).
    code : the name of their code, of the same shape.
    odd : 1 for each of height and width that is odd, else 0.
    out : the name of the result, (N, C, H, W).
    """
    name = emit.graph.unique(f"{out}/{UNPOOL}")
    made = helper.make_node(UNPOOL, [value, code], [out], name, domain=DOMAIN, **_NAMED)
    made.attribute.extend(
        helper.make_attribute(n, extra) for n, extra in zip(EXTRA, odd, strict=True)
    )
    emit.add(made)


def finish(graph: Graph) -> None:
    """Declare the operators' domain in the graph, and fuse sums into the unpooling before them.

    Parameters
    ----------
    graph : a graph with these operators.
    """
    register()
    if not any(o.domain == DOMAIN for o in graph.model.opset_import):
        graph.model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
    for node in graph.nodes():
        if is_plugin(node) and node.op_type == UNPOOL:
            _take_sum(graph, node)


def _take_sum(graph: Graph, node: NodeProto) -> None:
    """Fuse ``unpool -> Add`` to one node if nothing else reads the unpooled tensor."""
    # 1. One reader, an Add of two tensors of one shape.
    out = node.output[0]
    readers = graph.readers.get(out, [])
    if len(readers) != 1 or out in graph.outputs or not is_op(readers[0], "Add"):
        return

    add = readers[0]
    other = add.input[1] if add.input[0] == out else add.input[0]
    shape = graph.known_shape(add.output[0])
    if other == out or graph.dtype(add.output[0]) == _WITHOUT_SUM:
        return
    if shape is None or shape != graph.known_shape(other):
        return

    # 2. Put the fused node where the sum stood: there the addend is computed.
    joined = NodeProto()
    joined.CopyFrom(node)
    joined.input.append(other)
    joined.output[0] = add.output[0]
    graph.add(joined, before=add)
    graph.remove(add)
    graph.remove(node)


# -- types and shapes for ONNX ---------------------------------------------------------------------


@functools.cache
def register() -> None:
    """Make the operators' types and shapes known to ONNX in this process."""
    schema = onnx.defs.OpSchema
    param = schema.FormalParameter
    single = schema.FormalParameterOption.Single
    optional = schema.FormalParameterOption.Optional
    types = [("T", ["tensor(float)", "tensor(float16)", "tensor(int8)"], "")]
    strings = [schema.Attribute(n, schema.AttrType.STRING, "", required=False) for n in _NAMED]
    numbers = [schema.Attribute(n, schema.AttrType.INT, "", required=False) for n in EXTRA]

    pool = schema(
        POOL,
        DOMAIN,
        VERSION,
        inputs=[param("x", "T")],
        outputs=[param("value", "T"), param("code", "tensor(int8)")],
        type_constraints=types,
        attributes=strings,
    )
    unpool_ = schema(
        UNPOOL,
        DOMAIN,
        VERSION,
        inputs=[
            param("value", "T"),
            param("code", "tensor(int8)"),
            param("addend", "T", param_option=optional),
        ],
        outputs=[param("y", "T", param_option=single)],
        type_constraints=types,
        attributes=[*strings, *numbers],
    )

    pool.set_type_and_shape_inference_function(infer_pool(_SIDES))
    unpool_.set_type_and_shape_inference_function(infer_unpool(_SIDES))
    for made in (pool, unpool_):
        onnx.defs.register_schema(made)


def dims_of(kind: onnx.TypeProto) -> list[int] | None:
    """Return a tensor's shape, with 0 for unknown sizes; ``None`` if not even the rank is known.

    Parameters
    ----------
    kind : the tensor's type.

    Examples
    --------
    >>> dims_of(helper.make_tensor_type_proto(TensorProto.FLOAT, [1, 3, None, 480]))
    [1, 3, 0, 480]
    """
    tensor = kind.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim]


def tensor_type(elem_type: int, dims: list[int] | None) -> onnx.TypeProto:
    """Return the type of a tensor; the reverse of ``dims_of``.

    Parameters
    ----------
    elem_type : the ONNX element type.
    dims : the shape as ``dims_of`` returns it.
    """
    if dims is None:
        return helper.make_tensor_type_proto(elem_type, None)
    return helper.make_tensor_type_proto(elem_type, [d or None for d in dims])


def infer_pool(sides: slice) -> Callable[[Any], None]:
    """Return ONNX's inference function of a pooling with codes.

    Parameters
    ----------
    sides : the axes of height and width.
    """

    def infer(context: Any) -> None:
        kind = context.get_input_type(0)
        dims = dims_of(kind)
        if dims is not None:
            dims[sides] = [d // 2 for d in dims[sides]]
        context.set_output_type(0, tensor_type(kind.tensor_type.elem_type, dims))
        context.set_output_type(1, tensor_type(TensorProto.INT8, dims))

    return infer


def infer_unpool(sides: slice) -> Callable[[Any], None]:
    """Return ONNX's inference function of an unpooling.

    Parameters
    ----------
    sides : the axes of height and width.
    """

    def infer(context: Any) -> None:
        kind = context.get_input_type(0)
        dims = dims_of(kind)
        if dims is not None:
            given = [context.get_attribute(name) for name in EXTRA]
            extra = [0 if attribute is None else int(attribute.i) for attribute in given]
            dims[sides] = [2 * d + e if d else 0 for d, e in zip(dims[sides], extra, strict=True)]
        context.set_output_type(0, tensor_type(kind.tensor_type.elem_type, dims))

    return infer


# -- reference implementations ---------------------------------------------------------------------


def pool_code_reference(x: Array) -> tuple[Array, Array]:
    """Pool 2x2 windows to values and codes.

    If a window holds NaNs, its last NaN is the maximum, as for PyTorch.

    Parameters
    ----------
    x : (N, C, H, W).

    Returns
    -------
    The values, of the type of ``x``, and the codes, int8; (N, C, H // 2, W // 2) each.

    Examples
    --------
    >>> value, code = pool_code_reference(np.array([[[[1, 2], [4, 3]]]], np.float32))
    >>> value.item(), code.item()
    (4.0, 2)
    """
    n, c = x.shape[:2]
    height = x.shape[2] // 2
    width = x.shape[3] // 2

    # (N, C, H // 2, W // 2, 4)
    windows = x[:, :, : 2 * height, : 2 * width].reshape(n, c, height, 2, width, 2)
    windows = windows.transpose(0, 1, 2, 4, 3, 5).reshape(n, c, height, width, 4)

    code = windows.argmax(-1)  # the first of equals
    if x.dtype.kind == "f":
        lost = np.isnan(windows)
        code = np.where(lost.any(-1), 3 - lost[..., ::-1].argmax(-1), code)

    value = np.take_along_axis(windows, code[..., None], -1)[..., 0]
    return value, code.astype(np.int8)


def unpool_reference(
    value: Array, code: Array, extra_rows: int = 0, extra_columns: int = 0
) -> Array:
    """Put each value at the place in its 2x2 window that its code gives, and zero elsewhere.

    Parameters
    ----------
    value : (N, C, h, w).
    code : 0 to 3 in row-major order, of the same shape.
    extra_rows : 1 for a row of zeros at the bottom, else 0.
    extra_columns : 1 for a column of zeros at the right, else 0.

    Returns
    -------
    (N, C, 2h + extra_rows, 2w + extra_columns), of the type of ``value``.

    Examples
    --------
    >>> value = np.array([[[[4.0]]]], np.float32)
    >>> unpool_reference(value, np.array([[[[2]]]], np.int8))[0, 0].tolist()
    [[0.0, 0.0], [4.0, 0.0]]
    """
    n, c, height, width = value.shape
    places = np.arange(4, dtype=np.int8)
    windows = np.where(code[..., None] == places, value[..., None], value.dtype.type(0))

    plane = windows.reshape(n, c, height, width, 2, 2).transpose(0, 1, 2, 4, 3, 5)
    plane = plane.reshape(n, c, 2 * height, 2 * width)
    return np.pad(plane, ((0, 0), (0, 0), (0, extra_rows), (0, extra_columns)))


class EdgesegMaxPoolCode(OpRun):
    """Run the pooling in ``onnx.reference.ReferenceEvaluator(model, new_ops=REFERENCE)``."""

    op_domain = DOMAIN

    def _run(self, x: Array, **_: Any) -> tuple[Array, Array]:
        return pool_code_reference(x)


class EdgesegMaxUnpool(OpRun):
    """Run the unpooling in ``onnx.reference.ReferenceEvaluator(model, new_ops=REFERENCE)``."""

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
