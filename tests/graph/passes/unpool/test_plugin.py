"""Unpooling as the plugin's operators.

ONNX's own evaluator runs them, against ONNX Runtime on the standard pair.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from lowered import deploy, lower_unpooling
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_tools import kinds, run_ort
from tiny_graphs import pool, unpool

from edgeseg.graph.network import load_network
from edgeseg.graph.passes.fp16 import to_fp16
from edgeseg.graph.passes.unpool.plugin import (
    POOL,
    REFERENCE,
    UNPOOL,
    is_plugin,
    pool_code_reference,
    unpool_reference,
)
from edgeseg.zoo import zoo, zoo_int8

onnxruntime.set_default_logger_severity(4)


def run_reference(model: onnx.ModelProto, **feed: np.ndarray) -> list[np.ndarray]:
    return list(ReferenceEvaluator(model, new_ops=REFERENCE).run(None, feed))


def net(
    nodes: list[onnx.NodeProto],
    shape: list[int],
    kind: int = TensorProto.FLOAT,
    out: list[int] | None = None,
    **weights: np.ndarray,
) -> onnx.ModelProto:
    """x of ``shape`` -> y of that shape (or ``out``)."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, out or shape)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def ties(shape: list[int], kind: Any = np.float32, seed: int = 0) -> np.ndarray:
    """Few values, so that most windows tie; all-zero windows among them."""
    return np.random.default_rng(seed).integers(-2, 3, shape).clip(0).astype(kind)


def size_of(shape: list[int]) -> dict[str, Any]:
    return {"size": np.asarray(shape, np.int64)}


@pytest.mark.parametrize("shape", [[1, 2, 6, 8], [2, 3, 7, 9], [1, 1, 6, 5], [1, 4, 3, 2]])
@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_the_pair_is_exact(shape: list[int], kind: str) -> None:
    code = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    model = net([pool(), unpool("p", "i", "size")], shape, code, **size_of(shape))
    lowered = lower_unpooling(model, plugin=True)
    onnx.checker.check_model(lowered, full_check=True)
    assert kinds(lowered) == {POOL: 1, UNPOOL: 1}
    value = next(
        v
        for v in onnx.shape_inference.infer_shapes(lowered).graph.value_info
        if v.name.endswith("/code")
    )
    assert value.type.tensor_type.elem_type == TensorProto.INT8
    assert [d.dim_value for d in value.type.tensor_type.shape.dim] == [
        *shape[:2],
        shape[2] // 2,
        shape[3] // 2,
    ]
    for seed in range(5):
        x = ties(shape, kind, seed)
        # ONNX Runtime unpools FP32 only; the values are small integers, the same in every type.
        floats = net([pool(), unpool("p", "i", "size")], shape, **size_of(shape))
        (want,) = run_ort(floats, x=x.astype(np.float32))
        (got,) = run_reference(lowered, x=x)
        assert got.dtype == x.dtype
        np.testing.assert_array_equal(got, want.astype(kind))


def test_ties_and_nan_are_pytorchs() -> None:
    x = np.array(
        [[[[1, np.nan, 0.0, -0.0], [2, np.nan, -0.0, 0.0], [-np.inf] * 4, [-np.inf] * 4]]],
        np.float32,
    )
    value, code = pool_code_reference(x)
    np.testing.assert_array_equal(code[0, 0], [[3, 0], [0, 0]])
    assert np.isnan(value[0, 0, 0, 0])
    import torch

    torched, index = torch.nn.functional.max_pool2d(torch.from_numpy(x), 2, return_indices=True)
    np.testing.assert_array_equal(value, torched.numpy())
    rows, columns = index.numpy() // 4, index.numpy() % 4
    np.testing.assert_array_equal(code, 2 * (rows % 2) + columns % 2)
    want = torch.nn.functional.max_unpool2d(torched, index, (2, 2), output_size=[4, 4])
    np.testing.assert_array_equal(unpool_reference(value, code), want.numpy())


def test_a_sum_behind_is_taken_in() -> None:
    shape = [1, 2, 6, 8]
    nodes = [
        pool(),
        unpool("p", "i", "size", out="u"),
        helper.make_node("Add", ["x", "u"], ["y"], "sum"),
    ]
    model = net(nodes, shape, **size_of(shape))
    lowered = lower_unpooling(model, plugin=True)
    assert kinds(lowered) == {POOL: 1, UNPOOL: 1}
    assert len(next(n for n in lowered.graph.node if n.op_type == UNPOOL).input) == 3
    x = ties(shape, seed=3)
    np.testing.assert_array_equal(run_reference(lowered, x=x)[0], run_ort(model, x=x)[0])


@pytest.mark.parametrize("case", ["read twice", "broadcast", "output", "itself"])
def test_a_sum_that_is_more_than_a_sum_stays(case: str) -> None:
    shape = [1, 2, 6, 8]
    u = unpool("p", "i", "size", out="u")
    nodes = {
        "read twice": [
            pool(),
            u,
            helper.make_node("Add", ["u", "x"], ["s"]),
            helper.make_node("Mul", ["s", "u"], ["y"]),
        ],
        "broadcast": [pool(), u, helper.make_node("Add", ["u", "w"], ["y"])],
        "output": [
            pool(),
            unpool("p", "i", "size", out="y"),
            helper.make_node("Add", ["y", "x"], ["unread"]),
        ],
        "itself": [pool(), u, helper.make_node("Add", ["u", "u"], ["y"])],
    }[case]
    weights: dict[str, Any] = (
        {"w": np.ones((1, 2, 1, 1), np.float32)} if case == "broadcast" else {}
    )
    model = net(nodes, shape, **size_of(shape), **weights)
    lowered = lower_unpooling(model, plugin=True)
    assert kinds(lowered)["Add"] == 1
    x = ties(shape, seed=4)
    np.testing.assert_array_equal(run_reference(lowered, x=x)[0], run_ort(model, x=x)[0])


def test_what_the_plugin_cannot_do_is_native() -> None:
    """Other windows, free sizes, indices that are read.

    Standard operators, as without the plugin.
    """
    three: dict[str, Any] = {"kernel_shape": [3, 3]}
    shape = [1, 1, 7, 7]
    wide = net([pool(**three), unpool("p", "i", "size", **three)], shape, **size_of(shape))
    assert not any(is_plugin(n) for n in lower_unpooling(wide, plugin=True).graph.node)
    shape = [1, 1, 4, 4]
    read = net(
        [
            pool(),
            unpool("p", "i", "size", out="u"),
            helper.make_node("Cast", ["i"], ["c"], to=1),
            helper.make_node("ReduceMax", ["c"], ["m"], keepdims=0),
            helper.make_node("Add", ["u", "m"], ["y"]),
        ],
        shape,
        **size_of(shape),
    )
    assert not any(is_plugin(n) for n in lower_unpooling(read, plugin=True).graph.node)
    x = ties(shape, seed=1)
    np.testing.assert_array_equal(
        run_ort(lower_unpooling(read, plugin=True), x=x)[0], run_ort(read, x=x)[0]
    )


@pytest.mark.slow
@pytest.mark.parametrize("fp16", [False, True], ids=["fp32", "fp16"])
def test_a_whole_net_gives_the_native_labels(small_onnx: Path, fp16: bool) -> None:
    network = load_network(small_onnx)
    native, plugin = (deploy(network, for_openvino=False, plugin=p) for p in (False, True))
    assert (kinds(plugin)[POOL], kinds(plugin)[UNPOOL]) == (2, 2)
    if fp16:
        native, plugin = to_fp16(native).model, to_fp16(plugin).model
    frame = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), np.uint8)
    (want,), (got,) = run_reference(native, frame=frame), run_reference(plugin, frame=frame)
    assert (want == got).mean() > 0.999


@pytest.mark.parametrize("name", sorted(zoo()))
def test_int8_nets_pool_and_unpool_bytes(name: str) -> None:
    """TensorRT takes no Q and DQ into a plugin: they stand around the pair, not between."""
    path = zoo_int8(name)
    assert path is not None
    model = to_fp16(deploy(load_network(path), for_openvino=False, plugin=True)).model
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in inferred.value_info}
    found = [n for n in model.graph.node if is_plugin(n)]
    assert len(found) >= 4
    assert {types[n.output[0]] for n in found} == {TensorProto.INT8}
