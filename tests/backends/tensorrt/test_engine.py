"""The end of a TensorRT engine, and what it says it can do, on a GPU of NumPy."""

import gc
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
from fake_gpu import DeviceArray, FakeContext, FakeCuda, FakeRuntimeCache, fake_library
from lowered import deploy
from onnx_tools import make, node, run_ort
from passports import plan_passport

from edgeseg.backends.tensorrt import cuda
from edgeseg.backends.tensorrt.engine import TensorRTEngine
from edgeseg.backends.tensorrt.pipelined import SLOTS, SLOTS_INTEGRATED, Memory
from edgeseg.backends.tensorrt.profiles import Profile
from edgeseg.capabilities import BATCH, DEVICE_ARRAYS, LOGITS, SIZES, STREAMS
from edgeseg.errors import EngineError
from edgeseg.facts import LABELS, LABELS_AND_SCORES
from edgeseg.graph.network import Network
from edgeseg.graph.passes.dynamic_shapes import resolve_dynamic_shapes
from edgeseg.spec import ModelSpec, generic_space

SIZE = (8, 12)
RANGE = ((8, 12), (8, 12), (16, 24))


def network() -> Network:
    weight = np.random.default_rng(0).normal(size=(5, 3, 1, 1)).astype(np.float32)
    model = make(
        [node("Conv", "image weight", "out")], {"image": ["n", 3, "h", "w"]}, "out", weight=weight
    )
    spec = ModelSpec(architecture="test", input_size=SIZE, labels=generic_space(5))
    return Network("net", model, spec, "", (), "image", "out", "nchw", False)


def opened(
    gpu: FakeCuda,
    profile: Profile | None = None,
    *,
    scores: bool = True,
    path: Path | None = None,
) -> TensorRTEngine:
    profile = profile or Profile()
    net = network()
    dynamic = None
    if profile.any:
        dynamic = resolve_dynamic_shapes(net, profile.batch != (1, 1, 1), profile.sizes)
    model = deploy(net, both=scores, for_openvino=False, dynamic=dynamic)
    outputs = LABELS_AND_SCORES if scores else LABELS
    passport = plan_passport(net, outputs=outputs, **profile.facts())
    return TensorRTEngine(
        passport, model.SerializeToString(), fake_library(), device=gpu, zero_copy=False, path=path
    )


def frame(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)


def wanted(seed: int) -> np.ndarray:
    return np.asarray(run_ort(deploy(network(), for_openvino=False), frame=frame(seed)[None])[0][0])


def assert_nothing_is_held(gpu: FakeCuda) -> None:
    assert not gpu.memory
    assert (gpu.streams, gpu.events) == (0, 0)


# -- capabilities ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "scores", "able"),
    [
        (Profile(), False, {STREAMS, DEVICE_ARRAYS}),
        (Profile(), True, {STREAMS, DEVICE_ARRAYS, LOGITS}),
        (Profile((1, 2, 4)), False, {STREAMS, DEVICE_ARRAYS, BATCH}),
        (Profile((2, 2, 4)), False, {STREAMS, BATCH}),
        (Profile((1, 1, 1), RANGE), True, {STREAMS, DEVICE_ARRAYS, LOGITS, SIZES}),
    ],
)
def test_capabilities_are_those_of_the_plan(profile: Profile, scores: bool, able: set[str]) -> None:
    with opened(FakeCuda(), profile, scores=scores) as engine:
        assert engine.capabilities == able
        assert engine(frame()).shape == SIZE


@pytest.mark.parametrize(("integrated", "slots"), [(True, SLOTS_INTEGRATED), (False, SLOTS)])
def test_an_integrated_gpu_has_fewer_slots(
    monkeypatch: pytest.MonkeyPatch, integrated: bool, slots: int
) -> None:
    """Each slot has a context, and its memory there is the processor's."""
    monkeypatch.setattr(cuda, "has_gpu", lambda: True)
    monkeypatch.setattr(cuda, "is_integrated", lambda: integrated)
    gpu = FakeCuda()
    with opened(gpu, Profile((1, 2, 2))) as engine:
        assert gpu.streams == len(engine._slots) == slots
        for seed, labels in enumerate(engine.stream(map(frame, range(5)))):
            np.testing.assert_array_equal(labels, wanted(seed))
        batch = engine(np.stack([frame(seed) for seed in range(9)]))
    for seed, labels in enumerate(batch):
        np.testing.assert_array_equal(labels, wanted(seed))


# -- captures --------------------------------------------------------------------------------------


def test_nothing_is_collected_in_a_capture() -> None:
    class Watched(FakeCuda):
        enabled: ClassVar[list[bool]] = []

        def begin_capture(self, stream: Any) -> None:
            super().begin_capture(stream)
            self.enabled.append(gc.isenabled())

        def end_capture(self, stream: Any) -> Any:
            self.enabled.append(gc.isenabled())
            return super().end_capture(stream)

    gpu = Watched()
    with opened(gpu):
        assert gpu.enabled == [False] * 2 * SLOTS
        assert gc.isenabled()


@pytest.mark.parametrize("capturable", [True, False])
def test_tensorrt_is_asked_before_a_capture(
    monkeypatch: pytest.MonkeyPatch, capturable: bool
) -> None:
    asked = list[int]()

    def is_stream_capturable(self: FakeContext, handle: int) -> bool:
        asked.append(handle)
        return capturable

    monkeypatch.setattr(FakeContext, "is_stream_capturable", is_stream_capturable, raising=False)
    with opened(FakeCuda()) as engine:
        for seed in range(5):
            np.testing.assert_array_equal(engine(frame(seed)), wanted(seed))
        assert len(asked) == SLOTS
        assert all((slot.graph is not None) == capturable for slot in engine._slots)


# -- what TensorRT-RTX compiles --------------------------------------------------------------------


def test_kernels_are_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeRuntimeCache, "compiled", 0)
    path = tmp_path / "net.fp16.tensorrt-rtx.engine"
    kept = tmp_path / "net.fp16.tensorrt-rtx.runtime_cache"
    for _ in range(2):
        with opened(FakeCuda(), path=path) as engine:
            np.testing.assert_array_equal(engine(frame(1)), wanted(1))
            assert kept.read_bytes() == b"kernels of this GPU"
        assert FakeRuntimeCache.compiled == 1

    # Another GPU's are replaced.
    kept.write_bytes(b"kernels of another GPU")
    with opened(FakeCuda(), path=path):
        assert FakeRuntimeCache.compiled == 2
    assert kept.read_bytes() == b"kernels of this GPU"


def test_kernels_that_cannot_be_kept_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with opened(FakeCuda(), path=tmp_path / "file" / "net.engine") as engine:
        np.testing.assert_array_equal(engine(frame(1)), wanted(1))
    with opened(FakeCuda()) as engine:
        np.testing.assert_array_equal(engine(frame(1)), wanted(1))


def test_the_real_library_has_these_names(tensorrt_rtx: ModuleType) -> None:
    assert hasattr(tensorrt_rtx.BuilderFlag, "REQUIRE_USER_ALLOCATION")
    assert hasattr(tensorrt_rtx.BuilderFlag, "TF32")
    assert hasattr(tensorrt_rtx.IExecutionContext, "is_stream_capturable")
    for name in ("create_runtime_cache", "set_runtime_cache"):
        assert hasattr(tensorrt_rtx.IRuntimeConfig, name)
    for name in ("serialize", "deserialize"):
        assert hasattr(tensorrt_rtx.IRuntimeCache, name)
        assert hasattr(FakeRuntimeCache, name)
    for name in ("get_creator", "load_library", "error_recorder"):
        assert hasattr(tensorrt_rtx.IPluginRegistry, name)
    assert hasattr(tensorrt_rtx.ErrorCodeTRT, "UNSPECIFIED_ERROR")


# -- the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_graphs", [False, True])
def test_close_gives_everything_back(has_graphs: bool) -> None:
    gpu = FakeCuda(has_graphs=has_graphs)
    engine = opened(gpu)
    np.testing.assert_array_equal(engine(frame(1)), wanted(1))
    engine.logits(frame())
    assert (gpu.streams, gpu.events) == (SLOTS, 2 * SLOTS)
    engine.close()
    assert_nothing_is_held(gpu)
    assert gpu.dropped == (SLOTS if has_graphs else 0)
    assert engine._engine is engine._runtime is None

    engine.close()  # a second time, and then by the garbage collector
    del engine
    gc.collect()
    assert_nothing_is_held(gpu)


def test_an_error_in_the_block_gives_everything_back() -> None:
    gpu = FakeCuda()
    with pytest.raises(ZeroDivisionError), opened(gpu):
        raise ZeroDivisionError
    assert_nothing_is_held(gpu)


def test_an_engine_that_nobody_closes_gives_memory_streams_and_events_back() -> None:
    gpu = FakeCuda()
    engine = opened(gpu)
    engine(frame())
    del engine
    gc.collect()
    assert_nothing_is_held(gpu)


@pytest.mark.parametrize(
    "call",
    [
        lambda engine: engine(frame()),
        lambda engine: engine(np.stack([frame(), frame(1)])),
        lambda engine: engine.logits(frame()),
        lambda engine: engine.on_device(DeviceArray(frame())),
        lambda engine: list(engine.stream([frame()])),
    ],
    ids=["frame", "batch", "logits", "on_device", "stream"],
)
def test_a_closed_engine_refuses_calls(call: Callable[[TensorRTEngine], Any]) -> None:
    engine = opened(FakeCuda(), Profile((1, 2, 2)))
    call(engine)
    engine.close()
    with pytest.raises(
        EngineError, match=r"^net: the engine is closed\. Open it again with `load_engine`\.$"
    ):
        call(engine)


def test_work_on_its_way_ends_before_its_memory_is_given_back() -> None:
    """A stream of the GPU of NumPy runs only when it is waited for: late work would write into
    freed memory.
    """
    gpu = FakeCuda()
    engine = opened(gpu)
    running = engine.stream([frame(seed) for seed in range(7)])
    np.testing.assert_array_equal(next(running), wanted(0))
    streams = [slot.stream for slot in engine._slots]
    assert any(streams)
    engine.close()
    assert not any(streams)
    assert_nothing_is_held(gpu)


def test_a_stream_ends_when_its_engine_is_closed() -> None:
    engine = opened(FakeCuda())
    running = engine.stream([frame(seed) for seed in range(7)])
    next(running)
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        next(running)
    assert list(running) == []

    engine = opened(FakeCuda())
    running = engine.stream([frame(seed) for seed in range(7)])
    next(running)
    engine.close()
    running.close()  # nothing is left to wait for


def test_a_stream_whose_frames_close_the_engine() -> None:
    engine = opened(FakeCuda())

    def frames() -> Iterator[np.ndarray]:
        yield frame()
        engine.close()
        yield frame(1)

    with pytest.raises(EngineError, match="the engine is closed"):
        list(engine.stream(frames()))


def test_an_engine_may_be_closed_from_another_thread_in_the_middle_of_a_stream() -> None:
    gpu = FakeCuda()
    engine = opened(gpu)
    labels: list[np.ndarray] = []
    errors: list[EngineError] = []
    some = threading.Event()

    def work() -> None:
        try:
            for one in engine.stream(frame(seed % 5) for seed in range(100_000)):
                labels.append(one)
                some.set()
        except EngineError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert some.wait(30)
    engine.close()
    thread.join(30)
    assert not thread.is_alive()
    assert "the engine is closed" in str(errors[0])
    assert_nothing_is_held(gpu)
    for seed, one in enumerate(labels):
        np.testing.assert_array_equal(one, wanted(seed % 5))
        if seed > 10:
            break


def test_a_stream_is_a_generator_that_gives_the_engine_back() -> None:
    engine = opened(FakeCuda())
    running = engine.stream([frame(seed) for seed in range(7)])
    assert isinstance(running, Generator)
    next(running)
    with pytest.raises(EngineError, match="busy with a stream"):
        engine(frame())
    running.close()
    np.testing.assert_array_equal(engine(frame(2)), wanted(2))


def test_memory_is_released_once() -> None:
    gpu = FakeCuda()
    memory = Memory(gpu)
    pointer = memory.on_device(16)
    host = memory.on_host(16)
    memory.on_device(16)
    memory.on_host(16)
    memory.stream()
    memory.event()
    memory.give_back(pointer)
    memory.give_back_host(host)
    assert len(gpu.memory) == 2
    memory.release()
    memory.release()
    assert_nothing_is_held(gpu)
