"""Define the engine that every target implements: a frame in, a label map out."""

import threading
from abc import ABC, abstractmethod

import numpy as np

from edgeseg.errors import InputError
from edgeseg.imaging.nv12 import Nv12
from edgeseg.imaging.preprocess import check_frame, resize_frame, resize_labels
from edgeseg.passport import Passport
from edgeseg.spec import ModelSpec
from edgeseg.types import Float, Image


def as_bgr(frame: Image | Nv12) -> Image:
    """Convert a frame to BGR, for engines without kernels of their own.

    Parameters
    ----------
    frame : (H, W, 3) uint8 BGR, which is returned as it is, or an ``Nv12``.

    Examples
    --------
    >>> as_bgr(np.zeros((4, 6, 3), np.uint8)).shape
    (4, 6, 3)
    """
    return frame.to_bgr() if isinstance(frame, Nv12) else frame


class Engine(ABC):
    """Run a compiled network. Calls from several threads are safe: they take turns.

    Attributes
    ----------
    passport : the passport of the engine file.
    takes_nv12 : True if the engine reads an ``Nv12`` itself; otherwise it is converted to BGR.
    """

    takes_nv12 = False

    def __init__(self, passport: Passport) -> None:
        self.passport = passport
        self._turn = threading.Lock()

    @property
    def spec(self) -> ModelSpec:
        """Return the spec of the model: input size, preprocessing and classes."""
        return self.passport.spec

    def __call__(self, frame: Image | Nv12) -> Image:
        """Label a frame, or a batch of frames.

        Parameters
        ----------
        frame : (H, W, 3) uint8 BGR or an ``Nv12``, of any size; or a batch (N, H, W, 3) of one
            size.

        Returns
        -------
        Label map (H, W) uint8 at the frame's own size; (N, H, W) for a batch.

        Raises
        ------
        InputError : not a frame, or an empty batch.
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
        """Return the logits of a frame: (classes, H, W) float32 at ``spec.input_size``.

        Parameters
        ----------
        frame : (H, W, 3) uint8 BGR of any size, or an ``Nv12``.

        Raises
        ------
        InputError : not a frame.
        EngineError : the network returns a label map and has no logits.
        """
        frame = as_bgr(frame)
        check_frame(frame)
        fitted = np.ascontiguousarray(resize_frame(frame, self.spec.input_size))

        with self._turn:
            return self._logits(fitted)

    def _size(self, frame: Image) -> tuple[int, int]:
        """Return the (H, W) that ``frame`` is resized to before it runs."""
        return self.spec.input_size

    def _batch(self, frames: Image) -> Image:
        """Label frames (N, H, W, 3) of any size, N at least 1; return (N, H, W)."""
        return np.stack([self(one) for one in frames])

    @abstractmethod
    def _labels(self, frame: Image) -> Image:
        """Label a frame (H, W, 3) uint8 of ``_size``; return (H, W) uint8 that the caller owns."""

    @abstractmethod
    def _logits(self, frame: Image) -> Float:
        """Return the logits of a frame (H, W, 3) uint8 at the input size.

        They are (classes, H, W) float32 and belong to the caller.
        """
