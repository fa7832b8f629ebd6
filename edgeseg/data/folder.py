"""Read frames, label pictures and lists of frames from files."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from edgeseg.errors import DataError
from edgeseg.spec import Colour
from edgeseg.types import Image

FRAME_SUFFIXES = (".png", ".jpg", ".jpeg")
# Share of pixels that may have a colour of no class: label pictures were drawn with one brush per
# class, so a few stray pixels are void, but more of them mean another palette.
_STRAY_SHARE = 1e-3
_HIGHEST = 255  # label maps have 8 bits; a higher id must not become another one
_COLOURS = 1 << 24  # of 8 bits in each of three channels


def read_frame(path: Path) -> Image:
    """Read a frame.

    Parameters
    ----------
    path : a picture that OpenCV can read.

    Returns
    -------
    (H, W, 3) uint8 BGR.

    Raises
    ------
    DataError : the file is missing or damaged.
    """
    return _read(path, cv2.IMREAD_COLOR)


def read_raw(path: Path) -> Image:
    """Read a picture as it is stored, such as a label map.

    Parameters
    ----------
    path : a picture that OpenCV can read.

    Returns
    -------
    (H, W) uint8, or (H, W, 3) uint8 BGR without alpha. Indices of a palette become its colours.

    Raises
    ------
    DataError : the file is missing or damaged.
    """
    picture = _read(path, cv2.IMREAD_UNCHANGED)
    return picture[..., :3] if picture.ndim == 3 else picture


def _read(path: Path, flag: int) -> Image:
    """Read a picture by OpenCV, or raise ``DataError``."""
    # OpenCV gives no reason, and some names of files are no text for it.
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except FileNotFoundError:
        raise DataError(f"{path}: cannot be read as a picture", got="no such file") from None
    except OSError as error:
        problem = error.strerror or str(error)
        raise DataError(f"{path}: cannot be read as a picture", got=problem) from error

    picture = cv2.imdecode(data, flag) if data.size else None
    if picture is None:
        raise DataError(f"{path}: cannot be read as a picture", got="damaged")
    if picture.dtype != np.uint8 and picture.max() > _HIGHEST:
        raise DataError(
            f"{path}: a value above {_HIGHEST}",
            got=picture.max(),
            expected=f"ids 0..{_HIGHEST}",
            hint="Save the mask with 8 bits, or give folder:PATH, whose data.toml can name ids.",
        )
    return picture.astype(np.uint8, copy=False)


def require_same_size(mask: Image, image: Image, path: Path) -> None:
    """Raise an error if a label map and its frame differ in height or width.

    Parameters
    ----------
    mask : the label map, (H, W).
    image : the frame, (H, W, 3).
    path : the label map's file, for the error.

    Raises
    ------
    DataError : the sizes differ.

    Examples
    --------
    >>> mask = np.zeros((4, 6), np.uint8)
    >>> require_same_size(mask, np.zeros((4, 6, 3), np.uint8), Path("a.png"))
    """
    if mask.shape[:2] != image.shape[:2]:
        raise DataError(
            f"{path}: its size differs from its frame's",
            got=mask.shape[:2],
            expected=image.shape[:2],
        )


def frames_in(folder: Path) -> dict[str, Path]:
    """Return the PNG and JPEG files of a folder by their names without suffix, sorted.

    Parameters
    ----------
    folder : the folder; its subfolders are not searched.
    """
    files = sorted(folder.iterdir())
    return {file.stem: file for file in files if file.suffix.lower() in FRAME_SUFFIXES}


class ColourTable:
    """Turn colour-coded label pictures into label ids.

    Parameters
    ----------
    palette : (R, G, B) of each class, 0..255.
    ids : the label ids of the colours; ``ids[i]`` belongs to ``palette[i]``.
    void : the id of stray pixels, whose colour is not in ``palette``.

    Examples
    --------
    >>> table = ColourTable([(128, 0, 0), (0, 0, 64)], [1, 8], void=11)
    >>> picture = np.array([[[0, 0, 128], [64, 0, 0]]], np.uint8)  # BGR
    >>> table.ids(picture, Path("a_L.png")).tolist()
    [[1, 8]]
    """

    def __init__(self, palette: Sequence[Colour], ids: Iterable[int], void: int) -> None:
        self.void = void
        self._id_of = np.full(_COLOURS, 255, np.uint8)
        self._known = np.zeros(_COLOURS, np.bool_)
        for (red, green, blue), label in zip(palette, ids, strict=True):
            code = red << 16 | green << 8 | blue
            self._id_of[code] = label
            self._known[code] = True

    def ids(self, picture: Image, path: Path) -> Image:
        """Return the label ids of a picture.

        Parameters
        ----------
        picture : (H, W, 3) uint8 BGR.
        path : the picture's file, for the error.

        Returns
        -------
        (H, W) uint8 label ids.

        Raises
        ------
        DataError : more than one pixel in a thousand has a colour of no class.
        """
        # One number per colour: 8 bits each of red, green, blue.
        wide = picture.astype(np.int32)
        code = wide[..., 2] << 16 | wide[..., 1] << 8 | wide[..., 0]

        # Many pixels of unknown colours mean that the picture has another palette.
        known = self._known[code]
        strays = int(known.size - np.count_nonzero(known))
        if strays > _STRAY_SHARE * known.size:
            colours, counts = np.unique(code[~known], return_counts=True)
            most = int(colours[counts.argmax()])
            red = most >> 16
            green = most >> 8 & 255
            blue = most & 255
            raise DataError(
                f"{path}: a label picture with colours of no class",
                got=f"{strays} pixels, most often R {red}, G {green}, B {blue}",
                expected=f"the {int(self._known.sum())} colours of its data set",
            )

        return np.where(known, self._id_of[code], self.void).astype(np.uint8)


def read_list(path: Path) -> tuple[str, ...]:
    """Read the names of a split's frames from a list.

    Parameters
    ----------
    path : a text file with one name per line. Text after the first space, folders and suffixes are
        ignored.

    Returns
    -------
    The names, in the order of the list.

    Raises
    ------
    DataError : the file cannot be read as UTF-8 text.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: not a readable list of frames", got=type(error).__name__
        ) from error

    names: list[str] = []
    for line in lines:
        words = line.split()
        if words:
            names.append(Path(words[0]).stem)
    return tuple(names)


def require_unique(names: Sequence[str], path: Path) -> None:
    """Raise an error if a list has no name, or one name twice.

    Parameters
    ----------
    names : the names that were read.
    path : the list's file, for the error.

    Raises
    ------
    DataError : ``names`` is empty or has duplicates; the error names the first one in the alphabet.

    Examples
    --------
    >>> require_unique(["a", "b"], Path("val.txt"))
    """
    if not names:
        raise DataError(f"{path}: not a split's list", got="no names")
    if len(set(names)) < len(names):
        twice = min(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}: not a split's list", got=f"{twice} twice")
