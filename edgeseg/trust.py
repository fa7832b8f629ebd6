"""Believe only files of this user: check who owns and who can change the cache and its files.

edgeseg loads libraries from its cache, and trusts what it finds there. So a cache that another user
can write is refused before anything in it is opened.
"""

import hashlib
import os
import stat
from pathlib import Path

from edgeseg.errors import OutputError

_ROOT = 0  # the administrator may own what this user reads
_HINT = "Set EDGESEG_CACHE to a folder of your own, and make it private: chmod 700."


def make_private(path: Path) -> None:
    """Make a folder and its missing parents with mode 0700, whatever the umask is.

    Parameters
    ----------
    path : the folder; one that is there keeps its mode.

    Raises
    ------
    OSError : a folder cannot be made.
    """
    missing = []
    for folder in (path, *path.parents):
        if folder.exists():
            break
        missing.append(folder)
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)


def require_private_folder(path: Path) -> None:
    """Raise an error if another user could put files into a folder, or replace the folder.

    Parameters
    ----------
    path : the folder; a missing one is fine if it can be made in a safe place.

    Raises
    ------
    OutputError : the folder or a folder above it is another user's, or can be written by others.
        A folder above may be writable by all if it has the sticky bit, as ``/tmp`` has.
    """
    real = Path(os.path.realpath(path))
    for folder in (real, *real.parents):
        try:
            facts = folder.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise OutputError(
                f"{folder}: cannot be looked at", got=error.strerror or str(error), hint=_HINT
            ) from error

        reason = _why_unsafe(facts, sticky_is_safe=folder != real)
        if reason:
            raise OutputError(f"{path}: is no safe cache", got=f"{folder} {reason}", hint=_HINT)


def read_private(path: Path) -> bytes:
    """Read a file that only this user or the administrator could have written.

    The file that is checked is the one that is read.

    Parameters
    ----------
    path : the file.

    Raises
    ------
    FileNotFoundError : there is no such file.
    OSError : it cannot be read.
    OutputError : it is no regular file, is another user's, or can be written by others.
    """
    # O_NONBLOCK: opening a pipe would wait for a writer.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        _require_private(path, os.fstat(handle))
        return file.read()


def require_private_file(path: Path) -> None:
    """Raise an error if another user could have written a file.

    Parameters
    ----------
    path : the file; a missing one is fine.

    Raises
    ------
    OutputError : it is no regular file, is another user's, or can be written by others.
    """
    try:
        facts = path.stat()
    except OSError:  # the caller, who opens it, reports it
        return
    _require_private(path, facts)


def sha256_private(path: Path) -> str:
    """Return the SHA-256 of the bytes of a file that only this user could have written.

    Parameters
    ----------
    path : the file.

    Raises
    ------
    OSError : it cannot be read.
    OutputError : ``read_private`` refuses it.
    """
    return hashlib.sha256(read_private(path)).hexdigest()


def _require_private(path: Path, facts: os.stat_result) -> None:
    """Raise an error for a file that another user could have written."""
    reason = "is no regular file"
    if stat.S_ISREG(facts.st_mode):
        reason = _why_unsafe(facts, sticky_is_safe=False)
    if reason:
        raise OutputError(
            f"{path}: is not read from the cache", got=f"a file that {reason}", hint=_HINT
        )


def _why_unsafe(facts: os.stat_result, *, sticky_is_safe: bool) -> str:
    """Return why another user could change a file or folder; ``""`` if none could."""
    if facts.st_uid not in (os.geteuid(), _ROOT):
        return f"belongs to another user (uid {facts.st_uid})"
    if sticky_is_safe and facts.st_mode & stat.S_ISVTX:
        return ""
    if facts.st_mode & stat.S_IWOTH:
        return "can be written by everybody"

    # Many systems give each user a group of its own, and let it write.
    if facts.st_mode & stat.S_IWGRP and facts.st_gid not in (os.getegid(), _ROOT):
        return f"can be written by another group (gid {facts.st_gid})"
    return ""
