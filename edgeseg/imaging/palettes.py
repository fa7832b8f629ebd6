"""Derive colours that the colour-blind tell apart, and measure how far colours are apart.

About 8 % of all men see red and green alike (protanopia, deuteranopia); a few people see blue and
yellow alike (tritanopia). Here two colours are as far apart as the worst of four eyes sees them.
"""

from collections.abc import Sequence
from functools import cache
from itertools import combinations, product

import numpy as np
import numpy.typing as npt

from edgeseg.spec import LabelSpace

Float = npt.NDArray[np.float64]
Rgb = tuple[int, int, int]

# Machado, Oliveira, Fernandes 2009, severity 1.0: matrices on linear RGB.
_EYES: dict[str, Float] = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
EYES = tuple(_EYES)

# Okabe, Ito 2008, without black: black stands for pixels of no class.
_OKABE_ITO: tuple[Rgb, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)

_LEVELS = (0, 43, 85, 128, 170, 213, 255)  # of a channel of the colours to choose from: 343 colours
_LEAST_LIGHTNESS = 35.0  # L*: darker colours vanish over dark parts of a picture
_ROUNDS = 20  # of the search; it ends earlier if a round improves nothing
_BLACK: Rgb = (0, 0, 0)

# sRGB (IEC 61966-2-1) to XYZ, and the white of D65.
_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
_WHITE = _TO_XYZ.sum(axis=1)


def lab(colours: Sequence[Rgb], eye: str = "normal") -> Float:
    """Return colours in CIELAB (D65), as an eye sees them.

    Parameters
    ----------
    colours : (R, G, B), each 0..255.
    eye : one of ``EYES``.

    Returns
    -------
    (N, 3): L*, a*, b*.

    Examples
    --------
    >>> lab([(255, 255, 255)]).round(2).tolist()
    [[100.0, 0.0, 0.0]]
    """
    srgb = np.asarray(colours, np.float64).reshape(-1, 3) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ _EYES[eye].T, 0.0, 1.0)

    ratio = seen @ _TO_XYZ.T / _WHITE
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def ciede2000(first: Float, second: Float) -> Float:
    """Return the CIEDE2000 difference of colours in CIELAB.

    The formulas are those of Sharma, Wu and Dalal 2005.

    Parameters
    ----------
    first, second : (..., 3): L*, a*, b*; the leading axes broadcast.

    Returns
    -------
    (...) differences; about 1 is the smallest that anybody sees.

    Examples
    --------
    >>> round(float(ciede2000(np.array([50, 2.5, 0]), np.array([58, 24, 15]))), 4)
    19.4535
    """
    light1, a1, b1 = np.moveaxis(np.asarray(first, np.float64), -1, 0)
    light2, a2, b2 = np.moveaxis(np.asarray(second, np.float64), -1, 0)

    # Chroma and hue, with a* stretched for greys.
    stretch = 1.5 - 0.5 * _seventh((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2)
    chroma1, chroma2 = np.hypot(a1 * stretch, b1), np.hypot(a2 * stretch, b2)
    hue1 = np.degrees(np.arctan2(b1, a1 * stretch)) % 360
    hue2 = np.degrees(np.arctan2(b2, a2 * stretch)) % 360
    grey = chroma1 * chroma2 == 0

    # Differences of lightness, chroma and hue.
    turn = (hue2 - hue1 + 180) % 360 - 180
    turn = np.where(grey, 0.0, turn)
    d_light = light2 - light1
    d_chroma = chroma2 - chroma1
    d_hue = 2 * np.sqrt(chroma1 * chroma2) * np.sin(np.radians(turn / 2))

    # Their means.
    light = (light1 + light2) / 2
    chroma = (chroma1 + chroma2) / 2
    hue = np.where(grey, hue1 + hue2, hue1 + turn / 2) % 360

    # Their weights.
    bend = (
        1
        - 0.17 * np.cos(np.radians(hue - 30))
        + 0.24 * np.cos(np.radians(2 * hue))
        + 0.32 * np.cos(np.radians(3 * hue + 6))
        - 0.20 * np.cos(np.radians(4 * hue - 63))
    )
    s_light = 1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2)
    s_chroma = 1 + 0.045 * chroma
    s_hue = 1 + 0.015 * chroma * bend
    twist = -2 * _seventh(chroma) * np.sin(np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2))))

    x, y, z = d_light / s_light, d_chroma / s_chroma, d_hue / s_hue
    difference: Float = np.sqrt(np.maximum(x * x + y * y + z * z + twist * y * z, 0.0))
    return difference


def smallest_difference(colours: Sequence[Rgb], eye: str = "normal") -> float:
    """Return the CIEDE2000 difference of the two most similar colours, as an eye sees them.

    Parameters
    ----------
    colours : two or more of (R, G, B), each 0..255.
    eye : one of ``EYES``.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> smallest_difference(CAMVID_11.palette, "deuteranopia") < 4
    True
    """
    seen = lab(colours, eye)
    apart = ciede2000(seen[:, None], seen[None])
    np.fill_diagonal(apart, np.inf)
    return float(apart.min())


def colour_blind_safe(labels: LabelSpace) -> LabelSpace:
    """Return a label space with colours that the colour-blind tell apart.

    Up to seven classes get the colours of Okabe and Ito. More classes get colours chosen for the
    greatest smallest difference over all ``EYES``. Of these, the classes get colours like their
    own: roads stay violet, trees stay olive.

    Parameters
    ----------
    labels : the label space; any number of classes.

    Returns
    -------
    The same names and ids with other colours. The ignored id keeps its colour.

    Examples
    --------
    >>> from edgeseg.spec import CAMVID_11
    >>> safe = colour_blind_safe(CAMVID_11)
    >>> smallest_difference(safe.palette, "deuteranopia") > 10
    True
    """
    coloured = [label for label in range(len(labels)) if label != labels.ignore_id]
    if not coloured:
        return labels
    safe = _safe_colours(len(coloured))
    own = [labels.palette[label] for label in coloured]
    palette = list(labels.palette)
    for label, choice in zip(coloured, _most_alike(own, safe), strict=True):
        palette[label] = safe[choice]
    return labels.model_copy(update={"palette": tuple(palette)})


def _most_alike(own: Sequence[Rgb], safe: Sequence[Rgb]) -> list[int]:
    """Return which safe colour each own colour becomes, so that few change much."""
    apart = ciede2000(lab(own)[:, None], lab(safe)[None]) ** 2

    # The most similar pairs first.
    choice = [-1] * len(own)
    left = apart.copy()
    for _ in own:
        row, column = np.unravel_index(int(left.argmin()), left.shape)
        choice[row] = int(column)
        left[row] = np.inf
        left[:, column] = np.inf

    # Then exchange two as long as that helps.
    improved = True
    while improved:
        improved = False
        for first, second in combinations(range(len(own)), 2):
            now = apart[first, choice[first]] + apart[second, choice[second]]
            then = apart[first, choice[second]] + apart[second, choice[first]]
            if then < now - 1e-9:
                choice[first], choice[second] = choice[second], choice[first]
                improved = True
    return choice


def _seventh(chroma: Float) -> Float:
    """Return CIEDE2000's sigmoid of chroma."""
    power = chroma**7
    sigmoid: Float = np.sqrt(power / (power + 25.0**7))
    return sigmoid


@cache
def _safe_colours(count: int) -> tuple[Rgb, ...]:
    """Return ``count`` colours that all eyes tell apart, and tell from black."""
    if count <= len(_OKABE_ITO):
        return _OKABE_ITO[:count]

    candidates, apart = _candidates()
    light = lab(candidates)[:, 0] >= _LEAST_LIGHTNESS
    if light.sum() >= count:
        kept = np.flatnonzero(light | (np.arange(len(candidates)) == 0))
        candidates = [candidates[index] for index in kept]
        apart = apart[np.ix_(kept, kept)]

    # Farthest-point search: always add the colour farthest from all chosen ones, black first.
    chosen = [0]
    nearest = apart[0].copy()
    for _ in range(count):
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, apart[chosen[-1]])

    # Move colours one by one to a better place, until none is.
    for _ in range(_ROUNDS):
        moved = False
        for place in range(1, len(chosen)):
            others = apart[chosen[:place] + chosen[place + 1 :]].min(axis=0)
            best = int(others.argmax())
            if others[best] > others[chosen[place]] + 1e-9:
                chosen[place] = best
                moved = True
        if not moved:
            break
    return tuple(candidates[index] for index in chosen[1:])


@cache
def _candidates() -> tuple[list[Rgb], Float]:
    """Return the colours to choose from, black first, and their differences to the worst eye."""
    candidates = [(red, green, blue) for red, green, blue in product(_LEVELS, repeat=3)]
    apart = np.full((len(candidates), len(candidates)), np.inf)
    for eye in EYES:
        seen = lab(candidates, eye)
        apart = np.minimum(apart, ciede2000(seen[:, None], seen[None]))
    return candidates, apart
