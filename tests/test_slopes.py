"""Slopes of few bits: what stands in front of a rounding is exact even once a zero point is added."""

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_tools import find, make, node, values

from edgeseg.quantize.slopes import FRACTION_BITS, LEAST_BITS, round_slopes


def net(slope: np.ndarray | float, out_scale: float, in_scale: float = 2.0**-4, kind: str = "PRelu") -> onnx.ModelProto:
    """An INT8 convolution, an activation, a Q node; weight scales 2^-6 and 2^-8."""
    nodes = [
        node("QuantizeLinear", "x s zero", "q"), node("DequantizeLinear", "q s zero", "d"),
        node("DequantizeLinear", "w ws wz", "wd", axis=0), node("Conv", "d wd", "c"),
        node("PRelu", "c slope", "p") if kind == "PRelu" else node("LeakyRelu", "c", "p", alpha=float(slope)),
        node("QuantizeLinear", "p out zero", "pq"), node("DequantizeLinear", "pq out zero", "y"),
    ]  # fmt: skip
    constants = {
        "s": np.float32(in_scale), "zero": np.int8(0), "w": np.ones((2, 3, 1, 1), np.int8),
        "ws": np.array([2.0**-6, 2.0**-8], np.float32), "wz": np.zeros(2, np.int8),
        "slope": np.asarray(slope, np.float32), "out": np.float32(out_scale),
    }  # fmt: skip
    return make(nodes, {"x": [1, 3, 4, 4]}, "y", **constants)


def slopes(model: onnx.ModelProto) -> np.ndarray:
    return values(model)[find(model, "p").input[1]].ravel()


def test_a_slope_has_the_bits_that_are_left() -> None:
    """Steps of 2^-10 and 2^-12 in front of 2^-2: eight and six bits behind the point."""
    model = net(np.array([0.123456, 0.123456]).reshape(2, 1, 1), 2.0**-2)
    assert round_slopes(model) == 1
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(slopes(model), [32 / 256, 8 / 64])
    assert round_slopes(model) == 0  # nothing more to do


def test_what_follows_is_exact_with_a_zero_point_added() -> None:
    draw = np.random.default_rng(0)
    slope = draw.uniform(-0.6, 1.2, (2, 1, 1))
    model = net(slope, 2.0**-2)
    round_slopes(model)
    whole = draw.integers(-(2**16), 2**16, (1000, 2))
    values_ = (whole * np.array([2.0**-10, 2.0**-12]) * slopes(model) / 2.0**-2).astype(np.float64)
    values_ = values_[np.abs(values_) < 128]
    shifted = (values_.astype(np.float32) + np.float32(128)).astype(np.float64)
    np.testing.assert_array_equal(shifted, values_ + 128)


def test_a_slope_moves_little_or_not_at_all() -> None:
    before = np.array([0.2, 0.3]).reshape(2, 1, 1)
    coarse = net(before, 2.0**4)  # steps 2^14 and 2^16 times finer: two bits and none are left
    assert FRACTION_BITS - 14 < LEAST_BITS
    assert round_slopes(coarse) == 0
    np.testing.assert_array_equal(slopes(coarse), before.ravel().astype(np.float32))


def test_leaky_relu() -> None:
    model = net(0.1, 2.0**-2, kind="LeakyRelu")
    assert round_slopes(model) == 1
    (alpha,) = (helper.get_attribute_value(a) for a in find(model, "p").attribute if a.name == "alpha")
    assert alpha == pytest.approx(6 / 64)


def test_what_is_not_of_steps_is_left_alone() -> None:
    """A float tensor has no step, and a slope in front of no rounding needs none."""
    nodes = [
        node("PRelu", "x slope", "p"),
        node("QuantizeLinear", "p s zero", "q"),
        node("DequantizeLinear", "q s zero", "y"),
    ]
    constants = {"slope": np.full((3, 1, 1), 0.123456, np.float32), "s": np.float32(0.25), "zero": np.int8(0)}
    assert round_slopes(make(nodes, {"x": [1, 3, 4, 4]}, "y", **constants)) == 0
    last = net(np.array([0.123456, 0.123456]).reshape(2, 1, 1), 2.0**-2)
    del last.graph.node[5:], last.graph.output[:]
    last.graph.output.append(helper.make_tensor_value_info("p", 1, [1, 2, 4, 4]))
    assert round_slopes(last) == 0
