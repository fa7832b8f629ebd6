"""Load ImageNet weights into encoders: VGG16's convolutions, torchvision's ResNets."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from edgeseg.errors import InputError, MissingDependencyError
from edgeseg.models.base import SegmentationModel
from edgeseg.models.weight_file import read_weights


def load_encoder(net: SegmentationModel, source: str | Path) -> None:
    """Copy ImageNet weights into the encoder of a model, as its ``pretrained`` says.

    All these weights expect RGB / 255, minus ImageNet's mean, divided by its standard deviation.

    Parameters
    ----------
    net : the model.
    source : ``"torchvision"`` (its hub, cached by torch), or a file with the state dict of
        torchvision's ``vgg16``, ``resnet34`` or ``resnet50``.

    Raises
    ------
    InputError : the model has no such encoder, or the file belongs to another one.
    MissingDependencyError : the weights cannot be downloaded.
    """
    name = net.pretrained
    if name is None:
        raise InputError(
            f"{type(net).__name__} has no encoder with pretrained weights",
            got=repr(str(source)),
        )
    if name == "vgg16":
        load_vgg16(encoder_convolutions(net), source)
    else:
        load_resnet(net.encoder, name, source)


def encoder_convolutions(net: SegmentationModel) -> list[nn.Conv2d]:
    """Return the convolutions of a model's encoder, in the order in which an image passes them.

    Parameters
    ----------
    net : a model with an encoder.

    Examples
    --------
    >>> from edgeseg.models import create
    >>> with torch.device("meta"):  # shapes alone: no memory
    ...     len(encoder_convolutions(create("segnet", 11)))
    13
    """
    return [module for module in net.encoder.modules() if isinstance(module, nn.Conv2d)]


def load_resnet(encoder: nn.Module, name: str, source: str | Path) -> None:
    """Copy the weights of a torchvision ResNet into an encoder with the same parameter names.

    The classifier, ``fc``, is left out.

    Parameters
    ----------
    encoder : the encoder.
    name : torchvision's name of the model, such as ``resnet34``.
    source : ``"torchvision"``, or a file with the model's state dict.

    Raises
    ------
    InputError : the file is missing, or its tensors do not fit the encoder.
    MissingDependencyError : the weights cannot be downloaded.
    """
    state = _state_dict(name, source)
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}

    # Compare names and shapes. Files older than the counters of batch normalisation lack these.
    ours = encoder.state_dict()
    names = [key for key in ours.keys() | state.keys() if not key.endswith("num_batches_tracked")]
    differ: list[str] = []
    for key in names:
        if key not in ours or key not in state or ours[key].shape != state[key].shape:
            differ.append(key)
    if differ:
        raise InputError(
            f"{source}: not the weights of this encoder",
            got=f"{len(differ)} tensors that differ, such as {min(differ)}",
            expected=f"torchvision's {name}",
            hint='PSPNet takes them with the argument stem = "plain".',
        )

    encoder.load_state_dict(state, strict=False)


def vgg16_convolutions(source: str | Path) -> list[tuple[Tensor, Tensor]]:
    """Return (weight, bias) of VGG16's thirteen convolutions, in order.

    Parameters
    ----------
    source : ``"torchvision"``, or a file with keys ``features.N.weight`` and ``features.N.bias``.

    Raises
    ------
    InputError : the file is missing, or does not hold thirteen convolutions.
    MissingDependencyError : the weights cannot be downloaded.
    """
    state = _state_dict("vgg16", source)

    # The numbers N of the convolutions: their weights have four dimensions.
    numbers: set[int] = set()
    for key, value in state.items():
        if key.startswith("features.") and value.ndim == 4:
            numbers.add(int(key.split(".")[1]))
    if len(numbers) != 13:
        raise InputError(
            f"{source}: not VGG16's convolutions",
            got=f"{len(numbers)} of them",
            expected="13, as features.N.weight in torchvision's vgg16",
        )
    return [(state[f"features.{n}.weight"], state[f"features.{n}.bias"]) for n in sorted(numbers)]


def _state_dict(name: str, source: str | Path) -> dict[str, Tensor]:
    """Return the state dict of a torchvision model, from its hub or from a file."""
    if str(source) == "torchvision":
        return _from_hub(name)
    return _from_file(Path(source), name)


def _from_file(path: Path, name: str) -> dict[str, Tensor]:
    """Read the state dict of the torchvision model ``name`` from a file."""
    if not path.is_file():
        raise InputError(
            f"no such {name} weight file",
            got=repr(str(path)),
            hint='Give a file, or "torchvision".',
        )
    try:
        state = read_weights(path)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: not a PyTorch state dict", got=type(error).__name__) from error

    if not isinstance(state, dict) or not all(
        isinstance(value, Tensor) for value in state.values()
    ):
        raise InputError(f"{path}: not a PyTorch state dict", got=type(state).__name__)
    return state


def _from_hub(name: str) -> dict[str, Tensor]:
    """Return the ImageNet weights of a torchvision model, downloaded or from torch's cache."""
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
    """Copy VGG16's weights into the convolutions of an encoder.

    Parameters
    ----------
    convolutions : the encoder's convolutions, in VGG16's order; at most thirteen are filled.
    source : ``"torchvision"``, or a file with the state dict of torchvision's ``vgg16``.

    Raises
    ------
    InputError : a convolution has another shape, or the file does not hold VGG16's convolutions.
    MissingDependencyError : the weights cannot be downloaded.
    """
    for conv, (weight, bias) in zip(convolutions, vgg16_convolutions(source), strict=False):
        if conv.weight.shape != weight.shape:
            raise InputError(
                "the encoder is not VGG16's",
                got=tuple(conv.weight.shape),
                expected=tuple(weight.shape),
            )
        with torch.no_grad():
            conv.weight.copy_(weight)
            if conv.bias is not None:
                conv.bias.copy_(bias)
