"""Camera, light and canvas: how points in the street become pixels, and what a pixel's label is.

World: X to the right, Y up, Z forward, metres; the road's ground is Y = 0. Canvas: (H, W, 4) uint8, blue, green, red,
label id. Every primitive writes colour and label in one call with no anti-aliasing, so an owner per pixel is exact by
construction; the slight blur of the lens comes later and touches colours only.
"""

import math
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
_FLAT_BELOW = 0.006  # faces smaller than this share of the frame's height are filled with their texture's mean


@dataclass(frozen=True)
class Texture:
    """A picture and its halvings, (h, w, 4) uint8 BGR + opacity, and how large it is in the world."""

    levels: tuple[Pixels, ...]
    width_m: float
    height_m: float

    @classmethod
    def of(cls, picture: Pixels, width_m: float, height_m: float) -> "Texture":
        levels = [picture]
        while min(levels[-1].shape[:2]) >= 16:
            levels.append(_u8(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)))
        return cls(tuple(levels), width_m, height_m)

    @cached_property
    def mean(self) -> Floats:
        small = self.levels[-1].reshape(-1, 4).astype(np.float64)
        return np.asarray((small[:, :3] * small[:, 3:]).sum(0) / max(small[:, 3].sum(), 1.0))

    @cached_property
    def see_through(self) -> bool:
        """Whether no part is fully opaque, or a face of it is not opaque all over."""
        return bool(self.levels[-1][..., 3].max() < 250)

    def level(self, pixels_per_texel: float) -> int:
        """The level whose texels are about as large as the frame's pixels."""
        wanted = math.floor(0.3 - math.log2(max(pixels_per_texel, 1e-6)))
        return min(max(wanted, 0), len(self.levels) - 1)


@dataclass(frozen=True)
class Light:
    """Sky light from everywhere and sun from one side; gains on BGR colours, about 1 in the open on a clear day."""

    sun: Floats  # unit vector towards the sun
    sun_gain: Floats
    sky_gain: Floats
    haze: Floats  # BGR 0..255

    def gain(self, normals: Floats) -> Floats:
        """(..., 3) unit normals -> (..., 3) gains."""
        lit = np.maximum(normals @ self.sun, 0.0)[..., None]
        up = 0.75 + 0.25 * normals[..., 1:2]
        return np.asarray(self.sky_gain * up + self.sun_gain * lit)


@dataclass(frozen=True)
class Camera:
    """A pinhole at ``position``, turned by ``yaw`` radians to the right; ``focal`` and ``centre`` are in pixels."""

    size: tuple[int, int]
    position: Floats
    yaw: float
    focal: float
    centre: tuple[float, float]

    @cached_property
    def matrix(self) -> Floats:
        """(3, 4): homogeneous world -> homogeneous pixel; the third row is the depth in metres."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        turn = np.array([[c, 0.0, -s], [0.0, -1.0, 0.0], [s, 0.0, c]])
        lens = np.array([[self.focal, 0.0, self.centre[0]], [0.0, self.focal, self.centre[1]], [0.0, 0.0, 1.0]])
        return np.asarray(lens @ np.hstack([turn, -(turn @ self.position)[:, None]]))

    def project(self, points: Floats) -> Floats:
        """(N, 3) world -> (N, 3): x and y still multiplied by depth, depth."""
        return np.asarray(points @ self.matrix[:, :3].T + self.matrix[:, 3])


def to_pixels(projected: Floats) -> Floats:
    """(N, 3) projected points in front of the camera -> (N, 2) pixels."""
    return np.asarray(np.minimum(np.maximum(projected[:, :2] / projected[:, 2:], -_FAR_PIXEL), _FAR_PIXEL))


def clip_near(projected: Floats) -> Floats:
    """Cut a convex polygon of projected points off at the near plane; may return no points."""
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
    """A flat, textured, convex face in the world.

    ``outline`` (N, 2) holds fractions of ``across`` and ``up``, the edges the whole texture spans from ``origin`` (its
    lower left). Texture opacity below one lets what is behind shine through; the label is the face's all the same.
    """

    def __init__(
        self, origin: Floats, across: Floats, up: Floats, outline: Floats, texture: Texture, label: int, tint: Floats
    ) -> None:
        self.texture, self.label, self.tint = texture, label, tint
        self.corners = origin + outline[:, :1] * across + outline[:, 1:] * up
        self.plane = np.vstack([np.stack([across, -up, origin + up], axis=1), [0.0, 0.0, 1.0]])
        normal = np.cross(across, up)
        self._normal: Floats = normal / np.linalg.norm(normal)
        rows, cols = texture.levels[0].shape[:2]
        xs, ys = outline.T.tolist()
        self.texels = max(_area(xs, ys), 1e-6) * rows * cols

    def normal_towards(self, eye: Floats) -> Floats:
        """The unit normal on the side of ``eye``."""
        return self._normal if float(self._normal @ (eye - self.corners[0])) >= 0 else -self._normal


class View:
    """One frame in the making: camera, light and canvas."""

    def __init__(self, camera: Camera, light: Light) -> None:
        self.camera, self.light = camera, light
        self.canvas: Pixels = np.zeros((*camera.size, 4), np.uint8)
        self.shadow: Pixels = np.zeros(camera.size, np.uint8)

    def fog(self, depth_m: float) -> float:
        """The share of haze in front of something, 0..1."""
        return 1.0 - math.exp(-max(depth_m, 0.0) / _HAZE_LENGTH_M)

    def fill(self, outline: Floats, colour: Floats, label: int) -> None:
        """Fill a convex polygon, (N, 2) pixels, with one BGR colour and label."""
        b, g, r = colour.tolist()
        cv2.fillConvexPoly(self.canvas, subpixels(outline), (b, g, r, label), cv2.LINE_8, SUBPIXEL_BITS)

    def shade_ground(self, outlines: Floats, strength: int = 255) -> None:
        """Darken the ground inside convex polygons, (K, N, 2) world X and Z."""
        points = np.zeros((outlines.shape[0] * outlines.shape[1], 3))
        points[:, ::2] = outlines.reshape(-1, 2)
        projected = self.camera.project(points)
        if projected[:, 2].max() < NEAR_M:
            return
        if projected[:, 2].min() >= NEAR_M:
            shapes = list(subpixels(to_pixels(projected)).reshape(outlines.shape))
        else:
            cut = (clip_near(shape) for shape in projected.reshape(*outlines.shape[:2], 3))
            shapes = [subpixels(to_pixels(shape)) for shape in cut if len(shape) >= 3]
        for shape in shapes:
            cv2.fillConvexPoly(self.shadow, shape, strength, cv2.LINE_8, SUBPIXEL_BITS)

    def lit(self, colours: Floats, normals: Floats, depth_m: float) -> Floats:
        """(..., 3) BGR colours under this light and haze."""
        fog = self.fog(depth_m)
        return np.asarray(np.minimum(colours * self.light.gain(normals) * (1 - fog) + self.light.haze * fog, 255.0))

    def face(self, face: "Face") -> None:
        """Paint a flat, textured face."""
        camera = self.camera
        projected = clip_near(camera.project(face.corners))
        if len(projected) < 3:
            return
        corners = to_pixels(projected)
        height, width = camera.size
        xs, ys = corners.T.tolist()
        left, top = max(int(min(xs)) - 1, 0), max(int(min(ys)) - 1, 0)
        right, bottom = min(int(max(xs)) + 3, width), min(int(max(ys)) + 3, height)
        if right <= left or bottom <= top:
            return
        gain = self.light.gain(face.normal_towards(camera.position)) * face.tint
        depth = sum(projected[:, 2].tolist()) / len(projected)
        area = _area(xs, ys)
        texture = face.texture
        if area < (_FLAT_BELOW * height) ** 2 or right - left <= 4:
            fog = self.fog(depth)
            self.fill(corners, np.minimum(texture.mean * gain * (1 - fog) + self.light.haze * fog, 255), face.label)
            return
        picture = texture.levels[texture.level(math.sqrt(area / face.texels))]
        rows, cols = picture.shape[:2]
        to_frame = camera.matrix @ face.plane
        to_frame[:, 0] /= cols
        to_frame[:, 1] /= rows
        to_frame[:, 2] += 0.5 * (to_frame[:, 0] + to_frame[:, 1])  # a texel's middle is at its whole number
        to_frame[0] -= left * to_frame[2]
        to_frame[1] -= top * to_frame[2]
        patch = cv2.warpPerspective(
            picture, to_frame, (right - left, bottom - top), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        stencil = np.zeros(patch.shape[:2], np.uint8)
        cv2.fillConvexPoly(stencil, subpixels(corners - (left, top)), 255, cv2.LINE_8, SUBPIXEL_BITS)
        self._paste(_u8(patch), stencil, (left, top), face.label, gain, depth, texture.see_through)

    def billboard(self, foot: Floats, size_m: tuple[float, float], texture: Texture, label: int, tint: Floats) -> None:
        """Paint an upright picture that faces the camera; its own opacity is its outline."""
        camera = self.camera
        x, y, depth = camera.project(foot[None])[0].tolist()
        if depth < 1.0:
            return
        scale = camera.focal / depth
        rows, cols = texture.levels[0].shape[:2]
        step_x, step_y = size_m[0] * scale / cols, size_m[1] * scale / rows
        picture = texture.levels[texture.level(math.sqrt(step_x * step_y))]
        rows, cols = picture.shape[:2]
        step_x, step_y = size_m[0] * scale / cols, size_m[1] * scale / rows
        x0, y0 = x / depth - size_m[0] * scale / 2, y / depth - size_m[1] * scale
        height, width = camera.size
        left, top = max(int(np.floor(x0)), 0), max(int(np.floor(y0)), 0)
        right = min(int(np.ceil(x0 + cols * step_x)) + 1, width)
        bottom = min(int(np.ceil(y0 + rows * step_y)) + 1, height)
        if right <= left or bottom <= top:
            return
        from_frame = np.array([
            [1 / step_x, 0.0, (left - x0) / step_x - 0.5],
            [0.0, 1 / step_y, (top - y0) / step_y - 0.5],
        ])  # fmt: skip
        patch = cv2.warpAffine(
            picture, from_frame, (right - left, bottom - top),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT,
        )  # fmt: skip
        opacity = cv2.extractChannel(patch, 3)
        _, stencil = cv2.threshold(opacity, 60, 255, cv2.THRESH_BINARY)
        normal = np.array([-np.sin(camera.yaw), 0.5, -np.cos(camera.yaw)]) / np.sqrt(1.25)
        gain = (self.light.gain(normal) + 0.35 * self.light.sun_gain) * tint
        self._paste(_u8(patch), _u8(stencil), (left, top), label, gain, depth, texture.see_through)

    def _paste(
        self, patch: Pixels, stencil: Pixels, corner: tuple[int, int], label: int, gain: Floats, depth: float,
        see_through: bool,
    ) -> None:  # fmt: skip
        left, top = corner
        under = self.canvas[top : top + patch.shape[0], left : left + patch.shape[1]]
        fog = self.fog(depth)
        change = np.zeros((4, 5))
        change[[0, 1, 2], [0, 1, 2]] = gain * (1 - fog)
        change[:3, 4] = self.light.haze * fog
        change[3, 4] = label
        shown = cv2.transform(patch, change)
        if see_through:
            weight = patch[..., 3:].astype(np.float32) * (1 / 255)
            shown[..., :3] = shown[..., :3] * weight + under[..., :3] * (1 - weight)
        cv2.copyTo(shown, stencil, under)


def subpixels(outline: Floats) -> npt.NDArray[np.int32]:
    """Pixels as OpenCV's fixed-point integers."""
    return np.rint(outline * _SUBPIXEL).astype(np.int32)


def _area(xs: list[float], ys: list[float]) -> float:
    twice = sum(xs[k - 1] * ys[k] - xs[k] * ys[k - 1] for k in range(len(xs)))
    return abs(twice) / 2


def _u8(picture: object) -> Pixels:
    return np.asarray(picture, dtype=np.uint8)
