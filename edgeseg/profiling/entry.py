"""What a comparison is given: engines, by object, file or name, and at which precision."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeseg.artifact import Passport
from edgeseg.errors import EdgesegError, InputError
from edgeseg.export.network import Overrides
from edgeseg.runtime.engine import Engine
from edgeseg.runtime.load import cache_folder, resolve_engine


@dataclass(frozen=True)
class Entry:
    """An engine and the size of its file; ``None`` where the file is not known."""

    engine: Engine
    size_bytes: int | None


def split_precision(text: str) -> tuple[str, str]:
    """``NAME@PRECISION`` -> (NAME, PRECISION); without a suffix the precision is ``auto``. A file's name is a name."""
    name, at, precision = text.rpartition("@")
    if at and name and re.fullmatch(r"[a-z0-9]+", precision) and not Path(text).is_file():
        return name, precision
    return text, "auto"


def open_entry(given: Engine | str | Path, overrides: Overrides | None = None) -> Entry:
    """Open an engine file, an ONNX file or a shipped net, each with ``@PRECISION`` if wanted.

    An ``Engine`` is taken as it is; where it came from the cache, the size of its file is found there. ``overrides``
    completes the spec of a foreign ONNX file. Raises ``EdgesegError``.
    """
    if isinstance(given, Engine):
        return Entry(given, _cached_size(given.passport))
    name, precision = split_precision(str(given))
    path = Path(name)
    engine = resolve_engine(name, precision=precision, overrides=overrides)
    is_engine_file = path.suffix.lower() == ".engine"
    return Entry(engine, path.stat().st_size if is_engine_file else _cached_size(engine.passport))


def _cached_size(passport: Passport) -> int | None:
    """Bytes of the engine in the cache that has this passport."""
    try:
        for path in cache_folder().glob("*.engine"):
            if (
                path.name.startswith(f"{passport.name}-")
                and Passport.read(path).engine_sha256 == passport.engine_sha256
            ):
                return path.stat().st_size
    except (OSError, EdgesegError):
        pass  # the size is told, not needed: a cache that is gone or damaged is no reason to fail
    return None


def identify(entries: Sequence[Entry]) -> tuple[str, ...]:
    """An id an engine: NAME@PRECISION, and ``#2``, ... behind it for others of the same name and precision."""
    seen: Counter[str] = Counter()
    ids = []
    for entry in entries:
        key = f"{entry.engine.passport.name}@{entry.engine.passport.precision}"
        seen[key] += 1
        ids.append(key if seen[key] == 1 else f"{key}#{seen[key]}")
    return tuple(ids)


def check_alike(entries: Sequence[Entry]) -> None:
    """Raise ``InputError`` where there is no engine, or two have different classes."""
    if not entries:
        raise InputError("nothing to compare", expected="at least one engine")
    ids, spaces = identify(entries), [entry.engine.spec.labels for entry in entries]
    for key, space in zip(ids, spaces, strict=True):
        if space.names != spaces[0].names:
            differ = next((f"{a} / {b}" for a, b in zip(space.names, spaces[0].names, strict=False) if a != b), None)
            raise InputError(
                f"{key} and {ids[0]} have different classes",
                got=f"{len(space)} ({space.name}) and {len(spaces[0])} ({spaces[0].name})"
                + (f"; the first that differs: {differ}" if differ else ""),
                expected="engines of one label space",
            )
