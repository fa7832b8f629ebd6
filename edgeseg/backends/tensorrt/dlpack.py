"""DLPack by ctypes: arrays of others read in place, ours given away in place.

Both ways with the unversioned capsule: the array API standard lets a producer give an older one than ``max_version``
says the consumer takes, and a consumer that asks for no version gets this one. Those we give are NumPy's, with another
device written in: its deleter and its destructor are C, so that they do their work in any thread, while an error is on
its way and when the interpreter ends, which a callback in Python does not.
"""

import ctypes
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeseg.errors import InputError

CPU, CUDA, CUDA_MANAGED = 1, 2, 13  # DLDeviceType
FIRST_GPU = ((CUDA, 0), (CUDA_MANAGED, 0))
_NAME = b"dltensor"
_CODES = {0: "i", 1: "u", 2: "f", 5: "c", 6: "b"}  # DLDataTypeCode -> NumPy's kinds


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )  # fmt: skip


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _managed(capsule: Any) -> _Managed:
    """What a capsule holds that nobody has taken yet."""
    return _Managed.from_address(_pointer(capsule, _NAME))


class _Memory:
    """Memory as NumPy takes it, unread. ``owner`` keeps it."""

    def __init__(self, pointer: int, shape: tuple[int, ...], typestr: str, owner: Any) -> None:
        self.owner = owner
        self.__array_interface__ = {"data": (pointer, False), "shape": shape, "typestr": typestr, "version": 3}


def lend(pointer: int, shape: tuple[int, ...], typestr: str, device: tuple[int, int], owner: Any) -> Any:
    """A capsule of C-contiguous memory. ``owner`` is kept until the consumer calls the deleter or nobody took it."""
    capsule = np.asarray(_Memory(pointer, shape, typestr, owner)).__dlpack__()
    tensor = _managed(capsule).tensor
    tensor.device_type, tensor.device_id = device
    return capsule


@dataclass(frozen=True)
class Borrowed:
    """Memory of somebody else, there as long as ``keeper`` is. ``strides`` in bytes; ``None``: C-contiguous."""

    pointer: int
    shape: tuple[int, ...]
    typestr: str
    strides: tuple[int, ...] | None
    keeper: Any


def borrow(array: Any, stream: int | None, devices: Collection[tuple[int, int]] = FIRST_GPU) -> Borrowed:
    """What an array with ``__dlpack__`` is of; the producer makes ``stream``, by its handle, wait for it.

    The capsule is not taken, only read: when it goes, it gives the memory back. Raises ``InputError`` for an array of
    another device and one that its producer does not give.
    """
    device = tuple(int(number) for number in array.__dlpack_device__())
    if device not in devices:
        raise InputError(
            "not an array on the device", got=f"{type(array).__name__} of DLPack device {device}",
            expected=" or ".join(map(str, devices)),
        )  # fmt: skip
    try:
        lent = array.__dlpack__(stream=stream)
        tensor = _managed(lent).tensor
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{type(array).__name__} gives no DLPack capsule", got=str(error).split("\n")[0]) from error
    size = tensor.bits * tensor.lanes // 8
    typestr = f"DLPack type ({tensor.code}, {tensor.bits}, {tensor.lanes})"
    if tensor.code in _CODES and tensor.lanes == 1:
        typestr = f"{'|' if size == 1 else '<'}{_CODES[tensor.code]}{size}"
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(size * step for step in tensor.strides[: tensor.ndim]) if tensor.strides else None
    return Borrowed((tensor.data or 0) + tensor.byte_offset, shape, typestr, strides, lent)
