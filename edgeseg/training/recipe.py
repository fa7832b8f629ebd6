"""A recipe: one TOML file that is one experiment. Unknown keys and impossible values are errors, never ignored."""

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgeseg.errors import InputError
from edgeseg.spec import Triple, first_problem

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSection(_Section):
    """The net and its input.

    ``encoder`` is a source of pretrained encoder weights: a file or ``torchvision``. ``init`` is a checkpoint of the
    same net whose weights the run starts from; where only the number of classes differs, all but the classifier's.
    """

    architecture: str
    arguments: dict[str, int | float | str | bool] = {}
    input_size: tuple[Count, Count]
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    encoder: str | None = None
    init: str | None = None
    freeze_encoder_epochs: int = Field(default=0, ge=0)


class DataSection(_Section):
    """Where frames come from. ``drives`` keeps only frames of these drives in training (cross-validation by drive)."""

    address: str
    train: str = "train"
    val: str = "val"
    drives: tuple[str, ...] = ()
    val_drives: tuple[str, ...] = ()
    balance_drives: Probability = 0.0


class AugmentSection(_Section):
    """Random changes of a training frame; every probability 0 and range of one value is the plain frame.

    ``mix`` is how often half the classes of a second frame, most often of another drive, are pasted over the first.
    ``base`` is the length in pixels that a frame's longer side gets before ``scale``; without it, with a ``crop``, the
    frame keeps its size. ``resized_crop`` is how often a part of the frame, of a share of its area in ``area`` and with
    up to ``ratio`` of its aspect, is enlarged to the whole (torchvision's RandomResizedCrop).
    """

    base: Count | None = None
    crop: tuple[Count, Count] | None = None
    flip: Probability = 0.5
    scale: tuple[Positive, Positive] = (1.0, 1.0)
    aspect: Annotated[float, Field(ge=1)] = 1.0
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    skew_degrees: Annotated[float, Field(ge=0, lt=60)] = 0.0
    resized_crop: Probability = 0.0
    area: tuple[Share, Share] = (0.9, 1.0)
    ratio: Annotated[float, Field(ge=1)] = 4 / 3
    rare_crop: Probability = 0.0
    brightness: Annotated[float, Field(ge=0, lt=1)] = 0.0
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.0
    gamma: Annotated[float, Field(ge=1)] = 1.0
    temperature: Annotated[float, Field(ge=0, lt=1)] = 0.0
    saturation: Annotated[float, Field(ge=0, le=1)] = 0.0
    hue_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    shade: Annotated[float, Field(ge=0, lt=1)] = 0.0
    grey: Probability = 0.0
    blur: Probability = 0.0
    noise: Annotated[float, Field(ge=0)] = 0.0
    mix: Probability = 0.0


class LossSection(_Section):
    """Cross-entropy. ``class_weights``: see ``edgeseg.training.loss``; ``weight_power`` tempers them (0 = none).

    ``prior_correction`` is the share of the class weights' effect on the scores that is taken back afterwards.
    ``focal_gamma`` turns pixels down that are right already (Lin et al. 2017); ``dice`` is the weight of a soft Dice
    term added to it (Milletari et al. 2016).
    """

    class_weights: Literal["none", "inverse", "median", "log"] = "none"
    weight_power: Probability = 1.0
    prior_correction: Probability = 0.0
    label_smoothing: Probability = 0.0
    focal_gamma: Annotated[float, Field(ge=0)] = 0.0
    dice: Annotated[float, Field(ge=0)] = 0.0


class OptimSection(_Section):
    """Optimizer and learning-rate schedule over all steps. ``power`` belongs to poly, ``warmup`` to one-cycle.

    The encoder's rate is ``lr * encoder_lr_factor``. With ``encoder_lr_first`` its first block gets ``lr`` times that,
    its last ``encoder_lr_factor``, those between geometrically spaced rates (Howard & Ruder 2018, section 3.2).
    """

    optimizer: Literal["adamw", "adam", "sgd", "adadelta"] = "adamw"
    lr: Positive
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    momentum: Probability = 0.9
    schedule: Literal["constant", "poly", "cosine", "onecycle"] = "onecycle"
    power: Positive = 0.9
    warmup: Probability = 0.1
    encoder_lr_factor: Positive = 1.0
    encoder_lr_first: Positive | None = None
    clip_norm: Annotated[float, Field(ge=0)] = 0.0


class FitSection(_Section):
    """The length and the machinery of the run.

    ``batch`` frames make a batch, on however many processes; ``accumulate`` batches make a step. ``select`` is what
    ``best.pt`` is best in on the validation split: its IoU, its pixel accuracy or its loss; ``stop_on`` is what
    ``patience`` watches, ``select`` unless given. ``fp16`` needs a GPU.
    """

    epochs: Count
    batch: Count
    accumulate: Count = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    validate_every: Count = 1
    select: Literal["miou", "pixel_accuracy", "loss"] = "miou"
    stop_on: Literal["miou", "pixel_accuracy", "loss"] | None = None
    patience: int = Field(default=0, ge=0, description="validations without a better score before stopping; 0 = never")
    workers: int = Field(default=1, ge=0)
    seed: int = 0


class Stage(_Section):
    """A part of a run with values of its own: ``set = {"fit.epochs" = 10}``. It starts from the stage before."""

    name: str = Field(pattern=_NAME)
    set: dict[str, Any] = {}


class Recipe(_Section):
    """One experiment, whole."""

    name: str = Field(pattern=_NAME)
    about: str = ""
    model: ModelSection
    data: DataSection
    augment: AugmentSection = AugmentSection()
    loss: LossSection = LossSection()
    optim: OptimSection
    fit: FitSection
    stage: tuple[Stage, ...] = ()

    @model_validator(mode="after")
    def _stages_work(self) -> "Recipe":
        names = [stage.name for stage in self.stage]
        if len(set(names)) != len(names):
            raise ValueError("two stages have one name")
        for stage in self.stage:
            self.of_stage(stage)
        return self

    def of_stage(self, stage: Stage) -> "Recipe":
        """The recipe of one stage by itself. Raises ``ValueError`` (pydantic's too) for a value it cannot have."""
        values = {**self.model_dump(), "stage": ()}
        for key, value in stage.set.items():
            section, _, field = key.partition(".")
            if section not in ("model", "data", "augment", "loss", "optim", "fit") or not field:
                raise ValueError(f"stage {stage.name!r} sets {key!r}, which is no section.key")
            values[section] = {**values[section], field: value}
        return Recipe.model_validate(values)


def with_changes(recipe: Recipe, changes: dict[str, object]) -> Recipe:
    """A recipe with some values replaced, ``{"fit.epochs": 3}``, checked again."""
    values = recipe.model_dump()
    for key, value in changes.items():
        section, _, field = key.partition(".")
        if field:
            values[section][field] = value
        else:
            values[section] = value
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{recipe.name}: not a valid recipe", got=first_problem(error, Recipe)) from error


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe. Raises ``InputError`` with the first thing wrong in it."""
    path = Path(path)
    if not path.is_file():
        raise InputError("no such recipe", got=repr(str(path)), hint="Recipes are engines/*.toml.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: not a readable TOML file", got=str(error).splitlines()[0]) from error
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{path}: not a valid recipe", got=first_problem(error, Recipe)) from error
