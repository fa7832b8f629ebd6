"""A small net with the classes of CamVid and its spec inside, made without torch."""

from pathlib import Path

import numpy as np
import onnx
from onnx_tools import make, node

from edgeseg.spec import CAMVID_11, ModelSpec

SIZE = (64, 96)  # height and width


def save_small_net(path: Path) -> Path:
    """Write a net of two layers with random weights."""
    rng = np.random.default_rng(0)
    nodes = [
        node("Conv", "image first", "x", pads=[1, 1, 1, 1]),
        node("Relu", "x", "y"),
        node("Conv", "y last", "out"),
    ]
    first = rng.normal(size=(8, 3, 3, 3)).astype(np.float32)
    last = rng.normal(size=(11, 8, 1, 1)).astype(np.float32)
    model = make(nodes, {"image": [1, 3, *SIZE]}, "out", first=first, last=last)

    spec = ModelSpec(architecture="small", input_size=SIZE, labels=CAMVID_11)
    onnx.helper.set_model_props(model, {"edgeseg.spec": spec.to_json()})
    onnx.save(model, path)
    return path
