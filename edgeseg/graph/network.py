"""Load any ONNX segmentation network together with its spec.

Files that edgeseg exported carry their spec inside. For other files the spec is completed from the
given overrides; missing values use defaults, and ``Network.assumed`` lists each assumption.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from pydantic import ValidationError

from edgeseg.errors import GraphError, InputError
from edgeseg.graph.onnx_file import read_onnx
from edgeseg.graph.outputs import (
    INTEGERS,
    check_resized,
    choose_output,
    element_type,
    find_input,
    inferred_shapes,
    output_shapes,
    split_binary,
)
from edgeseg.graph.passes.canonicalize import TWO_CLASSES, TWO_OUTPUT
from edgeseg.graph.passes.tiny_scales import raise_tiny_scales
from edgeseg.spec import (
    LABEL_SPACES,
    METADATA_KEY,
    LabelSpace,
    ModelSpec,
    first_problem,
    generic_space,
    label_space,
)


@dataclass(frozen=True)
class Overrides:
    """Hold the facts that the command line gives; ``None`` means that a fact is not given.

    Attributes
    ----------
    size : height and width of the input.
    mean : per-channel mean, in the model's colour order.
    std : per-channel standard deviation, in the model's colour order.
    scale : factor that pixels of 0..255 are multiplied by before mean and std.
    colour : channel order of the input, ``rgb`` or ``bgr``.
    labels : the name of a label space, or a file (JSON, or text with one class name per line).
    head : the name of the output to use.

    Examples
    --------
    >>> Overrides(size=(360, 480), labels="camvid-11").given()
    {'input_size': (360, 480)}
    """

    size: tuple[int, int] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    scale: float | None = None
    colour: str | None = None
    labels: str | None = None
    head: str | None = None

    def given(self) -> dict[str, Any]:
        """Return the given facts that are fields of a spec, by the name of the field."""
        facts = {
            "mean": self.mean,
            "std": self.std,
            "scale": self.scale,
            "colour": self.colour,
            "input_size": self.size,
        }
        return {key: value for key, value in facts.items() if value is not None}


@dataclass(frozen=True)
class Network:
    """Hold a loaded ONNX file: its graph, its spec, and facts about both.

    Attributes
    ----------
    name : the file's name without its suffix.
    model : the canonical ONNX graph, with its weights.
    spec : the contract: size, normalisation, colour order, labels.
    sha256 : digest of the file and of the files that hold its weights.
    assumed : the facts of the spec that were assumed, one sentence each.
    input : the name of the image input.
    output : the name of the graph output that is used.
    form : what the output holds: ``nchw`` or ``nhwc`` logits, or ``labels``.
    channels_last : True if the input is (N, H, W, 3).
    path : the file.
    lowered : graphs that ``lowering.lower`` has made of this network.
    """

    name: str
    model: onnx.ModelProto
    spec: ModelSpec
    sha256: str
    assumed: tuple[str, ...]
    input: str
    output: str
    form: str
    channels_last: bool
    path: Path = Path()
    # `dataclasses.replace` starts with none of them.
    lowered: dict[Any, tuple[onnx.ModelProto, Any]] = field(
        init=False, default_factory=dict, compare=False, repr=False
    )


def load_network(path: str | Path, overrides: Overrides | None = None) -> Network:
    """Read an ONNX file and find out its spec, its input and its output.

    Parameters
    ----------
    path : the ONNX file.
    overrides : facts that replace or complete those of the file.

    Raises
    ------
    InputError : a fact is missing, contradicts the file, or makes no valid spec (it is named).
    GraphError : the file is no ONNX graph, has no segmentation output, or cannot run.
    """
    path = Path(path)
    overrides = overrides or Overrides()
    model, digest = read_onnx(path)
    tiny = raise_tiny_scales(model)

    # The input, and the spec if the file carries one.
    source, channels_last, fixed = find_input(model, path)
    image = _Image(source, channels_last, fixed)
    spec = _stored_spec(model, overrides, path)
    run_size = overrides.size or (spec.input_size if spec else fixed)
    _check_size(model, path, fixed, run_size, spec.stride if spec else 1)

    # The output: one that can be a segmentation.
    wanted = _wanted_classes(spec, overrides)
    found = _find_output(model, path, image, run_size, overrides, wanted)

    # The spec of a file without one, and what was assumed beside it.
    assumed: list[str] = []
    if spec is None:
        _require_known(found, path, run_size, overrides)
        integer = element_type(model, source) in INTEGERS
        names = TWO_CLASSES if found.binary else ()
        spec, assumed = _foreign_spec(path, overrides, fixed, found.classes, integer, names)
    assumed += _assumptions(found, tiny)
    _check_labels(spec, found.classes, path)
    return Network(
        name=path.stem,
        model=model,
        spec=spec,
        sha256=digest,
        assumed=tuple(assumed),
        input=source,
        output=found.name,
        form=found.form,
        channels_last=channels_last,
        path=path,
    )


class _Image(NamedTuple):
    """Hold the image input of a graph.

    Attributes
    ----------
    name : its name.
    channels_last : True if it is (N, H, W, 3).
    size : height and width, ``None`` if the file leaves them open.
    """

    name: str
    channels_last: bool
    size: tuple[int, int] | None


class _Output(NamedTuple):
    """Hold the output of a graph that is used.

    Attributes
    ----------
    name : its name.
    form : ``nchw``, ``nhwc`` or ``labels``.
    classes : the number of classes, 0 if unknown.
    others : the names of the outputs that could have been used instead.
    binary : the rule that is assumed for the foreground of one channel, ``""`` if there are more.
    trouble : the error that kept the graph from running, ``""`` if there was none.
    """

    name: str
    form: str
    classes: int
    others: list[str]
    binary: str
    trouble: str


def _find_output(
    model: onnx.ModelProto,
    path: Path,
    image: _Image,
    size: tuple[int, int] | None,
    overrides: Overrides,
    wanted: int,
) -> _Output:
    """Choose the output of a graph that runs at ``size``, with ``wanted`` classes (0 for any)."""
    # 1. The shapes of all outputs, or of the given one.
    shapes, trouble = output_shapes(model, image.name, image.channels_last, size)
    if overrides.head is not None:
        if overrides.head not in shapes:
            names = ", ".join(shapes)
            raise InputError(
                f"{path}: has no such output",
                got=f"`head={overrides.head}`",
                expected=f"one of {names}",
            )
        shapes = {overrides.head: shapes[overrides.head]}

    # 2. One channel becomes two classes.
    binary = split_binary(model, shapes, size)
    if binary:
        shapes = inferred_shapes(model, image.name, image.channels_last, size)
        if overrides.head is not None:
            shapes = {TWO_OUTPUT: shapes[TWO_OUTPUT]}
    name, form, classes, others = choose_output(shapes, size, path, wanted)

    # 3. At another size than the file's own, the output must follow.
    fixed = image.size
    if fixed and overrides.size and overrides.size != fixed:
        own = inferred_shapes(model, image.name, image.channels_last, fixed)[name][1]
        check_resized(path, fixed, overrides.size, (own, shapes[name][1]))
    return _Output(name, form, classes, others, binary, trouble)


def _require_known(
    found: _Output, path: Path, size: tuple[int, int] | None, overrides: Overrides
) -> None:
    """Raise ``GraphError`` if the number of classes is unknown because the graph does not run."""
    if not found.classes and found.trouble and not overrides.labels:
        raise GraphError(
            f"{path}: does not run at {'x'.join(map(str, size or ()))} (HxW)",
            got=found.trouble,
            hint="Another `size` may do; or give `labels`: the target's compiler then decides.",
        )


def _assumptions(found: _Output, tiny: int) -> list[str]:
    """Return what is assumed beside the spec; ``tiny`` is the number of raised scales."""
    assumed: list[str] = []
    if found.binary:
        assumed.append(f"one channel: {found.binary}")
    if found.others:
        choices = ", ".join((found.name, *found.others))
        assumed.append(f"output {found.name}, one of {choices}")
    if tiny:
        dead = f"{tiny} scales below 2^-100 belong to dead branches"
        assumed.append(f"{dead}: their values are zeros")
    return assumed


def _wanted_classes(spec: ModelSpec | None, overrides: Overrides) -> int:
    """Return the number of classes that the spec or the overrides name; 0 if neither does."""
    if spec:
        return len(spec.labels)
    if overrides.labels:
        return len(read_labels(overrides.labels))
    return 0


def _stored_spec(model: onnx.ModelProto, overrides: Overrides, path: Path) -> ModelSpec | None:
    """Return the spec that the file carries, with the overrides; ``None`` if it carries none."""
    text = next((p.value for p in model.metadata_props if p.key == METADATA_KEY), None)
    if text is None:
        return None

    spec = ModelSpec.parse(text, str(path))
    changes = overrides.given()
    if overrides.labels:
        changes["labels"] = read_labels(overrides.labels).model_dump()
    try:
        return spec.replace(**changes) if changes else spec
    except ValidationError as error:
        raise InputError(
            f"{path}: the facts given make no spec", got=first_problem(error)
        ) from error


def _check_size(
    model: onnx.ModelProto,
    path: Path,
    fixed: tuple[int, int] | None,
    size: tuple[int, int] | None,
    stride: int,
) -> None:
    """Raise ``InputError`` if the network cannot run at ``size`` (H, W).

    Either the sides must be multiples of ``stride``, or the network unpools to a constant size.
    """
    if size is None:
        return

    # Round the sides up to multiples of the stride.
    fits = tuple(max(-(-side // stride), 1) * stride for side in size)
    if fits != size:
        raise InputError(
            f"{path}: its height and width must be multiples of {stride}",
            got=f"{size[0]}x{size[1]} (HxW)",
            hint=f"Give `size={fits[0]}x{fits[1]}`.",
        )

    # The third input of MaxUnpool is its output size.
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    unpools = [n for n in model.graph.node if n.op_type == "MaxUnpool" and len(n.input) > 2]
    if fixed and fixed != size and any(node.input[2] in constants for node in unpools):
        raise InputError(
            f"{path}: its unpooling is fixed to an input of {fixed[0]}x{fixed[1]} (HxW)",
            got=f"`size={size[0]}x{size[1]}`",
            hint="Leave `size` out, or export the net at that size.",
        )


def _foreign_spec(
    path: Path,
    overrides: Overrides,
    size: tuple[int, int] | None,
    classes: int,
    integer: bool,
    names: tuple[str, ...] = (),
) -> tuple[ModelSpec, list[str]]:
    """Return a spec for a file that carries none, and what was assumed for it.

    ``size`` is the file's own, ``classes`` 0 if unknown, ``integer`` True if the input takes whole
    numbers, ``names`` the class names of a network with one channel.
    """
    facts = overrides.given()
    if "input_size" not in facts:
        if size is None:
            raise InputError(
                f"{path}: its input size is free", hint="Give one: `size=HEIGHTxWIDTH`."
            )
        facts["input_size"] = size

    assumed = _complete_normalisation(facts, integer, path)
    labels = _labels_of(overrides, classes, names, path)
    if not overrides.labels:
        assumed.append(f"labels {labels.name}")
    try:
        return ModelSpec(architecture="foreign", labels=labels, **facts), assumed
    except ValidationError as error:
        raise InputError(
            f"{path}: the facts given make no spec", got=first_problem(error)
        ) from error


def _complete_normalisation(facts: dict[str, Any], integer: bool, path: Path) -> list[str]:
    """Complete mean, std, scale and colour order, in place; return what was assumed."""
    assumed: list[str] = []
    if integer:  # the network normalises bytes itself
        plain = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "scale": 1.0}
        if any(facts.get(key, value) != value for key, value in plain.items()):
            raise InputError(
                f"{path}: takes whole numbers",
                got="`mean`, `std` or `scale`",
                hint="Leave them out.",
            )
        facts.update(plain)
        assumed.append("bytes as they are, because the input is of integer type")

    # The spec itself has these defaults.
    defaults = {
        "mean": "mean 0.485 0.456 0.406 (ImageNet)",
        "std": "std 0.229 0.224 0.225 (ImageNet)",
        "scale": "scale 1/255",
        "colour": "colour order RGB",
    }
    return assumed + [text for key, text in defaults.items() if key not in facts]


def _labels_of(
    overrides: Overrides, classes: int, names: tuple[str, ...], path: Path
) -> LabelSpace:
    """Return the given labels, else a known space of that many classes, else numbered classes."""
    if overrides.labels:
        return read_labels(overrides.labels)
    if not classes:
        raise InputError(
            f"{path}: how many classes it has cannot be read from it",
            hint="Give `labels=NAME` or FILE.",
        )
    for space in LABEL_SPACES.values():
        if len(space) == classes and not names:
            return space
    return generic_space(classes, names)


def read_labels(text: str) -> LabelSpace:
    """Return a label space by its name, or read it from a file.

    Parameters
    ----------
    text : the name of a known label space, a JSON file that holds one, or a text file with one
        class name per line.

    Raises
    ------
    InputError : there is no such label space or file, or the file holds no label space.

    Examples
    --------
    >>> len(read_labels("cityscapes-19"))
    19
    """
    if text in LABEL_SPACES:
        return LABEL_SPACES[text]
    path = Path(text)
    if not path.is_file():
        return label_space(text)  # raises an error that lists the choices

    content = path.read_text(encoding="utf-8", errors="replace")
    try:
        if path.suffix == ".json":
            return LabelSpace.model_validate(json.loads(content))
        names = [line.strip() for line in content.splitlines() if line.strip()]
        return generic_space(len(names), names, path.stem)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not JSON", got=str(error)) from error
    except ValidationError as error:
        raise InputError(f"{path}: not a label space", got=first_problem(error)) from error


def _check_labels(spec: ModelSpec, classes: int, path: Path) -> None:
    """Raise ``InputError`` if the output has another number of classes than the spec."""
    if classes and classes != len(spec.labels):
        raise InputError(
            f"{path}: its number of classes and its labels disagree",
            got=f"{classes} outputs and {len(spec.labels)} names ({spec.labels.name})",
            hint="Give the right ones: `labels=NAME` or FILE.",
        )
