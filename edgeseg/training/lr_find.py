"""The learning-rate range test (Smith 2017, section 3.3): the rate rises step by step, and the loss says how far."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch

from edgeseg.errors import DataError
from edgeseg.files import atomic_path
from edgeseg.training.fit import prepare
from edgeseg.training.optimizer import make_optimizer, parameter_groups
from edgeseg.training.recipe import Recipe
from edgeseg.training.segmenter import Segmenter, enlarged, freeze_encoder

SMOOTHING = 0.9  # of the loss, a running mean corrected for its start
DIVERGED = 4.0  # times the lowest loss so far: further steps tell nothing


@dataclass(frozen=True)
class RangeTest:
    """Rates tried and the smoothed loss at each. ``suggested`` is the rate where it falls fastest."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggested: float


def find_lr(
    recipe: Recipe, *, low: float = 1e-6, high: float = 1.0, steps: int = 100, progress: Any = None
) -> RangeTest:
    """Train a fresh net of ``recipe`` for ``steps`` batches at rates from ``low`` to ``high``, in equal ratios.

    The rates of an encoder's parts keep their ratio to it; a recipe that begins with a frozen encoder is tested so.
    ``progress()`` is called after each step. Raises ``DataError`` where the loss is lost at once.
    """
    L.seed_everything(recipe.fit.seed, verbose=False)
    prepared = prepare(recipe)
    loader, _ = prepared.loaders(recipe)
    module = Segmenter(recipe, prepared.spec, prepared.weights, Path(), steps)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module.to(device).train()
    freeze_encoder(module.net, frozen=recipe.model.freeze_encoder_epochs > 0)
    groups = parameter_groups(module.net, recipe.optim)
    ratios = [group["lr"] / recipe.optim.lr for group in groups]
    optimizer = make_optimizer(groups, recipe.optim)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.fit.precision)
    tried: list[float] = []
    smooth: list[float] = []
    mean = 0.0
    for step, (images, masks) in enumerate(_forever(loader, steps)):
        rate = low * (high / low) ** (step / max(steps - 1, 1))
        for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
            group["lr"] = rate * ratio
        images, masks = images.to(device), masks.to(device)
        with torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None):
            outputs = module.net(module.to_input(images))
            logits = outputs[0] if isinstance(outputs, tuple) else outputs
            loss = module.loss(enlarged(logits, masks.shape[1:]), masks, module.weights)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        mean = SMOOTHING * mean + (1 - SMOOTHING) * float(loss.detach())
        value = mean / (1 - SMOOTHING ** (step + 1))
        if not math.isfinite(value) or value > DIVERGED * min([*smooth, value]):
            break
        tried.append(rate)
        smooth.append(value)
        if progress is not None:
            progress()
    if len(tried) < 5:
        raise DataError("the loss is lost within a few steps", got=f"{len(tried)} steps", hint="Lower `low`.")
    return RangeTest(tuple(tried), tuple(smooth), suggested(tried, smooth))


def _forever(loader: Any, steps: int) -> Any:
    done = epoch = 0
    while done < steps:
        loader.sampler.set_epoch(epoch)
        epoch += 1
        for batch in loader:
            yield batch
            done += 1
            if done == steps:
                return


def suggested(rates: list[float], losses: list[float]) -> float:
    """The rate at which the loss falls fastest over the logarithm of the rate, before its lowest point."""
    lowest = max(int(np.argmin(losses)), 2)
    slope = np.gradient(np.asarray(losses[: lowest + 1]), np.log(rates[: lowest + 1]))
    return float(rates[int(np.argmin(slope))])


def draw(test: RangeTest, path: Path) -> Path:
    """Loss against learning rate, the suggestion marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    axis.plot(test.rates, test.losses, color="tab:blue")
    axis.axvline(test.suggested, color="tab:red", linestyle="--", label=f"steepest: {test.suggested:.1e}")
    axis.set(xscale="log", xlabel="learning rate", ylabel="smoothed loss", title="learning-rate range test")
    axis.grid(alpha=0.3)
    axis.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path
