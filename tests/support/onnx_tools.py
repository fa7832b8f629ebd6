"""Small ONNX files for the INT8 tests, and running them."""

import io
import re
from collections import Counter
from types import ModuleType
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

from edgeseg.backends.tensorrt.bindings import Log, library

onnxruntime.set_default_logger_severity(4)


def run_ort(
    model: onnx.ModelProto, optimised: bool = False, /, **feed: np.ndarray
) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feed))


def run_openvino(
    model: onnx.ModelProto, precision: str = "f32", /, **feed: np.ndarray
) -> list[np.ndarray]:
    core = cast(Any, openvino).Core()  # its stubs export nothing
    read = core.read_model(io.BytesIO(model.SerializeToString()))
    compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    results = compiled(feed)
    return [np.array(results[out]) for out in compiled.outputs]


def node(
    kind: str, inputs: str, outputs: str, name: str | None = None, **attributes: Any
) -> onnx.NodeProto:
    """``inputs`` and ``outputs`` are names with blanks between; ``-`` is an input left out."""
    given = ["" if i == "-" else i for i in inputs.split()]
    return helper.make_node(
        kind, given, outputs.split(), outputs.split()[0] if name is None else name, **attributes
    )


def make(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[Any]],
    outputs: str,
    opset: int = 17,
    **constants: Any,
) -> onnx.ModelProto:
    """A valid ONNX file: FP32 inputs by shape, outputs by name, constants by name."""
    tensors = [
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    ]
    kept = [t for t in tensors if any(t.name in n.input for n in nodes)]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs.split()],
        kept,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    types = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output
    for value, found in zip(model.graph.output, types, strict=True):
        value.CopyFrom(found)
    if not all(value.type.tensor_type.HasField("shape") for value in model.graph.output):
        # The standard's inference does not know the size of every operator's output, and a file
        # must say its rank.
        probe = run_ort(
            model,
            **{
                n: np.zeros([d if isinstance(d, int) else 2 for d in s], np.float32)
                for n, s in inputs.items()
            },
        )
        for value, found in zip(model.graph.output, probe, strict=True):
            shape = [f"{value.name}{axis}" for axis in range(found.ndim)]
            value.CopyFrom(
                helper.make_tensor_value_info(
                    value.name, helper.np_dtype_to_tensor_dtype(found.dtype), shape
                )
            )
    return model


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(n.op_type for n in model.graph.node)


def find(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """The node of a name, or the one that gives a tensor of that name."""
    found: onnx.NodeProto = next(n for n in model.graph.node if n.name == name or name in n.output)
    return found


def maker(model: onnx.ModelProto, tensor: str) -> onnx.NodeProto | None:
    return next((n for n in model.graph.node if tensor in n.output), None)


def values(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


COMPLAINTS = re.compile(
    r"reinterpret|missing scale|(missing|no) (dynamic range|scale)|fall(ing|s)? ?back|"
    r"implicit(ly)? (quant|cast)|not supported|unsupported|ignored",
    re.IGNORECASE,
)


def rtx_log() -> Log:
    """TensorRT-RTX's log: a process has one, the first that the library is given."""
    return library("tensorrt-rtx").log


def assert_builds(trt: ModuleType, model: onnx.ModelProto, *, turing: bool = True) -> None:
    """Parsed and built ahead of time, for RTX 20 (or 30) to 50.

    No warning or worse was said, and all pairs seen.
    """
    log = rtx_log()
    log.messages.clear()
    log.keeps |= {"info", "verbose"}
    try:
        _build(trt, model, log.logger, turing)
    finally:
        log.keeps -= {"info", "verbose"}
    assert log.messages
    assert not [
        m.text
        for m in log.messages
        if m.severity in ("error", "warning") or COMPLAINTS.search(m.text)
    ]


def _build(trt: ModuleType, model: onnx.ModelProto, logger: Any, turing: bool) -> None:
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(model.SerializeToString()), [
        parser.get_error(i).desc() for i in range(parser.num_errors)
    ]
    layers = Counter(network.get_layer(i).type for i in range(network.num_layers))
    assert layers[trt.LayerType.QUANTIZE] == kinds(model)["QuantizeLinear"]
    assert layers[trt.LayerType.DEQUANTIZE] == kinds(model)["DequantizeLinear"]
    config = builder.create_builder_config()
    gpus = (*(["SM75"] if turing else []), "SM80", "SM86", "SM89", "SM120")
    config.num_compute_capabilities = len(gpus)
    for place_, capability in enumerate(gpus):
        config.set_compute_capability(getattr(trt.ComputeCapability, capability), place_)
    assert builder.build_serialized_network(network, config) is not None
