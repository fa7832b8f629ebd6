"""Graphs without an end are refused at once, by name, before anything walks them."""

import time
from pathlib import Path

import onnx
import pytest
from onnx import GraphProto, TensorProto, helper
from onnx_tools import make, node

from edgeseg.errors import GraphError
from edgeseg.graph import graph_limits
from edgeseg.graph.graph_limits import check_graph
from edgeseg.graph.onnx_file import read_onnx


def sound() -> onnx.ModelProto:
    nodes = [node("Relu", "x", "a"), node("Neg", "a", "b"), node("Add", "a b", "y")]
    return make(nodes, {"x": [1, 3, 8, 8]}, "y")


def refused(model: onnx.ModelProto, folder: Path, says: str) -> None:
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    start = time.perf_counter()
    with pytest.raises(GraphError, match=says) as caught:
        read_onnx(path)
    assert time.perf_counter() - start < 2
    assert "\n" not in str(caught.value)


def test_a_sound_graph_passes_in_any_order(tmp_path: Path) -> None:
    model = sound()
    check_graph(model, tmp_path)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    check_graph(model, tmp_path)


def test_a_cycle_is_refused(tmp_path: Path) -> None:
    model = sound()
    model.graph.node[0].input[0] = "b"
    refused(model, tmp_path, "tensor 'a' depends on itself")


def test_a_node_that_reads_its_own_output_is_refused(tmp_path: Path) -> None:
    model = sound()
    model.graph.node[1].input[0] = "b"
    refused(model, tmp_path, "tensor 'b' depends on itself")


def test_a_subgraph_that_reads_what_its_node_writes_is_refused(tmp_path: Path) -> None:
    model = sound()
    body = helper.make_graph([node("Neg", "y", "z")], "b", [], [onnx.ValueInfoProto(name="z")])
    branch = helper.make_node("If", ["x"], ["b"], then_branch=body, else_branch=body)
    model.graph.node[1].CopyFrom(branch)
    refused(model, tmp_path, "depends on itself")


def test_a_tensor_that_is_written_twice_is_refused(tmp_path: Path) -> None:
    model = sound()
    model.graph.node[1].output[0] = "a"
    refused(model, tmp_path, "two nodes write tensor 'a'")


@pytest.mark.parametrize("version", [2147483647, 0, -1])
def test_an_opset_that_does_not_exist_is_refused(tmp_path: Path, version: int) -> None:
    model = sound()
    model.opset_import[0].version = version
    refused(model, tmp_path, f"its opset is not known: got {version}, expected 1 to")


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    body: GraphProto = helper.make_graph([node("Neg", "x", "z")], "b", [], [])
    for _ in range(graph_limits.DEEPEST + 1):
        branch = helper.make_node("If", ["x"], ["z"], then_branch=body)
        body = helper.make_graph([branch], "b", [], [])
    model = sound()
    model.graph.node.extend(body.node)
    with pytest.raises(GraphError, match="nested too deeply"):
        check_graph(model, tmp_path)


def function(name: str, *calls: str) -> onnx.FunctionProto:
    nodes = []
    for place, called in enumerate(calls):
        nodes.append(helper.make_node(called, ["x"], [f"y{place}"], domain="own"))
    return helper.make_function("own", name, ["x"], ["y0"], nodes, [helper.make_opsetid("own", 1)])


def with_functions(*functions: onnx.FunctionProto) -> onnx.ModelProto:
    call = helper.make_node("f0", ["x"], ["y"], domain="own")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(
        helper.make_graph([call], "g", [x], [y]),
        functions=functions,
        opset_imports=opsets,
        ir_version=9,
    )


def test_functions_that_call_each_other_are_refused(tmp_path: Path) -> None:
    refused(with_functions(function("f0", "f1"), function("f1", "f0")), tmp_path, "calls itself")
    refused(with_functions(function("f0", "f0")), tmp_path, "calls itself")


def test_functions_that_unfold_to_billions_of_nodes_are_refused(tmp_path: Path) -> None:
    functions = [function(f"f{n}", *[f"f{n + 1}"] * 10) for n in range(12)]
    refused(with_functions(*functions, function("f12")), tmp_path, "too many nodes")
