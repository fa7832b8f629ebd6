"""Run a TensorRT plan between edgeseg's CUDA kernels.

Frames of any size go in, labels and pictures come out.

Resizing, colour conversion, normalising, the argmax and painting run on the device. The host copies
a frame to the device, and labels (and a picture, if one is wanted) back. On an integrated GPU it
copies nothing.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.backends.tensorrt import cuda
from edgeseg.backends.tensorrt.bindings import Library
from edgeseg.backends.tensorrt.device_array import DeviceArray, DeviceLabels, borrow
from edgeseg.backends.tensorrt.dlpack import Borrowed
from edgeseg.backends.tensorrt.kernels import Kernels, Picture, Plane, Scores, palette_table
from edgeseg.backends.tensorrt.pipelined import PipelinedEngine, Slot
from edgeseg.capabilities import ANY_SIZE, DEVICE_ARRAYS, LOGITS, NV12, PAINT, STREAMS
from edgeseg.errors import InputError
from edgeseg.imaging.nv12 import Nv12, check_planes
from edgeseg.passport import Passport
from edgeseg.types import Float, Image

_NONE = np.zeros(0, np.uint8)
_PALETTE_BYTES = 4 * 256


@dataclass
class Buffer:
    """Hold bytes that host and device exchange. A buffer only grows.

    Attributes
    ----------
    host : page-locked memory, (bytes,) uint8.
    device : address on the device; on an integrated GPU it is the same memory.
    lent : True if a caller has the memory as an array on the device. It is then kept until the
        engine gives back all its memory.
    """

    host: Image = field(default_factory=lambda: _NONE)
    device: int = 0
    lent: bool = False


@dataclass(kw_only=True)
class FrameEngineSlot(Slot):
    """Hold the buffers of a slot.

    Attributes
    ----------
    tensor, scores : addresses of the network's input and of its logits; they stay on the device.
    picture : format of the frame in the slot. A captured graph is for one format.
    alpha : weight of the colours if the frame is painted. A captured graph is for one weight.
    frame, labels, painted : buffers. A captured graph contains their addresses.
    """

    tensor: int
    scores: int
    picture: Picture | None = None
    alpha: float | None = None
    frame: Buffer = field(default_factory=Buffer)
    labels: Buffer = field(default_factory=Buffer)
    painted: Buffer = field(default_factory=Buffer)


class FrameEngine(PipelinedEngine[FrameEngineSlot]):
    """Run a plan that was built with ``PlanOptions(kernels=True)``, on the GPU.

    A frame is (H, W, 3) uint8 BGR or an ``Nv12``, with sides of at most 32767 pixels. Its labels
    have its size. They equal those of the other engines, except where the resize rounds a grey
    level differently; in FP16 also where it matters that pixels are normalised in FP32 here.

    Parameters
    ----------
    passport : the engine's passport.
    plan : content of the engine file.
    library : the imported TensorRT.
    kernels : edgeseg's CUDA library, as ``kernels.open_library`` returns it.
    device : CUDA binding; the one of ``cuda.binding()`` by default.
    zero_copy : True if the device reads and writes host memory, and nothing is copied. By default
        it is True on an integrated GPU.
    path : the engine file; what TensorRT-RTX compiles is kept beside it. ``None``: nothing is kept.

    Attributes
    ----------
    capabilities : ``LOGITS``, ``ANY_SIZE``, ``NV12``, ``PAINT``, ``STREAMS``, ``DEVICE_ARRAYS``.

    Raises
    ------
    EngineError : the plan cannot be opened, or is not what its passport describes; or ``kernels``
        is the library of another edgeseg.
    """

    capabilities = frozenset({LOGITS, ANY_SIZE, NV12, PAINT, STREAMS, DEVICE_ARRAYS})

    def __init__(
        self,
        passport: Passport,
        plan: bytes,
        library: Library,
        kernels: Any,
        *,
        device: cuda.Cuda | None = None,
        zero_copy: bool | None = None,
        path: Path | None = None,
    ) -> None:
        with library.log.heard():
            super().__init__(passport, plan, library, device, zero_copy, path=path)
            height, width = passport.spec.input_size
            classes = len(passport.spec.labels)
            expected: dict[str, tuple[int, ...]] = {
                "tensor": (1, 3, height, width),
                "scores": (1, classes, height, width),
            }
            self._require_tensors(self._tensors(), expected)

            # The plan says which of its ends are FP16.
            half = library.trt.DataType.HALF
            self._half_tensor = self._engine.get_tensor_dtype("tensor") == half
            self._half_scores = self._engine.get_tensor_dtype("scores") == half

            self._kernels = Kernels(kernels, passport.spec, half_input=self._half_tensor)
            self._palette = self._memory.on_device(_PALETTE_BYTES)
            self._scores_size = _bytes_each(self._half_scores) * classes * height * width
            self._host_scores = self._memory.on_host(self._scores_size)
            self._slots = [self._slot() for _ in range(self._slot_count)]
            self._prepare()
            self._keep_compiled()

    def _slot(self) -> FrameEngineSlot:
        """Create a slot with a context, a stream, and buffers for the ends of the network."""
        height, width = self.spec.input_size
        memory = self._memory
        context = self._context()
        slot = FrameEngineSlot(
            context=context,
            stream=memory.stream(),
            begun=memory.event(),
            done=memory.event(),
            tensor=memory.on_device(_bytes_each(self._half_tensor) * 3 * height * width),
            scores=memory.on_device(self._scores_size),
        )
        self._point(context, "tensor", slot.tensor)
        self._point(context, "scores", slot.scores)
        return slot

    def _prepare(self) -> None:
        """Copy the palette to the device, and run every slot once, so that everything is loaded."""
        colours = self._memory.on_host(_PALETTE_BYTES)
        colours[:] = palette_table(self.spec.labels).ravel()
        self._cuda.to_device(self._palette, colours, self._slots[0].stream)

        black = np.zeros((*self.spec.input_size, 3), np.uint8)
        for slot in self._slots:
            self._fill(slot, black)
            self._cuda.wait(slot.done)

    # -- one frame ---------------------------------------------------------------------------------

    def __call__(self, frame: Image | Nv12) -> Image:
        """Label a frame, or a batch of frames; ``Engine.__call__`` describes both.

        Parameters
        ----------
        frame : (H, W, 3) uint8 BGR or an ``Nv12``, of any size; or a batch (N, H, W, 3).

        Returns
        -------
        Label map (H, W) uint8; (N, H, W) for a batch.

        Raises
        ------
        InputError : not a frame, or an empty batch.
        EngineError : a stream uses the engine, or the engine is closed.
        """
        if isinstance(frame, np.ndarray) and frame.ndim == 4:
            return super().__call__(frame)
        with self._turn:
            self._require_ready()
            self._fill(self._slots[0], frame)
            return self._receive(self._slots[0])

    def _batch(self, frames: Image) -> Image:
        """Label frames (N, H, W, 3) as a stream; return (N, H, W)."""
        return np.stack(list(self.stream(frames)))

    def paint(self, frame: Image | Nv12, alpha: float = 0.5) -> tuple[Image, Image]:
        """Label a frame, and paint the colours of its labels over it.

        Parameters
        ----------
        frame : (H, W, 3) uint8 BGR or an ``Nv12``, of any size.
        alpha : weight of the colours, 0 to 1.

        Returns
        -------
        Labels (H, W) uint8, and the picture (H, W, 3) uint8 BGR as
        ``edgeseg.imaging.postprocess.overlay`` paints it.

        Raises
        ------
        InputError : not a frame, or not a weight.
        EngineError : a stream uses the engine, or the engine is closed.
        """
        height, width = self._frame_size(frame)
        _check_alpha(alpha)
        with self._turn:
            self._require_ready()
            slot = self._slots[0]
            self._fill(slot, frame, alpha)
            labels = self._receive(slot)
            painted = slot.painted.host[: 3 * height * width].reshape(height, width, 3)
            return labels, np.array(painted)

    def logits(self, frame: Image | Nv12) -> Float:
        """Return the logits of a frame: (classes, H, W) float32 at ``spec.input_size``.

        Parameters
        ----------
        frame : (H, W, 3) uint8 BGR or an ``Nv12``, of any size.

        Raises
        ------
        InputError : not a frame.
        EngineError : a stream uses the engine, or the engine is closed.
        """
        self._frame_size(frame)
        with self._turn:
            self._require_ready()
            slot = self._slots[0]
            self._fill(slot, frame)
            self._cuda.to_host(self._host_scores, slot.scores, slot.stream)
            self._cuda.record(slot.done, slot.stream)
            self._wait(slot)

            dtype = np.float16 if self._half_scores else np.float32
            scores = self._host_scores.view(dtype).astype(np.float32)
            return scores.reshape(len(self.spec.labels), *self.spec.input_size)

    def _labels(self, frame: Image) -> Image:
        """Raise ``NotImplementedError``: ``__call__`` runs frames without resizing them first."""
        raise NotImplementedError

    def _logits(self, frame: Image) -> Float:
        """Raise ``NotImplementedError``: ``logits`` runs frames without resizing them first."""
        raise NotImplementedError

    def _frame_size(self, frame: Any) -> tuple[int, int]:
        """Return (H, W) of a frame; raise ``InputError`` if it is none."""
        return frame.check() if isinstance(frame, Nv12) else super()._frame_size(frame)

    # -- the work of a slot ------------------------------------------------------------------------

    def _send(self, slot: FrameEngineSlot, frame: Any) -> None:
        """Start the work on a frame of any size; do not wait for it."""
        self._fill(slot, frame)

    def _fill(self, slot: FrameEngineSlot, frame: Image | Nv12, alpha: float | None = None) -> None:
        """Start the work on a frame; with ``alpha`` it is painted, too. Do not wait for it."""
        height, width = self._frame_size(frame)
        planes: list[Image]
        if isinstance(frame, Nv12):
            planes = [frame.luma, frame.chroma]
            picture = Picture(height, width, frame.matrix, frame.full_range)
        else:
            planes = [frame]
            picture = Picture(height, width)

        # A graph is for one format, size and weight.
        if (picture, alpha) != (slot.picture, slot.alpha):
            self._forget(slot)
            slot.picture = picture
            slot.alpha = alpha

        self._grow(slot, slot.frame, picture.size)
        self._grow(slot, slot.labels, height * width)
        self._grow(slot, slot.painted, 0 if alpha is None else 3 * height * width)

        # Copy the planes, one behind the other.
        start = 0
        for plane in planes:
            slot.frame.host[start : start + plane.size].reshape(plane.shape)[:] = plane
            start += plane.size
        self._begin(slot)

    def _grow(self, slot: FrameEngineSlot, buffer: Buffer, size: int) -> None:
        """Make room for ``size`` bytes in a buffer of a slot that is not at work."""
        if size <= buffer.host.size:
            return
        self._forget(slot)  # its graph contains the old addresses

        # Give the old memory back, unless a caller has it.
        memory = self._memory
        old = Buffer(buffer.host, buffer.device, buffer.lent)
        buffer.host = _NONE
        buffer.device = 0
        buffer.lent = False
        if old.host.size and not old.lent:
            if not self._zero_copy:
                memory.give_back(old.device)
            memory.give_back_host(old.host)

        # Allocate both parts before either is stored.
        device = 0 if self._zero_copy else memory.on_device(size)
        host = memory.on_host(size)
        buffer.device = self._cuda.mapped(host) if self._zero_copy else device
        buffer.host = host

    def _enqueue(self, slot: FrameEngineSlot) -> None:
        """Enqueue the copy of the frame, kernels, network, and the copies of the results."""
        picture = slot.picture
        assert picture is not None
        gpu = self._cuda
        pixels = picture.height * picture.width
        if not self._zero_copy:
            gpu.to_device(slot.frame.device, slot.frame.host[: picture.size], slot.stream)

        self._run(slot, picture, picture.planes(slot.frame.device), slot.alpha)

        if not self._zero_copy:
            gpu.to_host(slot.labels.host[:pixels], slot.labels.device, slot.stream)
            if slot.alpha is not None:
                gpu.to_host(slot.painted.host[: 3 * pixels], slot.painted.device, slot.stream)

    def _run(
        self,
        slot: FrameEngineSlot,
        picture: Picture,
        planes: tuple[Plane, ...],
        alpha: float | None,
    ) -> None:
        """Enqueue the kernel before the network, the network, and the kernel after it."""
        handle = self._cuda.handle(slot.stream)
        self._kernels.preprocess(picture, planes, slot.tensor, handle)
        self._execute(slot)

        classes = len(self.spec.labels)
        scores = Scores(slot.scores, self._half_scores, classes, *self.spec.input_size)
        painting: dict[str, Any] = {}
        if alpha is not None:
            painting = {"painted": slot.painted.device, "palette": self._palette, "alpha": alpha}
        self._kernels.overlay(scores, picture, planes, slot.labels.device, handle, **painting)

    def _receive(self, slot: FrameEngineSlot) -> Image:
        """Wait for a slot; return its labels, (H, W) uint8 that the caller owns."""
        self._wait(slot)
        assert slot.picture is not None
        size = slot.picture.height, slot.picture.width
        return np.array(slot.labels.host[: math.prod(size)].reshape(size))

    # -- frames on the device ----------------------------------------------------------------------

    def on_device(self, frame: Any, alpha: float | None = None) -> DeviceLabels:
        """Label a frame that is on the device; the results stay there.

        The frame need not be complete: the engine waits for the work that is in the stream of the
        frame's producer. If a ``__cuda_array_interface__`` names no stream, the caller must wait.

        Parameters
        ----------
        frame : (H, W, 3) uint8 BGR, or an ``Nv12`` of two such arrays, of any size; rows may be
            padded. An array has ``__dlpack__`` (torch, cupy, jax) or ``__cuda_array_interface__``
            (numba, pycuda).
        alpha : weight of the colours, 0 to 1; the frame is then painted, too.

        Returns
        -------
        Labels (H, W) uint8, complete, with both interfaces. Their ``scores`` are at the network's
        size, in float16 if the plan returns that; their ``picture`` is there if the frame was
        painted. The next call overwrites all of them, and ``close`` frees their memory.

        Raises
        ------
        InputError : not a frame on the device, or not a weight.
        EngineError : a stream uses the engine, or the engine is closed.
        """
        if alpha is not None:
            _check_alpha(alpha)

        with self._turn:
            self._require_ready()
            slot = self._slots[0]

            # Borrow the frame's memory.
            arrays = (frame.luma, frame.chroma) if isinstance(frame, Nv12) else (frame,)
            found = [borrow(array, self._cuda, slot.stream) for array in arrays]
            picture = _picture(frame, found)
            planes = tuple(Plane(one.pointer, _pitch(one)) for one in found)

            # Run the kernels and the network.
            pixels = picture.height * picture.width
            self._grow(slot, slot.labels, pixels)
            self._grow(slot, slot.painted, 0 if alpha is None else 3 * pixels)
            self._cuda.record(slot.begun, slot.stream)
            self._run(slot, picture, planes, alpha)
            self._cuda.record(slot.done, slot.stream)
            self._wait(slot)
            return self._lent(slot, picture, alpha is not None)

    def _lent(self, slot: FrameEngineSlot, picture: Picture, is_painted: bool) -> DeviceLabels:
        """Return the results of a slot as arrays on the device, and mark their buffers as lent."""
        size = (picture.height, picture.width)
        slot.labels.lent = True
        painted = None
        if is_painted:
            slot.painted.lent = True
            painted = DeviceArray(slot.painted.device, (*size, 3), "|u1", self)

        shape = (len(self.spec.labels), *self.spec.input_size)
        scores = DeviceArray(slot.scores, shape, "<f2" if self._half_scores else "<f4", self)
        return DeviceLabels(slot.labels.device, size, "|u1", self, scores, painted)


def _bytes_each(is_half: bool) -> int:
    """Return the number of bytes of a float16 or a float32."""
    return 2 if is_half else 4


def _picture(frame: Any, found: list[Borrowed]) -> Picture:
    """Return the format of a frame on the device; raise ``InputError`` if it is none."""
    got = "; ".join(f"{one.shape} {one.typestr}" for one in found)
    shapes = [one.shape for one in found]
    if any(one.typestr != "|u1" for one in found):
        raise InputError("not a frame on the device", got=got, expected="uint8")

    if isinstance(frame, Nv12):
        height, width = check_planes(shapes[0], shapes[1])
        return Picture(height, width, frame.matrix, frame.full_range)

    if len(shapes[0]) != 3 or shapes[0][2] != 3 or 0 in shapes[0]:
        raise InputError("not a frame on the device", got=got, expected="(H, W, 3) uint8, BGR")
    return Picture(shapes[0][0], shapes[0][1])


def _pitch(array: Borrowed) -> int:
    """Return the bytes from one row to the next.

    Raises ``InputError`` if the pixels of a row are not contiguous, or if rows go upwards.
    """
    shape = array.shape
    row = math.prod(shape[1:])
    if array.strides is None:
        return row

    inner = (1,) if len(shape) == 2 else (shape[2], 1)
    is_contiguous = tuple(array.strides[1:]) == inner
    overlaps = array.strides[0] < row and shape[0] > 1
    if not is_contiguous or overlaps:
        raise InputError(
            "not rows of pixels",
            got=f"{shape}, strides {array.strides}",
            expected=f"strides (pitch, {inner})",
            hint="Copy it: rows may be padded, pixels not.",
        )
    return max(int(array.strides[0]), row)


def _check_alpha(alpha: float) -> None:
    """Raise ``InputError`` unless ``alpha`` is 0 to 1."""
    if not 0.0 <= alpha <= 1.0:
        raise InputError("not a weight of colours", got=alpha, expected="0 to 1")
