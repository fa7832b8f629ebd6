"""Time every layer of a cpu engine, and count its multiply-adds and bytes.

Times are OpenVINO's performance counters. Shapes, kernels and precisions are those of the graph
that OpenVINO runs after its fusions, so a row is what one kernel does.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeseg.imaging.preprocess import resize_frame
from edgeseg.profiling.engine_record import LayerRow, LayerTable
from edgeseg.profiling.throughput import open_compiled
from edgeseg.types import Image

CALLS = 40
WARM_UP = 5
_BYTES = {
    "f32": 4,
    "i32": 4,
    "u32": 4,
    "f16": 2,
    "bf16": 2,
    "i16": 2,
    "i8": 1,
    "u8": 1,
    "boolean": 1,
    "i64": 8,
    "f64": 8,
}
_CONVOLUTIONS = ("Convolution", "GroupConvolution")
_TRANSPOSED = ("Deconvolution", "ConvolutionBackpropData")
_PRODUCTS = ("MatMul", "FullyConnected")
_NO_WORK = ("Const", "Input", "Output", "Parameter", "Result")


@dataclass(frozen=True)
class _Work:
    """Hold what a node of OpenVINO's graph is and does."""

    kind: str
    kernel: str
    precision: str
    multiply_adds: int
    bytes: int


def profile_layers(file: Path, frames: Sequence[Image], calls: int = CALLS) -> LayerTable:
    """Time the layers of a cpu engine.

    Parameters
    ----------
    file : the engine file.
    frames : (H, W, 3) uint8 BGR; they are repeated.
    calls : number of calls that count, after a warm-up.

    Returns
    -------
    A table without the limits of the machine; ``roofline.judge`` adds them.

    Raises
    ------
    EngineError : the file is no engine of the cpu target.
    """
    compiled = open_compiled(file, {"PERF_COUNT": "YES"})
    request = compiled.create_infer_request()
    size = tuple(compiled.input(0).shape)[1:3]
    inputs = [resize_frame(frame, size)[None] for frame in frames]

    def run(count: int) -> float:
        start = time.perf_counter()
        for number in range(count):
            request.infer({0: inputs[number % len(inputs)]}, share_inputs=True)
        return time.perf_counter() - start

    # The counters are means over all calls so far, so the warm-up is taken off again.
    run(WARM_UP)
    before = _totals(request, WARM_UP)
    spent = run(calls)
    after = _totals(request, WARM_UP + calls)

    work = _work_of(compiled.get_runtime_model())
    rows: list[LayerRow] = []
    for name, total in after.items():
        ms = max(0.0, total - before.get(name, 0.0)) / calls
        found = work.get(name)
        if found is None or found.kind in _NO_WORK:
            continue
        rows.append(
            LayerRow(
                name=name,
                kind=found.kind,
                kernel=found.kernel,
                precision=found.precision,
                ms=ms,
                multiply_adds=found.multiply_adds,
                bytes=found.bytes,
            )
        )
    return LayerTable(
        rows=rows,
        graph_ms=spent / calls * 1e3,
        layers_ms=sum(row.ms for row in rows),
        calls=calls,
    )


def _totals(request: Any, calls: int) -> dict[str, float]:
    """Return milliseconds of every node over all calls so far."""
    return {
        node.node_name: node.real_time.total_seconds() * 1e3 * calls
        for node in request.profiling_info
    }


def _work_of(model: Any) -> dict[str, _Work]:
    """Return what every node of the running graph does, by name."""
    found: dict[str, _Work] = {}
    for node in model.get_ordered_ops():
        facts = node.get_rt_info()
        kind = _text(facts, "layerType")
        inputs = [(_shape(port), _precision_of_source(port)) for port in node.inputs()]
        precisions = _text(facts, "outputPrecisions").split(",")
        outputs = [
            (_shape(port), precisions[min(place, len(precisions) - 1)])
            for place, port in enumerate(node.outputs())
        ]
        kernel = _text(facts, "primitiveType")
        found[node.get_friendly_name()] = _Work(
            kind=kind,
            kernel=kernel.rpartition("_")[0] or kernel,
            precision=_arithmetic(kernel, inputs),
            multiply_adds=_multiply_adds(kind, inputs, outputs),
            bytes=sum(_bytes(*tensor) for tensor in (*inputs, *outputs)),
        )
    return found


def _arithmetic(kernel: str, inputs: Sequence[tuple[tuple[int, ...], str]]) -> str:
    """Return the precision that a kernel computes in: ``fp32``, ``bf16``, ``int8``, ...

    A convolution with int8 inputs computes in INT8, whatever it writes.
    """
    suffix = kernel.rpartition("_")[2].lower()
    name = inputs[0][1] if inputs and suffix not in _BYTES else suffix
    return {"f32": "fp32", "f16": "fp16", "i8": "int8", "u8": "int8"}.get(name, name)


def _multiply_adds(
    kind: str,
    inputs: Sequence[tuple[tuple[int, ...], str]],
    outputs: Sequence[tuple[tuple[int, ...], str]],
) -> int:
    """Return the multiply-adds of convolutions and matrix products; 0 for all others.

    Each output value of a convolution takes one multiply-add per weight of its output channel. Each
    input value of a transposed one takes one per weight of its input channel.
    """
    if len(inputs) < 2 or not outputs:
        return 0
    weights = inputs[1][0]
    if kind in _CONVOLUTIONS:
        image = outputs[0][0]
        return image[0] * math.prod(image[2:]) * math.prod(weights)
    if kind in _TRANSPOSED:
        image = inputs[0][0]
        return image[0] * math.prod(image[2:]) * math.prod(weights)
    if kind in _PRODUCTS:
        return math.prod(outputs[0][0]) * inputs[0][0][-1]
    return 0


def _bytes(shape: tuple[int, ...], precision: str) -> int:
    """Return the size of a tensor."""
    return math.prod(shape) * _BYTES.get(precision, 4)


def _shape(port: Any) -> tuple[int, ...]:
    """Return the sizes of a tensor; a dimension that is not known counts as 1."""
    return tuple(
        int(size.get_length()) if size.is_static else 1 for size in port.get_partial_shape()
    )


def _precision_of_source(port: Any) -> str:
    """Return the precision in which the source of an input writes it."""
    source = port.get_source_output()
    names = _text(source.get_node().get_rt_info(), "outputPrecisions").split(",")
    return names[min(int(source.get_index()), len(names) - 1)]


def _text(facts: Any, key: str) -> str:
    """Return a fact of OpenVINO's graph as text."""
    try:
        value = facts[key]
    except (KeyError, RuntimeError):
        return ""
    return str(getattr(value, "value", value))
