"""The registry of architectures: it builds an untrained model by name.

Examples
--------
>>> model = create("enet", classes=11)
>>> type(model).__name__
'ENet'
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

from edgeseg.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Architecture:
    """Describe one architecture of the registry.

    Attributes
    ----------
    name : the name that users give.
    factory : ``module:Class``; imported only when a model is built.
    stride : height and width of the input must be multiples of this.
    source : the paper or report that the architecture comes from.
    pretrained : the torchvision model whose ImageNet weights fit the encoder; None if there is
        none.
    arguments : arguments of the factory, beside the number of classes. A variant is another value
        here, not another class.
    output_stride : the logits have the input's height and width divided by this.

    Examples
    --------
    >>> architecture("enet").stride
    8
    """

    name: str
    factory: str
    stride: int
    source: str
    pretrained: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    output_stride: int = 1

    def build(self, classes: int, **arguments: Any) -> "nn.Module":
        """Build the untrained model.

        Parameters
        ----------
        classes : number of classes.
        **arguments : arguments of the factory; they override those of the registry.

        Raises
        ------
        InputError : the factory has no such argument, or a value is out of its range.
        """
        # Import the factory.
        module, _, name = self.factory.partition(":")
        make: Callable[..., nn.Module] = getattr(import_module(module), name)

        # Check the names of the arguments.
        given = {**self.arguments, **arguments}
        known = [parameter for parameter in signature(make).parameters if parameter != "classes"]
        unknown = [key for key in given if key not in known]
        if unknown:
            raise InputError(
                f"{self.name} has no such argument",
                got=", ".join(unknown),
                expected=", ".join(known) or "none",
            )

        try:
            return make(classes, **given)
        except ValueError as error:
            raise InputError(f"{self.name}: an argument is out of its range", got=str(error)) from error


REGISTRY: dict[str, Architecture] = {}


def register(entry: Architecture) -> None:
    """Add an architecture to the registry.

    Parameters
    ----------
    entry : the architecture.

    Raises
    ------
    ValueError : there is already one of that name, which is a bug.
    """
    if entry.name in REGISTRY:
        raise ValueError(f"architecture {entry.name!r} is registered twice")
    REGISTRY[entry.name] = entry


_FCN = "edgeseg.models.fcn:FCN"

# name, factory, stride, source, pretrained
for _entry in (
    Architecture("segnet", "edgeseg.models.segnet:SegNet", 1, "Badrinarayanan et al. 2015", "vgg16"),
    Architecture(
        "segnet-light", "edgeseg.models.segnet_light:SegNetLight", 1, "report on CamVid", "vgg16", output_stride=2
    ),
    Architecture("enet", "edgeseg.models.enet:ENet", 8, "Paszke et al. 2016"),
    Architecture("fcn", _FCN, 1, "report on VOC, after Long et al. 2015"),
    Architecture(
        "fcn-dropout", _FCN, 1, "report on VOC", arguments={"dropout_down": 0.1, "dropout_up": 0.15}
    ),
    Architecture("fcn-resnet34", _FCN, 1, "report on VOC", "resnet34", arguments={"encoder": "resnet34"}),
    Architecture("unet", "edgeseg.models.unet:UNet", 1, "Ronneberger et al. 2015"),
    Architecture(
        "unet-resnet34", "edgeseg.models.unet_resnet34:UNetResNet34", 1, "fastai's DynamicUnet, report on CamVid",
        "resnet34",
    ),
    Architecture("r2unet", "edgeseg.models.unet:R2UNet", 1, "Alom et al. 2018"),
    Architecture("pspnet", "edgeseg.models.pspnet:PSPNet", 1, "Zhao et al. 2017", "resnet50", output_stride=8),
):  # fmt: skip
    register(_entry)


def architecture(name: str) -> Architecture:
    """Return the architecture of a name.

    Parameters
    ----------
    name : a key of ``REGISTRY``.

    Raises
    ------
    InputError : there is none of that name; the error lists the names.

    Examples
    --------
    >>> architecture("pspnet").output_stride
    8
    """
    try:
        return REGISTRY[name]
    except KeyError:
        raise InputError(
            "unknown architecture",
            got=repr(name),
            expected=f"one of {', '.join(REGISTRY)}",
            hint=did_you_mean(name, REGISTRY),
        ) from None


def create(name: str, classes: int, **arguments: Any) -> "nn.Module":
    """Build an untrained model.

    Parameters
    ----------
    name : a key of ``REGISTRY``.
    classes : number of classes.
    **arguments : arguments of the architecture; they override those of the registry.

    Returns
    -------
    A module (N, 3, H, W) float -> (N, classes, H / k, W / k) logits, where k is the output stride.

    Raises
    ------
    InputError : unknown name or argument, or a value out of its range.

    Examples
    --------
    >>> import torch
    >>> model = create("enet", classes=11).eval()
    >>> model(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 11, 64, 64])
    """
    return architecture(name).build(classes, **arguments)
