"""Opening an engine: its passport is checked first, so that what does not fit is said in plain words."""

import hashlib
import json
import time
from pathlib import Path

import numpy as np

from edgeseg.backends.base import Backend
from edgeseg.backends.engine import Engine
from edgeseg.backends.load import load_engine
from edgeseg.backends.registry import find_backend
from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.errors import EngineError, InputError, OutputError, did_you_mean
from edgeseg.files import cache_folder, sha256_file, write_json
from edgeseg.graph.network import Overrides
from edgeseg.graph.onnx_file import digest_onnx, read_onnx
from edgeseg.graph.ops import QUANTIZED_OPS, is_quantized
from edgeseg.precision import INT8
from edgeseg.version import __version__
from edgeseg.zoo import zoo, zoo_int8

_SET_CACHE = "Set EDGESEG_CACHE to a folder that can be written."


_RACE_CALLS = 12


def resolve_engine(
    name: str | Path, *, precision: str = "auto", target: str = "auto", overrides: Overrides | None = None
) -> Engine:
    """Open what a command calls ENGINE: an engine file, an ONNX file (built once into a cache), or a zoo name."""
    path = Path(name)
    if path.suffix.lower() == ".engine":
        if overrides is not None and (overrides.given() or overrides.labels or overrides.head):
            raise InputError(f"{path}: an engine has its spec compiled in", hint="Give those flags to build-engine.")
        engine = load_engine(path)
        for asked, is_built in ((precision, engine.passport.precision), (target, engine.passport.target)):
            if asked not in ("auto", is_built):
                raise InputError(
                    f"{path}: is a {is_built} engine", got=asked, hint="Leave the flag out, or build another engine."
                )
        return engine
    shipped = zoo()
    if not path.is_file() and str(name) in shipped:
        return _shipped(str(name), shipped[str(name)], find_backend(target), precision, overrides or Overrides())
    if not path.is_file():
        raise InputError(
            "no such engine",
            got=repr(str(name)),
            expected=f"an .engine file, an .onnx file or a net that ships ({', '.join(shipped) or 'none'})",
            hint=did_you_mean(str(name), shipped),
        )
    aim = find_backend(target)
    return _cached(path, aim, _settle(path, precision, aim), overrides or Overrides())


def _settle(path: Path, precision: str, aim: Backend) -> str:
    """The precision a file is built in: what its graph says, or what was asked for. Raises ``InputError``."""
    if _is_quantized_file(path):
        if precision not in ("auto", "int8"):
            raise InputError(f"{path}: is quantized, so INT8", got=precision, hint="Leave `precision` out.")
        return "int8"
    if precision == "int8":
        raise InputError(
            f"{path}: an INT8 engine needs a calibration set",
            hint=f"Build it: `build_engine({path}, precision=int8, calib=SET)`.",
        )
    return aim.check_precision(precision)


def _is_quantized_file(path: Path) -> bool:
    """Return True if a file has operators of quantization; a file that names none of them is not parsed."""
    data = path.read_bytes()
    if not any(name.encode() in data for name in QUANTIZED_OPS):
        return False
    return is_quantized(read_onnx(path)[0])


def _shipped(name: str, path: Path, aim: Backend, precision: str, overrides: Overrides) -> Engine:
    """A net that ships: in INT8 from its quantized file; ``auto`` is the faster of float and INT8 on this machine."""
    quantized = zoo_int8(name)
    if precision == "int8":
        if quantized is None:
            raise InputError(f"{name} does not ship in INT8", expected=", ".join(aim.floats))
        return _cached(quantized, aim, INT8, overrides)
    floating = _cached(path, aim, aim.check_precision(precision), overrides)
    if precision != "auto" or quantized is None or overrides.given():
        return floating
    return _faster(floating, _cached(quantized, aim, INT8, overrides))


def _faster(one: Engine, other: Engine) -> Engine:
    """The faster of two engines, measured in turn once and remembered in the cache."""
    key = hashlib.sha256((one.passport.engine_sha256 + other.passport.engine_sha256).encode()).hexdigest()[:16]
    known = cache_folder() / f"{one.passport.name}-{key}.race.json"
    try:
        winner = json.loads(known.read_bytes())["faster"]
        return {one.passport.precision: one, other.passport.precision: other}[winner]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not measured yet, or damaged: measured again
    frame = np.random.default_rng(0).integers(0, 256, (*one.spec.input_size, 3), np.uint8)
    spent: dict[str, list[float]] = {one.passport.precision: [], other.passport.precision: []}
    for turn in range(_RACE_CALLS):
        for engine in (one, other):
            start = time.perf_counter()
            engine(frame)
            if turn > 1:
                spent[engine.passport.precision].append(time.perf_counter() - start)
    medians = {precision: float(np.median(seconds)) * 1e3 for precision, seconds in spent.items()}
    winner = min(medians, key=lambda precision: medians[precision])
    write_json(known, {"faster": winner, "latency_ms": medians})
    return one if winner == one.passport.precision else other


def _cached(path: Path, aim: Backend, precision: str, overrides: Overrides) -> Engine:
    """An engine from the cache, keyed by everything it depends on; built where it is not there or does not open."""
    facts = "\n".join(
        [
            digest_onnx(path),
            aim.name,
            precision,
            repr(overrides),
            _labels_content(overrides),
            __version__,
            *aim.fingerprint(),
        ]
    )
    key = hashlib.sha256(facts.encode()).hexdigest()[:16]
    engine = cache_folder() / f"{path.stem}-{key}.{precision}.{aim.name}.engine"
    if engine.is_file():
        try:
            return load_engine(engine)
        except EngineError:
            pass  # damaged in the cache: made again below
    try:
        return load_engine(build_engine(path, precision=precision, target=aim.name, out=engine, overrides=overrides))
    except OutputError as error:
        raise OutputError(error.what, got=error.got, expected=error.expected, hint=_SET_CACHE) from error


def _labels_content(overrides: Overrides) -> str:
    """The hash of a label file that was named, so that editing it is noticed."""
    path = Path(overrides.labels) if overrides.labels else None
    return sha256_file(path) if path is not None and path.is_file() else ""
