"""A synthetic drive: a seeded street scene seen from a car, with exact CamVid-11 labels.

It has any size and length and needs no download: tests and the demo video use it. Every frame is
a function of (seed, size, time) alone, so frames can be made in any order. Scenery far from the
camera is made in chunks, which are dropped again.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from urllib.parse import parse_qsl

import cv2
import numpy as np

from edgeseg.data.base import Sample
from edgeseg.data.synthetic import backdrop, town, traffic
from edgeseg.data.synthetic.draw import Camera, Light, Pixels, View
from edgeseg.data.synthetic.textures import grain_tile
from edgeseg.errors import DataError, InputError
from edgeseg.spec import CAMVID_11, LabelSpace

__all__ = ["SyntheticDataset", "SyntheticDrive", "parse_address"]

MIN_SIDE = 16
MAX_SIDE = 4096
SPLIT_LENGTHS = {"train": 200, "val": 60, "test": 60}
_STRIDE = 5  # frames of the drive between neighbours of the data set
_FRAMES_PER_DRIVE = 25  # of the data set; then another street begins
_DRIVES = 4096  # at most, in a split
_EYE_M = 1.4  # height of the camera
_SHADOW_SIGHT_M = 75.0  # shadows further ahead are not drawn
_HORIZON = 0.47  # share of the height
_MAX_LENGTH = 10_000_000  # a week at 15 frames a second
_EXAMPLE = "synthetic://?length=90&size=480x360&seed=3&fps=15"


class SyntheticDrive:
    """Make a video with labels.

    The scene depends on ``seed`` and on the time ``i / fps`` of frame ``i``. A larger size shows
    the same scene in more detail.

    Parameters
    ----------
    length : number of frames.
    size : (H, W) in pixels, each 16 to 4096.
    seed : 0 or more; another seed is another street.
    fps : frames per second, up to 1000.

    Raises
    ------
    InputError : an argument is out of range.

    Examples
    --------
    >>> drive = SyntheticDrive(length=90, size=(48, 64), seed=3)
    >>> len(drive), drive.labels.name
    (90, 'camvid-11')
    """

    labels: LabelSpace = CAMVID_11

    def __init__(
        self,
        length: int = 300,
        size: tuple[int, int] = (360, 480),
        seed: int = 0,
        fps: float = 15.0,
    ) -> None:
        if not 1 <= length <= _MAX_LENGTH:
            raise InputError(
                "synthetic drive: length", got=length, expected=f"1 to {_MAX_LENGTH} frames"
            )
        if not all(MIN_SIDE <= side <= MAX_SIDE for side in size):
            got = f"{size[1]}x{size[0]}"
            expected = f"width and height of {MIN_SIDE}..{MAX_SIDE} pixels"
            raise InputError("synthetic drive: size", got=got, expected=expected)
        if seed < 0:
            raise InputError("synthetic drive: seed", got=seed, expected="0 or more")
        if not 0 < fps <= 1000:
            raise InputError("synthetic drive: fps", got=fps, expected="more than 0, at most 1000")

        self.length = length
        self.size = size
        self.seed = seed
        self.fps = fps

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Sample]:
        for i in range(self.length):
            yield self.frame(i)

    def frame(self, i: int) -> Sample:
        """Make one frame.

        Parameters
        ----------
        i : number of the frame, counted from 0.

        Returns
        -------
        A sample with ``image`` (H, W, 3) uint8 BGR and ``mask`` (H, W) uint8, ids 0..10.

        Raises
        ------
        IndexError : the drive has no such frame.
        """
        if not 0 <= i < self.length:
            raise IndexError(f"frame {i} of a drive of {self.length} frames")

        # The camera and the light at this time.
        time_s = i / self.fps
        ego_m = traffic.EGO_SPEED * time_s + 4.0 * float(np.sin(time_s / 4.0))
        weather = _Weather(self.seed, time_s)
        view = View(_camera(self.seed, self.size, time_s, ego_m), weather.light)

        # Everything that stands or moves, from near to far.
        items = [*town.standing(self.seed, view, ego_m), *traffic.moving(self.seed, time_s, ego_m)]
        items.sort(key=lambda item: -item.key)
        around = np.array([(item.x, item.z, item.radius, item.height_m) for item in items])
        for item, box in zip(reversed(items), reversed(view.boxes(around)), strict=True):
            if box is None or not view.hides_box(box):
                item.paint(view)

        # Sky, skyline and ground.
        backdrop.paint_sky(view, weather.cover, time_s * 0.5 + self.seed * 37.0 % 512)
        backdrop.paint_skyline(view, self.seed)
        offset = float(view.camera.position[0]) - float(town.road(self.seed).bend(ego_m))
        backdrop.paint_ground(view, town.strip(self.seed, ego_m), ego_m, offset)

        # Shadows on it, then all that stands or moves, from far to near.
        for item in items:
            if item.shadow is not None and item.key - ego_m < _SHADOW_SIGHT_M:
                item.shadow(view)
        backdrop.blend_shadows(view)
        view.render()

        image = _develop(view, weather, np.random.default_rng([self.seed, 9, i]))
        return Sample(f"synthetic_{self.seed}_{i:06d}", image, view.canvas[..., 3].copy())


class _Weather:
    """Compute the light at a time.

    Clouds veil the sun now and then; brightness and warmth drift slowly.
    """

    def __init__(self, seed: int, time_s: float) -> None:
        # The day: the same for all frames of a seed.
        rng = np.random.default_rng([seed, 4])
        phase = rng.uniform(0, 2 * np.pi, 6)
        mood = float(rng.uniform(0.15, 0.95))  # 0: a dull day, 1: a bright one
        azimuth = float(rng.uniform(-2.6, 2.6))
        elevation = float(rng.uniform(0.26, 0.75))

        # The moment.
        veil = 0.5 + 0.5 * np.sin(time_s / 6.1 + phase[0]) * np.sin(time_s / 3.7 + phase[1])
        strength = float(np.clip(mood * 1.15 - 0.55 * veil + 0.2, 0.0, 1.0))
        warmth = 0.035 * np.sin(time_s / 17.0 + phase[2]) + (0.05 if elevation < 0.4 else 0.0)
        self.cover = float(np.clip(1.1 - mood + 0.15 * np.sin(time_s / 29.0 + phase[3]), 0.0, 1.0))
        self.exposure = float(
            1.0 + 0.08 * np.sin(time_s / 5.3 + phase[4]) + 0.05 * np.sin(time_s / 1.9 + phase[5])
        )
        self.tint = np.array([1 - warmth, 1.0, 1 + warmth])

        # The sun's direction, and the light of sun and sky.
        sun = np.array(
            [
                np.sin(azimuth) * np.cos(elevation),
                np.sin(elevation),
                np.cos(azimuth) * np.cos(elevation),
            ]
        )
        sky = 0.72 - 0.12 * strength
        self.light = Light(
            sun,
            np.array([0.9, 0.98, 1.06]) * 1.05 * strength,
            np.array([1.05, 1.0, 0.97]) * sky,
            np.array([222.0, 218.0, 212.0]) * (0.86 + 0.14 * strength),
        )


def _camera(seed: int, size: tuple[int, int], time_s: float, ego_m: float) -> Camera:
    """Return the camera of a car that sways and nods a little on its lane."""
    height, width = size
    line = town.road(seed)
    nod = 0.0025 * np.sin(time_s * 5.1) + 0.002 * np.sin(time_s * 8.7 + seed)
    sway = 0.12 * float(np.sin(time_s / 2.7))
    position = line.at(ego_m, traffic.EGO_OFFSET_M + sway, _EYE_M)
    focal = max(1.15 * height, 0.6 * width)
    yaw = line.turn(ego_m) + 0.008 * float(np.sin(time_s / 2.1))
    centre = (width / 2 - 0.5, height * (_HORIZON + float(nod)) - 0.5)
    return Camera(size, position, yaw, focal, centre)


@lru_cache(maxsize=4)
def _vignette(size: tuple[int, int]) -> Pixels:
    """Return how bright the lens leaves each pixel, (H, W, 3) uint8 of 255."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in size)
    fall = 255 * (1 - 0.06 * (y[:, None] ** 2 + x[None] ** 2))
    return np.repeat(fall[..., None].astype(np.uint8), 3, axis=2)


def _develop(view: View, weather: _Weather, rng: np.random.Generator) -> Pixels:
    """Turn the canvas into the sensor's picture, (H, W, 3) uint8 BGR.

    Adds the glare of a low sun, lens blur, vignette, exposure, white balance and noise.
    """
    height, width = view.camera.size

    # The lens: glare, blur, vignette.
    image = cv2.cvtColor(view.canvas, cv2.COLOR_BGRA2BGR)
    glare = _glare(view)
    if glare is not None:
        image = cv2.add(image, glare)
    sigma = 0.55 * height / 360
    if sigma > 0.2:
        kernel = (0, 0) if sigma > 0.8 else (3, 3)  # (0, 0): OpenCV computes it from sigma
        image = cv2.GaussianBlur(image, kernel, sigma)
    image = cv2.multiply(image, _vignette(view.camera.size), scale=1 / 255)

    # Exposure and white balance; highlights roll off.
    steps = np.arange(256)[:, None] / 255 * weather.tint * weather.exposure
    curve = np.where(steps > 0.8, 0.8 + 0.2 * (1 - np.exp(-(steps - 0.8) / 0.2)), steps)
    image = cv2.LUT(image, np.rint(np.clip(curve, 0, 1) * 255).astype(np.uint8)[None])

    # Noise: a part of a tile, repeated if the frame is larger.
    tile = grain_tile()
    y, x = rng.integers(0, (120, 160)).tolist()
    noise = tile[y : y + min(height, 480), x : x + min(width, 480)]
    if noise.shape[:2] != (height, width):
        copies = (-(-height // noise.shape[0]), -(-width // noise.shape[1]), 1)
        noise = np.tile(noise, copies)[:height, :width]
    return np.asarray(cv2.addWeighted(image, 1.0, noise, 1.0, -128.0), dtype=np.uint8)


def _glare(view: View) -> Pixels | None:
    """Return the stray light of a sun in or near the frame, (H, W, 3) uint8 to be added.

    Return ``None`` if the sun is weak, or beside or behind the camera.
    """
    light = view.light
    camera = view.camera
    x, y, depth = (camera.matrix[:, :3] @ light.sun).tolist()
    strength = float(light.sun_gain.mean())
    if depth < 0.3 or strength < 0.2:
        return None

    # Computed small, 45x60, since it is smooth; lengths are in frame heights.
    height, width = camera.size
    at = np.array([x, y]) / depth / height
    rows, cols = np.mgrid[0:45, 0:60].astype(np.float32)
    away = np.hypot((cols + 0.5) / 60 * width / height - at[0], (rows + 0.5) / 45 - at[1])
    veil = strength * (95 * np.exp(-((away / 0.28) ** 2)) + 30 * np.exp(-away / 0.5))
    small = np.clip(veil[..., None] * (0.85, 0.95, 1.0), 0, 255).astype(np.uint8)
    return np.asarray(
        cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8
    )


def parse_address(text: str) -> SyntheticDrive:
    """Open a drive by its address.

    Parameters
    ----------
    text : ``synthetic://``, with ``?`` and any of the keys ``length``, ``size`` (WIDTHxHEIGHT),
        ``seed`` and ``fps`` behind it.

    Raises
    ------
    InputError : another scheme, an unknown or repeated key, or a value out of range.

    Examples
    --------
    >>> parse_address("synthetic://?length=90&size=480x360&seed=3&fps=15").size
    (360, 480)
    """
    head, _, query = text.partition("?")
    if head not in ("synthetic:", "synthetic://"):
        raise InputError(
            "not the address of a synthetic drive", got=repr(text), expected=f"such as {_EXAMPLE}"
        )

    values = {"length": 300.0, "seed": 0.0, "fps": 15.0}
    size = (360, 480)
    for key, value in _query(query):
        if key == "size":
            size = _size(value)
        else:
            values[key] = _number(key, value)
    return SyntheticDrive(int(values["length"]), size, int(values["seed"]), values["fps"])


def _query(query: str) -> list[tuple[str, str]]:
    """Return the keys and values of an address. Raise ``InputError`` for bad or repeated keys."""
    known = ("length", "size", "seed", "fps")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise InputError(
            "synthetic drive: address", got=repr(query), expected=f"such as {_EXAMPLE}"
        ) from error

    keys = [key for key, _ in pairs]
    for key in keys:
        if key not in known:
            raise InputError(
                "synthetic drive: unknown key", got=repr(key), expected=f"one of {', '.join(known)}"
            )
        if keys.count(key) > 1:
            raise InputError(
                "synthetic drive: address", got=f"{key} twice", expected="each key once"
            )
    return pairs


def _number(key: str, value: str) -> float:
    """Read the number of a key; only ``fps`` may have decimals."""
    expected = "a number" if key == "fps" else "a whole number"
    try:
        return float(value) if key == "fps" else int(value)
    except ValueError:
        raise InputError(f"synthetic drive: {key}", got=repr(value), expected=expected) from None


def _size(value: str) -> tuple[int, int]:
    """Read WIDTHxHEIGHT as (H, W)."""
    width, _, height = value.lower().partition("x")
    try:
        return int(height), int(width)
    except ValueError:
        expected = "WIDTHxHEIGHT, such as 480x360"
        raise InputError("synthetic drive: size", got=repr(value), expected=expected) from None


class SyntheticDataset:
    """Make labelled frames of several drives: every fifth frame of each.

    The splits of one seed share no street, and neither do those of different seeds.

    Parameters
    ----------
    path : the data's address after ``synthetic:``; empty, or
        ``//?length=..&size=WIDTHxHEIGHT&seed=..``.
    split : ``train``, ``val`` or ``test``.

    Raises
    ------
    DataError : unknown split.
    InputError : the address is wrong, or a value is out of range.

    Examples
    --------
    >>> data = SyntheticDataset("//?length=3&size=64x48", split="train")
    >>> data.name, len(data)
    ('synthetic/train', 3)
    """

    labels: LabelSpace = CAMVID_11

    def __init__(self, path: str = "", split: str = "val") -> None:
        if split not in SPLIT_LENGTHS:
            known = ", ".join(SPLIT_LENGTHS)
            raise DataError(
                "synthetic data: unknown split", got=repr(split), expected=f"one of {known}"
            )

        template = parse_address(f"synthetic:{path}")
        given = dict(_query(path.partition("?")[2]))
        length = template.length if "length" in given else SPLIT_LENGTHS[split]
        if length > _DRIVES * _FRAMES_PER_DRIVE:
            raise InputError(
                "synthetic data: length",
                got=length,
                expected=f"at most {_DRIVES * _FRAMES_PER_DRIVE}",
            )
        self.name = f"synthetic/{split}"

        # Every split of every seed has seeds of its own for its drives.
        number = template.seed * len(SPLIT_LENGTHS) + list(SPLIT_LENGTHS).index(split)
        first = number * _DRIVES
        count = -(-length // _FRAMES_PER_DRIVE)
        frames = _FRAMES_PER_DRIVE * _STRIDE
        seeds = range(first, first + count)
        self._drives = [SyntheticDrive(frames, template.size, seed, template.fps) for seed in seeds]

        # The drive and its frame, for every frame of the data set.
        self._places: list[tuple[int, int]] = []
        for index in range(length):
            drive, place = divmod(index, _FRAMES_PER_DRIVE)
            self._places.append((drive, place * _STRIDE))
        self.names: Sequence[str] = tuple(
            f"synthetic_{first + drive}_{frame:06d}" for drive, frame in self._places
        )

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        drive, frame = self._places[index]
        return self._drives[drive].frame(frame)
