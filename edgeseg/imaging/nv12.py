"""NV12, the frames of cameras and video decoders: luma, and chroma at half its size."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.errors import InputError

MATRICES = ("bt601", "bt709")
_LUMA_OF = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
}  # weights of red and blue, ITU-R BT.601 and BT.709


@dataclass(frozen=True)
class Nv12:
    """Hold a frame in NV12.

    Engines built with ``PlanOptions(kernels=True)`` take it as it is, others after ``to_bgr``.

    Attributes
    ----------
    luma : (H, W) uint8, a NumPy array, or an array on the device for ``engine.on_device``.
    chroma : (ceil(H / 2), ceil(W / 2), 2) uint8, U then V, in the same memory as ``luma``.
    matrix : ``bt601``, which OpenCV uses, or ``bt709``, which most HD cameras and videos have.
    full_range : whether luma goes from 0 to 255, as in JPEG, instead of from 16 to 235.

    Examples
    --------
    >>> frame = Nv12.from_buffer(np.full((6, 8), 128, np.uint8))
    >>> frame.check()
    (4, 8)
    >>> frame.to_bgr()[0, 0].tolist()
    [130, 130, 130]
    """

    luma: Any
    chroma: Any
    matrix: str = "bt601"
    full_range: bool = False

    def __post_init__(self) -> None:
        if self.matrix not in MATRICES:
            raise InputError(
                "no such colour matrix", got=repr(self.matrix), expected=" or ".join(MATRICES)
            )

    @classmethod
    def from_buffer(cls, buffer: Any, matrix: str = "bt601", full_range: bool = False) -> "Nv12":
        """Return a frame whose planes are views of one array, as OpenCV and V4L2 have them.

        Parameters
        ----------
        buffer : a NumPy array (H * 3 / 2, W) uint8, H and W even.
        matrix : ``bt601`` or ``bt709``.
        full_range : whether luma goes from 0 to 255 instead of from 16 to 235.

        Raises
        ------
        InputError : another type, dtype or shape, or an unknown matrix.
        """
        if (
            not isinstance(buffer, np.ndarray)
            or buffer.dtype != np.uint8
            or buffer.ndim != 2
            or not buffer.size
        ):
            raise InputError(
                "not an NV12 buffer",
                got=_described(buffer),
                expected="a (H * 3 / 2, W) uint8 array",
            )
        rows, width = buffer.shape
        if rows % 3 or width % 2:
            raise InputError(
                "not an NV12 buffer", got=buffer.shape, expected="(H * 3 / 2, W) with even H and W"
            )

        height = 2 * rows // 3
        luma = buffer[:height]
        chroma = buffer[height:].reshape(height // 2, width // 2, 2)
        return cls(luma, chroma, matrix, full_range)

    def check(self) -> tuple[int, int]:
        """Return (H, W) of a frame in the host's memory.

        Raises
        ------
        InputError : a plane is no uint8 array of NumPy, or the planes do not fit together.
        """
        for plane in (self.luma, self.chroma):
            if not isinstance(plane, np.ndarray) or plane.dtype != np.uint8:
                raise InputError(
                    "not a plane of an NV12 frame",
                    got=_described(plane),
                    expected="a uint8 array of NumPy",
                )
        return check_planes(tuple(self.luma.shape), tuple(self.chroma.shape))

    def to_bgr(self) -> npt.NDArray[np.uint8]:
        """Return the frame as (H, W, 3) uint8 BGR.

        OpenCV converts BT.601 of 16 to 235 with even sides; everything else is computed in float.
        Four luma pixels share their chroma pixel; chroma is not interpolated.

        Raises
        ------
        InputError : as ``check``.
        """
        height, width = self.check()
        even = height % 2 == 0 and width % 2 == 0
        if self.matrix == "bt601" and not self.full_range and even:
            luma = np.ascontiguousarray(self.luma)
            chroma = np.ascontiguousarray(self.chroma)
            return np.asarray(cv2.cvtColorTwoPlane(luma, chroma, cv2.COLOR_YUV2BGR_NV12), np.uint8)

        # Luma from 0, chroma around 0, both at the frame's size.
        if self.full_range:
            y = self.luma.astype(np.float32)
            y_gain = 1.0
            c_gain = 2.0
        else:
            y = np.maximum(self.luma, 16) - np.float32(16)
            y_gain = 255 / 219
            c_gain = 2 * 255 / 224
        uv = (self.chroma.astype(np.float32) - 128).repeat(2, 0).repeat(2, 1)[:height, :width]

        # Rows: blue, green, red; columns: luma, U, V.
        red, blue = _LUMA_OF[self.matrix]
        r_v = c_gain * (1 - red)
        b_u = c_gain * (1 - blue)
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
    """Return (H, W) of a frame with planes of these shapes.

    Parameters
    ----------
    luma : shape of the luma plane, expected (H, W).
    chroma : shape of the chroma plane, expected (ceil(H / 2), ceil(W / 2), 2).

    Raises
    ------
    InputError : the shapes do not fit together, or the frame is empty.

    Examples
    --------
    >>> check_planes((5, 8), (3, 4, 2))
    (5, 8)
    """
    if len(luma) != 2 or 0 in luma:
        raise InputError("not the luma of an NV12 frame", got=luma, expected="(H, W)")
    height, width = luma
    expected = ((height + 1) // 2, (width + 1) // 2, 2)
    if chroma != expected:
        raise InputError("not the chroma of this NV12 frame", got=chroma, expected=expected)
    return height, width


def _described(value: Any) -> str:
    """Return dtype and shape of an array, the type's name of anything else."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return type(value).__name__
