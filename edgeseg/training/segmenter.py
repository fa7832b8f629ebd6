"""What Lightning trains: a net by a recipe, with its running average, its loss and its scores."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from edgeseg.errors import InputError
from edgeseg.imaging.preprocess import coefficients, resize_labels
from edgeseg.metrics.confusion import Scores, confusion_matrix, scores
from edgeseg.models import create
from edgeseg.models.checkpoint import load_checkpoint, save_checkpoint
from edgeseg.models.pretrained import load_encoder
from edgeseg.spec import ModelSpec
from edgeseg.training.history import History
from edgeseg.training.loss import prior_shift
from edgeseg.training.objective import confusion, objective
from edgeseg.training.optimizer import make_optimizer, parameter_groups, with_schedule
from edgeseg.training.recipe import Recipe


def freeze_encoder(net: nn.Module, *, frozen: bool) -> None:
    """Stop or start the training of a net's ``encoder``; a net without one is left as it is."""
    encoder = getattr(net, "encoder", None)
    if encoder is not None:
        encoder.requires_grad_(not frozen)


@contextlib.contextmanager
def shifted(net: nn.Module, shift: Tensor) -> Iterator[None]:
    """While inside, ``shift`` (classes,) is in the bias of the net's ``classifier``: what is saved has it built in."""
    bias = cast(Tensor, cast(nn.Module, net.classifier).bias)
    before = bias.detach().clone()
    with torch.no_grad():
        bias += shift.to(bias)
    try:
        yield
    finally:
        with torch.no_grad():
            bias.copy_(before)


class Stopwatch:
    """Frames a second since it was last asked, and the share of time spent waiting for data."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self._begun = self._ended = time.perf_counter()
        self._waited, self._frames = 0.0, 0

    def got_batch(self) -> None:
        self._waited += time.perf_counter() - self._ended

    def did_batch(self, frames: int) -> None:
        self._ended = time.perf_counter()
        self._frames += frames

    def read(self) -> tuple[float, float]:
        """(frames a second, share waiting 0..1) up to the last batch."""
        spent = max(self._ended - self._begun, 1e-9)
        return self._frames / spent, self._waited / spent


class Segmenter(L.LightningModule):
    """The net, its running average, the loss and the scores; knows nothing of files but ``best.pt``.

    ``weights`` (classes,) float32 are the loss's; ``steps`` is how many the optimizer will make.
    """

    gain: Tensor
    offset: Tensor
    weights: Tensor

    def __init__(self, recipe: Recipe, spec: ModelSpec, weights: Tensor, out: Path, steps: int) -> None:
        super().__init__()
        self.recipe, self.spec, self.out, self.steps = recipe, spec, out, steps
        self.net = create(spec.architecture, len(spec.labels), **spec.arguments)
        if recipe.model.encoder:
            load_encoder(self.net, recipe.model.encoder)
        if recipe.model.init:
            self._load_all(recipe.model.init)
        self.net = self.net.to(memory_format=torch.channels_last)
        decay = recipe.fit.ema
        self.average = AveragedModel(self.net, multi_avg_fn=ema(decay), use_buffers=True) if decay else None
        if self.average is not None:
            self.average.requires_grad_(False)  # several processes wait for the gradient of whatever has one
        gain, offset = coefficients(spec)
        self.register_buffer("gain", torch.from_numpy(gain).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", torch.from_numpy(offset).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("weights", weights, persistent=False)
        self.shift = torch.from_numpy(prior_shift(weights.numpy(), recipe.loss.prior_correction))
        classes = len(spec.labels)
        self.matrix, self.train_matrix = np.zeros((classes, classes), np.int64), torch.zeros(classes, classes).long()
        self.losses: list[Tensor] = []
        self.val_losses: list[float] = []
        self.best_score = -math.inf
        self.best_miou = -1.0
        self.history = History()
        self.watch = Stopwatch()
        self._updated_at = 0
        self.loss: Callable[..., Tensor] = partial(objective, ignore_id=spec.labels.ignore_id, config=recipe.loss)
        if recipe.fit.compile:
            self.loss = torch.compile(self.loss)
            self.net.compile()
            if self.average is not None:
                self.average.module.compile()

    def _load_all(self, source: str) -> None:
        """Weights of another run of this net; of another number of classes, all but the classifiers'."""
        net, spec, _ = load_checkpoint(source)
        if (spec.architecture, spec.arguments) != (self.spec.architecture, self.spec.arguments):
            raise InputError(
                f"{source}: cannot start this run", got=f"{spec.architecture} {spec.arguments or ''}".strip(),
                expected=f"{self.spec.architecture} {self.spec.arguments or ''}".strip(),
            )  # fmt: skip
        ours, theirs = self.net.state_dict(), net.state_dict()
        self.net.load_state_dict({k: v if v.shape == ours[k].shape else ours[k] for k, v in theirs.items()})

    # -- steps -----------------------------------------------------------------------------------------------------

    def to_input(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 BGR -> (N, 3, H, W) float in the spec's order and scale."""
        x = images.permute(0, 3, 1, 2)
        if self.spec.colour == "rgb":
            x = x.flip(1)
        return (x.float() * self.gain + self.offset).contiguous(memory_format=torch.channels_last)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        images, masks = batch
        outputs = self.net(self.to_input(images))
        logits, auxiliary = outputs if isinstance(outputs, tuple) else (outputs, None)
        logits = enlarged(logits, masks.shape[1:])
        loss = self.loss(logits, masks, self.weights)
        if auxiliary is not None:
            weight = cast(float, self.net.auxiliary_weight)
            loss = loss + weight * self.loss(enlarged(auxiliary, masks.shape[1:]), masks, self.weights)
        self.losses.append(loss.detach())
        self.train_matrix = self.train_matrix.to(logits.device) + confusion(logits, masks, self.spec.labels.ignore_id)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        images, masks = batch
        net = self.net if self.average is None else self.average.module
        logits = net(self.to_input(images)).float()
        plain = enlarged(logits, masks.shape[1:])
        loss = F.cross_entropy(plain, masks.long(), self.weights, ignore_index=self.spec.labels.ignore_id)
        if bool(loss.isfinite()):  # a frame of void, or of classes that weigh nothing, says nothing
            self.val_losses.append(float(loss))
        logits = enlarged(logits + self.shift.to(logits.device).view(1, -1, 1, 1), images.shape[1:3])
        guesses = logits.argmax(1).to(torch.uint8).cpu().numpy()
        for guess, truth in zip(guesses, masks.cpu().numpy(), strict=True):
            labels = self.spec.labels
            self.matrix += confusion_matrix(truth, resize_labels(guess, truth.shape), len(labels), labels.ignore_id)

    # -- what happens around them ------------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        if self.recipe.model.freeze_encoder_epochs:
            freeze_encoder(self.net, frozen=self.current_epoch < self.recipe.model.freeze_encoder_epochs)
        self.watch.start()

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        self.watch.got_batch()
        # A batch's chances depend on its place alone: a resumed run draws what an unbroken one draws.
        place = (self.recipe.fit.seed, self.current_epoch, index, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def on_train_batch_end(self, outputs: Any, batch: tuple[Tensor, Tensor], index: int) -> None:
        stepped = self.global_step != self._updated_at
        self._updated_at = self.global_step
        if self.average is not None and stepped:
            self.average.update_parameters(self.net)
        self.watch.did_batch(len(batch[0]) * self.trainer.world_size)
        if self._trainer is not None and self.trainer.progress_bar_callback is not None:
            rate, waiting = self.watch.read()
            self.log("frames/s", rate, prog_bar=True)
            self.log("waiting for data %", 100 * waiting, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        labels = self.spec.labels.names
        result = scores(labels, self._summed(torch.from_numpy(self.matrix)))
        train_result = scores(labels, self._summed(self.train_matrix))
        self.matrix, self.train_matrix = np.zeros_like(self.matrix), torch.zeros_like(self.train_matrix)
        losses = [float(loss) for loss in self.losses]
        loss, val_loss = self._mean(losses), self._mean(self.val_losses)
        self.losses, self.val_losses = [], []
        self.log_dict({"val_miou": result.mean_iou, "val_pixel_accuracy": result.pixel_accuracy, "val_loss": val_loss})
        if self.trainer.sanity_checking:
            return
        rate = self.optimizers().param_groups[-1]["lr"]  # type: ignore[union-attr]
        self.history.add(self.current_epoch + 1, self.global_step, rate, (loss, val_loss), result, train_result)
        by = {"miou": result.mean_iou, "pixel_accuracy": result.pixel_accuracy, "loss": -val_loss}
        if by[self.recipe.fit.select] > self.best_score:
            self.best_score, self.best_miou = by[self.recipe.fit.select], result.mean_iou
            if self.trainer.is_global_zero:
                self._save(result)

    def _summed(self, counts: Tensor) -> Any:
        """Counts added up over the processes, as NumPy."""
        if self.trainer.world_size > 1:
            counts = counts.to(self.device)
            dist.all_reduce(counts)
        return counts.cpu().numpy()

    def _mean(self, values: list[float]) -> float:
        """The mean of the numbers of all processes."""
        total = torch.tensor([sum(values), len(values)], dtype=torch.float64, device=self.device)
        if self.trainer.world_size > 1:
            dist.all_reduce(total)
        return float(total[0] / total[1]) if total[1] else float("nan")

    def _save(self, result: Scores) -> None:
        net = self.net if self.average is None else self.average.module
        notes = {
            "recipe": self.recipe.model_dump_json(),
            "epoch": self.current_epoch + 1,
            "val_miou": float(result.mean_iou),
            "val_pixel_accuracy": float(result.pixel_accuracy),
        }
        with shifted(net, self.shift):
            save_checkpoint(self.out / "best.pt", net, self.spec, notes)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["edgeseg"] = {
            "recipe": self.recipe.model_dump_json(),
            "best_score": self.best_score,
            "best_miou": self.best_miou,
            "history": self.history.rows,
            "losses": [float(loss) for loss in self.losses],
            "train_matrix": self.train_matrix.cpu(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint["edgeseg"]
        self.best_score, self.best_miou = kept["best_score"], kept["best_miou"]
        self.history = History(kept["history"])
        self.losses = [torch.tensor(loss) for loss in kept["losses"]]
        self.train_matrix = kept["train_matrix"]
        self._updated_at = checkpoint["global_step"]

    def configure_optimizers(self) -> Any:
        c = self.recipe.optim
        return with_schedule(make_optimizer(parameter_groups(self.net, c), c), c, self.steps)


def enlarged(logits: Tensor, size: Any) -> Tensor:
    """Logits (N, classes, h, w) at ``size`` (H, W), bilinear, as engines enlarge them."""
    if tuple(logits.shape[2:]) == tuple(size):
        return logits
    return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)


def ema(decay: float) -> Any:
    """Exponential moving average whose window grows with the run, so that early averages are not the first weights."""

    @torch.no_grad()
    def update(averages: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        now = min(decay, (1 + int(count)) / (10 + int(count)))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, current, 1 - now)
        else:  # batch normalisation's counters
            torch._foreach_copy_(averages, current)

    return update
