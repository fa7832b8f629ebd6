"""Arrays handed over in place: capsules against NumPy and torch on the CPU, device arrays on a GPU
of NumPy.
"""

import ctypes
import gc
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_gpu import STREAMS, FakeCuda, bytes_at, fake_library
from lowered import deploy
from onnx_tools import make, node, run_ort
from passports import plan_passport

from edgeseg.backends.tensorrt import cuda, dlpack
from edgeseg.backends.tensorrt.device_array import DeviceLabels
from edgeseg.backends.tensorrt.engine import TensorRTEngine
from edgeseg.errors import EngineError, InputError
from edgeseg.graph.network import Network
from edgeseg.spec import ModelSpec, generic_space

HOST = ((dlpack.CPU, 0),)
SIZE = (8, 12)


class Owner:
    """What keeps the memory; ``ALIVE`` knows those that are still there."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        ALIVE.add(self)


ALIVE = weakref.WeakSet[Owner]()


class Lent:
    """A producer whose capsules are ours."""

    def __init__(self, array: np.ndarray, device: tuple[int, int] = HOST[0]) -> None:
        self.array, self.device, self.asked = array, device, list[dict[str, Any]]()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, **options: Any) -> Any:
        self.asked.append(options)
        array = self.array
        return dlpack.lend(
            array.ctypes.data, array.shape, array.dtype.str, self.device, Owner(array)
        )


@pytest.fixture(autouse=True)
def _nothing_is_kept() -> Iterator[None]:
    yield
    gc.collect()
    assert not ALIVE


# -- given away ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["uint8", "float32", "int64"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_others_share_the_memory(library: str, kind: str) -> None:
    taker = pytest.importorskip(library)
    array = np.arange(24).astype(kind).reshape(2, 3, 4)
    taken = taker.from_dlpack(Lent(array))
    np.testing.assert_array_equal(np.asarray(taken), array)
    array[1, 2, 3] = 99
    assert taken[1, 2, 3] == 99
    part = taken[1]
    del taken
    gc.collect()
    assert len(ALIVE) == 1
    assert part[2, 3] == 99
    del part
    gc.collect()
    assert not ALIVE


def test_a_capsule_nobody_takes_gives_the_memory_back() -> None:
    capsule = Lent(np.zeros(3, np.uint8)).__dlpack__()
    assert len(ALIVE) == 1
    del capsule
    assert not ALIVE


def test_the_deleter_gives_the_memory_back_and_the_capsule_does_not_again() -> None:
    """What a consumer does, by hand.

    The owner's references are counted: one too few would be a second deletion.
    """
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    owner = Owner(array)
    deleted = list[int]()
    weakref.finalize(owner, deleted.append, 1)
    capsule = dlpack.lend(array.ctypes.data, array.shape, array.dtype.str, (dlpack.CUDA, 0), owner)
    del owner
    managed = dlpack._managed(capsule)
    tensor = managed.tensor
    assert (tensor.device_type, tensor.device_id, tensor.ndim) == (dlpack.CUDA, 0, 2)
    assert (tensor.code, tensor.bits, tensor.lanes, tensor.shape[:2]) == (1, 8, 1, [2, 3])
    assert (tensor.data, tensor.byte_offset) == (array.ctypes.data, 0)
    taken = ctypes.create_string_buffer(b"used_dltensor")
    named = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_SetName", ctypes.pythonapi)
    )
    named(capsule, ctypes.cast(taken, ctypes.c_char_p))
    assert not deleted
    delete = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(managed.deleter)
    delete(ctypes.addressof(managed))
    assert deleted == [1]
    del capsule
    gc.collect()
    assert deleted == [1]


def test_an_error_of_the_consumer_is_passed_on_and_nothing_is_kept() -> None:
    """NumPy takes no device's array; it drops the capsule while its error is on its way."""
    with pytest.raises((RuntimeError, BufferError), match="device"):
        np.from_dlpack(Lent(np.zeros(3, np.uint8), (dlpack.CUDA, 0)))
    assert not ALIVE


# -- borrowed --------------------------------------------------------------------------------------


def test_what_others_give_is_read_in_place() -> None:
    torch = pytest.importorskip("torch")
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    tensor = torch.arange(24, dtype=torch.uint8).reshape(4, 6)
    for given, pointer, typestr in (
        (array, array.ctypes.data, "<f4"),
        (tensor, tensor.data_ptr(), "|u1"),
        (tensor[1:, ::2], tensor.data_ptr() + 6, "|u1"),
        (torch.zeros(2, dtype=torch.float64), None, "<f8"),
        (np.zeros(2, np.complex64), None, "<c8"),
        (np.zeros(2, bool), None, "|b1"),
        (torch.zeros(2, dtype=torch.bfloat16), None, "DLPack type (4, 16, 1)"),
    ):
        found = dlpack.borrow(given, None, HOST)
        assert (found.shape, found.typestr) == (tuple(given.shape), typestr)
        if pointer is not None:
            assert found.pointer == pointer
    assert dlpack.borrow(tensor[1:, ::2], None, HOST).strides == (6, 2)
    assert dlpack.borrow(array[:, 1], None, HOST).strides == (48, 4)


def test_what_is_borrowed_lives_as_long_as_it_is_needed() -> None:
    lent = Lent(np.arange(3, dtype=np.uint8))
    found = dlpack.borrow(lent, None, HOST)
    assert len(ALIVE) == 1
    assert list(bytes_at(found.pointer, 3)) == [0, 1, 2]
    del found
    assert not ALIVE


def test_what_a_producer_refuses_is_told() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(
        InputError,
        match=r"^Tensor gives no DLPack capsule: got Can't export tensors that require grad",
    ):
        dlpack.borrow(torch.zeros(3, requires_grad=True), None, HOST)
    with pytest.raises(
        InputError,
        match=r"not an array on the device: got ndarray of DLPack device \(1, 0\), expected",
    ):
        dlpack.borrow(np.zeros(3), None)


# -- the runner, on a GPU of NumPy -----------------------------------------------------------------


@pytest.fixture(scope="module")
def network() -> Network:
    weight = np.random.default_rng(0).normal(size=(5, 3, 1, 1)).astype(np.float32)
    model = make(
        [node("Conv", "image weight", "out")], {"image": [1, 3, *SIZE]}, "out", weight=weight
    )
    spec = ModelSpec(architecture="test", input_size=SIZE, labels=generic_space(5))
    return Network("test", model, spec, "", (), "image", "out", "nchw", False)


@pytest.fixture
def gpu() -> FakeCuda:
    return FakeCuda()


@pytest.fixture
def engine(network: Network, gpu: FakeCuda) -> TensorRTEngine:
    return opened(network, gpu)


def opened(network: Network, gpu: FakeCuda) -> TensorRTEngine:
    passport = plan_passport(network, outputs="labels, scores")
    model = deploy(network, both=True, for_openvino=False)
    return TensorRTEngine(
        passport, model.SerializeToString(), fake_library(), device=gpu, zero_copy=False
    )


def frame(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)


def wanted(network: Network, seed: int = 0) -> list[np.ndarray]:
    return [
        a[0]
        for a in run_ort(
            deploy(network, both=True, for_openvino=False), True, frame=frame(seed)[None]
        )
    ]


def on_host(labels: DeviceLabels) -> np.ndarray:
    return bytes_at(labels.pointer, SIZE[0] * SIZE[1]).reshape(SIZE)


class Late(Lent):
    """A device array that is not made yet: its own stream is to fill it, and the consumer's stream
    to wait for that.
    """

    def __init__(self, gpu: FakeCuda, seed: int) -> None:
        super().__init__(np.zeros((*SIZE, 3), np.uint8), (dlpack.CUDA, 0))
        self.gpu, self.stream = gpu, gpu.stream()
        self.stream.append(lambda: np.copyto(self.array, frame(seed)))

    def __dlpack__(self, **options: Any) -> Any:
        self.gpu.wait_for(self.gpu.handle(self.stream), STREAMS[options["stream"]])
        return super().__dlpack__(**options)


def test_a_frame_that_is_still_being_made_is_waited_for(
    engine: TensorRTEngine, gpu: FakeCuda, network: Network
) -> None:
    given = Late(gpu, 4)
    labels = engine.on_device(given)
    np.testing.assert_array_equal(on_host(labels), wanted(network, 4)[0])
    assert [list(options) for options in given.asked] == [["stream"]]
    assert given.asked[0]["stream"] == gpu.handle(engine._slots[0].stream)
    np.testing.assert_array_equal(engine(frame(5)), wanted(network, 5)[0])


class Interface:
    def __init__(self, array: np.ndarray, **more: Any) -> None:
        self.array = array
        facts = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "version": 3,
        }
        self.__cuda_array_interface__ = {**facts, **more}


def test_the_interfaces_stream_is_waited_for(
    engine: TensorRTEngine, gpu: FakeCuda, network: Network
) -> None:
    late = Late(gpu, 6)
    given = Interface(late.array, stream=gpu.handle(late.stream))
    labels = engine.on_device(given)
    np.testing.assert_array_equal(on_host(labels), wanted(network, 6)[0])
    with pytest.raises(
        InputError,
        match="a stream that the interface does not allow: got 0, expected 1, 2 or a handle",
    ):
        engine.on_device(Interface(frame(), stream=0))


def test_labels_and_scores_are_given_to_others(engine: TensorRTEngine, network: Network) -> None:
    labels = engine.on_device(Lent(frame(1), (dlpack.CUDA_MANAGED, 0)))
    assert labels.scores is not None
    for given, want in zip((labels, labels.scores), wanted(network, 1), strict=True):
        assert given.__dlpack_device__() == (dlpack.CUDA, 0)
        found = dlpack.borrow(given, 7)
        assert (found.shape, found.typestr) == (want.shape, want.dtype.str)
        np.testing.assert_array_equal(
            bytes_at(found.pointer, want.nbytes).view(want.dtype).reshape(want.shape), want
        )
        capsule = given.__dlpack__(stream=None, max_version=(1, 0), dl_device=(2, 0), copy=False)
        assert '"dltensor"' in repr(capsule)
        for refused in ({"copy": True}, {"dl_device": (1, 0)}):
            with pytest.raises(BufferError):
                given.__dlpack__(**refused)


def test_what_was_given_keeps_the_engines_memory(gpu: FakeCuda, network: Network) -> None:
    engine = opened(network, gpu)
    taken = np.from_dlpack(_OnHost(engine.on_device(Lent(frame(2), (dlpack.CUDA, 0)))))
    del engine
    gc.collect()
    assert gpu.memory
    np.testing.assert_array_equal(taken, wanted(network, 2)[0])
    del taken
    gc.collect()
    assert not gpu.memory


class _OnHost:
    """A device array of the GPU of NumPy as what it is."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return HOST[0]

    def __dlpack__(self, **_: Any) -> Any:
        given = self.array
        return dlpack.lend(given.pointer, given.shape, given.typestr, HOST[0], given.owner)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            frame(),
            r"not an array on the device: got ndarray of DLPack device \(1, 0\), "
            r"expected \(2, 0\) or \(13, 0\)",
        ),
        (
            Lent(frame(), (dlpack.CUDA, 1)),
            r"not an array on the device: got Lent of DLPack device \(2, 1\)",
        ),
        (
            Lent(frame()[:4], (dlpack.CUDA, 0)),
            r"not a frame for this engine: got \(4, 12, 3\) \|u1",
        ),
        (
            Lent(frame().astype(np.float32), (dlpack.CUDA, 0)),
            r"got \(8, 12, 3\) <f4.*expected \(8, 12, 3\) \|u1",
        ),
        ([1, 2], "not a device array: got list, expected __dlpack__ or __cuda_array_interface__"),
    ],
)
def test_what_is_no_frame_is_refused(engine: TensorRTEngine, given: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        engine.on_device(given)
    assert engine(frame()).shape == SIZE


def test_gaps_are_refused(engine: TensorRTEngine) -> None:
    class Gaps:
        """Every other column."""

        def __dlpack_device__(self) -> tuple[int, int]:
            return dlpack.CUDA, 0

        def __dlpack__(self, **_: Any) -> Any:
            capsule = np.zeros((8, 24, 3), np.uint8)[:, ::2].__dlpack__()
            dlpack._managed(capsule).tensor.device_type = dlpack.CUDA
            return capsule

    with pytest.raises(
        InputError, match=r"not a frame for this engine: got .*strides \(72, 6, 1\)"
    ):
        engine.on_device(Gaps())


# -- streams in the two bindings, against recorded calls -------------------------------------------


class Recorder:
    """A module whose functions note their calls and give ``result``."""

    cudaEventDisableTiming = 2  # noqa: N815
    cudaStream_t = staticmethod(lambda handle: ("stream", handle))  # noqa: N815

    def __init__(self, results: dict[str, Any], fails: str = "") -> None:
        self.results, self.fails, self.calls = results, fails, list[tuple[Any, ...]]()

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            self.calls.append((name, *(getattr(a, "value", a) for a in arguments)))
            return self.results[name] if name != self.fails else self.results["failed"]

        return call


def test_cuda_python_waits_by_an_event() -> None:
    names = ("cudaEventRecord", "cudaStreamWaitEvent", "cudaEventDestroy")
    results: dict[str, Any] = {
        **dict.fromkeys(names, (0,)),
        "cudaEventCreateWithFlags": (0, "event"),
        "failed": (700,),
    }
    results["cudaGetErrorString"] = (0, b"an illegal address")
    gpu = cuda.CudaPython.__new__(cuda.CudaPython)
    gpu._api = Recorder(results)
    gpu.wait_for(4711, "ours")
    assert gpu._api.calls == [
        ("cudaEventCreateWithFlags", 2),
        ("cudaEventRecord", "event", ("stream", 4711)),
        ("cudaStreamWaitEvent", "ours", "event", 0),
        ("cudaEventDestroy", "event"),
    ]
    gpu._api = Recorder(results, "cudaStreamWaitEvent")
    with pytest.raises(EngineError, match="CUDA failed: got an illegal address"):
        gpu.wait_for(4711, "ours")
    assert gpu._api.calls[-1] == ("cudaEventDestroy", "event")


def test_pycuda_waits_by_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("cuEventCreate", "cuEventRecord", "cuStreamWaitEvent", "cuEventDestroy_v2")
    gpu = cuda.PyCuda.__new__(cuda.PyCuda)
    monkeypatch.setattr(gpu, "_here", nullcontext)
    for fails in ("", "cuEventRecord"):
        driver = Recorder({**dict.fromkeys(names, 0), "failed": 201}, fails)
        monkeypatch.setattr(cuda, "_driver", lambda driver=driver: driver)
        if fails:
            with pytest.raises(
                EngineError, match="CUDA failed: got error 201 of the NVIDIA driver"
            ):
                gpu.wait_for(4711, SimpleNamespace(handle=42))
        else:
            gpu.wait_for(4711, SimpleNamespace(handle=42))
            assert [call[:2] for call in driver.calls[1:3]] == [
                ("cuEventRecord", None),
                ("cuStreamWaitEvent", 42),
            ]
            assert driver.calls[1][2] == 4711
        assert driver.calls[-1][0] == "cuEventDestroy_v2"
