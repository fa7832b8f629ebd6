"""Tell how OpenCV lays out the frames of a GStreamer pipeline, and convert them to BGR.

OpenCV's ``appsink`` asks for BGR, GRAY8, Bayer or JPEG. Only if the element before it offers none
of these, OpenCV takes YUV and formats with four channels as they are (``cap_gstreamer.cpp``). It
never tells which one it took. So the array decides: its channels, and its rows against the frame's
height. The text of the pipeline decides only between formats of one shape, such as NV12 and I420.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.errors import InputError
from edgeseg.types import Image

# The format that OpenCV hands over, and the code that converts it; None if it is BGR already.
_TO_BGR: dict[str, int | None] = {
    "BGR": None,
    "GRAY8": cv2.COLOR_GRAY2BGR,
    "BGRA": cv2.COLOR_BGRA2BGR,
    "BGRx": cv2.COLOR_BGRA2BGR,
    "RGBA": cv2.COLOR_RGBA2BGR,
    "RGBx": cv2.COLOR_RGBA2BGR,
    "YUY2": cv2.COLOR_YUV2BGR_YUY2,
    "UYVY": cv2.COLOR_YUV2BGR_UYVY,
    "YVYU": cv2.COLOR_YUV2BGR_YVYU,
    "NV12": cv2.COLOR_YUV2BGR_NV12,
    "NV21": cv2.COLOR_YUV2BGR_NV21,
    "I420": cv2.COLOR_YUV2BGR_I420,
    "YV12": cv2.COLOR_YUV2BGR_YV12,
}

# Formats of one shape. (H * 3 / 2, W), (H, W, 2) and (H, W, 4).
_PLANAR = ("NV12", "NV21", "I420", "YV12")
_PACKED = ("YUY2", "UYVY", "YVYU")
_FOUR_CHANNELS = ("BGRx", "BGRA", "RGBx", "RGBA")

# Elements that leave the format as it is.
_KEEP_FORMAT = frozenset(
    {"identity", "queue", "queue2", "valve", "videocrop", "videoflip", "videorate", "videoscale"}
)


def named_format(pipeline: str) -> str:
    """Return the format that a pipeline names right before its ``appsink``.

    Elements that leave the format as it is, such as ``queue``, may stand between.

    Parameters
    ----------
    pipeline : the pipeline, as for ``gst-launch-1.0``.

    Returns
    -------
    The format, such as ``NV12``; an empty string if there is none, or a choice of several.

    Examples
    --------
    >>> named_format("v4l2src ! video/x-raw,format=NV12 ! queue ! appsink drop=1")
    'NV12'
    >>> named_format("v4l2src ! video/x-raw,format=YUY2 ! videoconvert ! appsink")
    ''
    """
    elements = _elements(pipeline)
    sinks = [index for index, words in enumerate(elements) if words[0] == "appsink"]
    if not sinks:
        return ""

    for words in reversed(elements[: sinks[-1]]):
        caps = words[0] == "capsfilter" or "/" in words[0].partition(",")[0]
        if caps:
            text = " ".join(words)
            if "format" in text:
                formats = _formats(text)
                return formats.pop() if len(formats) == 1 else ""
        elif words[0] not in _KEEP_FORMAT:
            return ""
    return ""


def missing_part(pipeline: str) -> str | None:
    """Return what a pipeline names and this machine does not have.

    Parameters
    ----------
    pipeline : the pipeline, as for ``gst-launch-1.0``.

    Returns
    -------
    A camera that is not there, or an element that GStreamer does not know (it is asked if
    ``gst-inspect-1.0`` is installed); None if nothing is missing.
    """
    for device in re.findall(r"device=\"?(/dev/\w+)", pipeline):
        if not Path(device).exists():
            return f"no device {device}"

    inspect = shutil.which("gst-inspect-1.0")
    if inspect is None:
        return None
    for words in _elements(pipeline):
        name = words[0]
        if re.fullmatch(r"[a-z]\w*", name):
            found = subprocess.run([inspect, name], capture_output=True, check=False)
            if found.returncode != 0:
                return f"no GStreamer element {name}"
    return None


def _elements(pipeline: str) -> list[list[str]]:
    """Return the words of each element and each caps filter of a pipeline."""
    return [part.split() or [""] for part in pipeline.split("!")]


def _formats(caps: str) -> set[str]:
    """Return the formats that caps name; not those of a choice in braces."""
    return set(re.findall(r"format\s*=\s*(?:\\?\(string\\?\)\s*)?\"?(\w+)", caps))


def frame_layout(frame: npt.NDArray[Any], height: int, pipeline: str) -> str:
    """Return the format of a frame that OpenCV read from a pipeline.

    Parameters
    ----------
    frame : the frame as OpenCV hands it over.
    height : the height that OpenCV reports, ``CAP_PROP_FRAME_HEIGHT``.
    pipeline : the pipeline, as for ``gst-launch-1.0``.

    Returns
    -------
    The format, for ``to_bgr``.

    Raises
    ------
    InputError : the shape fits several formats and the pipeline does not name one right before its
        ``appsink``; the frame is encoded, Bayer, or has 16 bits; or ``nvvidconv`` gives grey
        although the pipeline does not ask for grey.

    Examples
    --------
    >>> camera = "v4l2src ! video/x-raw,format=YUY2 ! videoconvert ! appsink"
    >>> frame_layout(np.zeros((48, 64, 3), np.uint8), 48, camera)
    'BGR'
    """
    _require_raw(frame, height)
    named = named_format(pipeline)
    channels = 1 if frame.ndim == 2 else frame.shape[2]
    rows, width = frame.shape[:2]

    if channels == 3:
        return "BGR"
    if channels == 1 and rows == height:
        return _grey(named, pipeline)

    # The name decides between formats of one shape.
    fitting = {2: _PACKED, 4: _FOUR_CHANNELS}.get(channels, _PLANAR)
    fits = fitting is not _PLANAR or height < 1 or rows == height * 3 // 2
    if named not in fitting or not fits:
        raise _refused(
            "gives frames of an unknown format",
            got=f"{frame.shape} at a height of {height}",
            expected=f"one of {', '.join(fitting)} right before appsink",
            hint=f"End it with: video/x-raw,format={fitting[0]} ! appsink",
        )

    # OpenCV converts no chroma of odd sides.
    odd = (fitting is _PLANAR and rows % 3) or (fitting is not _FOUR_CHANNELS and width % 2)
    if odd:
        raise _refused(
            f"gives {named} with an odd side",
            got=f"{width}x{height}",
            expected="even sides",
            hint="End it with: videoconvert ! appsink",
        )
    return named


def _require_raw(frame: npt.NDArray[Any], height: int) -> None:
    """Raise ``InputError`` unless a frame consists of pixels of 8 bits a channel."""
    if frame.dtype != np.uint8:
        raise _refused(
            "gives a format that edgeseg does not read",
            got=f"{frame.dtype} {frame.shape}",
            expected="8 bits per channel",
            hint="End it with: videoconvert ! video/x-raw,format=BGR ! appsink",
        )
    if frame.ndim == 2 and frame.shape[0] == 1 != height:
        raise _refused(
            "gives encoded frames",
            got="JPEG",
            expected="a decoder before appsink",
            hint="End it with: image/jpeg ! jpegdec ! videoconvert ! appsink",
        )


def _grey(named: str, pipeline: str) -> str:
    """Return ``GRAY8``; raise ``InputError`` if the frames are not meant to be grey."""
    if "video/x-bayer" in pipeline and "bayer2rgb" not in pipeline:
        raise _refused(
            "gives raw Bayer frames",
            got=named or "no format",
            expected="colours",
            hint="End it with: bayer2rgb ! videoconvert ! appsink",
        )
    if re.search(r"\bnvvidconv\b", pipeline) and "GRAY8" not in _formats(pipeline):
        raise _refused(
            "gives grey frames, because OpenCV takes GRAY8 from nvvidconv first",
            got="no format right before appsink",
            expected="a format with colours",
            hint="End it with: nvvidconv ! video/x-raw,format=NV12 ! appsink (for a grey camera: "
            "format=GRAY8)",
        )
    return "GRAY8"


def _refused(what: str, *, got: str, expected: str, hint: str) -> InputError:
    """Return the error of a pipeline with frames that cannot be used."""
    return InputError(f"the GStreamer pipeline {what}", got=got, expected=expected, hint=hint)


def to_bgr(frame: npt.NDArray[Any], layout: str) -> Image:
    """Convert a frame of a capture to (H, W, 3) uint8 BGR.

    Parameters
    ----------
    frame : the frame as OpenCV hands it over.
    layout : its format, from ``frame_layout``.

    Examples
    --------
    >>> to_bgr(np.full((48, 64), 7, np.uint8), "GRAY8").shape
    (48, 64, 3)
    """
    code = _TO_BGR[layout]
    return np.asarray(frame if code is None else cv2.cvtColor(frame, code), np.uint8)
