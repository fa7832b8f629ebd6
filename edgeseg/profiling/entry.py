"""Open the engines of a comparison: objects, files or names, optionally with a precision."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeseg.backends.engine import Engine
from edgeseg.build.engine_cache import resolve_engine
from edgeseg.errors import EdgesegError, InputError
from edgeseg.files import cache_folder
from edgeseg.graph.network import Overrides
from edgeseg.passport import Passport


@dataclass(frozen=True)
class Entry:
    """Hold an engine and the size of its file.

    Attributes
    ----------
    engine : the engine.
    size_bytes : size of the engine file; ``None`` if the file is not known.
    """

    engine: Engine
    size_bytes: int | None


def split_precision(text: str) -> tuple[str, str]:
    """Split ``NAME@PRECISION`` into the name and the precision.

    Parameters
    ----------
    text : a name, with a precision or without. If a file of the whole name exists, nothing is split
        off.

    Returns
    -------
    The name, and the precision or ``auto``.

    Examples
    --------
    >>> split_precision("enet-camvid@int8"), split_precision("enet.onnx")
    (('enet-camvid', 'int8'), ('enet.onnx', 'auto'))
    """
    name, at, precision = text.rpartition("@")
    if at and name and re.fullmatch(r"[a-z0-9]+", precision) and not Path(text).is_file():
        return name, precision
    return text, "auto"


def open_entry(given: Engine | str | Path, overrides: Overrides | None = None) -> Entry:
    """Open one engine of a comparison.

    Parameters
    ----------
    given : an engine file, an ONNX file or the name of a shipped model, each optionally with
        ``@PRECISION``; or an ``Engine``, which is taken as it is. If it came from the cache, the
        size of its file is found there.
    overrides : facts that complete the spec of a foreign ONNX file.

    Raises
    ------
    EdgesegError : the engine cannot be found, built or opened.
    """
    if isinstance(given, Engine):
        return Entry(given, _cached_size(given.passport))

    name, precision = split_precision(str(given))
    engine = resolve_engine(name, precision=precision, overrides=overrides)

    path = Path(name)
    if path.suffix.lower() == ".engine":
        return Entry(engine, path.stat().st_size)
    return Entry(engine, _cached_size(engine.passport))


def _cached_size(passport: Passport) -> int | None:
    """Return the size in bytes of the cached engine with this passport, if there is one."""
    try:
        for path in cache_folder().glob("*.engine"):
            if not path.name.startswith(f"{passport.name}-"):
                continue
            if Passport.read(path).engine_sha256 == passport.engine_sha256:
                return path.stat().st_size
    except (OSError, EdgesegError):
        pass  # the size is only reported: a missing or damaged cache must not stop the work
    return None


def identify(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Return one id per engine: NAME@PRECISION, then ``#2``, ``#3`` and so on for repeated ones.

    Parameters
    ----------
    entries : the engines.
    """
    seen: Counter[str] = Counter()
    ids: list[str] = []
    for entry in entries:
        key = f"{entry.engine.passport.name}@{entry.engine.passport.precision}"
        seen[key] += 1
        ids.append(key if seen[key] == 1 else f"{key}#{seen[key]}")
    return tuple(ids)


def check_alike(entries: Sequence[Entry]) -> None:
    """Raise an error unless all engines have the same classes.

    Parameters
    ----------
    entries : the engines.

    Raises
    ------
    InputError : there is no engine, or two have different classes.
    """
    if not entries:
        raise InputError("nothing to compare", expected="at least one engine")

    ids = identify(entries)
    first = entries[0].engine.spec.labels
    for key, entry in zip(ids, entries, strict=True):
        space = entry.engine.spec.labels
        if space.names == first.names:
            continue
        got = f"{len(space)} ({space.name}) and {len(first)} ({first.name})"
        for mine, theirs in zip(space.names, first.names, strict=False):
            if mine != theirs:
                got += f"; the first that differs: {mine} / {theirs}"
                break
        raise InputError(
            f"{key} and {ids[0]} have different classes",
            got=got,
            expected="engines of one label space",
        )
