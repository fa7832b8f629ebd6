"""Optimizers by name, and the learning rate of each part of a net."""

import re
from typing import Any

import torch
from torch import nn

from edgeseg.training.recipe import OptimSection
from edgeseg.training.schedule import lr_factor

# encoder.layer1..., encoder.0..., encoder.blocks.0...: what a block of an encoder is called.
_BLOCK = re.compile(r"^encoder\.((?:blocks\.)?[^.]+)")


def parameter_groups(net: nn.Module, config: OptimSection) -> list[dict[str, Any]]:
    """The groups of ``net``'s parameters, each with its ``lr``: the encoder's blocks in order, then the rest."""
    blocks: dict[str, list[nn.Parameter]] = {}
    rest: list[nn.Parameter] = []
    for name, parameter in net.named_parameters():
        found = _BLOCK.match(name)
        (blocks.setdefault(found[1], []) if found else rest).append(parameter)
    last, first = config.encoder_lr_factor, config.encoder_lr_first or config.encoder_lr_factor
    steps = max(len(blocks) - 1, 1)
    groups = [
        {"params": parameters, "lr": config.lr * first * (last / first) ** (place / steps)}
        for place, parameters in enumerate(blocks.values())
    ]
    if config.encoder_lr_first is None and groups:
        groups = [{"params": [p for group in groups for p in group["params"]], "lr": config.lr * last}]
    return [*groups, {"params": rest, "lr": config.lr}]


def make_optimizer(groups: list[dict[str, Any]], config: OptimSection) -> torch.optim.Optimizer:
    """The recipe's optimizer; ``momentum`` is SGD's."""
    decay = config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, weight_decay=decay)
    if config.optimizer == "adadelta":
        return torch.optim.Adadelta(groups, lr=config.lr, weight_decay=decay)
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=config.lr, weight_decay=decay)
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=decay)


def with_schedule(optimizer: torch.optim.Optimizer, config: OptimSection, steps: int) -> dict[str, Any]:
    """What Lightning's ``configure_optimizers`` gives back."""
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor(config, steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
