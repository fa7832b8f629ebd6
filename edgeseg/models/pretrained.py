"""ImageNet weights as an encoder's starting point: VGG16's convolutions, torchvision's ResNets."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeseg.errors import InputError, MissingDependencyError


def load_encoder(net: nn.Module, source: str | Path) -> None:
    """Copy ImageNet weights into the encoder of ``net``.

    ``source`` is ``"torchvision"`` (its hub, cached by torch) or a file with the state dict of torchvision's ``vgg16``,
    ``resnet34`` or ``resnet50``. All expect RGB / 255 less ImageNet's mean, over its std. Raises ``InputError`` where
    the net has no such encoder, or the file is another's.
    """
    encoder = getattr(net, "encoder", None)
    convolutions = getattr(net, "encoder_convolutions", None)
    depth = getattr(encoder, "depth", None)
    if convolutions is not None:
        load_vgg16(convolutions(), source)
    elif isinstance(encoder, nn.Module) and depth is not None:
        load_resnet(encoder, f"resnet{depth}", source)
    else:
        raise InputError(f"{type(net).__name__} has no encoder with pretrained weights", got=repr(str(source)))


def load_resnet(encoder: nn.Module, name: str, source: str | Path) -> None:
    """Copy a torchvision ResNet's state dict into an encoder with its names; the classifier's ``fc`` is left out."""
    state = _from_hub(name) if str(source) == "torchvision" else _from_file(Path(source), name)
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    ours = encoder.state_dict()
    # Files older than batch normalisation's counters lack those.
    names = [k for k in ours.keys() | state.keys() if not k.endswith("num_batches_tracked")]
    differ = [k for k in names if k not in ours or k not in state or ours[k].shape != state[k].shape]
    if differ:
        raise InputError(
            f"{source}: not the weights of this encoder",
            got=f"{len(differ)} tensors that differ, such as {min(differ)}",
            expected=f"torchvision's {name}",
            hint='PSPNet takes them with the argument stem = "plain".',
        )
    encoder.load_state_dict(state, strict=False)


def vgg16_convolutions(source: str | Path) -> list[tuple[Tensor, Tensor]]:
    """(weight, bias) of VGG16's thirteen convolutions, in order.

    ``source`` is ``"torchvision"`` or a file: keys ``features.N.weight`` and ``features.N.bias``.
    """
    state = _from_hub("vgg16") if str(source) == "torchvision" else _from_file(Path(source), "vgg16")
    numbers = sorted({int(k.split(".")[1]) for k, v in state.items() if k.startswith("features.") and v.ndim == 4})
    if len(numbers) != 13:
        raise InputError(
            f"{source}: not VGG16's convolutions",
            got=f"{len(numbers)} of them",
            expected="13, as features.N.weight in torchvision's vgg16",
        )
    return [(state[f"features.{n}.weight"], state[f"features.{n}.bias"]) for n in numbers]


def _from_file(path: Path, name: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"no such {name} weight file", got=repr(str(path)), hint='Give a file, or "torchvision".')
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path}: not a PyTorch state dict", got=type(error).__name__) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path}: not a PyTorch state dict", got=type(state).__name__)
    return state


def _from_hub(name: str) -> dict[str, Tensor]:
    from torchvision.models import get_model_weights

    weights = get_model_weights(name).IMAGENET1K_V1
    try:
        return dict(weights.get_state_dict(progress=True))
    except OSError as error:
        raise MissingDependencyError(
            f"torchvision's {name} weights cannot be downloaded",
            got=str(error),
            hint=f"Download {weights.url.rsplit('/', 1)[-1]} elsewhere and give its path.",
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
