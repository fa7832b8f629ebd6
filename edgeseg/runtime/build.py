"""An ONNX file to an engine and its passport, for one target."""

import json
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseg.artifact import Passport, atomic_path, require_writable, sha256_bytes, write_bytes
from edgeseg.errors import InputError
from edgeseg.export.deploy import deploy
from edgeseg.export.network import Network, Overrides, load_network
from edgeseg.runtime import cpu
from edgeseg.spec import METADATA_KEY

if TYPE_CHECKING:
    from edgeseg.quantize.choose import Say
    from edgeseg.quantize.sets import CalibrationSet

TARGETS = (cpu.TARGET,)
LEAST_AGREEMENT = 0.9
INT8_KEY = "edgeseg.int8"  # of metadata_props: how a Q/DQ file was made


@dataclass(frozen=True)
class Quantization:
    """How a float net becomes an INT8 engine.

    ``method`` of ranges (``edgeseg.quantize.ranges.METHODS``). ``keep_float`` names layers. ``data`` and ``split`` are
    labelled data to keep a budget on: at most ``max_miou_drop`` points of mIoU under float, scored on ``frames`` of
    them, evenly spread (all unless given). Without data, at least ``least_agreement`` of the labels on calibration
    frames must stay as they are. ``ranges`` is a file of ``edgeseg calibrate``; one of another net or set is ignored.
    """

    method: str | None = None
    keep_float: tuple[str, ...] = ()
    data: str | None = None
    split: str = "val"
    frames: int | None = None
    max_miou_drop: float | None = None
    least_agreement: float = LEAST_AGREEMENT
    ranges: Path | None = None


@dataclass
class _Made:
    """A net ready to be compiled: its precision and what the passport says of it."""

    network: Network
    precision: str
    facts: dict[str, Any] = field(default_factory=dict)


def check_target(target: str) -> str:
    """Settle ``auto``: the CPU, the default that works everywhere."""
    if target == "auto":
        return cpu.TARGET
    if target not in TARGETS:
        raise InputError("unknown target", got=repr(target), expected=f"auto or {', '.join(TARGETS)}")
    return target


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
    say: "Say | None" = None,
) -> Path:
    """Compile ``onnx`` to ``NAME.PRECISION.TARGET.engine`` beside it (or to ``out``) with its passport.

    Returns the engine's path. ``precision`` is ``fp32``, ``bf16``, ``int8`` or ``auto``: the fastest float precision
    this machine computes natively, or, where ``quantization`` has labelled data and ``calib`` is given, the fastest of
    all within the budget. A file with Q/DQ nodes is INT8 as it is. ``calib`` is a calibration set (see
    ``edgeseg.quantize.sets.resolve_set``). ``overrides`` completes or corrects the spec; a foreign file needs it.
    ``save_onnx`` writes the Q/DQ file an INT8 engine is compiled from, spec inside, for other targets and tools.
    ``say`` is told what is found on the way. Raises ``EdgesegError``.
    """
    target = check_target(target)
    if precision != "auto":
        precision = cpu.check_precision(precision)
    path = Path(onnx)
    network = load_network(path, overrides)
    final = Path(out) if out else None
    if final is not None:
        _require_engine_name(final)
    if save_onnx is not None:
        _require_onnx_name(Path(save_onnx), path)
    made = _made(network, precision, calib, quantization or Quantization(), say or (lambda _: None))
    if save_onnx is not None:
        _save_onnx(made, Path(save_onnx))
    final = final or path.with_name(f"{path.stem}.{made.precision}.{target}.engine")
    _require_engine_name(final)
    return _write(made, target, final)


def _require_engine_name(final: Path) -> None:
    if final.suffix != ".engine":
        raise InputError(f"{final}: not an engine's name", expected="a name that ends in .engine")
    require_writable(final)


def _require_onnx_name(path: Path, source: Path) -> None:
    if path.suffix != ".onnx" or path.resolve() == source.resolve():
        raise InputError(f"{path}: not a place for the quantized file", expected=f"an .onnx file other than {source}")
    require_writable(path)


def _save_onnx(made: _Made, path: Path) -> None:
    """The quantized net as a file of its own, its spec and how it was made inside."""
    import onnx

    if made.precision in cpu.FLOATS:
        raise InputError(f"{path}: nothing to write", got=f"a {made.precision} engine, which has no Q/DQ file")
    model = onnx.ModelProto()
    model.CopyFrom(made.network.model)
    calibration = made.facts.get("calibration", {})
    told = {
        "method": made.facts.get("method"),
        "calibration": {key: calibration.get(key) for key in ("source", "split", "choose", "seed", "digest")},
        "frames": len(calibration.get("frames", [])),
        "float_layers": made.facts.get("float_layers", {}),
        "from_onnx_sha256": made.network.sha256,
    }
    properties = {METADATA_KEY: made.network.spec.to_json(), INT8_KEY: json.dumps(told)}
    kept = {p.key: p.value for p in model.metadata_props if p.key not in properties}
    del model.metadata_props[:]
    for key, value in {**kept, **properties}.items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model, full_check=True)
    write_bytes(path, model.SerializeToString())


def _made(
    network: Network, precision: str, calib: "str | CalibrationSet | None", options: Quantization, say: "Say"
) -> _Made:
    """Quantize where that is asked for, or settle the float precision."""
    from edgeseg.quantize.placement import is_quantized

    if is_quantized(network.model):
        return _as_it_is(network, precision, calib)
    if precision == "auto" and calib is None:
        return _Made(network, cpu.best_precision())
    if precision in cpu.FLOATS:
        if calib is not None:
            raise InputError(
                f"{network.name}: a {precision} engine is not calibrated",
                got="--calib",
                hint="Build with --int8, or leave --calib out.",
            )
        return _Made(network, precision)
    from edgeseg.runtime.quantized import quantize

    quantized, found, facts = quantize(network, precision, calib, options, say)
    return _Made(quantized, found, facts)


def _as_it_is(network: Network, precision: str, calib: object) -> _Made:
    """A Q/DQ file: INT8 is in the graph."""
    if calib is not None:
        raise InputError(
            f"{network.name}: is quantized already",
            got="--calib",
            hint="Build it as it is, without --calib; or give the float file.",
        )
    if precision in cpu.FLOATS:
        raise InputError(f"{network.name}: is quantized, so INT8", got=precision, hint="Leave --precision out.")
    from edgeseg.quantize.qdq import describe

    inside, layers = describe(network.model)
    origin = next((p.value for p in network.model.metadata_props if p.key == INT8_KEY), "Q/DQ nodes of the file")
    return _Made(network, "int8", {"origin": origin, "int8_layers": inside, "layers": layers})


def _write(made: _Made, target: str, final: Path) -> Path:
    import edgeseg

    started = time.perf_counter()
    network = made.network
    config = cpu.settings(made.precision)
    has_scores = network.form != "labels"
    forms = {"search": deploy(network)}
    if has_scores:
        forms["compare"] = deploy(network, compare=True)
    form, labels, times = cpu.compile_fastest(forms, network.name, config)
    scores = cpu.Compiled(deploy(network, scores=True), network.name, config).blob() if has_scores else None
    blob = cpu.pack(labels.blob(), scores)
    name, features = cpu.device()
    passport = Passport(
        name=network.name,
        target=target,
        precision=made.precision,
        spec=network.spec,
        onnx_sha256=network.sha256,
        engine_sha256=sha256_bytes(blob),
        edgeseg=edgeseg.__version__,
        library=cpu.LIBRARY,
        library_version=cpu.library_version(),
        device=name,
        device_features=features,
        settings=config,
        form={"argmax": form, **{f"latency_ms_{key}": f"{value:.3f}" for key, value in times.items()}},
        int8=made.facts,
        assumed=network.assumed,
        build_seconds=round(time.perf_counter() - started, 3),
        built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    # Both are complete before either gets its name, and the names come one right after the other.
    with atomic_path(final) as engine, atomic_path(Passport.path_for(final)) as beside:
        engine.write_bytes(blob)
        beside.write_text(passport.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return final
