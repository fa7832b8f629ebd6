"""Arrays on the device, in and out: DLPack and ``__cuda_array_interface__``."""

from dataclasses import dataclass
from typing import Any

from edgeseg.backends.tensorrt import cuda, dlpack
from edgeseg.errors import InputError


def borrow(array: Any, gpu: cuda.Cuda, stream: Any) -> dlpack.Borrowed:
    """An array of somebody else's on the device; ``stream`` waits for it.

    It has ``__dlpack__`` (torch, cupy, jax), or else ``__cuda_array_interface__`` (numba, pycuda). Raises
    ``InputError`` for anything else.
    """
    if hasattr(array, "__dlpack__"):
        return dlpack.borrow(array, gpu.handle(stream))
    facts = getattr(array, "__cuda_array_interface__", None)
    if facts is None:
        expected = "__dlpack__ or __cuda_array_interface__"
        raise InputError("not a device array", got=type(array).__name__, expected=expected)
    theirs = facts.get("stream")
    if theirs == 0:
        raise InputError("a stream that the interface does not allow", got=0, expected="1, 2 or a handle")
    if theirs is not None:
        gpu.wait_for(int(theirs), stream)
    return dlpack.Borrowed(int(facts["data"][0]), tuple(facts["shape"]), facts["typestr"], facts.get("strides"), array)


@dataclass(frozen=True)
class DeviceArray:
    """A C-contiguous array on the device: ``torch.from_dlpack``, ``cupy.asarray`` and others take it as it is."""

    pointer: int
    shape: tuple[int, ...]
    typestr: str
    owner: Any  # the engine, which keeps the memory

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        data = (self.pointer, False)
        return {"shape": self.shape, "typestr": self.typestr, "data": data, "version": 3, "strides": None}

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, 0

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """The unversioned capsule, whatever the version; no stream has to wait, the array is complete."""
        device = self.__dlpack_device__()
        if copy or dl_device not in (None, device):
            raise BufferError("a copy, or another device, is not what this array gives")
        return dlpack.lend(self.pointer, self.shape, self.typestr, device, self.owner)


@dataclass(frozen=True)
class DeviceLabels(DeviceArray):
    """A label map on the device, (H, W) uint8.

    ``scores`` are (classes, H, W) at the net's size, where the plan gives them; ``picture`` (H, W, 3) uint8 BGR where
    one was asked for.
    """

    scores: DeviceArray | None = None
    picture: DeviceArray | None = None
