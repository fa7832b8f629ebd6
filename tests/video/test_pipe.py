"""A video through a pipe: written by FFmpeg's own program, read as it comes."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgeseg.errors import InputError
from edgeseg.video import Playback, open_source
from edgeseg.video.sources.decoding import Decoder

FFMPEG = shutil.which("ffmpeg")
needs_ffmpeg = pytest.mark.skipif(FFMPEG is None, reason="the program ffmpeg is not installed")

INPUT = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=2"]


def ffmpeg(*arguments: str) -> bytes:
    """What FFmpeg writes to its standard output."""
    assert FFMPEG is not None
    command = [FFMPEG, "-v", "error", *INPUT, *arguments, "-"]
    return subprocess.run(command, capture_output=True, check=True).stdout


class Fifo:
    """A named pipe, and a thread that writes to it."""

    def __init__(self, path: Path, data: bytes, *, hold: bool = False) -> None:
        os.mkfifo(path)
        self.path = path
        self._data = data
        self.release = threading.Event()
        if not hold:
            self.release.set()
        self.writer = threading.Thread(target=self._write)
        self.writer.start()

    def _write(self) -> None:
        try:
            with self.path.open("wb") as pipe:
                pipe.write(self._data)
                pipe.flush()
                self.release.wait(30)
        except BrokenPipeError:
            pass


FORMATS = {
    "mpegts": ["-c:v", "mpeg2video", "-f", "mpegts"],
    "matroska": ["-c:v", "mpeg4", "-f", "matroska"],
    "mjpeg": ["-c:v", "mjpeg", "-f", "mjpeg"],
    "y4m": ["-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe"],
    "mp4": ["-c:v", "mpeg4", "-movflags", "frag_keyframe+empty_moov", "-f", "mp4"],
}


@needs_ffmpeg
@pytest.mark.parametrize("kind", FORMATS)
def test_every_frame_comes_through_a_pipe(tmp_path: Path, kind: str) -> None:
    data = ffmpeg(*FORMATS[kind])
    (tmp_path / "file").write_bytes(data)
    expected = [pixels for _, pixels in Decoder(str(tmp_path / "file"), "file").read()]
    assert len(expected) == 20

    fifo = Fifo(tmp_path / "pipe", data)
    with open_source(str(fifo.path)) as source:
        assert (source.info.live, source.info.frames) == (False, None)
        frames = list(source)
    fifo.writer.join()

    assert [frame.index for frame in frames] == list(range(20))
    for frame, pixels in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(frame.pixels, pixels)
    if kind != "mjpeg":  # it holds no times
        assert frames[-1].timestamp_s == pytest.approx(1.9, abs=0.01)


READ = """
import sys
from edgeseg.errors import InputError
from edgeseg.video import open_source
try:
    with open_source(sys.argv[1]) as source:
        print(source.name, source.info.frames, len(list(source)))
except InputError as error:
    print(error)
"""


def read_input(uri: str, data: bytes | Path) -> str:
    """What a program says that reads its standard input."""
    command = [sys.executable, "-c", READ, uri]
    if isinstance(data, Path):
        with data.open("rb") as file:
            done = subprocess.run(command, stdin=file, capture_output=True, check=True)
    else:
        done = subprocess.run(command, input=data, capture_output=True, check=True)
    assert done.stderr == b""
    return done.stdout.decode()


@needs_ffmpeg
def test_the_standard_input_may_be_a_pipe_or_a_file(tmp_path: Path) -> None:
    stream = ffmpeg(*FORMATS["mpegts"])
    assert read_input("-", stream) == "pipe None 20\n"

    # A usual mp4 has its index at the end: that needs a file, unless it is tiny.
    clip = tmp_path / "clip.mp4"
    assert FFMPEG is not None
    large = ["-vf", "scale=640:480,noise=alls=60", "-c:v", "mjpeg", "-q:v", "1"]
    subprocess.run([FFMPEG, "-v", "error", *INPUT, *large, str(clip)], check=True)
    assert read_input("/dev/stdin", clip) == "pipe 20 20\n"
    assert "expected a format that needs no seeking" in read_input("-", clip.read_bytes())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "ends before a video came: got 0 bytes"),
        (b"hello\n" * 999, "what comes through the pipe cannot be read as a video"),
    ],
)
def test_what_is_no_video(data: bytes, says: str) -> None:
    assert f"the standard input: {says}" in read_input("-", data)


def test_a_terminal_is_no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = os.openpty()
    kept = os.dup(0)
    try:
        os.dup2(follower, 0)
        with pytest.raises(InputError, match="is a terminal"):
            open_source("-")
    finally:
        os.dup2(kept, 0)
        for descriptor in (leader, follower, kept):
            os.close(descriptor)


@needs_ffmpeg
def test_closing_does_not_wait_for_the_writer(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    fifo = Fifo(tmp_path / "pipe", ffmpeg(*FORMATS["y4m"]), hold=True)
    source = open_source(str(fifo.path))
    for _ in range(20):
        next(source)

    # The writer holds the pipe open and is silent: the reader waits inside FFmpeg.
    start = time.monotonic()
    source.close()
    assert time.monotonic() - start < 1
    fifo.release.set()
    fifo.writer.join()
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == before


@needs_ffmpeg
def test_a_cameras_pipe_drops_frames_instead_of_waiting(tmp_path: Path) -> None:
    fifo = Fifo(tmp_path / "pipe", ffmpeg(*FORMATS["y4m"]))
    with open_source(str(fifo.path), playback=Playback(realtime=True)) as source:
        assert source.info.live
        fifo.writer.join(5)  # nobody takes a frame, and the writer ends all the same
        assert not fifo.writer.is_alive()
        time.sleep(0.3)
        frames = list(source)
    assert frames[-1].index == 19
    assert frames[-1].captured_s is not None
    assert len(frames) <= 2
