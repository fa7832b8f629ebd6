"""Write files whole or not at all, hash their content, and find the cache folder."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgeseg.errors import OutputError
from edgeseg.trust import make_private, require_private_folder

_CHUNK = 1 << 20  # bytes read at once


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex.

    Parameters
    ----------
    path : the file.

    Raises
    ------
    OSError : the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of bytes, in hex.

    Parameters
    ----------
    data : the bytes.

    Examples
    --------
    >>> sha256_bytes(b"edgeseg")[:12]
    '386628f42a84'
    """
    return hashlib.sha256(data).hexdigest()


def require_writable(path: Path) -> None:
    """Raise an error now if a file could not be created at ``path`` later.

    Makes the file's folder if it is missing.

    Parameters
    ----------
    path : where a file is to be written.

    Raises
    ------
    OutputError : ``path`` is a folder, or no file can be created in its folder.
    """
    folder = path.parent
    try:
        if path.is_dir():
            raise OutputError(
                f"{path}: is a folder", expected="a file name", hint="Give another output."
            )
        folder.mkdir(parents=True, exist_ok=True)

        # Permissions and full disks show only on trying.
        handle, probe = tempfile.mkstemp(dir=folder, prefix=".edgeseg-")
        os.close(handle)
        os.unlink(probe)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written",
            got=error.strerror or str(error),
            hint="Give another output.",
        ) from error


def require_json_output(path: Path, *others: Path | None) -> None:
    """Raise an error unless JSON can be written to ``path``.

    Parameters
    ----------
    path : where the JSON is to be written.
    others : files that the same command reads or writes; ``None`` is ignored.

    Raises
    ------
    OutputError : the name does not end in ``.json``, the path cannot be written, or it is one of
        the ``others``.
    """
    if path.suffix.lower() != ".json":
        raise OutputError(
            f"{path}: not the name of a JSON file", expected="a name that ends in .json"
        )
    require_writable(path)

    for other in others:
        if other is not None and other.resolve() == path.resolve():
            raise OutputError(f"{path}: is in use by this command", hint="Give another output.")


@contextmanager
def atomic_path(final: Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to ``final`` on success and removed otherwise.

    Parameters
    ----------
    final : the file to write. The temporary path is in the same folder and has the same suffix.

    Raises
    ------
    OutputError : the file cannot be written.
    """
    with temporary_path(final) as temporary:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, final)


@contextmanager
def temporary_path(final: Path) -> Iterator[Path]:
    """Yield a temporary path for a block that renames it to ``final``; remove what is left.

    Parameters
    ----------
    final : the file to write. The temporary path is in the same folder and has the same suffix.

    Raises
    ------
    OutputError : the file cannot be written.
    """
    require_writable(final)
    handle, name = tempfile.mkstemp(dir=final.parent, prefix=f".{final.stem}-", suffix=final.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        os.chmod(temporary, 0o666 & ~_umask())
        yield temporary
    except OSError as error:
        raise OutputError(
            f"{final}: cannot be written", got=error.strerror or str(error)
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    """Return the process's umask, which can be read only by setting it."""
    current = os.umask(0o022)
    os.umask(current)
    return current


def write_bytes(path: Path, data: bytes | memoryview) -> Path:
    """Write a file whole or not at all.

    Parameters
    ----------
    path : the file; an existing one is replaced.
    data : its content.

    Returns
    -------
    ``path``.

    Raises
    ------
    OutputError : the file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return path


def json_text(value: object) -> str:
    """Return ``value`` as indented JSON that ends in a newline.

    Parameters
    ----------
    value : anything that JSON can hold.

    Raises
    ------
    ValueError : a number is NaN or infinite.

    Examples
    --------
    >>> print(json_text({"fps": 30}), end="")
    {
      "fps": 30
    }
    """
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def write_json(path: Path, value: object) -> Path:
    """Write JSON whole or not at all.

    Parameters
    ----------
    path : the file; an existing one is replaced.
    value : anything that JSON can hold, without NaN.

    Returns
    -------
    ``path``.

    Raises
    ------
    OutputError : the file cannot be written.
    ValueError : a number is NaN or infinite.
    """
    return write_bytes(path, json_text(value).encode())


def cache_folder() -> Path:
    """Return the folder of files that are made once and kept; make it, for this user only.

    Returns
    -------
    ``$EDGESEG_CACHE`` if it is set, else edgeseg's folder in the user's cache. A folder that cannot
    be made is returned, too: whoever writes there reports it.

    Raises
    ------
    OutputError : there is no home folder; or another user can write to the folder.
    """
    folder = cache_path()
    with suppress(OSError):
        make_private(folder)
    require_private_folder(folder)
    return folder


def cache_path() -> Path:
    """Return the path of ``cache_folder``, which may be missing or unsafe.

    Raises
    ------
    OutputError : there is no home folder.
    """
    given = os.environ.get("EDGESEG_CACHE")
    if given:
        return Path(os.path.expanduser(given)).absolute()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeseg"
    except RuntimeError as error:
        raise OutputError(
            "no home folder to keep engines in",
            hint="Set EDGESEG_CACHE to a folder that can be written.",
        ) from error
