"""Checkpoints: weights and spec in one file that is loaded without running any code from it."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeseg.errors import InputError
from edgeseg.files import write_bytes
from edgeseg.models.registry import create
from edgeseg.models.weight_file import read_weights, state_digest
from edgeseg.spec import ModelSpec

_FORMAT = "edgeseg-checkpoint-2"
_FORMAT_1 = "edgeseg-checkpoint-1"  # has no digest


def save_checkpoint(
    path: Path,
    net: nn.Module,
    spec: ModelSpec,
    notes: dict[str, Any],
    *,
    half: bool = False,
) -> Path:
    """Write weights, spec and notes atomically.

    Parameters
    ----------
    path : the file to write.
    net : the model.
    spec : its contract.
    notes : plain values, such as the recipe and the scores.
    half : store matrices and kernels in FP16, for a smaller file to ship. Statistics, gains and
        biases keep their precision.

    Returns
    -------
    ``path``.

    Raises
    ------
    OutputError : the file cannot be written.
    """
    state = {name: value.detach().cpu() for name, value in net.state_dict().items()}
    if half:
        state = {name: value.half() if value.ndim > 1 else value for name, value in state.items()}

    # torch writes to memory, not to the file: its writer does not report why a file cannot be
    # written.
    text = spec.to_json()
    values = {
        "format": _FORMAT,
        "spec": text,
        "state": state,
        "notes": notes,
        "sha256": state_digest(state, text),
    }
    content = io.BytesIO()
    torch.save(values, content)
    return write_bytes(path, content.getbuffer())


def load_checkpoint(path: str | Path) -> tuple[nn.Module, ModelSpec, dict[str, Any]]:
    """Load a model, its spec and its notes.

    Parameters
    ----------
    path : a file that ``save_checkpoint`` wrote.

    Returns
    -------
    The model in evaluation mode on the CPU, its spec, and the notes.

    Raises
    ------
    InputError : the file is missing or is not a checkpoint, or its weights do not fit its spec.
    """
    # Read the file.
    path = Path(path)
    if not path.is_file():
        raise InputError(
            "no such checkpoint", got=repr(str(path)), hint="Train one: `train(RECIPE)`."
        )
    try:
        content = read_weights(path)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{path}: not a checkpoint", got=f"{type(error).__name__}", expected="a best.pt file"
        ) from error
    if not isinstance(content, dict) or content.get("format") not in (_FORMAT, _FORMAT_1):
        raise InputError(
            f"{path}: not an edgeseg checkpoint",
            expected=_FORMAT,
            hint="runs/NAME/best.pt is one; last.ckpt is not.",
        )

    _check_content(content, path)

    # Build the model that the spec describes, and give it the weights.
    spec = ModelSpec.parse(content["spec"], str(path))
    net = create(spec.architecture, len(spec.labels), **spec.arguments)
    try:
        net.load_state_dict(content["state"])
    except RuntimeError as error:
        problem = str(error).splitlines()[-1].strip()
        raise InputError(f"{path}: its weights do not fit its spec", got=problem) from error
    return net.eval(), spec, content["notes"]


def _check_content(content: dict[str, Any], path: Path) -> None:
    """Raise ``InputError`` unless all parts are there, whole, and the weights are numbers."""
    kinds = {"spec": str, "state": dict, "notes": dict}
    wrong = [key for key, kind in kinds.items() if not isinstance(content.get(key), kind)]
    if wrong:
        raise InputError(
            f"{path}: the checkpoint is damaged", got=f"no {wrong[0]}", expected=", ".join(kinds)
        )

    state = content["state"]
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(
                f"{path}: the checkpoint is damaged", got=f"{name!r}, which is no tensor"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InputError(
                f"{path}: tensor {name!r} has weights that are not numbers",
                got="NaN or infinite values",
                hint="The training failed: take an earlier checkpoint.",
            )

    has_digest = content["format"] == _FORMAT
    if has_digest and content.get("sha256") != state_digest(state, content["spec"]):
        raise InputError(
            f"{path}: its weights or its spec have changed since it was written",
            hint="Copy it again, or take an earlier checkpoint.",
        )


def average_checkpoints(paths: Sequence[str | Path]) -> tuple[nn.Module, ModelSpec]:
    """Return a model whose weights are the mean of several checkpoints.

    The checkpoints come from one run, or from runs that started from one checkpoint: Wortsman et
    al. 2022, "Model soups".

    Parameters
    ----------
    paths : the checkpoints.

    Returns
    -------
    The model in evaluation mode on the CPU, and the spec that the checkpoints share.

    Raises
    ------
    InputError : there are no checkpoints, or they hold different models.
    """
    loaded = [load_checkpoint(path) for path in paths]
    if not loaded:
        raise InputError("no checkpoints to average", expected="at least one")
    net, spec, _ = loaded[0]
    states = [other.state_dict() for other, _, _ in loaded]

    # Check that all are the same model.
    expected_shapes = _shapes(states[0])
    for path, (_, other_spec, _), state in zip(paths, loaded, states, strict=True):
        if other_spec != spec or _shapes(state) != expected_shapes:
            raise InputError(
                f"{path}: not the same net as {paths[0]}", hint="Average checkpoints of one recipe."
            )

    # Average floating-point tensors; keep counters as they are.
    mean: dict[str, Tensor] = {}
    for key, value in states[0].items():
        if value.is_floating_point():
            stacked = torch.stack([state[key] for state in states])
            mean[key] = stacked.mean(0)
        else:
            mean[key] = value
    net.load_state_dict(mean)
    return net, spec


def _shapes(state: dict[str, Tensor]) -> list[tuple[str, torch.Size]]:
    """Return the name and the shape of every tensor, in order."""
    return [(name, value.shape) for name, value in state.items()]
