"""Pictures made of numbers: facades, roofs, foliage, fences, asphalt, clouds. Made once a process, always the same.

All are BGR with opacity as the fourth channel, (h, w, 4) uint8, except the grey tiles, which repeat without a seam.
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
    (62, 78, 118), (104, 130, 148), (78, 88, 102), (64, 72, 94), (116, 136, 146), (88, 96, 104),
)  # fmt: skip
_RENDERS: tuple[Colour, ...] = ((206, 210, 212), (176, 192, 200), (186, 188, 186), (166, 182, 194), (140, 146, 150))
_STONES: tuple[Colour, ...] = ((112, 132, 144), (120, 126, 130), (96, 108, 116))
_FASCIAS: tuple[Colour, ...] = (
    (44, 62, 36), (96, 48, 34), (38, 36, 116), (40, 40, 40), (104, 98, 60), (150, 156, 156), (60, 40, 66),
)  # fmt: skip
_WORDS = ("BAKERY", "BOOKS", "CAFE", "FLOWERS", "TAILOR", "CHEMIST", "CYCLES", "GROCER", "BANK", "SHOES", "THE BELL")


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], cells: int, octaves: int = 3) -> Grey:
    """Seamless noise of about zero mean and unit deviation; ``cells`` bumps a side in the lowest octave."""
    total = np.zeros(size, np.float32)
    for octave in range(octaves):
        n = cells << octave
        pad = 2
        grid = np.pad(rng.standard_normal((n, n)).astype(np.float32), pad, mode="wrap")
        wide = (size[1] * (n + 2 * pad) // n, size[0] * (n + 2 * pad) // n)
        grown = cv2.resize(grid, wide, interpolation=cv2.INTER_CUBIC)
        y, x = size[0] * pad // n, size[1] * pad // n
        total += grown[y : y + size[0], x : x + size[1]] * 0.55**octave
    return np.asarray((total - total.mean()) / (total.std() + 1e-6), dtype=np.float32)


@lru_cache(maxsize=1)
def asphalt_tile() -> Grey:
    """(513, 513) float32 of about zero mean: grain, for 4 m of road."""
    rng = np.random.default_rng([_BANK_SEED, 1])
    grain = rng.standard_normal((512, 512)).astype(np.float32)
    soft = cv2.GaussianBlur(np.pad(grain, 8, mode="wrap"), (0, 0), 1.2)[8:-8, 8:-8]
    return _repeating(np.asarray(soft / soft.std() * 0.75 + smooth_noise(rng, (512, 512), 16, 2) * 0.4))


@lru_cache(maxsize=1)
def stain_tile() -> Grey:
    """(1025, 257) float32 of about zero mean: patches, seams and wear, for 48 m of road along by 12 m across."""
    rng = np.random.default_rng([_BANK_SEED, 2])
    tile = smooth_noise(rng, (1024, 256), 8, 4) * 0.6
    for _ in range(14):  # repaired trenches
        y, x = int(rng.integers(0, 960)), int(rng.integers(0, 200))
        h, w = int(rng.integers(20, 150)), int(rng.integers(12, 50))
        tile[y : y + h, x : x + w] += float(rng.uniform(-1.5, 1.0))
    for _ in range(8):  # manholes
        centre = (int(rng.integers(20, 236)), int(rng.integers(20, 1000)))
        cv2.ellipse(tile, centre, (7, 8), 0, 0, 360, -3.0, -1)
        cv2.ellipse(tile, centre, (7, 8), 0, 0, 360, 1.0, 1)
    for _ in range(26):  # cracks
        steps = rng.standard_normal((12, 2)) * (5, 14) + (0, 8)
        path = np.cumsum(steps, axis=0) + rng.uniform(0, 1, 2) * (256, 1024)
        cv2.polylines(tile, [path.astype(np.int32)], False, -1.8, 1)
    return _repeating(np.asarray(cv2.GaussianBlur(tile, (3, 3), 0)))


@lru_cache(maxsize=1)
def cloud_tile() -> Grey:
    """(513, 513) float32, 0..1: cover of cloud."""
    rng = np.random.default_rng([_BANK_SEED, 3])
    return _repeating(np.asarray(np.clip(smooth_noise(rng, (512, 512), 4, 6) * 0.32 + 0.5, 0, 1)))


@lru_cache(maxsize=1)
def grain_tile() -> Pixels:
    """(600, 640, 3) uint8 around 128: the sensor's noise, a window of which is taken at random for each frame."""
    rng = np.random.default_rng([_BANK_SEED, 4])
    grey = rng.standard_normal((600, 640, 1)) * 2.2 + rng.standard_normal((600, 640, 3)) * 1.6
    return np.clip(np.rint(128 + grey), 0, 255).astype(np.uint8)


def _repeating(tile: Grey) -> Grey:
    """The tile with its first row and column once more at the end, so that a sample between the two finds both."""
    return np.asarray(np.pad(tile, ((0, 1), (0, 1)), mode="wrap"), dtype=np.float32)


def _wall(rng: np.random.Generator, rows: int, cols: int, colour: Colour, courses: bool) -> npt.NDArray[np.float32]:
    rough = smooth_noise(rng, (rows, cols), 4, 4) * 0.07 + rng.standard_normal((rows, cols)).astype(np.float32) * 0.05
    if courses:
        course = np.repeat(rng.standard_normal((rows // 2 + 1, cols // 5 + 1)).astype(np.float32), 2, axis=0)[:rows]
        rough = rough + np.repeat(course, 5, axis=1)[:, :cols] * 0.07
        rough[::4] -= 0.06
    damp = np.linspace(0.05, -0.14, rows, dtype=np.float32)[:, None] ** 3 * 40
    return np.asarray(np.array(colour, np.float32) * (1 + rough + damp)[..., None], dtype=np.float32)


def _rect(picture: npt.NDArray[np.float32], x: float, y: float, w: float, h: float, colour: npt.ArrayLike) -> None:
    rows = picture.shape[0]
    x0, x1 = round(x * _PER_METRE), round((x + w) * _PER_METRE)
    y0, y1 = rows - round((y + h) * _PER_METRE), rows - round(y * _PER_METRE)
    picture[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = colour


def _window(
    rng: np.random.Generator, wall: npt.NDArray[np.float32], x: float, y: float, w: float, h: float, frame: Colour
) -> None:
    base = wall[wall.shape[0] - 1 - round(y * _PER_METRE) % wall.shape[0], round(x * _PER_METRE) % wall.shape[1]]
    _rect(wall, x - 0.08, y + h, w + 0.16, 0.2, base * 1.18 + 8)  # lintel
    _rect(wall, x - 0.1, y - 0.12, w + 0.2, 0.12, base * 1.25 + 14)  # sill
    _rect(wall, x - 0.04, y + h - 0.05, w + 0.08, 0.1, base * 0.5)
    _rect(wall, x, y, w, h, frame)
    shine = float(rng.uniform(0.5, 1.5))
    panes = 2 if w > 0.8 else 1
    for i in range(panes):
        for j in range(2):
            pw, ph = (w - 0.08 * (panes + 1)) / panes, (h - 0.24) / 2
            dark = np.array((34, 31, 28), np.float32) * shine * float(rng.uniform(0.7, 1.3))
            glass = dark + (np.array((58, 52, 44), np.float32) if rng.random() < 0.22 else 0)
            _rect(wall, x + 0.08 + i * (pw + 0.08), y + 0.08 + j * (ph + 0.08), pw, ph, glass)
    if rng.random() < 0.35:  # curtains
        _rect(wall, x + 0.08, y + 0.1, 0.16, h - 0.2, (120, 130, 140))
        _rect(wall, x + w - 0.24, y + 0.1, 0.16, h - 0.2, (120, 130, 140))


def _shop(rng: np.random.Generator, wall: npt.NDArray[np.float32], width: float) -> None:
    fascia = np.array(_FASCIAS[int(rng.integers(len(_FASCIAS)))], np.float32)
    _rect(wall, 0.1, 0.0, width - 0.2, 3.3, fascia * 0.8)
    _rect(wall, 0.15, 2.55, width - 0.3, 0.7, fascia)
    _rect(wall, 0.0, 3.25, width, 0.12, (150, 152, 150))
    door = float(rng.uniform(0.25, width - 1.6))
    for x, w in ((0.3, door - 0.5), (door + 1.2, width - door - 1.5)):
        if w < 0.5:
            continue
        _rect(wall, x, 0.5, w, 1.95, (46, 44, 42))
        for _ in range(int(w * 3)):  # what stands in the window
            gx, gy = x + float(rng.uniform(0, w * 0.85)), 0.55 + float(rng.uniform(0, 1.0))
            ware = rng.uniform(40, 150) + rng.uniform(-30, 30, 3)
            _rect(wall, gx, gy, min(0.4, w * 0.15), float(rng.uniform(0.2, 0.7)), ware)
        for bar in np.arange(x, x + w, 1.3):
            _rect(wall, float(bar), 0.5, 0.07, 2.0, fascia * 1.2)
        _rect(wall, x, 2.0, w, 0.4, (84, 80, 74))
    _rect(wall, door, 0.0, 1.0, 2.4, (30, 30, 32))
    _rect(wall, door + 0.15, 0.9, 0.7, 1.4, (70, 66, 60))
    word = _WORDS[int(rng.integers(len(_WORDS)))]
    at = (round(width * 0.2 * _PER_METRE), wall.shape[0] - round(2.72 * _PER_METRE))
    ink = np.zeros(wall.shape[:2], np.uint8)
    cv2.putText(ink, word, at, cv2.FONT_HERSHEY_DUPLEX, 0.02 * _PER_METRE, 255, 1, cv2.LINE_AA)
    wall += (np.array((210, 220, 224), np.float32) - wall) * (ink[..., None] / np.float32(255))


def _facade(rng: np.random.Generator, kind: str) -> Texture:
    bays, floors = int(rng.integers(2, 5)), int(rng.integers(2, 4))
    bay, storey, ground = float(rng.uniform(2.3, 3.2)), float(rng.uniform(2.8, 3.2)), 3.5
    if kind in ("office", "shop"):
        floors += int(rng.integers(0, 2))
    palette = {"brick": _BRICKS, "render": _RENDERS, "stone": _STONES, "office": _STONES, "shop": _BRICKS + _RENDERS}
    choice = palette[kind]
    colour = choice[int(rng.integers(len(choice)))]
    width, height = bays * bay + 0.6, ground + storey * (floors - 1) + 0.7
    rows, cols = round(height * _PER_METRE), round(width * _PER_METRE)
    wall = _wall(rng, rows, cols, colour, courses=kind in ("brick", "shop"))
    frame: Colour = (206, 210, 212) if rng.random() < 0.7 else (50, 56, 62)
    if kind == "office":
        for floor in range(1, floors):
            y = ground + storey * (floor - 1) + 0.6
            for x in np.arange(0.3, width - 1.0, 1.25):
                _window(rng, wall, float(x), y, 1.15, 1.7, (120, 122, 122))
            _rect(wall, 0, y + 1.9, width, 0.25, np.array(colour) * 0.7)
    else:
        w, h = min(bay * 0.45, 1.25), float(rng.uniform(1.4, 1.75))
        for floor in range(1, floors):
            for i in range(bays):
                _window(rng, wall, 0.3 + bay * (i + 0.5) - w / 2, ground + storey * (floor - 1) + 0.55, w, h, frame)
    if kind in ("shop", "office"):
        _shop(rng, wall, width)
    else:
        door = int(rng.integers(bays))
        for i in range(bays):
            x = 0.3 + bay * (i + 0.5)
            if i == door:
                _rect(wall, x - 0.62, 0, 1.24, 2.75, (196, 200, 202))
                _rect(wall, x - 0.47, 0, 0.94, 2.1, rng.uniform(20, 110, 3))
                _rect(wall, x - 0.47, 2.2, 0.94, 0.45, (52, 50, 46))
            else:
                _window(rng, wall, x - 0.6, 0.95, 1.2, 1.65, frame)
        _rect(wall, 0, 0, width, 0.35, np.array(colour) * 0.55)
    _rect(wall, 0, height - 0.3, width, 0.3, np.array(colour) * 1.2 + 6)
    _rect(wall, 0, height - 0.4, width, 0.1, np.array(colour) * 0.5)
    _rect(wall, 0.0, 0.0, 0.09, height, np.array(colour) * 0.45)  # drain pipe
    return Texture.of(_opaque(wall), width, height)


@lru_cache(maxsize=1)
def facades() -> dict[str, tuple[Texture, ...]]:
    """House fronts by kind: brick, render, stone, shop, office."""
    rng = np.random.default_rng([_BANK_SEED, 5])
    counts = {"brick": 9, "render": 6, "stone": 4, "shop": 12, "office": 5}
    return {kind: tuple(_facade(rng, kind) for _ in range(count)) for kind, count in counts.items()}


@lru_cache(maxsize=1)
def gables() -> tuple[Texture, ...]:
    """House sides, 10 m by 13 m: plain walls, some with a few windows."""
    rng = np.random.default_rng([_BANK_SEED, 6])
    made = []
    for colour in _BRICKS + _RENDERS[:3] + _STONES[:2]:
        wall = _wall(rng, 13 * _PER_METRE, 10 * _PER_METRE, colour, courses=colour in _BRICKS)
        for _ in range(int(rng.integers(0, 4))):
            x, y = float(rng.choice([1.5, 4.4, 7.4])), float(rng.choice([1.0, 4.2, 7.2]))
            _window(rng, wall, x, y, 0.9, 1.4, (206, 210, 212))
        made.append(Texture.of(_opaque(wall), 10.0, 13.0))
    return tuple(made)


@lru_cache(maxsize=1)
def roofs() -> tuple[Texture, ...]:
    """Slates and tiles, 12 m by 5 m."""
    rng = np.random.default_rng([_BANK_SEED, 7])
    made = []
    for colour in ((74, 68, 64), (58, 62, 86), (62, 66, 72), (64, 80, 104)):
        rows, cols = 5 * _PER_METRE, 12 * _PER_METRE
        tiles = np.repeat(np.repeat(rng.standard_normal((rows // 6 + 1, cols // 5 + 1)), 6, axis=0), 5, axis=1)
        rough = 1 + tiles[:rows, :cols] * 0.08 + smooth_noise(rng, (rows, cols), 3) * 0.07
        rough[::6] -= 0.25
        made.append(Texture.of(_opaque((np.array(colour) * rough[..., None]).astype(np.float32)), 12.0, 5.0))
    return tuple(made)


@lru_cache(maxsize=1)
def leafy_trees() -> tuple[Texture, ...]:
    """Trees in leaf and evergreens, 6 m by 8 m."""
    rng = np.random.default_rng([_BANK_SEED, 8])
    tints = ((44, 84, 72), (34, 66, 50), (52, 92, 98), (40, 60, 46), (36, 72, 66), (60, 90, 110))
    return tuple(Texture.of(_leafy(rng, tint, i % 3 == 1), 6.0, 8.0) for i, tint in enumerate(tints))


def _leafy(rng: np.random.Generator, tint: Colour, slender: bool) -> Pixels:
    rows, cols = 384, 288
    tree = np.zeros((rows, cols, 4), np.uint8)
    bark = (38, 46, 54, 255)
    trunk = np.array([[133, 383], [155, 383], [150, 200], [138, 200]], np.int32)
    cv2.fillConvexPoly(tree, trunk, bark)
    cv2.line(tree, (144, 280), (96, 190), bark, 6)
    cv2.line(tree, (144, 265), (196, 180), bark, 6)
    middle, spread = np.array([144.0, 152.0]), np.array([70.0 if slender else 100.0, 118.0 if slender else 104.0])
    turn, out = rng.uniform(0, 2 * np.pi, 46), np.sqrt(rng.uniform(0, 1, 46))
    clumps = middle + np.stack([np.sin(turn), np.cos(turn)], 1) * out[:, None] * spread
    for shade in np.linspace(0.35, 1.5, 12).tolist():  # from the dark inside to the lit tips
        count = len(clumps) * 16
        spots = np.repeat(clumps, 16, axis=0) + rng.uniform(-24, 24, (count, 2)) * (1.0, 0.8)
        spots += np.array([-5.0, -12.0]) * shade
        spots = np.clip(spots, 6, (cols - 7, 300))
        high = (250 - spots[:, 1]) / 420
        glow = np.maximum(shade * 0.78 + high + rng.normal(0, 0.16, count), 0.12)
        colours = np.clip(np.array(tint) * glow[:, None], 0, 255).tolist()
        sizes = rng.integers((2, 2), (7, 5), (count, 2)).tolist()
        angles = rng.uniform(0, 180, count).tolist()
        for (x, y), (b, g, r), axes, angle in zip(spots.tolist(), colours, sizes, angles, strict=True):
            cv2.ellipse(tree, (round(x), round(y)), axes, angle, 0, 360, (b, g, r, 255), -1)
    return tree


@lru_cache(maxsize=1)
def bare_trees() -> tuple[Texture, ...]:
    """Trees in winter, 8.75 m by 9 m: the crown belongs to the tree, the sky shines through between the twigs."""
    rng = np.random.default_rng([_BANK_SEED, 9])
    return tuple(Texture.of(_bare(rng), 8.75, 9.0) for _ in range(4))


def _bare(rng: np.random.Generator) -> Pixels:
    rows, cols = 432, 420
    wood = np.zeros((rows, cols), np.uint8)

    def grow(at: npt.NDArray[np.float64], angle: float, length: float, width: float) -> None:
        tip = at + length * np.array([np.sin(angle), -np.cos(angle)])
        shade = 250 if width > 2 else 170
        cv2.line(wood, at.astype(int).tolist(), tip.astype(int).tolist(), shade, max(round(width), 1), cv2.LINE_AA)
        if length < 15:
            return
        for turn in rng.normal(0, 0.17, 3) + np.array([-0.42, 0.02, 0.42]):
            lean = 0.82 * (angle + float(turn))  # twigs seek the light
            grow(tip, lean, length * float(rng.uniform(0.7, 0.86)), width * 0.62)

    grow(np.array([cols / 2, rows - 1.0]), 0.0, 86.0, 12.0)
    wood[:, :4] = wood[:, -4:] = 0
    crown = cv2.GaussianBlur((wood > 40).astype(np.float32), (0, 0), 5) > 0.16
    crown[rows - 130 :] = False  # below the fork there is only the trunk
    crown |= wood > 60
    haze = cv2.GaussianBlur(wood, (0, 0), 2.5).astype(np.float32) * 0.8
    opacity = np.where(crown, np.maximum(np.maximum(wood, haze), 66), 0)
    tree = np.zeros((rows, cols, 4), np.uint8)
    tree[..., :3] = np.array((46, 52, 58)) * (0.8 + 0.4 * rng.random((rows, cols, 1)))
    tree[..., 3] = np.minimum(opacity, 245)
    return tree


@lru_cache(maxsize=1)
def hedge() -> Texture:
    """A clipped hedge, 6 m by 1.5 m."""
    rng = np.random.default_rng([_BANK_SEED, 10])
    leaves = smooth_noise(rng, (96, 384), 24, 4)
    glow = 0.85 + 0.3 * leaves + np.linspace(0.3, -0.4, 96)[:, None]
    return Texture.of(_opaque((np.array((38, 70, 56)) * glow[..., None]).astype(np.float32)), 6.0, 1.5)


@lru_cache(maxsize=1)
def railing() -> Texture:
    """A guard rail of galvanised bars, 4 m by 1.1 m; the panel is the fence's, the street shines through."""
    panel = np.zeros((66, 240, 4), np.uint8)
    panel[...] = (92, 94, 92, 80)
    panel[:, 2::10] = panel[:, 3::10] = (150, 152, 148, 245)
    panel[:5] = panel[-9:-5] = (160, 162, 158, 245)
    panel[:, :3] = panel[:, -3:] = panel[:, 118:122] = (120, 124, 120, 245)
    return Texture.of(panel, 4.0, 1.1)


@lru_cache(maxsize=1)
def boards() -> Texture:
    """A wooden fence, 4 m by 1.7 m."""
    rng = np.random.default_rng([_BANK_SEED, 11])
    plank = np.repeat(rng.uniform(0.75, 1.15, 27), 9)[:240]
    wood = plank[None, :, None] * np.array((56, 78, 100)) * (1 + 0.06 * rng.standard_normal((102, 240, 1)))
    wood[:, ::9] *= 0.45
    wood[:8] *= 1.25
    return Texture.of(_opaque(wood.astype(np.float32)), 4.0, 1.7)


def _opaque(picture: npt.NDArray[np.float32]) -> Pixels:
    full = np.full((*picture.shape[:2], 4), 255, np.uint8)
    full[..., :3] = np.clip(picture, 0, 255)
    return full
