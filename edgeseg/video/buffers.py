"""Reuse the memory of pictures that nobody holds any more."""

import sys

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]

_MOST = 8  # pictures kept: more than wait between the stages of a run


class Buffers:
    """Hand out arrays, and hand them out again once the caller has dropped them.

    New memory costs as much as painting it: the system clears every page of it. An array is free
    if nothing but this object refers to it, which CPython counts; a view of it counts, too.

    Examples
    --------
    >>> buffers = Buffers()
    >>> first = buffers.take((48, 64, 3))
    >>> buffers.take((48, 64, 3)) is first
    False
    >>> address = first.ctypes.data
    >>> del first
    >>> buffers.take((48, 64, 3)).ctypes.data == address
    True
    """

    def __init__(self) -> None:
        self._arrays: list[Picture] = []

    def take(self, shape: tuple[int, ...]) -> Picture:
        """Return a uint8 array with any content.

        Parameters
        ----------
        shape : its shape.
        """
        if _counts_references():
            for index in range(len(self._arrays)):
                if (
                    sys.getrefcount(self._arrays[index]) == _UNUSED
                    and self._arrays[index].shape == shape
                ):
                    return self._arrays[index]

        # Forget the oldest, so that arrays of a former size go.
        array = np.empty(shape, np.uint8)
        self._arrays = [*self._arrays[-(_MOST - 1) :], array]
        return array


def _counts_references() -> bool:
    """Return whether this Python counts references exactly: CPython with its lock."""
    has_lock = getattr(sys, "_is_gil_enabled", lambda: True)
    return sys.implementation.name == "cpython" and bool(has_lock())


# The count of an array that only a list refers to, measured as ``take`` measures it.
_probe = [np.empty(1, np.uint8)]
_UNUSED = sys.getrefcount(_probe[0])
