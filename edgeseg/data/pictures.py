"""Reading frames and label pictures from files."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.errors import DataError
from edgeseg.spec import Colour

Image = npt.NDArray[np.uint8]

FRAME_SUFFIXES = (".png", ".jpg", ".jpeg")
# Label pictures were drawn with one brush a class; a few stray pixels are void, more are another palette.
_STRAY_SHARE = 1e-3


def read_frame(path: Path) -> Image:
    """(H, W, 3) uint8 BGR. Raises ``DataError``."""
    return _read(path, cv2.IMREAD_COLOR)


def read_raw(path: Path) -> Image:
    """A picture as it is stored, (H, W) or (H, W, channels) uint8; a palette is resolved to its colours, BGR."""
    picture = _read(path, cv2.IMREAD_UNCHANGED)
    return picture[..., :3] if picture.ndim == 3 else picture


def _read(path: Path, flag: int) -> Image:
    picture = cv2.imread(str(path), flag) if path.is_file() else None
    if picture is None:
        raise DataError(f"{path}: cannot be read as a picture", got="no such file" if not path.is_file() else "damaged")
    return picture.astype(np.uint8, copy=False)


def require_same_size(mask: Image, image: Image, path: Path) -> None:
    """Raise ``DataError`` where a label map and its frame differ in height or width."""
    if mask.shape[:2] != image.shape[:2]:
        raise DataError(f"{path}: its size differs from its frame's", got=mask.shape[:2], expected=image.shape[:2])


def frames_in(folder: Path) -> dict[str, Path]:
    """The PNG and JPEG files of a folder by name without suffix, sorted."""
    return {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in FRAME_SUFFIXES}


class ColourTable:
    """Label ids of colour-coded pictures: ``palette[i]`` (R, G, B) is id ``ids[i]``; void colours give ``void``."""

    def __init__(self, palette: Sequence[Colour], ids: Iterable[int], void: int) -> None:
        self.void = void
        self._id_of = np.full(1 << 24, 255, np.uint8)
        self._known = np.zeros(1 << 24, np.bool_)
        for (r, g, b), label in zip(palette, ids, strict=True):
            self._id_of[r << 16 | g << 8 | b] = label
            self._known[r << 16 | g << 8 | b] = True

    def ids(self, picture: Image, path: Path) -> Image:
        """(H, W) uint8 ids of a picture (H, W, 3) uint8 BGR. Raises ``DataError`` where it is another palette's."""
        wide = picture.astype(np.int32)
        code = wide[..., 2] << 16 | wide[..., 1] << 8 | wide[..., 0]
        known = self._known[code]
        strays = int(known.size - np.count_nonzero(known))
        if strays > _STRAY_SHARE * known.size:
            colours, counts = np.unique(code[~known], return_counts=True)
            most = int(colours[counts.argmax()])
            raise DataError(
                f"{path}: a label picture with colours of no class",
                got=f"{strays} pixels, most often R {most >> 16}, G {most >> 8 & 255}, B {most & 255}",
                expected=f"the {int(self._known.sum())} colours of its data set",
            )
        return np.where(known, self._id_of[code], self.void).astype(np.uint8)


def read_list(path: Path) -> tuple[str, ...]:
    """The names in a split's list, one a line: what stands before a space, without folder and suffix."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable list of frames", got=type(error).__name__) from error
    first = (line.split()[0] for line in lines if line.split())
    return tuple(Path(name).stem for name in first)


def require_unique(names: Sequence[str], path: Path) -> None:
    """Raise ``DataError`` where a list names no frame, or one twice."""
    twice = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
    if not names or twice:
        raise DataError(f"{path}: not a split's list", got=f"{twice[0]} twice" if twice else "no names")
