"""Train a model by a recipe: ``train(recipe, out)`` runs Lightning and leaves ``best.pt``.

The curves and a panel of predictions lie beside it.
"""

import io
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn
from torch.utils.data import DataLoader

from edgeseg.data import Sample, open_dataset
from edgeseg.data.quick_check import check_sample
from edgeseg.errors import DataError, InputError
from edgeseg.files import atomic_path, require_writable, write_bytes, write_json
from edgeseg.imaging.preprocess import resize_labels, to_input
from edgeseg.models import architecture
from edgeseg.models.checkpoint import load_checkpoint
from edgeseg.models.weight_file import require_whole
from edgeseg.reporter import LINES, SILENT, Reporter
from edgeseg.spec import LabelSpace, ModelSpec, check_input_size
from edgeseg.training import distributed
from edgeseg.training.data import Batch, Samples, choose, loaders, needs_counts
from edgeseg.training.history import History, draw_curves, draw_panel
from edgeseg.training.loss import class_pixels, class_weights
from edgeseg.training.recipe import Recipe, Stage, with_changes
from edgeseg.training.report import Report
from edgeseg.training.segmenter import Segmenter, enlarged
from edgeseg.types import Image

_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
_MODE = {"miou": "max", "pixel_accuracy": "max", "loss": "min"}


def spec_of(recipe: Recipe, labels: LabelSpace) -> ModelSpec:
    """Return the contract of the model that a recipe trains.

    Parameters
    ----------
    recipe : the recipe.
    labels : label space of its data.

    Raises
    ------
    InputError : there is no architecture of the recipe's name.
    """
    model = recipe.model
    return ModelSpec(
        architecture=model.architecture,
        arguments=model.arguments,
        input_size=model.input_size,
        mean=model.mean,
        std=model.std,
        stride=architecture(model.architecture).stride,
        labels=labels,
    )


@dataclass(frozen=True)
class Prepared:
    """Hold a recipe's data and contract, ready to train on.

    Attributes
    ----------
    spec : the contract of the model.
    samples, val : the samples to train on and to validate on.
    weights : (classes,) float32 class weights of the loss.
    counts : what ``edgeseg.training.loss.class_pixels`` returned; None if the recipe needs none.
    """

    spec: ModelSpec
    samples: Samples
    val: Samples
    weights: Tensor
    counts: npt.NDArray[np.int64] | None

    def loaders(
        self, recipe: Recipe, world: int = 1
    ) -> tuple[DataLoader[Batch], DataLoader[Batch]]:
        """Return the loaders of training and of validation (``edgeseg.training.data.loaders``).

        Parameters
        ----------
        recipe : the recipe.
        world : number of processes that share each batch.

        Raises
        ------
        InputError : the processes cannot share a batch equally.
        """
        ignore_id = self.spec.labels.ignore_id
        return loaders(recipe, self.samples, self.val, ignore_id, self.counts, world)


def prepare(recipe: Recipe, reporter: Reporter = SILENT) -> Prepared:
    """Open a recipe's data, and check that the recipe can run on it.

    Some masks are read first, for a second at most.

    Parameters
    ----------
    recipe : the recipe.
    reporter : receives a warning if the masks have only one class.

    Raises
    ------
    InputError : there is no such architecture, or the input size does not fit it.
    DataError : the data cannot be read, lacks the drives, or has fewer frames than a batch.
    """
    data = open_dataset(recipe.data.address, recipe.data.train)
    val_data = open_dataset(recipe.data.address, recipe.data.val)
    spec = spec_of(recipe, data.labels)
    check_input_size(spec)
    check_sample([data, val_data], reporter=reporter)

    samples = choose(data, recipe.data.drives)
    val = choose(val_data, recipe.data.val_drives)
    if len(samples) < recipe.fit.batch:
        raise DataError(
            f"{data.name}: fewer frames than a batch",
            got=len(samples),
            expected=f"at least {recipe.fit.batch}",
        )

    counts = class_pixels(samples, data.labels) if needs_counts(recipe) else None
    weights = np.ones(len(data.labels), np.float32)
    if counts is not None:
        weights = class_weights(counts, recipe.loss.class_weights, recipe.loss.weight_power)
    return Prepared(spec, samples, val, torch.from_numpy(weights), counts)


def train(recipe: Recipe, out: Path, *, resume: bool = False, reporter: Reporter = LINES) -> Path:
    """Train a model by a recipe.

    ``out`` gets ``best.pt``, ``last.ckpt`` (to resume from), ``history.csv``, ``curves.png``,
    ``panel.png``, ``best.json`` and ``recipe.json``. If the recipe has stages, each stage's files
    are in a folder of its name as well. Under ``torchrun`` every process calls this.

    Parameters
    ----------
    recipe : the recipe.
    out : folder of the run.
    resume : go on with the run that ``out`` holds.
    reporter : receives a line per validation, and the progress of each epoch.

    Returns
    -------
    ``out/best.pt``: the weights with the best score on the validation split.

    Raises
    ------
    InputError : ``out`` holds a run although ``resume`` is False, or none although it is True; or
        the recipe cannot run here.
    DataError : the data cannot be used, or no validation has run.
    OutputError : a file cannot be written.
    """
    begun = has_begun(recipe, out)
    if begun and not resume and distributed.is_first():
        raise InputError(
            f"{out}: holds a run already",
            hint="Go on with `resume`, or give another folder with `out`.",
        )
    if resume and not begun:
        raise InputError(
            f"{out}: no run to go on with",
            expected="last.ckpt in it",
            hint="Start it without `resume`.",
        )

    # Only the first process reports.
    if not distributed.is_first():
        reporter = SILENT
    if recipe.stage:
        return _train_stages(recipe, out, reporter)
    return _train_once(recipe, out, resume, reporter)


def has_begun(recipe: Recipe, out: Path) -> bool:
    """Return True if a folder holds a part of a run to go on with.

    Parameters
    ----------
    recipe : the recipe of the run; it names the stages.
    out : folder of the run.
    """
    folders = [out / stage.name for stage in recipe.stage] or [out]
    return any((folder / "last.ckpt").exists() for folder in folders)


def _train_once(recipe: Recipe, out: Path, resume: bool, reporter: Reporter) -> Path:
    """Train a recipe without stages, or one stage; return ``out/best.pt``."""
    # Check what can fail before the data is read.
    require_writable(out / "best.pt")
    if recipe.fit.precision == "fp16" and not torch.cuda.is_available():
        raise InputError(
            "fp16 training needs a GPU",
            got='precision = "fp16"',
            hint='Use "bf16" or "fp32".',
        )

    L.seed_everything(recipe.fit.seed, verbose=False)
    prepared = prepare(recipe, reporter)
    trainer = _trainer(recipe, out, reporter)
    train_loader, val_loader = prepared.loaders(recipe, trainer.world_size)

    batches = len(prepared.samples) // recipe.fit.batch
    steps = -(-batches // recipe.fit.accumulate) * recipe.fit.epochs  # rounded up
    module = Segmenter(recipe, prepared.spec, prepared.weights, out, steps)
    if trainer.is_global_zero:
        write_bytes(out / "recipe.json", recipe.model_dump_json(indent=2).encode())

    last = str(out / "last.ckpt") if resume else None
    trainer.fit(module, train_loader, val_loader, ckpt_path=last, weights_only=True)

    if not (out / "best.pt").exists():
        raise DataError(
            f"{out}: no validation has run", hint="Lower `fit.validate_every` in the recipe."
        )
    if trainer.is_global_zero:
        _write_results(module.history, out, prepared.val)
    return out / "best.pt"


def _train_stages(recipe: Recipe, out: Path, reporter: Reporter) -> Path:
    """Train each stage from the best weights of the stage before; return ``out/best.pt``.

    A stage that is finished is not trained again.
    """
    before: Path | None = None
    for number, stage in enumerate(recipe.stage, 1):
        folder = out / stage.name
        if (folder / "best.json").exists():
            reporter.info(f"stage {stage.name}: done before")
        else:
            reporter.info(f"stage {stage.name} ({number} of {len(recipe.stage)})")
            resume = (folder / "last.ckpt").exists()
            _train_once(_one_stage(recipe, stage, before), folder, resume, reporter)
        before = folder / "best.pt"

    if distributed.is_first():
        write_bytes(out / "recipe.json", recipe.model_dump_json(indent=2).encode())
        _gather(out, [out / stage.name for stage in recipe.stage])
    return out / "best.pt"


def _one_stage(recipe: Recipe, stage: Stage, before: Path | None) -> Recipe:
    """Return the recipe of one stage, which starts from the weights of the stage before."""
    one = recipe.of_stage(stage)
    if before is None:
        return one
    return with_changes(one, {"model.init": str(before), "model.encoder": None})


def _gather(out: Path, stages: Sequence[Path]) -> None:
    """Put the last stage's results into ``out``, and the history and curves of all stages."""
    for name in ("best.pt", "best.json", "panel.png"):
        with atomic_path(out / name) as temporary:
            shutil.copyfile(stages[-1] / name, temporary)

    # Each stage counts epochs and steps from the end of the stage before.
    whole = History()
    epoch = 0
    step = 0
    for folder in stages:
        for row in History.read_csv(folder / "history.csv").rows:
            whole.rows.append({**row, "epoch": row["epoch"] + epoch, "step": row["step"] + step})
        epoch = whole.rows[-1]["epoch"]
        step = whole.rows[-1]["step"]
    whole.write_csv(out / "history.csv")
    draw_curves(whole, out / "curves.png")


class WholeFiles(TorchCheckpointIO):
    """Write Lightning's checkpoints atomically: a full disk, or a kill, leaves the one before."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Parameters
        ----------
        checkpoint : the state of the run.
        path : the file.
        storage_options : not used.

        Raises
        ------
        OutputError : the file cannot be written.
        """
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_bytes(Path(path), content.getbuffer())

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint as data: no code from it runs, whatever the caller asks for.

        Parameters
        ----------
        path : the file.
        map_location : device of the tensors.
        weights_only : not used.

        Raises
        ------
        InputError : the file is damaged, or holds more than data.
        """
        require_whole(Path(path))
        try:
            state: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
        except Exception as error:  # raised as several types, all of them about the file
            raise InputError(
                f"{path}: is no checkpoint to go on with",
                got=(str(error).splitlines() or [type(error).__name__])[0][:200],
                expected="plain values and tensors, as edgeseg train writes them",
                hint="Start again without `resume`.",
            ) from error
        return state


def _trainer(recipe: Recipe, out: Path, reporter: Reporter) -> L.Trainer:
    """Return Lightning's trainer with the settings of a recipe."""
    fit = recipe.fit
    callbacks: list[Callback] = [
        ModelCheckpoint(dirpath=out, filename="last", save_top_k=1, enable_version_counter=False),
        Report(reporter),
    ]
    if fit.patience:
        watched = fit.stop_on or fit.select
        stopping = EarlyStopping(f"val_{watched}", mode=_MODE[watched], patience=fit.patience)
        callbacks.append(stopping)

    return L.Trainer(
        max_epochs=fit.epochs,
        precision=_PRECISION[fit.precision],  # type: ignore[arg-type]
        accumulate_grad_batches=fit.accumulate,
        logger=False,
        callbacks=callbacks,
        check_val_every_n_epoch=fit.validate_every,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=recipe.optim.clip_norm or None,
        use_distributed_sampler=False,  # the samplers share an epoch so that together they are one
        default_root_dir=out,
        plugins=[WholeFiles()],
        **_processes(recipe),
    )


def _processes(recipe: Recipe) -> dict[str, Any]:
    """Return Lightning's settings for the processes: those ``torchrun`` started, or one per GPU."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "0"))
    devices: int | str = local or "auto"
    nodes = int(os.environ.get("WORLD_SIZE", "1")) // local if local else 1

    launched = local * nodes > 1
    several = launched or (not local and torch.cuda.device_count() > 1)
    strategy = "auto"
    if several and recipe.model.freeze_encoder_epochs:
        # Parameters of a frozen encoder get no gradient in some steps.
        strategy = "ddp_find_unused_parameters_true"
    elif several:
        strategy = "ddp"

    return {
        "accelerator": "auto",
        "devices": devices,
        "num_nodes": nodes,
        "strategy": strategy,
        "sync_batchnorm": several and torch.cuda.is_available(),
    }


def _write_results(history: History, out: Path, samples: Sequence[Sample]) -> None:
    """Write the panel of ``best.pt``, the history, the curves, and the notes as JSON."""
    net, spec, notes = load_checkpoint(out / "best.pt")
    draw_panel(_predictor(net, spec), samples, spec, out / "panel.png")
    history.write_csv(out / "history.csv")
    draw_curves(history, out / "curves.png")
    facts = {key: value for key, value in notes.items() if key != "recipe"}
    write_json(out / "best.json", facts)


def _predictor(net: nn.Module, spec: ModelSpec) -> Callable[[Image], Image]:
    """Return the function from a frame (H, W, 3) uint8 BGR to its label map (H, W) uint8."""

    def predict(image: Image) -> Image:
        x = torch.from_numpy(to_input(image, spec))
        with torch.inference_mode():
            logits = enlarged(net(x), spec.input_size)
        labels = logits.argmax(1)[0].to(torch.uint8).numpy()
        return resize_labels(labels, image.shape[:2])

    return predict
