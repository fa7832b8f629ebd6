"""What each architecture costs: parameters, and multiply-adds at a given input size, counted on the net itself."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from edgeseg.models import REGISTRY, Architecture


@dataclass(frozen=True)
class Summary:
    """``multiply_adds`` are those of convolutions and matrix products for one frame of ``size`` (H, W)."""

    architecture: Architecture
    parameters: int
    multiply_adds: int
    size: tuple[int, int]


def summarise(classes: int, size: tuple[int, int]) -> list[Summary]:
    """Count every registered net with ``classes`` outputs on a frame of ``size``, rounded up to the net's stride."""
    found = []
    for entry in REGISTRY.values():
        height, width = (-(-side // entry.stride) * entry.stride for side in size)
        with torch.device("meta"):
            net = entry.build(classes).eval()
            frame = torch.empty(1, 3, height, width)
        counter = FlopCounterMode(display=False)
        with torch.inference_mode(), counter:
            net(frame)
        parameters = sum(p.numel() for p in net.parameters())
        found.append(Summary(entry, parameters, counter.get_total_flops() // 2, (height, width)))
    return found
