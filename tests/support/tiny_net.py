"""The smallest segmentation net: one convolution, made without torch."""

from pathlib import Path

import numpy as np
from onnx_tools import make, node


def tiny_net(folder: Path) -> Path:
    """Write a net of four classes at 16x24 to ``folder/tiny.onnx``."""
    weights = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    conv = node("Conv", "x w", "y", pads=[1, 1, 1, 1])
    path = folder / "tiny.onnx"
    path.write_bytes(make([conv], {"x": [1, 3, 16, 24]}, "y", w=weights).SerializeToString())
    return path
