"""Open an engine file.

The passport is checked first, so that an engine that does not fit this machine gives a clear error.
"""

from pathlib import Path

from edgeseg.backends.engine import Engine
from edgeseg.backends.registry import BACKENDS
from edgeseg.errors import EngineError, GraphError, InputError
from edgeseg.files import sha256_bytes
from edgeseg.graph.onnx_file import digest_onnx
from edgeseg.passport import Passport
from edgeseg.precision import INT8, MIXED


def load_engine(path: str | Path) -> Engine:
    """Open an engine file.

    Parameters
    ----------
    path : the engine file; its passport must be beside it.

    Returns
    -------
    The engine, ready to run. The caller closes it, best by ``with``.

    Raises
    ------
    InputError : there is no such file.
    EngineError : the engine is damaged, older than its ONNX file, or built for another machine.
    """
    path = Path(path)
    if not path.is_file():
        hint = "Build one: `build_engine(NAME.onnx)`."
        raise InputError("no such engine", got=repr(str(path)), hint=hint)

    passport, digest = Passport.read_with_digest(path)
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise EngineError(
            f"{path}: the engine cannot be read", got=error.strerror or str(error)
        ) from error
    _check(path, passport, digest, blob)
    return BACKENDS[passport.target].open(passport, blob, path)


def _check(path: Path, passport: Passport, digest: str, blob: bytes) -> None:
    """Raise ``EngineError`` for the first mismatch, with the command that rebuilds the engine.

    ``digest`` is the one of the passport as it was written, without the engine's.
    """
    source = path.with_name(f"{passport.name}.onnx")
    rebuild = f"Build it again: `build_engine({', '.join(_build_arguments(source, passport))})`."

    if passport.target not in BACKENDS:
        raise EngineError(
            f"{path}: built for target {passport.target}",
            expected=", ".join(BACKENDS),
            hint="Update edgeseg.",
        )

    if sha256_bytes(blob) != passport.engine_sha256:
        raise EngineError(
            f"{path}: is not the engine its passport describes (truncated or replaced)",
            got=f"{len(blob):,} bytes with another hash",
            hint=rebuild,
        )

    BACKENDS[passport.target].check(path, passport, rebuild)

    # An engine and its passport name each other.
    sealed = BACKENDS[passport.target].seal_of(blob)
    if sealed and sealed != digest:
        raise EngineError(
            f"{path}: was built with another passport than {Passport.path_for(path).name}",
            hint=rebuild,
        )

    _check_source(path, source, passport, rebuild)


def _check_source(path: Path, source: Path, passport: Passport, rebuild: str) -> None:
    """Raise ``EngineError`` if the ONNX file beside an engine has changed.

    A file that cannot be read says nothing about the engine.
    """
    try:
        if not source.is_file() or digest_onnx(source) == passport.onnx_sha256:
            return
    except OSError:
        return
    except GraphError:
        pass  # names weights that may not be read: not the file that the engine was built from
    raise EngineError(f"{path}: {source.name} has changed since it was built", hint=rebuild)


def _build_arguments(source: Path, passport: Passport) -> list[str]:
    """Return the arguments of ``build_engine`` that build the engine of ``passport`` again."""
    arguments = [source.name]
    if passport.target != "cpu":
        arguments.append(f"target={passport.target}")
    is_quantized = passport.precision in (INT8, MIXED)
    arguments.append("precision=int8" if is_quantized else f"precision={passport.precision}")
    if passport.int8.calibration:
        arguments.append("calib=SET")
    return arguments
