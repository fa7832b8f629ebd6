"""Find a learning rate by a range test (Smith 2017, section 3.3).

The rate rises step by step, and the loss shows how far it may rise.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from edgeseg.errors import DataError
from edgeseg.files import atomic_path
from edgeseg.reporter import SILENT, Reporter
from edgeseg.training.data import Batch, DriveSampler
from edgeseg.training.fit import prepare
from edgeseg.training.optimizer import make_optimizer, parameter_groups
from edgeseg.training.recipe import Recipe
from edgeseg.training.segmenter import Segmenter, enlarged, freeze_encoder

SMOOTHING = 0.9  # of the loss, a running mean corrected for its start
DIVERGED = 4.0  # times the lowest loss so far: further steps show nothing

_FEWEST_STEPS = 5  # with fewer, no slope can be seen


@dataclass(frozen=True)
class RangeTest:
    """Hold the result of a range test.

    Attributes
    ----------
    rates : the learning rates tried, rising.
    losses : the smoothed loss at each.
    suggested : the learning rate at which the loss falls fastest.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggested: float


def find_lr(
    recipe: Recipe,
    *,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
    reporter: Reporter = SILENT,
) -> RangeTest:
    """Train a fresh model at rising learning rates, and suggest one.

    The rates rise in equal ratios until ``high``, or until the loss diverges. The rates of an
    encoder's blocks keep their ratio to the base rate. If the recipe begins with a frozen encoder,
    the encoder is frozen in the test.

    Parameters
    ----------
    recipe : the recipe.
    low, high : the first and the last learning rate.
    steps : number of batches.
    reporter : receives the progress over the steps.

    Raises
    ------
    InputError, DataError : the recipe cannot run (``edgeseg.training.fit.prepare``).
    DataError : the loss diverges within a few steps.
    """
    module, loader = _begin(recipe, steps)
    device = module.device

    # The optimizer, and the ratio of each group's rate to the base rate.
    groups = parameter_groups(module.net, recipe.optim)
    ratios = [group["lr"] / recipe.optim.lr for group in groups]
    optimizer = make_optimizer(groups, recipe.optim)

    rates: list[float] = []
    losses: list[float] = []
    mean = 0.0
    for step, (images, masks) in enumerate(_batches(loader, steps)):
        rate = low * (high / low) ** (step / max(steps - 1, 1))
        for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
            group["lr"] = rate * ratio
        loss = _train_step(module, optimizer, images.to(device), masks.to(device))

        # Smooth the loss; stop if it diverges.
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smooth = mean / (1 - SMOOTHING ** (step + 1))
        if not math.isfinite(smooth) or smooth > DIVERGED * min([*losses, smooth]):
            break
        rates.append(rate)
        losses.append(smooth)
        reporter.progress("range test", step + 1, steps)

    if len(rates) < _FEWEST_STEPS:
        raise DataError(
            "the loss diverges within a few steps",
            got=f"{len(rates)} steps",
            expected=f"at least {_FEWEST_STEPS}",
            hint="Lower `low`.",
        )
    return RangeTest(tuple(rates), tuple(losses), suggested(rates, losses))


def _begin(recipe: Recipe, steps: int) -> tuple[Segmenter, DataLoader[Batch]]:
    """Return the model as the recipe's run begins, on the device to train on, and its batches."""
    L.seed_everything(recipe.fit.seed, verbose=False)
    prepared = prepare(recipe)
    loader, _ = prepared.loaders(recipe)
    module = Segmenter(recipe, prepared.spec, prepared.weights, Path(), steps)
    module.to("cuda" if torch.cuda.is_available() else "cpu").train()
    freeze_encoder(module.net, frozen=recipe.model.freeze_encoder_epochs > 0)
    return module, loader


def _batches(loader: DataLoader[Batch], steps: int) -> Iterator[Batch]:
    """Yield a number of training batches, over as many epochs as it takes."""
    sampler = loader.sampler
    assert isinstance(sampler, DriveSampler)
    done = 0
    epoch = 0
    while done < steps:
        sampler.set_epoch(epoch)
        epoch += 1
        for batch in loader:
            yield batch
            done += 1
            if done == steps:
                return


def _train_step(
    module: Segmenter, optimizer: torch.optim.Optimizer, images: Tensor, masks: Tensor
) -> float:
    """Train on one batch, in the recipe's precision; return the loss before the step."""
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(module.recipe.fit.precision)
    with torch.autocast(images.device.type, half or torch.bfloat16, enabled=half is not None):
        outputs = module.net(module.to_input(images))
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        loss = module.loss(enlarged(logits, masks.shape[1:]), masks, module.weights)

    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


def suggested(rates: list[float], losses: list[float]) -> float:
    """Return the learning rate at which the loss falls fastest.

    The slope is taken over the logarithm of the rate, before the lowest loss.

    Parameters
    ----------
    rates : the learning rates, rising; at least three.
    losses : the smoothed loss at each.

    Examples
    --------
    >>> suggested([1e-4, 1e-3, 1e-2, 1e-1], [2.0, 1.9, 1.0, 0.9])
    0.001
    """
    lowest = max(int(np.argmin(losses)), 2)
    logarithms = np.log(rates[: lowest + 1])
    slope = np.gradient(np.asarray(losses[: lowest + 1]), logarithms)
    return float(rates[int(np.argmin(slope))])


def draw(test: RangeTest, path: Path) -> Path:
    """Draw the loss over the learning rate, with the suggestion marked.

    Parameters
    ----------
    test : the range test.
    path : the PNG file to write.

    Returns
    -------
    ``path``.

    Raises
    ------
    OutputError : the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    axis.plot(test.rates, test.losses, color="tab:blue")
    label = f"steepest: {test.suggested:.1e}"
    axis.axvline(test.suggested, color="tab:red", linestyle="--", label=label)
    axis.set(xscale="log", xlabel="learning rate", ylabel="smoothed loss")
    axis.set_title("learning-rate range test")
    axis.grid(alpha=0.3)
    axis.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return path
