"""Moving INT8 tensors is moving dequantized ones, to the bit.

Both files in ONNX Runtime, unoptimised.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lowered import dequantize_early, lower_unpooling, propagate_qdq
from onnx import TensorProto, helper
from onnx_tools import find, kinds, make, maker, node, run_ort

from edgeseg.graph.graph import Graph
from edgeseg.graph.ops import moves

QUICK = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
SCALES = {"s": np.float32(0.037), "s2": np.float32(0.051), "zero": np.int8(0)}
Step = Callable[[str, str], list[onnx.NodeProto]]


def pair(name: str, scale: str = "s", to: str | None = None) -> list[onnx.NodeProto]:
    """A Q and a DQ node behind ``name``.

    What they give is called ``name.q`` and ``name.d``, or ``to``.
    """
    to = to or name
    return [
        node("QuantizeLinear", f"{name} {scale} zero", f"{to}.q"),
        node("DequantizeLinear", f"{to}.q {scale} zero", f"{to}.d"),
    ]


def carried(model: onnx.ModelProto) -> onnx.ModelProto:
    """What OpenVINO gets. The steps are checked one by one: each leaves its argument as it is."""
    for step in (propagate_qdq, lower_unpooling, dequantize_early):
        before = model.SerializeToString(deterministic=True)
        after = step(model)
        assert model.SerializeToString(deterministic=True) == before
        model = after
    onnx.checker.check_model(model, full_check=True)
    return model


def quantizers_behind_moves(model: onnx.ModelProto) -> list[str]:
    graph = Graph(model)
    made = [
        (n, graph.producer.get(n.input[0]))
        for n in model.graph.node
        if n.op_type == "QuantizeLinear"
    ]
    return [n.name for n, source in made if source is not None and moves(source, graph.array)]


def assert_carried(model: onnx.ModelProto, **feed: np.ndarray) -> onnx.ModelProto:
    """To the bit the same, NaN nowhere, no rounding behind a move.

    Returns the file with moves carried.
    """
    onnx.checker.check_model(model)
    result = carried(model)
    for got, want in zip(run_ort(result, **feed), run_ort(model, **feed), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
    assert not quantizers_behind_moves(result)
    return result


# -- values ----------------------------------------------------------------------------------------

STEP = float(SCALES["s"])
NUMBERS = st.one_of(
    st.sampled_from(
        [
            0.0,
            -0.0,
            STEP,
            -STEP,
            STEP / 2,
            -STEP / 2,
            1.5 * STEP,
            127 * STEP,
            -127 * STEP,
            -128 * STEP,
        ]
    ),
    st.sampled_from([127.5 * STEP, -128.5 * STEP, 3.4e38, -3.4e38, 1e-40, -1e-40]),
    st.floats(-6, 6, width=32),
)


def filled(shape: list[int], numbers: list[float], seed: int) -> np.ndarray:
    """Any of a few numbers: many ties, and saturated ones among them.

    Few of them, or as many as there is room.
    """
    picks = np.random.default_rng(seed).integers(0, len(numbers), shape)
    return np.asarray(numbers, np.float32)[picks]


# -- chains of moves -------------------------------------------------------------------------------


class Chain:
    """A net of moves: each between a DQ and a Q of one scale.

    ``shape`` is that of the last tensor, four numbers.
    """

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        # Even sizes are common enough to pool, to shuffle and to unpool again; odd ones have a
        # rest.
        self.shape = [
            draw(st.integers(1, 2)),
            draw(st.sampled_from([1, 3, 4])),
            *(draw(st.integers(2, 9)) for _ in "hw"),
        ]
        self.input = list(self.shape)
        self.name = "x.d"
        self.nodes = pair("x")
        self.constants: dict[str, Any] = dict(SCALES)

    def constant(self, value: Any, kind: type = np.int64) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = np.asarray(value, kind)
        return name

    def add(
        self,
        kind: str,
        inputs: str,
        shape: list[int] | None = None,
        outputs: str = "",
        **attributes: Any,
    ) -> str:
        out = f"t{len(self.nodes)}"
        self.nodes += [node(kind, inputs, f"{out} {outputs}", **attributes), *pair(out)]
        self.name = f"{out}.d"
        self.shape = list(shape or self.shape)
        return out

    def model(self) -> onnx.ModelProto:
        return make(self.nodes, {"x": self.input}, self.name, opset=18, **self.constants)

    # Each of these appends one kind of move.

    def pool(self) -> None:
        kernel = [self.draw(st.integers(1, min(3, side))) for side in self.shape[2:]]
        strides = [self.draw(st.integers(1, 2)) for _ in kernel]
        pads = [self.draw(st.integers(0, k // 2)) for k in [*kernel, *kernel]]
        sides = zip(self.shape[2:], kernel, strides, pads, pads[2:], strict=False)
        size = [(side + low + high - k) // s + 1 for side, k, s, low, high in sides]
        geometry: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": pads}
        if not any(pads) and min(self.shape[2:]) > 4 and self.draw(st.booleans()):
            geometry["dilations"] = [2, 2]
            size = [
                (side - 2 * (k - 1) - 1) // s + 1
                for side, k, s in zip(self.shape[2:], kernel, strides, strict=True)
            ]
        self.add("MaxPool", self.name, [*self.shape[:2], *size], **geometry)

    def pool_and_unpool(self) -> None:
        if min(self.shape[2:]) < 2:
            return
        before, shape = self.name, list(self.shape)
        geometry: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
        if min(shape[2:]) > 2 and self.draw(
            st.booleans()
        ):  # overlapping, padded: no codes, positions
            geometry = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
        indices = f"i{len(self.nodes)}"
        self.add("MaxPool", before, [*shape[:2], 0, 0], outputs=indices, **geometry)
        self.add("MaxUnpool", f"{self.name} {indices} {self.constant(shape)}", shape, **geometry)

    def concat(self) -> None:
        axis = self.draw(st.integers(-3, 3))
        shape = [2 * side if place == axis % 4 else side for place, side in enumerate(self.shape)]
        self.add("Concat", f"{self.name} {self.name}", shape, axis=axis)

    def resize(self) -> None:
        size = [self.draw(st.integers(1, 9)) for _ in self.shape[2:]]
        how = self.draw(st.sampled_from(["asymmetric", "half_pixel", "align_corners"]))
        rounding = self.draw(st.sampled_from(["floor", "round_prefer_floor", "ceil"]))
        shape = [*self.shape[:2], *size]
        inputs = f"{self.name} - - {self.constant(shape)}"
        self.add(
            "Resize",
            inputs,
            shape,
            mode="nearest",
            coordinate_transformation_mode=how,
            nearest_mode=rounding,
        )

    def pad(self) -> None:
        mode = self.draw(st.sampled_from(["constant", "explicit", "edge", "reflect"]))
        most = [min(2, side - 1) if mode == "reflect" else 2 for side in self.shape]
        pads = [self.draw(st.integers(0, m)) for m in [*most, *most]]
        shape = [
            side + low + high for side, low, high in zip(self.shape, pads, pads[4:], strict=False)
        ]
        zero = (
            self.constant(self.draw(st.sampled_from([0.0, -0.0])), np.float32)
            if mode == "explicit"
            else ""
        )
        self.add(
            "Pad",
            f"{self.name} {self.constant(pads)} {zero}",
            shape,
            mode=mode.replace("explicit", "constant"),
        )

    def shuffle(self) -> None:
        """A reshape to five dimensions, a transposition and back.

        ShuffleNet's channel shuffle, of any axes.
        """
        n, c, h, w = self.shape
        self.add("Reshape", f"{self.name} {self.constant([n, c, h, w, 1])}")
        perm = self.draw(st.permutations(range(5)))
        shape = [[n, c, h, w, 1][axis] for axis in perm]
        self.add("Transpose", self.name, shape, perm=perm)
        self.add(
            "Reshape", f"{self.name} {self.constant([*shape[:2], shape[2], shape[3] * shape[4]])}"
        )
        self.shape = [*shape[:3], shape[3] * shape[4]]

    def slice(self) -> None:
        cuts = [
            (self.draw(st.integers(0, side - 1)), self.draw(st.sampled_from([1, 2, -1])))
            for side in self.shape
        ]
        shape = [
            len(range(side)[start::step])
            for side, (start, step) in zip(self.shape, cuts, strict=True)
        ]
        ends = [-(2**31) if step < 0 else 2**31 - 1 for _, step in cuts]
        vectors = [start for start, _ in cuts], ends, range(4), [step for _, step in cuts]
        self.add("Slice", " ".join([self.name, *(self.constant(list(v)) for v in vectors)]), shape)

    def blocks(self) -> None:
        n, c, h, w = self.shape
        if c % 4 == 0 and self.draw(st.booleans()):
            mode = self.draw(st.sampled_from(["DCR", "CRD"]))
            self.add("DepthToSpace", self.name, [n, c // 4, 2 * h, 2 * w], blocksize=2, mode=mode)
        elif h % 2 == w % 2 == 0:
            self.add("SpaceToDepth", self.name, [n, 4 * c, h // 2, w // 2], blocksize=2)

    def ranks(self) -> None:
        front = self.constant([0])
        self.add("Unsqueeze", f"{self.name} {front}")
        self.add("Squeeze", f"{self.name} {front}")
        self.add("Flatten", self.name, axis=2)
        self.add("Reshape", f"{self.name} {self.constant(self.shape)}")

    def copies(self) -> None:
        times = [self.draw(st.integers(1, 2)) for _ in self.shape]
        shape = [side * t for side, t in zip(self.shape, times, strict=True)]
        self.add("Tile", f"{self.name} {self.constant(times)}", shape)
        full = [self.draw(st.integers(1, 3)) if side == 1 else side for side in shape]
        self.add("Expand", f"{self.name} {self.constant(full)}", full)

    def split(self) -> None:
        rows = self.shape[2]
        if rows < 2:
            return
        first = self.draw(st.integers(1, rows - 1))
        second = f"u{len(self.nodes)}"
        upper = self.add(
            "Split", f"{self.name} {self.constant([first, rows - first])}", outputs=second, axis=2
        )
        self.nodes += pair(second)
        self.add("Concat", f"{second}.d {upper}.d", self.shape, axis=2)


STEPS = [
    name for name, value in vars(Chain).items() if callable(value) and not name.startswith("_")
]
STEPS = [name for name in STEPS if name not in ("constant", "add", "model")]


@st.composite
def chains(draw: st.DrawFn) -> tuple[onnx.ModelProto, np.ndarray]:
    chain = Chain(draw)
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=4)):
        if np.prod(chain.shape) < 2000:
            getattr(chain, step)()
    numbers = draw(st.lists(NUMBERS, min_size=1, max_size=8))
    return chain.model(), filled(chain.input, numbers, draw(st.integers(0, 2**32 - 1)))


@settings(QUICK, max_examples=150)
@given(chains())
def test_any_chain_of_moves(case: tuple[onnx.ModelProto, np.ndarray]) -> None:
    model, x = case
    result = assert_carried(model, x=x)
    assert kinds(result)["QuantizeLinear"] == 1
    assert kinds(result)["DequantizeLinear"] == 1


@pytest.mark.parametrize("step", STEPS)
def test_each_move(step: str) -> None:
    @QUICK
    @given(st.data())
    def check(data: st.DataObject) -> None:
        chain = Chain(cast(st.DrawFn, data.draw))
        getattr(chain, step)()
        numbers = data.draw(st.lists(NUMBERS, min_size=1, max_size=8))
        assert_carried(
            chain.model(), x=filled(chain.input, numbers, data.draw(st.integers(0, 2**32 - 1)))
        )

    check()


# -- pooling and unpooling, one of them in float ---------------------------------------------------


def pooled(size: list[int], pool_int8: bool, unpool_int8: bool, kernel: int = 2) -> onnx.ModelProto:
    """Pool ``x``, change the values, unpool them."""
    geometry: dict[str, Any] = {
        "kernel_shape": [kernel] * 2,
        "strides": [2, 2],
        "pads": [kernel // 3] * 4,
    }
    x, p, v = ("x.d", "p.d", "v") if pool_int8 else ("x", "p", "v")
    nodes = [
        *(pair("x") if pool_int8 else []),
        node("MaxPool", x, "p i", **geometry),
        *(pair("p") if pool_int8 else []),
        node("Mul", f"{p} minus", "v"),
        *(pair(v, "s2") if unpool_int8 else []),
        node("MaxUnpool", f"{'v.d' if unpool_int8 else 'v'} i size", "u", **geometry),
        *(pair("u", "s2") if unpool_int8 else []),
        node("Neg", "u.d" if unpool_int8 else "u", "out"),
    ]
    return make(
        nodes, {"x": size}, "out p", size=np.array(size), minus=np.float32(-1.375), **SCALES
    )


@QUICK
@given(
    st.lists(NUMBERS.filter(lambda v: abs(v) < 1e38), min_size=1, max_size=8),
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(3, 8), st.integers(3, 8)),
    st.booleans(),
    st.booleans(),
    st.sampled_from([2, 3]),
)
def test_pooling_and_unpooling_in_any_mixture(
    numbers: list[float],
    seed: int,
    size: tuple[int, ...],
    pool_int8: bool,
    unpool_int8: bool,
    kernel: int,
) -> None:
    x = filled(list(size), numbers, seed)
    result = assert_carried(pooled(list(size), pool_int8, unpool_int8, kernel), x=x)
    assert kinds(result)["QuantizeLinear"] == pool_int8 + unpool_int8
    graph = Graph(result)
    pool_type = {graph.dtype(n.input[0]) for n in result.graph.node if n.op_type == "MaxPool"}
    assert pool_type == {TensorProto.INT8 if pool_int8 else TensorProto.FLOAT}


# -- several readers, outputs, other scales --------------------------------------------------------


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 2, shape).astype(np.float32)


def pool(x: str = "x.d", out: str = "p", **attributes: Any) -> onnx.NodeProto:
    return node("MaxPool", x, out, kernel_shape=[2, 2], strides=[2, 2], **attributes)


def branching(
    *nodes: onnx.NodeProto, outputs: str = "out", opset: int = 17, **constants: Any
) -> onnx.ModelProto:
    return make(
        [*pair("x"), pool(), *pair("p"), *nodes],
        {"x": [1, 4, 6, 6]},
        outputs,
        opset,
        **SCALES,
        **constants,
    )


X = numbers(1, 4, 6, 6)


def test_full_precision_readers_of_a_carried_tensor_read_it_dequantized() -> None:
    model = branching(node("Neg", "p", "n"), node("Neg", "p.d", "m"), node("Add", "n m", "out"))
    result = assert_carried(model, x=X)
    assert find(result, "n").input[:] == find(result, "m").input[:] == ["p.d"]


def test_a_reader_of_the_shape_reads_the_bytes() -> None:
    model = branching(
        node("Shape", "p", "shape"),
        node("Reshape", "x shape2", "r"),
        node("Neg", "p.d", "out"),
        outputs="out shape r",
        shape2=np.array([4, 36]),
    )
    assert find(assert_carried(model, x=X), "shape").input[:] == ["p.q"]


@pytest.mark.parametrize("outputs", ["out p", "p out", "out p p.d"])
def test_a_carried_tensor_that_is_an_output(outputs: str) -> None:
    result = assert_carried(branching(node("Neg", "p.d", "out"), outputs=outputs), x=X)
    assert find(result, "p.q").op_type == "MaxPool"


def test_an_output_that_nothing_else_reads() -> None:
    """The pair is there, its DQ is not read: the tensor still comes out in float."""
    result = assert_carried(branching(node("Neg", "x", "out"), outputs="p out"), x=X)
    assert [o.name for o in result.graph.output] == ["p", "out"]


def test_two_pairs_behind_one_move_become_one() -> None:
    model = branching(*pair("p", to="again"), node("Add", "p.d again.d", "out"))
    assert kinds(assert_carried(model, x=X))["QuantizeLinear"] == 1


def test_a_pair_of_another_scale_behind_a_move_stays() -> None:
    model = make(
        [*pair("x"), pool(), *pair("p", "s2"), node("Neg", "p.d", "out")],
        {"x": [1, 4, 6, 6]},
        "out",
        **SCALES,
    )
    result = carried(model)
    np.testing.assert_array_equal(run_ort(result, x=X)[0], run_ort(model, x=X)[0])
    assert kinds(result) == kinds(model)
    assert find(result, "p").input[:] == ["x.d"]


def test_a_pair_of_another_scale_beside_one_of_the_same() -> None:
    model = branching(*pair("p", "s2", to="other"), node("Add", "p.d other.d", "out"))
    result = carried(model)
    np.testing.assert_array_equal(run_ort(result, x=X)[0], run_ort(model, x=X)[0])
    assert find(result, "other.q").input[:] == ["p.d", "s2", "zero"]
    assert kinds(result)["QuantizeLinear"] == 2


def test_bytes_read_back_with_another_scale() -> None:
    """DQ(Q(x, s), s2) multiplies, too: who reads the full tensor must not get that."""
    model = make(
        [
            *pair("x"),
            pool(),
            node("QuantizeLinear", "p s zero", "p.q"),
            node("DequantizeLinear", "p.q s2 zero", "p.d"),
            node("Add", "p p.d", "out"),
        ],
        {"x": [1, 4, 6, 6]},
        "out",
        **SCALES,
    )
    assert_carried(model, x=X)


@pytest.mark.parametrize("scales", [("s", "s2"), ("s2", "s")])
def test_a_concat_of_two_scales_stays(scales: tuple[str, str]) -> None:
    nodes = [
        *pair("x", scales[0]),
        node("Neg", "x", "n"),
        *pair("n", scales[1]),
        node("Concat", "x.d n.d", "c", axis=1),
        *pair("c"),
        node("Neg", "c.d", "out"),
    ]
    model = make(nodes, {"x": [1, 4, 6, 6]}, "out", **SCALES)
    result = carried(model)
    np.testing.assert_array_equal(run_ort(result, x=X)[0], run_ort(model, x=X)[0])
    assert kinds(result) == kinds(model)


def test_a_concat_with_a_float_tensor_stays() -> None:
    nodes = [
        *pair("x"),
        node("Concat", "x.d x", "c", axis=1),
        *pair("c"),
        node("Neg", "c.d", "out"),
    ]
    model = make(nodes, {"x": [1, 4, 6, 6]}, "out", **SCALES)
    assert kinds(carried(model)) == kinds(model)


@pytest.mark.parametrize(
    "move",
    [
        node("Resize", "x.d - twice", "m", mode="linear"),
        node("Resize", "x.d - twice", "m", mode="cubic"),
        node(
            "Resize",
            "x.d roi twice",
            "m",
            coordinate_transformation_mode="tf_crop_and_resize",
            extrapolation_value=2.0,
        ),
        node("Pad", "x.d pads one", "m"),
        node("AveragePool", "x.d", "m", kernel_shape=[2, 2]),
    ],
    ids=["linear", "cubic", "crop", "pad", "average"],
)
def test_what_is_no_move_stays_though_its_scales_are_one(move: onnx.NodeProto) -> None:
    """Other tools' Q/DQ files have such pairs."""
    constants = {
        "twice": np.array([1, 1, 2, 2], np.float32),
        "one": np.float32(1),
        "pads": np.array([0, 0, 1, 1] * 2),
        "roi": np.array([0, 0, 0, 0, 1, 1, 2, 2], np.float32),
    }
    nodes = [*pair("x"), move, *pair("m"), node("Neg", "m.d", "out")]
    model = make(nodes, {"x": [1, 4, 6, 6]}, "out", **SCALES, **constants)
    result = carried(model)
    assert kinds(result) == kinds(model)
    np.testing.assert_array_equal(run_ort(result, x=X)[0], run_ort(model, x=X)[0])


@pytest.mark.parametrize("other", ["uint8", "shifted", "channels", "implicit"])
def test_pairs_of_other_kinds_are_left_alone(other: str) -> None:
    constants: dict[str, Any] = dict(SCALES)
    if other == "channels":
        constants |= {"s": np.full(4, 0.037, np.float32), "zero": np.zeros(4, np.int8)}
    elif other != "implicit":
        constants["zero"] = np.uint8(0) if other == "uint8" else np.int8(3)
    nodes = [*pair("x"), pool(), *pair("p"), node("Neg", "p.d", "out")]
    if other == "implicit":
        for n in nodes:
            if n.op_type.endswith("Linear"):
                del n.input[2:]
    model = make(nodes, {"x": [1, 4, 6, 6]}, "out", **constants)
    result = carried(model)
    assert kinds(result) == kinds(model)
    np.testing.assert_array_equal(run_ort(result, x=X)[0], run_ort(model, x=X)[0])


def test_files_older_than_int8_moves_are_left_alone() -> None:
    model = branching(node("Neg", "p.d", "out"), opset=12)
    result = carried(model)
    assert kinds(result) == kinds(model)


def test_a_branch_that_reads_a_carried_tensor() -> None:
    value = helper.make_tensor_value_info("o", TensorProto.FLOAT, [1, 4, 3, 3])
    then = helper.make_graph([node("Identity", "p", "o")], "then", [], [value])
    other = helper.make_graph([node("Neg", "p.d", "o")], "else", [], [value])
    choice = helper.make_node("If", ["yes"], ["a"], "if", then_branch=then, else_branch=other)
    for yes in (True, False):
        model = branching(choice, node("Add", "a p.d", "out"), yes=np.asarray(yes))
        assert_carried(model, x=X)


def test_bytes_that_are_an_output_stay() -> None:
    model = branching(node("Neg", "p.d", "out"), outputs="out p.q")
    result = carried(model)
    for got, want in zip(run_ort(result, x=X), run_ort(model, x=X), strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_dequantizer_stays_behind_a_reshape_that_others_read() -> None:
    """Moving it in front would leave the other reader without its bytes."""
    nodes = [
        *pair("x"),
        node("Transpose", "x.d", "t", perm=[0, 2, 3, 1]),
        *pair("t"),
        node("Neg", "t.d", "n"),
        node("Transpose", "t.d", "back", perm=[0, 3, 1, 2]),
        *pair("back"),
        node("Neg", "back.d", "out"),
    ]
    model = make(nodes, {"x": [1, 4, 6, 6]}, "out n", **SCALES)
    result = assert_carried(model, x=X)
    source = maker(result, "t.q")
    assert source is not None
    assert source.op_type == "Transpose"
