"""Make the pictures of a report, as data addresses."""

import base64

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.imaging.postprocess import indexed_png
from edgeseg.spec import LabelSpace
from edgeseg.types import Image

WIDTH = 480  # of the pictures; wider frames are made smaller
_QUALITY = 82  # of JPEG

# BGR; they are told apart by the colour-blind, too (Okabe, Ito 2008).
LOST = (0, 94, 213)  # vermilion: right in the first engine, wrong in this one
GAINED = (178, 114, 0)  # blue: the other way round
OTHER = (66, 228, 240)  # yellow: wrong in both, as another class; or another label, without truth

Share = npt.NDArray[np.float32]


def fitted(height: int, width: int) -> tuple[int, int]:
    """Return the size (H, W) of a picture in the report.

    Parameters
    ----------
    height, width : of the frame.

    Examples
    --------
    >>> fitted(1024, 2048), fitted(36, 48)
    ((240, 480), (36, 48))
    """
    if width <= WIDTH:
        return height, width
    return max(1, round(height * WIDTH / width)), WIDTH


def photo(image: Image) -> str:
    """Return a picture as JPEG.

    Parameters
    ----------
    image : (H, W, 3) uint8 BGR.
    """
    height, width = fitted(*image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return _address(data.tobytes(), "jpeg")


def labels_picture(label_map: Image, labels: LabelSpace) -> str:
    """Return a label map in the colours of its classes, as PNG.

    Parameters
    ----------
    label_map : (H, W) uint8 label ids.
    labels : the classes.
    """
    height, width = fitted(*label_map.shape)
    small = np.empty((height, width), np.uint8)
    cv2.resize(label_map, (width, height), small, interpolation=cv2.INTER_NEAREST)
    return _address(indexed_png(small, labels), "png")


def difference(
    image: Image, first: Image, other: Image, truth: Image | None, labels: LabelSpace
) -> str:
    """Return the frame in grey, with the pixels that two engines label differently in colour.

    Parameters
    ----------
    image : (H, W, 3) uint8 BGR.
    first, other : label maps of the two engines.
    truth : ground truth; ``None`` without it.
    labels : the classes.
    """
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    painted: Image = (110 + grey * 0.45).astype(np.uint8)
    differ = first != other
    if truth is None:
        painted[differ] = OTHER
        return photo(painted)

    known = (truth < len(labels)) & (truth != labels.ignore_id)
    painted[differ & known] = OTHER
    painted[differ & known & (first == truth)] = LOST
    painted[differ & known & (other == truth)] = GAINED
    return photo(painted)


def heat(share: Share) -> tuple[str, float]:
    """Return a map of shares as PNG, from transparent to opaque, and the share of the opaque.

    Parameters
    ----------
    share : (H, W) float32, 0..1.
    """
    height, width = fitted(*share.shape)
    small = cv2.resize(share, (width, height), interpolation=cv2.INTER_AREA)
    most = float(np.percentile(small, 99.5))
    if most <= 0:
        most = float(small.max())

    alpha = np.clip(small / max(most, 1e-9), 0, 1)
    painted = np.zeros((height, width, 4), np.uint8)
    painted[..., :3] = LOST
    painted[..., 3] = np.round(alpha * 63) * 4  # few values compress well
    _, data = cv2.imencode(".png", painted)
    return _address(data.tobytes(), "png"), most


def _address(data: bytes, kind: str) -> str:
    """Return a picture as a data address."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
