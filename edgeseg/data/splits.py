"""Draw splits so that neighbouring frames never stand on both sides.

Whole groups (drives, sequences) go to one split. Where a single group holds nearly all frames, the
split is a cut in time instead, and the frames beside the cut are left out.
"""

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence

# Frames left out on a cut: one in twenty of the group, at most this many (a second or more).
_WIDEST_GAP = 30
_GAP_SHARE = 20
_LEAST_GROUPS = 2
_MOST_OVER = 2  # a split may be this many times as large as wanted, before groups are cut

# The end of the names that Roboflow gives: suffix of the original, and a hash.
_ROBOFLOW = re.compile(r"(_(jpe?g|png|bmp))?\.rf\.[0-9A-Za-z]{16,}$")
_NUMBER = re.compile(r"[-_. ]?\d+(_leftImg8bit)?$")

SPLIT_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


def canonical_split(name: str) -> str:
    """Return ``train``, ``val`` or ``test`` for a split's name in another spelling.

    Parameters
    ----------
    name : name of a folder or of a list.

    Examples
    --------
    >>> canonical_split("validation"), canonical_split("night")
    ('val', 'night')
    """
    for split, spellings in SPLIT_NAMES.items():
        if name.lower() in spellings:
            return split
    return name


def group_of(name: str) -> str:
    """Return the group that a frame belongs to, by its name.

    That is its folder; without one, what stands before the last number.

    Parameters
    ----------
    name : the frame's name, with ``/`` between folders.

    Examples
    --------
    >>> group_of("0001TP_006690"), group_of("drive3/17"), group_of("aachen_000000_000019")
    ('0001TP', 'drive3', 'aachen_000000')
    """
    folder, _, last = name.rpartition("/")
    if folder:
        return folder
    return _NUMBER.sub("", _ROBOFLOW.sub("", last))


def grouping(rule: str) -> Callable[[str], str]:
    """Return the function that gives a frame's group.

    Parameters
    ----------
    rule : ``auto`` (``group_of``), ``none`` (every frame is a group), or a regular expression whose
        first group is it.

    Raises
    ------
    re.error : not a regular expression.

    Examples
    --------
    >>> grouping("^(day[0-9]+)")("day2-left-0001")
    'day2'
    """
    if rule == "auto":
        return group_of
    if rule == "none":
        return lambda name: name
    pattern = re.compile(rule)

    def by_pattern(name: str) -> str:
        found = pattern.search(name)
        if found is None:
            return name
        return found[1] if pattern.groups else found[0]

    return by_pattern


def draw_splits(
    names: Sequence[str], groups: Sequence[str], shares: Mapping[str, float], seed: int = 0
) -> tuple[list[str | None], str]:
    """Give every frame a split.

    Groups are taken in the order of a hash of their name, so that the same data gives the same
    splits on every machine.

    Parameters
    ----------
    names : names of the frames; a cut follows their order.
    groups : group of each frame.
    shares : share of the frames of each split but ``train``, such as ``{"val": 0.2}``.
    seed : another seed draws other groups.

    Returns
    -------
    The split of each frame, ``None`` if it is beside a cut; and a note how they were drawn.

    Examples
    --------
    >>> names = [f"{drive}_{i}" for drive in "abcde" for i in range(4)]
    >>> splits, how = draw_splits(names, [name[0] for name in names], {"val": 0.2})
    >>> how, splits.count("val"), len({name[0] for name, s in zip(names, splits) if s == "val"})
    ('drawn by group', 4, 1)
    """
    sizes: dict[str, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1

    # Groups that are too large to be on one side are cut.
    wanted = {split: share for split, share in shares.items() if share > 0}
    largest = max(sizes.values(), default=0)
    smallest_share = min(wanted.values(), default=1.0)
    too_few = len(sizes) < _LEAST_GROUPS + len(wanted) - 1
    too_large = min(sizes.values(), default=0) > _MOST_OVER * smallest_share * len(names)
    only_one = largest > (1 - sum(wanted.values())) * len(names) * 1.1
    if too_few or too_large or only_one:
        return _cut(names, groups, wanted), "the end of each group"

    split_of = dict.fromkeys(sizes, "train")
    left = sorted(sizes, key=lambda group: _hash(group, seed))
    for split, share in wanted.items():
        room = max(1, round(share * len(names)))
        taken = _take(left, sizes, room)
        left = [group for group in left if group not in taken]
        split_of.update(dict.fromkeys(taken, split))
    return [split_of[group] for group in groups], "drawn by group"


def _hash(group: str, seed: int) -> bytes:
    """Return the hash that orders the groups."""
    return hashlib.sha256(f"{seed}/{group}".encode()).digest()


def _take(groups: Sequence[str], sizes: Mapping[str, int], room: int) -> set[str]:
    """Return groups that fit into ``room`` frames; the smallest group if none fits."""
    taken: set[str] = set()
    for group in groups:
        if sizes[group] <= room:
            taken.add(group)
            room -= sizes[group]
    return taken or {min(groups, key=lambda group: sizes[group])}


def _cut(
    names: Sequence[str], groups: Sequence[str], shares: Mapping[str, float]
) -> list[str | None]:
    """Cut each group in time: ``train`` first, then the other splits, with gaps between them."""
    members: dict[str, list[int]] = {}
    for index in sorted(range(len(names)), key=lambda index: natural(names[index])):
        members.setdefault(groups[index], []).append(index)

    splits: list[str | None] = ["train"] * len(names)
    for indices in members.values():
        end = len(indices)
        for split, share in reversed(list(shares.items())):
            count = min(math.ceil(share * len(indices)), end - 1)
            gap = min(_WIDEST_GAP, math.ceil(len(indices) / _GAP_SHARE), end - 1 - count)
            for index in indices[end - count : end]:
                splits[index] = split
            for index in indices[end - count - gap : end - count]:
                splits[index] = None
            end -= count + gap
    return splits


def natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts 2 before 10.

    Parameters
    ----------
    name : the name to sort.

    Examples
    --------
    >>> sorted(["f10", "f2"], key=natural)
    ['f2', 'f10']
    """
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
