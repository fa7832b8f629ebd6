"""Exchange arrays by DLPack with ctypes: read other libraries' arrays in place, and give ours.

Both directions use the unversioned capsule. The array API standard lets a producer give an older
capsule than ``max_version``, and a consumer that names no version gets this one. The capsules that
we give are NumPy's, with another device written into them. Their deleter and their destructor are C
code, so they work in any thread, while an exception is raised, and when the interpreter ends. A
callback in Python does not.
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
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _managed(capsule: Any) -> _Managed:
    """Return the content of a capsule that no consumer has taken yet."""
    return _Managed.from_address(_pointer(capsule, _NAME))


class _Memory:
    """Describe memory for NumPy, which does not read it, and keep its owner."""

    def __init__(self, pointer: int, shape: tuple[int, ...], typestr: str, owner: Any) -> None:
        self.owner = owner
        self.__array_interface__ = {
            "data": (pointer, False),
            "shape": shape,
            "typestr": typestr,
            "version": 3,
        }


def lend(
    pointer: int, shape: tuple[int, ...], typestr: str, device: tuple[int, int], owner: Any
) -> Any:
    """Return a capsule of C-contiguous memory.

    Parameters
    ----------
    pointer : address of the first element.
    shape : the shape.
    typestr : element type as NumPy writes it, such as ``|u1``.
    device : DLPack's type and number of the device.
    owner : object that owns the memory. It is kept until the consumer calls the deleter, or until a
        capsule that nobody took is gone.
    """
    capsule = np.asarray(_Memory(pointer, shape, typestr, owner)).__dlpack__()
    tensor = _managed(capsule).tensor
    tensor.device_type, tensor.device_id = device
    return capsule


@dataclass(frozen=True)
class Borrowed:
    """Describe memory of another library.

    Attributes
    ----------
    pointer : address of the first element.
    shape : the shape.
    typestr : element type as NumPy writes it, such as ``|u1``.
    strides : bytes from one element to the next, per axis; ``None`` for C-contiguous memory.
    keeper : object that keeps the memory.
    """

    pointer: int
    shape: tuple[int, ...]
    typestr: str
    strides: tuple[int, ...] | None
    keeper: Any


def borrow(
    array: Any, stream: int | None, devices: Collection[tuple[int, int]] = FIRST_GPU
) -> Borrowed:
    """Return the memory of an array with ``__dlpack__``, which stays the producer's.

    The capsule is only read, not taken: when it goes, it gives the memory back.

    Parameters
    ----------
    array : the array.
    stream : handle of the stream that the producer lets wait until the array is complete.
    devices : DLPack's type and number of the devices where the array may be.

    Raises
    ------
    InputError : the array is on another device, or its producer gives no capsule.

    Examples
    --------
    >>> found = borrow(np.zeros((2, 3), np.uint8), None, devices=[(CPU, 0)])
    >>> found.shape, found.typestr
    ((2, 3), '|u1')
    """
    device_type, device_id = array.__dlpack_device__()
    device = (int(device_type), int(device_id))
    if device not in devices:
        raise InputError(
            "not an array on the device",
            got=f"{type(array).__name__} of DLPack device {device}",
            expected=" or ".join(map(str, devices)),
        )

    try:
        capsule = array.__dlpack__(stream=stream)
        tensor = _managed(capsule).tensor
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        what = f"{type(array).__name__} gives no DLPack capsule"
        raise InputError(what, got=str(error).split("\n")[0]) from error

    return Borrowed(
        pointer=(tensor.data or 0) + tensor.byte_offset,
        shape=tuple(tensor.shape[: tensor.ndim]),
        typestr=_typestr(tensor),
        strides=_byte_strides(tensor),
        keeper=capsule,
    )


def _item_bytes(tensor: _Tensor) -> int:
    """Return the number of bytes of one element."""
    return int(tensor.bits * tensor.lanes // 8)


def _typestr(tensor: _Tensor) -> str:
    """Return the element type as NumPy writes it; a description if NumPy has no such type."""
    if tensor.code not in _CODES or tensor.lanes != 1:
        return f"DLPack type ({tensor.code}, {tensor.bits}, {tensor.lanes})"
    size = _item_bytes(tensor)
    byte_order = "|" if size == 1 else "<"
    return f"{byte_order}{_CODES[tensor.code]}{size}"


def _byte_strides(tensor: _Tensor) -> tuple[int, ...] | None:
    """Return the strides in bytes; DLPack counts elements. ``None`` for C-contiguous memory."""
    if not tensor.strides:
        return None
    size = _item_bytes(tensor)
    return tuple(size * step for step in tensor.strides[: tensor.ndim])
