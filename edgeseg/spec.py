"""The contract that travels with the weights: the input of a model, and what its output means.

A ``ModelSpec`` is stored in the checkpoint, in the ONNX file (``metadata_props["edgeseg.spec"]``)
and in the engine's passport. ``edgeseg.imaging.preprocess`` is the one place that applies it.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgeseg.errors import InputError, did_you_mean

METADATA_KEY = "edgeseg.spec"

Colour = tuple[
    Annotated[int, Field(ge=0, le=255)],
    Annotated[int, Field(ge=0, le=255)],
    Annotated[int, Field(ge=0, le=255)],
]
Triple = tuple[float, float, float]


class _Contract(BaseModel):
    """Reject unknown keys, infinities and NaN; instances do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LabelSpace(_Contract):
    """Hold the class names, their colours and the id that no score counts.

    Attributes
    ----------
    name : the label space's own name, such as ``camvid-11``.
    names : class names; ``names[i]`` belongs to label id ``i``. 1 to 255 of them, each only once.
    palette : one colour per class, (R, G, B) in 0..255; ``palette[i]`` belongs to label id ``i``.
    ignore_id : the id of unlabelled pixels, 0..255.

    Examples
    --------
    >>> colours = ((128, 64, 128), (64, 0, 128))
    >>> space = LabelSpace(name="two", names=("road", "car"), palette=colours, ignore_id=255)
    >>> len(space)
    2
    """

    name: str
    names: tuple[str, ...] = Field(min_length=1, max_length=255)
    palette: tuple[Colour, ...]
    ignore_id: int = Field(ge=0, le=255)

    @model_validator(mode="after")
    def _consistent(self) -> "LabelSpace":
        """Check that there is one colour per name and that no name is repeated."""
        if len(self.palette) != len(self.names):
            raise ValueError(f"{len(self.palette)} colours for {len(self.names)} class names")
        if len(set(self.names)) != len(self.names):
            raise ValueError("a class name stands twice")
        return self

    def __len__(self) -> int:
        return len(self.names)


class ModelSpec(_Contract):
    """Describe the input that a model takes and the output that it returns.

    The model's input is ``((image * scale) - mean) / std``, float32, (1, 3, H, W). ``image`` is an
    (H, W, 3) uint8 frame in ``colour`` order, resized to ``input_size`` by ``resize``. The output
    is (1, classes, H/k, W/k) logits.

    Attributes
    ----------
    format : version of this contract.
    architecture : name of the model's architecture, such as ``enet``.
    arguments : the architecture's own arguments.
    input_size : (H, W) in pixels.
    colour : channel order of the model's input, ``rgb`` or ``bgr``; ``mean`` and ``std`` are in
        this order.
    scale : factor for pixels of 0..255, positive.
    mean : one value per channel, subtracted after ``scale``.
    std : one value per channel, the divisor after ``mean``; positive.
    resize : how a frame gets the input's size; ``stretch`` does not keep the aspect ratio.
    stride : number that must divide both sides of the input.
    labels : the label space of the output.

    Examples
    --------
    >>> spec = ModelSpec(architecture="enet", input_size=(360, 480), labels=CAMVID_11)
    >>> ModelSpec.parse(spec.to_json(), "enet.onnx") == spec
    True
    """

    format: Literal[1] = 1
    architecture: str
    arguments: dict[str, int | float | str | bool] = {}
    input_size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    colour: Literal["rgb", "bgr"] = "rgb"
    scale: float = 1 / 255
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    resize: Literal["stretch"] = "stretch"
    stride: int = Field(default=1, ge=1)
    labels: LabelSpace

    @model_validator(mode="after")
    def _usable(self) -> "ModelSpec":
        """Check that float32 can hold the gains and offsets that come of scale, mean and std."""
        if self.scale <= 0 or any(std <= 0 for std in self.std):
            raise ValueError("scale and std must be positive")

        gains = [self.scale / std for std in self.std]
        offsets = [mean / std for mean, std in zip(self.mean, self.std, strict=True)]
        gains_fit = all(1e-30 < gain < 1e30 for gain in gains)
        offsets_fit = all(abs(offset) < 1e30 for offset in offsets)
        if not gains_fit or not offsets_fit:
            raise ValueError("scale, mean and std together leave the range of float32")
        return self

    @classmethod
    def parse(cls, text: str | bytes, source: str) -> "ModelSpec":
        """Read a spec from JSON.

        Parameters
        ----------
        text : the JSON.
        source : where the text came from, for the error.

        Raises
        ------
        InputError : the text is not JSON, or not a valid spec.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise InputError(
                f"{source}: its edgeseg spec cannot be read", got=first_problem(error)
            ) from error

    def to_json(self) -> str:
        """Return the spec as one line of JSON, as ``parse`` reads it."""
        return self.model_dump_json()

    def replace(self, **changes: Any) -> "ModelSpec":
        """Return a copy with some fields changed.

        Parameters
        ----------
        changes : new values by field name.

        Raises
        ------
        ValidationError : the changed spec is not valid; it is checked again.

        Examples
        --------
        >>> spec = ModelSpec(architecture="enet", input_size=(360, 480), labels=CAMVID_11)
        >>> spec.replace(input_size=(720, 960)).input_size
        (720, 960)
        """
        return ModelSpec.model_validate({**self.model_dump(), **changes})


def check_input_size(spec: ModelSpec) -> None:
    """Raise an error if the stride does not divide the input size.

    Parameters
    ----------
    spec : the spec to check.

    Raises
    ------
    InputError : the stride does not divide a side; the error names the next larger size that fits.

    Examples
    --------
    >>> spec = ModelSpec(architecture="enet", input_size=(360, 480), stride=8, labels=CAMVID_11)
    >>> check_input_size(spec)
    """
    stride = spec.stride
    fits = tuple(-(-side // stride) * stride for side in spec.input_size)
    if fits != spec.input_size:
        raise InputError(
            f"{spec.architecture} needs an input size divisible by {stride}",
            got=list(spec.input_size),
            expected=list(fits),
        )


def first_problem(error: ValidationError, model: type[BaseModel] | None = None) -> str:
    """Return the first problem of a pydantic error on one line: the key's path and the message.

    Parameters
    ----------
    error : the error that pydantic raised.
    model : the pydantic class that was validated. If given, the line suggests a known key for an
        unknown one.

    Examples
    --------
    >>> try:
    ...     LabelSpace(name="none", names=("road",), palette=(), ignore_id=255)
    ... except ValidationError as error:
    ...     first_problem(error)
    '0 colours for 1 class names'
    """
    problem = error.errors()[0]
    path = problem["loc"]
    where = ".".join(str(part) for part in path)
    message = str(problem["msg"]).removeprefix("Value error, ")

    if problem["type"] == "extra_forbidden" and model is not None:
        suggestion = did_you_mean(str(path[-1]), _keys_at(model, path[:-1]))
        message += f".{suggestion}".rstrip(".")
    return f"{where}: {message}" if where else message


def _keys_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Return the keys that ``model`` takes at ``path``, which leads into its nested models."""
    for part in path:
        field = model.model_fields.get(str(part))
        if field is None:
            continue  # the number of an item in a list
        candidates = (field.annotation, *get_args(field.annotation))
        types = [candidate for candidate in candidates if isinstance(candidate, type)]
        nested = [found for found in types if issubclass(found, BaseModel)]
        if not nested:
            return []
        model = nested[0]
    return list(model.model_fields)


def _space(name: str, ignore_id: int, classes: dict[str, Colour]) -> LabelSpace:
    """Build a label space from classes in the order of their ids."""
    names = tuple(classes)
    palette = tuple(classes.values())
    return LabelSpace(name=name, names=names, palette=palette, ignore_id=ignore_id)


# The eleven classes of the SegNet tutorial (Kendall, Badrinarayanan, Cipolla), with its ids and
# its colours.
CAMVID_11 = _space(
    "camvid-11",
    11,
    {
        "Sky": (128, 128, 128),
        "Building": (128, 0, 0),
        "Pole": (192, 192, 128),
        "Road": (128, 64, 128),
        "Pavement": (60, 40, 222),
        "Tree": (128, 128, 0),
        "SignSymbol": (192, 128, 128),
        "Fence": (64, 64, 128),
        "Car": (64, 0, 128),
        "Pedestrian": (64, 64, 0),
        "Bicyclist": (0, 128, 192),
    },
)

# CamVid's label_colors.txt (Brostow, Fauqueur, Cipolla 2009): 32 names in alphabetical order. Void
# is among them.
CAMVID_32 = _space(
    "camvid-32",
    30,
    {
        "Animal": (64, 128, 64),
        "Archway": (192, 0, 128),
        "Bicyclist": (0, 128, 192),
        "Bridge": (0, 128, 64),
        "Building": (128, 0, 0),
        "Car": (64, 0, 128),
        "CartLuggagePram": (64, 0, 192),
        "Child": (192, 128, 64),
        "Column_Pole": (192, 192, 128),
        "Fence": (64, 64, 128),
        "LaneMkgsDriv": (128, 0, 192),
        "LaneMkgsNonDriv": (192, 0, 64),
        "Misc_Text": (128, 128, 64),
        "MotorcycleScooter": (192, 0, 192),
        "OtherMoving": (128, 64, 64),
        "ParkingBlock": (64, 192, 128),
        "Pedestrian": (64, 64, 0),
        "Road": (128, 64, 128),
        "RoadShoulder": (128, 128, 192),
        "Sidewalk": (0, 0, 192),
        "SignSymbol": (192, 128, 128),
        "Sky": (128, 128, 128),
        "SUVPickupTruck": (64, 128, 192),
        "TrafficCone": (0, 0, 64),
        "TrafficLight": (0, 64, 64),
        "Train": (192, 64, 128),
        "Tree": (128, 128, 0),
        "Truck_Bus": (192, 128, 192),
        "Tunnel": (64, 0, 64),
        "VegetationMisc": (192, 192, 0),
        "Void": (0, 0, 0),
        "Wall": (64, 192, 0),
    },
)

# cityscapesScripts, helpers/labels.py: the nineteen classes with a train id, in that order.
CITYSCAPES_19 = _space(
    "cityscapes-19",
    255,
    {
        "road": (128, 64, 128),
        "sidewalk": (244, 35, 232),
        "building": (70, 70, 70),
        "wall": (102, 102, 156),
        "fence": (190, 153, 153),
        "pole": (153, 153, 153),
        "traffic light": (250, 170, 30),
        "traffic sign": (220, 220, 0),
        "vegetation": (107, 142, 35),
        "terrain": (152, 251, 152),
        "sky": (70, 130, 180),
        "person": (220, 20, 60),
        "rider": (255, 0, 0),
        "car": (0, 0, 142),
        "truck": (0, 0, 70),
        "bus": (0, 60, 100),
        "train": (0, 80, 100),
        "motorcycle": (0, 0, 230),
        "bicycle": (119, 11, 32),
    },
)

# PASCAL VOC 2012 development kit; colours by its VOClabelcolormap.
VOC_21 = _space(
    "voc-21",
    255,
    {
        "background": (0, 0, 0),
        "aeroplane": (128, 0, 0),
        "bicycle": (0, 128, 0),
        "bird": (128, 128, 0),
        "boat": (0, 0, 128),
        "bottle": (128, 0, 128),
        "bus": (0, 128, 128),
        "car": (128, 128, 128),
        "cat": (64, 0, 0),
        "chair": (192, 0, 0),
        "cow": (64, 128, 0),
        "diningtable": (192, 128, 0),
        "dog": (64, 0, 128),
        "horse": (192, 0, 128),
        "motorbike": (64, 128, 128),
        "person": (192, 128, 128),
        "pottedplant": (0, 64, 0),
        "sheep": (128, 64, 0),
        "sofa": (0, 192, 0),
        "train": (128, 192, 0),
        "tvmonitor": (0, 64, 128),
    },
)

LABEL_SPACES: dict[str, LabelSpace] = {
    space.name: space for space in (CAMVID_11, CAMVID_32, CITYSCAPES_19, VOC_21)
}


def label_space(name: str) -> LabelSpace:
    """Look up a label space by name.

    Parameters
    ----------
    name : a key of ``LABEL_SPACES``.

    Raises
    ------
    InputError : unknown name; the error lists the known ones.

    Examples
    --------
    >>> label_space("camvid-11").names[3]
    'Road'
    """
    try:
        return LABEL_SPACES[name]
    except KeyError:
        raise InputError(
            "unknown label space",
            got=repr(name),
            expected=f"one of {', '.join(LABEL_SPACES)}",
            hint=did_you_mean(name, LABEL_SPACES),
        ) from None


def voc_colour(index: int) -> Colour:
    """Return a colour of PASCAL VOC's map: the bits of ``index`` spread over R, G and B.

    The formula is ``VOClabelcolormap`` of the VOC development kit.

    Parameters
    ----------
    index : number of the colour, 0..255.

    Returns
    -------
    (R, G, B), each 0..255.

    Examples
    --------
    >>> voc_colour(1), voc_colour(2)
    ((128, 0, 0), (0, 128, 0))
    """
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= ((index >> channel) & 1) << (7 - bit)
        index >>= 3
    return channels[0], channels[1], channels[2]


def generic_space(classes: int, names: Sequence[str] = (), name: str | None = None) -> LabelSpace:
    """Build a label space for a model that came without one: PASCAL VOC's colours, 255 ignored.

    Parameters
    ----------
    classes : number of classes.
    names : class names; ``class0``, ``class1`` ... if empty.
    name : the label space's own name; ``generic-CLASSES`` if ``None``.

    Raises
    ------
    InputError : more than 255 classes, none, or repeated names.

    Examples
    --------
    >>> generic_space(2).names
    ('class0', 'class1')
    """
    if len(names) > 255 or classes > 255:
        raise InputError(
            "too many classes for a uint8 label map",
            got=max(classes, len(names)),
            expected="at most 255",
        )

    titles = tuple(names) or tuple(f"class{i}" for i in range(classes))
    palette = tuple(voc_colour(i) for i in range(len(titles)))
    try:
        return LabelSpace(
            name=name or f"generic-{classes}", names=titles, palette=palette, ignore_id=255
        )
    except ValidationError as error:
        raise InputError("the class names make no label space", got=first_problem(error)) from error
