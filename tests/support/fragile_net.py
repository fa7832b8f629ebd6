"""A net that plain INT8 breaks in one layer, with data to see what that costs."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

# What fragile_onnx was made for: labels, and its size
FRAGILE_DRIVE = "synthetic://?length=30&size=64x48&seed=3"
_FRAGILE_LAYERS = {
    "stem": (3, 12, 3),
    "fragile": (12, 12, 3),
    "body": (12, 12, 3),
    "tail": (12, 12, 3),
}


def save_fragile_net(path: Path) -> Path:
    """A net at 48x64 that plain INT8 breaks in one layer, ``fragile``: its input has a channel 100
    times the others.

    That channel alone decides the step, and the eleven that the layer reads fall into a step or
    two. Five layers: stem, fragile, body, tail and scores (which stays in float), and ``sum`` of
    what the second and third give. The last is solved for on the synthetic drive, so that there is
    mIoU to lose. On ``FRAGILE_DRIVE``, plain INT8 changes 20 % of the labels and costs 6 of 15
    points; with ``fragile`` in float 1 % and nothing.
    """
    rng = np.random.default_rng(0)
    weights: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, (channels, out, side) in _FRAGILE_LAYERS.items():
        scale = np.sqrt(2 / (channels * side * side))
        weights[name] = (
            scale * rng.standard_normal((out, channels, side, side)),
            0.1 * rng.standard_normal(out),
        )
    weights["stem"][0][0] = 100 * np.abs(weights["stem"][0][1])
    weights["stem"][1][0] = 100
    weights["fragile"][0][:, 0] = 0
    weights["scores"] = (np.zeros((11, 12, 1, 1)), np.zeros(11))
    weights["scores"] = _solved(_fragile_model(weights, "tail_relu"))
    onnx.save(_fragile_model(weights, "logits"), path)
    return path


def _fragile_model(
    weights: dict[str, tuple[np.ndarray, np.ndarray]], output: str
) -> onnx.ModelProto:
    from edgeseg.spec import CAMVID_11, METADATA_KEY, ModelSpec

    def layer(name: str, x: str, out: str) -> onnx.NodeProto:
        side = weights[name][0].shape[-1]
        sizes: dict[str, Any] = {"kernel_shape": [side] * 2, "pads": [side // 2] * 4}
        return helper.make_node("Conv", [x, f"{name}.weight", f"{name}.bias"], [out], name, **sizes)

    nodes = []
    for name, x in (
        ("stem", "image"),
        ("fragile", "stem_relu"),
        ("body", "fragile_relu"),
        ("tail", "added"),
    ):
        nodes += [
            layer(name, x, f"{name}_out"),
            helper.make_node("Relu", [f"{name}_out"], [f"{name}_relu"]),
        ]
    nodes.insert(6, helper.make_node("Add", ["fragile_relu", "body_relu"], ["added"], "sum"))
    nodes.append(layer("scores", "tail_relu", "logits"))
    tensors: list[onnx.TensorProto] = []
    for name, (weight, bias) in weights.items():
        tensors.append(numpy_helper.from_array(weight.astype(np.float32), f"{name}.weight"))
        tensors.append(numpy_helper.from_array(bias.astype(np.float32), f"{name}.bias"))
    shape = [1, weights["scores" if output == "logits" else "tail"][0].shape[0], 48, 64]
    ends = [
        helper.make_tensor_value_info(n, 1, s)
        for n, s in (("image", [1, 3, 48, 64]), (output, shape))
    ]
    graph = helper.make_graph(nodes, "fragile", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    spec = ModelSpec(architecture="fragile", input_size=(48, 64), labels=CAMVID_11)
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    return model


def _solved(trunk: onnx.ModelProto) -> tuple[np.ndarray, np.ndarray]:
    """Weights (11, C, 1, 1) and bias (11,) of the last layer: least squares from the trunk's output
    to the classes.
    """
    import onnxruntime

    from edgeseg.data import open_dataset
    from edgeseg.imaging.preprocess import to_input
    from edgeseg.spec import METADATA_KEY, ModelSpec

    spec = ModelSpec.parse(
        next(p.value for p in trunk.metadata_props if p.key == METADATA_KEY), "fragile"
    )
    session = onnxruntime.InferenceSession(
        trunk.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    data = open_dataset(FRAGILE_DRIVE, "train")
    features, truth = [], []
    for index in range(0, len(data), 5):
        maps = session.run(None, {"image": to_input(data[index].image, spec)})[0][0]
        features.append(maps.reshape(len(maps), -1).T.astype(np.float64))
        truth.append(data[index].mask.ravel())
    x, y = np.concatenate(features), np.concatenate(truth)
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)[y < 11]
    solution = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ np.eye(11)[y[y < 11]])
    return solution[:-1].T[:, :, None, None], solution[-1]
