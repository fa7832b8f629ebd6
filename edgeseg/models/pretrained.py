"""VGG16's ImageNet convolutions as an encoder's starting point."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeseg.errors import InputError, MissingDependencyError


def vgg16_convolutions(source: str | Path) -> list[tuple[Tensor, Tensor]]:
    """(weight, bias) of VGG16's thirteen convolutions, in order.

    ``source`` is ``"torchvision"`` (its hub, cached by torch) or a file with a state dict of torchvision's ``vgg16``:
    keys ``features.N.weight`` and ``features.N.bias``. Both expect RGB / 255 less ImageNet's mean, over its std.
    """
    state = _from_hub() if str(source) == "torchvision" else _from_file(Path(source))
    numbers = sorted({int(k.split(".")[1]) for k, v in state.items() if k.startswith("features.") and v.ndim == 4})
    if len(numbers) != 13:
        raise InputError(
            f"{source}: not VGG16's convolutions",
            got=f"{len(numbers)} of them",
            expected="13, as features.N.weight in torchvision's vgg16",
        )
    return [(state[f"features.{n}.weight"], state[f"features.{n}.bias"]) for n in numbers]


def _from_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError("no such VGG16 weight file", got=repr(str(path)), hint='Give a file, or "torchvision".')
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path}: not a PyTorch state dict", got=type(error).__name__) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path}: not a PyTorch state dict", got=type(state).__name__)
    return state


def _from_hub() -> dict[str, Tensor]:
    from torchvision.models import VGG16_Weights

    try:
        return dict(VGG16_Weights.IMAGENET1K_V1.get_state_dict(progress=True))
    except OSError as error:
        raise MissingDependencyError(
            "torchvision's VGG16 weights cannot be downloaded",
            got=str(error),
            hint="Download vgg16-397923af.pth elsewhere and give its path.",
        ) from error


def load_vgg16(convolutions: Sequence[nn.Conv2d], source: str | Path) -> None:
    """Copy VGG16's weights into an encoder's first ``len(convolutions)`` convolutions, in order."""
    for conv, (weight, bias) in zip(convolutions, vgg16_convolutions(source), strict=False):
        if conv.weight.shape != weight.shape:
            raise InputError("the encoder is not VGG16's", got=tuple(conv.weight.shape), expected=tuple(weight.shape))
        with torch.no_grad():
            conv.weight.copy_(weight)
            if conv.bias is not None:
                conv.bias.copy_(bias)
