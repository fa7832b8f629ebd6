"""A folder that a command writes as one: whole or not at all, and never over somebody else's files."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

from edgeseg.errors import OutputError


def require_ours(folder: Path, names: Collection[str], leftovers: str | None = None) -> None:
    """Raise ``OutputError`` unless ``folder`` is absent, empty, or holds nothing but files that may be replaced.

    Those are ``names`` (paths inside it) and what matches the pattern ``leftovers``: files that another program made
    from ours, and that are worth nothing once ours change.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder}: is a file", expected="a folder", hint="Give another output.")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        known = name in names or any(other.startswith(f"{name}/") for other in names)
        if not known and not (leftovers and path.is_file() and re.fullmatch(leftovers, name)):
            raise OutputError(
                f"{folder}: holds files that this command does not write",
                got=name,
                hint="Give a folder of its own, or move them away.",
            )


def write_folder(folder: Path, files: Mapping[str, bytes], leftovers: str | None = None) -> Path:
    """Put ``files`` (path inside the folder: content) at ``folder``, in place of what ``require_ours`` allows there.

    Everything is written beside it first; then two renames put it in place.
    """
    require_ours(folder, files, leftovers)
    place = folder.resolve()  # a link stays one
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}-"))
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written", got=error.strerror or str(error), hint="Give another output."
        ) from error
    try:
        for name, content in files.items():
            path = aside / "new" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        _swap(aside / "new", place, aside / "old")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written", got=error.strerror or str(error)) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _swap(new: Path, folder: Path, old: Path) -> None:
    """``new`` becomes ``folder``; what was there goes to ``old``, and comes back where that fails."""
    if folder.exists():
        os.rename(folder, old)
    try:
        os.rename(new, folder)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.rename(old, folder)
        raise
