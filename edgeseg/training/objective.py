"""The loss of a batch, the same number however many processes share it."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from edgeseg.training import distributed
from edgeseg.training.recipe import LossSection


def objective(logits: Tensor, masks: Tensor, weights: Tensor, *, ignore_id: int, config: LossSection) -> Tensor:
    """The loss of (N, classes, H, W) logits for (N, H, W) uint8 masks, in float32, void left out.

    Weighted cross-entropy, divided by the weights of all pixels of the batch, on all processes: the mean of the
    processes' gradients is then that of the whole batch. ``config`` adds focal weights and a Dice term.
    """
    if not config.focal_gamma and not config.dice and distributed.rank_and_world_size()[1] == 1:
        return cross_entropy(logits, masks, weights, ignore_id=ignore_id, label_smoothing=config.label_smoothing)
    logits, truth = logits.float(), masks.long()
    losses = F.cross_entropy(
        logits, truth, weights, ignore_index=ignore_id, label_smoothing=config.label_smoothing, reduction="none"
    )
    valid = truth != ignore_id
    inside = truth.where(valid, 0)
    if config.focal_gamma:
        chance = logits.softmax(1).gather(1, inside[:, None])[:, 0]
        losses = losses * (1 - chance) ** config.focal_gamma
    loss = losses.sum() / _over_processes((weights[inside] * valid).sum()).clamp_min(1e-12)
    if config.dice:
        loss = loss + config.dice * soft_dice(logits, inside, valid)
    return loss


def _over_processes(total: Tensor) -> Tensor:
    """The mean of a number over the processes."""
    if distributed.rank_and_world_size()[1] == 1:
        return total
    total = total.detach().clone()
    dist.all_reduce(total)
    return total / distributed.rank_and_world_size()[1]


def cross_entropy(logits: Tensor, masks: Tensor, weights: Tensor, *, ignore_id: int, label_smoothing: float) -> Tensor:
    """Weighted cross-entropy of (N, classes, H, W) logits and (N, H, W) uint8 masks, in float32, void left out."""
    return F.cross_entropy(
        logits.float(), masks.long(), weights, ignore_index=ignore_id, label_smoothing=label_smoothing
    )


def soft_dice(logits: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """1 - the mean Dice of the classes in a batch (Milletari et al. 2016, with plain sums below the line).

    ``truth`` (N, H, W) int64, anything where ``valid`` is false. On several processes: of each one's own part.
    """
    chance = logits.softmax(1) * valid[:, None]
    one_hot = F.one_hot(truth, logits.shape[1]).permute(0, 3, 1, 2) * valid[:, None]
    both, ours, theirs = ((x).sum((0, 2, 3)) for x in (chance * one_hot, chance, one_hot))
    present = theirs > 0
    dice = 2 * both / (ours + theirs).clamp_min(1e-12)
    return 1 - (dice * present).sum() / present.sum().clamp_min(1)


def confusion(logits: Tensor, masks: Tensor, ignore_id: int) -> Tensor:
    """(classes, classes) int64 counts of (true, guessed) pixels of a batch, on its device; void left out."""
    classes = logits.shape[1]
    truth, guess = masks.long(), logits.detach().argmax(1)
    valid = (truth != ignore_id) & (truth < classes)
    flat = torch.where(valid, truth * classes + guess, classes * classes)
    return torch.bincount(flat.ravel(), minlength=classes * classes + 1)[:-1].reshape(classes, classes)
