"""What the server sends to the browser for one frame, and how it is packed.

A message is: the length of the header (4 bytes, little endian), the header (JSON), the camera's
frame (JPEG), and label maps (each compressed by deflate in zlib's format). The header tells the
length of every part. ``static/stream.js`` reads it.
"""

import json
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from edgeseg.imaging.postprocess import LabelMap, Picture, overlay
from edgeseg.spec import LabelSpace
from edgeseg.video.sinks import Output

_JPEG_QUALITY = 80
# Longest side of the camera's frame on the page, pixels: a larger one is reduced. A screen shows no
# more of it, and the encoding of a 4K frame takes longer than most networks.
_PICTURE_SIDE = 1280
# Longest side of a label map on the page, pixels: networks give no more detail, and the browser
# enlarges it.
_PLANE_SIDE = 720
_ZLIB_LEVEL = 1  # label maps are flat: higher levels take longer for a few per cent
_DRAWN_OPACITY = 0.5


def plane_of(label_map: LabelMap) -> tuple[LabelMap, int]:
    """Reduce a label map to what the page shows.

    Parameters
    ----------
    label_map : (H, W) uint8 label ids.

    Returns
    -------
    The (H/step, W/step) uint8 map, and the step: each of its ids is that of the pixel in the middle
    of a square of ``step`` pixels.

    Examples
    --------
    >>> plane, step = plane_of(np.zeros((720, 1280), np.uint8))
    >>> plane.shape, step
    ((360, 640), 2)
    """
    step = -(-max(label_map.shape) // _PLANE_SIDE)
    plane = label_map[step // 2 :: step, step // 2 :: step] if step > 1 else label_map
    return np.ascontiguousarray(plane), step


def class_shares(label_map: LabelMap, classes: int) -> list[float]:
    """Return the share of the pixels of each class, 0 to 1.

    Parameters
    ----------
    label_map : (H, W) uint8 label ids.
    classes : number of classes; other ids belong to none.

    Examples
    --------
    >>> class_shares(np.array([[0, 1, 1, 255]], np.uint8), classes=2)
    [0.25, 0.5]
    """
    plane, _ = plane_of(label_map)
    counts = np.bincount(plane.ravel(), minlength=256)[:classes]
    return [float(share) for share in counts / plane.size]


def jpeg(picture: Picture) -> bytes:
    """Encode a picture for the page.

    Parameters
    ----------
    picture : (H, W, 3) uint8 BGR.

    Examples
    --------
    >>> jpeg(np.zeros((48, 64, 3), np.uint8))[:2].hex()
    'ffd8'
    """
    encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    return encoded.tobytes()


@dataclass(eq=False)
class Shot:
    """Hold one result, and encode its parts once, whoever asks for them.

    One thread at a time may call the methods.

    Attributes
    ----------
    output : the result.
    source : name of its source.
    engine : name of the engine of ``output.labels``.
    serial : number of the result among those of its source, from 1.
    received_s : when it arrived, on the clock of ``time.perf_counter``.
    fps : results per second of this source; None for the first ones.

    Examples
    --------
    >>> from edgeseg.video.frames import Frame
    >>> frame = Frame(0, np.zeros((48, 64, 3), np.uint8), "000000", timestamp_s=0.0)
    >>> output = Output(frame, np.zeros((48, 64), np.uint8), picture=None)
    >>> shot = Shot(output, "camera0", "enet", serial=1, received_s=0.0, fps=None)
    >>> message = shot.message(["enet"])
    >>> header, parts = unpack(message)
    >>> header["source"], [len(part) for part in parts] == [header["jpeg"], *header["lengths"]]
    ('camera0', True)
    """

    output: Output
    source: str
    engine: str
    serial: int
    received_s: float
    fps: float | None
    _jpeg: bytes | None = None
    _planes: dict[str, tuple[dict[str, Any], bytes]] = field(default_factory=dict)

    def labels_of(self, engine: str) -> LabelMap | None:
        """Return the label map of an engine; None if it has not labelled this frame.

        Parameters
        ----------
        engine : its name.
        """
        return self.output.labels if engine == self.engine else self.output.others.get(engine)

    @property
    def age_ms(self) -> float | None:
        """Return how old the frame is now, milliseconds; None for a recording."""
        captured_s = self.output.frame.captured_s
        if captured_s is not None:
            return (time.perf_counter() - captured_s) * 1e3
        if self.output.status.age_ms is not None:
            return self.output.status.age_ms + (time.perf_counter() - self.received_s) * 1e3
        return None

    def message(self, engines: Sequence[str]) -> bytes:
        """Return the message for the viewers who look at these engines.

        Parameters
        ----------
        engines : names of the engines; those without labels of this frame are left out.
        """
        if self._jpeg is None:
            self._jpeg = jpeg(_reduced(self.output.frame.image))

        planes = [plane for name in engines if (plane := self._plane(name)) is not None]
        header = {
            **self._facts(),
            "jpeg": len(self._jpeg),
            "planes": [facts for facts, _ in planes],
            "lengths": [len(data) for _, data in planes],
        }
        encoded = json.dumps(header, separators=(",", ":")).encode()
        length = len(encoded).to_bytes(4, "little")
        return b"".join([length, encoded, self._jpeg, *(data for _, data in planes)])

    def drawn(self, labels: LabelSpace) -> bytes:
        """Return the frame with the colours of its labels, as JPEG of the frame's own size.

        Parameters
        ----------
        labels : the classes and their colours.
        """
        frame = self.output.frame
        return jpeg(overlay(frame.image, self.output.labels, labels, _DRAWN_OPACITY))

    def _plane(self, engine: str) -> tuple[dict[str, Any], bytes] | None:
        """Return the facts about the plane of an engine and its compressed bytes."""
        if engine not in self._planes:
            label_map = self.labels_of(engine)
            if label_map is None:
                return None
            plane, step = plane_of(label_map)
            height, width = plane.shape
            facts = {"engine": engine, "width": width, "height": height, "step": step}
            self._planes[engine] = facts, zlib.compress(plane.tobytes(), _ZLIB_LEVEL)
        return self._planes[engine]

    def _facts(self) -> dict[str, Any]:
        """Return what the header says about the frame."""
        frame, status = self.output.frame, self.output.status
        height, width = frame.size
        return {
            "source": self.source,
            "index": frame.index,
            "serial": self.serial,
            "time_s": round(frame.timestamp_s, 3),
            "width": width,
            "height": height,
            "age_ms": _rounded(self.age_ms),
            "fps": _rounded(self.fps),
            "network_ms": _rounded(status.network_ms),
            "dropped": status.dropped,
            "engine": status.engine,
            "lost_s": _rounded(lost_s(self.output)),
            "temperature_c": _rounded(status.temperature_c),
            "watts": _rounded(status.watts),
            "flicker": status.flicker,
        }


def lost_s(output: Output) -> float | None:
    """Return the seconds since a source gave its last frame; None if this is a frame of it.

    Parameters
    ----------
    output : a result.

    Examples
    --------
    >>> from edgeseg.video.frames import Frame
    >>> black = np.zeros((48, 64, 3), np.uint8)
    >>> frame = Frame(7, black, "000007", timestamp_s=0.3, lost_s=12.0)
    >>> lost_s(Output(frame, np.zeros((48, 64), np.uint8), picture=None))
    12.0
    """
    return output.frame.lost_s if output.frame.lost_s is not None else output.status.lost_s


def unpack(message: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Take a message apart: its header, and its parts, the JPEG first.

    Parameters
    ----------
    message : what ``Shot.message`` returned.

    Returns
    -------
    The header, and the bytes of the JPEG and of each compressed plane.
    """
    start = 4 + int.from_bytes(message[:4], "little")
    header: dict[str, Any] = json.loads(message[4:start])

    parts: list[bytes] = []
    for length in (header["jpeg"], *header["lengths"]):
        parts.append(message[start : start + length])
        start += length
    return header, parts


def _reduced(image: Picture) -> Picture:
    """Return the image at the size that the page shows."""
    height, width = image.shape[:2]
    scale = _PICTURE_SIDE / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _rounded(value: float | None) -> float | None:
    """Return a number with two decimals."""
    return None if value is None else round(value, 2)
