"""Say how the pictures of a run look: mode, opacity, classes, legend, status line, palette."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from edgeseg.errors import InputError, did_you_mean
from edgeseg.spec import LabelSpace

Mode = Literal["overlay", "mask", "side-by-side", "edges", "blend"]
Legend = Literal["auto", "off", "right"]
PaletteName = Literal["official", "colour-blind"]


@dataclass(frozen=True)
class View:
    """Hold how the pictures of a run look.

    Attributes
    ----------
    mode : ``overlay`` blends the colours over the frame, ``blend`` over the frame in grey. ``mask``
        shows the colours alone, ``side-by-side`` the frame and its overlay, and ``edges`` the frame
        with the outlines of the classes.
    alpha : weight of the colours in ``overlay``, ``side-by-side`` and ``blend``, 0 to 1.
    classes : names or ids of the classes to paint; all if None.
    legend : ``auto`` draws the names of the classes in the picture into a corner, if there is room;
        ``right`` draws all names into a panel beside the picture; ``off`` draws none.
    hud : write the state of the run, such as frames per second, into the picture.
    palette : ``official`` has the data set's colours, ``colour-blind`` colours that the
        colour-blind tell apart.
    smooth : smooth the boundaries where labels were enlarged to the frame's size.

    Raises
    ------
    InputError : a value is not one of those above.

    Examples
    --------
    >>> View(mode="mask", legend="right").alpha
    0.5
    """

    mode: Mode = "overlay"
    alpha: float = 0.5
    classes: tuple[str | int, ...] | None = None
    legend: Legend = "auto"
    hud: bool = True
    palette: PaletteName = "official"
    smooth: bool = True

    def __post_init__(self) -> None:
        _require_one_of("mode", self.mode, get_args(Mode))
        _require_one_of("legend", self.legend, get_args(Legend))
        _require_one_of("palette", self.palette, get_args(PaletteName))
        if not 0.0 <= self.alpha <= 1.0:
            raise InputError("view: bad `alpha`", got=self.alpha, expected="0 to 1")

    def shown_ids(self, labels: LabelSpace) -> frozenset[int]:
        """Return the ids of the classes to paint.

        Parameters
        ----------
        labels : the classes of the engine. Upper and lower case of their names are the same.

        Raises
        ------
        InputError : a class does not exist, or none is left.

        Examples
        --------
        >>> from edgeseg.spec import CAMVID_11
        >>> sorted(View(classes=("road", 8)).shown_ids(CAMVID_11))
        [3, 8]
        """
        coloured = frozenset(range(len(labels))) - {labels.ignore_id}
        if self.classes is None:
            return coloured

        shown = frozenset(_class_id(entry, labels) for entry in self.classes)
        if not shown & coloured:
            raise InputError(
                "view: no class to paint",
                got=list(self.classes),
                expected=f"some of {', '.join(labels.names)}",
            )
        return shown & coloured

    def coloured(self, labels: LabelSpace) -> LabelSpace:
        """Return the label space with the colours of the view's palette.

        Parameters
        ----------
        labels : the classes of the engine, with their official colours.

        Examples
        --------
        >>> from edgeseg.spec import CAMVID_11
        >>> View().coloured(CAMVID_11) is CAMVID_11
        True
        """
        if self.palette == "official":
            return labels

        # NumPy is not needed to say how pictures look.
        from edgeseg.imaging.palettes import colour_blind_safe

        return colour_blind_safe(labels)


def _class_id(entry: str | int, labels: LabelSpace) -> int:
    """Return the id of a class that is given by its name or its id."""
    if isinstance(entry, int) or re.fullmatch(r"\d+", entry):
        label = int(entry)
        if not 0 <= label < len(labels):
            raise InputError(
                f"view: {labels.name} has no such class",
                got=label,
                expected=f"an id from 0 to {len(labels) - 1}",
            )
        return label

    ids = {name.lower(): label for label, name in enumerate(labels.names)}
    if entry.strip().lower() not in ids:
        raise InputError(
            f"view: {labels.name} has no such class",
            got=repr(entry),
            expected=f"one of {', '.join(labels.names)}",
            hint=did_you_mean(entry.strip(), labels.names),
        )
    return ids[entry.strip().lower()]


def _require_one_of(field: str, got: str, known: Sequence[str]) -> None:
    """Raise ``InputError`` unless a field of the view has one of its values."""
    if got not in known:
        raise InputError(
            f"view: unknown `{field}`",
            got=repr(got),
            expected=f"one of {', '.join(known)}",
            hint=did_you_mean(got, known),
        )
