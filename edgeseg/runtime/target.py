"""What a target is to the rest: precisions, a compiler, a check of what was compiled, an engine."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edgeseg.artifact import Passport
from edgeseg.errors import InputError
from edgeseg.export.network import Network
from edgeseg.runtime.engine import Engine, Image

if TYPE_CHECKING:
    from edgeseg.runtime.proof import Reference

ONE_FRAME = (1, 1, 1)
AUTO, NATIVE, PLUGIN = "auto", "native", "plugin"  # ways to unpool that can be asked for
INT8, MIXED = "int8", "mixed"  # an INT8 engine with layers left in float is called "mixed"
OUTPUTS = "outputs"  # of a passport's settings: what a plan gives; one that does not say gives labels
LABELS, LABELS_AND_SCORES = "labels", "labels, scores"
SCORES = "scores"  # the only output of a plan that edgeseg's kernels stand around
VERSION_COMPATIBLE = "version_compatible"  # of a passport's settings: "yes", or not there


@dataclass(frozen=True)
class PlanOptions:
    """How TensorRT builds; ``unpool`` is for the cpu target, too.

    ``unpool`` is ``native`` (standard operators), ``plugin`` (edgeseg's CUDA library; on the CPU its OpenVINO
    extension) or ``auto``: the plugin where it is built, the faster of the two on the CPU.
    ``sm`` are compute capabilities (86: 8.6) to build for ahead of time, TensorRT-RTX only; without them the
    plan is portable from RTX 30 on. ``workspace_mib`` limits scratch memory, ``level`` (0 to 5) is how long tactics are
    searched. ``timing_cache`` is a file of measured tactics, read where it is there and written: TensorRT only.
    ``scores`` gives the plan the net's scores as a second output. ``version_compatible`` makes it open in later minor
    versions, too, with the plugin inside, for some speed: TensorRT only.
    ``kernels`` leaves pictures to the kernels of edgeseg's CUDA library: the plan takes the net's tensor and gives its
    scores, and what opens it takes frames of any size, BGR or NV12, and paints pictures on the device.
    ``batch`` is the least, best and largest number of frames at a time, ``sizes`` three (H, W) of that order, or none:
    the spec's alone. What is best is what kernels are chosen for.
    """

    unpool: str = AUTO
    sm: tuple[int, ...] = ()
    workspace_mib: int | None = None
    level: int | None = None
    timing_cache: Path | None = None
    scores: bool = False
    version_compatible: bool = False
    kernels: bool = False
    batch: tuple[int, int, int] = ONE_FRAME
    sizes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Built:
    """An engine's bytes and what its passport says of them. ``graph`` is the ONNX graph the target was given.

    ``proof`` says how it was compared with its file, if it was.
    """

    data: bytes
    library: str
    library_version: str
    device: str
    device_features: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)
    form: dict[str, str] = field(default_factory=dict)
    graph: bytes = b""
    proof: dict[str, Any] = field(default_factory=dict)


def graph_file(engine: Path) -> Path:
    """Where the graph that an engine is built from is kept, if it is."""
    return engine.with_suffix(".graph.onnx")


class Target(ABC):
    """One way to run a net. ``floats`` are its precisions without INT8; ``keeps_graph``: ``Built.graph`` is there.

    ``unpools`` are the ways to unpool it has.
    """

    name: ClassVar[str]
    floats: ClassVar[tuple[str, ...]]
    keeps_graph: ClassVar[bool] = False
    unpools: ClassVar[tuple[str, ...]] = (AUTO, NATIVE, PLUGIN)

    @abstractmethod
    def best_precision(self) -> str:
        """The fastest float precision that is exact enough, here."""

    def check_precision(self, precision: str) -> str:
        """Settle ``auto``; raise ``InputError`` for a precision this target or this machine lacks."""
        if precision == "auto":
            return self.best_precision()
        if precision not in (*self.floats, INT8):
            known = ", ".join((*self.floats, INT8))
            raise InputError(f"the {self.name} target has no such precision", got=repr(precision), expected=known)
        return precision

    def check_unpool(self, options: PlanOptions) -> None:
        """Raise ``InputError`` for a way to unpool that this target lacks."""
        if options.unpool not in self.unpools:
            expected = " or ".join(self.unpools)
            raise InputError(f"the {self.name} target cannot unpool so", got=options.unpool, expected=expected)

    def check_options(self, options: PlanOptions) -> None:
        """Raise ``InputError`` for an option this target has no use for; of these the base has a way to unpool."""
        self.check_unpool(options)
        given = [k for k, v in vars(options).items() if k != "unpool" and v != getattr(PlanOptions(), k)]
        if given:
            raise InputError(
                f"the {self.name} target has no such option", got=", ".join(given), hint="Give a TensorRT --target."
            )

    def check_network(self, network: Network, options: PlanOptions) -> None:  # noqa: B027  most have none to refuse
        """Raise ``InputError`` or ``GraphError`` for a net that cannot be built so, before work is put into it."""

    @abstractmethod
    def compile(
        self,
        network: Network,
        precision: str,
        final: Path,
        options: PlanOptions,
        frames: Iterable[Image] | None,
        say: Callable[[str], None],
        known: "Reference | None" = None,
    ) -> Built:
        """Compile ``network`` for the engine file ``final``; ``frames`` are some it will see, if there are any.

        ``known`` is what the file gives for a few frames: a target that can run here proves its engine on them.
        Raises ``EdgesegError``.
        """

    def why_unproven(self) -> str:
        """Return why an engine cannot be run where it is built, in a few words; empty if it can."""
        return ""

    def prove(self, passport: Passport, built: Built, known: "Reference", say: Callable[[str], None]) -> dict[str, Any]:
        """Return the proof of an engine that was just built. Raises ``CheckFailedError`` where it labels wrongly."""
        return built.proof

    @abstractmethod
    def fingerprint(self) -> tuple[str, ...]:
        """What an engine built here depends on, beside its file: library and device."""

    @abstractmethod
    def check(self, path: Path, passport: Passport, rebuild: str) -> None:
        """Raise ``EngineError`` where an engine does not fit this machine; ``rebuild`` is what to do."""

    @abstractmethod
    def open(self, passport: Passport, data: bytes) -> Engine:
        """An engine from the bytes of its file."""
