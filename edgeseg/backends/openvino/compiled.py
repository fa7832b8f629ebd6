"""Compile graphs for this processor, run them, and time them."""

import io
import re
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from edgeseg.backends.openvino import probes, runtime
from edgeseg.errors import EngineError, GraphError
from edgeseg.types import Image

INT8_KERNELS = "LP_TRANSFORMS_MODE"  # OpenVINO's setting: "NO" computes quantized layers in float
_HINTS = {"fp32": "f32", "bf16": "bf16"}

# Every setting that `settings` can return, with its values. OpenVINO has others that write files
# and load libraries.
_ALLOWED = {
    "INFERENCE_PRECISION_HINT": frozenset(_HINTS.values()),
    "PERFORMANCE_HINT": frozenset({"LATENCY"}),
    "NUM_STREAMS": frozenset({"1"}),
    INT8_KERNELS: frozenset({"NO"}),
}

# Limits of a trial, for each form of a graph.
_TRIAL_CALLS = 15
_TRIAL_SECONDS = 0.5


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
    if precision in runtime.FLOATS:
        floats = precision
    elif floats is None:
        floats = runtime.best_precision()

    config = {
        "INFERENCE_PRECISION_HINT": _HINTS[floats],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
    }

    if precision not in runtime.FLOATS and not probes.int8_is_exact():
        config[INT8_KERNELS] = "NO"
    return config


def check_settings(config: Mapping[str, str], path: Path, rebuild: str) -> None:
    """Raise an error for compile settings that edgeseg does not write into passports.

    Parameters
    ----------
    config : the settings of a passport.
    path : the engine, for the error.
    rebuild : the sentence that says how to build the engine again.

    Raises
    ------
    EngineError : a setting or its value is not one that ``settings`` returns.
    """
    for name, value in config.items():
        if value not in _ALLOWED.get(name, ()):
            raise EngineError(
                f"{path}: its passport has a setting that edgeseg does not give to OpenVINO",
                got=f"{name}={value}",
                hint=rebuild,
            )


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
            self._open_or_in_float(model, config)
        except RuntimeError as error:
            raise _explained(name, error) from error

    def _open_or_in_float(self, model: onnx.ModelProto, config: dict[str, str]) -> None:
        """Open a graph as ``config`` says; open it in FP32 if that may help and this fails."""
        try:
            self._open(model, config)
        except RuntimeError:
            if not _may_lack_bf16_kernels(model, config):
                raise
            self._open(model, {**config, "INFERENCE_PRECISION_HINT": _HINTS["fp32"]})

    def _open(self, model: onnx.ModelProto, config: dict[str, str]) -> None:
        """Compile ``model`` and run it on one black frame."""
        core = runtime.core()
        self._compiled = core.compile_model(
            core.read_model(model.SerializeToString()), "CPU", config
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
        output = runtime.infer(self._request, frame)
        self._calls += 1
        return output

    def blob(self) -> bytes:
        """Return the compiled graph in OpenVINO's own serialization."""
        blob = self._compiled.export_model()
        return bytes(blob.getvalue()) if isinstance(blob, io.BytesIO) else bytes(blob)

    def milliseconds(self) -> dict[str, float]:
        """Return the mean milliseconds per call of each node, over the calls since the last time.

        The first time, these are all calls so far: the constructor's run on a black frame, which is
        a cold one, and the caller's warm-up calls.

        The compile settings must hold ``PERF_COUNT``. OpenVINO reports the mean over all calls
        since it compiled the graph. So this method takes the growth of the totals.
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


def _may_lack_bf16_kernels(model: onnx.ModelProto, config: dict[str, str]) -> bool:
    """Return True if ``model`` has Q/DQ nodes and its float layers are not computed in FP32.

    OpenVINO lacks BF16 kernels for the float layers of some of these graphs ("No suitable
    implementations").
    """
    is_quantized = any(node.op_type == "DequantizeLinear" for node in model.graph.node)
    return is_quantized and config["INFERENCE_PRECISION_HINT"] != _HINTS["fp32"]


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
