"""An ONNX file to an engine and its passport, for one target."""

import contextlib
import json
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.backends.base import Backend, PlanOptions, graph_file
from edgeseg.backends.proof import reference
from edgeseg.backends.registry import find_backend
from edgeseg.build.options import Quantization
from edgeseg.errors import GraphError, InputError
from edgeseg.files import atomic_path, require_writable, sha256_bytes, write_bytes
from edgeseg.graph.graph import copied, infer_shapes
from edgeseg.graph.network import Network, Overrides, load_network
from edgeseg.passport import Passport
from edgeseg.precision import INT8
from edgeseg.quantize.qdq import INT8_KEY
from edgeseg.spec import METADATA_KEY
from edgeseg.version import __version__

if TYPE_CHECKING:
    from edgeseg.build.mixed_precision import Say
    from edgeseg.quantize.calibration_set import CalibrationSet

SEEN_FRAMES = 8  # of a calibration set, to see what FP16 has to hold


@dataclass
class _Made:
    """A net ready to be compiled: its precision and what the passport says of it."""

    network: Network
    precision: str
    facts: dict[str, Any] = field(default_factory=dict)
    calibration: "CalibrationSet | None" = None


def build_engine(
    onnx: str | Path,
    *,
    precision: str = "auto",
    target: str = "auto",
    calib: "str | CalibrationSet | None" = None,
    out: str | Path | None = None,
    overrides: Overrides | None = None,
    quantization: Quantization | None = None,
    save_onnx: str | Path | None = None,
    plan: PlanOptions | None = None,
    save_graph: bool = False,
    prove: bool = True,
    say: "Say | None" = None,
) -> Path:
    """Compile ``onnx`` to ``NAME.PRECISION.TARGET.engine`` beside it (or to ``out``) with its passport.

    Returns the engine's path. ``precision`` is ``int8``, a float one of the target (cpu: ``fp32``, ``bf16``; TensorRT:
    ``fp32``, ``fp16``) or ``auto``: the fastest float precision this machine computes natively, or, where
    ``quantization`` has labelled data and ``calib`` is given, the fastest of all within the budget. A file with Q/DQ
    nodes is INT8 as it is. ``calib`` is a calibration set (see ``calibration_set.resolve_set``). ``overrides``
    completes or corrects the spec; a foreign file needs it. ``save_onnx`` writes the Q/DQ file an INT8 engine is
    compiled from, spec inside, for other targets and tools. ``plan`` is how TensorRT builds; ``save_graph``
    keeps the graph it is given beside the engine, for trtexec. ``prove``: a few frames are labelled by the file in ONNX
    Runtime and by the engine, where it can run here, and an engine that labels otherwise is not written. ``say`` is
    told what is found on the way. Raises ``EdgesegError``.
    """
    aim, plan = find_backend(target), plan or PlanOptions()
    aim.check_options(plan)
    if save_graph and not aim.keeps_graph:
        raise InputError(f"the {aim.name} target has no graph for trtexec", hint="Give a TensorRT `target`.")
    if precision != "auto":
        precision = aim.check_precision(precision)
    path = Path(onnx)
    network = load_network(path, overrides)
    aim.check_network(network, plan)
    final = Path(out) if out else None
    if final is not None:
        _require_engine_name(final)
    if save_onnx is not None:
        _require_onnx_name(Path(save_onnx), path, "the quantized file")
    say = say or _silent
    made = _made(network, precision, calib, quantization or Quantization(), aim, plan.unpool, say)
    if save_onnx is not None:
        _save_onnx(made, Path(save_onnx), aim)
    final = final or path.with_name(f"{path.stem}.{made.precision}.{aim.name}.engine")
    _require_engine_name(final)
    if save_graph:
        _require_onnx_name(graph_file(final), path, "the graph")
    return _write(made, aim, final, plan, save_graph, prove, say)


def _silent(_: str) -> None:
    """Where nobody listens."""


def _require_engine_name(final: Path) -> None:
    if final.suffix != ".engine":
        raise InputError(f"{final}: not an engine's name", expected="a name that ends in .engine")
    require_writable(final)


def _require_onnx_name(path: Path, source: Path, what: str) -> None:
    if path.suffix != ".onnx" or path.resolve() == source.resolve():
        raise InputError(f"{path}: not a place for {what}", expected=f"an .onnx file other than {source}")
    require_writable(path)


def _save_onnx(made: _Made, path: Path, aim: Backend) -> None:
    """The quantized net as a file of its own, its spec and how it was made inside."""
    import onnx

    if made.precision in aim.floats:
        raise InputError(f"{path}: nothing to write", got=f"a {made.precision} engine, which has no Q/DQ file")
    model = copied(made.network.model)
    calibration = made.facts.get("calibration", {})
    told_of_set = {key: calibration.get(key) for key in ("source", "split", "choose", "seed", "digest")}
    if calibration:
        told_of_set["source"] = _without_folders(calibration["source"])
    told = {
        "method": made.facts.get("method"),
        "scales": made.facts.get("scales"),
        "calibration": told_of_set,
        "frames": len(calibration.get("frames", [])),
        "float_layers": made.facts.get("float_layers", {}),
        "from_onnx_sha256": made.network.sha256,
    }
    properties = {METADATA_KEY: made.network.spec.to_json(), INT8_KEY: json.dumps(told)}
    kept = {p.key: p.value for p in model.metadata_props if p.key not in properties}
    del model.metadata_props[:]
    for key, value in {**kept, **properties}.items():
        model.metadata_props.add(key=key, value=value)
    for value in (*model.graph.input, *model.graph.output):  # some exporters write -1, or nothing
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 0:
                dim.Clear()
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    try:
        model = infer_shapes(model)
        for output in model.graph.output:
            if output.name == made.network.output and not output.type.tensor_type.HasField("shape"):
                rank = 3 if made.network.form == "labels" else 4  # behind an operator that inference does not know
                output.type.tensor_type.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in range(rank))
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # raised as several types, all of them about the graph
        raise GraphError(
            f"{path}: the net makes no standard ONNX file", got=" ".join(str(error).split())[:300],
            hint="Leave `save_onnx` out; or bring the net into standard form first: onnxsim NET.onnx NET.onnx.",
        ) from error  # fmt: skip
    write_bytes(path, model.SerializeToString())


def _without_folders(source: str) -> str:
    """A calibration set's address for a file that others get: where it lay on this machine is nobody's business."""
    if "://" in source:
        return source
    kind, colon, path = source.rpartition(":")
    return f"{kind}{colon}{Path(path).name}"


def _made(
    network: Network,
    precision: str,
    calib: "str | CalibrationSet | None",
    options: Quantization,
    aim: Backend,
    unpool: str,
    say: "Say",
) -> _Made:
    """Quantize where that is asked for, or settle the float precision."""
    from edgeseg.graph.ops import is_quantized

    if is_quantized(network.model):
        return _as_it_is(network, precision, calib, aim)
    if precision == "auto" and calib is None:
        return _Made(network, aim.best_precision())
    if precision in aim.floats:
        if calib is not None:
            raise InputError(
                f"{network.name}: a {precision} engine is not calibrated",
                got="`calib`",
                hint="Build with `precision=int8`, or leave `calib` out.",
            )
        return _Made(network, precision)
    from edgeseg.build.int8 import quantize
    from edgeseg.quantize.calibration_set import CalibrationSet, resolve_set

    calibration = calib if isinstance(calib, CalibrationSet) else resolve_set(calib or "")
    quantized, found, facts = quantize(network, precision, calibration, options, aim, say, unpool=unpool)
    return _Made(quantized, found, facts, calibration)


def _as_it_is(network: Network, precision: str, calib: object, aim: Backend) -> _Made:
    """A Q/DQ file: INT8 is in the graph."""
    if calib is not None:
        raise InputError(
            f"{network.name}: is quantized already",
            got="`calib`",
            hint="Build it as it is, without `calib`; or give the float file.",
        )
    if precision in aim.floats:
        raise InputError(f"{network.name}: is quantized, so INT8", got=precision, hint="Leave `precision` out.")
    from edgeseg.quantize.qdq import describe

    inside, layers = describe(network.model)
    origin = next((p.value for p in network.model.metadata_props if p.key == INT8_KEY), "Q/DQ nodes of the file")
    return _Made(network, INT8, {"origin": origin, "int8_layers": inside, "layers": layers})


def _write(
    made: _Made, aim: Backend, final: Path, plan: PlanOptions, save_graph: bool, prove: bool, say: "Say"
) -> Path:

    started = time.perf_counter()
    network = made.network
    frames = list(made.calibration.subset(SEEN_FRAMES).images()) if made.calibration is not None else None
    unproven = aim.why_unproven()
    known = reference(network, frames) if prove and not unproven else None
    if prove and not unproven and known is None:
        say("warning: ONNX Runtime does not run this file, so the engine is not compared with it")
    built = aim.compile(network, made.precision, final, plan, frames, say, known)
    passport = Passport(
        name=network.name,
        target=aim.name,
        precision=made.precision,
        spec=network.spec,
        onnx_sha256=network.sha256,
        engine_sha256=sha256_bytes(built.data),
        edgeseg=__version__,
        library=built.library,
        library_version=built.library_version,
        device=built.device,
        device_features=built.device_features,
        settings=built.settings,
        form=built.form,
        int8=made.facts,
        assumed=network.assumed,
        proof={"skipped": unproven} if prove and unproven else built.proof,
        build_seconds=round(time.perf_counter() - started, 3),
        built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    if known is not None:
        passport = passport.model_copy(update={"proof": aim.prove(passport, built, known, say)})
    # All are complete before any gets its name, and the names come one right after the other.
    with contextlib.ExitStack() as files:
        graph = files.enter_context(atomic_path(graph_file(final))) if save_graph else None
        engine, beside = (files.enter_context(atomic_path(p)) for p in (final, Passport.path_for(final)))
        if graph is not None:
            graph.write_bytes(built.graph)
        engine.write_bytes(built.data)
        beside.write_text(passport.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return final
