"""Three ways to the same labels.

``deploy(compare=True)``, ``compare=False`` and NumPy's argmax, ties included.

Pixels and weights are small whole numbers, so that scores are exact in any order of summation and
often tie.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from lowered import deploy
from onnx_tools import kinds, make, node, run_openvino, run_ort

from edgeseg.graph.network import Network
from edgeseg.spec import ModelSpec, generic_space

SIZE = (8, 16)
CLASSES = (1, 2, 11, 101)


def whole(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).integers(-1, 2, shape).astype(np.float32)


def network(
    last: list[onnx.NodeProto],
    classes: int,
    reduced: int = 1,
    form: str = "nchw",
    bias: bool = True,
    opset: int = 17,
    outputs: str = "scores",
) -> Network:
    """An image to four maps of ``1 / reduced`` its size, then ``last`` to ``scores``."""
    constants = {
        "stem": whole(4, 3, reduced, reduced),
        "conv": whole(classes, 4, 1, 1, seed=1),
        "wide": whole(classes, 4, 3, 3),
        "up2": whole(4, classes, 2, 2),
        "up3": whole(4, classes, 3, 3),
        "up4": whole(4, classes, 4, 4),
        "grouped": whole(4, 1, 2, 2),
        "bias": whole(classes, seed=1),
    }
    if not bias:
        for n in last:
            if "bias" in n.input:
                n.input.remove("bias")
    stem = [node("Conv", "image stem", "sums", strides=[reduced] * 2), node("Sign", "sums", "maps")]
    model = make([*stem, *last], {"image": [1, 3, *SIZE]}, outputs, opset, **constants)
    spec = ModelSpec(
        architecture="test",
        input_size=SIZE,
        scale=1.0,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        labels=generic_space(classes),
    )
    return Network("test", model, spec, "", (), "image", "scores", form, False)


def assert_same_labels(net: Network, shuffled: bool = False) -> onnx.ModelProto:
    """The labels of both forms, in two runtimes, are NumPy's.

    Returns the form that compares planes.
    """
    frame = np.random.default_rng(0).integers(0, 3, (1, *SIZE, 3), np.uint8)
    scores = run_ort(deploy(net, scores=True), frame=frame)[0]
    plain = run_ort(net.model, **{net.input: np.float32(frame[..., ::-1].transpose(0, 3, 1, 2))})[0]
    if net.form == "nhwc":
        plain = plain.transpose(0, 3, 1, 2)
    if plain.shape[2:] == SIZE:
        np.testing.assert_array_equal(scores, plain.transpose(0, 2, 3, 1))
    want = scores.argmax(3)
    classes = scores.shape[3]
    if classes > 1:
        ties = (scores == scores.max(3, keepdims=True)).sum(3) > 1
        assert ties.mean() > 0.02
        assert len(np.unique(want)) > 1
    search, compare = deploy(net), deploy(net, compare=True)
    for model in (search, compare):
        onnx.checker.check_model(model, full_check=True)
        for labels in (run_ort(model, frame=frame)[0], run_openvino(model, frame=frame)[0]):
            assert labels.dtype == np.uint8
            np.testing.assert_array_equal(labels, want)
    assert kinds(search)["ArgMax"] == 1
    assert kinds(compare)["ArgMax"] == 0
    assert kinds(compare)["DepthToSpace"] == shuffled
    return compare


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("weights", ["conv", "wide"])
def test_a_convolution_gives_the_scores(weights: str, classes: int) -> None:
    last = node("Conv", f"maps {weights} bias", "scores", pads=[int(weights == "wide")] * 4)
    assert_same_labels(network([last], classes))


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize(("side", "bias"), [(2, True), (4, True), (2, False)])
def test_a_transposed_convolution_that_tiles_is_compared_before_the_shuffle(
    side: int, bias: bool, classes: int
) -> None:
    last = node("ConvTranspose", f"maps up{side} bias", "scores", strides=[side] * 2)
    compare = assert_same_labels(network([last], classes, side, bias=bias), shuffled=True)
    assert kinds(compare)["ConvTranspose"] == 0


OTHER_LAYERS: dict[str, dict[str, Any]] = {
    "overlapping": {"weights": "up3", "strides": [2, 2], "pads": [1, 1, 0, 0]},
    "wider": {"weights": "up4", "strides": [2, 2], "pads": [1, 1, 1, 1]},
    "gaps": {"weights": "up2", "strides": [2, 2], "dilations": [2, 2], "pads": [1, 1, 0, 0]},
    "padded": {"weights": "up2", "strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    "stated": {"weights": "up2", "strides": [2, 2], "output_shape": [8, 16]},
    "same": {"weights": "up2", "strides": [2, 2], "auto_pad": "SAME_UPPER"},
}


@pytest.mark.parametrize("layer", OTHER_LAYERS)
def test_other_transposed_convolutions_are_not_taken(layer: str) -> None:
    attributes = dict(OTHER_LAYERS[layer])
    last = node("ConvTranspose", f"maps {attributes.pop('weights')} bias", "scores", **attributes)
    net = network([last], 5, 2)
    if [d.dim_value for d in net.model.graph.output[0].type.tensor_type.shape.dim[2:]] != list(
        SIZE
    ):
        net.model.graph.output[0].CopyFrom(
            onnx.helper.make_tensor_value_info("scores", 1, [1, 5, None, None])
        )
    compare = assert_same_labels(net)
    assert kinds(compare)["ConvTranspose"] == 1


def test_a_grouped_transposed_convolution_is_not_taken() -> None:
    last = node("ConvTranspose", "maps grouped", "scores", strides=[2, 2], group=4)
    assert kinds(assert_same_labels(network([last], 4, 2)))["ConvTranspose"] == 1


def test_computed_weights_are_not_taken() -> None:
    last = [node("Neg", "up2", "w"), node("ConvTranspose", "maps w", "scores", strides=[2, 2])]
    assert kinds(assert_same_labels(network(last, 5, 2)))["ConvTranspose"] == 1


@pytest.mark.parametrize("name", ["frame", "labels", "scores"])
def test_a_net_may_use_our_names(name: str) -> None:
    """For its input, a tensor inside, or its output."""
    net = network([node("Conv", "maps conv bias", "labels"), node("Relu", "labels", "scores")], 5)
    if name == "frame":
        net.model.graph.input[0].name = net.model.graph.node[0].input[0] = "frame"
        net = replace(net, input="frame")
    assert_same_labels(net)


def test_scores_that_somebody_else_reads_are_not_taken() -> None:
    last = [
        node("ConvTranspose", "maps up2 bias", "scores", strides=[2, 2]),
        node("Softmax", "scores", "shares", axis=1),
    ]
    net = network(last, 5, 2, outputs="scores shares")
    compare = deploy(net, compare=True)
    onnx.checker.check_model(compare, full_check=True)
    frame = np.random.default_rng(0).integers(0, 3, (1, *SIZE, 3), np.uint8)
    np.testing.assert_array_equal(
        run_ort(compare, frame=frame)[0], run_ort(deploy(net), frame=frame)[0]
    )
    assert kinds(compare)["ConvTranspose"] == 1


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("form", ["nchw", "nhwc"])
def test_smaller_scores_are_interpolated_first(form: str, classes: int) -> None:
    name = "scores" if form == "nchw" else "planes"
    last = [node("Conv", "maps conv bias", name)]
    if form == "nhwc":
        last.append(node("Transpose", "planes", "scores", perm=[0, 2, 3, 1]))
    assert kinds(assert_same_labels(network(last, classes, 2, form)))["Resize"] == 1


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("tiling", [True, False])
def test_scores_with_channels_last(tiling: bool, classes: int) -> None:
    layer = (
        node("ConvTranspose", "maps up2 bias", "planes", strides=[2, 2])
        if tiling
        else node("Conv", "maps conv", "planes")
    )
    last = [layer, node("Transpose", "planes", "scores", perm=[0, 2, 3, 1])]
    assert_same_labels(network(last, classes, 2 if tiling else 1, "nhwc"))


@pytest.mark.parametrize("opset", [11, 12, 13, 21])
def test_opsets(opset: int) -> None:
    last = node("ConvTranspose", "maps up2 bias", "scores", strides=[2, 2])
    assert_same_labels(network([last], 5, 2, opset=opset), shuffled=True)


@pytest.mark.parametrize("compare", [True, False])
def test_scores_without_end_have_a_label(compare: bool) -> None:
    """An overflow is no reason for a label out of range."""
    last = [node("Conv", "maps conv", "c"), node("Exp", "c", "e"), node("Exp", "e", "scores")]
    for classes in (1, 3):
        net = network(last, classes)
        frame = np.full((1, *SIZE, 3), 200, np.uint8)
        for run in (run_ort, run_openvino):
            assert run(deploy(net, compare=compare), frame=frame)[0].max() < classes
