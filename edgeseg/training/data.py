"""From a labelled data set to training batches: frames kept in memory, augmented anew each epoch, reproducibly."""

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from edgeseg.data import Dataset, Sample
from edgeseg.errors import DataError
from edgeseg.preprocess import resize_frame
from edgeseg.training.augment import Augment, paste_classes
from edgeseg.training.recipe import Recipe

Batch = tuple[torch.Tensor, torch.Tensor]


def drive_of(name: str) -> str:
    """The drive a frame comes from: its name up to the first underscore (CamVid's and Cityscapes' habit)."""
    return name.split("_")[0]


def choose(data: Dataset, drives: Sequence[str]) -> list[Sample]:
    """All samples, or those of the named drives, read into memory."""
    names = [i for i, name in enumerate(data.names) if not drives or drive_of(name) in drives]
    if not names:
        known = ", ".join(sorted({drive_of(n) for n in data.names}))
        raise DataError(f"{data.name}: no frame of drives {', '.join(drives)}", got=f"drives {known}")
    return [data[i] for i in names]


class TrainSet(TorchDataset[Batch]):
    """Items are addressed by (index, draw); the draw numbers the random change, so a run can be repeated."""

    def __init__(self, samples: list[Sample], augment: Augment, seed: int) -> None:
        self.samples, self.augment, self.seed = samples, augment, seed
        drives = [drive_of(s.name) for s in samples]
        weight = np.array([1 / drives.count(d) for d in drives])
        self.drive_chance = weight / weight.sum()  # every drive alike

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        index, draw = key
        rng = np.random.default_rng((self.seed, draw))
        image, mask = self.augment(self.samples[index].image, self.samples[index].mask, rng)
        if self.augment.config.mix and rng.random() < self.augment.config.mix:
            other = self.samples[rng.choice(len(self.samples), p=self.drive_chance)]
            pasted = self.augment(other.image, other.mask, rng)
            image, mask = paste_classes(image, mask, *pasted, self.augment.ignore_id, rng)
        return torch.from_numpy(np.ascontiguousarray(image)), torch.from_numpy(np.ascontiguousarray(mask))


class ValidationSet(TorchDataset[Batch]):
    """Whole frames at the net's input size, masks at their own."""

    def __init__(self, samples: list[Sample], size: tuple[int, int]) -> None:
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
    """

    def __init__(self, samples: list[Sample], balance: float, seed: int) -> None:
        drives = [drive_of(s.name) for s in samples]
        count = {d: drives.count(d) for d in set(drives)}
        weights = np.array([count[d] ** -balance for d in drives], np.float64)
        self.chance = weights / weights.sum()
        self.balance, self.seed, self.epoch = balance, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.chance)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        n = len(self)
        # Systematic sampling: a frame of chance p comes floor(np) or ceil(np) times, so none is forgotten by bad luck.
        marks = (rng.random() + np.arange(n)) / n
        order = rng.permutation(n)
        drawn = order[np.minimum(np.searchsorted(np.cumsum(self.chance[order]), marks), n - 1)]
        rng.shuffle(drawn)
        first = self.epoch * n
        yield from ((int(index), first + place) for place, index in enumerate(drawn))


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


def loaders(
    recipe: Recipe, train: list[Sample], val: list[Sample], ignore_id: int, counts: npt.NDArray[np.int64]
) -> tuple[DataLoader[Batch], DataLoader[Batch]]:
    """The training and the validation loader; images (N, H, W, 3) uint8 BGR, masks (N, H, W) uint8."""
    fit = recipe.fit
    size = recipe.augment.crop or recipe.model.input_size
    augment = Augment(recipe.augment, size, ignore_id, rare_chances(counts))
    options: dict[str, Any] = {"num_workers": fit.workers, "persistent_workers": fit.workers > 0}
    if fit.workers:
        options |= {"worker_init_fn": _quiet_worker, "prefetch_factor": 4}
    sampler = DriveSampler(train, recipe.data.balance_drives, fit.seed)
    dataset = TrainSet(train, augment, fit.seed)
    train_loader = DataLoader(dataset, batch_size=fit.batch, sampler=sampler, drop_last=True, **options)
    val_loader = DataLoader(ValidationSet(val, recipe.model.input_size), batch_size=1)
    return train_loader, val_loader
