"""A TensorRT plan, open: buffers that stay, a ring of slots so that copies overlap computing, a CUDA graph a slot."""

import contextlib
import math
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeseg.artifact import Passport
from edgeseg.errors import EngineError, InputError
from edgeseg.preprocess import check_frame, resize_frame, resize_labels
from edgeseg.runtime.engine import Engine, Float, Image
from edgeseg.runtime.target import LABELS_AND_SCORES, OUTPUTS, VERSION_COMPATIBLE
from edgeseg.runtime.tensorrt import cuda, dlpack
from edgeseg.runtime.tensorrt.library import Library
from edgeseg.runtime.tensorrt.ranges import Ranges

SLOTS = 3  # one is filled, one computed, one read
SETTLED = 3  # runs of one shape in a row before it is captured


@dataclass
class Slot:
    """The buffers of one frame, or batch, on its way: page-locked host memory and what the device reads and writes.

    On an integrated GPU these are the same memory, and nothing is copied. ``shape`` is the (N, H, W) its context is set
    to, ``runs`` how often it ran in a row. ``graph`` replays the slot's whole way at that shape. ``scores``, where the
    plan gives them, stay on the device: TensorRT may read there what it finds the labels by.
    """

    context: Any
    stream: Any
    host_frame: Image
    host_labels: Image
    frame: int
    labels: int
    begun: Any
    done: Any
    shape: tuple[int, int, int]
    runs: int = 0
    tried: bool = False  # to capture this shape
    graph: Any = None
    scores: int = 0


class Memory:
    """What an engine holds, given back with it."""

    def __init__(self, gpu: cuda.Cuda) -> None:
        self._gpu = gpu
        self._device: list[int] = []
        self._host: list[Image] = []

    def on_device(self, size: int) -> int:
        """The address of ``size`` bytes of device memory."""
        self._device.append(self._gpu.allocate(size))
        return self._device[-1]

    def on_host(self, size: int) -> Image:
        """``size`` bytes of page-locked memory."""
        self._host.append(self._gpu.allocate_host(size))
        return self._host[-1]

    def release(self) -> None:
        """Give it all back."""
        while self._device:
            self._gpu.free(self._device.pop())
        while self._host:
            self._gpu.free_host(self._host.pop())


class TensorRTEngine(Engine):
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
        super().__init__(passport)
        self._streaming = False
        self._cuda = device or cuda.binding()
        self._zero_copy = cuda.is_integrated() if zero_copy is None else zero_copy
        with library.log.heard():
            self._runtime = library.trt.Runtime(library.log.logger)
            if VERSION_COMPATIBLE in passport.settings:
                self._runtime.engine_host_code_allowed = True  # the plan brings its runtime, and the plugin
            self._engine = self._runtime.deserialize_cuda_engine(plan)
            if self._engine is None:
                raise EngineError(
                    f"{passport.name}: {library.target} cannot open the engine",
                    got=library.log.last_error() or "no reason given",
                    hint=f"Build it again: edgeseg build-engine {passport.name}.onnx --target {library.target}.",
                )
            self._has_scores = passport.settings.get(OUTPUTS) == LABELS_AND_SCORES
            self._ranges = Ranges.read(passport.settings)
            self._check_tensors()
            self._config = self._runtime_config(library.trt)
            self._gpu_ms = float("nan")
            self._memory = Memory(self._cuda)
            weakref.finalize(self, self._memory.release)
            self._slots = [self._slot() for _ in range(SLOTS)]
            most = self._ranges.shapes(passport.spec.input_size)[2]
            self._host_scores = self._memory.on_host(self._scores_bytes(most[1:3])) if self._has_scores else None

    @property
    def gpu_milliseconds(self) -> float:
        """What the last frame took on the device, copies included; NaN before the first."""
        return self._gpu_ms

    def _scores_bytes(self, shape: tuple[int, ...]) -> int:
        """The size of the scores of (N, H, W) pixels."""
        return 4 * len(self.spec.labels) * math.prod(shape)

    def _check_tensors(self) -> None:
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        own = self.spec.input_size
        found = {name: self._ranges.told(tuple(engine.get_tensor_shape(name)), own) for name in names}
        frame = self._ranges.tensor(own)
        expected: dict[str, tuple[int, ...]] = {"frame": frame, "labels": frame[:3]}
        if self._has_scores:
            expected["scores"] = (frame[0], len(self.spec.labels), *frame[1:3])
        if found != expected:
            raise EngineError(f"{self.passport.name}: is no edgeseg plan", got=found, expected=expected)

    def _runtime_config(self, trt: Any) -> tuple[Any, ...]:
        """What a context is made with, beside the defaults."""
        strategies = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
        if strategies is None or not self._ranges.any:
            return ()
        # TensorRT-RTX runs a new shape by slow kernels until it has made better ones: those would be captured.
        config = self._engine.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        return (config,)

    def _slot(self) -> Slot:
        """Buffers, a context and a stream; run once so that everything is loaded, then captured."""
        gpu = self._cuda
        largest = self._ranges.shapes(self.spec.input_size)[2]
        pixels = math.prod(largest[:3])
        context = self._engine.create_execution_context(*self._config)
        if context is None:
            hint = "Close what else runs on it."
            raise EngineError(f"{self.passport.name}: the GPU has no room for the engine", hint=hint)
        host_frame, host_labels = self._memory.on_host(3 * pixels), self._memory.on_host(pixels)
        if self._zero_copy:
            frame, labels = gpu.mapped(host_frame), gpu.mapped(host_labels)
        else:
            frame, labels = self._memory.on_device(3 * pixels), self._memory.on_device(pixels)
        shape = (self._ranges.batch[0], *self.spec.input_size)
        slot = Slot(context, gpu.stream(), host_frame, host_labels, frame, labels, gpu.event(), gpu.event(), shape)
        context.set_tensor_address("frame", frame)
        context.set_tensor_address("labels", labels)
        if self._has_scores:
            slot.scores = self._memory.on_device(self._scores_bytes(largest[:3]))
            context.set_tensor_address("scores", slot.scores)
        if self._ranges.any:
            self._set_shape(slot, shape)
        host_frame[:] = 0
        self._begin(slot)
        gpu.wait(slot.done)
        if gpu.has_graphs:
            self._capture(slot)
        return slot

    def _set_shape(self, slot: Slot, shape: tuple[int, int, int]) -> None:
        """Set a slot's context to (N, H, W)."""
        if not slot.context.set_input_shape("frame", (*shape, 3)):
            raise EngineError(f"{self.passport.name}: the plan does not take frames of this shape", got=shape)
        # A graph belongs to the state its context had for one shape; a new shape changes that, so one graph is kept.
        if slot.graph is not None:
            self._cuda.drop(slot.graph)
        slot.shape, slot.runs, slot.tried, slot.graph = shape, 0, False, None

    def _capture(self, slot: Slot) -> None:
        """Keep a slot's way as a graph; where the plan cannot be captured it is enqueued each time."""
        gpu, slot.tried = self._cuda, True
        gpu.begin_capture(slot.stream)
        with contextlib.suppress(EngineError):  # the capture is ended either way, and gives an error of its own then
            self._enqueue(slot)
        with contextlib.suppress(EngineError):
            slot.graph = gpu.end_capture(slot.stream)

    def _enqueue(self, slot: Slot) -> None:
        pixels = math.prod(slot.shape)
        if not self._zero_copy:
            self._cuda.to_device(slot.frame, slot.host_frame[: 3 * pixels], slot.stream)
        if not slot.context.execute_async_v3(self._cuda.handle(slot.stream)):
            raise EngineError(f"{self.passport.name}: TensorRT could not run the engine")
        if not self._zero_copy:
            self._cuda.to_host(slot.host_labels[:pixels], slot.labels, slot.stream)

    def _begin(self, slot: Slot) -> None:
        """Start what is in the slot's frame on its way."""
        if slot.runs >= SETTLED and not slot.tried and self._cuda.has_graphs:
            self._capture(slot)
        slot.runs += 1
        self._cuda.record(slot.begun, slot.stream)
        if slot.graph is not None:
            self._cuda.launch(slot.graph, slot.stream)
        else:
            self._enqueue(slot)
        self._cuda.record(slot.done, slot.stream)

    def _wait(self, slot: Slot) -> None:
        """Wait for a slot, and note what it took."""
        self._cuda.wait(slot.done)
        self._gpu_ms = self._cuda.milliseconds(slot.begun, slot.done)

    def _fetch(self, slot: Slot) -> Image:
        """Wait for a slot; (N, H, W) uint8, the caller's to keep."""
        self._wait(slot)
        return np.array(slot.host_labels[: math.prod(slot.shape)].reshape(slot.shape))

    def _fill(self, slot: Slot, frames: Sequence[Image]) -> None:
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
        return np.asarray(self._fetch(slot)[0])

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
                hint=f"Build it with them: edgeseg build-engine {name}.onnx --target {target} --scores.",
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

    def stream(self, frames: Iterable[Image]) -> Iterator[Image]:
        """Label frames of any size, in their order, ``SLOTS`` of them on their way at a time.

        Frames are (H, W, 3) uint8 BGR; yields (H, W) uint8. The engine is this iterator's until it is exhausted or
        closed: other calls raise ``EngineError``.
        """
        with self._turn:
            self._require_idle()
            self._streaming = True
        waiting: deque[tuple[Slot, tuple[int, int]]] = deque()
        free = list(self._slots)
        try:
            for frame in frames:
                check_frame(frame)
                if free:
                    slot, labelled = free.pop(), None
                else:
                    slot, shape = waiting.popleft()
                    labelled = self._fetch(slot)[0], shape
                self._fill(slot, [resize_frame(frame, self._size(frame))])
                waiting.append((slot, (frame.shape[0], frame.shape[1])))
                if labelled is not None:
                    yield resize_labels(*labelled)
            while waiting:
                slot, shape = waiting.popleft()
                yield resize_labels(self._fetch(slot)[0], shape)
        finally:
            for slot, _ in waiting:  # closed early: what is on its way must not write into a reused slot
                self._cuda.wait(slot.done)
            self._streaming = False

    def _require_idle(self) -> None:
        if self._streaming:
            raise EngineError(
                f"{self.passport.name}: is busy with a stream",
                hint="Exhaust or close the stream first, or open the engine twice.",
            )

    def on_device(self, frame: Any) -> "DeviceLabels":
        """Label a frame that is on the device: (H, W, 3) uint8 BGR of a size the plan takes as it is, C-contiguous.

        ``frame`` has ``__dlpack__`` (torch, cupy, jax), or else ``__cuda_array_interface__`` (numba, pycuda). It need
        not be complete: the engine waits for what was given to its stream. An interface that names no stream leaves
        that to the caller. The result has both, and so have its ``scores`` where the plan gives them; it is complete,
        and overwritten by the next call.
        """
        if self._ranges.batch[0] > 1:
            raise InputError(
                f"{self.passport.name}: takes {self._ranges.batch[0]} frames at a time or more",
                got="one on the device", hint="Build a plan that takes one: --batch 1:BEST:LARGEST.",
            )  # fmt: skip
        with self._turn:
            self._require_idle()
            slot = self._slots[0]
            found = self._borrow(frame, slot.stream)
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
            slot.context.set_tensor_address("frame", found.pointer)
            try:
                self._cuda.record(slot.begun, slot.stream)
                if not slot.context.execute_async_v3(self._cuda.handle(slot.stream)):
                    raise EngineError(f"{self.passport.name}: TensorRT could not run the engine")
                self._cuda.record(slot.done, slot.stream)
                self._wait(slot)
            finally:
                slot.context.set_tensor_address("frame", slot.frame)
            shape = (len(self.spec.labels), height, width)
            scores = DeviceArray(slot.scores, shape, "<f4", self) if self._has_scores else None
            return DeviceLabels(slot.labels, (height, width), "|u1", self, scores)

    def _borrow(self, frame: Any, stream: Any) -> dlpack.Borrowed:
        """An array on the device; ``stream`` waits for it."""
        if hasattr(frame, "__dlpack__"):
            return dlpack.borrow(frame, self._cuda.handle(stream))
        facts = getattr(frame, "__cuda_array_interface__", None)
        if facts is None:
            expected = "__dlpack__ or __cuda_array_interface__"
            raise InputError("not a device array", got=type(frame).__name__, expected=expected)
        theirs = facts.get("stream")
        if theirs == 0:
            raise InputError("a stream that the interface does not allow", got=0, expected="1, 2 or a handle")
        if theirs is not None:
            self._cuda.wait_for(int(theirs), stream)
        return dlpack.Borrowed(
            int(facts["data"][0]), tuple(facts["shape"]), facts["typestr"], facts.get("strides"), frame
        )


@dataclass(frozen=True)
class DeviceArray:
    """A C-contiguous array on the device: ``torch.from_dlpack``, ``cupy.asarray`` and others take it as it is."""

    pointer: int
    shape: tuple[int, ...]
    typestr: str
    owner: TensorRTEngine  # keeps the memory

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
    """A label map on the device, (H, W) uint8, and its ``scores`` (classes, H, W) float32 where the plan gives them."""

    scores: DeviceArray | None = None
