"""What every target's engine is: a frame in, a label map out."""

import threading
from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from edgeseg.artifact import Passport
from edgeseg.errors import InputError
from edgeseg.nv12 import Nv12
from edgeseg.preprocess import check_frame, resize_frame, resize_labels
from edgeseg.spec import ModelSpec

Image = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]


def as_bgr(frame: Image | Nv12) -> Image:
    """A frame as engines without kernels of their own take it."""
    return frame.to_bgr() if isinstance(frame, Nv12) else frame


class Engine(ABC):
    """A compiled net. Calls from several threads are safe: they take turns."""

    takes_nv12 = False  # whether an ``Nv12`` is taken as it is, and not converted first

    def __init__(self, passport: Passport) -> None:
        self.passport = passport
        self._turn = threading.Lock()

    @property
    def spec(self) -> ModelSpec:
        return self.passport.spec

    def __call__(self, frame: Image | Nv12) -> Image:
        """Label a frame (H, W, 3) uint8 BGR, or an ``Nv12``, of any size: (H, W) uint8.

        Or a batch (N, H, W, 3) of one size: (N, H, W).
        """
        if isinstance(frame, np.ndarray) and frame.ndim == 4:
            if not len(frame):
                raise InputError("an empty batch", expected="at least one frame")
            return self._batch(frame)
        frame = as_bgr(frame)
        check_frame(frame)
        fitted = np.ascontiguousarray(resize_frame(frame, self._size(frame)))
        with self._turn:
            labels = self._labels(fitted)
        return resize_labels(labels, frame.shape[:2])

    def logits(self, frame: Image | Nv12) -> Float:
        """The net's scores for a frame of any size: (classes, H, W) float32 at ``spec.input_size``."""
        frame = as_bgr(frame)
        check_frame(frame)
        fitted = np.ascontiguousarray(resize_frame(frame, self.spec.input_size))
        with self._turn:
            return self._logits(fitted)

    def _size(self, frame: Image) -> tuple[int, int]:
        """(H, W) at which a frame runs."""
        return self.spec.input_size

    def _batch(self, frames: Image) -> Image:
        """(N, H, W, 3) of any size, N at least 1 -> (N, H, W)."""
        return np.stack([self(one) for one in frames])

    @abstractmethod
    def _labels(self, frame: Image) -> Image:
        """(H, W, 3) uint8 at ``_size`` -> (H, W) uint8, the caller's to keep."""

    @abstractmethod
    def _logits(self, frame: Image) -> Float:
        """(H, W, 3) uint8 at the input size -> (classes, H, W) float32, the caller's to keep."""
