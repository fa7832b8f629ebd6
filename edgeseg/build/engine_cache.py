"""Open an engine by name: an engine file, an ONNX file (built once), or a model that ships."""

import glob
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeseg.backends.base import Backend
from edgeseg.backends.engine import Engine
from edgeseg.backends.load import load_engine
from edgeseg.backends.registry import find_backend
from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.errors import (
    CheckFailedError,
    EngineError,
    GraphError,
    InputError,
    MissingDependencyError,
    OutputError,
    did_you_mean,
)
from edgeseg.files import cache_folder, sha256_file, write_json
from edgeseg.graph.network import Overrides, load_network
from edgeseg.graph.onnx_file import digest_onnx, read_onnx
from edgeseg.graph.ops import QUANTIZED_OPS, is_quantized
from edgeseg.passport import Passport
from edgeseg.precision import INT8
from edgeseg.reporter import SILENT, Reporter
from edgeseg.trust import read_private, require_private_file
from edgeseg.version import __version__
from edgeseg.zoo import zoo, zoo_int8

_SET_CACHE = "Set EDGESEG_CACHE to a folder that can be written."
_RACE_CALLS = 12  # per engine
_RACE_WARMUP_CALLS = 2


def resolve_engine(
    name: str | Path,
    *,
    precision: str = "auto",
    target: str = "auto",
    overrides: Overrides | None = None,
    reporter: Reporter = SILENT,
) -> Engine:
    """Open what a command calls ENGINE.

    Parameters
    ----------
    name : an engine file; an ONNX file, which is built once into the cache; or a model that ships.
    precision : the precision, or ``auto``. An engine file has one already.
    target : the target, or ``auto``. An engine file has one already.
    overrides : facts about an ONNX file that has no edgeseg spec.
    reporter : receives messages, and the progress of a build.

    Raises
    ------
    InputError : there is no such engine, or it has another precision or target.
    EngineError : the engine is damaged, out of date, or another machine's.
    """
    path = Path(name)
    if path.suffix.lower() == ".engine":
        return _open_file(path, precision, target, overrides)

    shipped = zoo()
    if not path.is_file() and str(name) in shipped:
        cache = _Cache(find_backend(target), overrides or Overrides(), reporter)
        return _open_shipped(str(name), shipped[str(name)], cache, precision)
    if not path.is_file():
        raise InputError(
            "no such engine",
            got=repr(str(name)),
            expected="an .engine file, an .onnx file or a net that ships "
            f"({', '.join(shipped) or 'none'})",
            hint=did_you_mean(str(name), shipped),
        )

    cache = _Cache(find_backend(target), overrides or Overrides(), reporter)
    return cache.open(path, _precision_of(path, precision, cache.backend))


def _open_file(path: Path, precision: str, target: str, overrides: Overrides | None) -> Engine:
    """Open an engine file; raise ``InputError`` if something else is wanted than it is."""
    if overrides is not None and (overrides.given() or overrides.labels or overrides.head):
        raise InputError(
            f"{path}: an engine has its spec compiled in",
            hint="Give those facts where the engine is built.",
        )

    engine = load_engine(path)
    passport = engine.passport
    for wanted, found in ((precision, passport.precision), (target, passport.target)):
        if wanted not in ("auto", found):
            engine.close()
            raise InputError(
                f"{path}: is a {found} engine",
                got=wanted,
                hint="Leave `precision` and `target` out, or build another engine.",
            )
    return engine


def _precision_of(path: Path, precision: str, backend: Backend) -> str:
    """Return the precision in which an ONNX file is built; raise ``InputError`` if it cannot be."""
    if _is_quantized_file(path):
        if precision not in ("auto", INT8):
            raise InputError(
                f"{path}: is quantized, so INT8", got=precision, hint="Leave `precision` out."
            )
        return INT8

    if precision == INT8:
        raise InputError(
            f"{path}: an INT8 engine needs a calibration set",
            hint=f"Build it: `build_engine({path}, precision=int8, calib=SET)`.",
        )
    return backend.check_precision(precision)


def _is_quantized_file(path: Path) -> bool:
    """Return True if a file has operators of quantization.

    A file in whose bytes none of them is named is not parsed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: the ONNX file cannot be read", got=error.strerror or str(error)
        ) from error
    if not any(name.encode() in data for name in QUANTIZED_OPS):
        return False
    return is_quantized(read_onnx(path)[0])


def _open_shipped(name: str, path: Path, cache: "_Cache", precision: str) -> Engine:
    """Open a model that ships, in INT8 from its quantized file.

    ``auto`` is the faster of float and INT8 on this machine. If INT8 cannot be built here, it is
    the float engine, and the failure is remembered.
    """
    quantized = zoo_int8(name)
    if precision == INT8:
        if quantized is None:
            raise InputError(
                f"{name} does not ship in INT8", expected=", ".join(cache.backend.floats)
            )
        return cache.open(quantized, INT8)

    in_float = cache.open(path, cache.backend.check_precision(precision))
    if precision != "auto" or quantized is None or cache.overrides.given():
        return in_float

    in_int8 = cache.try_to_open(quantized, INT8)
    return in_float if in_int8 is None else _faster(in_float, in_int8)


def _faster(one: Engine, other: Engine) -> Engine:
    """Return the faster of two engines and close the other; it is measured once and remembered."""
    engines = {one.passport.precision: one, other.passport.precision: other}
    hashes = one.passport.engine_sha256 + other.passport.engine_sha256
    key = hashlib.sha256(hashes.encode()).hexdigest()[:16]
    known = cache_folder() / f"{one.passport.name}-{key}.race.json"

    winner = _remembered(known, "faster")
    if winner not in engines:
        medians_ms = _race(engines)
        winner = min(medians_ms, key=lambda precision: medians_ms[precision])
        write_json(known, {"faster": winner, "latency_ms": medians_ms})

    for precision, engine in engines.items():
        if precision != winner:
            engine.close()
    return engines[winner]


def _remembered(path: Path, key: str) -> str:
    """Return a text of a JSON file in the cache; empty if the file is missing or damaged."""
    try:
        return str(json.loads(read_private(path))[key])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _race(engines: dict[str, Engine]) -> dict[str, float]:
    """Time engines in turn on noise; return the median milliseconds per frame of each."""
    size = next(iter(engines.values())).spec.input_size
    frame = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)

    spent_ms: dict[str, list[float]] = {precision: [] for precision in engines}
    for turn in range(_RACE_CALLS):
        for precision, engine in engines.items():
            start = time.perf_counter()
            engine(frame)
            if turn >= _RACE_WARMUP_CALLS:
                spent_ms[precision].append(1e3 * (time.perf_counter() - start))
    return {precision: float(np.median(times)) for precision, times in spent_ms.items()}


@dataclass(frozen=True)
class _Cache:
    """Build engines once, and keep them in the user's cache.

    Attributes
    ----------
    backend : the backend that builds.
    overrides : facts about a file that has no edgeseg spec.
    reporter : receives messages, and the progress of a build.
    """

    backend: Backend
    overrides: Overrides
    reporter: Reporter

    def open(self, path: Path, precision: str) -> Engine:
        """Open the engine of an ONNX file; build it if it is missing or does not open."""
        engine = self._path_of(path, precision)
        _require_private(engine)
        if engine.is_file():
            try:
                return load_engine(engine)
            except (EngineError, MissingDependencyError):
                pass  # damaged, or its plugin is gone: built again below

        task = f"compile {path.name} for {self.backend.name}, once"
        self.reporter.progress(task, 0, None)
        network = load_network(path, self.overrides)
        try:
            build_engine(
                network,
                precision=precision,
                target=self.backend.name,
                out=engine,
                reporter=self.reporter,
            )
        except OutputError as error:
            raise OutputError(
                error.what, got=error.got, expected=error.expected, hint=_SET_CACHE
            ) from error
        self.reporter.progress(task, 1, 1)
        return load_engine(engine)

    def try_to_open(self, path: Path, precision: str) -> Engine | None:
        """Open the engine of an ONNX file; ``None`` if it cannot be built on this machine.

        A failure is remembered until the file, the library or the device changes: the next start
        does not try again.
        """
        known = self._path_of(path, precision).with_suffix(".failed.json")
        reason = _remembered(known, "reason")
        if reason:
            self.reporter.info(
                f"{path.name}: not built in {precision}, which failed before: {reason}"
            )
            return None

        try:
            return self.open(path, precision)
        except (CheckFailedError, EngineError, GraphError) as error:
            write_json(known, {"reason": str(error)})
            self.reporter.warning(f"{path.name}: cannot be built in {precision} here: {error}")
            return None

    def _path_of(self, path: Path, precision: str) -> Path:
        """Return the path of an engine in the cache; its name has a hash of all it depends on."""
        facts = [
            digest_onnx(path),
            self.backend.name,
            precision,
            repr(self.overrides),
            _labels_digest(self.overrides),
            __version__,
            *self.backend.fingerprint(),
        ]
        key = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
        return cache_folder() / f"{path.stem}-{key}.{precision}.{self.backend.name}.engine"


def _require_private(engine: Path) -> None:
    """Raise ``OutputError`` if another user could have written a cached engine or a file of it."""
    require_private_file(Passport.next_path_for(engine))
    for path in engine.parent.glob(f"{glob.escape(engine.stem)}*"):
        require_private_file(path)


def _labels_digest(overrides: Overrides) -> str:
    """Return the hash of the file of labels, if one was given: a change of it is noticed."""
    path = Path(overrides.labels) if overrides.labels else None
    if path is None or not path.is_file():
        return ""
    return sha256_file(path)
