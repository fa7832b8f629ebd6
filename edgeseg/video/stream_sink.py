"""Send the pictures of a run over the network, as a live H.264 stream."""

import threading
import time
from typing import Any
from urllib.parse import urlsplit

import av
import cv2
import numpy as np
from av.video.stream import VideoStream

from edgeseg.errors import OutputError
from edgeseg.imaging.postprocess import Picture
from edgeseg.reporter import SILENT, Reporter
from edgeseg.video.channel import Channel
from edgeseg.video.encoders import TIME_BASE, configure, find_encoder, rate
from edgeseg.video.frames import VideoInfo
from edgeseg.video.redact import redacted
from edgeseg.video.sinks import Output, Sink
from edgeseg.video.video_sink import DEFAULT_FPS, letterbox

# Scheme of the address -> FFmpeg's format and its options.
_FORMATS: dict[str, tuple[str, dict[str, str]]] = {
    "rtsp": ("rtsp", {"rtsp_transport": "tcp"}),
    "udp": ("mpegts", {}),
    "tcp": ("mpegts", {}),
    "srt": ("mpegts", {}),
    "rtmp": ("flv", {}),
}

# A packet of MPEG-TS has 188 bytes; seven of them fit into a datagram.
_UDP_PACKET = "pkt_size=1316"

_TIMEOUT_S = 5.0  # to connect, and for a single write
_SHORTEST_WAIT_S = 0.5  # between two tries to connect again
_LONGEST_WAIT_S = 10.0


class StreamSink(Sink):
    """Send the pictures as a live stream, from a thread of its own.

    The network of the run never waits for that of the stream: pictures that cannot be sent in time
    are left out. If the connection breaks, it is made again, for ever.

    Parameters
    ----------
    address : ``rtsp://`` of a server that takes streams (such as MediaMTX), ``udp://HOST:PORT``,
        ``srt://``, ``tcp://`` (MPEG-TS) or ``rtmp://``.
    info : facts about the pictures: size and frame rate.
    reporter : receives a warning when the connection breaks, and a note when it is back.

    Raises
    ------
    OutputError : the address is of another kind, or the server does not take the stream.

    Attributes
    ----------
    sent : number of pictures sent.
    """

    def __init__(self, address: str, info: VideoInfo, reporter: Reporter = SILENT) -> None:
        self._address = address
        self._shown = redacted(address)
        self._scheme = urlsplit(address).scheme
        self._reporter = reporter
        self._fps = info.fps or DEFAULT_FPS
        self._size = (info.width - info.width % 2, info.height - info.height % 2)
        self._first_s: float | None = None
        self._last_pts = -1
        self.sent = 0

        if self._scheme not in _FORMATS:
            raise OutputError(
                f"{self._shown}: no kind of stream",
                got=f"{self._scheme}://",
                expected=", ".join(f"{scheme}://" for scheme in _FORMATS),
            )
        try:
            self._container, self._stream = self._connect()
        except (av.FFmpegError, OSError, ValueError) as error:
            raise OutputError(
                f"{self._shown}: does not take a stream",
                got=_reason(error),
                hint="Is a server running there that accepts published streams?",
            ) from error

        self._pictures: Channel[tuple[Picture, float]] = Channel(1, keep_newest=True)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgeseg-stream", daemon=True)
        self._thread.start()

    def _connect(self) -> tuple[Any, VideoStream]:
        """Open the connection and send the header."""
        format_name, options = _FORMATS[self._scheme]
        address = self._address
        if self._scheme == "udp" and "pkt_size" not in address:
            address += ("&" if "?" in address else "?") + _UDP_PACKET

        width, height = self._size
        encoder = find_encoder(".mp4", width, height)
        if encoder is None or encoder.codec != "h264":
            raise OutputError(f"{self._shown}: FFmpeg has no encoder for H.264 here")

        container = av.open(
            address,
            "w",
            format=format_name,
            options={**options, "flush_packets": "1"},
            timeout=_TIMEOUT_S,
        )
        try:
            stream = container.add_stream(encoder.name, rate=rate(self._fps))
            assert isinstance(stream, VideoStream)
            stream.width, stream.height = self._size
            configure(stream.codec_context, encoder, self._fps)
            container.start_encoding()
        except BaseException:
            _close(container)
            raise
        return container, stream

    def write(self, output: Output) -> None:
        """Hand one picture to the sending thread."""
        if output.picture is None:
            raise ValueError("StreamSink: needs a picture")
        self._pictures.put((output.picture, time.perf_counter()))

    def _run(self) -> None:
        """Send pictures; connect again when the connection breaks."""
        for picture, at_s in self._pictures:
            try:
                self._send(picture, at_s)
            except (av.FFmpegError, OSError) as error:
                _close(self._container)
                if not self._reconnect(error):
                    return
        _close(self._container, self._stream)

    def _send(self, picture: Picture, at_s: float) -> None:
        """Encode one picture and send it."""
        if self._first_s is None:
            self._first_s = at_s
        pts = max(round((at_s - self._first_s) / TIME_BASE), self._last_pts + 1)
        self._last_pts = pts

        # An odd last row or column is left out; pictures of another size are fitted in.
        height, width = picture.shape[:2]
        even = np.ascontiguousarray(picture[: height - height % 2, : width - width % 2])
        if even.shape[1::-1] != self._size:
            even = letterbox(even, self._size)

        # OpenCV converts to BT.601 of limited range, five times as fast as FFmpeg.
        planes = np.asarray(cv2.cvtColor(even, cv2.COLOR_BGR2YUV_I420), np.uint8)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts = pts
        frame.time_base = TIME_BASE
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        self.sent += 1

    def _reconnect(self, error: Exception) -> bool:
        """Connect again; return False if the sink is finished before that."""
        lost_s = time.monotonic()
        reason = _reason(error)
        self._reporter.warning(f"{self._shown}: the connection broke ({reason}); trying again")
        wait_s = _SHORTEST_WAIT_S
        while not self._stopping.wait(wait_s):
            try:
                self._container, self._stream = self._connect()
            except (av.FFmpegError, OSError, ValueError, OutputError):
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                continue
            self._first_s = None
            self._last_pts = -1
            seconds = time.monotonic() - lost_s
            self._reporter.info(f"{self._shown}: sending again after {seconds:.0f} s")
            return True
        return False

    def finish(self) -> None:
        """Send what is left, and close the connection."""
        self._pictures.finish()
        self._stopping.set()
        self._thread.join(2 * _TIMEOUT_S)

    def abort(self) -> None:
        """Close the connection."""
        self.finish()


def _reason(error: Exception) -> str:
    """Return why FFmpeg failed, without the address, which may have a password."""
    return getattr(error, "strerror", None) or type(error).__name__


def _close(container: Any, stream: VideoStream | None = None) -> None:
    """Close a container, after the last packets of its stream if that is given."""
    try:
        if stream is not None:
            for packet in stream.encode(None):
                container.mux(packet)
        container.close()
    except (av.FFmpegError, OSError, ValueError):
        return  # the connection is gone
