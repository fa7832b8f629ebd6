"""Nets as other exporters write them.

The same labels as ONNX Runtime gives for the file, on every target.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
from lowered import deploy
from onnx import TensorProto, helper, numpy_helper
from onnx_tools import kinds, make, node, run_ort

from edgeseg.backends.base import PlanOptions
from edgeseg.backends.load import load_engine
from edgeseg.backends.openvino.compiled import Compiled
from edgeseg.backends.tensorrt.builder import _advice
from edgeseg.backends.tensorrt.graphs import graph_for
from edgeseg.build.engine_from_onnx import build_engine
from edgeseg.build.options import Quantization
from edgeseg.data import open_dataset
from edgeseg.errors import GraphError, InputError
from edgeseg.graph.network import Overrides, load_network
from edgeseg.graph.passes.canonicalize import TWO_CLASSES
from edgeseg.graph.passes.fp16 import to_fp16
from edgeseg.passport import Passport
from edgeseg.reporter import SILENT

SIZE = (32, 48)
CLASSES = 5
CALIBRATION = "synthetic://?length=4&seed=2&size=48x32"
Array = np.ndarray
Labels = Callable[[Array], Array]  # of a file's output


def frame(seed: int = 3, size: tuple[int, int] = SIZE) -> Array:
    data = open_dataset(f"synthetic://?length=8&seed={seed}&size={size[1]}x{size[0]}", "train")
    return data[0].image


def weights(seed: int, out: int, inner: int, side: int = 3) -> Array:
    return (
        np.random.default_rng(seed)
        .normal(0, (inner * side * side) ** -0.5, (out, inner, side, side))
        .astype(np.float32)
    )


def net(
    tail: list[onnx.NodeProto],
    *,
    out: int = CLASSES,
    stride: int = 1,
    opset: int = 17,
    **constants: Array,
) -> onnx.ModelProto:
    """Two convolutions from ``image`` to ``y``, then ``tail``.

    ``y`` is the output where there is none.
    """
    body = [
        node("Conv", "image a", "x", pads=[1] * 4, strides=[stride] * 2),
        node("Relu", "x", "r"),
        node("Conv", "r b", "y", pads=[1] * 4),
        *tail,
    ]
    kept = {"a": weights(1, 8, 3), "b": 4 * weights(2, out, 8), **constants}
    return make(body, {"image": [1, 3, *SIZE]}, tail[-1].output[0] if tail else "y", opset, **kept)


def best(y: Array) -> Array:
    return np.asarray(y[0].argmax(0))


def as_inputs(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
    """Weights that are inputs with a default, as every weight was once."""
    for tensor in model.graph.initializer:
        model.graph.input.append(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    model.ir_version = version
    return model


def with_function(model: onnx.ModelProto) -> onnx.ModelProto:
    """The first ``Relu`` as a function of the file's own."""
    relu = next(n for n in model.graph.node if n.op_type == "Relu")
    relu.op_type, relu.domain = "MyRelu", "my"
    body = [helper.make_node("Relu", ["u"], ["v"])]
    model.functions.append(
        helper.make_function("my", "MyRelu", ["u"], ["v"], body, model.opset_import)
    )
    model.opset_import.append(helper.make_opsetid("my", 1))
    return model


def in_type(model: onnx.ModelProto, dtype: type[np.floating]) -> onnx.ModelProto:
    """Weights, input and output in another precision."""
    for tensor in model.graph.initializer:
        tensor.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name)
        )
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return model


def of_bytes() -> onnx.ModelProto:
    """(1, H, W, 3) uint8 in, normalised inside."""
    model = net([])
    first = next(n for n in model.graph.node if n.name == "x")
    first.input[0] = "scaled"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1 / 255), "step"))
    before = [
        node("Transpose", "image", "planes", perm=[0, 3, 1, 2]),
        node("Cast", "planes", "floats", to=TensorProto.FLOAT),
        node("Mul", "floats step", "scaled"),
    ]
    nodes = [*before, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *SIZE, 3])
    )
    return model


def group_norm() -> onnx.ModelProto:
    """ONNX's own inference does not see through it."""
    tail = [
        node("GroupNormalization", "y gain shift", "z", num_groups=2),
        node("Conv", "z c", "out", pads=[1] * 4),
    ]
    gain, shift = np.ones(4, np.float32), np.zeros(4, np.float32)
    model = net(tail, out=4, opset=21, gain=gain, shift=shift, c=4 * weights(5, CLASSES, 4))
    del model.graph.value_info[:]
    return model


def two_outputs(model: onnx.ModelProto, larger: str = "p") -> onnx.ModelProto:
    """The smaller one, a training head's, first."""
    model.graph.output.append(
        helper.make_tensor_value_info(larger, TensorProto.FLOAT, [1, 1, *SIZE])
    )
    return model


def small_map(y: Array) -> Array:
    return y.reshape(SIZE[0] // 2, SIZE[1] // 2).repeat(2, 0).repeat(2, 1)


def enlarged(y: Array) -> Array:
    import cv2

    planes = np.stack(
        [cv2.resize(plane, SIZE[::-1], interpolation=cv2.INTER_LINEAR) for plane in y[0]]
    )
    return np.asarray(planes.argmax(0))


FORMS: dict[str, tuple[Callable[[], onnx.ModelProto], Labels]] = {
    "functions": (lambda: with_function(net([])), best),
    "weights as inputs": (lambda: as_inputs(net([]), 8), best),
    "weights as inputs, IR 3": (lambda: as_inputs(net([]), 3), best),
    "FP16": (lambda: in_type(net([]), np.float16), best),
    "group norm": (group_norm, best),
    "bytes": (of_bytes, best),
    "smaller scores, opset 11": (lambda: net([], stride=2, opset=11), enlarged),
    "probability": (lambda: net([node("Sigmoid", "y", "p")], out=1), lambda p: p[0, 0] > 0.5),
    "one score": (lambda: net([], out=1), lambda y: y[0, 0] > 0),
    "one score, last": (
        lambda: net([node("Transpose", "y", "t", perm=[0, 2, 3, 1])], out=1),
        lambda y: y[0, :, :, 0] > 0,
    ),
    "map": (lambda: net([node("ArgMax", "y", "m", axis=1, keepdims=0)]), lambda m: m[0]),
    "smaller map": (
        lambda: net([node("ArgMax", "y", "m", axis=1, keepdims=0)], stride=2),
        small_map,
    ),
    "smaller map, one channel": (
        lambda: net([node("ArgMax", "y", "m", axis=1)], stride=2),
        small_map,
    ),
    "map of bytes": (
        lambda: net(
            [node("ArgMax", "y", "m", axis=1), node("Cast", "m", "u", to=TensorProto.UINT8)]
        ),
        lambda m: m[0, 0],
    ),
    "map without a batch": (
        lambda: net(
            [node("ArgMax", "y", "m", axis=1, keepdims=0), node("Squeeze", "m zero", "v")],
            zero=np.array([0]),
        ),
        lambda m: m,
    ),
    "map of floats": (
        lambda: net(
            [
                node("ArgMax", "y", "m", axis=1, keepdims=0),
                node("Cast", "m", "f", to=TensorProto.FLOAT),
                node("Unsqueeze", "f one", "v"),
            ],
            one=np.array([1]),
        ),
        lambda m: m[0, 0],
    ),
    "map of bytes, moved": (
        lambda: net(
            [
                node("ArgMax", "y", "m", axis=1),
                node("Cast", "m", "u", to=TensorProto.UINT8),
                node("Squeeze", "u one", "v"),
            ],
            one=np.array([1], np.int64),
        ),
        lambda m: m[0],
    ),
    "two probabilities": (
        lambda: two_outputs(
            net(
                [node("Sigmoid", "y", "p"), node("AveragePool", "y", "s", kernel_shape=[2, 2])],
                out=1,
            )
        ),
        lambda p: p[0, 0] > 0.5,
    ),
}


def load(path: Path, name: str) -> Overrides:
    if "map" in name:
        (path.parent / "names.txt").write_text("\n".join(f"c{i}" for i in range(CLASSES)))
        return Overrides(labels=str(path.parent / "names.txt"))
    return Overrides()


def given(network_input: onnx.ValueInfoProto, image: Array) -> Array:
    """What the file's own input is for a frame, by ImageNet's statistics, or bytes."""
    if network_input.type.tensor_type.elem_type == TensorProto.UINT8:
        return np.asarray(image[None, :, :, ::-1].copy())
    x = (image[:, :, ::-1] / 255.0 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    dtype = helper.tensor_dtype_to_np_dtype(network_input.type.tensor_type.elem_type)
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None]).astype(dtype)


@pytest.mark.parametrize("name", FORMS)
def test_labels_are_the_files_own(tensorrt_rtx: ModuleType, tmp_path: Path, name: str) -> None:
    """On the CPU; as the graph that TensorRT is given.

    And TensorRT-RTX builds it without a warning.
    """
    make_model, labels = FORMS[name]
    model, path = make_model(), tmp_path / "net.onnx"
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    image = frame()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    y = session.run(None, {"image": given(model.graph.input[0], image)})[-1]
    wanted = labels(y.astype(np.float32))
    assert len(np.unique(wanted)) > 1
    overrides = load(path, name)
    engine = load_engine(
        build_engine(
            load_network(path, overrides), precision="fp32", target="cpu", out=tmp_path / "e.engine"
        )
    )
    assert np.mean(engine(image) == wanted) >= (0.995 if name == "FP16" else 0.999)
    if wanted.dtype == bool:
        assert engine.spec.labels.names == TWO_CLASSES
        assert len(engine.spec.labels) == 2
    network = load_network(path, overrides)
    for precision in ("fp32", "fp16"):
        graph, _ = graph_for(network, precision, [image], SILENT)
        assert np.mean(run_ort(graph, frame=image[None])[0][0] == wanted) >= (
            0.99 if precision == "fp16" else 0.995
        )
    plan = build_engine(
        load_network(path, overrides),
        precision="fp16",
        target="tensorrt-rtx",
        out=tmp_path / "p.engine",
        plan=PlanOptions(sm=(75, 86)),
    )
    assert Passport.read(plan).tensorrt.warnings == ()


@pytest.mark.parametrize(
    "name", ["functions", "FP16", "group norm", "bytes", "probability", "weights as inputs, IR 3"]
)
def test_int8_of_every_form(tensorrt_rtx: ModuleType, tmp_path: Path, name: str) -> None:
    """Calibrated, written as a file of its own, built of that for TensorRT-RTX.

    Most labels stay.
    """
    path, saved = tmp_path / "net.onnx", tmp_path / "net.int8.onnx"
    path.write_bytes(FORMS[name][0]().SerializeToString())
    image = frame()
    float_engine = load_engine(
        build_engine(path, precision="fp32", target="cpu", out=tmp_path / "f.engine")
    )
    built = build_engine(
        path,
        precision="int8",
        target="cpu",
        calib=CALIBRATION,
        out=tmp_path / "i.engine",
        quantization=Quantization(save_onnx=saved),
    )
    assert np.mean(load_engine(built)(image) == float_engine(image)) > 0.9
    build_engine(saved, target="tensorrt-rtx", precision="int8", out=tmp_path / "p.engine")


@pytest.mark.parametrize("batch", [1, 2])
def test_calibration_is_at_the_size_and_batch_asked_for(tmp_path: Path, batch: int) -> None:
    """Not at the file's."""
    model, path = net([]), tmp_path / "net.onnx"
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    path.write_bytes(model.SerializeToString())
    size = (48, 64)
    overrides = Overrides(size=size)
    built = [
        build_engine(
            load_network(path, overrides), precision="fp32", target="cpu", out=tmp_path / "f.engine"
        ),
        build_engine(
            load_network(path, overrides),
            precision="int8",
            target="cpu",
            calib=CALIBRATION,
            out=tmp_path / "i.engine",
        ),
    ]
    image = frame(4, size)
    first, second = (load_engine(one)(image) for one in built)
    assert np.mean(first == second) > 0.9


def test_a_net_that_does_not_run_says_why(tmp_path: Path) -> None:
    """Instead of asking for its labels."""
    free = make(
        [
            node("MaxPool", "image", "p", kernel_shape=[2, 2], strides=[2, 2]),
            node("Resize", "p - scales", "u", mode="nearest"),
            node("Concat", "u image", "c", axis=1),
            node("Conv", "c w", "y", pads=[1] * 4),
        ],
        {"image": [1, 3, "h", "w"]},
        "y",
        scales=np.array([1, 1, 2, 2], np.float32),
        w=weights(1, CLASSES, 6),
    )
    path = tmp_path / "net.onnx"
    path.write_bytes(free.SerializeToString())
    assert len(load_network(path, Overrides(size=(32, 48))).spec.labels) == CLASSES
    with pytest.raises(
        GraphError, match=r"does not run at 33x48 \(HxW\): got .*Concat.*Another `size` may do"
    ):
        load_network(path, Overrides(size=(33, 48)))


def test_a_head_is_chosen_by_its_name(tmp_path: Path) -> None:
    """Of several of one size the first is taken, and said."""
    model = net([node("Neg", "y", "n"), node("Sigmoid", "y", "p")])
    for name in ("n", "y"):
        model.graph.output.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, CLASSES, *SIZE])
        )
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    assert "output p, one of p, n, y" in load_network(path).assumed
    image = frame()
    outs = run_ort(model, image=given(model.graph.input[0], image))
    for name, y in zip("pny", outs, strict=True):
        network = load_network(path, Overrides(head=name))
        assert network.output == name
        assert not [line for line in network.assumed if "output" in line]
        np.testing.assert_array_equal(run_ort(deploy(network), frame=image[None])[0][0], best(y))
    with pytest.raises(
        InputError, match="has no such output: got `head=z`, expected one of p, n, y"
    ):
        load_network(path, Overrides(head="z"))
    path.write_bytes(
        two_outputs(
            net([node("AveragePool", "y", "s", kernel_shape=[2, 2])], out=1), "y"
        ).SerializeToString()
    )
    assert load_network(path, Overrides(head="s")).model.graph.node[-2].input[0] == "s"
    assert load_network(path).model.graph.node[-2].input[0] == "y"


def test_fp64_is_fp32(tmp_path: Path) -> None:
    """ONNX Runtime itself has no convolution in FP64."""
    labels = []
    for dtype in (np.float32, np.float64):
        path = tmp_path / "net.onnx"
        path.write_bytes(in_type(net([]), dtype).SerializeToString())
        labels.append(run_ort(deploy(load_network(path)), frame=frame()[None])[0])
    np.testing.assert_array_equal(labels[0], labels[1])


def test_what_is_no_segmentation_says_what_is(tmp_path: Path) -> None:
    """A mask of truth values; class ids that were computed with."""
    ends = [
        [node("Cast", "m", "f", to=TensorProto.BOOL)],
        [node("Cast", "m", "f", to=TensorProto.FLOAT), node("Mul", "f f", "g")],
    ]
    for end in ends:
        path = tmp_path / "net.onnx"
        path.write_bytes(
            net([node("ArgMax", "y", "m", axis=1, keepdims=0), *end]).SerializeToString()
        )
        with pytest.raises(
            GraphError, match=r"no output is a segmentation.*Export the net with its scores"
        ):
            load_network(path)


def test_tensorrt_looks_for_the_maximum_where_the_scores_lie(tmp_path: Path) -> None:
    """A layout written down in front of it is more than TensorRT-RTX bears behind attention over
    free sizes.
    """
    path = tmp_path / "net.onnx"
    path.write_bytes(net([]).SerializeToString())
    network = load_network(path)
    axes = []
    for for_openvino in (True, False):
        model = deploy(network, for_openvino=for_openvino)
        search = next(n for n in model.graph.node if n.op_type == "ArgMax")
        axes.append(helper.get_node_attr_value(search, "axis"))
        image = frame()[None]
        np.testing.assert_array_equal(
            run_ort(model, frame=image)[0], run_ort(deploy(network), frame=image)[0]
        )
    assert axes == [3, 1]


def test_products_of_activations_are_halved_between_int8_layers() -> None:
    """Attention's are no INT8 layers, although what they multiply comes from some."""
    step, zero = np.float32(0.05), np.int8(0)
    q, w = np.ones((8, 8), np.int8), {"step": step, "zero": zero}
    model = make(
        [
            node("QuantizeLinear", "x step zero", "xq"),
            node("DequantizeLinear", "xq step zero", "xd"),
            node("DequantizeLinear", "wq step zero", "wd"),
            node("MatMul", "xd wd", "left"),
            node("DequantizeLinear", "vq step zero", "vd"),
            node("Transpose", "vd", "vt", perm=[1, 0]),
            node("MatMul", "xd vt", "right"),
            node("Transpose", "right", "rt", perm=[1, 0]),
            node("MatMul", "left rt", "y"),
            node("Relu", "y", "z"),
        ],
        {"x": [8, 8]},
        "z",
        wq=q,
        vq=q,
        **w,
    )
    halved = to_fp16(model).model
    types = onnx.shape_inference.infer_shapes(halved, strict_mode=True).graph.value_info
    found = {value.name: value.type.tensor_type.elem_type for value in types}
    assert [found[name] for name in ("left", "right", "y")] == [
        TensorProto.FLOAT,
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
    ]


def test_int32_biases_are_floats_for_tensorrt(tmp_path: Path) -> None:
    """As ONNX Runtime's quantizer writes them, of one step a channel."""
    steps = np.array([0.01, 0.02, 0.03, 0.04, 0.05], np.float32)
    model = make(
        [
            node("QuantizeLinear", "image s z", "q"),
            node("DequantizeLinear", "q s z", "d"),
            node("DequantizeLinear", "w t tz", "wd", axis=0),
            node("DequantizeLinear", "bias u", "b", axis=0),
            node("Conv", "d wd b", "y", pads=[1] * 4),
        ],
        {"image": [1, 3, *SIZE]},
        "y",
        s=np.float32(0.03),
        z=np.int8(0),
        t=steps,
        tz=np.zeros(5, np.int8),
        u=steps / 30,
        w=np.random.default_rng(0).integers(-127, 128, (CLASSES, 3, 3, 3), np.int8),
        bias=np.arange(-2000, 3000, 1000, dtype=np.int32),
    )
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    network = load_network(path)
    given_to_tensorrt = deploy(network, for_openvino=False)
    assert kinds(given_to_tensorrt)["DequantizeLinear"] == 2
    image = frame()[None]
    plain = load_network(path)
    (y,) = run_ort(model, image=given(model.graph.input[0], image[0]))
    np.testing.assert_array_equal(run_ort(given_to_tensorrt, frame=image)[0][0], y[0].argmax(0))
    assert plain.model.graph.node[3].op_type == "DequantizeLinear"  # the net itself is as it was


def test_a_quantized_net_without_a_bf16_form_is_compiled_in_float(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []

    def open_once(self: Compiled, model: onnx.ModelProto, config: dict[str, str]) -> None:
        opened.append(config["INFERENCE_PRECISION_HINT"])
        if opened[-1] != "f32":
            raise RuntimeError("No suitable implementations")

    monkeypatch.setattr(Compiled, "_open", open_once)
    quantized = make(
        [node("DequantizeLinear", "w s", "y")], {}, "y", w=np.ones(3, np.int8), s=np.float32(1)
    )
    Compiled(quantized, "net", {"INFERENCE_PRECISION_HINT": "bf16"})
    assert opened == ["bf16", "f32"]
    with pytest.raises(GraphError, match="No suitable implementations"):
        Compiled(
            make([node("Relu", "x", "y")], {"x": [1]}, "y"),
            "net",
            {"INFERENCE_PRECISION_HINT": "bf16"},
        )


def test_asymmetric_files_are_told_what_to_do() -> None:
    says = _advice(
        None, "Assertion failed: shiftIsAllZeros(zeroPoint): Non-zero zero point is not supported."
    )
    assert "symmetric" in says
