"""Build what moves: endless streams of cars, cyclists and walkers, and the cars ahead.

Traffic keeps left.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from edgeseg.data.synthetic import figures
from edgeseg.data.synthetic.draw import View
from edgeseg.data.synthetic.figures import BICYCLIST, PEDESTRIAN
from edgeseg.data.synthetic.town import (
    LARGE,
    PERSON_M,
    Item,
    Road,
    car_of,
    item_at,
    road,
    spot,
    vehicle,
)

EGO_OFFSET_M = -1.6
EGO_SPEED = 8.0  # metres per second


@lru_cache(maxsize=1)
def _bus() -> figures.Solid:
    """Return the bus, made once."""
    return figures.bus()


@dataclass(frozen=True)
class Stream:
    """Describe traffic of one kind: slots that move along the road; some of them are taken.

    Attributes
    ----------
    salt : number that makes its choices differ from those of other streams.
    kind : ``car``, ``cyclist`` or ``walker``.
    speed : metres per second along the road; negative towards the camera.
    spacing : length of a slot, metres.
    offset : position to the right of the road's centre, metres.
    chance : probability that a slot is taken.
    sight : how far ahead of the camera the stream is drawn, metres.
    """

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
    """Describe who is in a slot.

    Attributes
    ----------
    along : position in the slot, 0..1.
    offset : distance from the stream's middle, metres.
    phase : phase of the steps, radians.
    height : height of the person, metres.
    shape, paint : which car, if it is one.
    person : the person, if it is none.
    frame : the tubes of the bicycle.
    """

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
    """Return who is in a slot; None if nobody."""
    rng = np.random.default_rng([seed, salt, slot + LARGE])
    if rng.random() > chance:
        return None

    lowest = [0.2, -0.25, 0.0, 1.5]
    highest = [0.8, 0.25, 6.28, 1.88]
    along, offset, phase, height = rng.uniform(lowest, highest).tolist()
    shape = int(rng.integers(len(figures.CAR_SHAPES)))
    paint = int(rng.integers(len(figures.CAR_COLOURS)))
    label = BICYCLIST if cyclist else PEDESTRIAN
    helmet = cyclist and rng.random() < 0.6
    person = figures.body(rng, label, helmet=helmet)
    b, g, r = rng.uniform(20, 130, 3).tolist()
    frame = figures.bicycle_frame((b, g, r))
    return _Actor(along, offset, phase, height, shape, paint, person, frame)


def moving(seed: int, time_s: float, ego_m: float) -> Iterator[Item]:
    """Yield everything that moves and may be seen.

    Parameters
    ----------
    seed : seed of the drive.
    time_s : time, seconds.
    ego_m : position of the camera along the road, metres.
    """
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
    """Return an actor as an item."""
    turn = line.turn(along) + (np.pi if stream.speed < 0 else 0.0)
    wander = 1.0 if stream.kind == "walker" else 0.35
    place = line.at(along, stream.offset + who.offset * wander)

    # A car; one kind of car in one colour is a bus instead.
    if stream.kind == "car":
        if who.shape == 1 and who.paint == 0:
            return vehicle(_bus(), 10.0, place, turn)
        length = figures.CAR_SHAPES[who.shape].length
        return vehicle(car_of(who.shape, who.paint), length, place, turn)

    # A walker; one step is 0.43 of the height.
    if stream.kind == "walker":
        phase = who.phase + abs(stream.speed) * time_s / (0.43 * who.height) * np.pi

        def paint_walker(view: View) -> None:
            """Draw the walker."""
            joints = figures.stand(figures.walking(phase, who.height), place, turn)
            who.person.paint(view, joints)

        return item_at(along, place, PERSON_M, paint_walker, spot(place, 0.35))

    # A cyclist.
    def paint_cyclist(view: View) -> None:
        """Draw rider and bicycle; the nearer first."""
        rider = figures.stand(figures.cycling(who.phase + time_s * 7.0), place, turn)
        who.person.paint(view, rider)
        figures.paint_bicycle(view, who.frame, place, turn)

    return item_at(along, place, (1.2, PERSON_M[1]), paint_cyclist, spot(place, 0.5))


def _ahead(seed: int, line: Road, time_s: float, ego_m: float) -> Iterator[Item]:
    """Yield two cars in the camera's lane; their distance grows and shrinks slowly."""
    rng = np.random.default_rng([seed, 5])
    phase = rng.uniform(0, 6.28, 4)
    slow = 12.0 * np.sin(time_s / 23.0 + phase[1]) ** 2
    gap = 21.0 + 9.0 * np.sin(time_s / 7.0 + phase[0]) + slow
    further = gap + 17.0 + 6.0 * np.sin(time_s / 9.0 + phase[2])
    for distance in (gap, further):
        shape = int(rng.integers(len(figures.CAR_SHAPES)))
        paint = int(rng.integers(len(figures.CAR_COLOURS)))
        along = ego_m + float(distance)
        sway = 0.1 * float(np.sin(time_s / 3 + phase[3] + distance))
        place = line.at(along, EGO_OFFSET_M + sway)
        length = figures.CAR_SHAPES[shape].length
        yield vehicle(car_of(shape, paint), length, place, line.turn(along))
