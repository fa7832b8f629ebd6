"""Pool to a value and a one-byte code, and unpool by it, with edgeseg's OpenVINO extension.

Its two operators compute the same as those of ``edgeseg.graph.passes.unpool.plugin``, on
channels-last tensors (N, H, W, C). OpenVINO's convolutions have channels last, so that the
transpositions around the operators cost nothing.
"""

import functools

import onnx
from onnx import NodeProto, TensorProto, helper

from edgeseg.graph.graph import Graph
from edgeseg.graph.passes.unpool.emitter import Emitter
from edgeseg.graph.passes.unpool.plugin import DOMAIN, EXTRA, VERSION, infer_pool, infer_unpool

POOL, UNPOOL = "EdgesegMaxPoolCodeNHWC", "EdgesegMaxUnpoolNHWC"
TYPES = (TensorProto.INT8,)
_LAST = [0, 2, 3, 1]  # the transposition that puts channels last
_FIRST = [0, 3, 1, 2]  # the transposition that puts them first
_SIDES = slice(1, 3)  # of (N, H, W, C)


def is_extension(node: NodeProto) -> bool:
    """Return True if a node is one of the extension's two operators.

    Parameters
    ----------
    node : any node.

    Examples
    --------
    >>> is_extension(helper.make_node(POOL, ["x"], ["value", "code"], domain=DOMAIN))
    True
    """
    return node.domain == DOMAIN and node.op_type in (POOL, UNPOOL)


def pool_code(emit: Emitter, x: str, pooled: str) -> str:
    """Append a pooling, and return the name of its code, (N, h, w, C).

    Parameters
    ----------
    emit : the emitter of the pooling.
    x : the name of the tensor to pool, (N, C, H, W).
    pooled : the name of the maxima, (N, C, h, w).
    """
    code, value, name = (emit.graph.unique(f"{pooled}/{part}") for part in ("code", "value", POOL))
    pixels = emit.op("Transpose", x, perm=_LAST)
    emit.add(helper.make_node(POOL, [pixels], [value, code], name, domain=DOMAIN))
    emit.op("Transpose", value, out=pooled, perm=_FIRST)
    return code


def unpool(emit: Emitter, value: str, code: str, odd: list[int], out: str) -> None:
    """Append an unpooling.

    Parameters
    ----------
    emit : the emitter of the unpooling.
    value : the name of the values, (N, C, h, w).
    code : the name of their code, (N, h, w, C).
    odd : 1 for each of height and width that is odd, else 0.
    out : the name of the result, (N, C, H, W).
    """
    plane, name = (emit.graph.unique(f"{out}/{part}") for part in ("plane", UNPOOL))
    pixels = emit.op("Transpose", value, perm=_LAST)
    made = helper.make_node(UNPOOL, [pixels, code], [plane], name, domain=DOMAIN)
    made.attribute.extend(
        helper.make_attribute(n, extra) for n, extra in zip(EXTRA, odd, strict=True)
    )
    emit.add(made)
    emit.op("Transpose", plane, out=out, perm=_FIRST)


def finish(graph: Graph) -> None:
    """Declare the operators' domain in the graph.

    Parameters
    ----------
    graph : a graph with these operators.
    """
    register()
    if not any(o.domain == DOMAIN for o in graph.model.opset_import):
        graph.model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))


@functools.cache
def register() -> None:
    """Make the operators' types and shapes known to ONNX in this process."""
    schema = onnx.defs.OpSchema
    param = schema.FormalParameter
    types = [("T", ["tensor(int8)"], "")]
    numbers = [schema.Attribute(n, schema.AttrType.INT, "", required=True) for n in EXTRA]
    code = param("code", "tensor(int8)")

    pool = schema(
        POOL,
        DOMAIN,
        VERSION,
        inputs=[param("x", "T")],
        outputs=[param("value", "T"), code],
        type_constraints=types,
    )
    unpool_ = schema(
        UNPOOL,
        DOMAIN,
        VERSION,
        inputs=[param("value", "T"), code],
        outputs=[param("y", "T")],
        type_constraints=types,
        attributes=numbers,
    )

    pool.set_type_and_shape_inference_function(infer_pool(_SIDES))
    unpool_.set_type_and_shape_inference_function(infer_unpool(_SIDES))
    for made in (pool, unpool_):
        onnx.defs.register_schema(made)
