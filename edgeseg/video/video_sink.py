"""Write results to a video, or to a series of them."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import cv2
import numpy as np

from edgeseg.errors import OutputError
from edgeseg.imaging.postprocess import Picture
from edgeseg.reporter import SILENT, Reporter
from edgeseg.video.frames import Frame, VideoInfo
from edgeseg.video.segments import Segments
from edgeseg.video.sinks import Output, Sink
from edgeseg.video.video_file import VideoFile

DEFAULT_FPS = 15.0  # frame rate of sources without one, such as a folder of pictures

_SHORTEST_SEGMENT_S = 1.0  # names have whole seconds
_ROOM_CHECK_EVERY = 64  # frames between two looks at the folder


class VideoSink(Sink):
    """Write the pictures as a video, each at the time of its frame.

    ``.mp4`` and ``.mkv`` are H.264 in ``yuv420p``, which browsers, phones and chats play; they are
    MPEG-4, with a warning, if FFmpeg has no encoder for H.264. ``.webm`` is VP9 or VP8, ``.avi`` is
    Motion JPEG. A video of variable rate keeps its times, and so does a camera whose frames were
    dropped. Frames of another size than the first are fitted into it. Sources without a frame rate,
    such as folders of pictures, get 15 frames per second.

    While it is written, the file is called ``NAME.recording-XXXX.SUFFIX``. A killed process leaves
    it under that name: it can be played, and misses at most the last second. A full disk keeps what
    was recorded.

    Parameters
    ----------
    path : the video to write.
    info : facts about the source: size, frame rate, live or not.
    split_every_s : begin a new file after this time, seconds. The files are named with the time of
        their start: ``out-2026-11-28T10-00-00.mp4`` for a live source, ``out-00-10-00.mp4`` for a
        file. Files of killed runs get such names, too.
    keep_bytes : delete the oldest files of the series if all take more room than this.
    reporter : receives a note if the size is odd, and a warning if browsers will not play the file.
    clock : returns the local time; tests pass their own.

    Raises
    ------
    OutputError : at once for an unknown suffix, a folder that cannot be written, or values that
        make no sense; by ``write`` and ``finish`` for a full disk, and for pictures of a folder
        that differ in size.
    """

    def __init__(
        self,
        path: str | Path,
        info: VideoInfo,
        *,
        split_every_s: float | None = None,
        keep_bytes: float | None = None,
        reporter: Reporter = SILENT,
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.path: Path = Path(path)
        _require_sense(split_every_s, keep_bytes)
        self._info = info
        self._size = (info.width, info.height)
        self._fps = info.fps or DEFAULT_FPS
        self._keeps_times = info.live or info.fps is not None
        self._split_every_s = split_every_s
        self._clock = clock
        self._reporter = reporter

        self._segments = Segments(self.path, keep_bytes)
        self._first_s: float | None = None
        self._last_s = 0.0
        self._segment_start_s = 0.0
        self._written = 0
        self._told_sizes: set[str] = set()

        self._file = self._open_file(0.0)
        self._tell()
        if split_every_s is not None:
            for adopted in self._segments.adopt():
                reporter.info(f"{adopted}: is the recording of a run that was killed")

    def _open_file(self, position_s: float) -> VideoFile:
        """Open the video, or its next segment, which starts at a position of the source."""
        path = self.path
        if self._split_every_s is not None and self._info.live:
            path = self._segments.at_clock(self._clock())
        elif self._split_every_s is not None:
            path = self._segments.at_position(position_s)

        live = self._info.live
        endless = live and self._split_every_s is None
        return VideoFile(path, self._size, self._fps, live=live, endless=endless)

    def _tell(self) -> None:
        """Report what is unusual about the video."""
        if self._file.coded_size != self._size:
            width, height = self._file.coded_size
            self._reporter.info(
                f"{self.path}: {self._size[0]}x{self._size[1]} is odd, so the video is "
                f"{width}x{height}: its last row or column is there twice"
            )

        encoder = self._file.encoder
        if encoder is not None and encoder.codec == "mpeg4":
            self._reporter.warning(
                f"{self.path}: is MPEG-4, which browsers do not play, because FFmpeg has no "
                "encoder for H.264 here; a .webm plays in them"
            )

    def write(self, output: Output) -> None:
        """Write one picture."""
        picture = output.picture
        frame = output.frame
        if picture is None:
            raise ValueError("VideoSink: needs a picture")
        if picture.shape[1::-1] != self._size:
            picture = self._fitted(picture, frame)

        at_s = self._time_of(frame)
        self._split(at_s)
        self._file.write(picture, at_s)
        self._written += 1
        if self._written % _ROOM_CHECK_EVERY == 0:
            self._segments.delete_oldest(self._file.size_bytes)

    def _fitted(self, picture: Picture, frame: Frame) -> Picture:
        """Return a picture of another size as large as fits, in the middle of a black one.

        A camera may come back with another size, and a video may change its size. Pictures of a
        folder have no common size to start with.
        """
        size = "{}x{}".format(*picture.shape[1::-1])
        if not self._keeps_times:
            raise OutputError(
                f"{self.path}: a video has one size, and frame {frame.name} has another",
                got=size,
                expected="{}x{}".format(*self._size),
                hint="Write masks to a folder instead, or bring the pictures to one size.",
            )
        if size not in self._told_sizes:
            self._told_sizes.add(size)
            self._reporter.warning(
                f"{self.path}: from frame {frame.name} on the source is {size}; it is fitted into "
                "{}x{}".format(*self._size)
            )
        return letterbox(picture, self._size)

    def _time_of(self, frame: Frame) -> float:
        """Return the frame's time, which is later than that of the frame before."""
        at_s = frame.timestamp_s
        if self._first_s is None:
            self._first_s = at_s
            self._segment_start_s = at_s
        elif not (self._keeps_times and at_s > self._last_s):
            at_s = self._last_s + 1 / self._fps
        self._last_s = at_s
        return at_s

    def _split(self, at_s: float) -> None:
        """Begin the next segment if it is time."""
        if self._split_every_s is None or self._first_s is None:
            return
        if at_s - self._segment_start_s < self._split_every_s:
            return

        self._file.keep()
        self._segments.delete_oldest(0)
        self._file = self._open_file(at_s - self._first_s)

        # Segments start at multiples of their length, so that late frames add up to no drift.
        passed = (at_s - self._segment_start_s) // self._split_every_s
        self._segment_start_s += passed * self._split_every_s

    def finish(self) -> None:
        """Close the video and give it its final name."""
        self._file.keep()
        self._segments.delete_oldest(0)

    def abort(self) -> None:
        """Remove the unfinished video; finished segments stay."""
        self._file.drop()


def letterbox(picture: Picture, size: tuple[int, int]) -> Picture:
    """Enlarge or shrink a picture until it fits, and centre it on black.

    Parameters
    ----------
    picture : (H, W, 3) uint8 BGR.
    size : width and height of the result, pixels.

    Examples
    --------
    >>> import numpy as np
    >>> int(letterbox(np.full((10, 10, 3), 255, np.uint8), (40, 20))[0].any(axis=1).sum())
    20
    """
    width, height = size
    scale = min(width / picture.shape[1], height / picture.shape[0])
    inner_width = max(1, round(picture.shape[1] * scale))
    inner_height = max(1, round(picture.shape[0] * scale))
    inner = cv2.resize(picture, (inner_width, inner_height), interpolation=cv2.INTER_AREA)

    result = np.zeros((height, width, 3), np.uint8)
    top = (height - inner_height) // 2
    left = (width - inner_width) // 2
    result[top : top + inner_height, left : left + inner_width] = inner
    return result


def _require_sense(split_every_s: float | None, keep_bytes: float | None) -> None:
    """Raise ``OutputError`` unless the options of a series of files make sense."""
    if split_every_s is not None and not split_every_s >= _SHORTEST_SEGMENT_S:
        raise OutputError(
            "`split_every_s`: too short", got=f"{split_every_s:g} s", expected="at least 1 s"
        )
    if keep_bytes is not None and split_every_s is None:
        raise OutputError(
            "`keep_bytes`: deletes whole files, so the video must be split",
            hint="Give `split_every_s`, too.",
        )
    if keep_bytes is not None and not keep_bytes > 0:
        raise OutputError("`keep_bytes`: must be positive", got=f"{keep_bytes:g}")
