"""The kernels of edgeseg's CUDA library that stand before and after a net, by ctypes: ``edgeseg_plugin.h`` in Python.

They only enqueue. What they are told is read before a call returns, so that a call can be captured in a CUDA graph.
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
_BGR, _NV12 = 0, 1
_AS_PYTHON = 2
_BAD_ARGUMENT = -1

_int, _pitch, _address = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p


class _Frame(ctypes.Structure):
    _fields_ = (
        ("kind", _int), ("height", _int), ("width", _int), ("matrix", _int), ("full_range", _int),
        ("plane", _address), ("pitch", _pitch), ("chroma", _address), ("chroma_pitch", _pitch),
    )  # fmt: skip


class _Input(ctypes.Structure):
    _fields_ = (
        ("height", _int), ("width", _int), ("is_half", _int), ("is_rgb", _int), ("resize", _int),
        ("gain", ctypes.c_float * 3), ("offset", ctypes.c_float * 3),
    )  # fmt: skip


class _Overlay(ctypes.Structure):
    _fields_ = (
        ("frame", _Frame), ("picture", _address), ("picture_pitch", _pitch), ("palette", _address),
        ("alpha", ctypes.c_double), ("labels_out", _address),
    )  # fmt: skip


@dataclass(frozen=True)
class Plane:
    """Rows of bytes on the device, ``pitch`` bytes from one to the next."""

    pointer: int
    pitch: int


@dataclass(frozen=True)
class Picture:
    """What a frame is, wherever it lies. ``matrix`` is of an NV12 frame; ``None``: BGR."""

    height: int
    width: int
    matrix: str | None = None
    full_range: bool = False

    def __post_init__(self) -> None:
        if max(self.height, self.width) > MAX_SIDE:
            expected = f"sides of {MAX_SIDE} pixels at most"
            raise InputError(
                "a frame too large for the GPU's kernels", got=(self.height, self.width), expected=expected
            )

    @property
    def rows(self) -> tuple[tuple[int, int], ...]:
        """Of each plane without padding: how many rows, and their bytes."""
        if self.matrix is None:
            return ((self.height, 3 * self.width),)
        return ((self.height, self.width), ((self.height + 1) // 2, (self.width + 1) // 2 * 2))

    @property
    def size(self) -> int:
        """Its bytes, without padding."""
        return sum(rows * length for rows, length in self.rows)

    def planes(self, pointer: int) -> tuple[Plane, ...]:
        """Its planes at ``pointer``, one behind the other, without padding."""
        planes = []
        for rows, length in self.rows:
            planes.append(Plane(pointer, length))
            pointer += rows * length
        return tuple(planes)


@dataclass(frozen=True)
class Scores:
    """A net's scores on the device, (classes, height, width) float16 or float32."""

    pointer: int
    is_half: bool
    classes: int
    height: int
    width: int


class Kernels:
    """The library's C functions for one net. ``stream`` is a stream's handle; all addresses are the device's."""

    def __init__(self, library: Any, spec: ModelSpec, *, half_input: bool) -> None:
        if (found := int(library.edgeseg_plugin_version())) != ABI:
            raise EngineError("edgeseg's CUDA library is another edgeseg's", got=f"ABI {found}", expected=f"ABI {ABI}")
        self._library = library
        gain, offset = coefficients(spec)
        height, width = spec.input_size
        self._input = _Input(
            height, width, half_input, spec.colour == "rgb", _AS_PYTHON, _three(gain), _three(offset)
        )  # fmt: skip

    def preprocess(self, picture: Picture, planes: Sequence[Plane], tensor: int, stream: int) -> None:
        """A frame of any size to the net's input at ``tensor``."""
        frame = _frame(picture, planes)
        _checked(
            self._library.edgeseg_preprocess(
                ctypes.byref(frame), ctypes.byref(self._input), _address(tensor), _address(stream)
            )
        )

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
        """Scores to labels (H, W) uint8 of a frame's size; with ``painted``, the colours over the frame to there, too,
        (H, W, 3) uint8 BGR.
        """
        told = _Overlay(_frame(picture, planes), painted, 3 * picture.width, palette, alpha, labels)
        _checked(
            self._library.edgeseg_overlay_scores(
                _address(scores.pointer), scores.is_half, scores.classes, scores.height, scores.width,
                ctypes.byref(told), _address(stream),
            )
        )  # fmt: skip


def _frame(picture: Picture, planes: Sequence[Plane]) -> _Frame:
    first, second = planes[0], planes[1] if len(planes) > 1 else Plane(0, 0)
    matrix = 0 if picture.matrix is None else MATRICES.index(picture.matrix)
    return _Frame(
        _BGR if picture.matrix is None else _NV12, picture.height, picture.width, matrix, picture.full_range,
        first.pointer, first.pitch, second.pointer, second.pitch,
    )  # fmt: skip


def open_library(path: Path) -> Any:
    """The library, loaded. Raises ``EngineError`` where the system does not load it."""
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise EngineError(
            f"{path}: cannot be loaded", got=str(error).splitlines()[0],
            hint="Build it again: `build_plugin()`.",
        ) from error  # fmt: skip


def palette_table(labels: LabelSpace) -> npt.NDArray[np.uint8]:
    """(256, 4) uint8: B, G, R of every id, and whether it is painted, as ``postprocess.overlay`` does."""
    painted = np.zeros((256, 1), np.uint8)
    painted[: len(labels)] = 1
    painted[labels.ignore_id] = 0
    return np.hstack([palette_lut(labels), painted])


def _three(values: npt.NDArray[np.float32]) -> Any:
    return (ctypes.c_float * 3)(*map(float, values))


def _checked(code: int) -> None:
    if code == _BAD_ARGUMENT:
        raise EngineError("edgeseg's CUDA kernels do not take what they were given")
    if code:
        raise EngineError("edgeseg's CUDA kernels failed", got=f"CUDA error {code}")
