"""``Editor`` and ``Graph``.

Indexes that stay true under edits, and types that are asked for once.
"""

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeseg.graph.graph import Graph


def small() -> Graph:
    """Return a graph of a convolution, a ReLU and a sum, whose second input is the image itself."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Add", ["r", "x"], ["y"], "sum"),
    ]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "small", [image], [result])
    editor = Graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    editor.constant("w", np.ones((3, 3, 3, 3), np.float32))
    return editor


def names(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes()]


def assert_indexes_are_true(graph: Graph) -> None:
    """Compare the indexes with those of a new ``Graph`` of the same model."""
    fresh = Graph(graph.model)
    assert {k: v.name for k, v in graph.producer.items()} == {
        k: v.name for k, v in fresh.producer.items()
    }
    for name in graph.readers.keys() | fresh.readers.keys():
        ours = [node.name for node in graph.readers.get(name, [])]
        assert sorted(ours) == sorted(node.name for node in fresh.readers.get(name, [])), name
    assert graph.constants.keys() == fresh.constants.keys()
    assert graph.outputs == fresh.outputs
    assert graph.inputs == fresh.inputs

    # The nodes of the indexes are those of the graph, not copies of them.
    inside = {id(node) for node in graph.graph.node}
    held = [*graph.producer.values(), *itertools.chain(*graph.readers.values())]
    assert {id(node) for node in held} <= inside


def test_nodes_go_where_they_are_wanted() -> None:
    graph = small()
    relu = graph.producer["r"]
    graph.node("Neg", ["c"], "n", name="before", before=relu)
    graph.add(helper.make_node("Abs", ["r"], ["a"], "after"), after=relu)
    graph.node("Identity", ["x"], "i", name="first", first=True)
    graph.node("Identity", ["i"], "j", name="second", first=True)
    graph.node("Exp", ["y"], "e", name="last")
    assert names(graph) == ["first", "second", "conv", "before", "relu", "after", "sum", "last"]
    assert_indexes_are_true(graph)


def test_rewiring_updates_makers_and_readers() -> None:
    graph = small()
    total = graph.producer["y"]
    graph.set_input(total, 1, "c")
    graph.set_output(total, 0, "z")
    graph.set_inputs(graph.producer["r"], ["x"])
    assert_indexes_are_true(graph)
    assert [node.name for node in graph.readers["c"]] == ["sum"]
    assert "y" not in graph.producer


def test_readers_follow_a_tensor_into_subgraphs() -> None:
    graph = small()
    branch = helper.make_graph(
        [helper.make_node("Neg", ["r"], ["b"])],
        "branch",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
    )
    graph.add(helper.make_node("If", ["q"], ["f"], "if", then_branch=branch, else_branch=branch))
    assert graph.is_pinned("r")

    graph.read_instead("c", "r")
    assert not graph.is_pinned("r")
    assert graph.is_pinned("c")
    assert_indexes_are_true(graph)


def test_pruning_removes_only_what_nothing_reads() -> None:
    graph = small()
    total = graph.producer["y"]
    graph.set_inputs(total, ["x", "x"])
    graph.prune(["r"])
    assert names(graph) == ["sum"]
    assert not graph.constants  # the weights of the convolution
    assert_indexes_are_true(graph)


def test_sorting_keeps_the_order_where_it_can() -> None:
    graph = small()
    graph.node("Neg", ["late"], "n", name="early", first=True)
    graph.node("Exp", ["x"], "late", name="late")
    graph.sort()
    assert names(graph) == ["late", "early", "conv", "relu", "sum"]
    assert_indexes_are_true(graph)


def test_equal_values_are_stored_once() -> None:
    graph = small()
    one = graph.shared_constant("one", np.ones(1, np.int64))
    assert graph.shared_constant("other", np.ones(1, np.int64)) == one
    assert graph.shared_constant("other", np.ones(1, np.int32)) == "other"
    assert graph.new_constant("one", np.zeros(1)) == "one_1"


def test_constants_become_initializers() -> None:
    graph = small()
    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [2.0])
    graph.add(helper.make_node("Constant", [], ["k"], "k", value=value))
    found = graph.array("k")
    graph.hoist_constants()
    assert names(graph) == ["conv", "relu", "sum"]
    assert found is not None
    np.testing.assert_array_equal(graph.array("k"), found)


def test_a_removed_node_cannot_be_removed_again() -> None:
    graph = small()
    relu = graph.producer["r"]
    graph.remove(relu)
    with pytest.raises(ValueError, match="relu"):
        graph.remove(relu)


def test_types_are_inferred_once_and_again_for_new_tensors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    infer = onnx.shape_inference.infer_shapes
    counts: list[int] = []

    def counted(*arguments: Any, **options: Any) -> onnx.ModelProto:
        counts.append(1)
        return infer(*arguments, **options)

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", counted)
    graph = small()
    assert graph.static_shape("r") == [1, 3, 8, 8]

    # An edit keeps what is known; a tensor like another one needs no inference.
    graph.node("Neg", ["r"], "n")
    graph.assume_like("n", "r")
    assert graph.dtype("c") == TensorProto.FLOAT
    assert graph.static_shape("n") == [1, 3, 8, 8]
    assert len(counts) == 1

    # A new tensor is inferred.
    graph.node("Transpose", ["r"], "t", perm=[0, 2, 3, 1])
    assert graph.static_shape("t") == [1, 8, 8, 3]
    assert len(counts) == 2
