"""Opening an engine: its passport is checked first, so that what does not fit is said in plain words."""

import hashlib
import os
from pathlib import Path

from edgeseg.artifact import Passport, sha256_bytes, sha256_file
from edgeseg.errors import EngineError, InputError, OutputError
from edgeseg.export.network import Overrides, digest_onnx
from edgeseg.runtime import cpu
from edgeseg.runtime.build import build_engine, check_target
from edgeseg.runtime.engine import Engine

_SET_CACHE = "Set EDGESEG_CACHE to a folder that can be written."
ZOO = Path(__file__).resolve().parent.parent / "zoo"


def zoo() -> dict[str, Path]:
    """The nets that ship with edgeseg, by name."""
    return {path.stem: path for path in sorted(ZOO.glob("*.onnx"))}


def load_engine(path: str | Path) -> Engine:
    """Open an engine. Raises ``EngineError`` where it is damaged, out of date, or another machine's."""
    path = Path(path)
    if not path.is_file():
        raise InputError("no such engine", got=repr(str(path)), hint="Build one: edgeseg build-engine NAME.onnx.")
    passport = Passport.read(path)
    blob = path.read_bytes()
    _check(path, passport, blob)
    return cpu.CpuEngine(passport, blob)


def _check(path: Path, passport: Passport, blob: bytes) -> None:
    """Raise ``EngineError`` with the first thing that does not fit, and the command that rebuilds."""
    source = path.with_name(f"{passport.name}.onnx")
    rebuild = f"Build it again: edgeseg build-engine {source.name} --precision {passport.precision}."
    if passport.target != cpu.TARGET:
        raise EngineError(
            f"{path}: built for target {passport.target}", expected=cpu.TARGET, hint="Run it where it was built."
        )
    if sha256_bytes(blob) != passport.engine_sha256:
        raise EngineError(
            f"{path}: is not the engine its passport describes (truncated or replaced)",
            got=f"{len(blob):,} bytes with another hash",
            hint=rebuild,
        )
    version = cpu.library_version()
    if passport.library_version != version:
        raise EngineError(
            f"{path}: was built with another OpenVINO", got=passport.library_version, expected=version, hint=rebuild
        )
    name, features = cpu.device()
    missing = sorted(set(passport.device_features) - set(features))
    if missing:
        raise EngineError(
            f"{path}: was built for {passport.device}, and this processor lacks {', '.join(missing)}",
            got=name,
            hint=rebuild,
        )
    if source.is_file() and digest_onnx(source) != passport.onnx_sha256:
        raise EngineError(f"{path}: {source.name} has changed since it was built", hint=rebuild)


def cache_folder() -> Path:
    """Where engines built on the fly are kept: ``$EDGESEG_CACHE``, or edgeseg's folder in the user's cache."""
    given = os.environ.get("EDGESEG_CACHE")
    if given:
        return Path(os.path.expanduser(given))
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeseg"
    except RuntimeError as error:
        raise OutputError("no home folder to keep engines in", hint=_SET_CACHE) from error


def resolve_engine(
    name: str | Path, *, precision: str = "auto", target: str = "auto", overrides: Overrides | None = None
) -> Engine:
    """Open what a command calls ENGINE: an engine file, an ONNX file (built once into a cache), or a zoo name."""
    path = Path(name)
    if path.suffix.lower() == ".engine":
        if overrides is not None and (overrides.given() or overrides.labels):
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
        path = shipped[str(name)]
    if not path.is_file():
        raise InputError(
            "no such engine",
            got=repr(str(name)),
            expected=f"an .engine file, an .onnx file or a net that ships ({', '.join(shipped) or 'none'})",
        )
    return _cached(path, check_target(target), cpu.check_precision(precision), overrides or Overrides())


def _cached(path: Path, target: str, precision: str, overrides: Overrides) -> Engine:
    """An engine from the cache, keyed by everything it depends on; built where it is not there or does not open."""
    import edgeseg

    facts = "\n".join(
        [
            digest_onnx(path),
            target,
            precision,
            repr(overrides),
            _labels_content(overrides),
            edgeseg.__version__,
            cpu.library_version(),
            *cpu.device()[1],
            cpu.device()[0],
        ]
    )
    key = hashlib.sha256(facts.encode()).hexdigest()[:16]
    engine = cache_folder() / f"{path.stem}-{key}.{precision}.{target}.engine"
    if engine.is_file():
        try:
            return load_engine(engine)
        except EngineError:
            pass  # damaged in the cache: made again below
    try:
        return load_engine(build_engine(path, precision=precision, target=target, out=engine, overrides=overrides))
    except OutputError as error:
        raise OutputError(error.what, got=error.got, expected=error.expected, hint=_SET_CACHE) from error


def _labels_content(overrides: Overrides) -> str:
    """The hash of a label file that was named, so that editing it is noticed."""
    path = Path(overrides.labels) if overrides.labels else None
    return sha256_file(path) if path is not None and path.is_file() else ""
