"""Why a source cannot be opened: each reason has words of its own."""

import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.video import open_source


def make_video(path: Path) -> Path:
    """A clip of 20 frames in MPEG-4."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 15, (64, 48))
    assert writer.isOpened()
    for index in range(20):
        writer.write(np.full((48, 64, 3), 10 * index, np.uint8))
    writer.release()
    return path


def said(uri: str) -> str:
    """The message of a source that cannot be opened."""
    with pytest.raises(InputError) as caught:
        open_source(uri)
    return str(caught.value)


def test_a_codec_without_a_decoder_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = make_video(tmp_path / "clip.mp4")
    # The same samples under the name of AV1: no decoder makes a frame of them.
    path.write_bytes(path.read_bytes().replace(b"mp4v", b"av01").replace(b"esds", b"free"))
    message = said(str(path))
    assert "no frame can be decoded: got codec AV01" in message
    assert "cut short" not in message
    assert capfd.readouterr() == ("", "")


def test_a_clip_that_ends_before_its_first_frame_is_cut_short(tmp_path: Path) -> None:
    path = make_video(tmp_path / "clip.mp4")
    data = path.read_bytes()
    index = data.index(b"moov") - 4
    samples = data.index(b"mdat") + 4
    # The index in front, the samples behind it: all but the first bytes of these are missing.
    path.write_bytes(data[index:] + data[samples - 8 : samples + 20])
    assert "cut short" in said(str(path))


# --- addresses ------------------------------------------------------------------------------------


@contextmanager
def web_server(folder: Path) -> Iterator[int]:
    """A web server of a folder; yields its port. A user and a password open `secret`."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object, **named: object) -> None:
            super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]

        def do_GET(self) -> None:
            # "user:secret" in base64.
            if "secret" in self.path and "dXNlcjpzZWNyZXQ=" not in str(self.headers):
                self.send_error(401)
            else:
                super().do_GET()

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_a_web_servers_reason_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.html").write_text("<p>no video</p>")
    (tmp_path / "secret.html").write_text("<p>no video</p>")
    with web_server(tmp_path) as port:
        server = f"http://127.0.0.1:{port}"
        missing = said(f"{server}/clip.mp4")
        assert "clip.mp4: cannot be opened as a video stream: got HTTP 404" in missing
        assert "got an answer of type text/html" in said(f"{server}/page.html")
        assert "got HTTP 401" in said(f"{server}/secret.html")

        known = said(f"http://user:secret@127.0.0.1:{port}/secret.html")
        assert "got an answer of type text/html" in known
        assert "user" not in known
    assert capfd.readouterr() == ("", "")


@contextmanager
def rtsp_server(status: str) -> Iterator[int]:
    """A server that answers every request with a status; yields its port."""

    def answer() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                if connection.recv(4096):
                    connection.sendall(f"RTSP/1.0 {status}\r\nCSeq: 1\r\n\r\n".encode())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("status", ["404 Not Found", "401 Unauthorized"])
def test_a_cameras_reason_is_told(status: str) -> None:
    with rtsp_server(status) as port:
        assert f"live: cannot be opened as a video stream: got RTSP {status}" in said(
            f"rtsp://127.0.0.1:{port}/live"
        )


def test_a_password_that_was_not_tried_is_not_blamed() -> None:
    with rtsp_server("401 Unauthorized") as port:
        message = said(f"rtsp://user:secret@127.0.0.1:{port}/live")
    assert "401" not in message
    assert "secret" not in message


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_nobody_listens(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "got connection refused" in said(f"{scheme}://127.0.0.1:{port}/live")


def test_a_host_that_is_not_there() -> None:
    message = said("rtsp://camera.invalid/live")
    assert "got no host of this name" in message or "got no answer from a name server" in message
