"""TensorRT as a target: the graph it is given, the plan it makes of it, and whether a plan fits where it is opened."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

from edgeseg.backends.base import (
    AUTO,
    LABELS,
    LABELS_AND_SCORES,
    NATIVE,
    ONE_FRAME,
    OUTPUTS,
    PLUGIN,
    SCORES,
    VERSION_COMPATIBLE,
    Backend,
    Built,
    PlanOptions,
    graph_file,
)
from edgeseg.backends.engine import Engine
from edgeseg.backends.proof import SAME_LABELS_BESIDE_FP16, Reference, failed, judge
from edgeseg.backends.tensorrt import cuda
from edgeseg.backends.tensorrt.bindings import RTX, TENSORRT, library, opens
from edgeseg.backends.tensorrt.builder import GPUS, Plan, build_plan, load_plugin, trtexec
from edgeseg.backends.tensorrt.kernels import open_library
from edgeseg.backends.tensorrt.profiles import check_profile, profile_for
from edgeseg.errors import EngineError, GraphError, InputError, MissingDependencyError
from edgeseg.files import sha256_bytes
from edgeseg.graph.lowering import LoweringOptions, lower, require_scores
from edgeseg.graph.network import Network
from edgeseg.graph.passes.dynamic_shapes import DynamicShapes, check_runs
from edgeseg.graph.passes.fp16 import activations, halve_ends, to_fp16
from edgeseg.graph.passes.unpool.plugin import is_plugin
from edgeseg.imaging.preprocess import resize_frame
from edgeseg.passport import Passport
from edgeseg.types import Image

FP32, FP16 = "fp32", "fp16"
PLUGIN_SOURCES = "plugin_sources_sha256"  # of a passport's settings: what the plugin was built from
PORTABLE = "portable"  # among a passport's features: from RTX 30 on, whatever the GPU
PROGRESS_S = 0.5
_OLDEST_PORTABLE = 80
_DRIVE = "synthetic://?length=8&seed=3"  # frames to look at where there are no others


class TensorRTBackend(Backend):
    """``tensorrt``: a plan for the GPU it is built on."""

    name, floats, keeps_graph = TENSORRT, (FP32, FP16), True

    def best_precision(self) -> str:
        return FP16

    def check_options(self, options: PlanOptions) -> None:
        self.check_unpool(options)
        check_profile(options)
        if options.kernels and (options.batch != ONE_FRAME or options.sizes):
            raise InputError(
                "edgeseg's kernels bring a frame of any size to the net's", got="`kernels` with `batch` or `sizes`",
                expected="one of them",
            )  # fmt: skip

    def check_network(self, network: Network, options: PlanOptions) -> None:
        profile_for(network, options)
        if options.scores or options.kernels:
            require_scores(network, "kernels" if options.kernels else "scores")

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
        """A plan of the graph with its precision written into it."""
        library(self.name)  # a library that is missing is told before the work
        plugin = self._plugin(network, options, say)
        ranges = profile_for(network, options)
        shapes = ranges.shapes(network.spec.input_size) if ranges.any else ()
        size = ranges.dynamic.sizes[1] if ranges.dynamic and ranges.dynamic.sizes else network.spec.input_size
        fitted = None if frames is None else [resize_frame(frame, size) for frame in frames]  # seen twice, maybe

        def planned(plugin: Path | None) -> tuple[ModelProto, dict[str, str], Plan]:
            model, form = graph_for(
                network,
                precision,
                fitted,
                say,
                plugin=plugin is not None,
                scores=options.scores,
                dynamic=ranges.dynamic,
                kernels=options.kernels,
            )
            step = _now_and_then(say)
            plan = build_plan(model, network.name, self.name, options, plugin=plugin, shapes=shapes, on_step=step)
            return model, form, plan

        if options.kernels:
            _tell_missing_kernels(say)
        try:
            model, form, plan = planned(plugin)
        except (GraphError, EngineError) as error:
            if plugin is None or options.unpool == PLUGIN or not cuda.has_gpu():
                raise
            say(f"unpooling by standard operators, for {self.name} does not build with the plugin: {error}")
            plugin = None
            model, form, plan = planned(None)
        data = model.SerializeToString()
        for warning in plan.warnings:
            say(f"warning: {self.name}: {warning}")
        device, features = self._built_for(plan.sm)
        build, run = trtexec(final.name, graph_file(final).name, self.name, options, plan.sm, plugin, shapes)
        settings = {
            "workspace_mib": str(options.workspace_mib or ""),
            "level": str("" if options.level is None else options.level),
            "layers": str(plan.layers),
            "warnings": "; ".join(plan.warnings),
            OUTPUTS: SCORES if options.kernels else LABELS_AND_SCORES if options.scores else LABELS,
            "trtexec_build": build,
            "trtexec_run": run,
            **ranges.settings(),
        }
        if options.version_compatible:
            settings[VERSION_COMPATIBLE] = "yes"
        form |= {"graph_sha256": sha256_bytes(data)}
        if plugin is not None:
            from edgeseg.backends.tensorrt.plugin.build import sources_sha256

            settings |= {"plugin": plugin.name, PLUGIN_SOURCES: sources_sha256()}
        return Built(plan.data, self.name, plan.version, device, features, settings, form, data)

    def _plugin(self, network: Network, options: PlanOptions, say: Callable[[str], None]) -> Path | None:
        """The library to unpool with: the built one, where it was asked for or the net has something to unpool."""
        from edgeseg.backends.tensorrt.plugin.build import plugin_library

        if PLUGIN not in self.unpools or options.unpool == NATIVE:
            return None
        version = library(self.name).version
        if options.unpool == PLUGIN:
            return plugin_library(tensorrt=version)
        if not lower(network, LoweringOptions(for_openvino=False, plugin=True)).uses_plugin:
            return None
        try:
            return plugin_library(tensorrt=version)
        except (MissingDependencyError, EngineError) as error:
            say(f"unpooling by standard operators: {error}")
            return None

    def _built_for(self, sm: tuple[int, ...]) -> tuple[str, tuple[str, ...]]:
        """The device and its features, for the passport."""
        name, capability = cuda.device()
        return name, (f"sm{capability}",)

    def fingerprint(self) -> tuple[str, ...]:
        return (library(self.name).version, *(map(str, cuda.device()) if cuda.has_gpu() else ("no GPU",)))

    def check(self, path: Path, passport: Passport, rebuild: str) -> None:
        version = library(self.name).version
        compatible = VERSION_COMPATIBLE in passport.settings
        if not (opens(passport.library_version, version) if compatible else passport.library_version == version):
            older = f"{version.split('.')[0]}.x up to {version}, for a plan built with `version_compatible`"
            raise EngineError(
                f"{path}: was built with another {self.name}", got=passport.library_version,
                expected=older if compatible else version, hint=rebuild,
            )  # fmt: skip
        if not cuda.has_gpu():
            raise EngineError(
                f"{path}: is a {self.name} engine and needs an NVIDIA GPU", got=cuda.why_no_gpu(),
                hint=f"Run it where there is one; or build for this CPU: `build_engine({passport.name}.onnx)`.",
            )  # fmt: skip
        name, capability = cuda.device()
        features = set(passport.device_features)
        self._check_plugin(path, passport, rebuild)
        if self._is_for(capability, features):
            return
        listed = ", ".join(_gpu(f) for f in passport.device_features)
        raise EngineError(
            f"{path}: was built for {listed}", got=f"{name} (compute capability {capability / 10:.1f})", hint=rebuild
        )

    def _check_plugin(self, path: Path, passport: Passport, rebuild: str) -> None:
        wanted = passport.settings.get(PLUGIN_SOURCES)
        if wanted is None or VERSION_COMPATIBLE in passport.settings:  # the plan has it inside
            return
        from edgeseg.backends.tensorrt.plugin.build import plugin_library, sources_sha256

        plugin_library(tensorrt=library(self.name).version)  # there, whole, and of these sources
        if (found := sources_sha256()) != wanted:
            raise EngineError(
                f"{path}: was built with another edgeseg's {passport.settings.get('plugin')}",
                got=found[:12], expected=wanted[:12], hint=rebuild,
            )  # fmt: skip

    def why_unproven(self) -> str:
        return "" if cuda.has_gpu() else f"no GPU to run the plan on: {cuda.why_no_gpu()}"

    @staticmethod
    def _is_for(capability: int, features: Collection[str]) -> bool:
        """Return whether a plan for ``features`` runs on a GPU of this compute capability (86: 8.6)."""
        return f"sm{capability}" in features or (PORTABLE in features and capability >= _OLDEST_PORTABLE)

    def prove(self, passport: Passport, built: Built, known: Reference, say: Callable[[str], None]) -> dict[str, Any]:
        """Label the reference's frames by the plan, on the device that built it; without a device nothing is proven."""
        capability = cuda.device()[1]
        if not self._is_for(capability, built.device_features):
            return {"skipped": f"the plan is not for this GPU (compute capability {capability / 10:.1f})"}
        engine = self.open(passport, built.data)
        verdict = judge(known, engine, passport.precision, SAME_LABELS_BESIDE_FP16)
        if not verdict.passed:
            runtimes = [f"{self.name} {built.library_version}", known.runtime]
            raise failed(passport.name, passport.precision, verdict, runtimes)
        return known.to_dict() | verdict.to_dict()

    def open(self, passport: Passport, data: bytes) -> Engine:
        from edgeseg.backends.tensorrt.engine import TensorRTEngine
        from edgeseg.backends.tensorrt.frame_engine import FrameEngine

        found = library(self.name)
        if PLUGIN_SOURCES in passport.settings and VERSION_COMPATIBLE not in passport.settings:
            from edgeseg.backends.tensorrt.plugin.build import plugin_library

            load_plugin(found, plugin_library(tensorrt=found.version))
        if passport.settings.get(OUTPUTS) == SCORES:
            return FrameEngine(passport, data, found, open_library(_kernels(passport)))
        return TensorRTEngine(passport, data, found)


class TensorRTRTXBackend(TensorRTBackend):
    """``tensorrt-rtx``: a plan for several GPUs, built without one and finished where it is opened."""

    name = RTX
    unpools = (AUTO, NATIVE)

    def check_options(self, options: PlanOptions) -> None:
        super().check_options(options)
        if options.timing_cache is not None:
            raise InputError(
                f"the {self.name} target measures nothing when it builds", got="`timing_cache`",
                hint="Leave it out; kernels are chosen where the plan is opened.",
            )  # fmt: skip
        if options.version_compatible:
            raise InputError(
                f"the {self.name} target's plans are for the version that built them", got="`version_compatible`",
                hint=f"Leave it out; or build for one GPU with `target={TENSORRT}`.",
            )  # fmt: skip

    def _built_for(self, sm: tuple[int, ...]) -> tuple[str, tuple[str, ...]]:
        if not sm:
            return "any RTX GPU from the RTX 30 on", (PORTABLE,)
        return ", ".join(f"{GPUS[s]} (sm{s})" for s in sm), tuple(f"sm{s}" for s in sm)

    def fingerprint(self) -> tuple[str, ...]:
        return (library(self.name).version, PORTABLE)


def _tell_missing_kernels(say: Callable[[str], None]) -> None:
    """An engine may be built where its kernels are not; opening it there is another matter."""
    from edgeseg.backends.tensorrt.plugin.build import plugin_library

    try:
        plugin_library()
    except (MissingDependencyError, EngineError) as error:
        say(f"the engine is built, but cannot be opened here yet: {error}")


def _kernels(passport: Passport) -> Path:
    """The library whose kernels stand around a plan; any TensorRT's headers will do for those."""
    from edgeseg.backends.tensorrt.plugin.build import plugin_library

    try:
        return plugin_library()
    except MissingDependencyError as error:
        raise MissingDependencyError(
            f"{passport.name}: was built with `kernels`, which edgeseg's CUDA library has, and that is not here",
            expected=error.expected, hint=error.hint,
        ) from error  # fmt: skip


BACKENDS: tuple[Backend, ...] = (TensorRTBackend(), TensorRTRTXBackend())


def _now_and_then(say: Callable[[str], None]) -> Callable[[str, int, int], None]:
    """Tell how far a build is, as often as somebody would look."""
    last = time.monotonic()

    def on_step(phase: str, step: int, steps: int) -> None:
        nonlocal last
        if time.monotonic() - last >= PROGRESS_S:
            last = time.monotonic()
            say(f"building: {phase} {step}/{steps}")

    return on_step


def _gpu(feature: str) -> str:
    if feature == PORTABLE:
        return "an RTX 30 or newer"
    sm = int(feature.removeprefix("sm"))
    return f"compute capability {sm / 10:.1f}" + (f" ({GPUS[sm]})" if sm in GPUS else "")


def graph_for(
    network: Network,
    precision: str,
    frames: Iterable[Image] | None,
    say: Callable[[str], None],
    *,
    plugin: bool = False,
    scores: bool = False,
    dynamic: DynamicShapes | None = None,
    kernels: bool = False,
) -> tuple[ModelProto, dict[str, str]]:
    """The graph TensorRT is given: uint8 frame in, uint8 labels out, its types saying its precision.

    In FP16, and where INT8 leaves layers in float, what FP16 cannot hold stays in FP32: ``frames`` are run to see
    (edgeseg's own drive, noise, black and white where there are none). ``plugin`` unpools by edgeseg's library where it
    can; ``scores`` gives (1, classes, H, W) float32 as well. ``dynamic`` says which of batch and sizes are left open:
    then the graph is run at both ends of its sizes, and frames are seen at the best. With ``kernels`` the graph is the
    net alone, from its ``tensor`` to its ``scores``, in FP16 where they are. Also returns what the passport says of it.
    """
    size = dynamic.sizes[1] if dynamic and dynamic.sizes else network.spec.input_size
    options = LoweringOptions(for_openvino=False, dynamic=dynamic)
    native = lower(network, options).model
    if dynamic:
        check_runs(native, network.name, size, dynamic)
    model = native
    if kernels:
        model = lower(network, LoweringOptions(for_openvino=False, plugin=plugin, bare=True)).model
    elif plugin or scores:
        model = lower(network, replace(options, plugin=plugin, both=scores)).model
    form = {"unpool": PLUGIN if any(is_plugin(n) for n in model.graph.node) else NATIVE}
    if precision == FP32:
        return labels_by_floats(model), form
    from edgeseg.quantize.histograms import collect

    given = [resize_frame(frame, size) for frame in frames] if frames is not None else []
    seen = given or list(_any_frames(size))
    names = activations(native)  # which ONNX Runtime runs; a tensor of both graphs has one name
    found = collect(native, names, (np.ascontiguousarray(frame)[None] for frame in seen))
    halved = to_fp16(model, dict(zip(found.tensors, map(float, found.largest), strict=True)))
    if kernels:
        halve_ends(halved.model)
    for node, why in halved.floats.items():
        say(f"{node} stays in FP32: {why}")
    source = "calibration frames" if given else "frames of the synthetic drive, noise, black and white"
    return labels_by_floats(halved.model), form | {
        "fp16_seen": f"{len(seen)} {source}",
        "fp32_nodes": ", ".join(halved.floats),
    }


def labels_by_floats(model: ModelProto) -> ModelProto:
    """Class ids become bytes by way of floats, which holds them: TensorRT promises conversions to UINT8 from float and
    half alone (``DataType::kUINT8`` in NvInferRuntimeBase.h). In place.
    """
    nodes = model.graph.node
    for place in reversed(range(len(nodes))):
        node = nodes[place]
        if node.op_type != "Cast" or helper.get_node_attr_value(node, "to") != TensorProto.UINT8:
            continue
        floats = f"{node.output[0]}/floats"
        nodes.insert(place, helper.make_node("Cast", [node.input[0]], [floats], floats, to=TensorProto.FLOAT))
        node = nodes[place + 1]
        node.input[0] = floats
    return model


def _any_frames(size: tuple[int, int]) -> Iterator[Image]:
    """(H, W, 3) uint8: two of the synthetic drive, noise, black, white."""
    from edgeseg.data import open_dataset

    drive = open_dataset(_DRIVE, "train")
    for index in (0, len(drive) - 1):
        yield resize_frame(drive[index].image, size)
    yield np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    for value in (0, 255):
        yield np.full((*size, 3), value, np.uint8)
