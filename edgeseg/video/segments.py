"""Name the segments of a recording, limit the room they take, and find those of killed runs."""

import os
import re
from datetime import datetime
from pathlib import Path

from edgeseg.video.disk_file import lock

_TIME = r"(?:\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d|\d{2,}-\d\d-\d\d)(?:_\d+)?"


class Segments:
    """Give segments their names: ``out.mp4`` becomes ``out-2026-11-28T10-00-00.mp4``.

    Parameters
    ----------
    path : the name that the user gave.
    keep_bytes : room for all segments together; None for no limit.
    """

    def __init__(self, path: Path, keep_bytes: float | None = None) -> None:
        self._path = path
        self._keep_bytes = keep_bytes
        stem = re.escape(path.stem)
        suffix = re.escape(path.suffix)
        self._finished = re.compile(f"{stem}-{_TIME}{suffix}")
        self._recording = re.compile(rf"({stem}-{_TIME})\.recording-\w+{suffix}")

    def at_clock(self, now: datetime) -> Path:
        """Return the name of a live segment that starts now; no existing file has it.

        Parameters
        ----------
        now : local time.
        """
        return self._free(now.strftime("%Y-%m-%dT%H-%M-%S"))

    def at_position(self, at_s: float) -> Path:
        """Return the name of a segment of a file, such as ``out-00-10-00.mp4``.

        Parameters
        ----------
        at_s : where the segment starts, seconds from the start of the file.
        """
        minutes, seconds = divmod(int(at_s), 60)
        hours, minutes = divmod(minutes, 60)
        return self._free(f"{hours:02d}-{minutes:02d}-{seconds:02d}")

    def _free(self, time: str) -> Path:
        """Return a name with a time in it, and with a number behind it if it is taken."""
        name = self._path.with_name(f"{self._path.stem}-{time}{self._path.suffix}")
        number = 2
        while name.exists():
            name = self._path.with_name(f"{self._path.stem}-{time}_{number}{self._path.suffix}")
            number += 1
        return name

    def adopt(self) -> list[Path]:
        """Give recordings of killed processes their names.

        Returns
        -------
        The files under their new names. A recording that a process is still writing is left alone.
        """
        adopted: list[Path] = []
        for path in sorted(self._path.parent.iterdir()):
            match = self._recording.fullmatch(path.name)
            if match is None or not _is_left_behind(path):
                continue
            time = match[1].removeprefix(f"{self._path.stem}-")
            name = self._free(time)
            os.replace(path, name)
            adopted.append(name)
        return adopted

    def delete_oldest(self, writing_bytes: int) -> list[Path]:
        """Delete the oldest finished segments until the rest and the current one have room.

        Parameters
        ----------
        writing_bytes : size of the segment that is being written. It is never deleted.

        Returns
        -------
        The deleted files.
        """
        deleted: list[Path] = []
        if self._keep_bytes is None:
            return deleted

        found: list[tuple[int, str, int, Path]] = []
        for path in self._path.parent.iterdir():
            if self._finished.fullmatch(path.name):
                state = path.stat()
                found.append((state.st_mtime_ns, path.name, state.st_size, path))
        found.sort()

        total = writing_bytes + sum(size for _, _, size, _ in found)
        for _, _, size, path in found:
            if total <= self._keep_bytes:
                break
            path.unlink(missing_ok=True)
            deleted.append(path)
            total -= size
        return deleted


def _is_left_behind(path: Path) -> bool:
    """Return whether no process is writing a file any more."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return lock(handle)
    finally:
        os.close(handle)
