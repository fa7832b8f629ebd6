"""Turn the ids or the colours of masks into label ids, and count what no class has."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeseg.data.class_files import IGNORE_ID, ClassTable
from edgeseg.data.mask_files import RawMask, colour_codes, read_mask_file
from edgeseg.errors import DataError
from edgeseg.types import Image

Coding = Literal["auto", "ids", "colours"]

_IDS = 1 << 16
_COLOURS = 1 << 24
_UNKNOWN = -1
# Share of pixels that may have a colour of no class, as in `edgeseg.data.folder.ColourTable`.
_STRAY_SHARE = 1e-3
_MOST_NAMED = 3  # unknown ids or colours that an error names


@dataclass(frozen=True)
class Decoded:
    """Hold a mask in label ids, and what no class has.

    Attributes
    ----------
    ids : (H, W) uint8 label ids; 255 where the mask has no class.
    unknown : pixels of each id or colour that no class has, such as ``{"id 12": 340}``.
    hint : what to do about them.
    fatal : whether they are too many to be stray pixels.

    Examples
    --------
    >>> Decoded(np.zeros((2, 3), np.uint8)).fatal
    False
    """

    ids: Image
    unknown: dict[str, int] = field(default_factory=dict)
    hint: str = ""
    fatal: bool = False


class MaskDecoder:
    """Decode mask files by the classes of a data set.

    Parameters
    ----------
    table : the classes.
    coding : what the masks hold. ``auto``: ids for grey masks; the colours of the table for
        coloured masks, and for masks with a palette if the table has colours; ids otherwise.
    """

    def __init__(self, table: ClassTable, coding: Coding = "auto") -> None:
        self.table = table
        self.coding = coding
        self._label_of = np.full(_IDS, _UNKNOWN, np.int16)
        for number, label in table.label_of.items():
            if 0 <= number < _IDS:
                self._label_of[number] = label

    def __call__(self, path: Path) -> Decoded:
        """Decode a mask.

        Parameters
        ----------
        path : the file.

        Raises
        ------
        DataError : it cannot be read, or has colours although the classes have none.
        """
        raw = read_mask_file(path)
        if raw.is_colour:
            if not self.table.label_of_colour or self.coding == "ids":
                raise DataError(
                    f"{path}: a mask in colours, but the classes have none",
                    got=f"{self.table.source} without colours",
                    expected="ids in one channel, or lines such as `road 128 64 128`",
                    hint=f"Add the colours to {self.table.source}.",
                )
            return self._by_colour(raw)
        if self.coding == "colours" or (self.coding == "auto" and self.table.label_of_colour):
            if raw.palette:
                return self._by_palette(raw)
            if self.coding == "colours":
                return self._by_colour(RawMask(_grey_colours(raw.values, path)))
        return self._by_id(raw.values)

    def _by_id(self, values: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> Decoded:
        """Return the label ids of ids."""
        labels = self._label_of[values]
        strange = labels == _UNKNOWN
        if not strange.any():
            return Decoded(labels.astype(np.uint8))

        numbers, counts = np.unique(values[strange], return_counts=True)
        order = np.argsort(-counts)
        unknown = {f"id {numbers[i]}": int(counts[i]) for i in order}
        labels[strange] = IGNORE_ID
        hint = self._id_hint([int(number) for number in numbers])
        return Decoded(labels.astype(np.uint8), unknown, hint, fatal=True)

    def _by_palette(self, raw: RawMask) -> Decoded:
        """Return the label ids of a palette's colours."""
        colours = np.zeros((256, 3), np.uint8)
        colours[: len(raw.palette)] = raw.palette
        return self._by_colour(RawMask(colours[raw.values][..., ::-1]))

    def _by_colour(self, raw: RawMask) -> Decoded:
        """Return the label ids of colours."""
        codes = colour_codes(np.asarray(raw.values, np.uint8))
        labels = self._label_of_code[codes]
        strange = labels == _UNKNOWN
        if not strange.any():
            return Decoded(labels.astype(np.uint8))

        found, counts = np.unique(codes[strange], return_counts=True)
        unknown: dict[str, int] = {}
        for i in np.argsort(-counts):
            code = int(found[i])
            unknown[f"colour {code >> 16} {code >> 8 & 255} {code & 255}"] = int(counts[i])
        labels[strange] = IGNORE_ID
        fatal = int(counts.sum()) > _STRAY_SHARE * labels.size
        return Decoded(labels.astype(np.uint8), unknown, self._colour_hint(len(found)), fatal)

    @cached_property
    def _label_of_code(self) -> npt.NDArray[np.int16]:
        """Return the label id of every colour."""
        table = np.full(_COLOURS, _UNKNOWN, np.int16)
        for (red, green, blue), label in self.table.label_of_colour.items():
            table[red << 16 | green << 8 | blue] = label
        return table

    def _id_hint(self, unknown: list[int]) -> str:
        """Return what to do about ids that no class has."""
        known = [number for number in self.table.label_of if number != IGNORE_ID]
        highest = max(known, default=0)
        source = self.table.source
        if unknown == [highest + 1] and min(known, default=0) == 0:
            return (
                f"Do the ids begin at 1? Then set `offset = -1` in data.toml (0 is unlabelled); "
                f"else add a class to {source}."
            )
        if max(unknown) > 255:
            return (
                "Masks of instances often hold class * 1000 + instance: save the classes alone, "
                "or name each id in `ids` of data.toml."
            )
        return f"Add its class to {source}, or list it in `ignore_ids` of data.toml."

    def _colour_hint(self, colours: int) -> str:
        """Return what to do about colours that no class has."""
        source = self.table.source
        if colours > 4 * len(self.table.label_of_colour) + 16:
            return "So many colours come of smoothing or JPEG: save the masks as PNG, unresized."
        return f"Add its class to {source}, or give the colour a line `void R G B`."


def _grey_colours(values: npt.NDArray[Any], path: Path) -> Image:
    """Return ids as the grey colours that they were, in three channels."""
    if values.max() > IGNORE_ID:
        raise DataError(f"{path}: not a mask in colours", got=f"a value of {values.max()}")
    return np.repeat(values[..., None], 3, axis=2).astype(np.uint8)


def require_known(decoded: Decoded, path: Path) -> Image:
    """Return the label ids of a mask, if all of its ids and colours have a class.

    Parameters
    ----------
    decoded : the mask.
    path : its file, for the error.

    Raises
    ------
    DataError : ids or colours that no class has, more than stray pixels.
    """
    if decoded.fatal:
        raise DataError(
            f"{path}: no class has this", got=described(decoded.unknown), hint=decoded.hint
        )
    return decoded.ids


def described(unknown: dict[str, int]) -> str:
    """Return what no class has in words.

    Parameters
    ----------
    unknown : pixels of each id or colour.

    Examples
    --------
    >>> described({"id 12": 340, "id 13": 2})
    'id 12 (340 pixels), id 13 (2 pixels)'
    """
    named = [f"{what} ({count} pixels)" for what, count in list(unknown.items())[:_MOST_NAMED]]
    rest = len(unknown) - len(named)
    return ", ".join(named) + (f" and {rest} more" if rest > 0 else "")
