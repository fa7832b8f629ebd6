"""Run a TensorRT plan that takes uint8 frames of its own sizes and returns label maps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeseg.backends.tensorrt import cuda
from edgeseg.backends.tensorrt.bindings import Library
from edgeseg.backends.tensorrt.device_array import DeviceArray, DeviceLabels, borrow
from edgeseg.backends.tensorrt.dlpack import Borrowed
from edgeseg.backends.tensorrt.pipelined import ALIGNMENT, PipelinedEngine, Slot
from edgeseg.backends.tensorrt.profiles import Profile
from edgeseg.capabilities import BATCH, DEVICE_ARRAYS, LOGITS, SIZES, STREAMS
from edgeseg.errors import EngineError, InputError
from edgeseg.facts import LABELS_AND_SCORES
from edgeseg.imaging.preprocess import check_frame, resize_frame, resize_labels
from edgeseg.passport import Passport
from edgeseg.types import Float, Image


@dataclass(kw_only=True)
class FrameSlot(Slot):
    """Hold the buffers of a slot. On an integrated GPU host and device share them.

    Attributes
    ----------
    host_frame, host_labels : page-locked host memory, (bytes,) uint8, for the largest shape.
    frame, labels : addresses that the device reads from and writes to.
    shape : the (N, H, W) that the context is set to.
    scores : address of the logits on the device; 0 if the plan has none. They are not in host
        memory even if that is shared, because TensorRT may read them to find the labels.
    """

    host_frame: Image
    host_labels: Image
    frame: int
    labels: int
    shape: tuple[int, int, int]
    scores: int = 0


class TensorRTEngine(PipelinedEngine[FrameSlot]):
    """Run a plan on the GPU. Calls from several threads take turns.

    Every frame is resized to ``spec.input_size``, and its label map to the frame's size. A plan for
    a range of sizes runs a frame at the frame's own size if height and width are in the range and
    are multiples of the plan's step (``size_step`` in the passport).

    A plan for a range of batches labels a batch (N, H, W, 3) in runs of as many frames as it takes.
    If a run has fewer frames than the plan needs, copies of the last frame fill it up.

    Parameters
    ----------
    passport : the engine's passport.
    plan : content of the engine file.
    library : the imported TensorRT.
    device : CUDA binding; the one of ``cuda.binding()`` by default.
    zero_copy : True if the device reads and writes host memory, and nothing is copied. By default
        it is True on an integrated GPU.
    path : the engine file; what TensorRT-RTX compiles is kept beside it. ``None``: nothing is kept.

    Attributes
    ----------
    capabilities : ``STREAMS``; ``LOGITS`` if the plan returns them; ``BATCH`` and ``SIZES`` if it
        is for a range of them; ``DEVICE_ARRAYS`` if it takes a single frame.

    Raises
    ------
    EngineError : the plan cannot be opened, or is not what its passport describes.
    """

    def __init__(
        self,
        passport: Passport,
        plan: bytes,
        library: Library,
        *,
        device: cuda.Cuda | None = None,
        zero_copy: bool | None = None,
        path: Path | None = None,
    ) -> None:
        with library.log.heard():
            self._has_scores = passport.tensorrt.outputs == LABELS_AND_SCORES
            self._ranges = Profile.of(passport.tensorrt)
            super().__init__(
                passport, plan, library, device, zero_copy, path=path, eager=self._ranges.any
            )
            self.capabilities = self._able()
            self._check_tensors()

            self._slots = [self._slot() for _ in range(self._slot_count)]
            self._host_scores: Image | None = None
            if self._has_scores:
                largest = self._ranges.shapes(passport.spec.input_size)[2]
                self._host_scores = self._memory.on_host(self._scores_bytes(largest[1:3]))
            self._keep_compiled()

    def _able(self) -> frozenset[str]:
        """Return the engine's capabilities."""
        able = {STREAMS}
        if self._has_scores:
            able.add(LOGITS)
        if self._ranges.batch[2] > 1:
            able.add(BATCH)
        if self._ranges.batch[0] == 1:
            able.add(DEVICE_ARRAYS)
        if self._ranges.sizes:
            able.add(SIZES)
        return frozenset(able)

    def _scores_bytes(self, shape: tuple[int, ...]) -> int:
        """Return the number of bytes of the logits of (N, H, W) or (H, W) pixels, in float32."""
        return 4 * len(self.spec.labels) * math.prod(shape)

    def _check_tensors(self) -> None:
        """Raise ``EngineError`` unless the plan has the tensors that the passport describes."""
        own = self.spec.input_size
        frame = self._ranges.tensor(own)
        expected: dict[str, tuple[int, ...]] = {"frame": frame, "labels": frame[:3]}
        if self._has_scores:
            expected["scores"] = (frame[0], len(self.spec.labels), *frame[1:3])

        found = {name: self._ranges.told(shape, own) for name, shape in self._tensors().items()}
        self._require_tensors(found, expected)

    # -- slots -------------------------------------------------------------------------------------

    def _slot(self) -> FrameSlot:
        """Create a slot, run it once so that everything is loaded, and capture that work."""
        gpu = self._cuda
        slot = self._allocated()
        if self._ranges.any:
            self._set_shape(slot, slot.shape)

        slot.host_frame[:] = 0
        self._begin(slot)
        gpu.wait(slot.done)
        if gpu.has_graphs:
            self._capture(slot)
        return slot

    def _allocated(self) -> FrameSlot:
        """Create a slot with a context, a stream, and buffers for the largest shape."""
        memory = self._memory
        context = self._context()
        largest = self._ranges.shapes(self.spec.input_size)[2]
        pixels = math.prod(largest[:3])

        # The buffers of the host and of the device.
        host_frame = memory.on_host(3 * pixels)
        host_labels = memory.on_host(pixels)
        if self._zero_copy:
            frame = self._cuda.mapped(host_frame)
            labels = self._cuda.mapped(host_labels)
        else:
            frame = memory.on_device(3 * pixels)
            labels = memory.on_device(pixels)
        scores = memory.on_device(self._scores_bytes(largest[:3])) if self._has_scores else 0

        slot = FrameSlot(
            context=context,
            stream=memory.stream(),
            begun=memory.event(),
            done=memory.event(),
            host_frame=host_frame,
            host_labels=host_labels,
            frame=frame,
            labels=labels,
            shape=(self._ranges.batch[0], *self.spec.input_size),
            scores=scores,
        )

        # Tell the context where they are.
        self._point(context, "frame", frame)
        self._point(context, "labels", labels)
        if self._has_scores:
            self._point(context, "scores", scores)
        return slot

    def _set_shape(self, slot: FrameSlot, shape: tuple[int, int, int]) -> None:
        """Set the context of a slot to (N, H, W)."""
        if not slot.context.set_input_shape("frame", (*shape, 3)):
            raise EngineError(
                f"{self.passport.name}: the plan does not take frames of this shape", got=shape
            )

        # A graph belongs to the state that its context had for one shape. A new shape changes the
        # state, so only one graph is kept.
        self._forget(slot)
        slot.shape = shape

    def _enqueue(self, slot: FrameSlot) -> None:
        """Enqueue the copy of the frame, the network, and the copy of the labels."""
        pixels = math.prod(slot.shape)
        if not self._zero_copy:
            self._cuda.to_device(slot.frame, slot.host_frame[: 3 * pixels], slot.stream)
        self._execute(slot)
        if not self._zero_copy:
            self._cuda.to_host(slot.host_labels[:pixels], slot.labels, slot.stream)

    def _fill(self, slot: FrameSlot, frames: Sequence[Image]) -> None:
        """Start the work on frames (H, W, 3) of one size; do not wait for it."""
        height, width = frames[0].shape[:2]
        shape = (max(len(frames), self._ranges.batch[0]), height, width)
        if shape != slot.shape:
            self._set_shape(slot, shape)

        host = slot.host_frame[: 3 * math.prod(shape)].reshape(*shape, 3)
        for place, frame in enumerate(frames):
            host[place] = frame
        host[len(frames) :] = frames[-1]
        self._begin(slot)

    def _fetch(self, slot: FrameSlot) -> Image:
        """Wait for a slot; return its labels, (N, H, W) uint8 that the caller owns."""
        self._wait(slot)
        return np.array(slot.host_labels[: math.prod(slot.shape)].reshape(slot.shape))

    def _send(self, slot: FrameSlot, frame: Image) -> None:
        """Start the work on a frame of any size; do not wait for it."""
        self._fill(slot, [resize_frame(frame, self._size(frame))])

    def _receive(self, slot: FrameSlot) -> Image:
        """Wait for a slot; return its labels, (H, W) uint8 that the caller owns."""
        return np.asarray(self._fetch(slot)[0])

    # -- calls -------------------------------------------------------------------------------------

    def _size(self, frame: Image) -> tuple[int, int]:
        """Return the (H, W) that ``frame`` is resized to before it runs."""
        return self._own_size(frame.shape)

    def _own_size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the size (H, W) that a frame of ``shape`` runs at."""
        if len(shape) == 3 and self._ranges.takes((shape[0], shape[1])):
            return shape[0], shape[1]
        return self.spec.input_size

    def _labels(self, frame: Image) -> Image:
        """Label a frame (H, W, 3) uint8 of ``_size``; return (H, W) uint8."""
        slot = self._slots[0]
        self._fill(slot, [frame])
        return self._receive(slot)

    def _batch(self, frames: Image) -> Image:
        """Label frames (N, H, W, 3), as many in one run as the plan takes; return (N, H, W)."""
        most = self._ranges.batch[2]
        if most == 1:
            return super()._batch(frames)

        check_frame(frames[0])
        size = self._size(frames[0])
        chunks = [frames[start : start + most] for start in range(0, len(frames), most)]
        labels: list[Image] = []
        with self._turn:
            self._require_ready()
            for start in range(0, len(chunks), len(self._slots)):
                # Start one chunk in each slot, then read them all.
                at_work = list(zip(self._slots, chunks[start:], strict=False))
                for slot, chunk in at_work:
                    self._fill(slot, [resize_frame(frame, size) for frame in chunk])
                for slot, chunk in at_work:
                    labels.extend(self._fetch(slot)[: len(chunk)])
        return np.stack([resize_labels(one, frames.shape[1:3]) for one in labels])

    def _no_logits(self) -> EngineError:
        """Return the error of ``logits`` for a plan that was built without them."""
        name = self.passport.name
        target = self.passport.target
        return EngineError(
            f"{name}: this TensorRT plan gives label maps, no scores",
            hint=f"Build it with them: `build_engine({name}.onnx, target={target}, scores=True)`.",
        )

    def _logits(self, frame: Image) -> Float:
        """Return the logits of a frame at the input size, (classes, H, W) float32."""
        assert self._host_scores is not None  # `logits` asks the capabilities first
        slot = self._slots[0]
        self._fill(slot, [frame])

        # Copy the logits of the first frame, also if the plan takes several.
        height, width = frame.shape[:2]
        host = self._host_scores[: self._scores_bytes((height, width))]
        self._cuda.to_host(host, slot.scores, slot.stream)
        self._cuda.record(slot.done, slot.stream)
        self._wait(slot)
        return np.array(host.view(np.float32).reshape(len(self.spec.labels), height, width))

    # -- frames on the device ----------------------------------------------------------------------

    def on_device(self, frame: Any) -> DeviceLabels:
        """Label a frame that is on the device; the labels stay there.

        The frame need not be complete: the engine waits for the work that is in the stream of the
        frame's producer. If a ``__cuda_array_interface__`` names no stream, the caller must wait.

        Parameters
        ----------
        frame : (H, W, 3) uint8 BGR, C-contiguous, of a size that the plan takes without resizing.
            It has ``__dlpack__`` (torch, cupy, jax) or ``__cuda_array_interface__`` (numba,
            pycuda).

        Returns
        -------
        Labels (H, W) uint8, complete, with both interfaces; also their ``scores``, if the plan
        returns them. The next call overwrites them, and ``close`` frees their memory.

        Raises
        ------
        InputError : not such a frame, or the plan takes only batches of several frames.
        EngineError : a stream uses the engine, or the engine is closed.
        """
        least = self._ranges.batch[0]
        if least > 1:
            raise InputError(
                f"{self.passport.name}: takes {least} frames at a time or more",
                got="one on the device",
                hint="Build a plan that takes one: `batch=1:BEST:LARGEST`.",
            )

        with self._turn:
            self._require_ready()
            slot = self._slots[0]
            found = borrow(frame, self._cuda, slot.stream)
            size = self._own_size(found.shape)
            _check_borrowed(found, size)
            if slot.shape != (1, *size):
                self._set_shape(slot, (1, *size))

            self._run_in_place(slot, found)
            return self._device_labels(slot, size)

    def _run_in_place(self, slot: FrameSlot, found: Borrowed) -> None:
        """Run the network on borrowed memory, and wait for it.

        TensorRT reads the memory where it is. If the address is not aligned, as for a frame out of
        a batch, the memory is copied first.
        """
        is_aligned = found.pointer % ALIGNMENT == 0
        try:
            if is_aligned:
                self._point(slot.context, "frame", found.pointer)
            self._cuda.record(slot.begun, slot.stream)
            if not is_aligned:
                size = math.prod(found.shape)
                self._cuda.copy(slot.frame, found.pointer, size, slot.stream)
            self._execute(slot)
            self._cuda.record(slot.done, slot.stream)
            self._wait(slot)
        finally:
            self._point(slot.context, "frame", slot.frame)

    def _device_labels(self, slot: FrameSlot, size: tuple[int, int]) -> DeviceLabels:
        """Return the result of a slot as arrays on the device."""
        scores = None
        if self._has_scores:
            shape = (len(self.spec.labels), *size)
            scores = DeviceArray(slot.scores, shape, "<f4", self)
        return DeviceLabels(slot.labels, size, "|u1", self, scores)


def _check_borrowed(found: Borrowed, size: tuple[int, int]) -> None:
    """Raise ``InputError`` unless an array is (H, W, 3) uint8 of ``size``, C-contiguous."""
    height, width = size
    contiguous = (None, (3 * width, 3, 1))
    is_frame = found.shape == (height, width, 3) and found.typestr == "|u1"
    if not is_frame or found.strides not in contiguous:
        raise InputError(
            "not a frame for this engine",
            got=f"{found.shape} {found.typestr}, strides {found.strides}",
            expected=f"({height}, {width}, 3) |u1, contiguous",
        )
