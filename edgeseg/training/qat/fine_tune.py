"""Fine-tune a checkpoint for INT8: write a Q/DQ ONNX file whose weights and scales are trained.

The float model is exported, folded and calibrated as for post-training quantization, read back as a
PyTorch module with fake quantization at the same places, trained for a few epochs by the recipe
that trained the checkpoint, and written by the same code. Batch normalisation is folded, so its
running statistics stay as they are; dropout is gone.
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
from edgeseg.data.quick_check import check_sample
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
from edgeseg.quantize.ptq import QuantizationPlan, plan_quantization
from edgeseg.quantize.qdq import INT8_KEY, describe
from edgeseg.reporter import LINES, Reporter
from edgeseg.spec import ModelSpec, first_problem
from edgeseg.training.data import Batch, Samples, choose, loaders
from edgeseg.training.loss import class_pixels, class_weights
from edgeseg.training.optimizer import with_schedule
from edgeseg.training.qat.fake_quant import ActivationQuantizer, Quantizer
from edgeseg.training.qat.torch_from_onnx import module_from_onnx
from edgeseg.training.recipe import Recipe, with_changes
from edgeseg.training.report import Report
from edgeseg.training.segmenter import Segmenter, ema, enlarged

CALIBRATION_FRAMES = 50
SCALE_LR_FACTOR = 10.0  # logarithms of scales move further than weights do
TEMPERATURE = 2.0  # of distillation (Hinton, Vinyals, Dean 2015, section 2)
STEPS_WORTH_COMPILING = 100  # compiling ENet takes minutes, and then halves a step
CHECKED_FRAMES = 4

# Least share of equal labels. A sum that ends beside a rounding boundary falls to the other side in
# another summing order, and what follows differs.
SAME_LABELS = 0.99


@dataclass(frozen=True)
class Tuning:
    """Hold the settings of a fine-tuning.

    Attributes
    ----------
    epochs : number of epochs.
    lr : base learning rate.
    batch : frames per batch; None for the recipe's.
    distill : weight of the loss against the float model's logits; 0 for none.
    data : the data set, as ``READER:PATH``; None for the recipe's.
    """

    epochs: int = 5
    lr: float = 2e-5
    batch: int | None = None
    distill: float = 0.0
    data: str | None = None


@dataclass(frozen=True)
class Tuned:
    """Hold the result of a fine-tuning. Scores are of the validation split.

    Attributes
    ----------
    path : the Q/DQ ONNX file.
    layers : (layers in INT8, layers).
    float_miou : mean IoU of the float model.
    calibrated_miou : mean IoU of the model as calibrated, before fine-tuning.
    miou : mean IoU of the file.
    epoch : the epoch whose weights the file has; 0 is the model as calibrated.
    same_labels : share of pixels that the file in ONNX Runtime and the model in PyTorch label
        equally.
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
    reporter: Reporter = LINES,
) -> Tuned:
    """Fine-tune a checkpoint for INT8, and write it as a Q/DQ ONNX file.

    The file gets the weights of the epoch that is best on the validation split, or those of the
    model as calibrated if no epoch is better.

    Parameters
    ----------
    checkpoint : a checkpoint whose notes hold the recipe that trained it.
    out : the file to write; by default ``NAME.qat.onnx`` beside the checkpoint.
    tuning : the settings; by default those of ``Tuning()``.
    reporter : receives a line per epoch, and the progress of each epoch.

    Raises
    ------
    InputError : before training, if the checkpoint, its recipe, the settings or ``out`` cannot be
        used.
    DataError : before training, if the data cannot be used.
    OutputError : the file cannot be written.
    GraphError : an operator cannot be trained, or ONNX Runtime disagrees with PyTorch.
    """
    # Check what can fail before training starts.
    checkpoint = Path(checkpoint)
    tuning = tuning or Tuning()
    net, spec, notes = load_checkpoint(checkpoint)
    recipe = _recipe(checkpoint, notes, tuning)
    path = _output(checkpoint, out)
    L.seed_everything(recipe.fit.seed, verbose=False)
    data = _data(recipe, spec)

    # Calibrate the float model, and train it with fake quantization.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = _calibrated(net, spec, recipe, folder)
        quantizer = Quantizer(plan.network.model, plan.placement())
        rounded = quantizer.module(plan.ranges.amax)
        teacher, _ = module_from_onnx(plan.network.model)
        tuner = Tuner(rounded, teacher, recipe, spec, data, folder, tuning.distill, reporter)
        trainer = _trainer(recipe, folder, reporter)
        trainer.fit(tuner, data.train_loader, data.val_loader)

    # Write the best weights, and check the file against PyTorch.
    rounded.load_state_dict(tuner.best_state)
    model = quantizer.to_onnx(rounded)
    _add_facts(model, tuner, quantizer.placement)
    onnx.checker.check_model(model, full_check=True)
    quantizer.take_biases(rounded, model)
    same_labels = labels_alike(rounded.cpu(), model, data.val, spec)
    write_bytes(path, model.SerializeToString())
    return Tuned(
        path=path,
        layers=describe(model),
        float_miou=tuner.exact.mean_iou,
        calibrated_miou=tuner.calibrated.mean_iou,
        miou=tuner.best.mean_iou,
        epoch=tuner.best_epoch,
        same_labels=same_labels,
    )


def _recipe(checkpoint: Path, notes: dict[str, Any], tuning: Tuning) -> Recipe:
    """Return the recipe that trained the checkpoint, with what fine-tuning changes."""
    if "recipe" not in notes:
        raise InputError(
            f"{checkpoint}: its notes hold no recipe", hint="Train it with: `train(RECIPE)`."
        )
    if not tuning.distill >= 0:
        raise InputError("the weight of distillation", got=tuning.distill, expected="0 or more")
    try:
        recipe = Recipe.model_validate_json(notes["recipe"])
    except ValidationError as error:
        problem = first_problem(error)
        raise InputError(f"{checkpoint}: its recipe cannot be read", got=problem) from error

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
    """Return the file to write, once it is known to be writable."""
    if out:
        path = Path(out)
    else:
        # A checkpoint best.pt is named after its folder, the run.
        is_best = checkpoint.stem == "best"
        name = checkpoint.resolve().parent.name if is_best else checkpoint.stem
        path = checkpoint.with_name(f"{name}.qat.onnx")

    if path.suffix != ".onnx":
        raise InputError(
            f"{path}: not the name of an ONNX file", expected="a name that ends in .onnx"
        )
    require_writable(path)
    return path


@dataclass(frozen=True)
class TuningData:
    """Hold the data of a fine-tuning.

    Attributes
    ----------
    train_loader, val_loader : the loaders of training and of validation.
    val : the samples of the validation split.
    weights : (classes,) float32 class weights of the loss.
    """

    train_loader: DataLoader[Batch]
    val_loader: DataLoader[Batch]
    val: Samples
    weights: Tensor


def _data(recipe: Recipe, spec: ModelSpec) -> TuningData:
    """Open the recipe's data, and check that the model can be trained on it."""
    data = open_dataset(recipe.data.address, recipe.data.train)
    val_data = open_dataset(recipe.data.address, recipe.data.val)
    check_labels(spec.labels, data.labels, data.name)
    check_sample([data, val_data])

    samples = choose(data, recipe.data.drives)
    val = choose(val_data, recipe.data.val_drives)
    if len(samples) < recipe.fit.batch:
        raise DataError(
            f"{data.name}: fewer frames than a batch",
            got=len(samples),
            expected=f"at least {recipe.fit.batch}",
        )

    counts = class_pixels(samples, spec.labels)
    weights = class_weights(counts, recipe.loss.class_weights, recipe.loss.weight_power)
    train_loader, val_loader = loaders(recipe, samples, val, spec.labels.ignore_id, counts)
    return TuningData(train_loader, val_loader, val, torch.from_numpy(weights))


def _calibrated(net: nn.Module, spec: ModelSpec, recipe: Recipe, folder: Path) -> QuantizationPlan:
    """Return the model as post-training quantization takes it.

    It is exported and folded, with ranges of training frames.
    """
    network = load_network(export_module(net, spec, folder / f"{recipe.name}.onnx"))
    address = recipe.data.address
    frames = resolve_set(address, split=recipe.data.train, count=CALIBRATION_FRAMES)
    return plan_quantization(network, frames)


def _add_facts(model: onnx.ModelProto, tuner: "Tuner", placement: Placement) -> None:
    """Write into the file what it is and how it was made."""
    quantization = {
        "method": "qat",
        "epoch": tuner.best_epoch,
        "val_miou_float": tuner.exact.mean_iou,
        "val_miou_calibrated": tuner.calibrated.mean_iou,
        "float_layers": placement.floats,
    }
    facts = {
        "edgeseg.val_miou": str(tuner.best.mean_iou),
        "edgeseg.val_pixel_accuracy": str(tuner.best.pixel_accuracy),
        INT8_KEY: json.dumps(quantization),
    }
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=value)


def labels_alike(
    net: nn.Module, model: onnx.ModelProto, samples: Sequence[Sample], spec: ModelSpec
) -> float:
    """Return the share of pixels that ONNX Runtime and PyTorch label equally on a few frames.

    Parameters
    ----------
    net : the fine-tuned module, on the CPU.
    model : its Q/DQ ONNX file.
    samples : the frames; ``CHECKED_FRAMES`` of them are used, evenly spaced.
    spec : the contract of the model.

    Raises
    ------
    GraphError : the share is below ``SAME_LABELS``.
    """
    import onnxruntime

    # Without optimizations, ONNX Runtime sums in float, as in training.
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    input_name = session.get_inputs()[0].name

    shares: list[float] = []
    count = min(CHECKED_FRAMES, len(samples))
    for index in np.linspace(0, len(samples) - 1, count).astype(int):
        x = to_input(samples[index].image, spec)
        with torch.inference_mode():
            expected = net(torch.from_numpy(x)).argmax(1).numpy()
        (logits,) = session.run(None, {input_name: x})
        shares.append(float((logits.argmax(1) == expected).mean()))

    share = float(np.mean(shares))
    if share < SAME_LABELS:
        raise GraphError(
            "the Q/DQ file and the trained model disagree",
            got=f"{100 * share:.2f} % of labels the same",
            expected=f"at least {100 * SAME_LABELS:.0f} %",
        )
    return share


def _trainer(recipe: Recipe, folder: Path, reporter: Reporter) -> L.Trainer:
    """Return Lightning's trainer with the settings of a recipe, on one device."""
    return L.Trainer(
        max_epochs=recipe.fit.epochs,
        precision="bf16-mixed" if recipe.fit.precision == "bf16" else "32-true",
        logger=False,
        callbacks=[Report(reporter)],
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=recipe.optim.clip_norm or None,
        accelerator="auto",
        devices=1,
        default_root_dir=folder,
    )


class Tuner(Segmenter):
    """Hold the module with fake quantization, the float module it may learn from, and their scores.

    The bias of the checkpoint's classifier holds the prior's shift already
    (``edgeseg.training.fit``): the loss is taken without it.

    Parameters
    ----------
    net : the module with fake quantization.
    teacher : the float module.
    recipe : the recipe, as changed for fine-tuning.
    spec : the contract of the model.
    data : the data of the fine-tuning.
    folder : folder for the files of the run.
    distill : weight of the loss against the float module's logits; 0 for none.
    reporter : receives the scores before training.

    Attributes
    ----------
    exact : scores of the float module.
    calibrated : scores of the module as calibrated.
    best, best_epoch, best_state : scores, epoch and state dict of the best weights so far; epoch 0
        is the module as calibrated.
    """

    exact: Scores
    calibrated: Scores
    best: Scores

    def __init__(
        self,
        net: fx.GraphModule,
        teacher: fx.GraphModule,
        recipe: Recipe,
        spec: ModelSpec,
        data: TuningData,
        folder: Path,
        distill: float,
        reporter: Reporter,
    ) -> None:
        # The model that the base class builds is replaced below.
        plain: dict[str, object] = {
            "fit.ema": 0.0,
            "fit.compile": False,
            "model.encoder": None,
            "model.init": None,
        }
        steps = len(data.train_loader) * recipe.fit.epochs
        super().__init__(with_changes(recipe, plain), spec, data.weights, folder, steps)
        self.recipe = recipe
        self.distill = distill
        self.reporter = reporter
        self._val_loader = data.val_loader

        # The prior's shift is in the weights: take it out of the loss, add it nowhere.
        self.prior = self.shift
        self.shift = torch.zeros_like(self.shift)

        self.net = net
        self.teacher = teacher.requires_grad_(False)
        decay = recipe.fit.ema
        self.average = AveragedModel(net, multi_avg_fn=ema(decay)) if decay else None
        self.best_epoch = 0
        self.best_state = _state(net)

        if recipe.fit.compile and steps >= STEPS_WORTH_COMPILING:
            self.loss = torch.compile(self.loss)
            self.net.compile()

    def on_fit_start(self) -> None:
        """Score the float module, and the one as calibrated: training has to beat the latter."""
        self.exact = self._score(self.teacher)
        self.calibrated = self._score(self._candidate())
        self.best = self.calibrated
        self.best_miou = self.best.mean_iou
        self.best_score = self.best_miou
        exact = f"{self.exact.mean_iou:.4f} in float"
        self.reporter.info(f"val mIoU {exact}, {self.best_miou:.4f} in INT8 as calibrated")

    def _score(self, net: nn.Module) -> Scores:
        """Return the scores of a module on the validation split."""
        with self._instead(net), torch.inference_mode():
            for images, masks in self._val_loader:
                self.validation_step((images.to(self.device), masks), 0)
        result = scores(self.spec.labels.names, self.matrix)
        self.matrix = np.zeros_like(self.matrix)
        self.val_losses = []
        return result

    @contextmanager
    def _instead(self, net: nn.Module) -> Iterator[None]:
        """Use another module while the context lasts."""
        before = self.net
        average = self.average
        self.net = net
        self.average = None
        try:
            yield
        finally:
            self.net = before
            self.average = average

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Return the loss of a batch.

        Parameters
        ----------
        batch : images (N, H, W, 3) uint8 BGR, and masks (N, H, W) uint8.
        """
        images, masks = batch
        x = self.to_input(images)
        logits = self.net(x)

        # The loss of the labels, without the prior's shift.
        prior = self.prior.to(logits.device).view(1, -1, 1, 1)
        learned = enlarged(logits - prior, masks.shape[1:])
        loss = self.loss(learned, masks, self.weights)

        if self.distill:
            with torch.no_grad():
                wanted = self.teacher(x)
            loss = loss + self.distill * soft_cross_entropy(logits, wanted)

        self._count_training(loss, learned, masks)
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        """Add the scores of a frame, computed in float32: an INT8 engine's sums are exact.

        Parameters
        ----------
        batch : images (N, H, W, 3) uint8 BGR, and masks (N, h, w) uint8 at the frame's own size.
        index : number of the batch.
        """
        with torch.autocast(self.device.type, enabled=False):
            super().validation_step(batch, index)

    def _save(self, result: Scores) -> None:
        """Keep the weights in memory as the best so far."""
        self.best = result
        self.best_epoch = self.current_epoch + 1
        self.best_state = _state(self._candidate())

    def configure_optimizers(self) -> Any:
        """Return AdamW and its schedule; scales get a higher rate and no weight decay."""
        config = self.recipe.optim
        scales: list[nn.Parameter] = []
        for module in self.net.modules():
            if isinstance(module, ActivationQuantizer):
                scales += module.parameters()
        scale_ids = {id(scale) for scale in scales}
        others = [p for p in self.net.parameters() if id(p) not in scale_ids]

        groups: list[dict[str, Any]] = [
            {"params": scales, "lr": SCALE_LR_FACTOR * config.lr, "weight_decay": 0.0},
            {"params": others},
        ]
        optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
        return with_schedule(optimizer, config, self.steps)


def _state(net: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a module's state dict on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in net.state_dict().items()}


def soft_cross_entropy(logits: Tensor, wanted: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return the Kullback-Leibler divergence of softened logits, as the mean over pixels.

    It is multiplied by the temperature squared, so that its gradient does not shrink with the
    temperature (Hinton et al. 2015, section 2.1).

    Parameters
    ----------
    logits : (N, classes, H, W), the logits to train.
    wanted : (N, classes, H, W), the logits to learn from.
    temperature : divisor of both.

    Examples
    --------
    >>> wanted = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1)
    >>> abs(soft_cross_entropy(wanted + 3, wanted).item()) < 1e-6
    True
    """
    ours = F.log_softmax(logits.float() / temperature, dim=1)
    theirs = F.log_softmax(wanted.float() / temperature, dim=1)
    divergence = F.kl_div(ours, theirs, reduction="none", log_target=True)
    return divergence.sum(1).mean() * temperature**2
