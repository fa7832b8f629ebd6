"""Build optimizers by name, and choose the learning rate of each part of a model."""

import re
from typing import Any

import torch
from torch import nn

from edgeseg.training.recipe import OptimSection
from edgeseg.training.schedule import lr_factor

# The name of an encoder's block: encoder.layer1..., encoder.0..., encoder.blocks.0...
_BLOCK = re.compile(r"^encoder\.((?:blocks\.)?[^.]+)")


def parameter_groups(net: nn.Module, config: OptimSection) -> list[dict[str, Any]]:
    """Return a model's parameters in groups, each with its learning rate.

    Parameters
    ----------
    net : the model; the names of its encoder's parameters begin with ``encoder.``.
    config : the base learning rate and those of the encoder.

    Returns
    -------
    Groups with ``params`` and ``lr``, as PyTorch's optimizers take them: the encoder's blocks in
    order, then the rest. Without ``encoder_lr_first`` the encoder is one group.

    Examples
    --------
    >>> model = nn.ModuleDict({"encoder": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    >>> groups = parameter_groups(model, OptimSection(lr=0.5, encoder_lr_factor=0.5))
    >>> [(len(group["params"]), group["lr"]) for group in groups]
    [(2, 0.25), (2, 0.5)]
    """
    # Sort the parameters into the encoder's blocks and the rest.
    blocks: dict[str, list[nn.Parameter]] = {}
    rest: list[nn.Parameter] = []
    for name, parameter in net.named_parameters():
        found = _BLOCK.match(name)
        if found:
            blocks.setdefault(found[1], []).append(parameter)
        else:
            rest.append(parameter)

    groups: list[dict[str, Any]] = []
    last = config.encoder_lr_factor
    first = config.encoder_lr_first
    if first is not None:
        # One group per block, with geometrically spaced rates.
        steps = max(len(blocks) - 1, 1)
        for place, parameters in enumerate(blocks.values()):
            rate = config.lr * first * (last / first) ** (place / steps)
            groups.append({"params": parameters, "lr": rate})
    elif blocks:
        encoder: list[nn.Parameter] = []
        for parameters in blocks.values():
            encoder += parameters
        groups.append({"params": encoder, "lr": config.lr * last})

    groups.append({"params": rest, "lr": config.lr})
    return groups


def make_optimizer(groups: list[dict[str, Any]], config: OptimSection) -> torch.optim.Optimizer:
    """Build the optimizer that a recipe names.

    Parameters
    ----------
    groups : groups of parameters, as ``parameter_groups`` returns them.
    config : the optimizer's name and settings; ``momentum`` is used by SGD alone.
    """
    decay = config.weight_decay
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, weight_decay=decay)
    if config.optimizer == "adadelta":
        return torch.optim.Adadelta(groups, lr=config.lr, weight_decay=decay)
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=config.lr, weight_decay=decay)
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=decay)


def with_schedule(
    optimizer: torch.optim.Optimizer, config: OptimSection, steps: int
) -> dict[str, Any]:
    """Return an optimizer with its schedule, in the form of Lightning's ``configure_optimizers``.

    Parameters
    ----------
    optimizer : the optimizer.
    config : the schedule.
    steps : number of steps of the run.
    """
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor(config, steps))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
