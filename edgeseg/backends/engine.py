"""Define the engine that every target implements: a frame in, a label map out."""

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TypeVar

import numpy as np

from edgeseg.capabilities import LOGITS
from edgeseg.errors import EngineError, InputError
from edgeseg.imaging.nv12 import Nv12
from edgeseg.imaging.preprocess import check_frame, resize_frame, resize_labels
from edgeseg.passport import Passport
from edgeseg.spec import ModelSpec
from edgeseg.types import Float, Image

# `Engine.close` waits so many seconds for a call that is still running.
CLOSE_TIMEOUT_S = 10.0

AnyEngine = TypeVar("AnyEngine", bound="Engine")


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

    An engine holds memory of the device until it is closed, or until nothing refers to it any
    more. ``with`` closes it at the end of its block.

    Parameters
    ----------
    passport : the passport of the engine file.

    Attributes
    ----------
    passport : the passport of the engine file.
    capabilities : names of ``edgeseg.capabilities``: what the engine can do beside labelling
        frames.

    Examples
    --------
    >>> import edgeseg
    >>> with edgeseg.load_engine("enet-camvid") as engine:  # doctest: +SKIP
    ...     labels = engine(np.zeros((360, 480, 3), np.uint8))
    """

    capabilities: frozenset[str] = frozenset()

    def __init__(self, passport: Passport) -> None:
        self.passport = passport
        # Reentrant: the garbage collector may end a stream while this thread has the turn.
        self._turn = threading.RLock()
        self._closed = False

    @property
    def spec(self) -> ModelSpec:
        """Return the spec of the model: input size, preprocessing and classes."""
        return self.passport.spec

    def __enter__(self: AnyEngine) -> AnyEngine:
        """Return the engine itself; the end of the block closes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the engine, after an error, too."""
        self.close()

    def close(self) -> None:
        """Give back the memory of the engine. Later calls raise ``EngineError``.

        A second ``close`` does nothing. If another thread is inside a call, this method waits for
        the end of that call, but at most ``CLOSE_TIMEOUT_S`` seconds; after that, the memory is
        given back as soon as nothing refers to the engine.
        """
        has_turn = self._turn.acquire(timeout=CLOSE_TIMEOUT_S)
        try:
            was_closed = self._closed
            self._closed = True
            if has_turn and not was_closed:
                self._release()
        finally:
            if has_turn:
                self._turn.release()

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
        EngineError : the engine is closed.
        """
        if isinstance(frame, np.ndarray) and frame.ndim == 4:
            if not len(frame):
                raise InputError("an empty batch", expected="at least one frame")
            return self._batch(frame)

        frame = as_bgr(frame)
        check_frame(frame)
        fitted = np.ascontiguousarray(resize_frame(frame, self._size(frame)))

        with self._turn:
            self._require_ready()
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
        EngineError : the engine has no logits (``LOGITS`` is not in ``capabilities``), or is
            closed.
        """
        frame = as_bgr(frame)
        check_frame(frame)
        fitted = np.ascontiguousarray(resize_frame(frame, self.spec.input_size))

        with self._turn:
            self._require_ready()
            if LOGITS not in self.capabilities:
                raise self._no_logits()
            return self._logits(fitted)

    def _require_ready(self) -> None:
        """Raise ``EngineError`` if the engine cannot be called now. The caller has the turn."""
        self._require_open()

    def _require_open(self) -> None:
        """Raise ``EngineError`` if the engine is closed. The caller has the turn."""
        if self._closed:
            raise EngineError(
                f"{self.passport.name}: the engine is closed",
                hint="Open it again with `load_engine`.",
            )

    def _no_logits(self) -> EngineError:
        """Return the error of ``logits`` for an engine that has none."""
        return EngineError(f"{self.passport.name}: this net gives a label map, no scores")

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

    @abstractmethod
    def _release(self) -> None:
        """Give back everything that the engine holds; ``close`` calls this once, with the turn."""
