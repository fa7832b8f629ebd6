"""An ONNX graph to a TensorRT plan. The plan stays as TensorRT writes it: trtexec and DeepStream load it too."""

import ast
import ctypes
import re
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto, NodeProto

from edgeseg.backends.base import PlanOptions
from edgeseg.backends.tensorrt.bindings import RTX, TENSORRT, Library, library
from edgeseg.backends.tensorrt.cuda import has_gpu, why_no_gpu
from edgeseg.errors import EngineError, GraphError, InputError

# Compute capabilities that TensorRT-RTX builds for ahead of time, and what they are.
GPUS = {75: "RTX 20", 80: "A100", 86: "RTX 30", 89: "RTX 40", 120: "RTX 50", 121: "DGX Spark"}
_LOUD = ("error", "warning")
_HARMLESS = (
    "differs from one already registered",  # an application had TensorRT before us: no fault of the net
    "Empty initializer",  # what Resize did not let one leave out before opset 13
)
_SCOPE = "pkg.torch.onnx.name_scopes"  # where PyTorch's exporter says which module a node comes from


@dataclass(frozen=True)
class Plan:
    """A serialized engine and what is known of it. ``sm`` is empty where no compute capabilities were given."""

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
    shapes: Sequence[Sequence[int]] = (),
    on_step: Callable[[str, int, int], None] | None = None,
) -> Plan:
    """Compile ``model``, a deployed graph whose types say its precision, strongly typed.

    ``plugin`` is a library with operators of the graph. ``shapes`` are the least, best and largest of ``frame``, where
    some of its sizes are free. ``on_step`` is told (phase, step, steps). Raises
    ``MissingDependencyError`` without the library, ``InputError`` for options the target lacks, ``GraphError`` naming
    the node TensorRT cannot take, and ``EngineError`` where it takes the graph and fails to build it.
    """
    options = options or PlanOptions()
    found = library(target)
    trt, started = found.trt, time.perf_counter()
    sm = _capabilities(found, options)
    if target == TENSORRT:
        _require_gpu(name)
    with found.log.heard() as said:
        builder = trt.Builder(found.log.logger)
        if builder is None:  # TensorRT's Python module gives None where its own constructor failed
            raise EngineError(f"{found.target} does not start", got=found.log.last_error() or "no reason given")
        if plugin is not None:
            load_plugin(found, plugin, builder if options.version_compatible else None)
        network = builder.create_network(_strongly_typed(trt))
        parser = trt.OnnxParser(network, found.log.logger)
        if not parser.parse(model.SerializeToString()):
            raise _unparsed(parser, model, name, found)
        config = _config(builder, found, options, sm)
        if options.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
            ours = [] if plugin is None else [str(plugin)]
            config.plugins_to_serialize = [*parser.get_used_vc_plugin_libraries(), *ours]
        if shapes:
            profile = builder.create_optimization_profile()
            profile.set_shape("frame", *map(tuple, shapes))
            config.add_optimization_profile(profile)
        if on_step is not None:
            config.progress_monitor = _monitor(trt, on_step)
        cache = _timing_cache(config, options) if target == TENSORRT else None
        serialized = builder.build_serialized_network(network, config)
        if serialized is None:
            raise _unbuilt(name, found)
        if cache is not None and options.timing_cache is not None:
            from edgeseg.files import write_bytes

            write_bytes(options.timing_cache, bytes(memoryview(config.get_timing_cache().serialize())))
        loud = (m.text.strip() for m in said if m.severity in _LOUD and not any(h in m.text for h in _HARMLESS))
        warnings = tuple(dict.fromkeys(loud))
        layers = int(network.num_layers)
    return Plan(
        bytes(memoryview(serialized)), found.target, found.version, sm, layers, time.perf_counter() - started, warnings
    )


def _unbuilt(name: str, found: Library) -> EngineError:
    reason = found.log.last_error() or "no reason given"
    hint = "Try another `precision`, fewer GPUs in `sm` or a larger `workspace_mib`; or build with `target=cpu`."
    if "Turing" in reason:  # it multiplies no FP32 matrices, and INT8 ones by FP16 scales alone
        hint = "Leave 75 (RTX 20) out of `sm`; or build in fp16, where the net has no matrix products kept in FP32."
    if "nvinfer_lean" in reason:  # the runtime that a version-compatible plan has inside
        package = f"libnvinfer-lean{found.version.split('.')[0]}"
        hint = f"Install TensorRT's lean runtime (sudo apt install {package}), or leave `version_compatible` out."
    return EngineError(f"{name}: {found.target} cannot build the engine", got=reason, hint=hint)


_LOADED: set[tuple[str, Path]] = set()
_KEPT: list[ctypes.CDLL] = []  # libraries of builders: layers made by them may outlive the builder


def load_plugin(found: Library, path: Path, builder: Any = None) -> None:
    """Make a plugin library's operators known to TensorRT in this process, once. Raises ``EngineError``.

    With ``builder`` known to it alone: TensorRT opens no plan that has a library inside whose operators the process
    knows.
    """
    if (found.target, path) in _LOADED:
        return
    with found.log.heard():
        registry = found.trt.get_plugin_registry() if builder is None else builder.get_plugin_registry()
        if registry.load_library(str(path)) is None:
            raise EngineError(
                f"{path}: {found.target} cannot load the plugin", got=found.log.last_error() or "no reason given",
                hint="Build it again: `build_plugin()`.",
            )  # fmt: skip
    if builder is None:
        _LOADED.add((found.target, path))
    else:
        _KEPT.append(ctypes.CDLL(str(path)))


def plugin_is_loaded() -> bool:
    """Whether ``load_plugin`` made a library known to the whole process."""
    return bool(_LOADED)


def _strongly_typed(trt: Any) -> int:
    """The network's flags. By name: the bit is another in TensorRT 10 than in 11, where it means something else."""
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _capabilities(found: Library, options: PlanOptions) -> tuple[int, ...]:
    """What to build for ahead of time; empty: for the GPU that is here, or portably (TensorRT-RTX)."""
    if found.target != RTX:
        if options.sm:
            raise InputError(
                "a TensorRT engine is built on the GPU it runs on",
                got=f"`sm={','.join(map(str, options.sm))}`",
                hint=f"Build there; or ahead of time with `target={RTX}`.",
            )
        return ()
    known = tuple(sm for sm in GPUS if hasattr(found.trt.ComputeCapability, f"SM{sm}"))
    unknown = [sm for sm in options.sm if sm not in known]
    if unknown:
        listed = ", ".join(f"{sm} ({GPUS[sm]})" for sm in known)
        raise InputError(
            f"{RTX} {found.version} does not build for these GPUs", got=", ".join(map(str, unknown)), expected=listed
        )
    return tuple(sorted(set(options.sm)))


def _require_gpu(name: str) -> None:
    if not has_gpu():
        raise EngineError(
            f"{name}: a TensorRT engine is built on the GPU it runs on, and there is none here",
            got=why_no_gpu(),
            hint=f"Build on the device; or ahead of time with `target={RTX}`; or for this CPU with `target=cpu`.",
        )


def _config(builder: Any, found: Library, options: PlanOptions, sm: Sequence[int]) -> Any:
    trt = found.trt
    config = builder.create_builder_config()
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.level is not None:
        config.builder_optimization_level = options.level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # layer names for the profiler; costs nothing to run
    if sm:
        config.num_compute_capabilities = len(sm)
        for place, capability in enumerate(sm):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability}"), place)
    return config


def _timing_cache(config: Any, options: PlanOptions) -> Any:
    if options.timing_cache is None:
        return None
    path = options.timing_cache
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if not config.set_timing_cache(cache, False):
        raise InputError(f"{path}: is a timing cache of another GPU or TensorRT", hint="Delete it, or give another.")
    return cache


def _monitor(trt: Any, on_step: Callable[[str, int, int], None]) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps
            on_step(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            on_step(phase_name, step + 1, self.steps.get(phase_name, 0))
            return True

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    return Monitor()


# -- what the parser cannot take ---------------------------------------------------------------------------------------


def _unparsed(parser: Any, model: ModelProto, name: str, found: Library) -> GraphError:
    """The parser's first error, about the node it names, with what to do."""
    if not parser.num_errors:
        return GraphError(f"{name}: {found.target} cannot read the graph", got=found.log.last_error() or "no reason")
    error = parser.get_error(0)
    index = int(error.node())
    node = model.graph.node[index] if 0 <= index < len(model.graph.node) else None
    others = f" (and {parser.num_errors - 1} more)" if parser.num_errors > 1 else ""
    where = f"node {index}" if node is None else f"{node.op_type} node {node.name or node.output[0]!r}"
    layer = _source_layer(node)
    reason = re.sub(r"\s+", " ", str(error.desc())).strip()[:300]
    return GraphError(
        f"{name}: {found.target} {found.version} cannot take {where}{f' of layer {layer}' if layer else ''}{others}",
        got=reason,
        hint=_advice(node, reason),
    )


def _source_layer(node: NodeProto | None) -> str:
    """The PyTorch module a node was exported from, where the file says so."""
    scopes = next((p.value for p in getattr(node, "metadata_props", ()) if p.key == _SCOPE), "")
    try:
        path = ast.literal_eval(scopes) if scopes else []
    except (ValueError, SyntaxError):
        return ""
    return str(path[-2]) if isinstance(path, list) and len(path) > 1 else ""  # the last is the node's own


def _advice(node: NodeProto | None, reason: str) -> str:
    if node is not None and node.domain not in ("", "ai.onnx"):
        return f"{node.op_type} is of the domain {node.domain!r}, no standard operator: export without it."
    if re.search(r"zero.?point", reason, re.I):
        return "TensorRT takes symmetric INT8 only: quantize like that, or build the float file with `precision=int8`."
    about_types = re.search(r"type|float|half|int8", reason, re.I)
    if about_types and re.search(r"mismatch|same|must|expect", reason, re.I):
        return "TensorRT does not mix the types there: build with `precision=fp32` to see whether a cast is the cause."
    if re.search(r"no importer|not supported|unsupported|plugin", reason, re.I):
        return "TensorRT lacks the operator in this form: export the net without it; `target=cpu` may run it as it is."
    return "Export the net with fixed sizes and opset 17 to 20; `target=cpu` may run it as it is."


def trtexec(
    plan: str,
    graph: str,
    target: str,
    options: PlanOptions,
    sm: Sequence[int],
    plugin: Path | None = None,
    shapes: Sequence[Sequence[int]] = (),
) -> tuple[str, str]:
    """The commands of NVIDIA's tool that build the same plan from the same graph, and that time the plan.

    ``shapes`` as for ``build_plan``; what is timed is the best.
    """
    program = "tensorrt_rtx" if target == RTX else "trtexec"
    words = [program, f"--onnx={graph}", f"--saveEngine={plan}", "--skipInference"]
    if target == TENSORRT:
        words.append("--stronglyTyped")
    if options.workspace_mib is not None:
        words.append(f"--memPoolSize=workspace:{options.workspace_mib}M")
    if options.level is not None:
        words.append(f"--builderOptimizationLevel={options.level}")
    if options.timing_cache is not None:
        words.append(f"--timingCacheFile={options.timing_cache}")
    if sm:
        words.append("--computeCapabilities=" + ",".join(map(str, sm)))
    run = [program, f"--loadEngine={plan}", "--useCudaGraph", "--noDataTransfers"]
    if shapes:
        said = ["frame:" + "x".join(map(str, shape)) for shape in shapes]
        words += [f"--{which}Shapes={shape}" for which, shape in zip(("min", "opt", "max"), said, strict=True)]
        run.append(f"--shapes={said[1]}")
    loads = [] if plugin is None else [f"--dynamicPlugins={plugin}"]
    if options.version_compatible:  # the plugin is inside; the same flag allows the plan's own code to run
        inside = [] if plugin is None else [f"--setPluginsToSerialize={plugin}"]
        return shlex.join([*words, "--versionCompatible", *loads, *inside]), shlex.join([*run, "--versionCompatible"])
    return shlex.join([*words, *loads]), shlex.join([*run, *loads])
