"""Camera, light and canvas: turn points in the street into pixels with a colour and a label.

World: X to the right, Y up, Z forward, in metres; the road's ground is Y = 0. Canvas: (H, W, 4)
uint8 with blue, green, red, label id. Every primitive writes colour and label in one call without
anti-aliasing, so every pixel has exactly one owner. The slight blur of the lens comes later and
changes only colours.
"""

import math
from collections.abc import Sequence
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

    def gain(self, normals: Floats) -> Floats:
        """Return the gains of surfaces, (..., 3).

        Parameters
        ----------
        normals : (..., 3) unit normals.
        """
        lit = np.maximum(normals @ self.sun, 0.0)[..., None]
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
        return np.asarray(points @ self.matrix[:, :3].T + self.matrix[:, 3])


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
    tint : (3,) BGR factors.
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
        self.plane = np.vstack([np.stack([across, -up, origin + up], axis=1), [0.0, 0.0, 1.0]])
        normal = np.cross(across, up)
        self._normal: Floats = normal / np.linalg.norm(normal)

        rows, cols = texture.levels[0].shape[:2]
        xs, ys = outline.T.tolist()
        self.texels = max(_area(xs, ys), 1e-6) * rows * cols

    def normal_towards(self, eye: Floats) -> Floats:
        """Return the unit normal on the side of ``eye``.

        Parameters
        ----------
        eye : (3,) world point.
        """
        if float(self._normal @ (eye - self.corners[0])) >= 0:
            return self._normal
        return -self._normal


class View:
    """Paint one frame.

    Parameters
    ----------
    camera : the camera.
    light : the light.

    Attributes
    ----------
    canvas : (H, W, 4) uint8 BGR and label id.
    shadow : (H, W) uint8, how dark the shadows on the ground are; ``blend_shadows`` applies it.
    """

    def __init__(self, camera: Camera, light: Light) -> None:
        self.camera = camera
        self.light = light
        self.canvas: Pixels = np.zeros((*camera.size, 4), np.uint8)
        self.shadow: Pixels = np.zeros(camera.size, np.uint8)

    def fog(self, depth_m: float) -> float:
        """Return the share of haze in front of something, 0..1.

        Parameters
        ----------
        depth_m : its depth, metres.
        """
        return 1.0 - math.exp(-max(depth_m, 0.0) / _HAZE_LENGTH_M)

    def fill(self, outline: Floats, colour: Floats, label: int) -> None:
        """Fill a convex polygon with one colour and label.

        Parameters
        ----------
        outline : (N, 2) corners, pixels.
        colour : (3,) BGR, 0..255.
        label : label id.
        """
        b, g, r = colour.tolist()
        fill_polygon(self.canvas, subpixels(outline), (b, g, r, label))

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

    def lit(self, colours: Floats, normals: Floats, depth_m: float) -> Floats:
        """Return how colours look under this light and haze.

        Parameters
        ----------
        colours : (..., 3) BGR, 0..255.
        normals : (..., 3) unit normals of the surfaces.
        depth_m : their depth, metres.
        """
        fog = self.fog(depth_m)
        lit = colours * self.light.gain(normals) * (1 - fog) + self.light.haze * fog
        return np.asarray(np.minimum(lit, 255.0))

    def face(self, face: "Face") -> None:
        """Paint a flat, textured face.

        Parameters
        ----------
        face : the face.
        """
        camera = self.camera
        projected = clip_near(camera.project(face.corners))
        if len(projected) < 3:
            return

        # The part of the frame that it may touch.
        corners = to_pixels(projected)
        height, width = camera.size
        xs, ys = corners.T.tolist()
        left = max(int(min(xs)) - 1, 0)
        top = max(int(min(ys)) - 1, 0)
        right = min(int(max(xs)) + 3, width)
        bottom = min(int(max(ys)) + 3, height)
        if right <= left or bottom <= top:
            return

        # A small face has one colour.
        gain = self.light.gain(face.normal_towards(camera.position)) * face.tint
        depth = sum(projected[:, 2].tolist()) / len(projected)
        area = _area(xs, ys)
        texture = face.texture
        if area < (_FLAT_BELOW * height) ** 2 or right - left <= 4:
            fog = self.fog(depth)
            colour = np.minimum(texture.mean * gain * (1 - fog) + self.light.haze * fog, 255)
            self.fill(corners, colour, face.label)
            return

        # From the picture's texels to the pixels of that part.
        picture = texture.levels[texture.level(math.sqrt(area / face.texels))]
        rows, cols = picture.shape[:2]
        to_frame = camera.matrix @ face.plane
        to_frame[:, 0] /= cols
        to_frame[:, 1] /= rows
        to_frame[:, 2] += 0.5 * (to_frame[:, 0] + to_frame[:, 1])  # a texel's middle is whole
        to_frame[0] -= left * to_frame[2]
        to_frame[1] -= top * to_frame[2]
        size = (right - left, bottom - top)
        patch = cv2.warpPerspective(
            picture, to_frame, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )

        stencil = np.zeros(patch.shape[:2], np.uint8)
        fill_polygon(stencil, subpixels(corners - (left, top)), 255)
        look = _Look(face.label, gain, depth, texture.see_through)
        self._paste(_u8(patch), stencil, (left, top), look)

    def billboard(
        self,
        foot: Floats,
        size_m: tuple[float, float],
        texture: Texture,
        label: int,
        tint: Floats,
    ) -> None:
        """Paint an upright picture that faces the camera; its own opacity is its outline.

        Parameters
        ----------
        foot : (3,) world point of the middle of its lower edge.
        size_m : (width, height), metres.
        texture : the picture.
        label : label id.
        tint : (3,) BGR factors.
        """
        camera = self.camera
        x, y, depth = camera.project(foot[None])[0].tolist()
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
        left = max(int(np.floor(x0)), 0)
        top = max(int(np.floor(y0)), 0)
        right = min(int(np.ceil(x0 + cols * step_x)) + 1, width)
        bottom = min(int(np.ceil(y0 + rows * step_y)) + 1, height)
        if right <= left or bottom <= top:
            return

        # Stretch it, and paste it where it is opaque.
        box = (left, top, right, bottom)
        patch = _stretched(picture, (x0, y0), (step_x, step_y), box)
        opacity = cv2.extractChannel(patch, 3)
        _, stencil = cv2.threshold(opacity, 60, 255, cv2.THRESH_BINARY)

        normal = np.array([-np.sin(camera.yaw), 0.5, -np.cos(camera.yaw)]) / np.sqrt(1.25)
        gain = (self.light.gain(normal) + 0.35 * self.light.sun_gain) * tint
        look = _Look(label, gain, depth, texture.see_through)
        self._paste(patch, _u8(stencil), (left, top), look)

    def _paste(
        self, patch: Pixels, stencil: Pixels, corner: tuple[int, int], look: "_Look"
    ) -> None:
        """Put a patch on the canvas inside its stencil, in light and haze, with its label."""
        left, top = corner
        under = self.canvas[top : top + patch.shape[0], left : left + patch.shape[1]]

        # One linear map of (blue, green, red, opacity, 1) does light, haze and label.
        fog = self.fog(look.depth_m)
        change = np.zeros((4, 5))
        change[[0, 1, 2], [0, 1, 2]] = look.gain * (1 - fog)
        change[:3, 4] = self.light.haze * fog
        change[3, 4] = look.label
        shown = cv2.transform(patch, change)

        if look.see_through:
            weight = patch[..., 3:].astype(np.float32) * (1 / 255)
            shown[..., :3] = shown[..., :3] * weight + under[..., :3] * (1 - weight)
        cv2.copyTo(shown, stencil, under)


@dataclass(frozen=True)
class _Look:
    """Say how a patch looks: its label, BGR gains, depth, and whether it is see-through."""

    label: int
    gain: Floats
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
    box: tuple[int, int, int, int],
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
