"""The registry of architectures: it builds an untrained model by name.

Examples
--------
>>> model = create("enet", classes=11)
>>> type(model).__name__
'ENet'
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

from edgeseg.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from edgeseg.models.base import SegmentationModel


@dataclass(frozen=True)
class Architecture:
    """Describe one architecture of the registry.

    Attributes
    ----------
    name : the name that users give.
    factory : ``module:Class``, a ``SegmentationModel``; imported, with torch, only when something
        of it is needed.
    source : the paper or report that the architecture comes from.
    arguments : arguments of the class, beside the number of classes. A variant is another value
        here, not another class.

    Examples
    --------
    >>> architecture("enet").stride
    8
    """

    name: str
    factory: str
    source: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model_class(self) -> "type[SegmentationModel]":
        """Return the class of the model."""
        module, _, name = self.factory.partition(":")
        found: type[SegmentationModel] = getattr(import_module(module), name)
        return found

    @property
    def stride(self) -> int:
        """Return the number that height and width of the input must be multiples of."""
        return self.model_class.stride

    @property
    def output_stride(self) -> int:
        """Return the number by which the logits are smaller than the input, per side."""
        return self.model_class.output_stride

    @cached_property
    def pretrained(self) -> str | None:
        """Return the torchvision model whose ImageNet weights fit the encoder; None if none does.

        Arguments may decide this, so it is read from a model without memory.
        """
        import torch

        with torch.device("meta"):
            return self.build(classes=1).pretrained

    def build(self, classes: int, **arguments: Any) -> "SegmentationModel":
        """Build the untrained model.

        Parameters
        ----------
        classes : number of classes.
        **arguments : arguments of the class; they override those of the registry.

        Raises
        ------
        InputError : the class has no such argument, or a value is out of its range.
        """
        # Check the names of the arguments.
        make: Callable[..., SegmentationModel] = self.model_class
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
            raise InputError(
                f"{self.name}: an argument is out of its range", got=str(error)
            ) from error


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

_ENTRIES = (
    Architecture("segnet", "edgeseg.models.segnet:SegNet", "Badrinarayanan et al. 2015"),
    Architecture("segnet-light", "edgeseg.models.segnet_light:SegNetLight", "report on CamVid"),
    Architecture("enet", "edgeseg.models.enet:ENet", "Paszke et al. 2016"),
    Architecture("fcn", _FCN, "report on VOC, after Long et al. 2015"),
    Architecture(
        "fcn-dropout",
        _FCN,
        "report on VOC",
        arguments={"dropout_down": 0.1, "dropout_up": 0.15},
    ),
    Architecture("fcn-resnet34", _FCN, "report on VOC", arguments={"encoder": "resnet34"}),
    Architecture("unet", "edgeseg.models.unet:UNet", "Ronneberger et al. 2015"),
    Architecture(
        "unet-resnet34",
        "edgeseg.models.unet_resnet34:UNetResNet34",
        "fastai's DynamicUnet, report on CamVid",
    ),
    Architecture("r2unet", "edgeseg.models.unet:R2UNet", "Alom et al. 2018"),
    Architecture("pspnet", "edgeseg.models.pspnet:PSPNet", "Zhao et al. 2017"),
)
for _entry in _ENTRIES:
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


def create(name: str, classes: int, **arguments: Any) -> "SegmentationModel":
    """Build an untrained model.

    Parameters
    ----------
    name : a key of ``REGISTRY``.
    classes : number of classes.
    **arguments : arguments of the architecture; they override those of the registry.

    Returns
    -------
    The model in training mode: (N, 3, H, W) float32 images -> (N, classes, H / k, W / k) logits,
    where k is the output stride (``edgeseg.models.base``).

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
