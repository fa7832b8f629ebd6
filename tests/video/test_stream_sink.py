"""Send live streams: to a UDP receiver, and to a real RTSP server that records them."""

import json
import socket
import subprocess
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
from reporting import Heard

from edgeseg.errors import OutputError
from edgeseg.video import Frame, Output, VideoInfo
from edgeseg.video.stream_sink import StreamSink

INFO = VideoInfo(161, 121, 20.0, None, live=True)  # odd: the stream is 160x120

SYSTEM_PYTHON = "/usr/bin/python3"

# Records what is published at rtsp://127.0.0.1:PORT/live into a file of MPEG-TS.
SERVER = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
chain = "rtph264depay name=depay0 ! h264parse ! mpegtsmux ! filesink sync=false buffer-mode=2"
factory.set_launch("( " + chain + " location=" + sys.argv[2] + " )")
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
"""


def has_rtsp_server() -> bool:
    """Return whether the system's Python has GStreamer's RTSP server."""
    code = "import gi; gi.require_version('GstRtspServer', '1.0')"
    try:
        return subprocess.run([SYSTEM_PYTHON, "-c", code], capture_output=True).returncode == 0
    except OSError:
        return False


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def send(sink: StreamSink, seconds: float, level: int = 200) -> int:
    """Send pictures of one brightness at 20 per second; return how many."""
    picture = np.full((INFO.height, INFO.width, 3), level, np.uint8)
    count = 0
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        frame = Frame(count, picture, f"{count:06d}", count / 20)
        sink.write(Output(frame, picture[:, :, 0], picture))
        count += 1
        time.sleep(0.05)
    return count


def test_udp_is_received_as_it_is_sent() -> None:
    address = f"udp://127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    seen: list[av.VideoFrame] = []

    def receive() -> None:
        with av.open(f"{address}?timeout=10000000", format="mpegts", timeout=10) as stream:
            for frame in stream.decode(video=0):
                seen.append(frame)
                if len(seen) == 10:
                    return

    receiver = threading.Thread(target=receive)
    receiver.start()
    sink = StreamSink(address, INFO)
    while receiver.is_alive() and sink.sent < 300:
        send(sink, 0.5)
    sink.finish()
    receiver.join(10)

    assert len(seen) == 10
    assert (seen[0].width, seen[0].height) == (160, 120)
    assert abs(float(seen[5].to_ndarray(format="bgr24").mean()) - 200) < 5
    times = [float(frame.time) for frame in seen if frame.time is not None]
    assert times == sorted(set(times))


@pytest.mark.skipif(not has_rtsp_server(), reason="gir1.2-gst-rtsp-server-1.0 is not installed")
def test_an_rtsp_server_records_and_the_stream_comes_back(tmp_path: Path) -> None:
    port = free_port(socket.SOCK_STREAM)
    recordings = [tmp_path / "first.ts", tmp_path / "second.ts"]
    heard = Heard()

    def serve(recording: Path) -> subprocess.Popen[str]:
        server = subprocess.Popen(
            [SYSTEM_PYTHON, "-c", SERVER, str(port), str(recording)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        return server

    server = serve(recordings[0])
    try:
        sink = StreamSink(f"rtsp://user:secret@127.0.0.1:{port}/live", INFO, heard)
        send(sink, 2.0)
        server.kill()
        server.communicate()
        send(sink, 0.5)

        server = serve(recordings[1])
        deadline = time.monotonic() + 15
        while not any("sending again" in line for line in heard.lines):
            assert time.monotonic() < deadline, heard.lines
            send(sink, 0.2)
        send(sink, 2.0)
        sink.finish()
        time.sleep(0.5)
    finally:
        server.kill()
        server.communicate()

    for recording in recordings:
        with av.open(str(recording)) as stream:
            frames = list(stream.decode(video=0))
        assert len(frames) > 10, json.dumps(heard.lines)
        assert abs(float(frames[5].to_ndarray(format="bgr24").mean()) - 200) < 5
    assert "trying again" in heard.lines[0]
    assert not any("secret" in line for line in heard.lines)


def test_where_nothing_can_be_sent() -> None:
    with pytest.raises(OutputError, match=r"no kind of stream.*got http://.*expected rtsp://"):
        StreamSink("http://127.0.0.1/x", INFO)
    port = free_port(socket.SOCK_STREAM)
    with pytest.raises(OutputError, match="does not take a stream") as caught:
        StreamSink(f"rtsp://user:secret@127.0.0.1:{port}/live", INFO)
    assert "secret" not in str(caught.value)
