"""Read a folder of frames and masks: ``folder:PATH``.

``data.toml`` in it says what differs from the layouts that need no description.
"""

from pathlib import Path

from edgeseg.data.base import require_folder
from edgeseg.data.collection import Collection
from edgeseg.data.data_toml import collect_described
from edgeseg.data.own_folder import (
    HINT,
    collection_of_masks,
    find_classes,
    find_pairs,
    with_splits,
)
from edgeseg.errors import InputError

DESCRIPTION = "data.toml"


def collect_folder(path: str | Path) -> Collection:
    """Find all frames and masks of a folder.

    Parameters
    ----------
    path : the folder, or a ``data.toml``.

    Raises
    ------
    InputError : no such folder or file.
    DataError : no frames, or no classes.
    """
    root = Path(path).expanduser()
    if not str(path):
        raise InputError("folder: a path is needed", expected="folder:PATH", hint=HINT)
    if root.suffix == ".toml" or (root / DESCRIPTION).is_file():
        return collect_described(root if root.suffix == ".toml" else root / DESCRIPTION)

    require_folder(root, "folder")
    pairs, lone = find_pairs(root)
    table = find_classes(root, pairs)
    pairs, how = with_splits(root, pairs)
    return collection_of_masks("folder", root, table, pairs, lone_masks=lone, how=how)
