"""What a video file's container promises, to tell a whole file from one that breaks half-way.

OpenCV reports the end of a broken file exactly as the end of a whole one, so the container is asked itself:

- Is the file as long as its own headers say? (ISO base media = mp4, mov; RIFF = avi.)
- How many frames does it hold? OpenCV's count is the sample table's for mp4, but elsewhere an estimate (duration times
  mean rate), and an edit list (a clip trimmed on a phone) hides samples that it still counts.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_SLACK_FRAMES = 2  # rounding of duration times rate; frames a decoder cannot start from
_SLACK_SHARE = 0.02


@dataclass(frozen=True)
class Container:
    """Facts from a file's headers. ``exact_frames`` is None where there is no sample table."""

    size: int
    promised_size: int | None = None
    exact_frames: int | None = None
    shown_share: float = 1.0  # how much of the video track the edit list shows


def inspect(path: Path) -> Container:
    """Read the headers of a video file. What is not understood is left open, never guessed."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and len(head) == 12:
            return Container(size, promised_size=8 + struct.unpack("<I", head[4:8])[0])
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
            try:
                return _inspect_iso(file, size)
            except struct.error:  # a box too short for its fields: the decoder's matter
                return Container(size)
    return Container(size)


def early_end(
    container: Container, frames_read: int, frames_counted: int | None, fps: float | None, last_s: float, gap_s: float
) -> str | None:
    """Say how a file broke, or None where it ended as it should.

    A file shorter than its headers say is broken. Otherwise frames must be missing, beyond the slack of counting: from
    a sample table that is enough; where the count is an estimate, the last timestamp must also lie short of the end, by
    more than twice the longest gap between frames seen (variable frame rates, a held last frame).

    Parameters
    ----------
    container : what ``inspect`` found.
    frames_read, frames_counted : what was decoded; what OpenCV said before.
    fps : the mean rate OpenCV derived its count from, or None.
    last_s, gap_s : timestamp of the last frame and longest gap between two, seconds.
    """
    total = round(frames_counted * container.shown_share) if frames_counted else None
    ends = f"ends after frame {frames_read} of {total}" if total else f"ends after frame {frames_read}"
    if container.promised_size is not None and container.size < container.promised_size:
        return f"{ends} (the file is cut short: {container.size} of {container.promised_size} bytes)"
    if total is None or total - frames_read <= max(_SLACK_FRAMES, _SLACK_SHARE * total):
        return None
    duration_s = total / fps if fps else math.inf
    short = last_s + max(2 * gap_s, _SLACK_SHARE * duration_s) < duration_s
    if container.exact_frames == frames_counted and container.shown_share == 1.0:
        return ends if short else f"only {frames_read} of {total} frames can be decoded"
    return ends if short else None


def _inspect_iso(file: BinaryIO, size: int) -> Container:
    end, moov = 0, b""
    for kind, start, stop in _top_boxes(file, size):
        end = stop
        if kind == b"moov" and stop <= size:
            file.seek(start)
            moov = file.read(stop - start)
    frames, share = _video_track(moov)
    return Container(size, promised_size=end, exact_frames=frames, shown_share=share)


def _top_boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start of payload, end) of every box of the file; the last end may lie beyond the file."""
    position = 0
    while position + 8 <= size:
        file.seek(position)
        length, kind = struct.unpack(">I4s", file.read(8))
        start = position + 8
        if length == 1:
            length, start = struct.unpack(">Q", file.read(8))[0], start + 8
        elif length == 0:  # "to the end of the file"
            length = size - position
        if length < start - position or not kind.isascii():
            return  # padding behind the last box, no box
        position += length
        yield kind, start, position


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if length < 8:
            return
        yield kind, data[position + 8 : position + length]
        position += length


def _find(data: bytes, *path: bytes) -> bytes:
    """Payload of the first box at ``path``, or nothing."""
    for kind in path:
        data = next((payload for k, payload in _boxes(data) if k == kind), b"")
    return data


def _video_track(moov: bytes) -> tuple[int | None, float]:
    """Sample count of the first video track (None without one), and the share of it that its edit list shows."""
    for kind, track in _boxes(moov):
        media = _find(track, b"mdia")
        if kind == b"trak" and _find(media, b"hdlr")[8:12] == b"vide":
            table = _find(media, b"minf", b"stbl", b"stsz")
            frames = struct.unpack_from(">I", table, 8)[0] if table else None
            whole_s, clock = _length(_find(media, b"mdhd")), _clock(_find(moov, b"mvhd"))
            shown = _shown(_find(track, b"edts", b"elst"))
            if not shown or not whole_s or not clock:
                return frames, 1.0
            share = shown / clock / whole_s
            return frames, share if share < 1.0 - _SLACK_SHARE else 1.0
    return None, 1.0


def _clock(header: bytes) -> int:
    """Units a second of an ``mvhd`` or ``mdhd`` box; 0 where there is none."""
    return int(struct.unpack_from(">I", header, 20 if header[0] == 1 else 12)[0]) if header else 0


def _length(header: bytes) -> float:
    """Duration an ``mdhd`` box states, seconds; 0 where it states none."""
    clock = _clock(header)
    if not clock:
        return 0.0
    duration = struct.unpack_from(">Q", header, 24) if header[0] == 1 else struct.unpack_from(">I", header, 16)
    return float(duration[0] / clock)


def _shown(edits: bytes) -> int:
    """Units of the movie's clock that an ``elst`` box shows of its track; empty edits only delay it."""
    if not edits:
        return 0
    entry = struct.Struct(">Qqi" if edits[0] == 1 else ">Iii")
    count = struct.unpack_from(">I", edits, 4)[0]
    entries = [entry.unpack_from(edits, 8 + i * entry.size) for i in range(min(count, len(edits) // entry.size))]
    return sum(length for length, start, _ in entries if start >= 0)
