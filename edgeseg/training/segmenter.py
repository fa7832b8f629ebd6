"""Define what Lightning trains: a model, its running average, its loss and its scores."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from edgeseg.errors import InputError
from edgeseg.imaging.preprocess import coefficients, resize_labels
from edgeseg.metrics.confusion import Scores, confusion_matrix, scores
from edgeseg.models import create
from edgeseg.models.base import SegmentationModel
from edgeseg.models.checkpoint import load_checkpoint, save_checkpoint
from edgeseg.models.pretrained import load_encoder
from edgeseg.spec import ModelSpec
from edgeseg.training.history import History
from edgeseg.training.loss import prior_shift
from edgeseg.training.objective import confusion, objective
from edgeseg.training.optimizer import make_optimizer, parameter_groups, with_schedule
from edgeseg.training.recipe import Recipe

Batch = tuple[Tensor, Tensor]


def freeze_encoder(net: nn.Module, *, frozen: bool) -> None:
    """Stop or start the training of a model's ``encoder``; a model without one stays as it is.

    Parameters
    ----------
    net : the model.
    frozen : True to stop.

    Examples
    --------
    >>> model = nn.ModuleDict({"encoder": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    >>> freeze_encoder(model, frozen=True)
    >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    ['head.weight', 'head.bias']
    """
    encoder = getattr(net, "encoder", None)
    if encoder is not None:
        encoder.requires_grad_(not frozen)


@contextlib.contextmanager
def shifted(net: nn.Module, shift: Tensor) -> Iterator[None]:
    """Add a shift to the bias of a model's ``classifier`` while the context lasts.

    A model that is saved inside the context has the shift built in.

    Parameters
    ----------
    net : the model.
    shift : (classes,) what to add to the logits.

    Examples
    --------
    >>> model = nn.Module()
    >>> model.classifier = nn.Conv2d(1, 2, 1)
    >>> before = model.classifier.bias.clone()
    >>> with shifted(model, torch.tensor([1.0, -1.0])):
    ...     (model.classifier.bias - before).tolist()
    [1.0, -1.0]
    >>> torch.equal(model.classifier.bias, before)
    True
    """
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
    """Measure frames per second, and the share of time spent waiting for data.

    Examples
    --------
    >>> watch = Stopwatch()
    >>> watch.got_batch()
    >>> watch.did_batch(frames=4)
    >>> rate, waiting = watch.read()
    >>> rate > 0, 0 <= waiting <= 1
    (True, True)
    """

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin to measure anew."""
        now = time.perf_counter()
        self._begun = now
        self._ended = now
        self._waited = 0.0
        self._frames = 0

    def got_batch(self) -> None:
        """Note that a batch has arrived: the time since the last one ended was spent waiting."""
        self._waited += time.perf_counter() - self._ended

    def did_batch(self, frames: int) -> None:
        """Note that a batch is done.

        Parameters
        ----------
        frames : number of frames in it.
        """
        self._ended = time.perf_counter()
        self._frames += frames

    def read(self) -> tuple[float, float]:
        """Return (frames per second, share of time waiting, 0..1) up to the last batch."""
        spent = max(self._ended - self._begun, 1e-9)
        return self._frames / spent, self._waited / spent


class Segmenter(L.LightningModule):
    """Hold the model, its running average, the loss and the scores.

    The only file it writes is ``best.pt``.

    Parameters
    ----------
    recipe : the recipe.
    spec : the contract of the model.
    weights : (classes,) float32 class weights of the loss.
    out : folder of the run.
    steps : number of steps that the optimizer will make.

    Attributes
    ----------
    net : the model that is trained.
    average : its running average; None if the recipe has none.
    loss : ``loss(logits, masks, weights)`` of a batch.
    shift : (classes,) float32, added to the logits in validation and in ``best.pt``.
    history : the numbers so far.
    best_score : the best score so far, larger is better; the recipe chooses which.
    best_miou : mean IoU of the weights with the best score.
    watch : measures the speed.
    """

    net: nn.Module
    gain: Tensor
    offset: Tensor
    weights: Tensor

    def __init__(
        self, recipe: Recipe, spec: ModelSpec, weights: Tensor, out: Path, steps: int
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.spec = spec
        self.out = out
        self.steps = steps

        # The model and its running average.
        self.net = self._first_model().to(memory_format=torch.channels_last)
        decay = recipe.fit.ema
        self.average: AveragedModel | None = None
        if decay:
            self.average = AveragedModel(self.net, multi_avg_fn=ema(decay), use_buffers=True)
            # Processes that train together wait for a gradient of every parameter that wants one.
            self.average.requires_grad_(False)

        # Constants that move to the model's device.
        gain, offset = coefficients(spec)
        self.register_buffer("gain", torch.from_numpy(gain).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", torch.from_numpy(offset).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("weights", weights, persistent=False)
        shift = prior_shift(weights.numpy(), recipe.loss.prior_correction)
        self.shift = torch.from_numpy(shift)

        # What is counted until the next validation ends.
        classes = len(spec.labels)
        self.matrix = np.zeros((classes, classes), np.int64)
        self.train_matrix = torch.zeros(classes, classes).long()
        self.losses: list[Tensor] = []
        self.val_losses: list[float] = []

        # The run so far.
        self.best_score = -math.inf
        self.best_miou = -1.0
        self.history = History()
        self.watch = Stopwatch()
        self._updated_at = 0

        ignore_id = spec.labels.ignore_id
        self.loss: Callable[..., Tensor] = partial(
            objective, ignore_id=ignore_id, config=recipe.loss
        )
        if recipe.fit.compile:
            self.loss = torch.compile(self.loss)
            self.net.compile()
            if self.average is not None:
                self.average.module.compile()

    def _first_model(self) -> SegmentationModel:
        """Return the model with the weights that the run starts from."""
        spec = self.spec
        net = create(spec.architecture, len(spec.labels), **spec.arguments)
        if self.recipe.model.encoder:
            load_encoder(net, self.recipe.model.encoder)
        if self.recipe.model.init:
            self._load_all(net, self.recipe.model.init)
        return net

    def _load_all(self, net: SegmentationModel, source: str) -> None:
        """Give a model the weights of another run of the same architecture.

        If the number of classes differs, the classifiers keep their own weights.
        """
        loaded, spec, _ = load_checkpoint(source)
        if (spec.architecture, spec.arguments) != (self.spec.architecture, self.spec.arguments):
            raise InputError(
                f"{source}: cannot start this run",
                got=f"{spec.architecture} {spec.arguments or ''}".strip(),
                expected=f"{self.spec.architecture} {self.spec.arguments or ''}".strip(),
            )

        state = net.state_dict()
        for key, value in loaded.state_dict().items():
            if value.shape == state[key].shape:
                state[key] = value
        net.load_state_dict(state)

    # -- steps -------------------------------------------------------------------------------

    def to_input(self, images: Tensor) -> Tensor:
        """Return images in the colour order and the scale of the spec.

        Parameters
        ----------
        images : (N, H, W, 3) uint8 BGR.

        Returns
        -------
        (N, 3, H, W) float32.
        """
        x = images.permute(0, 3, 1, 2)
        if self.spec.colour == "rgb":
            x = x.flip(1)
        scaled = x.float() * self.gain + self.offset
        return scaled.contiguous(memory_format=torch.channels_last)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Return the loss of a batch.

        Parameters
        ----------
        batch : images (N, H, W, 3) uint8 BGR, and masks (N, H, W) uint8.
        """
        images, masks = batch
        outputs = self.net(self.to_input(images))
        logits, auxiliary = outputs if isinstance(outputs, tuple) else (outputs, None)
        logits = enlarged(logits, masks.shape[1:])
        loss = self.loss(logits, masks, self.weights)

        if auxiliary is not None:
            weight = cast(float, self.net.auxiliary_weight)
            auxiliary = enlarged(auxiliary, masks.shape[1:])
            loss = loss + weight * self.loss(auxiliary, masks, self.weights)

        self._count_training(loss, logits, masks)
        return loss

    def _count_training(self, loss: Tensor, logits: Tensor, masks: Tensor) -> None:
        """Add the loss and the scores of a training batch to the counts of the epoch."""
        self.losses.append(loss.detach())
        counts = confusion(logits, masks, self.spec.labels.ignore_id)
        self.train_matrix = self.train_matrix.to(logits.device) + counts

    def validation_step(self, batch: Batch, _: int) -> None:
        """Add the loss and the scores of a frame to the counts of the validation.

        Parameters
        ----------
        batch : images (N, H, W, 3) uint8 BGR, and masks (N, h, w) uint8 at the frame's own size.
        """
        images, masks = batch
        labels = self.spec.labels
        logits = self._candidate()(self.to_input(images)).float()

        # The loss, without the prior's shift. It is not finite for a frame of void, or of classes
        # without weight: such a frame does not count.
        plain = enlarged(logits, masks.shape[1:])
        loss = F.cross_entropy(plain, masks.long(), self.weights, ignore_index=labels.ignore_id)
        if bool(loss.isfinite()):
            self.val_losses.append(float(loss))

        # The scores, with the shift, as an engine computes labels.
        shift = self.shift.to(logits.device).view(1, -1, 1, 1)
        logits = enlarged(logits + shift, images.shape[1:3])
        predictions = logits.argmax(1).to(torch.uint8).cpu().numpy()
        for prediction, truth in zip(predictions, masks.cpu().numpy(), strict=True):
            resized = resize_labels(prediction, truth.shape)
            self.matrix += confusion_matrix(truth, resized, len(labels), labels.ignore_id)

    def _candidate(self) -> nn.Module:
        """Return the model that is scored and saved: the running average if there is one."""
        return self.net if self.average is None else self.average.module

    # -- what Lightning calls around the steps -----------------------------------------------

    def on_train_epoch_start(self) -> None:
        """Freeze or free the encoder, and begin to measure the speed."""
        frozen_epochs = self.recipe.model.freeze_encoder_epochs
        if frozen_epochs:
            freeze_encoder(self.net, frozen=self.current_epoch < frozen_epochs)
        self.watch.start()

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        """Seed the random draws of a batch, such as dropout.

        They depend on the place of the batch alone, so that a resumed run draws what an unbroken
        one draws.
        """
        self.watch.got_batch()
        place = (self.recipe.fit.seed, self.current_epoch, index, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def on_train_batch_end(self, outputs: Any, batch: Batch, index: int) -> None:
        """Update the running average after a step of the optimizer."""
        has_stepped = self.global_step != self._updated_at
        self._updated_at = self.global_step
        if self.average is not None and has_stepped:
            self.average.update_parameters(self.net)
        self.watch.did_batch(len(batch[0]) * self.trainer.world_size)

    def on_validation_epoch_end(self) -> None:
        """Add a row to the history, and save the weights if they are the best so far."""
        result, train_result, losses = self._take_counts()
        loss, val_loss = losses
        self.log_dict(
            {
                "val_miou": result.mean_iou,
                "val_pixel_accuracy": result.pixel_accuracy,
                "val_loss": val_loss,
            }
        )
        if self.trainer.sanity_checking:
            return

        rate = self.optimizers().param_groups[-1]["lr"]  # type: ignore[union-attr]
        epoch = self.current_epoch + 1
        self.history.add(epoch, self.global_step, rate, (loss, val_loss), result, train_result)

        candidates = {
            "miou": result.mean_iou,
            "pixel_accuracy": result.pixel_accuracy,
            "loss": -val_loss,
        }
        score = candidates[self.recipe.fit.select]
        if score > self.best_score:
            self.best_score = score
            self.best_miou = result.mean_iou
            if self.trainer.is_global_zero:
                self._save(result)

    def _take_counts(self) -> tuple[Scores, Scores, tuple[float, float]]:
        """Return scores and losses of validation and training over all processes; set counts to 0.

        Returns (validation scores, training scores, (training loss, validation loss)).
        """
        names = self.spec.labels.names
        result = scores(names, self._summed(torch.from_numpy(self.matrix)))
        train_result = scores(names, self._summed(self.train_matrix))
        self.matrix = np.zeros_like(self.matrix)
        self.train_matrix = torch.zeros_like(self.train_matrix)

        loss = self._mean([float(value) for value in self.losses])
        val_loss = self._mean(self.val_losses)
        self.losses = []
        self.val_losses = []
        return result, train_result, (loss, val_loss)

    def _summed(self, counts: Tensor) -> npt.NDArray[np.int64]:
        """Return counts added up over the processes."""
        if self.trainer.world_size > 1:
            counts = counts.to(self.device)
            dist.all_reduce(counts)
        return counts.cpu().numpy()

    def _mean(self, values: list[float]) -> float:
        """Return the mean of the numbers of all processes; NaN if there are none."""
        sums = [sum(values), len(values)]
        total = torch.tensor(sums, dtype=torch.float64, device=self.device)
        if self.trainer.world_size > 1:
            dist.all_reduce(total)
        return float(total[0] / total[1]) if total[1] else float("nan")

    def _save(self, result: Scores) -> None:
        """Write ``best.pt``, with the prior's shift built in."""
        net = self._candidate()
        notes = {
            "recipe": self.recipe.model_dump_json(),
            "epoch": self.current_epoch + 1,
            "val_miou": float(result.mean_iou),
            "val_pixel_accuracy": float(result.pixel_accuracy),
        }
        with shifted(net, self.shift):
            save_checkpoint(self.out / "best.pt", net, self.spec, notes)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state of the run to Lightning's checkpoint, to resume from."""
        checkpoint["edgeseg"] = {
            "recipe": self.recipe.model_dump_json(),
            "best_score": self.best_score,
            "best_miou": self.best_miou,
            "history": self.history.rows,
            "losses": [float(loss) for loss in self.losses],
            "train_matrix": self.train_matrix.cpu(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the state of the run from Lightning's checkpoint."""
        state = checkpoint["edgeseg"]
        self.best_score = state["best_score"]
        self.best_miou = state["best_miou"]
        self.history = History(state["history"])
        self.losses = [torch.tensor(loss) for loss in state["losses"]]
        self.train_matrix = state["train_matrix"]
        self._updated_at = checkpoint["global_step"]

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule."""
        config = self.recipe.optim
        optimizer = make_optimizer(parameter_groups(self.net, config), config)
        return with_schedule(optimizer, config, self.steps)


def enlarged(logits: Tensor, size: Any) -> Tensor:
    """Return logits at another size, enlarged bilinearly as engines do it.

    Parameters
    ----------
    logits : (N, classes, h, w).
    size : (H, W).

    Examples
    --------
    >>> enlarged(torch.zeros(1, 11, 8, 12), (64, 96)).shape
    torch.Size([1, 11, 64, 96])
    """
    if tuple(logits.shape[2:]) == tuple(size):
        return logits
    return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)


def ema(decay: float) -> Any:
    """Return the update of an exponential moving average, for ``AveragedModel(multi_avg_fn=...)``.

    The window grows with the run, so that the first weights do not stay in early averages.

    Parameters
    ----------
    decay : share of the average that each update keeps, once the window has grown.

    Examples
    --------
    >>> averages = [torch.tensor(0.0)]
    >>> ema(0.9)(averages, [torch.tensor(1.0)], 0)  # the first update keeps a tenth
    >>> round(averages[0].item(), 4)
    0.9
    """

    @torch.no_grad()
    def update(averages: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        kept = min(decay, (1 + int(count)) / (10 + int(count)))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, current, 1 - kept)
        else:  # batch normalisation's counters
            torch._foreach_copy_(averages, current)

    return update
