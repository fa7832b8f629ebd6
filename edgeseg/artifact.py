"""Files that are whole or absent: atomic writes, content hashes, passports.

A *passport* is the JSON beside an engine that says what it is: which ONNX file, spec, target, precision, library and
device it was built for. It is what lets a stale or foreign engine be refused in plain words.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from edgeseg.errors import EngineError, OutputError
from edgeseg.spec import ModelSpec, first_problem

_CHUNK = 1 << 20


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_bytes(data: bytes) -> str:
    """The SHA-256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def require_writable(path: Path) -> None:
    """Raise ``OutputError`` now if a file could not be created at ``path`` later."""
    folder = path.parent
    try:
        if path.is_dir():
            raise OutputError(f"{path}: is a folder", expected="a file name", hint="Give another output.")
        folder.mkdir(parents=True, exist_ok=True)
        handle, probe = tempfile.mkstemp(dir=folder, prefix=".edgeseg-")
        os.close(handle)
        os.unlink(probe)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written", got=error.strerror or str(error), hint="Give another output."
        ) from error


def require_json_output(path: Path, *others: Path | None) -> None:
    """Raise ``OutputError`` unless ``path`` can be written, is named like JSON, and is none of the ``others``."""
    if path.suffix.lower() != ".json":
        raise OutputError(f"{path}: not the name of a JSON file", expected="a name that ends in .json")
    require_writable(path)
    if any(other is not None and other.resolve() == path.resolve() for other in others):
        raise OutputError(f"{path}: is in use by this command", hint="Give another output.")


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """A temporary path in ``final``'s folder, with its suffix; renamed to ``final`` on success, removed otherwise."""
    require_writable(final)
    handle, name = tempfile.mkstemp(dir=final.parent, prefix=f".{final.stem}-", suffix=final.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, final)
    except OSError as error:
        raise OutputError(f"{final}: cannot be written", got=error.strerror or str(error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


def write_bytes(path: Path, data: bytes | memoryview) -> Path:
    """Write a file whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return path


def write_json(path: Path, value: object) -> Path:
    """Write JSON (no NaN) whole or not at all."""
    return write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


class Passport(BaseModel):
    """What an engine is. ``library`` and ``device`` must match where it runs; ``engine_sha256`` is of its bytes.

    ``form`` says which of several equal forms of the graph was built, and what was measured to choose it. ``int8`` says
    of a quantized engine how: the calibration set with its frames' hashes, the method, the layers in float and why.
    ``proof`` says how the engine was compared with its ONNX file when it was built.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    name: str
    target: str
    precision: str
    spec: ModelSpec
    onnx_sha256: str
    engine_sha256: str
    edgeseg: str
    library: str
    library_version: str
    device: str
    device_features: tuple[str, ...] = ()
    settings: dict[str, str] = {}
    form: dict[str, str] = {}
    int8: dict[str, Any] = {}
    proof: dict[str, Any] = {}
    assumed: tuple[str, ...] = ()
    build_seconds: float
    built_at: str

    @staticmethod
    def path_for(engine: Path) -> Path:
        """``X.engine`` has its passport at ``X.engine.json``."""
        return engine.with_name(engine.name + ".json")

    @classmethod
    def read(cls, engine: Path) -> "Passport":
        """The passport beside an engine. Raises ``EngineError`` where it is missing or damaged."""
        path = cls.path_for(engine)
        rebuild = "Build it again: edgeseg build-engine NAME.onnx"
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise EngineError(f"{engine}: has no passport", expected=f"{path.name} beside it", hint=rebuild) from None
        except (OSError, ValidationError) as error:
            problem = first_problem(error) if isinstance(error, ValidationError) else str(error)
            raise EngineError(f"{path}: the passport cannot be read", got=problem, hint=rebuild) from error
