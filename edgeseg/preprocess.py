"""The only image -> tensor code. Training, engines and tests all take their numbers from here.

A frame is (H, W, 3) uint8 BGR. The net's input is ``gain * pixel + offset`` a channel, in the spec's colour order, on
the frame resized to ``spec.input_size``.
"""

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.errors import InputError
from edgeseg.spec import ModelSpec

Image = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]


def coefficients(spec: ModelSpec) -> tuple[Float, Float]:
    """``gain`` and ``offset``, (3,) float32 each, in the spec's own channel order: ``(p * scale - mean) / std``."""
    std = np.asarray(spec.std, np.float64)
    gain = spec.scale / std
    offset = -np.asarray(spec.mean, np.float64) / std
    return gain.astype(np.float32), offset.astype(np.float32)


def check_frame(frame: Image) -> None:
    """Raise ``InputError`` unless ``frame`` is (H, W, 3) uint8 with pixels in it."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        found = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise InputError("not a frame", got=found, expected="an (H, W, 3) uint8 array, BGR")
    if 0 in frame.shape:
        raise InputError("an empty frame", got=frame.shape, expected="at least one pixel")


def resize_frame(frame: Image, size: tuple[int, int]) -> Image:
    """``frame`` stretched to ``size`` (H, W): area averaging when it shrinks, bilinear when it grows."""
    if frame.shape[:2] == size:
        return frame
    shrinks = frame.shape[0] >= size[0] and frame.shape[1] >= size[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(frame, (size[1], size[0]), interpolation=method).astype(np.uint8, copy=False)


def resize_labels(labels: Image, size: tuple[int, int]) -> Image:
    """A label map (H, W) uint8 at ``size`` (H, W), nearest neighbour (pixel centres)."""
    if labels.shape == size:
        return labels
    resized = cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    return resized.astype(np.uint8, copy=False)


def to_input(frame: Image, spec: ModelSpec) -> Float:
    """A frame of any size as the net's input, (1, 3, H, W) float32. Engines have this compiled in."""
    check_frame(frame)
    image = resize_frame(frame, spec.input_size)
    if spec.colour == "rgb":
        image = image[:, :, ::-1]
    gain, offset = coefficients(spec)
    return np.ascontiguousarray((image * gain + offset).transpose(2, 0, 1)[None], np.float32)
