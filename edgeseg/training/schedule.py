"""Learning-rate schedules: a factor of the base rate for each step."""

import math
from collections.abc import Callable

from edgeseg.training.recipe import OptimSection

START_FACTOR = 1 / 25  # one-cycle begins at lr / 25 (Smith & Topin 2018; PyTorch's div_factor)
END_FACTOR = 1e-4


def lr_factor(config: OptimSection, total_steps: int) -> Callable[[int], float]:
    """Return the function from a step, 0..total_steps, to the factor of the base learning rate.

    - ``constant``: 1.
    - ``poly``: falls from 1 to 0 as a power of the remaining share of steps.
    - ``cosine``: falls from 1 to 0 along half a cosine.
    - ``onecycle``: rises from 1/25 to 1 during the warm-up, then falls to 1e-4; both parts are
      halves of a cosine.

    Parameters
    ----------
    config : the schedule with its ``power`` and ``warmup``.
    total_steps : number of steps of the run.

    Examples
    --------
    >>> factor = lr_factor(OptimSection(lr=1.0, schedule="poly", power=1.0), total_steps=10)
    >>> factor(0), factor(5), factor(10)
    (1.0, 0.5, 0.0)
    """
    total = max(total_steps, 1)

    def poly(step: int) -> float:
        return float((1 - min(step, total) / total) ** config.power)

    def onecycle(step: int) -> float:
        peak = config.warmup * total
        if step < peak:
            low, high = START_FACTOR, 1.0
            position = step / peak
        else:
            low, high = 1.0, END_FACTOR
            position = min((step - peak) / max(total - peak, 1), 1.0)
        return low + (high - low) * (1 - math.cos(math.pi * position)) / 2

    def cosine(step: int) -> float:
        return (1 + math.cos(math.pi * min(step, total) / total)) / 2

    def constant(step: int) -> float:
        return 1.0

    schedules = {"poly": poly, "cosine": cosine, "onecycle": onecycle, "constant": constant}
    return schedules[config.schedule]
