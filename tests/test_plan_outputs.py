"""What a TensorRT plan gives and where it opens: scores beside the labels; plans for later versions."""

import gc
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from commands import edgeseg
from fake_gpu import FakeCuda, fake_library
from onnx_tools import make, node, run_ort

from edgeseg.artifact import Passport
from edgeseg.errors import EngineError, GraphError
from edgeseg.export.deploy import deploy
from edgeseg.export.network import Network, load_network
from edgeseg.export.triton import config_text
from edgeseg.runtime import build_engine
from edgeseg.runtime.load import zoo, zoo_int8
from edgeseg.runtime.target import PlanOptions
from edgeseg.runtime.tensorrt.runner import SLOTS, DeviceArray, TensorRTEngine
from edgeseg.runtime.tensorrt.target import graph_for
from edgeseg.spec import ModelSpec, generic_space

RTX = "tensorrt-rtx"
SIZE = (64, 96)
CLASSES = 11


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)


def passport_of(network: Network, target: str = RTX, **settings: str) -> Passport:
    return Passport(
        name=network.name, target=target, precision="fp32", spec=network.spec, onnx_sha256=network.sha256,
        engine_sha256="", edgeseg="0", library=target, library_version="10.7.0", device="fake",
        settings=settings, build_seconds=0, built_at="",
    )  # fmt: skip


# -- both outputs from one graph ---------------------------------------------------------------------------------------


def test_one_graph_gives_both(small_onnx: Path) -> None:
    network = load_network(small_onnx)
    both, alone = deploy(network, both=True, for_openvino=False), deploy(network, for_openvino=False)
    onnx.checker.check_model(both, full_check=True)
    labels, scores = run_ort(both, frame=picture()[None])
    assert (labels.shape, scores.shape, scores.dtype) == ((1, *SIZE), (1, CLASSES, *SIZE), np.float32)
    np.testing.assert_array_equal(labels, run_ort(alone, frame=picture()[None])[0])
    (pixels,) = run_ort(deploy(network, scores=True, for_openvino=False), frame=picture()[None])
    np.testing.assert_array_equal(scores, pixels.transpose(0, 3, 1, 2))
    kept = [n.SerializeToString() for n in both.graph.node if "scores" not in n.output]
    assert kept == [n.SerializeToString() for n in alone.graph.node]  # the labels' graph is what it is without


@pytest.mark.parametrize(("form", "reduced"), [("nchw", 1), ("nchw", 2), ("nhwc", 1), ("nhwc", 2)])
def test_every_form_of_scores_is_given_channels_first(form: str, reduced: int) -> None:
    """Scores that are channels last, and scores to be enlarged."""
    weight = np.random.default_rng(0).normal(size=(5, 3, reduced, reduced)).astype(np.float32)
    nodes = [node("Conv", "image weight", "planes", strides=[reduced] * 2)]
    nodes.append(
        node("Transpose", "planes", "out", perm=[0, 2, 3, 1]) if form == "nhwc" else node("Neg", "planes", "out")
    )
    model = make(nodes, {"image": [1, 3, 8, 12]}, "out", weight=weight)
    spec = ModelSpec(architecture="test", input_size=(8, 12), labels=generic_space(5))
    network = Network("test", model, spec, "", (), "image", "out", form, False)
    frame = np.random.default_rng(1).integers(0, 256, (1, 8, 12, 3), np.uint8)
    labels, scores = run_ort(deploy(network, both=True, for_openvino=False), frame=frame)
    (pixels,) = run_ort(deploy(network, scores=True, for_openvino=False), frame=frame)
    np.testing.assert_array_equal(scores, pixels.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(labels, scores.argmax(1))


def test_a_net_that_gives_labels_has_no_scores() -> None:
    model = make([node("ArgMax", "image", "out", axis=1, keepdims=0)], {"image": [1, 3, 8, 12]}, "out")
    spec = ModelSpec(architecture="test", input_size=(8, 12), labels=generic_space(3))
    network = Network("test", model, spec, "", (), "image", "out", "labels", False)
    with pytest.raises(GraphError, match=r"test: gives a label map, no scores\. Leave --scores out"):
        graph_for(network, "fp32", None, lambda line: None, scores=True)


# -- plans with scores -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_plans_with_scores_are_built(tensorrt_rtx: ModuleType, precision: str, tmp_path: Path) -> None:
    source = zoo_int8("enet-camvid") if precision == "int8" else zoo()["enet-camvid"]
    assert source is not None
    engine = build_engine(
        source, precision=precision, target=RTX, out=tmp_path / "e.engine", plan=PlanOptions(scores=True),
        save_graph=True,
    )  # fmt: skip
    passport = Passport.read(engine)
    assert (passport.settings["outputs"], passport.settings["warnings"]) == ("labels, scores", "")
    graph = onnx.load(tmp_path / "e.graph.onnx")
    height, width = passport.spec.input_size
    frame = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    labels, scores = run_ort(graph, frame=frame)
    assert scores.shape == (1, CLASSES, height, width)
    np.testing.assert_array_equal(labels, scores.argmax(1))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--target", "cpu", "--scores"], "the cpu target has no such option: got scores. Give a TensorRT --target.")],
)
def test_options_without_use_are_refused(small_onnx: Path, tmp_path: Path, arguments: list[str], says: str) -> None:
    done = edgeseg("build-engine", small_onnx, "-o", tmp_path / "e.engine", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert says in done.stderr
    assert not list(tmp_path.iterdir())


def test_triton_is_told_of_the_scores(small_onnx: Path) -> None:
    spec = load_network(small_onnx).spec
    text = config_text("n", "tensorrt_plan", spec, {}, scores=True)
    assert 'name: "scores"\n    data_type: TYPE_FP32\n    dims: [ 1, 11, 64, 96 ]' in text
    assert "scores" not in config_text("n", "tensorrt_plan", spec, {})


# -- the runner, on a GPU of NumPy -------------------------------------------------------------------------------------


def opened(small_onnx: Path, gpu: FakeCuda, *, scores: bool = True, zero_copy: bool = False) -> TensorRTEngine:
    network = load_network(small_onnx)
    model, _ = graph_for(network, "fp32", None, lambda line: None, scores=scores)
    passport = passport_of(network, outputs="labels, scores" if scores else "labels")
    return TensorRTEngine(passport, model.SerializeToString(), fake_library(), device=gpu, zero_copy=zero_copy)


def wanted(small_onnx: Path, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = run_ort(deploy(load_network(small_onnx), both=True, for_openvino=False), True, frame=frame[None])
    return labels[0], scores[0]


def on_host(array: DeviceArray) -> np.ndarray:
    facts = array.__cuda_array_interface__
    size = int(np.prod(facts["shape"])) * np.dtype(facts["typestr"]).itemsize
    block = next(m for p, m in array.owner._cuda.memory.items() if p == facts["data"][0])  # type: ignore[attr-defined]
    assert block.size == size
    return block.view(facts["typestr"]).reshape(facts["shape"])


@pytest.mark.parametrize("zero_copy", [False, True])
@pytest.mark.parametrize("has_graphs", [False, True])
def test_logits_are_the_graphs(small_onnx: Path, has_graphs: bool, zero_copy: bool) -> None:
    engine = opened(small_onnx, FakeCuda(has_graphs=has_graphs), zero_copy=zero_copy)
    first = engine.logits(picture())
    for seed in range(2):
        labels, scores = wanted(small_onnx, picture(seed))
        np.testing.assert_allclose(engine.logits(picture(seed)), scores, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(engine(picture(seed)), labels)
    np.testing.assert_array_equal(first, engine.logits(picture()))  # the caller's own, not a view of the buffer
    assert engine.logits(np.zeros((30, 40, 3), np.uint8)).shape == (CLASSES, *SIZE)
    assert engine.gpu_milliseconds == 1.5


@pytest.mark.parametrize("has_graphs", [False, True])
def test_labels_alone_copy_no_scores(small_onnx: Path, has_graphs: bool) -> None:
    """As many copies as without them, and the same CUDA graphs; ``logits`` makes one more."""
    copied, launched = [], []
    for scores in (False, True):
        gpu = FakeCuda(has_graphs=has_graphs)
        engine = opened(small_onnx, gpu, scores=scores)
        engine(picture())
        list(engine.stream([picture(i) for i in range(5)]))
        engine.on_device(_Array(picture()))
        copied.append(gpu.copied)
        launched.append(gpu.launched)
    assert copied[0] == copied[1]
    assert launched[0] == launched[1] == (6 if has_graphs else 0)
    before = gpu.copied
    engine.logits(picture())
    assert gpu.copied == before + (1 if has_graphs else 3)


class _Array:
    def __init__(self, array: np.ndarray) -> None:
        data = (array.ctypes.data, False)
        self.array = array
        self.__cuda_array_interface__ = {"shape": array.shape, "typestr": array.dtype.str, "data": data, "version": 3}


def test_scores_stay_on_the_device(small_onnx: Path) -> None:
    gpu = FakeCuda()
    engine = opened(small_onnx, gpu)
    copied, (labels, scores) = gpu.copied, wanted(small_onnx, picture(3))
    given = engine.on_device(_Array(picture(3)))
    assert gpu.copied == copied
    np.testing.assert_array_equal(on_host(given), labels)
    assert given.scores is not None
    np.testing.assert_allclose(on_host(given.scores), scores, rtol=1e-5, atol=1e-5)
    assert opened(small_onnx, FakeCuda(), scores=False).on_device(_Array(picture())).scores is None


def test_memory_for_scores_is_there_only_with_them(small_onnx: Path) -> None:
    for scores, blocks in ((False, 4 * SLOTS), (True, 5 * SLOTS + 1)):
        gpu = FakeCuda()
        engine = opened(small_onnx, gpu, scores=scores)
        assert len(gpu.memory) == blocks
        for _ in range(2):
            engine(picture())
        assert len(gpu.memory) == blocks
        del engine
        gc.collect()
        assert not gpu.memory


def test_without_scores_the_way_to_get_them_is_told(small_onnx: Path) -> None:
    engine = opened(small_onnx, FakeCuda(), scores=False)
    with pytest.raises(EngineError, match=r"gives label maps, no scores\. Build it .*--target tensorrt-rtx --scores"):
        engine.logits(picture())


def test_a_busy_engine_gives_no_scores(small_onnx: Path) -> None:
    engine = opened(small_onnx, FakeCuda())
    running = engine.stream([picture(i) for i in range(4)])
    next(running)
    with pytest.raises(EngineError, match="busy with a stream"):
        engine.logits(picture())
    running.close()


def test_a_plan_must_give_what_its_passport_says(small_onnx: Path) -> None:
    network = load_network(small_onnx)
    for scores, says in ((True, "labels"), (False, "labels, scores")):
        model, _ = graph_for(network, "fp32", None, lambda line: None, scores=scores)
        with pytest.raises(EngineError, match="is no edgeseg plan"):
            TensorRTEngine(
                passport_of(network, outputs=says), model.SerializeToString(), fake_library(), device=FakeCuda(),
                zero_copy=False,
            )  # fmt: skip
