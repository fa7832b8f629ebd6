"""Cars, people, cyclists, poles and signs: solids of flat faces, figures of capsules.

Local coordinates: x to the right, y up, z forward, in metres; the origin is on the ground. Colours
are BGR, 0..255.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.data.synthetic.draw import (
    NEAR_M,
    Floats,
    View,
    clip_near,
    subpixels,
    to_pixels,
)

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)

Point = tuple[float, float, float]
Colour = tuple[float, float, float]
Ints = npt.NDArray[np.int32]

_DETAIL_FROM = 0.035  # small parts are drawn from this share of the frame's height on
_SIDES = 16  # corners of a drawn circle
_TURNS = np.linspace(0, 2 * np.pi, _SIDES, endpoint=False)


@dataclass(frozen=True)
class Solid:
    """Hold flat convex faces, which are drawn in order if they face the camera.

    Attributes
    ----------
    points : (N, 3) corners of all faces.
    corners : the part of ``points`` that belongs to each face.
    normals : (F, 3) unit normals, outward.
    offsets : (F,) distance of each face's plane from the origin, along its normal.
    colours : (F, 3) BGR.
    labels : label id per face.
    height_m : height, metres.
    coarse : the same without small parts, for far away.
    """

    points: Floats
    corners: tuple[slice, ...]
    normals: Floats
    offsets: Floats
    colours: Floats
    labels: tuple[int, ...]
    height_m: float
    coarse: "Solid | None" = None

    def paint(self, view: View, place: Floats, turn: float) -> None:
        """Draw the solid.

        Parameters
        ----------
        view : the frame to draw on.
        place : (3,) world point that it stands on.
        turn : its turn to the right, radians.
        """
        # Far away, without the small parts.
        ahead = view.camera.project_one(place)[2]
        smallest = _DETAIL_FROM * view.camera.size[0] * ahead
        if self.coarse and self.height_m * view.camera.focal < smallest:
            self.coarse.paint(view, place, turn)
            return

        spin = _spin(turn)
        projected = view.camera.project_turned(self.points, spin, place)
        nearest = projected[:, 2].min()
        if nearest < NEAR_M and projected[:, 2].max() < NEAR_M:
            return
        whole = bool(nearest >= NEAR_M)  # no part is behind the camera
        pixels = subpixels(to_pixels(projected)) if whole else None
        if pixels is not None and view.hides(pixels):
            return

        # The faces that face the camera, found in local coordinates.
        eye = spin @ (view.camera.position - place)
        visible = self.normals @ eye > self.offsets
        lit = view.lit(self.colours, self.normals, ahead, spin @ view.light.sun).tolist()

        outlines: list[Ints] = []
        colours: list[tuple[float, ...]] = []
        for i in np.flatnonzero(visible).tolist():
            if pixels is not None:
                outline = pixels[self.corners[i]]
            else:
                cut = clip_near(projected[self.corners[i]])
                if len(cut) < 3:
                    continue
                outline = subpixels(to_pixels(cut))
            outlines.append(outline)
            colours.append((*lit[i], self.labels[i]))
        view.polygons(outlines, colours)


@dataclass
class SolidBuilder:
    """Collect the faces of a solid.

    Attributes
    ----------
    label : label id of faces that have no other.
    core : a point inside; the outward side of a face is the one away from it.
    outlines : corners of every face.
    colours : BGR of every face.
    labels : label id of every face.
    detail : True for small parts, per face.

    Examples
    --------
    >>> builder = SolidBuilder(POLE)
    >>> builder.box((-0.1, 0.0, -0.1), (0.1, 3.0, 0.1), (90, 90, 90))
    >>> solid = builder.build()
    >>> len(solid.corners), solid.height_m
    (5, 3.0)
    """

    label: int
    core: Point = (0.0, 0.7, 0.0)
    outlines: list[list[Point]] = field(default_factory=list)
    colours: list[Colour] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    detail: list[bool] = field(default_factory=list)

    def face(
        self, outline: list[Point], colour: Colour, *, fine: bool = False, label: int | None = None
    ) -> None:
        """Add a face.

        Parameters
        ----------
        outline : three corners or more, in order.
        colour : BGR.
        fine : True for a small part, which is left out far away.
        label : label id; that of the builder if not given.
        """
        self.outlines.append(outline)
        self.colours.append(colour)
        self.labels.append(self.label if label is None else label)
        self.detail.append(fine)

    def inset(
        self, outline: list[Point], box: tuple[float, float, float, float], colour: Colour
    ) -> None:
        """Add a small part on a face of four corners.

        Parameters
        ----------
        outline : lower left, lower right, upper right, upper left corner of the face.
        box : left, bottom, right, top of the part, as shares of the face.
        colour : BGR.
        """
        a, b, c, d = (np.array(corner) for corner in outline)
        x0, y0, x1, y1 = box
        spots: list[Point] = []
        for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1)):
            low = a * (1 - x) + b * x
            high = d * (1 - x) + c * x
            px, py, pz = (low * (1 - y) + high * y).tolist()
            spots.append((px, py, pz))
        self.face(spots, colour, fine=True)

    def box(
        self,
        low: Point,
        high: Point,
        colour: Colour,
        *,
        fine: bool = False,
        label: int | None = None,
    ) -> None:
        """Add a box without a bottom.

        Parameters
        ----------
        low : the corner with the smallest coordinates.
        high : the corner with the largest coordinates.
        colour : BGR.
        fine : True for a small part, which is left out far away.
        label : label id; that of the builder if not given.
        """
        x0, y0, z0 = low
        x1, y1, z1 = high
        for side in (
            [(x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)],
            [(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)],
            [(x0, y0, z0), (x0, y0, z1), (x0, y1, z1), (x0, y1, z0)],
            [(x1, y0, z0), (x1, y0, z1), (x1, y1, z1), (x1, y1, z0)],
            [(x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1)],
        ):
            self.face(side, colour, fine=fine, label=label)

    def build(self) -> Solid:
        """Return the solid of all faces."""
        every = list(range(len(self.outlines)))
        large = [i for i in every if not self.detail[i]]
        coarse = self._of(large, None) if len(large) < len(every) else None
        return self._of(every, coarse)

    def _of(self, chosen: list[int], coarse: Solid | None) -> Solid:
        """Return the solid of the chosen faces."""
        normals = np.zeros((len(chosen), 3))
        centres = np.zeros((len(chosen), 3))
        points: list[Point] = []
        corners: list[slice] = []
        for row, i in enumerate(chosen):
            corners.append(slice(len(points), len(points) + len(self.outlines[i])))
            points += self.outlines[i]

            spots = np.array(self.outlines[i], np.float64)
            normal = np.cross(spots[1] - spots[0], spots[2] - spots[0])
            normal /= np.linalg.norm(normal) + 1e-12
            centres[row] = spots.mean(0)
            outward = normal @ (centres[row] - self.core) >= 0
            normals[row] = normal if outward else -normal

        all_points = np.array(points, np.float64)
        colours = np.array([self.colours[i] for i in chosen], np.float64)
        labels = tuple(self.labels[i] for i in chosen)
        height = float(all_points[:, 1].max())
        offsets = (centres * normals).sum(1)
        return Solid(all_points, tuple(corners), normals, offsets, colours, labels, height, coarse)


@dataclass(frozen=True)
class CarShape:
    """Describe a car's side view; the rear bumper is at z = ``-length / 2``.

    Attributes
    ----------
    length, width : size, metres.
    belt : height of the lower edge of the windows, metres.
    roof : height of the roof, metres.
    cabin : z of the cabin's corners, metres: rear foot, rear top, front top, front foot.
    """

    length: float
    width: float
    belt: float
    roof: float
    cabin: tuple[float, float, float, float]


CAR_SHAPES = (
    CarShape(3.9, 1.68, 0.92, 1.46, (-1.88, -1.6, 0.25, 1.0)),  # hatchback
    CarShape(4.5, 1.74, 0.90, 1.42, (-1.55, -0.95, 0.3, 1.1)),  # saloon
    CarShape(4.6, 1.76, 0.92, 1.48, (-2.2, -1.9, 0.3, 1.1)),  # estate
    CarShape(4.4, 1.82, 1.08, 1.78, (-2.1, -1.9, 0.45, 1.15)),  # off-roader
    CarShape(4.9, 1.90, 1.15, 2.10, (-2.42, -2.36, 0.9, 1.75)),  # van
)
CAR_COLOURS: tuple[Colour, ...] = (
    (34, 32, 32),
    (40, 38, 40),
    (112, 112, 108),
    (150, 150, 146),
    (84, 52, 34),
    (60, 40, 30),
    (40, 34, 128),
    (34, 30, 90),
    (178, 180, 178),
    (58, 66, 38),
    (120, 90, 54),
    (64, 62, 60),
)

_GLASS: Colour = (38, 34, 30)
_SHINE: Colour = (86, 80, 72)
_TYRE: Colour = (18, 18, 18)

# Rings of a wheel: radius, distance from the car's side, colour, and whether it is a small part.
_WHEEL: tuple[tuple[float, float, Colour, bool], ...] = (
    (0.37, 0.003, (24, 24, 24), False),
    (0.31, 0.01, _TYRE, True),
    (0.18, 0.014, (118, 118, 116), True),
)


def _shaded(colour: Colour, factor: float, added: float = 0.0) -> Colour:
    """Return ``colour * factor + added``."""
    b, g, r = colour
    return (b * factor + added, g * factor + added, r * factor + added)


def car(shape: CarShape, paint: Colour) -> Solid:
    """Build a car that faces +z.

    Parameters
    ----------
    shape : its shape.
    paint : its colour, BGR.

    Examples
    --------
    >>> solid = car(CAR_SHAPES[0], (40, 34, 128))
    >>> set(solid.labels) == {CAR}
    True
    """
    made = SolidBuilder(CAR, core=(0.0, 0.7, 0.0))
    half = shape.length / 2
    w = shape.width / 2

    # Tyres seen from behind and from the front, and what is between them under the body.
    for side in (-1, 1):
        for z in (-half + 0.42, half - 1.05):
            left = (side * w * 0.98 - 0.1, 0.0, z)
            right = (side * w * 0.98 + 0.1, 0.4, z + 0.6)
            made.box(left, right, _TYRE)
    made.box((-w * 0.9, 0.16, -half + 0.2), (w * 0.9, 0.3, half - 0.2), (14, 14, 14))

    # The body, from below to above.
    lift = _shaded(paint, 1.15, 8)
    _car_body(made, shape, paint, lift)
    _car_rear(made, shape, paint)
    _car_front(made, shape, paint)
    _car_wheels(made, shape)
    _car_cabin(made, shape, paint, lift)
    return made.build()


def _car_body(made: SolidBuilder, shape: CarShape, paint: Colour, lift: Colour) -> None:
    """Add the body below the windows, in two storeys, and its top."""
    half = shape.length / 2
    w = shape.width / 2
    sill = 0.22
    waist = 0.62

    # Bottom, top, how far bottom and top are drawn in, colour.
    storeys = (
        (sill, waist, 0.0, 0.0, _shaded(paint, 0.72)),
        (waist, shape.belt, 0.0, 0.08, paint),
    )
    for y0, y1, low_in, high_in, colour in storeys:
        low_w = w - low_in * 0.3
        high_w = w - high_in * 0.6
        low_rear = -half + low_in
        high_rear = -half + high_in
        low_front = half - low_in
        high_front = half - high_in * 2.5
        rear: list[Point] = [
            (-low_w, y0, low_rear),
            (low_w, y0, low_rear),
            (high_w, y1, high_rear),
            (-high_w, y1, high_rear),
        ]
        front: list[Point] = [
            (low_w, y0, low_front),
            (-low_w, y0, low_front),
            (-high_w, y1, high_front),
            (high_w, y1, high_front),
        ]
        made.face(rear, colour)
        made.face(front, colour)
        for side in (-1, 1):
            flank: list[Point] = [
                (side * low_w, y0, low_rear),
                (side * low_w, y0, low_front),
                (side * high_w, y1, high_front),
                (side * high_w, y1, high_rear),
            ]
            made.face(flank, colour)

    top = w - 0.048
    lid: list[Point] = [
        (-top, shape.belt, -half + 0.08),
        (top, shape.belt, -half + 0.08),
        (top, shape.belt, half - 0.2),
        (-top, shape.belt, half - 0.2),
    ]
    made.face(lid, lift)


def _car_rear(made: SolidBuilder, shape: CarShape, paint: Colour) -> None:
    """Add the rear bumper, the yellow plate and the lights."""
    half = shape.length / 2
    w = shape.width / 2
    rear: list[Point] = [
        (-w, 0.22, -half - 0.005),
        (w, 0.22, -half - 0.005),
        (w, shape.belt, -half + 0.07),
        (-w, shape.belt, -half + 0.07),
    ]
    made.inset(rear, (0.0, 0.02, 1.0, 0.34), _shaded(paint, 0.5, 14))
    made.inset(rear, (0.34, 0.42, 0.66, 0.58), (40, 190, 215))
    made.inset(rear, (0.38, 0.46, 0.62, 0.54), (20, 60, 70))
    for x in (0.03, 0.79):
        made.inset(rear, (x, 0.48, x + 0.18, 0.88), (34, 28, 168))
        made.inset(rear, (x + 0.04, 0.52, x + 0.14, 0.66), (60, 70, 225))


def _car_front(made: SolidBuilder, shape: CarShape, paint: Colour) -> None:
    """Add the front bumper, the grille, the plate and the lights."""
    half = shape.length / 2
    w = shape.width / 2
    front: list[Point] = [
        (w, 0.22, half + 0.005),
        (-w, 0.22, half + 0.005),
        (-w, shape.belt, half - 0.19),
        (w, shape.belt, half - 0.19),
    ]
    made.inset(front, (0.02, 0.02, 0.98, 0.3), _shaded(paint, 0.6))
    made.inset(front, (0.27, 0.52, 0.73, 0.8), (22, 22, 22))
    made.inset(front, (0.34, 0.3, 0.66, 0.46), (200, 206, 208))
    for x in (0.04, 0.76):
        made.inset(front, (x, 0.52, x + 0.2, 0.86), (190, 196, 196))
        made.inset(front, (x + 0.05, 0.58, x + 0.15, 0.8), (240, 244, 246))


def _car_wheels(made: SolidBuilder, shape: CarShape) -> None:
    """Add the wheels, as rings on the car's sides."""
    half = shape.length / 2
    w = shape.width / 2
    for side in (-1, 1):
        for z in (-half + 0.78, half - 0.78):
            for radius, out, colour, fine in _WHEEL:
                high = np.maximum(0.31 + radius * np.sin(_TURNS), 0.0).tolist()
                along = (z + radius * np.cos(_TURNS)).tolist()
                rim = [(side * (w + out), y, z) for y, z in zip(high, along, strict=True)]
                made.face(rim, colour, fine=fine)


def _car_cabin(made: SolidBuilder, shape: CarShape, paint: Colour, lift: Colour) -> None:
    """Add the roof, the pillars and the windows."""
    rear_foot, rear_top, front_top, front_foot = shape.cabin
    w = shape.width / 2
    low = w * 0.93
    high = w * 0.74
    y0 = shape.belt
    y1 = shape.roof
    rear: list[Point] = [
        (-low, y0, rear_foot),
        (low, y0, rear_foot),
        (high, y1, rear_top),
        (-high, y1, rear_top),
    ]
    front: list[Point] = [
        (low, y0, front_foot),
        (-low, y0, front_foot),
        (-high, y1, front_top),
        (high, y1, front_top),
    ]
    roof: list[Point] = [
        (-high, y1, rear_top),
        (high, y1, rear_top),
        (high, y1, front_top),
        (-high, y1, front_top),
    ]
    made.face(roof, lift)

    # Side windows; a van has a cab window only.
    for side in (-1, 1):
        flank: list[Point] = [
            (side * low, y0, rear_foot),
            (side * low, y0, front_foot),
            (side * high, y1, front_top),
            (side * high, y1, rear_top),
        ]
        made.face(flank, paint)
        if shape.roof > 2:
            made.inset(flank, (0.72, 0.12, 0.93, 0.84), _GLASS)
        else:
            made.inset(flank, (0.06, 0.1, 0.46, 0.86), _GLASS)
            made.inset(flank, (0.5, 0.1, 0.92, 0.86), _GLASS)
            made.inset(flank, (0.06, 0.66, 0.46, 0.86), (58, 54, 50))

    # Rear window and windscreen, with what is seen through them.
    for panel in (rear, front):
        made.face(panel, paint)
        made.face([(x * 0.93, y + 0.02, z) for x, y, z in panel], _GLASS)
        made.inset(panel, (0.08, 0.62, 0.92, 0.88), _SHINE)
        made.inset(panel, (0.2, 0.1, 0.36, 0.5), (24, 22, 22))
        made.inset(panel, (0.64, 0.1, 0.8, 0.5), (24, 22, 22))


def _upright(x0: float, y0: float, x1: float, y1: float, z: float) -> list[Point]:
    """Return the corners of an upright rectangle across the road."""
    return [(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)]


def bus() -> Solid:
    """Build a double-decker bus that faces +z."""
    made = SolidBuilder(CAR, core=(0.0, 2.0, 0.0))
    red: Colour = (40, 36, 140)
    for x in (-1.1, 0.9):
        made.box((x, 0.0, -4.2), (x + 0.2, 0.6, -3.4), _TYRE)
    made.box((-1.22, 0.35, -5.0), (1.22, 4.2, 5.0), red)

    # Windows of both decks.
    for y0, y1 in ((1.35, 2.25), (2.9, 3.75)):
        for z in (-5.01, 5.01):
            made.face(_upright(-1.05, y0, 1.05, y1, z), _GLASS)
            made.face(_upright(-1.05, y1 - 0.3, 1.05, y1, z * 1.001), _SHINE, fine=True)
        for x in (-1.23, 1.23):
            for z in np.arange(-4.6, 4.2, 1.5).tolist():
                end = z + 1.3
                made.face([(x, y0, z), (x, y0, end), (x, y1, end), (x, y1, z)], _GLASS)

    # Lights, and the destination sign.
    for x in (-1.1, 0.8):
        made.face(_upright(x, 0.7, x + 0.3, 1.1, -5.02), (50, 50, 215))
        made.face(_upright(x, 0.7, x + 0.3, 1.0, 5.02), (235, 240, 240))
    made.face(_upright(-0.7, 2.35, 0.7, 2.8, 5.02), (40, 180, 200), fine=True)
    return made.build()


def sign(kind: str, pole_m: float) -> Solid:
    """Build a post with a sign that faces the traffic, towards -z.

    Parameters
    ----------
    kind : ``round``, ``triangle``, ``lights``, ``board`` or ``hanging``.
    pole_m : height of the post, metres.
    """
    middle = pole_m - 0.4
    made = SolidBuilder(SIGN, core=(0.0, middle, 0.0))
    grey: Colour = (118, 118, 114)
    if kind != "hanging":
        made.box((-0.045, 0.0, -0.02), (0.045, pole_m, 0.05), grey, label=POLE)

    if kind == "round":
        _round_sign(made, middle)
    elif kind == "triangle":
        _triangle_sign(made, middle)
    elif kind == "lights":
        _traffic_lights(made, middle)
    elif kind == "hanging":
        _board(made, middle, (0.42, 0.5), (40, 60, 40), (60, 170, 190))
    else:
        _board(made, middle, (0.62, 0.42), (120, 60, 30), (210, 214, 214))
    return made.build()


def _disc(
    made: SolidBuilder,
    radius: float,
    centre: tuple[float, float],
    colour: Colour,
    turns: Floats = _TURNS,
) -> None:
    """Add a disc across the road; ``centre`` is (y, z), ``turns`` the angles of its corners."""
    y, z = centre
    outline: list[Point] = []
    for turn in turns:
        outline.append((radius * float(np.sin(turn)), y + radius * float(np.cos(turn)), z))
    made.face(outline, colour)


def _round_sign(made: SolidBuilder, y: float) -> None:
    """Add a red ring with a dark mark on white."""
    z = -0.05
    _disc(made, 0.38, (y, 0.06), (90, 90, 90))
    _disc(made, 0.38, (y, z), (40, 34, 190))
    _disc(made, 0.28, (y, z - (0.38 - 0.28) * 0.02), (215, 218, 220))
    made.box((-0.13, y - 0.1, z - 0.01), (0.13, y + 0.1, z - 0.006), (30, 30, 30), fine=True)


def _triangle_sign(made: SolidBuilder, y: float) -> None:
    """Add a red triangle, white inside."""
    z = -0.05
    corners = np.array([0.0, 2 * np.pi / 3, 4 * np.pi / 3])
    _disc(made, 0.52, (y, 0.06), (90, 90, 90), corners)
    _disc(made, 0.52, (y, z), (40, 34, 190), corners)
    _disc(made, 0.34, (y, z - 0.005), (215, 218, 220), corners)


def _traffic_lights(made: SolidBuilder, y: float) -> None:
    """Add a box of three lamps; the upper one, red, is lit."""
    made.box((-0.24, y - 0.6, -0.12), (0.24, y + 0.55, 0.1), (26, 26, 26))
    for k, colour in enumerate(((40, 60, 30), (30, 60, 70), (60, 60, 235))):
        _disc(made, 0.13, (y - 0.34 + 0.34 * k, -0.13), colour)


def _board(
    made: SolidBuilder,
    y: float,
    half_size: tuple[float, float],
    ground: Colour,
    letters: Colour,
) -> None:
    """Add a board with three lines of text; ``half_size`` is half its width and height."""
    width, tall = half_size
    made.box((-width, y - tall, -0.05), (width, y + tall, 0.06), ground)
    for k in range(3):
        low = y - tall * 0.6 + k * tall * 0.5
        end = (width * (0.4 + 0.17 * k), low + tall * 0.2, -0.055)
        made.box((-width * 0.75, low, -0.06), end, letters, fine=True)


def bollard() -> Solid:
    """Build a bollard with a lit top; CamVid labels bollards as poles."""
    made = SolidBuilder(POLE, core=(0.0, 0.5, 0.0))
    made.box((-0.09, 0.0, -0.09), (0.09, 1.05, 0.09), (40, 42, 44))
    made.box((-0.1, 0.85, -0.1), (0.1, 0.97, 0.1), (160, 165, 165))
    return made.build()


@dataclass(frozen=True)
class Figure:
    """Hold capsules between joints.

    Attributes
    ----------
    bones : (M, 2) indices of the joints at the ends of each capsule.
    widths : (M, 2) widths at these ends, metres.
    colours : (M, 3) BGR.
    label : label id.
    """

    bones: npt.NDArray[np.intp]
    widths: Floats
    colours: Floats
    label: int

    def paint(self, view: View, joints: Floats, *, sort: bool = True) -> None:
        """Draw the figure.

        Parameters
        ----------
        view : the frame to draw on.
        joints : (N, 3) world points.
        sort : draw the capsules from far to near; otherwise in their order.
        """
        projected = view.camera.project(joints)
        if projected[:, 2].min() < NEAR_M:
            return

        # Outlines of the capsules, in pixels.
        depth = projected[:, 2]
        ends = to_pixels(projected)[self.bones]
        half = self.widths * 0.5 * view.camera.focal / depth[self.bones]
        pixels = subpixels(_capsules(ends, half))
        if view.hides(pixels.reshape(-1, 2)):
            return

        # Colours in this light, all facing the camera.
        towards = view.camera.position - joints[0]
        towards = towards / (np.linalg.norm(towards) + 1e-9)
        lit = view.lit(self.colours, towards, float(depth[0])).tolist()

        order = list(range(len(self.bones)))
        if sort:
            order = np.argsort(-depth[self.bones].mean(1), kind="stable").tolist()
        outlines: list[Ints] = []
        colours: list[tuple[float, ...]] = []
        for i in order:
            outlines.append(pixels[i])
            colours.append((*lit[i], self.label))
        view.polygons(outlines, colours)


# Corners of a capsule's two ends: 1 is along the capsule, 1j across it; in half widths.
_CAPSULE_START = np.array([1j, -0.7 + 0.6j, -0.7 - 0.6j, -1j])
_CAPSULE_END = -_CAPSULE_START


def _capsules(ends: Floats, half: Floats) -> Floats:
    """Return the outlines of capsules, (M, 8, 2) pixels.

    ``ends`` (M, 2, 2) are their end points, ``half`` (M, 2) half their widths there, in pixels.
    """
    # Points as complex numbers.
    points = ends[..., 0] + 1j * ends[..., 1]
    along = points[:, 1] - points[:, 0]
    length = np.abs(along)
    along = np.where(length > 1e-3, along / np.maximum(length, 1e-3), 1j)
    radius = along[:, None] * half

    outline = np.empty((len(ends), 8), np.complex128)
    outline[:, :4] = points[:, :1] + radius[:, :1] * _CAPSULE_START
    outline[:, 4:] = points[:, 1:] + radius[:, 1:] * _CAPSULE_END
    return outline.view(np.float64).reshape(-1, 8, 2)


_CLOTH: tuple[Colour, ...] = (
    (34, 30, 30),
    (52, 38, 30),
    (30, 30, 84),
    (64, 60, 58),
    (86, 70, 44),
    (40, 60, 40),
    (120, 124, 126),
    (24, 24, 28),
    (50, 60, 110),
    (96, 60, 40),
)
_SKIN: tuple[Colour, ...] = ((120, 146, 186), (70, 94, 130), (42, 58, 86), (136, 160, 196))
_HAIR: tuple[Colour, ...] = ((22, 24, 28), (30, 44, 62), (70, 100, 120), (110, 112, 114))


def _pick(rng: np.random.Generator, choices: Sequence[Colour]) -> Colour:
    """Return one of the colours at random."""
    return choices[int(rng.integers(len(choices)))]


# Joints of a body: 0 hip l, 1 hip r, 2 knee l, 3 knee r, 4 foot l, 5 foot r, 6 pelvis, 7 chest,
# 8 neck, 9 head, 10 shoulder l, 11 shoulder r, 12 elbow l, 13 elbow r, 14 hand l, 15 hand r,
# 16 toe l, 17 toe r. Below: the joints of each bone, and its widths there.
_BODY = (
    ((4, 16), (0.1, 0.08)),
    ((5, 17), (0.1, 0.08)),
    ((0, 2), (0.19, 0.14)),
    ((2, 4), (0.14, 0.1)),
    ((1, 3), (0.19, 0.14)),
    ((3, 5), (0.14, 0.1)),
    ((10, 12), (0.14, 0.11)),
    ((12, 14), (0.11, 0.09)),
    ((11, 13), (0.14, 0.11)),
    ((13, 15), (0.11, 0.09)),
    ((6, 7), (0.34, 0.42)),
    ((7, 8), (0.44, 0.2)),
    ((8, 9), (0.17, 0.22)),
)
_BODY_BONES = np.array([bone for bone, _ in _BODY])
_BODY_WIDTHS = np.array([widths for _, widths in _BODY])


def body(rng: np.random.Generator, label: int, *, helmet: bool = False) -> Figure:
    """Build a person with clothes chosen at random.

    Parameters
    ----------
    rng : source of the choice.
    label : label id.
    helmet : with a helmet, and sometimes with a yellow jacket.
    """
    trousers = _pick(rng, _CLOTH)
    coat = _pick(rng, _CLOTH)
    skin = _pick(rng, _SKIN)
    if helmet and rng.random() < 0.5:
        coat = (40, 190, 180)  # a yellow jacket
    if helmet:
        head: Colour = (150, 150, 150)
    else:
        head = _pick(rng, _HAIR if rng.random() < 0.5 else _SKIN)
    forearm = coat if rng.random() < 0.7 else skin

    shoe: Colour = (22, 22, 24)
    legs = [shoe, shoe, trousers, trousers, trousers, trousers]
    arms = [coat, forearm, coat, forearm]
    colours = np.array([*legs, *arms, coat, coat, head], np.float64)
    return Figure(_BODY_BONES, _BODY_WIDTHS, colours, label)


def walking(phase: float, height_m: float, stride: float = 1.0) -> Floats:
    """Return the joints of a person who walks towards +z, (18, 3) metres.

    Parameters
    ----------
    phase : radians; a full turn is two steps.
    height_m : height of the person, metres.
    stride : length of the steps; 1 is usual, 0 stands.

    Examples
    --------
    >>> walking(0.0, height_m=1.75).shape
    (18, 3)
    """
    swing = 0.42 * stride * np.sin(phase)
    bob = 0.02 * np.cos(2 * phase)
    lift_l = max(np.cos(phase), 0.0) * 0.16 * stride
    lift_r = max(-np.cos(phase), 0.0) * 0.16 * stride
    joints = np.array(
        [
            [-0.09, 0.9, 0],
            [0.09, 0.9, 0],
            [-0.1, 0.48 + lift_l * 0.5, swing * 0.45 + 0.07 + lift_l * 0.6],
            [0.1, 0.48 + lift_r * 0.5, -swing * 0.45 + 0.07 + lift_r * 0.6],
            [-0.1, 0.06 + lift_l, swing * 0.9],
            [0.1, 0.06 + lift_r, -swing * 0.9],
            [0, 0.9, 0],
            [0, 1.3, 0.02],
            [0, 1.46, 0.03],
            [0, 1.63, 0.05],
            [-0.21, 1.38, 0],
            [0.21, 1.38, 0],
            [-0.26, 1.1, -swing * 0.35],
            [0.26, 1.1, swing * 0.35],
            [-0.25, 0.86, -swing * 0.75 + 0.06],
            [0.25, 0.86, swing * 0.75 + 0.06],
            [-0.1, 0.04 + lift_l * 0.8, swing * 0.9 + 0.16],
            [0.1, 0.04 + lift_r * 0.8, -swing * 0.9 + 0.16],
        ]
    )
    joints[:, 1] += bob
    return np.asarray(joints * (height_m / 1.75))


def cycling(phase: float) -> Floats:
    """Return the joints of a person on a bicycle that faces +z, (18, 3) metres.

    Parameters
    ----------
    phase : turn of the pedals, radians.

    Examples
    --------
    >>> cycling(0.0).shape
    (18, 3)
    """
    y_l = 0.3 + 0.17 * np.cos(phase)
    z_l = 0.08 + 0.17 * np.sin(phase)
    y_r = 0.3 - 0.17 * np.cos(phase)
    z_r = 0.08 - 0.17 * np.sin(phase)
    return np.array(
        [
            [-0.09, 0.95, -0.2],
            [0.09, 0.95, -0.2],
            [-0.12, y_l / 2 + 0.615, z_l / 2 + 0.16],
            [0.12, y_r / 2 + 0.615, z_r / 2 + 0.16],
            [-0.11, y_l + 0.05, z_l],
            [0.11, y_r + 0.05, z_r],
            [0, 0.95, -0.2],
            [0, 1.32, 0.08],
            [0, 1.46, 0.16],
            [0, 1.63, 0.22],
            [-0.21, 1.38, 0.1],
            [0.21, 1.38, 0.1],
            [-0.27, 1.16, 0.28],
            [0.27, 1.16, 0.28],
            [-0.24, 1.02, 0.5],
            [0.24, 1.02, 0.5],
            [-0.11, y_l, z_l + 0.14],
            [0.11, y_r, z_r + 0.14],
        ]
    )


_FRAME_JOINTS = np.array(
    [
        [0, 0.34, -0.52],
        [0, 0.34, 0.54],
        [0, 0.9, -0.2],
        [0, 0.3, 0.05],
        [0, 0.98, 0.42],
        [-0.26, 1.0, 0.48],
        [0.26, 1.0, 0.48],
        [0, 0.85, 0.4],
        [0, 0.97, -0.26],
        [0, 0.97, -0.1],
    ]
)
_FRAME_BONES = ((0, 3), (0, 2), (3, 2), (3, 7), (2, 7), (7, 1), (4, 7), (5, 6), (8, 9))
_RIM = np.stack([np.zeros(_SIDES), 0.34 * np.sin(_TURNS), 0.34 * np.cos(_TURNS)], axis=1)


def bicycle_frame(paint: Colour) -> Figure:
    """Build the tubes of a bicycle; ``paint_bicycle`` draws them with the wheels.

    Parameters
    ----------
    paint : BGR.
    """
    colours = np.array([paint] * 6 + [(30, 30, 30)] * 3, np.float64)
    return Figure(np.array(_FRAME_BONES), np.full((9, 2), 0.05), colours, BICYCLIST)


def paint_bicycle(view: View, frame: Figure, place: Floats, turn: float) -> None:
    """Draw the wheels and the frame of a bicycle.

    Parameters
    ----------
    view : the frame of the video to draw on.
    frame : the tubes, from ``bicycle_frame``.
    place : (3,) world point that it stands on.
    turn : its turn to the right of +z, radians.
    """
    spin = _spin(turn)
    outlines: list[Ints] = []
    colours: list[tuple[float, ...]] = []
    for hub in (-0.52, 0.54):
        # The tyre, and what is seen between the spokes.
        for share, colour in ((1.0, (26.0, 26.0, 26.0)), (0.86, (74.0, 74.0, 72.0))):
            thin = np.array([0.025 * share, 0.0, 0.0])
            rim = _RIM * share + (0.0, 0.34, hub)
            projected = view.camera.project(np.vstack([rim - thin, rim + thin]) @ spin + place)
            if projected[:, 2].min() < NEAR_M:
                view.polygons(outlines, colours)
                return

            hull = cv2.convexHull(to_pixels(projected).astype(np.float32))[:, 0].astype(np.float64)
            if share < 1 and np.ptp(hull[:, 0]) < 0.3 * np.ptp(hull[:, 1]):
                continue  # a wheel seen from the front
            towards = np.array([0.0, 0.3, -0.95])
            b, g, r = view.lit(np.array(colour), towards, float(projected[0, 2])).tolist()
            outlines.append(subpixels(hull))
            colours.append((b, g, r, BICYCLIST))

    # Nearest first: the tubes, then the wheels.
    frame.paint(view, _FRAME_JOINTS @ spin + place, sort=False)
    view.polygons(outlines, colours)


def stand(joints: Floats, place: Floats, turn: float) -> Floats:
    """Return local joints as world points, (N, 3).

    Parameters
    ----------
    joints : (N, 3) local points.
    place : (3,) world point to stand on.
    turn : turn to the right of +z, radians.

    Examples
    --------
    >>> stand(np.array([[0.0, 1.0, 0.0]]), np.array([5.0, 0.0, 2.0]), turn=0.0).tolist()
    [[5.0, 1.0, 2.0]]
    """
    return np.asarray(joints @ _spin(turn) + place)


def _spin(turn: float) -> Floats:
    """Return the matrix that turns row vectors to the right."""
    c = np.cos(turn)
    s = np.sin(turn)
    return np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
