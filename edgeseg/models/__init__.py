"""The networks, one file per architecture, in one registry. ``create("enet", classes=11)`` builds one."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgeseg.errors import InputError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Architecture:
    """One entry of the registry. ``factory`` is ``module:Class``, imported only when a net is built."""

    name: str
    factory: str
    stride: int
    source: str
    pretrained: str | None = None

    def build(self, classes: int, **arguments: Any) -> "nn.Module":
        module, _, name = self.factory.partition(":")
        make: Callable[..., nn.Module] = getattr(import_module(module), name)
        return make(classes, **arguments)


REGISTRY: dict[str, Architecture] = {}


def register(entry: Architecture) -> None:
    """Add an architecture; a second one of the same name is a bug."""
    if entry.name in REGISTRY:
        raise ValueError(f"architecture {entry.name!r} is registered twice")
    REGISTRY[entry.name] = entry


register(Architecture("enet", "edgeseg.models.enet:ENet", 8, "Paszke et al. 2016"))
register(
    Architecture(
        "segnet", "edgeseg.models.segnet:SegNet", 1, "Badrinarayanan et al. 2015", pretrained="vgg16 (ImageNet)"
    )
)


def architecture(name: str) -> Architecture:
    """Look an architecture up. Raises ``InputError`` with the names there are."""
    try:
        return REGISTRY[name]
    except KeyError:
        raise InputError("unknown architecture", got=repr(name), expected=f"one of {', '.join(REGISTRY)}") from None


def create(name: str, classes: int, **arguments: Any) -> "nn.Module":
    """Build an untrained net: (N, 3, H, W) float -> (N, classes, H, W) logits."""
    return architecture(name).build(classes, **arguments)
