"""Cars, people, cyclists, poles and signs: solids of flat faces, and figures of capsules between joints.

Local coordinates: x to the right, y up, z forward, metres; the origin is on the ground. Colours are BGR.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.data.synthetic.draw import NEAR_M, SUBPIXEL_BITS, Floats, View, clip_near, subpixels, to_pixels

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(11)

Point = tuple[float, float, float]
Colour = tuple[float, float, float]
Ints = npt.NDArray[np.int32]

_DETAIL_FROM = 0.035  # share of the frame's height from which on small parts are drawn
_SIDES = 16  # corners of a drawn circle
_TURNS = np.linspace(0, 2 * np.pi, _SIDES, endpoint=False)


@dataclass(frozen=True)
class Solid:
    """Flat convex faces, (F, 3) normals, centres and colours, drawn in order when they face the camera."""

    points: Floats
    corners: tuple[slice, ...]
    normals: Floats
    centres: Floats
    colours: Floats
    labels: tuple[int, ...]
    height_m: float
    coarse: "Solid | None" = None  # without the small parts, for far away

    def paint(self, view: View, place: Floats, turn: float) -> None:
        """Draw it standing at world ``place``, turned by ``turn`` radians to the right."""
        ahead = float(view.camera.project(place[None])[0, 2])
        if self.coarse and self.height_m * view.camera.focal < _DETAIL_FROM * view.camera.size[0] * ahead:
            return self.coarse.paint(view, place, turn)
        c, s = np.cos(turn), np.sin(turn)
        spin = np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
        projected = view.camera.project(self.points @ spin + place)
        if projected[:, 2].max() < NEAR_M:
            return None
        whole = bool(projected[:, 2].min() >= NEAR_M)
        normals = self.normals @ spin
        visible = ((view.camera.position - (self.centres @ spin + place)) * normals).sum(1) > 0
        colours = view.lit(self.colours, normals, ahead).tolist()
        pixels = subpixels(to_pixels(projected)) if whole else None
        for i in np.flatnonzero(visible).tolist():
            b, g, r = colours[i]
            if pixels is not None:
                outline = pixels[self.corners[i]]
            else:  # partly behind the camera
                cut = clip_near(projected[self.corners[i]])
                if len(cut) < 3:
                    continue
                outline = subpixels(to_pixels(cut))
            cv2.fillConvexPoly(view.canvas, outline, (b, g, r, self.labels[i]), cv2.LINE_8, SUBPIXEL_BITS)
        return None


@dataclass
class SolidBuilder:
    """Collects faces; outward is away from ``core``."""

    label: int
    core: Point = (0.0, 0.7, 0.0)
    outlines: list[list[Point]] = field(default_factory=list)
    colours: list[Colour] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    detail: list[bool] = field(default_factory=list)

    def face(self, outline: list[Point], colour: Colour, *, fine: bool = False, label: int | None = None) -> None:
        self.outlines.append(outline)
        self.colours.append(colour)
        self.labels.append(self.label if label is None else label)
        self.detail.append(fine)

    def inset(self, outline: list[Point], box: tuple[float, float, float, float], colour: Colour) -> None:
        """A small part on a four-cornered face: ``box`` is left, bottom, right, top as shares of the face."""
        a, b, c, d = (np.array(p) for p in outline)  # lower left, lower right, upper right, upper left
        x0, y0, x1, y1 = box
        spots = []
        for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1)):
            px, py, pz = ((a * (1 - x) + b * x) * (1 - y) + (d * (1 - x) + c * x) * y).tolist()
            spots.append((px, py, pz))
        self.face(spots, colour, fine=True)

    def box(self, low: Point, high: Point, colour: Colour, *, fine: bool = False, label: int | None = None) -> None:
        (x0, y0, z0), (x1, y1, z1) = low, high
        for side in (
            [(x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)],
            [(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)],
            [(x0, y0, z0), (x0, y0, z1), (x0, y1, z1), (x0, y1, z0)],
            [(x1, y0, z0), (x1, y0, z1), (x1, y1, z1), (x1, y1, z0)],
            [(x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1)],
        ):
            self.face(side, colour, fine=fine, label=label)

    def build(self) -> Solid:
        every = list(range(len(self.outlines)))
        large = [i for i in every if not self.detail[i]]
        return self._of(every, self._of(large, None) if len(large) < len(every) else None)

    def _of(self, chosen: list[int], coarse: Solid | None) -> Solid:
        normals, centres = np.zeros((len(chosen), 3)), np.zeros((len(chosen), 3))
        corners, first = [], 0
        for row, i in enumerate(chosen):
            spots = np.array(self.outlines[i], np.float64)
            corners.append(slice(first, first + len(spots)))
            first += len(spots)
            normal = np.cross(spots[1] - spots[0], spots[2] - spots[0])
            normal /= np.linalg.norm(normal) + 1e-12
            centres[row] = spots.mean(0)
            normals[row] = normal if normal @ (centres[row] - self.core) >= 0 else -normal
        points = np.array([point for i in chosen for point in self.outlines[i]], np.float64)
        colours = np.array([self.colours[i] for i in chosen], np.float64)
        labels = tuple(self.labels[i] for i in chosen)
        return Solid(points, tuple(corners), normals, centres, colours, labels, float(points[:, 1].max()), coarse)


@dataclass(frozen=True)
class CarShape:
    """Side view of a car, metres: z of the cabin's corners from the rear bumper at ``-length / 2``."""

    length: float
    width: float
    belt: float
    roof: float
    cabin: tuple[float, float, float, float]  # z of: rear foot, rear top, front top, front foot


CAR_SHAPES = (
    CarShape(3.9, 1.68, 0.92, 1.46, (-1.88, -1.6, 0.25, 1.0)),  # hatchback
    CarShape(4.5, 1.74, 0.90, 1.42, (-1.55, -0.95, 0.3, 1.1)),  # saloon
    CarShape(4.6, 1.76, 0.92, 1.48, (-2.2, -1.9, 0.3, 1.1)),  # estate
    CarShape(4.4, 1.82, 1.08, 1.78, (-2.1, -1.9, 0.45, 1.15)),  # off-roader
    CarShape(4.9, 1.90, 1.15, 2.10, (-2.42, -2.36, 0.9, 1.75)),  # van
)
CAR_COLOURS: tuple[Colour, ...] = (
    (34, 32, 32), (40, 38, 40), (112, 112, 108), (150, 150, 146), (84, 52, 34), (60, 40, 30), (40, 34, 128),
    (34, 30, 90), (178, 180, 178), (58, 66, 38), (120, 90, 54), (64, 62, 60),
)  # fmt: skip

_GLASS: Colour = (38, 34, 30)
_SHINE: Colour = (86, 80, 72)
_TYRE: Colour = (18, 18, 18)


def car(shape: CarShape, paint: Colour) -> Solid:
    """A car, facing +z."""
    made = SolidBuilder(CAR, core=(0.0, 0.7, 0.0))
    half, w = shape.length / 2, shape.width / 2
    sill, waist = 0.22, 0.62
    dark: Colour = (paint[0] * 0.72, paint[1] * 0.72, paint[2] * 0.72)
    lift: Colour = (paint[0] * 1.15 + 8, paint[1] * 1.15 + 8, paint[2] * 1.15 + 8)
    for side in (-1, 1):  # tyres seen from behind and from the front, under the body
        for z in (-half + 0.42, half - 1.05):
            made.box((side * w * 0.98 - 0.1, 0.0, z), (side * w * 0.98 + 0.1, 0.4, z + 0.6), _TYRE)
    made.box((-w * 0.9, 0.16, -half + 0.2), (w * 0.9, 0.3, half - 0.2), (14, 14, 14))
    for y0, y1, a, b, colour in ((sill, waist, 0.0, 0.0, dark), (waist, shape.belt, 0.0, 0.08, paint)):
        lw, hw = w - a * 0.3, w - b * 0.6
        lr, hr, lf, hf = -half + a, -half + b, half - a, half - b * 2.5
        made.face([(-lw, y0, lr), (lw, y0, lr), (hw, y1, hr), (-hw, y1, hr)], colour)
        made.face([(lw, y0, lf), (-lw, y0, lf), (-hw, y1, hf), (hw, y1, hf)], colour)
        for side in (-1, 1):
            made.face([(side * lw, y0, lr), (side * lw, y0, lf), (side * hw, y1, hf), (side * hw, y1, hr)], colour)
    top = w - 0.048
    made.face([(-top, shape.belt, -half + 0.08), (top, shape.belt, -half + 0.08), (top, shape.belt, half - 0.2),
               (-top, shape.belt, half - 0.2)], lift)  # fmt: skip
    _car_ends(made, shape, paint)
    for side in (-1, 1):
        for z in (-half + 0.78, half - 0.78):
            for radius, x, colour, fine in ((0.37, 0.003, (24, 24, 24), False), (0.31, 0.01, _TYRE, True),
                                            (0.18, 0.014, (118, 118, 116), True)):  # fmt: skip
                high, along = 0.31 + radius * np.sin(_TURNS), z + radius * np.cos(_TURNS)
                rim = zip(np.maximum(high, 0.0).tolist(), along.tolist(), strict=True)
                made.face([(side * (w + x), py, pz) for py, pz in rim], colour, fine=fine)
    _car_cabin(made, shape, paint, lift)
    return made.build()


def _car_ends(made: SolidBuilder, shape: CarShape, paint: Colour) -> None:
    half, w = shape.length / 2, shape.width / 2
    rear: list[Point] = [(-w, 0.22, -half - 0.005), (w, 0.22, -half - 0.005), (w, shape.belt, -half + 0.07),
                         (-w, shape.belt, -half + 0.07)]  # fmt: skip
    made.inset(rear, (0.0, 0.02, 1.0, 0.34), (paint[0] * 0.5 + 14, paint[1] * 0.5 + 14, paint[2] * 0.5 + 14))
    made.inset(rear, (0.34, 0.42, 0.66, 0.58), (40, 190, 215))  # yellow plate
    made.inset(rear, (0.38, 0.46, 0.62, 0.54), (20, 60, 70))
    for x in (0.03, 0.79):
        made.inset(rear, (x, 0.48, x + 0.18, 0.88), (34, 28, 168))
        made.inset(rear, (x + 0.04, 0.52, x + 0.14, 0.66), (60, 70, 225))
    front: list[Point] = [(w, 0.22, half + 0.005), (-w, 0.22, half + 0.005), (-w, shape.belt, half - 0.19),
                          (w, shape.belt, half - 0.19)]  # fmt: skip
    made.inset(front, (0.02, 0.02, 0.98, 0.3), (paint[0] * 0.6, paint[1] * 0.6, paint[2] * 0.6))
    made.inset(front, (0.27, 0.52, 0.73, 0.8), (22, 22, 22))
    made.inset(front, (0.34, 0.3, 0.66, 0.46), (200, 206, 208))
    for x in (0.04, 0.76):
        made.inset(front, (x, 0.52, x + 0.2, 0.86), (190, 196, 196))
        made.inset(front, (x + 0.05, 0.58, x + 0.15, 0.8), (240, 244, 246))


def _car_cabin(made: SolidBuilder, shape: CarShape, paint: Colour, lift: Colour) -> None:
    w, (r0, r1, f1, f0) = shape.width / 2, shape.cabin
    lo, hi = w * 0.93, w * 0.74
    y0, y1 = shape.belt, shape.roof
    rear: list[Point] = [(-lo, y0, r0), (lo, y0, r0), (hi, y1, r1), (-hi, y1, r1)]
    front: list[Point] = [(lo, y0, f0), (-lo, y0, f0), (-hi, y1, f1), (hi, y1, f1)]
    made.face([(-hi, y1, r1), (hi, y1, r1), (hi, y1, f1), (-hi, y1, f1)], lift)
    for side in (-1, 1):
        panel: list[Point] = [(side * lo, y0, r0), (side * lo, y0, f0), (side * hi, y1, f1), (side * hi, y1, r1)]
        made.face(panel, paint)
        if shape.roof > 2:  # a van has a cab window only
            made.inset(panel, (0.72, 0.12, 0.93, 0.84), _GLASS)
        else:
            made.inset(panel, (0.06, 0.1, 0.46, 0.86), _GLASS)
            made.inset(panel, (0.5, 0.1, 0.92, 0.86), _GLASS)
            made.inset(panel, (0.06, 0.66, 0.46, 0.86), (58, 54, 50))
    for panel in (rear, front):
        made.face(panel, paint)
        made.face([tuple(np.array(p) * (0.93, 1, 1) + (0, 0.02, 0)) for p in panel], _GLASS)
        made.inset(panel, (0.08, 0.62, 0.92, 0.88), _SHINE)
        made.inset(panel, (0.2, 0.1, 0.36, 0.5), (24, 22, 22))
        made.inset(panel, (0.64, 0.1, 0.8, 0.5), (24, 22, 22))


def bus() -> Solid:
    """A double-decker, facing +z."""
    made = SolidBuilder(CAR, core=(0.0, 2.0, 0.0))
    red: Colour = (40, 36, 140)
    for x in (-1.1, 0.9):
        made.box((x, 0.0, -4.2), (x + 0.2, 0.6, -3.4), _TYRE)
    made.box((-1.22, 0.35, -5.0), (1.22, 4.2, 5.0), red)
    for y0, y1 in ((1.35, 2.25), (2.9, 3.75)):
        for z in (-5.01, 5.01):
            made.face([(-1.05, y0, z), (1.05, y0, z), (1.05, y1, z), (-1.05, y1, z)], _GLASS)
            made.face([(-1.05, y1 - 0.3, z * 1.001), (1.05, y1 - 0.3, z * 1.001), (1.05, y1, z * 1.001),
                       (-1.05, y1, z * 1.001)], _SHINE, fine=True)  # fmt: skip
        for x in (-1.23, 1.23):
            for z in np.arange(-4.6, 4.2, 1.5):
                a, b = float(z), float(z) + 1.3
                made.face([(x, y0, a), (x, y0, b), (x, y1, b), (x, y1, a)], _GLASS)
    for x in (-1.1, 0.8):
        made.face([(x, 0.7, -5.02), (x + 0.3, 0.7, -5.02), (x + 0.3, 1.1, -5.02), (x, 1.1, -5.02)], (50, 50, 215))
        made.face([(x, 0.7, 5.02), (x + 0.3, 0.7, 5.02), (x + 0.3, 1.0, 5.02), (x, 1.0, 5.02)], (235, 240, 240))
    made.face([(-0.7, 2.35, 5.02), (0.7, 2.35, 5.02), (0.7, 2.8, 5.02), (-0.7, 2.8, 5.02)], (40, 180, 200), fine=True)
    return made.build()


def sign(kind: str, pole_m: float) -> Solid:
    """A post with a sign that faces the traffic (towards -z): round, triangle, board, hanging or lights."""
    made = SolidBuilder(SIGN, core=(0.0, pole_m - 0.4, 0.0))
    grey: Colour = (118, 118, 114)
    if kind != "hanging":
        made.box((-0.045, 0.0, -0.02), (0.045, pole_m, 0.05), grey, label=POLE)
    y, z = pole_m - 0.4, -0.05

    def disc(radius: float, depth: float, colour: Colour, centre: float = y, turns: Floats = _TURNS) -> None:
        made.face([(radius * float(np.sin(t)), centre + radius * float(np.cos(t)), depth) for t in turns], colour)

    if kind == "round":
        disc(0.38, 0.06, (90, 90, 90))
        for radius, colour in ((0.38, (40, 34, 190)), (0.28, (215, 218, 220))):
            disc(radius, z - (0.38 - radius) * 0.02, colour)
        made.box((-0.13, y - 0.1, z - 0.01), (0.13, y + 0.1, z - 0.006), (30, 30, 30), fine=True)
    elif kind == "triangle":
        corners = np.array([0.0, 2 * np.pi / 3, 4 * np.pi / 3])
        disc(0.52, 0.06, (90, 90, 90), turns=corners)
        disc(0.52, z, (40, 34, 190), turns=corners)
        disc(0.34, z - 0.005, (215, 218, 220), turns=corners)
    elif kind == "lights":
        made.core = (0.0, y, 0.0)
        made.box((-0.24, y - 0.6, -0.12), (0.24, y + 0.55, 0.1), (26, 26, 26))
        for k, colour in enumerate(((40, 60, 30), (30, 60, 70), (60, 60, 235))):
            disc(0.13, -0.13, colour, y - 0.34 + 0.34 * k)
    else:
        back = {"board": ((120, 60, 30), (210, 214, 214)), "hanging": ((40, 60, 40), (60, 170, 190))}
        width, tall = (0.62, 0.42) if kind == "board" else (0.42, 0.5)
        ground, letters = back.get(kind, back["board"])
        made.box((-width, y - tall, -0.05), (width, y + tall, 0.06), ground)
        for k in range(3):
            low = y - tall * 0.6 + k * tall * 0.5
            end = (width * (0.4 + 0.17 * k), low + tall * 0.2, -0.055)
            made.box((-width * 0.75, low, -0.06), end, letters, fine=True)
    return made.build()


def bollard() -> Solid:
    """A bollard with a lit top: a pole, by CamVid's book."""
    made = SolidBuilder(POLE, core=(0.0, 0.5, 0.0))
    made.box((-0.09, 0.0, -0.09), (0.09, 1.05, 0.09), (40, 42, 44))
    made.box((-0.1, 0.85, -0.1), (0.1, 0.97, 0.1), (160, 165, 165))
    return made.build()


@dataclass(frozen=True)
class Figure:
    """Capsules between joints: ``bones`` (M, 2) joint indices, ``widths`` (M, 2) metres, ``colours`` (M, 3)."""

    bones: npt.NDArray[np.intp]
    widths: Floats
    colours: Floats
    label: int

    def paint(self, view: View, joints: Floats, *, sort: bool = True) -> None:
        """Draw it; ``joints`` (N, 3) are world points."""
        projected = view.camera.project(joints)
        if projected[:, 2].min() < NEAR_M:
            return
        spots, depth = to_pixels(projected), projected[:, 2]
        ends = spots[self.bones]  # (M, 2, 2)
        along = ends[:, 1] - ends[:, 0]
        length = np.linalg.norm(along, axis=1, keepdims=True)
        along = np.where(length > 1e-3, along / np.maximum(length, 1e-3), (0.0, 1.0))
        across = np.stack([-along[:, 1], along[:, 0]], axis=1)
        half = self.widths * 0.5 * view.camera.focal / depth[self.bones]
        a, b, ha, hb = ends[:, 0], ends[:, 1], half[:, :1], half[:, 1:]
        outline = np.stack([
            a + across * ha, a + across * ha * 0.6 - along * ha * 0.7, a - across * ha * 0.6 - along * ha * 0.7,
            a - across * ha, b - across * hb, b - across * hb * 0.6 + along * hb * 0.7,
            b + across * hb * 0.6 + along * hb * 0.7, b + across * hb,
        ], axis=1)  # fmt: skip
        pixels = subpixels(outline)
        towards = view.camera.position - joints[0]
        towards = towards / (np.linalg.norm(towards) + 1e-9)
        colours = view.lit(self.colours, np.broadcast_to(towards, self.colours.shape), float(depth[0])).tolist()
        order = np.argsort(-depth[self.bones].mean(1), kind="stable") if sort else np.arange(len(self.bones))
        for i in order.tolist():
            b_, g_, r_ = colours[i]
            cv2.fillConvexPoly(view.canvas, pixels[i], (b_, g_, r_, self.label), cv2.LINE_8, SUBPIXEL_BITS)


_CLOTH: tuple[Colour, ...] = (
    (34, 30, 30), (52, 38, 30), (30, 30, 84), (64, 60, 58), (86, 70, 44), (40, 60, 40), (120, 124, 126), (24, 24, 28),
    (50, 60, 110), (96, 60, 40),
)  # fmt: skip
_SKIN: tuple[Colour, ...] = ((120, 146, 186), (70, 94, 130), (42, 58, 86), (136, 160, 196))
_HAIR: tuple[Colour, ...] = ((22, 24, 28), (30, 44, 62), (70, 100, 120), (110, 112, 114))


def _pick(rng: np.random.Generator, choices: tuple[Colour, ...]) -> Colour:
    return choices[int(rng.integers(len(choices)))]


# Joints of a body: 0 hip l, 1 hip r, 2 knee l, 3 knee r, 4 foot l, 5 foot r, 6 pelvis, 7 chest, 8 neck, 9 head,
# 10 shoulder l, 11 shoulder r, 12 elbow l, 13 elbow r, 14 hand l, 15 hand r, 16 toe l, 17 toe r
_BODY_BONES = ((4, 16), (5, 17), (0, 2), (2, 4), (1, 3), (3, 5), (10, 12), (12, 14), (11, 13), (13, 15), (6, 7), (7, 8),
               (8, 9))  # fmt: skip
_BODY_WIDTHS = ((0.1, 0.08), (0.1, 0.08), (0.19, 0.14), (0.14, 0.1), (0.19, 0.14), (0.14, 0.1), (0.14, 0.11),
                (0.11, 0.09), (0.14, 0.11), (0.11, 0.09), (0.34, 0.42), (0.44, 0.2), (0.17, 0.22))  # fmt: skip


def body(rng: np.random.Generator, label: int, *, helmet: bool = False) -> Figure:
    """A person's widths and clothes."""
    trousers, coat, skin = _pick(rng, _CLOTH), _pick(rng, _CLOTH), _pick(rng, _SKIN)
    if helmet and rng.random() < 0.5:
        coat = (40, 190, 180)  # a yellow jacket
    head = (150, 150, 150) if helmet else _pick(rng, _HAIR if rng.random() < 0.5 else _SKIN)
    shoe: Colour = (22, 22, 24)
    colours = [shoe, shoe, *[trousers] * 4, coat, skin, coat, skin, coat, coat, head]
    colours[7] = colours[9] = coat if rng.random() < 0.7 else skin
    return Figure(np.array(_BODY_BONES), np.array(_BODY_WIDTHS), np.array(colours, np.float64), label)


def walking(phase: float, height_m: float, stride: float = 1.0) -> Floats:
    """(18, 3) joints of someone walking towards +z; ``phase`` in radians, a full turn is two steps."""
    k = height_m / 1.75
    swing = 0.42 * stride * np.sin(phase)
    bob = 0.02 * np.cos(2 * phase)
    lift_l, lift_r = max(np.cos(phase), 0.0) * 0.16 * stride, max(-np.cos(phase), 0.0) * 0.16 * stride
    joints = np.array([
        [-0.09, 0.9, 0], [0.09, 0.9, 0],
        [-0.1, 0.48 + lift_l * 0.5, swing * 0.45 + 0.07 + lift_l * 0.6],
        [0.1, 0.48 + lift_r * 0.5, -swing * 0.45 + 0.07 + lift_r * 0.6],
        [-0.1, 0.06 + lift_l, swing * 0.9], [0.1, 0.06 + lift_r, -swing * 0.9],
        [0, 0.9, 0], [0, 1.3, 0.02], [0, 1.46, 0.03], [0, 1.63, 0.05],
        [-0.21, 1.38, 0], [0.21, 1.38, 0],
        [-0.26, 1.1, -swing * 0.35], [0.26, 1.1, swing * 0.35],
        [-0.25, 0.86, -swing * 0.75 + 0.06], [0.25, 0.86, swing * 0.75 + 0.06],
        [-0.1, 0.04 + lift_l * 0.8, swing * 0.9 + 0.16], [0.1, 0.04 + lift_r * 0.8, -swing * 0.9 + 0.16],
    ])  # fmt: skip
    joints[:, 1] += bob
    return np.asarray(joints * k)


def cycling(phase: float) -> Floats:
    """(18, 3) joints of someone on a bicycle that faces +z; ``phase`` in radians turns the pedals."""
    y_l, z_l = 0.3 + 0.17 * np.cos(phase), 0.08 + 0.17 * np.sin(phase)
    y_r, z_r = 0.3 - 0.17 * np.cos(phase), 0.08 - 0.17 * np.sin(phase)
    return np.array([
        [-0.09, 0.95, -0.2], [0.09, 0.95, -0.2],
        [-0.12, y_l / 2 + 0.615, z_l / 2 + 0.16], [0.12, y_r / 2 + 0.615, z_r / 2 + 0.16],
        [-0.11, y_l + 0.05, z_l], [0.11, y_r + 0.05, z_r],
        [0, 0.95, -0.2], [0, 1.32, 0.08], [0, 1.46, 0.16], [0, 1.63, 0.22],
        [-0.21, 1.38, 0.1], [0.21, 1.38, 0.1], [-0.27, 1.16, 0.28], [0.27, 1.16, 0.28],
        [-0.24, 1.02, 0.5], [0.24, 1.02, 0.5], [-0.11, y_l, z_l + 0.14], [0.11, y_r, z_r + 0.14],
    ])  # fmt: skip


_FRAME_JOINTS = np.array([
    [0, 0.34, -0.52], [0, 0.34, 0.54], [0, 0.9, -0.2], [0, 0.3, 0.05], [0, 0.98, 0.42], [-0.26, 1.0, 0.48],
    [0.26, 1.0, 0.48], [0, 0.85, 0.4], [0, 0.97, -0.26], [0, 0.97, -0.1],
])  # fmt: skip
_FRAME_BONES = ((0, 3), (0, 2), (3, 2), (3, 7), (2, 7), (7, 1), (4, 7), (5, 6), (8, 9))
_RIM = np.stack([np.zeros(_SIDES), 0.34 * np.sin(_TURNS), 0.34 * np.cos(_TURNS)], axis=1)


def bicycle_frame(paint: Colour) -> Figure:
    """The tubes of a bicycle."""
    colours = np.array([paint] * 6 + [(30, 30, 30)] * 3, np.float64)
    return Figure(np.array(_FRAME_BONES), np.full((9, 2), 0.05), colours, BICYCLIST)


def paint_bicycle(view: View, frame: Figure, place: Floats, turn: float) -> None:
    """Draw wheels and frame standing at ``place``, heading ``turn`` radians to the right of +z."""
    spin = _spin(turn)
    for hub in (-0.52, 0.54):
        for share, colour in ((1.0, (26.0, 26.0, 26.0)), (0.86, (74.0, 74.0, 72.0))):
            thin = np.array([0.025 * share, 0.0, 0.0])
            rim = _RIM * share + (0.0, 0.34, hub)
            projected = view.camera.project(np.vstack([rim - thin, rim + thin]) @ spin + place)
            if projected[:, 2].min() < NEAR_M:
                return
            hull = cv2.convexHull(to_pixels(projected).astype(np.float32))[:, 0].astype(np.float64)
            if share < 1 and np.ptp(hull[:, 0]) < 0.3 * np.ptp(hull[:, 1]):
                continue
            towards = np.array([0.0, 0.3, -0.95])
            view.fill(hull, view.lit(np.array(colour), towards, float(projected[0, 2])), BICYCLIST)
    frame.paint(view, _FRAME_JOINTS @ spin + place, sort=False)


def stand(joints: Floats, place: Floats, turn: float) -> Floats:
    """Local joints -> world, standing at ``place``, heading ``turn`` radians to the right of +z."""
    return np.asarray(joints @ _spin(turn) + place)


def _spin(turn: float) -> Floats:
    c, s = np.cos(turn), np.sin(turn)
    return np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
