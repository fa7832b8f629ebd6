"""Smooth the boundaries of label maps that were enlarged, for pictures alone.

A network of 480x360 labels a frame of 1280x720 in blocks of three by two pixels, so boundaries
are stairs. Interpolated scores would give smooth ones, but engines return labels. Two 3x3 medians
come nearly as close to them as the best Gaussian blur of one-hot scores, in a hundredth of its
time. The arg-max of bilinear one-hot scores comes less close: it only cuts corners of the stairs.

The median of an odd number of labels is one of them, so no class appears from nowhere. Between two
classes it is the majority.
"""

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.imaging.preprocess import resize_labels

LabelMap = npt.NDArray[np.uint8]

_LEAST_SCALE = 1.8  # for smaller factors, medians are farther from interpolated scores than stairs
_MOST_SCALE = 3.0  # of blocks that 3x3 medians reach
_PASSES = 2  # more change nothing measurable


def smooth_boundaries(label_map: LabelMap, network_size: tuple[int, int]) -> LabelMap:
    """Return a label map with smooth boundaries.

    Parameters
    ----------
    label_map : (H, W) uint8 labels, enlarged from ``network_size`` by nearest neighbour.
    network_size : (H, W) of the labels as the network returned them.

    Returns
    -------
    A new (H, W) array, or ``label_map`` itself if it was not enlarged.

    Examples
    --------
    >>> stairs = np.kron(np.tri(4, dtype=np.uint8), np.ones((2, 2), np.uint8))
    >>> smooth_boundaries(stairs, (4, 4))[:5, :5].tolist()
    [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    """
    height, width = label_map.shape
    if max(height / network_size[0], width / network_size[1]) < _LEAST_SCALE:
        return label_map

    # Large blocks: start anew from the network's labels, and double their size step by step.
    small = network_size
    if min(height / small[0], width / small[1]) >= _MOST_SCALE:
        label_map = resize_labels(label_map, small)
        while min(height / small[0], width / small[1]) >= _MOST_SCALE:
            small = 2 * small[0], 2 * small[1]
            label_map = _medians(resize_labels(label_map, small))
        label_map = resize_labels(label_map, (height, width))
    return _medians(label_map)


def _medians(label_map: LabelMap) -> LabelMap:
    """Return a label map after some 3x3 medians."""
    for _ in range(_PASSES):
        label_map = np.asarray(cv2.medianBlur(label_map, 3), np.uint8)
    return label_map
