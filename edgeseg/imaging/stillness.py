"""Find the pixels whose colour did not change from one frame to the next.

The frames are compared at a reduced size (150 to 300 rows), where each value is the mean of several
pixels: this averages sensor noise out, and makes the comparison cheap. A place counts as still if
no place around it changed by more than the clip's own noise explains.

Known limit: an edge of little contrast, such as a dark coat before a dark wall, can move without a
visible change of colour. A camera that moves leaves few pixels still: sky, road, plain walls. Of a
clip with more noise than a standard deviation of about 6 grey levels per reduced pixel, few pixels
count as still.
"""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.types import Image

_LEAST_ROWS = 150  # frames are halved as long as this many rows, or columns, are left

# Blocks in which the noise is measured, in pixels of the reduced frame.
_BLOCK = 12

# The share of the blocks that is taken as showing nothing but noise.
_QUIET_SHARE = 0.05

# The threshold in units of the mean difference of the quiet blocks. That mean is 0.8 standard
# deviations if the channels share their noise, and 1.3 if not: 2.4 to 4 deviations in all.
_NOISE_FACTOR = 3.0

# The threshold's limits, in grey levels of 0..255. Below the first, rounding and video compression
# count as motion. Above the second, motion counts as noise.
_LEAST_THRESHOLD = 4.0
_GREATEST_THRESHOLD = 32.0

# The estimate follows a quieter clip at once, and a noisier one by this factor a frame. So a moment
# of much motion does not count as noise.
_GROWTH = 1.05

# Mean difference of two frames, in grey levels, from which on they show different scenes.
_CUT = 40.0


class Stillness:
    """Compare each frame with the one before.

    Attributes
    ----------
    threshold : the greatest change of colour, in grey levels, that counted as noise in the last
        pair of frames.

    Examples
    --------
    >>> still = Stillness()
    >>> frame = np.zeros((360, 480, 3), np.uint8)
    >>> still.add(frame) is None
    True
    >>> bool(still.add(frame).all())
    True
    """

    def __init__(self) -> None:
        self._size: tuple[int, ...] | None = None
        self._previous: Image | None = None
        self._noise: float | None = None
        self.threshold = _LEAST_THRESHOLD

    def restart(self) -> None:
        """Forget the last frame: the next one belongs to another scene."""
        self._previous = None

    def add(self, frame: Image) -> npt.NDArray[np.bool_] | None:
        """Compare a frame with the one before.

        Parameters
        ----------
        frame : (H, W, 3) uint8 BGR.

        Returns
        -------
        (H, W) bool: True if the pixel and its neighbourhood are still. ``None`` for the first
        frame, after a change of size, and after a scene cut.
        """
        previous = self._previous if frame.shape == self._size else None
        if frame.shape != self._size:
            self._noise = None
        self._size = frame.shape
        self._previous = _reduced(frame)
        if previous is None:
            return None

        # The greatest change of the three channels.
        blue, green, red = cv2.split(cv2.absdiff(previous, self._previous))
        change = cv2.max(cv2.max(blue, green), red)
        if cv2.mean(change)[0] > _CUT:
            return None

        # Leave out what changed, and what is beside it: half of a pixel of the reduced frame may
        # show a moving edge without much change.
        self.threshold = self._follow_noise(change)
        _, still = cv2.threshold(change, self.threshold, 1, cv2.THRESH_BINARY_INV)
        still = cv2.erode(still, np.ones((3, 3), np.uint8))

        height, width = frame.shape[:2]
        enlarged = cv2.resize(still, (width, height), interpolation=cv2.INTER_NEAREST)
        return np.asarray(enlarged, np.uint8).view(np.bool_)

    def _follow_noise(self, change: Any) -> float:
        """Measure the noise of a pair of frames; return the threshold that follows from it."""
        height, width = change.shape
        blocks = (max(1, width // _BLOCK), max(1, height // _BLOCK))
        means = cv2.resize(change.astype(np.float32), blocks, interpolation=cv2.INTER_AREA)
        noise = float(np.quantile(means, _QUIET_SHARE))

        if self._noise is not None:
            # A clip without any noise must be able to become noisy: hence the last term.
            noise = min(noise, _GROWTH * self._noise + 0.01)
        self._noise = noise
        return min(max(_NOISE_FACTOR * noise, _LEAST_THRESHOLD), _GREATEST_THRESHOLD)


def _reduced(frame: Image) -> Image:
    """Return a frame that is halved until few rows are left: each pixel is the mean of a block."""
    reduced = frame
    while min(reduced.shape[:2]) >= 2 * _LEAST_ROWS:
        # Halving is OpenCV's fastest way to take means; it needs an even size.
        height, width = reduced.shape[0] // 2, reduced.shape[1] // 2
        even = reduced[: 2 * height, : 2 * width]
        reduced = np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA))
    return frame.copy() if reduced is frame else reduced  # the caller may draw into its frame
