"""The CPU target: OpenVINO. Precision is a compile hint for the float parts; the rest is in the graph."""

import functools
import importlib
import io
import re
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeseg.artifact import Passport
from edgeseg.errors import EdgesegError, EngineError, GraphError, InputError
from edgeseg.export.network import Network
from edgeseg.extension import build as extension
from edgeseg.runtime import cpu_probes
from edgeseg.runtime.engine import Engine, Float, Image
from edgeseg.runtime.proof import Reference
from edgeseg.runtime.target import INT8, NATIVE, Built, PlanOptions, Target

TARGET = "cpu"
EXTENSION = "extension"  # what "plugin" is here
LIBRARY = "openvino"
FLOATS = ("fp32", "bf16")
PRECISIONS = (*FLOATS, INT8)
_HINTS = {"fp32": "f32", "bf16": "bf16"}
_INT8_KERNELS = "LP_TRANSFORMS_MODE"  # OpenVINO's setting: whether quantized layers run on bytes
FORMS = "forms 2"  # raise it when other forms are built: engines in the cache are then built again
_TRIAL_CALLS, _TRIAL_SECONDS = 15, 0.5  # of each form of a graph that is tried at building


@functools.cache
def _openvino() -> Any:
    """The ``openvino`` package, without its telemetry: importing it would start a process that calls home.

    It has a stub for where its telemetry package is not installed; so it is made to look for the time of the import.
    """
    name = "openvino_telemetry"
    hidden = name not in sys.modules
    if hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # Python's own way to say: not to be found
    try:
        return importlib.import_module("openvino")
    finally:
        if hidden:
            del sys.modules[name]


@functools.cache
def core() -> Any:
    """OpenVINO's entry point, made once."""
    return _openvino().Core()


def library_version() -> str:
    """OpenVINO's version, down to the build: a compiled blob belongs to exactly one."""
    return str(_openvino().get_version())


def device() -> tuple[str, tuple[str, ...]]:
    """The processor's name and what OpenVINO can do on it (``BF16``, ``INT8``, ...)."""
    plugin = core()
    name = str(plugin.get_property("CPU", "FULL_DEVICE_NAME")).strip()
    return name, tuple(sorted(str(c) for c in plugin.get_property("CPU", "OPTIMIZATION_CAPABILITIES")))


def best_precision() -> str:
    """BF16 where the processor computes it natively, FP32 elsewhere (there OpenVINO would only emulate it)."""
    return "bf16" if "BF16" in device()[1] else "fp32"


def settings(precision: str, floats: str | None = None) -> dict[str, str]:
    """Return the compile settings of a precision: one frame at a time, as fast as it can be.

    Parameters
    ----------
    precision : a float one or an INT8 one. Where INT8 is not exact, all of an INT8 graph is computed in float.
    floats : what the float parts of an INT8 graph are computed in; the fastest float precision unless given.
    """
    hint = _HINTS[precision if precision in FLOATS else floats or best_precision()]
    config = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
    return config if precision in FLOATS or int8_is_exact() else {**config, _INT8_KERNELS: "NO"}


@functools.cache
def int8_is_exact() -> bool:
    """Whether OpenVINO's INT8 convolutions are sums of products, tried on one whose products are the largest.

    Without VNNI (Intel up to Comet Lake, AMD before Zen 4) they are not: bytes are made unsigned, and two products are
    added in 16 bits, which do not hold them (``vpmaddubsw``). Layers then give other values than the file says, far off
    where weights are large. A convolution that does not compile is none to rely on, either.
    """
    channels, side, largest = 16, 12, 127
    weights = np.full((channels, channels, 3, 3), largest, np.int8)
    weights[1::2] = -largest
    constants = {"one": np.float32(1), "zero": np.int8(0), "weights": weights}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["bytes"]),
        helper.make_node("DequantizeLinear", ["bytes", "one", "zero"], ["read"]),
        helper.make_node("DequantizeLinear", ["weights", "one", "zero"], ["read_weights"]),
        helper.make_node("Conv", ["read", "read_weights"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, s, s]) for name, s in
            (("x", side), ("y", side - 2))]  # fmt: skip
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "probe", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    plugin = core()
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
    try:
        compiled = plugin.compile_model(plugin.read_model(model.SerializeToString()), "CPU", config)
        found = compiled([np.full((1, channels, side, side), largest, np.float32)])[0]
    except RuntimeError:
        return False
    whole = 9 * channels * largest * largest
    return bool((found[:, ::2] == whole).all() and (found[:, 1::2] == -whole).all())


@functools.cache
def signed_int8_is_exact() -> bool:
    """Return whether OpenVINO computes signed INT8 activations rightly behind a concat, tried once a process.

    Without AMX it does not (``edgeseg.runtime.cpu_probes.concat_graph``). INT8 nets are then compiled with unsigned
    activations. ``False`` also where the graph does not compile.
    """
    x = cpu_probes.concat_input()
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
    plugin = core()
    try:
        compiled = plugin.compile_model(plugin.read_model(cpu_probes.concat_graph().SerializeToString()), "CPU", config)
        found = compiled([x])[0]
    except RuntimeError:
        return False
    return bool(np.array_equal(found, cpu_probes.concat_output(x)))


class Compiled:
    """A deployed graph, compiled and run once: what cannot run is told when it is built."""

    def __init__(self, model: onnx.ModelProto, name: str, config: dict[str, str]) -> None:
        self._calls, self._seen, self._totals = 0, 0, dict[str, float]()
        try:
            try:
                self._open(model, config)
            except RuntimeError:
                # OpenVINO has no form of some Q/DQ graphs' float layers in BF16 ("No suitable implementations").
                if config["INFERENCE_PRECISION_HINT"] == "f32" or not any(
                    n.op_type == "DequantizeLinear" for n in model.graph.node
                ):
                    raise
                self._open(model, {**config, "INFERENCE_PRECISION_HINT": "f32"})
        except RuntimeError as error:
            raise _explained(name, error) from error

    def _open(self, model: onnx.ModelProto, config: dict[str, str]) -> None:
        plugin = core()
        self._compiled = plugin.compile_model(plugin.read_model(model.SerializeToString()), "CPU", config)
        self._request = self._compiled.create_infer_request()
        # One black frame: a graph that compiles but cannot run (a scatter out of its plane, say) is told here.
        self(np.zeros(self.frame_shape, np.uint8))

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """(H, W, 3)."""
        return tuple(self._compiled.input(0).shape)[1:]

    def __call__(self, frame: Image) -> Image:
        """The only output for a frame (H, W, 3) uint8 BGR of the input size, without its batch dimension; a view."""
        self._request.infer({0: frame[None]}, share_inputs=True)
        self._calls += 1
        output: Image = self._request.get_output_tensor(0).data[0]
        return output

    def blob(self) -> bytes:
        """OpenVINO's own serialization."""
        blob = self._compiled.export_model()
        return bytes(blob.getvalue()) if isinstance(blob, io.BytesIO) else bytes(blob)

    def milliseconds(self) -> dict[str, float]:
        """By node, what a call took since this was asked last; only where ``PERF_COUNT`` was among the settings.

        OpenVINO tells the mean over all calls since it compiled the graph, cold ones included: only how much the total
        has grown is of the calls in between.
        """
        totals = {p.node_name: p.real_time.total_seconds() * 1e3 * self._calls for p in self._request.profiling_info}
        calls = max(self._calls - self._seen, 1)
        spent = {node: (total - self._totals.get(node, 0.0)) / calls for node, total in totals.items()}
        self._seen, self._totals = self._calls, totals
        return spent


def trial(compiled: dict[str, Compiled]) -> dict[str, float]:
    """The median milliseconds of each, called in turn."""
    spent: dict[str, list[float]] = {form: [] for form in compiled}
    frame = np.random.default_rng(0).integers(0, 256, next(iter(compiled.values())).frame_shape, np.uint8)
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
    """OpenVINO's many lines as one: the operators it lacks, or what did not fit at which node."""
    text = str(error)
    missing = re.search(r"No conversion rule found for operations: (.+)", text)
    if missing:
        return GraphError(
            f"{name}: OpenVINO has no such operator",
            got=missing.group(1).strip(),
            hint="Replace it in the net and export it again.",
        )
    noise = ("Exception from", "Check '", "FrontEnd API failed", "Model wasn't", "Summary:", "-- Conversion", "While ")
    lines = [line.strip() for line in text.splitlines()]
    telling = [line for line in lines if line and not line.startswith(noise)]
    return GraphError(f"{name}: OpenVINO cannot compile it", got=" ".join(telling)[:300] or "no reason given")


# The engine file: a magic, the length of the label map's blob, that blob, and the scores' blob as its difference from
# it. Both hold the same weights at the same place, so that the difference packs to next to nothing; giving both outputs
# from one graph would cost every frame a reordering of the scores.
_MAGIC = b"edgeseg cpu engine 1\n"
_LENGTH = struct.Struct("<QQ")


def pack(labels: bytes, scores: bytes | None) -> bytes:
    """The bytes of an engine file from its two blobs (``scores`` is ``None`` for a net that has none)."""
    difference = b"" if scores is None else zlib.compress(_xor(scores, labels), 1)
    return b"".join([_MAGIC, _LENGTH.pack(len(labels), len(scores or b"")), labels, difference])


def unpack(data: bytes, name: str) -> tuple[bytes, Callable[[], bytes | None]]:
    """The label map's blob, and a function that makes the scores' (it is seldom wanted). Raises ``EngineError``."""
    start = len(_MAGIC) + _LENGTH.size
    if not data.startswith(_MAGIC) or len(data) < start:
        raise EngineError(f"{name}: not an edgeseg engine for the cpu target", hint="Build it: edgeseg build-engine.")
    length, scores_length = _LENGTH.unpack_from(data, len(_MAGIC))
    labels, difference = data[start : start + length], data[start + length :]

    def scores() -> bytes | None:
        return _xor(zlib.decompress(difference), labels)[:scores_length] if difference else None

    return labels, scores


def _xor(data: bytes, other: bytes) -> bytes:
    """``data`` with the bytes of ``other`` it overlaps flipped into it; its own inverse."""
    out = np.frombuffer(data, np.uint8).copy()
    n = min(len(out), len(other))
    out[:n] ^= np.frombuffer(other, np.uint8)[:n]
    return bytes(out)


class CpuEngine(Engine):
    """An OpenVINO engine, open. ``data`` is the engine file's bytes."""

    def __init__(self, passport: Passport, data: bytes) -> None:
        super().__init__(passport)
        blob, self._scores_blob = unpack(data, passport.name)
        self._request = _open(passport, blob)
        self._scores_request: Any = None

    def _labels(self, frame: Image) -> Image:
        self._request.infer({0: frame[None]}, share_inputs=True)
        return np.array(self._request.get_output_tensor(0).data[0], np.uint8)

    def _logits(self, frame: Image) -> Float:
        if self._scores_request is None:
            blob = self._scores_blob()
            if blob is None:
                raise EngineError(f"{self.passport.name}: this net gives a label map, no scores")
            self._scores_request = _open(self.passport, blob)
        self._scores_request.infer({0: frame[None]}, share_inputs=True)
        return np.ascontiguousarray(self._scores_request.get_output_tensor(0).data[0].transpose(2, 0, 1), np.float32)


def _open(passport: Passport, blob: bytes) -> Any:
    try:
        compiled = core().import_model(io.BytesIO(blob), "CPU", passport.settings)
    except RuntimeError as error:
        raise EngineError(
            f"{passport.name}: OpenVINO cannot open the engine",
            got=str(error).strip().splitlines()[-1][:200],
            hint="Build it again: edgeseg build-engine NAME.onnx.",
        ) from error
    return compiled.create_infer_request()


class CpuTarget(Target):
    """OpenVINO on the processor."""

    name, floats = TARGET, FLOATS

    def best_precision(self) -> str:
        return best_precision()

    def check_precision(self, precision: str) -> str:
        if precision == "bf16" and "BF16" not in device()[1]:
            raise InputError(
                "this processor does not compute in bf16",
                got=device()[0],
                expected="AVX512_BF16 or AMX",
                hint="Build with --precision fp32.",
            )
        return super().check_precision(precision)

    def compile(
        self,
        network: Network,
        precision: str,
        final: Path,
        options: PlanOptions,
        frames: Iterable[Image] | None,
        say: Callable[[str], None],
        known: Reference | None = None,
    ) -> Built:
        """Return the label map's blob and the scores', in the fastest form that labels as the file does."""
        from edgeseg.runtime import cpu_forms

        config = settings(precision)
        if _INT8_KERNELS in config:
            say(
                "INT8 is not exact on this processor (no VNNI), so the quantized net is computed in float: the labels "
                "of other targets, no faster than --precision fp32"
            )
        chosen = cpu_forms.choose(network, precision, options.unpool, known, say)
        config = settings(precision, chosen.form.floats)
        scores = None
        if network.form != "labels":
            scores = cpu_forms.compile_form(cpu_forms.named(network), chosen.form, precision, scores=True).blob()
        name, features = device()
        return Built(
            data=pack(chosen.compiled.blob(), scores),
            library=LIBRARY,
            library_version=library_version(),
            device=name,
            device_features=features,
            settings=config,
            form=cpu_forms.facts(chosen),
            proof={} if chosen.verdict is None or known is None else known.to_dict() | chosen.verdict.to_dict(),
        )

    def fingerprint(self) -> tuple[str, ...]:
        unpool = NATIVE if extension.why_not() else extension.identity()
        return (
            library_version(),
            *device()[1],
            device()[0],
            unpool,
            f"exact INT8: {int8_is_exact()}",
            f"signed INT8: {signed_int8_is_exact()}",
            FORMS,
        )

    def check(self, path: Path, passport: Passport, rebuild: str) -> None:
        version = library_version()
        if passport.library_version != version:
            raise EngineError(
                f"{path}: was built with another OpenVINO", got=passport.library_version, expected=version, hint=rebuild
            )
        name, features = device()
        missing = sorted(set(passport.device_features) - set(features))
        on_bytes = passport.precision not in FLOATS and _INT8_KERNELS not in passport.settings
        if not missing and on_bytes and not int8_is_exact():
            missing = ["VNNI"]
        if missing:
            raise EngineError(
                f"{path}: was built for {passport.device}, and this processor lacks {', '.join(missing)}",
                got=name,
                hint=rebuild,
            )

    def open(self, passport: Passport, data: bytes) -> Engine:
        prepare_to_open(passport)
        return CpuEngine(passport, data)


def prepare_to_open(passport: Passport) -> None:
    """Load the extension if the engine was built with it. Raises ``EngineError`` where it cannot be had."""
    if passport.form.get("unpool") != EXTENSION:
        return
    try:
        extension.load()
    except EdgesegError as error:
        raise EngineError(
            f"{passport.name}: was built with edgeseg's CPU extension, which is not here",
            got=str(error.got or error),
            hint="Install a C++ compiler; or build it again: edgeseg build-engine NAME.onnx --unpool native.",
        ) from error
