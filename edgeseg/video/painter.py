"""Paint the pictures of a run: the colours of the labels over each frame, and the legend."""

import cv2

from edgeseg.imaging.postprocess import LabelMap, Picture, legend, overlay
from edgeseg.spec import LabelSpace
from edgeseg.video.frames import Frame
from edgeseg.video.status import Status

_ROW_SHARE = 26  # a row of the legend is the frame's height divided by this
_LEAST_ROW = 14  # pixels; smaller names cannot be read
_MAX_WIDTH_SHARE = 0.5  # a legend wider than this share of the frame hides more than it tells
_OPACITY = 0.75  # of the legend over the picture


class Painter:
    """Paint overlays and legends; a legend is drawn once for each frame size.

    Parameters
    ----------
    labels : classes, with their names and colours.
    alpha : weight of the colours in the pictures, 0 to 1.
    show_legend : draw the names of the classes into the pictures. The legend is left out if it
        would hide half of the frame.

    Attributes
    ----------
    alpha : weight of the colours in the pictures, 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from edgeseg.spec import CAMVID_11
    >>> painter = Painter(CAMVID_11, alpha=0.5, show_legend=False)
    >>> frame = Frame(0, np.zeros((48, 64, 3), np.uint8), "000000", 0.0)
    >>> picture = painter.paint(frame, np.zeros((48, 64), np.uint8))
    >>> painter.finish(picture, np.zeros((48, 64), np.uint8), Status()).shape
    (48, 64, 3)
    """

    def __init__(self, labels: LabelSpace, alpha: float, show_legend: bool) -> None:
        self.alpha = alpha
        self._labels = labels
        self._show_legend = show_legend
        self._panels: dict[tuple[int, int], Picture | None] = {}

    def paint(self, frame: Frame, labels: LabelMap) -> Picture:
        """Return the frame with the colours of its labels over it.

        Parameters
        ----------
        frame : a frame of H x W pixels.
        labels : its (H, W) uint8 label map.

        Returns
        -------
        (H, W, 3) uint8 BGR.
        """
        return overlay(frame.image, labels, self._labels, self.alpha)

    def finish(self, picture: Picture, labels: LabelMap, status: Status) -> Picture:
        """Draw the legend into a painted picture, in place, and return the picture.

        Parameters
        ----------
        picture : (H, W, 3) uint8 BGR, painted by ``paint`` or by the engine.
        labels : the frame's label map.
        status : facts about the run.
        """
        height, width = picture.shape[:2]
        panel = self._panel(height, width) if self._show_legend else None
        if panel is None:
            return picture

        panel_height, panel_width = panel.shape[:2]
        corner = picture[:panel_height, :panel_width]
        corner[:] = cv2.addWeighted(corner, 1 - _OPACITY, panel, _OPACITY, 0.0)
        return picture

    def _panel(self, height: int, width: int) -> Picture | None:
        """Return the legend for frames of a size, or None if it would be too wide for them."""
        size = height, width
        if size not in self._panels:
            row = max(_LEAST_ROW, height // _ROW_SHARE)
            panel_height = max(1, min(row * len(self._labels), height))
            panel = legend(self._labels, panel_height)
            fits = panel.shape[1] <= width * _MAX_WIDTH_SHARE
            self._panels[size] = panel if fits else None
        return self._panels[size]
