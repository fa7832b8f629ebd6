"""A GPU of NumPy for the runner's tests: memory, streams that run late, and an "engine" that is
ONNX Runtime.

A stream keeps what it is given and runs it only when it is waited for, so that a buffer that is
reused too early gives wrong labels. Everything else is the runner's real code.
"""

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime

from edgeseg.backends.tensorrt.bindings import Library, Log, Message
from edgeseg.errors import EngineError


def bytes_at(pointer: int, size: int) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(pointer))


def aligned(size: int, skew: int = 0) -> np.ndarray:
    """``size`` bytes that begin ``skew`` bytes after a multiple of 256, as CUDA's memory does at
    none.
    """
    block = np.full(size + 512, 77, np.uint8)
    start = -block.ctypes.data % 256 + skew
    return block[start : start + size]


class FakeCuda:
    """``edgeseg.backends.tensorrt.cuda.Cuda`` on the host."""

    name = "fake"

    def __init__(self, *, has_graphs: bool = True, capture_fails: bool = False) -> None:
        self.has_graphs, self.capture_fails = has_graphs, capture_fails
        self.memory: dict[int, np.ndarray] = {}
        self.copied = self.launched = self.dropped = 0
        self.streams = self.events = 0  # that are there
        self.capturing: list[Callable[[], None]] | None = None

    def allocate(self, size: int) -> int:
        block = aligned(size)
        self.memory[block.ctypes.data] = block
        return block.ctypes.data

    def free(self, pointer: int) -> None:
        del self.memory[pointer]

    def allocate_host(self, size: int) -> np.ndarray:
        return self.memory[self.allocate(size)]

    def free_host(self, host: np.ndarray) -> None:
        del self.memory[host.ctypes.data]

    def mapped(self, host: np.ndarray) -> int:
        return host.ctypes.data

    def stream(self) -> list[Callable[[], None]]:
        STREAMS.append([])
        self.streams += 1
        return STREAMS[-1]

    def drop_stream(self, stream: list[Callable[[], None]]) -> None:
        self.streams -= 1

    def handle(self, stream: list[Callable[[], None]]) -> int:
        return next(i for i, s in enumerate(STREAMS) if s is stream)

    def _put(self, stream: list[Callable[[], None]], work: Callable[[], None]) -> None:
        (stream if self.capturing is None else self.capturing).append(work)

    def to_device(self, pointer: int, host: np.ndarray, stream: Any) -> None:
        self.copied += 1
        self._put(stream, lambda: np.copyto(bytes_at(pointer, host.size), host))

    def to_host(self, host: np.ndarray, pointer: int, stream: Any) -> None:
        self.copied += 1
        self._put(stream, lambda: np.copyto(host, bytes_at(pointer, host.size)))

    def copy(self, to: int, pointer: int, size: int, stream: Any) -> None:
        self.copied += 1
        self._put(stream, lambda: np.copyto(bytes_at(to, size), bytes_at(pointer, size)))

    def event(self) -> dict[str, Any]:
        self.events += 1
        return {}

    def drop_event(self, event: dict[str, Any]) -> None:
        event.clear()  # a wait for it fails
        self.events -= 1

    def record(self, event: dict[str, Any], stream: Any) -> None:
        event["stream"] = stream

    def wait(self, event: dict[str, Any]) -> None:
        work = list(event["stream"])
        event["stream"].clear()
        for step in work:
            step()

    def wait_for(self, handle: int, stream: list[Callable[[], None]]) -> None:
        theirs = STREAMS[handle]
        given = list(theirs)
        theirs.clear()
        stream += given

    def milliseconds(self, start: dict[str, Any], end: dict[str, Any]) -> float:
        return 1.5

    def begin_capture(self, stream: Any) -> None:
        self.capturing = []
        CAPTURING.append(self.capturing)

    def end_capture(self, stream: Any) -> list[Callable[[], None]]:
        CAPTURING.clear()
        captured, self.capturing = self.capturing, None
        if self.capture_fails:
            raise EngineError("CUDA failed", got="operation not permitted when stream is capturing")
        assert captured is not None
        return captured

    def launch(self, graph: list[Callable[[], None]], stream: Any) -> None:
        self.launched += 1
        stream += graph

    def drop(self, graph: list[Callable[[], None]]) -> None:
        self.dropped += 1
        graph[:] = [_replay_of_a_dropped_graph]


HALF = "tensor(float16)"
DTYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, HALF: np.float16}
STREAMS: list[list[Callable[[], None]]] = []
CAPTURING: list[list[Callable[[], None]]] = []


def _replay_of_a_dropped_graph() -> None:
    raise AssertionError("a graph runs after it was given back")


class FakeContext:
    """Runs at the shape it was set to when it was given the work.

    ``ran`` are the shapes of its runs.

    A captured graph belongs to the state its context had for that shape.
    """

    def __init__(self, session: onnxruntime.InferenceSession, config: Any = None) -> None:
        self.session, self.addresses, self.config = session, dict[str, int](), config
        self.declared = session.get_inputs()[0].shape
        self.shape: tuple[int, ...] | None = (
            None if any(isinstance(d, str) for d in self.declared) else self.declared
        )
        self.state, self.ran = 0, list[tuple[int, ...]]()

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        if pointer % 256 == 0:
            self.addresses[name] = pointer
        return pointer % 256 == 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        fits = zip(shape, self.declared, strict=True)
        if name != "frame" or not all(isinstance(d, str) or d == side for side, d in fits):
            return False
        self.shape, self.state = shape, self.state + 1
        return True

    def execute_async_v3(self, handle: int) -> bool:
        if self.shape is None:
            return False
        addresses, shape, state, captured = (
            dict(self.addresses),
            tuple(self.shape),
            self.state,
            bool(CAPTURING),
        )

        def work() -> None:
            assert not captured or state == self.state, (
                "a graph runs after its context was set to another shape"
            )
            self.ran.append(shape)
            taken = self.session.get_inputs()[0]
            dtype = np.dtype(DTYPES[taken.type])
            given = (
                bytes_at(addresses[taken.name], int(np.prod(shape)) * dtype.itemsize)
                .view(dtype)
                .reshape(shape)
            )
            names = [output.name for output in self.session.get_outputs()]
            for name, value in zip(
                names, self.session.run(names, {taken.name: given.copy()}), strict=True
            ):
                bytes_at(addresses[name], value.nbytes)[:] = np.frombuffer(
                    value.tobytes(), np.uint8
                )

        (CAPTURING[-1] if CAPTURING else STREAMS[handle]).append(work)
        return True


class FakeEngine:
    """What ``deserialize_cuda_engine`` gives for the bytes of an ONNX graph."""

    def __init__(self, graph: bytes) -> None:
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        self.ends = (*self.session.get_inputs(), *self.session.get_outputs())
        self.num_io_tensors = len(self.ends)

    def get_tensor_name(self, index: int) -> str:
        return str(self.ends[index].name)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        shape = next(e.shape for e in self.ends if e.name == name)
        return tuple(-1 if isinstance(d, str) else d for d in shape)

    def get_tensor_dtype(self, name: str) -> str:
        return next(str(e.type) for e in self.ends if e.name == name)

    def create_runtime_config(self) -> SimpleNamespace:
        config = SimpleNamespace(create_runtime_cache=FakeRuntimeCache, cache=None)
        config.set_runtime_cache = lambda cache: setattr(config, "cache", cache)
        return config

    def create_execution_context(self, config: SimpleNamespace | None = None) -> FakeContext:
        if config is not None and config.cache is not None:
            config.cache.compile()
        return FakeContext(self.session, config)


class FakeRuntimeCache:
    """Counts what contexts compile: nothing if the cache has it already."""

    compiled = 0  # by all of them

    def __init__(self) -> None:
        self.kernels = b""

    def compile(self) -> None:
        if not self.kernels:
            self.kernels = b"kernels of this GPU"
            FakeRuntimeCache.compiled += 1

    def serialize(self) -> bytes:
        return self.kernels

    def deserialize(self, blob: bytes) -> bool:
        if blob != b"kernels of this GPU":
            return False
        self.kernels = blob
        return True


class FakeRuntime:
    engine_host_code_allowed = False

    def __init__(self, logger: list[Message]) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> FakeEngine | None:
        if plan == b"damaged":
            self.logger.append(
                Message("error", "[runtime.cpp::readHeader::765] Error Code 2: magicTag is wrong")
            )
            return None
        return FakeEngine(plan)


def fake_library(target: str = "tensorrt-rtx") -> Library:
    log: Any = Log.__new__(Log)
    log.messages = []
    log.logger = log.messages
    trt = SimpleNamespace(Runtime=FakeRuntime, DataType=SimpleNamespace(HALF=HALF))
    if target == "tensorrt-rtx":
        trt.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(LAZY="lazy", EAGER="eager")
        trt.IRuntimeCache = FakeRuntimeCache
    return Library(target, trt, "0.0", log)


class DeviceArray:
    """What torch and cupy give; ``changes`` of what its interface says.

    ``skew``: a cut out of a larger one.
    """

    def __init__(self, array: np.ndarray, skew: int = 0, **changes: Any) -> None:
        self.array = aligned(array.nbytes, skew).view(array.dtype).reshape(array.shape)
        self.array[...] = array
        facts = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (self.array.ctypes.data, False),
        }
        self.__cuda_array_interface__ = {**facts, "version": 3, **changes}
