"""Quantization-aware fine-tuning: a checkpoint to a Q/DQ ONNX file whose weights and scales have learned to round.

The float net is exported, folded and calibrated as for post-training quantization, read back as a PyTorch module with
fake quantization at the same places, trained for a few epochs by the recipe that trained the checkpoint, and written by
the same code. Batch normalisation is folded, so its running statistics are what stays; dropout is gone.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import onnx
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, fx, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from edgeseg.data import Sample, open_dataset
from edgeseg.errors import DataError, GraphError, InputError
from edgeseg.export.onnx_from_torch import export_module
from edgeseg.files import require_writable, write_bytes
from edgeseg.graph.network import load_network
from edgeseg.imaging.preprocess import to_input
from edgeseg.metrics.confusion import Scores, scores
from edgeseg.metrics.evaluate import check_labels
from edgeseg.models.checkpoint import load_checkpoint
from edgeseg.quantize.calibration_set import resolve_set
from edgeseg.quantize.placement import Placement
from edgeseg.quantize.ptq import Prepared, prepare
from edgeseg.quantize.qdq import INT8_KEY, describe
from edgeseg.spec import ModelSpec, first_problem
from edgeseg.training.data import Batch, Samples, choose, loaders
from edgeseg.training.loss import class_pixels, class_weights
from edgeseg.training.objective import confusion
from edgeseg.training.qat.fake_quant import ActivationQuantizer, Quantizer
from edgeseg.training.qat.torch_from_onnx import module_from_onnx
from edgeseg.training.recipe import Recipe, with_changes
from edgeseg.training.report import Report
from edgeseg.training.schedule import lr_factor
from edgeseg.training.segmenter import Segmenter, ema, enlarged

CALIBRATION_FRAMES = 50
SCALE_LR_FACTOR = 10.0  # logarithms of scales move further than weights do
TEMPERATURE = 2.0  # of distillation (Hinton, Vinyals, Dean 2015, section 2)
STEPS_WORTH_COMPILING = 100  # compiling ENet takes minutes, and then halves a step
CHECKED_FRAMES = 4
# A sum that ends beside a rounding boundary falls to the other side in another summing order, and what follows differs.
SAME_LABELS = 0.99


@dataclass(frozen=True)
class Tuning:
    """How to fine-tune. ``data`` and ``batch``: the recipe's unless given. ``distill``: the weight of the float net."""

    epochs: int = 5
    lr: float = 2e-5
    batch: int | None = None
    distill: float = 0.0
    data: str | None = None


@dataclass(frozen=True)
class Tuned:
    """What came of it: mIoU on the validation split of the float net, rounded before and after; ``epoch`` is the best.

    ``layers`` is how many run in INT8, and how many there are. Epoch 0 is the net as it was calibrated. ``same_labels``
    is the share of pixels that the file in ONNX Runtime and the net in PyTorch label alike.
    """

    path: Path
    layers: tuple[int, int]
    float_miou: float
    calibrated_miou: float
    miou: float
    epoch: int
    same_labels: float


def tune(
    checkpoint: str | Path,
    out: str | Path | None = None,
    tuning: Tuning | None = None,
    *,
    say: Any = print,
    progress: bool = False,
) -> Tuned:
    """Fine-tune ``checkpoint`` for INT8 and write it to ``out`` (default: beside it, ``NAME.qat.onnx``).

    Of the epochs the one best on the validation split is written, or the net as calibrated where none is better. Raises
    ``InputError`` and ``DataError`` before training starts, ``GraphError`` where ONNX Runtime disagrees with PyTorch.
    """
    checkpoint, tuning = Path(checkpoint), tuning or Tuning()
    net, spec, notes = load_checkpoint(checkpoint)
    recipe = _recipe(checkpoint, notes, tuning)
    path = _output(checkpoint, out)
    L.seed_everything(recipe.fit.seed, verbose=False)
    train_loader, val_loader, weights, val = _data(recipe, spec)
    with tempfile.TemporaryDirectory() as folder:
        prepared = _calibrated(net, spec, recipe, Path(folder))
        quantizer = Quantizer(prepared.network.model, prepared.placement())
        rounded = quantizer.module(prepared.ranges.amax)
        teacher, _ = module_from_onnx(prepared.network.model)
        steps = len(train_loader) * recipe.fit.epochs
        tuner = Tuner(rounded, teacher, recipe, spec, weights, Path(folder), steps, tuning.distill, val_loader, say)
        _trainer(recipe, Path(folder), say, progress).fit(tuner, train_loader, val_loader)
    rounded.load_state_dict(tuner.best_state)
    model = quantizer.to_onnx(rounded)
    _describe(model, tuner, quantizer.placement)
    onnx.checker.check_model(model, full_check=True)
    quantizer.take_biases(rounded, model)
    same = labels_alike(rounded.cpu(), model, val, spec)
    write_bytes(path, model.SerializeToString())
    miou, before = tuner.best.mean_iou, tuner.calibrated.mean_iou
    return Tuned(path, describe(model), tuner.exact.mean_iou, before, miou, tuner.best_epoch, same)


def _recipe(checkpoint: Path, notes: dict[str, Any], tuning: Tuning) -> Recipe:
    """The recipe that trained the checkpoint, with what fine-tuning changes."""
    if "recipe" not in notes:
        raise InputError(f"{checkpoint}: its notes hold no recipe", hint="Train it with: `train(RECIPE)`.")
    if not tuning.distill >= 0:
        raise InputError("the weight of distillation", got=tuning.distill, expected="0 or more")
    try:
        recipe = Recipe.model_validate_json(notes["recipe"])
    except ValidationError as error:
        raise InputError(f"{checkpoint}: its recipe cannot be read", got=first_problem(error)) from error
    changes = {
        "data.address": tuning.data or recipe.data.address,
        "fit.epochs": tuning.epochs,
        "fit.batch": recipe.fit.batch if tuning.batch is None else tuning.batch,
        "fit.validate_every": 1,
        "fit.accumulate": 1,
        "fit.select": "miou",
        "stage": (),
        "optim.lr": tuning.lr,
        "optim.schedule": "onecycle",  # without its warm-up: the falling half of a cosine
        "optim.warmup": 0.0,
    }
    return with_changes(recipe, changes)


def _output(checkpoint: Path, out: str | Path | None) -> Path:
    name = checkpoint.resolve().parent.name if checkpoint.stem == "best" else checkpoint.stem
    path = Path(out) if out else checkpoint.with_name(f"{name}.qat.onnx")
    if path.suffix != ".onnx":
        raise InputError(f"{path}: not the name of an ONNX file", expected="a name that ends in .onnx")
    require_writable(path)
    return path


def _data(recipe: Recipe, spec: ModelSpec) -> tuple[DataLoader[Batch], DataLoader[Batch], Tensor, Samples]:
    """The loaders, the weights of the classes (classes,), and the validation frames."""
    data, val_data = (open_dataset(recipe.data.address, split) for split in (recipe.data.train, recipe.data.val))
    check_labels(spec.labels, data.labels, data.name)
    samples, val = choose(data, recipe.data.drives), choose(val_data, recipe.data.val_drives)
    if len(samples) < recipe.fit.batch:
        raise DataError(f"{data.name}: fewer frames than a batch", got=len(samples), expected=recipe.fit.batch)
    counts = class_pixels(samples, spec.labels)
    weights = torch.from_numpy(class_weights(counts, recipe.loss.class_weights, recipe.loss.weight_power))
    return *loaders(recipe, samples, val, spec.labels.ignore_id, counts), weights, val


def _calibrated(net: nn.Module, spec: ModelSpec, recipe: Recipe, folder: Path) -> Prepared:
    """The net as post-training quantization would take it: exported, folded, with ranges of training frames."""
    network = load_network(export_module(net, spec, folder / f"{recipe.name}.onnx"))
    frames = resolve_set(recipe.data.address, split=recipe.data.train, count=CALIBRATION_FRAMES)
    return prepare(network, frames)


def _describe(model: onnx.ModelProto, tuner: "Tuner", placement: Placement) -> None:
    """Write into the file what it is and how it was made."""
    told = {
        "method": "qat",
        "epoch": tuner.best_epoch,
        "val_miou_float": tuner.exact.mean_iou,
        "val_miou_calibrated": tuner.calibrated.mean_iou,
        "float_layers": placement.floats,
    }
    facts = {
        "edgeseg.val_miou": str(tuner.best.mean_iou),
        "edgeseg.val_pixel_accuracy": str(tuner.best.pixel_accuracy),
        INT8_KEY: json.dumps(told),
    }
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=value)


def labels_alike(net: nn.Module, model: onnx.ModelProto, samples: Sequence[Sample], spec: ModelSpec) -> float:
    """The share of pixels ONNX Runtime and PyTorch label alike on a few frames; ``GraphError`` where it is too low."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # sums in float, as trained
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    same = []
    for place in np.linspace(0, len(samples) - 1, min(CHECKED_FRAMES, len(samples))).astype(int):
        x = to_input(samples[place].image, spec)
        with torch.inference_mode():
            want = net(torch.from_numpy(x)).argmax(1).numpy()
        (got,) = session.run(None, {session.get_inputs()[0].name: x})
        same.append(float((got.argmax(1) == want).mean()))
    share = float(np.mean(same))
    if share < SAME_LABELS:
        raise GraphError(
            "the Q/DQ file and the trained net disagree",
            got=f"{100 * share:.2f} % of labels the same",
            expected=f"at least {100 * SAME_LABELS:.0f} %",
        )
    return share


def _trainer(recipe: Recipe, folder: Path, say: Any, progress: bool) -> L.Trainer:
    callbacks: list[L.Callback] = [Report(say)]
    if progress:
        from lightning.pytorch.callbacks import RichProgressBar

        callbacks.append(RichProgressBar(leave=False))
    return L.Trainer(
        max_epochs=recipe.fit.epochs,
        precision="bf16-mixed" if recipe.fit.precision == "bf16" else "32-true",
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        enable_progress_bar=progress,
        enable_model_summary=False,
        gradient_clip_val=recipe.optim.clip_norm or None,
        accelerator="auto",
        devices=1,
        default_root_dir=folder,
    )


class Tuner(Segmenter):
    """The rounding net, its running average, the float net it may learn from, and the best weights so far.

    The checkpoint's last bias holds the prior's shift already (``edgeseg.training.fit``): the loss is taken without it.
    """

    def __init__(
        self,
        net: fx.GraphModule,
        teacher: fx.GraphModule,
        recipe: Recipe,
        spec: ModelSpec,
        weights: Tensor,
        out: Path,
        steps: int,
        distill: float,
        val_loader: DataLoader[Batch],
        say: Any,
    ) -> None:
        plain: dict[str, object] = {"fit.ema": 0.0, "fit.compile": False, "model.encoder": None, "model.init": None}
        super().__init__(with_changes(recipe, plain), spec, weights, out, steps)
        self.recipe, self.distill, self.say = recipe, distill, say
        self.prior, self.shift = self.shift, torch.zeros_like(self.shift)
        self.net, self.teacher = net, teacher.requires_grad_(False)
        decay = recipe.fit.ema
        self.average = AveragedModel(net, multi_avg_fn=ema(decay)) if decay else None
        self._val_loader = val_loader
        self.best_epoch, self.best_state = 0, _state(net)
        if recipe.fit.compile and steps >= STEPS_WORTH_COMPILING:
            self.loss = torch.compile(self.loss)
            self.net.compile()

    def on_fit_start(self) -> None:
        """Score the float net, and the rounding one as calibrated: what training has to beat."""
        self.exact, self.calibrated = self._score(self.teacher), self._score(self._candidate())
        self.best, self.best_miou = self.calibrated, self.calibrated.mean_iou
        self.best_score = self.best_miou
        self.say(f"val mIoU {self.exact.mean_iou:.4f} in float, {self.best_miou:.4f} in INT8 as calibrated")

    def _candidate(self) -> nn.Module:
        """What is scored and kept: the running average, where there is one."""
        return self.net if self.average is None else self.average.module

    def _score(self, net: nn.Module) -> Scores:
        with self._instead(net), torch.inference_mode():
            for images, masks in self._val_loader:
                self.validation_step((images.to(self.device), masks), 0)
        result = scores(self.spec.labels.names, self.matrix)
        self.matrix, self.val_losses = np.zeros_like(self.matrix), []
        return result

    @contextmanager
    def _instead(self, net: nn.Module) -> Iterator[None]:
        kept = self.net, self.average
        self.net, self.average = net, None
        try:
            yield
        finally:
            self.net, self.average = kept

    def training_step(self, batch: Batch, _: int) -> Tensor:
        images, masks = batch
        x = self.to_input(images)
        logits = self.net(x)
        learned = enlarged(logits - self.prior.to(logits.device).view(1, -1, 1, 1), masks.shape[1:])
        loss = self.loss(learned, masks, self.weights)
        if self.distill:
            with torch.no_grad():
                wanted = self.teacher(x)
            loss = loss + self.distill * soft_cross_entropy(logits, wanted)
        self.losses.append(loss.detach())
        self.train_matrix = self.train_matrix.to(logits.device) + confusion(learned, masks, self.spec.labels.ignore_id)
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        with torch.autocast(self.device.type, enabled=False):  # an INT8 engine's sums are exact
            super().validation_step(batch, index)

    def _save(self, result: Scores) -> None:
        self.best, self.best_epoch, self.best_state = result, self.current_epoch + 1, _state(self._candidate())

    def configure_optimizers(self) -> Any:
        c = self.recipe.optim
        parts = [m for m in self.net.modules() if isinstance(m, ActivationQuantizer)]
        scales = [p for part in parts for p in part.parameters()]
        others = [p for p in self.net.parameters() if not any(p is s for s in scales)]
        groups: list[dict[str, Any]] = [
            {"params": scales, "lr": SCALE_LR_FACTOR * c.lr, "weight_decay": 0.0},
            {"params": others},
        ]
        optimizer = torch.optim.AdamW(groups, lr=c.lr, weight_decay=c.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lr_factor(c, self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _state(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in net.state_dict().items()}


def soft_cross_entropy(logits: Tensor, wanted: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Kullback-Leibler divergence of softened scores from ``wanted``'s, both (N, classes, H, W), the mean over pixels.

    Times the temperature squared, so that its gradient does not shrink with it (Hinton et al. 2015, section 2.1).
    """
    ours, theirs = (F.log_softmax(x.float() / temperature, dim=1) for x in (logits, wanted))
    return F.kl_div(ours, theirs, reduction="none", log_target=True).sum(1).mean() * temperature**2
