"""Check that no secret of an address is left."""

import pytest

from edgeseg.errors import EdgesegError
from edgeseg.video import open_source
from edgeseg.video.redact import redacted

SECRETS = ("hunter2", "admin")


@pytest.mark.parametrize(
    "address",
    [
        "rtsp://admin:hunter2@camera/live",
        "rtsp://admin:hunter2@@camera/live",
        "rtsp://admin:hun/ter2/hunter2@camera/live",
        "rtsp://admin:hunter2@camera:554/live?x=1@2",
        "http://camera/video?user=1&password=hunter2",
        "http://camera/video?PWD=hunter2&res=hd",
        "http://camera/cgi?token=hunter2",
        "http://camera/cgi?api_key=1&apikey=hunter2",
        "rtspsrc location=rtsp://admin:hunter2@camera/1 ! decodebin ! appsink",
        "rtspsrc location=rtsp://camera/1 user-id=admin user-pw=hunter2 ! decodebin ! appsink",
        'souphttpsrc location=http://camera user-id="admin" user-pw="hunter2 x" ! appsink',
    ],
)
def test_secrets_are_gone_and_the_camera_is_named(address: str) -> None:
    shown = redacted(address)
    assert not any(secret in shown for secret in SECRETS)
    assert "camera" in shown


@pytest.mark.parametrize(
    "address",
    ["0", "/dev/video0", "a@b.mp4", "synthetic://?length=3", "rtsp://camera/live?profile=2", "-"],
)
def test_addresses_without_secrets_stay(address: str) -> None:
    assert redacted(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "rtsp://admin:hun/ter2@hunter2@127.0.0.1:1/live",
        "http://127.0.0.1:1/video?password=hunter2",
        "rtspsrc location=rtsp://admin:hunter2@127.0.0.1:1/x ! decodebin ! appsink",
    ],
)
def test_no_message_has_them(address: str) -> None:
    with pytest.raises(EdgesegError) as caught:
        open_source(address)
    assert not any(secret in str(caught.value) for secret in SECRETS)
