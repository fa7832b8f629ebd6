"""Remove flicker from label maps: hold a label where the picture is still."""

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.errors import InputError
from edgeseg.imaging.postprocess import LabelMap
from edgeseg.imaging.stillness import Stillness
from edgeseg.types import Image

# Chosen by `python -m benchmarks.flicker` on the first half of CamSeq01: the strongest that costs
# at most 0.1 points of mIoU, and no thin or moving class more than 0.3 (docs/flicker.md).
DEFAULT_STRENGTH = 2

GREATEST_STRENGTH = 30


class LabelSmoother:
    """Hold each pixel's label until another one has lasted (hysteresis).

    Where the colour of a pixel and of its neighbourhood did not change, the old label stays until
    the network disagreed with it in ``strength`` frames one after the other; the frame after those
    brings the new label. Where something moved, the network's label is taken at once, so nothing
    lags behind what moves.

    The smoother holds the state of one source: make one for each. It starts anew after a change of
    size and after a scene cut.

    Parameters
    ----------
    strength : number of frames for which a label is held against the network, 0 to 30; 0 changes
        nothing.

    Raises
    ------
    InputError : ``strength`` is out of range.

    Examples
    --------
    >>> smoother = LabelSmoother(strength=1)
    >>> frame = np.zeros((4, 4, 3), np.uint8)
    >>> road, car = np.zeros((4, 4), np.uint8), np.ones((4, 4), np.uint8)
    >>> [int(smoother(frame, labels)[0, 0]) for labels in (road, car, road, car, car)]
    [0, 0, 0, 0, 1]
    """

    def __init__(self, strength: int = DEFAULT_STRENGTH) -> None:
        if not 0 <= strength <= GREATEST_STRENGTH:
            raise InputError(
                "`strength` is out of range",
                got=strength,
                expected=f"0 to {GREATEST_STRENGTH} frames",
            )
        self._strength = strength
        self._stillness = Stillness()
        self._held: LabelMap | None = None
        self._disagreed: npt.NDArray[np.uint8] | None = None  # frames in a row, per pixel

    def restart(self) -> None:
        """Forget all frames so far: the next one belongs to another scene."""
        self._stillness.restart()

    def __call__(self, frame: Image, labels: LabelMap) -> LabelMap:
        """Return the labels without flicker; call it for every frame, in order.

        Parameters
        ----------
        frame : (H, W, 3) uint8 BGR, as the network got it.
        labels : (H, W) uint8 label ids that the network found in it. They are not changed.

        Returns
        -------
        (H, W) uint8, a new array.

        Raises
        ------
        InputError : frame and labels differ in size.
        """
        if frame.shape[:2] != labels.shape:
            raise InputError(
                "frame and labels differ in size",
                got=f"labels {labels.shape}",
                expected=f"{frame.shape[:2]}",
            )

        still = self._stillness.add(frame)
        held = self._held
        disagreed = self._disagreed
        if still is None or held is None or disagreed is None:
            self._held = np.array(labels)
            self._disagreed = np.zeros_like(labels)
            return np.array(labels)

        # Count the frames in which the network disagreed one after the other.
        differs = labels != held
        disagreed += 1
        np.multiply(disagreed, differs.view(np.uint8), out=disagreed)

        # Take the network's label where it has lasted, and where something moved.
        take = (disagreed > self._strength) | ~still
        cv2.copyTo(labels, take.view(np.uint8), held)  # 70 times as fast as numpy.copyto
        np.multiply(disagreed, (~take).view(np.uint8), out=disagreed)
        return np.array(held)
