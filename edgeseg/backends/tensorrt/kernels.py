"""Call the kernels of edgeseg's CUDA library by ctypes; they run before and after a network.

This is ``edgeseg_plugin.h`` in Python. The functions only enqueue. They read their arguments before
they return, so that a call can be captured in a CUDA graph.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeseg.errors import EngineError, InputError
from edgeseg.imaging.nv12 import MATRICES
from edgeseg.imaging.postprocess import palette_lut
from edgeseg.imaging.preprocess import coefficients
from edgeseg.spec import LabelSpace, ModelSpec

ABI = 2  # EDGESEG_PLUGIN_ABI
MAX_SIDE = 32767  # src/pictures.h
_BGR, _NV12 = 0, 1  # kinds of frames
_AS_PYTHON = 2  # EDGESEG_AS_PYTHON: resize as edgeseg/imaging/preprocess.py does
_BAD_ARGUMENT = -1

_int, _pitch, _address = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p


class _Frame(ctypes.Structure):
    _fields_ = (
        ("kind", _int),
        ("height", _int),
        ("width", _int),
        ("matrix", _int),
        ("full_range", _int),
        ("plane", _address),
        ("pitch", _pitch),
        ("chroma", _address),
        ("chroma_pitch", _pitch),
    )


class _Input(ctypes.Structure):
    _fields_ = (
        ("height", _int),
        ("width", _int),
        ("is_half", _int),
        ("is_rgb", _int),
        ("resize", _int),
        ("gain", ctypes.c_float * 3),
        ("offset", ctypes.c_float * 3),
    )


class _Overlay(ctypes.Structure):
    _fields_ = (
        ("frame", _Frame),
        ("picture", _address),
        ("picture_pitch", _pitch),
        ("palette", _address),
        ("alpha", ctypes.c_double),
        ("labels_out", _address),
    )


@dataclass(frozen=True)
class Plane:
    """Describe rows of bytes on the device.

    Attributes
    ----------
    pointer : address of the first row.
    pitch : bytes from one row to the next.
    """

    pointer: int
    pitch: int


@dataclass(frozen=True)
class Picture:
    """Describe the format of a frame, wherever its bytes are.

    Attributes
    ----------
    height, width : its size in pixels, at most ``MAX_SIDE``.
    matrix : colour matrix of an NV12 frame; ``None`` for BGR.
    full_range : True if an NV12 frame uses all values 0 to 255.

    Raises
    ------
    InputError : a side is too large for the kernels.

    Examples
    --------
    >>> Picture(4, 6).size, Picture(4, 6, "bt601").size
    (72, 36)
    """

    height: int
    width: int
    matrix: str | None = None
    full_range: bool = False

    def __post_init__(self) -> None:
        if max(self.height, self.width) > MAX_SIDE:
            raise InputError(
                "a frame too large for the GPU's kernels",
                got=(self.height, self.width),
                expected=f"sides of {MAX_SIDE} pixels at most",
            )

    @property
    def rows(self) -> tuple[tuple[int, int], ...]:
        """Return (number of rows, bytes per row) of each plane, without padding."""
        if self.matrix is None:
            return ((self.height, 3 * self.width),)

        chroma_rows = (self.height + 1) // 2
        chroma_bytes = (self.width + 1) // 2 * 2
        return ((self.height, self.width), (chroma_rows, chroma_bytes))

    @property
    def size(self) -> int:
        """Return the number of bytes of all planes, without padding."""
        return sum(rows * length for rows, length in self.rows)

    def planes(self, pointer: int) -> tuple[Plane, ...]:
        """Return the planes of a frame whose bytes lie one behind the other, without padding.

        Parameters
        ----------
        pointer : address of the first byte.
        """
        planes: list[Plane] = []
        for rows, length in self.rows:
            planes.append(Plane(pointer, length))
            pointer += rows * length
        return tuple(planes)


@dataclass(frozen=True)
class Scores:
    """Describe the logits of a network on the device, (classes, height, width).

    Attributes
    ----------
    pointer : their address.
    is_half : True for float16, False for float32.
    classes, height, width : their shape.
    """

    pointer: int
    is_half: bool
    classes: int
    height: int
    width: int


class Kernels:
    """Call the library's kernels for one network. All addresses are the device's.

    Parameters
    ----------
    library : edgeseg's CUDA library, as ``open_library`` returns it.
    spec : the model's spec: input size, colour order, mean and standard deviation.
    half_input : True if the network's input is float16, False for float32.

    Raises
    ------
    EngineError : it is the library of another edgeseg.
    """

    def __init__(self, library: Any, spec: ModelSpec, *, half_input: bool) -> None:
        abi = int(library.edgeseg_plugin_version())
        if abi != ABI:
            raise EngineError(
                "edgeseg's CUDA library is another edgeseg's",
                got=f"ABI {abi}",
                expected=f"ABI {ABI}",
            )

        self._library = library
        gain, offset = coefficients(spec)
        height, width = spec.input_size
        is_rgb = spec.colour == "rgb"
        self._input = _Input(
            height, width, half_input, is_rgb, _AS_PYTHON, _three(gain), _three(offset)
        )

    def preprocess(
        self, picture: Picture, planes: Sequence[Plane], tensor: int, stream: int
    ) -> None:
        """Enqueue the conversion of a frame of any size to the network's input.

        Parameters
        ----------
        picture : format of the frame.
        planes : its planes: one of BGR, or luma and chroma.
        tensor : address of the network's input, (1, 3, H, W).
        stream : handle of the stream.

        Raises
        ------
        EngineError : the kernels refuse the arguments, or CUDA fails.
        """
        frame = _frame(picture, planes)
        code = self._library.edgeseg_preprocess(
            ctypes.byref(frame), ctypes.byref(self._input), _address(tensor), _address(stream)
        )
        _check_code(code)

    def overlay(
        self,
        scores: Scores,
        picture: Picture,
        planes: Sequence[Plane],
        labels: int,
        stream: int,
        *,
        painted: int = 0,
        palette: int = 0,
        alpha: float = 0.0,
    ) -> None:
        """Enqueue the conversion of logits to labels of the frame's size; paint them, too.

        Parameters
        ----------
        scores : the logits.
        picture : format of the frame.
        planes : its planes: one of BGR, or luma and chroma.
        labels : address of the labels to write, (H, W) uint8.
        stream : handle of the stream.
        painted : address of the picture to write, (H, W, 3) uint8 BGR: the colours of the labels
            over the frame; 0 for no picture.
        palette : address of ``palette_table``; needed for a picture.
        alpha : weight of the colours, 0 to 1.

        Raises
        ------
        EngineError : the kernels refuse the arguments, or CUDA fails.
        """
        frame = _frame(picture, planes)
        overlay = _Overlay(frame, painted, 3 * picture.width, palette, alpha, labels)
        code = self._library.edgeseg_overlay_scores(
            _address(scores.pointer),
            scores.is_half,
            scores.classes,
            scores.height,
            scores.width,
            ctypes.byref(overlay),
            _address(stream),
        )
        _check_code(code)


def _frame(picture: Picture, planes: Sequence[Plane]) -> _Frame:
    """Return a frame as the library takes it."""
    first = planes[0]
    second = planes[1] if len(planes) > 1 else Plane(0, 0)
    is_bgr = picture.matrix is None
    return _Frame(
        kind=_BGR if is_bgr else _NV12,
        height=picture.height,
        width=picture.width,
        matrix=0 if picture.matrix is None else MATRICES.index(picture.matrix),
        full_range=picture.full_range,
        plane=first.pointer,
        pitch=first.pitch,
        chroma=second.pointer,
        chroma_pitch=second.pitch,
    )


def open_library(path: Path) -> Any:
    """Load edgeseg's CUDA library.

    Parameters
    ----------
    path : the library, as ``plugin.build.plugin_library`` returns it.

    Raises
    ------
    EngineError : the system cannot load it.
    """
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise EngineError(
            f"{path}: cannot be loaded",
            got=str(error).splitlines()[0],
            hint="Build it again: `build_plugin()`.",
        ) from error


def palette_table(labels: LabelSpace) -> npt.NDArray[np.uint8]:
    """Return the colours of all label ids, as the kernels read them.

    Parameters
    ----------
    labels : the label space.

    Returns
    -------
    (256, 4) uint8: blue, green, red, and 1 if the label is painted (as ``postprocess.overlay``
    paints it) or 0.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> palette_table(CAMVID_11)[[0, 255]].tolist()
    [[128, 128, 128, 1], [0, 0, 0, 0]]
    """
    painted = np.zeros((256, 1), np.uint8)
    painted[: len(labels)] = 1
    painted[labels.ignore_id] = 0
    return np.hstack([palette_lut(labels), painted])


def _three(values: npt.NDArray[np.float32]) -> Any:
    """Return three numbers as a C array of floats."""
    return (ctypes.c_float * 3)(*map(float, values))


def _check_code(code: int) -> None:
    """Raise ``EngineError`` if a function of the library did not return 0."""
    if code == _BAD_ARGUMENT:
        raise EngineError("edgeseg's CUDA kernels do not take what they were given")
    if code:
        raise EngineError("edgeseg's CUDA kernels failed", got=f"CUDA error {code}")
