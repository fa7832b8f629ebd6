"""Random changes of a training frame and its mask, in NumPy and OpenCV, one warp and one look-up table a frame."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.training.recipe import AugmentSection
from edgeseg.types import Image

LUMA_BGR = np.array([0.114, 0.587, 0.299], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Augment:
    """``augment(image (H, W, 3) uint8 BGR, mask (H, W) uint8, rng)`` -> the same pair, cropped to ``size`` (H, W).

    Pixels from outside the frame are mirrored in the image and ``ignore_id`` in the mask, so they teach nothing.
    ``rare`` (256,) float64 holds how often a crop is centred on a pixel of each label id, relative to the others.
    """

    config: AugmentSection
    size: tuple[int, int]
    ignore_id: int
    rare: npt.NDArray[np.float64]

    def __call__(self, image: Image, mask: Image, rng: np.random.Generator) -> tuple[Image, Image]:
        warped, labels = self._warp(image, mask, rng)
        return self._colour(warped, rng), labels

    def _warp(self, image: Image, mask: Image, rng: np.random.Generator) -> tuple[Image, Image]:
        c, (h, w) = self.config, self.size
        zoom = np.exp(rng.uniform(*np.log(c.scale)))
        stretch = np.exp(rng.uniform(-1, 1) * np.log(c.aspect) / 2)
        base = self._base(image)
        sx, sy = base[0] * zoom * stretch, base[1] * zoom / stretch
        if rng.random() < c.flip:
            sx = -sx
        angle = np.deg2rad(rng.uniform(-1, 1) * c.rotate_degrees)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        if c.resized_crop and rng.random() < c.resized_crop:
            enlarged = rng.uniform(*c.area) ** -0.5
            ratio = np.exp(rng.uniform(-1, 1) * np.log(c.ratio) / 2)
            sx, sy = sx * enlarged * ratio, sy * enlarged / ratio
        linear = rotation @ np.diag([sx, sy])
        if c.skew_degrees:
            linear = linear @ np.array([[1, np.tan(np.deg2rad(rng.uniform(-1, 1) * c.skew_degrees))], [0, 1]])
        centre = self._centre(mask, (w / abs(sx), h / abs(sy)), rng)
        shift = np.array([w / 2, h / 2]) - linear @ centre
        matrix = np.hstack([linear, shift[:, None]])
        smooth = cv2.INTER_AREA if min(abs(sx), abs(sy)) < 0.7 else cv2.INTER_LINEAR
        warped = cv2.warpAffine(image, matrix, (w, h), flags=smooth, borderMode=cv2.BORDER_REFLECT_101)
        labels = cv2.warpAffine(
            mask, matrix, (w, h), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=self.ignore_id
        )
        return warped.astype(np.uint8, copy=False), labels.astype(np.uint8, copy=False)

    def _base(self, image: Image) -> tuple[float, float]:
        """Horizontal and vertical scale before any change: of the whole frame to the net's view if uncropped."""
        if self.config.crop is None:
            return self.size[1] / image.shape[1], self.size[0] / image.shape[0]
        base = self.config.base
        return (1.0, 1.0) if base is None else (base / max(image.shape[:2]),) * 2

    def _centre(self, mask: Image, view: tuple[float, float], rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """The frame position (x, y) that lands in the crop's middle: uniform, or near a pixel of a rare class."""
        height, width = mask.shape
        if rng.random() < self.config.rare_crop:
            counts = np.bincount(mask.ravel(), minlength=256)
            chance = np.where(counts > 0, self.rare, 0.0)
            if chance.sum() > 0:
                wanted = rng.choice(256, p=chance / chance.sum())
                rows, columns = np.nonzero(mask == wanted)
                pick = rng.integers(len(rows))
                jitter = rng.uniform(-0.25, 0.25, 2) * view
                point = np.array([columns[pick], rows[pick]], np.float64) + jitter
                return self._inside(point, view, (width, height))
        room = np.maximum(np.array([width, height]) - view, 0) / 2
        middle = np.array([width, height]) / 2
        return np.asarray(middle + rng.uniform(-1, 1, 2) * room, np.float64)

    @staticmethod
    def _inside(
        point: npt.NDArray[np.float64], view: tuple[float, float], size: tuple[int, int]
    ) -> npt.NDArray[np.float64]:
        half = np.array(view) / 2
        low, high = np.minimum(half, np.array(size) / 2), np.maximum(np.array(size) - half, np.array(size) / 2)
        return np.clip(point, low, high)

    def _colour(self, image: Image, rng: np.random.Generator) -> Image:
        c = self.config
        levels = np.linspace(0, 1, 256, dtype=np.float32)
        levels = levels ** np.float32(np.exp(rng.uniform(-1, 1) * np.log(c.gamma)))
        contrast = 1 + rng.uniform(-1, 1) * c.contrast
        levels = (levels - 0.5) * contrast + 0.5
        levels = levels * (1 + rng.uniform(-1, 1) * c.brightness)
        warmth = rng.uniform(-1, 1) * c.temperature
        tint = rng.uniform(-1, 1) * c.temperature / 2
        gains = np.array([1 - warmth, 1 + tint, 1 + warmth], np.float32)  # B, G, R
        table = np.clip(levels[:, None] * gains * 255, 0, 255).astype(np.uint8)
        image = cv2.LUT(image, table[None]).astype(np.uint8, copy=False)
        mix = self._colour_matrix(rng)
        if mix is not None:
            image = cv2.transform(image, mix).astype(np.uint8, copy=False)
        if c.shade > 0:
            image = self._shade(image, rng)
        if rng.random() < c.blur:
            sigma = rng.uniform(0.3, 1.5)
            image = cv2.GaussianBlur(image, (0, 0), sigma).astype(np.uint8, copy=False)
        if c.noise > 0:
            strength = rng.uniform(0, c.noise)
            noise = np.empty(image.shape, np.int16)
            cv2.setRNGSeed(int(rng.integers(2**31)))
            # A mean and a deviation for each channel: of fewer, OpenCV 5 takes what lies behind them in memory.
            cv2.randn(noise, np.zeros(3), np.full(3, strength))
            image = np.clip(image + noise, 0, 255).astype(np.uint8)
        return image

    def _colour_matrix(self, rng: np.random.Generator) -> npt.NDArray[np.float32] | None:
        """Saturation and hue as one 3x3 matrix on BGR: towards luma, then about the grey axis."""
        c = self.config
        if not (c.saturation or c.hue_degrees or c.grey):
            return None
        keep = 0.0 if rng.random() < c.grey else 1 + rng.uniform(-1, 1) * c.saturation
        saturate = keep * np.eye(3) + (1 - keep) * np.tile(LUMA_BGR, (3, 1))
        angle = np.deg2rad(rng.uniform(-1, 1) * c.hue_degrees)
        cos, sin = np.cos(angle), np.sin(angle)
        third, root = (1 - cos) / 3, np.sqrt(1 / 3) * sin
        turn = np.array([
            [cos + third, third - root, third + root],
            [third + root, cos + third, third - root],
            [third - root, third + root, cos + third],
        ])  # fmt: skip
        return np.asarray(turn @ saturate, np.float32)

    def _shade(self, image: Image, rng: np.random.Generator) -> Image:
        """A smooth brightness field over the frame: low sun, shadow of a street, vignetting."""
        h, w = image.shape[:2]
        field = rng.uniform(-1, 1, (3, 4)).astype(np.float32) * self.config.shade * rng.random()
        smooth = cv2.resize(1 + field, (w, h), interpolation=cv2.INTER_CUBIC)
        return np.asarray(np.clip(image * smooth[..., None], 0, 255), np.uint8)


def paste_classes(
    image: Image, mask: Image, other: Image, other_mask: Image, ignore_id: int, rng: np.random.Generator
) -> tuple[Image, Image]:
    """``image`` with the pixels of half the classes of ``other`` over it, and its mask likewise.

    ClassMix (Olsson et al. 2021) on true labels: things turn up in streets and light they were never filmed in.
    """
    present = np.unique(other_mask)
    present = present[present != ignore_id]
    if len(present) < 2:
        return image, mask
    chosen = rng.permutation(present)[: len(present) // 2]
    take = np.isin(other_mask, chosen)
    return np.where(take[..., None], other, image), np.where(take, other_mask, mask)
