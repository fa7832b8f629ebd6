"""Frames as cameras and video decoders give them: a plane of luma, and one of chroma at half its size."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.errors import InputError

MATRICES = ("bt601", "bt709")
_LUMA_OF = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}  # weights of red and blue, ITU-R BT.601 and BT.709


@dataclass(frozen=True)
class Nv12:
    """A frame in NV12. Engines built with ``--kernels`` take it as it is, others after ``to_bgr``.

    Attributes
    ----------
    luma : (H, W) uint8, a NumPy array, or an array on the device for ``engine.on_device``.
    chroma : (ceil(H / 2), ceil(W / 2), 2) uint8, U then V, where ``luma`` is.
    matrix : ``bt601``, which OpenCV converts by, or ``bt709``, which HD cameras and videos mostly have.
    full_range : whether luma goes from 0 to 255 (as JPEG has it) instead of from 16 to 235.
    """

    luma: Any
    chroma: Any
    matrix: str = "bt601"
    full_range: bool = False

    def __post_init__(self) -> None:
        if self.matrix not in MATRICES:
            raise InputError("no such colour matrix", got=repr(self.matrix), expected=" or ".join(MATRICES))

    @classmethod
    def from_buffer(cls, buffer: Any, matrix: str = "bt601", full_range: bool = False) -> "Nv12":
        """The planes of one NumPy array (H * 3 / 2, W) uint8, H and W even, as OpenCV and V4L2 have them; no copy."""
        if not isinstance(buffer, np.ndarray) or buffer.dtype != np.uint8 or buffer.ndim != 2 or not buffer.size:
            raise InputError("not an NV12 buffer", got=_told(buffer), expected="a (H * 3 / 2, W) uint8 array")
        rows, width = buffer.shape
        if rows % 3 or width % 2:
            raise InputError("not an NV12 buffer", got=buffer.shape, expected="(H * 3 / 2, W) with even H and W")
        height = 2 * rows // 3
        return cls(buffer[:height], buffer[height:].reshape(height // 2, width // 2, 2), matrix, full_range)

    def check(self) -> tuple[int, int]:
        """(H, W). Raises ``InputError`` unless the planes are those of a frame in the host's memory."""
        for plane in (self.luma, self.chroma):
            if not isinstance(plane, np.ndarray) or plane.dtype != np.uint8:
                raise InputError("not a plane of an NV12 frame", got=_told(plane), expected="a uint8 array of NumPy")
        return check_planes(tuple(self.luma.shape), tuple(self.chroma.shape))

    def to_bgr(self) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 BGR, as OpenCV converts where it can (BT.601, 16 to 235, even sides), else in float.

        A chroma pixel is that of its four luma pixels, not interpolated. Raises ``InputError`` as ``check``.
        """
        height, width = self.check()
        if self.matrix == "bt601" and not self.full_range and height % 2 == 0 and width % 2 == 0:
            luma, chroma = np.ascontiguousarray(self.luma), np.ascontiguousarray(self.chroma)
            return np.asarray(cv2.cvtColorTwoPlane(luma, chroma, cv2.COLOR_YUV2BGR_NV12), np.uint8)
        red, blue = _LUMA_OF[self.matrix]
        y_gain, c_gain = (1.0, 2.0) if self.full_range else (255 / 219, 2 * 255 / 224)
        y = self.luma.astype(np.float32) if self.full_range else np.maximum(self.luma, 16) - np.float32(16)
        uv = (self.chroma.astype(np.float32) - 128).repeat(2, 0).repeat(2, 1)[:height, :width]
        r_v, b_u = c_gain * (1 - red), c_gain * (1 - blue)
        gains = np.array(
            [
                [y_gain, b_u, 0],
                [y_gain, -b_u * blue / (1 - red - blue), -r_v * red / (1 - red - blue)],
                [y_gain, 0, r_v],
            ]
        )
        levels = cv2.transform(np.dstack([y, uv]), gains.astype(np.float32))
        return np.rint(levels).clip(0, 255).astype(np.uint8)


def check_planes(luma: tuple[int, ...], chroma: tuple[int, ...]) -> tuple[int, int]:
    """(H, W) of a frame with planes of these shapes. Raises ``InputError`` where they do not fit together."""
    if len(luma) != 2 or 0 in luma:
        raise InputError("not the luma of an NV12 frame", got=luma, expected="(H, W)")
    height, width = luma
    expected = ((height + 1) // 2, (width + 1) // 2, 2)
    if chroma != expected:
        raise InputError("not the chroma of this NV12 frame", got=chroma, expected=expected)
    return height, width


def _told(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
