"""Check the options that several commands share."""

from edgeseg.backends.registry import BACKENDS
from edgeseg.cli.options import Colour, Method, Precision, SpecOptions
from edgeseg.precision import INT8
from edgeseg.quantize.ranges import METHODS


def test_no_options_are_no_overrides() -> None:
    overrides = SpecOptions().overrides()
    assert overrides.given() == {}
    assert overrides.size is None


def test_options_become_overrides() -> None:
    overrides = SpecOptions(size="64x96", std="1 2 3", labels="voc-21", head="out").overrides()
    assert overrides.size == (64, 96)
    assert overrides.std == (1.0, 2.0, 3.0)
    assert (overrides.labels, overrides.head) == ("voc-21", "out")


def test_the_precisions_are_those_of_all_targets() -> None:
    offered = {precision.value for precision in Precision}
    supported = {name for backend in BACKENDS.values() for name in backend.floats}
    assert offered == supported | {"auto", INT8}


def test_the_methods_are_those_of_the_ranges() -> None:
    assert tuple(method.value for method in Method) == METHODS


def test_the_colours_are_those_of_a_spec() -> None:
    for colour in Colour:
        assert SpecOptions(colour=colour).overrides().colour == colour.value
