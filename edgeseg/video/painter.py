"""Paint the pictures of a run: the colours of the labels, the legend, the state of the run."""

import cv2
import numpy as np

from edgeseg.imaging.enlarge import smooth_boundaries
from edgeseg.imaging.postprocess import LabelMap, Picture, colourise, hidden_ids, overlay
from edgeseg.spec import LabelSpace
from edgeseg.video.buffers import Buffers
from edgeseg.video.frames import Frame
from edgeseg.video.hud import draw_no_signal, draw_status
from edgeseg.video.legends import CornerLegend, SideLegend
from edgeseg.video.status import Status
from edgeseg.video.view import View

_OUTLINE_ROWS = 360  # rows of the frame for each pixel of an outline's width
_NO_LABEL = 255


class Painter:
    """Paint pictures as a view describes them.

    Memory of pictures that nobody holds any more is used again.

    Parameters
    ----------
    labels : classes, with their names and official colours.
    view : how the pictures look.
    network_size : (H, W) of the labels as the network returns them, before they are enlarged to the
        frame's size. If None, boundaries are not smoothed.

    Attributes
    ----------
    alpha : weight of the colours in the pictures, 0 to 1.
    takes_engine_pictures : True if ``finish`` may get an overlay that the engine painted, in the
        official colours, instead of one of ``paint``.

    Raises
    ------
    InputError : the view names a class that does not exist.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> painter = Painter(CAMVID_11, View(legend="right"))
    >>> frame = Frame(0, np.zeros((48, 64, 3), np.uint8), "000000", 0.0)
    >>> labels = np.zeros((48, 64), np.uint8)
    >>> picture = painter.finish(painter.paint(frame, labels), labels, Status(fps=25.0))
    >>> picture.shape[:2] == painter.picture_size((48, 64))
    True
    """

    def __init__(
        self,
        labels: LabelSpace,
        view: View | None = None,
        network_size: tuple[int, int] | None = None,
    ) -> None:
        self._view = view or View()
        self._labels = self._view.coloured(labels)
        self._shown = self._view.shown_ids(labels)
        self._network_size = network_size
        self._buffers = Buffers()
        self._corner = CornerLegend(self._labels, self._shown)
        self._side = SideLegend(self._labels, self._shown)

        # Outlines between two classes that are not shown must not be drawn.
        self._hidden = hidden_ids(self._labels, self._shown)
        self._visible = np.arange(256, dtype=np.uint8)
        self._visible[self._hidden > 0] = _NO_LABEL

    @property
    def alpha(self) -> float:
        """Return the weight of the colours in the pictures."""
        return self._view.alpha

    @property
    def takes_engine_pictures(self) -> bool:
        """Return whether the view is what an engine paints: an overlay in the official colours."""
        view = self._view
        return view.mode == "overlay" and view.classes is None and view.palette == "official"

    def picture_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the size of the pictures, for frames of a size.

        Parameters
        ----------
        size : (H, W) of the frames.

        Returns
        -------
        (H, W) of what ``finish`` returns. ``side-by-side`` doubles the width, and the legend
        ``right`` adds to it.
        """
        height, width = size
        body = 2 * width if self._view.mode == "side-by-side" else width
        panel = self._side.width(height) if self._view.legend == "right" else 0
        return height, body + panel

    def paint(self, frame: Frame, labels: LabelMap | None) -> Picture:
        """Return a picture of a frame and its labels, without legend and text.

        Parameters
        ----------
        frame : a frame of H x W pixels.
        labels : its (H, W) uint8 label map; not changed. None for a frame that was not labelled,
            because it is a lost camera's last one.

        Returns
        -------
        (H, W, 3) uint8 BGR; (H, 2 W, 3) if the mode is ``side-by-side``.
        """
        image = frame.image
        if labels is None:
            return self._unlabelled(image)
        if self._view.smooth and self._network_size is not None:
            labels = smooth_boundaries(labels, self._network_size)

        if self._view.mode == "mask":
            return colourise(labels, self._labels, self._shown, self._buffers.take(image.shape))
        if self._view.mode == "side-by-side":
            return self._side_by_side(image, labels)
        if self._view.mode == "edges":
            return self._outlined(image, labels)
        if self._view.mode == "blend":
            return self._over(_in_grey(image, self._buffers.take(image.shape)), labels)
        return self._over(image, labels)

    def finish(
        self,
        picture: Picture,
        labels: LabelMap | None = None,
        status: Status | None = None,
        name: str = "",
    ) -> Picture:
        """Draw the legend and the state of the run into a picture.

        Parameters
        ----------
        picture : what ``paint`` or the engine painted; it is drawn into.
        labels : (H, W) uint8 label map of the frame; None if it was not labelled.
        status : facts about the run at this moment. If it is lost, the picture is dimmed, and says
            for how long.
        name : name of the frame's source, written into the picture; empty if there is one source.

        Returns
        -------
        ``picture``, or a wider one if the legend is beside it.
        """
        status = status or Status()
        body = self._coloured_part(picture)
        exact = self._view.mode in ("edges", "mask")

        # The legends take their colours from the picture, so they come before everything else.
        side: Picture | None = None
        if self._view.legend == "right":
            side = self._side.draw(body, labels, exact)
        elif self._view.legend == "auto" and labels is not None and status.lost_s is None:
            self._corner.draw(body, labels, exact, name)

        if status.lost_s is not None:
            draw_no_signal(picture, status.lost_s, name)
        elif self._view.hud:
            draw_status(picture, status, name)
        return picture if side is None else self._beside(picture, side)

    def _over(self, image: Picture, labels: LabelMap) -> Picture:
        """Return an image with the colours over it."""
        out = self._buffers.take(image.shape)
        return overlay(image, labels, self._labels, self.alpha, self._shown, out)

    def _side_by_side(self, image: Picture, labels: LabelMap) -> Picture:
        """Return the frame, and its overlay at its right."""
        height, width = labels.shape
        picture = self._buffers.take((height, 2 * width, 3))
        picture[:, :width] = image
        picture[:, width:] = self._over(image, labels)
        return picture

    def _outlined(self, image: Picture, labels: LabelMap) -> Picture:
        """Return the frame with outlines, each side in the colour of its class."""
        side = 2 + image.shape[0] // _OUTLINE_ROWS
        kernel = np.ones((side, side), np.uint8)
        visible = cv2.LUT(labels, self._visible)
        outline = cv2.compare(cv2.dilate(visible, kernel), cv2.erode(visible, kernel), cv2.CMP_NE)
        outline[visible == _NO_LABEL] = 0

        picture = self._buffers.take(image.shape)
        picture[:] = image
        colours = colourise(labels, self._labels, self._shown, self._buffers.take(image.shape))
        cv2.copyTo(colours, outline, picture)
        return picture

    def _unlabelled(self, image: Picture) -> Picture:
        """Return a copy of a frame without labels, of the size of the other pictures."""
        height, width = image.shape[:2]
        copies = 2 if self._view.mode == "side-by-side" else 1
        picture = self._buffers.take((height, copies * width, 3))
        for copy in range(copies):
            picture[:, copy * width : (copy + 1) * width] = image
        return picture

    def _coloured_part(self, picture: Picture) -> Picture:
        """Return the part of a picture that shows the labels."""
        if self._view.mode != "side-by-side":
            return picture
        return picture[:, picture.shape[1] // 2 :]

    def _beside(self, picture: Picture, panel: Picture) -> Picture:
        """Return a picture with a panel at its right."""
        height, width = picture.shape[:2]
        wide = self._buffers.take((height, width + panel.shape[1], 3))
        wide[:, :width] = picture
        wide[:, width:] = panel
        return wide


def _in_grey(image: Picture, out: Picture) -> Picture:
    """Return an image without its colours, in ``out``."""
    cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR, dst=out)
    return out
