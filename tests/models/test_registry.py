"""Models by name: duplicates, misses and arguments."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from edgeseg.errors import InputError  # noqa: E402
from edgeseg.models import REGISTRY, Architecture, architecture, create, register  # noqa: E402


def test_registry_refuses_duplicates_and_names_its_choices() -> None:
    with pytest.raises(ValueError, match="twice"):
        register(Architecture("enet", "x:Y", ""))
    with pytest.raises(InputError, match="one of segnet, segnet-light, enet"):
        create("u-net", 3)


def test_what_a_class_says_is_read_from_its_entry() -> None:
    facts = {
        name: (entry.stride, entry.output_stride, entry.pretrained)
        for name, entry in REGISTRY.items()
    }
    assert facts == {
        "segnet": (1, 1, "vgg16"),
        "segnet-light": (1, 2, "vgg16"),
        "enet": (8, 1, None),
        "fcn": (1, 1, None),
        "fcn-dropout": (1, 1, None),
        "fcn-resnet34": (1, 1, "resnet34"),
        "unet": (1, 1, None),
        "unet-resnet34": (1, 1, "resnet34"),
        "r2unet": (1, 1, None),
        "pspnet": (1, 8, "resnet50"),
    }


VARIANTS: dict[str, dict[str, Any]] = {
    "segnet-light": {"upsampling": "positions", "relu": True},
    "pspnet": {"stem": "plain"},
    "fcn": {"encoder": "resnet34"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_arguments(name: str) -> None:
    variant = VARIANTS[name]
    plain = create(name, 5)
    other = create(name, 5, **variant)
    if name != "segnet-light":  # its variant has the same parameters
        assert [p.shape for p in plain.parameters()] != [p.shape for p in other.parameters()]
    with torch.inference_mode():
        assert other.eval()(torch.randn(1, 3, 50, 70)).shape[:2] == (1, 5)


@pytest.mark.parametrize("name", VARIANTS)
def test_arguments_that_do_not_exist_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"no such argument.*expected"):
        architecture(name).build(5, nonsense=1)
    with pytest.raises(InputError, match="out of its range"):
        architecture(name).build(5, **{next(iter(VARIANTS[name])): "nonsense"})


def test_an_argument_may_decide_what_a_model_can_do() -> None:
    with torch.device("meta"):
        assert create("segnet-light", 5, upsampling="positions").unpools
        assert create("fcn", 5, encoder="resnet34").pretrained == "resnet34"
