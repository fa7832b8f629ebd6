"""Use OpenVINO on this processor: find what it can do, compile graphs, and time them."""

import functools
import importlib
import io
import re
import sys
import time
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeseg.backends.openvino import probes
from edgeseg.errors import GraphError
from edgeseg.precision import INT8
from edgeseg.types import Image

EXTENSION = "extension"  # the form that `unpool=plugin` builds on this target
FLOATS = ("fp32", "bf16")
PRECISIONS = (*FLOATS, INT8)
_HINTS = {"fp32": "f32", "bf16": "bf16"}
INT8_KERNELS = "LP_TRANSFORMS_MODE"  # OpenVINO's setting: "NO" computes quantized layers in float

# Limits of a trial, for each form of a graph.
_TRIAL_CALLS = 15
_TRIAL_SECONDS = 0.5

# Settings of the graphs that probe the processor.
_PROBE_CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}


@functools.cache
def _openvino() -> Any:
    """Import ``openvino`` without its telemetry, which would start a process that calls home.

    OpenVINO has a stub for the case that its telemetry package is not installed. This function
    hides the package during the import, so that OpenVINO uses the stub.
    """
    name = "openvino_telemetry"
    hidden = name not in sys.modules
    if hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # makes `import` raise ImportError
    try:
        return importlib.import_module("openvino")
    finally:
        if hidden:
            del sys.modules[name]


@functools.cache
def core() -> Any:
    """Return OpenVINO's entry point, one per process."""
    return _openvino().Core()


def library_version() -> str:
    """Return OpenVINO's version down to the build: a compiled blob fits exactly one."""
    return str(_openvino().get_version())


def device() -> tuple[str, tuple[str, ...]]:
    """Return the processor's name and its features for OpenVINO (``BF16``, ``INT8``, ...)."""
    plugin = core()
    name = str(plugin.get_property("CPU", "FULL_DEVICE_NAME")).strip()
    features = plugin.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return name, tuple(sorted(str(feature) for feature in features))


def best_precision() -> str:
    """Return ``bf16`` if the processor computes it natively, else ``fp32``.

    Without native BF16, OpenVINO would only emulate it.
    """
    return "bf16" if "BF16" in device()[1] else "fp32"


def settings(precision: str, floats: str | None = None) -> dict[str, str]:
    """Return the compile settings for the lowest latency, one frame at a time.

    Parameters
    ----------
    precision : a float precision or an INT8 one. If INT8 is not exact on this processor, all of an
        INT8 graph is computed in float.
    floats : precision of the float parts of an INT8 graph; the fastest one unless given.

    Examples
    --------
    >>> settings("fp32")["INFERENCE_PRECISION_HINT"]
    'f32'
    """
    computed_in = precision if precision in FLOATS else (floats or best_precision())
    config = {
        "INFERENCE_PRECISION_HINT": _HINTS[computed_in],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
    }

    if precision not in FLOATS and not int8_is_exact():
        config[INT8_KERNELS] = "NO"
    return config


@functools.cache
def int8_is_exact() -> bool:
    """Return True if OpenVINO's INT8 convolutions are exact sums of products.

    This runs a convolution with the largest products. Without VNNI (Intel up to Comet Lake, AMD
    before Zen 4) the sums are wrong: bytes are made unsigned, and two products are added in 16
    bits, which overflow (``vpmaddubsw``). Layers then give other values than the ONNX file, far off
    where weights are large. The result is False, too, if the convolution does not compile.
    """
    channels, side, largest = 16, 12, 127
    model = _largest_products_graph(channels, side, largest)
    plugin = core()
    try:
        compiled = plugin.compile_model(
            plugin.read_model(model.SerializeToString()), "CPU", dict(_PROBE_CONFIG)
        )
        found = compiled([np.full((1, channels, side, side), largest, np.float32)])[0]
    except RuntimeError:
        return False

    whole = 9 * channels * largest * largest
    even_right = (found[:, ::2] == whole).all()
    odd_right = (found[:, 1::2] == -whole).all()
    return bool(even_right and odd_right)


def _largest_products_graph(channels: int, side: int, largest: int) -> onnx.ModelProto:
    """Return an INT8 convolution, 3x3, whose weights are ``largest`` and ``-largest`` in turns."""
    weights = np.full((channels, channels, 3, 3), largest, np.int8)
    weights[1::2] = -largest
    constants = {"one": np.float32(1), "zero": np.int8(0), "weights": weights}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["bytes"]),
        helper.make_node("DequantizeLinear", ["bytes", "one", "zero"], ["read"]),
        helper.make_node("DequantizeLinear", ["weights", "one", "zero"], ["read_weights"]),
        helper.make_node("Conv", ["read", "read_weights"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, side, side])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, channels, side - 2, side - 2])
    tensors = [
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    ]
    graph = helper.make_graph(nodes, "probe", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@functools.cache
def signed_int8_is_exact() -> bool:
    """Return True if OpenVINO computes signed INT8 activations correctly behind a concat.

    The probe (``probes.concat_graph``) runs once per process. Without AMX the values are wrong;
    INT8 networks are then compiled with unsigned activations. The result is False, too, if the
    probe does not compile.
    """
    x = probes.concat_input()
    plugin = core()
    try:
        compiled = plugin.compile_model(
            plugin.read_model(probes.concat_graph().SerializeToString()), "CPU", dict(_PROBE_CONFIG)
        )
        found = compiled([x])[0]
    except RuntimeError:
        return False
    return bool(np.array_equal(found, probes.concat_output(x)))


class Compiled:
    """Compile a deployed graph, and run it once, so that a graph that cannot run fails at once.

    Parameters
    ----------
    model : the deployed graph: one frame (1, H, W, 3) uint8 BGR in, one output.
    name : the network's name, for errors.
    config : compile settings, as from ``settings``.

    Raises
    ------
    GraphError : OpenVINO cannot compile or run the graph.
    """

    def __init__(self, model: onnx.ModelProto, name: str, config: dict[str, str]) -> None:
        self._calls = 0
        self._seen = 0  # calls when `milliseconds` was last called
        self._totals: dict[str, float] = {}  # milliseconds per node until then
        try:
            try:
                self._open(model, config)
            except RuntimeError:
                # OpenVINO lacks BF16 kernels for the float layers of some Q/DQ graphs ("No suitable
                # implementations").
                is_quantized = any(node.op_type == "DequantizeLinear" for node in model.graph.node)
                if config["INFERENCE_PRECISION_HINT"] == "f32" or not is_quantized:
                    raise
                self._open(model, {**config, "INFERENCE_PRECISION_HINT": "f32"})
        except RuntimeError as error:
            raise _explained(name, error) from error

    def _open(self, model: onnx.ModelProto, config: dict[str, str]) -> None:
        """Compile ``model`` and run it on one black frame."""
        plugin = core()
        self._compiled = plugin.compile_model(
            plugin.read_model(model.SerializeToString()), "CPU", config
        )
        self._request = self._compiled.create_infer_request()
        # Some graphs compile but cannot run, for example with a scatter out of its plane.
        self(np.zeros(self.frame_shape, np.uint8))

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Return the shape of a frame, (H, W, 3)."""
        return tuple(self._compiled.input(0).shape)[1:]

    def __call__(self, frame: Image) -> Image:
        """Return the only output for one frame, without its batch dimension.

        The result is a view that the next call overwrites.

        Parameters
        ----------
        frame : (H, W, 3) uint8 BGR of the input size.
        """
        self._request.infer({0: frame[None]}, share_inputs=True)
        self._calls += 1
        output: Image = self._request.get_output_tensor(0).data[0]
        return output

    def blob(self) -> bytes:
        """Return the compiled graph in OpenVINO's own serialization."""
        blob = self._compiled.export_model()
        return bytes(blob.getvalue()) if isinstance(blob, io.BytesIO) else bytes(blob)

    def milliseconds(self) -> dict[str, float]:
        """Return the mean milliseconds per call of each node, since this method was last called.

        The compile settings must hold ``PERF_COUNT``. OpenVINO reports the mean over all calls
        since it compiled the graph, cold ones included. So this method takes the growth of the
        totals.
        """
        totals: dict[str, float] = {}
        for node in self._request.profiling_info:
            totals[node.node_name] = node.real_time.total_seconds() * 1e3 * self._calls

        calls = max(self._calls - self._seen, 1)
        spent = {
            name: (total - self._totals.get(name, 0.0)) / calls for name, total in totals.items()
        }

        self._seen = self._calls
        self._totals = totals
        return spent


def trial(compiled: dict[str, Compiled]) -> dict[str, float]:
    """Return the median milliseconds of each graph. The graphs are called in turns.

    Parameters
    ----------
    compiled : graphs of one input size, by name; at least one.
    """
    spent: dict[str, list[float]] = {form: [] for form in compiled}
    shape = next(iter(compiled.values())).frame_shape
    frame = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    end = time.perf_counter() + _TRIAL_SECONDS * len(compiled)
    for turn in range(_TRIAL_CALLS + 1):
        for form, candidate in compiled.items():
            start = time.perf_counter()
            candidate(frame)
            if turn:  # the first call of each warms up
                spent[form].append(time.perf_counter() - start)
        if turn > 2 and time.perf_counter() > end:
            break

    return {form: float(np.median(seconds)) * 1e3 for form, seconds in spent.items()}


def _explained(name: str, error: RuntimeError) -> GraphError:
    """Return one line for OpenVINO's many: missing operators, or what failed at which node."""
    text = str(error)
    missing = re.search(r"No conversion rule found for operations: (.+)", text)
    if missing:
        return GraphError(
            f"{name}: OpenVINO has no such operator",
            got=missing.group(1).strip(),
            hint="Replace it in the net and export it again.",
        )

    noise = (
        "Exception from",
        "Check '",
        "FrontEnd API failed",
        "Model wasn't",
        "Summary:",
        "-- Conversion",
        "While ",
    )
    lines = [line.strip() for line in text.splitlines()]
    telling = [line for line in lines if line and not line.startswith(noise)]
    return GraphError(
        f"{name}: OpenVINO cannot compile it", got=" ".join(telling)[:300] or "no reason given"
    )
