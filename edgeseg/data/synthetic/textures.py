"""Make pictures from numbers: facades, roofs, foliage, fences, asphalt, clouds.

They are made once per process and are always the same. All are (h, w, 4) uint8, BGR and opacity,
except the grey tiles, which repeat without a seam.
"""

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.data.synthetic.draw import Pixels, Texture

Grey = npt.NDArray[np.float32]
Colour = tuple[int, int, int]

_BANK_SEED = 20090107
_PER_METRE = 26
_BRICKS: tuple[Colour, ...] = (
    (62, 78, 118),
    (104, 130, 148),
    (78, 88, 102),
    (64, 72, 94),
    (116, 136, 146),
    (88, 96, 104),
)
_RENDERS: tuple[Colour, ...] = (
    (206, 210, 212),
    (176, 192, 200),
    (186, 188, 186),
    (166, 182, 194),
    (140, 146, 150),
)
_STONES: tuple[Colour, ...] = ((112, 132, 144), (120, 126, 130), (96, 108, 116))
_FASCIAS: tuple[Colour, ...] = (
    (44, 62, 36),
    (96, 48, 34),
    (38, 36, 116),
    (40, 40, 40),
    (104, 98, 60),
    (150, 156, 156),
    (60, 40, 66),
)
_WALLS = {
    "brick": _BRICKS,
    "render": _RENDERS,
    "stone": _STONES,
    "office": _STONES,
    "shop": _BRICKS + _RENDERS,
}
_WORDS = (
    "BAKERY",
    "BOOKS",
    "CAFE",
    "FLOWERS",
    "TAILOR",
    "CHEMIST",
    "CYCLES",
    "GROCER",
    "BANK",
    "SHOES",
    "THE BELL",
)


def smooth_noise(
    rng: np.random.Generator, size: tuple[int, int], cells: int, octaves: int = 3
) -> Grey:
    """Return seamless noise of about zero mean and unit deviation, float32.

    Parameters
    ----------
    rng : source of the numbers.
    size : (h, w) in pixels.
    cells : number of bumps per side in the lowest octave.
    octaves : number of octaves; each has twice the bumps of the one before.

    Examples
    --------
    >>> smooth_noise(np.random.default_rng(0), (32, 64), cells=4).shape
    (32, 64)
    """
    total = np.zeros(size, np.float32)
    for octave in range(octaves):
        n = cells << octave
        pad = 2
        grid = np.pad(rng.standard_normal((n, n)).astype(np.float32), pad, mode="wrap")

        # Enlarge the grid with a margin, and cut the margin off.
        wide = (size[1] * (n + 2 * pad) // n, size[0] * (n + 2 * pad) // n)
        grown = cv2.resize(grid, wide, interpolation=cv2.INTER_CUBIC)
        y = size[0] * pad // n
        x = size[1] * pad // n
        total += grown[y : y + size[0], x : x + size[1]] * 0.55**octave
    return np.asarray((total - total.mean()) / (total.std() + 1e-6), dtype=np.float32)


@lru_cache(maxsize=1)
def asphalt_tile() -> Grey:
    """Return the grain of 4 m of road, (513, 513) float32 of about zero mean."""
    rng = np.random.default_rng([_BANK_SEED, 1])
    grain = rng.standard_normal((512, 512)).astype(np.float32)
    soft = cv2.GaussianBlur(np.pad(grain, 8, mode="wrap"), (0, 0), 1.2)[8:-8, 8:-8]
    uneven = smooth_noise(rng, (512, 512), 16, 2) * 0.4
    return _repeating(np.asarray(soft / soft.std() * 0.75 + uneven))


@lru_cache(maxsize=1)
def stain_tile() -> Grey:
    """Return patches, seams and wear of a road, (1025, 257) float32 of about zero mean.

    The tile covers 48 m along the road and 12 m across.
    """
    rng = np.random.default_rng([_BANK_SEED, 2])
    tile = smooth_noise(rng, (1024, 256), 8, 4) * 0.6

    # Repaired trenches.
    for _ in range(14):
        y = int(rng.integers(0, 960))
        x = int(rng.integers(0, 200))
        h = int(rng.integers(20, 150))
        w = int(rng.integers(12, 50))
        tile[y : y + h, x : x + w] += float(rng.uniform(-1.5, 1.0))

    # Manholes.
    for _ in range(8):
        centre = (int(rng.integers(20, 236)), int(rng.integers(20, 1000)))
        cv2.ellipse(tile, centre, (7, 8), 0, 0, 360, -3.0, -1)
        cv2.ellipse(tile, centre, (7, 8), 0, 0, 360, 1.0, 1)

    # Cracks.
    for _ in range(26):
        steps = rng.standard_normal((12, 2)) * (5, 14) + (0, 8)
        path = np.cumsum(steps, axis=0) + rng.uniform(0, 1, 2) * (256, 1024)
        cv2.polylines(tile, [path.astype(np.int32)], False, -1.8, 1)
    return _repeating(np.asarray(cv2.GaussianBlur(tile, (3, 3), 0)))


@lru_cache(maxsize=1)
def cloud_tile() -> Grey:
    """Return the cover of cloud, (513, 513) float32, 0..1."""
    rng = np.random.default_rng([_BANK_SEED, 3])
    cover = np.clip(smooth_noise(rng, (512, 512), 4, 6) * 0.32 + 0.5, 0, 1)
    return _repeating(np.asarray(cover))


@lru_cache(maxsize=1)
def grain_tile() -> Pixels:
    """Return the sensor's noise, (600, 640, 3) uint8 around 128.

    Every frame takes a window of it at random.
    """
    rng = np.random.default_rng([_BANK_SEED, 4])
    grey = rng.standard_normal((600, 640, 1)) * 2.2 + rng.standard_normal((600, 640, 3)) * 1.6
    return np.clip(np.rint(128 + grey), 0, 255).astype(np.uint8)


def _repeating(tile: Grey) -> Grey:
    """Add the first row and column at the end, so that a sample between the two finds both."""
    return np.asarray(np.pad(tile, ((0, 1), (0, 1)), mode="wrap"), dtype=np.float32)


def _wall(rng: np.random.Generator, rows: int, cols: int, colour: Colour, courses: bool) -> Grey:
    """Return a wall without openings, (rows, cols, 3) BGR; ``courses``: of bricks."""
    rough = smooth_noise(rng, (rows, cols), 4, 4) * 0.07
    rough = rough + rng.standard_normal((rows, cols)).astype(np.float32) * 0.05
    if courses:
        bricks = rng.standard_normal((rows // 2 + 1, cols // 5 + 1)).astype(np.float32)
        course = np.repeat(bricks, 2, axis=0)[:rows]
        rough = rough + np.repeat(course, 5, axis=1)[:, :cols] * 0.07
        rough[::4] -= 0.06

    # Darker at the foot.
    damp = np.linspace(0.05, -0.14, rows, dtype=np.float32)[:, None] ** 3 * 40
    wall = np.array(colour, np.float32) * (1 + rough + damp)[..., None]
    return np.asarray(wall, dtype=np.float32)


def _rect(picture: Grey, x: float, y: float, w: float, h: float, colour: npt.ArrayLike) -> None:
    """Fill a rectangle; x and y of its lower left corner from the picture's, metres."""
    rows = picture.shape[0]
    x0 = round(x * _PER_METRE)
    x1 = round((x + w) * _PER_METRE)
    y0 = rows - round((y + h) * _PER_METRE)
    y1 = rows - round(y * _PER_METRE)
    picture[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = colour


def _window(
    rng: np.random.Generator, wall: Grey, x: float, y: float, w: float, h: float, frame: Colour
) -> None:
    """Put a window into a wall; x and y of its lower left corner, metres."""
    row = wall.shape[0] - 1 - round(y * _PER_METRE) % wall.shape[0]
    base = wall[row, round(x * _PER_METRE) % wall.shape[1]]
    _rect(wall, x - 0.08, y + h, w + 0.16, 0.2, base * 1.18 + 8)  # lintel
    _rect(wall, x - 0.1, y - 0.12, w + 0.2, 0.12, base * 1.25 + 14)  # sill
    _rect(wall, x - 0.04, y + h - 0.05, w + 0.08, 0.1, base * 0.5)
    _rect(wall, x, y, w, h, frame)

    # Panes; some reflect the sky.
    shine = float(rng.uniform(0.5, 1.5))
    panes = 2 if w > 0.8 else 1
    pane_w = (w - 0.08 * (panes + 1)) / panes
    pane_h = (h - 0.24) / 2
    for i in range(panes):
        for j in range(2):
            dark = np.array((34, 31, 28), np.float32) * shine * float(rng.uniform(0.7, 1.3))
            sky = np.array((58, 52, 44), np.float32) if rng.random() < 0.22 else 0
            at_x = x + 0.08 + i * (pane_w + 0.08)
            at_y = y + 0.08 + j * (pane_h + 0.08)
            _rect(wall, at_x, at_y, pane_w, pane_h, dark + sky)

    # Curtains.
    if rng.random() < 0.35:
        _rect(wall, x + 0.08, y + 0.1, 0.16, h - 0.2, (120, 130, 140))
        _rect(wall, x + w - 0.24, y + 0.1, 0.16, h - 0.2, (120, 130, 140))


def _shop(rng: np.random.Generator, wall: Grey, width: float) -> None:
    """Put a shop front into a wall: windows, a door, and a name above them."""
    fascia = np.array(_FASCIAS[int(rng.integers(len(_FASCIAS)))], np.float32)
    _rect(wall, 0.1, 0.0, width - 0.2, 3.3, fascia * 0.8)
    _rect(wall, 0.15, 2.55, width - 0.3, 0.7, fascia)
    _rect(wall, 0.0, 3.25, width, 0.12, (150, 152, 150))

    # A window on each side of the door.
    door = float(rng.uniform(0.25, width - 1.6))
    for x, w in ((0.3, door - 0.5), (door + 1.2, width - door - 1.5)):
        if w >= 0.5:
            _shop_window(rng, wall, x, w, fascia)
    _rect(wall, door, 0.0, 1.0, 2.4, (30, 30, 32))
    _rect(wall, door + 0.15, 0.9, 0.7, 1.4, (70, 66, 60))

    # The name.
    word = _WORDS[int(rng.integers(len(_WORDS)))]
    at = (round(width * 0.2 * _PER_METRE), wall.shape[0] - round(2.72 * _PER_METRE))
    ink = np.zeros(wall.shape[:2], np.uint8)
    cv2.putText(ink, word, at, cv2.FONT_HERSHEY_DUPLEX, 0.02 * _PER_METRE, 255, 1, cv2.LINE_AA)
    wall += (np.array((210, 220, 224), np.float32) - wall) * (ink[..., None] / np.float32(255))


def _shop_window(rng: np.random.Generator, wall: Grey, x: float, w: float, fascia: Grey) -> None:
    """Put a shop window with wares and bars into a wall, ``w`` metres wide."""
    _rect(wall, x, 0.5, w, 1.95, (46, 44, 42))

    # Wares.
    for _ in range(int(w * 3)):
        at_x = x + float(rng.uniform(0, w * 0.85))
        at_y = 0.55 + float(rng.uniform(0, 1.0))
        ware = rng.uniform(40, 150) + rng.uniform(-30, 30, 3)
        _rect(wall, at_x, at_y, min(0.4, w * 0.15), float(rng.uniform(0.2, 0.7)), ware)

    for bar in np.arange(x, x + w, 1.3):
        _rect(wall, float(bar), 0.5, 0.07, 2.0, fascia * 1.2)
    _rect(wall, x, 2.0, w, 0.4, (84, 80, 74))


def _facade(rng: np.random.Generator, kind: str) -> Texture:
    """Return a house front of a kind."""
    # Its size.
    bays = int(rng.integers(2, 5))
    floors = int(rng.integers(2, 4))
    bay = float(rng.uniform(2.3, 3.2))
    storey = float(rng.uniform(2.8, 3.2))
    ground = 3.5
    if kind in ("office", "shop"):
        floors += int(rng.integers(0, 2))

    # The bare wall.
    choice = _WALLS[kind]
    colour = choice[int(rng.integers(len(choice)))]
    width = bays * bay + 0.6
    height = ground + storey * (floors - 1) + 0.7
    rows = round(height * _PER_METRE)
    cols = round(width * _PER_METRE)
    wall = _wall(rng, rows, cols, colour, courses=kind in ("brick", "shop"))

    # Upper floors.
    frame: Colour = (206, 210, 212) if rng.random() < 0.7 else (50, 56, 62)
    if kind == "office":
        for floor in range(1, floors):
            y = ground + storey * (floor - 1) + 0.6
            for x in np.arange(0.3, width - 1.0, 1.25):
                _window(rng, wall, float(x), y, 1.15, 1.7, (120, 122, 122))
            _rect(wall, 0, y + 1.9, width, 0.25, np.array(colour) * 0.7)
    else:
        w = min(bay * 0.45, 1.25)
        h = float(rng.uniform(1.4, 1.75))
        for floor in range(1, floors):
            y = ground + storey * (floor - 1) + 0.55
            for i in range(bays):
                _window(rng, wall, 0.3 + bay * (i + 0.5) - w / 2, y, w, h, frame)

    # The ground floor.
    if kind in ("shop", "office"):
        _shop(rng, wall, width)
    else:
        _ground_floor(rng, wall, bays, bay, frame)
        _rect(wall, 0, 0, width, 0.35, np.array(colour) * 0.55)

    # Eaves and a drain pipe.
    _rect(wall, 0, height - 0.3, width, 0.3, np.array(colour) * 1.2 + 6)
    _rect(wall, 0, height - 0.4, width, 0.1, np.array(colour) * 0.5)
    _rect(wall, 0.0, 0.0, 0.09, height, np.array(colour) * 0.45)
    return Texture.of(_opaque(wall), width, height)


def _ground_floor(
    rng: np.random.Generator, wall: Grey, bays: int, bay: float, frame: Colour
) -> None:
    """Put a door into one bay of a house, windows into the others."""
    door = int(rng.integers(bays))
    for i in range(bays):
        x = 0.3 + bay * (i + 0.5)
        if i == door:
            _rect(wall, x - 0.62, 0, 1.24, 2.75, (196, 200, 202))
            _rect(wall, x - 0.47, 0, 0.94, 2.1, rng.uniform(20, 110, 3))
            _rect(wall, x - 0.47, 2.2, 0.94, 0.45, (52, 50, 46))
        else:
            _window(rng, wall, x - 0.6, 0.95, 1.2, 1.65, frame)


@lru_cache(maxsize=1)
def facades() -> dict[str, tuple[Texture, ...]]:
    """Return house fronts by kind: brick, render, stone, shop, office."""
    rng = np.random.default_rng([_BANK_SEED, 5])
    counts = {"brick": 9, "render": 6, "stone": 4, "shop": 12, "office": 5}
    made: dict[str, tuple[Texture, ...]] = {}
    for kind, count in counts.items():
        made[kind] = tuple(_facade(rng, kind) for _ in range(count))
    return made


@lru_cache(maxsize=1)
def gables() -> tuple[Texture, ...]:
    """Return house sides, 10 m by 13 m: plain walls, some with a few windows."""
    rng = np.random.default_rng([_BANK_SEED, 6])
    made: list[Texture] = []
    for colour in _BRICKS + _RENDERS[:3] + _STONES[:2]:
        wall = _wall(rng, 13 * _PER_METRE, 10 * _PER_METRE, colour, courses=colour in _BRICKS)
        for _ in range(int(rng.integers(0, 4))):
            x = float(rng.choice([1.5, 4.4, 7.4]))
            y = float(rng.choice([1.0, 4.2, 7.2]))
            _window(rng, wall, x, y, 0.9, 1.4, (206, 210, 212))
        made.append(Texture.of(_opaque(wall), 10.0, 13.0))
    return tuple(made)


@lru_cache(maxsize=1)
def roofs() -> tuple[Texture, ...]:
    """Return roofs of slates and tiles, 12 m by 5 m."""
    rng = np.random.default_rng([_BANK_SEED, 7])
    rows = 5 * _PER_METRE
    cols = 12 * _PER_METRE
    made: list[Texture] = []
    for colour in ((74, 68, 64), (58, 62, 86), (62, 66, 72), (64, 80, 104)):
        shades = rng.standard_normal((rows // 6 + 1, cols // 5 + 1))
        tiles = np.repeat(np.repeat(shades, 6, axis=0), 5, axis=1)
        rough = 1 + tiles[:rows, :cols] * 0.08 + smooth_noise(rng, (rows, cols), 3) * 0.07
        rough[::6] -= 0.25
        picture = (np.array(colour) * rough[..., None]).astype(np.float32)
        made.append(Texture.of(_opaque(picture), 12.0, 5.0))
    return tuple(made)


@lru_cache(maxsize=1)
def leafy_trees() -> tuple[Texture, ...]:
    """Return trees in leaf and evergreens, 6 m by 8 m."""
    rng = np.random.default_rng([_BANK_SEED, 8])
    tints: tuple[Colour, ...] = (
        (44, 84, 72),
        (34, 66, 50),
        (52, 92, 98),
        (40, 60, 46),
        (36, 72, 66),
        (60, 90, 110),
    )
    made = [_leafy(rng, tint, slender=i % 3 == 1) for i, tint in enumerate(tints)]
    return tuple(Texture.of(picture, 6.0, 8.0) for picture in made)


def _leafy(rng: np.random.Generator, tint: Colour, slender: bool) -> Pixels:
    """Return the picture of a tree in leaf."""
    rows = 384
    cols = 288
    tree = np.zeros((rows, cols, 4), np.uint8)

    # Trunk and boughs.
    bark = (38, 46, 54, 255)
    trunk = np.array([[133, 383], [155, 383], [150, 200], [138, 200]], np.int32)
    cv2.fillConvexPoly(tree, trunk, bark)
    cv2.line(tree, (144, 280), (96, 190), bark, 6)
    cv2.line(tree, (144, 265), (196, 180), bark, 6)

    # Clumps of leaves, spread over an ellipse.
    middle = np.array([144.0, 152.0])
    spread = np.array([70.0, 118.0]) if slender else np.array([100.0, 104.0])
    turn = rng.uniform(0, 2 * np.pi, 46)
    out = np.sqrt(rng.uniform(0, 1, 46))
    clumps = middle + np.stack([np.sin(turn), np.cos(turn)], 1) * out[:, None] * spread

    # Leaves, from the dark inside to the lit tips.
    for shade in np.linspace(0.35, 1.5, 12).tolist():
        count = len(clumps) * 16
        spots = np.repeat(clumps, 16, axis=0) + rng.uniform(-24, 24, (count, 2)) * (1.0, 0.8)
        spots += np.array([-5.0, -12.0]) * shade
        spots = np.clip(spots, 6, (cols - 7, 300))
        high = (250 - spots[:, 1]) / 420
        glow = np.maximum(shade * 0.78 + high + rng.normal(0, 0.16, count), 0.12)
        colours = np.clip(np.array(tint) * glow[:, None], 0, 255).tolist()
        sizes = rng.integers((2, 2), (7, 5), (count, 2)).tolist()
        angles = rng.uniform(0, 180, count).tolist()
        leaves = zip(spots.tolist(), colours, sizes, angles, strict=True)
        for (x, y), (b, g, r), axes, angle in leaves:
            at = (round(x), round(y))
            cv2.ellipse(tree, at, axes, angle, 0, 360, (b, g, r, 255), -1)
    return tree


@lru_cache(maxsize=1)
def bare_trees() -> tuple[Texture, ...]:
    """Return trees in winter, 8.75 m by 9 m.

    The crown is labelled as the tree; the sky shines through between the twigs.
    """
    rng = np.random.default_rng([_BANK_SEED, 9])
    return tuple(Texture.of(_bare(rng), 8.75, 9.0) for _ in range(4))


def _bare(rng: np.random.Generator) -> Pixels:
    """Return the picture of a bare tree."""
    rows = 432
    cols = 420
    wood = np.zeros((rows, cols), np.uint8)

    def grow(at: npt.NDArray[np.float64], angle: float, length: float, width: float) -> None:
        """Draw a bough and the three that grow from its tip."""
        tip = at + length * np.array([np.sin(angle), -np.cos(angle)])
        shade = 250 if width > 2 else 170
        start = at.astype(int).tolist()
        thickness = max(round(width), 1)
        cv2.line(wood, start, tip.astype(int).tolist(), shade, thickness, cv2.LINE_AA)
        if length < 15:
            return
        for turn in rng.normal(0, 0.17, 3) + np.array([-0.42, 0.02, 0.42]):
            lean = 0.82 * (angle + float(turn))  # twigs seek the light
            grow(tip, lean, length * float(rng.uniform(0.7, 0.86)), width * 0.62)

    grow(np.array([cols / 2, rows - 1.0]), 0.0, 86.0, 12.0)
    wood[:, :4] = 0
    wood[:, -4:] = 0

    # The crown: everywhere near twigs; below the fork there is only the trunk.
    crown = cv2.GaussianBlur((wood > 40).astype(np.float32), (0, 0), 5) > 0.16
    crown[rows - 130 :] = False
    crown |= wood > 60

    haze = cv2.GaussianBlur(wood, (0, 0), 2.5).astype(np.float32) * 0.8
    opacity = np.where(crown, np.maximum(np.maximum(wood, haze), 66), 0)
    tree = np.zeros((rows, cols, 4), np.uint8)
    tree[..., :3] = np.array((46, 52, 58)) * (0.8 + 0.4 * rng.random((rows, cols, 1)))
    tree[..., 3] = np.minimum(opacity, 245)
    return tree


@lru_cache(maxsize=1)
def hedge() -> Texture:
    """Return a clipped hedge, 6 m by 1.5 m."""
    rng = np.random.default_rng([_BANK_SEED, 10])
    leaves = smooth_noise(rng, (96, 384), 24, 4)
    glow = 0.85 + 0.3 * leaves + np.linspace(0.3, -0.4, 96)[:, None]
    picture = (np.array((38, 70, 56)) * glow[..., None]).astype(np.float32)
    return Texture.of(_opaque(picture), 6.0, 1.5)


@lru_cache(maxsize=1)
def railing() -> Texture:
    """Return a guard rail of galvanised bars, 4 m by 1.1 m.

    The whole panel is labelled as the fence; the street shines through.
    """
    panel = np.zeros((66, 240, 4), np.uint8)
    panel[...] = (92, 94, 92, 80)
    for first in (2, 3):  # bars
        panel[:, first::10] = (150, 152, 148, 245)
    for rail in (slice(0, 5), slice(-9, -5)):
        panel[rail] = (160, 162, 158, 245)
    for post in (slice(0, 3), slice(-3, None), slice(118, 122)):
        panel[:, post] = (120, 124, 120, 245)
    return Texture.of(panel, 4.0, 1.1)


@lru_cache(maxsize=1)
def boards() -> Texture:
    """Return a wooden fence, 4 m by 1.7 m."""
    rng = np.random.default_rng([_BANK_SEED, 11])
    plank = np.repeat(rng.uniform(0.75, 1.15, 27), 9)[:240]
    grain = 1 + 0.06 * rng.standard_normal((102, 240, 1))
    wood = plank[None, :, None] * np.array((56, 78, 100)) * grain
    wood[:, ::9] *= 0.45
    wood[:8] *= 1.25
    return Texture.of(_opaque(wood.astype(np.float32)), 4.0, 1.7)


def _opaque(picture: Grey) -> Pixels:
    """Return (h, w, 3) BGR as (h, w, 4) uint8 that is opaque all over."""
    full = np.full((*picture.shape[:2], 4), 255, np.uint8)
    full[..., :3] = np.clip(picture, 0, 255)
    return full
