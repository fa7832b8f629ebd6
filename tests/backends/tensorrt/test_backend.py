"""TensorRT without a GPU: the graphs it is given, plans that TensorRT-RTX really builds, the
runner, plain errors.
"""

import gc
import threading
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from commands import assert_build_refused, edgeseg
from fake_gpu import DeviceArray, FakeContext, FakeCuda, FakeEngine, FakeRuntime, fake_library
from lowered import deploy
from onnx import TensorProto, helper, numpy_helper
from onnx_tools import kinds, run_ort
from passports import plan_passport
from reporting import Heard

from edgeseg.backends.base import PlanOptions
from edgeseg.backends.load import load_engine
from edgeseg.backends.tensorrt import bindings, builder, cuda
from edgeseg.backends.tensorrt.builder import build_plan
from edgeseg.backends.tensorrt.engine import TensorRTEngine
from edgeseg.backends.tensorrt.graphs import graph_for, labels_by_floats
from edgeseg.backends.tensorrt.pipelined import SLOTS
from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.data import open_dataset
from edgeseg.errors import EdgesegError, EngineError, GraphError, InputError, MissingDependencyError
from edgeseg.facts import TensorRTFacts
from edgeseg.files import sha256_bytes
from edgeseg.graph.network import load_network
from edgeseg.graph.passes.fp16 import LIMIT, activations, to_fp16
from edgeseg.passport import Passport
from edgeseg.reporter import SILENT
from edgeseg.zoo import zoo, zoo_int8

RTX = "tensorrt-rtx"
DRIVE = "synthetic://?length=6&seed=4"
no_gpu = pytest.mark.skipif(cuda.has_gpu(), reason="is about machines without a GPU")


def frames(size: tuple[int, int], count: int = 3) -> list[np.ndarray]:
    height, width = size
    data = open_dataset(f"synthetic://?length={2 * count}&seed=4&size={width}x{height}", "train")
    return [data[i].image for i in range(count)]


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return {v.name: v.type.tensor_type.elem_type for v in values} | {
        t.name: t.data_type for t in inferred.initializer
    }


# -- FP16 in the graph -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(zoo()))
def test_fp16_gives_the_float_labels(name: str) -> None:
    network = load_network(zoo()[name])
    model = deploy(network, for_openvino=False)
    halved = to_fp16(model)
    assert not halved.floats
    types = types_of(halved.model)
    for node in halved.model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            assert {types[n] for n in (*node.input, *node.output)} == {TensorProto.FLOAT16}, (
                node.name
            )
    assert [v.type for v in halved.model.graph.output] == [v.type for v in model.graph.output]
    for frame in frames(network.spec.input_size):
        (want,), (got,) = (run_ort(m, frame=frame[None]) for m in (model, halved.model))
        assert (want == got).mean() > 0.998


@pytest.mark.parametrize("name", sorted(zoo()))
def test_int8_layers_keep_their_types_and_float_ones_are_halved(name: str) -> None:
    path = zoo_int8(name)
    assert path is not None
    network = load_network(path)
    model = deploy(network, for_openvino=False)
    halved = to_fp16(model).model
    assert {k: kinds(halved)[k] for k in ("QuantizeLinear", "DequantizeLinear")} == {
        k: kinds(model)[k] for k in ("QuantizeLinear", "DequantizeLinear")
    }
    types = types_of(halved)
    made = {o: n for n in halved.graph.node for o in n.output}
    counted = Counter[str]()
    for node in halved.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert types[node.input[1]] == TensorProto.FLOAT
        if node.op_type in ("Conv", "ConvTranspose"):
            inside = node.input[1] in made and made[node.input[1]].op_type == "DequantizeLinear"
            assert types[node.output[0]] == (TensorProto.FLOAT if inside else TensorProto.FLOAT16)
            assert not any(
                r.op_type == "Cast"
                for r in halved.graph.node
                if inside and node.output[0] in r.input
            )
            counted["int8" if inside else "float"] += 1
    assert counted["int8"] > 10
    assert counted["float"] >= 1
    for frame in frames(network.spec.input_size, 2):
        (want,), (got,) = (run_ort(m, frame=frame[None]) for m in (model, halved))
        assert (
            want == got
        ).mean() > 0.98  # a value that FP16 rounds to the other step moves labels that nearly tie


def chain(
    *nodes: onnx.NodeProto, weights: dict[str, np.ndarray] | None = None, size: int = 4
) -> onnx.ModelProto:
    """A float net x (1, 2, 4, 4) -> y (1, 2, size, size) of given nodes."""
    graph = helper.make_graph(
        list(nodes),
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, size, size])],
        [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_what_overflows_stays_in_float() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "big"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"], "second"),
        helper.make_node("Mul", ["b", "small"], ["c"], "third"),
        helper.make_node("Relu", ["c"], ["y"], "fourth"),
    ]
    model = chain(
        *nodes, weights={"big": np.array([3e4], np.float32), "small": np.array([1e-4], np.float32)}
    )
    x = np.full((1, 2, 4, 4), 3.0, np.float32)
    seen = {"a": 9e4, "b": 9e4, "c": 9.0, "y": 9.0}
    assert (
        not np.isfinite(run_ort(to_fp16(model, {}).model, x=x)[0]).all() or LIMIT < 3e4
    )  # what it is for
    halved = to_fp16(model, seen)
    assert set(halved.floats) == {"first", "second", "third"}
    assert "9e+04" in halved.floats["second"]
    np.testing.assert_allclose(run_ort(halved.model, x=x)[0], run_ort(model, x=x)[0], rtol=1e-3)
    types = types_of(halved.model)
    assert [types[n] for n in ("a", "b", "c")] == [TensorProto.FLOAT] * 3


def test_weights_fp16_cannot_hold_stay() -> None:
    model = chain(
        helper.make_node("Mul", ["x", "w"], ["a"], "scale"),
        helper.make_node("Neg", ["a"], ["y"], "out"),
        weights={"w": np.array([1e5], np.float32)},
    )
    halved = to_fp16(model)
    assert set(halved.floats) == {"scale"}
    assert numpy_helper.to_array(halved.model.graph.initializer[0]).dtype == np.float32


def test_operators_that_lose_accuracy_and_bodies_stay_in_float() -> None:
    body = helper.make_graph(
        [helper.make_node("Exp", ["a"], ["inner"])],
        "body",
        [],
        [helper.make_tensor_value_info("inner", 1, None)],
    )
    model = chain(
        helper.make_node("Relu", ["x"], ["a"], "relu"),
        helper.make_node("If", ["yes"], ["b"], "if", then_branch=body, else_branch=body),
        helper.make_node("ReduceMean", ["b"], ["c"], "mean", keepdims=1),
        helper.make_node("Add", ["b", "c"], ["y"], "add"),
        weights={"yes": np.array(True)},
    )
    halved = to_fp16(model).model
    x = np.random.default_rng(0).normal(size=(1, 2, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(
        run_ort(halved, x=x)[0], run_ort(model, x=x)[0], rtol=4e-3, atol=4e-3
    )
    made = {o: n for n in halved.graph.node for o in n.output}
    assert (
        made[next(n for n in halved.graph.node if n.op_type == "ReduceMean").input[0]].op_type
        == "If"
    )


def test_constants_and_sizes_are_left_as_they_are() -> None:
    """Resize's scales are FP32 whatever the data is; a Constant is halved where its reader is."""
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32))
    model = chain(
        helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.float32(2))),
        helper.make_node("Constant", [], ["scales"], value=scales),
        helper.make_node("Mul", ["x", "two"], ["a"], "mul"),
        helper.make_node("Resize", ["a", "", "scales"], ["b"], "up", mode="nearest"),
        helper.make_node("Relu", ["b"], ["y"], "relu"),
        size=8,
    )
    halved = to_fp16(model).model
    types = types_of(halved)
    resize = next(n for n in halved.graph.node if n.op_type == "Resize")
    assert (types[resize.input[0]], types[resize.input[2]]) == (
        TensorProto.FLOAT16,
        TensorProto.FLOAT,
    )
    x = np.arange(32, dtype=np.float32).reshape(1, 2, 4, 4)
    np.testing.assert_array_equal(run_ort(halved, x=x)[0], run_ort(model, x=x)[0])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("scores", [False, True])
def test_bytes_are_made_of_floats_alone(small_onnx: Path, precision: str, scores: bool) -> None:
    """TensorRT promises no other conversion to UINT8; the labels stay what they are."""
    network = load_network(small_onnx)
    model, _ = graph_for(network, precision, None, SILENT, scores=scores)
    types = types_of(model)
    casts = [
        node
        for node in model.graph.node
        if node.op_type == "Cast" and types[node.output[0]] == TensorProto.UINT8
    ]
    assert [node.output[0] for node in casts] == ["labels"]
    assert types[casts[0].input[0]] == TensorProto.FLOAT
    frame = frames(network.spec.input_size, 1)[0][None]
    plain, floats = (deploy(network, for_openvino=False) for _ in range(2))
    wanted, got = (run_ort(one, frame=frame)[0] for one in (plain, labels_by_floats(floats)))
    np.testing.assert_array_equal(got, wanted)


def test_activations_are_the_float_tensors(small_onnx: Path) -> None:
    model = deploy(load_network(small_onnx), for_openvino=False)
    types = types_of(model)
    names = activations(model)
    assert len(names) > 50
    assert all(types[n] == TensorProto.FLOAT for n in names)


# -- plans -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", sorted(zoo()))
def test_shipped_nets_are_built_ahead_of_time(
    tensorrt_rtx: ModuleType, name: str, precision: str, tmp_path: Path
) -> None:
    """For RTX 20 to 50 in one plan, and TensorRT has nothing to warn of."""
    source = zoo_int8(name) if precision == "int8" else zoo()[name]
    assert source is not None
    said: list[str] = []
    engine = build_engine(
        source,
        precision=precision,
        target=RTX,
        out=tmp_path / "e.engine",
        reporter=Heard(said),
        plan=PlanOptions(sm=(75, 80, 86, 89, 120), save_graph=True),
    )
    passport = Passport.read(engine)
    assert (passport.target, passport.library, passport.precision) == (RTX, RTX, precision)
    assert passport.library_version == tensorrt_rtx.__version__
    assert passport.device_features == ("sm75", "sm80", "sm86", "sm89", "sm120")
    assert passport.engine_sha256 == sha256_bytes(engine.read_bytes())
    assert passport.tensorrt.warnings == ()
    assert not [line for line in said if "warning" in line]
    graph = tmp_path / "e.graph.onnx"
    assert passport.tensorrt.graph_sha256 == sha256_bytes(graph.read_bytes())
    assert "--onnx=e.graph.onnx --saveEngine=e.engine" in passport.tensorrt.trtexec_build
    assert "--computeCapabilities=75,80,86,89,120" in passport.tensorrt.trtexec_build


def test_fp16_plans_are_half_as_large(tensorrt_rtx: ModuleType, tmp_path: Path) -> None:
    net = zoo()["segnet-light-camvid"]
    sizes = {
        p: build_engine(net, precision=p, target=RTX, out=tmp_path / f"{p}.engine").stat().st_size
        for p in ("fp32", "fp16")
    }
    assert 0.45 < sizes["fp16"] / sizes["fp32"] < 0.6


def test_int8_is_calibrated_for_any_target(
    tensorrt_rtx: ModuleType, fragile_onnx: Path, tmp_path: Path
) -> None:
    """Ranges, placement, the budget on labelled data: as for the CPU, whose engine computes the
    same Q/DQ graph.
    """
    drive = "synthetic://?length=24&size=64x48&seed=2"
    done = edgeseg(
        "build-engine",
        fragile_onnx,
        "--target",
        RTX,
        "--int8",
        "--calib",
        drive,
        "--data",
        drive,
        "--max-miou-drop",
        "3",
        "-o",
        tmp_path / "e.engine",
        "--save-onnx",
        tmp_path / "q.onnx",
    )
    assert done.returncode == 0, done.stderr
    passport = Passport.read(tmp_path / "e.engine")
    assert passport.precision in ("int8", "mixed")
    budget = passport.int8.budget
    assert budget is not None
    assert budget.miou >= budget.reference_miou - 0.03
    assert passport.tensorrt.fp16_seen.endswith("calibration frames")
    refused = edgeseg(
        "build-engine",
        fragile_onnx,
        "--target",
        RTX,
        "--calib",
        drive,
        "--data",
        drive,
        "-o",
        tmp_path / "a.engine",
    )
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "not on the target tensorrt-rtx" in refused.stderr


def test_a_node_tensorrt_cannot_take_is_named(tensorrt_rtx: ModuleType) -> None:
    model = chain(
        helper.make_node("Relu", ["x"], ["a"], "before"),
        helper.make_node("Foo", ["a"], ["y"], "strange"),
    )
    entry = model.graph.node[1].metadata_props.add()
    entry.key, entry.value = (
        "pkg.torch.onnx.name_scopes",
        "['', 'decoder', 'decoder.attention', 'foo']",
    )
    with pytest.raises(
        GraphError, match=r"cannot take Foo node 'strange' of layer decoder\.attention"
    ) as caught:
        build_plan(model, "net", RTX)
    assert "\n" not in str(caught.value)
    assert "`target=cpu`" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--target", RTX, "--sm", "87"],
            "does not build for these GPUs: got 87, expected 75 (RTX 20)",
        ),
        (["--target", RTX, "--sm", "ampere"], "not compute capabilities: got 'ampere'"),
        (
            ["--target", RTX, "--precision", "bf16"],
            "the tensorrt-rtx target has no such precision: got 'bf16'",
        ),
        (
            ["--target", RTX, "--unpool", "magic"],
            "does not support --unpool magic: expected auto or native",
        ),
        (
            ["--target", "cpu", "--precision", "fp16"],
            "the cpu target has no such precision: got 'fp16'",
        ),
        (
            ["--target", RTX, "--timing-cache", "t.cache"],
            "measures nothing when it builds: got --timing-cache",
        ),
        (["--sm", "86", "--target", "cpu"], "the cpu target has no such option: got --sm"),
        (["--print-trtexec", "--target", "cpu"], "the cpu target has no graph"),
        (
            ["--target", "gpu"],
            "unknown target: got 'gpu', expected auto or cpu, tensorrt, tensorrt-rtx",
        ),
    ],
)
def test_command_errors(
    tensorrt_rtx: ModuleType, small_onnx: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    assert_build_refused(small_onnx, tmp_path, arguments, says)


def test_the_graph_for_trtexec_is_not_written_over_the_net(
    tensorrt_rtx: ModuleType, small_onnx: Path, tmp_path: Path
) -> None:
    net = tmp_path / "e.graph.onnx"
    net.write_bytes(small_onnx.read_bytes())
    with pytest.raises(InputError, match="not a place for the graph"):
        build_engine(net, target=RTX, out=tmp_path / "e.engine", plan=PlanOptions(save_graph=True))
    assert net.read_bytes() == small_onnx.read_bytes()
    assert list(tmp_path.iterdir()) == [net]


# -- libraries and devices that are not there ------------------------------------------------------


def test_a_missing_tensorrt_is_told_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    bindings.library.cache_clear()
    with pytest.raises(
        MissingDependencyError, match=r"needs the Python package tensorrt.*JetPack 6\.1"
    ):
        bindings.library("tensorrt")
    assert not bindings.is_installed("tensorrt")


def test_an_old_tensorrt_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType("tensorrt")
    old.__version__ = "8.5.2.2"  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", old)
    bindings.library.cache_clear()
    try:
        with pytest.raises(
            MissingDependencyError, match=r"too old: got 8\.5\.2\.2, expected 10\.3.*JetPack 5"
        ):
            bindings.library("tensorrt")
    finally:
        bindings.library.cache_clear()


@no_gpu
def test_without_a_gpu_everything_says_so(
    tensorrt_rtx: ModuleType, small_onnx: Path, tmp_path: Path
) -> None:
    engine = build_engine(small_onnx, target=RTX, out=tmp_path / "e.engine")
    with pytest.raises(EngineError, match=r"needs an NVIDIA GPU: got no .*build for this CPU"):
        load_engine(engine)
    done = edgeseg("segment", engine, "synthetic://?length=3&size=96x64", "-o", tmp_path / "o.mp4")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert not (tmp_path / "o.mp4").exists()
    cuda.binding.cache_clear()
    with pytest.raises(EngineError, match="no NVIDIA GPU to run on: got no"):
        cuda.binding()


@no_gpu
def test_the_real_library_opens_no_plan_without_a_gpu(
    tensorrt_rtx: ModuleType, small_onnx: Path, tmp_path: Path
) -> None:
    """The runner's own code against TensorRT-RTX, as far as it goes: its error is passed on, in one
    line.
    """
    engine = build_engine(small_onnx, target=RTX, out=tmp_path / "e.engine")
    passport = Passport.read(engine)
    with pytest.raises(
        EngineError, match=r"tensorrt-rtx cannot open the engine: got .*[Cc]uda"
    ) as caught:
        TensorRTEngine(
            passport, engine.read_bytes(), bindings.library(RTX), device=FakeCuda(), zero_copy=False
        )
    assert "\n" not in str(caught.value)
    assert ", target=tensorrt-rtx)`" in str(caught.value)


def test_the_binding_asked_for_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cuda.CHOICE, "numba")
    cuda.binding.cache_clear()
    with pytest.raises(
        InputError,
        match="EDGESEG_CUDA names no CUDA binding: got 'numba', expected cuda-python or py",
    ):
        cuda.binding()


def test_a_plan_of_another_gpu_or_version_is_refused(
    tensorrt_rtx: ModuleType, small_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = build_engine(
        small_onnx, target=RTX, out=tmp_path / "e.engine", plan=PlanOptions(sm=(86, 89))
    )
    monkeypatch.setattr(cuda, "has_gpu", lambda: True)
    monkeypatch.setattr(cuda, "device", lambda: ("NVIDIA GeForce RTX 5090", 120))
    with pytest.raises(
        EngineError,
        match=r"built for compute capability 8\.6 \(RTX 30\), .*got NVIDIA GeForce RTX 50",
    ):
        load_engine(engine)
    older = Passport.read(engine).model_copy(update={"library_version": "1.0.0.1"})
    Passport.path_for(engine).write_text(older.model_dump_json())
    with pytest.raises(
        EngineError, match=r"built with another tensorrt-rtx: got 1\.0\.0\.1.*, target=tensorrt-rtx"
    ):
        load_engine(engine)


# -- the runner, on a GPU of NumPy -----------------------------------------------------------------


def test_what_stands_in_for_tensorrt_has_its_names(tensorrt_rtx: ModuleType) -> None:
    """Methods, attributes and parameters the runner calls here are the real library's."""
    pairs = [
        (FakeRuntime, tensorrt_rtx.Runtime),
        (FakeEngine, tensorrt_rtx.ICudaEngine),
        (FakeContext, tensorrt_rtx.IExecutionContext),
    ]
    for fake, real in pairs:
        names = [name for name in vars(fake) if not name.startswith("_")]
        assert names
        assert not [name for name in names if not hasattr(real, name)]
    assert hasattr(tensorrt_rtx.ICudaEngine, "num_io_tensors")
    assert tensorrt_rtx.DataType.HALF != tensorrt_rtx.DataType.FLOAT
    assert hasattr(tensorrt_rtx.IRuntimeConfig, "dynamic_shapes_kernel_specialization_strategy")
    assert hasattr(tensorrt_rtx.DynamicShapesKernelSpecializationStrategy, "EAGER")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> tuple[Passport, bytes]:
    """A shipped net's FP32 graph, and a passport for it."""
    network = load_network(zoo()["enet-camvid"])
    model, facts = graph_for(network, "fp32", None, SILENT)
    passport = plan_passport(network, RTX, **dict(facts))
    return passport, model.SerializeToString()


def opened(
    graph: tuple[Passport, bytes], gpu: FakeCuda, *, zero_copy: bool = False
) -> TensorRTEngine:
    return TensorRTEngine(*graph, fake_library(), device=gpu, zero_copy=zero_copy)


def drive(count: int) -> list[np.ndarray]:
    data = open_dataset("synthetic://?length=40&seed=5&size=480x360", "train")
    return [data[i].image for i in range(count)]


@pytest.fixture(scope="module")
def wanted(graph: tuple[Passport, bytes]) -> list[np.ndarray]:
    model = onnx.load_from_string(graph[1])
    return [run_ort(model, frame=frame[None])[0][0] for frame in drive(7)]


@pytest.mark.parametrize(
    ("gpu", "zero_copy"),
    [
        (FakeCuda(), False),
        (FakeCuda(), True),
        (FakeCuda(has_graphs=False), False),
        (FakeCuda(capture_fails=True), False),
    ],
    ids=["graphs", "zero-copy", "no-graphs", "uncapturable"],
)
def test_frames_come_back_labelled(
    graph: tuple[Passport, bytes], wanted: list[np.ndarray], gpu: FakeCuda, zero_copy: bool
) -> None:
    engine = opened(graph, gpu, zero_copy=zero_copy)
    assert np.isnan(engine.gpu_milliseconds) or engine.gpu_milliseconds == 1.5
    copied = gpu.copied
    for frame, want in zip(drive(2), wanted, strict=False):
        np.testing.assert_array_equal(engine(frame), want)
    assert engine.gpu_milliseconds == 1.5
    uses_graphs = gpu.has_graphs and not gpu.capture_fails
    assert (gpu.launched > 0) == uses_graphs
    assert (gpu.copied - copied) == (0 if zero_copy or uses_graphs else 4)
    small = engine(drive(1)[0][::2, ::2])
    assert small.shape == (180, 240)
    with pytest.raises(EngineError, match="gives label maps, no scores"):
        engine.logits(drive(1)[0])


def test_a_stream_keeps_its_order(graph: tuple[Passport, bytes], wanted: list[np.ndarray]) -> None:
    """More frames than slots, of two sizes: each label map is of its own frame."""
    engine = opened(graph, FakeCuda())
    given = drive(7)
    assert len(given) > 2 * SLOTS
    for got, want in zip(engine.stream(iter(given)), wanted, strict=True):
        np.testing.assert_array_equal(got, want)
    mixed = [given[0], given[1][:, ::2], given[2]]
    assert [m.shape for m in engine.stream(mixed)] == [(360, 480), (360, 240), (360, 480)]
    assert list(engine.stream([])) == []


def test_a_stream_that_is_closed_early_leaves_the_engine_usable(
    graph: tuple[Passport, bytes], wanted: list[np.ndarray]
) -> None:
    engine = opened(graph, FakeCuda())
    running = engine.stream(drive(7))
    np.testing.assert_array_equal(next(running), wanted[0])
    with pytest.raises(EngineError, match="busy with a stream"):
        engine(drive(1)[0])
    with pytest.raises(EngineError, match="busy with a stream"):
        next(engine.stream(drive(1)))
    assert isinstance(running, Generator)
    running.close()
    np.testing.assert_array_equal(engine(drive(2)[1]), wanted[1])


def test_threads_take_turns(graph: tuple[Passport, bytes], wanted: list[np.ndarray]) -> None:
    engine, given, wrong = opened(graph, FakeCuda()), drive(4), list[int]()

    def work(place: int) -> None:
        for _ in range(3):
            if not np.array_equal(engine(given[place]), wanted[place]):
                wrong.append(place)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_device_arrays_go_in_and_out(
    graph: tuple[Passport, bytes], wanted: list[np.ndarray]
) -> None:
    gpu = FakeCuda()
    engine = opened(graph, gpu)
    copied = gpu.copied
    labels = engine.on_device(DeviceArray(drive(1)[0]))
    assert gpu.copied == copied
    facts = labels.__cuda_array_interface__
    got = np.lib.stride_tricks.as_strided(
        gpu.memory[facts["data"][0]], shape=facts["shape"], strides=(480, 1)
    )
    np.testing.assert_array_equal(got, wanted[0])
    np.testing.assert_array_equal(engine(drive(2)[1]), wanted[1])  # its own buffers again
    for skew in (1, 64, 255):  # where TensorRT takes no tensor: a frame out of a batch, say
        copied = gpu.copied
        labels = engine.on_device(DeviceArray(drive(3)[2], skew))
        assert gpu.copied == copied + 1
        got = gpu.memory[labels.__cuda_array_interface__["data"][0]][: wanted[2].size].reshape(
            wanted[2].shape
        )
        np.testing.assert_array_equal(got, wanted[2])
    small, floats = np.zeros((9, 9, 3), np.uint8), np.zeros((360, 480, 3), np.float32)
    gaps = DeviceArray(drive(1)[0], strides=(480 * 6, 6, 2))
    for bad in (np.zeros(3), DeviceArray(small), DeviceArray(floats), gaps):
        with pytest.raises(InputError):
            engine.on_device(bad)


def test_memory_is_given_back(graph: tuple[Passport, bytes]) -> None:
    gpu = FakeCuda()
    engine = opened(graph, gpu)
    assert len(gpu.memory) == 4 * SLOTS
    del engine
    gc.collect()
    assert not gpu.memory


def test_a_damaged_plan_is_told_plainly(graph: tuple[Passport, bytes]) -> None:
    with pytest.raises(
        EdgesegError, match=r"cannot open the engine: got magicTag is wrong\. Build it again"
    ):
        TensorRTEngine(graph[0], b"damaged", fake_library(), device=FakeCuda(), zero_copy=False)


def test_a_plan_that_brings_the_plugin_again_is_told_plainly(
    graph: tuple[Passport, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    passport = graph[0].model_copy(update={"facts": TensorRTFacts(version_compatible=True)})
    with pytest.raises(EngineError, match="Build it again"):
        opened((passport, b"damaged"), FakeCuda())
    monkeypatch.setattr(builder, "_LOADED", {("tensorrt", Path("libedgeseg_plugin.so"))})
    with pytest.raises(EngineError, match="in a process of its own"):
        opened((passport, b"damaged"), FakeCuda())


def test_a_plan_of_something_else_is_told(graph: tuple[Passport, bytes]) -> None:
    other = graph[0].model_copy(update={"spec": graph[0].spec.replace(input_size=(96, 96))})
    with pytest.raises(EngineError, match="is no edgeseg plan"):
        TensorRTEngine(other, graph[1], fake_library(), device=FakeCuda(), zero_copy=False)
