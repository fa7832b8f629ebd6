"""Implement the TensorRT targets: build plans, and check whether a plan fits where it is opened."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnx import ModelProto

from edgeseg.backends.base import (
    AUTO,
    NATIVE,
    ONE_FRAME,
    PLUGIN,
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
from edgeseg.backends.tensorrt.graphs import FP16, FP32, best_size, graph_for
from edgeseg.backends.tensorrt.kernels import open_library
from edgeseg.backends.tensorrt.profiles import Profile, check_profile, profile_for
from edgeseg.errors import EngineError, GraphError, InputError, MissingDependencyError
from edgeseg.facts import LABELS, LABELS_AND_SCORES, SCORES, TensorRTFacts
from edgeseg.files import sha256_bytes, sha256_file
from edgeseg.graph.attach_output import require_scores
from edgeseg.graph.lowering import LoweringOptions, lower
from edgeseg.graph.network import Network
from edgeseg.imaging.preprocess import resize_frame
from edgeseg.passport import Passport
from edgeseg.reporter import Reporter
from edgeseg.types import Image

PORTABLE = "portable"  # feature in a passport: the plan runs on every GPU from RTX 30 on
_OLDEST_PORTABLE = 80  # compute capability 8.0


@dataclass(frozen=True)
class _Work:
    """Hold what a build compiles.

    Attributes
    ----------
    network : a float network or a Q/DQ network.
    precision : ``fp32``, ``fp16``, or an INT8 one.
    frames : examples of frames, at the size that the plan is tuned for; ``None`` if there are none.
    options : options of the build.
    profile : the batches and sizes of the plan.
    """

    network: Network
    precision: str
    frames: list[Image] | None
    options: PlanOptions
    profile: Profile

    @property
    def tf32(self) -> bool:
        """Return True if FP32 layers may compute in TF32: not if the whole plan is FP32."""
        return self.precision != FP32

    @property
    def shapes(self) -> tuple[tuple[int, int, int, int], ...]:
        """Return the smallest, best and largest shape of ``frame``; empty if nothing is dynamic."""
        return self.profile.shapes(self.network.spec.input_size) if self.profile.any else ()


@dataclass(frozen=True)
class _Result:
    """Hold a plan, its graph, the facts about the graph, and the plugin that it needs, if any."""

    model: ModelProto
    facts: TensorRTFacts
    plan: Plan
    plugin: Path | None


class TensorRTBackend(Backend):
    """Build and open plans for the GPU that they are built on: the target ``tensorrt``.

    Examples
    --------
    >>> TensorRTBackend().check_precision("auto")
    'fp16'
    """

    name = TENSORRT
    floats = (FP32, FP16)
    keeps_graph = True

    def best_precision(self) -> str:
        """Return ``fp16``."""
        return FP16

    def check_options(self, options: PlanOptions) -> None:
        """Raise ``InputError`` if an option is invalid, or if two do not fit together.

        ``Backend.check_options`` describes the parameter.
        """
        self.check_unpool(options)
        check_profile(options)
        if options.kernels and (options.batch != ONE_FRAME or options.sizes):
            raise InputError(
                "edgeseg's kernels bring a frame of any size to the net's",
                got="`kernels` with `batch` or `sizes`",
                expected="one of them",
            )

    def check_network(self, network: Network, options: PlanOptions) -> None:
        """Raise an error if the network does not follow a dynamic size, or lacks logits.

        ``Backend.check_network`` describes the parameters.
        """
        profile_for(network, options)
        if options.kernels:
            require_scores(network, "kernels")
        elif options.scores:
            require_scores(network, "scores")

    # -- build -------------------------------------------------------------------------------------

    def compile(
        self,
        network: Network,
        precision: str,
        final: Path,
        options: PlanOptions,
        frames: Iterable[Image] | None,
        reporter: Reporter,
        known: Reference | None = None,
    ) -> Built:
        """Compile ``network`` to a plan. The precision is in the graph.

        ``Backend.compile`` describes the parameters; ``prove`` uses ``known``.
        """
        # Raise before the work if something is not installed that is needed after it.
        library(self.name)
        if self._runs_here(options):
            cuda.binding()

        # Prepare the work. The frames may be used twice.
        plugin = self._plugin(network, options, reporter)
        profile = profile_for(network, options)
        fitted: list[Image] | None = None
        if frames is not None:
            size = best_size(network, profile.dynamic)
            fitted = [resize_frame(frame, size) for frame in frames]
        work = _Work(network, precision, fitted, options, profile)
        if options.kernels:
            _report_missing_kernels(reporter)

        # Build with the plugin if there is one. If that fails, nobody asked for the plugin, and
        # there is a GPU, build without it.
        try:
            result = self._planned(work, plugin, reporter)
        except (GraphError, EngineError) as error:
            if plugin is None or options.unpool == PLUGIN or not cuda.has_gpu():
                raise
            reason = f"{self.name} does not build with the plugin: {error}"
            reporter.info(f"unpooling by standard operators, for {reason}")
            result = self._planned(work, None, reporter)

        for warning in result.plan.warnings:
            reporter.warning(f"{self.name}: {warning}")
        return self._built(work, result, final)

    def _planned(self, work: _Work, plugin: Path | None, reporter: Reporter) -> _Result:
        """Make the graph, and build the plan."""
        options = work.options
        model, facts = graph_for(
            work.network,
            work.precision,
            work.frames,
            reporter,
            plugin=plugin is not None,
            scores=options.scores,
            dynamic=work.profile.dynamic,
            kernels=options.kernels,
        )
        plan = build_plan(
            model,
            work.network.name,
            self.name,
            options,
            plugin=plugin,
            shapes=work.shapes,
            tf32=work.tf32,
            reporter=reporter,
        )
        return _Result(model, facts, plan, plugin)

    def _built(self, work: _Work, result: _Result, final: Path) -> Built:
        """Return a plan with the facts for its passport."""
        graph = result.model.SerializeToString()
        plan = result.plan
        device, features = self._built_for(plan.sm)
        return Built(
            data=plan.data,
            library=self.name,
            library_version=plan.version,
            device=device,
            device_features=features,
            facts=self._facts(work, result, final, graph),
            graph=graph,
        )

    def _facts(self, work: _Work, result: _Result, final: Path, graph: bytes) -> TensorRTFacts:
        """Return how the plan was compiled, for the passport."""
        options = work.options
        outputs = LABELS_AND_SCORES if options.scores else LABELS
        if options.kernels:
            outputs = SCORES

        graph_name = graph_file(final).name
        build, run = trtexec(
            final.name,
            graph_name,
            self.name,
            options,
            result.plan.sm,
            result.plugin,
            work.shapes,
            tf32=work.tf32,
        )
        plugin: dict[str, str] = {}
        if result.plugin is not None:
            from edgeseg.backends.tensorrt.plugin.build import sources_sha256

            plugin = {"plugin": result.plugin.name, "plugin_sources_sha256": sources_sha256()}

        return result.facts.model_copy(
            update={
                "outputs": outputs,
                **work.profile.facts(),
                "version_compatible": options.version_compatible,
                "workspace_mib": options.workspace_mib,
                "level": options.level,
                "layers": result.plan.layers,
                "warnings": result.plan.warnings,
                "trtexec_build": build,
                "trtexec_run": run,
                "graph_sha256": sha256_bytes(graph),
                **plugin,
            }
        )

    def _plugin(self, network: Network, options: PlanOptions, reporter: Reporter) -> Path | None:
        """Return the library to unpool with; ``None`` to unpool by standard operators.

        Unless the caller asks for it, it is used if it is built and the network has something to
        unpool.
        """
        from edgeseg.backends.tensorrt.plugin.build import plugin_library

        if PLUGIN not in self.unpools or options.unpool == NATIVE:
            return None
        version = library(self.name).version
        if options.unpool == PLUGIN:
            return plugin_library(tensorrt=version)

        lowered = lower(network, LoweringOptions(for_openvino=False, plugin=True))
        if not lowered.uses_plugin:
            return None
        try:
            return plugin_library(tensorrt=version)
        except (MissingDependencyError, EngineError) as error:
            reporter.info(f"unpooling by standard operators: {error}")
            return None

    def _built_for(self, sm: tuple[int, ...]) -> tuple[str, tuple[str, ...]]:
        """Return the device and its features, for the passport."""
        name, capability = cuda.device()
        return name, (f"sm{capability}",)

    def _runs_here(self, options: PlanOptions) -> bool:
        """Return True if the plan will run on the GPU of this machine, to be proven."""
        return options.prove and cuda.has_gpu()

    # -- the machine -------------------------------------------------------------------------------

    def fingerprint(self) -> tuple[str, ...]:
        """Return the facts of this machine that a plan depends on.

        They are TensorRT's version, the GPU, and the plugin: a plan that unpools by standard
        operators is built again once the plugin is there.
        """
        version = library(self.name).version
        if not cuda.has_gpu():
            return (version, "no GPU")
        name, capability = cuda.device()
        return (version, name, str(capability), _plugin_identity(version))

    def check(self, path: Path, passport: Passport, rebuild: str) -> None:
        """Raise ``EngineError`` if a plan does not fit this TensorRT, this GPU or this plugin.

        ``Backend.check`` describes the parameters.
        """
        self._check_version(path, passport, rebuild)
        if not cuda.has_gpu():
            call = f"`build_engine({passport.name}.onnx)`"
            raise EngineError(
                f"{path}: is a {self.name} engine and needs an NVIDIA GPU",
                got=cuda.why_no_gpu(),
                hint=cuda.gpu_hint()
                or f"Run it where there is one; or build for this CPU: {call}.",
            )
        self._check_plugin(path, passport, rebuild)

        name, capability = cuda.device()
        if not self._is_for(capability, passport.device_features):
            listed = ", ".join(_gpu(feature) for feature in passport.device_features)
            raise EngineError(
                f"{path}: was built for {listed}",
                got=f"{name} (compute capability {capability / 10:.1f})",
                hint=rebuild,
            )

    def _check_version(self, path: Path, passport: Passport, rebuild: str) -> None:
        """Raise ``EngineError`` if this TensorRT does not open plans of the passport's version."""
        version = library(self.name).version
        if passport.tensorrt.version_compatible:
            fits = opens(passport.library_version, version)
            major = version.split(".")[0]
            expected = f"{major}.x up to {version}, for a plan built with `version_compatible`"
        else:
            fits = passport.library_version == version
            expected = version

        if not fits:
            raise EngineError(
                f"{path}: was built with another {self.name}",
                got=passport.library_version,
                expected=expected,
                hint=rebuild,
            )

    def _check_plugin(self, path: Path, passport: Passport, rebuild: str) -> None:
        """Raise an error if a plan needs the plugin, and the one here is missing or another."""
        if not _needs_plugin(passport):
            return
        from edgeseg.backends.tensorrt.plugin.build import plugin_library, sources_sha256

        # The library must be there, intact, and made from the sources that are here.
        plugin_library(tensorrt=library(self.name).version)

        expected = passport.tensorrt.plugin_sources_sha256
        found = sources_sha256()
        if found != expected:
            raise EngineError(
                f"{path}: was built with another edgeseg's {passport.tensorrt.plugin}",
                got=found[:12],
                expected=expected[:12],
                hint=rebuild,
            )

    @staticmethod
    def _is_for(capability: int, features: Collection[str]) -> bool:
        """Return True if a plan for ``features`` runs on a compute capability (86 for 8.6)."""
        if f"sm{capability}" in features:
            return True
        return PORTABLE in features and capability >= _OLDEST_PORTABLE

    def why_unproven(self) -> str:
        """Return in a few words why this machine cannot run a plan; empty if it can."""
        if cuda.has_gpu():
            return ""
        return f"no GPU to run the plan on: {cuda.why_no_gpu()}"

    def prove(
        self, passport: Passport, built: Built, known: Reference, reporter: Reporter
    ) -> dict[str, Any]:
        """Label the reference's frames by the plan, and return the result of the comparison.

        ``Backend.prove`` describes the parameters. A plan that is not for the GPU of this machine
        is not proven.
        """
        capability = cuda.device()[1]
        if not self._is_for(capability, built.device_features):
            reason = f"the plan is not for this GPU (compute capability {capability / 10:.1f})"
            return {"skipped": reason}

        with self.open(passport, built.data) as engine:
            verdict = judge(known, engine, passport.precision, SAME_LABELS_BESIDE_FP16)
        if not verdict.passed:
            runtimes = [f"{self.name} {built.library_version}", known.runtime]
            raise failed(passport.name, passport.precision, verdict, runtimes)
        return known.to_dict() | verdict.to_dict()

    def open(self, passport: Passport, data: bytes, path: Path | None = None) -> Engine:
        """Return an engine that is ready to run: with edgeseg's kernels if the plan needs them.

        ``Backend.open`` describes the parameters.
        """
        from edgeseg.backends.tensorrt.engine import TensorRTEngine
        from edgeseg.backends.tensorrt.frame_engine import FrameEngine

        found = library(self.name)
        if _needs_plugin(passport):
            from edgeseg.backends.tensorrt.plugin.build import plugin_library

            load_plugin(found, plugin_library(tensorrt=found.version))
        if passport.tensorrt.outputs == SCORES:
            kernels = open_library(_kernels(passport))
            return FrameEngine(passport, data, found, kernels, path=path)
        return TensorRTEngine(passport, data, found, path=path)


class TensorRTRTXBackend(TensorRTBackend):
    """Build and open plans for several GPUs: the target ``tensorrt-rtx``.

    A plan is built without a GPU, and finished where it is opened.

    Examples
    --------
    >>> TensorRTRTXBackend().unpools
    ('auto', 'native')
    """

    name = RTX
    unpools = (AUTO, NATIVE)

    def check_options(self, options: PlanOptions) -> None:
        """Raise ``InputError`` if an option is invalid, or is for the target ``tensorrt`` only.

        ``Backend.check_options`` describes the parameter.
        """
        super().check_options(options)
        if options.timing_cache is not None:
            raise InputError(
                f"the {self.name} target measures nothing when it builds",
                got="`timing_cache`",
                hint="Leave it out; kernels are chosen where the plan is opened.",
            )
        if options.version_compatible:
            raise InputError(
                f"the {self.name} target's plans are for the version that built them",
                got="`version_compatible`",
                hint=f"Leave it out; or build for one GPU with `target={TENSORRT}`.",
            )

    def _built_for(self, sm: tuple[int, ...]) -> tuple[str, tuple[str, ...]]:
        """Return the devices and their features, for the passport."""
        if not sm:
            return "any RTX GPU from the RTX 30 on", (PORTABLE,)
        device = ", ".join(f"{GPUS[capability]} (sm{capability})" for capability in sm)
        return device, tuple(f"sm{capability}" for capability in sm)

    def _runs_here(self, options: PlanOptions) -> bool:
        """Return True if the plan will run on the GPU of this machine, to be proven."""
        if not super()._runs_here(options):
            return False
        return self._is_for(cuda.device()[1], self._built_for(options.sm)[1])

    def fingerprint(self) -> tuple[str, ...]:
        """Return the facts that a plan depends on: TensorRT-RTX's version, and no GPU."""
        return (library(self.name).version, PORTABLE)


BACKENDS: tuple[Backend, ...] = (TensorRTBackend(), TensorRTRTXBackend())


def _plugin_identity(version: str) -> str:
    """Return the hash of the plugin that a build would use, or that there is none."""
    from edgeseg.backends.tensorrt.plugin.build import plugin_library

    try:
        return sha256_file(plugin_library(tensorrt=version))
    except (MissingDependencyError, EngineError):
        return "no plugin"


def _needs_plugin(passport: Passport) -> bool:
    """Return True if a plan needs edgeseg's plugin; a version-compatible plan contains it."""
    facts = passport.tensorrt
    return bool(facts.plugin_sources_sha256) and not facts.version_compatible


def _report_missing_kernels(reporter: Reporter) -> None:
    """Report that an engine can be built, but not opened, where its kernels are not built."""
    from edgeseg.backends.tensorrt.plugin.build import plugin_library

    try:
        plugin_library()
    except (MissingDependencyError, EngineError) as error:
        reporter.info(f"the engine is built, but cannot be opened here yet: {error}")


def _kernels(passport: Passport) -> Path:
    """Return the library with the kernels around a plan; any TensorRT's headers do for them."""
    from edgeseg.backends.tensorrt.plugin.build import plugin_library

    try:
        return plugin_library()
    except MissingDependencyError as error:
        raise MissingDependencyError(
            f"{passport.name}: was built with `kernels`, and edgeseg's CUDA library is not here",
            expected=error.expected,
            hint=error.hint,
        ) from error


def _gpu(feature: str) -> str:
    """Return the name of a GPU feature, for an error."""
    if feature == PORTABLE:
        return "an RTX 30 or newer"
    capability = int(feature.removeprefix("sm"))
    name = f"compute capability {capability / 10:.1f}"
    return f"{name} ({GPUS[capability]})" if capability in GPUS else name
