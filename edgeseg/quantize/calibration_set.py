"""Choose the frames that an INT8 network is calibrated on: always real frames, named and hashed.

The activations on these frames set the ranges of the INT8 network. ``resolve_set`` takes a data
set, a folder, a video, the synthetic drive or a recipe, and chooses frames of it. The same
arguments give the same frames, and a changed picture gives another digest.
"""

import hashlib
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeseg.data import READERS
from edgeseg.data.sampling import spread
from edgeseg.errors import DataError, EdgesegError, InputError
from edgeseg.quantize.frame_sources import FrameSource, SourceFrame, open_frame_source
from edgeseg.reporter import SILENT, Reporter, track
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

# Limits of a set and of the source that it is chosen from. Ranges hardly change above 1,000 frames.
MOST_FRAMES = 100_000
MOST_SOURCE_FRAMES = 10_000_000

# Largest difference of aspect ratios that gives no warning. CamVid's 4:3 frames cropped to 352x480
# differ by 2 %; 16:9 differs from 4:3 by 33 %.
_ASPECT_TOLERANCE = 0.10
# A frame shows a class if the class has more than this share of the frame's pixels.
_SEEN_SHARE = 1e-3


@dataclass(frozen=True)
class CalibrationFrame:
    """Identify one frame of a set.

    Attributes
    ----------
    name : the frame's name in its source.
    sha256 : ``frame_digest`` of its pixels.
    size : (H, W).
    """

    name: str
    sha256: str
    size: tuple[int, int]


@dataclass(frozen=True)
class CalibrationSet:
    """Hold the names and hashes of the frames that a network is calibrated on.

    It holds no pixels: iteration reads them from the source.

    Attributes
    ----------
    source : the frame source as ``resolve_set`` takes it.
    split : split of a data set, or ``None``.
    choose : how the frames were chosen, one of ``CHOICES``.
    seed : seed of the choice ``random``.
    frames : the frames, in the order of the source.
    labels : label space of the masks; ``None`` if the source has no masks.
    indices : index of each frame in the source.
    pool : the open frame source.

    Examples
    --------
    >>> from edgeseg.quantize.frame_sources import ImageFiles
    >>> frames = tuple(CalibrationFrame(f"{i}.png", 64 * str(i), (360, 480)) for i in range(4))
    >>> found = CalibrationSet(
    ...     "drive", None, "first", 0, frames, None, (0, 1, 2, 3), ImageFiles([])
    ... )
    >>> found.describe(), found.subset(2).indices
    ('drive, 4 frames (first)', (0, 2))
    """

    source: str
    split: str | None
    choose: str
    seed: int
    frames: tuple[CalibrationFrame, ...]
    labels: LabelSpace | None = field(repr=False)
    indices: tuple[int, ...] = field(repr=False)
    pool: FrameSource = field(repr=False, compare=False)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.frames)

    @property
    def digest(self) -> str:
        """Return the SHA-256 over the frames' hashes, in order.

        Names do not count: two sets of the same pixels have the same digest.
        """
        hashes = "\n".join(frame.sha256 for frame in self.frames)
        return hashlib.sha256(hashes.encode()).hexdigest()

    def describe(self) -> str:
        """Return the set in a few words, for passports and tables."""
        split = f" {self.split}" if self.split else ""
        seed = f" {self.seed}" if self.choose == "random" else ""
        return f"{self.source}{split}, {len(self)} frames ({self.choose}{seed})"

    def pictures(self) -> Iterator[SourceFrame]:
        """Read the frames with their names and masks, one at a time, in order.

        Frames of a source without labels have no masks.

        Raises
        ------
        DataError : a frame has changed since it was hashed.
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
        """Read the frames, (H, W, 3) uint8 BGR, one at a time; each call reads them again.

        Raises
        ------
        DataError : a frame has changed since it was hashed.
        """
        return (picture.image for picture in self.pictures())

    def subset(self, count: int) -> "CalibrationSet":
        """Return evenly spread frames of the set, in order.

        These are the frames of lowest ``spread_ranks``, so every subset is part of any larger one.

        Parameters
        ----------
        count : number of frames; all of them if the set has no more.
        """
        ranks = spread_ranks(len(self))
        kept = [place for place in range(len(self)) if ranks[place] < count]
        return replace(
            self,
            frames=tuple(self.frames[place] for place in kept),
            indices=tuple(self.indices[place] for place in kept),
        )

    def held_out(self, count: int) -> list[Image]:
        """Read frames of the source that are not in the set, spread evenly, (H, W, 3) uint8 BGR.

        Parameters
        ----------
        count : number of frames.

        Returns
        -------
        The frames; an empty list if the source has fewer than ``count`` frames outside the set.
        """
        taken = set(self.indices)
        left = [index for index in range(self.pool.count()) if index not in taken]
        if len(left) < count:
            return []

        chosen = [left[place] for place in spread(len(left), count)]
        return [picture.image for picture in self.pool.read(chosen)]

    def aspect_warnings(self, size: tuple[int, int]) -> list[str]:
        """Return a warning for each frame size of another aspect ratio than the network's input.

        Ratios that differ by at most 10 % give no warning. Other frames are stretched. That changes
        the response of the filters, and so the ranges.

        Parameters
        ----------
        size : (H, W) of the network's input.
        """
        wanted = size[1] / size[0]
        sizes = Counter(frame.size for frame in self.frames)

        warnings = []
        for (height, width), count in sorted(sizes.items()):
            stretch = max(width / height / wanted, wanted * height / width) - 1
            if stretch > _ASPECT_TOLERANCE:
                warnings.append(
                    f"{count} of {len(self)} frames are {height}x{width} (HxW), the network's "
                    f"input is {size[0]}x{size[1]}: they are stretched by {100 * stretch:.0f} %, "
                    "which changes the ranges unless the camera's frames are stretched, too"
                )
        return warnings

    def to_dict(self) -> dict[str, object]:
        """Return plain values for the passport: the source, and the name and hash of each frame."""
        return {
            "source": self.source,
            "split": self.split,
            "choose": self.choose,
            "seed": self.seed,
            "digest": self.digest,
            "frames": [{"name": frame.name, "sha256": frame.sha256} for frame in self.frames],
        }

    def _changed(self, name: str) -> DataError:
        """Return the error for a frame that is not the hashed one."""
        return DataError(
            f"calibration set {self.source}: frame {name} is no longer the one chosen",
            hint="The source has changed since: start again.",
        )


class SetRecipe(BaseModel):
    """Describe a calibration set, as its TOML file does; ``None`` means ``resolve_set``'s default.

    Attributes
    ----------
    about : a description for people.
    source : a data set's address, a folder, a picture or a video. A relative path that is not in
        the current folder is looked for in the recipe's folder.
    split, count, seed, choose : as for ``resolve_set``.

    Examples
    --------
    >>> SetRecipe(source="camvid:data/camvid", count=50).count
    50
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str = ""
    source: str = Field(min_length=1)
    split: str | None = None
    count: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=0)
    choose: Choose | None = None


def frame_digest(image: Image) -> str:
    """Return the SHA-256 over a frame's shape and its pixels.

    Parameters
    ----------
    image : (H, W, 3) uint8 BGR.

    Examples
    --------
    >>> frame = np.zeros((2, 3, 3), np.uint8)
    >>> frame_digest(frame) == frame_digest(frame.copy())
    True
    >>> frame_digest(frame) == frame_digest(frame.reshape(3, 2, 3))
    False
    """
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
    reporter: Reporter = SILENT,
) -> CalibrationSet:
    """Choose the frames that a network is calibrated on.

    Parameters
    ----------
    text : a data set's address (``camvid:PATH``, ``synthetic://?...``), a folder of pictures, a
        picture, a video, or a recipe (``*.toml``). The other arguments override a recipe's values.
    split : split of a data set; ``train`` by default.
    count : number of frames, 100 by default; all frames if the source has fewer.
    seed : seed of ``random``; 0 by default.
    choose : ``spread`` (evenly over the source, the default), ``random``, ``first``, or ``cover``
        (for labelled data: frames that show rare classes, then evenly spread ones).
    reporter : receives the progress of reading frames.

    Raises
    ------
    InputError : no source is given, it does not exist, an argument is out of range, or a frame
        cannot be decoded (the error names it).
    DataError : the source has no frames.
    """
    if text is None or not str(text).strip():
        raise InputError("no calibration set given", expected=HOW)

    # A source without a recipe.
    source = str(text)
    given: dict[str, Any] = {"split": split, "count": count, "seed": seed, "choose": choose}
    if not source.endswith(".toml"):
        return _resolve(SetRecipe.model_construct(source=source, **given), reporter)

    # A recipe, with arguments instead of its values.
    recipe = load_set_recipe(Path(source))
    changed = {name: value for name, value in given.items() if value is not None}
    changed["source"] = _beside(recipe.source, Path(source).parent)
    try:
        return _resolve(recipe.model_copy(update=changed), reporter)
    except EdgesegError as error:
        hint = error.hint or "If the data is somewhere else, give its address: `calib=camvid:PATH`."
        raise type(error)(
            f"{source}: {error.what}", got=error.got, expected=error.expected, hint=hint
        ) from error


def load_set_recipe(path: Path) -> SetRecipe:
    """Read and check the recipe of a calibration set.

    Parameters
    ----------
    path : a TOML file.

    Raises
    ------
    InputError : there is no such file, or it is not a recipe; the error names the first problem.
    """
    if not path.is_file():
        raise InputError(
            "no such calibration set",
            got=repr(str(path)),
            hint="Recipes are calibration/sets/*.toml.",
        )
    try:
        return SetRecipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"{path}: not a readable TOML file", got=str(error).splitlines()[0]
        ) from error
    except ValidationError as error:
        raise InputError(
            f"{path}: not the recipe of a calibration set", got=first_problem(error)
        ) from error


def _beside(source: str, folder: Path) -> str:
    """Return a recipe's source, found in the current folder or else beside the recipe."""
    # Divide `camvid:PATH` into its reader and its path.
    reader = ""
    name = source
    scheme, _, rest = source.partition(":")
    if scheme in READERS:
        reader = f"{scheme}:"
        name = rest
    if not name or name.startswith("//"):
        return source

    path = Path(name)
    if path.is_absolute() or path.exists() or not (folder / path).exists():
        return source
    return f"{reader}{folder / path}"


def _resolve(recipe: SetRecipe, reporter: Reporter) -> CalibrationSet:
    """Choose and hash the frames of an unchecked recipe."""
    count = DEFAULT_COUNT if recipe.count is None else recipe.count
    seed = recipe.seed or 0
    choose = recipe.choose or "spread"
    _require_choice(recipe.source, count, seed, choose)

    pool = open_frame_source(recipe.source, recipe.split)
    if choose == "cover" and pool.labels is None:
        raise InputError(
            f"{recipe.source}: `choose=cover` needs labels",
            got="frames without labels",
            hint="Give `choose=spread`, or labelled data.",
        )

    while True:
        total = pool.count()
        if not total:
            raise DataError(
                f"{recipe.source}: no frames to calibrate on", hint=f"Give another set: {HOW}."
            )
        if total > MOST_SOURCE_FRAMES:  # a damaged video may say anything
            raise DataError(
                f"{recipe.source}: says that it has too many frames",
                got=f"{total:,}",
                expected=f"at most {MOST_SOURCE_FRAMES:,}",
            )
        classes = class_counts(pool, reporter) if choose == "cover" else None
        indices = positions(total, min(count, total), choose, seed, classes)
        frames = tuple(_hashed(pool, indices, reporter))
        if len(frames) == len(indices):
            return CalibrationSet(
                recipe.source, pool.split, choose, seed, frames, pool.labels, indices, pool
            )
        # The video has fewer frames than its container says. The source has counted them now, so
        # choose again.


def _require_choice(source: str, count: int, seed: int, choose: str) -> None:
    """Raise ``InputError`` if an argument of ``resolve_set`` or a value of its recipe is wrong."""
    if not 1 <= count <= MOST_FRAMES:
        raise InputError(
            "calibration set: number of frames", got=count, expected=f"1 to {MOST_FRAMES:,}"
        )
    if seed < 0:
        raise InputError("calibration set: seed", got=seed, expected="0 or more")
    if choose not in CHOICES:
        raise InputError(
            "calibration set: way to choose frames", got=repr(choose), expected=", ".join(CHOICES)
        )
    if source.endswith(".toml"):
        raise InputError("calibration set: a recipe within a recipe", got=source, expected=HOW)


def _hashed(
    pool: FrameSource, indices: Sequence[int], reporter: Reporter
) -> Iterator[CalibrationFrame]:
    """Read frames and yield their names, hashes and sizes."""
    for picture in track(pool.read(indices), "read frames", reporter, len(indices)):
        height, width = picture.image.shape[:2]
        yield CalibrationFrame(picture.name, frame_digest(picture.image), (height, width))


def class_counts(pool: FrameSource, reporter: Reporter = SILENT) -> Counts:
    """Count the pixels of each class in each frame of a labelled source.

    Parameters
    ----------
    pool : a frame source with masks.
    reporter : receives the progress over the frames.

    Returns
    -------
    (frames, classes) int64; void pixels are not counted.
    """
    assert pool.labels is not None
    total = pool.count()
    classes = len(pool.labels)
    rows = np.zeros((total, classes), np.int64)
    for place, picture in enumerate(
        track(pool.read(range(total)), "count classes", reporter, total)
    ):
        assert picture.mask is not None
        rows[place] = np.bincount(picture.mask.ravel(), minlength=256)[:classes]
    return rows


def positions(
    total: int, count: int, choose: str, seed: int = 0, classes: Counts | None = None
) -> tuple[int, ...]:
    """Return the indices of the chosen frames, in rising order.

    Parameters
    ----------
    total : number of frames in the source.
    count : number of frames to choose, at most ``total``.
    choose : one of ``CHOICES``.
    seed : seed of ``random``.
    classes : what ``class_counts`` returns; only ``cover`` uses it, and without it chooses as
        ``spread``.

    Examples
    --------
    >>> positions(100, 4, "spread")
    (12, 37, 62, 87)
    >>> positions(100, 4, "first")
    (0, 1, 2, 3)
    """
    if choose == "first":
        return tuple(range(count))
    if choose == "random":
        chosen = np.random.default_rng(seed).choice(total, count, replace=False)
        return tuple(sorted(chosen.tolist()))
    if choose == "cover" and classes is not None:
        return _cover(classes, count)
    return tuple(spread(total, count))


def _cover(classes: Counts, count: int) -> tuple[int, ...]:
    """Choose half of the frames for the classes, rarest first, and the rest in the widest gaps.

    The classes get equal parts of the first half. The next frame of a class is the one with the
    largest product of the class's pixels and the distance to the chosen frames. The distance is
    capped at that of an even spread. It counts because neighbours in a drive show the same thing
    twice.
    """
    # How many frames show each class, and how many are to be chosen for it.
    total = len(classes)
    shown = classes > _SEEN_SHARE * classes.sum(axis=1, keepdims=True)
    frames_of = shown.sum(axis=0)
    present = [c for c in np.argsort(frames_of, kind="stable").tolist() if frames_of[c]]
    quota = -(-count // (2 * max(len(present), 1)))
    even_gap = -(-total // count)

    # Distance of every frame to the nearest chosen one; 0 for a chosen frame.
    gap = np.full(total, total, np.int64)
    chosen: list[int] = []

    def take(place: int) -> None:
        chosen.append(place)
        np.minimum(gap, np.abs(np.arange(total) - place), out=gap)

    # Frames that show rare classes.
    for c in present:
        wanted = min(quota, int(frames_of[c]))
        while len(chosen) < count and int(shown[chosen, c].sum()) < wanted:
            worth = classes[:, c] * np.minimum(gap, even_gap) * shown[:, c]
            if not worth.any():
                break
            take(int(worth.argmax()))

    # Frames in the widest gaps.
    while len(chosen) < count:
        take(int(gap.argmax()))
    return tuple(sorted(chosen))


def spread_ranks(total: int) -> list[int]:
    """Return a rank for each place, so that the places of the lowest ranks are spread evenly.

    The ranks follow the van der Corput sequence in base 2 (the bits of a counter, mirrored).
    Numbers that repeat a place are left out.

    Parameters
    ----------
    total : number of places.

    Examples
    --------
    >>> spread_ranks(4)
    [0, 2, 1, 3]
    """
    bits = max(total - 1, 1).bit_length()
    ranks: dict[int, int] = {}
    for counter in range(1 << bits):
        mirrored = int(f"{counter:0{bits}b}"[::-1], 2)
        ranks.setdefault((2 * mirrored + 1) * total >> (bits + 1), len(ranks))
    return [ranks[place] for place in range(total)]
