"""Pooling to a value and a one-byte code, and unpooling by it, as the two operators of edgeseg's OpenVINO extension.

They are those of ``edgeseg.export.unpool.plugin`` on channels-last tensors, (N, H, W, C), which is how OpenVINO's
convolutions have them: the transpositions around them cost nothing.
"""

import functools

import onnx
from onnx import NodeProto, TensorProto, helper

from edgeseg.export.graph import Graph
from edgeseg.export.unpool.emit import Emitter
from edgeseg.export.unpool.plugin import DOMAIN, EXTRA, VERSION, infer_pool, infer_unpool

POOL, UNPOOL = "EdgesegMaxPoolCodeNHWC", "EdgesegMaxUnpoolNHWC"
TYPES = (TensorProto.INT8,)
_LAST, _FIRST = [0, 2, 3, 1], [0, 3, 1, 2]  # where channels go
_SIDES = slice(1, 3)  # of (N, H, W, C)


def is_extension(node: NodeProto) -> bool:
    """Whether a node is one of the two."""
    return node.domain == DOMAIN and node.op_type in (POOL, UNPOOL)


def pool_code(emit: Emitter, x: str, pooled: str) -> str:
    """``pooled`` (N, C, h, w) and the name of its code (N, h, w, C)."""
    code, value, name = (emit.graph.unique(f"{pooled}/{part}") for part in ("code", "value", POOL))
    pixels = emit.op("Transpose", x, perm=_LAST)
    emit.nodes.append(helper.make_node(POOL, [pixels], [value, code], name, domain=DOMAIN))
    emit.op("Transpose", value, out=pooled, perm=_FIRST)
    return code


def unpool(emit: Emitter, value: str, code: str, odd: list[int], out: str) -> None:
    """``out`` (N, C, H, W) from a value (N, C, h, w) and its code (N, h, w, C); ``odd`` is 1 for each side that is."""
    plane, name = (emit.graph.unique(f"{out}/{part}") for part in ("plane", UNPOOL))
    made = helper.make_node(UNPOOL, [emit.op("Transpose", value, perm=_LAST), code], [plane], name, domain=DOMAIN)
    made.attribute.extend(helper.make_attribute(n, extra) for n, extra in zip(EXTRA, odd, strict=True))
    emit.nodes.append(made)
    emit.op("Transpose", plane, out=out, perm=_FIRST)


def finish(graph: Graph) -> None:
    """Tell the model which operators it has."""
    register()
    if not any(o.domain == DOMAIN for o in graph.model.opset_import):
        graph.model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
    graph.refresh()


@functools.cache
def register() -> None:
    """Make the operators' types and shapes known to ONNX in this process."""
    schema, param = onnx.defs.OpSchema, onnx.defs.OpSchema.FormalParameter
    types = [("T", ["tensor(int8)"], "")]
    numbers = [schema.Attribute(n, schema.AttrType.INT, "", required=True) for n in EXTRA]
    code = param("code", "tensor(int8)")
    pool = schema(
        POOL, DOMAIN, VERSION, inputs=[param("x", "T")], outputs=[param("value", "T"), code], type_constraints=types
    )
    unpool_ = schema(
        UNPOOL, DOMAIN, VERSION, inputs=[param("value", "T"), code], outputs=[param("y", "T")],
        type_constraints=types, attributes=numbers,
    )  # fmt: skip
    pool.set_type_and_shape_inference_function(infer_pool(_SIDES))
    unpool_.set_type_and_shape_inference_function(infer_unpool(_SIDES))
    for made in (pool, unpool_):
        onnx.defs.register_schema(made)
