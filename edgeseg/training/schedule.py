"""Learning-rate schedules as a factor of the base rate, by step."""

import math
from collections.abc import Callable

from edgeseg.training.recipe import OptimSection

START_FACTOR = 1 / 25  # one-cycle begins at lr / 25 (Smith & Topin 2018; PyTorch's div_factor)
END_FACTOR = 1e-4


def lr_factor(config: OptimSection, total_steps: int) -> Callable[[int], float]:
    """The factor of the base learning rate at each step 0..total_steps."""
    total = max(total_steps, 1)

    def poly(step: int) -> float:
        return float((1 - min(step, total) / total) ** config.power)

    def onecycle(step: int) -> float:
        peak = config.warmup * total
        if step < peak:
            low, high, at = START_FACTOR, 1.0, step / peak
        else:
            low, high, at = 1.0, END_FACTOR, min((step - peak) / max(total - peak, 1), 1.0)
        return low + (high - low) * (1 - math.cos(math.pi * at)) / 2

    def cosine(step: int) -> float:
        return (1 + math.cos(math.pi * min(step, total) / total)) / 2

    def constant(step: int) -> float:
        return 1.0

    return {"poly": poly, "cosine": cosine, "onecycle": onecycle, "constant": constant}[config.schedule]
