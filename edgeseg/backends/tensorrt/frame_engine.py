"""A TensorRT plan between edgeseg's CUDA kernels: frames of any size in, BGR or NV12; labels and pictures out.

Resizing, colours and normalising, the argmax and painting run on the device. The host copies a frame there, and labels
(and a picture, where one is asked for) back; on an integrated GPU it copies nothing.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeseg.backends.tensorrt import cuda
from edgeseg.backends.tensorrt.bindings import Library
from edgeseg.backends.tensorrt.device_array import DeviceArray, DeviceLabels, borrow
from edgeseg.backends.tensorrt.dlpack import Borrowed
from edgeseg.backends.tensorrt.kernels import Kernels, Picture, Plane, Scores, palette_table
from edgeseg.backends.tensorrt.pipelined import SLOTS, PipelinedEngine, Slot
from edgeseg.errors import InputError
from edgeseg.imaging.nv12 import Nv12, check_planes
from edgeseg.passport import Passport
from edgeseg.types import Float, Image

_NONE = np.zeros(0, np.uint8)


@dataclass
class Buffer:
    """Bytes for the host and the device to hand over; the same ones on an integrated GPU. It only grows.

    Memory that was ``lent`` to a caller, as an array on the device, is kept for as long as the engine is there.
    """

    host: Image = field(default_factory=lambda: _NONE)
    device: int = 0
    lent: bool = False


@dataclass(kw_only=True)
class FrameEngineSlot(Slot):
    """The buffers of a slot. ``tensor`` and ``scores`` never leave the device.

    ``picture`` is what the frame on its way is, ``alpha`` the colours' weight where it is to be painted. Both, and
    where the buffers are, belong to its graph.
    """

    tensor: int
    scores: int
    picture: Picture | None = None
    alpha: float | None = None
    frame: Buffer = field(default_factory=Buffer)
    labels: Buffer = field(default_factory=Buffer)
    painted: Buffer = field(default_factory=Buffer)


class FrameEngine(PipelinedEngine[FrameEngineSlot]):
    """A plan built with ``PlanOptions(kernels=True)``, on the GPU.

    A frame is (H, W, 3) uint8 BGR or an ``Nv12``, of any size up to 32767 a side; labels have its size. ``paint`` gives
    the picture, too. ``stream`` labels many frames with copies and computing overlapped; ``on_device`` takes and gives
    device arrays. Labels are those of the other engines but where the resize rounds a grey level otherwise; in FP16
    also where it matters that pixels are normalised in FP32 here.
    """

    takes_nv12 = True

    def __init__(
        self,
        passport: Passport,
        plan: bytes,
        library: Library,
        kernels: Any,
        *,
        device: cuda.Cuda | None = None,
        zero_copy: bool | None = None,
    ) -> None:
        """``kernels`` is edgeseg's CUDA library, loaded (``edgeseg.backends.tensorrt.kernels.open_library``)."""
        with library.log.heard():
            super().__init__(passport, plan, library, device, zero_copy)
            height, width = passport.spec.input_size
            classes = len(passport.spec.labels)
            self._require_tensors(
                self._tensors(), {"tensor": (1, 3, height, width), "scores": (1, classes, height, width)}
            )
            half = library.trt.DataType.HALF
            self._half = {name: self._engine.get_tensor_dtype(name) == half for name in ("tensor", "scores")}
            self._kernels = Kernels(kernels, passport.spec, half_input=self._half["tensor"])
            self._palette = self._memory.on_device(4 * 256)
            self._scores_size = (2 if self._half["scores"] else 4) * classes * height * width
            self._host_scores = self._memory.on_host(self._scores_size)
            self._slots = [self._slot() for _ in range(SLOTS)]
            self._prepare()

    def _slot(self) -> FrameEngineSlot:
        height, width = self.spec.input_size
        gpu, context = self._cuda, self._context()
        tensor = self._memory.on_device((2 if self._half["tensor"] else 4) * 3 * height * width)
        slot = FrameEngineSlot(
            context=context, stream=gpu.stream(), begun=gpu.event(), done=gpu.event(), tensor=tensor,
            scores=self._memory.on_device(self._scores_size),
        )  # fmt: skip
        self._point(context, "tensor", tensor)
        self._point(context, "scores", slot.scores)
        return slot

    def _prepare(self) -> None:
        """Colours to the device, and a frame through every slot, so that everything is loaded."""
        slot, colours = self._slots[0], self._memory.on_host(4 * 256)
        colours[:] = palette_table(self.spec.labels).ravel()
        self._cuda.to_device(self._palette, colours, slot.stream)
        black = np.zeros((*self.spec.input_size, 3), np.uint8)
        for slot in self._slots:
            self._fill(slot, black)
            self._cuda.wait(slot.done)

    # -- one frame -----------------------------------------------------------------------------------------------------

    def __call__(self, frame: Image | Nv12) -> Image:
        """Label a frame: (H, W) uint8; or a batch (N, H, W, 3): (N, H, W)."""
        if isinstance(frame, np.ndarray) and frame.ndim == 4:
            return super().__call__(frame)
        with self._turn:
            self._require_idle()
            self._fill(self._slots[0], frame)
            return self._receive(self._slots[0])

    def _batch(self, frames: Image) -> Image:
        return np.stack(list(self.stream(frames)))

    def paint(self, frame: Image | Nv12, alpha: float = 0.5) -> tuple[Image, Image]:
        """Labels (H, W) uint8 of a frame, and the picture (H, W, 3) uint8 BGR: their colours over the frame.

        The picture is that of ``edgeseg.imaging.postprocess.overlay``; ``alpha`` is the colours' weight, 0 to 1.
        """
        height, width = self._frame_size(frame)
        _check_alpha(alpha)
        with self._turn:
            self._require_idle()
            slot = self._slots[0]
            self._fill(slot, frame, alpha)
            labels = self._receive(slot)
            return labels, np.array(slot.painted.host[: 3 * height * width].reshape(height, width, 3))

    def logits(self, frame: Image | Nv12) -> Float:
        """The net's scores for a frame of any size: (classes, H, W) float32 at ``spec.input_size``."""
        self._frame_size(frame)
        with self._turn:
            self._require_idle()
            slot = self._slots[0]
            self._fill(slot, frame)
            self._cuda.to_host(self._host_scores, slot.scores, slot.stream)
            self._cuda.record(slot.done, slot.stream)
            self._wait(slot)
            scores = self._host_scores.view(np.float16 if self._half["scores"] else np.float32)
            return scores.astype(np.float32).reshape(len(self.spec.labels), *self.spec.input_size)

    def _labels(self, frame: Image) -> Image:
        raise NotImplementedError  # frames are not resized on their way here

    def _logits(self, frame: Image) -> Float:
        raise NotImplementedError

    def _frame_size(self, frame: Any) -> tuple[int, int]:
        return frame.check() if isinstance(frame, Nv12) else super()._frame_size(frame)

    # -- a slot's way --------------------------------------------------------------------------------------------------

    def _send(self, slot: FrameEngineSlot, frame: Any) -> None:
        self._fill(slot, frame)

    def _fill(self, slot: FrameEngineSlot, frame: Image | Nv12, alpha: float | None = None) -> None:
        """Start a frame on its way."""
        height, width = self._frame_size(frame)
        planes: list[Image] = [frame]  # type: ignore[list-item]
        picture = Picture(height, width)
        if isinstance(frame, Nv12):
            planes, picture = [frame.luma, frame.chroma], Picture(height, width, frame.matrix, frame.full_range)
        if (picture, alpha) != (slot.picture, slot.alpha):
            self._forget(slot)
            slot.picture, slot.alpha = picture, alpha
        self._grow(slot, slot.frame, picture.size)
        self._grow(slot, slot.labels, height * width)
        self._grow(slot, slot.painted, 0 if alpha is None else 3 * height * width)
        start = 0
        for plane in planes:
            slot.frame.host[start : start + plane.size].reshape(plane.shape)[:] = plane
            start += plane.size
        self._begin(slot)

    def _grow(self, slot: FrameEngineSlot, buffer: Buffer, size: int) -> None:
        """Room for ``size`` bytes in a buffer of a slot that is not on its way."""
        if size <= buffer.host.size:
            return
        self._forget(slot)  # its graph has the addresses
        memory, old = self._memory, Buffer(buffer.host, buffer.device, buffer.lent)
        buffer.host, buffer.device, buffer.lent = _NONE, 0, False
        if old.host.size and not old.lent:
            if not self._zero_copy:
                memory.give_back(old.device)
            memory.give_back_host(old.host)
        device = 0 if self._zero_copy else memory.on_device(size)
        host = memory.on_host(size)
        buffer.host, buffer.device = host, self._cuda.mapped(host) if self._zero_copy else device

    def _enqueue(self, slot: FrameEngineSlot) -> None:
        picture, gpu = slot.picture, self._cuda
        assert picture is not None
        pixels = picture.height * picture.width
        if not self._zero_copy:
            gpu.to_device(slot.frame.device, slot.frame.host[: picture.size], slot.stream)
        self._run(slot, picture, picture.planes(slot.frame.device), slot.alpha)
        if not self._zero_copy:
            gpu.to_host(slot.labels.host[:pixels], slot.labels.device, slot.stream)
            if slot.alpha is not None:
                gpu.to_host(slot.painted.host[: 3 * pixels], slot.painted.device, slot.stream)

    def _run(self, slot: FrameEngineSlot, picture: Picture, planes: tuple[Plane, ...], alpha: float | None) -> None:
        """Give the slot's stream kernel, net and kernel."""
        handle = self._cuda.handle(slot.stream)
        self._kernels.preprocess(picture, planes, slot.tensor, handle)
        self._execute(slot)
        scores = Scores(slot.scores, self._half["scores"], len(self.spec.labels), *self.spec.input_size)
        painting: dict[str, Any] = {}
        if alpha is not None:
            painting = {"painted": slot.painted.device, "palette": self._palette, "alpha": alpha}
        self._kernels.overlay(scores, picture, planes, slot.labels.device, handle, **painting)

    def _receive(self, slot: FrameEngineSlot) -> Image:
        self._wait(slot)
        assert slot.picture is not None
        size = slot.picture.height, slot.picture.width
        return np.array(slot.labels.host[: math.prod(size)].reshape(size))

    # -- frames that are on the device ---------------------------------------------------------------------------------

    def on_device(self, frame: Any, alpha: float | None = None) -> DeviceLabels:
        """Label a frame that is on the device, of any size; with ``alpha``, its colours' weight, paint it, too.

        ``frame`` is (H, W, 3) uint8 BGR, or an ``Nv12`` of such arrays; rows may be padded. An array has ``__dlpack__``
        (torch, cupy, jax), or else ``__cuda_array_interface__`` (numba, pycuda). It need not be complete: the engine
        waits for what was given to its stream. An interface that names no stream leaves that to the caller. The result
        has both, and so have its ``scores`` (of the net's size, float16 where the plan gives that) and ``picture``; it
        is complete, and overwritten by the next call.
        """
        if alpha is not None:
            _check_alpha(alpha)
        with self._turn:
            self._require_idle()
            slot = self._slots[0]
            arrays = (frame.luma, frame.chroma) if isinstance(frame, Nv12) else (frame,)
            found = [borrow(array, self._cuda, slot.stream) for array in arrays]
            picture = _picture(frame, found)
            planes = tuple(Plane(one.pointer, _pitch(one)) for one in found)
            height, width = picture.height, picture.width
            self._grow(slot, slot.labels, height * width)
            self._grow(slot, slot.painted, 0 if alpha is None else 3 * height * width)
            self._cuda.record(slot.begun, slot.stream)
            self._run(slot, picture, planes, alpha)
            self._cuda.record(slot.done, slot.stream)
            self._wait(slot)
            slot.labels.lent, slot.painted.lent = True, slot.painted.lent or alpha is not None
            shape = (len(self.spec.labels), *self.spec.input_size)
            scores = DeviceArray(slot.scores, shape, "<f2" if self._half["scores"] else "<f4", self)
            painted = None if alpha is None else DeviceArray(slot.painted.device, (height, width, 3), "|u1", self)
            return DeviceLabels(slot.labels.device, (height, width), "|u1", self, scores, painted)


def _picture(frame: Any, found: list[Borrowed]) -> Picture:
    """What a frame on the device is. Raises ``InputError`` for what is none."""
    told = "; ".join(f"{one.shape} {one.typestr}" for one in found)
    shapes = [one.shape for one in found]
    if any(one.typestr != "|u1" for one in found):
        raise InputError("not a frame on the device", got=told, expected="uint8")
    if isinstance(frame, Nv12):
        return Picture(*check_planes(shapes[0], shapes[1]), frame.matrix, frame.full_range)
    if len(shapes[0]) != 3 or shapes[0][2] != 3 or 0 in shapes[0]:
        raise InputError("not a frame on the device", got=told, expected="(H, W, 3) uint8, BGR")
    return Picture(shapes[0][0], shapes[0][1])


def _pitch(array: Borrowed) -> int:
    """From a row to the next, bytes. Raises ``InputError`` where rows are not whole, or go up."""
    shape = array.shape
    row = math.prod(shape[1:])
    if array.strides is None:
        return row
    inner = (1,) if len(shape) == 2 else (shape[2], 1)
    if tuple(array.strides[1:]) != inner or (array.strides[0] < row and shape[0] > 1):
        raise InputError(
            "not rows of pixels", got=f"{shape}, strides {array.strides}", expected=f"strides (pitch, {inner})",
            hint="Copy it: rows may be padded, pixels not.",
        )  # fmt: skip
    return max(int(array.strides[0]), row)


def _check_alpha(alpha: float) -> None:
    if not 0.0 <= alpha <= 1.0:
        raise InputError("not a weight of colours", got=alpha, expected="0 to 1")
