"""Real parts for tests of live sources: an RTSP server, and what a source left behind."""

import functools
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from types import TracebackType

import pytest
from paths import TESTS

_PYTHON = os.environ.get("EDGESEG_GSTREAMER_PYTHON", "/usr/bin/python3")
_SERVER = TESTS / "support" / "rtsp_server.py"


@functools.cache
def _missing_server() -> str | None:
    """What the RTSP server lacks on this machine; None if it runs."""
    code = (
        "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import "
        "GstRtspServer, Gst; Gst.init(None); assert Gst.ElementFactory.find('x264enc')"
    )
    try:
        done = subprocess.run([_PYTHON, "-c", code], capture_output=True, text=True, timeout=60)
    except OSError as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


class RtspServer:
    """A real RTSP server that starts and stops at will, on one port.

    Skips the test if the system's Python has no GstRtspServer.
    """

    def __init__(self, **options: object) -> None:
        missing = _missing_server()
        if missing:
            pytest.skip(
                "no RTSP server (gir1.2-gst-rtsp-server-1.0, python3-gi, "
                f"gstreamer1.0-plugins-ugly): {missing}"
            )
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.uri = f"rtsp://127.0.0.1:{self.port}/live"
        self._options = options
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start, and return once it listens."""
        words = [f"--{name}={value}" for name, value in self._options.items()]
        self._process = subprocess.Popen(
            [_PYTHON, str(_SERVER), f"--port={self.port}", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith("ready")

    def stop(self) -> None:
        """Kill it, as a camera that loses its power."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __enter__(self) -> "RtspServer":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def descriptors() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def reader_threads() -> list[str]:
    """The threads of sources that still run."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("edgeseg-")]


def within(seconds: float, is_true: Callable[[], bool]) -> bool:
    """Whether something becomes true in time."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        if is_true():
            return True
        time.sleep(0.01)
    return is_true()
