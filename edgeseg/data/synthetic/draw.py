"""Camera, light and canvas: turn points in the street into pixels with a colour and a label.

World: X to the right, Y up, Z forward, in metres; the road's ground is Y = 0. Canvas: (H, W, 4)
uint8 with blue, green, red, label id. Every primitive writes colour and label in one call without
anti-aliasing, so every pixel has exactly one owner. The slight blur of the lens comes later and
changes only colours.

Half of a street stands behind houses. Primitives are therefore added from near to far: what lies
wholly behind opaque faces is dropped at once. The others are drawn from far to near at the end.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]

NEAR_M = 0.4
SUBPIXEL_BITS = 4
_SUBPIXEL = 1 << SUBPIXEL_BITS
_FAR_PIXEL = 60_000.0
_HAZE_LENGTH_M = 620.0
_FLAT_BELOW = 0.006  # smaller faces, as a share of the frame's height, get their texture's mean


@dataclass(frozen=True)
class Texture:
    """Hold a picture in several sizes, and its size in the world.

    Attributes
    ----------
    levels : the picture, (h, w, 4) uint8 BGR and opacity, followed by its halvings.
    width_m : width in the world, metres.
    height_m : height in the world, metres.
    """

    levels: tuple[Pixels, ...]
    width_m: float
    height_m: float

    @classmethod
    def of(cls, picture: Pixels, width_m: float, height_m: float) -> "Texture":
        """Build a texture from one picture.

        Parameters
        ----------
        picture : (h, w, 4) uint8 BGR and opacity.
        width_m : width in the world, metres.
        height_m : height in the world, metres.

        Examples
        --------
        >>> texture = Texture.of(np.full((32, 64, 4), 255, np.uint8), 2.0, 1.0)
        >>> [level.shape[:2] for level in texture.levels]
        [(32, 64), (16, 32), (8, 16)]
        """
        levels = [picture]
        while min(levels[-1].shape[:2]) >= 16:
            half = cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            levels.append(_u8(half))
        return cls(tuple(levels), width_m, height_m)

    @cached_property
    def mean(self) -> Floats:
        """Return the mean colour, (3,) BGR, weighted by opacity."""
        small = self.levels[-1].reshape(-1, 4).astype(np.float64)
        return np.asarray((small[:, :3] * small[:, 3:]).sum(0) / max(small[:, 3].sum(), 1.0))

    @cached_property
    def see_through(self) -> bool:
        """Return True if no part is fully opaque, so that what is behind shines through."""
        return bool(self.levels[-1][..., 3].max() < 250)

    def level(self, pixels_per_texel: float) -> int:
        """Return the level whose texels are about as large as the frame's pixels.

        Parameters
        ----------
        pixels_per_texel : size of a texel of level 0 in the frame, pixels.
        """
        wanted = math.floor(0.3 - math.log2(max(pixels_per_texel, 1e-6)))
        return min(max(wanted, 0), len(self.levels) - 1)


@dataclass(frozen=True)
class Light:
    """Light the scene by the sky from everywhere and by the sun from one side.

    Gains multiply BGR colours; they are about 1 in the open on a clear day.

    Attributes
    ----------
    sun : (3,) unit vector towards the sun.
    sun_gain : (3,) gains of the sun.
    sky_gain : (3,) gains of the sky.
    haze : (3,) BGR colour of the haze, 0..255.
    """

    sun: Floats
    sun_gain: Floats
    sky_gain: Floats
    haze: Floats

    @cached_property
    def _numbers(self) -> tuple[list[float], list[float], list[float]]:
        """Return ``sun``, ``sun_gain`` and ``sky_gain`` as Python's numbers."""
        return self.sun.tolist(), self.sun_gain.tolist(), self.sky_gain.tolist()

    def gain_of(self, normal: Sequence[float]) -> tuple[float, float, float]:
        """Return the gains of one surface; for one, this is many times faster than ``gain``.

        Parameters
        ----------
        normal : x, y, z of its unit normal.
        """
        (x, y, z), sun, sky = self._numbers
        lit = max(normal[0] * x + normal[1] * y + normal[2] * z, 0.0)
        up = 0.75 + 0.25 * normal[1]
        return (sky[0] * up + sun[0] * lit, sky[1] * up + sun[1] * lit, sky[2] * up + sun[2] * lit)

    def gain(self, normals: Floats, sun: Floats | None = None) -> Floats:
        """Return the gains of surfaces, (..., 3).

        Parameters
        ----------
        normals : (..., 3) unit normals.
        sun : the sun in the coordinates of the normals, if they are not the world's; Y is up in
            both.
        """
        lit = np.maximum(normals @ (self.sun if sun is None else sun), 0.0)[..., None]
        up = 0.75 + 0.25 * normals[..., 1:2]
        return np.asarray(self.sky_gain * up + self.sun_gain * lit)


@dataclass(frozen=True)
class Camera:
    """Describe a pinhole camera.

    Attributes
    ----------
    size : (H, W) of the frame, pixels.
    position : (3,) world point, metres.
    yaw : turn to the right, radians.
    focal : focal length, pixels.
    centre : (x, y) of the principal point, pixels.
    """

    size: tuple[int, int]
    position: Floats
    yaw: float
    focal: float
    centre: tuple[float, float]

    @cached_property
    def matrix(self) -> Floats:
        """Return the (3, 4) matrix from homogeneous world points to homogeneous pixels.

        The third row gives the depth in metres.
        """
        c = np.cos(self.yaw)
        s = np.sin(self.yaw)
        turn = np.array([[c, 0.0, -s], [0.0, -1.0, 0.0], [s, 0.0, c]])
        x, y = self.centre
        lens = np.array([[self.focal, 0.0, x], [0.0, self.focal, y], [0.0, 0.0, 1.0]])
        return np.asarray(lens @ np.hstack([turn, -(turn @ self.position)[:, None]]))

    def project(self, points: Floats) -> Floats:
        """Project world points; ``to_pixels`` divides the result by the depth.

        Parameters
        ----------
        points : (N, 3) world points, metres.

        Returns
        -------
        (N, 3): x and y in pixels, multiplied by the depth, and the depth in metres.
        """
        columns, offset = self._affine
        return np.asarray(points @ columns + offset)

    @cached_property
    def _affine(self) -> tuple[Floats, Floats]:
        """Return ``matrix`` for row vectors: (3, 3) to multiply with, (3,) to add."""
        return np.ascontiguousarray(self.matrix[:, :3].T), self.matrix[:, 3].copy()

    @cached_property
    def _rows(self) -> list[list[float]]:
        """Return ``matrix`` as Python's numbers."""
        rows: list[list[float]] = self.matrix.tolist()
        return rows

    def project_turned(self, points: Floats, spin: Floats, place: Floats) -> Floats:
        """Project local points: ``project(points @ spin + place)`` in fewer steps.

        Parameters
        ----------
        points : (N, 3) local points, metres.
        spin : (3, 3) matrix from local to world directions, for row vectors.
        place : (3,) world point of the local origin.
        """
        columns, offset = self._affine
        return np.asarray(points @ (spin @ columns) + (place @ columns + offset))

    def project_one(self, point: Floats) -> tuple[float, float, float]:
        """Project one world point; for one, this is many times faster than ``project``.

        Parameters
        ----------
        point : (3,) world point, metres.

        Returns
        -------
        x and y in pixels, multiplied by the depth, and the depth in metres.
        """
        x, y, z = point.tolist()
        a, b, c = self._rows
        return (
            a[0] * x + a[1] * y + a[2] * z + a[3],
            b[0] * x + b[1] * y + b[2] * z + b[3],
            c[0] * x + c[1] * y + c[2] * z + c[3],
        )


def to_pixels(projected: Floats) -> Floats:
    """Return the pixels of projected points, (N, 2).

    Parameters
    ----------
    projected : (N, 3) from ``Camera.project``, all in front of the camera.

    Examples
    --------
    >>> to_pixels(np.array([[20.0, 10.0, 2.0]])).tolist()
    [[10.0, 5.0]]
    """
    pixels = projected[:, :2] / projected[:, 2:]
    return np.asarray(np.minimum(np.maximum(pixels, -_FAR_PIXEL), _FAR_PIXEL))


def clip_near(projected: Floats) -> Floats:
    """Cut off the part of a convex polygon that lies before the near plane.

    Parameters
    ----------
    projected : (N, 3) corners from ``Camera.project``.

    Returns
    -------
    (M, 3) corners; none if the whole polygon is cut off.
    """
    depth = projected[:, 2]
    if depth.min() >= NEAR_M:
        return projected

    kept: list[Floats] = []
    for here, there in zip(projected, np.roll(projected, -1, axis=0), strict=True):
        if here[2] >= NEAR_M:
            kept.append(here)
        if (here[2] >= NEAR_M) != (there[2] >= NEAR_M):
            kept.append(here + (there - here) * ((NEAR_M - here[2]) / (there[2] - here[2])))
    return np.array(kept).reshape(-1, 3)


class Face:
    """Hold a flat, textured, convex face in the world.

    Where the texture's opacity is below one, what is behind shines through; the label is the face's
    all the same.

    Parameters
    ----------
    origin : (3,) world point of the texture's lower left corner.
    across : (3,) the texture's lower edge, metres.
    up : (3,) the texture's left edge, metres.
    outline : (N, 2) corners of the face, as fractions of ``across`` and ``up``.
    texture : the texture.
    label : label id.
    tint : (3,) blue, green, red factors.
    """

    def __init__(
        self,
        origin: Floats,
        across: Floats,
        up: Floats,
        outline: Floats,
        texture: Texture,
        label: int,
        tint: Floats,
    ) -> None:
        self.texture = texture
        self.label = label
        self.tint = tint

        self.corners = origin + outline[:, :1] * across + outline[:, 1:] * up
        self._plane = np.vstack([np.stack([across, -up, origin + up], axis=1), [0.0, 0.0, 1.0]])
        self._planes: dict[int, Floats] = {}
        normal = np.cross(across, up)
        normal /= np.linalg.norm(normal)
        self._offset = float(normal @ self.corners[0])
        nx, ny, nz = normal.tolist()
        self._normal = (nx, ny, nz)

        rows, cols = texture.levels[0].shape[:2]
        xs, ys = outline.T.tolist()
        self.texels = max(_area(xs, ys), 1e-6) * rows * cols

    def normal_towards(self, eye: Sequence[float]) -> tuple[float, float, float]:
        """Return the unit normal on the side of ``eye``.

        Parameters
        ----------
        eye : x, y, z of a world point.
        """
        x, y, z = self._normal
        if x * eye[0] + y * eye[1] + z * eye[2] >= self._offset:
            return self._normal
        return (-x, -y, -z)

    def plane(self, level: int) -> Floats:
        """Return the (4, 3) matrix from a level's texels to homogeneous world points.

        Parameters
        ----------
        level : index into the texture's levels.
        """
        plane = self._planes.get(level)
        if plane is None:
            rows, cols = self.texture.levels[level].shape[:2]
            plane = self._plane / (cols, rows, 1.0)
            plane[:, 2] += 0.5 * (plane[:, 0] + plane[:, 1])  # a texel's middle is whole
            self._planes[level] = plane
        return plane


Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class _Seen:
    """Say where a face is in the frame.

    Attributes
    ----------
    corners : (N, 2) pixels.
    box : left, top, right, bottom of the part of the frame that it may touch.
    depth_m : mean depth of its corners.
    area : its area, pixels.
    """

    corners: Floats
    box: Box
    depth_m: float
    area: float


class Faces:
    """Hold faces whose corners are projected together; one by one takes many times longer.

    Parameters
    ----------
    faces : the faces.
    """

    def __init__(self, faces: Sequence[Face]) -> None:
        self._faces = tuple(faces)
        self._counts = [len(face.corners) for face in faces]
        most = max(self._counts, default=0)

        # Every face gets the same number of corners; the last one is repeated.
        self._corners = np.zeros((len(faces), most, 3))
        for corners, face in zip(self._corners, faces, strict=True):
            corners[: len(face.corners)] = face.corners
            corners[len(face.corners) :] = face.corners[-1]

    def see(self, camera: Camera) -> dict[Face, _Seen | None]:
        """Return where every face is in the frame; None if it is wholly outside.

        Faces that are partly behind the near plane are left out.

        Parameters
        ----------
        camera : the camera.
        """
        if not self._faces:
            return {}
        projected = camera.project(self._corners)
        depth = projected[..., 2]
        whole = (depth.min(1) >= NEAR_M).tolist()
        pixels = projected[..., :2] / np.maximum(depth, NEAR_M)[..., None]
        pixels = np.minimum(np.maximum(pixels, -_FAR_PIXEL), _FAR_PIXEL)

        lowest = pixels.min(1).astype(np.int64).tolist()
        highest = pixels.max(1).astype(np.int64).tolist()
        x = pixels[..., 0]
        y = pixels[..., 1]
        twice = (np.roll(x, 1, 1) * y - x * np.roll(y, 1, 1)).sum(1)
        areas = (np.abs(twice) / 2).tolist()
        depths = depth.tolist()

        seen: dict[Face, _Seen | None] = {}
        for i, face in enumerate(self._faces):
            if not whole[i]:
                continue
            count = self._counts[i]
            box = _touched(camera.size, lowest[i], highest[i])
            mean = sum(depths[i][:count]) / count
            seen[face] = _Seen(pixels[i, :count], box, mean, areas[i]) if box else None
        return seen


def _touched(size: tuple[int, int], lowest: list[int], highest: list[int]) -> Box | None:
    """Return the part of the frame that pixels may touch; None for none of it.

    ``lowest`` and ``highest`` are their smallest and largest x and y, cut to whole numbers.
    """
    height, width = size
    left = max(lowest[0] - 1, 0)
    top = max(lowest[1] - 1, 0)
    right = min(highest[0] + 3, width)
    bottom = min(highest[1] + 3, height)
    if right <= left or bottom <= top:
        return None
    return left, top, right, bottom


class View:
    """Paint one frame.

    ``face``, ``billboard``, ``fill`` and ``polygons`` only note what to draw, nearest first.
    ``render`` draws it, farthest first.

    Parameters
    ----------
    camera : the camera.
    light : the light.

    Attributes
    ----------
    canvas : (H, W, 4) uint8 BGR and label id.
    shadow : (H, W) uint8, how dark the shadows on the ground are; ``blend_shadows`` applies it.
    open : (H, W) uint8, 0 where an opaque face hides everything that is added later.
    """

    def __init__(self, camera: Camera, light: Light) -> None:
        self.camera = camera
        self.light = light
        self.canvas: Pixels = np.zeros((*camera.size, 4), np.uint8)
        self.shadow: Pixels = np.zeros(camera.size, np.uint8)
        self.open: Pixels = np.full(camera.size, 255, np.uint8)
        self._strokes: list[Callable[[], None]] = []
        self._seen: dict[Face, _Seen | None] = {}
        self._eye: list[float] = camera.position.tolist()
        self._haze: list[float] = light.haze.tolist()

    def render(self) -> None:
        """Draw all that was added, from far to near, and forget it."""
        for stroke in reversed(self._strokes):
            stroke()
        self._strokes.clear()

    def fog(self, depth_m: float) -> float:
        """Return the share of haze in front of something, 0..1.

        Parameters
        ----------
        depth_m : its depth, metres.
        """
        return 1.0 - math.exp(-max(depth_m, 0.0) / _HAZE_LENGTH_M)

    def hides(self, outline: npt.NDArray[np.int32]) -> bool:
        """Return True if nothing inside an outline can be seen.

        Parameters
        ----------
        outline : (N, 2) points from ``subpixels``, around all that will be drawn.
        """
        x, y, width, height = cv2.boundingRect(outline)
        right = (x + width) // _SUBPIXEL + 2
        bottom = (y + height) // _SUBPIXEL + 2
        return self.hides_box((x // _SUBPIXEL - 1, y // _SUBPIXEL - 1, right, bottom))

    def hides_box(self, box: Box) -> bool:
        """Return True if nothing inside a box can be seen.

        Parameters
        ----------
        box : left, top, right, bottom, pixels; it may reach beyond the frame.
        """
        left, top, right, bottom = box
        part = self.open[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        return not part.size or not cv2.countNonZero(part)

    def boxes(self, cylinders: Floats) -> list[Box | None]:
        """Return boxes around upright cylinders that stand on the ground.

        A cylinder that reaches behind the camera has none.

        Parameters
        ----------
        cylinders : (N, 4) world X and Z of the middle, radius and height, metres.
        """
        camera = self.camera
        x = cylinders[:, 0] - camera.position[0]
        z = cylinders[:, 1] - camera.position[2]
        radius = cylinders[:, 2]
        c = math.cos(camera.yaw)
        s = math.sin(camera.yaw)
        aside = c * x - s * z
        depth = s * x + c * z
        before = (depth - radius >= NEAR_M).tolist()

        # Nearest and farthest point; the sides and the top look largest at one of the two.
        near = camera.focal / np.maximum(depth - radius, NEAR_M)
        far = camera.focal / np.maximum(depth + radius, NEAR_M)
        below = camera.position[1] - cylinders[:, 3]
        edges = np.stack(
            [
                camera.centre[0] + np.minimum((aside - radius) * near, (aside - radius) * far),
                camera.centre[1] + np.minimum(below * near, below * far),
                camera.centre[0] + np.maximum((aside + radius) * near, (aside + radius) * far),
                camera.centre[1] + camera.position[1] * near,
            ],
            axis=1,
        )
        margin = np.array([-2.0, -2.0, 3.0, 3.0])  # pixels
        edges = np.clip(np.floor(edges) + margin, -_FAR_PIXEL, _FAR_PIXEL)
        boxes: list[Box | None] = []
        for seen, (left, top, right, bottom) in zip(
            before, edges.astype(np.int64).tolist(), strict=True
        ):
            boxes.append((left, top, right, bottom) if seen else None)
        return boxes

    def place(self, faces: Faces) -> None:
        """Find out where faces are in the frame, all at once; ``face`` does it one by one.

        Parameters
        ----------
        faces : the faces.
        """
        self._seen.update(faces.see(self.camera))

    def fill(self, outline: Floats, colour: Sequence[float], label: int) -> None:
        """Add a convex polygon of one colour and label.

        Parameters
        ----------
        outline : (N, 2) corners, pixels.
        colour : blue, green, red, 0..255.
        label : label id.
        """
        corners = subpixels(outline)
        if not self.hides(corners):
            self.polygons([corners], [(*colour, label)])

    def polygons(
        self, outlines: Sequence[npt.NDArray[np.int32]], colours: Sequence[Sequence[float]]
    ) -> None:
        """Add convex polygons, which are drawn in this order.

        Parameters
        ----------
        outlines : (N, 2) corners of each, from ``subpixels``.
        colours : blue, green, red, 0..255, and label id of each.
        """

        def stroke() -> None:
            """Draw them."""
            canvas = self.canvas
            for outline, colour in zip(outlines, colours, strict=True):
                cv2.fillConvexPoly(canvas, outline, colour, cv2.LINE_8, SUBPIXEL_BITS)

        self._strokes.append(stroke)

    def shade_ground(self, outlines: Floats, strength: int = 255) -> None:
        """Darken the ground inside convex polygons.

        Parameters
        ----------
        outlines : (K, N, 2) corners of K polygons, world X and Z.
        strength : how dark, 0..255.
        """
        # Project the corners of all polygons at once.
        points = np.zeros((outlines.shape[0] * outlines.shape[1], 3))
        points[:, ::2] = outlines.reshape(-1, 2)
        projected = self.camera.project(points)
        if projected[:, 2].max() < NEAR_M:
            return

        # Cut off what is behind the camera.
        if projected[:, 2].min() >= NEAR_M:
            shapes = list(subpixels(to_pixels(projected)).reshape(outlines.shape))
        else:
            cut = (clip_near(shape) for shape in projected.reshape(*outlines.shape[:2], 3))
            shapes = [subpixels(to_pixels(shape)) for shape in cut if len(shape) >= 3]

        for shape in shapes:
            cv2.fillConvexPoly(self.shadow, shape, strength, cv2.LINE_8, SUBPIXEL_BITS)

    def lit(
        self, colours: Floats, normals: Floats, depth_m: float, sun: Floats | None = None
    ) -> Floats:
        """Return how colours look under this light and haze.

        Parameters
        ----------
        colours : (..., 3) BGR, 0..255.
        normals : (..., 3) unit normals of the surfaces.
        depth_m : their depth, metres.
        sun : as in ``Light.gain``.
        """
        fog = self.fog(depth_m)
        lit = colours * self.light.gain(normals, sun)
        lit *= 1 - fog
        lit += self.light.haze * fog
        return np.minimum(lit, 255.0, out=lit)

    def face(self, face: "Face") -> None:
        """Add a flat, textured face.

        Parameters
        ----------
        face : the face.
        """
        seen = self._seen[face] if face in self._seen else self._see_cut(face)
        if seen is None or self.hides_box(seen.box):
            return

        # A small face has one colour.
        gains = self.light.gain_of(face.normal_towards(self._eye))
        gain = [factor * tint for factor, tint in zip(gains, face.tint.tolist(), strict=True)]
        texture = face.texture
        left, _, right, _ = seen.box
        if seen.area < (_FLAT_BELOW * self.camera.size[0]) ** 2 or right - left <= 4:
            fog = self.fog(seen.depth_m)
            colour: list[float] = []
            for mean, factor, haze in zip(texture.mean.tolist(), gain, self._haze, strict=True):
                colour.append(min(mean * factor * (1 - fog) + haze * fog, 255.0))
            self.polygons([subpixels(seen.corners)], [(*colour, face.label)])
            return

        # What is opaque hides what is added later.
        look = _Look(face.label, gain, seen.depth_m, texture.see_through)
        self._strokes.append(lambda: self._draw_face(face, seen, look))
        if not texture.see_through:
            fill_polygon(self.open, subpixels(seen.corners), 0)

    def _see_cut(self, face: "Face") -> _Seen | None:
        """Return where the part of a face before the camera is; None if none is in the frame."""
        projected = clip_near(self.camera.project(face.corners))
        if len(projected) < 3:
            return None
        corners = to_pixels(projected)
        xs, ys = corners.T.tolist()
        lowest = [int(min(xs)), int(min(ys))]
        box = _touched(self.camera.size, lowest, [int(max(xs)), int(max(ys))])
        depth = sum(projected[:, 2].tolist()) / len(projected)
        return _Seen(corners, box, depth, _area(xs, ys)) if box else None

    def _draw_face(self, face: "Face", seen: _Seen, look: "_Look") -> None:
        """Draw a textured face."""
        left, top, right, bottom = seen.box
        level = face.texture.level(math.sqrt(seen.area / face.texels))

        # From the picture's texels to the pixels of the box.
        to_frame = self.camera.matrix @ face.plane(level)
        to_frame[0] -= left * to_frame[2]
        to_frame[1] -= top * to_frame[2]
        size = (right - left, bottom - top)
        picture = face.texture.levels[level]
        patch = cv2.warpPerspective(
            picture, to_frame, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )

        stencil = np.zeros(patch.shape[:2], np.uint8)
        fill_polygon(stencil, subpixels(seen.corners - (left, top)), 255)
        self._paste(_u8(patch), stencil, (left, top), look)

    def billboard(
        self,
        foot: Floats,
        size_m: tuple[float, float],
        texture: Texture,
        label: int,
        tint: Floats,
    ) -> None:
        """Add an upright picture that faces the camera; its own opacity is its outline.

        Parameters
        ----------
        foot : (3,) world point of the middle of its lower edge.
        size_m : (width, height), metres.
        texture : the picture.
        label : label id.
        tint : (3,) blue, green, red factors.
        """
        camera = self.camera
        x, y, depth = camera.project_one(foot)
        if depth < 1.0:
            return

        # The level of the texture that fits, and the pixels per texel in it.
        scale = camera.focal / depth
        rows, cols = texture.levels[0].shape[:2]
        step_x = size_m[0] * scale / cols
        step_y = size_m[1] * scale / rows
        picture = texture.levels[texture.level(math.sqrt(step_x * step_y))]
        rows, cols = picture.shape[:2]
        step_x = size_m[0] * scale / cols
        step_y = size_m[1] * scale / rows

        # The part of the frame that it covers.
        x0 = x / depth - size_m[0] * scale / 2
        y0 = y / depth - size_m[1] * scale
        height, width = camera.size
        left = max(math.floor(x0), 0)
        top = max(math.floor(y0), 0)
        right = min(math.ceil(x0 + cols * step_x) + 1, width)
        bottom = min(math.ceil(y0 + rows * step_y) + 1, height)
        box = (left, top, right, bottom)
        if right <= left or bottom <= top or self.hides_box(box):
            return

        tall = math.sqrt(1.25)
        gains = self.light.gain_of(
            (-math.sin(camera.yaw) / tall, 0.5 / tall, -math.cos(camera.yaw) / tall)
        )
        gain: list[float] = []
        for factor, sun, share in zip(
            gains, self.light.sun_gain.tolist(), tint.tolist(), strict=True
        ):
            gain.append((factor + 0.35 * sun) * share)
        look = _Look(label, gain, depth, texture.see_through)

        def stroke() -> None:
            """Stretch the picture, and paste it where it is opaque."""
            patch = _stretched(picture, (x0, y0), (step_x, step_y), box)
            opacity = cv2.extractChannel(patch, 3)
            _, stencil = cv2.threshold(opacity, 60, 255, cv2.THRESH_BINARY)
            self._paste(patch, _u8(stencil), (left, top), look)

        self._strokes.append(stroke)

    def _paste(
        self, patch: Pixels, stencil: Pixels, corner: tuple[int, int], look: "_Look"
    ) -> None:
        """Put a patch on the canvas inside its stencil, in light and haze, with its label."""
        left, top = corner
        under = self.canvas[top : top + patch.shape[0], left : left + patch.shape[1]]

        # One linear map of (blue, green, red, opacity, 1) does light, haze and label.
        fog = self.fog(look.depth_m)
        blue, green, red = (factor * (1 - fog) for factor in look.gain)
        haze = [part * fog for part in self._haze]
        change = np.array(
            [
                [blue, 0.0, 0.0, 0.0, haze[0]],
                [0.0, green, 0.0, 0.0, haze[1]],
                [0.0, 0.0, red, 0.0, haze[2]],
                [0.0, 0.0, 0.0, 0.0, look.label],
            ]
        )
        shown = cv2.transform(patch, change)

        if look.see_through:
            weight = cv2.cvtColor(cv2.extractChannel(patch, 3), cv2.COLOR_GRAY2BGRA)
            shown = _blend(_u8(shown), under, np.multiply(weight, _PER_255, dtype=np.float32))
            shown[..., 3] = look.label
        cv2.copyTo(shown, stencil, under)


_PER_255 = np.float32(1 / 255)


def _blend(shown: Pixels, under: Pixels, weight: npt.NDArray[np.float32]) -> Pixels:
    """Return ``shown`` over ``under``, all (H, W, 4); the weights 0..1 are those of ``shown``."""
    mixed = shown * weight
    np.subtract(np.float32(1), weight, out=weight)
    weight *= under
    mixed += weight
    return mixed.astype(np.uint8)


@dataclass(frozen=True)
class _Look:
    """Say how a patch looks: its label, BGR gains, depth, and whether it is see-through."""

    label: int
    gain: Sequence[float]
    depth_m: float
    see_through: bool


def fill_polygon(
    canvas: Pixels, outline: npt.NDArray[np.int32], colour: Sequence[float] | int
) -> None:
    """Fill a convex polygon without anti-aliasing.

    Parameters
    ----------
    canvas : (H, W) or (H, W, 4) uint8, changed in place.
    outline : (N, 2) corners from ``subpixels``.
    colour : the value of every channel.
    """
    cv2.fillConvexPoly(canvas, outline, colour, cv2.LINE_8, SUBPIXEL_BITS)


def _stretched(
    picture: Pixels,
    origin: tuple[float, float],
    step: tuple[float, float],
    box: Box,
) -> Pixels:
    """Return the part of a stretched picture inside a box (left, top, right, bottom) of the frame.

    ``origin`` is the frame's pixel of the upper left corner, ``step`` the pixels per texel.
    """
    left, top, right, bottom = box
    from_frame = np.array(
        [
            [1 / step[0], 0.0, (left - origin[0]) / step[0] - 0.5],
            [0.0, 1 / step[1], (top - origin[1]) / step[1] - 0.5],
        ]
    )
    size = (right - left, bottom - top)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_CONSTANT
    return _u8(cv2.warpAffine(picture, from_frame, size, flags=flags, borderMode=border))


def subpixels(outline: Floats) -> npt.NDArray[np.int32]:
    """Return pixels as OpenCV's fixed-point integers.

    Parameters
    ----------
    outline : (N, 2) pixels.

    Examples
    --------
    >>> subpixels(np.array([[1.0, 2.5]])).tolist()
    [[16, 40]]
    """
    return np.rint(outline * _SUBPIXEL).astype(np.int32)


def _area(xs: list[float], ys: list[float]) -> float:
    """Return the area of a polygon."""
    twice = sum(xs[k - 1] * ys[k] - xs[k] * ys[k - 1] for k in range(len(xs)))
    return abs(twice) / 2


def _u8(picture: object) -> Pixels:
    """Return what OpenCV gave as uint8, for the type checker."""
    return np.asarray(picture, dtype=np.uint8)
