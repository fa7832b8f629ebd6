"""A TensorRT plan, open: uint8 frames of the plan's own sizes in, label maps out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeseg.backends.base import LABELS_AND_SCORES, OUTPUTS
from edgeseg.backends.tensorrt import cuda
from edgeseg.backends.tensorrt.bindings import Library
from edgeseg.backends.tensorrt.device_array import DeviceArray, DeviceLabels, borrow
from edgeseg.backends.tensorrt.pipelined import ALIGNMENT, SLOTS, PipelinedEngine, Slot
from edgeseg.backends.tensorrt.profiles import Profile
from edgeseg.errors import EngineError, InputError
from edgeseg.imaging.preprocess import check_frame, resize_frame, resize_labels
from edgeseg.passport import Passport
from edgeseg.types import Float, Image


@dataclass(kw_only=True)
class FrameSlot(Slot):
    """The buffers of a slot: page-locked host memory and what the device reads and writes.

    On an integrated GPU these are the same memory, and nothing is copied. ``shape`` is the (N, H, W) its context is set
    to. ``scores``, where the plan gives them, stay on the device: TensorRT may read there what it finds the labels by.
    """

    host_frame: Image
    host_labels: Image
    frame: int
    labels: int
    shape: tuple[int, int, int]
    scores: int = 0


class TensorRTEngine(PipelinedEngine[FrameSlot]):
    """A plan on the GPU. Calls from several threads take turns.

    ``stream`` labels many frames with copies and computing overlapped; ``on_device`` takes and gives device arrays.
    ``logits`` needs a plan built with scores, and alone copies them to the host.

    A plan for a range of batches labels a batch (N, H, W, 3) as many frames at a time as it takes; fewer than it takes
    at least are filled up with the last one. A plan for a range of sizes runs a frame in that range whose height and
    width are multiples of the plan's step (``size_step`` of the passport's settings) at its own size; any other is
    resized to ``spec.input_size``, as every frame is without a range. The label map has the frame's size either way.
    """

    def __init__(
        self,
        passport: Passport,
        plan: bytes,
        library: Library,
        *,
        device: cuda.Cuda | None = None,
        zero_copy: bool | None = None,
    ) -> None:
        with library.log.heard():
            super().__init__(passport, plan, library, device, zero_copy)
            self._has_scores = passport.settings.get(OUTPUTS) == LABELS_AND_SCORES
            self._ranges = Profile.read(passport.settings)
            self._check_tensors()
            self._config = self._runtime_config(library.trt)
            self._slots = [self._slot() for _ in range(SLOTS)]
            most = self._ranges.shapes(passport.spec.input_size)[2]
            self._host_scores = self._memory.on_host(self._scores_bytes(most[1:3])) if self._has_scores else None

    def _scores_bytes(self, shape: tuple[int, ...]) -> int:
        """The size of the scores of (N, H, W) pixels."""
        return 4 * len(self.spec.labels) * math.prod(shape)

    def _check_tensors(self) -> None:
        own = self.spec.input_size
        frame = self._ranges.tensor(own)
        expected: dict[str, tuple[int, ...]] = {"frame": frame, "labels": frame[:3]}
        if self._has_scores:
            expected["scores"] = (frame[0], len(self.spec.labels), *frame[1:3])
        found = {name: self._ranges.told(shape, own) for name, shape in self._tensors().items()}
        self._require_tensors(found, expected)

    def _runtime_config(self, trt: Any) -> tuple[Any, ...]:
        """What a context is made with, beside the defaults."""
        strategies = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
        if strategies is None or not self._ranges.any:
            return ()
        # TensorRT-RTX runs a new shape by slow kernels until it has made better ones: those would be captured.
        config = self._engine.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        return (config,)

    def _slot(self) -> FrameSlot:
        """Buffers, a context and a stream; run once so that everything is loaded, then captured."""
        gpu = self._cuda
        largest = self._ranges.shapes(self.spec.input_size)[2]
        pixels = math.prod(largest[:3])
        context = self._context(*self._config)
        host_frame, host_labels = self._memory.on_host(3 * pixels), self._memory.on_host(pixels)
        if self._zero_copy:
            frame, labels = gpu.mapped(host_frame), gpu.mapped(host_labels)
        else:
            frame, labels = self._memory.on_device(3 * pixels), self._memory.on_device(pixels)
        shape = (self._ranges.batch[0], *self.spec.input_size)
        slot = FrameSlot(
            context=context, stream=gpu.stream(), begun=gpu.event(), done=gpu.event(), host_frame=host_frame,
            host_labels=host_labels, frame=frame, labels=labels, shape=shape,
        )  # fmt: skip
        self._point(context, "frame", frame)
        self._point(context, "labels", labels)
        if self._has_scores:
            slot.scores = self._memory.on_device(self._scores_bytes(largest[:3]))
            self._point(context, "scores", slot.scores)
        if self._ranges.any:
            self._set_shape(slot, shape)
        host_frame[:] = 0
        self._begin(slot)
        gpu.wait(slot.done)
        if gpu.has_graphs:
            self._capture(slot)
        return slot

    def _set_shape(self, slot: FrameSlot, shape: tuple[int, int, int]) -> None:
        """Set a slot's context to (N, H, W)."""
        if not slot.context.set_input_shape("frame", (*shape, 3)):
            raise EngineError(f"{self.passport.name}: the plan does not take frames of this shape", got=shape)
        # A graph belongs to the state its context had for one shape; a new shape changes that, so one graph is kept.
        self._forget(slot)
        slot.shape = shape

    def _enqueue(self, slot: FrameSlot) -> None:
        pixels = math.prod(slot.shape)
        if not self._zero_copy:
            self._cuda.to_device(slot.frame, slot.host_frame[: 3 * pixels], slot.stream)
        self._execute(slot)
        if not self._zero_copy:
            self._cuda.to_host(slot.host_labels[:pixels], slot.labels, slot.stream)

    def _fetch(self, slot: FrameSlot) -> Image:
        """Wait for a slot; (N, H, W) uint8, the caller's to keep."""
        self._wait(slot)
        return np.array(slot.host_labels[: math.prod(slot.shape)].reshape(slot.shape))

    def _fill(self, slot: FrameSlot, frames: Sequence[Image]) -> None:
        """Start frames (H, W, 3) of one size on their way."""
        shape = (max(len(frames), self._ranges.batch[0]), *frames[0].shape[:2])
        if shape != slot.shape:
            self._set_shape(slot, shape)
        host = slot.host_frame[: 3 * math.prod(shape)].reshape(*shape, 3)
        for place, frame in enumerate(frames):
            host[place] = frame
        host[len(frames) :] = frames[-1]
        self._begin(slot)

    def _size(self, frame: Image) -> tuple[int, int]:
        return self._own_size(frame.shape)

    def _own_size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """The size (H, W) that a frame of ``shape`` runs at."""
        if len(shape) == 3 and self._ranges.takes((shape[0], shape[1])):
            return shape[0], shape[1]
        return self.spec.input_size

    def _labels(self, frame: Image) -> Image:
        self._require_idle()
        slot = self._slots[0]
        self._fill(slot, [frame])
        return self._receive(slot)

    def _batch(self, frames: Image) -> Image:
        most = self._ranges.batch[2]
        if most == 1:
            return super()._batch(frames)
        check_frame(frames[0])
        size, labels = self._size(frames[0]), list[Image]()
        chunks = [frames[start : start + most] for start in range(0, len(frames), most)]
        with self._turn:
            self._require_idle()
            for start in range(0, len(chunks), SLOTS):
                going = list(zip(self._slots, chunks[start:], strict=False))
                for slot, chunk in going:
                    self._fill(slot, [resize_frame(frame, size) for frame in chunk])
                for slot, chunk in going:
                    labels.extend(self._fetch(slot)[: len(chunk)])
        return np.stack([resize_labels(one, frames.shape[1:3]) for one in labels])

    def _logits(self, frame: Image) -> Float:
        if self._host_scores is None:
            name, target = self.passport.name, self.passport.target
            raise EngineError(
                f"{name}: this TensorRT plan gives label maps, no scores",
                hint=f"Build it with them: `build_engine({name}.onnx, target={target}, scores=True)`.",
            )
        self._require_idle()
        slot = self._slots[0]
        self._fill(slot, [frame])
        size = frame.shape[:2]
        host = self._host_scores[: self._scores_bytes(size)]  # of the first frame, where the plan takes several
        self._cuda.to_host(host, slot.scores, slot.stream)
        self._cuda.record(slot.done, slot.stream)
        self._wait(slot)
        return np.array(host.view(np.float32).reshape(len(self.spec.labels), *size))

    def _send(self, slot: FrameSlot, frame: Image) -> None:
        self._fill(slot, [resize_frame(frame, self._size(frame))])

    def _receive(self, slot: FrameSlot) -> Image:
        return np.asarray(self._fetch(slot)[0])

    def on_device(self, frame: Any) -> DeviceLabels:
        """Label a frame that is on the device: (H, W, 3) uint8 BGR of a size the plan takes as it is, C-contiguous.

        ``frame`` has ``__dlpack__`` (torch, cupy, jax), or else ``__cuda_array_interface__`` (numba, pycuda). It need
        not be complete: the engine waits for what was given to its stream. An interface that names no stream leaves
        that to the caller. The result has both, and so have its ``scores`` where the plan gives them; it is complete,
        and overwritten by the next call.
        """
        if self._ranges.batch[0] > 1:
            raise InputError(
                f"{self.passport.name}: takes {self._ranges.batch[0]} frames at a time or more",
                got="one on the device", hint="Build a plan that takes one: `batch=1:BEST:LARGEST`.",
            )  # fmt: skip
        with self._turn:
            self._require_idle()
            slot = self._slots[0]
            found = borrow(frame, self._cuda, slot.stream)
            height, width = size = self._own_size(found.shape)
            if found.shape != (height, width, 3) or found.typestr != "|u1" or found.strides not in (
                None, (3 * width, 3, 1),
            ):  # fmt: skip
                raise InputError(
                    "not a frame for this engine", got=f"{found.shape} {found.typestr}, strides {found.strides}",
                    expected=f"({height}, {width}, 3) |u1, contiguous",
                )  # fmt: skip
            if slot.shape != (1, *size):
                self._set_shape(slot, (1, *size))
            its_own = found.pointer % ALIGNMENT == 0  # else, as a frame out of a batch may be, it is copied
            try:
                if its_own:
                    self._point(slot.context, "frame", found.pointer)
                self._cuda.record(slot.begun, slot.stream)
                if not its_own:
                    self._cuda.copy(slot.frame, found.pointer, 3 * height * width, slot.stream)
                self._execute(slot)
                self._cuda.record(slot.done, slot.stream)
                self._wait(slot)
            finally:
                self._point(slot.context, "frame", slot.frame)
            shape = (len(self.spec.labels), height, width)
            scores = DeviceArray(slot.scores, shape, "<f4", self) if self._has_scores else None
            return DeviceLabels(slot.labels, (height, width), "|u1", self, scores)
