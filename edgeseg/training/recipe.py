"""Read recipes: one TOML file is one experiment.

Unknown keys and impossible values are errors; they are never ignored.
"""

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
_SECTIONS = ("model", "data", "augment", "loss", "optim", "fit")  # that a stage may change

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]


class _Section(BaseModel):
    """Refuse unknown keys and later changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSection(_Section):
    """Describe the model and its input.

    Attributes
    ----------
    architecture : a name of ``edgeseg.models.REGISTRY``.
    arguments : arguments of the architecture; they override those of the registry.
    input_size : (H, W) of the model's input.
    mean, std : per channel, of RGB values in 0..1.
    encoder : source of pretrained encoder weights: a file, or ``torchvision``.
    init : checkpoint of the same model whose weights the run starts from. If only the number of
        classes differs, all weights but the classifiers' are used.
    freeze_encoder_epochs : number of first epochs in which the encoder is not trained.
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
    """Describe where the frames come from.

    Attributes
    ----------
    address : the data set, as ``READER:PATH``.
    train, val : names of the splits to train on and to validate on.
    drives : drives of the training split to use; empty for all. With ``val_drives`` this is
        cross-validation by drive.
    val_drives : drives of the validation split to use; empty for all.
    balance_drives : how much short drives are favoured, 0..1: 0 draws every frame equally often, 1
        every drive.
    """

    address: str
    train: str = "train"
    val: str = "val"
    drives: tuple[str, ...] = ()
    val_drives: tuple[str, ...] = ()
    balance_drives: Probability = 0.0


class AugmentSection(_Section):
    """Describe the random changes of a training frame.

    If every probability is 0 and every range has one value, the frame stays as it is.

    Attributes
    ----------
    base : length in pixels that the longer side of a frame gets before ``scale``. Without it, and
        with a ``crop``, the frame keeps its size.
    crop : (H, W) of the training images; None for the model's input size, without cropping.
    flip : probability of a horizontal flip.
    scale : range of the zoom factor, drawn on a logarithmic scale.
    aspect : largest change of the aspect ratio, as a factor.
    rotate_degrees : largest rotation, in both directions.
    skew_degrees : largest horizontal skew, in both directions.
    resized_crop : probability that a part of the frame is enlarged to the whole (torchvision's
        RandomResizedCrop).
    area : range of that part's share of the area.
    ratio : largest change of that part's aspect ratio, as a factor.
    rare_crop : probability that a crop is centred near a pixel of a rare class.
    brightness, contrast : largest relative change.
    gamma : largest exponent; its inverse is the smallest.
    temperature : largest relative change of blue against red, and half of it for green.
    saturation : largest relative change.
    hue_degrees : largest rotation of the hue, in both directions.
    shade : strength of a smooth brightness field.
    grey : probability that the frame loses its colours.
    blur : probability of a Gaussian blur.
    noise : largest standard deviation of Gaussian noise, in grey levels of 0..255.
    mix : probability that half the classes of a second frame are pasted over the first. The second
        frame most often comes from another drive.
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
    """Describe the loss: cross-entropy, and what is added to it.

    Attributes
    ----------
    class_weights : how classes are weighted (``edgeseg.training.loss.class_weights``).
    weight_power : exponent of the class weights; 0 gives equal weights.
    prior_correction : share of the class weights' effect on the logits that is taken back after
        training, 0..1.
    label_smoothing : probability that is spread over all classes.
    focal_gamma : exponent that lowers the loss of pixels that are already right (Lin et al. 2017).
    dice : weight of a soft Dice term that is added (Milletari et al. 2016).
    """

    class_weights: Literal["none", "inverse", "median", "log"] = "none"
    weight_power: Probability = 1.0
    prior_correction: Probability = 0.0
    label_smoothing: Probability = 0.0
    focal_gamma: Annotated[float, Field(ge=0)] = 0.0
    dice: Annotated[float, Field(ge=0)] = 0.0


class OptimSection(_Section):
    """Describe the optimizer, and the learning rate over all steps.

    Attributes
    ----------
    optimizer : name of the optimizer.
    lr : base learning rate.
    weight_decay : of all parameters.
    momentum : of ``sgd`` alone.
    schedule : course of the learning rate (``edgeseg.training.schedule``).
    power : exponent of ``poly``.
    warmup : share of the steps in which ``onecycle`` rises.
    encoder_lr_factor : the encoder's learning rate is ``lr`` times this.
    encoder_lr_first : if given, the encoder's first block gets ``lr`` times this, its last block
        ``lr * encoder_lr_factor``, and the blocks between them geometrically spaced rates (Howard &
        Ruder 2018, section 3.2).
    clip_norm : largest norm of the gradient; 0 for no limit.
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
    """Describe the length and the machinery of the run.

    Attributes
    ----------
    epochs : number of epochs.
    batch : frames per batch, over all processes.
    accumulate : batches per step of the optimizer.
    precision : floating-point type of the computation; ``fp16`` needs a GPU.
    compile : use ``torch.compile``.
    ema : decay of the running average of the weights; 0 for no average.
    validate_every : epochs between validations.
    select : the score on the validation split that decides which weights ``best.pt`` holds: mean
        IoU, pixel accuracy or loss.
    stop_on : the score that ``patience`` watches; None for ``select``.
    patience : validations without a better score before the run stops; 0 for never.
    workers : processes that load data.
    seed : seed of all random draws.
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
    patience: int = Field(default=0, ge=0)
    workers: int = Field(default=1, ge=0)
    seed: int = 0


class Stage(_Section):
    """Describe a part of a run that has values of its own. It starts from the stage before.

    Attributes
    ----------
    name : name of the stage and of its folder.
    set : the values, as in ``set = {"fit.epochs" = 10}``.
    """

    name: str = Field(pattern=_NAME)
    set: dict[str, Any] = {}


class Recipe(_Section):
    """Describe one whole experiment.

    Attributes
    ----------
    name : name of the experiment.
    about : a sentence about it.
    model, data, augment, loss, optim, fit : the sections.
    stage : the stages of the run; empty if it has one part.

    Examples
    --------
    >>> recipe = Recipe.model_validate({
    ...     "name": "tiny",
    ...     "model": {"architecture": "enet", "input_size": [64, 96]},
    ...     "data": {"address": "synthetic://?length=24"},
    ...     "optim": {"lr": 5e-3},
    ...     "fit": {"epochs": 4, "batch": 4},
    ... })
    >>> recipe.optim.schedule
    'onecycle'
    """

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
        """Raise ``ValueError`` if stages share a name, or one has no valid recipe."""
        names = [stage.name for stage in self.stage]
        if len(set(names)) != len(names):
            raise ValueError("two stages have one name")
        for stage in self.stage:
            self.of_stage(stage)
        return self

    def of_stage(self, stage: Stage) -> "Recipe":
        """Return the recipe of one stage by itself.

        Parameters
        ----------
        stage : one of ``self.stage``.

        Raises
        ------
        ValueError : the stage sets a key that does not exist, or a value that is not valid
            (pydantic's ``ValidationError`` is a ``ValueError``, too).
        """
        values = {**self.model_dump(), "stage": ()}
        for key, value in stage.set.items():
            section, _, field = key.partition(".")
            if section not in _SECTIONS or not field:
                raise ValueError(f"stage {stage.name!r} sets {key!r}, which is no section.key")
            values[section] = {**values[section], field: value}
        return Recipe.model_validate(values)


def with_changes(recipe: Recipe, changes: dict[str, object]) -> Recipe:
    """Return a recipe with some values replaced, validated again.

    Parameters
    ----------
    recipe : the recipe; it stays as it is.
    changes : new values by key, such as ``{"fit.epochs": 3}``.

    Raises
    ------
    InputError : the result is no valid recipe.
    """
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
        problem = first_problem(error, Recipe)
        raise InputError(f"{recipe.name}: not a valid recipe", got=problem) from error


def load_recipe(path: str | Path) -> Recipe:
    """Read and validate a recipe.

    Parameters
    ----------
    path : the TOML file.

    Raises
    ------
    InputError : the file is missing, is not TOML, or is no valid recipe; the error names the first
        problem.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("no such recipe", got=repr(str(path)), hint="Recipes are engines/*.toml.")

    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problem = str(error).splitlines()[0]
        raise InputError(f"{path}: not a readable TOML file", got=problem) from error

    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problem = first_problem(error, Recipe)
        raise InputError(f"{path}: not a valid recipe", got=problem) from error
