"""The networks, one file per architecture, in one registry. ``create("enet", classes=11)`` builds one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

from edgeseg.errors import InputError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Architecture:
    """One entry of the registry. ``factory`` is ``module:Class``, imported only when a net is built.

    ``arguments`` are the factory's, beside the classes: a variant is a value. Height and width must be multiples of
    ``stride``, and come back divided by ``output_stride``. ``pretrained`` is the
    torchvision net whose ImageNet weights its encoder takes.
    """

    name: str
    factory: str
    stride: int
    source: str
    pretrained: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    output_stride: int = 1

    def build(self, classes: int, **arguments: Any) -> "nn.Module":
        """The untrained net; ``arguments`` go before the registered ones. Raises ``InputError`` for unknown ones."""
        module, _, name = self.factory.partition(":")
        make: Callable[..., nn.Module] = getattr(import_module(module), name)
        given = {**self.arguments, **arguments}
        known = [p for p in signature(make).parameters if p != "classes"]
        unknown = [key for key in given if key not in known]
        if unknown:
            raise InputError(
                f"{self.name} has no such argument", got=", ".join(unknown), expected=", ".join(known) or "none"
            )
        try:
            return make(classes, **given)
        except ValueError as error:
            raise InputError(f"{self.name}: an argument is out of its range", got=str(error)) from error


REGISTRY: dict[str, Architecture] = {}


def register(entry: Architecture) -> None:
    """Add an architecture; a second one of the same name is a bug."""
    if entry.name in REGISTRY:
        raise ValueError(f"architecture {entry.name!r} is registered twice")
    REGISTRY[entry.name] = entry


_FCN = "edgeseg.models.fcn:FCN"

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
    """Look an architecture up. Raises ``InputError`` with the names there are."""
    try:
        return REGISTRY[name]
    except KeyError:
        raise InputError("unknown architecture", got=repr(name), expected=f"one of {', '.join(REGISTRY)}") from None


def create(name: str, classes: int, **arguments: Any) -> "nn.Module":
    """Build an untrained net: (N, 3, H, W) float -> (N, classes, H / k, W / k) logits, k its output stride."""
    return architecture(name).build(classes, **arguments)
