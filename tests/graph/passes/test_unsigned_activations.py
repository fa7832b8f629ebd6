"""UINT8 activations are the INT8 ones, shifted: equal in ONNX Runtime to the bit.

And what OpenVINO makes of both.
"""

from typing import Any

import numpy as np
import onnx
import processors
import pytest
from lowered import round_behind_gains, unsigned_activations
from onnx import helper
from onnx_tools import kinds, make, maker, node, run_openvino, run_ort, values
from paths import ROOT
from processors import run_on

from edgeseg.backends.openvino import probes, runtime

SCALE = 2.0**-5
PAIR = {"s": np.float32(SCALE), "zero": np.int8(0)}


def pair(name: str, to: str | None = None) -> list[onnx.NodeProto]:
    to = to or name
    return [
        node("QuantizeLinear", f"{name} s zero", f"{to}.q"),
        node("DequantizeLinear", f"{to}.q s zero", f"{to}.d"),
    ]


def layer(x: str, out: str) -> onnx.NodeProto:
    return node("Conv", f"{x} w", out, pads=[1] * 4)


WEIGHT = np.random.default_rng(0).normal(size=(4, 4, 3, 3)).astype(np.float32)
SHAPE = [1, 4, 6, 8]


def x_of(seed: int = 0) -> np.ndarray:
    """Values of both signs; some saturate, some are ties."""
    draw = np.random.default_rng(seed)
    steps = draw.integers(-150, 151, SHAPE) + draw.choice([0, 0.5], SHAPE)
    return np.asarray((steps * SCALE).astype(np.float32))


def assert_same(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewritten and equal to the bit; returns the rewritten graph."""
    before = model.SerializeToString(deterministic=True)
    result = unsigned_activations(model)
    assert model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(result, full_check=True)
    x = x_of()
    for got, want in zip(run_ort(result, x=x), run_ort(model, x=x), strict=True):
        np.testing.assert_array_equal(got, want)
    return result


def zero_points(model: onnx.ModelProto) -> list[int]:
    """Of the Q nodes, in graph order; INT8's as -1."""
    found = values(model)
    zeros = [found[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    return [int(z) if z.dtype == np.uint8 else -1 for z in zeros]


def test_any_sign_gets_128_and_relu_gets_0() -> None:
    nodes = [*pair("x"), layer("x.d", "a"), node("Relu", "a", "r"), *pair("r"), layer("r.d", "y")]
    result = assert_same(make(nodes, {"x": SHAPE}, "y", w=WEIGHT, **PAIR))
    assert zero_points(result) == [128, 0]
    clip = maker(result, "r")
    assert clip is not None
    assert clip.op_type == "Clip"
    assert values(result)[clip.input[2]] == np.float32(127 * SCALE)


@pytest.mark.parametrize("other", ["sum", "output"])
def test_relu_that_more_than_layers_read_gets_128(other: str) -> None:
    """OpenVINO leaves out the rounding of a sum's branch where its zero point is 0."""
    nodes = [*pair("x"), layer("x.d", "a"), node("Relu", "a", "r"), *pair("r"), layer("r.d", "b")]
    nodes += [node("Add", "b r.d" if other == "sum" else "b a", "y")]
    model = make(nodes, {"x": SHAPE}, "y" if other == "sum" else "r", w=WEIGHT, **PAIR)
    assert zero_points(assert_same(model)) == [128, 128]


@pytest.mark.parametrize("scale", [2.0**-5, 0.037])
def test_numbers_of_many_bits_are_rounded_before_the_zero_point_is_added(scale: float) -> None:
    """Adding 128 in float32 would move values near the middle between two steps.

    They would go to the other side.
    """
    slope = np.full((4, 1, 1), 0.123456, np.float32)
    nodes = [
        *pair("x"),
        layer("x.d", "a"),
        node("PRelu", "a slope", "p"),
        *pair("p"),
        layer("p.d", "y"),
    ]
    whole = [
        *pair("x"),
        node("Add", "x.d x.d", "a"),
        node("Relu", "a", "p"),
        *pair("p"),
        node("Add", "p.d p.d", "y"),
    ]
    constants = {"slope": slope, "w": WEIGHT, "s": np.float32(scale), "zero": np.int8(0)}
    result = assert_same(make(nodes, {"x": SHAPE}, "y", **constants))
    assert kinds(result)["Round"] == 1
    assert kinds(assert_same(make(whole, {"x": SHAPE}, "y", **constants)))["Round"] == 0


def test_signed_activations_are_rounded_first_behind_a_gain_alone() -> None:
    gain, slope = np.full((1, 4, 1, 1), 1.37, np.float32), np.full((4, 1, 1), 0.3, np.float32)
    nodes = [
        *pair("x"),
        layer("x.d", "a"),
        node("Relu", "a", "r"),
        node("Mul", "r gain", "g"),
        *pair("g"),
    ]
    nodes += [layer("g.d", "b"), node("PRelu", "b slope", "p"), *pair("p"), layer("p.d", "y")]
    model = make(nodes, {"x": SHAPE}, "y", w=WEIGHT, gain=gain, slope=slope, **PAIR)
    result = round_behind_gains(model)
    onnx.checker.check_model(result, full_check=True)
    np.testing.assert_array_equal(run_ort(result, x=x_of())[0], run_ort(model, x=x_of())[0])
    assert kinds(result)["Round"] == 1


MOVES = {
    "pool": [node("MaxPool", "x.q", "m", kernel_shape=[2, 2], strides=[1, 1], pads=[0, 0, 1, 1])],
    "pad": [node("Pad", "x.q pads eight", "m")],
    "pad with nothing": [node("Pad", "x.q pads", "m")],
    "pad by reflection": [node("Pad", "x.q pads", "m", mode="reflect")],
    "concat": [node("Concat", "x.q x.q", "m", axis=1)],
    "resize": [node("Resize", "x.q - scales", "m", mode="nearest")],
    "slice": [node("Slice", "x.q one two axis", "m")],
    "where": [node("Equal", "x.q x.q", "same"), node("Where", "same x.q eight", "m")],
    "compare": [node("Greater", "x.q eight", "over"), node("Where", "over x.q eight", "m")],
}


@pytest.mark.parametrize("move", MOVES)
def test_moves_of_bytes(move: str) -> None:
    constants = {
        "eight": np.int8(8),
        "pads": np.array([0, 0, 1, 0, 0, 0, 0, 1]),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "one": np.array([1]),
        "two": np.array([3]),
        "axis": np.array([2]),
    }
    nodes = [*pair("x"), *MOVES[move], node("DequantizeLinear", "m s zero", "y")]
    result = assert_same(make(nodes, {"x": SHAPE}, "y", opset=18, **constants, **PAIR))
    assert zero_points(result) == [128]


KEPT = {
    "arithmetic on bytes": [node("Mul", "x.q x.q", "m"), node("DequantizeLinear", "m s zero", "y")],
    "linear resize": [
        node("Resize", "x.q - scales", "m", mode="linear"),
        node("DequantizeLinear", "m s zero", "y"),
    ],
    "an output": [node("DequantizeLinear", "x.q s zero", "y")],
    "another zero point": [node("DequantizeLinear", "x.q s three", "y")],
}


@pytest.mark.parametrize("what", KEPT)
def test_what_has_no_shifted_form_stays(what: str) -> None:
    constants = {"scales": np.array([1, 1, 2, 2], np.float32), "three": np.int8(3)}
    nodes = [node("QuantizeLinear", "x s zero", "x.q"), *KEPT[what]]
    outputs = "x.q y" if what == "an output" else "y"
    model = make(nodes, {"x": SHAPE}, outputs, opset=18, **constants, **PAIR)
    assert zero_points(unsigned_activations(model)) == [-1]


def test_padded_averages_of_shifted_tensors_are_convolutions() -> None:
    pool: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
    nodes = [
        *pair("x"),
        node("AveragePool", "x.d", "counted", count_include_pad=1, **pool),
        node("AveragePool", "x.d", "inside", count_include_pad=0, **pool),
        node("Relu", "x", "r"),
        node("AveragePool", "r", "floats", count_include_pad=1, **pool),
    ]
    model = make(nodes, {"x": SHAPE}, "counted inside floats", **PAIR)
    result = unsigned_activations(
        model
    )  # "floats" is of the image itself, whose bytes OpenVINO takes for quantized
    for got, want in zip(run_ort(result, x=x_of()), run_ort(model, x=x_of()), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)
    makers = [maker(result, name) for name in ("counted", "inside", "floats")]
    assert [one.op_type for one in makers if one is not None] == ["Mul", "AveragePool", "Mul"]
    assert kinds(result)["Conv"] == 2


def test_a_quantizer_of_opset_21_says_its_type() -> None:
    quantizer = helper.make_node(
        "QuantizeLinear", ["x", "s", "zero"], ["x.q"], output_dtype=onnx.TensorProto.INT8
    )
    model = make(
        [quantizer, node("DequantizeLinear", "x.q s zero", "y")],
        {"x": SHAPE},
        "y",
        opset=21,
        **PAIR,
    )
    assert zero_points(assert_same(model)) == [128]


# -- OpenVINO --------------------------------------------------------------------------------------


def test_the_probe_is_right_in_onnx_runtime() -> None:
    x = probes.concat_input()
    np.testing.assert_array_equal(run_ort(probes.concat_graph(), x=x)[0], probes.concat_output(x))


def test_unsigned_is_right_on_this_processor() -> None:
    if not probes.int8_is_exact():
        pytest.skip("this processor has no VNNI")
    x = probes.concat_input()
    found = run_openvino(unsigned_activations(probes.concat_graph()), x=x)[0]
    np.testing.assert_array_equal(found, probes.concat_output(x), err_msg=processors.name())


WRONG = """
import numpy
from edgeseg.graph.graph import Graph
from edgeseg.graph.passes import PassContext
from edgeseg.graph.passes.unsigned_activations import unsigned_activations
from edgeseg.backends.openvino import probes, runtime
x = probes.concat_input()
shifted = Graph(probes.concat_graph())
unsigned_activations(shifted, PassContext(for_openvino=True, unsigned=True))
for graph in (probes.concat_graph(), shifted.model):
    model = runtime.core().read_model(graph.SerializeToString())
    compiled = runtime.core().compile_model(model, "CPU")
    print(numpy.abs(compiled([x])[0] - probes.concat_output(x)).max())
print(probes.signed_int8_is_exact())
"""


def test_openvino_is_still_wrong_without_amx() -> None:
    """The day this fails is a good one.

    Signed INT8 is right without AMX, and ``docs/openvino-int8.md`` can say so.

    Nothing else has to change then: ``probes.signed_int8_is_exact`` tries it, whatever the
    processor is called.
    """
    signed, unsigned, exact = run_on(processors.WITHOUT_AMX, WRONG).split()
    assert float(unsigned) == 0
    assert (float(signed) == 0) == (exact == "True")
    assert float(signed) > 0.1, (
        f"OpenVINO {runtime.library_version()} computes signed INT8 behind a concat rightly: "
        "tell docs/"
    )


def test_the_page_has_the_versions_and_the_graph() -> None:
    page = (ROOT / "docs" / "openvino-int8.md").read_text(encoding="utf-8")
    assert "2026.4.1" in page
    assert "probes.concat_graph" in page
