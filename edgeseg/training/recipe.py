"""A recipe: one TOML file that is one experiment. Unknown keys and impossible values are errors, never ignored."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeseg.errors import InputError
from edgeseg.spec import Triple, first_problem

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSection(_Section):
    """The net and its input.

    ``encoder`` is a source of pretrained encoder weights: a file or ``torchvision``. ``init`` is a checkpoint of the
    same net whose weights the run starts from.
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
    """

    crop: tuple[Count, Count] | None = None
    flip: Probability = 0.5
    scale: tuple[Positive, Positive] = (1.0, 1.0)
    aspect: Annotated[float, Field(ge=1)] = 1.0
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
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
    """

    class_weights: Literal["none", "inverse", "median", "log"] = "none"
    weight_power: Probability = 1.0
    prior_correction: Probability = 0.0
    label_smoothing: Probability = 0.0


class OptimSection(_Section):
    """Optimizer and learning-rate schedule over all steps. ``power`` belongs to poly, ``warmup`` to one-cycle."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: Positive
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    momentum: Probability = 0.9
    schedule: Literal["constant", "poly", "onecycle"] = "onecycle"
    power: Positive = 0.9
    warmup: Probability = 0.1
    encoder_lr_factor: Positive = 1.0
    clip_norm: Annotated[float, Field(ge=0)] = 0.0


class FitSection(_Section):
    """The length and the machinery of the run."""

    epochs: Count
    batch: Count
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    validate_every: Count = 1
    patience: int = Field(default=0, ge=0, description="validations without a better mIoU before stopping; 0 = never")
    workers: int = Field(default=1, ge=0)
    seed: int = 0


class Recipe(_Section):
    """One experiment, whole."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    about: str = ""
    model: ModelSection
    data: DataSection
    augment: AugmentSection = AugmentSection()
    loss: LossSection = LossSection()
    optim: OptimSection
    fit: FitSection


def with_changes(recipe: Recipe, changes: dict[str, object]) -> Recipe:
    """A recipe with some values replaced, ``{"fit.epochs": 3}``, checked again."""
    values = recipe.model_dump()
    for key, value in changes.items():
        section, _, field = key.partition(".")
        values[section][field] = value
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{recipe.name}: not a valid recipe", got=first_problem(error)) from error


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
        raise InputError(f"{path}: not a valid recipe", got=first_problem(error)) from error
