"""Rules of TensorRT 10.3 on the graphs of every net that ships.

TensorRT-RTX's parser, which builds these graphs in other tests, is TensorRT 11's and takes more.
"""

import functools

import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from edgeseg.backends.tensorrt.graphs import graph_for
from edgeseg.graph.network import load_network
from edgeseg.reporter import SILENT
from edgeseg.zoo import zoo, zoo_int8

NEWEST_OPSET = 20
QUANTIZES = ("QuantizeLinear", "DequantizeLinear")
PLUGIN = ("EdgesegMaxPoolCode", "EdgesegMaxUnpool")


def without_plugin(model: ModelProto) -> ModelProto:
    """Return a copy with standard operators of the same types in place of the plugin's."""
    copy = ModelProto()
    copy.CopyFrom(model)
    nodes: list[NodeProto] = []
    for node in copy.graph.node:
        if node.op_type not in PLUGIN:
            nodes.append(node)
            continue
        nodes.append(helper.make_node("Identity", [node.input[0]], [node.output[0]]))
        if len(node.output) > 1:
            codes = [node.output[1]]
            nodes.append(helper.make_node("Cast", [node.input[0]], codes, to=TensorProto.INT8))
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def types_of(model: ModelProto) -> dict[str, int]:
    """Return the type of every tensor.

    Sizes are left out: those behind the plugin's operators would contradict others.
    """
    bare = without_plugin(model)
    del bare.graph.value_info[:]
    for end in (*bare.graph.input, *bare.graph.output):
        end.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(bare).graph
    types = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        types[value.name] = value.type.tensor_type.elem_type
    return types


def violations(model: ModelProto) -> list[str]:
    """Return what TensorRT 10.3 refuses in a graph."""
    found = []
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version > NEWEST_OPSET:
            found.append(f"opset {entry.version}")

    types = types_of(model)
    ends = {value.name for value in (*model.graph.input, *model.graph.output)}
    for node in model.graph.node:
        named = f"{node.op_type} {node.name or node.output[0]}"
        if node.op_type == "QuantizeLinear" and types[node.input[0]] == TensorProto.FLOAT16:
            found.append(f"{named} reads FP16")
        if node.op_type in QUANTIZES and types[node.input[1]] == TensorProto.FLOAT16:
            found.append(f"{named} has an FP16 scale")
        for name in (*node.input, *node.output):
            if name and types[name] == TensorProto.UINT8 and name not in ends:
                found.append(f"{named} has a UINT8 tensor inside: {name}")
    return found


@functools.cache
def network_of(name: str, precision: str) -> object:
    path = zoo_int8(name) if precision == "int8" else zoo()[name]
    assert path is not None
    return load_network(path)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["native", "plugin", "kernels"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", sorted(zoo()))
def test_graphs_keep_the_rules_of_10_3(name: str, precision: str, form: str) -> None:
    network = network_of(name, precision)
    model, _ = graph_for(
        network,  # type: ignore[arg-type]
        precision,
        None,
        SILENT,
        plugin=form == "plugin",
        kernels=form == "kernels",
    )
    assert violations(model) == []


def test_what_breaks_a_rule_is_found() -> None:
    def value(name: str, kind: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, [1, 2])

    half, byte = TensorProto.FLOAT16, TensorProto.UINT8
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale"], ["q"], "q"),
            helper.make_node("DequantizeLinear", ["q", "scale"], ["y"], "dq"),
        ],
        "broken",
        [value("x", half)],
        [value("y", half)],
        [helper.make_tensor("scale", half, [], [1.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    assert types_of(model)["q"] == byte
    assert violations(model) == [
        "opset 21",
        "QuantizeLinear q reads FP16",
        "QuantizeLinear q has an FP16 scale",
        "QuantizeLinear q has a UINT8 tensor inside: q",
        "DequantizeLinear dq has an FP16 scale",
        "DequantizeLinear dq has a UINT8 tensor inside: q",
    ]
