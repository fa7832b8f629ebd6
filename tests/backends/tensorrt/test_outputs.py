"""What a TensorRT plan gives and where it opens: scores beside the labels; plans for later
versions.
"""

import gc
import importlib
import shutil
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
from commands import assert_build_refused
from fake_gpu import DeviceArray as GivenArray
from fake_gpu import FakeCuda, fake_library
from lowered import deploy
from onnx_tools import make, node, run_ort
from passports import plan_passport
from reporting import Heard

from edgeseg.backends.base import PlanOptions
from edgeseg.backends.load import load_engine
from edgeseg.backends.tensorrt import backend, builder, cuda, engine
from edgeseg.backends.tensorrt.bindings import Library, Log, opens
from edgeseg.backends.tensorrt.builder import build_plan
from edgeseg.backends.tensorrt.device_array import DeviceArray
from edgeseg.backends.tensorrt.engine import TensorRTEngine
from edgeseg.backends.tensorrt.graphs import graph_for
from edgeseg.backends.tensorrt.pipelined import SLOTS
from edgeseg.backends.tensorrt.plugin import build as plugin_build
from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.errors import EngineError, GraphError, MissingDependencyError
from edgeseg.graph.network import Network, load_network
from edgeseg.graph.passes.unpool.plugin import is_plugin
from edgeseg.passport import Passport
from edgeseg.reporter import SILENT
from edgeseg.serving.triton import config_text
from edgeseg.spec import ModelSpec, generic_space
from edgeseg.zoo import zoo, zoo_int8

RTX = "tensorrt-rtx"
SIZE = (64, 96)
CLASSES = 11


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)


# -- both outputs from one graph -------------------------------------------------------------------


def test_one_graph_gives_both(small_onnx: Path) -> None:
    network = load_network(small_onnx)
    both, alone = (
        deploy(network, both=True, for_openvino=False),
        deploy(network, for_openvino=False),
    )
    onnx.checker.check_model(both, full_check=True)
    labels, scores = run_ort(both, frame=picture()[None])
    assert (labels.shape, scores.shape, scores.dtype) == (
        (1, *SIZE),
        (1, CLASSES, *SIZE),
        np.dtype(np.float32),
    )
    np.testing.assert_array_equal(labels, run_ort(alone, frame=picture()[None])[0])
    (pixels,) = run_ort(deploy(network, scores=True, for_openvino=False), frame=picture()[None])
    np.testing.assert_array_equal(scores, pixels.transpose(0, 3, 1, 2))
    kept = [n.SerializeToString() for n in both.graph.node if "scores" not in n.output]
    assert kept == [
        n.SerializeToString() for n in alone.graph.node
    ]  # the labels' graph is what it is without


@pytest.mark.parametrize(("form", "reduced"), [("nchw", 1), ("nchw", 2), ("nhwc", 1), ("nhwc", 2)])
def test_every_form_of_scores_is_given_channels_first(form: str, reduced: int) -> None:
    """Scores that are channels last, and scores to be enlarged."""
    weight = np.random.default_rng(0).normal(size=(5, 3, reduced, reduced)).astype(np.float32)
    nodes = [node("Conv", "image weight", "planes", strides=[reduced] * 2)]
    nodes.append(
        node("Transpose", "planes", "out", perm=[0, 2, 3, 1])
        if form == "nhwc"
        else node("Neg", "planes", "out")
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
    model = make(
        [node("ArgMax", "image", "out", axis=1, keepdims=0)], {"image": [1, 3, 8, 12]}, "out"
    )
    spec = ModelSpec(architecture="test", input_size=(8, 12), labels=generic_space(3))
    network = Network("test", model, spec, "", (), "image", "out", "labels", False)
    with pytest.raises(
        GraphError, match=r"test: gives a label map, no scores\. Leave `scores` out"
    ):
        graph_for(network, "fp32", None, SILENT, scores=True)


# -- plans with scores -----------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_plans_with_scores_are_built(
    tensorrt_rtx: ModuleType, precision: str, tmp_path: Path
) -> None:
    source = zoo_int8("enet-camvid") if precision == "int8" else zoo()["enet-camvid"]
    assert source is not None
    engine = build_engine(
        source,
        precision=precision,
        target=RTX,
        out=tmp_path / "e.engine",
        plan=PlanOptions(scores=True, save_graph=True),
    )
    passport = Passport.read(engine)
    assert (passport.tensorrt.outputs, passport.tensorrt.warnings) == ("labels, scores", ())
    graph = onnx.load(tmp_path / "e.graph.onnx")
    height, width = passport.spec.input_size
    frame = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), np.uint8)
    labels, scores = run_ort(graph, frame=frame)
    assert scores.shape == (1, CLASSES, height, width)
    np.testing.assert_array_equal(labels, scores.argmax(1))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--target", "cpu", "--scores"],
            "the cpu target has no such option: got --scores. Give a TensorRT --target.",
        ),
        (
            ["--target", "cpu", "--version-compatible"],
            "the cpu target has no such option: got --version-compatible.",
        ),
        (
            ["--target", RTX, "--version-compatible"],
            "plans are for the version that built them: got --version-compat",
        ),
    ],
)
def test_options_without_use_are_refused(
    tensorrt_rtx: ModuleType, small_onnx: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    assert_build_refused(small_onnx, tmp_path, arguments, says)


def test_triton_is_told_of_the_scores(small_onnx: Path) -> None:
    spec = load_network(small_onnx).spec
    text = config_text("n", "tensorrt_plan", spec, {}, scores=True)
    assert 'name: "scores"\n    data_type: TYPE_FP32\n    dims: [ 1, 11, 64, 96 ]' in text
    assert "scores" not in config_text("n", "tensorrt_plan", spec, {})


# -- the runner, on a GPU of NumPy -----------------------------------------------------------------


def opened(
    small_onnx: Path, gpu: FakeCuda, *, scores: bool = True, zero_copy: bool = False
) -> TensorRTEngine:
    network = load_network(small_onnx)
    model, _ = graph_for(network, "fp32", None, SILENT, scores=scores)
    passport = plan_passport(network, outputs="labels, scores" if scores else "labels")
    return TensorRTEngine(
        passport, model.SerializeToString(), fake_library(), device=gpu, zero_copy=zero_copy
    )


def wanted(small_onnx: Path, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = run_ort(
        deploy(load_network(small_onnx), both=True, for_openvino=False), True, frame=frame[None]
    )
    return labels[0], scores[0]


def on_host(array: DeviceArray) -> np.ndarray:
    facts = array.__cuda_array_interface__
    size = int(np.prod(facts["shape"])) * np.dtype(facts["typestr"]).itemsize
    block = next(m for p, m in array.owner._cuda.memory.items() if p == facts["data"][0])
    assert block.size == size
    return np.asarray(block.view(facts["typestr"]).reshape(facts["shape"]))


@pytest.mark.parametrize("zero_copy", [False, True])
@pytest.mark.parametrize("has_graphs", [False, True])
def test_logits_are_the_graphs(small_onnx: Path, has_graphs: bool, zero_copy: bool) -> None:
    engine = opened(small_onnx, FakeCuda(has_graphs=has_graphs), zero_copy=zero_copy)
    first = engine.logits(picture())
    for seed in range(2):
        labels, scores = wanted(small_onnx, picture(seed))
        np.testing.assert_allclose(engine.logits(picture(seed)), scores, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(engine(picture(seed)), labels)
    np.testing.assert_array_equal(
        first, engine.logits(picture())
    )  # the caller's own, not a view of the buffer
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
        engine.on_device(GivenArray(picture()))
        copied.append(gpu.copied)
        launched.append(gpu.launched)
    assert copied[0] == copied[1]
    assert launched[0] == launched[1] == (6 if has_graphs else 0)
    before = gpu.copied
    engine.logits(picture())
    assert gpu.copied == before + (1 if has_graphs else 3)


def test_scores_stay_on_the_device(small_onnx: Path) -> None:
    gpu = FakeCuda()
    engine = opened(small_onnx, gpu)
    copied, (labels, scores) = gpu.copied, wanted(small_onnx, picture(3))
    given = engine.on_device(GivenArray(picture(3)))
    assert gpu.copied == copied
    np.testing.assert_array_equal(on_host(given), labels)
    assert given.scores is not None
    np.testing.assert_allclose(on_host(given.scores), scores, rtol=1e-5, atol=1e-5)
    assert (
        opened(small_onnx, FakeCuda(), scores=False).on_device(GivenArray(picture())).scores is None
    )


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
    with pytest.raises(
        EngineError,
        match=r"gives label maps, no scores\. Build it .*, target=tensorrt-rtx, scores=True\)`",
    ):
        engine.logits(picture())


def test_a_busy_engine_gives_no_scores(small_onnx: Path) -> None:
    engine = opened(small_onnx, FakeCuda())
    running = engine.stream([picture(i) for i in range(4)])
    next(running)
    with pytest.raises(EngineError, match="busy with a stream"):
        engine.logits(picture())
    assert isinstance(running, Generator)
    running.close()


def test_a_plan_must_give_what_its_passport_says(small_onnx: Path) -> None:
    network = load_network(small_onnx)
    for scores, says in ((True, "labels"), (False, "labels, scores")):
        model, _ = graph_for(network, "fp32", None, SILENT, scores=scores)
        with pytest.raises(EngineError, match="is no edgeseg plan"):
            TensorRTEngine(
                plan_passport(network, outputs=says),
                model.SerializeToString(),
                fake_library(),
                device=FakeCuda(),
                zero_copy=False,
            )


# -- plans for later versions, against a TensorRT that notes what it is told -----------------------


class FakeTensorRT(SimpleNamespace):
    """As much of the module ``tensorrt`` as a build calls.

    A plan is the graph it was parsed from.
    """

    def __init__(self) -> None:
        self.parse: Callable[[bytes], bool] = self.keep
        self.config: SimpleNamespace = SimpleNamespace(
            flags=["tf32"],
            plugins_to_serialize=None,
            set_flag=lambda f: self.config.flags.append(f),
            clear_flag=lambda f: self.config.flags.remove(f),
        )
        self.everywhere, self.of_the_builder = list[str](), list[str]()
        network = SimpleNamespace(num_layers=1)
        made = SimpleNamespace(
            create_network=lambda flags: network,
            create_builder_config=lambda: self.config,
            build_serialized_network=lambda network, config: self.graph,
            get_plugin_registry=lambda: self.registry(self.of_the_builder),
        )
        super().__init__(
            Builder=lambda logger: made,
            OnnxParser=lambda network, logger: SimpleNamespace(
                parse=self.parse,
                num_errors=0,
                get_used_vc_plugin_libraries=lambda: ["libnvinfer_vc_plugin.so.10"],
            ),
            NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
            ProfilingVerbosity=SimpleNamespace(DETAILED=1),
            BuilderFlag=SimpleNamespace(VERSION_COMPATIBLE="compatible", TF32="tf32"),
            IProgressMonitor=object,
            IErrorRecorder=object,
            get_plugin_registry=lambda: self.registry(self.everywhere),
            Runtime=fake_library().trt.Runtime,
        )

    def keep(self, graph: bytes) -> bool:
        self.graph = graph
        return True

    @staticmethod
    def registry(loaded: list[str]) -> Any:
        def load_library(path: str) -> str:
            loaded.append(path)
            return path

        return SimpleNamespace(
            load_library=load_library,
            get_creator=lambda name, version, namespace: None,
            error_recorder=None,
        )


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    """TensorRT 10.7 on an Orin."""
    fake = FakeTensorRT()
    use(fake, "10.7.0.23", monkeypatch)
    monkeypatch.setattr(cuda, "has_gpu", lambda: True)
    monkeypatch.setattr(builder, "has_gpu", lambda: True)
    monkeypatch.setattr(cuda, "device", lambda: ("Orin", 87))
    monkeypatch.setattr(cuda, "binding", FakeCuda)
    monkeypatch.setattr(cuda, "is_integrated", lambda: False)
    monkeypatch.setattr(builder, "_LOADED", set())
    return fake


def use(fake: FakeTensorRT, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log: Any = Log.__new__(Log)
    log.messages = []
    log.logger = log.messages
    for module in (builder, backend):
        monkeypatch.setattr(module, "library", lambda name: Library(name, fake, version, log))


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Some library in the plugin's place."""
    path = tmp_path / "libedgeseg_plugin.so"
    shutil.copy(importlib.import_module("_ctypes").__file__ or "", path)
    monkeypatch.setattr(plugin_build, "plugin_library", lambda path_=None, *, tensorrt=None: path)
    return path


def build(source: Path, folder: Path, **options: Any) -> Passport:
    plan = PlanOptions(**{"version_compatible": True, **options})
    # The GPU of NumPy does not run the plugin's operators: nothing is proven on it.
    out = folder / "e.engine"
    return Passport.read(
        build_engine(
            source, precision="fp32", target="tensorrt", out=out, plan=replace(plan, prove=False)
        )
    )


def test_the_plan_has_the_plugin_inside(
    trt: FakeTensorRT, plugin: Path, small_onnx: Path, tmp_path: Path
) -> None:
    facts = build(small_onnx, tmp_path).tensorrt
    assert (facts.version_compatible, facts.plugin) == (True, plugin.name)
    assert trt.config.flags == ["compatible"]
    assert trt.config.plugins_to_serialize == ["libnvinfer_vc_plugin.so.10", str(plugin)]
    assert (trt.everywhere, trt.of_the_builder) == (
        [],
        [str(plugin)],
    )  # else the plan would not open in this process
    loads = f" --versionCompatible --dynamicPlugins={plugin} --setPluginsToSerialize={plugin}"
    assert facts.trtexec_build.endswith(loads)
    assert facts.trtexec_run.endswith("--noDataTransfers --versionCompatible")


def test_the_fingerprint_names_the_plugin(
    trt: FakeTensorRT, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cached plan with standard operators is built again once the plugin is there."""
    target = backend.TensorRTBackend()
    before = target.fingerprint()
    plugin.write_bytes(b"built again")
    after = target.fingerprint()
    assert before != after

    def not_built(path: Path | None = None, *, tensorrt: str | None = None) -> Path:
        raise MissingDependencyError("the TensorRT plugin is not built")

    monkeypatch.setattr(plugin_build, "plugin_library", not_built)
    assert target.fingerprint() == (*after[:-1], "no plugin")


def test_a_missing_cuda_binding_is_told_before_the_build(
    trt: FakeTensorRT,
    plugin: Path,
    small_onnx: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing() -> FakeCuda:
        raise MissingDependencyError("a TensorRT engine needs cuda-python to run")

    def too_late(*arguments: object, **options: object) -> None:
        raise AssertionError("the plan is built first")

    monkeypatch.setattr(cuda, "binding", missing)
    monkeypatch.setattr(backend, "build_plan", too_late)
    with pytest.raises(MissingDependencyError, match="needs cuda-python to run"):
        build_engine(small_onnx, precision="fp32", target="tensorrt", out=tmp_path / "e.engine")


def test_a_plan_for_another_gpu_needs_no_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "has_gpu", lambda: True)
    monkeypatch.setattr(cuda, "device", lambda: ("RTX 4090", 89))
    target = backend.TensorRTRTXBackend()
    assert target._runs_here(PlanOptions())
    assert target._runs_here(PlanOptions(sm=(86, 89)))
    assert not target._runs_here(PlanOptions(sm=(86,)))
    assert not target._runs_here(PlanOptions(prove=False))


def test_a_plan_that_does_not_build_with_the_plugin_is_built_without(
    trt: FakeTensorRT, plugin: Path, small_onnx: Path, tmp_path: Path
) -> None:
    """Nobody asked for the plugin: it is what ``auto`` tries first."""

    def parse(graph: bytes) -> bool:
        trt.graph = graph
        return not any(is_plugin(node) for node in onnx.load_from_string(graph).graph.node)

    trt.parse = parse
    heard: list[str] = []
    passport = Passport.read(
        build_engine(
            small_onnx,
            precision="fp32",
            target="tensorrt",
            out=tmp_path / "e.engine",
            reporter=Heard(heard),
        )
    )
    assert (passport.tensorrt.unpool, passport.tensorrt.plugin) == ("native", "")
    assert [
        line
        for line in heard
        if "does not build with the plugin: small: tensorrt cannot read the graph" in line
    ]
    assert "--dynamicPlugins" not in passport.tensorrt.trtexec_build
    with pytest.raises(GraphError, match="cannot read the graph"):
        build(small_onnx, tmp_path, unpool="plugin")


def test_other_plans_are_as_they_were(
    trt: FakeTensorRT, plugin: Path, small_onnx: Path, tmp_path: Path
) -> None:
    facts = build(small_onnx, tmp_path, version_compatible=False).tensorrt
    assert not facts.version_compatible
    assert (trt.config.flags, trt.config.plugins_to_serialize) == ([], None)
    assert (trt.everywhere, trt.of_the_builder) == ([str(plugin)], [])
    assert facts.trtexec_run.endswith(f"--dynamicPlugins={plugin}")


def test_a_plan_without_a_plugin(trt: FakeTensorRT, small_onnx: Path, tmp_path: Path) -> None:
    facts = build(small_onnx, tmp_path, unpool="native", scores=True).tensorrt
    assert trt.config.plugins_to_serialize == ["libnvinfer_vc_plugin.so.10"]
    assert facts.trtexec_build.endswith("--versionCompatible")
    assert facts.outputs == "labels, scores"


@pytest.mark.parametrize(
    ("compatible", "version", "fits"),
    [
        (True, "10.7.0.23", True),
        (True, "10.13.2.6", True),
        (True, "10.3.0.30", False),
        (True, "11.0.0.1", False),
        (False, "10.7.0.23", True),
        (False, "10.13.2.6", False),
    ],
)
def test_versions_that_open_a_plan(
    trt: FakeTensorRT,
    small_onnx: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    compatible: bool,
    version: str,
    fits: bool,
) -> None:
    build(small_onnx, tmp_path, unpool="native", version_compatible=compatible)
    use(trt, version, monkeypatch)
    if not fits:
        expected = rf"10|11\.x up to {version}" if compatible else version
        with pytest.raises(
            EngineError, match=rf"another tensorrt: got 10\.7\.0\.23, expected ({expected})"
        ):
            load_engine(tmp_path / "e.engine")
        return
    engine = load_engine(tmp_path / "e.engine")
    assert isinstance(engine, TensorRTEngine)
    assert engine._runtime.engine_host_code_allowed is compatible
    np.testing.assert_array_equal(engine(picture()), wanted(small_onnx, picture())[0])


def test_the_plugin_need_not_be_there(
    trt: FakeTensorRT,
    plugin: Path,
    small_onnx: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """But the plan must be the one that was built: code in it is run."""

    def missing(*_: object, **__: object) -> Path:
        raise EngineError("the plugin is looked for")

    build(small_onnx, tmp_path)
    monkeypatch.setattr(plugin_build, "plugin_library", missing)
    monkeypatch.setattr(engine, "TensorRTEngine", lambda passport, data, found, path: "an engine")
    assert cast(object, load_engine(tmp_path / "e.engine")) == "an engine"
    (tmp_path / "e.engine").write_bytes(b"another plan")
    with pytest.raises(EngineError, match="is not the engine its passport describes"):
        load_engine(tmp_path / "e.engine")


def test_versions_are_compared_by_number() -> None:
    assert opens("10.3.0", "10.13.0")
    assert not opens("10.13.0", "10.3.0")


def test_a_missing_lean_runtime_is_told(tensorrt_rtx: ModuleType, small_onnx: Path) -> None:
    """TensorRT-RTX, which takes the flag, ships none: the option is refused before it comes to
    that.
    """
    graph, _ = graph_for(load_network(small_onnx), "fp32", None, SILENT)
    with pytest.raises(
        EngineError,
        match=r"Unable to load library: libnvinfer_lean.*apt install libnvinfer-lean\d+\), or",
    ):
        build_plan(graph, "net", RTX, PlanOptions(version_compatible=True))
