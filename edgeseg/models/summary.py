"""Count what each architecture costs: parameters, and multiply-adds at a given input size.

The numbers are counted on the model itself.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from edgeseg.models.registry import REGISTRY, Architecture


@dataclass(frozen=True)
class Summary:
    """Hold the cost of one architecture.

    Attributes
    ----------
    architecture : the entry of the registry.
    parameters : number of parameters.
    multiply_adds : multiply-adds of the convolutions and matrix products for one frame.
    size : (H, W) of that frame.
    """

    architecture: Architecture
    parameters: int
    multiply_adds: int
    size: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "name": self.architecture.name,
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "size": list(self.size),
            "stride": self.architecture.stride,
            "output_stride": self.architecture.output_stride,
            "pretrained": self.architecture.pretrained,
            "source": self.architecture.source,
        }


def summarise(classes: int, size: tuple[int, int]) -> list[Summary]:
    """Count the cost of every registered architecture.

    Parameters
    ----------
    classes : number of classes.
    size : (H, W) of the frame; rounded up to the stride of each architecture.

    Returns
    -------
    One ``Summary`` per architecture, in the order of the registry.
    """
    found = []
    for entry in REGISTRY.values():
        # Round the size up to the stride.
        height, width = (-(-side // entry.stride) * entry.stride for side in size)

        # Tensors on the meta device have shapes, but no memory.
        with torch.device("meta"):
            net = entry.build(classes).eval()
            frame = torch.empty(1, 3, height, width)

        counter = FlopCounterMode(display=False)
        with torch.inference_mode(), counter:
            net(frame)
        multiply_adds = counter.get_total_flops() // 2  # the counter counts two operations for each
        parameters = sum(parameter.numel() for parameter in net.parameters())
        found.append(Summary(entry, parameters, multiply_adds, (height, width)))
    return found
