"""Define what every target implements: its precisions, its compiler, its checks and its engine."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edgeseg.backends.engine import Engine
from edgeseg.errors import InputError
from edgeseg.facts import OpenVinoFacts, TensorRTFacts
from edgeseg.graph.network import Network
from edgeseg.passport import Passport
from edgeseg.precision import INT8
from edgeseg.reporter import Reporter
from edgeseg.types import Image

if TYPE_CHECKING:
    from edgeseg.backends.proof import Reference

ONE_FRAME = (1, 1, 1)

# Values of `PlanOptions.unpool`.
AUTO, NATIVE, PLUGIN = "auto", "native", "plugin"


@dataclass(frozen=True)
class PlanOptions:
    """Hold the options of a build.

    The cpu target uses ``unpool`` and ``prove``; the others are for TensorRT.

    Attributes
    ----------
    unpool : ``native`` (standard operators), ``plugin`` (edgeseg's CUDA library; on the CPU its
        OpenVINO extension) or ``auto``: the plugin if it is built; on the CPU the faster of both.
    sm : compute capabilities to build for ahead of time, 86 for 8.6; TensorRT-RTX only. Without
        them the plan is portable from RTX 30 on.
    workspace_mib : limit of TensorRT's scratch memory, in MiB.
    level : how long TensorRT searches tactics, 0 to 5.
    timing_cache : file of measured tactics. It is read if it exists, and written; TensorRT only.
    scores : add the logits as a second output of the plan.
    version_compatible : build a plan that later minor versions open, too. The plugin is inside it;
        it is somewhat slower; TensorRT only.
    kernels : build a plan that takes the network's input tensor and returns logits. The kernels of
        edgeseg's CUDA library do the rest: the opened engine takes frames of any size, BGR or NV12,
        and paints pictures on the device.
    batch : smallest, best and largest number of frames per call. Kernels are chosen for the best.
    sizes : smallest, best and largest (H, W). If empty, the plan takes the spec's size only.
    save_graph : keep the ONNX graph that TensorRT is given, beside the engine, for trtexec.
    prove : label a few frames with the ONNX file in ONNX Runtime and with the engine, if it can run
        on this machine, and refuse an engine whose labels differ.

    Examples
    --------
    >>> PlanOptions(unpool="native", batch=(1, 4, 8)).batch
    (1, 4, 8)
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
    save_graph: bool = False
    prove: bool = True


@dataclass(frozen=True)
class Built:
    """Hold the bytes of an engine, and the facts about them that go into its passport.

    Attributes
    ----------
    data : content of the engine file.
    library, library_version : the library that compiled the engine.
    device, device_features : name of the processor or GPU, and features that the engine may need.
    facts : how the library compiled it.
    graph : serialized ONNX graph that was compiled; empty if the backend does not keep it.
    proof : result of the comparison with the ONNX file; empty if there was none.
    """

    data: bytes
    library: str
    library_version: str
    device: str
    device_features: tuple[str, ...] = ()
    facts: OpenVinoFacts | TensorRTFacts = field(default_factory=TensorRTFacts)
    graph: bytes = b""
    proof: dict[str, Any] = field(default_factory=dict)


def graph_file(engine: Path) -> Path:
    """Return the path that keeps the graph an engine was built from; the file need not exist.

    Parameters
    ----------
    engine : path of the engine file.

    Examples
    --------
    >>> graph_file(Path("enet.fp16.engine")).name
    'enet.fp16.graph.onnx'
    """
    return engine.with_suffix(".graph.onnx")


class Backend(ABC):
    """Build, check and open the engines of one target.

    Attributes
    ----------
    name : the target's name, such as ``cpu``.
    floats : the precisions it supports beside INT8.
    keeps_graph : True if ``compile`` fills ``Built.graph``.
    unpools : the values of ``PlanOptions.unpool`` it supports.
    """

    name: ClassVar[str]
    floats: ClassVar[tuple[str, ...]]
    keeps_graph: ClassVar[bool] = False
    unpools: ClassVar[tuple[str, ...]] = (AUTO, NATIVE, PLUGIN)

    def sealed(self, data: bytes, digest: str) -> bytes:
        """Return an engine's bytes with the digest of its passport inside, if they can hold it.

        A TensorRT plan cannot: its passport is bound to it by its own digest alone.

        Parameters
        ----------
        data : the bytes, as ``compile`` returns them.
        digest : ``Passport.sha256``.
        """
        return data

    def seal_of(self, data: bytes) -> str:
        """Return the digest that ``sealed`` put into an engine's bytes; ``""`` if there is none.

        Parameters
        ----------
        data : the content of the engine file.
        """
        return ""

    @abstractmethod
    def best_precision(self) -> str:
        """Return the fastest float precision that is exact enough on this machine."""

    def check_precision(self, precision: str) -> str:
        """Return the precision to build with, and replace ``auto`` by the best one.

        Parameters
        ----------
        precision : ``auto``, ``int8``, or one of ``floats``.

        Raises
        ------
        InputError : this target or this machine does not support the precision.
        """
        if precision == "auto":
            return self.best_precision()

        supported = (*self.floats, INT8)
        if precision not in supported:
            raise InputError(
                f"the {self.name} target has no such precision",
                got=repr(precision),
                expected=", ".join(supported),
            )
        return precision

    def check_unpool(self, options: PlanOptions) -> None:
        """Raise ``InputError`` if this target does not support ``options.unpool``."""
        if options.unpool not in self.unpools:
            expected = " or ".join(self.unpools)
            raise InputError(
                f"target {self.name} does not support `unpool={options.unpool}`", expected=expected
            )

    def check_options(self, options: PlanOptions) -> None:
        """Raise ``InputError`` if an option is set that this target does not use.

        The base class uses ``unpool`` and ``prove`` only; the TensorRT backends override this
        method.
        """
        self.check_unpool(options)

        defaults = vars(PlanOptions())
        unused: list[str] = []
        for name, value in vars(options).items():
            if name not in ("unpool", "prove") and value != defaults[name]:
                unused.append(f"`{name}`")
        if unused:
            raise InputError(
                f"the {self.name} target has no such option",
                got=", ".join(unused),
                hint="Give a TensorRT `target`.",
            )

    def check_network(self, network: Network, options: PlanOptions) -> None:  # noqa: B027  optional
        """Raise an error before the build starts if ``network`` cannot be built with ``options``.

        Raises
        ------
        InputError : an option does not fit the network.
        GraphError : this target cannot build the graph.
        """

    @abstractmethod
    def compile(
        self,
        network: Network,
        precision: str,
        final: Path,
        options: PlanOptions,
        frames: Iterable[Image] | None,
        reporter: Reporter,
        known: "Reference | None" = None,
    ) -> Built:
        """Compile ``network`` and return the engine's bytes with the facts for its passport.

        Parameters
        ----------
        network : a float network or a Q/DQ network.
        precision : a precision that ``check_precision`` returned.
        final : path that the engine file will get; this method does not write it.
        options : options that ``check_options`` accepted.
        frames : examples of the frames that the engine will see, (H, W, 3) uint8 BGR, or ``None``.
        reporter : receives messages and progress.
        known : labels of the ONNX file for a few frames. A target that runs on this machine proves
            its engine on them. ``None``: no proof.

        Raises
        ------
        EdgesegError : the network cannot be compiled, or the engine is proven wrong.
        """

    def why_unproven(self) -> str:
        """Return in a few words why this machine cannot run engines it builds; empty if it can."""
        return ""

    def prove(
        self, passport: Passport, built: Built, known: "Reference", reporter: Reporter
    ) -> dict[str, Any]:
        """Return the proof of an engine that was just built.

        Parameters
        ----------
        passport : the engine's passport.
        built : what ``compile`` returned.
        known : labels of the ONNX file for a few frames.
        reporter : receives messages and progress.

        Raises
        ------
        CheckFailedError : the engine's labels differ too much from the ONNX file's.
        """
        return built.proof

    @abstractmethod
    def fingerprint(self) -> tuple[str, ...]:
        """Return the facts of this machine that an engine depends on: library and device."""

    @abstractmethod
    def check(self, path: Path, passport: Passport, rebuild: str) -> None:
        """Raise ``EngineError`` if an engine does not fit this machine.

        Parameters
        ----------
        path : the engine file, for the error.
        passport : the engine's passport.
        rebuild : advice how to build the engine again, for the error.
        """

    @abstractmethod
    def open(self, passport: Passport, data: bytes, path: Path | None = None) -> Engine:
        """Return an engine that is ready to run.

        Parameters
        ----------
        passport : the engine's passport.
        data : content of the engine file.
        path : the engine file, if there is one. A backend may keep files beside it.
        """
