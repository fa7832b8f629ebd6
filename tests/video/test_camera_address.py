"""Addresses of cameras: what they say, and what they must not say."""

import pytest

from edgeseg.errors import InputError
from edgeseg.video import open_source
from edgeseg.video.gstreamer import named_format
from edgeseg.video.sources.camera_address import csi_pipeline, parse_v4l2
from edgeseg.video.sources.live import CameraSettings

V4L2 = "v4l2:///dev/video0"


@pytest.mark.parametrize(
    ("uri", "device", "settings"),
    [
        (V4L2, "/dev/video0", CameraSettings()),
        ("v4l2://3", "/dev/video3", CameraSettings()),
        (
            f"{V4L2}?size=1280x720&fps=29.97&format=mjpeg",
            "/dev/video0",
            CameraSettings((1280, 720), 29.97, "MJPG"),
        ),
        (
            "v4l2:///dev/v4l/by-id/usb-Cam%20One-index0?format=YUYV",
            "/dev/v4l/by-id/usb-Cam One-index0",
            CameraSettings(format="YUYV"),
        ),
    ],
)
def test_v4l2(uri: str, device: str, settings: CameraSettings) -> None:
    assert parse_v4l2(uri) == (device, settings)


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        (f"{V4L2}?sise=1x1", "unknown setting: got 'sise', expected size, fps, format. Did you "),
        (f"{V4L2}?size=1280", "bad size: got '1280', expected WIDTHxHEIGHT, such as 1280x720."),
        (f"{V4L2}?size=0x720", "bad size: got '0x720'"),
        (f"{V4L2}?size=", "bad size: got ''"),
        (f"{V4L2}?fps=fast", "bad fps: got 'fast', expected a number, such as 30."),
        (f"{V4L2}?fps=0", "bad fps: got '0'"),
        (f"{V4L2}?fps=nan", "bad fps: got 'nan'"),
        (f"{V4L2}?format=MJPH", "bad format: got 'MJPH', expected MJPG, YUYV,"),
        (f"{V4L2}?format=MJPH", "Did you mean 'MJPG'?"),
        (f"{V4L2}?fps=30&fps=60", "gives fps twice: got 30 and 60."),
        ("v4l2://front?fps=30", "names no device: got 'front', expected v4l2:///dev/video0."),
        ("csi://front", "names no sensor: got 'front', expected csi://0."),
        ("csi://0?flip=8", "bad flip: got '8', expected 0 to 7"),
        ("csi://0?size=641x480", "bad size: got '641x480', expected even sides"),
        ("csi://0?format=NV12", "unknown setting: got 'format', expected size, fps, flip."),
    ],
)
def test_what_makes_no_sense_is_one_clear_error(uri: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        open_source(uri)
    assert str(caught.value).startswith(f"{uri}: ")
    assert says in str(caught.value)


def test_a_csi_camera_is_a_pipeline_that_ends_in_nv12_and_keeps_one_frame() -> None:
    pipeline = csi_pipeline("csi://1?size=1920x1080&fps=30&flip=2")
    assert pipeline == (
        "nvarguscamerasrc sensor-id=1"
        " ! video/x-raw(memory:NVMM),format=NV12,width=1920,height=1080,framerate=30/1"
        " ! nvvidconv flip-method=2 ! video/x-raw,format=NV12"
        " ! appsink drop=true max-buffers=1 sync=false"
    )
    # The reader of pipelines sees the format, so that frames are handed on as they are.
    assert named_format(pipeline) == "NV12"


@pytest.mark.parametrize(
    ("fps", "fraction"), [("30", "30/1"), ("29.97", "30000/1001"), ("7.5", "7500/1000")]
)
def test_a_rate_is_a_fraction(fps: str, fraction: str) -> None:
    assert f"framerate={fraction} !" in csi_pipeline(f"csi://0?fps={fps}")


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="/dev/video97: no such device"):
        open_source("v4l2:///dev/video97?size=640x480")
