"""Write any labelled data in the layout of ``folder:PATH``."""

import shutil
from pathlib import Path

import cv2
import numpy as np

from edgeseg.data.class_files import IGNORE_ID, is_ignored
from edgeseg.data.coding import require_known
from edgeseg.data.folder import require_same_size
from edgeseg.data.inventory import Entry, take_inventory
from edgeseg.errors import DataError, OutputError
from edgeseg.files import write_bytes
from edgeseg.imaging.postprocess import indexed_png
from edgeseg.reporter import SILENT, Reporter, track
from edgeseg.spec import LabelSpace
from edgeseg.types import Image

NO_SPLIT = "unsplit"
_KEPT = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def convert_data(address: str, out: Path, *, reporter: Reporter = SILENT) -> Path:
    """Write a data set as ``images/SPLIT``, ``masks/SPLIT`` and ``classes.txt``.

    Frames that are files are copied as they are, so that scores do not change; others become PNG.
    Masks become PNG with the classes' colours as palette, 255 ignored.

    Parameters
    ----------
    address : the data, READER:PATH.
    out : the folder to write; it must be new or empty.
    reporter : receives the progress.

    Returns
    -------
    ``out``.

    Raises
    ------
    InputError : unknown reader, or no such folder.
    DataError : the data cannot be read; the error names the file.
    OutputError : ``out`` has files already, or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out}: exists already", hint="Give a new folder, or empty this one.")
    inventory = take_inventory(address)
    if inventory.faults:
        raise DataError(inventory.faults[0])
    without = [entry for entry in inventory.entries if not entry.has_mask]
    for entry in without[:1]:
        reporter.warning(f"{len(without)} frames without mask are left out, such as {entry.frame}")

    for entry in track(
        [entry for entry in inventory.entries if entry.has_mask], "convert", reporter
    ):
        _write(entry, inventory.labels, out)
    write_bytes(out / "classes.txt", "\n".join([*inventory.labels.names, ""]).encode())

    # A class that is called void stays one.
    if any(is_ignored(name) for name in inventory.labels.names):
        text = (
            '# Void is a class of this data.\n[classes]\nfile = "classes.txt"\nignore_names = []\n'
        )
        write_bytes(out / "data.toml", text.encode())
    return out


def _write(entry: Entry, labels: LabelSpace, out: Path) -> None:
    """Write one frame and its mask."""
    image, decoded = entry.read()
    where = Path(entry.where)
    ids = require_known(decoded, where)
    require_same_size(ids, image, where)

    name = Path(entry.name)
    if name.is_absolute() or ".." in name.parts:
        raise DataError(f"{where}: a frame's name that leads out of the folder", got=entry.name)

    # A frame between two splits is kept apart.
    split = entry.split or NO_SPLIT
    folder = out / "images" / split
    if entry.frame is not None and entry.frame.suffix.lower() in _KEPT:
        target = folder / f"{entry.name}{entry.frame.suffix.lower()}"
        target.parent.mkdir(parents=True, exist_ok=True)
        _require_new(target)
        try:
            shutil.copyfile(entry.frame, target)
        except OSError as error:
            raise OutputError(f"{target}: cannot be written", got=error.strerror) from error
    else:
        target = folder / f"{entry.name}.png"
        _require_new(target)
        _, data = cv2.imencode(".png", image)
        write_bytes(target, data.tobytes())
    write_bytes(
        out / "masks" / split / f"{entry.name}.png",
        indexed_png(_plain(ids, labels), _shown(labels)),
    )


def _require_new(path: Path) -> None:
    """Raise ``DataError`` if two frames would be one file."""
    if path.exists():
        raise DataError(f"{path}: two frames with one name")


def _plain(ids: Image, labels: LabelSpace) -> Image:
    """Return label ids with 255 where they are ignored."""
    return np.where(ids == labels.ignore_id, IGNORE_ID, ids).astype(np.uint8)


def _shown(labels: LabelSpace) -> LabelSpace:
    """Return the label space with 255 as the id that is ignored."""
    return labels.model_copy(update={"ignore_id": IGNORE_ID})
