"""Plans between edgeseg's own kernels: the bare graph, and the runner with the kernels' own code,
built for the CPU.
"""

import gc
from collections.abc import Generator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from commands import assert_build_refused
from fake_gpu import DeviceArray, FakeCuda, bytes_at, fake_library
from host_kernels import RTX, Late, build_library, opened, passport_of
from lowered import deploy, deploy_bare
from onnx import TensorProto
from onnx_tools import make, node, run_ort
from reporting import Heard

from edgeseg.backends.base import PlanOptions
from edgeseg.backends.load import load_engine
from edgeseg.backends.tensorrt.backend import BACKENDS
from edgeseg.backends.tensorrt.frame_engine import FrameEngine
from edgeseg.backends.tensorrt.graphs import graph_for
from edgeseg.backends.tensorrt.kernels import palette_table
from edgeseg.backends.tensorrt.pipelined import SETTLED, SLOTS
from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.capabilities import ANY_SIZE, DEVICE_ARRAYS, LOGITS, NV12, PAINT, STREAMS
from edgeseg.errors import EngineError, GraphError, InputError, MissingDependencyError
from edgeseg.graph.network import Network, load_network
from edgeseg.imaging.nv12 import Nv12
from edgeseg.imaging.postprocess import overlay
from edgeseg.imaging.preprocess import resize_frame, resize_labels, to_input
from edgeseg.passport import Passport
from edgeseg.reporter import SILENT
from edgeseg.serving.triton import triton_from_engine
from edgeseg.spec import ModelSpec, generic_space
from edgeseg.types import Image
from edgeseg.zoo import zoo, zoo_int8

SIZE = (64, 96)
SIZES = [SIZE, (128, 192), (33, 47), (200, 100), (1, 1)]


def picture(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Smooth, so that two resizes agree on it."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 9, 3), np.uint8)
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)


def assert_close(scores: np.ndarray, want: np.ndarray, precision: str) -> None:
    """In FP16 nearly all of them: a maximum that rounds to another position is unpooled there."""
    error = np.abs(scores.astype(np.float64) - want) / np.ptp(want)
    assert error.max() < 1e-5 if precision == "fp32" else np.quantile(error, 0.99) < 1e-2, (
        error.max()
    )


# -- the graph -------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_bare_graph_is_the_net(small_onnx: Path, precision: str) -> None:
    network = load_network(small_onnx)
    model, _ = graph_for(network, precision, None, SILENT, kernels=True)
    onnx.checker.check_model(model, full_check=True)
    (taken,), (given,) = model.graph.input, model.graph.output
    kind = TensorProto.FLOAT if precision == "fp32" else TensorProto.FLOAT16
    assert [(v.name, v.type.tensor_type.elem_type) for v in (taken, given)] == [
        ("tensor", kind),
        ("scores", kind),
    ]
    assert not any(
        n.op_type == "Cast" for n in model.graph.node if precision == "fp16" and "tensor" in n.input
    )
    x = to_input(picture(), network.spec)
    (scores,) = run_ort(model, tensor=x.astype(np.float16) if precision == "fp16" else x)
    (pixels,) = run_ort(deploy(network, scores=True, for_openvino=False), frame=picture()[None])
    want = pixels.transpose(0, 3, 1, 2)
    assert_close(scores, want, precision)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("reduced", [1, 2])
def test_every_form_of_a_net_takes_and_gives_planes(channels_last: bool, reduced: int) -> None:
    """Nets that are channels last, or whose scores are to be enlarged."""
    weight = np.random.default_rng(0).normal(size=(5, 3, reduced, reduced)).astype(np.float32)
    nodes = [node("Conv", "planes weight", "made", strides=[reduced] * 2)]
    if channels_last:
        nodes = [node("Transpose", "image", "planes", perm=[0, 3, 1, 2]), *nodes]
        nodes.append(node("Transpose", "made", "out", perm=[0, 2, 3, 1]))
    else:
        nodes = [node("Neg", "image", "planes"), *nodes, node("Neg", "made", "out")]
    model = make(
        nodes, {"image": [1, 8, 12, 3] if channels_last else [1, 3, 8, 12]}, "out", weight=weight
    )
    spec = ModelSpec(architecture="test", input_size=(8, 12), labels=generic_space(5))
    network = Network(
        "test",
        model,
        spec,
        "",
        (),
        "image",
        "out",
        "nhwc" if channels_last else "nchw",
        channels_last,
    )
    frame = np.random.default_rng(1).integers(0, 256, (8, 12, 3), np.uint8)
    (scores,) = run_ort(deploy_bare(network), tensor=to_input(frame, spec))
    (pixels,) = run_ort(deploy(network, scores=True, for_openvino=False), frame=frame[None])
    np.testing.assert_allclose(scores, pixels.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-5)


def test_a_net_that_gives_labels_is_refused() -> None:
    model = make(
        [node("ArgMax", "image", "out", axis=1, keepdims=0)], {"image": [1, 3, 8, 12]}, "out"
    )
    spec = ModelSpec(architecture="test", input_size=(8, 12), labels=generic_space(3))
    network = Network("test", model, spec, "", (), "image", "out", "labels", False)
    with pytest.raises(
        GraphError, match=r"test: gives a label map, no scores\. Leave `kernels` out"
    ):
        graph_for(network, "fp32", None, SILENT, kernels=True)
    with pytest.raises(GraphError, match="Leave `kernels` out"):
        BACKENDS[0].check_network(network, PlanOptions(kernels=True))


@pytest.mark.parametrize(
    ("precision", "kinds"), [("fp32", (1, 1)), ("fp16", (10, 10)), ("int8", (10, 10))]
)
def test_plans_are_built(
    tensorrt_rtx: ModuleType, precision: str, kinds: tuple[int, int], tmp_path: Path
) -> None:
    """ENet's first and last layers are in float: both ends are halves in INT8, too."""
    source = zoo_int8("enet-camvid") if precision == "int8" else zoo()["enet-camvid"]
    assert source is not None
    heard: list[str] = []
    engine = build_engine(
        source,
        precision=precision,
        target=RTX,
        out=tmp_path / "e.engine",
        reporter=Heard(heard),
        plan=PlanOptions(kernels=True, save_graph=True),
    )
    facts = Passport.read(engine).tensorrt
    assert (facts.outputs, facts.warnings) == ("scores", ())
    graph = onnx.load(tmp_path / "e.graph.onnx").graph
    found = tuple(v.type.tensor_type.elem_type for v in (*graph.input, *graph.output))
    assert found == kinds
    assert any(
        "cannot be opened here yet: the TensorRT plugin is not built" in line for line in heard
    )
    with pytest.raises(
        EngineError, match="this plan is the net alone, and Triton would run it without"
    ):
        triton_from_engine(_as_tensorrt(engine), tmp_path / "models")


def _as_tensorrt(engine: Path) -> Path:
    """The engine with a passport that says the other TensorRT, which Triton has."""
    other = Passport.read(engine).model_copy(update={"target": "tensorrt"})
    Passport.path_for(engine).write_text(other.model_dump_json())
    return engine


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--target", "cpu", "--kernels"],
            "the cpu target has no such option: got --kernels. Give a TensorRT --target.",
        ),
        (
            ["--target", RTX, "--kernels", "--batch", "2"],
            "got --kernels with --batch or --sizes, expected one of them",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tensorrt_rtx: ModuleType, small_onnx: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    assert_build_refused(small_onnx, tmp_path, arguments, says)


def test_an_engine_whose_kernels_are_missing_says_so(
    tensorrt_rtx: ModuleType, small_onnx: Path
) -> None:
    passport = passport_of(load_network(small_onnx))
    target = next(t for t in BACKENDS if t.name == RTX)
    with pytest.raises(
        MissingDependencyError, match=r"was built with `kernels`, .*Build it: `build_plugin\(\)`"
    ):
        target.open(passport, b"")


# -- the runner, on a GPU of NumPy, with the kernels on the CPU ------------------------------------


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build_library(tmp_path_factory.mktemp("kernels"))


def wanted(small_onnx: Path, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the frame's size, and scores."""
    network = load_network(small_onnx)
    fitted = resize_frame(frame, network.spec.input_size)
    labels, scores = run_ort(
        deploy(network, both=True, for_openvino=False), True, frame=fitted[None]
    )
    return resize_labels(labels[0], frame.shape[:2]), scores[0]


def on_host(array: Any) -> np.ndarray:
    facts = array.__cuda_array_interface__
    dtype = np.dtype(facts["typestr"])
    block = bytes_at(facts["data"][0], int(np.prod(facts["shape"])) * dtype.itemsize)
    return np.asarray(block.view(dtype).reshape(facts["shape"]))


@pytest.mark.parametrize("zero_copy", [False, True])
@pytest.mark.parametrize("has_graphs", [False, True])
def test_frames_of_any_size_are_labelled(
    small_onnx: Path, library: Any, has_graphs: bool, zero_copy: bool
) -> None:
    engine = opened(small_onnx, Late(library), FakeCuda(has_graphs=has_graphs), zero_copy=zero_copy)
    for seed, size in enumerate((*SIZES, *reversed(SIZES))):
        frame = picture(seed, size)
        labels = engine(frame)
        want, _ = wanted(small_onnx, frame)
        assert (labels.shape, labels.dtype) == (size, np.dtype(np.uint8))
        # At the net's own size nothing is rounded; elsewhere OpenCV's fixed-point resize is a grey
        # level off at times.
        assert np.mean(labels == want) >= (1 if size == SIZE else 0.98), size
    assert engine.gpu_milliseconds == 1.5


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_scores_and_halves(small_onnx: Path, library: Any, precision: str) -> None:
    engine = opened(small_onnx, Late(library), FakeCuda(), precision=precision)
    _, scores = wanted(small_onnx, picture(3))
    got = engine.logits(picture(3))
    assert (got.dtype, got.shape) == (np.dtype(np.float32), scores.shape)
    assert_close(got, scores, precision)
    np.testing.assert_array_equal(engine(picture(3)), got.argmax(0))
    given = engine.on_device(DeviceArray(picture(3)))
    np.testing.assert_array_equal(on_host(given), got.argmax(0))
    assert given.scores is not None
    assert on_host(given.scores).dtype == (np.float32 if precision == "fp32" else np.float16)
    np.testing.assert_array_equal(on_host(given.scores).astype(np.float32), got)
    assert given.picture is None


@pytest.mark.parametrize("zero_copy", [False, True])
@pytest.mark.parametrize("size", SIZES[:4])
def test_pictures_are_pythons(
    small_onnx: Path, library: Any, size: tuple[int, int], zero_copy: bool
) -> None:
    engine = opened(small_onnx, Late(library), FakeCuda(), zero_copy=zero_copy)
    for seed, alpha in enumerate((0.5, 0.5, 0.5, 0.5, 0.3, 0.0, 1.0)):
        frame = picture(seed, size)
        labels, painted = engine.paint(frame, alpha)
        np.testing.assert_array_equal(labels, engine(frame))
        want = overlay(frame, labels, engine.spec.labels, alpha)
        assert np.abs(painted.astype(int) - want).max() <= 1  # halves of a grey level
        assert np.mean(painted == want) > 0.99
    given = engine.on_device(DeviceArray(frame), alpha=0.3)
    assert given.picture is not None
    np.testing.assert_array_equal(on_host(given.picture), engine.paint(frame, 0.3)[1])
    np.testing.assert_array_equal(on_host(given), engine(frame))


def nv12_of(frame: np.ndarray) -> Nv12:
    """BT.601, limited range, by OpenCV: I420, whose two planes of chroma become one."""
    height, width = frame.shape[:2]
    flat = cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420)
    chroma = flat[height:].reshape(2, height // 2, width // 2).transpose(1, 2, 0)
    return Nv12.from_buffer(np.vstack([flat[:height], chroma.reshape(height // 2, width)]))


def test_nv12_is_labelled_as_the_frame_it_is(small_onnx: Path, library: Any) -> None:
    gpu = FakeCuda()
    engine = opened(small_onnx, Late(library), gpu)
    for seed, size in enumerate([(128, 192), (64, 96), (50, 70)]):
        nv12 = nv12_of(picture(seed, size))
        whole = np.vstack([nv12.luma, nv12.chroma.reshape(size[0] // 2, size[1])])
        bgr = cv2.cvtColor(
            whole, cv2.COLOR_YUV2BGR_NV12
        )  # what a pipeline of OpenCV's would have given
        seen = np.asarray(bgr, np.uint8)
        labels = engine(nv12)
        assert labels.shape == size
        assert np.mean(labels == engine(seen)) >= 0.97
        given = engine.on_device(Nv12(DeviceArray(nv12.luma), DeviceArray(nv12.chroma)))
        np.testing.assert_array_equal(on_host(given), labels)
        assert engine.logits(nv12).shape == (11, *SIZE)
        painted_labels, painted = engine.paint(nv12, 0.3)
        np.testing.assert_array_equal(painted_labels, labels)
        want = overlay(seen, labels, engine.spec.labels, 0.3)
        assert np.abs(painted.astype(int) - want).max() <= 2  # OpenCV converts in fixed point
        given = engine.on_device(Nv12(DeviceArray(nv12.luma), DeviceArray(nv12.chroma)), alpha=0.3)
        assert given.picture is not None
        np.testing.assert_array_equal(on_host(given.picture), painted)
    other = Nv12(nv12.luma, nv12.chroma, "bt709", full_range=True)
    assert np.abs(engine.logits(other) - engine.logits(nv12)).max() > 0


def test_a_stream_of_every_kind_and_size(small_onnx: Path, library: Any) -> None:
    engine = opened(small_onnx, Late(library), FakeCuda())
    frames = [picture(i, SIZES[i % 4]) for i in range(9)]
    want = [engine(frame) for frame in frames]
    for got, alone in zip(engine.stream(frames), want, strict=True):
        np.testing.assert_array_equal(got, alone)
    mixed: list[Image | Nv12] = [frames[0], nv12_of(picture(1, (128, 192))), frames[2]]
    want = [engine(frame) for frame in mixed]
    for got, alone in zip(engine.stream(mixed), want, strict=True):
        np.testing.assert_array_equal(got, alone)
    batch = np.stack([picture(i, (128, 192)) for i in range(5)])
    np.testing.assert_array_equal(engine(batch), np.stack([engine(one) for one in batch]))
    running = engine.stream(frames)
    next(running)
    for call in (engine, engine.paint, engine.logits, lambda f: engine.on_device(DeviceArray(f))):
        with pytest.raises(EngineError, match="busy with a stream"):
            call(frames[0])
    assert isinstance(running, Generator)
    running.close()
    engine(frames[0])


def test_a_way_is_captured_once_it_is_settled_and_dropped_with_it(
    small_onnx: Path, library: Any
) -> None:
    gpu, late = FakeCuda(), Late(library)
    engine = opened(small_onnx, late, gpu)
    for _ in range(SETTLED):
        engine(picture(0, (128, 192)))
    assert gpu.launched == 0
    enqueued, copied = late.calls, gpu.copied
    for seed in range(4):
        frame = picture(seed, (128, 192))
        np.testing.assert_array_equal(engine(frame), engine(frame))
    assert (gpu.launched, gpu.dropped) == (8, 0)
    assert (late.calls - enqueued, gpu.copied - copied) == (2, 2)  # once, while it was captured
    labels, _ = engine.paint(picture(0, (128, 192)))  # another way
    assert (gpu.launched, gpu.dropped) == (8, 1)
    np.testing.assert_array_equal(labels, engine(picture(0, (128, 192))))


def test_memory_grows_and_goes(small_onnx: Path, library: Any) -> None:
    gpu = FakeCuda()
    engine = opened(small_onnx, Late(library), gpu)
    before = len(gpu.memory)
    engine(picture(0, (10, 10)))
    assert len(gpu.memory) == before  # smaller: what is there will do
    for size in ((128, 192), (256, 384)):
        engine(picture(0, size))
        assert len(gpu.memory) == before
    engine.paint(picture(0, SIZE))
    assert len(gpu.memory) == before + 2
    assert max(block.size for block in gpu.memory.values()) == 3 * 256 * 384
    list(engine.stream([picture(i) for i in range(SLOTS)]))
    del engine
    gc.collect()
    assert not gpu.memory


@pytest.mark.parametrize("zero_copy", [False, True])
def test_arrays_that_were_given_stay(small_onnx: Path, library: Any, zero_copy: bool) -> None:
    """A caller may hold labels on the device while a larger frame makes the engine take larger
    buffers.
    """
    gpu = FakeCuda()
    engine = opened(small_onnx, Late(library), gpu, zero_copy=zero_copy)
    given = engine.on_device(DeviceArray(picture(1)), alpha=0.5)
    assert given.picture is not None
    want = [on_host(one).copy() for one in (given, given.picture)]
    for size in ((128, 192), (256, 384)):
        engine.paint(picture(0, size))
    for one, kept in zip((given, given.picture), want, strict=True):
        assert one.pointer in gpu.memory
        np.testing.assert_array_equal(on_host(one), kept)
    del engine, given, one
    gc.collect()
    assert not gpu.memory


class Strided:
    """A device array with rows of its own length."""

    def __init__(self, array: np.ndarray, strides: tuple[int, ...]) -> None:
        self.array = array
        data = (array.ctypes.data, False)
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": data,
            "version": 3,
            "strides": strides,
        }


def test_rows_on_the_device_may_be_padded(small_onnx: Path, library: Any) -> None:
    engine = opened(small_onnx, Late(library), FakeCuda())
    frame = picture(2, (70, 90))
    padded = np.full((70, 128, 3), 255, np.uint8)
    padded[:, :90] = frame
    cut = padded[:, :90]
    np.testing.assert_array_equal(
        on_host(engine.on_device(Strided(cut, cut.strides))), engine(frame)
    )
    given = engine.on_device(Strided(cut, cut.strides), alpha=0.5)
    np.testing.assert_array_equal(on_host(given.picture), engine.paint(frame)[1])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (np.zeros((4, 4), np.uint8), r"not a frame on the device: got \(4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), "not a frame on the device: .*expected uint8"),
        (np.zeros((4, 4, 4), np.uint8), r"not a frame on the device: .*expected \(H, W, 3\)"),
        (np.zeros((3, 4, 4), np.uint8).transpose(1, 2, 0), "not rows of pixels"),
        (np.zeros((4, 4, 3), np.uint8)[::-1], "not rows of pixels"),
    ],
)
def test_what_is_no_frame_on_the_device(
    small_onnx: Path, library: Any, given: np.ndarray, says: str
) -> None:
    engine = opened(small_onnx, Late(library), FakeCuda())
    with pytest.raises(InputError, match=says):
        engine.on_device(Strided(given, given.strides))


def test_what_is_no_frame(small_onnx: Path, library: Any) -> None:
    engine = opened(small_onnx, Late(library), FakeCuda())
    plane, chroma = np.zeros((4, 6), np.uint8), np.zeros((2, 3, 2), np.uint8)
    with pytest.raises(
        InputError,
        match=r"not the chroma of this NV12 frame: got \(2, 2, 2\), expected \(2, 3, 2\)",
    ):
        engine(Nv12(plane, chroma[:, :2]))
    with pytest.raises(InputError, match="not the luma"):
        engine(Nv12(chroma, chroma))
    with pytest.raises(InputError, match="not a plane of an NV12 frame: got list"):
        engine(Nv12([1], chroma))
    with pytest.raises(InputError, match="no such colour matrix: got 'bt2020'"):
        Nv12(plane, chroma, "bt2020")
    for buffer in (
        np.zeros((5, 6), np.uint8),
        np.zeros((6, 5), np.uint8),
        np.zeros(6, np.uint8),
        "x",
    ):
        with pytest.raises(InputError, match="not an NV12 buffer"):
            Nv12.from_buffer(buffer)
    for bad in (plane, np.zeros((4, 4, 3)), "x", np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(InputError, match="frame"):
            engine(bad)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"too large for the GPU's kernels: got \(32768, 1\)"):
        engine(np.zeros((32768, 1, 3), np.uint8))
    with pytest.raises(InputError, match=r"not a weight of colours: got 1\.5"):
        engine.paint(picture(), 1.5)


@pytest.mark.parametrize("matrix", ["bt601", "bt709"])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("size", [(12, 16), (11, 15)])
def test_nv12_becomes_bgr_as_the_kernels_have_it(
    small_onnx: Path, library: Any, size: tuple[int, int], full: bool, matrix: str
) -> None:
    """A frame under colours of no weight is the frame: within two levels, OpenCV's fixed point
    being one.
    """
    rng = np.random.default_rng(3)
    luma = rng.integers(0, 256, size, np.uint8)
    chroma = rng.integers(0, 256, ((size[0] + 1) // 2, (size[1] + 1) // 2, 2), np.uint8)
    nv12 = Nv12(luma, chroma, matrix, full)
    kernels = opened(small_onnx, Late(library), FakeCuda()).paint(nv12, 0.0)[1]
    apart = np.abs(kernels.astype(int) - nv12.to_bgr())
    assert apart.max() <= (2 if (matrix, full) == ("bt601", False) else 1)
    assert np.mean(apart > 0) < 0.3


def test_other_engines_take_nv12_as_the_bgr_it_is(small_onnx: Path, tmp_path: Path) -> None:
    engine = load_engine(build_engine(small_onnx, precision="fp32", out=tmp_path / "e.engine"))
    nv12 = nv12_of(picture(2, (128, 192)))
    np.testing.assert_array_equal(engine(nv12), engine(nv12.to_bgr()))
    np.testing.assert_array_equal(engine.logits(nv12), engine.logits(nv12.to_bgr()))
    whole = np.vstack([nv12.luma, nv12.chroma.reshape(64, 192)])
    np.testing.assert_array_equal(nv12.to_bgr(), cv2.cvtColor(whole, cv2.COLOR_YUV2BGR_NV12))
    with pytest.raises(InputError, match="not the chroma"):
        engine(Nv12(nv12.luma, nv12.luma))


def test_what_the_kernels_refuse_is_told(small_onnx: Path, library: Any) -> None:
    late = Late(library)
    engine = opened(small_onnx, late, FakeCuda())
    for late.code, says in (
        (-1, "kernels do not take what they were given"),
        (700, "failed: got CUDA error 700"),
    ):
        for _ in range(SETTLED + 2):  # a way that fails is not captured, as far as it went
            with pytest.raises(EngineError, match=says):
                engine(picture())
    late.code = 0
    np.testing.assert_array_equal(engine(picture()), wanted(small_onnx, picture())[0])


def test_a_library_of_another_edgeseg_is_refused(small_onnx: Path, library: Any) -> None:
    late = Late(library)
    late.edgeseg_plugin_version = lambda: 7  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="another edgeseg's: got ABI 7, expected ABI 2"):
        opened(small_onnx, late, FakeCuda())


def test_a_plan_must_be_the_net_alone(small_onnx: Path, library: Any) -> None:
    network = load_network(small_onnx)
    model, _ = graph_for(network, "fp32", None, SILENT)
    with pytest.raises(EngineError, match="is no edgeseg plan"):
        FrameEngine(
            passport_of(network),
            model.SerializeToString(),
            fake_library(),
            Late(library),
            device=FakeCuda(),
            zero_copy=False,
        )


def test_an_engine_says_what_it_can_do_and_gives_everything_back(
    small_onnx: Path, library: Any
) -> None:
    gpu = FakeCuda()
    with opened(small_onnx, Late(library), gpu) as engine:
        assert engine.capabilities == {LOGITS, ANY_SIZE, NV12, PAINT, STREAMS, DEVICE_ARRAYS}
        for _ in range(SETTLED + 1):
            engine.paint(picture(0, (128, 192)))
        engine.on_device(DeviceArray(picture()))
        assert (gpu.streams, gpu.events) == (SLOTS, 2 * SLOTS)
        dropped = gpu.dropped
        running = engine.stream([picture(seed) for seed in range(5)])
        next(running)
    assert not gpu.memory
    assert (gpu.streams, gpu.events) == (0, 0)
    assert gpu.dropped > dropped  # the graph of what was painted
    engine.close()
    for call in (
        engine,
        engine.paint,
        engine.logits,
        lambda f: engine.on_device(DeviceArray(f)),
        lambda f: engine(np.stack([f])),
        lambda f: next(engine.stream([f])),
        lambda f: next(running),
    ):
        with pytest.raises(EngineError, match="small: the engine is closed"):
            call(picture())


def test_the_colours_are_the_overlays() -> None:
    table = palette_table(generic_space(3))
    assert table.shape == (256, 4)
    assert table[:, 3].sum() == 3
    blank = np.zeros((1, 256, 3), np.uint8)
    want = overlay(blank, np.arange(256, dtype=np.uint8)[None], generic_space(3), 1.0)
    np.testing.assert_array_equal(table[:, :3], want[0])
