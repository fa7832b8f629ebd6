"""What OpenCV hands over for the pipelines of a Jetson, and what becomes of it.

The fake capture follows OpenCV's ``cap_gstreamer.cpp``: which format it asks the pipeline for, and
how it lays out the frame. The last tests hold the fake to a real OpenCV with GStreamer, if the
system's Python has one (Debian and Ubuntu: python3-opencv).
"""

import functools
import itertools
import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from paths import ROOT

from edgeseg.errors import InputError
from edgeseg.video import open_source
from edgeseg.video.gstreamer import frame_layout, named_format, to_bgr

# The formats that OpenCV's appsink asks for, in its order; the second list only if the element
# before it offers nothing of the first.
ASKED_FIRST = ("BGR", "GRAY8", "bayer", "jpeg")
ASKED_SECOND = (
    *("UYVY", "YUY2", "YVYU", "NV12", "NV21", "YV12", "I420"),
    *("BGRA", "RGBA", "BGRx", "RGBx", "GRAY16_LE"),
)

# What elements offer: `gst-inspect-1.0 nvvidconv` has GRAY8 and no BGR.
NVVIDCONV = ("I420", "UYVY", "YUY2", "YVYU", "NV12", "NV16", "GRAY8", "BGRx", "RGBA", "Y42B")
VIDEOCONVERT = ("I420", "NV12", "YUY2", "BGR", "RGB", "BGRx", "RGBA", "GRAY8")

CSI = "nvarguscamerasrc ! video/x-raw(memory:NVMM),width=1280,height=720,format=NV12 ! nvvidconv"
USB = "v4l2src device=/dev/video0"
RTSP = "rtspsrc location=rtsp://cam/1 ! rtph264depay ! h264parse ! nvv4l2decoder ! nvvidconv"


@dataclass(frozen=True)
class Case:
    """A pipeline, what its last element offers, and the format that OpenCV then hands over."""

    pipeline: str
    offered: Sequence[str]
    handed: str


COMMON = {
    "CSI by videoconvert": Case(
        f"{CSI} ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! appsink",
        ["BGR"],
        "BGR",
    ),
    "CSI as NV12": Case(f"{CSI} ! video/x-raw,format=NV12 ! appsink drop=1", ["NV12"], "NV12"),
    "CSI as BGRx": Case(f"{CSI} ! video/x-raw, format=(string)BGRx ! appsink", ["BGRx"], "BGRx"),
    "USB as YUY2": Case(
        f"{USB} ! video/x-raw,format=YUY2 ! videoconvert ! appsink", VIDEOCONVERT, "BGR"
    ),
    "USB as MJPG": Case(
        f"{USB} ! image/jpeg ! nvv4l2decoder mjpeg=1 ! nvvidconv ! video/x-raw,format=I420 ! "
        "queue ! appsink",
        ["I420"],
        "I420",
    ),
    "RTSP as RGBA": Case(f"{RTSP} ! video/x-raw,format=RGBA ! appsink", ["RGBA"], "RGBA"),
}


def picture() -> np.ndarray:
    """A frame of 64x48 with four areas of unlike colours."""
    image = np.empty((48, 64, 3), np.uint8)
    image[:24, :32] = 200, 40, 40
    image[:24, 32:] = 40, 200, 40
    image[24:, :32] = 40, 40, 200
    image[24:, 32:] = 150, 120, 90
    return image


def negotiated(offered: Sequence[str]) -> str:
    """The format that OpenCV takes of those that the last element offers."""
    for asked in (ASKED_FIRST, ASKED_SECOND):
        for name in asked:
            if name in offered:
                return name
    raise AssertionError(offered)


def laid_out(image: np.ndarray, name: str) -> np.ndarray:
    """A BGR picture as OpenCV hands over a frame of that format."""
    height, width = image.shape[:2]
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    planar = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
    y, chroma = planar[:height], planar[height:].reshape(2, height // 2, width // 2)
    u, v = chroma
    uv_rows = np.stack([u, v], 2).repeat(2, 0).reshape(height, width)
    vu_rows = np.stack([v, u], 2).repeat(2, 0).reshape(height, width)
    fourth = np.full((height, width), 9, np.uint8)
    rgb = image[:, :, ::-1]
    layouts = {
        "BGR": image,
        "GRAY8": grey,
        "bayer": grey,
        "jpeg": cv2.imencode(".jpg", image)[1].reshape(1, -1),
        "GRAY16_LE": grey.astype(np.uint16) * 257,
        "NV12": np.vstack([y, np.stack([u, v], 2).reshape(-1, width)]),
        "NV21": np.vstack([y, np.stack([v, u], 2).reshape(-1, width)]),
        "I420": planar,
        "YV12": np.vstack([y, v.reshape(-1, width), u.reshape(-1, width)]),
        "YUY2": np.stack([y, uv_rows], 2),
        "YVYU": np.stack([y, vu_rows], 2),
        "UYVY": np.stack([uv_rows, y], 2),
        "BGRA": np.dstack([image, fourth]),
        "BGRx": np.dstack([image, fourth]),
        "RGBA": np.dstack([rgb, fourth]),
        "RGBx": np.dstack([rgb, fourth]),
    }
    return np.ascontiguousarray(layouts[name])


class GStreamerCapture:
    """A capture of OpenCV's GStreamer backend over a pipeline that offers some formats."""

    def __init__(self, offered: Sequence[str], count: int = 3) -> None:
        self.handed = negotiated(offered)
        self.left = count
        self.released = False

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        return (True, laid_out(picture(), self.handed)) if self.left >= 0 else (False, None)

    def get(self, which: int) -> float:
        known = {cv2.CAP_PROP_FRAME_WIDTH: 64.0, cv2.CAP_PROP_FRAME_HEIGHT: 48.0}
        return {**known, cv2.CAP_PROP_FPS: 30.0, cv2.CAP_PROP_FRAME_COUNT: -1.0}[which]

    def release(self) -> None:
        self.released = True


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[GStreamerCapture]:
    """The captures that were opened; set ``offers`` first."""
    captures: list[GStreamerCapture] = []

    def capture(uri: str, api: int, limits: Sequence[int]) -> GStreamerCapture:
        assert api == cv2.CAP_GSTREAMER
        assert cv2.CAP_PROP_READ_TIMEOUT_MSEC in limits
        captures.append(GStreamerCapture(OFFERED[uri]))
        return captures[-1]

    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda _: True)
    monkeypatch.setattr(cv2, "VideoCapture", capture)
    return captures


OFFERED: dict[str, Sequence[str]] = {case.pipeline: case.offered for case in COMMON.values()}


def assert_is_the_picture(image: np.ndarray) -> None:
    """The colours of each area, within the rounding of a YUV conversion."""
    assert image.shape == (48, 64, 3)
    assert image.dtype == np.uint8
    off = np.abs(image.astype(int) - picture())
    assert np.median(off, axis=(0, 1)).max() <= 6
    assert off.mean() < 6


@pytest.mark.parametrize("name", COMMON)
def test_the_commonest_pipelines_of_a_jetson(name: str, opened: list[GStreamerCapture]) -> None:
    case = COMMON[name]
    with open_source(case.pipeline) as source:
        assert (source.info.width, source.info.height, source.info.live) == (64, 48, True)
        frames = list(itertools.islice(source, 3))
    assert opened[0].handed == case.handed
    assert frames
    for frame in frames:
        assert_is_the_picture(frame.image)


REFUSED = {
    "nvvidconv decides": (
        f"{CSI} ! appsink",
        NVVIDCONV,
        r"gives grey frames.*nvvidconv ! video/x-raw,format=NV12 ! appsink",
    ),
    "nvvidconv decides, behind a queue": (
        f"{RTSP} ! video/x-raw,width=64 ! queue ! appsink",
        NVVIDCONV,
        "gives grey frames",
    ),
    "a webcam's own JPEG": (f"{USB} ! appsink", ["YUY2", "jpeg"], "gives encoded frames"),
    "YUV without a name": (f"{USB} ! appsink ", ["YUY2", "UYVY"], "one of YUY2, UYVY, YVYU right"),
    "a decoder without a name": (
        "filesrc location=a.h264 ! h264parse ! avdec_h264 ! appsink",
        ["I420", "NV12"],
        "one of NV12, NV21, I420, YV12 right before appsink",
    ),
    "a choice": (
        "videotestsrc ! video/x-raw,format={NV12,I420} ! appsink",
        ["NV12", "I420"],
        "unknown format",
    ),
    "a name before another element": (
        f"{USB} ! video/x-raw,format=NV12 ! v4l2convert ! appsink",
        ["I420", "BGRx"],
        "unknown format",
    ),
    "a sensor's raw data": (
        f"{USB} ! video/x-bayer,format=rggb ! appsink",
        ["bayer"],
        "raw Bayer frames: got rggb.*bayer2rgb",
    ),
    "an infrared camera of 16 bits": (
        f"{USB} ! video/x-raw,format=GRAY16_LE ! appsink",
        ["GRAY16_LE"],
        r"does not read: got uint16 \(48, 64\), expected 8 bits",
    ),
}
OFFERED.update({pipeline: offered for pipeline, offered, _ in REFUSED.values()})


@pytest.mark.parametrize("name", REFUSED)
def test_no_other_picture_is_shown_silently(name: str, opened: list[GStreamerCapture]) -> None:
    pipeline, _, says = REFUSED[name]
    with pytest.raises(InputError, match=says):
        open_source(pipeline)
    assert opened[0].released


@pytest.mark.parametrize("name", [*ASKED_FIRST[:2], *ASKED_SECOND[:-1]])
def test_every_format_becomes_bgr(name: str) -> None:
    frame = laid_out(picture(), name)
    layout = frame_layout(frame, 48, f"videotestsrc ! video/x-raw,format={name} ! appsink")
    assert layout == name
    image = to_bgr(frame, layout)
    if name == "GRAY8":
        assert (image == frame[:, :, None]).all()
    else:
        assert_is_the_picture(image)


def test_a_grey_camera_is_grey() -> None:
    grey = laid_out(picture(), "GRAY8")
    for pipeline in (
        f"{USB} ! videoconvert ! appsink",
        f"{USB} ! nvvidconv ! video/x-raw,format=GRAY8 ! appsink",
    ):
        assert frame_layout(grey, 48, pipeline) == "GRAY8"


def test_an_odd_side_is_refused() -> None:
    pipeline = "videotestsrc ! video/x-raw,format=NV12 ! appsink"
    with pytest.raises(InputError, match="gives NV12 with an odd side: got 63x47"):
        frame_layout(np.zeros((70, 63), np.uint8), 47, pipeline)


@pytest.mark.parametrize(
    ("caps", "named"),
    [
        ("video/x-raw(memory:NVMM),format=NV12 ! nvvidconv ! video/x-raw,format=BGRx", "BGRx"),
        ("video/x-raw(memory:NVMM),format=NV12 ! nvvidconv", ""),
        ("video/x-raw,format=YUY2 ! videoconvert", ""),
        ("nvvidconv ! video/x-raw, format=(string)NV12", "NV12"),
        (r"nvvidconv ! video/x-raw, format=\(string\)NV12", "NV12"),
        ('videoconvert ! video/x-raw,format="I420"', "I420"),
        ("nvvidconv ! 'video/x-raw, width=64, format=NV12, height=48'", "NV12"),
        ("nvvidconv ! capsfilter caps=video/x-raw,format=NV12", "NV12"),
        ("nvvidconv ! video/x-raw,format=NV12 ! video/x-raw,width=64 ! queue ! identity", "NV12"),
        ("nvvidconv ! video/x-raw,format={NV12,I420}", ""),
        ("nvvidconv ! video/x-raw,format=NV12 ! tee name=t ! fakesink t. ! queue", ""),
        ("videoconvert", ""),
    ],
)
def test_the_format_right_before_the_appsink(caps: str, named: str) -> None:
    for sink in ("appsink", "appsink drop=1 max-buffers=1", "appsink t. ! fakesink"):
        assert named_format(f"videotestsrc ! {caps} ! {sink}") == named
    assert named_format(f"videotestsrc ! {caps} ! fakesink") == ""


@pytest.fixture
def _no_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pipeline opens."""

    class Closed(GStreamerCapture):
        def isOpened(self) -> bool:  # noqa: N802
            return False

    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda _: True)
    monkeypatch.setattr(cv2, "VideoCapture", lambda uri, api, *limits: Closed(["BGR"]))


@pytest.mark.usefixtures("_no_capture")
def test_what_a_pipeline_lacks_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    inspect = tmp_path / "gst-inspect-1.0"
    inspect.write_text('#!/bin/sh\n[ "$1" != nvarguscamerasrc ]\n')
    inspect.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    with pytest.raises(InputError, match="gives no frames: got no GStreamer element nvarguscam"):
        open_source(f"{CSI} ! video/x-raw,format=NV12 ! appsink")
    with pytest.raises(InputError, match="got no device /dev/video97"):
        open_source("v4l2src device=/dev/video97 ! videoconvert ! appsink")
    with pytest.raises(InputError, match="got 'videotestsrc ! fakesink', expected one that ends"):
        open_source("videotestsrc ! fakesink")


# --- a real OpenCV with GStreamer -----------------------------------------------------------------

# Read one frame of each pipeline in another Python: its mean colour, or the error.
# What edgeseg needs beside OpenCV, such as PyAV; behind the system's packages.
PACKAGES = str(Path(av.__file__).parent.parent)

READ = """
import json, sys
sys.path.append(sys.argv[1])
import cv2
from edgeseg.errors import EdgesegError
from edgeseg.video import open_source

found = []
for pipeline in json.load(sys.stdin):
    try:
        with open_source(pipeline) as source:
            image = next(source).image
        found.append([*image.shape, *image.reshape(-1, 3).mean(0).round().tolist()])
    except EdgesegError as error:
        found.append(str(error))
print(json.dumps(found))
"""
RED = "videotestsrc num-buffers=9 pattern=solid-color foreground-color=0xffd02020"
SMALL = "video/x-raw,width=64,height=48"


@functools.cache
def python_with_gstreamer() -> str | None:
    """The system's Python, if its OpenCV has GStreamer and GStreamer has its test source."""
    python = os.environ.get("EDGESEG_GSTREAMER_PYTHON", "/usr/bin/python3")
    code = (
        "import cv2, sys; sys.path.append(sys.argv[1]); import av; "
        "capture = cv2.VideoCapture('videotestsrc ! videoconvert ! appsink', "
        "cv2.CAP_GSTREAMER); sys.exit(not capture.isOpened())"
    )
    try:
        done = subprocess.run([python, "-c", code, PACKAGES], capture_output=True, timeout=60)
    except OSError:
        return None
    return python if done.returncode == 0 else None


def read_for_real(pipelines: Sequence[str]) -> list[list[int] | str]:
    """The mean colours and errors that the system's OpenCV and edgeseg make of pipelines."""
    python = python_with_gstreamer()
    if python is None:
        pytest.skip(
            "the system's Python has no OpenCV with GStreamer (python3-opencv), or another version"
        )
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [python, "-c", READ, PACKAGES],
        input=json.dumps(pipelines),
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert done.returncode == 0, done.stderr
    found: list[list[int] | str] = json.loads(done.stdout)
    return found


def test_real_pipelines_keep_their_colours() -> None:
    formats = ("BGR", "BGRx", "BGRA", "RGBA", "RGBx", "YUY2", "UYVY", "YVYU")
    named = [*formats, "NV12", "NV21", "I420", "YV12"]
    pipelines = [f"{RED} ! {SMALL},format={name} ! queue ! appsink" for name in named]
    pipelines.append(f"{RED} ! {SMALL},format=YUY2 ! videoconvert ! appsink")
    for pipeline, got in zip(pipelines, read_for_real(pipelines), strict=True):
        assert not isinstance(got, str), (pipeline, got)
        height, width, channels, blue, green, red = got
        assert (height, width, channels) == (48, 64, 3)
        assert red > 190, pipeline
        assert max(blue, green) < 60, pipeline


def test_real_pipelines_that_would_show_another_picture() -> None:
    # A choice of formats stands for nvvidconv, which offers GRAY8 and no BGR.
    offers = "video/x-raw,format={I420,UYVY,NV12,GRAY8,BGRx,RGBA}"
    pipelines = {
        f"{RED} ! {SMALL} ! identity name=nvvidconv ! videoconvert ! {offers} ! appsink": "grey",
        f"{RED} ! {SMALL},format=NV12 ! videobalance ! appsink": "unknown format",
        f"{RED} ! {SMALL} ! jpegenc ! appsink": "encoded frames",
        f"{RED} ! {SMALL},format=GRAY16_LE ! appsink": "uint16 (48, 64)",
        "videotestsrc num-buffers=9 ! video/x-bayer,format=rggb ! appsink": "raw Bayer",
        f"{RED} ! video/x-raw,width=63,height=47,format=NV12 ! appsink": "odd side: got 63x47",
        f"{RED} ! {SMALL},format=RGB ! appsink": "no frames",
    }
    for (pipeline, says), got in zip(
        pipelines.items(), read_for_real(list(pipelines)), strict=True
    ):
        assert isinstance(got, str), (pipeline, got)
        assert says in got, pipeline
