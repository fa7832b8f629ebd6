"""Serve a picture with a counter over RTSP: run by the system's Python, which has GStreamer.

The counter is that of ``edgeseg.video.sources.counter``, written here a second time, so that each
tests the other. Its number is CLOCK_MONOTONIC times the frame rate: a reader on the same machine
knows the age of each frame. The server prints ``ready`` once it listens.
"""

import argparse
import threading
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - after the versions

CELLS = 34
ENCODERS = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast bitrate=4000 key-int-max={gop} ! "
    "rtph264pay name=pay0 pt=96 config-interval=1",
    "h265": "x265enc tune=zerolatency speed-preset=ultrafast bitrate=4000 key-int-max={gop} ! "
    "rtph265pay name=pay0 pt=96 config-interval=1",
}


def checksum(number: int) -> int:
    """The remainder of the 24 bits behind 0xFF, by x^8 + x^2 + x + 1."""
    value = 0xFF
    for byte in number.to_bytes(3, "big"):
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ (0x107 if value & 0x80 else 0)) & 0xFF
    return value


def grey_picture(number: int, width: int, height: int) -> bytes:
    """A grey picture with the cells in its upper rows, as GRAY8."""
    word = number << 8 | checksum(number)
    cells = [1, 0, *((word >> bit) & 1 for bit in range(31, -1, -1))]
    edges = [round(cell * width / CELLS) for cell in range(CELLS + 1)]
    row = b"".join(
        (b"\xff" if cell else b"\x00") * (edges[at + 1] - edges[at])
        for at, cell in enumerate(cells)
    )
    rows = max(1, min(width // CELLS, height // 4))
    line = bytes((number + x) % 200 + 20 for x in range(width))  # moves, so that frames differ
    return row * rows + line * (height - rows)


class Factory(GstRtspServer.RTSPMediaFactory):  # type: ignore[misc]
    """One pipeline for all clients, fed by a thread as long as anybody watches."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self.options = options
        encoder = ENCODERS[options.codec].format(gop=options.fps)
        self.set_launch(
            "( appsrc name=src is-live=true format=time do-timestamp=true "
            f"caps=video/x-raw,format=GRAY8,width={options.width},height={options.height},"
            f"framerate={options.fps}/1 ! videoconvert ! video/x-raw,format=I420 ! {encoder} )"
        )
        self.set_shared(True)
        self.connect("media-configure", self.feed)

    def feed(self, _: object, media: object) -> None:
        """Start to push frames into a new pipeline."""
        source = media.get_element().get_child_by_name("src")  # type: ignore[attr-defined]
        threading.Thread(target=self.push, args=(source,), daemon=True).start()

    def push(self, source: object) -> None:
        """Push each frame when it is due, until the pipeline refuses it."""
        fps = self.options.fps
        number = int(time.monotonic() * fps) + 1
        while True:
            time.sleep(max(0.0, number / fps - time.monotonic()))
            data = grey_picture(number % (1 << 24), self.options.width, self.options.height)
            pushed = source.emit("push-buffer", Gst.Buffer.new_wrapped(data))  # type: ignore[attr-defined]
            if pushed == Gst.FlowReturn.FLUSHING:
                return
            number = max(number + 1, int(time.monotonic() * fps))


def require_password(server: object, factory: Factory, user: str, password: str) -> None:
    """Let in only who knows the password."""
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(2)  # GST_RTSP_AUTH_DIGEST
    auth.add_digest(user, password, token)
    server.set_auth(auth)  # type: ignore[attr-defined]

    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("user", "media.factory.access", True)
    permissions.add_permission_for_role("user", "media.factory.construct", True)
    factory.set_permissions(permissions)


def main() -> None:
    """Serve ``/live`` until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", default="8554")
    parser.add_argument("--codec", default="h264", choices=list(ENCODERS))
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--user", default="")
    parser.add_argument("--password", default="")
    options = parser.parse_args()

    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(options.port)
    factory = Factory(options)
    if options.user:
        require_password(server, factory, options.user, options.password)
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    print("ready", server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
