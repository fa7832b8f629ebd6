"""Calibration sets: the frames whose activations set an INT8 net's ranges. Always real frames, named and hashed.

``resolve_set`` takes what people have (a data set, a folder, a video, the synthetic drive, a recipe) and settles which
frames of it are used, so that the same words give the same frames, and a changed picture gives another digest.
"""

import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeseg.data import READERS
from edgeseg.errors import DataError, EdgesegError, InputError
from edgeseg.quantize.frame_sources import FrameSource, SourceFrame, open_frame_source
from edgeseg.spec import LabelSpace, first_problem
from edgeseg.types import Image

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Counts = npt.NDArray[np.int64]
Choose = Literal["spread", "random", "first", "cover"]

CHOICES: tuple[str, ...] = get_args(Choose)
DEFAULT_COUNT = 100
HOW = "`calib=camvid:PATH`, a folder, a video, synthetic:// or calibration/sets/NAME.toml"
_ASPECT_TOLERANCE = 0.10  # CamVid's 4:3 frames cropped to 352x480 differ by 2 %; 16:9 against 4:3 by 33 %
_SEEN_SHARE = 1e-3  # of a frame's pixels: fewer of a class do not show it


@dataclass(frozen=True)
class CalibrationFrame:
    """One frame of a set: its name in the source, ``frame_digest`` of its pixels, its size (H, W)."""

    name: str
    sha256: str
    size: tuple[int, int]


@dataclass(frozen=True)
class CalibrationSet:
    """Which frames a net is calibrated on. It holds no pixels: they are read from the source when iterated."""

    source: str
    split: str | None
    choose: str
    seed: int
    frames: tuple[CalibrationFrame, ...]
    labels: LabelSpace | None = field(repr=False)
    indices: tuple[int, ...] = field(repr=False)
    pool: FrameSource = field(repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def digest(self) -> str:
        """SHA-256 over the frames' hashes in order: sets of the same pixels are the same, whatever their names."""
        return hashlib.sha256("\n".join(frame.sha256 for frame in self.frames).encode()).hexdigest()

    def describe(self) -> str:
        """The set in a few words, for passports and tables."""
        split = f" {self.split}" if self.split else ""
        seed = f" {self.seed}" if self.choose == "random" else ""
        return f"{self.source}{split}, {len(self)} frames ({self.choose}{seed})"

    def pictures(self) -> Iterator[SourceFrame]:
        """The frames with their names and, where the source is labelled, their masks; one at a time, in order.

        Raises ``DataError`` where a frame is no longer the one that was hashed.
        """
        read = 0
        for frame, picture in zip(self.frames, self.pool.read(self.indices), strict=False):
            if frame_digest(picture.image) != frame.sha256:
                raise self._changed(frame.name)
            read += 1
            yield picture
        if read < len(self):
            raise self._changed(self.frames[read].name)

    def images(self) -> Iterator[Image]:
        """The frames, (H, W, 3) uint8 BGR; one at a time, any number of times."""
        return (picture.image for picture in self.pictures())

    def subset(self, count: int) -> "CalibrationSet":
        """The ``count`` frames of lowest ``spread_ranks``, in order: spread evenly, and part of any larger subset."""
        ranks = spread_ranks(len(self))
        kept = [place for place in range(len(self)) if ranks[place] < count]
        frames, indices = [self.frames[place] for place in kept], [self.indices[place] for place in kept]
        return replace(self, frames=tuple(frames), indices=tuple(indices))

    def held_out(self, count: int) -> list[Image]:
        """Return ``count`` frames of the source that are not in the set, spread evenly, (H, W, 3) uint8 BGR.

        Empty if the source has fewer such frames: then nothing is held out.
        """
        taken = set(self.indices)
        left = [index for index in range(self.pool.count()) if index not in taken]
        if len(left) < count:
            return []
        chosen = [left[(2 * i + 1) * len(left) // (2 * count)] for i in range(count)]
        return [picture.image for picture in self.pool.read(chosen)]

    def aspect_warnings(self, size: tuple[int, int]) -> list[str]:
        """A sentence for every frame size whose aspect ratio is over 10 % off that of the net's input ``size`` (H, W).

        Such frames are stretched, which changes what filters respond to, and so the ranges.
        """
        wanted = size[1] / size[0]
        said = []
        for (height, width), count in sorted(Counter(frame.size for frame in self.frames).items()):
            stretch = max(width / height / wanted, wanted * height / width) - 1
            if stretch > _ASPECT_TOLERANCE:
                said.append(
                    f"{count} of {len(self)} frames are {width}x{height}, the net takes {size[1]}x{size[0]}: they are "
                    f"stretched by {100 * stretch:.0f} %, which shifts ranges unless the camera's frames are, too"
                )
        return said

    def to_dict(self) -> dict[str, object]:
        """For the passport: where the frames are from, and each one's name and hash."""
        return {
            "source": self.source,
            "split": self.split,
            "choose": self.choose,
            "seed": self.seed,
            "digest": self.digest,
            "frames": [{"name": frame.name, "sha256": frame.sha256} for frame in self.frames],
        }

    def _changed(self, name: str) -> DataError:
        return DataError(
            f"calibration set {self.source}: frame {name} is no longer the one chosen",
            hint="The source has changed meanwhile: start again.",
        )


class SetRecipe(BaseModel):
    """A calibration set as a TOML file; what is left out has ``resolve_set``'s default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str = ""
    source: str = Field(min_length=1)
    split: str | None = None
    count: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=0)
    choose: Choose | None = None


def frame_digest(image: Image) -> str:
    """SHA-256 over a frame's shape and its pixels (H, W, 3) uint8."""
    digest = hashlib.sha256("x".join(map(str, image.shape)).encode() + b":")
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def resolve_set(
    text: str | Path | None,
    *,
    split: str | None = None,
    count: int | None = None,
    seed: int | None = None,
    choose: str | None = None,
    on_frame: Callable[[int, int], None] | None = None,
) -> CalibrationSet:
    """Settle which frames a net is calibrated on.

    Parameters
    ----------
    text : a data set's address (``camvid:PATH``, ``synthetic://?...``), a folder of pictures, a picture, a video, or a
        recipe (``*.toml``). What is given beside a recipe goes before what it says.
    split : of a data set; ``train`` unless given.
    count : how many frames, 100 unless given; all of them where there are fewer.
    seed : of ``random``; 0 unless given.
    choose : ``spread`` (evenly over the source, the default), ``random``, ``first``, or ``cover`` (labelled data:
        frames that show rare classes, then spread).
    on_frame : called with (frames read, frames to read).

    Raises
    ------
    InputError, DataError : nothing given, nothing there, no frames, or a frame that cannot be decoded (it is named).
    """
    if text is None or not str(text).strip():
        raise InputError("no calibration set given", expected=HOW)
    source = str(text)
    if source.endswith(".toml"):
        recipe = load_set_recipe(Path(source))
        asked = SetRecipe.model_construct(
            source=_beside(recipe.source, Path(source).parent),
            split=split if split is not None else recipe.split,
            count=count if count is not None else recipe.count,
            seed=seed if seed is not None else recipe.seed,
            choose=choose if choose is not None else recipe.choose,
        )
        try:
            return _resolve(asked, on_frame)
        except EdgesegError as error:
            hint = error.hint or "Is the data somewhere else? Give its own address: `calib=camvid:PATH`, say."
            raise type(error)(f"{source}: {error.what}", got=error.got, expected=error.expected, hint=hint) from error
    return _resolve(
        SetRecipe.model_construct(source=source, split=split, count=count, seed=seed, choose=choose), on_frame
    )


def load_set_recipe(path: Path) -> SetRecipe:
    """Read and check a recipe of a calibration set. Raises ``InputError`` with the first thing wrong in it."""
    if not path.is_file():
        raise InputError("no such calibration set", got=repr(str(path)), hint="Recipes are calibration/sets/*.toml.")
    try:
        return SetRecipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: not a readable TOML file", got=str(error).splitlines()[0]) from error
    except ValidationError as error:
        raise InputError(f"{path}: not the recipe of a calibration set", got=first_problem(error)) from error


def _beside(source: str, folder: Path) -> str:
    """A recipe's source; a relative path that is not in the current folder is looked for beside the recipe."""
    scheme, _, rest = source.partition(":")
    reader, name = (f"{scheme}:", rest) if scheme in READERS else ("", source)
    path = Path(name)
    missing = bool(name) and not name.startswith("//") and not path.is_absolute() and not path.exists()
    return f"{reader}{folder / path}" if missing and (folder / path).exists() else source


def _resolve(asked: SetRecipe, on_frame: Callable[[int, int], None] | None) -> CalibrationSet:
    count = DEFAULT_COUNT if asked.count is None else asked.count
    seed = asked.seed or 0
    choose = asked.choose or "spread"
    if count < 1:
        raise InputError("calibration set: number of frames", got=count, expected="1 or more")
    if seed < 0:
        raise InputError("calibration set: seed", got=seed, expected="0 or more")
    if choose not in CHOICES:
        raise InputError("calibration set: way to choose frames", got=repr(choose), expected=", ".join(CHOICES))
    if asked.source.endswith(".toml"):
        raise InputError("calibration set: a recipe within a recipe", got=asked.source, expected=HOW)
    pool = open_frame_source(asked.source, asked.split)
    if choose == "cover" and pool.labels is None:
        raise InputError(
            f"{asked.source}: cover needs labels", got="frames alone", hint="Give `choose=spread` or labelled data."
        )
    while True:
        total = pool.count()
        if not total:
            raise DataError(f"{asked.source}: no frames to calibrate on", hint=f"Give another set: {HOW}.")
        classes = class_counts(pool, on_frame) if choose == "cover" else None
        indices = positions(total, min(count, total), choose, seed, classes)
        frames = tuple(_hashed(pool, indices, on_frame))
        if len(frames) == len(indices):
            return CalibrationSet(asked.source, pool.split, choose, seed, frames, pool.labels, indices, pool)
        # a video whose container promised more frames than it has: the pool has counted them now


def _hashed(
    pool: FrameSource, indices: Sequence[int], on_frame: Callable[[int, int], None] | None
) -> Iterator[CalibrationFrame]:
    for done, picture in enumerate(pool.read(indices), 1):
        height, width = picture.image.shape[:2]
        yield CalibrationFrame(picture.name, frame_digest(picture.image), (height, width))
        if on_frame:
            on_frame(done, len(indices))


def class_counts(pool: FrameSource, on_frame: Callable[[int, int], None] | None = None) -> Counts:
    """Pixels of every class in every frame of a labelled pool: (frames, classes) int64, void left out."""
    assert pool.labels is not None
    total, classes = pool.count(), len(pool.labels)
    rows = np.zeros((total, classes), np.int64)
    for place, picture in enumerate(pool.read(range(total))):
        assert picture.mask is not None
        rows[place] = np.bincount(picture.mask.ravel(), minlength=256)[:classes]
        if on_frame:
            on_frame(place + 1, total)
    return rows


def positions(total: int, count: int, choose: str, seed: int = 0, classes: Counts | None = None) -> tuple[int, ...]:
    """Which ``count`` of ``total`` frames, rising. ``classes`` (``class_counts``) is what ``cover`` goes by."""
    if choose == "first":
        return tuple(range(count))
    if choose == "random":
        return tuple(sorted(np.random.default_rng(seed).choice(total, count, replace=False).tolist()))
    if choose == "cover" and classes is not None:
        return _cover(classes, count)
    return tuple((2 * i + 1) * total // (2 * count) for i in range(count))  # the middles of equal stretches


def _cover(classes: Counts, count: int) -> tuple[int, ...]:
    """Half the frames go to the classes in equal parts, rarest first; the others fill the widest gaps between them.

    A class's next frame is the one where ``its pixels * distance to the frames chosen`` is largest, the distance capped
    at that of an even spread: neighbours in a drive show the same thing twice.
    """
    total = len(classes)
    shown = classes > _SEEN_SHARE * classes.sum(axis=1, keepdims=True)
    frames_of = shown.sum(axis=0)
    present = [c for c in np.argsort(frames_of, kind="stable").tolist() if frames_of[c]]
    quota = -(-count // (2 * max(len(present), 1)))
    gap = np.full(total, total, np.int64)  # distance of every frame to the nearest one chosen; 0: chosen itself
    chosen: list[int] = []

    def take(place: int) -> None:
        chosen.append(place)
        np.minimum(gap, np.abs(np.arange(total) - place), out=gap)

    for c in present:
        while len(chosen) < count and int(shown[chosen, c].sum()) < min(quota, int(frames_of[c])):
            worth = classes[:, c] * np.minimum(gap, -(-total // count)) * shown[:, c]
            if not worth.any():
                break
            take(int(worth.argmax()))
    while len(chosen) < count:
        take(int(gap.argmax()))
    return tuple(sorted(chosen))


def spread_ranks(total: int) -> list[int]:
    """A rank for each of ``total`` places such that the places of the lowest ranks are always spread evenly.

    The van der Corput sequence in base 2 (bits of the counter mirrored), without its repetitions on ``total`` places.
    """
    bits = max(total - 1, 1).bit_length()
    ranks: dict[int, int] = {}
    for counter in range(1 << bits):
        mirrored = int(f"{counter:0{bits}b}"[::-1], 2)
        ranks.setdefault((2 * mirrored + 1) * total >> (bits + 1), len(ranks))
    return [ranks[place] for place in range(total)]
