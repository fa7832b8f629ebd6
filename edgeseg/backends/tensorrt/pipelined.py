"""Run a TensorRT plan in a ring of slots, so that copies overlap computing.

Each slot holds one frame, or one batch, with its own buffers, stream and execution context. A slot
captures its work in a CUDA graph and replays it.
"""

import contextlib
import gc
import weakref
from abc import abstractmethod
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from edgeseg.backends.engine import Engine, as_bgr
from edgeseg.backends.tensorrt import cuda
from edgeseg.backends.tensorrt.bindings import Library, start
from edgeseg.backends.tensorrt.builder import plugin_is_loaded
from edgeseg.backends.tensorrt.runtime_cache import RuntimeCache, cache_path
from edgeseg.capabilities import NV12
from edgeseg.errors import EngineError
from edgeseg.imaging.preprocess import check_frame, resize_labels
from edgeseg.passport import Passport
from edgeseg.types import Image

# Address of every tensor, in bytes (IExecutionContext::setTensorAddress, NvInferRuntime.h).
ALIGNMENT = 256
SLOTS = 3  # one is filled, one computed, one read
# On an integrated GPU nothing is copied, and every context takes memory from the processor.
SLOTS_INTEGRATED = 2
SETTLED = 3  # equal runs in a row before a slot's work is captured


@dataclass(kw_only=True)
class Slot:
    """Hold one frame, or one batch, while it is processed.

    Attributes
    ----------
    context : TensorRT's execution context.
    stream : CUDA stream of the slot's work.
    begun, done : CUDA events before and after that work.
    runs : how often the work was the same in a row.
    tried : True if a capture of this work was tried.
    graph : CUDA graph that replays the work; ``None`` if it is not captured.
    """

    context: Any
    stream: Any
    begun: Any
    done: Any
    runs: int = 0
    tried: bool = False
    graph: Any = None


AnySlot = TypeVar("AnySlot", bound=Slot)


class Memory:
    """Hold the memory, streams and events of an engine, and give them back together.

    Parameters
    ----------
    gpu : the CUDA binding that allocates and frees.
    """

    def __init__(self, gpu: cuda.Cuda) -> None:
        self._gpu = gpu
        self._device: list[int] = []
        self._host: list[Image] = []
        self._streams: list[Any] = []
        self._events: list[Any] = []

    def on_device(self, size: int) -> int:
        """Allocate ``size`` bytes of device memory and return their address."""
        pointer = self._gpu.allocate(size)
        self._device.append(pointer)
        return pointer

    def on_host(self, size: int) -> Image:
        """Allocate ``size`` bytes of page-locked memory and return them, (size,) uint8."""
        host = self._gpu.allocate_host(size)
        self._host.append(host)
        return host

    def stream(self) -> Any:
        """Create a stream and return it."""
        stream = self._gpu.stream()
        self._streams.append(stream)
        return stream

    def event(self) -> Any:
        """Create an event that records the time, and return it."""
        event = self._gpu.event()
        self._events.append(event)
        return event

    def give_back(self, pointer: int) -> None:
        """Free device memory before the rest."""
        self._device.remove(pointer)
        self._gpu.free(pointer)

    def give_back_host(self, host: Image) -> None:
        """Free page-locked memory before the rest."""
        self._host = [kept for kept in self._host if kept is not host]
        self._gpu.free_host(host)

    def release(self) -> None:
        """Free all memory, then destroy the streams and events. A second call does nothing."""
        while self._device:
            self._gpu.free(self._device.pop())
        while self._host:
            self._gpu.free_host(self._host.pop())
        while self._streams:
            self._gpu.drop_stream(self._streams.pop())
        while self._events:
            self._gpu.drop_event(self._events.pop())


class PipelinedEngine(Engine, Generic[AnySlot]):
    """Open a plan, and run it in slots. Base class of both TensorRT engines.

    Calls from several threads take turns.

    Parameters
    ----------
    passport : the engine's passport.
    plan : content of the engine file.
    library : the imported TensorRT.
    device : CUDA binding; the one of ``cuda.binding()`` by default.
    zero_copy : True if the device reads and writes host memory, and nothing is copied. By default
        it is True on an integrated GPU.
    path : the engine file; what TensorRT-RTX compiles is kept beside it. ``None``: nothing is kept.
    eager : True if TensorRT-RTX compiles kernels for a new shape before it runs it.

    Raises
    ------
    EngineError : TensorRT cannot open the plan, or the GPU has no room for it.
    """

    def __init__(
        self,
        passport: Passport,
        plan: bytes,
        library: Library,
        device: cuda.Cuda | None,
        zero_copy: bool | None,
        *,
        path: Path | None = None,
        eager: bool = False,
    ) -> None:
        super().__init__(passport)
        self._streaming = False
        self._gpu_ms = float("nan")
        # Contexts are to end before what they were made with: Python ends attributes in this order.
        self._slots: list[AnySlot] = []
        self._config: Any = None
        self._runtime_cache: RuntimeCache | None = None
        self._cuda = device or cuda.binding()
        is_integrated = cuda.has_gpu() and cuda.is_integrated()
        self._zero_copy = is_integrated if zero_copy is None else zero_copy
        self._slot_count = SLOTS_INTEGRATED if is_integrated else SLOTS

        self._runtime = start(library, "Runtime")
        if passport.tensorrt.version_compatible:
            # The plan contains its runtime and the plugin.
            self._runtime.engine_host_code_allowed = True
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise _not_opened(passport, library)
        self._configure(library.trt, path, eager)

        # An engine that nobody closes gives its memory back when nothing refers to it any more.
        self._memory = Memory(self._cuda)
        self._give_back = weakref.finalize(self, self._memory.release)

    @property
    def gpu_milliseconds(self) -> float:
        """Return the device time of the last frame, with copies; NaN before the first frame."""
        return self._gpu_ms

    def _release(self) -> None:
        """Give back contexts, graphs, memory and the plan, once no slot is at work any more."""
        for slot in self._slots:
            self._cuda.wait(slot.done)
            self._forget(slot)
            slot.context = None
        self._slots = []
        self._keep_compiled()
        self._config = None
        self._runtime_cache = None
        self._engine = None
        self._runtime = None
        self._give_back()

    def _require_ready(self) -> None:
        """Raise ``EngineError`` if the engine is closed, or if a stream uses it."""
        super()._require_ready()
        if self._streaming:
            raise EngineError(
                f"{self.passport.name}: is busy with a stream",
                hint="Exhaust or close the stream first, or open the engine twice.",
            )

    # -- the plan and its contexts -----------------------------------------------------------------

    def _tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor of the plan, by name; -1 for a dynamic dimension."""
        shapes: dict[str, tuple[int, ...]] = {}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            shapes[name] = tuple(self._engine.get_tensor_shape(name))
        return shapes

    def _require_tensors(
        self, found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]
    ) -> None:
        """Raise ``EngineError`` unless the plan has the tensors that its passport describes."""
        if found != expected:
            raise EngineError(
                f"{self.passport.name}: is no edgeseg plan", got=found, expected=expected
            )

    def _configure(self, trt: Any, path: Path | None, eager: bool) -> None:
        """Make the configuration of the contexts. TensorRT itself needs none."""
        strategies = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
        has_cache = hasattr(trt, "IRuntimeCache")
        if not has_cache and (strategies is None or not eager):
            return

        self._config = self._engine.create_runtime_config()
        if strategies is not None and eager:
            # By default TensorRT-RTX runs a new shape with slow kernels until it has compiled
            # better ones. A capture would keep the slow ones.
            self._config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        if has_cache:
            kept = None if path is None else cache_path(path)
            self._runtime_cache = RuntimeCache(self._config, kept)

    def _keep_compiled(self) -> None:
        """Write what TensorRT-RTX has compiled so far."""
        if self._runtime_cache is not None:
            self._runtime_cache.write()

    def _context(self) -> Any:
        """Return a new execution context; raise ``EngineError`` if the GPU has no room for it."""
        config = () if self._config is None else (self._config,)
        context = self._engine.create_execution_context(*config)
        if context is None:
            raise EngineError(
                f"{self.passport.name}: the GPU has no room for the engine",
                hint="Close other programs that use the GPU.",
            )
        return context

    def _point(self, context: Any, name: str, pointer: int) -> None:
        """Set the address of a tensor. If TensorRT refuses it, the old address stays."""
        if not context.set_tensor_address(name, pointer):
            raise EngineError(
                f"{self.passport.name}: TensorRT does not take the address of {name}",
                got=hex(pointer),
                expected=f"a multiple of {ALIGNMENT}",
            )

    # -- the work of a slot ------------------------------------------------------------------------

    @abstractmethod
    def _enqueue(self, slot: AnySlot) -> None:
        """Enqueue all work of a slot in its stream: copies, kernels, the network."""

    def _execute(self, slot: AnySlot) -> None:
        """Enqueue the network in the slot's stream."""
        if not slot.context.execute_async_v3(self._cuda.handle(slot.stream)):
            raise EngineError(f"{self.passport.name}: TensorRT could not run the engine")

    def _capture(self, slot: AnySlot) -> None:
        """Capture the work of a slot as a CUDA graph.

        If the work cannot be captured, or only a part of it, the slot has no graph, and its work is
        enqueued each time.
        """
        gpu = self._cuda
        slot.tried = True
        if not self._is_capturable(slot):
            return

        # Python's collector could free memory of the device, which CUDA allows in no capture.
        with _no_collection():
            whole = False
            gpu.begin_capture(slot.stream)

            # A capture must be ended, even if enqueueing fails.
            with contextlib.suppress(EngineError):
                self._enqueue(slot)
                whole = True

            with contextlib.suppress(EngineError):
                graph = gpu.end_capture(slot.stream)
                if whole:
                    slot.graph = graph
                else:
                    gpu.drop(graph)

    def _is_capturable(self, slot: AnySlot) -> bool:
        """Return False if TensorRT cannot run in a capture. Only TensorRT-RTX says so."""
        ask = getattr(slot.context, "is_stream_capturable", None)
        return ask is None or bool(ask(self._cuda.handle(slot.stream)))

    def _forget(self, slot: AnySlot) -> None:
        """Drop the graph of a slot, because its work is another from here on."""
        if slot.graph is not None:
            self._cuda.drop(slot.graph)
        slot.runs = 0
        slot.tried = False
        slot.graph = None

    def _begin(self, slot: AnySlot) -> None:
        """Start the work on the frame in a slot's buffers; do not wait for it."""
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
        """Wait until a slot is done, and keep its device time."""
        self._cuda.wait(slot.done)
        self._gpu_ms = self._cuda.milliseconds(slot.begun, slot.done)

    # -- many frames -------------------------------------------------------------------------------

    @abstractmethod
    def _send(self, slot: AnySlot, frame: Any) -> None:
        """Start the work on a frame of any size; do not wait for it."""

    @abstractmethod
    def _receive(self, slot: AnySlot) -> Image:
        """Wait for a slot; return its labels, (H, W) uint8 that the caller owns."""

    def _frame_size(self, frame: Any) -> tuple[int, int]:
        """Return (H, W) of a frame; raise ``InputError`` if it is none."""
        check_frame(frame)
        return frame.shape[0], frame.shape[1]

    def stream(self, frames: Iterable[Any]) -> Generator[Image, None, None]:
        """Label many frames, one per slot at a time, so that copies overlap computing.

        The result is a generator. The engine belongs to it from the first frame until the generator
        is exhausted or closed (``close()``): until then other calls raise ``EngineError``.

        Parameters
        ----------
        frames : frames as a call takes them, (H, W, 3) uint8 BGR or ``Nv12``, each of any size.

        Yields
        ------
        Label maps (H, W) uint8 at the sizes of the frames, in their order.

        Raises
        ------
        InputError : not a frame.
        EngineError : another stream uses the engine, or the engine is closed, also between two
            frames.
        """
        with self._turn:
            self._require_ready()
            self._streaming = True

        waiting: deque[tuple[AnySlot, tuple[int, int]]] = deque()
        free = list(self._slots)
        try:
            for given in frames:
                frame = given if NV12 in self.capabilities else as_bgr(given)
                size = self._frame_size(frame)

                # Use a free slot; if there is none, read the oldest and use that.
                labels: tuple[Image, tuple[int, int]] | None = None
                with self._turn:
                    self._require_open()
                    if free:
                        slot = free.pop()
                    else:
                        slot, oldest_size = waiting.popleft()
                        labels = self._receive(slot), oldest_size
                    self._send(slot, frame)
                waiting.append((slot, size))
                if labels is not None:
                    yield resize_labels(*labels)

            # Read the slots that are still at work.
            while waiting:
                slot, size = waiting.popleft()
                with self._turn:
                    self._require_open()
                    last = self._receive(slot)
                yield resize_labels(last, size)
        finally:
            self._end_stream([slot for slot, _ in waiting])

    def _end_stream(self, at_work: Iterable[AnySlot]) -> None:
        """Let other calls use the engine again.

        If the stream was closed early, wait for its slots: they must not write into a slot that is
        used again. A closed engine has waited for them.
        """
        with self._turn:
            if not self._closed:
                for slot in at_work:
                    self._cuda.wait(slot.done)
            self._streaming = False


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector from running while the context is open."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _not_opened(passport: Passport, library: Library) -> EngineError:
    """Return the error for a plan that TensorRT does not deserialize."""
    hint = f"Build it again: `build_engine({passport.name}.onnx, target={library.target})`."
    if passport.tensorrt.version_compatible and plugin_is_loaded():
        hint = (
            "It contains the plugin, which this process has already loaded for another engine: "
            "open it in a process of its own."
        )
    return EngineError(
        f"{passport.name}: {library.target} cannot open the engine",
        got=library.log.last_error() or "no reason given",
        hint=hint,
    )
