"""Dead branches: scales without a finite reciprocal, as training with weight decay leaves them."""

import numpy as np
import onnx
import pytest
from lowered import dequantize_early, propagate_qdq, unsigned_activations
from onnx_tools import make, node, run_openvino, run_ort, values
from paths import SHARED

from edgeseg.graph.passes.tiny_scales import SMALLEST_SCALE, raise_tiny_scales
from edgeseg.quantize.placement import Placement, scales

DEAD = SHARED / "cases" / "int8" / "dead_branch.onnx"


def branch(scale: float) -> onnx.ModelProto:
    """``x`` plus a branch that has died: its values, and its scale, are about 1e-39."""
    nodes = [
        node("QuantizeLinear", "x s zero", "xq"),
        node("DequantizeLinear", "xq s zero", "xd"),
        node("Mul", "xd tiny", "t"),
        node("QuantizeLinear", "t ts zero", "tq"),
        node("DequantizeLinear", "tq ts zero", "td"),
        node("Add", "xd td", "y"),
    ]
    constants = {
        "s": np.float32(0.02),
        "zero": np.int8(0),
        "tiny": np.float32(1e-39),
        "ts": np.float32(scale),
    }
    return make(nodes, {"x": [1, 4, 5, 5]}, "y", **constants)


X = np.random.default_rng(0).normal(0, 0.5, (1, 4, 5, 5)).astype(np.float32)


def test_the_scale_is_raised_and_the_branch_is_zero() -> None:
    model = branch(1.3e-41)
    want = run_ort(branch(1.3e-41), x=X)[0]
    assert raise_tiny_scales(model) == 1
    onnx.checker.check_model(model, full_check=True)
    assert (
        min(
            v for v in values(model).values() if v.dtype == np.float32 and v.size == 1 and v > 1e-38
        )
        > 0
    )
    np.testing.assert_allclose(run_ort(model, x=X)[0], want, atol=1e-7)
    for form in (model, unsigned_activations(model)):
        np.testing.assert_allclose(run_openvino(form, x=X)[0], want, atol=1e-6)


@pytest.mark.parametrize("scale", [SMALLEST_SCALE, 1e-20, 0.1])
def test_other_scales_stay(scale: float) -> None:
    model = branch(scale)
    assert raise_tiny_scales(model) == 0
    assert model == branch(scale)


def test_post_training_scales_have_the_same_floor() -> None:
    placement = Placement((), (), (), ("a", "b"), {"a": "a", "b": "b"}, {"a": ("a",), "b": ("b",)})
    for exact in (True, False):
        found = scales(placement, {"a": 1e-39, "b": 1.0}, exact=exact)
        assert found["a"] == SMALLEST_SCALE
        assert found["b"] > 1 / 128


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_the_attention_block_that_died(precision: str) -> None:
    if not DEAD.is_file():
        pytest.skip("the case is not here (EDGESEG_SHARED/cases/int8)")
    model = onnx.load(DEAD)
    x = np.random.default_rng(0).normal(0, 0.2, (1, 32, 45, 80)).astype(np.float32)
    name = model.graph.input[0].name
    want = run_ort(model, **{name: x})[0]
    assert raise_tiny_scales(model) >= 1
    for form in (
        propagate_qdq(model),
        unsigned_activations(dequantize_early(propagate_qdq(model))),
    ):
        found = run_openvino(form, precision, **{name: x})[0]
        np.testing.assert_allclose(found, want, atol=1e-4 if precision == "f32" else 0.02)
