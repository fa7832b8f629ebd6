"""The contract: official label spaces, validation, JSON there and back."""

import pytest
from pydantic import ValidationError

from edgeseg.errors import EdgesegError, InputError
from edgeseg.spec import (
    CAMVID_11,
    CAMVID_32,
    CITYSCAPES_19,
    LABEL_SPACES,
    VOC_21,
    LabelSpace,
    ModelSpec,
    generic_space,
    label_space,
    voc_colour,
)


@pytest.mark.parametrize(
    ("space", "classes", "ignore", "sample"),
    [
        (CAMVID_11, 11, 11, {"Road": (3, (128, 64, 128)), "Bicyclist": (10, (0, 128, 192))}),
        (CAMVID_32, 32, 30, {"Void": (30, (0, 0, 0)), "LaneMkgsDriv": (10, (128, 0, 192))}),
        (CITYSCAPES_19, 19, 255, {"road": (0, (128, 64, 128)), "bicycle": (18, (119, 11, 32))}),
        (VOC_21, 21, 255, {"background": (0, (0, 0, 0)), "person": (15, (192, 128, 128))}),
    ],
)
def test_official_label_spaces(
    space: LabelSpace,
    classes: int,
    ignore: int,
    sample: dict[str, tuple[int, tuple[int, int, int]]],
) -> None:
    assert len(space) == classes
    assert space.ignore_id == ignore
    assert len(set(space.palette)) == classes
    for name, (index, colour) in sample.items():
        assert space.names[index] == name
        assert space.palette[index] == colour


def test_voc_colours_follow_the_kits_formula() -> None:
    """Every VOC class colour, computed by VOClabelcolormap's bit spreading."""
    assert tuple(voc_colour(i) for i in range(21)) == VOC_21.palette
    assert voc_colour(255) == (224, 224, 192)


def test_spec_round_trip() -> None:
    spec = ModelSpec(
        architecture="enet", arguments={"x": 1}, input_size=(360, 480), stride=8, labels=CAMVID_11
    )
    assert ModelSpec.parse(spec.to_json(), "here") == spec
    assert spec.replace(input_size=(64, 64)).input_size == (64, 64)


@pytest.mark.parametrize(
    "change",
    [
        {"std": (0.0, 1.0, 1.0)},
        {"input_size": (0, 5)},
        {"colour": "hsv"},
        {"scale": 0.0},
        {"unknown": 1},
    ],
)
def test_impossible_specs_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ModelSpec(**{"architecture": "enet", "input_size": (8, 8), "labels": CAMVID_11, **change})  # type: ignore[arg-type]


def test_damaged_spec_is_one_line() -> None:
    with pytest.raises(InputError, match=r"net\.onnx: its edgeseg spec cannot be read") as caught:
        ModelSpec.parse('{"architecture": "enet"}', "net.onnx")
    assert "\n" not in str(caught.value)


def test_label_spaces_by_name() -> None:
    assert label_space("voc-21") is VOC_21
    with pytest.raises(InputError, match="camvid-11, camvid-32"):
        label_space("coco")
    assert set(LABEL_SPACES) == {"camvid-11", "camvid-32", "cityscapes-19", "voc-21"}


def test_generic_space() -> None:
    space = generic_space(3)
    assert space.names == ("class0", "class1", "class2")
    with pytest.raises(InputError, match="at most 255"):
        generic_space(300)
    with pytest.raises(InputError, match="twice"):
        generic_space(2, ["a", "a"])


def test_error_says_what_got_expected_next() -> None:
    error = EdgesegError("a thing", got=1, expected=2, hint="Do this.")
    assert str(error) == "a thing: got 1, expected 2. Do this."
    assert str(EdgesegError("a thing", expected=2)) == "a thing: expected 2."
    assert error.exit_code == 2
