"""Choose a video encoder of FFmpeg by really encoding with it.

Names prove nothing: PyAV's wheels list hardware encoders that open on few machines.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

# Units of timestamps inside the files. All usual rates divide it, 29.97 included, and the encoder
# of MPEG-4 takes no finer ones.
TIME_BASE = Fraction(1, 60_000)

# What is written into the stream: limited range, matrix of BT.601 (the one that OpenCV converts
# with), primaries and transfer of BT.709. Numbers of ITU-T H.273.
COLOUR_RANGE, COLOUR_MATRIX, COLOUR_PRIMARIES, COLOUR_TRANSFER = 1, 6, 1, 1

KEY_FRAME_EVERY_S = 2.0  # players can jump to these places

_MAX_THREADS = 4  # more of them cut small pictures into slices too thin to compress
_PROBE_FRAMES = 4
_PROBE_TOLERANCE = 8  # levels of grey


@dataclass(frozen=True)
class Encoder:
    """Describe one encoder of FFmpeg.

    Attributes
    ----------
    name : FFmpeg's name of it, such as ``libx264``.
    codec : name of the decoder for what it writes, such as ``h264``.
    label : name for people, such as ``H.264``.
    bits_per_pixel : bits per pixel and frame; 0 if ``options`` set a quality instead.
    options : FFmpeg's options of the encoder.

    Examples
    --------
    >>> Encoder("libx264", "h264", "H.264").name
    'libx264'
    """

    name: str
    codec: str
    label: str
    bits_per_pixel: float = 0.0
    options: dict[str, str] = field(default_factory=dict, hash=False)


# No encoder may keep frames back (B-frames, lookahead): a power cut would lose them.
_H264_ENCODERS = (
    Encoder("h264_nvmpi", "h264", "H.264", bits_per_pixel=0.12),
    Encoder(
        "h264_nvenc",
        "h264",
        "H.264",
        options={
            "preset": "p4",
            "tune": "ll",
            "rc": "vbr",
            "cq": "23",
            "bf": "0",
            "delay": "0",
            "forced-idr": "1",
        },
    ),
    Encoder("h264_v4l2m2m", "h264", "H.264", bits_per_pixel=0.12),
    # Faster presets give larger files; this one takes the time of the MPEG-4 that OpenCV writes.
    Encoder(
        "libx264",
        "h264",
        "H.264",
        options={"preset": "ultrafast", "tune": "zerolatency", "crf": "23", "forced-idr": "1"},
    ),
    Encoder("libopenh264", "h264", "H.264", 0.12, {"allow_skip_frames": "0"}),
    Encoder("mpeg4", "mpeg4", "MPEG-4", bits_per_pixel=0.2),
)
_WEBM_ENCODERS = (
    Encoder(
        "libvpx-vp9",
        "vp9",
        "VP9",
        options={
            "deadline": "realtime",
            "cpu-used": "8",
            "row-mt": "1",
            "lag-in-frames": "0",
            "crf": "33",
        },
    ),
    Encoder("libvpx", "vp8", "VP8", 0.12, {"deadline": "realtime", "cpu-used": "12", "crf": "20"}),
)

_ENCODERS = {".mp4": _H264_ENCODERS, ".mkv": _H264_ENCODERS, ".webm": _WEBM_ENCODERS}


@lru_cache(maxsize=64)
def find_encoder(suffix: str, width: int, height: int) -> Encoder | None:
    """Return the first encoder that works for a kind of file.

    Hardware comes first, then software. Each one encodes a few frames, which are decoded again.

    Parameters
    ----------
    suffix : ``.mp4``, ``.mkv`` or ``.webm``.
    width, height : size of the frames, even, pixels.

    Returns
    -------
    The encoder, or None if none works for this size.

    Examples
    --------
    >>> find_encoder(".webm", 64, 48).codec
    'vp9'
    """
    for encoder in _ENCODERS[suffix]:
        if _works(encoder, width, height):
            return encoder
    return None


def configure(context: VideoCodecContext, encoder: Encoder, fps: float) -> None:
    """Set up an encoder that is not open yet, whose size is set.

    Parameters
    ----------
    context : the encoder's context.
    encoder : the description of the encoder.
    fps : frames per second, at least about; a video of variable rate may have others.
    """
    context.pix_fmt = "yuv420p"
    context.time_base = TIME_BASE
    context.framerate = rate(fps)
    context.gop_size = max(1, round(fps * KEY_FRAME_EVERY_S))
    context.max_b_frames = 0
    context.thread_count = min(_MAX_THREADS, os.cpu_count() or 1)
    context.bit_rate = round(encoder.bits_per_pixel * context.width * context.height * fps)
    context.options = dict(encoder.options)

    context.color_range = COLOUR_RANGE
    context.colorspace = COLOUR_MATRIX
    context.color_primaries = COLOUR_PRIMARIES
    context.color_trc = COLOUR_TRANSFER


def rate(fps: float) -> Fraction:
    """Return a rate as the fraction that was meant, such as 30000/1001 for 29.97003.

    Parameters
    ----------
    fps : frames per second.

    Examples
    --------
    >>> rate(29.97003), rate(15.0)
    (Fraction(30000, 1001), Fraction(15, 1))
    """
    return Fraction(fps).limit_denominator(1001)


def _works(encoder: Encoder, width: int, height: int) -> bool:
    """Return whether an encoder opens, and what it writes can be decoded."""
    with suppress(av.FFmpegError, ValueError, MemoryError):
        levels = [float(frame.mean()) for frame in _decoded(encoder, width, height)]
        expected = _probe_levels()
        if len(levels) != len(expected):
            return False
        errors = [abs(a - b) for a, b in zip(levels, expected, strict=True)]
        return max(errors) < _PROBE_TOLERANCE
    return False


def _probe_levels() -> list[int]:
    """Return the brightness of each frame that is tried."""
    return [40 + 40 * index for index in range(_PROBE_FRAMES)]


def _decoded(encoder: Encoder, width: int, height: int) -> Iterator[np.ndarray]:
    """Yield the luma planes of a few grey frames after encoding and decoding."""
    writer = av.CodecContext.create(encoder.name, "w")
    assert isinstance(writer, VideoCodecContext)
    writer.width = width
    writer.height = height
    configure(writer, encoder, fps=15.0)

    packets = []
    for index, level in enumerate(_probe_levels()):
        plane = np.full((height * 3 // 2, width), level, np.uint8)
        plane[height:] = 128
        frame = av.VideoFrame.from_ndarray(plane, format="yuv420p")
        frame.pts = index * round(1 / 15 / TIME_BASE)
        frame.time_base = TIME_BASE
        packets += writer.encode(frame)
    packets += writer.encode(None)

    reader = av.CodecContext.create(encoder.codec, "r")
    assert isinstance(reader, VideoCodecContext)
    for packet in [*packets, None]:
        for decoded in reader.decode(packet):
            yield decoded.to_ndarray(format="yuv420p")[:height]
