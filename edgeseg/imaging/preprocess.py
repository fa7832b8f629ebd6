"""The only code that turns images into tensors.

Training, engines and tests all take their numbers from here.

A frame is (H, W, 3) uint8 BGR. It is resized to ``spec.input_size`` and put into the spec's colour
order. The model's input is then ``gain * pixel + offset`` per channel.
"""

import cv2
import numpy as np

from edgeseg.errors import InputError
from edgeseg.spec import ModelSpec
from edgeseg.types import Float, Image


def coefficients(spec: ModelSpec) -> tuple[Float, Float]:
    """Return the gain and the offset per channel that equal ``(pixel * scale - mean) / std``.

    Parameters
    ----------
    spec : gives scale, mean and std.

    Returns
    -------
    ``gain`` and ``offset``, (3,) float32 each, in the spec's own channel order.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> spec = ModelSpec(architecture="enet", input_size=(8, 8), labels=CAMVID_11)
    >>> spec = spec.replace(scale=1.0, mean=(2, 2, 2), std=(4, 4, 4))
    >>> gain, offset = coefficients(spec)
    >>> gain.tolist(), offset.tolist()
    ([0.25, 0.25, 0.25], [-0.5, -0.5, -0.5])
    """
    # Divide in float64 and round once, at the end.
    std = np.asarray(spec.std, np.float64)
    gain = spec.scale / std
    offset = -np.asarray(spec.mean, np.float64) / std
    return gain.astype(np.float32), offset.astype(np.float32)


def check_frame(frame: Image) -> None:
    """Raise an error unless ``frame`` is a frame with pixels in it.

    Parameters
    ----------
    frame : expected to be (H, W, 3) uint8 BGR.

    Raises
    ------
    InputError : not an array of that shape and dtype, or an empty one.

    Examples
    --------
    >>> check_frame(np.zeros((4, 6, 3), np.uint8))
    """
    if (
        not isinstance(frame, np.ndarray)
        or frame.dtype != np.uint8
        or frame.ndim != 3
        or frame.shape[2] != 3
    ):
        found = (
            f"{frame.dtype} {frame.shape}"
            if isinstance(frame, np.ndarray)
            else type(frame).__name__
        )
        raise InputError("not a frame", got=found, expected="an (H, W, 3) uint8 array, BGR")
    if 0 in frame.shape:
        raise InputError("an empty frame", got=frame.shape, expected="at least one pixel")


def resize_frame(frame: Image, size: tuple[int, int]) -> Image:
    """Stretch a frame to ``size``: area averaging if both sides shrink or stay, bilinear otherwise.

    Parameters
    ----------
    frame : (H, W, 3) uint8.
    size : the new (H, W).

    Returns
    -------
    A new array, or ``frame`` itself if it has that size already.

    Examples
    --------
    >>> resize_frame(np.zeros((4, 6, 3), np.uint8), (2, 3)).shape
    (2, 3, 3)
    """
    if frame.shape[:2] == size:
        return frame

    shrinks = frame.shape[0] >= size[0] and frame.shape[1] >= size[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(frame, (size[1], size[0]), interpolation=method).astype(np.uint8, copy=False)


def resize_labels(labels: Image, size: tuple[int, int]) -> Image:
    """Resize a label map to ``size`` by nearest neighbour, measured between pixel centres.

    Parameters
    ----------
    labels : (H, W) uint8 label ids.
    size : the new (H, W).

    Returns
    -------
    A new array, or ``labels`` itself if it has that size already.

    Examples
    --------
    >>> resize_labels(np.array([[1, 2]], np.uint8), (1, 4)).tolist()
    [[1, 1, 2, 2]]
    """
    if labels.shape == size:
        return labels

    resized = cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    return resized.astype(np.uint8, copy=False)


def to_input(frame: Image, spec: ModelSpec) -> Float:
    """Turn a frame into the model's input. Engines have the same steps compiled in.

    Parameters
    ----------
    frame : (H, W, 3) uint8 BGR, of any size.
    spec : gives the input size, the colour order, scale, mean and std.

    Returns
    -------
    (1, 3, H, W) float32 with H, W of ``spec.input_size``.

    Raises
    ------
    InputError : ``frame`` is not a frame.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> spec = ModelSpec(architecture="enet", input_size=(8, 16), labels=CAMVID_11)
    >>> to_input(np.zeros((4, 6, 3), np.uint8), spec).shape
    (1, 3, 8, 16)
    """
    check_frame(frame)
    image = resize_frame(frame, spec.input_size)
    if spec.colour == "rgb":
        image = image[:, :, ::-1]

    gain, offset = coefficients(spec)
    normalised = image * gain + offset
    return np.ascontiguousarray(normalised.transpose(2, 0, 1)[None], np.float32)
