"""From a labelled data set to training batches: frames kept in memory if they fit, augmented anew, reproducibly."""

import os
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

Batch = tuple[torch.Tensor, torch.Tensor]
MEMORY_LIMIT = 4 << 30  # bytes of frames and masks


def drive_of(name: str) -> str:
    """The drive a frame comes from: its name up to the first underscore (CamVid's and Cityscapes' habit)."""
    return name.split("_")[0]


class Samples(Sequence[Sample]):
    """Chosen samples of a data set: kept in memory where they fit into ``MEMORY_LIMIT``, read anew where not."""

    def __init__(self, data: Dataset, indices: Sequence[int]) -> None:
        self._data, self._indices = data, list(indices)
        self.names = [data.names[i] for i in self._indices]
        first = data[self._indices[0]]
        total = (first.image.nbytes + first.mask.nbytes) * len(self._indices)
        self._held = None if total > MEMORY_LIMIT else [first, *(data[i] for i in self._indices[1:])]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._data[self._indices[index]] if self._held is None else self._held[index]


def choose(data: Dataset, drives: Sequence[str]) -> Samples:
    """All samples, or those of the named drives. Raises ``DataError`` where there are none."""
    names = [i for i, name in enumerate(data.names) if not drives or drive_of(name) in drives]
    if not names:
        known = ", ".join(sorted({drive_of(n) for n in data.names}))
        raise DataError(f"{data.name}: no frame of drives {', '.join(drives)}", got=f"drives {known}")
    return Samples(data, names)


class TrainSet(TorchDataset[Batch]):
    """Items are addressed by (index, draw); the draw numbers the random change, so a run can be repeated."""

    def __init__(self, samples: Samples, augment: Augment, seed: int) -> None:
        self.samples, self.augment, self.seed = samples, augment, seed
        drives = [drive_of(name) for name in samples.names]
        weight = np.array([1 / drives.count(d) for d in drives])
        self.drive_chance = weight / weight.sum()  # every drive alike

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        index, draw = key
        rng = np.random.default_rng((self.seed, draw))
        sample = self.samples[index]
        image, mask = self.augment(sample.image, sample.mask, rng)
        if self.augment.config.mix and rng.random() < self.augment.config.mix:
            other = self.samples[rng.choice(len(self.samples), p=self.drive_chance)]
            pasted = self.augment(other.image, other.mask, rng)
            image, mask = paste_classes(image, mask, *pasted, self.augment.ignore_id, rng)
        return torch.from_numpy(np.ascontiguousarray(image)), torch.from_numpy(np.ascontiguousarray(mask))


class ValidationSet(TorchDataset[Batch]):
    """Whole frames at the net's input size, masks at their own."""

    def __init__(self, samples: Sequence[Sample], size: tuple[int, int]) -> None:
        self.samples, self.size = samples, size

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Batch:
        sample = self.samples[index]
        image = np.ascontiguousarray(resize_frame(sample.image, self.size))
        return torch.from_numpy(image), torch.from_numpy(np.ascontiguousarray(sample.mask))


class DriveSampler(Sampler[tuple[int, int]]):
    """(index, draw) pairs of one epoch: a shuffle, or draws that favour short drives by ``balance`` (0..1).

    With balance b a drive of n frames is drawn in proportion to n ** (1 - b): 0 is every frame alike, 1 every drive.
    Of several processes each takes its turn, so that together they see the batches that one would see.
    """

    def __init__(self, names: Sequence[str], balance: float, seed: int) -> None:
        drives = [drive_of(name) for name in names]
        count = {d: drives.count(d) for d in set(drives)}
        weights = np.array([count[d] ** -balance for d in drives], np.float64)
        self.chance = weights / weights.sum()
        self.balance, self.seed, self.epoch = balance, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.chance) // distributed.rank_and_world_size()[1]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        n = len(self.chance)
        # Systematic sampling: a frame of chance p comes floor(np) or ceil(np) times, so none is forgotten by bad luck.
        marks = (rng.random() + np.arange(n)) / n
        order = rng.permutation(n)
        drawn = order[np.minimum(np.searchsorted(np.cumsum(self.chance[order]), marks), n - 1)]
        rng.shuffle(drawn)
        first = self.epoch * n
        rank, world = distributed.rank_and_world_size()
        pairs = [(int(index), first + place) for place, index in enumerate(drawn)]
        yield from pairs[rank : len(self) * world : world]


class ShareSampler(Sampler[int]):
    """Every frame once, in order, over all processes."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return len(range(*self._part()))

    def __iter__(self) -> Iterator[int]:
        yield from range(*self._part())

    def _part(self) -> tuple[int, int, int]:
        rank, world = distributed.rank_and_world_size()
        return rank, self.count, world


def _quiet_worker(_: int) -> None:
    cv2.setNumThreads(0)


def rare_chances(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """How often a rare-class crop is centred on each label id, (256,): inverse root of its share, common ones never."""
    pixels = counts[0].astype(np.float64)
    share = pixels / max(pixels.sum(), 1)
    chance = np.zeros(256)
    rare = (share > 0) & (share < 1 / len(share))
    chance[: len(share)][rare] = share[rare] ** -0.5
    return chance


def needs_counts(recipe: Recipe) -> bool:
    """Whether a recipe asks how many pixels each class has: that reads every frame."""
    return recipe.loss.class_weights != "none" or recipe.augment.rare_crop > 0


def loaders(
    recipe: Recipe, train: Samples, val: Samples, ignore_id: int, counts: npt.NDArray[np.int64] | None, world: int = 1
) -> tuple[DataLoader[Batch], DataLoader[Batch]]:
    """The training and the validation loader; images (N, H, W, 3) uint8 BGR, masks (N, H, W) uint8.

    A process of ``world`` gets its share of each of the recipe's batches.
    """
    fit = recipe.fit
    if fit.batch % world:
        raise InputError("a batch is shared by the processes", got=f"{fit.batch} frames for {world} processes")
    size = recipe.augment.crop or recipe.model.input_size
    rare = np.zeros(256) if counts is None else rare_chances(counts)
    augment = Augment(recipe.augment, size, ignore_id, rare)
    workers = min(fit.workers, os.cpu_count() or 1)
    options: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
    if workers:
        options |= {"worker_init_fn": _quiet_worker, "prefetch_factor": 4}
    sampler = DriveSampler(train.names, recipe.data.balance_drives, fit.seed)
    dataset = TrainSet(train, augment, fit.seed)
    train_loader = DataLoader(dataset, batch_size=fit.batch // world, sampler=sampler, drop_last=True, **options)
    val_loader = DataLoader(ValidationSet(val, recipe.model.input_size), batch_size=1, sampler=ShareSampler(len(val)))
    return train_loader, val_loader
