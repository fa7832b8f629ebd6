"""Build an engine and its passport from an ONNX file, for one target."""

import contextlib
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from edgeseg.backends.base import Backend, Built, PlanOptions, graph_file
from edgeseg.backends.proof import Reference, reference
from edgeseg.backends.registry import find_backend
from edgeseg.build.options import Quantization
from edgeseg.errors import InputError
from edgeseg.facts import Int8Facts
from edgeseg.files import atomic_path, require_writable, sha256_bytes, temporary_path
from edgeseg.graph.network import Network, load_network
from edgeseg.graph.ops import is_quantized
from edgeseg.passport import Passport, commit
from edgeseg.precision import INT8
from edgeseg.quantize.qdq import INT8_KEY, describe
from edgeseg.reporter import SILENT, Reporter
from edgeseg.version import __version__

if TYPE_CHECKING:
    from edgeseg.quantize.calibration_set import CalibrationSet

SEEN_FRAMES = 8  # calibration frames that show what FP16 has to hold, and that prove the engine


@dataclass(frozen=True)
class _Source:
    """Hold a network that is ready to be compiled.

    Attributes
    ----------
    network : the network, quantized if that was wanted.
    precision : its precision.
    facts : how it was quantized.
    calibration : the calibration set, if it was quantized now.
    """

    network: Network
    precision: str
    facts: Int8Facts = field(default_factory=Int8Facts)
    calibration: "CalibrationSet | None" = None


def build_engine(
    onnx: str | Path | Network,
    *,
    precision: str = "auto",
    target: str = "auto",
    calib: "str | CalibrationSet | None" = None,
    out: str | Path | None = None,
    quantization: Quantization | None = None,
    plan: PlanOptions | None = None,
    reporter: Reporter = SILENT,
) -> Path:
    """Compile an ONNX file to an engine, and write it with its passport.

    Parameters
    ----------
    onnx : an ONNX file, float or quantized; or a network from ``edgeseg.load_network``, which takes
        the facts (size, mean, labels ...) of a file that has no edgeseg spec.
    precision : ``int8``; a float precision of the target (cpu: ``fp32``, ``bf16``; TensorRT:
        ``fp32``, ``fp16``); or ``auto``: the fastest float precision that this machine computes
        natively. With ``calib`` and labelled data in ``quantization``, ``auto`` is the fastest of
        all precisions within the budget. A file with Q/DQ nodes is INT8 as it is.
    target : ``cpu``, ``tensorrt``, ``tensorrt-rtx``, or ``auto`` for the best one on this machine.
    calib : the calibration set of an INT8 engine, or its address: ``camvid:PATH``, a folder, a
        video, a ``.toml``.
    out : the engine to write; by default ``NAME.PRECISION.TARGET.engine`` beside the ONNX file.
    quantization : how a float network becomes INT8.
    plan : how the target builds.
    reporter : receives messages and progress.

    Returns
    -------
    The path of the engine. Its passport is beside it, ``NAME.engine.json``.

    Raises
    ------
    InputError : the options contradict each other, the file or this machine.
    GraphError : the target cannot build the graph.
    CheckFailedError : INT8 changes too many labels, or the engine's labels are not the file's.
    OutputError : a file cannot be written.

    Examples
    --------
    >>> import edgeseg
    >>> edgeseg.build_engine("net.onnx", precision="int8", calib="drive.mp4")  # doctest: +SKIP
    """
    backend = find_backend(target)
    plan = plan or PlanOptions()
    quantization = quantization or Quantization()

    # Check the request before any work.
    if plan.save_graph and not backend.keeps_graph:
        raise InputError(
            f"the {backend.name} target has no graph for trtexec", hint="Give a TensorRT `target`."
        )
    backend.check_options(plan)
    if precision != "auto":
        precision = backend.check_precision(precision)
    network = onnx if isinstance(onnx, Network) else load_network(onnx)
    backend.check_network(network, plan)
    if out is not None:
        _require_engine_name(Path(out))
    if quantization.save_onnx is not None:
        _require_onnx_name(quantization.save_onnx, network.path, "the quantized file")

    # Quantize.
    source = _quantized(network, precision, calib, quantization, backend, plan.unpool, reporter)
    if quantization.save_onnx is not None:
        _save_onnx(source, quantization.save_onnx, backend)

    # Compile, prove and write.
    name = f"{network.path.stem}.{source.precision}.{backend.name}.engine"
    final = network.path.with_name(name) if out is None else Path(out)
    _require_engine_name(final)
    if plan.save_graph:
        _require_onnx_name(graph_file(final), network.path, "the graph")
    return _build(source, backend, final, plan, reporter)


def _require_engine_name(final: Path) -> None:
    """Raise an error unless an engine can be written under this name."""
    if final.suffix != ".engine":
        raise InputError(f"{final}: not an engine's name", expected="a name that ends in .engine")
    require_writable(final)


def _require_onnx_name(path: Path, source: Path, what: str) -> None:
    """Raise an error unless an ONNX file other than the source can be written under this name."""
    if path.suffix != ".onnx" or path.resolve() == source.resolve():
        raise InputError(
            f"{path}: not a place for {what}", expected=f"an .onnx file other than {source}"
        )
    require_writable(path)


def _quantized(
    network: Network,
    precision: str,
    calib: "str | CalibrationSet | None",
    options: Quantization,
    backend: Backend,
    unpool: str,
    reporter: Reporter,
) -> _Source:
    """Quantize the network if INT8 is wanted; otherwise decide on the float precision."""
    if is_quantized(network.model):
        return _quantized_before(network, precision, calib, backend)
    if precision == "auto" and calib is None:
        return _Source(network, backend.best_precision())
    if precision in backend.floats:
        if calib is not None:
            raise InputError(
                f"{network.name}: a {precision} engine is not calibrated",
                got="`calib`",
                hint="Build with `precision=int8`, or leave `calib` out.",
            )
        return _Source(network, precision)

    from edgeseg.build.int8 import Request, quantize
    from edgeseg.quantize.calibration_set import CalibrationSet, resolve_set

    calibration = (
        calib if isinstance(calib, CalibrationSet) else resolve_set(calib or "", reporter=reporter)
    )
    request = Request(precision, calibration, options, backend, unpool, reporter)
    made = quantize(network, request)
    return _Source(made.network, made.precision, made.facts, calibration)


def _quantized_before(network: Network, precision: str, calib: object, backend: Backend) -> _Source:
    """Take a network with Q/DQ nodes as it is; raise ``InputError`` if something else is wanted."""
    if calib is not None:
        raise InputError(
            f"{network.name}: is quantized already",
            got="`calib`",
            hint="Build it as it is, without `calib`; or give the float file.",
        )
    if precision in backend.floats:
        raise InputError(
            f"{network.name}: is quantized, so INT8", got=precision, hint="Leave `precision` out."
        )

    properties = {item.key: item.value for item in network.model.metadata_props}
    int8_layers, layers = describe(network.model)
    facts = Int8Facts(
        origin=properties.get(INT8_KEY, "Q/DQ nodes of the file"),
        int8_layers=int8_layers,
        layers=layers,
    )
    return _Source(network, INT8, facts)


def _save_onnx(source: _Source, path: Path, backend: Backend) -> None:
    """Write the Q/DQ network as an ONNX file, with its spec and how it was made inside."""
    if source.precision in backend.floats:
        raise InputError(
            f"{path}: nothing to write", got=f"a {source.precision} engine, which has no Q/DQ file"
        )

    from edgeseg.build.quantized_file import write_quantized

    write_quantized(source.network, source.facts, path)


def _build(
    source: _Source, backend: Backend, final: Path, plan: PlanOptions, reporter: Reporter
) -> Path:
    """Compile the network, prove the engine, and write it with its passport."""
    started = time.perf_counter()
    frames = None
    if source.calibration is not None:
        frames = list(source.calibration.subset(SEEN_FRAMES).images())

    # The labels that the engine has to give.
    unproven = backend.why_unproven()
    known: Reference | None = None
    if plan.prove and not unproven:
        known = reference(source.network, frames)
        if known is None:
            reporter.warning(
                "ONNX Runtime does not run this file, so the engine is not compared with it"
            )

    # Compile, and compare.
    built = backend.compile(source.network, source.precision, final, plan, frames, reporter, known)
    passport = _passport(source, backend, built, started)
    if known is not None:
        proof = backend.prove(passport, built, known, reporter)
        passport = passport.model_copy(update={"proof": proof})
    elif plan.prove and unproven:
        passport = passport.model_copy(update={"proof": {"skipped": unproven}})

    # Bind the engine and its passport to each other: each holds the other's digest.
    data = backend.sealed(built.data, passport.sha256)
    passport = passport.model_copy(update={"engine_sha256": sha256_bytes(data)})
    graph = built.graph if plan.save_graph else None
    _write(final, passport, data, graph)
    return final


def _passport(source: _Source, backend: Backend, built: Built, started: float) -> Passport:
    """Return the passport of an engine that was just compiled."""
    network = source.network
    return Passport(
        name=network.name,
        target=backend.name,
        precision=source.precision,
        spec=network.spec,
        onnx_sha256=network.sha256,
        engine_sha256=sha256_bytes(built.data),
        edgeseg=__version__,
        library=built.library,
        library_version=built.library_version,
        device=built.device,
        device_features=built.device_features,
        facts=built.facts,
        int8=source.facts,
        assumed=network.assumed,
        proof=built.proof,
        build_seconds=round(time.perf_counter() - started, 3),
        built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def _write(final: Path, passport: Passport, data: bytes, graph: bytes | None) -> None:
    """Write the engine, its passport, and the graph if wanted.

    All files are complete before any of them gets its name. The engine and its passport get theirs
    in one step: a process that is killed leaves the old pair or the new one.
    """
    with contextlib.ExitStack() as files:
        if graph is not None:
            files.enter_context(atomic_path(graph_file(final))).write_bytes(graph)
        engine = files.enter_context(temporary_path(final))
        engine.write_bytes(data)
        commit(engine, final, passport)
