"""A plan on the GPU with a ring of slots, so that copies overlap computing, each replaying a CUDA graph of its way."""

import contextlib
import weakref
from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from edgeseg.backends.base import VERSION_COMPATIBLE
from edgeseg.backends.engine import Engine, as_bgr
from edgeseg.backends.tensorrt import cuda
from edgeseg.backends.tensorrt.bindings import Library
from edgeseg.backends.tensorrt.builder import plugin_is_loaded
from edgeseg.errors import EngineError
from edgeseg.imaging.preprocess import check_frame, resize_labels
from edgeseg.passport import Passport
from edgeseg.types import Image

ALIGNMENT = 256  # bytes, of the address of every tensor (IExecutionContext::setTensorAddress, NvInferRuntime.h)
SLOTS = 3  # one is filled, one computed, one read
SETTLED = 3  # runs of one way in a row before it is captured


@dataclass(kw_only=True)
class Slot:
    """One frame, or batch, on its way. ``runs`` is how often it ran the same way in a row; ``graph`` replays it."""

    context: Any
    stream: Any
    begun: Any
    done: Any
    runs: int = 0
    tried: bool = False  # to capture this way
    graph: Any = None


AnySlot = TypeVar("AnySlot", bound=Slot)


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

    def give_back(self, pointer: int) -> None:
        """Give device memory back before the engine goes."""
        self._device.remove(pointer)
        self._gpu.free(pointer)

    def give_back_host(self, host: Image) -> None:
        """Give page-locked memory back before the engine goes."""
        self._host = [kept for kept in self._host if kept is not host]
        self._gpu.free_host(host)

    def release(self) -> None:
        """Give it all back."""
        while self._device:
            self._gpu.free(self._device.pop())
        while self._host:
            self._gpu.free_host(self._host.pop())


class PipelinedEngine(Engine, Generic[AnySlot]):
    """What the runners share: a plan opened, memory that goes with it, slots and their graphs, a stream of frames.

    Calls from several threads take turns.
    """

    def __init__(
        self, passport: Passport, plan: bytes, library: Library, device: cuda.Cuda | None, zero_copy: bool | None
    ) -> None:
        super().__init__(passport)
        self._streaming = False
        self._cuda = device or cuda.binding()
        self._zero_copy = cuda.is_integrated() if zero_copy is None else zero_copy
        self._runtime = library.trt.Runtime(library.log.logger)
        if VERSION_COMPATIBLE in passport.settings:
            self._runtime.engine_host_code_allowed = True  # the plan brings its runtime, and the plugin
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            hint = f"Build it again: `build_engine({passport.name}.onnx, target={library.target})`."
            if VERSION_COMPATIBLE in passport.settings and plugin_is_loaded():
                hint = (
                    "It brings the plugin along, which this process has loaded for another: open it in one of its own."
                )
            raise EngineError(
                f"{passport.name}: {library.target} cannot open the engine",
                got=library.log.last_error() or "no reason given", hint=hint,
            )  # fmt: skip
        self._gpu_ms = float("nan")
        self._memory = Memory(self._cuda)
        weakref.finalize(self, self._memory.release)
        self._slots: list[AnySlot] = []

    @property
    def gpu_milliseconds(self) -> float:
        """What the last frame took on the device, copies included; NaN before the first."""
        return self._gpu_ms

    def _require_tensors(self, found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> None:
        if found != expected:
            raise EngineError(f"{self.passport.name}: is no edgeseg plan", got=found, expected=expected)

    def _tensors(self) -> dict[str, tuple[int, ...]]:
        """The shape that the plan says each of its tensors has."""
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        return {name: tuple(self._engine.get_tensor_shape(name)) for name in names}

    def _context(self, *config: Any) -> Any:
        context = self._engine.create_execution_context(*config)
        if context is None:
            hint = "Close what else runs on it."
            raise EngineError(f"{self.passport.name}: the GPU has no room for the engine", hint=hint)
        return context

    def _point(self, context: Any, name: str, pointer: int) -> None:
        """Give a context the address of a tensor: TensorRT keeps the one before where it refuses."""
        if not context.set_tensor_address(name, pointer):
            raise EngineError(
                f"{self.passport.name}: TensorRT does not take the address of {name}", got=hex(pointer),
                expected=f"a multiple of {ALIGNMENT}",
            )  # fmt: skip

    # -- a slot's way --------------------------------------------------------------------------------------------------

    @abstractmethod
    def _enqueue(self, slot: AnySlot) -> None:
        """Give the slot's stream its whole way: copies, kernels, the net."""

    def _execute(self, slot: AnySlot) -> None:
        """Give the slot's stream the net."""
        if not slot.context.execute_async_v3(self._cuda.handle(slot.stream)):
            raise EngineError(f"{self.passport.name}: TensorRT could not run the engine")

    def _capture(self, slot: AnySlot) -> None:
        """Keep a slot's way as a graph; where it cannot be captured, or not whole, it is enqueued each time."""
        gpu, slot.tried, whole = self._cuda, True, False
        gpu.begin_capture(slot.stream)
        with contextlib.suppress(EngineError):  # the capture is ended either way
            self._enqueue(slot)
            whole = True
        with contextlib.suppress(EngineError):
            graph = gpu.end_capture(slot.stream)
            if whole:
                slot.graph = graph
            else:
                gpu.drop(graph)

    def _forget(self, slot: AnySlot) -> None:
        """A slot goes another way from here on."""
        if slot.graph is not None:
            self._cuda.drop(slot.graph)
        slot.runs, slot.tried, slot.graph = 0, False, None

    def _begin(self, slot: AnySlot) -> None:
        """Start what is in the slot's frame on its way."""
        if slot.runs >= SETTLED and not slot.tried and self._cuda.has_graphs:
            self._capture(slot)
        self._cuda.record(slot.begun, slot.stream)
        if slot.graph is not None:
            self._cuda.launch(slot.graph, slot.stream)
        else:
            self._enqueue(slot)
        slot.runs += 1
        self._cuda.record(slot.done, slot.stream)

    def _wait(self, slot: AnySlot) -> None:
        """Wait for a slot, and note what it took."""
        self._cuda.wait(slot.done)
        self._gpu_ms = self._cuda.milliseconds(slot.begun, slot.done)

    # -- many frames ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def _send(self, slot: AnySlot, frame: Any) -> None:
        """Start a frame of any size on its way."""

    @abstractmethod
    def _receive(self, slot: AnySlot) -> Image:
        """Wait for a slot; its labels (H, W) uint8, the caller's to keep."""

    def _frame_size(self, frame: Any) -> tuple[int, int]:
        """(H, W) of a frame. Raises ``InputError`` for what is none."""
        check_frame(frame)
        return frame.shape[0], frame.shape[1]

    def stream(self, frames: Iterable[Any]) -> Iterator[Image]:
        """Label frames of any size, in their order, ``SLOTS`` of them on their way at a time.

        Frames are what a call takes: (H, W, 3) uint8 BGR, or ``Nv12``; yields (H, W) uint8. The engine is this
        iterator's until it is exhausted or closed: other calls raise ``EngineError``.
        """
        with self._turn:
            self._require_idle()
            self._streaming = True
        waiting: deque[tuple[AnySlot, tuple[int, int]]] = deque()
        free = list(self._slots)
        try:
            for given in frames:
                frame = given if self.takes_nv12 else as_bgr(given)
                size = self._frame_size(frame)
                if free:
                    slot, labels = free.pop(), None
                else:
                    slot, shape = waiting.popleft()
                    labels = self._receive(slot), shape
                self._send(slot, frame)
                waiting.append((slot, size))
                if labels is not None:
                    yield resize_labels(*labels)
            while waiting:
                slot, shape = waiting.popleft()
                yield resize_labels(self._receive(slot), shape)
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
