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
from edgeseg.export.deploy import deploy
from edgeseg.export.network import Network
from edgeseg.export.unpool.extension import is_extension
from edgeseg.extension import build as extension
from edgeseg.runtime.engine import Engine, Float, Image
from edgeseg.runtime.target import AUTO, INT8, NATIVE, PLUGIN, Built, PlanOptions, Target

TARGET = "cpu"
EXTENSION = "extension"  # what "plugin" is here
LIBRARY = "openvino"
FLOATS = ("fp32", "bf16")
PRECISIONS = (*FLOATS, INT8)
_HINTS = {"fp32": "f32", "bf16": "bf16"}
_INT8_KERNELS = "LP_TRANSFORMS_MODE"  # OpenVINO's setting: whether quantized layers run on bytes
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


def settings(precision: str) -> dict[str, str]:
    """The compile settings of a precision: one frame at a time, as fast as it can be.

    The float parts of an INT8 graph are computed in the fastest float precision there is; all of it is where INT8 is
    not exact.
    """
    hint = _HINTS[precision if precision in FLOATS else best_precision()]
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


def compile_fastest(
    forms: dict[str, onnx.ModelProto], name: str, config: dict[str, str]
) -> tuple[str, Compiled, dict[str, float]]:
    """Compile every form of one graph; returns the fastest's name, it, and the median milliseconds of each.

    The forms take turns on one noise frame, so that a machine whose speed drifts slows them alike.
    """
    compiled = {form: Compiled(model, name, config) for form, model in forms.items()}
    if len(compiled) == 1:
        ((form, only),) = compiled.items()
        return form, only, {}
    times = trial(compiled)
    best = min(times, key=lambda form: times[form])
    return best, compiled[best], times


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
    ) -> Built:
        """The label map's blob and the scores', in the fastest form of argmax and of unpooling."""
        config = settings(precision)
        if _INT8_KERNELS in config:
            say(
                "INT8 is not exact on this processor (no VNNI), so the quantized net is computed in float: the labels "
                "of other targets, no faster than --precision fp32"
            )
        form, labels = compile_best(network, config, options.unpool, say)
        scores = None
        if network.form != "labels":
            graph = deploy(network, scores=True, plugin=form["unpool"] == EXTENSION)
            scores = Compiled(graph, network.name, config).blob()
        name, features = device()
        return Built(
            data=pack(labels.blob(), scores),
            library=LIBRARY,
            library_version=library_version(),
            device=name,
            device_features=features,
            settings=config,
            form=form,
        )

    def fingerprint(self) -> tuple[str, ...]:
        unpool = NATIVE if extension.why_not() else extension.identity()
        return (library_version(), *device()[1], device()[0], unpool, f"exact INT8: {int8_is_exact()}")

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


def compile_best(
    network: Network, config: dict[str, str], unpool: str = AUTO, say: Callable[[str], None] = lambda _: None
) -> tuple[dict[str, str], Compiled]:
    """Compile a net in its fastest form of argmax, then of unpooling; returns what the passport says of it, and it."""
    argmax, compiled, times = compile_fastest(_graphs(network), network.name, config)
    form = {"argmax": argmax, "unpool": NATIVE}
    if _unpools_by_extension(network, unpool, say):
        ways = {NATIVE: compiled, EXTENSION: Compiled(_graphs(network, plugin=True)[argmax], network.name, config)}
        latency = trial(ways)
        times |= {f"unpool_{way}": milliseconds for way, milliseconds in latency.items()}
        if unpool == PLUGIN or latency[EXTENSION] < latency[NATIVE]:
            form["unpool"], compiled = EXTENSION, ways[EXTENSION]
    return form | {f"latency_ms_{key}": f"{value:.3f}" for key, value in times.items()}, compiled


def _unpools_by_extension(network: Network, unpool: str, say: Callable[[str], None]) -> bool:
    """Whether the net has something to unpool that the extension can, and it is here; ``say`` is told why not.

    Raises ``EngineError`` where it is not here and ``unpool`` asks for it.
    """
    if unpool == NATIVE or not any(is_extension(node) for node in deploy(network, plugin=True).graph.node):
        return False
    try:
        if not extension.why_not() and not extension.library_path().is_file():
            say("building the CPU extension, once: seconds")
        extension.load()
    except EdgesegError as error:
        if unpool == PLUGIN:
            raise
        say(f"unpooling by standard operators: {error}")
        return False
    return True


def _graphs(network: Network, *, plugin: bool = False) -> dict[str, onnx.ModelProto]:
    """The deployed graph in every form of argmax that there is for it; ``plugin`` as ``deploy`` has it."""
    forms = {"search": deploy(network, plugin=plugin)}
    if network.form != "labels":
        forms["compare"] = deploy(network, plugin=plugin, compare=True)
    return forms
