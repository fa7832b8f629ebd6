"""Write a PyTorch model as an ONNX file with its spec inside.

The file is compared with PyTorch before it gets its name.

Pooling with positions and unpooling become the ONNX standard's own ``MaxPool`` with ``Indices`` and
``MaxUnpool``, so that any tool can read the file. ``edgeseg.graph.passes.unpool`` lowers them at
build time.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from onnxscript import opset18 as op
from pydantic import ValidationError
from torch import nn

import edgeseg.models.pooling  # noqa: F401  registers the two operators, whatever net is exported
from edgeseg.errors import GraphError, InputError
from edgeseg.files import write_bytes
from edgeseg.graph.network import Overrides, read_labels
from edgeseg.graph.passes.fp16_weights import store_fp16_weights
from edgeseg.models.checkpoint import load_checkpoint, save_checkpoint
from edgeseg.spec import METADATA_KEY, ModelSpec, check_input_size, first_problem, generic_space

OPSET = 18  # TensorRT 10.3 (JetPack 6) reads 17 to 20
# PyTorch and ONNX Runtime add float32 numbers in different orders. The logits may differ by this
# much of their own range, and this share of the labels must be equal.
TOLERANCE = 1e-4
SAME_LABELS = 0.999


def export_checkpoint(
    checkpoint: str | Path,
    out: str | Path | None = None,
    size: tuple[int, int] | None = None,
    *,
    half: bool = False,
) -> Path:
    """Write the model of a checkpoint as an ONNX file.

    Parameters
    ----------
    checkpoint : the checkpoint.
    out : the file to write. If it ends in ``.pt``, it becomes a checkpoint again, with the new
        size and weights. The default is named after the checkpoint's folder, with the suffix
        ``.onnx``, and lies beside the checkpoint.
    size : (H, W) of the input; the default is the size that the model was trained at.
    half : store the weights in FP16.

    Returns
    -------
    The path of the file.

    Raises
    ------
    InputError : the file is not a checkpoint, or ``size`` does not fit the model.
    GraphError : the ONNX file does not compute what PyTorch computes.
    OutputError : ``out`` cannot be written.
    """
    checkpoint = Path(checkpoint)
    net, spec, notes = load_checkpoint(checkpoint)
    if size is not None:
        spec = spec.replace(input_size=size)
        check_input_size(spec)

    path = Path(out) if out else checkpoint.with_name(f"{checkpoint.resolve().parent.name}.onnx")
    if path.suffix == ".pt":
        return save_checkpoint(path, net, spec, notes, half=half)

    # The notes, except the recipe, become metadata of the ONNX file.
    info = {f"edgeseg.{key}": str(value) for key, value in notes.items() if key != "recipe"}
    return export_module(net, spec, path, info, half=half)


def export_foreign(
    net: nn.Module,
    name: str,
    overrides: Overrides,
    out: str | Path | None = None,
    *,
    half: bool = False,
) -> Path:
    """Write a user's model as an ONNX file.

    The number of classes is found by running the model.

    Parameters
    ----------
    net : the model.
    name : its name, for the spec, for messages and for the default path.
    overrides : the facts of the spec: the input size, and whatever differs from ImageNet's
        defaults.
    out : the file to write; the default is ``NAME.onnx`` in the current folder.
    half : store the weights in FP16.

    Returns
    -------
    The path of the file.

    Raises
    ------
    InputError : the model does not segment frames of that size, the labels do not fit its classes,
        or the facts make no spec.
    GraphError : the ONNX file does not compute what PyTorch computes.
    OutputError : ``out`` cannot be written.
    """
    if out is not None and Path(out).suffix == ".pt":
        raise InputError(
            f"{name}: only edgeseg's own nets become checkpoints",
            got=str(out),
            expected="NAME.onnx",
        )
    if overrides.size is None:
        raise InputError(
            "a net that is not edgeseg's needs an input size", hint="Give `size=HEIGHTxWIDTH`."
        )

    # Find the label space: the user's, or a generic one.
    classes = _count_classes(net, name, overrides.size)
    labels = read_labels(overrides.labels) if overrides.labels else generic_space(classes)
    if len(labels) != classes:
        raise InputError(
            f"{name}: its classes are not those of {labels.name}",
            got=classes,
            expected=len(labels),
        )

    # Make the spec.
    facts: dict[str, Any] = {"architecture": name, "labels": labels, **overrides.given()}
    try:
        spec = ModelSpec(**facts)
    except ValidationError as error:
        raise InputError(
            f"{name}: the facts given make no spec", got=first_problem(error)
        ) from error

    path = Path(out) if out else Path(f"{name}.onnx")
    return export_module(net, spec, path, half=half)


def _count_classes(net: nn.Module, name: str, size: tuple[int, int]) -> int:
    """Return the number of classes of a model: the channels of its logits for a frame of ``size``.

    Raises ``InputError`` if the model does not map a frame to logits.
    """
    frame = torch.zeros(1, 3, *size)
    try:
        with torch.inference_mode():
            logits = net.eval()(frame)
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(
            f"{name} does not take a frame of {size[0]}x{size[1]} (HxW)",
            got=str(error).splitlines()[0],
            expected="a module that maps (1, 3, H, W) to (1, classes, h, w)",
        ) from error

    if not isinstance(logits, torch.Tensor) or logits.ndim != 4 or logits.shape[1] < 2:
        got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise InputError(
            f"{name} gives no scores a class and pixel", got=got, expected="(1, classes, h, w)"
        )
    return int(logits.shape[1])


def export_module(
    net: nn.Module,
    spec: ModelSpec,
    path: Path,
    info: dict[str, str] | None = None,
    *,
    half: bool = False,
) -> Path:
    """Write a model as an ONNX file with a free batch size and its spec inside, and check it.

    Parameters
    ----------
    net : the model, (N, 3, H, W) float32 -> (N, classes, h, w) logits.
    spec : its contract.
    path : the file to write.
    info : more metadata for the file.
    half : store the weights in FP16, after the check.

    Returns
    -------
    ``path``.

    Raises
    ------
    GraphError : the ONNX graph does not compute what PyTorch computes.
    OutputError : the file cannot be written.
    """
    # Translate.
    net = net.eval()
    model = simplify(_translate(net, spec))

    # Add the spec and other metadata.
    for key, value in {METADATA_KEY: spec.to_json(), **(info or {})}.items():
        model.metadata_props.add(key=key, value=value)
    model.producer_name = "edgeseg"

    # Check, then write.
    onnx.checker.check_model(model, full_check=True)
    check_against(net, model, spec)
    if half:
        model = store_fp16_weights(model)
    return write_bytes(path, model.SerializeToString())


def _pool_to_onnx(x: Any) -> Any:
    """Translate the pooling of ``edgeseg.models.pooling``."""
    return op.MaxPool(x, kernel_shape=[2, 2], strides=[2, 2])


def _unpool_to_onnx(values: Any, index: Any, like: Any) -> Any:
    """Translate the unpooling of ``edgeseg.models.pooling``."""
    return op.MaxUnpool(values, index, op.Shape(like), kernel_shape=[2, 2], strides=[2, 2])


def _translate(net: nn.Module, spec: ModelSpec) -> onnx.ModelProto:
    """Translate ``net`` to ONNX with input ``image``, output ``logits`` and a free batch size."""
    table: dict[Callable[..., Any], Callable[..., Any]] = {
        torch.ops.edgeseg.max_pool_positions.default: _pool_to_onnx,
        torch.ops.edgeseg.max_unpool_positions.default: _unpool_to_onnx,
    }
    example = torch.zeros(2, 3, *spec.input_size)

    # The exporter warns, logs and prints; none of that is for users.
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        _quiet("torch.onnx", "onnxscript", "onnx_ir"),
    ):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            custom_translation_table=table,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch"},),
            verbose=False,
        )
    assert program is not None
    return program.model_proto


@contextlib.contextmanager
def _quiet(*names: str) -> Any:
    """Keep the loggers of these names quiet inside the block, except for errors."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants, and batch normalisation into convolutions, with onnx-simplifier.

    Parameters
    ----------
    model : the ONNX model; not changed.

    Raises
    ------
    GraphError : onnx-simplifier found that its result computes something else.
    """
    import onnxsim

    simple, ok = onnxsim.simplify(model)
    if not ok:
        raise GraphError(
            "onnx-simplifier changed what the net computes", hint="Report it with the checkpoint."
        )
    return cast(onnx.ModelProto, simple)


def check_against(net: nn.Module, model: onnx.ModelProto, spec: ModelSpec) -> float:
    """Compare PyTorch with ONNX Runtime on noise.

    The difference is the 99th percentile over all logits, relative to their range. It is not the
    largest one: if two values of a pooling window almost tie, rounding alone may move the maximum
    to the other one, and unpooling then moves the value by a pixel.

    Parameters
    ----------
    net : the PyTorch model, in evaluation mode.
    model : the ONNX model.
    spec : gives the input size.

    Returns
    -------
    The difference.

    Raises
    ------
    GraphError : the difference is more than rounding.
    """
    import onnxruntime

    # Run both on the same noise.
    image = np.random.default_rng(0).normal(size=(2, 3, *spec.input_size)).astype(np.float32)
    with torch.inference_mode():
        want = net(torch.from_numpy(image)).numpy()
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (got,) = session.run(None, {session.get_inputs()[0].name: image})

    # Compare logits and labels.
    value_range = max(float(np.ptp(want)), 1e-6)
    difference = float(np.quantile(np.abs(got - want), 0.99) / value_range)
    same_labels = float((got.argmax(1) == want.argmax(1)).mean())
    if not difference <= TOLERANCE or same_labels < SAME_LABELS:
        raise GraphError(
            "the ONNX file and PyTorch disagree",
            got=f"{difference:.1e} of the logits' range and {100 * same_labels:.2f} % of labels "
            "the same",
            expected=f"at most {TOLERANCE:.0e} and at least {100 * SAME_LABELS:.1f} %",
        )
    return difference
