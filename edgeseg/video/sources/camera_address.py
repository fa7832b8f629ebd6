"""Read the addresses of cameras: ``v4l2:///dev/video0?size=1280x720`` and ``csi://0?fps=30``."""

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, unquote

from edgeseg.errors import InputError, did_you_mean
from edgeseg.video.sources.live import CameraSettings

V4L2 = "v4l2://"
CSI = "csi://"

# Four letters by which V4L2 calls a format; OpenCV converts each of these.
FORMATS = ("MJPG", "YUYV", "UYVY", "NV12", "YU12", "BGR3", "RGB3", "GREY", "H264")

_V4L2_KEYS = ("size", "fps", "format")
_CSI_KEYS = ("size", "fps", "flip")

# nvvidconv's flip-method: 0 none, 2 a half turn, 1 and 3 a quarter, 4 to 7 mirrored.
_FLIPS = range(8)

_LARGEST_SIDE = 16384
_FASTEST_FPS = 1000


def parse_v4l2(uri: str) -> tuple[str, CameraSettings]:
    """Return the device of a V4L2 camera's address, and the format to ask for.

    Parameters
    ----------
    uri : ``v4l2:///dev/videoN``, then perhaps ``?size=WxH&fps=F&format=MJPG``.

    Raises
    ------
    InputError : an unknown key, or a value that makes no sense.

    Examples
    --------
    >>> parse_v4l2("v4l2:///dev/video0?size=1280x720&format=mjpg")
    ('/dev/video0', CameraSettings(size=(1280, 720), fps=None, format='MJPG'))
    """
    place, values = _split(uri, V4L2, _V4L2_KEYS)
    device = f"/dev/video{place}" if place.isdecimal() else place
    if not device.startswith("/dev/"):
        raise InputError(f"{uri}: names no device", got=repr(place), expected="v4l2:///dev/video0")
    settings = CameraSettings(
        _size(uri, values.get("size")),
        _fps(uri, values.get("fps")),
        _format(uri, values.get("format")),
    )
    return device, settings


def csi_pipeline(uri: str) -> str:
    """Return the GStreamer pipeline of a Jetson's CSI camera.

    It ends in NV12, which an engine may take without conversion, and keeps only the newest frame.

    Parameters
    ----------
    uri : ``csi://N``, then perhaps ``?size=WxH&fps=F&flip=0..7``. N is the sensor's number.

    Raises
    ------
    InputError : an unknown key, or a value that makes no sense.

    Examples
    --------
    >>> csi_pipeline("csi://0")
    'nvarguscamerasrc sensor-id=0 ! nvvidconv ! video/x-raw,format=NV12 ! appsink drop=true \
max-buffers=1 sync=false'
    """
    place, values = _split(uri, CSI, _CSI_KEYS)
    number = place or "0"
    if not re.fullmatch(r"[0-9]{1,2}", number):
        raise InputError(f"{uri}: names no sensor", got=repr(place), expected="csi://0")

    # The sensor's mode, in the camera's memory.
    mode: list[str] = []
    size = _size(uri, values.get("size"))
    if size is not None:
        if size[0] % 2 or size[1] % 2:
            raise _wrong(uri, "size", values["size"], "even sides, which NV12 needs")
        mode += [f"width={size[0]}", f"height={size[1]}"]
    fps = _fps(uri, values.get("fps"))
    if fps is not None:
        mode.append(f"framerate={_fraction(fps)}")

    elements = [f"nvarguscamerasrc sensor-id={int(number)}"]
    if mode:
        elements.append(",".join(["video/x-raw(memory:NVMM)", "format=NV12", *mode]))
    flip = _flip(uri, values.get("flip"))
    elements.append(f"nvvidconv flip-method={flip}" if flip else "nvvidconv")
    elements.append("video/x-raw,format=NV12")
    elements.append("appsink drop=true max-buffers=1 sync=false")
    return " ! ".join(elements)


def _split(uri: str, scheme: str, keys: Iterable[str]) -> tuple[str, dict[str, str]]:
    """Return the part before the question mark, and the values behind it by key."""
    place, _, query = uri.removeprefix(scheme).partition("?")
    values: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in keys:
            raise InputError(
                f"{uri}: unknown setting",
                got=repr(key),
                expected=", ".join(keys),
                hint=did_you_mean(key, keys),
            )
        if key in values:
            raise InputError(f"{uri}: gives {key} twice", got=f"{values[key]} and {value}")
        values[key] = value
    return unquote(place), values


def _wrong(uri: str, key: str, value: str, expected: str, hint: str = "") -> InputError:
    """Return the error of a value that makes no sense."""
    return InputError(f"{uri}: bad {key}", got=repr(value), expected=expected, hint=hint)


def _size(uri: str, text: str | None) -> tuple[int, int] | None:
    """Return (width, height)."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,5})[xX]([0-9]{1,5})", text)
    if not found or not all(0 < int(side) <= _LARGEST_SIDE for side in found.groups()):
        raise _wrong(uri, "size", text, "WIDTHxHEIGHT, such as 1280x720")
    return int(found[1]), int(found[2])


def _fps(uri: str, text: str | None) -> float | None:
    """Return frames per second."""
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) or not 0 < float(text) <= _FASTEST_FPS:
        raise _wrong(uri, "fps", text, "a number, such as 30")
    return float(text)


def _fraction(fps: float) -> str:
    """Return a rate as GStreamer writes it: 29.97 is 30000/1001."""
    nearest = round(fps)
    if abs(nearest * 1000 / 1001 - fps) < 0.005:
        return f"{nearest * 1000}/1001"
    return f"{nearest}/1" if nearest == fps else f"{round(fps * 1000)}/1000"


def _format(uri: str, text: str | None) -> str | None:
    """Return the four letters of a format."""
    if text is None:
        return None
    letters = {"MJPEG": "MJPG", "JPEG": "MJPG", "YUY2": "YUYV", "I420": "YU12"}
    word = letters.get(text.upper(), text.upper())
    if word not in FORMATS:
        raise _wrong(uri, "format", text, ", ".join(FORMATS), did_you_mean(text, FORMATS))
    return word


def _flip(uri: str, text: str | None) -> int:
    """Return nvvidconv's flip method."""
    if text is None:
        return 0
    if text not in {str(flip) for flip in _FLIPS}:
        raise _wrong(uri, "flip", text, "0 to 7; 2 is a half turn")
    return int(text)
