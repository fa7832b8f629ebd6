"""``fold`` against ONNX Runtime.

The same outputs to float rounding, and nothing left that could be folded.
"""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_tools import find, kinds, make, node, run_ort

from edgeseg.graph.passes.fold_batchnorm import fold

QUICK = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
IMAGE = {"x": ["n", 4, 6, 7]}


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def normalisation(channels: int, seed: int = 0, prefix: str = "") -> dict[str, Any]:
    """Gain (some negative, one zero), offset, mean and variance (one all but zero)."""
    random = np.random.default_rng([seed, channels])
    gain, var = random.normal(size=channels), random.uniform(0.2, 3, channels)
    gain[0], var[-1] = 0, 1e-6
    facts = {
        "g": gain,
        "b": random.normal(size=channels),
        "m": random.normal(size=channels),
        "v": var,
    }
    return {prefix + k: v.astype(np.float32) for k, v in facts.items()}


def assert_folds(
    model: onnx.ModelProto, left: dict[str, int], **feed: np.ndarray
) -> onnx.ModelProto:
    """Fold; the outputs stay within 1e-5 of their range, and the file has the operators ``left``.

    Returns it.
    """
    before = model.SerializeToString(deterministic=True)
    onnx.checker.check_model(model, full_check=True)
    folded = fold(model)
    assert model.SerializeToString(deterministic=True) == before
    onnx.checker.check_model(folded, full_check=True)
    assert [o.name for o in folded.graph.output] == [o.name for o in model.graph.output]
    feed = feed or {"x": numbers(2, 4, 6, 7)}
    for got, want in zip(run_ort(folded, **feed), run_ort(model, **feed), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())
    assert kinds(folded) == left
    return folded


def assert_same_nodes(model: onnx.ModelProto, **feed: np.ndarray) -> None:
    assert_folds(model, dict(kinds(model)), **feed)


# -- one layer -------------------------------------------------------------------------------------


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[onnx.ModelProto, np.ndarray]:
    """Conv or ConvTranspose of one to three dimensions.

    Grouped or not, with bias or not, BN and constants behind.
    """
    rank, group = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 4]))
    fan_in, fan_out = group * draw(st.integers(1, 2)), group * draw(st.integers(1, 3))
    turned = draw(st.booleans())
    shape = (fan_in, fan_out // group) if turned else (fan_out, fan_in // group)
    weight = numbers(*shape, *[2] * rank)
    bias = "c" if draw(st.booleans()) else ""
    strides = [draw(st.integers(1, 2))] * rank
    nodes = [
        node(
            "ConvTranspose" if turned else "Conv",
            f"x w {bias}",
            "y0",
            group=group,
            strides=strides,
            pads=[1, 0] * rank,
        )
    ]
    steps = ["BatchNormalization", "Mul", "Add", "Mul1"]
    chosen = draw(
        st.lists(st.sampled_from(steps if rank == 2 else steps[:1]), min_size=1, max_size=3)
    )
    for place, step in enumerate(chosen):
        inputs = {"BatchNormalization": "{} g b m v", "Mul": "{} k", "Add": "k {}", "Mul1": "s {}"}[
            step
        ]
        extra: dict[str, Any] = {"epsilon": 1e-3} if step.startswith("B") else {}
        nodes.append(node(step.rstrip("1"), inputs.format(f"y{place}"), f"y{place + 1}", **extra))
    batch = draw(st.integers(1, 2))
    constants: dict[str, Any] = {
        "w": weight,
        "c": numbers(fan_out),
        "k": numbers(fan_out, 1, 1),
        "s": np.float32(-1.5),
    }
    facts = normalisation(fan_out)
    facts["v"] = np.maximum(facts["v"], 0.1)
    model = make(
        nodes, {"x": [batch, fan_in, *[5] * rank]}, f"y{len(chosen)}", **constants, **facts
    )
    return model, numbers(batch, fan_in, *[5] * rank, seed=1)


@QUICK
@given(convolutions())
def test_whatever_scales_channels_goes_into_the_layer(
    case: tuple[onnx.ModelProto, np.ndarray],
) -> None:
    model, x = case
    folded = assert_folds(model, {model.graph.node[0].op_type: 1}, x=x)
    assert (
        len(folded.graph.initializer) == 2
    )  # weights and bias, and nothing of what was there before


def test_a_variance_of_all_but_zero() -> None:
    nodes = [node("Conv", "x w", "y"), node("BatchNormalization", "y g b m v", "z")]
    assert_folds(make(nodes, IMAGE, "z", w=numbers(5, 4, 3, 3), **normalisation(5)), {"Conv": 1})


def test_an_activation_stays_behind_the_layer() -> None:
    nodes = [
        node("Conv", "x w", "y"),
        node("BatchNormalization", "y g b m v", "z"),
        node("PRelu", "z slope", "a"),
        node("Mul", "a k", "out"),
    ]
    constants = {"slope": numbers(5, 1, 1), "k": numbers(1, 5, 1, 1), **normalisation(5)}
    assert_folds(
        make(nodes, IMAGE, "out", w=numbers(5, 4, 3, 3), **constants),
        {"Conv": 1, "PRelu": 1, "Mul": 1},
    )


@pytest.mark.parametrize(
    "constant",
    [
        numbers(7),
        numbers(6, 1),
        numbers(5, 6, 1),
        numbers(2, 5, 1, 1),
        numbers(1, 1, 5, 1, 1),
        np.float64(2),
    ],
    ids=lambda v: str(np.shape(v)) or "double",
)
def test_constants_that_are_not_one_number_a_channel_stay(constant: np.ndarray) -> None:
    cast = [] if constant.ndim else [node("Cast", "y", "y64", to=TensorProto.DOUBLE)]
    nodes = [
        node("Conv", "x w", "y", pads=[1] * 4),
        *cast,
        node("Mul", f"{'y64' if cast else 'y'} k", "z"),
    ]
    model = make(nodes, {"x": [2, 4, 6, 7]}, "z", w=numbers(5, 4, 3, 3), k=constant)
    assert_same_nodes(model)


def test_one_channel_that_is_spread_to_many_stays() -> None:
    """(n, 1, h, w) * (5, 1, 1) has five channels: the layer cannot take that on."""
    nodes = [node("Conv", "x w", "y"), node("Mul", "y k", "z")]
    assert_same_nodes(make(nodes, IMAGE, "z", w=numbers(1, 4, 3, 3), k=numbers(5, 1, 1)))


# -- who else reads --------------------------------------------------------------------------------


def test_a_layer_read_by_two_is_left_alone() -> None:
    nodes = [
        node("Conv", "x w", "y"),
        node("BatchNormalization", "y g b m v", "z"),
        node("Add", "y z", "out"),
    ]
    assert_same_nodes(make(nodes, IMAGE, "out", w=numbers(5, 4, 3, 3), **normalisation(5)))


def test_a_layer_that_is_an_output_is_left_alone() -> None:
    nodes = [node("Conv", "x w", "y"), node("BatchNormalization", "y g b m v", "z")]
    assert_same_nodes(make(nodes, IMAGE, "z y", w=numbers(5, 4, 3, 3), **normalisation(5)))


def test_a_layer_that_a_branch_reads_is_left_alone() -> None:
    value = helper.make_tensor_value_info("o", TensorProto.FLOAT, ["n", 5, 4, 5])
    then = helper.make_graph([node("Identity", "y", "o")], "then", [], [value])
    other = helper.make_graph([node("Neg", "y", "o")], "else", [], [value])
    nodes = [
        node("Conv", "x w", "y"),
        node("BatchNormalization", "y g b m v", "z"),
        helper.make_node("If", ["yes"], ["a"], "if", then_branch=then, else_branch=other),
        node("Add", "a z", "out"),
    ]
    assert_same_nodes(
        make(nodes, IMAGE, "out", w=numbers(5, 4, 3, 3), yes=np.asarray(True), **normalisation(5))
    )


def test_shared_weights_become_each_layers_own() -> None:
    nodes = [
        node("Conv", "x w", "y1"),
        node("BatchNormalization", "y1 g b m v", "z1"),
        node("Conv", "x w", "y2"),
        node("BatchNormalization", "y2 g2 b2 m2 v2", "z2"),
        node("Conv", "x w", "y3"),
        node("Add", "z1 z2", "s"),
        node("Add", "s y3", "out"),
    ]
    second = {f"{k}2": v for k, v in normalisation(5, seed=1).items()}
    model = make(nodes, IMAGE, "out", w=numbers(5, 4, 3, 3), **normalisation(5), **second)
    folded = assert_folds(model, {"Conv": 3, "Add": 2})
    assert len({n.input[1] for n in folded.graph.node if n.op_type == "Conv"}) == 3
    assert find(folded, "y3").input[1] == "w"  # its own still


def test_shared_normalisation_is_folded_twice() -> None:
    nodes = [
        node("Conv", "x w", "y1"),
        node("BatchNormalization", "y1 g b m v", "z1"),
        node("Conv", "x w", "y2"),
        node("BatchNormalization", "y2 g b m v", "z2"),
        node("Mul", "z1 z2", "out"),
    ]
    assert_folds(
        make(nodes, IMAGE, "out", w=numbers(5, 4, 3, 3), **normalisation(5)), {"Conv": 2, "Mul": 1}
    )


@pytest.mark.parametrize("computed", ["w", "c", "g", "v"])
def test_computed_parameters_are_left_alone(computed: str) -> None:
    nodes = [
        node("Neg", "raw", computed),
        node("Conv", "x w c", "y"),
        node("BatchNormalization", "y g b m v", "z"),
    ]
    constants = {"w": numbers(5, 4, 3, 3), "c": numbers(5), **normalisation(5)}
    constants["v"] = np.ones(5, np.float32)
    constants["raw"] = -constants.pop(computed)
    assert_same_nodes(make(nodes, IMAGE, "z", **constants))


def test_parameters_in_training_are_left_alone() -> None:
    nodes = [
        node("Conv", "x w", "y"),
        node("BatchNormalization", "y g b m v", "z mean var", training_mode=1),
    ]
    model = make(nodes, IMAGE, "z", w=numbers(5, 4, 3, 3), **normalisation(5))
    assert kinds(fold(model)) == kinds(model)


# -- through a concat ------------------------------------------------------------------------------


def concatenated(axis: int, *outputs: str) -> onnx.ModelProto:
    """ENet's first block.

    A convolution beside a max-pool, then batch normalisation over both, then PReLU.
    """
    nodes = [
        node("Conv", "x w", "y", strides=[2, 2], pads=[1] * 4),
        node("MaxPool", "x", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Concat", "y p", "c", axis=axis),
        node("BatchNormalization", "c g b m v", "z"),
        node("PRelu", "z slope", "out"),
    ]
    constants = {"w": numbers(5, 4, 3, 3), "slope": numbers(9, 1, 1), **normalisation(9)}
    return make(nodes, {"x": ["n", 4, 6, 8]}, " ".join(["out", *outputs]), **constants)


@pytest.mark.parametrize("axis", [1, -3])
def test_normalisation_goes_through_a_concat(axis: int) -> None:
    left = {"Conv": 1, "MaxPool": 1, "Mul": 1, "Add": 1, "Concat": 1, "PRelu": 1}
    folded = assert_folds(concatenated(axis), left, x=numbers(2, 4, 6, 8))
    assert list(find(folded, "c").output) == ["z"]


def test_a_concat_that_is_an_output_stays() -> None:
    assert_same_nodes(concatenated(1, "c"), x=numbers(2, 4, 6, 8))


def test_a_concat_of_two_convolutions_takes_normalisation_whole() -> None:
    nodes = [
        node("Conv", "x w", "y1"),
        node("Conv", "x u", "y2"),
        node("Concat", "y2 y1", "c", axis=1),
        node("BatchNormalization", "c g b m v", "z"),
        node("Relu", "z", "out"),
    ]
    constants = {"w": numbers(5, 4, 3, 3), "u": numbers(2, 4, 3, 3), **normalisation(7)}
    assert_folds(make(nodes, IMAGE, "out", **constants), {"Conv": 2, "Concat": 1, "Relu": 1})


def test_a_tensor_concatenated_with_itself() -> None:
    nodes = [
        node("Conv", "x w", "y"),
        node("Concat", "y y", "c", axis=1),
        node("BatchNormalization", "c g b m v", "z"),
    ]
    folded = fold(make(nodes, IMAGE, "z", w=numbers(5, 4, 3, 3), **normalisation(10)))
    assert_folds(
        make(nodes, IMAGE, "z", w=numbers(5, 4, 3, 3), **normalisation(10)), dict(kinds(folded))
    )


@pytest.mark.parametrize(("axis", "channels"), [(2, 4), (3, 4)])
def test_a_concat_of_pixels_stays(axis: int, channels: int) -> None:
    nodes = [
        node("Conv", "x w", "y"),
        node("Concat", "y y", "c", axis=axis),
        node("BatchNormalization", "c g b m v", "z"),
    ]
    assert_same_nodes(
        make(nodes, IMAGE, "z", w=numbers(channels, 4, 3, 3), **normalisation(channels))
    )


# -- the rest of the form --------------------------------------------------------------------------


def test_what_only_passes_values_on_is_gone() -> None:
    nodes = [
        node("Identity", "w", "w2"),
        node("Identity", "w2", "w3"),
        node("Conv", "x w3", "y"),
        node("Identity", "y", "i"),
        node("Dropout", "i ratio", "d mask"),
        node("BatchNormalization", "d g b m v", "z"),
        node("Identity", "z", "out"),
    ]
    model = make(
        nodes, IMAGE, "out", w=numbers(5, 4, 3, 3), ratio=np.float32(0.5), **normalisation(5)
    )
    folded = assert_folds(model, {"Conv": 1, "Identity": 1})
    assert find(folded, "out").op_type == "Identity"  # an output keeps its name, and its maker


def test_a_dropout_whose_mask_is_read_stays() -> None:
    nodes = [node("Dropout", "x", "d mask"), node("Cast", "mask", "out", to=TensorProto.FLOAT)]
    model = make(nodes, IMAGE, "out d")
    assert kinds(fold(model)) == {"Dropout": 1, "Cast": 1}


def test_constants_of_every_form_become_initializers() -> None:
    def constant(name: str, **value: Any) -> onnx.NodeProto:
        return helper.make_node("Constant", [], [name], **value)

    weight = numbers(5, 4, 3, 3)
    nodes = [
        constant("w", value=numpy_helper.from_array(weight)),
        constant("k", value_float=0.5),
        constant("shape", value_ints=[0, -1]),
        node("Conv", "x w", "y"),
        node("Mul", "y k", "z"),
        node("Reshape", "z shape", "out"),
    ]
    folded = assert_folds(make(nodes, IMAGE, "out"), {"Conv": 1, "Reshape": 1})
    assert {t.name for t in folded.graph.initializer} == {"y/weight", "y/bias", "shape"}


def test_weights_that_are_inputs_with_a_default_are_constants() -> None:
    """So were all of them before IR version 4: PyTorch 1.x wrote such files."""
    nodes = [node("Conv", "x w", "y"), node("BatchNormalization", "y g b m v", "z")]
    model = make(nodes, IMAGE, "z", opset=9, w=numbers(5, 4, 3, 3), **normalisation(5))
    model.ir_version = 3
    for tensor in model.graph.initializer:
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        model.graph.input.append(value)
    folded = assert_folds(model, {"Conv": 1})
    assert [i.name for i in folded.graph.input] == ["x"]


def test_every_node_has_a_name_and_a_files_own_name_stays() -> None:
    nodes = [
        node("Relu", "x", "head", name=""),
        node("Relu", "head", "a", name="head"),
        node("Relu", "a", "b", name="head"),
        node("Relu", "b", "out", name=""),
    ]
    folded = fold(make(nodes, IMAGE, "out"))
    named = {n.output[0]: n.name for n in folded.graph.node}
    assert named["a"] == "head"
    assert len(set(named.values())) == 4
    assert all(named.values())


def test_functions_of_the_file_are_looked_into() -> None:
    body = [node("Conv", "a w", "y"), node("BatchNormalization", "y g b m v", "z")]
    function = helper.make_function(
        "local", "ConvBn", list("awgbmv"), ["z"], body, [helper.make_opsetid("", 17)]
    )
    call = helper.make_node("ConvBn", ["x", *"wgbmv"], ["out"], domain="local")
    plain = make([node("Identity", "x", "out")], IMAGE, "out")
    model = helper.make_model(
        helper.make_graph(
            [call],
            "test",
            plain.graph.input,
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 5, 4, 5])],
            [
                numpy_helper.from_array(v, k)
                for k, v in {"w": numbers(5, 4, 3, 3), **normalisation(5)}.items()
            ],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("local", 1)],
        functions=[function],
        ir_version=9,
    )
    assert_folds(model, {"Conv": 1})


def test_metadata_survives() -> None:
    model = make([node("Relu", "x", "out")], IMAGE, "out")
    model.metadata_props.add(key="edgeseg.spec", value="{}")
    assert fold(model).metadata_props == model.metadata_props
