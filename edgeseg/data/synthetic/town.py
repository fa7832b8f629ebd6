"""Build what stands still: an endless street in chunks, each made from (seed, chunk) alone.

Positions along the road are ``along`` metres (world Z). Positions across it are ``offset`` metres
to the right of the road's centre line. Nothing here depends on the frame's size.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.data.synthetic import figures, textures
from edgeseg.data.synthetic.backdrop import FACADE_M, LANE_HALF_M, STEP_M, Strip
from edgeseg.data.synthetic.draw import Face, Faces, Floats, Texture, View
from edgeseg.data.synthetic.figures import BUILDING, FENCE, PEDESTRIAN, POLE, TREE

CHUNK_M = 40.0
SIGHT_M = 250.0
_CELLS = int(CHUNK_M / STEP_M)
PERSON_M = (0.8, 2.1)  # radius and height of a cylinder around a person
LARGE = 1 << 31  # added to chunk and slot numbers: they may be negative, parts of a seed may not
_JUNCTION_M = 13.0  # length of a junction along the house line
_CORNER_M = 3.0
_ONE = np.ones(3)
_SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
_UNSEEN = 0.008  # things smaller than this share of the frame's height are left out


@dataclass
class Item:
    """Describe something to draw.

    Attributes
    ----------
    key : position along the road; items are drawn from the largest to the smallest.
    x, z : world position, to leave items out that cannot be seen.
    radius : size, metres, for the same.
    height_m : height, for the same.
    paint : function that draws it.
    shadow : function that draws its shadow, if it has one.
    """

    key: float
    x: float
    z: float
    radius: float
    height_m: float
    paint: Callable[[View], None]
    shadow: Callable[[View], None] | None = None


@dataclass(frozen=True)
class Road:
    """Describe the road's centre line X(Z) as a sum of three long waves.

    Attributes
    ----------
    amplitude : (3,) metres.
    wave : (3,) radians per metre.
    phase : (3,) radians.
    """

    amplitude: Floats
    wave: Floats
    phase: Floats

    def bend(self, along: Floats | float) -> Floats:
        """Return X of the centre line, metres.

        Parameters
        ----------
        along : positions along the road, metres; of any shape.
        """
        angle = np.multiply.outer(along, self.wave) + self.phase
        return np.asarray((np.sin(angle) * self.amplitude).sum(-1))

    def slope(self, along: float) -> float:
        """Return dX/dZ of the centre line.

        Parameters
        ----------
        along : position along the road, metres.
        """
        cosine = np.cos(along * self.wave + self.phase)
        return float((cosine * self.amplitude * self.wave).sum())

    def turn(self, along: float) -> float:
        """Return the heading, radians to the right of +Z.

        Parameters
        ----------
        along : position along the road, metres.
        """
        return float(np.arctan(self.slope(along)))

    def at(self, along: float, offset: float, height: float = 0.0) -> Floats:
        """Return a world point, (3,) metres.

        Parameters
        ----------
        along : position along the road.
        offset : position to the right of its centre line.
        height : height above the ground.
        """
        return np.array([float(self.bend(along)) + offset, height, along])


@lru_cache(maxsize=16)
def road(seed: int) -> Road:
    """Return the road of a drive.

    Parameters
    ----------
    seed : seed of the drive.

    Examples
    --------
    >>> line = road(0)
    >>> line.at(12.0, offset=2.0)[2].item()
    12.0
    """
    rng = np.random.default_rng([seed, 1])
    lengths = np.array([230.0, 410.0, 760.0]) * rng.uniform(0.85, 1.2, 3)
    amplitude = np.array([2.6, 8.0, 16.0]) * rng.uniform(0.6, 1.15, 3)
    return Road(amplitude, 2 * np.pi / lengths, rng.uniform(0, 6.28, 3))


@dataclass
class Chunk:
    """Hold 40 m of street: items, and tables of the ground as in ``Strip``.

    Attributes
    ----------
    items : what stands there.
    kerb, ground, height, zebra : tables, one row per ``STEP_M``.
    boxes : (N, 3) x, z and radius of the items.
    faces : the flat faces of the items.
    table : the same, to be projected together.
    """

    items: list[Item] = field(default_factory=list)
    kerb: Floats = field(default_factory=lambda: np.full((_CELLS, 2), LANE_HALF_M))
    ground: Floats = field(default_factory=lambda: np.ones((_CELLS, 2)))
    height: Floats = field(default_factory=lambda: np.zeros((_CELLS, 2)))
    zebra: Floats = field(default_factory=lambda: np.zeros(_CELLS))
    boxes: Floats = field(default_factory=lambda: np.zeros((0, 3)))
    faces: list[Face] = field(default_factory=list)
    table: Faces = field(default_factory=lambda: Faces([]))


# Per district: the share of every kind of front, and of gaps between houses.
_MIXES: dict[str, tuple[tuple[str, float], ...]] = {
    "town": (("shop", 0.5), ("office", 0.16), ("stone", 0.14), ("brick", 0.1), ("gap", 0.1)),
    "terrace": (("brick", 0.48), ("render", 0.26), ("shop", 0.08), ("gap", 0.18)),
    "suburb": (("brick", 0.28), ("render", 0.2), ("gap", 0.52)),
}
_TREE_LINED = {"town": 0.25, "terrace": 0.45, "suburb": 0.9}
_PARKED = {"town": 0.16, "terrace": 0.34, "suburb": 0.18}


@dataclass(frozen=True)
class _Site:
    """Say where to build: a chunk under construction, and one side of its road.

    Attributes
    ----------
    rng : source of every choice.
    chunk : the chunk.
    line : the road.
    start : position of the chunk along the road, metres.
    district : ``town``, ``terrace`` or ``suburb``.
    side : -1 left of the road, 1 right of it.
    """

    rng: np.random.Generator
    chunk: Chunk
    line: Road
    start: float
    district: str
    side: int

    @property
    def column(self) -> int:
        """Return the column of this side in the ground's tables."""
        return (self.side + 1) // 2

    def uniform(self, low: float, high: float) -> float:
        """Return a random number."""
        return float(self.rng.uniform(low, high))

    def place(self, at: float, offset: float, further: float = 0.0) -> Floats:
        """Return the point ``at + further`` metres into the chunk, ``offset`` to this side."""
        return self.line.at(self.start + at + further, self.side * offset)


@lru_cache(maxsize=192)
def chunk(seed: int, number: int) -> Chunk:
    """Return a chunk of a drive.

    Parameters
    ----------
    seed : seed of the drive.
    number : the chunk begins ``40 * number`` metres along the road.
    """
    rng = np.random.default_rng([seed, 2, number + LARGE])
    district_rng = np.random.default_rng([seed, 3, number // 4 + LARGE])
    district = str(district_rng.choice(["town", "terrace", "suburb"], p=[0.4, 0.35, 0.25]))
    made = Chunk()
    line = road(seed)
    start = number * CHUNK_M
    left, right = (_Site(rng, made, line, start, district, side) for side in (-1, 1))

    # A zebra crossing.
    if rng.random() < 0.22:
        first = int(rng.integers(20, _CELLS - 20))
        made.zebra[first : first + round(3 / STEP_M)] = 1

    # Houses, then everything in front of them.
    _build_side(left)
    _build_side(right)
    _furnish(left, right)
    made.boxes = np.array([(item.x, item.z, item.radius) for item in made.items])
    made.table = Faces(made.faces)
    return made


def _build_side(site: _Site) -> None:
    """Build houses, gardens and perhaps a junction along one side."""
    rng = site.rng
    names, weights = zip(*_MIXES[site.district], strict=True)
    shares = np.array(weights) / sum(weights)
    at = 0.0
    junction = rng.random() < 0.2
    while at < CHUNK_M - 0.1:
        left = CHUNK_M - at
        if junction and at > 6 and left > _JUNCTION_M:
            _junction(site, at)
            at += _JUNCTION_M
            junction = False
            continue

        # Choose a front; a garden fills the gap if it does not fit.
        choice = str(rng.choice(names, p=shares))
        fronts = textures.facades().get(choice, ())
        front = fronts[int(rng.integers(len(fronts)))] if fronts else None
        stretch = site.uniform(0.95, 1.1)
        if front is None or front.width_m * stretch > left:
            width = min(site.uniform(7.0, 13.0), left)
            _garden(site, at, width)
            site.chunk.ground[_cells(at, width), site.column] = 2
        else:
            width = front.width_m * stretch
            height = front.height_m * site.uniform(0.95, 1.08)
            _house(site, (at, width, height), front, flat=choice == "office")
            site.chunk.height[_cells(at, width), site.column] = height
            if site.district == "town" and rng.random() < 0.6:
                mark = site.place(at, FACADE_M - 0.5, site.uniform(1, width - 1))
                sign = figures.sign("hanging", site.uniform(3.6, 4.6))
                _stand(site.chunk, sign, mark, 0.0, 0.8)
        at += width


def _cells(at: float, width: float) -> slice:
    """Return the rows of the ground's tables from ``at`` on, ``width`` metres."""
    return slice(round(at / STEP_M), round((at + width) / STEP_M))


def _house(site: _Site, box: tuple[float, float, float], front: Texture, *, flat: bool) -> None:
    """Build a house; ``box`` is where it begins, its width and its height, metres."""
    rng = site.rng
    side = site.side
    at, width, height = box
    setback = FACADE_M + float(rng.choice([0.0, 0.0, 0.4]))
    near = site.place(at, setback)
    far = site.place(at, setback, width)
    origin = far if side > 0 else near
    across = near - far if side > 0 else far - near

    # Its measures and its looks.
    depth = 8.4
    rise = 0.0 if flat else site.uniform(2.2, 3.4)
    up = np.array([0.0, height, 0.0])
    out = np.array([side * 1.0, 0.0, 0.0])
    ridge = out * depth / 2 + (0, rise, 0)
    tint = _ONE * site.uniform(0.8, 1.25) * rng.uniform(0.96, 1.04, 3)
    gable = _matching_gable(front)
    top = textures.roofs()[int(rng.integers(len(textures.roofs())))]
    chimneys: list[tuple[float, float]] = []
    if not flat:
        for share in rng.choice([0.05, 0.92], 1):
            chimneys.append((float(share), site.uniform(0.9, 1.5)))

    # Front, roof and the gable that the camera comes towards.
    d = depth / gable.width_m
    h = height / gable.height_m
    r = (height + rise) / gable.height_m
    end = np.array([[0.0, 0], [d, 0], [d, h], [d / 2, r], [0, h]])
    gable_up = np.array([0.0, gable.height_m, 0.0])
    roof = Face(origin + up, across, ridge, _SQUARE, top, BUILDING, tint) if rise else None
    wall = Face(near, out * gable.width_m, gable_up, end, gable, BUILDING, tint)
    face = Face(origin, across, up, _SQUARE, front, BUILDING, tint)
    site.chunk.faces += [face, wall, roof] if roof else [face, wall]

    def paint(view: View) -> None:
        """Draw front, gable, roof and chimneys; the nearest first."""
        view.face(face)
        if view.camera.position[2] < near[2]:
            view.face(wall)
        if roof:
            view.face(roof)
        for share, tall in chimneys:
            _chimney(view, origin + across * share + ridge + up, tall, tint)

    key = site.start + at + width
    tallest = height + rise + 2.0  # with its chimney
    middle = (near + far) / 2
    site.chunk.items.append(item_at(key, middle, (width / 2 + depth, tallest), paint))


def _matching_gable(front: Texture) -> Texture:
    """Return the gable whose colour is nearest to that of a front."""
    gables = textures.gables()
    distances = [float(np.abs(gable.mean - front.mean).sum()) for gable in gables]
    return gables[int(np.argmin(distances))]


def _chimney(view: View, foot: Floats, tall: float, tint: Floats) -> None:
    """Draw a chimney, ``tall`` metres high."""
    corners = np.array([[-0.5, -1.0, 0], [0.5, -1.0, 0], [0.5, tall, 0], [-0.5, tall, 0]])
    projected = view.camera.project(foot + corners)
    if projected[:, 2].min() > 1.0:
        pixels = projected[:, :2] / projected[:, 2:]
        brick = np.array((70.0, 84.0, 112.0)) * tint
        colour = view.lit(brick, np.array([0.0, 0.0, -1.0]), float(projected[0, 2]))
        view.fill(pixels, colour.tolist(), BUILDING)


def _junction(site: _Site, at: float) -> None:
    """Build a side street, 13 m of the house line: kerbs that turn in, houses, signals."""
    rng = site.rng
    made = site.chunk
    side = site.side
    column = site.column

    # The kerb turns into the mouth, which is 9 m wide.
    cells = np.arange(_CELLS) * STEP_M - at
    inside = (cells >= 0) & (cells < _JUNCTION_M)
    into = np.minimum(cells - 2.0, 11.0 - cells)  # metres into the mouth
    round_off = np.clip(_CORNER_M**2 - np.clip(into, 0, _CORNER_M) ** 2, 0, None)
    turn = _CORNER_M - np.sqrt(round_off)
    in_mouth = LANE_HALF_M + np.where(into < _CORNER_M, turn, 90.0)
    kerb = np.where(into > 0, in_mouth, LANE_HALF_M)
    made.kerb[:, column] = np.where(inside, kerb, made.kerb[:, column])

    # Houses of the side street, on its far side.
    for k in range(2):
        fronts = textures.facades()["brick"]
        front = fronts[int(rng.integers(len(fronts)))]
        place = site.place(at, FACADE_M + 8.6 + k * 9.0, 12.8)
        across = np.array([side * 9.0, 0.0, 0.0])
        if side < 0:
            place = place + across
            across = -across
        up = np.array([0.0, front.height_m, 0.0])
        face = Face(place, across, up, _SQUARE, front, BUILDING, _ONE)
        _panel(made, site.start + at + 13, face)

    # A signal or bollards at its corners.
    for along in (2.2, 10.8):
        place = site.place(at, LANE_HALF_M + 0.6, along)
        if rng.random() < 0.45:
            _stand(made, figures.sign("lights", 3.1), place, 0.0, 1.0)
        else:
            for k in range(3):
                spot_k = place + np.array([side * 0.9 * k, 0.0, 0.0])
                _stand(made, figures.bollard(), spot_k, 0.0, 0.5)

    # A car in the side street.
    if rng.random() < 0.6:
        _park(rng, made, site.place(at, site.uniform(13, 22), 5.0), side * np.pi / 2)


def _garden(site: _Site, at: float, width: float) -> None:
    """Fill a gap between houses: a fence or hedge at the pavement, trees behind it."""
    rng = site.rng
    near = site.place(at, FACADE_M)
    far = site.place(at, FACADE_M, width)
    kinds = (
        (textures.boards(), 1.7, FENCE),
        (textures.hedge(), 1.4, TREE),
        (textures.railing(), 1.2, FENCE),
    )
    texture, height, label = kinds[int(rng.choice(3, p=[0.4, 0.25, 0.35]))]
    _run(site.chunk, near, far, height, texture, label)

    for row, first in enumerate((11.5, 17.0)):
        for _ in range(max(round(width / (5.0 + row)), 1)):
            along = site.uniform(0, width)
            place = site.place(at, first + site.uniform(-1, 2), along)
            size = site.uniform(0.75, 1.2) * (1 + 0.25 * row)
            _tree(rng, site.chunk, place, size, bare=0.3)


def _run(
    made: Chunk, near: Floats, far: Floats, height: float, texture: Texture, label: int
) -> None:
    """Build a fence along the road, in panels of the texture's own length."""
    count = max(round(float(np.linalg.norm(far - near)) / texture.width_m), 1)
    up = np.array([0.0, height, 0.0])
    for k in range(count):
        a = near + (far - near) * (k / count)
        b = near + (far - near) * ((k + 1) / count)
        face = Face(a, b - a, up, _SQUARE, texture, label, _ONE)
        _panel(made, float(b[2]), face)


def _panel(made: Chunk, key: float, face: Face) -> None:
    """Add an upright face as an item of its own."""
    low = face.corners[0]
    across = face.corners[1] - low
    radius = float(np.linalg.norm(across)) / 2 + 1
    height = float(face.corners[:, 1].max())
    made.faces.append(face)
    item = item_at(key, low + across / 2, (radius, height), lambda view: view.face(face))
    made.items.append(item)


def _tree(
    rng: np.random.Generator, made: Chunk, place: Floats, size: float, *, bare: float
) -> None:
    """Add a tree with its shadow; ``bare`` is the probability that it has no leaves."""
    kinds = textures.bare_trees() if rng.random() < bare else textures.leafy_trees()
    picture = kinds[int(rng.integers(len(kinds)))]
    box = (picture.width_m * size, picture.height_m * size)
    tint = _ONE * float(rng.uniform(0.95, 1.5)) * rng.uniform(0.93, 1.07, 3)
    leafy = kinds is textures.leafy_trees()

    # The shadow is many small patches: light falls between the leaves.
    ring = _ring(7)
    patches = ring * rng.uniform(0.25, 0.75, (18, 1, 2)) * size
    patches += rng.normal(0, 0.5, (18, 1, 2)) * (2.1, 2.6) * size

    def paint(view: View) -> None:
        """Draw the tree."""
        view.billboard(place, box, picture, TREE, tint)

    def shadow(view: View) -> None:
        """Draw its shadow."""
        sun = view.light.sun
        middle = place[[0, 2]] - sun[[0, 2]] * (4.6 * size / max(float(sun[1]), 0.2))
        strength = 190 if leafy else 90
        strength = round(strength * min(float(view.light.sun_gain.mean()), 1))
        view.shade_ground(middle + patches, strength)

    around = (box[0] / 2 + 1, box[1])
    made.items.append(item_at(float(place[2]), place, around, paint, shadow))


def _ring(corners: int) -> Floats:
    """Return the corners of a polygon on the unit circle, (N, 2)."""
    turns = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([np.sin(turns), np.cos(turns)], 1)


def _furnish(left: _Site, right: _Site) -> None:
    """Add what stands in front of the houses on both sides."""
    made = left.chunk
    closed = (made.kerb <= LANE_HALF_M + 0.01) & (made.zebra[:, None] == 0)
    _lamp(left, 8.0)
    _lamp(right, 27.0)
    for site in (left, right):
        free = closed[:, site.column]
        _add_signs(site, free)
        _add_railing(site, free)
        _add_street_trees(site, free)
        _add_parked_cars(site, free)
        _add_people(site)


def _is_free(free: npt.NDArray[np.bool_], at: float, reach: float) -> bool:
    """Return True if there is no junction or crossing within ``reach`` metres."""
    first = round((at - reach) / STEP_M)
    last = round((at + reach) / STEP_M)
    return first >= 0 and last <= _CELLS and bool(free[first:last].all())


def _add_signs(site: _Site, free: npt.NDArray[np.bool_]) -> None:
    """Add one to three traffic signs; some on the right show their back."""
    rng = site.rng
    for _ in range(int(rng.integers(1, 4))):
        at = site.uniform(1, CHUNK_M - 1)
        shape = str(rng.choice(["round", "triangle", "board"]))
        if _is_free(free, at, 0.8):
            turn = site.line.turn(site.start + at)
            if site.side > 0 and rng.random() < 0.5:
                turn += np.pi
            sign = figures.sign(shape, site.uniform(2.5, 3.2))
            _stand(site.chunk, sign, site.place(at, LANE_HALF_M + 0.5), turn, 1.0)


def _add_railing(site: _Site, free: npt.NDArray[np.bool_]) -> None:
    """Add a railing at the kerb, or none."""
    first = site.uniform(2, 18)
    length = site.uniform(10, 20)
    wanted = site.rng.random() < 0.38
    if wanted and _is_free(free, first + length / 2, length / 2):
        near = site.place(first, LANE_HALF_M + 0.3)
        far = site.place(first + length, LANE_HALF_M + 0.3)
        _run(site.chunk, near, far, 1.1, textures.railing(), FENCE)


def _add_street_trees(site: _Site, free: npt.NDArray[np.bool_]) -> None:
    """Add a row of trees at the kerb, or none."""
    if site.rng.random() >= _TREE_LINED[site.district]:
        return
    for at in np.arange(4.0, CHUNK_M, site.uniform(9, 16)).tolist():
        if _is_free(free, at, 1.5):
            place = site.place(at, LANE_HALF_M + 0.9)
            _tree(site.rng, site.chunk, place, site.uniform(0.6, 0.95), bare=0.45)


def _add_parked_cars(site: _Site, free: npt.NDArray[np.bool_]) -> None:
    """Add parked cars; on the right most face the camera."""
    rng = site.rng
    for at in np.arange(3.2, CHUNK_M - 2, 6.4).tolist():
        wanted = rng.random() < _PARKED[site.district]
        if wanted and _is_free(free, at, 3.0):
            away = site.side < 0 or rng.random() < 0.3
            turn = site.line.turn(site.start + at) + (0.0 if away else np.pi)
            _park(rng, site.chunk, site.place(at, LANE_HALF_M - 0.92), turn)


def _add_people(site: _Site) -> None:
    """Add people who stand about on the pavement."""
    most = 4 if site.district == "town" else 2
    for _ in range(int(site.rng.integers(0, most))):
        at = site.uniform(0, CHUNK_M)
        _idle(site.rng, site.chunk, site.place(at, site.uniform(7.4, 8.5)))


def _lamp(site: _Site, at: float) -> None:
    """Add a lamp post, ``at`` metres into the chunk."""
    side = site.side
    place = site.place(at, LANE_HALF_M + 0.45)
    shape = [[0, 0.0, 0], [0, 1.2, 0], [0, 7.6, 0], [-side * 1.3, 8.0, 0], [-side * 1.9, 8.0, 0]]
    joints = place + np.array(shape)
    bones = np.array([[0, 1], [1, 2], [2, 3], [3, 4]])
    widths = np.array([[0.2, 0.18], [0.15, 0.1], [0.1, 0.08], [0.24, 0.2]])
    grey = [(92, 94, 92), (112, 114, 112), (112, 114, 112), (150, 152, 152)]
    post = figures.Figure(bones, widths, np.array(grey, np.float64), POLE)

    def paint(view: View) -> None:
        """Draw the post."""
        post.paint(view, joints, sort=False)

    site.chunk.items.append(item_at(site.start + at, place, (3.0, 8.3), paint))


def _stand(made: Chunk, thing: figures.Solid, place: Floats, turn: float, radius: float) -> None:
    """Add a solid that stands at ``place``."""

    def paint(view: View) -> None:
        """Draw the solid."""
        thing.paint(view, place, turn)

    around = (radius, thing.height_m)
    made.items.append(item_at(float(place[2]), place, around, paint))


def _park(rng: np.random.Generator, made: Chunk, place: Floats, turn: float) -> None:
    """Add a car at random."""
    shape = int(rng.integers(len(figures.CAR_SHAPES)))
    paint = int(rng.integers(len(figures.CAR_COLOURS)))
    length = figures.CAR_SHAPES[shape].length
    made.items.append(vehicle(car_of(shape, paint), length, place, turn))


def _idle(rng: np.random.Generator, made: Chunk, place: Floats) -> None:
    """Add a person who stands about."""
    person = figures.body(rng, PEDESTRIAN)
    joints = figures.walking(0.0, float(rng.uniform(1.55, 1.85)), 0.25)
    joints = figures.stand(joints, place, float(rng.uniform(0, 6.28)))

    def paint(view: View) -> None:
        """Draw the person."""
        person.paint(view, joints)

    made.items.append(item_at(float(place[2]), place, PERSON_M, paint, spot(place, 0.35)))


@lru_cache(maxsize=64)
def car_of(shape: int, paint: int) -> figures.Solid:
    """Return the car of a shape and a colour.

    Parameters
    ----------
    shape : index into ``figures.CAR_SHAPES``.
    paint : index into ``figures.CAR_COLOURS``.
    """
    return figures.car(figures.CAR_SHAPES[shape], figures.CAR_COLOURS[paint])


def item_at(
    key: float,
    centre: Floats,
    size: tuple[float, float],
    paint: Callable[[View], None],
    shadow: Callable[[View], None] | None = None,
) -> Item:
    """Return an item around a world point.

    Parameters
    ----------
    key : position along the road; items are drawn from the largest to the smallest.
    centre : (3,) world point.
    size : radius and height of an upright cylinder around it, metres.
    paint : function that draws it.
    shadow : function that draws its shadow.
    """
    return Item(key, float(centre[0]), float(centre[2]), *size, paint, shadow)


def vehicle(solid: figures.Solid, length: float, place: Floats, turn: float) -> Item:
    """Return a car with its shadow.

    Parameters
    ----------
    solid : the car.
    length : its length, metres.
    place : (3,) world point that it stands on.
    turn : its turn to the right of +Z, radians.
    """
    along = np.array([np.sin(turn), np.cos(turn)])
    across = np.array([np.cos(turn), -np.sin(turn)])
    ground = place[[0, 2]]
    ends = np.array([[-0.5, -0.95], [0.5, -0.95], [0.5, 0.95], [-0.5, 0.95]]) * (length, 1.0)
    base = ground + ends[:, :1] * along + ends[:, 1:] * across

    def paint(view: View) -> None:
        """Draw the car."""
        solid.paint(view, place, turn)

    def shadow(view: View) -> None:
        """Draw the shadow that the sun casts, and the dark ground under the car."""
        sunny = float(view.light.sun_gain.mean())
        if sunny > 0.25:
            sun = view.light.sun
            cast = -sun[[0, 2]] * min(0.9 / max(float(sun[1]), 0.2), 2.0)
            corners = np.vstack([base - ground, base - ground + cast]).astype(np.float32)
            hull = cv2.convexHull(corners)[:, 0]
            view.shade_ground(hull[None] + ground, round(200 * min(sunny, 1.0)))
        view.shade_ground(base[None])

    around = (length / 2 + 0.5, solid.height_m)
    return item_at(float(place[2]), place, around, paint, shadow)


def spot(place: Floats, radius: float) -> Callable[[View], None]:
    """Return a function that draws the small dark patch under a person.

    Parameters
    ----------
    place : (3,) world point that the person stands on.
    radius : radius of the patch, metres.
    """
    outline = place[[0, 2]] + _ring(8) * radius
    return lambda view: view.shade_ground(outline[None], 190)


def standing(seed: int, view: View, ego_m: float) -> Iterator[Item]:
    """Yield everything that stands still and can be seen.

    Parameters
    ----------
    seed : seed of the drive.
    view : the frame.
    ego_m : position of the camera along the road, metres.
    """
    camera = view.camera
    reach = camera.size[1] / 2 / camera.focal
    c = np.cos(camera.yaw)
    s = np.sin(camera.yaw)
    first = int(ego_m // CHUNK_M)
    last = int((ego_m + SIGHT_M) // CHUNK_M)
    for number in range(first, last + 1):
        part = chunk(seed, number)
        view.place(part.table)
        x = part.boxes[:, 0] - camera.position[0]
        z = part.boxes[:, 1] - camera.position[2]
        radius = part.boxes[:, 2]

        # In front of the camera, inside the frame's sides, and large enough.
        depth = s * x + c * z
        aside = np.abs(c * x - s * z)
        seen = (depth > -radius) & (aside - radius * 1.5 < np.maximum(depth + radius, 0) * reach)
        seen &= radius * camera.focal > _UNSEEN * camera.size[0] * depth
        for i in np.flatnonzero(seen).tolist():
            yield part.items[i]


def strip(seed: int, ego_m: float) -> Strip:
    """Return the tables of the ground, from just behind the camera to beyond sight.

    Parameters
    ----------
    seed : seed of the drive.
    ego_m : position of the camera along the road, metres.
    """
    first = int(ego_m // CHUNK_M) - 1
    parts = [chunk(seed, number) for number in range(first, first + 15)]
    start = first * CHUNK_M
    line = road(seed)
    along: Floats = start + (np.arange(len(parts) * _CELLS, dtype=np.float64) + 0.5) * STEP_M
    tangent = line.slope(ego_m) * (along - ego_m)
    bend = line.bend(along) - float(line.bend(ego_m)) - tangent
    return Strip(
        start=start,
        kerb=np.concatenate([part.kerb for part in parts]).astype(np.float32),
        ground=np.concatenate([part.ground for part in parts]).astype(np.uint8),
        height=np.concatenate([part.height for part in parts]).astype(np.float32),
        zebra=np.concatenate([part.zebra for part in parts]).astype(bool),
        bend=bend.astype(np.float32),
    )
