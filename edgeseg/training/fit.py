"""One recipe to one checkpoint: ``train(recipe, out)`` runs Lightning and leaves ``best.pt``, curves and a panel."""

import io
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn
from torch.utils.data import DataLoader

from edgeseg.data import Sample, open_dataset
from edgeseg.errors import DataError, InputError
from edgeseg.files import atomic_path, require_writable, write_bytes, write_json
from edgeseg.imaging.preprocess import resize_labels
from edgeseg.models import architecture
from edgeseg.models.checkpoint import load_checkpoint
from edgeseg.spec import LabelSpace, ModelSpec, check_input_size
from edgeseg.training import distributed
from edgeseg.training.data import Batch, Samples, choose, loaders, needs_counts
from edgeseg.training.history import History, draw_curves, draw_panel
from edgeseg.training.loss import class_pixels, class_weights
from edgeseg.training.recipe import Recipe, Stage, with_changes
from edgeseg.training.report import Report
from edgeseg.training.segmenter import Segmenter

_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
_MODE = {"miou": "max", "pixel_accuracy": "max", "loss": "min"}


def spec_of(recipe: Recipe, labels: LabelSpace) -> ModelSpec:
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


@dataclass(frozen=True)
class Prepared:
    """A recipe's data and contract, ready to train on. ``weights`` (classes,) float32 are the loss's."""

    spec: ModelSpec
    samples: Samples
    val: Samples
    weights: Tensor
    counts: Any

    def loaders(self, recipe: Recipe, world: int = 1) -> tuple[DataLoader[Batch], DataLoader[Batch]]:
        """The training and the validation loader."""
        return loaders(recipe, self.samples, self.val, self.spec.labels.ignore_id, self.counts, world)


def prepare(recipe: Recipe) -> Prepared:
    """Open a recipe's data and settle its spec. Raises ``InputError`` and ``DataError``."""
    data, val_data = (open_dataset(recipe.data.address, split) for split in (recipe.data.train, recipe.data.val))
    spec = spec_of(recipe, data.labels)
    check_input_size(spec)
    samples, val = choose(data, recipe.data.drives), choose(val_data, recipe.data.val_drives)
    if len(samples) < recipe.fit.batch:
        raise DataError(f"{data.name}: fewer frames than a batch", got=len(samples), expected=recipe.fit.batch)
    counts = class_pixels(samples, data.labels) if needs_counts(recipe) else None
    weights = np.ones(len(data.labels), np.float32)
    if counts is not None:
        weights = class_weights(counts, recipe.loss.class_weights, recipe.loss.weight_power)
    return Prepared(spec, samples, val, torch.from_numpy(weights), counts)


def train(recipe: Recipe, out: Path, *, resume: bool = False, say: Any = print, progress: bool = False) -> Path:
    """Run a recipe; returns ``out/best.pt``, the weights with the best score on the validation split.

    Leaves beside it ``last.ckpt`` (to resume from), ``history.csv``, ``curves.png``, ``panel.png``, ``recipe.json``; of
    a recipe with stages, each stage's in a folder of its name as well. Under ``torchrun`` every process calls this.
    """
    begun = has_begun(recipe, out)
    if begun and not resume and distributed.is_first():
        raise InputError(f"{out}: holds a run already", hint="Go on with `resume`, or give another folder with `out`.")
    if resume and not begun:
        raise InputError(f"{out}: no run to go on with", expected="last.ckpt in it", hint="Start it without `resume`.")
    if not distributed.is_first():
        say = _unsaid
    if recipe.stage:
        return _train_stages(recipe, out, say, progress)
    return _train_once(recipe, out, resume, say, progress)


def has_begun(recipe: Recipe, out: Path) -> bool:
    """Whether ``out`` holds something of a run to go on with."""
    folders = [out / stage.name for stage in recipe.stage] or [out]
    return any((folder / "last.ckpt").exists() for folder in folders)


def _unsaid(_: str) -> None:
    """What all processes but the first say."""


def _train_once(recipe: Recipe, out: Path, resume: bool, say: Any, progress: bool) -> Path:
    require_writable(out / "best.pt")
    if recipe.fit.precision == "fp16" and not torch.cuda.is_available():
        raise InputError("fp16 training needs a GPU", got='precision = "fp16"', hint='Use "bf16" or "fp32".')
    L.seed_everything(recipe.fit.seed, verbose=False)
    prepared = prepare(recipe)
    trainer = _trainer(recipe, out, say, progress)
    train_loader, val_loader = prepared.loaders(recipe, trainer.world_size)
    batches = len(prepared.samples) // recipe.fit.batch
    steps = -(-batches // recipe.fit.accumulate) * recipe.fit.epochs
    module = Segmenter(recipe, prepared.spec, prepared.weights, out, steps)
    if trainer.is_global_zero:
        write_bytes(out / "recipe.json", recipe.model_dump_json(indent=2).encode())
    last = str(out / "last.ckpt") if resume else None
    trainer.fit(module, train_loader, val_loader, ckpt_path=last, weights_only=False)
    if not (out / "best.pt").exists():
        raise DataError(f"{out}: no validation has run", hint="Lower validate_every in the recipe.")
    if trainer.is_global_zero:
        _finish(module.history, out, prepared.val)
    return out / "best.pt"


def _train_stages(recipe: Recipe, out: Path, say: Any, progress: bool) -> Path:
    """Each stage from the best weights of the one before; one that is finished is not run again."""
    before: Path | None = None
    for number, stage in enumerate(recipe.stage):
        folder = out / stage.name
        if (folder / "best.json").exists():
            say(f"stage {stage.name}: done before")
        else:
            say(f"stage {stage.name} ({number + 1} of {len(recipe.stage)})")
            _train_once(_one_stage(recipe, stage, before), folder, (folder / "last.ckpt").exists(), say, progress)
        before = folder / "best.pt"
    assert before is not None
    if distributed.is_first():
        write_bytes(out / "recipe.json", recipe.model_dump_json(indent=2).encode())
        _gather(out, [out / stage.name for stage in recipe.stage])
    return out / "best.pt"


def _one_stage(recipe: Recipe, stage: Stage, before: Path | None) -> Recipe:
    """The recipe of one stage, which starts from the weights ``before`` it."""
    one = recipe.of_stage(stage)
    return one if before is None else with_changes(one, {"model.init": str(before), "model.encoder": None})


def _gather(out: Path, stages: Sequence[Path]) -> None:
    """Put the last stage's results into ``out``, and the history and curves of all."""
    for name in ("best.pt", "best.json", "panel.png"):
        with atomic_path(out / name) as temporary:
            shutil.copyfile(stages[-1] / name, temporary)
    whole = History()
    epoch = step = 0
    for folder in stages:
        rows = History.read_csv(folder / "history.csv").rows
        whole.rows += [{**row, "epoch": row["epoch"] + epoch, "step": row["step"] + step} for row in rows]
        epoch, step = whole.rows[-1]["epoch"], whole.rows[-1]["step"]
    whole.write_csv(out / "history.csv")
    draw_curves(whole, out / "curves.png")


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are written whole or not at all: a full disk, or a kill, leaves the one before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to ``path``; raises ``OutputError``."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_bytes(Path(path), content.getbuffer())


def _trainer(recipe: Recipe, out: Path, say: Any, progress: bool) -> L.Trainer:
    fit = recipe.fit
    callbacks: list[Callback] = [
        ModelCheckpoint(dirpath=out, filename="last", save_top_k=1, enable_version_counter=False),
        Report(say),
    ]
    if fit.patience:
        watched = fit.stop_on or fit.select
        callbacks.append(EarlyStopping(f"val_{watched}", mode=_MODE[watched], patience=fit.patience))
    if progress:
        from lightning.pytorch.callbacks import RichProgressBar

        callbacks.append(RichProgressBar(leave=False))
    return L.Trainer(
        max_epochs=fit.epochs,
        precision=_PRECISION[fit.precision],  # type: ignore[arg-type]
        accumulate_grad_batches=fit.accumulate,
        logger=False,
        callbacks=callbacks,
        check_val_every_n_epoch=fit.validate_every,
        num_sanity_val_steps=0,
        enable_progress_bar=progress,
        enable_model_summary=False,
        gradient_clip_val=recipe.optim.clip_norm or None,
        use_distributed_sampler=False,  # ours share an epoch so that together they are what one process sees
        default_root_dir=out,
        plugins=[WholeFiles()],
        **_processes(recipe),
    )


def _processes(recipe: Recipe) -> dict[str, Any]:
    """Lightning's settings for the processes there are: those ``torchrun`` started, or a GPU each."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "0"))
    devices: int | str = local or "auto"
    nodes = int(os.environ.get("WORLD_SIZE", "1")) // local if local else 1
    several = local * nodes > 1 or (not local and torch.cuda.device_count() > 1)
    strategy = "auto"
    if several:
        # Parameters of a frozen encoder, and of an auxiliary head, get no gradient in some steps.
        strategy = "ddp_find_unused_parameters_true" if recipe.model.freeze_encoder_epochs else "ddp"
    return {"accelerator": "auto", "devices": devices, "num_nodes": nodes, "strategy": strategy,
            "sync_batchnorm": several and torch.cuda.is_available()}  # fmt: skip


def _finish(history: History, out: Path, samples: Sequence[Sample]) -> None:
    net, spec, notes = load_checkpoint(out / "best.pt")
    draw_panel(_predict(net, spec), samples, spec, out / "panel.png")
    history.write_csv(out / "history.csv")
    draw_curves(history, out / "curves.png")
    write_json(out / "best.json", {k: v for k, v in notes.items() if k != "recipe"})


def _predict(net: nn.Module, spec: ModelSpec) -> Any:
    from edgeseg.imaging.preprocess import to_input
    from edgeseg.training.segmenter import enlarged

    def predict(image: Any) -> Any:
        with torch.inference_mode():
            logits = enlarged(net(torch.from_numpy(to_input(image, spec))), spec.input_size)
        return resize_labels(logits.argmax(1)[0].to(torch.uint8).numpy(), image.shape[:2])

    return predict
