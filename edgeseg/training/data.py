"""Make training batches from a labelled data set.

Frames are kept in memory if they fit, and augmented anew each time. Every draw can be repeated.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from edgeseg.data import Dataset, Sample
from edgeseg.errors import DataError, InputError
from edgeseg.imaging.preprocess import resize_frame
from edgeseg.training import distributed
from edgeseg.training.augment import Augment, paste_classes
from edgeseg.training.recipe import Recipe
from edgeseg.types import Image

Batch = tuple[torch.Tensor, torch.Tensor]
MEMORY_LIMIT = 4 << 30  # bytes of frames and masks


def drive_of(name: str) -> str:
    """Return the drive that a frame comes from: its name up to the first underscore.

    CamVid and Cityscapes name their frames so.

    Parameters
    ----------
    name : the frame's name.

    Examples
    --------
    >>> drive_of("0001TP_006690")
    '0001TP'
    """
    return name.split("_")[0]


class Samples(Sequence[Sample]):
    """Hold chosen samples of a data set.

    They are kept in memory if they fit into ``MEMORY_LIMIT``, else read each time.

    Parameters
    ----------
    data : the data set.
    indices : the chosen samples; at least one.

    Attributes
    ----------
    names : their names.
    """

    def __init__(self, data: Dataset, indices: Sequence[int]) -> None:
        self._data = data
        self._indices = list(indices)
        self.names = [data.names[index] for index in self._indices]

        # All frames are taken to be as large as the first.
        first = data[self._indices[0]]
        total = (first.image.nbytes + first.mask.nbytes) * len(self._indices)
        self._held: list[Sample] | None = None
        if total <= MEMORY_LIMIT:
            self._held = [first, *(data[index] for index in self._indices[1:])]

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        """Return a sample, or a list of samples for a slice."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if self._held is None:
            return self._data[self._indices[index]]
        return self._held[index]


def choose(data: Dataset, drives: Sequence[str]) -> Samples:
    """Return the samples of some drives of a data set.

    Parameters
    ----------
    data : the data set.
    drives : names of drives; empty for all.

    Raises
    ------
    DataError : the data set has no frame of these drives; the error lists the drives it has.
    """
    indices: list[int] = []
    for index, name in enumerate(data.names):
        if not drives or drive_of(name) in drives:
            indices.append(index)
    if not indices:
        known = sorted({drive_of(name) for name in data.names})
        raise DataError(
            f"{data.name}: no frame of drives {', '.join(drives)}",
            got=f"drives {', '.join(known)}",
        )
    return Samples(data, indices)


class TrainSet(TorchDataset[Batch]):
    """Augment the samples to train on.

    An item is addressed by (index, draw). The number of the draw decides the random changes, so
    that a run can be repeated.

    Parameters
    ----------
    samples : the samples.
    augment : the random changes.
    seed : seed of the run.

    Attributes
    ----------
    drive_chance : (samples,) probability of each sample to be the second frame of a mix: every
        drive is equally likely.
    """

    def __init__(self, samples: Samples, augment: Augment, seed: int) -> None:
        self.samples = samples
        self.augment = augment
        self.seed = seed

        drives = [drive_of(name) for name in samples.names]
        frames = Counter(drives)
        weights = np.array([1 / frames[drive] for drive in drives])
        self.drive_chance = weights / weights.sum()

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        """Return an image (H, W, 3) uint8 BGR and its mask (H, W) uint8 for (index, draw)."""
        index, draw = key
        rng = np.random.default_rng((self.seed, draw))
        sample = self.samples[index]
        image, mask = self.augment(sample.image, sample.mask, rng)

        # Paste classes of a second frame.
        mix = self.augment.config.mix
        if mix and rng.random() < mix:
            other = self.samples[rng.choice(len(self.samples), p=self.drive_chance)]
            pasted, pasted_mask = self.augment(other.image, other.mask, rng)
            ignore_id = self.augment.ignore_id
            image, mask = paste_classes(image, mask, pasted, pasted_mask, ignore_id, rng)
        return _tensor(image), _tensor(mask)


class ValidationSet(TorchDataset[Batch]):
    """Return whole frames at the model's input size, and masks at their own.

    Parameters
    ----------
    samples : the samples.
    size : (H, W) of the model's input.
    """

    def __init__(self, samples: Sequence[Sample], size: tuple[int, int]) -> None:
        self.samples = samples
        self.size = size

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.samples)

    def __getitem__(self, index: int) -> Batch:
        """Return an image (H, W, 3) uint8 BGR and its mask, uint8 at the frame's own size."""
        sample = self.samples[index]
        return _tensor(resize_frame(sample.image, self.size)), _tensor(sample.mask)


def _tensor(array: Image) -> torch.Tensor:
    """Return an array as a tensor."""
    return torch.from_numpy(np.ascontiguousarray(array))


class DriveSampler(Sampler[tuple[int, int]]):
    """Yield the (index, draw) pairs of an epoch: a shuffle, or draws that favour short drives.

    With balance b, a drive of n frames is drawn in proportion to n ** (1 - b). If there are several
    processes, they take turns, so that together they see the batches that one process would see.

    Parameters
    ----------
    names : names of the samples, which tell their drives.
    balance : 0 draws every frame equally often, 1 every drive.
    seed : seed of the run.

    Attributes
    ----------
    chance : (samples,) probability of each sample.
    epoch : number of the epoch, from 0 on.

    Examples
    --------
    >>> sampler = DriveSampler(["A_1", "A_2", "B_1"], balance=0.0, seed=0)
    >>> sorted(index for index, draw in sampler)
    [0, 1, 2]
    """

    def __init__(self, names: Sequence[str], balance: float, seed: int) -> None:
        drives = [drive_of(name) for name in names]
        frames = Counter(drives)
        weights = np.array([frames[drive] ** -balance for drive in drives], np.float64)
        self.chance = weights / weights.sum()
        self.balance = balance
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose pairs are yielded next.

        Parameters
        ----------
        epoch : number of the epoch, from 0 on.
        """
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the number of pairs of this process."""
        _, world_size = distributed.rank_and_world_size()
        return len(self.chance) // world_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield this process's pairs of the epoch."""
        rng = np.random.default_rng((self.seed, self.epoch))
        count = len(self.chance)

        # Systematic sampling: a frame with probability p is drawn floor(np) or ceil(np) times, so
        # that no frame is left out by chance.
        marks = (rng.random() + np.arange(count)) / count
        order = rng.permutation(count)
        places = np.searchsorted(np.cumsum(self.chance[order]), marks)
        drawn = order[np.minimum(places, count - 1)]
        rng.shuffle(drawn)

        # Number the draws through all epochs, and take every world_size-th pair.
        first = self.epoch * count
        pairs = [(int(index), first + place) for place, index in enumerate(drawn)]
        rank, world_size = distributed.rank_and_world_size()
        yield from pairs[rank : len(self) * world_size : world_size]


class ShareSampler(Sampler[int]):
    """Yield every frame once, in order, over all processes.

    Parameters
    ----------
    count : number of frames.

    Examples
    --------
    >>> list(ShareSampler(3))
    [0, 1, 2]
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        """Return the number of frames of this process."""
        return len(self._indices())

    def __iter__(self) -> Iterator[int]:
        """Yield this process's frames."""
        yield from self._indices()

    def _indices(self) -> range:
        """Return the indices of this process's frames."""
        rank, world_size = distributed.rank_and_world_size()
        return range(rank, self.count, world_size)


def rare_chances(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return how often a rare-class crop is centred on each label id.

    It is the inverse square root of the class's share of the pixels, and 0 for classes that have
    more than an equal share.

    Parameters
    ----------
    counts : what ``edgeseg.training.loss.class_pixels`` returned.

    Returns
    -------
    (256,) float64, relative to each other.

    Examples
    --------
    >>> rare_chances(np.array([[96, 4], [100, 100]]))[:2].tolist()
    [0.0, 5.0]
    """
    pixels = counts[0].astype(np.float64)
    share = pixels / max(pixels.sum(), 1)
    rare = (share > 0) & (share < 1 / len(share))

    chance = np.zeros(256)
    chance[: len(share)][rare] = share[rare] ** -0.5
    return chance


def needs_counts(recipe: Recipe) -> bool:
    """Return True if a recipe needs to know how many pixels each class has.

    Counting them reads every frame.

    Parameters
    ----------
    recipe : the recipe.
    """
    return recipe.loss.class_weights != "none" or recipe.augment.rare_crop > 0


def loaders(
    recipe: Recipe,
    train: Samples,
    val: Samples,
    ignore_id: int,
    counts: npt.NDArray[np.int64] | None,
    world: int = 1,
) -> tuple[DataLoader[Batch], DataLoader[Batch]]:
    """Return the loaders of training and of validation.

    Parameters
    ----------
    recipe : the recipe.
    train, val : the samples to train on and to validate on.
    ignore_id : id of void.
    counts : what ``edgeseg.training.loss.class_pixels`` returned; None if the recipe needs none.
    world : number of processes; each gets its share of every batch of the recipe.

    Returns
    -------
    Two loaders of images (N, H, W, 3) uint8 BGR and masks (N, H, W) uint8. A batch of validation is
    one frame.

    Raises
    ------
    InputError : the processes cannot share a batch equally.
    """
    fit = recipe.fit
    if fit.batch % world:
        raise InputError(
            "the processes share each batch equally",
            got=f"{fit.batch} frames for {world} processes",
            expected="a `fit.batch` that the number of processes divides",
        )

    # Worker processes.
    workers = min(fit.workers, os.cpu_count() or 1)
    options: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
    if workers:
        options["worker_init_fn"] = _use_one_thread
        options["prefetch_factor"] = 4

    # Training: augmented frames.
    size = recipe.augment.crop or recipe.model.input_size
    rare = np.zeros(256) if counts is None else rare_chances(counts)
    augment = Augment(recipe.augment, size, ignore_id, rare)
    train_loader = DataLoader(
        TrainSet(train, augment, fit.seed),
        batch_size=fit.batch // world,
        sampler=DriveSampler(train.names, recipe.data.balance_drives, fit.seed),
        drop_last=True,
        **options,
    )

    # Validation: whole frames.
    val_set = ValidationSet(val, recipe.model.input_size)
    val_loader = DataLoader(val_set, batch_size=1, sampler=ShareSampler(len(val)))
    return train_loader, val_loader


def _use_one_thread(_: int) -> None:
    """Stop OpenCV from starting threads inside a worker process."""
    cv2.setNumThreads(0)
