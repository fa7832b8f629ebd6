"""Any ONNX segmentation net and its spec: ours carry one inside, a foreign file's is completed from flags, and said."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from pydantic import ValidationError

from edgeseg.artifact import sha256_file
from edgeseg.errors import GraphError, InputError
from edgeseg.export.graph import infer_shapes
from edgeseg.export.settle import TWO_CLASSES, TWO_OUTPUT, settle, two_classes
from edgeseg.export.tiny_scales import raise_tiny_scales
from edgeseg.export.unpool import lower_unpooling
from edgeseg.spec import (
    LABEL_SPACES,
    METADATA_KEY,
    LabelSpace,
    ModelSpec,
    first_problem,
    generic_space,
    label_space,
)

_INTEGERS = {TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8, TensorProto.INT8}


@dataclass(frozen=True)
class Overrides:
    """Facts given on the command line; ``None`` is not given.

    ``labels``: a space's name or a file (JSON or names). ``head``: the name of the output to use.
    """

    size: tuple[int, int] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    scale: float | None = None
    colour: str | None = None
    labels: str | None = None
    head: str | None = None

    def given(self) -> dict[str, Any]:
        """The spec's fields that were given."""
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
    """An ONNX file read: the graph, the contract, which of its facts were assumed, the file's hash.

    ``output`` is the graph output used; ``form`` says what it holds: ``nchw`` or ``nhwc`` logits, or ``labels``.
    ``channels_last`` is whether the input is (N, H, W, 3).
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


def digest_onnx(path: Path, data: bytes | None = None) -> str:
    """The SHA-256 of an ONNX file's bytes (``data``, if read already) and of the files its weights are in."""
    data = path.read_bytes() if data is None else data
    digest = hashlib.sha256(data)
    for name in _external_files(data):
        external = path.parent / name
        digest.update(sha256_file(external).encode() if external.is_file() else b"missing")
    return digest.hexdigest()


def _external_files(data: bytes) -> list[str]:
    """Names of the files that hold weights; ``torch.onnx.export`` writes one for large nets."""
    if b"location" not in data:  # the key every external tensor has: most files need no parsing
        return []
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # not ONNX: read_onnx says so
        return []
    entries = (entry for tensor in model.graph.initializer for entry in tensor.external_data)
    return sorted({entry.value for entry in entries if entry.key == "location"})


def read_onnx(path: str | Path) -> tuple[onnx.ModelProto, str]:
    """The model, weights of external files included, and its ``digest_onnx``."""
    path = Path(path)
    if not path.is_file():
        raise InputError("no such ONNX file", got=repr(str(path)))
    data = path.read_bytes()
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own exception types vary with its backend
        raise GraphError(
            f"{path}: not an ONNX file",
            got=_looks_like(data),
            expected="a serialized ONNX model",
            hint="Export it again: edgeseg export CHECKPOINT, or torch.onnx.export.",
        ) from error
    if not model.graph.node or not model.opset_import:
        raise GraphError(f"{path}: not an ONNX network", got=_looks_like(data), expected="a graph with nodes")
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise GraphError(f"{path}: a file with its weights is missing or damaged", got=str(error)) from error
    return settle(model), digest_onnx(path, data)


def _looks_like(data: bytes) -> str:
    if not data:
        return "an empty file"
    try:
        data[:512].decode("ascii")
    except UnicodeDecodeError:
        return f"{len(data):,} bytes that do not parse (truncated?)"
    return "a text file"


def load_network(path: str | Path, overrides: Overrides | None = None) -> Network:
    """Read an ONNX net and settle its spec. Raises ``GraphError`` or ``InputError`` naming the flag that is missing."""
    path = Path(path)
    overrides = overrides or Overrides()
    model, digest = read_onnx(path)
    tiny = raise_tiny_scales(model)
    source, channels_last, size = _input(model, path)
    fixed = size
    stored = next((p.value for p in model.metadata_props if p.key == METADATA_KEY), None)
    if stored is not None:
        spec, assumed = _stored_spec(stored, overrides, path)
        size = overrides.size or spec.input_size
    else:
        spec, assumed = None, []
    _check_size(model, path, fixed, overrides.size or size, spec.stride if spec else 1)
    shapes, trouble = _known_shapes(model, source, channels_last, overrides.size or size)
    if overrides.head is not None:
        if overrides.head not in shapes:
            names = ", ".join(shapes)
            raise InputError(f"{path}: has no such output", got=f"--head {overrides.head}", expected=f"one of {names}")
        shapes = {overrides.head: shapes[overrides.head]}
    binary = _binary(model, shapes, overrides.size or size)
    if binary:
        shapes = {name: found for name, found in _shapes(model, source, channels_last, overrides.size or size).items()
                  if name == TWO_OUTPUT or overrides.head is None}  # fmt: skip
    wanted = len(spec.labels) if spec else len(read_labels(overrides.labels)) if overrides.labels else 0
    output, form, classes, others = _output(shapes, overrides.size or size, path, wanted)
    if fixed and size and overrides.size and overrides.size != fixed:
        before = _shapes(model, source, channels_last, fixed)[output][1]
        _check_resized(path, fixed, overrides.size, (before, shapes[output][1]))
    if spec is None:
        integer = _element(model, source) in _INTEGERS
        if not classes and trouble and not overrides.labels:
            raise GraphError(
                f"{path}: does not run at {' x '.join(map(str, overrides.size or size or ()))}", got=trouble,
                hint="Another --size may do; or give --labels, and the target's compiler has its say.",
            )  # fmt: skip
        spec, assumed = _foreign_spec(path, overrides, size, classes, integer, TWO_CLASSES if binary else ())
    if binary:
        assumed.append(f"one channel: {binary}")
    if others:
        assumed.append(f"output {output} (there are also {', '.join(others)}: --head)")
    if tiny:
        assumed.append(f"{tiny} scales below 2^-100 belong to dead branches: their values are zeros")
    _check_labels(spec, classes, path)
    return Network(path.stem, model, spec, digest, tuple(assumed), source, output, form, channels_last)


def _stored_spec(text: str, overrides: Overrides, path: Path) -> tuple[ModelSpec, list[str]]:
    spec = ModelSpec.parse(text, str(path))
    changes = overrides.given()
    if overrides.labels:
        changes["labels"] = read_labels(overrides.labels).model_dump()
    try:
        return (spec.replace(**changes) if changes else spec), []
    except ValidationError as error:
        raise InputError(f"{path}: the facts given make no spec", got=first_problem(error)) from error


def _check_size(
    model: onnx.ModelProto, path: Path, fixed: tuple[int, int] | None, size: tuple[int, int] | None, stride: int
) -> None:
    """Raise ``InputError`` where a net cannot run at ``size`` (H, W): its stride, or unpooling to a constant size."""
    if size is None:
        return
    fits = tuple(max(-(-side // stride), 1) * stride for side in size)
    if fits != size:
        raise InputError(
            f"{path}: its height and width must be multiples of {stride}",
            got=f"{size[0]}x{size[1]}",
            hint=f"Give --size {fits[0]}x{fits[1]}.",
        )
    constants = {t.name for t in model.graph.initializer}
    constants |= {n.output[0] for n in model.graph.node if n.op_type == "Constant"}
    unpools = [n for n in model.graph.node if n.op_type == "MaxUnpool" and len(n.input) > 2]
    if fixed and fixed != size and any(n.input[2] in constants for n in unpools):
        raise InputError(
            f"{path}: its unpooling is fixed to an input of {fixed[0]}x{fixed[1]}",
            got=f"--size {size[0]}x{size[1]}",
            hint="Leave --size out, or export the net at that size.",
        )


def _check_resized(
    path: Path, fixed: tuple[int, int], size: tuple[int, int], shapes: tuple[list[int], list[int]]
) -> None:
    """Raise ``InputError`` where a net exported at ``fixed`` (H, W) does not follow its input to ``size``.

    ``shapes`` are its output's at both. Sizes that an exporter wrote down (of an odd map, of an interpolation) stay.
    """
    before, after = shapes
    if not all(before):  # nothing can be told here
        return
    axes = _spatial(before, fixed)
    wanted = [side * before[axis] / old for side, old, axis in zip(size, fixed, axes, strict=True)]
    if any(abs(after[axis] - side) >= 1 for axis, side in zip(axes, wanted, strict=True)):
        raise InputError(
            f"{path}: holds sizes that belong to an input of {fixed[0]}x{fixed[1]}",
            got=f"--size {size[0]}x{size[1]}",
            hint=f"Export the net at that size: edgeseg export CHECKPOINT --size {size[0]}x{size[1]}.",
        )


def _spatial(shape: list[int], size: tuple[int, int]) -> tuple[int, int]:
    """The axes of height and width of an output of ``shape`` for an input of ``size`` (H, W)."""
    if len(shape) < 4:
        return len(shape) - 2, len(shape) - 1
    channels_last = not _is_reduced(size, (shape[2], shape[3])) and _is_reduced(size, (shape[1], shape[2]))
    return (1, 2) if channels_last else (2, 3)


def _element(model: onnx.ModelProto, name: str) -> int:
    """The element type of a graph input."""
    return int(next(i for i in model.graph.input if i.name == name).type.tensor_type.elem_type)


def _input(model: onnx.ModelProto, path: Path) -> tuple[str, bool, tuple[int, int] | None]:
    """Name, whether it is channels-last, and (H, W) where the file fixes them."""
    constants = {t.name for t in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(i.name for i in inputs) or "none"
        raise GraphError(f"{path}: a segmentation net has one input", got=names, expected="one image")
    dims = [d.dim_value if d.HasField("dim_value") else 0 for d in inputs[0].type.tensor_type.shape.dim]
    if len(dims) != 4 or (dims[1] not in (0, 3) and dims[3] != 3):
        raise GraphError(
            f"{path}: input {inputs[0].name!r} is not a colour image", got=dims, expected="(N, 3, H, W) or (N, H, W, 3)"
        )
    channels_last = dims[3] == 3 and dims[1] != 3
    height, width = (dims[1], dims[2]) if channels_last else (dims[2], dims[3])
    return inputs[0].name, channels_last, (height, width) if height > 0 and width > 0 else None


def _shapes(
    model: onnx.ModelProto, source: str, channels_last: bool, size: tuple[int, int] | None
) -> dict[str, tuple[int, list[int]]]:
    """Element type and shape (0 where unknown) of every output, inferred for one frame of ``size``."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    fix_input(copy, source, channels_last, size)
    try:
        copy = infer_shapes(lower_unpooling(copy))
    except GraphError:
        raise
    except Exception:  # an odd operator may defeat inference; the target's compiler still has its say
        copy = model
    found = {}
    for value in copy.graph.output:
        tensor = value.type.tensor_type
        found[value.name] = (
            tensor.elem_type,
            [d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim],
        )
    return found


def _known_shapes(
    model: onnx.ModelProto, source: str, channels_last: bool, size: tuple[int, int] | None
) -> tuple[dict[str, tuple[int, list[int]]], str]:
    """``_shapes``; where those are not known although the input's size is, found by running the net once.

    Also what kept it from running, or ``""``.
    """
    shapes = _shapes(model, source, channels_last, size)
    if size is None or any(all(shape) and len(shape) > 2 for _, shape in shapes.values()):
        return shapes, ""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    dtype = helper.tensor_dtype_to_np_dtype(_element(model, source))
    frame = np.zeros((1, *size, 3) if channels_last else (1, 3, *size), dtype)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    fix_input(copy, source, channels_last, size)
    try:
        data = lower_unpooling(copy).SerializeToString()
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        found = dict(zip((o.name for o in session.get_outputs()), session.run(None, {source: frame}), strict=True))
    except GraphError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        return shapes, " ".join(str(error).split())[:300]
    kinds = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in found.items()}
    return {name: (kinds[name], list(value.shape)) for name, value in found.items()}, ""


def _binary(model: onnx.ModelProto, shapes: dict[str, tuple[int, list[int]]], size: tuple[int, int] | None) -> str:
    """Give a net of one channel of scores, and no other segmentation, two; in place.

    Returns what is assumed of it, or ``""``.
    """
    if any(_form(kind, shape, size, 0)[0] for kind, shape in shapes.values()):
        return ""
    found = []
    for name, (kind, shape) in shapes.items():
        if kind != TensorProto.FLOAT or len(shape) != 4:
            continue
        axis = 1 if shape[1] == 1 else 3
        height, width = shape[2:] if axis == 1 else shape[1:3]
        if shape[axis] == 1 and _is_reduced(size, (height, width)):
            found.append((height * width, name, axis))
    if not found:
        return ""
    _, name, axis = max(found, key=lambda one: one[0])  # training heads are smaller
    return two_classes(model, name, axis)[1]


def fix_input(model: onnx.ModelProto, source: str, channels_last: bool, size: tuple[int, int] | None) -> None:
    """Set the input's shape to one frame of ``size`` (H, W), in place; inferred shapes of a free size are dropped."""
    value = next(i for i in model.graph.input if i.name == source)
    dims = value.type.tensor_type.shape.dim
    spatial = (1, 2) if channels_last else (2, 3)
    same_size = size is not None and all(dims[axis].dim_value == side for axis, side in zip(spatial, size, strict=True))
    dims[0].dim_value = 1
    dims[3 if channels_last else 1].dim_value = 3
    if size:
        for axis, length in zip(spatial, size, strict=True):
            dims[axis].dim_value = length
    del model.graph.value_info[:]
    for output in model.graph.output:
        for dim in output.type.tensor_type.shape.dim if not same_size else output.type.tensor_type.shape.dim[:1]:
            dim.Clear()


def _output(
    shapes: dict[str, tuple[int, list[int]]], size: tuple[int, int] | None, path: Path, wanted: int
) -> tuple[str, str, int, list[str]]:
    """The output to use, its form, its classes (0 where the file does not say), and the others it was chosen over.

    Of those that can be a segmentation (of ``wanted`` classes, if any can), the largest: training heads are smaller.
    """
    found = [(name, *_form(kind, shape, size, wanted), shape) for name, (kind, shape) in shapes.items()]
    usable = [entry for entry in found if entry[1]]
    if not usable:
        said = "; ".join(f"{name} {shape}" for name, (_, shape) in shapes.items())
        raise GraphError(
            f"{path}: no output is a segmentation",
            got=said,
            expected="(N, classes, H, W) or (N, H, W, classes) scores, or an integer (N, H, W) or (H, W) label map",
            hint="Export the net with its scores as the output.",
        )
    fitting = [entry for entry in usable if not wanted or entry[2] in (0, wanted)] or usable

    def pixels(entry: tuple[str, str, int, list[int]]) -> int:
        _, form, _, shape = entry
        height, width = (shape[1], shape[2]) if form != "nchw" and len(shape) > 2 else (shape[-2], shape[-1])
        return height * width

    best = max(fitting, key=pixels)
    return best[0], best[1], best[2], [entry[0] for entry in fitting if entry is not best]


def _form(kind: int, shape: list[int], size: tuple[int, int] | None, wanted: int) -> tuple[str, int]:
    """What an output of this element type and shape is: ``labels``, ``nchw``, ``nhwc`` or nothing; and its classes."""
    if kind in _INTEGERS:
        flat = len(shape) in (2, 3) or (len(shape) == 4 and 1 in (shape[1], shape[3]))
        return ("labels", 0) if flat else ("", 0)
    if len(shape) != 4:
        return "", 0
    planes_fit = _is_reduced(size, (shape[2], shape[3])) and wanted in (0, shape[1])
    pixels_fit = _is_reduced(size, (shape[1], shape[2])) and wanted in (0, shape[3])
    if pixels_fit and not planes_fit:
        return ("nhwc", shape[3]) if shape[3] != 1 else ("", 0)
    return ("nchw", shape[1]) if shape[1] != 1 else ("", 0)


def _is_reduced(size: tuple[int, int] | None, out: tuple[int, int]) -> bool:
    """Whether ``out`` (H, W) can be the input ``size`` divided by one factor, give or take a border; unknown: yes."""
    if size is None or 0 in out:
        return True
    factor = size[0] / out[0]
    return 0.5 <= factor <= 64 and abs(size[1] / factor - out[1]) <= 2


def _foreign_spec(
    path: Path,
    overrides: Overrides,
    size: tuple[int, int] | None,
    classes: int,
    integer: bool,
    names: tuple[str, ...] = (),
) -> tuple[ModelSpec, list[str]]:
    facts = overrides.given()
    if "input_size" not in facts:
        if size is None:
            raise InputError(f"{path}: its input size is free", hint="Give one: --size HEIGHTxWIDTH.")
        facts["input_size"] = size
    assumed: list[str] = []
    defaults = {
        "mean": "mean 0.485 0.456 0.406 (ImageNet)",
        "std": "std 0.229 0.224 0.225 (ImageNet)",
        "scale": "scale 1/255",
        "colour": "colour order RGB",
    }
    if integer:  # the net normalises bytes itself
        plain = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "scale": 1.0}
        if any(facts.get(key, value) != value for key, value in plain.items()):
            raise InputError(f"{path}: takes whole numbers", got="--mean, --std or --scale", hint="Leave them out.")
        facts |= plain
        assumed.append("bytes as they are, because the input is of integer type")
    assumed += [text for key, text in defaults.items() if key not in facts]
    if overrides.labels:
        labels = read_labels(overrides.labels)
    elif not classes:
        raise InputError(f"{path}: how many classes it has cannot be read from it", hint="Give --labels NAME or FILE.")
    else:
        fitting = [space for space in LABEL_SPACES.values() if len(space) == classes and not names]
        labels = fitting[0] if fitting else generic_space(classes, names)
        assumed.append(f"labels {labels.name}")
    try:
        return ModelSpec(architecture="foreign", labels=labels, **facts), assumed
    except ValidationError as error:
        raise InputError(f"{path}: the facts given make no spec", got=first_problem(error)) from error


def read_labels(text: str) -> LabelSpace:
    """A known label space by name, a JSON file of one, or a text file with a class name a line."""
    if text in LABEL_SPACES:
        return LABEL_SPACES[text]
    path = Path(text)
    if not path.is_file():
        return label_space(text)
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
    if classes and classes != len(spec.labels):
        raise InputError(
            f"{path}: its number of classes and its labels disagree",
            got=f"{classes} outputs and {len(spec.labels)} names ({spec.labels.name})",
            hint="Give the right ones: --labels NAME or FILE.",
        )
