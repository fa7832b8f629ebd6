"""Build a TensorRT plan from an ONNX graph.

The plan stays as TensorRT writes it, so trtexec and DeepStream load it, too.
"""

import ast
import contextlib
import ctypes
import re
import shlex
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto, NodeProto

from edgeseg.backends.base import PlanOptions
from edgeseg.backends.tensorrt.bindings import (
    RTX,
    TENSORRT,
    Library,
    Message,
    library,
    reason_of,
    start,
)
from edgeseg.backends.tensorrt.cuda import gpu_hint, has_gpu, why_no_gpu
from edgeseg.errors import EngineError, GraphError, InputError
from edgeseg.reporter import SILENT, Reporter

# Compute capabilities that TensorRT-RTX builds for ahead of time, and their names.
GPUS = {75: "RTX 20", 80: "A100", 86: "RTX 30", 89: "RTX 40", 120: "RTX 50", 121: "DGX Spark"}

# Severities of messages that a user should see, and messages that are no fault of the network.
_LOUD = ("error", "warning")
_HARMLESS = (
    "differs from one already registered",  # the application used TensorRT before edgeseg
    "Empty initializer",  # before opset 13 such an input of Resize could not be left out
)

_OTHER_CACHE = "Delete it, or give another."  # what to do about a timing cache

# Where JetPack and NVIDIA's Debian packages put trtexec; it is not on PATH.
_TRTEXEC = Path("/usr/src/tensorrt/bin/trtexec")

# Operators of edgeseg's plugin, and their version (plugin/src/plugins.cpp).
_PLUGIN_OPERATORS = ("EdgesegMaxPoolCode", "EdgesegMaxUnpool")
_PLUGIN_VERSION = "1"

# Metadata in which PyTorch's exporter names the module that a node comes from.
_SCOPE = "pkg.torch.onnx.name_scopes"

Shapes = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Plan:
    """Hold a serialized engine and the facts about it.

    Attributes
    ----------
    data : the engine as TensorRT serializes it.
    library : the target.
    version : version of the library that built it.
    sm : compute capabilities it was built for ahead of time (86 for 8.6); empty if none were given.
    layers : number of the network's layers.
    seconds : duration of the build.
    warnings : TensorRT's warnings and errors, each once.
    """

    data: bytes
    library: str
    version: str
    sm: tuple[int, ...]
    layers: int
    seconds: float
    warnings: tuple[str, ...]


def build_plan(
    model: ModelProto,
    name: str,
    target: str,
    options: PlanOptions | None = None,
    *,
    plugin: Path | None = None,
    shapes: Shapes = (),
    tf32: bool = True,
    reporter: Reporter = SILENT,
) -> Plan:
    """Compile a graph to a plan, strongly typed: the types in the graph are its precision.

    Parameters
    ----------
    model : a lowered graph, as ``graphs.graph_for`` returns it.
    name : the network's name, for errors.
    target : ``tensorrt`` or ``tensorrt-rtx``.
    options : options of the build.
    plugin : library with operators of the graph.
    shapes : smallest, best and largest shape of ``frame``; empty if no dimension is dynamic.
    tf32 : let layers in FP32 round what they multiply to TF32, with a mantissa of 10 bits, on GPUs
        that can (RTX 30 and newer, Orin, Thor). It is TensorRT's default.
    reporter : receives the progress of each phase.

    Raises
    ------
    MissingDependencyError : TensorRT is not installed.
    InputError : the target does not support the options.
    GraphError : TensorRT does not support a node; the error names it.
    EngineError : there is no GPU, or TensorRT takes the graph and cannot build it.
    """
    started = time.perf_counter()
    options = options or PlanOptions()
    found = library(target)
    sm = _capabilities(found, options)
    if target == TENSORRT:
        _require_gpu(name)

    with found.log.heard() as messages:
        builder = start(found, "Builder")
        if plugin is not None:
            # Only the builder may know the plugin of a version-compatible plan.
            load_plugin(found, plugin, builder if options.version_compatible else None)

        network, parser = _parsed(builder, found, model, name)

        # Configure the build.
        config = _config(builder, found, options, sm, tf32=tf32)
        if options.version_compatible:
            _make_compatible(config, parser, found, plugin)
        if shapes:
            profile = builder.create_optimization_profile()
            profile.set_shape("frame", *map(tuple, shapes))
            config.add_optimization_profile(profile)
        if reporter is not SILENT:
            config.progress_monitor = _monitor(found.trt, reporter)
        cache = _timing_cache(config, found, options) if target == TENSORRT else None

        # Build.
        serialized = builder.build_serialized_network(network, config)
        if serialized is None:
            raise _unbuilt(name, found)
        if cache is not None and options.timing_cache is not None:
            _write_timing_cache(config, options.timing_cache)

        return Plan(
            data=bytes(memoryview(serialized)),
            library=found.target,
            version=found.version,
            sm=sm,
            layers=int(network.num_layers),
            seconds=time.perf_counter() - started,
            warnings=_warnings(messages),
        )


def _parsed(builder: Any, found: Library, model: ModelProto, name: str) -> tuple[Any, Any]:
    """Return TensorRT's network of a graph, and the parser that made it.

    Raises ``GraphError`` if TensorRT does not support a node.
    """
    network = builder.create_network(_strongly_typed(found.trt))
    parser = found.trt.OnnxParser(network, found.log.logger)
    if not parser.parse(model.SerializeToString()):
        raise _unparsed(parser, model, name, found)
    return network, parser


def _warnings(messages: Iterable[Message]) -> tuple[str, ...]:
    """Return the texts of warnings and errors that a user should see, each once."""
    texts: list[str] = []
    for message in messages:
        is_harmless = any(known in message.text for known in _HARMLESS)
        if message.severity in _LOUD and not is_harmless:
            texts.append(reason_of(message.text))
    return tuple(dict.fromkeys(texts))


def _unbuilt(name: str, found: Library) -> EngineError:
    """Return the error for a graph that TensorRT takes, but cannot build."""
    reason = found.log.last_error() or "no reason given"
    hint = "Try another `precision`, fewer GPUs in `sm`, a larger `workspace_mib`, or `target=cpu`."
    if "Turing" in reason:
        # Turing multiplies no FP32 matrices, and INT8 ones only with FP16 scales.
        hint = (
            "Leave 75 (RTX 20) out of `sm`; or build in fp16, if no matrix product stays in FP32."
        )
    if "nvinfer_lean" in reason:
        # A version-compatible plan contains the lean runtime.
        command = f"sudo apt install libnvinfer-lean{found.version.split('.')[0]}"
        hint = f"Install TensorRT's lean runtime ({command}), or leave `version_compatible` out."
    return EngineError(f"{name}: {found.target} cannot build the engine", got=reason, hint=hint)


# -- plugins ---------------------------------------------------------------------------------------

# Libraries that the whole process knows, by target.
_LOADED: set[tuple[str, Path]] = set()

# Libraries that only a builder knows. Layers that it made may outlive the builder, so the libraries
# stay loaded.
_KEPT: list[ctypes.CDLL] = []


def load_plugin(found: Library, path: Path, builder: Any = None) -> None:
    """Load a plugin library into TensorRT, once per process, so that its operators are known.

    Nothing is loaded if TensorRT knows the operators already: the application may have loaded them.

    Parameters
    ----------
    found : the imported TensorRT.
    path : the plugin library.
    builder : load it into this builder only. TensorRT opens no plan that contains a library whose
        operators the process already knows.

    Raises
    ------
    EngineError : TensorRT cannot load it.
    """
    if (found.target, path) in _LOADED:
        return

    owner = found.trt if builder is None else builder
    registry = owner.get_plugin_registry()
    if registry is None:
        raise EngineError(
            f"{path}: {found.target} cannot load the plugin", got="no registry of plugins"
        )
    with _recorded(found, registry) as errors:
        if not _knows_operators(registry):
            errors.clear()
            known = len(found.log.messages)
            handle = registry.load_library(str(path))
            reason = reason_of(errors[0]) if errors else found.log.last_error(since=known)
            if handle is None:
                raise EngineError(
                    f"{path}: {found.target} cannot load the plugin",
                    got=reason or "no reason given",
                    hint="Build it again: `build_plugin()`.",
                )

    if builder is None:
        _LOADED.add((found.target, path))
    else:
        _KEPT.append(ctypes.CDLL(str(path)))


def _knows_operators(registry: Any) -> bool:
    """Return True if a registry has all operators of the plugin.

    ``load_library`` returns ``None`` for operators that are there already, as if it had failed.
    """
    creators = [registry.get_creator(name, _PLUGIN_VERSION, "") for name in _PLUGIN_OPERATORS]
    return all(creator is not None for creator in creators)


@contextlib.contextmanager
def _recorded(found: Library, registry: Any) -> Iterator[list[str]]:
    """Yield the list of errors that a registry reports while the context is open.

    What it also logs is not kept: to TensorRT it is an error that an operator is unknown.
    """
    recorder = _recorder(found.trt)
    errors: list[str] = recorder.errors
    before = registry.error_recorder
    known = len(found.log.messages)
    registry.error_recorder = recorder
    try:
        yield errors
    finally:
        registry.error_recorder = before
        del found.log.messages[known:]


def _recorder(trt: Any) -> Any:
    """Return an error recorder for TensorRT, with the list ``errors`` of what it was told."""

    class Recorder(trt.IErrorRecorder):  # type: ignore[misc]
        """Keep the texts of errors; none of them ends what TensorRT does."""

        def __init__(self) -> None:
            trt.IErrorRecorder.__init__(self)
            self.errors: list[str] = []

        def report_error(self, code: Any, text: str) -> bool:
            self.errors.append(text)
            return False

        def clear(self) -> None:
            self.errors.clear()

        def num_errors(self) -> int:
            return len(self.errors)

        def get_error_code(self, index: int) -> Any:
            return trt.ErrorCodeTRT.UNSPECIFIED_ERROR

        def get_error_desc(self, index: int) -> str:
            return self.errors[index]

        def has_overflowed(self) -> bool:
            return False

    return Recorder()


def plugin_is_loaded() -> bool:
    """Return True if ``load_plugin`` loaded a library for the whole process."""
    return bool(_LOADED)


# -- configuration ---------------------------------------------------------------------------------


def _strongly_typed(trt: Any) -> int:
    """Return the flags of a strongly typed network.

    The bit is taken by name: TensorRT 10 and 11 number it differently, and the number of 10 means
    something else in 11.
    """
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _capabilities(found: Library, options: PlanOptions) -> tuple[int, ...]:
    """Return the compute capabilities to build for ahead of time.

    If empty, the plan is for the GPU of this machine, or portable (TensorRT-RTX).
    """
    if found.target != RTX:
        if options.sm:
            raise InputError(
                "a TensorRT engine is built on the GPU it runs on",
                got=f"`sm={','.join(map(str, options.sm))}`",
                hint=f"Build there; or ahead of time with `target={RTX}`.",
            )
        return ()

    known = [sm for sm in GPUS if hasattr(found.trt.ComputeCapability, f"SM{sm}")]
    unknown = [sm for sm in options.sm if sm not in known]
    if unknown:
        raise InputError(
            f"{RTX} {found.version} does not build for these GPUs",
            got=", ".join(map(str, unknown)),
            expected=", ".join(f"{sm} ({GPUS[sm]})" for sm in known),
        )
    return tuple(sorted(set(options.sm)))


def _require_gpu(name: str) -> None:
    """Raise ``EngineError`` if there is no GPU to build on."""
    if has_gpu():
        return
    raise EngineError(
        f"{name}: a TensorRT engine is built on the GPU it runs on, and there is none here",
        got=why_no_gpu(),
        hint=gpu_hint()
        or f"Build on the device; or ahead of time with `target={RTX}`; or use `target=cpu`.",
    )


def _config(
    builder: Any, found: Library, options: PlanOptions, sm: Sequence[int], *, tf32: bool
) -> Any:
    """Return TensorRT's configuration of the build."""
    trt = found.trt
    config = builder.create_builder_config()
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.level is not None:
        config.builder_optimization_level = options.level

    # The profiler needs the names of layers; they cost no time when the plan runs.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED

    if not tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        # A TensorRT-RTX plan that allocates while it runs cannot be captured in a CUDA graph.
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)

    if sm:
        config.num_compute_capabilities = len(sm)
        for place, capability in enumerate(sm):
            value = getattr(trt.ComputeCapability, f"SM{capability}")
            config.set_compute_capability(value, place)
    return config


def _make_compatible(config: Any, parser: Any, found: Library, plugin: Path | None) -> None:
    """Let later versions open the plan, and put the libraries that it needs into it."""
    config.set_flag(found.trt.BuilderFlag.VERSION_COMPATIBLE)
    libraries = list(parser.get_used_vc_plugin_libraries())
    if plugin is not None:
        libraries.append(str(plugin))
    config.plugins_to_serialize = libraries


def _timing_cache(config: Any, found: Library, options: PlanOptions) -> Any:
    """Give the file of measured tactics to the build; return TensorRT's cache, or ``None``.

    Raises ``InputError`` if the file cannot be used. It is not overwritten then.
    """
    path = options.timing_cache
    if path is None:
        return None

    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{path}: cannot be read as a timing cache", got=reason, hint=_OTHER_CACHE
        ) from error

    # TensorRT returns no cache for bytes that are none, or logs an error about them.
    known = len(found.log.messages)
    cache = config.create_timing_cache(data)
    if cache is None or found.log.last_error(since=known):
        got = found.log.last_error(since=known) or "another file, or a damaged one"
        raise InputError(f"{path}: is no timing cache", got=got, hint=_OTHER_CACHE)
    if not config.set_timing_cache(cache, False):
        raise InputError(f"{path}: is a timing cache of another GPU or TensorRT", hint=_OTHER_CACHE)
    return cache


def _write_timing_cache(config: Any, path: Path) -> None:
    """Write the tactics that were measured, old ones included."""
    from edgeseg.files import write_bytes

    write_bytes(path, bytes(memoryview(config.get_timing_cache().serialize())))


def _monitor(trt: Any, reporter: Reporter) -> Any:
    """Return TensorRT's progress monitor, which reports each phase as a task."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Report the steps of all phases. A phase may finish before its last step."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}
            self.done: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps
            self._report(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._report(phase_name, step + 1)
            return True

        def phase_finish(self, phase_name: str) -> None:
            total = self.steps.get(phase_name, 0)
            if self.done.get(phase_name) != total:
                self._report(phase_name, total)
            self.steps.pop(phase_name, None)
            self.done.pop(phase_name, None)

        def _report(self, phase_name: str, done: int) -> None:
            self.done[phase_name] = done
            reporter.progress(f"build: {phase_name}", done, self.steps.get(phase_name, 0))

    return Monitor()


# -- graphs that the parser does not take ----------------------------------------------------------


def _unparsed(parser: Any, model: ModelProto, name: str, found: Library) -> GraphError:
    """Return the parser's first error, with the node that it names and advice."""
    if not parser.num_errors:
        reason = found.log.last_error() or "no reason"
        return GraphError(f"{name}: {found.target} cannot read the graph", got=reason)

    # Find the node and the layer of the model that it comes from.
    error = parser.get_error(0)
    index = int(error.node())
    node: NodeProto | None = None
    where = f"node {index}"
    if 0 <= index < len(model.graph.node):
        node = model.graph.node[index]
        where = f"{node.op_type} node {node.name or node.output[0]!r}"
    layer = _source_layer(node)
    if layer:
        where += f" of layer {layer}"
    if parser.num_errors > 1:
        where += f" (and {parser.num_errors - 1} more)"

    reason = re.sub(r"\s+", " ", str(error.desc())).strip()[:300]
    return GraphError(
        f"{name}: {found.target} {found.version} cannot take {where}",
        got=reason,
        hint=_advice(node, reason),
    )


def _source_layer(node: NodeProto | None) -> str:
    """Return the PyTorch module that a node was exported from; empty if the file does not say."""
    scopes = ""
    for entry in getattr(node, "metadata_props", ()):
        if entry.key == _SCOPE:
            scopes = entry.value
            break

    path: Any = None
    with contextlib.suppress(ValueError, SyntaxError):
        path = ast.literal_eval(scopes)
    if not isinstance(path, list) or len(path) < 2:
        return ""
    return str(path[-2])  # the last one is the node's own


def _advice(node: NodeProto | None, reason: str) -> str:
    """Return what to do about a node that TensorRT does not take, by the text of its error."""
    if node is not None and node.domain not in ("", "ai.onnx"):
        what = f"{node.op_type} is of the domain {node.domain!r}, no standard operator"
        return f"{what}: export the net without it."
    if re.search(r"zero.?point", reason, re.I):
        return "TensorRT takes only symmetric INT8: build the float file with `precision=int8`."

    about_types = re.search(r"type|float|half|int8", reason, re.I)
    if about_types and re.search(r"mismatch|same|must|expect", reason, re.I):
        return "TensorRT does not mix these types: try `precision=fp32`, to see if a cast is wrong."
    if re.search(r"no importer|not supported|unsupported|plugin", reason, re.I):
        return "TensorRT lacks this operator: export the net without it; `target=cpu` may run it."
    return "Export the net with fixed sizes and opset 17 to 20; `target=cpu` may run it as it is."


# -- NVIDIA's tool ---------------------------------------------------------------------------------


def trtexec(
    plan: str,
    graph: str,
    target: str,
    options: PlanOptions,
    sm: Sequence[int],
    plugin: Path | None = None,
    shapes: Shapes = (),
    *,
    tf32: bool = True,
) -> tuple[str, str]:
    """Return the commands of NVIDIA's trtexec that build the same plan, and that time it.

    Parameters
    ----------
    plan, graph : file names of the plan and of the graph.
    target : ``tensorrt`` or ``tensorrt-rtx``.
    options : options of the build.
    sm : compute capabilities that the plan is built for ahead of time.
    plugin : library with operators of the graph.
    shapes : smallest, best and largest shape of ``frame``, as for ``build_plan``. The best one is
        timed.
    tf32 : as for ``build_plan``.

    Examples
    --------
    >>> build, run = trtexec("e.engine", "e.graph.onnx", "tensorrt", PlanOptions(level=3), ())
    >>> run
    'trtexec --loadEngine=e.engine --useCudaGraph --noDataTransfers'
    """
    program = "tensorrt_rtx" if target == RTX else _trtexec_program()
    build = [program, f"--onnx={graph}", f"--saveEngine={plan}", "--skipInference"]
    run = [program, f"--loadEngine={plan}", "--useCudaGraph", "--noDataTransfers"]
    build += _build_flags(target, options, sm)
    if not tf32:
        build.append("--noTF32")

    if shapes:
        ranges = ["frame:" + "x".join(map(str, shape)) for shape in shapes]
        for which, text in zip(("min", "opt", "max"), ranges, strict=True):
            build.append(f"--{which}Shapes={text}")
        run.append(f"--shapes={ranges[1]}")

    # A version-compatible plan contains the plugin. The flag that builds such a plan also lets the
    # code in it run.
    if options.version_compatible:
        build.append("--versionCompatible")
        run.append("--versionCompatible")
    if plugin is not None:
        build.append(f"--dynamicPlugins={plugin}")
        if options.version_compatible:
            build.append(f"--setPluginsToSerialize={plugin}")
        else:
            run.append(f"--dynamicPlugins={plugin}")
    return shlex.join(build), shlex.join(run)


def _trtexec_program() -> str:
    """Return trtexec's name; its path if it is not on PATH, but where JetPack puts it."""
    if shutil.which("trtexec") is None and _TRTEXEC.is_file():
        return str(_TRTEXEC)
    return "trtexec"


def _build_flags(target: str, options: PlanOptions, sm: Sequence[int]) -> list[str]:
    """Return trtexec's flags for the options of a build."""
    flags: list[str] = []
    if target == TENSORRT:
        flags.append("--stronglyTyped")
    if options.workspace_mib is not None:
        flags.append(f"--memPoolSize=workspace:{options.workspace_mib}M")
    if options.level is not None:
        flags.append(f"--builderOptimizationLevel={options.level}")
    if options.timing_cache is not None:
        flags.append(f"--timingCacheFile={options.timing_cache}")
    if sm:
        flags.append("--computeCapabilities=" + ",".join(map(str, sm)))
    return flags
