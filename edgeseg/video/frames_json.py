"""Write one line of JSON for each frame: its time, its age, and the shares of the classes."""

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import cv2

from edgeseg.errors import OutputError
from edgeseg.imaging.postprocess import LabelMap
from edgeseg.spec import LabelSpace
from edgeseg.video.disk_file import DiskFile
from edgeseg.video.sinks import Output, Sink

STDOUT = "-"

_SHARE_DIGITS = 6  # a pixel of 1280x720 is a millionth
_MS_DIGITS = 3


class FramesJsonSink(Sink):
    """Write one line of JSON for each frame, to a file or to the standard output.

    A line has the keys ``index``, ``source``, ``name``, ``time_s``, ``age_ms``, ``network_ms`` and
    ``shares``; what is unknown is null. ``shares`` has the share of the frame's pixels, 0 to 1, of
    each class that is in it; pixels of the ignored id count to no class. Frames that a lost camera
    repeats are skipped. Each line is written at once.

    Parameters
    ----------
    path : the file to write; ``-`` is the standard output.
    labels : the classes, with their names.

    Raises
    ------
    OutputError : the file cannot be written.

    Examples
    --------
    >>> import numpy as np
    >>> from edgeseg.spec import CAMVID_11
    >>> from edgeseg.video.frames import Frame
    >>> road = np.full((2, 2), 3, np.uint8)
    >>> with FramesJsonSink("-", CAMVID_11) as sink:
    ...     sink.write(Output(Frame(0, np.zeros((2, 2, 3), np.uint8), "0", 0.0), road, None))
    {"index": 0, "source": 0, "name": "0", "time_s": 0.0, "age_ms": null, "network_ms": null, \
"shares": {"Road": 1.0}}
    """

    needs_picture: ClassVar[bool] = False

    def __init__(self, path: str | Path, labels: LabelSpace) -> None:
        self._labels = labels
        self._file: DiskFile | None = None
        if str(path) != STDOUT:
            self.path = Path(path)
            self._file = DiskFile(self.path)

    def write(self, output: Output) -> None:
        """Write the line of one frame.

        If nobody reads the standard output any more, such as after ``| head``, the sink is closed.
        """
        if output.frame.lost_s is not None or output.status.lost_s is not None:
            return

        line = _line(output, self._labels)
        if self._file is not None:
            self._write_file(self._file, line)
        elif not self.closed:
            self._write_stdout(line)

    def finish(self) -> None:
        """Give the file its name."""
        file, self._file = self._file, None
        if file is not None:
            file.keep()

    def abort(self) -> None:
        """Remove the unfinished file."""
        file, self._file = self._file, None
        if file is not None:
            file.drop()

    def _write_file(self, file: DiskFile, line: str) -> None:
        """Write a line to the file."""
        try:
            file.write(line.encode())
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot be written", got=error.strerror or str(error)
            ) from error

    def _write_stdout(self, line: str) -> None:
        """Write a line to the standard output, or note that nobody reads it."""
        try:
            sys.stdout.write(line)
            sys.stdout.flush()
        except BrokenPipeError:
            self.closed = True

            # What Python still holds must not fail again at the end of the process.
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _line(output: Output, labels: LabelSpace) -> str:
    """Return the line of one frame."""
    frame, status = output.frame, output.status
    facts = {
        "index": frame.index,
        "source": frame.source,
        "name": frame.name,
        "time_s": round(frame.timestamp_s, 6),
        "age_ms": _rounded(status.age_ms),
        "network_ms": _rounded(status.network_ms),
        "shares": _shares(output.labels, labels),
    }
    return json.dumps(facts, allow_nan=False) + "\n"


def _shares(label_map: LabelMap, labels: LabelSpace) -> dict[str, float]:
    """Return the share of each class that is in a label map."""
    counts = cv2.calcHist([label_map], [0], None, [256], [0, 256]).ravel()
    shares: dict[str, float] = {}
    for label, name in enumerate(labels.names):
        if label != labels.ignore_id and counts[label] > 0:
            shares[name] = round(float(counts[label]) / label_map.size, _SHARE_DIGITS)
    return shares


def _rounded(value_ms: float | None) -> float | None:
    """Return milliseconds without digits that mean nothing."""
    return None if value_ms is None else round(value_ms, _MS_DIGITS)
