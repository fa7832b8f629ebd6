"""``lower_unpooling`` against ONNX Runtime's own MaxPool and MaxUnpool.

To the bit, and against PyTorch.
"""

import contextlib
import io
import logging
import warnings
from collections import Counter
from types import ModuleType
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from lowered import lower_unpooling
from onnx import TensorProto, helper, numpy_helper
from onnx_tools import rtx_log
from tiny_graphs import pool, unpool

from edgeseg.errors import GraphError
from edgeseg.graph.graph import Graph
from edgeseg.graph.passes.unpool.window import Window

QUICK = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
CORE = cast(Any, openvino).Core()  # its stubs export nothing
onnxruntime.set_default_logger_severity(4)


# -- running and comparing -------------------------------------------------------------------------


def run_ort(model: onnx.ModelProto, **feed: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feed))


def run_openvino(
    model: onnx.ModelProto, precision: str = "f32", /, **feed: np.ndarray
) -> list[np.ndarray]:
    read = CORE.read_model(model.SerializeToString())
    compiled = CORE.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": precision})
    results = compiled(feed)
    return [np.array(results[out]) for out in compiled.outputs]


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def assert_lowered(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    assert "MaxUnpool" not in kinds(model)
    assert all(len(n.output) == 1 for n in model.graph.node if n.op_type == "MaxPool")


def assert_exact(model: onnx.ModelProto, **feed: np.ndarray) -> onnx.ModelProto:
    """Lower ``model``; both runtimes must give what ONNX Runtime makes of the file as it was.

    Returns the lowered.
    """
    expected = run_ort(model, **feed)
    lowered = lower_unpooling(model)
    assert_lowered(lowered)
    for got in (run_ort(lowered, **feed), run_openvino(lowered, **feed)):
        assert [g.shape for g in got] == [e.shape for e in expected]
        for one, wanted in zip(got, expected, strict=True):
            np.testing.assert_array_equal(one, wanted)
    return lowered


# -- making files ----------------------------------------------------------------------------------


def _kind(name: str) -> int:
    return TensorProto.INT64 if name == "i" else TensorProto.FLOAT


def make(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, Any],
    outputs: dict[str, int],
    opset: int = 17,
    functions: tuple[onnx.FunctionProto, ...] = (),
    **constants: np.ndarray,
) -> onnx.ModelProto:
    """An ONNX file.

    ``inputs`` maps names to shapes, ``outputs`` names to ranks; FP32, but ``i`` is INT64.
    """
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(n, _kind(n), shape) for n, shape in inputs.items()],
        [
            helper.make_tensor_value_info(n, _kind(n), [f"{n}{a}" for a in range(rank)])
            for n, rank in outputs.items()
        ],
        [
            numpy_helper.from_array(v, n)
            for n, v in {**CUTS, **constants}.items()
            if n not in CUTS or any(n in node.input for node in nodes)
        ],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9, functions=functions)


def changed(name: str = "p", out: str = "v") -> list[onnx.NodeProto]:
    """Values as after a convolution.

    Not the ones pooled, some negative, others where windows share a maximum.

    The columns are rotated by one: exact everywhere, unlike a sum.
    """
    halves = ("minus1", "end", "last"), ("zero", "minus1", "last")
    return [
        helper.make_node("Mul", [name, "w"], [f"{out}m"]),
        *(
            helper.make_node("Slice", [f"{out}m", *cut], [f"{out}{n}"])
            for n, cut in enumerate(halves)
        ),
        helper.make_node("Concat", [f"{out}0", f"{out}1"], [out], axis=-1),
    ]


SCALE = np.asarray(-1.375, np.float32)
CUTS = {
    "minus1": np.asarray([-1]),
    "zero": np.asarray([0]),
    "last": np.asarray([-1]),
    "end": np.asarray([2**31 - 1]),
}


def pair(
    shape: list[Any], size: list[int] | None = None, opset: int = 17, **geometry: Any
) -> onnx.ModelProto:
    """Pool ``x``, change the values.

    Unpool to ``size`` (a constant), or to the size of ``x`` where that is None.
    """
    unpooled = {k: v for k, v in geometry.items() if k in ("kernel_shape", "strides", "pads")}
    shaped = [] if size is not None else [helper.make_node("Shape", ["x"], ["s"])]
    nodes = [pool(**geometry), *changed(), *shaped, unpool("v", "i", "s", **unpooled)]
    constants: dict[str, Any] = {} if size is None else {"s": np.asarray(size, np.int64)}
    return make(
        nodes, {"x": shape}, {"y": len(shape), "p": len(shape)}, opset, w=SCALE, **constants
    )


def numbers(shape: list[int], seed: int = 0, tied: bool = True) -> np.ndarray:
    """Normal numbers, or small integers after a ReLU or not.

    Many ties, all-zero windows, both zeros.
    """
    draw = np.random.default_rng(seed)
    if not tied:
        return draw.standard_normal(shape).astype(np.float32)
    x = draw.integers(-2, 3, shape).astype(np.float32)
    return np.maximum(x, 0) if seed % 2 else np.where(draw.random(shape) < 0.2, np.float32(-0.0), x)


# -- 2x2 windows: the form without indices ---------------------------------------------------------

VALUES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 3.4e38, -3.4e38, 1e-37]),
    st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False),
)


@st.composite
def images(draw: st.DrawFn) -> np.ndarray:
    shape = [
        draw(st.integers(1, 2)),
        draw(st.integers(1, 4)),
        draw(st.integers(2, 7)),
        draw(st.integers(2, 7)),
    ]
    count = int(np.prod(shape))
    pool_of_values = draw(st.lists(VALUES, min_size=1, max_size=5))
    picks = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).integers(
        0, len(pool_of_values), count
    )
    return np.asarray(pool_of_values, np.float32)[picks].reshape(shape)


@QUICK
@given(images(), st.sampled_from([11, 12, 13, 15, 17, 18, 19, 20, 21]), st.booleans())
def test_2x2_is_exact_and_uses_no_scatter(x: np.ndarray, opset: int, constant: bool) -> None:
    model = pair(list(x.shape), list(x.shape) if constant else None, opset)
    assert not {"ScatterElements", "ScatterND"} & set(kinds(assert_exact(model, x=x)))


@QUICK
@given(images())
def test_2x2_gives_what_pytorch_gives(x: np.ndarray) -> None:
    nodes = [pool(), unpool("p", "i", "s")]
    lowered = lower_unpooling(
        make(nodes, {"x": list(x.shape)}, {"y": 4}, s=np.asarray(x.shape, np.int64))
    )
    values, indices = F.max_pool2d(torch.from_numpy(x), 2, return_indices=True)
    expected = F.max_unpool2d(values, indices, (2, 2), output_size=x.shape[2:]).numpy()
    np.testing.assert_array_equal(run_ort(lowered, x=x)[0], expected)
    np.testing.assert_array_equal(run_openvino(lowered, x=x)[0], expected)


@pytest.mark.parametrize("size", [(6, 8), (7, 9), (6, 9), (7, 8)])
@pytest.mark.parametrize(
    "shape",
    [["n", 3, None, None], [2, 3, "h", "w"], ["n", "c", "h", "w"], ["n", 3, None, "w"]],
    ids=str,
)
def test_2x2_with_free_sizes(shape: list[Any], size: tuple[int, int]) -> None:
    shape = [given or known for given, known in zip(shape, [2, 3, *size], strict=True)]
    lowered = assert_exact(pair(shape), x=numbers([2, 3, *size]))
    assert "ScatterElements" not in kinds(lowered)


def test_2x2_without_an_output_size() -> None:
    nodes = [pool(), *changed(), unpool("v", "i")]
    lowered = assert_exact(
        make(nodes, {"x": [2, 3, 6, 8]}, {"y": 4}, w=SCALE), x=numbers([2, 3, 6, 8])
    )
    assert "ScatterElements" not in kinds(lowered)


def test_size_taken_from_another_tensor_of_that_size() -> None:
    """As ENet exports: the size is read off the branch that the unpooled tensor is added to."""
    nodes = [
        pool(),
        *changed(),
        helper.make_node("ConvTranspose", ["v", "k"], ["b"], strides=[2, 2], output_padding=[1, 0]),
        helper.make_node("Shape", ["b"], ["bs"]),
        helper.make_node("Shape", ["v"], ["vs"]),
        helper.make_node("Slice", ["bs", "two", "four"], ["hw"]),
        helper.make_node("Slice", ["vs", "zero", "two"], ["nc"]),
        helper.make_node("Concat", ["nc", "hw"], ["s"], axis=0),
        unpool("v", "i", "s"),
        helper.make_node("Add", ["y", "b"], ["z"]),
    ]
    model = make(
        nodes,
        {"x": [2, 3, 7, 8]},
        {"z": 4},
        w=SCALE,
        k=np.ones((3, 3, 2, 2), np.float32),
        two=np.asarray([2]),
        four=np.asarray([4]),
    )
    lowered = assert_exact(model, x=numbers([2, 3, 7, 8]))
    assert not {"ScatterElements", "Shape"} & set(kinds(lowered))


def test_stacked_pools_as_in_segnet() -> None:
    """Sizes behind an unpooling are known only once it has been sized.

    The second one needs the first.
    """
    nodes = [
        pool("p", "i"),
        pool("q", "j", "p"),
        helper.make_node("Shape", ["p"], ["ps"]),
        unpool("q", "j", "ps", out="u"),
        helper.make_node("Neg", ["u"], ["v"]),
        helper.make_node("Shape", ["x"], ["xs"]),
        unpool("v", "i", "xs"),
    ]
    lowered = assert_exact(make(nodes, {"x": [1, 2, 13, 11]}, {"y": 4}), x=numbers([1, 2, 13, 11]))
    assert not {"ScatterElements", "Shape"} & set(kinds(lowered))


def test_one_pool_feeds_two_unpools() -> None:
    nodes = [pool(), *changed(), unpool("v", "i", "s"), unpool("p", "i", "s", out="z")]
    model = make(nodes, {"x": [1, 2, 5, 6]}, {"y": 4, "z": 4}, w=SCALE, s=np.asarray([1, 2, 5, 6]))
    assert "ScatterElements" not in kinds(assert_exact(model, x=numbers([1, 2, 5, 6])))


@pytest.mark.parametrize(
    "movers",
    [
        [helper.make_node("Identity", ["i"], ["j"])],
        [helper.make_node("Cast", ["i"], ["j"], to=TensorProto.INT64)],
        [
            helper.make_node("Reshape", ["i", "same"], ["k"]),
            helper.make_node("Identity", ["k"], ["j"]),
        ],
    ],
    ids=["identity", "cast", "reshape"],
)
def test_indices_through_nodes_that_only_pass_them_on(movers: list[onnx.NodeProto]) -> None:
    nodes = [pool(), *changed(), *movers, unpool("v", "j", "s")]
    same: dict[str, Any] = {"same": np.asarray([2, 3, 3, 4])} if len(movers) > 1 else {}
    sizes = {"s": np.asarray([2, 3, 6, 8])} | same
    lowered = assert_exact(
        make(nodes, {"x": [2, 3, 6, 8]}, {"y": 4}, w=SCALE, **sizes), x=numbers([2, 3, 6, 8])
    )
    assert not {"ScatterElements", "Identity", "Cast"} & set(kinds(lowered))


@pytest.mark.skipif(
    "BF16" not in CORE.get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
    reason="this CPU has no BF16",
)
@pytest.mark.parametrize("size", [(32, 48), (33, 47)])
def test_positions_are_exact_in_bf16(size: tuple[int, int]) -> None:
    """Convolutions by one around it, as they make OpenVINO compute in BF16.

    Numbers that BF16 holds.
    """
    eye = np.eye(16, dtype=np.float32)[:, :, None, None]
    nodes = [
        helper.make_node("Conv", ["x", "e"], ["c"]),
        pool(x="c"),
        helper.make_node("Conv", ["p", "minus"], ["v"]),
        unpool("v", "i", "s"),
        helper.make_node("Conv", ["y", "e"], ["z"]),
    ]
    shape = [1, 16, *size]
    model = make(nodes, {"x": shape}, {"z": 4}, e=eye, minus=-eye, s=np.asarray(shape))
    x = np.random.default_rng(0).integers(-60, 60, shape).astype(np.float32)
    got = run_openvino(lower_unpooling(model), "bf16", x=x)[0]
    np.testing.assert_array_equal(got, run_ort(model, x=x)[0])


# -- any window, any use of the indices ------------------------------------------------------------


@st.composite
def windows(draw: st.DrawFn) -> tuple[list[int], dict[str, Any]]:
    rank = draw(st.sampled_from([1, 2, 2, 2, 3]))

    def each(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank))

    kernel = each(1, 3)
    pads = [draw(st.integers(0, k - 1)) for k in kernel] if draw(st.booleans()) else [0] * rank
    geometry = {
        "kernel_shape": kernel,
        "strides": each(1, 3),
        "pads": pads * 2,
        "dilations": each(1, 2) if draw(st.booleans()) else [1] * rank,
        "ceil_mode": draw(st.integers(0, 1)),
        "storage_order": draw(st.integers(0, 1)),
    }
    return [draw(st.integers(1, 2)), draw(st.integers(1, 3)), *each(5, 8)], geometry


@QUICK
@given(
    windows(),
    st.sampled_from([11, 12, 13, 17, 18, 20, 21]),
    st.integers(0, 99),
    st.booleans(),
    st.booleans(),
)
def test_any_window_is_exact(
    window: tuple[list[int], dict[str, Any]], opset: int, seed: int, tied: bool, free: bool
) -> None:
    shape, geometry = window
    x = numbers(shape, seed, tied)
    model = pair([f"d{a}" for a in range(len(shape))] if free else shape, None, opset, **geometry)
    try:
        run_ort(model, x=x)
    except (
        Exception
    ):  # what the oracle refuses has no answer: windows that would not fit the output
        assume(False)
    if geometry["ceil_mode"]:
        try:
            lower_unpooling(model)
        except GraphError:  # test_what_cannot_be_lowered_is_named says when
            assume(False)
    assert_exact(model, x=x)


@pytest.mark.parametrize(
    "geometry",
    [
        {"kernel_shape": [3, 3], "strides": [2, 2]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [2, 2], "strides": [1, 1]},
        {"kernel_shape": [3, 3], "strides": [3, 3]},
        {"kernel_shape": [3, 2], "strides": [1, 2]},
        {"kernel_shape": [2, 2], "strides": [2, 2], "storage_order": 1},
        {"kernel_shape": [2, 2], "strides": [2, 2], "dilations": [2, 1]},
        {"ceil_mode": 1, "size": [2, 3, 10, 8]},
        {"auto_pad": "SAME_UPPER", "size": [2, 3, 10, 8]},
        {"auto_pad": "VALID"},
        {"kernel_shape": [3, 3], "auto_pad": "SAME_LOWER", "size": [2, 3, 11, 9]},
    ],
    ids=str,
)
def test_other_windows(geometry: dict[str, Any]) -> None:
    for seed in range(4):
        assert_exact(pair([2, 3, 9, 7], **geometry), x=numbers([2, 3, 9, 7], seed))


def test_ceil_mode_as_pytorch_has_it() -> None:
    """Unpooled to the size that was pooled, which ONNX Runtime refuses.

    PyTorch alone is the oracle.
    """
    x = numbers([2, 3, 9, 7])
    nodes = [pool(ceil_mode=1), unpool("p", "i", "s")]
    lowered = lower_unpooling(
        make(nodes, {"x": [2, 3, 9, 7]}, {"y": 4}, s=np.asarray([2, 3, 9, 7]))
    )
    values, indices = F.max_pool2d(torch.from_numpy(x), 2, ceil_mode=True, return_indices=True)
    expected = F.max_unpool2d(values, indices, (2, 2), output_size=(9, 7)).numpy()
    np.testing.assert_array_equal(run_ort(lowered, x=x)[0], expected)
    np.testing.assert_array_equal(run_openvino(lowered, x=x)[0], expected)


def test_last_window_wins_a_shared_place() -> None:
    """Windows 2x2 with stride 1 around one peak.

    Four values go to its place, ONNX Runtime keeps the last.
    """
    x = np.zeros((1, 1, 4, 4), np.float32)
    x[0, 0, 1, 2] = 5
    nodes = [pool(strides=[1, 1]), unpool("v", "i", "s", strides=[1, 1])]
    model = make(
        nodes, {"x": [1, 1, 4, 4], "v": [1, 1, 3, 3]}, {"y": 4, "i": 4}, s=np.asarray([1, 1, 4, 4])
    )
    v = np.arange(1, 10, dtype=np.float32).reshape(1, 1, 3, 3)
    unpooled, indices = run_ort(model, x=x, v=v)
    assert Counter(indices.ravel())[6] == 4
    assert unpooled[0, 0, 1, 2] == 6
    assert_exact(model, x=x, v=v)


@pytest.mark.parametrize(("kernel", "stride"), [(2, 1), (3, 2), (3, 1)])
def test_no_place_is_scattered_to_twice(kernel: int, stride: int) -> None:
    """Today's CPU kernels happen to write in order.

    The standard does not promise it, so each place has one writer.
    """
    shape = [1, 2, 9, 9]
    lowered = lower_unpooling(pair(shape, kernel_shape=[kernel] * 2, strides=[stride] * 2))
    (scatter,) = (n for n in lowered.graph.node if n.op_type == "ScatterElements")
    del lowered.graph.output[:]
    lowered.graph.output.append(
        helper.make_tensor_value_info(scatter.input[1], TensorProto.INT64, ["n"])
    )
    places = Counter(run_ort(lowered, x=numbers(shape))[0].tolist())
    assert places.pop(2 * 9 * 9) > 1
    assert set(places.values()) == {1}


@pytest.mark.parametrize("order", [0, 1])
def test_indices_are_an_output(order: int) -> None:
    nodes = [pool(storage_order=order), *changed(), unpool("v", "i", "s")]
    model = make(nodes, {"x": [2, 3, 5, 6]}, {"y": 4, "i": 4}, w=SCALE, s=np.asarray([2, 3, 5, 6]))
    assert_exact(model, x=numbers([2, 3, 5, 6]))


def test_indices_go_through_arithmetic() -> None:
    nodes = [
        pool(),
        helper.make_node("Sub", ["top", "i"], ["j"]),
        *changed(),
        unpool("v", "j", "s"),
    ]
    model = make(
        nodes,
        {"x": [2, 3, 5, 6]},
        {"y": 4},
        w=SCALE,
        s=np.asarray([2, 3, 5, 6]),
        top=np.asarray(179),
    )
    assert_exact(model, x=numbers([2, 3, 5, 6]))


def test_indices_from_outside() -> None:
    inputs = {"v": ["n", 2, 2, 3], "i": ["n", 2, 2, 3]}
    model = make([unpool("v", "i", "s")], inputs, {"y": 4}, s=np.asarray([2, 2, 5, 6]))
    places = np.random.default_rng(0).permutation(120)[:24].reshape(2, 2, 2, 3)
    values = numbers([2, 2, 2, 3], tied=False)
    assert_exact(model, v=values, i=places)
    inside = run_openvino(
        lower_unpooling(model), v=values, i=np.where(places < 60, places, places + 10**6)
    )
    inside += run_openvino(
        lower_unpooling(model), v=values, i=np.where(places < 60, places, places - 10**6)
    )
    (whole,) = run_ort(model, v=values, i=places)
    for got in inside:
        np.testing.assert_array_equal(got.ravel(), np.where(np.arange(120) < 60, whole.ravel(), 0))


def test_unpooled_to_another_size_than_was_pooled() -> None:
    """ONNX positions count over the whole tensor.

    With other sizes they land elsewhere, in ONNX Runtime too.
    """
    for size in ([1, 2, 6, 8], [1, 2, 7, 7]):
        assert "ScatterElements" in kinds(
            assert_exact(pair([1, 2, 6, 7], size), x=numbers([1, 2, 6, 7]))
        )


@pytest.mark.parametrize(
    "geometry",
    [
        {},
        {"storage_order": 1},
        {"kernel_shape": [3, 2], "strides": [2, 3]},
        {"ceil_mode": 1},
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [2, 2], "dilations": [2, 1], "storage_order": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [[1, 1, 6, 8], [2, 3, 7, 9]], ids=str)
def test_the_last_position_is_known(shape: list[int], geometry: dict[str, Any]) -> None:
    """Numbers that grow have every window's maximum at its end."""
    node = pool(**geometry)
    model = make([node], {"x": shape}, {"p": 4, "i": 4})
    maxima, indices = run_ort(model, x=np.arange(np.prod(shape), dtype=np.float32).reshape(shape))
    assert Window.of(node, Graph(model)).last_position(shape, list(maxima.shape)) == indices.max()


def test_values_of_double_precision_and_half() -> None:
    for kind in (np.float64, np.float16):
        model = pair([1, 2, 5, 6], opset=21)
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        scale = next(t for t in model.graph.initializer if t.name == "w")
        scale.CopyFrom(numpy_helper.from_array(SCALE.astype(kind), "w"))
        lowered = lower_unpooling(model)
        assert_lowered(lowered)
        x = numbers([1, 2, 5, 6])
        values = F.max_pool2d(torch.from_numpy(x), 2).numpy() * SCALE
        values = np.roll(values, 1, axis=-1)
        indices = F.max_pool2d(torch.from_numpy(x), 2, return_indices=True)[1]
        expected = F.max_unpool2d(
            torch.from_numpy(values), indices, (2, 2), output_size=(5, 6)
        ).numpy()
        np.testing.assert_array_equal(run_openvino(lowered, x=x.astype(kind))[0], expected)


# -- PyTorch's own exporters -----------------------------------------------------------------------


class Hourglass(torch.nn.Module):
    def __init__(self, sized: bool = True, kernel: int = 2, padding: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.sized, self.window = sized, (kernel, 2, padding)
        self.conv = torch.nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values, indices = F.max_pool2d(x, *self.window, return_indices=True)
        kernel, stride, padding = ([n] * 2 for n in self.window)
        size = x.shape[2:] if self.sized else None
        return F.max_unpool2d(self.conv(values), indices, kernel, stride, padding, output_size=size)


class Scattered(torch.nn.Module):
    """What people write where ``max_unpool2d`` does not export."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values, indices = F.max_pool2d(x, 2, return_indices=True)
        flat = torch.zeros_like(x).flatten(2)
        return flat.scatter(2, indices.flatten(2), values.flatten(2)).reshape(x.shape)


def exported(net: torch.nn.Module, x: torch.Tensor, **how: Any) -> onnx.ModelProto:
    quiet = [
        logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.onnx._internal")
    ]
    levels = [logger.level for logger in quiet]
    out = io.BytesIO()
    target: Any = (
        None if how["dynamo"] else out
    )  # the older exporter takes a stream, though its types say no
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in quiet:
            logger.setLevel(logging.CRITICAL)
        program = torch.onnx.export(net.eval(), (x,), target, input_names=["x"], **how)
        for logger, level in zip(quiet, levels, strict=True):
            logger.setLevel(level)
    return onnx.load_from_string(out.getvalue()) if program is None else program.model_proto


def assert_like_pytorch(
    model: onnx.ModelProto, net: torch.nn.Module, x: np.ndarray
) -> onnx.ModelProto:
    """The lowered file is the file to the bit in ONNX Runtime.

    And PyTorch to rounding in both runtimes.
    """
    lowered = lower_unpooling(model)
    assert_lowered(lowered)
    expected = net(torch.from_numpy(x)).detach().numpy()
    got = run_ort(lowered, x=x)[0]
    np.testing.assert_array_equal(got, run_ort(model, x=x)[0])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run_openvino(lowered, x=x)[0], expected, rtol=1e-5, atol=1e-6)
    return lowered


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (Hourglass(), [2, 4, 9, 12]),
        (Hourglass(), [1, 4, 8, 6]),
        (Hourglass(sized=False), [2, 4, 8, 6]),
        (Hourglass(kernel=3, padding=1), [2, 4, 9, 11]),
    ],
    ids=["odd", "even", "unsized", "3x3"],
)
def test_pytorch_export_is_recognised(net: Hourglass, shape: list[int], optimize: bool) -> None:
    model = exported(net, torch.zeros(shape), dynamo=True, optimize=optimize)
    assert "ScatterND" in kinds(model)
    lowered = assert_like_pytorch(model, net, numbers(shape))
    assert ("ScatterElements" in kinds(lowered)) == (net.window[0] == 3)
    assert "ScatterND" not in kinds(lowered)


@pytest.mark.parametrize("free", [{0: "n"}, {0: "n", 2: "h", 3: "w"}], ids=["batch", "all"])
def test_pytorch_export_with_free_sizes_is_recognised(free: dict[int, str]) -> None:
    net = Hourglass()
    dims = dict.fromkeys(free, torch.export.Dim.DYNAMIC)
    model = exported(net, torch.zeros(2, 4, 10, 12), dynamo=True, dynamic_shapes=(dims,))
    for n in (1, 3):
        lowered = assert_like_pytorch(
            model, net, numbers([n, 4, *((9, 14) if 2 in free else (10, 12))])
        )
    assert not {"ScatterND", "ScatterElements"} & set(kinds(lowered))


def _other_starts(model: onnx.ModelProto) -> None:
    starts = next(t for t in model.graph.initializer if list(t.dims) == [2, 4, 1, 1])
    starts.CopyFrom(
        numpy_helper.from_array(numpy_helper.to_array(starts)[::-1].copy(), starts.name)
    )


def _not_zero(model: onnx.ModelProto) -> None:
    zeros = next(n for n in model.graph.node if n.op_type == "ConstantOfShape")
    del zeros.attribute[:]
    zeros.attribute.append(
        helper.make_attribute("value", numpy_helper.from_array(np.ones(1, np.float32)))
    )


def _other_grid(model: onnx.ModelProto) -> None:
    cut = next(n for n in model.graph.node if n.op_type == "Slice")
    model.graph.initializer.append(numpy_helper.from_array(np.asarray([0, 1]), "from"))
    model.graph.initializer.append(numpy_helper.from_array(np.asarray([1, 2]), "to"))
    cut.input[1], cut.input[2] = "from", "to"


@pytest.mark.parametrize("tamper", [_other_starts, _not_zero, _other_grid])
def test_what_only_looks_like_an_unpooling_stays(tamper: Any) -> None:
    model = exported(Hourglass(), torch.zeros(2, 4, 8, 6), dynamo=True)
    tamper(model)
    x = np.abs(numbers([2, 4, 8, 6], tied=False))
    x[:, :, ::2, 1::2] += (
        9  # the maximum is never a window's first element, so every index stays in range
    )
    lowered = lower_unpooling(model)
    assert_lowered(lowered)
    assert "ScatterND" in kinds(lowered)
    np.testing.assert_array_equal(run_ort(lowered, x=x)[0], run_ort(model, x=x)[0])


@pytest.mark.parametrize("dynamo", [True, False])
def test_scatter_written_by_hand(dynamo: bool) -> None:
    """The legacy exporter cannot write ``max_unpool2d`` at all; this it can."""
    net = Scattered()
    assert_like_pytorch(
        exported(net, torch.zeros(2, 4, 7, 6), dynamo=dynamo), net, numbers([2, 4, 7, 6])
    )


# -- the rewrite itself ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "geometry", [{}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}], ids=["2x2", "3x3"]
)
def test_lowering_twice_changes_nothing_more(geometry: dict[str, Any]) -> None:
    model = pair([1, 2, 7, 6], **geometry)
    before = model.SerializeToString(deterministic=True)
    once = lower_unpooling(model)
    assert model.SerializeToString(deterministic=True) == before
    assert lower_unpooling(once).SerializeToString(deterministic=True) == once.SerializeToString(
        deterministic=True
    )


def test_a_file_without_unpooling_passes_unchanged() -> None:
    plain = helper.make_node("MaxPool", ["x"], ["p"], kernel_shape=[2, 2])
    dead = helper.make_node("Relu", ["x"], ["unused"])
    model = make([plain, dead], {"x": [1, 2, 6, 6]}, {"p": 4}, unread=SCALE)
    assert lower_unpooling(model) == model


def test_nothing_is_left_behind_and_shapes_are_inferred() -> None:
    lowered = lower_unpooling(pair([1, 2, 7, 6]))
    read = {name for node in lowered.graph.node for name in node.input}
    assert {t.name for t in lowered.graph.initializer} <= read
    assert all(set(n.output) & (read | {"y", "p"}) for n in lowered.graph.node)
    lowered.graph.output[0].type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(lowered, strict_mode=True, data_prop=True)
    assert [d.dim_value for d in inferred.graph.output[0].type.tensor_type.shape.dim] == [
        1,
        2,
        7,
        6,
    ]


def test_metadata_survives() -> None:
    model = pair([1, 2, 6, 6])
    model.metadata_props.add(key="edgeseg.spec", value="{}")
    assert lower_unpooling(model).metadata_props == model.metadata_props


def test_unpooling_inside_a_model_function() -> None:
    body = [pool(), helper.make_node("Shape", ["x"], ["s"]), unpool("p", "i", "s")]
    function = helper.make_function(
        "local", "Through", ["x"], ["y"], body, [helper.make_opsetid("", 17)]
    )
    call = helper.make_node("Through", ["x"], ["y"], domain="local")
    model = make([call], {"x": [1, 2, 5, 6]}, {"y": 4}, functions=(function,))
    assert not {"Through", "ScatterElements"} & set(
        kinds(assert_exact(model, x=numbers([1, 2, 5, 6])))
    )


def _if_around(nodes: list[onnx.NodeProto], reads: str) -> onnx.ModelProto:
    value = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["a", "b", "c", "d"])
    then = helper.make_graph(nodes, "then", [], [value])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "else", [], [value])
    choice = helper.make_node("If", ["yes"], ["y"], "choice", then_branch=then, else_branch=other)
    before = [pool()] if reads == "i" else []
    return make([*before, choice], {"x": [1, 2, 4, 4]}, {"y": 4}, yes=np.asarray(True))


def test_unpooling_inside_a_branch_is_refused() -> None:
    with pytest.raises(
        GraphError,
        match=r"MaxPool node 'pool_p': stands in the body of an If.*without control flow",
    ):
        lower_unpooling(_if_around([pool(), unpool("p", "i", out="z")], "x"))


def test_a_branch_that_reads_indices_keeps_them() -> None:
    cast = helper.make_node("Cast", ["i"], ["z"], to=TensorProto.FLOAT)
    model, x = _if_around([cast], "i"), numbers([1, 2, 4, 4])
    np.testing.assert_array_equal(run_ort(lower_unpooling(model), x=x)[0], run_ort(model, x=x)[0])


def untyped() -> onnx.ModelProto:
    model = pair([1, 2, 6, 6])
    model.graph.input[0].ClearField("type")
    return model


def contradictory() -> onnx.ModelProto:
    model = pair([1, 2, 6, 6])
    model.graph.input.append(
        helper.make_tensor_value_info("w", TensorProto.DOUBLE, [])
    )  # its initializer is FP32
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            pair([1, 2, 6, 6], opset=10),
            r"opset is too old.*got 10, expected 11 or newer.*version_converter",
        ),
        (
            pair([1, 2, "h", 6], auto_pad="SAME_UPPER"),
            r"MaxPool node 'pool_p': auto_pad.*got size unknown.*explicit pads",
        ),
        (
            pair([1, 2, 6, 6], kernel_shape=[1, 1], ceil_mode=1),
            r"'pool_p': ceil_mode.*only padding.*ceil_mode=False",
        ),
        (
            pair([1, 2, 6, 6], kernel_shape=[2]),
            r"'pool_p': its attributes do not fit.*'kernel_shape': 1.*again",
        ),
        (
            pair([1, 2, 7, 7], [1, 2, 6, 6]),
            r"'unpool_y': its output is too small.*got 1x2x6x6 for positions in 1x2x7x7",
        ),
        (
            untyped(),
            r"MaxPool node 'pool_p': nothing tells the element type of its input 'x'.*check_model",
        ),
        (contradictory(), r"the ONNX file's graph 'test' contradicts itself: got .*check_model"),
    ],
    ids=["opset", "auto_pad", "ceil_mode", "attributes", "small", "untyped", "contradiction"],
)
def test_what_cannot_be_lowered_is_named(model: onnx.ModelProto, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        lower_unpooling(model)


# -- TensorRT --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [[1, 8, 12, 10], [1, 8, 13, 11], ["n", 8, 13, 11]], ids=str)
@pytest.mark.parametrize(
    "geometry", [{}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}], ids=["2x2", "3x3"]
)
def test_tensorrt_rtx_builds_it(
    tensorrt_rtx: ModuleType, shape: list[Any], geometry: dict[str, Any]
) -> None:
    trt = tensorrt_rtx
    lowered = lower_unpooling(pair(shape, **geometry))
    builder = trt.Builder(rtx_log().logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, rtx_log().logger)
    assert parser.parse(lowered.SerializeToString()), [
        parser.get_error(i).desc() for i in range(parser.num_errors)
    ]
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    if shape[0] == "n":
        profile = builder.create_optimization_profile()
        profile.set_shape("x", (1, *shape[1:]), (2, *shape[1:]), (4, *shape[1:]))
        config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None
