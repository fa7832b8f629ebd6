"""Write a folder as a whole or not at all, and never over files of another origin."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

from edgeseg.errors import OutputError


def require_ours(folder: Path, names: Collection[str], leftovers: str | None = None) -> None:
    """Raise an error if ``folder`` holds files that must not be replaced.

    Parameters
    ----------
    folder : the folder; it need not exist.
    names : files that may be replaced, as paths inside the folder.
    leftovers : pattern of more files that may be replaced. Another program made them from ours, and
        they are worth nothing once ours change.

    Raises
    ------
    OutputError : ``folder`` is a file, or holds other files.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder}: is a file", expected="a folder", hint="Give another output.")

    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name in names or any(other.startswith(f"{name}/") for other in names):
            continue
        if leftovers and path.is_file() and re.fullmatch(leftovers, name):
            continue
        raise OutputError(
            f"{folder}: holds files that this command does not write",
            got=name,
            hint="Give a folder of its own, or move them away.",
        )


def write_folder(folder: Path, files: Mapping[str, bytes], leftovers: str | None = None) -> Path:
    """Write a folder, and replace what ``require_ours`` allows.

    All files are written beside the folder first; then two renames put them in place.

    Parameters
    ----------
    folder : the folder.
    files : content of each file, by its path inside the folder.
    leftovers : pattern of files that may be removed, as for ``require_ours``.

    Raises
    ------
    OutputError : the folder cannot be written, or holds other files.
    """
    require_ours(folder, files, leftovers)

    # Make a temporary folder beside it.
    place = folder.resolve()  # replaces what a link points to, not the link
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}-"))
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written",
            got=error.strerror or str(error),
            hint="Give another output.",
        ) from error

    # Write the files there, and exchange the folders.
    try:
        for name, content in files.items():
            path = aside / "new" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

        _swap(aside / "new", place, aside / "old")
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written", got=error.strerror or str(error)
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _swap(new: Path, folder: Path, old: Path) -> None:
    """Rename ``folder`` to ``old``, then ``new`` to ``folder``; undo the first if that fails."""
    if folder.exists():
        os.rename(folder, old)

    try:
        os.rename(new, folder)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.rename(old, folder)
        raise
