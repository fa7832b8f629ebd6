"""Engines: the same labels as PyTorch and ONNX Runtime, foreign files, and wrong files."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeseg.backends.load import load_engine
from edgeseg.backends.openvino import runtime
from edgeseg.build.engine_cache import resolve_engine
from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.errors import EngineError, GraphError, InputError, OutputError
from edgeseg.graph.network import Overrides, load_network
from edgeseg.imaging.preprocess import to_input
from edgeseg.passport import Passport
from edgeseg.spec import CAMVID_11, METADATA_KEY, VOC_21

PRECISIONS = [p for p in runtime.FLOATS if p == "fp32" or "BF16" in runtime.device().features]


def frame(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Noise over a gradient: not the same everywhere, no large flat parts."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, size[0] * size[1] * 3).reshape(*size, 3)
    return (ramp + rng.integers(0, 56, ramp.shape)).astype(np.uint8)


def foreign(
    path: Path,
    *,
    layout: str = "nchw",
    out: str = "nchw",
    classes: int = 4,
    size: object = (20, 28),
    divide: int = 1,
    element: int = TensorProto.FLOAT,
    unsupported: bool = False,
) -> Path:
    """A one-convolution net as other tools might write it: any layout, size, output form."""
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(classes, 3, 3, 3)).astype(np.float32)
    kind = np.float16 if element == TensorProto.FLOAT16 else np.float32
    nodes, x = [], "input"
    if layout == "nhwc":
        nodes.append(helper.make_node("Transpose", [x], ["planes"], perm=[0, 3, 1, 2]))
        x = "planes"
    nodes.append(
        helper.make_node("Conv", [x, "w"], ["y"], pads=[1, 1, 1, 1], strides=[divide, divide])
    )
    last = "y"
    if unsupported:
        nodes.append(helper.make_node("Frobnicate", [last], ["f"], domain="com.example"))
        last = "f"
    if out == "nhwc":
        nodes.append(helper.make_node("Transpose", [last], ["out"], perm=[0, 2, 3, 1]))
    elif out == "labels":
        nodes.append(helper.make_node("ArgMax", [last], ["out"], axis=1, keepdims=0))
    else:
        nodes.append(helper.make_node("Identity", [last], ["out"]))
    h, w = size if isinstance(size, tuple) else ("h", "w")
    shape = ["n", 3, h, w] if layout == "nchw" else ["n", h, w, 3]
    free = isinstance(size, str)
    oh, ow = (None, None) if free else (-(-h // divide), -(-w // divide))
    outputs = {
        "nchw": ["n", classes, oh, ow],
        "nhwc": ["n", oh, ow, classes],
        "labels": ["n", oh, ow],
    }
    result = TensorProto.INT64 if out == "labels" else element
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("input", element, shape)],
        [helper.make_tensor_value_info("out", result, outputs[out])],
        [numpy_helper.from_array(weight.astype(kind), "w")],
    )
    opsets = [helper.make_opsetid("", 13)] + (
        [helper.make_opsetid("com.example", 1)] if unsupported else []
    )
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def runtime_labels(path: Path, image: np.ndarray) -> np.ndarray:
    """The labels ONNX Runtime gives for a foreign net, with the contract applied by hand."""
    network = load_network(path)
    x = to_input(image, network.spec)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    if network.channels_last:
        x = x.transpose(0, 2, 3, 1)
    if session.get_inputs()[0].type == "tensor(float16)":
        x = x.astype(np.float16)
    (y,) = session.run(None, {"input": x})
    if network.form == "labels":
        return np.asarray(y[0], np.uint8)
    return np.asarray(y[0].argmax(0 if network.form == "nchw" else 2), np.uint8)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_engine_agrees_with_onnx_runtime(small_onnx: Path, tmp_path: Path, precision: str) -> None:
    engine = load_engine(build_engine(small_onnx, precision=precision, out=tmp_path / "e.engine"))
    image = frame((64, 96))
    session = onnxruntime.InferenceSession(str(small_onnx), providers=["CPUExecutionProvider"])
    (want,) = session.run(None, {"image": to_input(image, engine.spec)})
    got = engine.logits(image)
    assert got.shape == want[0].shape == (11, 64, 96)
    assert got.dtype == np.float32
    scale = np.ptp(want)
    assert np.abs(got - want[0]).max() < (1e-4 if precision == "fp32" else 0.1) * scale
    labels = engine(image)
    if precision == "fp32":
        np.testing.assert_array_equal(labels, got.argmax(0))
        assert (labels == want[0].argmax(0)).mean() >= 0.9999
    else:  # planes are compared in BF16, where scores of this untrained net tie
        assert (labels == got.argmax(0)).mean() >= 0.97


def test_frames_of_any_size_and_batches(small_onnx: Path, tmp_path: Path) -> None:
    engine = load_engine(build_engine(small_onnx, precision="fp32", out=tmp_path / "e.engine"))
    for size in ((64, 96), (47, 33), (301, 205), (1, 1)):
        labels = engine(frame(size))
        assert labels.shape == size
        assert labels.dtype == np.uint8
    batch = np.stack([frame((50, 70), seed) for seed in range(3)])
    np.testing.assert_array_equal(engine(batch), np.stack([engine(one) for one in batch]))
    for bad in (
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        "x",
    ):
        with pytest.raises(InputError, match="frame"):
            engine(bad)  # type: ignore[arg-type]


def test_results_are_the_callers_to_keep(small_onnx: Path, tmp_path: Path) -> None:
    engine = load_engine(build_engine(small_onnx, precision="fp32", out=tmp_path / "e.engine"))
    first = engine(frame((64, 96), 1))
    kept = first.copy()
    engine(frame((64, 96), 2)[::-1].copy())
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"layout": "nhwc"},
        {"out": "nhwc"},
        {"out": "labels"},
        {"element": TensorProto.FLOAT16},
        {"classes": 21},
        {"size": (21, 27)},
    ],
    ids=lambda f: "-".join(map(str, f.values())) or "plain",
)
def test_foreign_files(tmp_path: Path, form: dict[str, object]) -> None:
    path = foreign(tmp_path / "f.onnx", **form)  # type: ignore[arg-type]
    flags = Overrides(labels="voc-21") if form.get("classes") == 21 else Overrides()
    if form.get("out") == "labels":
        (tmp_path / "names.txt").write_text("a\nb\nc\nd\n")
        flags = Overrides(labels=str(tmp_path / "names.txt"))
        with pytest.raises(InputError, match="`labels=NAME`"):
            build_engine(path)
    engine = load_engine(build_engine(load_network(path, flags), precision="fp32"))
    image = frame(engine.spec.input_size)
    assert (engine(image) == runtime_labels_of(path, image, flags)).mean() >= 0.999
    assert any("mean" in a for a in engine.passport.assumed)
    if form.get("classes") == 21:
        assert engine.spec.labels == VOC_21


def runtime_labels_of(path: Path, image: np.ndarray, flags: Overrides) -> np.ndarray:
    network = load_network(path, flags)
    model = onnx.load(path)
    model.metadata_props.add(key=METADATA_KEY, value=network.spec.to_json())
    stamped = path.with_name("stamped.onnx")
    onnx.save(model, stamped)
    return runtime_labels(stamped, image)


def test_bytes_go_in_as_they_are_where_the_net_takes_bytes(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(4, 3, 1, 1)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Conv", ["f", "w"], ["y"]),
        ],
        "bytes",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, 3, 8, 10])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8, 10])],
        [numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path / "u8.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path
    )
    engine = load_engine(build_engine(path, precision="fp32"))
    image = frame((8, 10))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (want,) = session.run(None, {"x": image[:, :, ::-1].transpose(2, 0, 1)[None].copy()})
    np.testing.assert_allclose(engine.logits(image), want[0], rtol=1e-4, atol=1e-2)
    assert any("bytes" in a for a in engine.passport.assumed)
    with pytest.raises(InputError, match="whole numbers"):
        build_engine(load_network(path, Overrides(mean=(0.5, 0.5, 0.5))))


@pytest.mark.parametrize("order", [("small", "large"), ("large", "small")])
def test_the_full_size_head_is_taken(tmp_path: Path, order: tuple[str, str]) -> None:
    rng = np.random.default_rng(0)
    weights = {n: rng.normal(size=(4, 3, 1, 1)).astype(np.float32) for n in order}
    shapes = {"small": [1, 4, 5, 7], "large": [1, 4, 20, 28]}
    steps = {"small": 4, "large": 1}
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", f"{n}_w"], [n], strides=[steps[n]] * 2) for n in order],
        "heads",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 20, 28])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shapes[n]) for n in order],
        [numpy_helper.from_array(w, f"{n}_w") for n, w in weights.items()],
    )
    path = tmp_path / "heads.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path
    )
    engine = load_engine(build_engine(path, precision="fp32"))
    image = frame((20, 28))
    want = np.einsum("oi,ihw->ohw", weights["large"][:, :, 0, 0], to_input(image, engine.spec)[0])
    np.testing.assert_allclose(engine.logits(image), want, atol=1e-3)
    assert any("output large" in a for a in engine.passport.assumed)


def test_flags_do_not_silently_differ_from_an_engine(small_onnx: Path, tmp_path: Path) -> None:
    engine = build_engine(small_onnx, precision="fp32", out=tmp_path / "e.engine")
    assert resolve_engine(engine, precision="fp32", target="cpu").passport.precision == "fp32"
    for asked in ({"precision": "bf16"}, {"target": "gpu"}, {"overrides": Overrides(scale=1.0)}):
        with pytest.raises(InputError):
            resolve_engine(engine, **asked)


def test_unpooling_out_of_its_plane_is_refused(tmp_path: Path) -> None:
    """Unpool an odd plane without its size: values would be written outside the even plane."""
    pool = helper.make_node("MaxPool", ["x"], ["v", "i"], kernel_shape=[2, 2], strides=[2, 2])
    unpool = helper.make_node("MaxUnpool", ["v", "i"], ["y"], kernel_shape=[2, 2], strides=[2, 2])
    graph = helper.make_graph(
        [pool, unpool],
        "odd",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 33, 49])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 32, 48])],
    )
    path = tmp_path / "odd.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path
    )
    with pytest.raises(
        GraphError, match=r"MaxUnpool node 'y'.*got 1x3x32x48 for positions in 1x3x33x49"
    ):
        build_engine(path, precision="fp32")
    assert [p.name for p in tmp_path.iterdir()] == ["odd.onnx"]


def test_free_input_size_needs_one(tmp_path: Path) -> None:
    path = foreign(tmp_path / "f.onnx", size="free")
    with pytest.raises(InputError, match="`size=HEIGHTxWIDTH`"):
        build_engine(path)
    engine = load_engine(
        build_engine(load_network(path, Overrides(size=(30, 42))), precision="fp32")
    )
    assert engine.logits(frame((30, 42))).shape == (4, 30, 42)


def test_nets_that_end_below_full_size_are_upsampled(tmp_path: Path) -> None:
    """As PyTorch's bilinear interpolation with align_corners=False does."""
    torch = pytest.importorskip("torch")
    path = foreign(tmp_path / "f.onnx", divide=4, size=(40, 60))
    engine = load_engine(build_engine(path, precision="fp32"))
    image = frame((40, 60))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (small,) = session.run(None, {"input": to_input(image, engine.spec)})
    want = torch.nn.functional.interpolate(torch.from_numpy(small), (40, 60), mode="bilinear")[
        0
    ].numpy()
    np.testing.assert_allclose(engine.logits(image), want, atol=1e-4 * np.ptp(want))


def test_flags_correct_the_contract(tmp_path: Path) -> None:
    path = foreign(tmp_path / "f.onnx")
    facts = Overrides(mean=(0, 0, 0), std=(1, 1, 1), scale=1.0, colour="bgr")
    engine = load_engine(build_engine(load_network(path, facts), precision="fp32"))
    image = frame((20, 28))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (want,) = session.run(None, {"input": image.transpose(2, 0, 1)[None].astype(np.float32)})
    np.testing.assert_allclose(engine.logits(image), want[0], rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("missing", "no such ONNX file"),
        ("text", "a text file"),
        ("empty", "an empty file"),
        ("truncated", "not an ONNX file"),
        ("operator", "Frobnicate"),
        ("labels", "disagree"),
        ("name", "ends in .engine"),
        ("precision", "no such precision"),
        ("target", "unknown target"),
    ],
)
def test_build_errors_are_one_line(tmp_path: Path, small_onnx: Path, fault: str, says: str) -> None:
    path, options = tmp_path / "n.onnx", dict[str, Any]()
    if fault == "text":
        path.write_text("this is not a network\n" * 50)
    elif fault == "empty":
        path.touch()
    elif fault == "truncated":
        path.write_bytes(small_onnx.read_bytes()[:100_000])
    elif fault == "operator":
        foreign(path, unsupported=True)
    elif fault != "missing":
        foreign(path)
        cases: dict[str, dict[str, Any]] = {
            "labels": {},
            "name": {"out": tmp_path / "x.bin"},
            "precision": {"precision": "int4"},
            "target": {"target": "tpu"},
        }
        options = cases[fault]

    def build(**options: Any) -> Path:
        wrong = Overrides(labels="voc-21") if fault == "labels" else None
        return build_engine(load_network(path, wrong) if wrong else path, **options)

    before = sorted(tmp_path.iterdir())
    with pytest.raises((GraphError, InputError), match=says) as caught:
        build(**options)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_unwritable_output(small_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        build_engine(small_onnx, out=tmp_path / "file" / "x.engine")


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("truncated", "truncated or replaced"),
        ("no passport", "has no passport"),
        ("damaged passport", "cannot be read"),
        ("library", "another OpenVINO"),
        ("processor", "lacks FP64"),
        ("target", "built for target tpu"),
        ("stale", "has changed since"),
    ],
)
def test_engines_that_do_not_fit_are_refused(
    small_onnx: Path, tmp_path: Path, fault: str, says: str
) -> None:
    source = tmp_path / small_onnx.name
    source.write_bytes(small_onnx.read_bytes())
    engine = build_engine(source, precision="fp32")
    passport = Passport.path_for(engine)
    changes: dict[str, dict[str, Any]] = {
        "library": {"library_version": "2020.1"},
        "processor": {"device_features": ("FP64",)},
        "target": {"target": "tpu"},
    }
    if fault == "truncated":
        engine.write_bytes(engine.read_bytes()[:-1000])
    elif fault == "no passport":
        passport.unlink()
    elif fault == "damaged passport":
        passport.write_text("{")
    elif fault == "stale":
        source.write_bytes(small_onnx.read_bytes() + b"\x00")
    else:
        changed = Passport.read(engine).model_copy(update=changes[fault])
        passport.write_text(changed.model_dump_json())
    with pytest.raises(EngineError, match=says) as caught:
        load_engine(engine)
    assert "\n" not in str(caught.value)


def test_opened_again_quickly(small_onnx: Path, tmp_path: Path) -> None:
    engine = build_engine(small_onnx, out=tmp_path / "e.engine")
    load_engine(engine)
    start = time.perf_counter()
    load_engine(engine)
    assert time.perf_counter() - start < 1.0


def test_onnx_files_are_built_once_into_the_cache(
    small_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGESEG_CACHE", str(tmp_path / "cache"))
    net = tmp_path / "n.onnx"
    net.write_bytes(small_onnx.read_bytes())
    first = resolve_engine(net, precision="fp32")
    (engine,) = (tmp_path / "cache").glob("*.engine")
    written = engine.stat().st_mtime_ns
    second = resolve_engine(net, precision="fp32")
    assert engine.stat().st_mtime_ns == written
    np.testing.assert_array_equal(first(frame((64, 96))), second(frame((64, 96))))
    resolve_engine(net, precision="fp32", overrides=Overrides(mean=(0.1, 0.1, 0.1)))
    assert len(list((tmp_path / "cache").glob("*.engine"))) == 2
    engine.write_bytes(b"damaged")
    np.testing.assert_array_equal(
        resolve_engine(net, precision="fp32")(frame((64, 96))), first(frame((64, 96)))
    )


def test_what_an_engine_argument_may_be() -> None:
    with pytest.raises(InputError, match="net that ships"):
        resolve_engine("no-such-net")
    with pytest.raises(InputError, match="no such engine"):
        resolve_engine("absent.engine")


def test_a_kill_leaves_no_engine(small_onnx: Path, tmp_path: Path) -> None:
    """A build that is killed at any moment leaves no damaged file under the final name."""
    out = tmp_path / "e.engine"
    command = [sys.executable, "-m", "edgeseg", "build-engine", str(small_onnx), "-o", str(out)]
    for delay in (0.3, 0.6, 0.9, 1.2):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        if out.exists():
            load_engine(out)
            out.unlink()


def test_passport_says_what_the_engine_is(small_onnx: Path, tmp_path: Path) -> None:
    engine = load_engine(build_engine(small_onnx, precision="fp32", out=tmp_path / "e.engine"))
    assert engine.passport.target == "cpu"
    assert engine.passport.spec.labels == CAMVID_11
    assert engine.passport.assumed == ()
    assert engine.passport.library_version == runtime.library_version()
