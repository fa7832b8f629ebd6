"""Colour differences against published values, and the palettes that are made with them."""

import numpy as np
import pytest

from edgeseg.imaging.palettes import (
    EYES,
    ciede2000,
    colour_blind_safe,
    lab,
    smallest_difference,
)
from edgeseg.spec import (
    CAMVID_11,
    CAMVID_32,
    CITYSCAPES_19,
    VOC_21,
    LabelSpace,
    generic_space,
)

# Sharma, Wu, Dalal 2005, table 1: L*, a*, b* of two colours, and their difference.
PUBLISHED = [
    ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
    ((50.0, 3.1571, -77.2803), (50.0, 0.0, -82.7485), 2.8615),
    ((50.0, -1.3802, -84.2814), (50.0, 0.0, -82.7485), 1.0000),
    ((50.0, 0.0, 0.0), (50.0, -1.0, 2.0), 2.3669),
    ((50.0, 2.5, 0.0), (50.0, 0.0, -2.5), 4.3065),
    ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
    ((50.0, 2.5, 0.0), (61.0, -5.0, 29.0), 22.8977),
    ((50.0, 2.5, 0.0), (56.0, -27.0, -3.0), 31.9030),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.mark.parametrize(("first", "second", "expected"), PUBLISHED)
def test_the_difference_is_the_published_one(
    first: tuple[float, ...], second: tuple[float, ...], expected: float
) -> None:
    there = float(ciede2000(np.array(first), np.array(second)))
    back = float(ciede2000(np.array(second), np.array(first)))
    assert there == pytest.approx(expected, abs=5e-5)
    assert back == pytest.approx(expected, abs=5e-5)


def test_lab_of_known_colours() -> None:
    known = lab([(255, 0, 0), (0, 255, 0), (0, 0, 255), (119, 119, 119)])
    expected = [[53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86], [50, 0, 0]]
    assert np.abs(known - np.array(expected)).max() < 0.15


def test_the_colour_blind_confuse_what_they_are_known_to_confuse() -> None:
    red, green = (200, 60, 60), (115, 115, 50)
    assert smallest_difference([red, green]) > 30
    assert smallest_difference([red, green], "protanopia") < 15
    blue, green = (0, 115, 170), (0, 125, 120)
    assert smallest_difference([blue, green], "tritanopia") < smallest_difference([blue, green]) / 2


@pytest.mark.parametrize(
    ("space", "official_most", "safe_least"), [(CAMVID_11, 3.2, 15.0), (CITYSCAPES_19, 2.7, 10.0)]
)
def test_safe_colours_are_several_times_as_far_apart(
    space: LabelSpace, official_most: float, safe_least: float
) -> None:
    official = min(smallest_difference(space.palette, eye) for eye in EYES)
    safe = min(smallest_difference(colour_blind_safe(space).palette, eye) for eye in EYES)
    assert official < official_most
    assert safe > safe_least


@pytest.mark.parametrize("first", ["Pedestrian", "SignSymbol", "Fence"])
def test_the_pairs_that_were_alike_are_not_any_more(first: str) -> None:
    second = {"Pedestrian": "Building", "SignSymbol": "Sky", "Fence": "Road"}[first]
    safe = colour_blind_safe(CAMVID_11)
    for eye in EYES:
        pair = [safe.palette[safe.names.index(name)] for name in (first, second)]
        assert smallest_difference(pair, eye) > 15


@pytest.mark.parametrize("space", [VOC_21, CAMVID_32, generic_space(1), generic_space(7)])
def test_any_space_keeps_its_names_and_gets_colours_of_its_own(space: LabelSpace) -> None:
    safe = colour_blind_safe(space)
    assert safe.names == space.names
    assert safe.ignore_id == space.ignore_id
    assert len(set(safe.palette)) == len(space)
    if space.ignore_id < len(space):
        assert safe.palette[space.ignore_id] == space.palette[space.ignore_id]
    else:
        assert (0, 0, 0) not in safe.palette


def test_the_most_classes_get_a_colour_each() -> None:
    assert len(set(colour_blind_safe(generic_space(255)).palette)) == 255


def test_few_classes_get_the_known_set() -> None:
    assert set(colour_blind_safe(generic_space(3)).palette) == {
        (230, 159, 0),
        (86, 180, 233),
        (0, 158, 115),
    }


def test_the_same_space_gets_the_same_colours() -> None:
    assert colour_blind_safe(CAMVID_11) == colour_blind_safe(CAMVID_11)


def test_classes_keep_colours_like_their_own() -> None:
    """A shuffled assignment of the same colours would be farther from the official ones."""
    safe = colour_blind_safe(CITYSCAPES_19)
    official, chosen = lab(CITYSCAPES_19.palette), lab(safe.palette)
    changes = (ciede2000(official, chosen) ** 2).sum()
    generator = np.random.default_rng(0)
    for _ in range(200):
        assert changes < (ciede2000(official, generator.permutation(chosen)) ** 2).sum()
