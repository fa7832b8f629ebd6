"""An ONNX file to an engine and its passport, for one target."""

import time
from datetime import datetime, timezone
from pathlib import Path

from edgeseg.artifact import Passport, atomic_path, require_writable, sha256_bytes
from edgeseg.errors import InputError
from edgeseg.export.deploy import deploy
from edgeseg.export.network import Network, Overrides, load_network
from edgeseg.runtime import cpu

TARGETS = (cpu.TARGET,)


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
    out: str | Path | None = None,
    overrides: Overrides | None = None,
) -> Path:
    """Compile ``onnx`` to ``NAME.PRECISION.TARGET.engine`` beside it (or to ``out``) with its passport.

    Returns the engine's path. ``precision`` is ``fp32``, ``bf16`` or ``auto``: the fastest float precision this machine
    computes natively. ``overrides`` completes or corrects the spec; a foreign file needs it. Raises ``EdgesegError``.
    """
    target, precision = check_target(target), cpu.check_precision(precision)
    path = Path(onnx)
    network = load_network(path, overrides)
    final = Path(out) if out else path.with_name(f"{path.stem}.{precision}.{target}.engine")
    if final.suffix != ".engine":
        raise InputError(f"{final}: not an engine's name", expected="a name that ends in .engine")
    require_writable(final)
    return _write(network, precision, target, final)


def _write(network: Network, precision: str, target: str, final: Path) -> Path:
    import edgeseg

    started = time.perf_counter()
    config = cpu.settings(precision)
    labels = cpu.compile_blob(deploy(network), network.name, config)
    has_scores = network.form != "labels"
    scores = cpu.compile_blob(deploy(network, scores=True), network.name, config) if has_scores else None
    blob = cpu.pack(labels, scores)
    name, features = cpu.device()
    passport = Passport(
        name=network.name,
        target=target,
        precision=precision,
        spec=network.spec,
        onnx_sha256=network.sha256,
        engine_sha256=sha256_bytes(blob),
        edgeseg=edgeseg.__version__,
        library=cpu.LIBRARY,
        library_version=cpu.library_version(),
        device=name,
        device_features=features,
        settings=config,
        assumed=network.assumed,
        build_seconds=round(time.perf_counter() - started, 3),
        built_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    # Both are complete before either gets its name, and the names come one right after the other.
    with atomic_path(final) as engine, atomic_path(Passport.path_for(final)) as beside:
        engine.write_bytes(blob)
        beside.write_text(passport.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return final
