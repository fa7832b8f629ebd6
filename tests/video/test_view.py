"""What a view takes, and what it says about the rest."""

from typing import Any

import pytest

from edgeseg.errors import InputError
from edgeseg.spec import CAMVID_11, CAMVID_32
from edgeseg.video.view import View


def test_all_classes_are_shown_unless_some_are_named() -> None:
    assert View().shown_ids(CAMVID_11) == set(range(11))
    assert View().shown_ids(CAMVID_32) == set(range(32)) - {CAMVID_32.ignore_id}


@pytest.mark.parametrize(
    "classes", [("road", "car"), ("Road", "CAR"), (3, 8), ("3", "8"), (" road ", 8, 8)]
)
def test_classes_are_named_or_numbered(classes: tuple[str | int, ...]) -> None:
    assert View(classes=classes).shown_ids(CAMVID_11) == {3, 8}


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("raod",), "Did you mean 'Road'"),
        (("helicopter",), "expected one of Sky, Building"),
        (("road", "11"), "got 11, expected an id from 0 to 10"),
        ((-1,), "got -1, expected an id from 0 to 10"),
        ((), "no class to paint"),
    ],
)
def test_a_class_that_does_not_exist_is_named(classes: tuple[str | int, ...], message: str) -> None:
    with pytest.raises(InputError, match="view") as caught:
        View(classes=classes).shown_ids(CAMVID_11)
    assert message in str(caught.value)


def test_the_ignored_class_alone_cannot_be_shown() -> None:
    with pytest.raises(InputError, match="no class to paint"):
        View(classes=("Void",)).shown_ids(CAMVID_32)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("mode", "side", "Did you mean|one of overlay, mask, side-by-side, edges, blend"),
        ("mode", "overlai", "Did you mean 'overlay'"),
        ("legend", "left", "one of auto, off, right"),
        ("palette", "colour_blind", "Did you mean 'colour-blind'"),
        ("alpha", 1.5, "got 1.5, expected 0 to 1"),
        ("alpha", float("nan"), "got nan, expected 0 to 1"),
    ],
)
def test_a_bad_field_is_named(field: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        View(**{field: value})
    assert f"`{field}`" in str(caught.value)


def test_the_palette_changes_the_colours_alone() -> None:
    assert View().coloured(CAMVID_11) == CAMVID_11
    safe = View(palette="colour-blind").coloured(CAMVID_11)
    assert safe.names == CAMVID_11.names
    assert safe.palette != CAMVID_11.palette
