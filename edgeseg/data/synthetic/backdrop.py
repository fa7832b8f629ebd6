"""Paint what lies behind and below everything: sky, skyline, and the ground with the road."""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.data.synthetic.draw import SUBPIXEL_BITS, Pixels, View, subpixels
from edgeseg.data.synthetic.figures import BUILDING, PAVEMENT, ROAD, SKY, TREE
from edgeseg.data.synthetic.textures import asphalt_tile, cloud_tile, stain_tile

STEP_M = 0.25  # spacing of the tables along the road
LANE_HALF_M = 5.0  # kerb to centre line
FACADE_M = 9.0  # centre line to house fronts
_FARTHEST_M = 560.0
_SKYLINE_SALT = 77
Grey = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

# BGR of road, pavement, grass, kerb under a light of about 1.
_GROUND = np.array([(100, 96, 94), (106, 108, 110), (46, 84, 74), (138, 140, 142)], np.float32)
_GROUND_TABLES = [np.resize(_GROUND[:, channel], 256) for channel in range(3)]  # for cv2.LUT
_GROUND_LABELS = np.resize(np.array([ROAD, PAVEMENT, TREE, PAVEMENT], np.uint8), 256)
_YELLOW = np.array((70, 150, 176), np.float32)


@dataclass(frozen=True)
class Strip:
    """Describe the ground in tables along the road, one row per ``STEP_M``.

    In tables of two columns, column 0 is left of the road and column 1 is right of it.

    Attributes
    ----------
    start : position of the first row along the road, metres.
    kerb : (N, 2) float32 metres from the centre line to the kerb.
    ground : (N, 2) uint8, beyond the house line: 1 pavement, 2 grass.
    height : (N, 2) float32 height of what casts a shadow at the house line, metres.
    zebra : (N,) bool, True on a zebra crossing.
    bend : (N,) float32 metres that the road's centre is to the right of its tangent at the camera.
    """

    start: float
    kerb: Grey
    ground: Pixels
    height: Grey
    zebra: Flags
    bend: Grey

    @cached_property
    def grass(self) -> Flags:
        """Return whether ``ground`` is grass, (2 N,), row by row."""
        return np.asarray(self.ground.ravel() == 2)


def paint_sky(view: View, cover: float, drift_m: float) -> None:
    """Paint the sky, with clouds on a plane far above.

    The sky is made small and enlarged, since nothing in it is sharp.

    Parameters
    ----------
    view : the frame to paint on; the whole frame is overwritten.
    cover : cover of cloud, 0..1.
    drift_m : how far the clouds have moved.
    """
    camera = view.camera
    height, width = camera.size
    rows = 60
    cols = 80

    # The rays of the small picture's pixels.
    row = np.arange(rows, dtype=np.float32) + 0.5
    col = np.arange(cols, dtype=np.float32) + 0.5
    y = (row / rows * height - 0.5 - camera.centre[1]) / camera.focal
    x = (col / cols * width - 0.5 - camera.centre[0]) / camera.focal
    up = np.maximum(-y, 0.02)[:, None] + 0.06
    c = np.cos(camera.yaw)
    s = np.sin(camera.yaw)

    # Clouds.
    ahead = (c - s * x[None]) / up
    side = (s + c * x[None]) / up
    at_x = (side * 34).astype(np.float32)
    at_y = (ahead * 22 + drift_m).astype(np.float32)
    cloud = cv2.remap(cloud_tile(), at_x % 512, at_y % 512, cv2.INTER_LINEAR)
    cloud = np.clip((cloud - 0.62 + 0.5 * cover) * 2.6, 0, 1)[..., None]

    # Colours: blue rises from the horizon, clouds are grey.
    rise = np.clip(up * 1.5, 0, 1)[..., None]
    clear = np.array((246, 238, 226)) * (1 - rise) + np.array((240, 212, 178)) * rise
    grey = np.array((240, 239, 237)) * (1.02 - 0.25 * cover * cloud)
    sky = clear * (1 - cloud) + grey * cloud

    # The glow around the sun.
    facing = np.stack(np.broadcast_arrays(s + c * x[None], -y[:, None], c - s * x[None]), axis=-1)
    facing = facing / np.linalg.norm(facing, axis=-1, keepdims=True)
    near_sun = np.clip(facing @ view.light.sun, 0, 1)[..., None]
    glow = float(view.light.sun_gain.mean())
    sky = sky * (1.04 + 0.1 * glow) + (near_sun**12 * 60 + near_sun**90 * 160) * glow

    small = np.zeros((rows, cols, 4), np.uint8)
    small[..., :3] = np.clip(sky, 0, 255)
    view.canvas[...] = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    view.canvas[..., 3] = SKY


def paint_skyline(view: View, seed: int) -> None:
    """Paint distant roofs and trees; they do not move, since they are far.

    Parameters
    ----------
    view : the frame to paint on.
    seed : seed of the drive.
    """
    camera = view.camera
    width = camera.size[1]
    rng = np.random.default_rng([seed, _SKYLINE_SALT])
    phases = rng.uniform(0, 2 * np.pi, 12)

    # Heights over the bearing, in focal lengths.
    x = np.linspace(-2.0, width + 1.0, 240)
    bearing = camera.yaw + np.arctan((x - camera.centre[0]) / camera.focal)
    blocks = np.floor(bearing * 40)
    roofs = 0.016 + 0.013 * np.sin(blocks * 2.3 + phases[0]) * np.sin(blocks * 1.1 + phases[1])
    roofs = np.where(np.sin(blocks * 5.1 + phases[2]) > 0.1, roofs, 0.002)
    waves = [0.006 / k**0.5 * np.sin(bearing * 23.0 * k + phases[3 + k]) for k in range(1, 8)]
    leaves = 0.02 + sum(waves)

    # Trees first, roofs over them.
    fog = view.fog(330.0)
    gain = view.light.gain(np.array([0.0, 0.6, -0.8]))
    below = camera.centre[1] + 4
    for share, colour, label in ((leaves, (58, 74, 72), TREE), (roofs, (92, 96, 108), BUILDING)):
        y = camera.centre[1] - np.maximum(share, 0.0) * camera.focal
        outline = np.vstack([np.stack([x, y], 1), [[width + 2, below], [-3, below]]])
        lit = np.array(colour) * gain * (1 - fog) + view.light.haze * fog
        b, g, r = np.clip(lit, 0, 255).tolist()
        corners = subpixels(outline)
        cv2.fillPoly(view.canvas, [corners], (b, g, r, label), cv2.LINE_8, SUBPIXEL_BITS)


@dataclass(frozen=True)
class _Rays:
    """Say where the rays of the frame's lower part meet the ground; broadcast to (h, W).

    Attributes
    ----------
    first : first row of the frame that shows ground.
    z : depth, metres.
    ahead : distance along the road from the camera, metres.
    side : distance to the right of the road's tangent at the camera, metres.
    """

    first: int
    z: Grey
    ahead: Grey
    side: Grey


def _ground_rays(view: View, offset_m: float) -> _Rays | None:
    """Return where rays meet the ground; None if the frame shows no ground."""
    camera = view.camera
    height, width = camera.size
    first = max(int(np.floor(camera.centre[1])) + 1, 0)
    below = np.arange(first, height, dtype=np.float32)[:, None] - np.float32(camera.centre[1])
    if not below.size:
        return None

    z = np.float32(camera.focal * camera.position[1]) / np.maximum(below, 0.05)
    z = np.minimum(z, np.float32(_FARTHEST_M))
    column = np.arange(width, dtype=np.float32)
    ray = ((column - np.float32(camera.centre[0])) / np.float32(camera.focal))[None]
    c = np.float32(np.cos(camera.yaw))
    s = np.float32(np.sin(camera.yaw))
    ahead = z * (c - s * ray)
    side = z * (s + c * ray) - ahead * (s / c) + np.float32(offset_m)
    return _Rays(first, z, ahead, side)


def paint_ground(view: View, strip: Strip, along_m: float, offset_m: float) -> None:
    """Paint road, markings, kerbs, pavement and grass, in the light and the houses' shadow.

    Parameters
    ----------
    view : the frame to paint on.
    strip : the ground.
    along_m : position of the camera along the road, metres.
    offset_m : position of the camera to the right of the road's centre, metres.
    """
    rays = _ground_rays(view, offset_m)
    if rays is None:
        return
    camera = view.camera
    z = rays.z

    # Look up the tables of the ground.
    base = along_m - strip.start
    row = (rays.ahead + np.float32(base)) * np.float32(1 / STEP_M)
    index = np.clip(row, 0, len(strip.bend) - 2).astype(np.intp)
    side = rays.side - strip.bend.take(index)
    reach = np.abs(side)
    column = index * 2 + (side > 0)
    kerb = strip.kerb.ravel().take(column)
    px_across = z * np.float32(1 / camera.focal)  # metres per pixel, across
    px_along = px_across * (z / np.float32(camera.position[1]))

    # Which ground: 0 road, 1 pavement, 2 grass, 3 kerb.
    kind = (reach >= kerb).view(np.uint8)
    kind[(reach > FACADE_M) & strip.grass.take(column) & (kind == 1)] = 2
    kind[np.abs(reach - kerb - np.float32(0.08)) < 0.09] = 3

    # Its texture, shadow and markings.
    distance = rays.ahead + np.float32(along_m % 4096.0)
    white, yellow = _markings(distance, side, kerb, px_across, strip.zebra.take(index))
    glow = _ground_texture(distance, side, px_along, kind)
    glow *= _house_shadows(view, strip, row, side)
    glow *= np.float32(1) + white * np.float32(1.15)
    painted = np.flatnonzero(yellow > 0.02)
    paint = yellow.ravel()[painted]

    # Light and haze, channel by channel: numpy is slow where the last axis has three elements.
    fog = np.float32(1) - np.exp(z * np.float32(-1 / 620.0))
    glow *= np.float32(1) - fog
    gain = view.light.gain(np.array([0.0, 1.0, 0.0])).astype(np.float32)
    planes: list[Pixels] = []
    for channel in range(3):
        colour = np.asarray(cv2.LUT(kind, _GROUND_TABLES[channel]), dtype=np.float32)
        flat = colour.ravel()
        flat[painted] += (_YELLOW[channel] - flat[painted]) * paint
        colour *= glow * gain[channel]
        colour += fog * np.float32(view.light.haze[channel])
        np.clip(colour, 0, 255, out=colour)
        planes.append(colour.astype(np.uint8))
    cv2.merge([*planes, cv2.LUT(kind, _GROUND_LABELS)], view.canvas[rays.first :])


def _wrap(values: Grey, period: float) -> Grey:
    """Return ``values % period``; several times faster than ``%``."""
    turns = values * np.float32(1 / period)
    np.floor(turns, out=turns)
    turns *= np.float32(period)
    np.subtract(values, turns, out=turns)
    return np.asarray(turns, dtype=np.float32)


def _markings(
    distance: Grey, side: Grey, kerb: Grey, px_across: Grey, zebra: Flags
) -> tuple[Grey, Grey]:
    """Return the cover of white and of yellow paint, 0..1, softened to a pixel's width."""
    sharp = 1 / px_across
    reach = np.abs(side)

    def line(at: Grey, half: float) -> Grey:
        """Return the cover of a line; ``at``: distance to its middle, ``half``: half its width."""
        cover = np.float32(half) - at
        cover *= sharp
        cover += np.float32(0.5)
        np.clip(cover, 0, 1, out=cover)
        cover *= np.minimum(np.float32(2 * half) * sharp, 1)
        return np.asarray(cover, dtype=np.float32)

    # Dashes in the middle, and two yellow lines along the kerb.
    white = line(reach, 0.06)
    white *= _wrap(distance, 9.0) < 4.0
    yellow = line(np.abs(reach - np.float32(LANE_HALF_M - 0.3)), 0.045)
    yellow += line(np.abs(reach - np.float32(LANE_HALF_M - 0.5)), 0.045)

    # Stripes of zebra crossings.
    if zebra.any():
        stripes = (_wrap(side, 1.2) < 0.6) & zebra & (reach < LANE_HALF_M - 0.3)
        white = np.where(zebra, stripes, white).astype(np.float32)
        yellow *= ~zebra

    # At a junction: give-way dashes instead of the yellow lines.
    opening = kerb > LANE_HALF_M + 0.02
    if opening.any():
        mouth = opening & (_wrap(distance, 1.0) < 0.6)
        white += line(np.abs(reach - np.float32(LANE_HALF_M)), 0.09) * mouth
        yellow *= ~opening

    white *= np.float32(0.85)
    yellow *= np.float32(0.6)
    return white, yellow


def _ground_texture(distance: Grey, side: Grey, px_along: Grey, kind: Pixels) -> Grey:
    """Return the ground's brightness, about 1."""
    # Grain near by.
    grain_x = _wrap(side * 128, 512)
    grain_y = _wrap(distance * 128, 512)
    grain = cv2.remap(asphalt_tile(), grain_x, grain_y, cv2.INTER_LINEAR)
    grain *= np.float32(0.1) * np.clip(np.float32(0.03) / px_along, 0, 1) + np.float32(0.012)

    # Stains farther away.
    across = _wrap(side * (256 / 12), 256)
    along = _wrap(distance * (1024 / 48), 1024)
    stain = cv2.remap(stain_tile(), across, along, cv2.INTER_LINEAR)
    stain *= np.float32(0.075) * np.clip(np.float32(0.6) / px_along, 0, 1)
    glow: Grey = grain + np.float32(1)
    glow += stain

    # Slabs on the pavement, tufts in the grass.
    slabs = ((_wrap(distance, 0.9) < 0.05) | (_wrap(side, 0.7) < 0.03)) & (kind == 1)
    glow -= slabs * np.clip(np.float32(0.012) / px_along, 0, 0.25)
    grass = kind == 2
    if grass.any():
        glow += grass * (grain * 2 + stain)

    # Tracks that wheels have polished.
    track = np.abs(side)
    track -= np.float32(1.75)
    np.abs(track, out=track)
    track -= np.float32(0.75)
    np.abs(track, out=track)
    track *= np.float32(-3)
    track += np.float32(1)
    np.clip(track, 0, 1, out=track)
    track *= np.float32(0.06)
    track *= kind == 0
    glow -= track
    return glow


def _house_shadows(view: View, strip: Strip, row: Grey, side: Grey) -> Grey:
    """Return 1 in the sun, less where a house stands between the ground and the sun."""
    light = view.light
    sun = light.sun
    total = float(light.gain(np.array([0.0, 1.0, 0.0])).mean())
    dark = np.float32(float(light.sky_gain.mean()) / total)

    # Go from the ground towards the sun, to the line of the houses.
    hand = 1 if sun[0] > 0 else 0
    towards = (FACADE_M - side) if hand else (FACADE_M + side)
    cross = max(abs(float(sun[0])), 0.15)
    slide = np.float32(float(np.clip(sun[2] / cross, -3, 3)) / STEP_M)
    at = np.clip(row + towards * slide, 0, len(strip.bend) - 1).astype(np.intp)

    # Is the house there higher than the ray?
    edge = strip.height[:, hand].take(at) - towards * np.float32(float(sun[1]) / cross)
    shade = np.clip(edge * np.float32(1.2), 0, 1)
    return np.asarray(1 - shade * (1 - dark), dtype=np.float32)


def blend_shadows(view: View) -> None:
    """Darken softly what ``View.shade_ground`` has marked; labels do not change.

    Parameters
    ----------
    view : the frame to paint on.
    """
    if not view.shadow.any():
        return

    height = view.camera.size[0]
    soft = cv2.GaussianBlur(view.shadow, (0, 0), max(height * 0.004, 0.3))
    keep = cv2.LUT(soft, np.rint(255 - np.arange(256) * 0.62).astype(np.uint8))
    full = np.full_like(keep, 255)
    factors = cv2.merge([keep, keep, keep, full])
    view.canvas[...] = cv2.multiply(view.canvas, factors, scale=1 / 255)
