"""Be the file under a video: report a full disk, reach the disk itself, get its name at the end."""

import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path

from edgeseg.errors import OutputError
from edgeseg.files import require_writable

if sys.platform != "win32":
    import fcntl

_SYNC_EVERY_S = 0.5
_SYNC_JOIN_TIMEOUT_S = 10.0


def lock(handle: int) -> bool:
    """Lock a file until it is closed or the process ends, whichever way.

    Parameters
    ----------
    handle : descriptor of the open file.

    Returns
    -------
    False if another process is writing the file; True if not, or if this system has no locks.
    """
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a network file system without locks
        return True
    return True


class DiskFile:
    """Be the file that FFmpeg writes to, under a temporary name.

    FFmpeg's own files report errors late, and cannot be flushed to the disk. After an error all
    further writes are discarded, so that closing the container does no harm.
    """

    def __init__(self, final: Path) -> None:
        require_writable(final)
        handle, name = tempfile.mkstemp(
            dir=final.parent, prefix=f"{final.stem}.recording-", suffix=final.suffix
        )
        lock(handle)
        self._final = final
        self._handle = handle
        self._path = Path(name)
        self.error: OSError | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

        # `mkstemp` lets nobody else read the file, but a killed process leaves it like this.
        umask = os.umask(0o022)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)

    @property
    def size(self) -> int:
        """Return the number of bytes in the file."""
        return os.fstat(self._handle).st_size

    def free_bytes(self) -> int:
        """Return the room on the disk."""
        return shutil.disk_usage(self._path.parent).free

    def write(self, data: bytes) -> int:
        """Write all bytes; FFmpeg calls this."""
        rest = memoryview(data)
        try:
            while rest and self.error is None:
                rest = rest[os.write(self._handle, rest) :]
        except OSError as error:
            self.error = error
            raise
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position; FFmpeg calls this."""
        return os.lseek(self._handle, offset, whence)

    def tell(self) -> int:
        """Return the position; FFmpeg calls this."""
        return os.lseek(self._handle, 0, os.SEEK_CUR)

    def start_syncing(self) -> None:
        """Start to bring what is written to the disk itself: a power cut loses the rest."""
        self._thread = threading.Thread(target=self._sync, name="edgeseg-sync", daemon=True)
        self._thread.start()

    def _sync(self) -> None:
        """Flush the file twice a second, in a thread: a slow card must not stop the video."""
        sync = getattr(os, "fdatasync", os.fsync)
        while not self._stop.wait(_SYNC_EVERY_S):
            try:
                sync(self._handle)
            except OSError:
                return  # the next write reports it

    def cut(self, size: int) -> None:
        """Shorten the file."""
        os.ftruncate(self._handle, size)

    def _close(self) -> None:
        """Stop the thread and close the file."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_SYNC_JOIN_TIMEOUT_S)
        os.close(self._handle)

    def keep(self) -> None:
        """Close the file and give it its final name."""
        try:
            os.fsync(self._handle)
            self._close()
            os.replace(self._path, self._final)
        except OSError as error:
            raise OutputError(
                f"{self._final}: cannot be written",
                got=error.strerror or str(error),
                hint=f"The recording is in {self._path}.",
            ) from error

    def drop(self) -> None:
        """Close the file and remove it."""
        self._close()
        self._path.unlink(missing_ok=True)
