"""Find the ends of a segmentation graph: its image input, and the output that is a segmentation."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgeseg.errors import GraphError, InputError
from edgeseg.graph.graph import Graph, infer_shapes
from edgeseg.graph.nodes import copied
from edgeseg.graph.passes import PassContext
from edgeseg.graph.passes.canonicalize import two_classes
from edgeseg.graph.passes.unpool import lower_unpooling

INTEGERS = {TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8, TensorProto.INT8}


def check_resized(
    path: Path, fixed: tuple[int, int], size: tuple[int, int], shapes: tuple[list[int], list[int]]
) -> None:
    """Raise ``InputError`` if the output does not grow or shrink with the input.

    Sizes that an exporter wrote into the file (of a map with odd sides, of an interpolation) stay
    as they are when the input gets another size.

    Parameters
    ----------
    path : the ONNX file, for the error.
    fixed : height and width that the file was exported at.
    size : height and width that it is used at.
    shapes : the output's shape at ``fixed`` and at ``size``.

    Raises
    ------
    InputError : the sides of the output differ by a pixel or more from the expected ones.

    Examples
    --------
    >>> follows = ([1, 11, 90, 120], [1, 11, 180, 240])
    >>> check_resized(Path("net.onnx"), (360, 480), (720, 960), follows)
    """
    before, after = shapes
    if not all(before):  # an unknown size: nothing to compare
        return

    axes = _spatial(before, fixed)
    wanted = [side * before[axis] / old for side, old, axis in zip(size, fixed, axes, strict=True)]
    differences = [abs(after[axis] - side) for axis, side in zip(axes, wanted, strict=True)]
    if any(difference >= 1 for difference in differences):
        raise InputError(
            f"{path}: holds sizes that belong to an input of {fixed[0]}x{fixed[1]} (HxW)",
            got=f"`size={size[0]}x{size[1]}`",
            hint=f"Export the net at that size: `export(CHECKPOINT, size={size[0]}x{size[1]})`.",
        )


def _spatial(shape: list[int], size: tuple[int, int]) -> tuple[int, int]:
    """Return the axes of height and width of an output, for an input of ``size`` (H, W)."""
    if len(shape) < 4:
        return len(shape) - 2, len(shape) - 1

    planes_fit = _is_reduced(size, (shape[2], shape[3]))
    channels_last = not planes_fit and _is_reduced(size, (shape[1], shape[2]))
    return (1, 2) if channels_last else (2, 3)


def element_type(model: onnx.ModelProto, name: str) -> int:
    """Return the ONNX element type of a graph input.

    Parameters
    ----------
    model : the ONNX graph.
    name : the name of one of its inputs.
    """
    return int(next(i for i in model.graph.input if i.name == name).type.tensor_type.elem_type)


def find_input(model: onnx.ModelProto, path: Path) -> tuple[str, bool, tuple[int, int] | None]:
    """Find the image input of a graph.

    Parameters
    ----------
    model : the ONNX graph.
    path : its file, for the error.

    Returns
    -------
    The input's name, True if it is channels-last, and (H, W) or ``None`` if the file leaves them
    open.

    Raises
    ------
    GraphError : there is not exactly one input, or it is no colour image.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(i.name for i in inputs) or "none"
        raise GraphError(
            f"{path}: a segmentation net has one input", got=names, expected="one image"
        )

    dims = _sizes(inputs[0].type.tensor_type)
    if len(dims) != 4 or (dims[1] not in (0, 3) and dims[3] != 3):
        raise GraphError(
            f"{path}: input {inputs[0].name!r} is not a colour image",
            got=dims,
            expected="(N, 3, H, W) or (N, H, W, 3)",
        )

    channels_last = dims[3] == 3 and dims[1] != 3
    height, width = (dims[1], dims[2]) if channels_last else (dims[2], dims[3])
    size = (height, width) if height > 0 and width > 0 else None
    return inputs[0].name, channels_last, size


def _sizes(tensor: onnx.TypeProto.Tensor) -> list[int]:
    """Return the sizes of a tensor, 0 for those that are not numbers."""
    return [dim.dim_value if dim.HasField("dim_value") else 0 for dim in tensor.shape.dim]


def inferred_shapes(
    model: onnx.ModelProto, source: str, channels_last: bool, size: tuple[int, int] | None
) -> dict[str, tuple[int, list[int]]]:
    """Infer the type and shape of every output, for one frame.

    Parameters
    ----------
    model : the ONNX graph; it is not changed.
    source : the name of the image input.
    channels_last : True if the input is (N, H, W, 3).
    size : height and width of the frame, or ``None`` if they are open.

    Returns
    -------
    For each output by name its ONNX element type and its shape, with 0 for unknown sizes.

    Raises
    ------
    GraphError : the graph has an unpooling that cannot be lowered.
    """
    copy = copied(model)
    fix_input(copy, source, channels_last, size)
    graph = Graph(copy)
    try:
        lower_unpooling(graph, PassContext())
        copy = infer_shapes(graph.model)
    except GraphError:
        raise
    except (
        Exception
    ):  # an odd operator may defeat inference; the target's compiler still has its say
        copy = model

    found = {}
    for value in copy.graph.output:
        tensor = value.type.tensor_type
        found[value.name] = (tensor.elem_type, _sizes(tensor))
    return found


def output_shapes(
    model: onnx.ModelProto, source: str, channels_last: bool, size: tuple[int, int] | None
) -> tuple[dict[str, tuple[int, list[int]]], str]:
    """Find the type and shape of every output: by inference, or else by running the graph once.

    The graph is run on zeros by ONNX Runtime if the size of the input is known but inference finds
    no complete shape of an output.

    Parameters
    ----------
    model : the ONNX graph; it is not changed.
    source : the name of the image input.
    channels_last : True if the input is (N, H, W, 3).
    size : height and width of the frame, or ``None`` if they are open.

    Returns
    -------
    For each output by name its ONNX element type and its shape (0 for unknown sizes); and the error
    that kept the graph from running, or ``""``.

    Raises
    ------
    GraphError : the graph has an unpooling that cannot be lowered.
    """
    shapes = inferred_shapes(model, source, channels_last, size)
    if size is None or any(all(shape) and len(shape) > 2 for _, shape in shapes.values()):
        return shapes, ""

    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are returned, not logged
    dtype = helper.tensor_dtype_to_np_dtype(element_type(model, source))
    frame = np.zeros((1, *size, 3) if channels_last else (1, 3, *size), dtype)

    copy = copied(model)
    fix_input(copy, source, channels_last, size)
    graph = Graph(copy)
    try:
        lower_unpooling(graph, PassContext())
        data = graph.model.SerializeToString()
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        found = dict(zip(names, session.run(None, {source: frame}), strict=True))
    except GraphError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base but Exception
        return shapes, " ".join(str(error).split())[:300]

    run_shapes: dict[str, tuple[int, list[int]]] = {}
    for name, value in found.items():
        run_shapes[name] = (helper.np_dtype_to_tensor_dtype(value.dtype), list(value.shape))
    return run_shapes, ""


def split_binary(
    model: onnx.ModelProto, shapes: dict[str, tuple[int, list[int]]], size: tuple[int, int] | None
) -> str:
    """Give a network with one channel of logits two classes, in place.

    Nothing is changed if the network has another output that is a segmentation.

    Parameters
    ----------
    model : the ONNX graph.
    shapes : element type and shape of its outputs, by name.
    size : height and width of the input, or ``None`` if they are open.

    Returns
    -------
    The rule that is assumed for the foreground, or ``""`` if nothing was changed.
    """
    if any(_form(kind, shape, size, 0)[0] for kind, shape in shapes.values()):
        return ""

    # Outputs of one channel: (pixels, name, axis of the channel).
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


def fix_input(
    model: onnx.ModelProto, source: str, channels_last: bool, size: tuple[int, int] | None
) -> None:
    """Set the input's shape to one frame, in place.

    Shapes that were inferred for another size are dropped.

    Parameters
    ----------
    model : the ONNX graph.
    source : the name of the image input.
    channels_last : True if the input is (N, H, W, 3).
    size : height and width, or ``None`` to leave them as they are.
    """
    value = next(i for i in model.graph.input if i.name == source)
    dims = value.type.tensor_type.shape.dim
    spatial = (1, 2) if channels_last else (2, 3)
    same_size = size is not None and all(
        dims[axis].dim_value == side for axis, side in zip(spatial, size, strict=True)
    )

    dims[0].dim_value = 1
    dims[3 if channels_last else 1].dim_value = 3
    if size:
        for axis, length in zip(spatial, size, strict=True):
            dims[axis].dim_value = length

    # Of the outputs only the batch is stale if the size stays the same.
    del model.graph.value_info[:]
    for output in model.graph.output:
        output_dims = output.type.tensor_type.shape.dim
        for dim in output_dims[:1] if same_size else output_dims:
            dim.Clear()


def choose_output(
    shapes: dict[str, tuple[int, list[int]]], size: tuple[int, int] | None, path: Path, wanted: int
) -> tuple[str, str, int, list[str]]:
    """Choose the output to use: the largest one that can be a segmentation.

    Training heads are smaller than the output of inference. Outputs that can have ``wanted``
    classes go before the others.

    Parameters
    ----------
    shapes : element type and shape of the outputs, by name.
    size : height and width of the input, or ``None`` if they are open.
    path : the ONNX file, for the error.
    wanted : the number of classes of the labels, 0 if unknown.

    Returns
    -------
    The output's name, its form (``nchw``, ``nhwc`` or ``labels``), its number of classes (0 if the
    file does not say), and the names of the other candidates.

    Raises
    ------
    GraphError : no output can be a segmentation.

    Examples
    --------
    >>> shapes = {"aux": (1, [1, 11, 90, 120]), "logits": (1, [1, 11, 360, 480])}
    >>> choose_output(shapes, (360, 480), Path("net.onnx"), 11)
    ('logits', 'nchw', 11, ['aux'])
    """
    found = []
    for name, (kind, shape) in shapes.items():
        form, classes = _form(kind, shape, size, wanted)
        found.append((name, form, classes, shape))
    usable = [entry for entry in found if entry[1]]
    if not usable:
        said = "; ".join(f"{name} {shape}" for name, (_, shape) in shapes.items())
        raise GraphError(
            f"{path}: no output is a segmentation",
            got=said,
            expected=(
                "(N, classes, H, W) or (N, H, W, classes) scores, "
                "or an integer (N, H, W) or (H, W) label map"
            ),
            hint="Export the net with its scores as the output.",
        )
    fitting = [entry for entry in usable if not wanted or entry[2] in (0, wanted)]
    fitting = fitting or usable

    def pixels(entry: tuple[str, str, int, list[int]]) -> int:
        """Return the number of pixels of an output."""
        _, form, _, shape = entry
        first = form != "nchw" and len(shape) > 2  # height and width directly behind the batch
        height, width = (shape[1], shape[2]) if first else (shape[-2], shape[-1])
        return height * width

    best = max(fitting, key=pixels)
    others = [entry[0] for entry in fitting if entry is not best]
    return best[0], best[1], best[2], others


def _form(
    kind: int, shape: list[int], size: tuple[int, int] | None, wanted: int
) -> tuple[str, int]:
    """Return the form of an output, and its number of classes (0 if unknown).

    The form is ``labels``, ``nchw``, ``nhwc``, or ``""`` if this type and shape are no
    segmentation.
    """
    if kind in INTEGERS:
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
    """Return True if ``out`` (H, W) can be the input ``size`` divided by one factor.

    A border of two pixels may be missing. Unknown sizes count as fitting.
    """
    if size is None or 0 in out:
        return True
    factor = size[0] / out[0]
    return 0.5 <= factor <= 64 and abs(size[1] / factor - out[1]) <= 2
