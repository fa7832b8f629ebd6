"""Take and give arrays on the device, by DLPack and ``__cuda_array_interface__``."""

from dataclasses import dataclass
from typing import Any

from edgeseg.backends.tensorrt import cuda, dlpack
from edgeseg.errors import InputError


def borrow(array: Any, gpu: cuda.Cuda, stream: Any) -> dlpack.Borrowed:
    """Return the memory of another library's array on the device.

    Parameters
    ----------
    array : it has ``__dlpack__`` (torch, cupy, jax) or ``__cuda_array_interface__`` (numba,
        pycuda).
    gpu : CUDA binding.
    stream : stream that waits until the array is complete.

    Raises
    ------
    InputError : not an array on the device.
    """
    if hasattr(array, "__dlpack__"):
        return dlpack.borrow(array, gpu.handle(stream))

    facts = getattr(array, "__cuda_array_interface__", None)
    if facts is None:
        raise InputError(
            "not a device array",
            got=type(array).__name__,
            expected="__dlpack__ or __cuda_array_interface__",
        )

    # Wait for the stream that fills the array, if the interface names one.
    producer = facts.get("stream")
    if producer == 0:
        expected = "1, 2 or a handle"
        raise InputError("a stream that the interface does not allow", got=0, expected=expected)
    if producer is not None:
        gpu.wait_for(int(producer), stream)

    return dlpack.Borrowed(
        pointer=int(facts["data"][0]),
        shape=tuple(facts["shape"]),
        typestr=facts["typestr"],
        strides=facts.get("strides"),
        keeper=array,
    )


@dataclass(frozen=True)
class DeviceArray:
    """Hold a C-contiguous array on the device.

    ``torch.from_dlpack``, ``cupy.asarray`` and others take it as it is.

    Attributes
    ----------
    pointer : address of the first element.
    shape : the shape.
    typestr : element type as NumPy writes it, such as ``|u1``.
    owner : the engine that owns the memory; it is kept while the array is in use.

    Examples
    --------
    >>> DeviceArray(4096, (2, 3), "|u1", None).__cuda_array_interface__["shape"]
    (2, 3)
    """

    pointer: int
    shape: tuple[int, ...]
    typestr: str
    owner: Any

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Return the facts of the array, version 3 of the interface."""
        return {
            "shape": self.shape,
            "typestr": self.typestr,
            "data": (self.pointer, False),
            "version": 3,
            "strides": None,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return DLPack's number of the first GPU."""
        return dlpack.CUDA, 0

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Return a DLPack capsule of the array, for ``from_dlpack`` of other libraries.

        Parameters
        ----------
        stream : stream of the consumer; it need not wait, because the array is complete.
        max_version : newest version that the consumer takes; the capsule is always unversioned.
        dl_device : the device to give the array on; only its own.
        copy : True to copy the array, which is not supported.

        Raises
        ------
        BufferError : a copy or another device is requested.
        """
        device = self.__dlpack_device__()
        if copy or dl_device not in (None, device):
            raise BufferError("this array gives neither a copy nor another device")
        return dlpack.lend(self.pointer, self.shape, self.typestr, device, self.owner)


@dataclass(frozen=True)
class DeviceLabels(DeviceArray):
    """Hold a label map on the device, (H, W) uint8.

    Attributes
    ----------
    scores : logits (classes, H, W) at the network's size; ``None`` if the plan returns none.
    picture : (H, W, 3) uint8 BGR; ``None`` if the frame was not painted.
    """

    scores: DeviceArray | None = None
    picture: DeviceArray | None = None
