"""Find frames that occur twice: the same pixels, or nearly the same picture."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.types import Image

# A picture is compared at this size in grey; (W, H).
_SMALL = (32, 24)
# Root mean square difference below which two pictures of one contrast are nearly the same. On
# CamVid, copies as JPEG of quality 50 or of half the size differ by less than 0.6, and frames that
# are a second apart by 3.4 or more.
NEAR = 2.0
_CONTRAST = 50.0  # standard deviation that every picture is brought to: night frames differ as well
_CHUNK = 1024


@dataclass(frozen=True)
class Print:
    """Hold what identifies a picture.

    Attributes
    ----------
    digest : SHA-256 of its size and pixels.
    small : (768,) float32, the picture in grey at 32x24, of mean 0 and one contrast.

    Examples
    --------
    >>> same = [fingerprint(np.full((48, 64, 3), 9, np.uint8)) for _ in range(2)]
    >>> same[0].digest == same[1].digest
    True
    """

    digest: str
    small: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Double:
    """Hold two frames that are the same.

    Attributes
    ----------
    first, second : numbers of the frames.
    exact : whether all pixels are the same.
    """

    first: int
    second: int
    exact: bool


def fingerprint(image: Image) -> Print:
    """Return what identifies a picture.

    Parameters
    ----------
    image : (H, W, 3) uint8 BGR.
    """
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    small = cv2.resize(grey.astype(np.float32), _SMALL, interpolation=cv2.INTER_AREA).ravel()
    small -= small.mean()
    factor = np.float32(_CONTRAST / max(1.0, float(small.std())))
    return Print(digest.hexdigest(), small * factor)


def find_doubles(prints: Sequence[Print]) -> list[Double]:
    """Return pairs of frames that are the same or nearly so.

    Each frame is named once as ``second``, with the first frame that is like it.

    Parameters
    ----------
    prints : what identifies the frames, in order.

    Examples
    --------
    >>> ramp = np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)
    >>> find_doubles([fingerprint(ramp), fingerprint(ramp[::-1]), fingerprint(ramp)])
    [Double(first=0, second=2, exact=True)]
    """
    found: list[Double] = []
    first_of: dict[str, int] = {}
    smalls = np.stack([one.small for one in prints]) if prints else np.zeros((0, 1), np.float32)
    squares = (smalls**2).sum(axis=1)
    limit = NEAR**2 * smalls.shape[1]

    for start in range(0, len(prints), _CHUNK):
        rows = smalls[start : start + _CHUNK]
        distance = squares[start : start + _CHUNK, None] + squares[None] - 2 * rows @ smalls.T
        for offset, one in enumerate(prints[start : start + _CHUNK]):
            second = start + offset
            first = first_of.setdefault(one.digest, second)
            if first != second:
                found.append(Double(first, second, True))
                continue
            near = np.flatnonzero(distance[offset, :second] < limit)
            if near.size:
                found.append(Double(int(near[0]), second, False))
    return found
