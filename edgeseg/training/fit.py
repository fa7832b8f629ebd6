"""One recipe to one checkpoint: ``train(recipe, out)`` runs Lightning and leaves ``best.pt``, curves and a panel."""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from edgeseg.artifact import require_writable, write_bytes, write_json
from edgeseg.data import Sample, open_dataset
from edgeseg.errors import DataError, InputError
from edgeseg.metrics import Scores, confusion_matrix, scores
from edgeseg.models import architecture, create
from edgeseg.preprocess import coefficients, resize_labels
from edgeseg.spec import ModelSpec
from edgeseg.training.checkpoint import load_checkpoint, save_checkpoint
from edgeseg.training.data import choose, loaders
from edgeseg.training.history import History, draw_curves, draw_panel
from edgeseg.training.loss import class_pixels, class_weights, prior_shift
from edgeseg.training.recipe import Recipe
from edgeseg.training.schedule import lr_factor


def spec_of(recipe: Recipe, labels: Any) -> ModelSpec:
    """The contract of the net a recipe trains."""
    m = recipe.model
    return ModelSpec(
        architecture=m.architecture,
        arguments=m.arguments,
        input_size=m.input_size,
        mean=m.mean,
        std=m.std,
        stride=architecture(m.architecture).stride,
        labels=labels,
    )


def check_input_size(spec: ModelSpec) -> None:
    """Raise ``InputError`` with the nearest size that fits where the net's stride does not divide the input's."""
    s = spec.stride
    fits = tuple(-(-side // s) * s for side in spec.input_size)
    if fits != spec.input_size:
        raise InputError(
            f"{spec.architecture} needs an input size divisible by {s}", got=list(spec.input_size), expected=list(fits)
        )


def cross_entropy(logits: Tensor, masks: Tensor, weights: Tensor, *, ignore_id: int, label_smoothing: float) -> Tensor:
    """Weighted cross-entropy of (N, classes, H, W) logits and (N, H, W) uint8 masks, in float32, void left out."""
    return F.cross_entropy(
        logits.float(), masks.long(), weights, ignore_index=ignore_id, label_smoothing=label_smoothing
    )


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


class Segmenter(L.LightningModule):
    """The net, its running average, the loss and the scores; knows nothing of files but ``best.pt``."""

    gain: Tensor
    offset: Tensor
    weights: Tensor

    def __init__(self, recipe: Recipe, spec: ModelSpec, weights: Tensor, out: Path, steps: int) -> None:
        super().__init__()
        self.recipe, self.spec, self.out, self.steps = recipe, spec, out, steps
        self.net = create(spec.architecture, len(spec.labels), **spec.arguments)
        if recipe.model.encoder:
            self._load_encoder(recipe.model.encoder)
        if recipe.model.init:
            self._load_all(recipe.model.init)
        self.net = self.net.to(memory_format=torch.channels_last)
        decay = recipe.fit.ema
        self.average = AveragedModel(self.net, multi_avg_fn=_ema(decay), use_buffers=True) if decay else None
        gain, offset = coefficients(spec)
        self.register_buffer("gain", torch.from_numpy(gain).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", torch.from_numpy(offset).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("weights", weights, persistent=False)
        self.shift = torch.from_numpy(prior_shift(weights.numpy(), recipe.loss.prior_correction))
        self.matrix = np.zeros((len(spec.labels),) * 2, np.int64)
        self.losses: list[float] = []
        self.best_miou = -1.0
        self.history = History()
        self.loss: Callable[..., Tensor] = partial(
            cross_entropy, ignore_id=spec.labels.ignore_id, label_smoothing=recipe.loss.label_smoothing
        )
        if recipe.fit.compile:
            self.loss = torch.compile(self.loss)
            self.net.compile()
            if self.average is not None:
                self.average.module.compile()

    def _load_encoder(self, source: str) -> None:
        from edgeseg.models.pretrained import load_vgg16

        convolutions = getattr(self.net, "encoder_convolutions", None)
        if convolutions is None:
            raise InputError(f"{self.spec.architecture} has no encoder with pretrained weights", got=repr(source))
        load_vgg16(convolutions(), source)

    def _load_all(self, source: str) -> None:
        net, spec, _ = load_checkpoint(source)
        if (spec.architecture, spec.arguments, spec.labels.names) != (
            self.spec.architecture,
            self.spec.arguments,
            self.spec.labels.names,
        ):
            raise InputError(
                f"{source}: cannot start this run",
                got=f"{spec.architecture} for {spec.labels.name}",
                expected=f"{self.spec.architecture} for {self.spec.labels.name}",
            )
        self.net.load_state_dict(net.state_dict())

    def to_input(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 BGR -> (N, 3, H, W) float32, channels-last, by the spec's coefficients."""
        x = images.permute(0, 3, 1, 2)
        if self.spec.colour == "rgb":
            x = x.flip(1)
        return (x.float() * self.gain + self.offset).contiguous(memory_format=torch.channels_last)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        images, masks = batch
        logits = self.net(self.to_input(images))
        if logits.shape[2:] != masks.shape[1:]:
            logits = F.interpolate(logits, masks.shape[1:], mode="bilinear")
        loss = self.loss(logits, masks, self.weights)
        self.losses.append(float(loss.detach()))
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        if self.average is not None:
            self.average.update_parameters(self.net)

    def on_train_epoch_start(self) -> None:
        if self.recipe.model.freeze_encoder_epochs:
            freeze_encoder(self.net, frozen=self.current_epoch < self.recipe.model.freeze_encoder_epochs)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        images, masks = batch
        net = self.net if self.average is None else self.average.module
        logits = net(self.to_input(images)).float() + self.shift.to(images.device).view(1, -1, 1, 1)
        if logits.shape[2:] != images.shape[1:3]:
            logits = F.interpolate(logits, images.shape[1:3], mode="bilinear")
        guesses = logits.argmax(1).to(torch.uint8).cpu().numpy()
        for guess, truth in zip(guesses, masks.cpu().numpy(), strict=True):
            labels = self.spec.labels
            self.matrix += confusion_matrix(truth, resize_labels(guess, truth.shape), len(labels), labels.ignore_id)

    def on_validation_epoch_end(self) -> None:
        result = scores(self.spec.labels.names, self.matrix)
        self.matrix = np.zeros_like(self.matrix)
        self.log("val_miou", result.mean_iou)
        if self.trainer.sanity_checking:
            return
        loss = float(np.mean(self.losses)) if self.losses else float("nan")
        self.losses.clear()
        rate = self.optimizers().param_groups[-1]["lr"]  # type: ignore[union-attr]
        self.history.add(self.current_epoch + 1, self.global_step, rate, loss, result)
        if result.mean_iou > self.best_miou:
            self.best_miou = result.mean_iou
            self._save(result)

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
            "best_miou": self.best_miou,
            "history": self.history.rows,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.best_miou = checkpoint["edgeseg"]["best_miou"]
        self.history = History(checkpoint["edgeseg"]["history"])

    def configure_optimizers(self) -> Any:
        c = self.recipe.optim
        encoder = [p for n, p in self.net.named_parameters() if n.startswith("encoder.")]
        rest = [p for n, p in self.net.named_parameters() if not n.startswith("encoder.")]
        groups = [{"params": encoder, "lr": c.lr * c.encoder_lr_factor}] if encoder else []
        groups.append({"params": rest, "lr": c.lr})
        if c.optimizer == "sgd":
            optimizer: torch.optim.Optimizer = torch.optim.SGD(
                groups, lr=c.lr, momentum=c.momentum, weight_decay=c.weight_decay
            )
        else:
            optimizer = torch.optim.AdamW(groups, lr=c.lr, weight_decay=c.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor(c, self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _ema(decay: float) -> Any:
    """Exponential moving average whose window grows with the run, so that early averages are not the first weights."""

    @torch.no_grad()
    def update(averages: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        now = min(decay, (1 + int(count)) / (10 + int(count)))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, current, 1 - now)
        else:  # batch normalisation's counters
            torch._foreach_copy_(averages, current)

    return update


class Report(Callback):
    """The log line of each validation, and the pictures: step / total, rate, loss, scores, time spent, time left."""

    def __init__(self, say: Any) -> None:
        self.say, self.started, self.first_step = say, time.perf_counter(), 0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.started, self.first_step = time.perf_counter(), trainer.global_step

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert isinstance(module, Segmenter)
        rows = module.history.rows
        if not rows or rows[-1]["step"] != trainer.global_step:
            return
        spent = time.perf_counter() - self.started
        done = trainer.global_step - self.first_step
        if not done:  # the last line of the run before, met again on resuming
            return
        left = spent / done * (module.steps - trainer.global_step)
        row = rows[-1]
        self.say(
            f"step {trainer.global_step}/{module.steps}  epoch {row['epoch']}  lr {row['lr']:.2e}  "
            f"loss {row['loss']:.4f}  val mIoU {row['miou']:.4f}  pixel accuracy {row['pixel_accuracy']:.4f}  "
            f"best {module.best_miou:.4f}  spent {_clock(spent)}  left {_clock(left)}"
        )
        module.history.write_csv(module.out / "history.csv")
        draw_curves(module.history, module.out / "curves.png")


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"


def train(recipe: Recipe, out: Path, *, resume: bool = False, say: Any = print, progress: bool = False) -> Path:
    """Run a recipe; returns ``out/best.pt``, the weights with the best mIoU on the validation split.

    Leaves beside it ``last.ckpt`` (to resume from), ``history.csv``, ``curves.png``, ``panel.png``, ``recipe.json``.
    """
    last = out / "last.ckpt"
    if last.exists() and not resume:
        raise InputError(f"{out}: holds a run already", hint="Go on with --resume, or give another folder with --out.")
    if resume and not last.exists():
        raise InputError(f"{out}: no run to go on with", expected="last.ckpt in it", hint="Start it without --resume.")
    require_writable(out / "best.pt")
    L.seed_everything(recipe.fit.seed, verbose=False)
    data, val_data = open_dataset(recipe.data.address, recipe.data.train), _validation(recipe)
    spec = spec_of(recipe, data.labels)
    check_input_size(spec)
    samples, val_samples = choose(data, recipe.data.drives), choose(val_data, recipe.data.val_drives)
    if len(samples) < recipe.fit.batch:
        raise DataError(f"{data.name}: fewer frames than a batch", got=len(samples), expected=recipe.fit.batch)
    counts = class_pixels(data)
    weights = torch.from_numpy(class_weights(counts, recipe.loss.class_weights, recipe.loss.weight_power))
    train_loader, val_loader = loaders(recipe, samples, val_samples, spec.labels.ignore_id, counts)
    steps = len(train_loader) * recipe.fit.epochs
    module = Segmenter(recipe, spec, weights, out, steps)
    write_bytes(out / "recipe.json", recipe.model_dump_json(indent=2).encode())
    trainer = _trainer(recipe, out, say, progress)
    trainer.fit(module, train_loader, val_loader, ckpt_path=str(last) if last.exists() else None, weights_only=False)
    if not (out / "best.pt").exists():
        raise DataError(f"{out}: no validation has run", hint="Lower validate_every in the recipe.")
    return _finish(module, out, val_samples)


def _validation(recipe: Recipe) -> Any:
    return open_dataset(recipe.data.address, recipe.data.val)


def _trainer(recipe: Recipe, out: Path, say: Any, progress: bool) -> L.Trainer:
    fit = recipe.fit
    callbacks: list[Callback] = [
        ModelCheckpoint(dirpath=out, filename="last", save_top_k=1, enable_version_counter=False),
        Report(say),
    ]
    if fit.patience:
        callbacks.append(EarlyStopping("val_miou", mode="max", patience=fit.patience))
    if progress:
        from lightning.pytorch.callbacks import RichProgressBar

        callbacks.append(RichProgressBar(leave=False))
    return L.Trainer(
        max_epochs=fit.epochs,
        precision="bf16-mixed" if fit.precision == "bf16" else "32-true",
        logger=False,
        callbacks=callbacks,
        check_val_every_n_epoch=fit.validate_every,
        num_sanity_val_steps=0,
        enable_progress_bar=progress,
        enable_model_summary=False,
        gradient_clip_val=recipe.optim.clip_norm or None,
        accelerator="auto",
        devices="auto",
        default_root_dir=out,
    )


def _finish(module: Segmenter, out: Path, samples: list[Sample]) -> Path:
    net, spec, notes = load_checkpoint(out / "best.pt")
    draw_panel(_predict(net, spec), samples, spec, out / "panel.png")
    module.history.write_csv(out / "history.csv")
    draw_curves(module.history, out / "curves.png")
    write_json(out / "best.json", {k: v for k, v in notes.items() if k != "recipe"})
    return out / "best.pt"


def _predict(net: nn.Module, spec: ModelSpec) -> Any:
    from edgeseg.preprocess import to_input

    def predict(image: Any) -> Any:
        with torch.inference_mode():
            logits = net(torch.from_numpy(to_input(image, spec)))
        return resize_labels(logits.argmax(1)[0].to(torch.uint8).numpy(), image.shape[:2])

    return predict
