"""The rules of ``placement.py`` on small graphs, and the Q/DQ files that ``qdq.py`` writes."""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx_tools import find, kinds, make, maker, node, run_ort, values

from edgeseg.errors import GraphError, InputError
from edgeseg.graph.ops import is_quantized
from edgeseg.graph.passes.fold_batchnorm import fold
from edgeseg.quantize.layer_error import local_errors
from edgeseg.quantize.placement import Placement, place, power_of_two, scales, tensors_to_calibrate
from edgeseg.quantize.qdq import (
    DEAD_SCALE,
    OPSET,
    describe,
    output_axis,
    quantize_weight,
    raise_opset,
    write_qdq,
)

IMAGE = {"x": [1, 4, 8, 12]}


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def conv(x: str, y: str, weight: str = "w", **attributes: Any) -> onnx.NodeProto:
    """A layer of four channels, its node named as its output.

    Weights ``w`` 3x3 padded, ``p`` 1x1.
    """
    padding: dict[str, Any] = {"pads": [1] * 4} if weight == "w" else {}
    return node("Conv", f"{x} {weight}", y, **padding, **attributes)


def last(x: str) -> onnx.NodeProto:
    """The layer that gives the scores ``out``, so that those before it are not the last."""
    return node("Conv", f"{x} head", "out")


CONSTANTS = {
    "w": numbers(4, 4, 3, 3) / 6,
    "p": numbers(4, 4, 1, 1) / 2,
    "head": numbers(3, 4, 1, 1),
    "slope": numbers(4, 1, 1),
    "t": numbers(4, 4, 2, 2),
    "mat": numbers(12, 5),
    "twice": np.array([1, 1, 2, 2], np.float32),
    "pads": np.array([0, 0, 1, 0, 0, 0, 0, 1]),
    "half": np.float32(0.5),
    "axes": np.array([2, 3]),
}


def net(
    *nodes: onnx.NodeProto, outputs: str = "out", opset: int = 17, **constants: Any
) -> onnx.ModelProto:
    return fold(make(list(nodes), IMAGE, outputs, opset, **{**CONSTANTS, **constants}))


def observed(model: onnx.ModelProto, names: list[str], x: np.ndarray) -> dict[str, np.ndarray]:
    """What tensors of a net hold for an input."""
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    del seen.graph.output[:]
    made = [name for name in names if name != "x"]
    seen.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in made
    )
    return {"x": x, **dict(zip(made, run_ort(seen, x=x) if made else [], strict=True))}


def written(
    model: onnx.ModelProto, placement: Placement | None = None, largest_error: float = 0.05
) -> onnx.ModelProto:
    """The Q/DQ file of a placement, checked: valid, and it computes what the net does but for
    rounding.
    """
    placement, x = placement or place(model), numbers(1, 4, 8, 12)
    seen = observed(model, list(tensors_to_calibrate(placement)), x)
    quantized = write_qdq(
        model, placement, scales(placement, {k: float(np.abs(v).max()) for k, v in seen.items()})
    )
    onnx.checker.check_model(quantized, full_check=True)
    errors = []
    for got, want in zip(run_ort(quantized, x=x), run_ort(model, x=x), strict=True):
        assert got.shape == want.shape
        errors.append(float(np.sqrt(np.mean((got - want) ** 2)) / want.std()))
    assert max(errors) < largest_error
    assert any(errors) == bool(placement.layers)
    return quantized


def reads_int8(model: onnx.ModelProto, name: str, place_: int = 0) -> bool:
    source = maker(model, find(model, name).input[place_])
    return source is not None and source.op_type == "DequantizeLinear"


# -- layers ----------------------------------------------------------------------------------------


def test_nothing_between_a_convolution_its_normalisation_and_its_activation() -> None:
    ones = np.ones(4, np.float32)
    facts: dict[str, Any] = {"g": ones, "b": numbers(4), "mean": numbers(4, seed=1), "var": ones}
    model = net(
        conv("x", "y"),
        node("BatchNormalization", "y g b mean var", "n"),
        node("Relu", "n", "r"),
        conv("r", "z"),
        node("PRelu", "z slope", "a"),
        node("Sigmoid", "a", "s"),
        last("s"),
        **facts,
    )
    placement = place(model)
    assert placement.layers == ("y", "z")
    assert placement.tensors == ("x", "r")
    assert placement.floats == {"out": "gives the scores"}
    quantized = written(model)
    assert kinds(quantized)["QuantizeLinear"] == 2
    assert find(quantized, "n").op_type == "Conv"
    assert find(quantized, "r").input[0] == "n"
    assert describe(quantized) == (2, 3)


def test_asymmetric_convolutions_without_an_activation_between() -> None:
    """ENet's 5x1 and 1x5: the second reads what the first gives, so a pair stands between."""
    model = net(
        node("Conv", "x tall", "a", pads=[2, 0, 2, 0]),
        node("Conv", "a wide", "b", pads=[0, 2, 0, 2]),
        node("Relu", "b", "r"),
        last("r"),
        tall=numbers(4, 4, 5, 1),
        wide=numbers(4, 4, 1, 5),
    )
    assert place(model).tensors == ("x", "a")
    assert reads_int8(written(model), "b")


def test_matrix_products() -> None:
    model = net(
        conv("x", "y"),
        node("MatMul", "y mat", "rows"),
        node("Relu", "rows", "r"),
        node("Reshape", "r flat", "f"),
        node("Gemm", "f g1 c", "g", transB=1),
        node("Relu", "g", "gr"),
        node("Gemm", "gr g2", "g3"),
        node("Reshape", "g3 maps", "back"),
        last("back"),
        flat=np.array([-1, 20]),
        g1=numbers(6, 20),
        c=numbers(6),
        g2=numbers(6, 4),
        maps=np.array([1, 4, 2, 4]),
    )
    placement = place(model)
    assert placement.layers == ("y", "rows", "g", "g3")
    assert placement.moves == ("f",)
    assert placement.scale_of["f"] == placement.scale_of["r"] == "r"
    quantized = written(model)
    for name, channels, axis in (("rows", 5, 1), ("g", 6, 0), ("g3", 4, 1)):
        weights = find(quantized, find(quantized, name).input[1])
        assert values(quantized)[weights.input[1]].shape == (channels,)
        assert [a.i for a in weights.attribute if a.name == "axis"] == [axis]
    steps = values(quantized)[
        find(quantized, find(quantized, "g").input[1]).input[1]
    ]  # of the weights
    bias = values(quantized)[find(quantized, "g").input[2]]
    pair = maker(quantized, find(quantized, "g").input[0])
    assert pair is not None
    scale = values(quantized)[pair.input[1]]
    assert np.array_equal(bias % (steps * scale), np.zeros(6))
    assert np.all(np.abs(bias - numbers(6)) <= steps * scale / 2)


@pytest.mark.parametrize("kept", ["a", "b"])
def test_weights_two_layers_share_are_quantized_once_an_axis(kept: str) -> None:
    model = net(
        node("MatMul", "x s", "a"),
        node("MatMul", "a s", "b"),
        node("Reshape", "b flat", "f"),
        node("Gemm", "f s", "g", transB=1),
        node("Reshape", "g maps", "back"),
        last("back"),
        s=numbers(12, 12),
        flat=np.array([-1, 12]),
        maps=np.array([1, 4, 8, 12]),
    )
    quantized = written(model)
    assert len({find(quantized, name).input[1] for name in "abg"}) == 2
    assert "s" not in values(quantized)
    mixed = written(model, place(model, [kept]))
    assert find(mixed, kept).input[1] == "s"
    assert find(mixed, kept).input[0] in ("x", "a")


def test_what_stays_in_float_and_why() -> None:
    model = net(
        node("ConvTranspose", "x t", "up", strides=[2, 2]),
        conv("up", "y"),
        node("Neg", "p", "computed"),
        conv("y", "own", "computed"),
        node("MatMul", "own stack", "many"),
        node("MatMul", "many own", "square"),
        node("Conv", "steady p", "still"),
        node("Add", "square still", "sum"),
        last("sum"),
        stack=numbers(1, 4, 24, 16),
        steady=numbers(1, 4, 1, 1),
    )
    placement = place(model)
    assert placement.layers == ("y",)
    assert placement.floats == {
        "up": "transposed convolution",
        "own": "its weights are computed, not constant",
        "many": "a stack of matrices",
        "still": "works on a 1x1 map",
        "out": "gives the scores",
    }
    quantized = written(model)
    assert find(quantized, "up").input[0] == "x"
    assert describe(quantized) == (1, 7)


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_layers_of_other_float_types_stay(kind: type) -> None:
    to = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    model = net(
        node("Cast", "x", "h", to=to),
        node("Conv", "h w2", "y"),
        node("Cast", "y", "r", to=TensorProto.FLOAT),
        last("r"),
        w2=numbers(4, 4, 3, 3),
    )
    next(t for t in model.graph.initializer if t.name == "w2").CopyFrom(
        onnx.numpy_helper.from_array(numbers(4, 4, 3, 3).astype(kind), "w2")
    )
    assert place(model).floats["y"] == f"weights of type {np.dtype(kind)}"


def squeeze(*gate: onnx.NodeProto) -> list[onnx.NodeProto]:
    return [
        conv("x", "y"),
        node("Relu", "y", "r"),
        node("GlobalAveragePool", "r", "mean"),
        *gate,
        node("Sigmoid", "gate", "share"),
        node("Mul", "r share", "scaled"),
        conv("scaled", "z"),
        last("z"),
    ]


@pytest.mark.parametrize(
    "gate",
    [
        [conv("mean", "less", "p"), node("Relu", "less", "lr"), conv("lr", "gate", "p")],
        [
            node("Flatten", "mean", "flat"),
            node("Gemm", "flat g1 c", "less"),
            node("Relu", "less", "lr"),
            node("Gemm", "lr g1", "more"),
            node("Reshape", "more maps", "gate"),
        ],
        [
            node("Squeeze", "mean axes", "flat"),
            node("MatMul", "flat g1", "less"),
            node("Relu", "less", "lr"),
            node("MatMul", "lr g1", "more"),
            node("Unsqueeze", "more axes", "gate"),
        ],
    ],
    ids=["Conv", "Gemm", "MatMul"],
)
def test_squeeze_and_excitation_stays_in_float(gate: list[onnx.NodeProto]) -> None:
    model = net(*squeeze(*gate), g1=numbers(4, 4), c=numbers(4), maps=np.array([1, 4, 1, 1]))
    placement = place(model)
    assert placement.layers == ("y", "z")
    assert sorted(placement.floats.values()) == ["gives the scores", *["works on a 1x1 map"] * 2]
    assert placement.tensors == ("x", "scaled")
    written(model)


# -- the last layers -------------------------------------------------------------------------------


def test_the_last_layers_of_two_heads_stay_in_float() -> None:
    model = net(
        conv("x", "y"),
        node("Relu", "y", "r"),
        conv("r", "a"),
        node("Sigmoid", "a", "one"),
        conv("r", "b"),
        node("Relu", "b", "br"),
        conv("br", "c"),
        node("Resize", "c - twice", "two", mode="linear"),
        outputs="one two",
    )
    placement = place(model)
    assert placement.floats == {"a": "gives the scores", "c": "gives the scores"}
    assert placement.layers == ("y", "b")


def test_a_layer_whose_size_alone_is_asked_for_is_not_the_last() -> None:
    """PyTorch's ``interpolate(scores, features.shape[2:])``, and a position that only says where
    values go.
    """
    size = [
        node("Shape", "y", "s"),
        node("Slice", "s two four", "hw"),
        node("Concat", "front hw", "size", axis=0),
    ]
    model = net(
        conv("x", "y"),
        node("MaxPool", "y", "pooled i", kernel_shape=[2, 2], strides=[2, 2]),
        conv("pooled", "z"),
        *size,
        node("MaxUnpool", "z i size", "u", kernel_shape=[2, 2], strides=[2, 2]),
        node("Resize", "u - - size", "out", mode="linear"),
        two=np.array([2]),
        four=np.array([4]),
        front=np.array([1, 4]),
    )
    placement = place(model)
    assert placement.layers == ("y",)
    assert placement.floats == {"z": "gives the scores"}


def test_a_net_of_one_layer_has_nothing_to_quantize() -> None:
    model = net(last("x"))
    placement = place(model)
    assert not placement.layers
    assert not placement.tensors
    assert not is_quantized(written(model, placement))


# -- sums ------------------------------------------------------------------------------------------


def test_a_residual_sum_is_computed_in_the_convolution_before_it() -> None:
    """The other branch carries a pair; what the convolution gives does not."""
    model = net(
        conv("x", "y"),
        node("Relu", "y", "r"),
        conv("r", "a"),
        node("Relu", "a", "ar"),
        conv("ar", "b"),
        node("Add", "b r", "sum"),
        node("Relu", "sum", "s"),
        conv("s", "z"),
        last("z"),
    )
    placement = place(model)
    assert placement.sums == ("sum",)
    assert placement.tensors == ("x", "r", "ar", "s")
    quantized = written(model)
    assert not reads_int8(quantized, "sum", 0)
    assert reads_int8(quantized, "sum", 1)


def test_of_two_convolutions_one_carries_the_pair() -> None:
    model = net(
        conv("x", "a"),
        conv("x", "b", "p"),
        node("Add", "a b", "sum"),
        node("Relu", "sum", "s"),
        conv("s", "y"),
        last("y"),
    )
    assert place(model).tensors == ("x", "b", "s")


@pytest.mark.parametrize("reader", ["layer", "output", "itself"])
def test_a_branch_that_others_read_carries_a_pair(reader: str) -> None:
    extra = [conv("a", "z", "p")] if reader == "layer" else []
    inputs = "a a" if reader == "itself" else "a r"
    model = net(
        conv("x", "y"),
        node("Relu", "y", "r"),
        conv("r", "a"),
        *extra,
        node("Add", inputs, "sum"),
        conv("sum", "b"),
        last("b"),
        outputs={"layer": "out z", "output": "out a", "itself": "out"}[reader],
    )
    assert "a" in place(model).tensors


def test_a_branch_whose_size_is_asked_for_carries_none() -> None:
    """ENet asks the convolution beside an unpooling how large to unpool."""
    model = net(
        conv("x", "y"),
        node("MaxPool", "y", "pooled i", kernel_shape=[2, 2], strides=[2, 2]),
        conv("pooled", "z"),
        conv("y", "a"),
        node("Shape", "a", "s"),
        node("MaxUnpool", "z i s", "u", kernel_shape=[2, 2], strides=[2, 2]),
        node("Add", "u a", "sum"),
        conv("sum", "b"),
        last("b"),
    )
    assert place(model).tensors == ("x", "y", "pooled", "z", "u", "sum")
    assert find(written(model), "s").input[0] == "a"


def test_branches_that_are_no_convolutions_carry_pairs_both() -> None:
    model = net(
        conv("x", "y"),
        node("Relu", "y", "r"),
        conv("r", "a"),
        node("Relu", "a", "ar"),
        node("Add", "r ar", "sum"),
        conv("sum", "b"),
        last("b"),
    )
    assert place(model).tensors == ("x", "r", "ar", "sum")


def test_sums_of_sums_through_activations_and_moves() -> None:
    model = net(
        conv("x", "y"),
        node("Relu", "y", "r"),
        node("Add", "x r", "s1"),
        node("Clip", "s1 - half", "c"),
        node("Add", "c x", "s2"),
        node("MaxPool", "s2", "m2", kernel_shape=[2, 2]),
        conv("m2", "b"),
        last("b"),
    )
    assert place(model).sums == ("s1", "s2")
    assert place(model).moves == ("m2",)


def test_what_is_no_sum_of_feature_maps() -> None:
    """Adding a constant, a gate of 1x1, or a sum that only the scores come of."""
    model = net(
        conv("x", "y"),
        node("Sqrt", "y", "q"),
        node("Add", "q grid", "a"),
        node("GlobalAveragePool", "a", "g"),
        node("Add", "a g", "b"),
        conv("b", "z"),
        last("z"),
        node("Add", "z x", "late"),
        last("late"),
        grid=numbers(1, 4, 8, 12),
    )
    assert place(model).sums == ()


# -- moves -----------------------------------------------------------------------------------------


def test_a_concat_has_one_scale() -> None:
    model = net(
        conv("x", "y"),
        node("Relu", "y", "r"),
        conv("r", "z"),
        node("Concat", "r z x", "c", axis=1),
        node("Conv", "c w12", "d"),
        last("d"),
        w12=numbers(4, 12, 1, 1),
    )
    # The image, which the first layer reads too, joins by a branch of its own where it is folded.
    placement = place(model)
    assert placement.moves == ("c",)
    assert placement.tensors == ("x", "x/joined", "r", "z", "c")
    assert placement.scale_of == {
        "x": "x",
        **dict.fromkeys(("x/joined", "r", "z", "c"), "x/joined"),
    }
    assert placement.sources == {"x": ("x",), "x/joined": ("x/joined", "r", "z")}
    assert tensors_to_calibrate(placement) == ("x", "x/joined", "r", "z")
    seen = {"x": 1.27, "x/joined": 1.27, "r": 12.7, "z": 3.0}
    found = scales(placement, seen, exact=False)
    assert found.pop("x") == pytest.approx(0.01)
    assert found == dict.fromkeys(("x/joined", "r", "z", "c"), pytest.approx(0.1))
    assert scales(placement, seen) == {
        "x": 2**-6,
        **dict.fromkeys(("x/joined", "r", "z", "c"), 2**-3),
    }
    quantized = written(model)
    assert len({n.input[1] for n in quantized.graph.node if n.op_type == "QuantizeLinear"}) == 2


def test_pooling_with_positions_and_unpooling_keep_their_scales() -> None:
    model = net(
        conv("x", "y"),
        node("Relu", "y", "r"),
        node("MaxPool", "r", "pooled i", kernel_shape=[2, 2], strides=[2, 2]),
        conv("pooled", "z"),
        node("Shape", "r", "s"),
        node("MaxUnpool", "z i s", "u", kernel_shape=[2, 2], strides=[2, 2]),
        conv("u", "b"),
        last("b"),
    )
    placement = place(model)
    assert placement.moves == ("pooled", "u")
    assert placement.scale_of == {"x": "x", "r": "r", "pooled": "r", "z": "z", "u": "z"}
    quantized = written(
        model, largest_error=0.5
    )  # of two all but equal values, rounding may pool the other
    assert reads_int8(quantized, "pooled")
    assert reads_int8(quantized, "u")
    assert find(quantized, "u").input[1] == "i"  # positions stay as they are
    assert find(quantized, "s").input[0] == "r"


MOVING = {
    "nearest": [node("Resize", "r - twice", "m", mode="nearest")],
    "pad": [node("Pad", "r pads", "m")],
    "zero": [node("Pad", "r pads zero", "m")],
    "mirror": [node("Pad", "r pads", "m", mode="reflect")],
    "slice": [node("Slice", "r one five axes", "m")],
    "shuffle": [
        node("Reshape", "r five", "f"),
        node("Transpose", "f", "turned", perm=[0, 2, 1, 3, 4]),
        node("Reshape", "turned four", "m"),
    ],
    "blocks": [
        node("SpaceToDepth", "r", "f", blocksize=2),
        node("DepthToSpace", "f", "m", blocksize=2),
    ],
    "squeeze": [node("Squeeze", "r front", "f"), node("Unsqueeze", "f front", "m")],
    "tile": [node("Tile", "r tiles", "m")],
    "expand": [node("Expand", "r full", "m")],
}
SHAPES = {
    "one": np.array([1, 1]),
    "five": np.array([1, 2, 2, 8, 12]),
    "four": np.array([1, 4, 8, 12]),
    "front": np.array([0]),
    "tiles": np.array([1, 1, 2, 1]),
    "full": np.array([1, 4, 8, 12]),
    "zero": np.float32(0),
}


@pytest.mark.parametrize("name", MOVING)
def test_moves_run_on_the_scale_of_what_they_read(name: str) -> None:
    constants = {**SHAPES, "five": np.array([5, 5])} if name == "slice" else SHAPES
    model = net(
        conv("x", "y"),
        node("Relu", "y", "r"),
        *MOVING[name],
        conv("m", "z"),
        last("z"),
        **constants,
    )
    placement = place(model)
    assert placement.moves == tuple(n.output[0] for n in MOVING[name])
    assert {placement.scale_of[n.output[0]] for n in MOVING[name]} == {"r"}
    assert tensors_to_calibrate(placement) == ("x", "r")
    written(model)


@pytest.mark.parametrize(
    "resampling",
    [
        node("Resize", "r - twice", "m", mode="linear"),
        node("Resize", "r - twice", "m", mode="cubic"),
        node(
            "Resize",
            "r roi twice",
            "m",
            coordinate_transformation_mode="tf_crop_and_resize",
            extrapolation_value=7.0,
        ),
        node("Pad", "r pads half", "m"),
        node("AveragePool", "r", "m", kernel_shape=[2, 2]),
        node("Concat", "r grid", "m", axis=2),
    ],
    ids=["linear", "cubic", "crop", "pad", "average", "constant"],
)
def test_what_computes_or_adds_values_runs_in_float(resampling: onnx.NodeProto) -> None:
    model = net(
        conv("x", "y"),
        node("Relu", "y", "r"),
        resampling,
        conv("m", "z"),
        last("z"),
        roi=np.array([0, 0, 0, 0, 1, 1, 2, 2], np.float32),
        grid=numbers(1, 4, 1, 12),
    )
    placement = place(model)
    assert placement.moves == ()
    assert placement.tensors == ("x", "m")
    assert find(written(model), "m").input[0] == "r"


def test_a_move_in_front_of_float_layers_alone_reads_full_precision() -> None:
    model = net(
        conv("x", "y"),
        node("Relu", "y", "r"),
        conv("r", "z"),
        node("MaxPool", "r", "q", kernel_shape=[2, 2]),
        node("Resize", "q - - size", "big", mode="linear"),
        node("Mul", "z big", "m"),
        last("m"),
        size=np.array([1, 4, 8, 12]),
    )
    assert place(model).moves == ()
    assert find(written(model), "q").input[0] == "r"


@pytest.mark.parametrize("readers", ["both", "first", "second"])
def test_all_that_a_split_gives_has_one_scale(readers: str) -> None:
    """Channels divided, one part convolved or both, as in ShuffleNet."""
    parts = {"both": "a b", "first": "a b0", "second": "a0 b"}[readers]
    convolved = [node("Conv", f"{c}0 w2", c) for c in "ab" if c in parts.split()]
    model = net(
        conv("x", "y"),
        node("Relu", "y", "r"),
        node("Split", "r sizes", "a0 b0", axis=1),
        *convolved,
        node("Concat", parts, "c", axis=1),
        node("Relu", "c", "cr"),
        conv("cr", "z"),
        last("z"),
        sizes=np.array([2, 2]),
        w2=numbers(2, 2, 1, 1),
    )
    placement = place(model)
    assert placement.moves == ("a0",)  # the node's name
    assert {placement.scale_of[name] for name in ("r", "a0", "b0")} == {"r"}
    assert tensors_to_calibrate(placement) == ("x", "r", "cr")
    written(model)


def test_a_graph_output_stays_in_full_precision() -> None:
    model = net(node("Relu", "x", "r"), conv("r", "z"), last("z"), outputs="out r")
    assert place(model).tensors == ("r",)
    assert find(written(model), "r").op_type == "Relu"


# -- asking for float ------------------------------------------------------------------------------


def residual() -> onnx.ModelProto:
    return net(
        conv("x", "y"),
        node("Relu", "y", "r"),
        conv("r", "a"),
        node("Add", "a r", "sum"),
        conv("sum", "b"),
        last("b"),
    )


def test_layers_named_stay_in_float() -> None:
    model = residual()
    placement = place(model, ["a"], reasons={"a": "rounding noise"})
    assert placement.floats["a"] == "rounding noise"
    assert placement.layers == ("y", "b")
    quantized = written(model, placement)
    assert find(quantized, "a").input[:] == ["r", "w"]
    assert reads_int8(quantized, "sum", 0)  # no INT8 convolution to be computed in
    assert reads_int8(quantized, "sum", 1)


def test_a_sum_named_stays_in_float() -> None:
    model = residual()
    placement = place(model, ["sum"])
    assert placement.sums == ()
    assert placement.floats["sum"] == "kept in float on request"
    quantized = written(model, placement)
    assert find(quantized, "sum").input[:] == ["a", "r"]


def test_everything_named_gives_the_net_as_it_was() -> None:
    model = residual()
    placement = place(model, ["y", "a", "b", "sum", "out"])
    assert not placement.tensors
    quantized = written(model, placement)
    assert kinds(quantized) == kinds(model)


def test_unknown_names_are_refused_with_those_there_are() -> None:
    with pytest.raises(
        InputError, match=r"no such layer.*got nope, relu.*expected a, b, out, sum, y"
    ):
        place(residual(), ["relu", "y", "nope"])


# -- numbers ---------------------------------------------------------------------------------------


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(
    st.integers(0, 3),
    st.lists(st.sampled_from([1e-30, 1e-5, 0.3, 1.0, 1e4]), min_size=3, max_size=3),
)
def test_weights_round_to_the_nearest_of_255_steps_a_channel(axis: int, sizes: list[float]) -> None:
    weight = numbers(3, 3, 3, 3) * np.array(sizes, np.float32).reshape(
        [3 if i == axis else 1 for i in range(4)]
    )
    steps, scale = quantize_weight(weight, axis, exact=False)
    assert steps.dtype == np.int8
    assert steps.min() >= -127
    shape = [-1 if i == axis else 1 for i in range(4)]
    assert np.all(np.abs(steps * scale.reshape(shape) - weight) <= 0.501 * scale.reshape(shape))
    for channel in np.moveaxis(steps, axis, 0)[np.array(sizes, np.float32) > 1e-20]:
        assert np.abs(channel.astype(int)).max() == 127


@pytest.mark.parametrize("step", [2.0**-40, 0.1, 0.125, np.nextafter(0.125, 1), 1.0, 3.0, 1e20])
def test_a_power_of_two_is_the_next_that_holds_the_range(step: float) -> None:
    found = power_of_two(step)
    assert step <= found < 2 * step
    assert np.frexp(found)[0] == 0.5
    weight = np.float32(127 * step).reshape(1, 1)
    steps, scale = quantize_weight(weight, 0)
    assert np.frexp(scale[0])[0] == 0.5
    assert 63 <= steps[0, 0] <= 127
    assert abs(steps[0, 0] * scale[0] - weight[0, 0]) <= scale[0] / 2
    assert scale[0] == np.float32(power_of_two(float(np.float32(weight[0, 0] / np.float32(127)))))


def test_weights_of_zero_have_a_scale() -> None:
    weight = numbers(3, 2, 1, 1)
    weight[1] = 0
    steps, scale = quantize_weight(weight, 0)
    assert scale[1] == DEAD_SCALE
    assert not steps[1].any()


@pytest.mark.parametrize("shape", [(4,), (1, 4)])
def test_a_channel_without_weights_keeps_its_bias(shape: tuple[int, ...]) -> None:
    rows, bias = np.array([-1, 4]), np.array([0.3, -0.2, 0.4, 0.1], np.float32).reshape(shape)
    weight = numbers(4, 4)
    weight[:, 2] = 0
    model = net(
        conv("x", "y"),
        node("Reshape", "y flat", "f"),
        node("Gemm", "f g b", "z"),
        node("Reshape", "z maps", "back"),
        last("back"),
        g=weight,
        b=bias,
        flat=rows,
        maps=np.array([1, 4, 8, 12]),
    )
    quantized = written(model)
    found = values(quantized)[find(quantized, "z").input[2]]
    assert found.shape == shape
    assert np.abs(found.ravel()[2] - 0.4) < 1e-6
    assert 0 < np.abs(found - bias).max() < 0.01


def test_scales_are_a_channel_zero_points_are_written_and_biases_are_left() -> None:
    model = net(node("Conv", "x w c", "y"), node("Relu", "y", "r"), last("r"), c=numbers(4))
    quantized = written(model)
    constants = values(quantized)
    layer = find(quantized, "y")
    weights = find(quantized, layer.input[1])
    steps, scale, zero = (constants[name] for name in weights.input)
    assert [steps.dtype, scale.dtype, zero.dtype] == [np.int8, np.float32, np.int8]
    assert scale.shape == zero.shape == (4,)
    assert not zero.any()
    assert constants[layer.input[2]].dtype == np.float32
    for pair in (n for n in quantized.graph.node if n.op_type.endswith("zeLinear")):
        assert constants[pair.input[2]].dtype == np.int8
    assert "w" not in constants


@pytest.mark.parametrize(
    ("layer", "axis"),
    [
        (node("Conv", "x w", "y"), 0),
        (node("Gemm", "x w", "y", transB=1), 0),
        (node("Gemm", "x w", "y"), 1),
        (node("MatMul", "x w", "y"), 1),
    ],
    ids=["Conv", "transposed", "Gemm", "MatMul"],
)
def test_the_axis_of_output_channels(layer: onnx.NodeProto, axis: int) -> None:
    assert output_axis(layer) == axis


def test_the_noise_of_each_layer_is_what_rounding_does_to_it_alone() -> None:
    """Against the layers run by hand on rounded numbers."""
    model = residual()
    placement = place(model)
    x = numbers(1, 4, 8, 12)
    value = observed(model, ["y", "r", "a", "sum", "b"], x)
    steps = scales(
        placement,
        {name: float(np.abs(value[name]).max()) for name in tensors_to_calibrate(placement)},
    )
    noise = local_errors(model, placement, steps, [x, x])
    assert list(noise) == ["y", "a", "b", "sum"]

    def rounded(v: np.ndarray, step: Any) -> np.ndarray:
        return np.asarray(np.clip(np.rint(v / step), -128, 127) * step, np.float32)

    def ratio(found: np.ndarray, want: np.ndarray) -> float:
        return float(np.mean((found - want) ** 2) / np.mean(want**2))

    weight = rounded(CONSTANTS["w"], quantize_weight(CONSTANTS["w"], 0)[1].reshape(-1, 1, 1, 1))
    alone = make([conv("x", "y")], IMAGE, "y", w=weight)
    for layer, source in (("y", "x"), ("a", "r"), ("b", "sum")):
        found = run_ort(alone, x=rounded(value[source], np.float32(steps[source])))[0]
        assert noise[layer] == pytest.approx(ratio(found, value[layer]), rel=1e-3)
    found = value["a"] + rounded(value["r"], np.float32(steps["r"]))
    assert noise["sum"] == pytest.approx(ratio(found, value["sum"]), rel=1e-3)


# -- older files -----------------------------------------------------------------------------------


def test_files_with_scales_a_channel_are_left_as_they_are() -> None:
    model = make([conv("x", "out")], IMAGE, "out", opset=13, **CONSTANTS)
    assert raise_opset(model) is model


@pytest.mark.parametrize("opset", [9, 11, 12])
def test_older_files_are_raised_and_compute_the_same(opset: int) -> None:
    clip = node("Clip", "n", "c", min=0.0, max=6.0) if opset < 11 else node("Clip", "n lo hi", "c")
    pad = (
        node("Pad", "c", "q", pads=[0, 0, 1, 1, 0, 0, 1, 1])
        if opset < 11
        else node("Pad", "c pads", "q")
    )
    nodes = [
        conv("x", "y"),
        node("BatchNormalization", "y g b mean var", "n"),
        clip,
        pad,
        node("MaxPool", "q", "m", kernel_shape=[2, 2], strides=[2, 2]),
        node("Dropout", "m", "d"),
        node("Squeeze", "d", "f", axes=[0]),
        node("Unsqueeze", "f", "u", axes=[0]),
        last("u"),
    ]
    facts = {"g": numbers(4), "b": numbers(4), "mean": numbers(4), "var": np.ones(4, np.float32)}
    limits = {"lo": np.float32(0), "hi": np.float32(6)}
    model = make(
        nodes,
        IMAGE,
        "out",
        opset,
        **{**CONSTANTS, **facts, **limits, "pads": np.array([0, 0, 1, 1] * 2)},
    )
    model.metadata_props.add(key="edgeseg.spec", value="{}")
    raised = raise_opset(model)
    onnx.checker.check_model(raised, full_check=True)
    assert [o.version for o in raised.opset_import] == [OPSET]
    x = numbers(1, 4, 8, 12)
    np.testing.assert_allclose(
        run_ort(raised, x=x)[0], run_ort(model, x=x)[0], rtol=1e-5, atol=1e-6
    )
    folded = fold(raised)
    assert place(folded).layers == ("y",)
    quantized = written(folded)
    assert kinds(quantized)["QuantizeLinear"] == 1
    assert raised.metadata_props == model.metadata_props


def test_a_file_that_cannot_be_raised_is_refused() -> None:
    model = make([node("Relu", "x", "out")], IMAGE, "out", opset=11)
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(
        GraphError, match=r"opset cannot be raised to 17.*got opset 11.*Export the model again"
    ):
        raise_opset(model)


def test_what_is_quantized_already_is_known() -> None:
    model = residual()
    assert not is_quantized(model)
    assert is_quantized(written(model))
