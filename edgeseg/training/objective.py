"""Compute the loss of a batch: the same number, however many processes share the batch."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from edgeseg.training import distributed
from edgeseg.training.recipe import LossSection

_TINY = 1e-12  # instead of a division by 0


def objective(
    logits: Tensor,
    masks: Tensor,
    weights: Tensor,
    *,
    ignore_id: int,
    config: LossSection,
) -> Tensor:
    """Return the loss of a batch, in float32, void left out.

    It is the weighted cross-entropy, divided by the weights of all pixels of the batch on all
    processes: the mean of the processes' gradients is then the gradient of the whole batch.

    Parameters
    ----------
    logits : (N, classes, H, W).
    masks : (N, H, W) uint8 label ids.
    weights : (classes,) float32 class weights.
    ignore_id : id of void.
    config : label smoothing, focal weights and a Dice term.

    Examples
    --------
    >>> masks = torch.zeros(1, 2, 2, dtype=torch.uint8)
    >>> logits = torch.zeros(1, 4, 2, 2)
    >>> loss = objective(logits, masks, torch.ones(4), ignore_id=255, config=LossSection())
    >>> round(loss.item(), 3)  # log(4): all classes are equally likely
    1.386
    """
    # The plain loss on one process is PyTorch's own.
    is_plain = not config.focal_gamma and not config.dice
    if is_plain and distributed.rank_and_world_size()[1] == 1:
        return cross_entropy(
            logits, masks, weights, ignore_id=ignore_id, label_smoothing=config.label_smoothing
        )

    # The cross-entropy of each pixel.
    logits = logits.float()
    truth = masks.long()
    losses = F.cross_entropy(
        logits,
        truth,
        weights,
        ignore_index=ignore_id,
        label_smoothing=config.label_smoothing,
        reduction="none",
    )

    # Weigh it down where the model is already right.
    valid = truth != ignore_id
    inside = truth.where(valid, 0)
    if config.focal_gamma:
        probability = logits.softmax(1).gather(1, inside[:, None])[:, 0]
        losses = losses * (1 - probability) ** config.focal_gamma

    # Divide by the weights of all pixels.
    total_weight = _mean_over_processes((weights[inside] * valid).sum())
    loss = losses.sum() / total_weight.clamp_min(_TINY)

    if config.dice:
        loss = loss + config.dice * soft_dice(logits, inside, valid)
    return loss


def _mean_over_processes(total: Tensor) -> Tensor:
    """Return the mean of a number over the processes."""
    if distributed.rank_and_world_size()[1] == 1:
        return total
    total = total.detach().clone()
    dist.all_reduce(total)
    return total / distributed.rank_and_world_size()[1]


def cross_entropy(
    logits: Tensor,
    masks: Tensor,
    weights: Tensor,
    *,
    ignore_id: int,
    label_smoothing: float,
) -> Tensor:
    """Return the weighted cross-entropy of a batch, in float32, void left out.

    Parameters
    ----------
    logits : (N, classes, H, W).
    masks : (N, H, W) uint8 label ids.
    weights : (classes,) float32 class weights.
    ignore_id : id of void.
    label_smoothing : probability that is spread over all classes.
    """
    return F.cross_entropy(
        logits.float(),
        masks.long(),
        weights,
        ignore_index=ignore_id,
        label_smoothing=label_smoothing,
    )


def soft_dice(logits: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Return 1 minus the mean Dice coefficient of the classes that occur in a batch.

    Milletari et al. 2016, with plain sums in the denominator. With several processes, each takes
    its own part of the batch.

    Parameters
    ----------
    logits : (N, classes, H, W) float32.
    truth : (N, H, W) int64 label ids, below ``classes``; any of them where ``valid`` is False.
    valid : (N, H, W) bool; False for void.

    Examples
    --------
    >>> logits = torch.tensor([100.0, 0.0]).view(1, 2, 1, 1)  # class 0 is certain
    >>> right = torch.zeros(1, 1, 1, dtype=torch.int64)
    >>> soft_dice(logits, right, valid=torch.ones(1, 1, 1, dtype=torch.bool)).item()
    0.0
    """
    # Probabilities and truth, both zero in void.
    probability = logits.softmax(1) * valid[:, None]
    one_hot = F.one_hot(truth, logits.shape[1]).permute(0, 3, 1, 2) * valid[:, None]

    # Sums per class.
    axes = (0, 2, 3)
    both = (probability * one_hot).sum(axes)
    predicted = probability.sum(axes)
    true = one_hot.sum(axes)

    present = true > 0
    dice = 2 * both / (predicted + true).clamp_min(_TINY)
    return 1 - (dice * present).sum() / present.sum().clamp_min(1)


def confusion(logits: Tensor, masks: Tensor, ignore_id: int) -> Tensor:
    """Count the pixels of a batch by true and predicted class, void left out.

    Parameters
    ----------
    logits : (N, classes, H, W).
    masks : (N, H, W) uint8 label ids.
    ignore_id : id of void.

    Returns
    -------
    (classes, classes) int64 on the device of the logits: row true, column predicted.

    Examples
    --------
    >>> logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)
    >>> masks = torch.tensor([[[0, 0]]], dtype=torch.uint8)
    >>> confusion(logits, masks, ignore_id=255).tolist()
    [[1, 1], [0, 0]]
    """
    classes = logits.shape[1]
    truth = masks.long()
    predicted = logits.detach().argmax(1)

    # One index per pair of classes; the last one collects void.
    valid = (truth != ignore_id) & (truth < classes)
    index = torch.where(valid, truth * classes + predicted, classes * classes)
    counts = torch.bincount(index.ravel(), minlength=classes * classes + 1)
    return counts[:-1].reshape(classes, classes)
