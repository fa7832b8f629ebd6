"""Change training frames and their masks at random, in NumPy and OpenCV.

A frame needs one warp and one look-up table.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edgeseg.training.recipe import AugmentSection
from edgeseg.types import Image

LUMA_BGR = np.array([0.114, 0.587, 0.299], np.float32)  # ITU-R BT.601

Point = npt.NDArray[np.float64]  # (2,): x, y
Matrix = npt.NDArray[np.float64]

_BLUR_SIGMA = (0.3, 1.5)  # pixels
_AREA_BELOW = 0.7  # scale below which frames are shrunk by area, so that nothing is skipped


@dataclass(frozen=True)
class Augment:
    """Change a frame and its mask at random, and crop both to one size.

    Pixels from outside the frame are mirrored in the image and ``ignore_id`` in the mask, so that
    nothing is learned from them.

    Attributes
    ----------
    config : the probabilities and ranges.
    size : (H, W) of the result.
    ignore_id : id of void.
    rare : (256,) float64: how often a crop is centred on a pixel of each label id, relative to the
        others.

    Examples
    --------
    >>> augment = Augment(AugmentSection(crop=(8, 8)), (8, 8), ignore_id=255, rare=np.ones(256))
    >>> frame = np.zeros((16, 24, 3), np.uint8)
    >>> mask = np.zeros((16, 24), np.uint8)
    >>> image, labels = augment(frame, mask, np.random.default_rng(0))
    >>> image.shape, labels.shape
    ((8, 8, 3), (8, 8))
    """

    config: AugmentSection
    size: tuple[int, int]
    ignore_id: int
    rare: npt.NDArray[np.float64]

    def __call__(self, image: Image, mask: Image, rng: np.random.Generator) -> tuple[Image, Image]:
        """Return a changed copy of a frame and of its mask.

        Parameters
        ----------
        image : (H, W, 3) uint8 BGR.
        mask : (H, W) uint8 label ids.
        rng : decides every change.
        """
        warped, labels = self._warp(image, mask, rng)
        return self._colour(warped, rng), labels

    # -- geometry ----------------------------------------------------------------------------

    def _warp(self, image: Image, mask: Image, rng: np.random.Generator) -> tuple[Image, Image]:
        """Zoom, stretch, flip, rotate, skew and crop a frame and its mask in one step."""
        height, width = self.size
        linear, (scale_x, scale_y) = self._linear(image, rng)

        # Move the chosen position of the frame to the middle of the crop.
        view = (width / abs(scale_x), height / abs(scale_y))
        centre = self._centre(mask, view, rng)
        shift = np.array([width / 2, height / 2]) - linear @ centre
        matrix = np.hstack([linear, shift[:, None]])

        is_shrunk = min(abs(scale_x), abs(scale_y)) < _AREA_BELOW
        warped = cv2.warpAffine(
            image,
            matrix,
            (width, height),
            flags=cv2.INTER_AREA if is_shrunk else cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        labels = cv2.warpAffine(
            mask,
            matrix,
            (width, height),
            flags=cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=self.ignore_id,
        )
        return warped.astype(np.uint8, copy=False), labels.astype(np.uint8, copy=False)

    def _linear(self, image: Image, rng: np.random.Generator) -> tuple[Matrix, tuple[float, float]]:
        """Return the (2, 2) matrix of a random warp, and its scales in x and y before rotation."""
        config = self.config

        # Zoom and aspect ratio, evenly on a logarithmic scale.
        zoom = np.exp(rng.uniform(*np.log(config.scale)))
        stretch = np.exp(rng.uniform(-1, 1) * np.log(config.aspect) / 2)
        base_x, base_y = self._base(image)
        scale_x = base_x * zoom * stretch
        scale_y = base_y * zoom / stretch

        if rng.random() < config.flip:
            scale_x = -scale_x

        angle = np.deg2rad(rng.uniform(-1, 1) * config.rotate_degrees)
        cos, sin = np.cos(angle), np.sin(angle)
        rotation = np.array([[cos, -sin], [sin, cos]])

        # Enlarge a part of the frame to the whole.
        if config.resized_crop and rng.random() < config.resized_crop:
            enlarged = rng.uniform(*config.area) ** -0.5
            ratio = np.exp(rng.uniform(-1, 1) * np.log(config.ratio) / 2)
            scale_x = scale_x * enlarged * ratio
            scale_y = scale_y * enlarged / ratio

        linear = rotation @ np.diag([scale_x, scale_y])
        if config.skew_degrees:
            skew = np.deg2rad(rng.uniform(-1, 1) * config.skew_degrees)
            linear = linear @ np.array([[1, np.tan(skew)], [0, 1]])
        return linear, (scale_x, scale_y)

    def _base(self, image: Image) -> tuple[float, float]:
        """Return the horizontal and vertical scale before any change.

        Without a crop, the whole frame is scaled to the model's input.
        """
        if self.config.crop is None:
            return self.size[1] / image.shape[1], self.size[0] / image.shape[0]
        if self.config.base is None:
            return 1.0, 1.0
        scale = self.config.base / max(image.shape[:2])
        return scale, scale

    def _centre(self, mask: Image, view: tuple[float, float], rng: np.random.Generator) -> Point:
        """Return the position of the frame (x, y) that becomes the middle of the crop.

        It is near a pixel of a rare class, or anywhere. ``view`` is the part of the frame that the
        crop shows (width, height).
        """
        height, width = mask.shape
        if rng.random() < self.config.rare_crop:
            point = self._rare_point(mask, view, rng)
            if point is not None:
                return _inside(point, view, (width, height))

        room = np.maximum(np.array([width, height]) - view, 0) / 2
        middle = np.array([width, height]) / 2
        return np.asarray(middle + rng.uniform(-1, 1, 2) * room, np.float64)

    def _rare_point(
        self, mask: Image, view: tuple[float, float], rng: np.random.Generator
    ) -> Point | None:
        """Return a position near a pixel of a rare class; None if the frame has no such class."""
        counts = np.bincount(mask.ravel(), minlength=256)
        weights = np.where(counts > 0, self.rare, 0.0)
        if not weights.sum() > 0:
            return None

        # Choose a class, then one of its pixels, then a position near it.
        label = rng.choice(256, p=weights / weights.sum())
        rows, columns = np.nonzero(mask == label)
        pixel = rng.integers(len(rows))
        jitter = rng.uniform(-0.25, 0.25, 2) * view
        return np.array([columns[pixel], rows[pixel]], np.float64) + jitter

    # -- colours -----------------------------------------------------------------------------

    def _colour(self, image: Image, rng: np.random.Generator) -> Image:
        """Change the colours of a frame, blur it, and add noise."""
        config = self.config
        image = cv2.LUT(image, self._colour_table(rng)).astype(np.uint8, copy=False)

        mix = self._colour_matrix(rng)
        if mix is not None:
            image = cv2.transform(image, mix).astype(np.uint8, copy=False)

        if config.shade > 0:
            image = self._shade(image, rng)

        if rng.random() < config.blur:
            sigma = rng.uniform(*_BLUR_SIGMA)
            image = cv2.GaussianBlur(image, (0, 0), sigma).astype(np.uint8, copy=False)

        if config.noise > 0:
            image = self._noise(image, rng)
        return image

    def _colour_table(self, rng: np.random.Generator) -> Image:
        """Return a (1, 256, 3) look-up table: gamma, contrast, brightness, then temperature."""
        config = self.config
        levels = np.linspace(0, 1, 256, dtype=np.float32)
        levels = levels ** np.float32(np.exp(rng.uniform(-1, 1) * np.log(config.gamma)))

        contrast = 1 + rng.uniform(-1, 1) * config.contrast
        levels = (levels - 0.5) * contrast + 0.5
        levels = levels * (1 + rng.uniform(-1, 1) * config.brightness)

        warmth = rng.uniform(-1, 1) * config.temperature
        tint = rng.uniform(-1, 1) * config.temperature / 2
        gains = np.array([1 - warmth, 1 + tint, 1 + warmth], np.float32)  # B, G, R

        table: Image = np.clip(levels[:, None] * gains * 255, 0, 255).astype(np.uint8)
        return table[None]

    def _colour_matrix(self, rng: np.random.Generator) -> npt.NDArray[np.float32] | None:
        """Return saturation and hue as one 3x3 matrix on BGR; None if the recipe has neither.

        Saturation moves colours towards their luma; hue turns them about the grey axis.
        """
        config = self.config
        if not (config.saturation or config.hue_degrees or config.grey):
            return None

        keep = 0.0
        if not rng.random() < config.grey:
            keep = 1 + rng.uniform(-1, 1) * config.saturation
        saturate = keep * np.eye(3) + (1 - keep) * np.tile(LUMA_BGR, (3, 1))

        # A rotation about (1, 1, 1) by Rodrigues' formula.
        angle = np.deg2rad(rng.uniform(-1, 1) * config.hue_degrees)
        cos, sin = np.cos(angle), np.sin(angle)
        third = (1 - cos) / 3
        root = np.sqrt(1 / 3) * sin
        turn = np.array([
            [cos + third, third - root, third + root],
            [third + root, cos + third, third - root],
            [third - root, third + root, cos + third],
        ])  # fmt: skip
        return np.asarray(turn @ saturate, np.float32)

    def _shade(self, image: Image, rng: np.random.Generator) -> Image:
        """Multiply a smooth brightness field: a low sun, the shadow of a street, vignetting."""
        height, width = image.shape[:2]
        field = rng.uniform(-1, 1, (3, 4)).astype(np.float32) * self.config.shade * rng.random()
        smooth = cv2.resize(1 + field, (width, height), interpolation=cv2.INTER_CUBIC)
        return np.asarray(np.clip(image * smooth[..., None], 0, 255), np.uint8)

    def _noise(self, image: Image, rng: np.random.Generator) -> Image:
        """Add Gaussian noise of a random strength."""
        strength = rng.uniform(0, self.config.noise)
        noise = np.empty(image.shape, np.int16)

        # A mean and a deviation per channel: given fewer, OpenCV 5 reads what lies behind them in
        # memory.
        cv2.setRNGSeed(int(rng.integers(2**31)))
        cv2.randn(noise, np.zeros(3), np.full(3, strength))
        return np.asarray(np.clip(image + noise, 0, 255), np.uint8)


def _inside(point: Point, view: tuple[float, float], size: tuple[int, int]) -> Point:
    """Move a crop's middle so that the crop lies in the frame, or is centred if it is larger.

    ``view`` and ``size`` are the width and height of the crop and of the frame.
    """
    half_view = np.array(view) / 2
    half_size = np.array(size) / 2
    low = np.minimum(half_view, half_size)
    high = np.maximum(np.array(size) - half_view, half_size)
    return np.clip(point, low, high)


def paste_classes(
    image: Image,
    mask: Image,
    other: Image,
    other_mask: Image,
    ignore_id: int,
    rng: np.random.Generator,
) -> tuple[Image, Image]:
    """Paste the pixels of half the classes of a second frame over a first one.

    This is ClassMix (Olsson et al. 2021) on true labels: objects appear in streets and light in
    which they were never filmed. A second frame with fewer than two classes changes nothing.

    Parameters
    ----------
    image, mask : (H, W, 3) uint8 BGR, and (H, W) uint8 label ids.
    other, other_mask : the second frame, of the same size.
    ignore_id : id of void, which is never pasted.
    rng : chooses the classes.

    Returns
    -------
    The new frame and its mask.

    Examples
    --------
    >>> image = np.zeros((1, 2, 3), np.uint8)
    >>> other_mask = np.array([[1, 2]], np.uint8)
    >>> _, mask = paste_classes(
    ...     image, image[..., 0], image, other_mask, ignore_id=255, rng=np.random.default_rng(0)
    ... )
    >>> mask.tolist()  # one of the two classes
    [[1, 0]]
    """
    present = np.unique(other_mask)
    present = present[present != ignore_id]
    if len(present) < 2:
        return image, mask

    chosen = rng.permutation(present)[: len(present) // 2]
    pasted = np.isin(other_mask, chosen)
    new_image = np.where(pasted[..., None], other, image)
    return new_image, np.where(pasted, other_mask, mask)
