"""Plans for a range of batches and sizes: the dynamic graph, what TensorRT-RTX builds of it, the
runner, errors.
"""

import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from commands import assert_build_refused, edgeseg
from fake_gpu import DeviceArray, FakeCuda, fake_library
from lowered import deploy
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_tools import kinds, run_ort
from reporting import Heard

from edgeseg.backends.base import PlanOptions
from edgeseg.backends.tensorrt.engine import TensorRTEngine
from edgeseg.backends.tensorrt.graphs import graph_for
from edgeseg.backends.tensorrt.pipelined import SETTLED, SLOTS
from edgeseg.backends.tensorrt.profiles import Profile
from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.cli.build_options import parse_batches, parse_sizes
from edgeseg.errors import EngineError, GraphError, InputError
from edgeseg.facts import LABELS, LABELS_AND_SCORES, TensorRTFacts
from edgeseg.files import sha256_bytes
from edgeseg.graph.dynamic_run import check_runs
from edgeseg.graph.network import Network, Overrides, load_network
from edgeseg.graph.passes.dynamic_shapes import DynamicShapes, resolve_dynamic_shapes
from edgeseg.graph.passes.unpool.plugin import POOL, REFERENCE, UNPOOL
from edgeseg.imaging.preprocess import resize_frame, resize_labels
from edgeseg.passport import Passport
from edgeseg.reporter import SILENT
from edgeseg.serving.triton import triton_from_engine
from edgeseg.spec import CAMVID_11, METADATA_KEY, ModelSpec
from edgeseg.zoo import zoo, zoo_int8

RTX = "tensorrt-rtx"
SIZES = ((64, 96), (64, 96), (96, 128))
Size = tuple[int, int]


def noise(count: int, size: Size, seed: int = 0) -> np.ndarray:
    """(N, H, W, 3): coarse noise, so that labels differ and do not nearly tie everywhere."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 8, 12, 3), np.uint8)
    return np.stack([resize_frame(frame, size) for frame in coarse])


def nets() -> list[Any]:
    paths = [(name, path) for name in sorted(zoo()) for path in (zoo()[name], zoo_int8(name))]
    return [pytest.param(path, id=path.stem) for _, path in paths if path is not None]


def at(path: Path, size: Size) -> Network:
    return load_network(path, Overrides(size=size))


# -- the graph -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", nets())
@pytest.mark.parametrize("plugin", [False, True], ids=["native", "plugin"])
def test_where_nothing_is_free_the_graph_is_what_it_was(path: Path, plugin: bool) -> None:
    network = load_network(path)
    plain = deploy(network, for_openvino=False, plugin=plugin)
    nothing = deploy(
        network,
        for_openvino=False,
        plugin=plugin,
        dynamic=resolve_dynamic_shapes(network, False, ()),
    )
    assert nothing.SerializeToString() == plain.SerializeToString()
    assert kinds(plain)["Shape"] == 0
    dims = [
        d for v in (*plain.graph.input, *plain.graph.output) for d in v.type.tensor_type.shape.dim
    ]
    assert all(d.HasField("dim_value") for d in dims)


@pytest.mark.parametrize("path", nets())
def test_the_free_graph_gives_the_static_labels(path: Path) -> None:
    """Batches of 1, 2 and 3, at three sizes: as the static graph of one frame of that size."""
    network = at(path, SIZES[0])
    dynamic = resolve_dynamic_shapes(network, True, SIZES)
    assert dynamic.step == (8 if "enet" in path.stem else 16)
    model = deploy(network, for_openvino=False, dynamic=dynamic)
    check_runs(model, network.name, SIZES[0], dynamic)
    onnx.checker.check_model(model, full_check=True)
    said = [
        [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in model.graph.input
    ]
    assert said == [["batch", "height", "width", 3]]
    assert [d.dim_param for d in model.graph.output[0].type.tensor_type.shape.dim] == [
        "batch",
        "height",
        "width",
    ]
    # The fast form of unpooling, as where sizes are fixed.
    static = deploy(network, for_openvino=False)
    wanted = ("Where", "Equal", "MaxPool", "ScatterElements", "ArgMax", "Pad")
    assert {k: kinds(model)[k] for k in wanted} == {k: kinds(static)[k] for k in wanted}
    for size, count in (((64, 96), 3), ((96, 128), 1), ((80, 112), 2)):
        frames = noise(count, size)
        fixed = deploy(at(path, size), for_openvino=False)
        (got,) = run_ort(model, frame=frames)
        assert got.dtype == np.uint8
        assert len(np.unique(got)) > 1
        np.testing.assert_array_equal(
            got, np.concatenate([run_ort(fixed, frame=f[None])[0] for f in frames])
        )


@pytest.mark.parametrize("sizes", [(), SIZES], ids=["batch", "sizes"])
def test_scores_are_free_too(small_onnx: Path, sizes: tuple[Size, ...]) -> None:
    network = load_network(small_onnx)
    model = deploy(
        network,
        scores=True,
        for_openvino=False,
        dynamic=resolve_dynamic_shapes(network, True, sizes),
    )
    frames = noise(2, (96, 128) if sizes else (64, 96))
    fixed = deploy(at(small_onnx, frames.shape[1:3]), scores=True, for_openvino=False)
    (got,) = run_ort(model, frame=frames)
    want = np.concatenate([run_ort(fixed, frame=f[None])[0] for f in frames])
    np.testing.assert_allclose(got, want, atol=1e-4 * np.ptp(want))


@pytest.mark.parametrize("name", ["enet-camvid", "segnet-light-camvid"])
def test_the_plugins_form_is_free_too(name: str) -> None:
    """Its operators keep their attributes for every size; ONNX's own evaluator runs them."""
    network = at(zoo()[name], (32, 32))
    dynamic = resolve_dynamic_shapes(network, True, ((32, 32), (32, 32), (48, 64)))
    model = deploy(network, for_openvino=False, plugin=True, dynamic=dynamic)
    fixed = deploy(network, for_openvino=False, plugin=True)
    for kind in (POOL, UNPOOL, "Add", "Where"):
        assert kinds(model)[kind] == kinds(fixed)[kind]
    assert kinds(model)[POOL] >= 2
    native = deploy(network, for_openvino=False, dynamic=dynamic)
    frames = noise(2, (32, 48))
    (got,) = ReferenceEvaluator(model, new_ops=REFERENCE).run(None, {"frame": frames})
    assert np.equal(got, run_ort(native, frame=frames)[0]).mean() > 0.999


def tiny(
    folder: Path, *nodes: onnx.NodeProto, size: Size = (32, 48), **weights: np.ndarray
) -> Network:
    """image (N, 3, H, W) -> conv (3 -> 11) -> ``nodes`` from ``c`` to ``y``."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(11, 3, 3, 3)).astype(np.float32), **weights}
    conv = helper.make_node(
        "Conv", ["image", "w"], ["c"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1]
    )
    graph = helper.make_graph(
        [conv, *nodes],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, *size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 11, None, None])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    spec = ModelSpec(architecture="tiny", input_size=size, labels=CAMVID_11)
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.save(model, folder / "tiny.onnx")
    return load_network(folder / "tiny.onnx")


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


RANGE = ((32, 48), (32, 48), (64, 96))


@pytest.mark.parametrize(
    ("node", "weights", "batch", "says"),
    [
        (
            "Reshape",
            {"s": ints(1, 11, 32, 48)},
            True,
            "does not follow a dynamic batch: got Reshape node 'stuck'",
        ),
        (
            "Resize",
            {"s": ints(1, 11, 32, 48)},
            False,
            "does not follow a dynamic input size: got Resize node 'stuck'",
        ),
    ],
)
def test_a_size_written_into_the_net_is_told_with_its_node(
    tmp_path: Path, node: str, weights: dict[str, Any], batch: bool, says: str
) -> None:
    inputs = ["c", "s"] if node == "Reshape" else ["c", "", "", "s"]
    network = tiny(
        tmp_path,
        helper.make_node(node, inputs, ["r"], "stuck"),
        helper.make_node("Relu", ["r"], ["y"]),
        **weights,
    )
    with pytest.raises(GraphError, match=says) as caught:
        resolve_dynamic_shapes(network, batch, () if batch else RANGE)
    option, command = (
        ("batch", "`export(CHECKPOINT)`") if batch else ("sizes", "`export(CHECKPOINT, size=")
    )
    assert f"leave `{option}` out" in str(caught.value)
    assert command in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_net_may_follow_the_batch_alone(tmp_path: Path) -> None:
    network = tiny(
        tmp_path, helper.make_node("Reshape", ["c", "s"], ["y"], "stuck"), s=ints(-1, 11, 32, 48)
    )
    dynamic = resolve_dynamic_shapes(network, True, ())
    graph = deploy(network, for_openvino=False, dynamic=dynamic)
    assert run_ort(graph, frame=noise(3, (32, 48)))[0].shape == (3, 32, 48)
    with pytest.raises(
        GraphError,
        match=r"does not follow a dynamic input size: got Reshape node 'stuck', .* `sizes` out",
    ):
        resolve_dynamic_shapes(network, False, RANGE)


def test_what_only_running_tells_is_told(tmp_path: Path) -> None:
    """A constant of one size that meets the dynamic one; a net that looks at the whole batch."""
    fixed = np.ones((1, 11, 32, 48), np.float32)
    network = tiny(tmp_path, helper.make_node("Add", ["c", "k"], ["y"], "add"), k=fixed)
    with pytest.raises(
        GraphError, match=r"cannot take 1 frame of 64x96: got .*'add'.*leave `sizes` out"
    ):
        graph_for(
            network, "fp32", None, SILENT, dynamic=resolve_dynamic_shapes(network, False, RANGE)
        )
    mixes = tiny(
        tmp_path,
        helper.make_node("ReduceMax", ["c", "axes"], ["m"], "over_frames", keepdims=1),
        helper.make_node("Sub", ["c", "m"], ["y"]),
        axes=ints(0),
    )
    with pytest.raises(GraphError, match=r"mixes the frames of a batch: got .* leave `batch` out"):
        graph_for(mixes, "fp32", None, SILENT, dynamic=resolve_dynamic_shapes(mixes, True, ()))


def test_labels_of_reduced_scores_are_enlarged_to_any_size(tmp_path: Path) -> None:
    pool = helper.make_node(
        "AveragePool", ["c"], ["y"], "quarter", kernel_shape=[4, 4], strides=[4, 4]
    )
    network = tiny(tmp_path, pool)
    dynamic = resolve_dynamic_shapes(network, True, RANGE)
    assert dynamic.step == 4
    model = deploy(network, for_openvino=False, dynamic=dynamic)
    frames = noise(2, (36, 60))
    fixed = deploy(at(tmp_path / "tiny.onnx", (36, 60)), for_openvino=False)
    want = np.concatenate([run_ort(fixed, frame=f[None])[0] for f in frames])
    np.testing.assert_array_equal(run_ort(model, frame=frames)[0], want)
    batch = deploy(network, for_openvino=False, dynamic=resolve_dynamic_shapes(network, True, ()))
    assert run_ort(batch, frame=noise(3, (32, 48)))[0].shape == (3, 32, 48)


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        (((60, 96), (64, 96), (96, 128)), "must be multiples of 8: got 60x96. Give 64x96 instead"),
        (
            ((72, 96), (72, 96), (96, 128)),
            "its own size is not in the range.*: got 64x96, expected 72x96 to 96x128",
        ),
    ],
)
def test_sizes_that_do_not_fit_the_net_are_refused(
    small_onnx: Path, sizes: tuple[Size, ...], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        resolve_dynamic_shapes(load_network(small_onnx), False, sizes)


def test_the_step_is_the_nets_where_its_spec_knows_none() -> None:
    network = at(zoo()["segnet-light-camvid"], (64, 96))
    assert network.spec.stride == 1
    with pytest.raises(InputError, match="must be multiples of 16: got 72x96"):
        resolve_dynamic_shapes(network, False, ((64, 96), (72, 96), (96, 128)))


# -- options ---------------------------------------------------------------------------------------


def test_ranges_are_read_as_they_are_written() -> None:
    assert (parse_batches(None), parse_batches("8"), parse_batches("1:4:8")) == (
        (1, 1, 1),
        (1, 8, 8),
        (1, 4, 8),
    )
    assert parse_sizes("352x480:720x960:1056x1920") == ((352, 480), (720, 960), (1056, 1920))
    for ranges in (Profile(), Profile((1, 4, 8)), Profile((2, 2, 2), SIZES, 8)):
        assert Profile.of(TensorRTFacts(**ranges.facts())) == ranges
    assert Profile.of(TensorRTFacts()) == Profile()
    ranges = Profile((1, 1, 1), SIZES, 8)
    assert [
        ranges.takes(s) for s in ((64, 96), (96, 128), (72, 104), (71, 104), (104, 128), (64, 88))
    ] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]
    # A range of one number may be a fixed size in the plan.
    fixed = Profile((4, 4, 4), ((64, 96), (64, 96), (64, 128)), 8)
    assert fixed.told((4, 64, -1, 3), (64, 96)) == fixed.tensor((64, 96)) == (-1, -1, -1, 3)
    assert fixed.told((2, 64, 96, 3), (64, 96)) == (2, -1, 96, 3)


@pytest.mark.parametrize("facts", [{"batch": (3, 2, 1)}, {"sizes": ((32, 64),)}])
def test_a_damaged_passport_is_told(facts: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match="the passport's ranges cannot be read"):
        Profile.of(TensorRTFacts(**facts))


@pytest.mark.parametrize("text", ["0", "x", "", "8:4:1", "1:2", "1:2:3:4", "-1"])
def test_what_is_no_range_of_batches_is_told(text: str) -> None:
    with pytest.raises(
        InputError,
        match=r"not a range of batches: got .*such as 8 \(1 to 8\), or MIN:BEST:MAX such as 1:4:8",
    ):
        parse_batches(text)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--target", RTX, "--batch", "8:4:1"], "not a range of batches: got '8:4:1'"),
        (
            ["--target", RTX, "--sizes", "64x96"],
            "not a range of sizes: got '64x96', expected MIN:BEST:MAX, such as",
        ),
        (
            ["--target", RTX, "--sizes", "96x64:64x96:96x128"],
            "not a range of sizes: got ((96, 64), (64, 96), (96, 12",
        ),
        (["--target", RTX, "--sizes", "64x96:65x96:96x128"], "must be multiples of 8: got 65x96"),
        (
            ["--target", "cpu", "--batch", "8", "--sizes", "64x96:64x96:96x128"],
            "no such option: got --batch, --sizes",
        ),
    ],
)
def test_command_errors(
    tensorrt_rtx: ModuleType, small_onnx: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    assert_build_refused(small_onnx, tmp_path, arguments, says)


# -- plans -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", nets())
def test_tensorrt_rtx_builds_ranges(tensorrt_rtx: ModuleType, path: Path, tmp_path: Path) -> None:
    """Shipped nets in FP16 and INT8, for batches of 1 to 8, two of them for sizes as well; nothing
    to warn of.
    """
    said: list[str] = []
    sizes = SIZES if path in (zoo()["enet-camvid"], zoo_int8("segnet-light-camvid")) else ()
    plan = PlanOptions(sm=(86, 120), batch=(1, 4, 8), sizes=sizes)
    engine = build_engine(
        load_network(path, Overrides(size=(64, 96))),
        precision="int8" if "int8" in path.stem else "fp16",
        target=RTX,
        out=tmp_path / "e.engine",
        reporter=Heard(said),
        plan=plan,
    )
    facts = Passport.read(engine).tensorrt
    assert facts.warnings == ()
    assert not [line for line in said if "warning" in line]
    assert facts.batch == (1, 4, 8)
    assert facts.sizes == sizes
    largest = "8x96x128x3" if sizes else "8x64x96x3"
    wanted = f"--minShapes=frame:1x64x96x3 --optShapes=frame:4x64x96x3 --maxShapes=frame:{largest}"
    assert wanted in facts.trtexec_build
    assert facts.trtexec_run.endswith("--shapes=frame:4x64x96x3")


def test_the_command_builds_a_range(
    tensorrt_rtx: ModuleType, small_onnx: Path, tmp_path: Path
) -> None:
    done = edgeseg(
        "build-engine",
        small_onnx,
        "--target",
        RTX,
        "--batch",
        "4",
        "--sizes",
        "64x96:72x96:96x128",
        "-o",
        tmp_path / "e.engine",
        "--print-trtexec",
        "--precision",
        "fp32",
    )
    assert done.returncode == 0, done.stderr
    assert "--optShapes=frame:4x72x96x3 --maxShapes=frame:4x96x128x3" in done.stdout
    graph = onnx.load(tmp_path / "e.graph.onnx")
    assert [d.dim_param for d in graph.graph.output[0].type.tensor_type.shape.dim] == [
        "batch",
        "height",
        "width",
    ]
    assert Passport.read(tmp_path / "e.engine").tensorrt.size_step == 8


def test_a_static_plan_says_nothing_of_ranges(
    tensorrt_rtx: ModuleType, small_onnx: Path, tmp_path: Path
) -> None:
    facts = Passport.read(build_engine(small_onnx, target=RTX, out=tmp_path / "e.engine")).tensorrt
    assert (facts.batch, facts.sizes, facts.size_step) == ((1, 1, 1), (), 1)
    assert "Shapes" not in facts.trtexec_build + facts.trtexec_run


# -- the runner, on a GPU of NumPy -----------------------------------------------------------------


class Opened:
    """An engine for ``ranges`` of the small net in FP32, and the labels its static graphs give."""

    def __init__(self, path: Path, ranges: Profile, *, scores: bool = False, **gpu: Any) -> None:
        self.network, self.gpu = (
            load_network(path),
            FakeCuda(**{k: v for k, v in gpu.items() if k != "zero_copy"}),
        )
        model, facts = graph_for(
            self.network, "fp32", None, SILENT, scores=scores, dynamic=ranges.dynamic
        )
        outputs = LABELS_AND_SCORES if scores else LABELS
        facts = facts.model_copy(update={"outputs": outputs, **ranges.facts()})
        passport = Passport(
            name="small",
            target=RTX,
            precision="fp32",
            spec=self.network.spec,
            onnx_sha256="",
            engine_sha256="",
            edgeseg="0",
            library=RTX,
            library_version="0.0",
            device="fake",
            facts=facts,
            build_seconds=0,
            built_at="",
        )
        self.path, self.static = path, dict[Size, onnx.ModelProto]()
        zero_copy = bool(gpu.get("zero_copy"))
        self.engine = TensorRTEngine(
            passport,
            model.SerializeToString(),
            fake_library(),
            device=self.gpu,
            zero_copy=zero_copy,
        )

    def wanted(self, frames: np.ndarray, size: Size | None = None) -> np.ndarray:
        """(N, H, W): every frame alone, at its own size or resized to ``size``."""
        size = size or (frames.shape[1], frames.shape[2])
        if size not in self.static:
            self.static[size] = deploy(at(self.path, size), for_openvino=False)
        alone = [
            run_ort(self.static[size], frame=resize_frame(f, size)[None])[0][0] for f in frames
        ]
        return np.stack([resize_labels(one, frames.shape[1:3]) for one in alone])

    def ran(self) -> list[tuple[int, ...]]:
        """The shapes that were run since the last time, in the order of the slots."""
        found = [shape for slot in self.engine._slots for shape in slot.context.ran]
        for slot in self.engine._slots:
            slot.context.ran.clear()
        return found


@pytest.mark.parametrize(
    "gpu",
    [{}, {"zero_copy": True}, {"has_graphs": False}, {"capture_fails": True}],
    ids=lambda g: next(iter(g), ""),
)
def test_a_batch_is_one_run(small_onnx: Path, gpu: dict[str, bool]) -> None:
    opened = Opened(small_onnx, Profile((1, 4, 4)), **gpu)
    engine = opened.engine
    opened.ran()
    frames = noise(13, (64, 96))
    want = opened.wanted(frames)
    for count, shapes in ((1, [1]), (3, [3]), (4, [4]), (6, [4, 2]), (13, [4, 1, 4, 4])):
        np.testing.assert_array_equal(engine(frames[:count]), want[:count])
        assert sorted(s[0] for s in opened.ran()) == sorted(shapes)
    np.testing.assert_array_equal(engine(frames[2]), want[2])
    small = engine(np.ascontiguousarray(frames[:3, ::2, ::2]))
    np.testing.assert_array_equal(small, opened.wanted(frames[:3, ::2, ::2], (64, 96)))
    with pytest.raises(InputError, match="an empty batch"):
        engine(frames[:0])
    with pytest.raises(InputError, match="not a frame"):
        engine(frames.astype(np.float32))


def test_too_small_a_batch_is_filled_up(small_onnx: Path) -> None:
    opened = Opened(small_onnx, Profile((3, 4, 4)))
    opened.ran()
    frames = noise(5, (64, 96))
    want = opened.wanted(frames)
    np.testing.assert_array_equal(opened.engine(frames[1]), want[1])
    assert opened.ran() == [(3, 64, 96, 3)]
    np.testing.assert_array_equal(opened.engine(frames), want)
    assert opened.ran() == [(4, 64, 96, 3), (3, 64, 96, 3)]
    for got, one in zip(opened.engine.stream(iter(frames)), want, strict=True):
        np.testing.assert_array_equal(got, one)
    with pytest.raises(InputError, match="takes 3 frames at a time or more: got one on the device"):
        opened.engine.on_device(DeviceArray(frames[0]))


def test_frames_in_the_range_run_at_their_own_size(small_onnx: Path) -> None:
    """Back and forth between sizes; what is out of the range, or no multiple of the step, is
    resized.
    """
    opened = Opened(small_onnx, Profile((1, 2, 2), SIZES, 8))
    opened.ran()
    own = [noise(3, size, seed) for seed, size in enumerate(((64, 96), (96, 128), (72, 104)))]
    for _ in range(2):
        for frames in own:
            size = frames.shape[1:3]
            np.testing.assert_array_equal(opened.engine(frames[0]), opened.wanted(frames[:1])[0])
            assert opened.ran() == [(1, *size, 3)]
            np.testing.assert_array_equal(opened.engine(frames), opened.wanted(frames))
            assert opened.ran() == [(2, *size, 3), (1, *size, 3)]
    for size in ((70, 104), (56, 96), (104, 128), (480, 640)):
        other = noise(2, size, 7)
        np.testing.assert_array_equal(opened.engine(other), opened.wanted(other, (64, 96)))
        assert opened.ran() == [(2, 64, 96, 3)]
    mixed = [own[0][0], own[1][0], other[0], own[1][1], own[2][0], own[0][1], own[1][2]]
    sizes = [(64, 96), (96, 128), (64, 96), (96, 128), (72, 104), (64, 96), (96, 128)]
    assert len(mixed) > 2 * SLOTS
    for got, frame, size in zip(opened.engine.stream(iter(mixed)), mixed, sizes, strict=True):
        np.testing.assert_array_equal(got, opened.wanted(frame[None], size)[0])


def test_a_shape_that_stays_is_captured_and_given_back(small_onnx: Path) -> None:
    opened = Opened(small_onnx, Profile((1, 2, 2), SIZES, 8))
    engine, gpu = opened.engine, opened.gpu
    small, large = noise(1, (64, 96))[0], noise(1, (96, 128))[0]
    engine(small)
    assert (gpu.launched, gpu.dropped) == (1, 0)  # captured when it was opened
    for turn in range(SETTLED + 2):
        np.testing.assert_array_equal(engine(large), opened.wanted(large[None])[0])
        assert gpu.launched == 1 + max(turn + 1 - SETTLED, 0)
    assert gpu.dropped == 1
    np.testing.assert_array_equal(engine(small), opened.wanted(small[None])[0])
    assert gpu.dropped == 2
    assert engine._slots[0].graph is None
    assert all(
        slot.context.config.dynamic_shapes_kernel_specialization_strategy == "eager"
        for slot in engine._slots
    )


def test_threads_with_frames_of_their_own_size_take_turns(small_onnx: Path) -> None:
    opened = Opened(small_onnx, Profile((1, 4, 4), SIZES, 8))
    given = [
        noise(1 + place, size, place)
        for place, size in enumerate(((64, 96), (96, 128), (72, 104), (64, 128)))
    ]
    want, wrong = [opened.wanted(frames) for frames in given], list[int]()

    def work(place: int) -> None:
        for _ in range(4):
            if not np.array_equal(opened.engine(given[place]), want[place]):
                wrong.append(place)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(given))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_device_arrays_of_any_size_in_the_range(small_onnx: Path) -> None:
    opened = Opened(small_onnx, Profile((1, 2, 2), SIZES, 8))
    for size in ((96, 128), (64, 96), (72, 104), (96, 128)):
        frame = noise(1, size)[0]
        labels = opened.engine.on_device(DeviceArray(frame))
        facts = labels.__cuda_array_interface__
        assert facts["shape"] == size
        got = opened.gpu.memory[facts["data"][0]][: size[0] * size[1]].reshape(size)
        np.testing.assert_array_equal(got, opened.wanted(frame[None])[0])
    np.testing.assert_array_equal(opened.engine(frame), opened.wanted(frame[None])[0])
    for wrong in (noise(1, (70, 104))[0], noise(1, (104, 128))[0], noise(2, (64, 96))):
        with pytest.raises(InputError, match="not a frame for this engine"):
            opened.engine.on_device(DeviceArray(wrong))


@pytest.mark.parametrize("least", [1, 2])
def test_a_plan_for_ranges_gives_scores(small_onnx: Path, least: int) -> None:
    opened = Opened(small_onnx, Profile((least, 3, 3), SIZES, 8), scores=True)
    frames = noise(3, (96, 128))
    np.testing.assert_array_equal(opened.engine(frames), opened.wanted(frames))
    own = noise(1, (64, 96))[0]
    scores = opened.engine.logits(own)
    (want,) = run_ort(deploy(opened.network, scores=True, for_openvino=False), frame=own[None])
    np.testing.assert_allclose(scores, want[0].transpose(2, 0, 1), atol=1e-4 * np.ptp(want))
    np.testing.assert_array_equal(opened.engine(frames), opened.wanted(frames))
    if least == 1:
        on_device = opened.engine.on_device(DeviceArray(frames[0])).scores
        assert on_device is not None
        assert on_device.shape == (11, 96, 128)


def test_a_shape_the_plan_does_not_take_changes_nothing(
    small_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Opened(small_onnx, Profile((1, 2, 2)))
    frames = noise(2, (64, 96))
    want = opened.wanted(frames)
    with monkeypatch.context() as patch:
        patch.setattr("fake_gpu.FakeContext.set_input_shape", lambda self, name, shape: False)
        with pytest.raises(
            EngineError, match=r"does not take frames of this shape: got \(2, 64, 96\)"
        ):
            opened.engine(frames)
        np.testing.assert_array_equal(opened.engine(frames[0]), want[0])
    np.testing.assert_array_equal(opened.engine(frames), want)


def test_a_plan_of_other_ranges_than_its_passports_is_refused(small_onnx: Path) -> None:
    opened = Opened(small_onnx, Profile((1, 2, 2)))
    model = deploy(opened.network, for_openvino=False)
    with pytest.raises(
        EngineError,
        match=r"is no edgeseg plan: got .*\(1, 64, 96, 3\).* expected .*\(-1, 64, 96, 3\)",
    ):
        TensorRTEngine(
            opened.engine.passport,
            model.SerializeToString(),
            fake_library(),
            device=FakeCuda(),
            zero_copy=False,
        )


# -- Triton ----------------------------------------------------------------------------------------


def plan_of(folder: Path, ranges: Profile) -> Path:
    path = folder / "net.fp16.tensorrt.engine"
    path.write_bytes(b"a plan")
    passport = Passport(
        name="net",
        target="tensorrt",
        precision="fp16",
        onnx_sha256="0" * 64,
        engine_sha256=sha256_bytes(b"a plan"),
        spec=ModelSpec(architecture="x", input_size=(64, 96), labels=CAMVID_11),
        edgeseg="0",
        library="TensorRT",
        library_version="10.3.0",
        device="Orin",
        facts=TensorRTFacts(**ranges.facts()),
        build_seconds=1,
        built_at="2026-11-01",
    )
    Passport.path_for(path).write_text(passport.model_dump_json())
    return path


def test_triton_is_told_the_batch(tmp_path: Path) -> None:
    folder = triton_from_engine(plan_of(tmp_path, Profile((1, 4, 8))), tmp_path / "models")
    config = (folder / "config.pbtxt").read_text()
    assert "max_batch_size: 8\n" in config
    assert "dims: [ 64, 96, 3 ]" in config
    assert "dims: [ 64, 96 ]" in config
    readme = (folder / "README.txt").read_text()
    assert "frame   (N, 64, 96, 3) uint8" in readme
    assert "N is 1 to 8." in readme


@pytest.mark.parametrize(
    ("ranges", "got"),
    [(Profile((2, 4, 8)), "batches of 2:4:8"), (Profile((1, 1, 1), SIZES, 8), "sizes 64x96:64x96")],
)
def test_triton_refuses_what_it_cannot_be_told(tmp_path: Path, ranges: Profile, got: str) -> None:
    with pytest.raises(EngineError, match=f"Triton cannot be told what this plan takes: got {got}"):
        triton_from_engine(plan_of(tmp_path, ranges), tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_free_is_true_where_something_is() -> None:
    assert not DynamicShapes()
    assert DynamicShapes(batch=True)
    assert DynamicShapes(sizes=SIZES)
