"""Counts that tests of models compare with published ones."""

from typing import Any

import torch

from edgeseg.models import create


def parameters(name: str, classes: int, **arguments: Any) -> int:
    """Return the number of parameters of a model, counted without memory for them."""
    with torch.device("meta"):
        model = create(name, classes, **arguments)
    return sum(parameter.numel() for parameter in model.parameters())
