"""What sources deliver, and why one cannot be opened: each reason has words of its own."""

import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from recordings import make_video, said

from edgeseg.video import open_source

FFMPEG = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="the program ffmpeg is not installed")


def ffmpeg(*arguments: str | Path) -> None:
    """Run FFmpeg's program."""
    assert FFMPEG is not None
    subprocess.run([FFMPEG, "-v", "error", "-y", *map(str, arguments)], check=True)


def bars(size: str = "64x48", seconds: float = 1.0) -> tuple[str, ...]:
    """FFmpeg's input of 10 pictures a second that all differ."""
    return ("-f", "lavfi", "-i", f"testsrc=size={size}:rate=10:duration={seconds}")


def test_a_codec_without_a_decoder_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = make_video(tmp_path / "clip.mp4")
    # The same samples under the name of AV1: no decoder makes a frame of them.
    path.write_bytes(path.read_bytes().replace(b"mp4v", b"av01").replace(b"esds", b"free"))
    message = said(str(path))
    assert "no frame can be decoded: got codec av01" in message
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


def test_what_is_no_video(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("FFmpeg would paint this as a video.\n" * 99)
    assert "notes.txt: cannot be opened as a video" in said(str(text))
    assert "no such video, picture or folder" in said("x" * 300)


@needs_ffmpeg
def test_a_sound_has_no_video(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "sine=duration=0.2", tmp_path / "tone.wav")
    assert "has no video in it: got audio, expected a video" in said(str(tmp_path / "tone.wav"))


# --- videos ---------------------------------------------------------------------------------------


@needs_ffmpeg
def test_a_size_that_changes_is_delivered_as_it_is(tmp_path: Path) -> None:
    for name, size in (("a.ts", "64x48"), ("b.ts", "96x64")):
        ffmpeg(*bars(size), "-c:v", "libx264", tmp_path / name)
    both = tmp_path / "both.ts"
    both.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    with open_source(str(both)) as source:
        frames = list(source)
    assert [frame.size for frame in frames] == [(48, 64)] * 10 + [(64, 96)] * 10
    assert np.diff([frame.timestamp_s for frame in frames]).min() > 0


@needs_ffmpeg
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_times_of_a_variable_rate_are_the_containers(tmp_path: Path, suffix: str) -> None:
    """Ten frames of 0.1 s, then one each 0.7 s: what FFmpeg's own program says, too."""
    path = tmp_path / f"variable{suffix}"
    thinned = ("-vf", "select='lt(n,10)+not(mod(n,7))'", "-vsync", "vfr")
    ffmpeg(*bars(seconds=5), *thinned, "-c:v", "mpeg4", "-bf", "2", path)
    with open_source(str(path)) as source:
        times = [frame.timestamp_s for frame in source]
    expected = [n / 10 for n in range(50) if n < 10 or n % 7 == 0]
    assert times == pytest.approx(expected, abs=2e-3)


@needs_ffmpeg
@pytest.mark.parametrize(("degrees", "turn"), [(90, 1), (180, 2), (270, 3)])
def test_a_phones_clip_stands_upright(tmp_path: Path, degrees: int, turn: int) -> None:
    plain, turned = tmp_path / "plain.mp4", tmp_path / "turned.mp4"
    ffmpeg(*bars(), "-c:v", "mpeg4", plain)
    ffmpeg("-i", plain, "-c", "copy", "-metadata:s:v", f"rotate={degrees}", turned)
    with open_source(str(plain)) as source:
        lying = next(source).image
    with open_source(str(turned)) as source:
        upright = next(source).image
        assert (source.info.height, source.info.width) == upright.shape[:2]

    # FFmpeg's program turns as players do.
    ffmpeg("-i", turned, "-frames:v", "1", tmp_path / "seen.png")
    seen = cv2.imread(str(tmp_path / "seen.png"))
    assert seen is not None
    assert upright.shape == seen.shape
    assert np.abs(upright.astype(int) - seen).mean() < 3
    assert any(np.array_equal(upright, np.rot90(lying, k)) for k in (turn, -turn))


@needs_ffmpeg
@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("levels", ["tv", "pc"])
def test_colours_follow_the_videos_own_matrix(tmp_path: Path, matrix: str, levels: str) -> None:
    path = tmp_path / "colours.mp4"
    space = {"bt601": "smpte170m", "bt709": "bt709"}[matrix]
    scale = f"scale=out_color_matrix={matrix}:out_range={levels}"
    tags = ("-colorspace", space, "-color_range", levels)
    ffmpeg(
        *("-f", "lavfi", "-i", "color=c=0x10c040:size=64x48:rate=10:duration=0.5"),
        *("-vf", f"{scale},format=yuv420p", "-c:v", "libx264", "-qp", "1", *tags, path),
    )
    with open_source(str(path)) as source:
        colour = next(source).image[24, 32]
    np.testing.assert_allclose(colour, (0x40, 0xC0, 0x10), atol=5)


def test_av1_is_decoded(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    if "libsvtav1" not in av.codecs_available or "libdav1d" not in av.codecs_available:
        pytest.skip("this PyAV has no AV1")
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libsvtav1", rate=10, width=64, height=64)
        stream.pix_fmt = "yuv420p"
        for index in range(5):
            image = np.full((64, 64, 3), 40 * index, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with open_source(str(path)) as source:
        levels = [float(frame.image.mean()) for frame in source]
    assert levels == pytest.approx([0, 40, 80, 120, 160], abs=6)


needs_bytes = pytest.mark.skipif(sys.platform != "linux", reason="file names are text here")


@needs_bytes
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    """OpenCV 5 ends the process at such a name."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/fol\xffder"))
    folder.mkdir()
    video = folder / os.fsdecode(b"dr\xffive.mp4")
    make_video(tmp_path / "clip.mp4").rename(video)
    picture = folder / os.fsdecode(b"\xfe.png")
    cv2.imwrite(str(tmp_path / "a.png"), np.full((48, 64, 3), 7, np.uint8))
    (tmp_path / "a.png").rename(picture)

    with open_source(str(video)) as source:
        assert len(list(source)) == 20
        assert source.name == "dr-ive"
    for uri in (str(picture), str(folder)):
        with open_source(uri) as source:
            frame = next(source)
        assert frame.image[0, 0, 0] == 7
        frame.name.encode()  # so that a mask can have it


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


def test_a_password_stays_out_of_the_message() -> None:
    with rtsp_server("401 Unauthorized") as port:
        message = said(f"rtsp://user:secret@127.0.0.1:{port}/live")
    assert "secret" not in message


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_nobody_listens(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "got connection refused" in said(f"{scheme}://127.0.0.1:{port}/live")


def test_a_host_that_is_not_there() -> None:
    message = said("rtsp://camera.invalid/live")
    assert "got no host of this name" in message or "got no answer from a name server" in message
