"""What stands where: an endless street in chunks, each made from (seed, chunk) alone.

Positions along the road are ``along`` metres (world Z), positions across are ``offset`` metres to the right of the
road's centre line. Nothing here depends on the frame's size.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np

from edgeseg.data.synthetic import figures, textures
from edgeseg.data.synthetic.backdrop import FACADE_M, LANE_HALF_M, STEP_M, Strip
from edgeseg.data.synthetic.draw import Face, Floats, Texture, View
from edgeseg.data.synthetic.figures import BUILDING, FENCE, PEDESTRIAN, POLE, TREE

CHUNK_M = 40.0
SIGHT_M = 250.0
_CELLS = int(CHUNK_M / STEP_M)
LARGE = 1 << 31  # lifts chunk and slot numbers, which may be negative, into what a seed takes
_CORNER_M = 3.0
_ONE = np.ones(3)
_SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
_UNSEEN = 0.008  # share of the frame's height below which a thing is left out


@dataclass
class Item:
    """Something to draw: sort key, centre and size for leaving it out early, how to draw it and its shadow."""

    key: float
    x: float
    z: float
    radius: float
    paint: Callable[[View], None]
    shadow: Callable[[View], None] | None = None


@dataclass(frozen=True)
class Road:
    """The centre line X(Z): three long waves."""

    amplitude: Floats
    wave: Floats
    phase: Floats

    def bend(self, along: Floats | float) -> Floats:
        angle = np.multiply.outer(along, self.wave) + self.phase
        return np.asarray((np.sin(angle) * self.amplitude).sum(-1))

    def slope(self, along: float) -> float:
        return float((np.cos(along * self.wave + self.phase) * self.amplitude * self.wave).sum())

    def turn(self, along: float) -> float:
        """Heading in radians to the right of +Z."""
        return float(np.arctan(self.slope(along)))

    def at(self, along: float, offset: float, height: float = 0.0) -> Floats:
        return np.array([float(self.bend(along)) + offset, height, along])


@lru_cache(maxsize=16)
def road(seed: int) -> Road:
    """The road of a drive."""
    rng = np.random.default_rng([seed, 1])
    lengths = np.array([230.0, 410.0, 760.0]) * rng.uniform(0.85, 1.2, 3)
    return Road(np.array([2.6, 8.0, 16.0]) * rng.uniform(0.6, 1.15, 3), 2 * np.pi / lengths, rng.uniform(0, 6.28, 3))


@dataclass
class Chunk:
    """40 m of street: items and, for the ground, tables as in ``Strip``."""

    items: list[Item] = field(default_factory=list)
    kerb: Floats = field(default_factory=lambda: np.full((_CELLS, 2), LANE_HALF_M))
    ground: Floats = field(default_factory=lambda: np.ones((_CELLS, 2)))
    height: Floats = field(default_factory=lambda: np.zeros((_CELLS, 2)))
    zebra: Floats = field(default_factory=lambda: np.zeros(_CELLS))
    boxes: Floats = field(default_factory=lambda: np.zeros((0, 3)))  # x, z, radius of the items


_MIXES: dict[str, tuple[tuple[str, float], ...]] = {
    "town": (("shop", 0.5), ("office", 0.16), ("stone", 0.14), ("brick", 0.1), ("gap", 0.1)),
    "terrace": (("brick", 0.48), ("render", 0.26), ("shop", 0.08), ("gap", 0.18)),
    "suburb": (("brick", 0.28), ("render", 0.2), ("gap", 0.52)),
}


@lru_cache(maxsize=192)
def chunk(seed: int, number: int) -> Chunk:
    """Chunk ``number`` of a drive, from ``40 * number`` metres on."""
    rng = np.random.default_rng([seed, 2, number + LARGE])
    district = np.random.default_rng([seed, 3, number // 4 + LARGE])
    kind = str(district.choice(["town", "terrace", "suburb"], p=[0.4, 0.35, 0.25]))
    made, line, start = Chunk(), road(seed), number * CHUNK_M
    if rng.random() < 0.22:
        first = int(rng.integers(20, _CELLS - 20))
        made.zebra[first : first + round(3 / STEP_M)] = 1
    for side in (-1, 1):
        _build_side(rng, made, line, start, side, kind)
    _furnish(rng, made, line, start, kind)
    made.boxes = np.array([(item.x, item.z, item.radius) for item in made.items])
    return made


def _build_side(rng: np.random.Generator, made: Chunk, line: Road, start: float, side: int, kind: str) -> None:
    names, weights = zip(*_MIXES[kind], strict=True)
    at, column = 0.0, (side + 1) // 2
    junction = rng.random() < 0.2
    while at < CHUNK_M - 0.1:
        left = CHUNK_M - at
        if junction and at > 6 and left > 13:
            _junction(rng, made, line, start, at, side)
            at, junction = at + 13.0, False
            continue
        choice = str(rng.choice(names, p=np.array(weights) / sum(weights)))
        fronts = textures.facades().get(choice, ())
        front = fronts[int(rng.integers(len(fronts)))] if fronts else None
        stretch = float(rng.uniform(0.95, 1.1))
        if front is None or front.width_m * stretch > left:
            width = min(float(rng.uniform(7.0, 13.0)), left)
            _garden(rng, made, line, start + at, width, side)
            made.ground[round(at / STEP_M) : round((at + width) / STEP_M), column] = 2
        else:
            width = front.width_m * stretch
            height = front.height_m * float(rng.uniform(0.95, 1.08))
            _house(rng, made, line, (start + at, width, height), side, front, flat=choice == "office")
            made.height[round(at / STEP_M) : round((at + width) / STEP_M), column] = height
            if kind == "town" and rng.random() < 0.6:
                mark = line.at(start + at + float(rng.uniform(1, width - 1)), side * (FACADE_M - 0.5))
                _stand(made, figures.sign("hanging", float(rng.uniform(3.6, 4.6))), mark, 0.0, 0.8)
        at += width


def _house(
    rng: np.random.Generator, made: Chunk, line: Road, box: tuple[float, float, float], side: int, front: Texture,
    *, flat: bool,
) -> None:  # fmt: skip
    start, width, height = box
    setback = FACADE_M + float(rng.choice([0.0, 0.0, 0.4]))
    near, far = line.at(start, side * setback), line.at(start + width, side * setback)
    if side > 0:
        origin, across = far, near - far
    else:
        origin, across = near, far - near
    up, out = np.array([0.0, height, 0.0]), np.array([side * 1.0, 0.0, 0.0])
    rise, depth = (0.0 if flat else float(rng.uniform(2.2, 3.4))), 8.4
    ridge = out * depth / 2 + (0, rise, 0)
    tint = _ONE * float(rng.uniform(0.8, 1.25)) * rng.uniform(0.96, 1.04, 3)
    sides = textures.gables()
    gable = sides[int(np.argmin([float(np.abs(t.mean - front.mean).sum()) for t in sides]))]
    top = textures.roofs()[int(rng.integers(len(textures.roofs())))]
    h, d, r = height / gable.height_m, depth / gable.width_m, (height + rise) / gable.height_m
    end = np.array([[0.0, 0], [d, 0], [d, h], [d / 2, r], [0, h]])
    chimneys = [] if flat else [(float(at), float(rng.uniform(0.9, 1.5))) for at in rng.choice([0.05, 0.92], 1)]

    roof = Face(origin + up, across, ridge, _SQUARE, top, BUILDING, tint) if rise else None
    wall = Face(near, out * gable.width_m, np.array([0.0, gable.height_m, 0.0]), end, gable, BUILDING, tint)
    face = Face(origin, across, up, _SQUARE, front, BUILDING, tint)

    def paint(view: View) -> None:
        for at, tall in chimneys:
            _chimney(view, origin + across * at + ridge + up, tall, tint)
        if roof:
            view.face(roof)
        if view.camera.position[2] < near[2]:
            view.face(wall)
        view.face(face)

    made.items.append(item_at(start + width, (near + far) / 2, width / 2 + depth, paint))


def _chimney(view: View, foot: Floats, tall: float, tint: Floats) -> None:
    low = foot + np.array([[-0.5, -1.0, 0], [0.5, -1.0, 0], [0.5, tall, 0], [-0.5, tall, 0]])
    projected = view.camera.project(low)
    if projected[:, 2].min() > 1.0:
        pixels = projected[:, :2] / projected[:, 2:]
        colour = view.lit(np.array((70.0, 84.0, 112.0)) * tint, np.array([0.0, 0.0, -1.0]), float(projected[0, 2]))
        view.fill(pixels, colour, BUILDING)


def _junction(rng: np.random.Generator, made: Chunk, line: Road, start: float, at: float, side: int) -> None:
    """A side street, 13 m of the house line: kerbs turn in, a signal or bollards at its corners."""
    column = (side + 1) // 2
    cells = np.arange(_CELLS) * STEP_M - at
    inside = (cells >= 0) & (cells < 13)
    into = np.minimum(cells - 2.0, 11.0 - cells)  # metres into the mouth, which is 9 m wide
    turn = _CORNER_M - np.sqrt(np.clip(_CORNER_M**2 - np.clip(into, 0, _CORNER_M) ** 2, 0, None))
    kerb = np.where(into > 0, LANE_HALF_M + np.where(into < _CORNER_M, turn, 90.0), LANE_HALF_M)
    made.kerb[:, column] = np.where(inside, kerb, made.kerb[:, column])
    for k in range(2):  # houses of the side street, on its far side
        fronts = textures.facades()["brick"]
        front = fronts[int(rng.integers(len(fronts)))]
        offset = side * (FACADE_M + 8.6 + k * 9.0)
        place = line.at(start + at + 12.8, offset)
        across = np.array([side * 9.0, 0.0, 0.0])
        if side < 0:
            place, across = place + across, -across
        up = np.array([0.0, front.height_m, 0.0])
        _panel(made, start + at + 13, place, across, up, front, BUILDING)
    for along in (2.2, 10.8):
        place = line.at(start + at + along, side * (LANE_HALF_M + 0.6))
        if rng.random() < 0.45:
            _stand(made, figures.sign("lights", 3.1), place, 0.0, 1.0)
        else:
            for k in range(3):
                _stand(made, figures.bollard(), place + np.array([side * 0.9 * k, 0.0, 0.0]), 0.0, 0.5)
    if rng.random() < 0.6:
        place = line.at(start + at + 5.0, side * float(rng.uniform(13, 22)))
        _park(rng, made, place, side * np.pi / 2)


def _garden(rng: np.random.Generator, made: Chunk, line: Road, start: float, width: float, side: int) -> None:
    """A gap between houses: fence or hedge at the pavement, trees behind."""
    near, far = line.at(start, side * FACADE_M), line.at(start + width, side * FACADE_M)
    front = [(textures.boards(), 1.7, FENCE), (textures.hedge(), 1.4, TREE), (textures.railing(), 1.2, FENCE)]
    texture, height, label = front[int(rng.choice(3, p=[0.4, 0.25, 0.35]))]
    _run(made, near, far, height, texture, label)
    for row, first in enumerate((11.5, 17.0)):
        for _ in range(max(round(width / (5.0 + row)), 1)):
            place = line.at(start + float(rng.uniform(0, width)), side * (first + float(rng.uniform(-1, 2))))
            _tree(rng, made, place, float(rng.uniform(0.75, 1.2)) * (1 + 0.25 * row), bare=0.3)


def _run(made: Chunk, near: Floats, far: Floats, height: float, texture: Texture, label: int) -> None:
    """A fence along the road, in panels of the texture's own length."""
    count = max(round(float(np.linalg.norm(far - near)) / texture.width_m), 1)
    for k in range(count):
        a, b = near + (far - near) * (k / count), near + (far - near) * ((k + 1) / count)
        _panel(made, float(b[2]), a, b - a, np.array([0.0, height, 0.0]), texture, label)


def _panel(
    made: Chunk, key: float, origin: Floats, across: Floats, up: Floats, texture: Texture, label: int
) -> None:  # fmt: skip
    face = Face(origin, across, up, _SQUARE, texture, label, _ONE)
    radius = float(np.linalg.norm(across)) / 2 + 1
    made.items.append(item_at(key, origin + across / 2, radius, lambda view: view.face(face)))


def _tree(rng: np.random.Generator, made: Chunk, place: Floats, size: float, *, bare: float) -> None:
    kinds = textures.bare_trees() if rng.random() < bare else textures.leafy_trees()
    picture = kinds[int(rng.integers(len(kinds)))]
    box = (picture.width_m * size, picture.height_m * size)
    tint = _ONE * float(rng.uniform(0.95, 1.5)) * rng.uniform(0.93, 1.07, 3)
    full = kinds is textures.leafy_trees()
    turns = np.linspace(0, 2 * np.pi, 7, endpoint=False)
    ring = np.stack([np.sin(turns), np.cos(turns)], 1)
    patches = ring * rng.uniform(0.25, 0.75, (18, 1, 2)) * size  # light falls between the leaves
    patches += rng.normal(0, 0.5, (18, 1, 2)) * (2.1, 2.6) * size

    def paint(view: View) -> None:
        view.billboard(place, box, picture, TREE, tint)

    def shadow(view: View) -> None:
        middle = place[[0, 2]] - view.light.sun[[0, 2]] * (4.6 * size / max(float(view.light.sun[1]), 0.2))
        strength = round((190 if full else 90) * min(float(view.light.sun_gain.mean()), 1))
        view.shade_ground(middle + patches, strength)

    made.items.append(item_at(float(place[2]), place, box[0] / 2 + 1, paint, shadow))


def _furnish(rng: np.random.Generator, made: Chunk, line: Road, start: float, kind: str) -> None:
    """Lamp posts, signs, railings, street trees, parked cars and people who stand about."""
    closed = (made.kerb <= LANE_HALF_M + 0.01) & (made.zebra[:, None] == 0)
    for side, at in ((-1, 8.0), (1, 27.0)):
        _lamp(made, line, start + at, side)
    for side in (-1, 1):
        column = (side + 1) // 2

        def free(at: float, reach: float, column: int = column) -> bool:
            first, last = round((at - reach) / STEP_M), round((at + reach) / STEP_M)
            return first >= 0 and last <= _CELLS and bool(closed[first:last, column].all())

        for _ in range(int(rng.integers(1, 4))):
            at = float(rng.uniform(1, CHUNK_M - 1))
            shape = str(rng.choice(["round", "triangle", "board"]))
            place = line.at(start + at, side * (LANE_HALF_M + 0.5))
            if free(at, 0.8):
                turn = line.turn(start + at) + (np.pi if side > 0 and rng.random() < 0.5 else 0.0)
                _stand(made, figures.sign(shape, float(rng.uniform(2.5, 3.2))), place, turn, 1.0)
        rail = float(rng.uniform(2, 18)), float(rng.uniform(10, 20))
        railed = rng.random() < 0.38 and free(rail[0] + rail[1] / 2, rail[1] / 2)
        if railed:
            ends = [line.at(start + at, side * (LANE_HALF_M + 0.3)) for at in (rail[0], rail[0] + rail[1])]
            _run(made, ends[0], ends[1], 1.1, textures.railing(), FENCE)
        if rng.random() < {"town": 0.25, "terrace": 0.45, "suburb": 0.9}[kind]:
            for at in np.arange(4.0, CHUNK_M, float(rng.uniform(9, 16))).tolist():
                if free(at, 1.5):
                    place = line.at(start + at, side * (LANE_HALF_M + 0.9))
                    _tree(rng, made, place, float(rng.uniform(0.6, 0.95)), bare=0.45)
        busy = {"town": 0.16, "terrace": 0.34, "suburb": 0.18}[kind]
        for at in np.arange(3.2, CHUNK_M - 2, 6.4).tolist():
            if rng.random() < busy and free(at, 3.0):
                turn = line.turn(start + at) + (0.0 if side < 0 or rng.random() < 0.3 else np.pi)
                _park(rng, made, line.at(start + at, side * (LANE_HALF_M - 0.92)), turn)
        for _ in range(int(rng.integers(0, 4 if kind == "town" else 2))):
            place = line.at(start + float(rng.uniform(0, CHUNK_M)), side * float(rng.uniform(7.4, 8.5)))
            _idle(rng, made, place)


def _lamp(made: Chunk, line: Road, along: float, side: int) -> None:
    place = line.at(along, side * (LANE_HALF_M + 0.45))
    joints = place + np.array([[0, 0.0, 0], [0, 1.2, 0], [0, 7.6, 0], [-side * 1.3, 8.0, 0], [-side * 1.9, 8.0, 0]])
    bones = np.array([[0, 1], [1, 2], [2, 3], [3, 4]])
    widths = np.array([[0.2, 0.18], [0.15, 0.1], [0.1, 0.08], [0.24, 0.2]])
    colours = np.array([(92, 94, 92), (112, 114, 112), (112, 114, 112), (150, 152, 152)], np.float64)
    post = figures.Figure(bones, widths, colours, POLE)
    made.items.append(item_at(along, place, 3.0, lambda view: post.paint(view, joints, sort=False)))


def _stand(made: Chunk, thing: figures.Solid, place: Floats, turn: float, radius: float) -> None:
    made.items.append(item_at(float(place[2]), place, radius, lambda view: thing.paint(view, place, turn)))


def _park(rng: np.random.Generator, made: Chunk, place: Floats, turn: float) -> None:
    shape, paint = int(rng.integers(len(figures.CAR_SHAPES))), int(rng.integers(len(figures.CAR_COLOURS)))
    made.items.append(vehicle(car_of(shape, paint), figures.CAR_SHAPES[shape].length, place, turn))


def _idle(rng: np.random.Generator, made: Chunk, place: Floats) -> None:
    person = figures.body(rng, PEDESTRIAN)
    joints = figures.walking(0.0, float(rng.uniform(1.55, 1.85)), 0.25)
    joints = figures.stand(joints, place, float(rng.uniform(0, 6.28)))
    made.items.append(item_at(float(place[2]), place, 0.8, lambda view: person.paint(view, joints), spot(place, 0.35)))


@lru_cache(maxsize=64)
def car_of(shape: int, paint: int) -> figures.Solid:
    """The car of a shape and a colour, by their numbers."""
    return figures.car(figures.CAR_SHAPES[shape], figures.CAR_COLOURS[paint])


def item_at(
    key: float, centre: Floats, radius: float, paint: Callable[[View], None],
    shadow: Callable[[View], None] | None = None,
) -> Item:  # fmt: skip
    """An item about ``centre``, a world point."""
    return Item(key, float(centre[0]), float(centre[2]), radius, paint, shadow)


def vehicle(solid: figures.Solid, length: float, place: Floats, turn: float) -> Item:
    """A car with its shadow, which stands at world ``place``."""
    along = np.array([np.sin(turn), np.cos(turn)])
    across = np.array([np.cos(turn), -np.sin(turn)])
    ground = place[[0, 2]]
    ends = np.array([[-0.5, -0.95], [0.5, -0.95], [0.5, 0.95], [-0.5, 0.95]]) * (length, 1.0)
    base = ground + ends[:, :1] * along + ends[:, 1:] * across

    def shadow(view: View) -> None:
        if view.light.sun_gain.mean() > 0.25:
            cast = -view.light.sun[[0, 2]] * min(0.9 / max(float(view.light.sun[1]), 0.2), 2.0)
            hull = cv2.convexHull(np.vstack([base - ground, base - ground + cast]).astype(np.float32))[:, 0]
            view.shade_ground(hull[None] + ground, round(200 * min(float(view.light.sun_gain.mean()), 1.0)))
        view.shade_ground(base[None])

    return item_at(float(place[2]), place, length / 2 + 0.5, lambda view: solid.paint(view, place, turn), shadow)


def spot(place: Floats, radius: float) -> Callable[[View], None]:
    """The small dark patch under somebody."""
    turns = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    ring = np.stack([np.sin(turns), np.cos(turns)], 1) * radius
    return lambda view: view.shade_ground((place[[0, 2]] + ring)[None], 190)


def standing(seed: int, view: View, ego_m: float) -> Iterator[Item]:
    """Everything that stands still and can be seen in this view."""
    camera = view.camera
    reach = camera.size[1] / 2 / camera.focal
    c, s = np.cos(camera.yaw), np.sin(camera.yaw)
    for number in range(int(ego_m // CHUNK_M), int((ego_m + SIGHT_M) // CHUNK_M) + 1):
        part = chunk(seed, number)
        x, z, radius = part.boxes[:, 0] - camera.position[0], part.boxes[:, 1] - camera.position[2], part.boxes[:, 2]
        depth, aside = s * x + c * z, np.abs(c * x - s * z)
        seen = (depth > -radius) & (aside - radius * 1.5 < np.maximum(depth + radius, 0) * reach)
        seen &= radius * camera.focal > _UNSEEN * camera.size[0] * depth
        for i in np.flatnonzero(seen).tolist():
            yield part.items[i]


def strip(seed: int, ego_m: float) -> Strip:
    """The ground's tables from just behind the ego to beyond sight."""
    first = int(ego_m // CHUNK_M) - 1
    parts = [chunk(seed, number) for number in range(first, first + 15)]
    start = first * CHUNK_M
    line = road(seed)
    along: Floats = start + (np.arange(len(parts) * _CELLS, dtype=np.float64) + 0.5) * STEP_M
    bend = line.bend(along) - float(line.bend(ego_m)) - line.slope(ego_m) * (along - ego_m)
    return Strip(
        start,
        np.concatenate([p.kerb for p in parts]).astype(np.float32),
        np.concatenate([p.ground for p in parts]).astype(np.uint8),
        np.concatenate([p.height for p in parts]).astype(np.float32),
        np.concatenate([p.zebra for p in parts]).astype(bool),
        bend.astype(np.float32),
    )
