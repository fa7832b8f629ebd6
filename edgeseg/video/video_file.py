"""Write one video file that survives whatever stops its writer.

What is on the disk can be played at any moment: an mp4 is written in fragments of half a second, a
Matroska file in clusters. A killed process loses the fragment that it was writing. So does a full
disk, and the file is cut back to the last whole fragment.
"""

import errno
from pathlib import Path
from typing import Any, TypeAlias

import av
import cv2
import numpy as np
from av.container import OutputContainer
from av.video.frame import PictureType
from av.video.stream import VideoStream

from edgeseg.errors import OutputError
from edgeseg.imaging.postprocess import Picture
from edgeseg.video.disk_file import DiskFile
from edgeseg.video.encoders import (
    COLOUR_MATRIX,
    COLOUR_RANGE,
    KEY_FRAME_EVERY_S,
    TIME_BASE,
    Encoder,
    configure,
    find_encoder,
    rate,
)

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi")

_FORMATS = {".mp4": "mp4", ".mkv": "matroska", ".webm": "webm", ".avi": "avi"}
_FRAGMENT_MS = 500
_JPEG_QUALITY = 92

# Writing stops before the disk is full: the index of the file must fit, and the system must live.
DISK_MIN_BYTES = 8 << 20

# PyAV's packets are generic for type checkers, and only for them in its older versions.
Packet: TypeAlias = "av.Packet[Any]"

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def known_suffix(path: Path) -> str:
    """Return the suffix of a video in small letters; raise an error if no video has it.

    Parameters
    ----------
    path : the file to write.

    Raises
    ------
    OutputError : it is none of ``SUFFIXES``.

    Examples
    --------
    >>> known_suffix(Path("drive.MP4"))
    '.mp4'
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise OutputError(
            f"{path}: unknown kind of video",
            got=suffix or "no suffix",
            expected=", ".join(SUFFIXES[:-1]) + f" or {SUFFIXES[-1]}",
        )
    return suffix


class VideoFile:
    """Write pictures with timestamps to a file, and give it its name at the end.

    Until then the file is called ``NAME.recording-XXXX.SUFFIX``. A killed process leaves it under
    that name, and it can be played.

    Parameters
    ----------
    path : the file: ``.mp4`` and ``.mkv`` are H.264 (MPEG-4 if there is no encoder), ``.webm`` is
        VP9 or VP8, ``.avi`` is Motion JPEG.
    size : (width, height) of the pictures, pixels. Odd sizes grow by a copy of the last row or
        column, except in ``.avi``.
    fps : frames per second. ``.avi`` has no timestamps: its frames lie on this grid.
    live : flush the file to the disk twice a second.
    endless : an mp4 stays in fragments, because the index of an ordinary one grows in memory.

    Attributes
    ----------
    encoder : the encoder that is used; None for Motion JPEG.
    frames : number of pictures written.
    duration_s : time from the first picture to the end of the last one.

    Raises
    ------
    OutputError : the suffix is unknown, the folder cannot be written, or no encoder takes the size.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        fps: float,
        *,
        live: bool = False,
        endless: bool = False,
    ) -> None:
        self.path = path
        self.frames = 0
        self.duration_s = 0.0
        self._suffix = known_suffix(path)
        self._size = size
        self._fps = fps
        self._live = live
        self._endless = endless

        # Players need even sizes: rows and columns to add.
        width, height = size
        self._pad = (0, 0) if self._suffix == ".avi" else (height % 2, width % 2)
        self.coded_size = (width + self._pad[1], height + self._pad[0])

        self.encoder = self._find_encoder()
        self._time_base = TIME_BASE if self.encoder else 1 / rate(fps)
        self._last_pts = -1
        self._key_at = 0
        self._first_s = 0.0

        self._disk: DiskFile | None = DiskFile(path)
        try:
            self._container = self._open_container(self._disk)
            self._stream = self._open_stream()
            self._header_bytes = self._disk.size
        except BaseException:
            self.drop()
            raise
        self._whole_bytes = self._header_bytes
        self._whole_s = 0.0

    @property
    def open(self) -> bool:
        """Return whether the file is still being written."""
        return self._disk is not None

    @property
    def size_bytes(self) -> int:
        """Return the size of the file while it is written."""
        return self._disk.size if self._disk else 0

    def _find_encoder(self) -> Encoder | None:
        """Return the encoder for this file; None for Motion JPEG."""
        width, height = self.coded_size
        encoder = None
        if width > 0 and height > 0:
            if self._suffix == ".avi":
                return None
            encoder = find_encoder(self._suffix, width, height)
        if encoder is None:
            raise OutputError(
                f"{self.path}: no encoder takes this video",
                got=f"{width}x{height} at {self._fps:g} frames a second",
                hint="Try .avi, or write masks to a folder.",
            )
        return encoder

    def _open_container(self, disk: DiskFile) -> OutputContainer:
        """Open the container on the disk."""
        options: dict[str, str] = {}
        if self._suffix == ".mp4":
            flags = "frag_keyframe+empty_moov+default_base_moof"
            if not self._endless:
                flags += "+hybrid_fragmented"  # becomes an ordinary mp4 when it is closed
            options = {"movflags": flags, "frag_duration": str(_FRAGMENT_MS * 1000)}
        elif self._suffix != ".avi":
            options = {"cluster_time_limit": str(_FRAGMENT_MS)}
        options["flush_packets"] = "1"

        file: Any = disk
        return av.open(file, "w", format=_FORMATS[self._suffix], options=options)

    def _open_stream(self) -> VideoStream:
        """Add the video stream to the container, and write the header."""
        name = self.encoder.name if self.encoder else "mjpeg"
        stream = self._container.add_stream(name, rate=rate(self._fps))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = self.coded_size
        if self.encoder:
            configure(stream.codec_context, self.encoder, self._fps)
        else:
            stream.pix_fmt = "yuvj420p"
            stream.codec_context.time_base = self._time_base
        stream.time_base = self._time_base

        self._container.start_encoding()
        return stream

    def write(self, picture: Picture, at_s: float) -> None:
        """Write one picture.

        Parameters
        ----------
        picture : (H, W, 3) uint8 BGR of the size of the file.
        at_s : its time in seconds. Times count from the first picture, and must grow.

        Raises
        ------
        OutputError : the disk is full, or the encoder failed. What was written until then is kept.
        """
        assert self._disk is not None
        if self.frames == 0:
            self._first_s = at_s
            if self._live:
                self._disk.start_syncing()

        pts = max(round((at_s - self._first_s) / self._time_base), self._last_pts + 1)
        self._last_pts = pts
        try:
            for packet in self._packets(picture, pts):
                self._container.mux(packet)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._broken(error) from error

        self.frames += 1
        self.duration_s = float(pts * self._time_base) + 1 / self._fps
        self._note_whole()
        if self._disk.free_bytes() < DISK_MIN_BYTES:
            raise self._nearly_full()

    def _packets(self, picture: Picture, pts: int) -> list[Packet]:
        """Encode one picture."""
        duration = max(1, round(1 / self._fps / self._time_base))
        if self.encoder is None:
            packets = [self._jpeg(picture, pts)]
        else:
            frame = self._frame(picture, pts)
            packets = self._stream.encode(frame)
        for packet in packets:
            packet.duration = duration
        return packets

    def _jpeg(self, picture: Picture, pts: int) -> Packet:
        """Encode one picture as JPEG with OpenCV, whose encoder is the fastest at hand."""
        quality = (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY)
        packet = av.Packet(cv2.imencode(".jpg", picture, quality)[1].tobytes())
        packet.stream = self._stream
        packet.time_base = self._time_base
        packet.pts = packet.dts = pts
        packet.is_keyframe = True
        return packet

    def _frame(self, picture: Picture, pts: int) -> av.VideoFrame:
        """Return one picture in the colours and the size of the encoder."""
        if any(self._pad):
            bottom, right = self._pad
            padded = cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
            picture = np.asarray(padded, np.uint8)

        # OpenCV converts to BT.601 of limited range, five times as fast as FFmpeg.
        planes = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420), np.uint8)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.color_range = COLOUR_RANGE
        frame.colorspace = COLOUR_MATRIX
        frame.pts = pts
        frame.time_base = self._time_base

        # By time, not by number: the rate of a camera may change.
        if pts >= self._key_at:
            frame.pict_type = PictureType.I
            self._key_at = pts + round(KEY_FRAME_EVERY_S / self._time_base)
        return frame

    def _note_whole(self) -> None:
        """Remember how long the file is if it just grew by a whole fragment."""
        assert self._disk is not None
        size = self._disk.size
        if size > self._whole_bytes:
            self._whole_bytes = size
            self._whole_s = self.duration_s

    def _nearly_full(self) -> OutputError:
        """Close the file while its index still fits, and return the error to raise."""
        assert self._disk is not None
        free = self._disk.free_bytes()
        self.keep()
        return OutputError(
            f"{self.path}: the disk is full",
            got=f"{free} bytes left",
            hint=f"The {self.duration_s:.1f} s recorded until then are kept.",
        )

    def _broken(self, error: Exception) -> OutputError:
        """Cut the file back to what is whole, keep it, and return the error to raise."""
        disk, self._disk = self._disk, None
        assert disk is not None
        cause = disk.error or error
        full = isinstance(cause, OSError) and cause.errno in _DISK_FULL
        what = "the disk is full" if full else "cannot be written"
        got = getattr(cause, "strerror", None) or str(cause)

        # Whatever the container still writes is discarded.
        disk.error = disk.error or OSError(errno.EIO, str(error))
        self._close_container()
        if self._whole_bytes <= self._header_bytes:
            disk.drop()
            return OutputError(f"{self.path}: {what}", got=got, hint="Nothing was recorded.")

        disk.cut(self._whole_bytes)
        disk.keep()
        hint = f"The {self._whole_s:.1f} s recorded until then are kept."
        return OutputError(f"{self.path}: {what}", got=got, hint=hint)

    def _close_container(self) -> None:
        """Close a container that cannot be finished."""
        try:
            self._container.close()
        except (av.FFmpegError, OSError, ValueError):
            return

    def keep(self) -> None:
        """Finish the file and give it its name; a file without pictures is removed.

        Raises
        ------
        OutputError : the disk is full. What is whole is kept.
        """
        if self._disk is None:
            return
        if self.frames == 0:
            self.drop()
            return

        try:
            if self.encoder:
                for packet in self._stream.encode(None):
                    self._container.mux(packet)
            self._container.close()
            if self._disk.error:
                raise self._disk.error
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._broken(error) from error

        disk, self._disk = self._disk, None
        disk.keep()

    def drop(self) -> None:
        """Remove the file."""
        disk, self._disk = self._disk, None
        if disk is None:
            return
        disk.error = disk.error or OSError(errno.EIO, "dropped")
        if hasattr(self, "_container"):
            self._close_container()
        disk.drop()
