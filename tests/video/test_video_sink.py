"""Written videos, read back by PyAV, by a browser, and after whatever stops their writer."""

import http.server
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from reporting import Heard

from edgeseg.errors import OutputError
from edgeseg.video import Frame, Output, VideoInfo, VideoSink, encoders, video_file
from edgeseg.video.encoders import Encoder, find_encoder

# Corners of a test picture: saturated colours, BGR.
CORNERS = ((200, 40, 30), (40, 180, 60), (30, 50, 210), (190, 180, 40))


def info(
    width: int = 64, height: int = 48, fps: float | None = 15.0, *, live: bool = False
) -> VideoInfo:
    return VideoInfo(width, height, fps, None, live=live)


def corners(size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """A picture of four colours."""
    width, height = size
    image = np.empty((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = CORNERS[0]
    image[: height // 2, width // 2 :] = CORNERS[1]
    image[height // 2 :, : width // 2] = CORNERS[2]
    image[height // 2 :, width // 2 :] = CORNERS[3]
    return image


def output(image: np.ndarray, at_s: float, index: int = 0) -> Output:
    return Output(Frame(index, image, f"{index:06d}", at_s), image[:, :, 0] // 20, image)


@dataclass
class Read:
    """What a file holds."""

    codec: str
    times_s: list[float]
    frames: list[av.VideoFrame]
    duration_s: float
    key_frames_s: list[float]


def read(path: Path) -> Read:
    with av.open(str(path)) as container:
        frames = []
        try:
            for frame in container.decode(video=0):
                frames.append(frame)
        except av.FFmpegError:
            pass  # the end of what a killed process wrote
        stream = container.streams.video[0]
        assert all(frame.time is not None for frame in frames)
        return Read(
            stream.codec_context.name,
            [float(frame.time or 0) for frame in frames],
            frames,
            (container.duration or 0) / 1e6,
            [float(frame.time or 0) for frame in frames if frame.key_frame],
        )


CODECS = {".mp4": "h264", ".mkv": "h264", ".webm": "vp9", ".avi": "mjpeg"}


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("suffix", [*CODECS, ".MP4"])
def test_the_suffix_chooses_codec_and_every_frame_has_its_time(
    tmp_path: Path, suffix: str, live: bool
) -> None:
    path = tmp_path / f"out{suffix}"
    with VideoSink(path, info(fps=30000 / 1001, live=live)) as sink:
        for index in range(75):
            sink.write(output(corners(), 7 + index * 1001 / 30000, index))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()

    found = read(path)
    codec = CODECS[suffix.lower()]
    assert found.codec.removeprefix("lib") in (codec, "dav1d")
    assert len(found.frames) == 75
    assert found.times_s == pytest.approx([i * 1001 / 30000 for i in range(75)], abs=1e-3)
    assert found.duration_s == pytest.approx(75 * 1001 / 30000, abs=2e-3)
    if codec != "mjpeg":
        assert {frame.format.name for frame in found.frames} == {"yuv420p"}
        assert max(np.diff(found.key_frames_s)) < 2.1  # players can jump


def umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_a_variable_rate_is_kept(tmp_path: Path, suffix: str) -> None:
    """No drift over a minute of uneven frames, and each within a millisecond."""
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.02, 0.5, 240))
    with VideoSink(tmp_path / f"out{suffix}", info(fps=25.0)) as sink:
        for index, at_s in enumerate(times):
            sink.write(output(corners(), float(at_s), index))
    found = read(tmp_path / f"out{suffix}")
    np.testing.assert_allclose(found.times_s, times - times[0], atol=1e-3)
    assert found.times_s[-1] > 50


def test_an_avi_puts_uneven_frames_on_its_grid(tmp_path: Path) -> None:
    times = [0.0, 0.11, 0.19, 0.6, 1.01]
    with VideoSink(tmp_path / "out.avi", info(fps=10.0, live=True)) as sink:
        for index, at_s in enumerate(times):
            sink.write(output(corners(), at_s, index))
    found = read(tmp_path / "out.avi")
    assert found.times_s == pytest.approx([0.0, 0.1, 0.2, 0.6, 1.0], abs=1e-6)


def test_frames_that_share_a_time_are_spread(tmp_path: Path) -> None:
    """A folder of pictures has no times, and a broken container repeats one."""
    with VideoSink(tmp_path / "folder.mp4", info(fps=None)) as sink:
        for index in range(5):
            sink.write(output(corners(), 0.0, index))
    assert read(tmp_path / "folder.mp4").times_s == pytest.approx([i / 15 for i in range(5)])

    with VideoSink(tmp_path / "broken.mp4", info(fps=10.0)) as sink:
        for index, at_s in enumerate([0.0, 0.1, 0.1, 0.05, 0.6]):
            sink.write(output(corners(), at_s, index))
    assert read(tmp_path / "broken.mp4").times_s == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.6])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
@pytest.mark.parametrize("size", [(63, 47), (64, 47), (65, 48)])
def test_odd_sizes_grow_by_one_and_say_so(
    tmp_path: Path, suffix: str, size: tuple[int, int]
) -> None:
    heard = Heard()
    with VideoSink(tmp_path / f"odd{suffix}", info(*size), reporter=heard) as sink:
        for index in range(3):
            sink.write(output(corners(size), index / 15, index))
    even = (size[0] + size[0] % 2, size[1] + size[1] % 2)
    frames = read(tmp_path / f"odd{suffix}").frames
    assert [(f.width, f.height) for f in frames] == [even] * 3
    assert any(f"the video is {even[0]}x{even[1]}" in text for text in heard.lines)

    # What was added is a copy of its neighbour.
    image = frames[0].to_ndarray(format="bgr24").astype(int)
    assert abs(image[-1, -2] - image[-3, -2]).max() < 12


def test_an_avi_keeps_odd_sizes(tmp_path: Path) -> None:
    with VideoSink(tmp_path / "odd.avi", info(63, 47)) as sink:
        sink.write(output(corners((63, 47)), 0.0))
    frame = read(tmp_path / "odd.avi").frames[0]
    assert (frame.width, frame.height) == (63, 47)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi"])
def test_colours_are_kept_and_named_in_the_stream(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out{suffix}"
    size = (320, 240)
    image = corners(size)
    with VideoSink(path, info(*size)) as sink:
        for index in range(8):
            sink.write(output(image, index / 15, index))
    frame = read(path).frames[-1]
    if suffix != ".avi":
        # Limited range, BT.601.
        assert (int(frame.color_range), int(frame.colorspace)) in ((1, 5), (1, 6))
    decoded = frame.to_ndarray(format="bgr24").astype(float)
    for top in (0, 120):
        for left in (0, 160):
            region = np.s_[top + 20 : top + 100, left + 20 : left + 140]
            np.testing.assert_allclose(
                decoded[region].mean((0, 1)), image[region].mean((0, 1)), atol=3
            )


@pytest.mark.parametrize("name", ["out.xyz", "out", "out.mov"])
def test_an_unknown_suffix_names_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"expected \.mp4, \.mkv, \.webm or \.avi"):
        VideoSink(tmp_path / name, info())
    assert not list(tmp_path.iterdir())


def test_an_encoder_is_taken_only_if_it_encodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that FFmpeg does not know, one of another codec that opens, and one that works."""
    candidates = (
        Encoder("h264_none", "h264", "H.264"),
        Encoder("libvpx", "h264", "H.264", 0.2, {"deadline": "realtime"}),
        Encoder("mpeg4", "mpeg4", "MPEG-4", 0.2),
    )
    monkeypatch.setitem(encoders._ENCODERS, ".mp4", candidates)
    find_encoder.cache_clear()
    try:
        found = find_encoder(".mp4", 64, 48)
    finally:
        find_encoder.cache_clear()
    assert found is candidates[2]


def test_without_h264_the_video_is_mpeg4_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mpeg4 = next(e for e in encoders._ENCODERS[".mp4"] if e.name == "mpeg4")
    monkeypatch.setattr(video_file, "find_encoder", lambda *_: mpeg4)
    heard = Heard()
    with VideoSink(tmp_path / "out.mp4", info(), reporter=heard) as sink:
        for index in range(10):
            sink.write(output(corners(), index / 15, index))
    assert any(t.startswith("warning: ") and "browsers do not play" in t for t in heard.lines)
    found = read(tmp_path / "out.mp4")
    assert (found.codec, len(found.frames)) == ("mpeg4", 10)


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for suffix in CODECS:
        with VideoSink(tmp_path / f"out{suffix}", info()) as sink:
            sink.write(output(corners(), 0.0))
    assert capfd.readouterr() == ("", "")


# --- what stops a writer --------------------------------------------------------------------------

WRITER = """
import itertools, os, resource, sys, time
import numpy as np
from edgeseg.errors import OutputError
from edgeseg.video import *

path, live, noisy, limit = sys.argv[1], sys.argv[2] == "live", sys.argv[3] == "noise", sys.argv[4]
sink = VideoSink(path, VideoInfo(320, 240, 30.0, None, live=live))
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
rng = np.random.default_rng(0)
try:
    for index in itertools.count():
        image = np.full((240, 320, 3), 40 + index % 160, np.uint8)
        if noisy:
            image = rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)
        sink.write(Output(Frame(index, image, "x", index / 30), image[:, :, 0], image))
        os.write(1, f"{index / 30:.3f}\\n".encode())
        time.sleep(0.002)
except OutputError as error:
    print(error, flush=True)
"""


def writer(path: Path, *, live: bool, noisy: bool = False, limit: int = 0) -> Any:
    words = ["live" if live else "file", "noise" if noisy else "plain", str(limit)]
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), *words], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_process_loses_at_most_a_second(tmp_path: Path) -> None:
    """SIGKILL at random moments: each file is there, and plays up to the last second before."""
    seed = random.SystemRandom().randrange(1 << 30)
    rng = random.Random(seed)
    names = [("a.mp4", True), ("b.mp4", False), ("c.mkv", True), ("d.webm", False)]
    names += [("e.mp4", True)]
    running = []
    for name, live in names:
        (tmp_path / name).mkdir()
        running.append((writer(tmp_path / name / name, live=live), rng.randrange(40, 250)))

    for (name, _), (process, lines) in zip(names, running, strict=True):
        for _ in range(lines):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        process.wait()
        process.stdout.close()

        # The last line may be cut off.
        last_s = max([lines / 30, *map(float, rest[:-1])])
        (left,) = (tmp_path / name).iterdir()
        assert left.name.startswith(f"{name[0]}.recording-")
        assert left.suffix == Path(name).suffix
        found = read(left)
        assert found.times_s[-1] > last_s - 1, f"{name}, seed {seed}"
        assert len(found.times_s) == round(found.times_s[-1] * 30) + 1
        last = found.frames[-1].to_ndarray(format="bgr24")
        assert abs(last.mean() - (40 + (len(found.frames) - 1) % 160)) < 4


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
@pytest.mark.parametrize(
    ("suffix", "live"),
    [(".mp4", False), (".mp4", True), (".mkv", False), (".webm", True), (".avi", False)],
)
def test_a_full_disk_keeps_what_was_recorded(tmp_path: Path, suffix: str, live: bool) -> None:
    """A limit on the file's size makes writes fail as a full disk does, anywhere in a fragment."""
    path = tmp_path / f"out{suffix}"
    process = writer(path, live=live, noisy=True, limit=1_500_000)
    said = process.communicate(timeout=60)[0].splitlines()
    assert "the disk is full" in said[-1]
    assert "s recorded until then are kept" in said[-1]
    kept_s = float(said[-1].split("The ")[1].split(" s recorded")[0])

    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    found = read(path)
    assert len(found.times_s) > 5
    assert found.times_s[-1] + 1 / 30 == pytest.approx(kept_s, abs=0.15)
    assert found.times_s[-1] > float(said[-2]) - 1


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
def test_a_disk_that_is_full_at_once_leaves_nothing(tmp_path: Path) -> None:
    process = writer(tmp_path / "out.mp4", live=False, noisy=True, limit=2000)
    said = process.communicate(timeout=60)[0].splitlines()
    assert said[-1].endswith("Nothing was recorded.")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".avi"])
def test_a_disk_that_fills_up_while_closing_keeps_the_fragments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    sink = VideoSink(tmp_path / f"out{suffix}", info())
    for index in range(60):
        sink.write(output(corners(), index / 15, index))

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match=r"the disk is full.*s recorded until then are kept"):
        sink.finish()
    monkeypatch.undo()
    sink.abort()
    assert [p.name for p in tmp_path.iterdir()] == [f"out{suffix}"]
    assert read(tmp_path / f"out{suffix}").times_s[-1] > 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_small_disk_stops_the_recording_and_has_room_for_its_index(
    small_disk: Path, suffix: str
) -> None:
    process = writer(small_disk / f"out{suffix}", live=False, noisy=True)
    said = process.communicate(timeout=60)[0].splitlines()
    assert "the disk is full" in said[-1]
    found = read(small_disk / f"out{suffix}")
    assert found.times_s[-1] == pytest.approx(float(said[-2]) + 1 / 30, abs=1e-3)


def test_a_nearly_full_disk_is_left_before_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = VideoSink(tmp_path / "out.mp4", info())
    for index in range(20):
        sink.write(output(corners(), index / 15, index))
    monkeypatch.setattr(video_file, "DISK_MIN_BYTES", 1 << 62)
    with pytest.raises(OutputError, match=r"the disk is full.*The 1\.4 s recorded"):
        sink.write(output(corners(), 20 / 15, 20))
    sink.abort()
    assert len(read(tmp_path / "out.mp4").frames) == 21


def test_memory_and_descriptors_do_not_grow(tmp_path: Path) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("memory is read from /proc")

    def resident_kb() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4

    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    image = corners()
    with VideoSink(tmp_path / "out.mp4", info(fps=30.0, live=True)) as sink:
        for index in range(1000):
            sink.write(output(image, index / 30, index))
        start_kb = resident_kb()
        for index in range(1000, 9000):
            sink.write(output(image, index / 30, index))
        assert resident_kb() - start_kb < 2000
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


# --- a browser ------------------------------------------------------------------------------------

PAGE = b"""<!doctype html><body><video id=v muted playsinline src=/clip></video><script>
const v = document.getElementById('v')
const send = fact => fetch('/result', {method: 'POST', body: JSON.stringify(fact)})
v.onerror = () => send({error: v.error.code + ' ' + v.error.message})
v.onended = () => {
  const c = document.createElement('canvas')
  const w = c.width = v.videoWidth, h = c.height = v.videoHeight
  const g = c.getContext('2d')
  g.drawImage(v, 0, 0)
  const at = (x, y) => Array.from(g.getImageData(x * w, y * h, 1, 1).data).slice(0, 3).reverse()
  send({duration: v.duration, at: v.currentTime, width: w, height: h,
        frames: v.getVideoPlaybackQuality().totalVideoFrames,
        corners: [at(.25, .25), at(.75, .25), at(.25, .75), at(.75, .75)]})
}
v.play().catch(e => send({error: '' + e}))
</script>"""


def played(path: Path, profile: Path) -> dict[str, Any]:
    """Return what a headless Chromium says of a video after playing it to its end."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    program = program or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium, chromium-browser or google-chrome")
    answers: list[dict[str, Any]] = []
    answered = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            clip = self.path == "/clip"
            body = path.read_bytes() if clip else PAGE
            kind = "video/webm" if path.suffix == ".webm" else "video/mp4"
            self.send_response(200)
            self.send_header("Content-Type", kind if clip else "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            answers.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()
            answered.set()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--mute-audio"]
    words += ["--autoplay-policy=no-user-gesture-required", f"--user-data-dir={profile}"]
    browser = subprocess.Popen(
        [program, *words, f"http://127.0.0.1:{server.server_port}/"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert answered.wait(40), "the browser did not answer"
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()
        server.shutdown()
        server.server_close()
    return answers[0]


@pytest.mark.parametrize(
    ("name", "live"), [("out.mp4", False), ("out.mp4", True), ("out.webm", False)]
)
def test_a_browser_plays_it_in_the_right_colours(tmp_path: Path, name: str, live: bool) -> None:
    """The colours that its viewer sees, too: they are wrong if range or matrix are not said."""
    path = tmp_path / name
    size = (320, 240)
    with VideoSink(path, info(*size, fps=20.0, live=live)) as sink:
        for index in range(30):
            sink.write(output(corners(size), index / 20, index))
    result = played(path, tmp_path / "profile")
    assert "error" not in result
    assert (result["width"], result["height"]) == size
    assert result["duration"] == pytest.approx(1.5, abs=0.06)
    assert result["at"] == pytest.approx(1.5, abs=0.06)
    assert result["frames"] >= 15
    np.testing.assert_allclose(result["corners"], CORNERS, atol=5)


def test_a_browser_plays_what_a_killed_process_left(tmp_path: Path) -> None:
    (tmp_path / "video").mkdir()
    process = writer(tmp_path / "video" / "out.mp4", live=False)
    for _ in range(75):
        process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    (left,) = (tmp_path / "video").iterdir()
    result = played(left, tmp_path / "profile")
    assert "error" not in result
    assert result["at"] > 1.4


def test_writing_is_fast_enough(tmp_path: Path) -> None:
    """An encoder that takes the time of a network would halve the rate."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (45, 60, 3), np.uint8).repeat(8, 0).repeat(8, 1)]
    images.append(np.roll(images[0], 5, 1))
    with VideoSink(tmp_path / "out.mp4", info(480, 360, 30.0)) as sink:
        sink.write(output(images[0], 0.0))
        start = time.process_time()
        for index in range(1, 61):
            sink.write(output(images[index % 2], index / 30, index))
        assert (time.process_time() - start) / 60 < 0.03


def test_a_source_that_changes_its_size_is_fitted_into_the_video(tmp_path: Path) -> None:
    heard = Heard()
    path = tmp_path / "changed.mp4"
    with VideoSink(path, info(64, 48), reporter=heard) as sink:
        sink.write(output(corners((64, 48)), 0.0, 0))
        sink.write(output(corners((96, 48)), 1 / 15, 1))
        sink.write(output(corners((96, 48)), 2 / 15, 2))
    frames = read(path).frames
    assert [(frame.width, frame.height) for frame in frames] == [(64, 48)] * 3

    # 96x48 fits as 64x32, with eight black rows above and below.
    last = frames[-1].to_ndarray(format="bgr24")
    assert last[:6].max() < 40
    assert last[-6:].max() < 40
    assert last[12, 4, 0] > 120
    assert [line for line in heard.lines if "the source is 96x48" in line] == heard.lines
    assert len(heard.lines) == 1


def test_pictures_of_a_folder_must_have_one_size(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="another"),
        VideoSink(tmp_path / "a.mp4", info(fps=None)) as sink,
    ):
        sink.write(output(corners((96, 48)), 0.0))
    assert list(tmp_path.iterdir()) == []
