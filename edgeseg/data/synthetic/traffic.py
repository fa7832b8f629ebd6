"""What moves: endless streams of cars, cyclists and walkers, and the cars ahead of the ego. Traffic keeps left."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from edgeseg.data.synthetic import figures
from edgeseg.data.synthetic.draw import View
from edgeseg.data.synthetic.figures import BICYCLIST, PEDESTRIAN
from edgeseg.data.synthetic.town import LARGE, Item, Road, car_of, item_at, road, spot, vehicle

EGO_OFFSET_M = -1.6
EGO_SPEED = 8.0  # metres a second


@lru_cache(maxsize=1)
def _bus() -> figures.Solid:
    return figures.bus()


@dataclass(frozen=True)
class Stream:
    """Like-minded traffic: slots of ``spacing`` metres that move along the road at ``speed``; some hold somebody."""

    salt: int
    kind: str
    speed: float
    spacing: float
    offset: float
    chance: float
    sight: float


STREAMS = (
    Stream(10, "car", -8.5, 27.0, 1.65, 0.6, 230.0),
    Stream(11, "cyclist", 4.4, 26.0, -3.0, 0.55, 110.0),
    Stream(12, "cyclist", -4.8, 34.0, 2.95, 0.6, 110.0),
    Stream(13, "walker", 1.35, 10.0, -6.6, 0.5, 85.0),
    Stream(14, "walker", -1.25, 10.0, -7.5, 0.5, 85.0),
    Stream(15, "walker", 1.2, 10.0, 7.5, 0.5, 85.0),
    Stream(16, "walker", -1.4, 9.0, 6.6, 0.55, 85.0),
)


@dataclass(frozen=True)
class _Actor:
    """Who is in a slot: where in it, and the looks."""

    along: float
    offset: float
    phase: float
    height: float
    shape: int
    paint: int
    person: figures.Figure
    frame: figures.Figure


@lru_cache(maxsize=512)
def _actor(seed: int, salt: int, slot: int, chance: float, cyclist: bool) -> _Actor | None:
    rng = np.random.default_rng([seed, salt, slot + LARGE])
    if rng.random() > chance:
        return None
    along, offset, phase, height = rng.uniform([0.2, -0.25, 0.0, 1.5], [0.8, 0.25, 6.28, 1.88]).tolist()
    shape, paint = int(rng.integers(len(figures.CAR_SHAPES))), int(rng.integers(len(figures.CAR_COLOURS)))
    label = BICYCLIST if cyclist else PEDESTRIAN
    person = figures.body(rng, label, helmet=cyclist and rng.random() < 0.6)
    b, g, r = rng.uniform(20, 130, 3).tolist()
    return _Actor(along, offset, phase, height, shape, paint, person, figures.bicycle_frame((b, g, r)))


def moving(seed: int, time_s: float, ego_m: float) -> Iterator[Item]:
    """Everything that moves and may be seen from ``ego_m`` along the road."""
    line = road(seed)
    for stream in STREAMS:
        shift = stream.speed * time_s
        first = int(np.floor((ego_m - 4 - shift) / stream.spacing))
        last = int(np.floor((ego_m + stream.sight - shift) / stream.spacing))
        for slot in range(first, last + 1):
            who = _actor(seed, stream.salt, slot, stream.chance, stream.kind == "cyclist")
            if who is not None:
                along = (slot + who.along) * stream.spacing + shift
                yield _moving_item(stream, who, line, along, time_s)
    yield from _ahead(seed, line, time_s, ego_m)


def _moving_item(stream: Stream, who: _Actor, line: Road, along: float, time_s: float) -> Item:
    back = stream.speed < 0
    turn = line.turn(along) + (np.pi if back else 0.0)
    wander = 1.0 if stream.kind == "walker" else 0.35
    place = line.at(along, stream.offset + who.offset * wander)
    if stream.kind == "car":
        if who.shape == 1 and who.paint == 0:
            return vehicle(_bus(), 10.0, place, turn)
        return vehicle(car_of(who.shape, who.paint), figures.CAR_SHAPES[who.shape].length, place, turn)
    if stream.kind == "walker":
        phase = who.phase + abs(stream.speed) * time_s / (0.43 * who.height) * np.pi
        joints = figures.stand(figures.walking(phase, who.height), place, turn)
        return item_at(along, place, 0.8, lambda view: who.person.paint(view, joints), spot(place, 0.35))
    rider = figures.stand(figures.cycling(who.phase + time_s * 7.0), place, turn)

    def paint(view: View) -> None:
        figures.paint_bicycle(view, who.frame, place, turn)
        who.person.paint(view, rider)

    return item_at(along, place, 1.2, paint, spot(place, 0.5))


def _ahead(seed: int, line: Road, time_s: float, ego_m: float) -> Iterator[Item]:
    """Two cars in the ego's lane, whose distance breathes."""
    rng = np.random.default_rng([seed, 5])
    phase = rng.uniform(0, 6.28, 4)
    gap = 21.0 + 9.0 * np.sin(time_s / 7.0 + phase[0]) + 12.0 * np.sin(time_s / 23.0 + phase[1]) ** 2
    further = gap + 17.0 + 6.0 * np.sin(time_s / 9.0 + phase[2])
    for distance in (gap, further):
        shape, paint = int(rng.integers(len(figures.CAR_SHAPES))), int(rng.integers(len(figures.CAR_COLOURS)))
        along = ego_m + float(distance)
        place = line.at(along, EGO_OFFSET_M + 0.1 * float(np.sin(time_s / 3 + phase[3] + distance)))
        yield vehicle(car_of(shape, paint), figures.CAR_SHAPES[shape].length, place, line.turn(along))
