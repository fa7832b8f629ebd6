"""A checkpoint: weights and spec in one file, loadable without running any code from it."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgeseg.artifact import write_bytes
from edgeseg.errors import InputError
from edgeseg.models import create
from edgeseg.spec import ModelSpec

_FORMAT = "edgeseg-checkpoint-1"


def save_checkpoint(path: Path, net: nn.Module, spec: ModelSpec, notes: dict[str, Any], *, half: bool = False) -> Path:
    """Write weights, spec and ``notes`` (plain values: recipe, scores) atomically.

    ``half`` stores matrices and kernels in FP16, to ship; statistics, gains and biases stay as they are.
    """
    state = {name: value.detach().cpu() for name, value in net.state_dict().items()}
    if half:
        state = {name: value.half() if value.ndim > 1 else value for name, value in state.items()}
    content = io.BytesIO()  # not the file itself: torch's writer does not say what kept it from writing
    torch.save({"format": _FORMAT, "spec": spec.to_json(), "state": state, "notes": notes}, content)
    return write_bytes(path, content.getbuffer())


def load_checkpoint(path: str | Path) -> tuple[nn.Module, ModelSpec, dict[str, Any]]:
    """The net in evaluation mode on the CPU, its spec and notes. Raises ``InputError``."""
    path = Path(path)
    if not path.is_file():
        raise InputError("no such checkpoint", got=repr(str(path)), hint="Train one: edgeseg train RECIPE.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{path}: not a checkpoint", got=f"{type(error).__name__}", expected="a best.pt file"
        ) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise InputError(
            f"{path}: not an edgeseg checkpoint", expected=_FORMAT, hint="runs/NAME/best.pt is one; last.ckpt is not."
        )
    spec = ModelSpec.parse(content["spec"], str(path))
    net = create(spec.architecture, len(spec.labels), **spec.arguments)
    try:
        net.load_state_dict(content["state"])
    except RuntimeError as error:
        raise InputError(f"{path}: its weights do not fit its spec", got=str(error).splitlines()[-1].strip()) from error
    return net.eval(), spec, content["notes"]


def average_checkpoints(paths: Sequence[str | Path]) -> tuple[nn.Module, ModelSpec]:
    """The net whose weights are the mean of several checkpoints of one run or of runs that started from one.

    Wortsman et al. 2022, "Model soups". Raises ``InputError`` where the nets are not the same.
    """
    loaded = [load_checkpoint(path) for path in paths]
    if not loaded:
        raise InputError("no checkpoints to average", expected="at least one")
    net, spec, _ = loaded[0]
    states = [other.state_dict() for other, _, _ in loaded]
    for path, (_, theirs, _), state in zip(paths, loaded, states, strict=True):
        if theirs != spec or [(k, v.shape) for k, v in state.items()] != [(k, v.shape) for k, v in states[0].items()]:
            raise InputError(f"{path}: not the same net as {paths[0]}", hint="Average checkpoints of one recipe.")
    mean = {
        key: torch.stack([state[key] for state in states]).mean(0) if value.is_floating_point() else value
        for key, value in states[0].items()
    }
    net.load_state_dict(mean)
    return net, spec
