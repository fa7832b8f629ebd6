"""Measure the two limits of this machine, and say which of them bounds a layer.

The roofline model is of Williams, Waterman and Patterson (2009). The triad is STREAM's
(``a = b + s * c``, McCalpin). Both limits are measured with OpenVINO's own kernels and threads, as
the engines run.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeseg.backends.openvino import runtime
from edgeseg.profiling.engine_record import LayerRow, LayerTable
from edgeseg.profiling.power.meter import read_text
from edgeseg.profiling.results import Limits

MEMORY = "memory"
ARITHMETIC = "arithmetic"
_LEAST_ARRAY = 32 << 20
_MOST_ARRAY = 128 << 20
_CACHE_ARRAY = 256 << 10
_SIDE = 1024  # of the matrices
_PRODUCTS = 4  # in a row, so that converting the ends costs little
_REPEATS = 5
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}


def measure_limits(root: Path = Path("/")) -> Limits:
    """Measure bandwidth and arithmetic of this machine; it takes about three seconds.

    Parameters
    ----------
    root : root folder of the file system, for the size of the caches.
    """
    array = int(min(max(_LEAST_ARRAY, _last_cache_bytes(root)), _MOST_ARRAY))
    precisions = ["fp32"]
    features = runtime.device().features
    if "BF16" in features:
        precisions.append("bf16")
    if "INT8" in features:
        precisions.append("int8")
    speeds = {precision: _product_gmac_s(precision) for precision in precisions}
    return Limits(
        memory_gb_s=_triad_gb_s(array),
        cache_gb_s=_triad_gb_s(_CACHE_ARRAY),
        gmac_s=speeds,
        how=f"best of {_REPEATS}: triad of three arrays of {array >> 20} MiB (cache: "
        f"{_CACHE_ARRAY >> 10} KiB); {_PRODUCTS} products of {_SIDE}x{_SIDE} matrices in a row; "
        "OpenVINO's kernels on all cores",
    )


def judge(table: LayerTable, limits: Limits) -> LayerTable:
    """Return the layers with what bounds each, and how near its limit it is.

    A layer is bound by memory if moving its bytes takes longer than its multiply-adds, both at the
    machine's measured limits.

    Parameters
    ----------
    table : the layers.
    limits : the limits of the machine.

    Examples
    --------
    >>> limits = Limits(memory_gb_s=10, cache_gb_s=40, gmac_s={"fp32": 100}, how="")
    >>> row = LayerRow(name="a", kind="Convolution", kernel="k", precision="fp32", ms=2.0,
    ...     multiply_adds=10**8, bytes=10**6)
    >>> judged = judge(LayerTable(rows=[row], graph_ms=2, layers_ms=2, calls=1), limits).rows[0]
    >>> judged.bound, judged.of_limit
    ('arithmetic', 0.5)
    """
    rows = [_judged(row, limits) for row in table.rows]
    return table.model_copy(update={"rows": rows})


def _judged(row: LayerRow, limits: Limits) -> LayerRow:
    """Return one layer with its bound."""
    peak = limits.gmac_s.get(row.precision, limits.gmac_s["fp32"])
    memory_ms = row.bytes / limits.memory_gb_s / 1e6
    arithmetic_ms = row.multiply_adds / peak / 1e6
    bound = ARITHMETIC if arithmetic_ms > memory_ms else MEMORY
    of_limit = max(memory_ms, arithmetic_ms) / row.ms if row.ms > 0 else None
    return row.model_copy(update={"bound": bound, "of_limit": of_limit})


def _last_cache_bytes(root: Path) -> int:
    """Return the size of the last-level cache; 32 MiB if it is not known."""
    sizes = [0]
    for file in (root / "sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = read_text(file) or "0"
        factor = {"K": 1 << 10, "M": 1 << 20}.get(text[-1], 1)
        digits = text.rstrip("KM")
        if digits.isdigit():
            sizes.append(int(digits) * factor)
    return max(sizes) or 32 << 20


def _triad_gb_s(array_bytes: int) -> float:
    """Return the bandwidth of ``a = b + 3 c``: two arrays are read, one is written."""
    count = array_bytes // 4
    nodes = [
        helper.make_node("Mul", ["c", "s"], ["scaled"]),
        helper.make_node("Add", ["b", "scaled"], ["a"]),
    ]
    request = _opened(
        nodes, {"b": (count,), "c": (count,)}, ("a", (count,)), {"s": np.float32(3)}, "f32"
    )
    ones = np.ones(count, np.float32)
    repeats = _REPEATS if array_bytes > _CACHE_ARRAY else 20 * _REPEATS
    seconds = _best_s(request, {0: ones, 1: ones.copy()}, repeats)
    return 3 * array_bytes / seconds / 1e9


def _product_gmac_s(precision: str) -> float:
    """Return the speed of matrix products in one precision, in 10^9 multiply-adds a second."""
    side = _SIDE
    rng = np.random.default_rng(0)
    nodes: list[Any] = []
    constants: dict[str, Any] = {}
    shape: tuple[int, ...] = (1, side, 32, side // 32)  # side x side, as a 1x1 convolution's image
    name = "x"
    if precision == "int8":
        constants |= {"step": np.float32(0.05), "zero": np.int8(0), "small": np.float32(0.001)}
    for number in range(_PRODUCTS):
        weights = rng.normal(size=(side, side, 1, 1)).astype(np.float32) / side**0.5
        if precision == "int8":
            constants[f"w{number}"] = np.clip(np.round(weights / 0.001), -127, 127).astype(np.int8)
            nodes += [
                helper.make_node("QuantizeLinear", [name, "step", "zero"], [f"q{number}"]),
                helper.make_node(
                    "DequantizeLinear", [f"q{number}", "step", "zero"], [f"d{number}"]
                ),
                helper.make_node(
                    "DequantizeLinear", [f"w{number}", "small", "zero"], [f"v{number}"]
                ),
                helper.make_node("Conv", [f"d{number}", f"v{number}"], [f"y{number}"]),
            ]
        else:
            constants[f"w{number}"] = weights
            nodes.append(helper.make_node("Conv", [name, f"w{number}"], [f"y{number}"]))
        name = f"y{number}"

    request = _opened(nodes, {"x": shape}, (name, shape), constants, _HINTS[precision])
    image = rng.normal(size=shape).astype(np.float32)
    return _PRODUCTS * side**3 / _best_s(request, {0: image}, _REPEATS) / 1e9


def _opened(
    nodes: list[Any],
    inputs: dict[str, tuple[int, ...]],
    output: tuple[str, tuple[int, ...]],
    constants: dict[str, Any],
    hint: str,
) -> Any:
    """Compile a graph and return a request."""
    graph = helper.make_graph(
        nodes,
        "limits",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 13)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opset, ir_version=8)
    config = {
        "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
    }
    core = runtime.core()
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU", config)
    return compiled.create_infer_request()


def _best_s(request: Any, feeds: dict[int, Any], repeats: int) -> float:
    """Return the seconds of the fastest of some calls, after one that warms up."""
    request.infer(feeds, share_inputs=True)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        request.infer(feeds, share_inputs=True)
        best = min(best, time.perf_counter() - start)
    return best
