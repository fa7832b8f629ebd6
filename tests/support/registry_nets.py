"""The nets of the registry as ONNX files, each exported once a run: an export takes ten seconds."""

import warnings
from pathlib import Path

import torch
from once import made_once

from edgeseg.export.onnx_from_torch import export_module
from edgeseg.models import REGISTRY, create
from edgeseg.spec import CAMVID_11, ModelSpec

ODD = (75, 61)


def odd_size(name: str) -> tuple[int, int]:
    """Return the size nearest above ``ODD`` that a net takes."""
    stride = REGISTRY[name].stride
    height, width = (-(-side // stride) * stride for side in ODD)
    return height, width


def odd_onnx(name: str) -> Path:
    """Return a net of the registry as an ONNX file of an odd size, with the weights of seed 0."""
    return made_once(f"odd/{name}.onnx", lambda path: _export(name, path))


def _export(name: str, path: Path) -> None:
    torch.manual_seed(0)
    net = create(name, 11)
    spec = ModelSpec(
        architecture=name,
        input_size=odd_size(name),
        stride=REGISTRY[name].stride,
        labels=CAMVID_11,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_module(net.eval(), spec, path)
