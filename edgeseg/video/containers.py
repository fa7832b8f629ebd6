"""Read what a video file's container promises, to tell a whole file from one that breaks half-way.

FFmpeg reports the end of a broken file exactly as it reports the end of a whole one. So this module
reads the container's own headers:

- Is the file as long as its headers say? (ISO base media = mp4, mov; RIFF = avi.)
- How many frames does it hold? For mp4, FFmpeg's count comes from the sample table. For other
  containers it is an estimate (duration times mean rate). An edit list (a clip that was trimmed on
  a phone) hides samples that FFmpeg still counts.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

# Frames that may be missing: duration times rate is rounded, and a decoder cannot start from some.
_SLACK_FRAMES = 2
_SLACK_SHARE = 0.02

_EDITS_AT = 8  # bytes of an ``elst`` box before its first entry: version, flags, count
_ISO_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")


@dataclass(frozen=True)
class Container:
    """Hold the facts from a video file's headers.

    Attributes
    ----------
    size : bytes of the file.
    promised_size : bytes that the headers announce; None if they do not say.
    exact_frames : number of frames in the sample table; None if there is no sample table.
    shown_share : share of the video track that the edit list shows, 0 to 1.
    codec : four letters that name the codec of the video track, such as ``avc1``; empty if unknown.
    """

    size: int
    promised_size: int | None = None
    exact_frames: int | None = None
    shown_share: float = 1.0
    codec: str = ""

    @property
    def is_cut_short(self) -> bool:
        """Return whether the file is shorter than its headers say."""
        return self.promised_size is not None and self.size < self.promised_size


def inspect(path: Path) -> Container:
    """Read the headers of a video file.

    Fields that this function does not understand keep their defaults; it never guesses.

    Parameters
    ----------
    path : the video file.

    Raises
    ------
    OSError : the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)

        if head[:4] == b"RIFF" and len(head) == 12:
            (payload_size,) = struct.unpack("<I", head[4:8])
            return Container(size, promised_size=8 + payload_size)

        if head[4:8] in _ISO_FIRST_BOXES:
            try:
                return _inspect_iso(file, size)
            except struct.error:
                # A box is too short for its fields: the decoder reports that.
                return Container(size)

    return Container(size)


def early_end(
    container: Container,
    frames_read: int,
    frames_counted: int | None,
    fps: float | None,
    last_s: float,
    gap_s: float,
) -> str | None:
    """Describe how a file broke, or return None if it ended as it should.

    A file that is shorter than its headers say is broken. Otherwise frames must be missing, more
    than the slack of counting. If the count comes from a sample table, missing frames are enough.
    If the count is an estimate, the last timestamp must also lie short of the end, by more than
    twice the longest gap between two frames (variable frame rates, a last frame that is held).

    Parameters
    ----------
    container : the result of ``inspect``.
    frames_read : number of frames that were decoded.
    frames_counted : number of frames that FFmpeg announced before; None if unknown.
    fps : the mean rate from which FFmpeg derived its count; None if unknown.
    last_s : timestamp of the last frame, seconds.
    gap_s : longest gap between two frames, seconds.

    Examples
    --------
    >>> whole = Container(size=5000, promised_size=5000, exact_frames=100)
    >>> early_end(whole, 100, 100, fps=25.0, last_s=3.96, gap_s=0.04) is None
    True
    >>> early_end(whole, 50, 100, fps=25.0, last_s=1.96, gap_s=0.04)
    'ends after frame 50 of 100'
    """
    total = round(frames_counted * container.shown_share) if frames_counted else None
    ends = f"ends after frame {frames_read}"
    if total:
        ends = f"{ends} of {total}"

    # Shorter than the headers say?
    if container.is_cut_short:
        promised = container.promised_size
        return f"{ends} (the file is cut short: {container.size} of {promised} bytes)"

    # Enough frames?
    if total is None or total - frames_read <= max(_SLACK_FRAMES, _SLACK_SHARE * total):
        return None

    # Is the last timestamp short of the end?
    duration_s = total / fps if fps else math.inf
    slack_s = max(2 * gap_s, _SLACK_SHARE * duration_s)
    short = last_s + slack_s < duration_s
    if short:
        return ends

    count_is_exact = container.exact_frames == frames_counted and container.shown_share == 1.0
    if count_is_exact:
        return f"only {frames_read} of {total} frames can be decoded"
    return None


def _inspect_iso(file: BinaryIO, size: int) -> Container:
    """Read the facts of an ISO base media file (mp4, mov) of ``size`` bytes."""
    end = 0
    moov = b""
    for kind, start, stop in _top_boxes(file, size):
        end = stop
        if kind == b"moov" and stop <= size:
            file.seek(start)
            moov = file.read(stop - start)

    frames, share, codec = _video_track(moov)
    return Container(size, promised_size=end, exact_frames=frames, shown_share=share, codec=codec)


def _top_boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, start of payload, end) of every box of the file.

    The last end may lie beyond the end of the file.
    """
    position = 0
    while position + 8 <= size:
        file.seek(position)
        length, kind = struct.unpack(">I4s", file.read(8))
        start = position + 8

        if length == 1:  # the length follows as 64 bits
            (length,) = struct.unpack(">Q", file.read(8))
            start += 8
        elif length == 0:  # "to the end of the file"
            length = size - position

        if length < start - position or not kind.isascii():
            return  # padding behind the last box, not a box

        position += length
        yield kind, start, position


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, payload) of every box in ``data``."""
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if length < 8:
            return
        yield kind, data[position + 8 : position + length]
        position += length


def _find(data: bytes, *path: bytes) -> bytes:
    """Return the payload of the first box at ``path``, or ``b""`` if there is none."""
    for kind in path:
        payloads = (payload for found, payload in _boxes(data) if found == kind)
        data = next(payloads, b"")
    return data


def _video_track(moov: bytes) -> tuple[int | None, float, str]:
    """Return sample count, share that the edit list shows, and codec of the first video track.

    The count is None if there is no video track or no sample table; the codec is then empty.
    """
    for kind, track in _boxes(moov):
        media = _find(track, b"mdia")
        is_video = kind == b"trak" and _find(media, b"hdlr")[8:12] == b"vide"
        if not is_video:
            continue

        sample_sizes = _find(media, b"minf", b"stbl", b"stsz")
        frames = struct.unpack_from(">I", sample_sizes, 8)[0] if sample_sizes else None

        # Version, flags and count; then entries, each of a length and the codec's four letters.
        descriptions = _find(media, b"minf", b"stbl", b"stsd")
        codec = descriptions[12:16].decode("latin-1").strip()
        codec = codec if codec.isprintable() else ""
        return frames, _track_share(moov, track, media), codec
    return None, 1.0, ""


def _track_share(moov: bytes, track: bytes, media: bytes) -> float:
    """Return the share of ``track`` that its edit list shows; 1.0 if all, or if unknown."""
    whole_s = _length(_find(media, b"mdhd"))
    clock = _clock(_find(moov, b"mvhd"))
    shown = _shown(_find(track, b"edts", b"elst"))
    if not shown or not whole_s or not clock:
        return 1.0

    share = shown / clock / whole_s
    return share if share < 1.0 - _SLACK_SHARE else 1.0


def _clock(header: bytes) -> int:
    """Return the units per second of an ``mvhd`` or ``mdhd`` box; 0 if the box is missing."""
    if not header:
        return 0
    offset = 20 if header[0] == 1 else 12  # version 1 has 64-bit dates before it
    return int(struct.unpack_from(">I", header, offset)[0])


def _length(header: bytes) -> float:
    """Return the duration that an ``mdhd`` box states, seconds; 0 if it states none."""
    clock = _clock(header)
    if not clock:
        return 0.0

    if header[0] == 1:
        (duration,) = struct.unpack_from(">Q", header, 24)
    else:
        (duration,) = struct.unpack_from(">I", header, 16)
    return float(duration / clock)


def _shown(edits: bytes) -> int:
    """Return how much of its track an ``elst`` box shows, in units of the movie's clock.

    Empty edits (their start is negative) only delay the track, so they do not count.
    """
    if len(edits) < _EDITS_AT:
        return 0

    entry = struct.Struct(">Qqi" if edits[0] == 1 else ">Iii")
    announced = struct.unpack_from(">I", edits, 4)[0]
    held = (len(edits) - _EDITS_AT) // entry.size  # a broken list holds fewer than it announces
    shown = 0
    for number in range(min(announced, held)):
        length, start, _ = entry.unpack_from(edits, _EDITS_AT + number * entry.size)
        if start >= 0:
            shown += length
    return int(shown)
